"""From a text file to batches: nothing is lost, everything is reachable, and validation is never trained on."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common import data
from common.data import Corpus, batch, read_corpus, require_length
from common.tokenizer import CharTokenizer

texts = st.text(min_size=1, max_size=60)
seeds = st.integers(0, 2**32 - 1)


def write(folder: str | Path, text: str) -> Path:
    file = Path(folder) / "text.txt"
    file.write_bytes(text.encode())
    return file


def corpus_of(length: int) -> Corpus:
    """Every token is its own place in the text."""
    return Corpus(CharTokenizer("ab"), np.arange(length, dtype=np.uint32))


# ── reading ───────────────────────────────────────────────────────────────────────────────────────────────


@given(text=texts)
def test_decoding_the_corpus_gives_back_the_file_character_by_character(text):
    with tempfile.TemporaryDirectory() as folder:
        corpus = read_corpus(write(folder, text))
        assert corpus.tokenizer.decode(corpus.tokens) == text
        assert corpus.tokenizer == CharTokenizer.of(text)


@given(text=texts, size=st.integers(1, 7))
def test_a_text_read_in_small_pieces_is_the_same_corpus(text, size):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        whole = read_corpus(write(folder, text))
        patch.setattr(data, "CHUNK", size)
        pieces = read_corpus(write(folder, text))
        assert pieces.tokenizer == whole.tokenizer
        assert np.array_equal(pieces.tokens, whole.tokens)


def test_line_ends_are_characters_like_any_other(tmp_path):
    corpus = read_corpus(write(tmp_path, "a\r\nb\nc\r"))
    assert corpus.tokenizer.decode(corpus.tokens) == "a\r\nb\nc\r"


@pytest.mark.parametrize(("distinct", "dtype"), [(1, "uint8"), (256, "uint8"), (257, "uint16"), (70_000, "uint32")])
def test_tokens_take_as_few_bytes_as_the_alphabet_allows(tmp_path, distinct, dtype):
    text = "".join(chr(0x10000 + i) for i in range(distinct))
    corpus = read_corpus(write(tmp_path, text))
    assert corpus.tokens.dtype == dtype
    assert len(np.unique(corpus.tokens)) == distinct


def test_a_given_alphabet_is_kept_and_what_it_lacks_is_named(tmp_path):
    tokenizer = CharTokenizer("abcxyz")
    corpus = read_corpus(write(tmp_path, "cab"), tokenizer)
    assert corpus.tokenizer is tokenizer
    assert corpus.tokens.tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match=r"'!' \(U\+0021\)"):
        read_corpus(write(tmp_path, "cab!"), tokenizer)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        read_corpus(write(tmp_path, ""))


# ── training and validation ───────────────────────────────────────────────────────────────────────────────


@given(length=st.integers(0, 5000))
def test_train_and_validation_are_the_text_cut_once_nine_to_one(length):
    corpus = corpus_of(length)
    assert np.array_equal(np.concatenate((corpus.train, corpus.validation)), corpus.tokens)
    assert len(corpus.train) == length * 9 // 10


@given(length=st.integers(20, 300), block_size=st.integers(1, 8), seed=seeds, step=st.integers(0, 99))
def test_no_batch_of_the_training_part_holds_a_token_of_the_validation_part(length, block_size, seed, step):
    corpus = corpus_of(length)
    x, y = batch(corpus.train, block_size, 64, seed, step)
    assert max(x.max(), y.max()) < corpus.validation[0]


@given(length=st.integers(0, 300), block_size=st.integers(1, 20))
def test_a_text_is_accepted_exactly_if_both_parts_hold_a_piece_and_its_targets(length, block_size):
    corpus = corpus_of(length)
    if min(len(corpus.train), len(corpus.validation)) >= block_size + 1:
        require_length(corpus, block_size)
        for part in (corpus.train, corpus.validation):
            assert batch(part, block_size, 3, 0, 0)[0].shape == (3, block_size)
    else:
        with pytest.raises(ValueError, match="choose a longer text or a smaller --block-size"):
            require_length(corpus, block_size)


@given(block_size=st.integers(1, 200))
def test_the_length_that_the_refusal_asks_for_is_enough(block_size):
    with pytest.raises(ValueError, match=f"needs at least {10 * (block_size + 1):,} "):
        require_length(corpus_of(5), block_size)
    require_length(corpus_of(10 * (block_size + 1)), block_size)


# ── batches ───────────────────────────────────────────────────────────────────────────────────────────────

places = st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 30))  # block_size, batch_size, spare tokens


@given(sizes=places, seed=seeds, step=st.integers(0, 10**6))
def test_targets_are_the_inputs_one_character_later_cut_from_one_place(sizes, seed, step):
    block_size, batch_size, spare = sizes
    x, y = batch(np.arange(100, 100 + block_size + spare, dtype=np.uint8), block_size, batch_size, seed, step)
    assert x.shape == y.shape == (batch_size, block_size)
    assert x.dtype == y.dtype == torch.int64
    assert torch.equal(x, x[:, :1] + torch.arange(block_size))
    assert torch.equal(y, x + 1)


@given(sizes=places, seed=seeds, step=st.integers(0, 10**6))
def test_a_batch_is_a_pure_function_of_seed_and_step(sizes, seed, step):
    block_size, batch_size, spare = sizes
    tokens = np.arange(block_size + spare, dtype=np.uint16)
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first = batch(tokens, block_size, batch_size, seed, step)
    batch(tokens, block_size, batch_size, seed, step + 1)
    again = batch(tokens, block_size, batch_size, seed, step)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state()[1].tolist() == state[1]


@given(seed=seeds, step=st.integers(0, 10**6))
def test_another_seed_and_another_step_give_another_batch(seed, step):
    tokens = np.arange(10_000, dtype=np.uint16)
    batches = [batch(tokens, 4, 16, s, t)[0] for s, t in ((seed, step), (seed, step + 1), (seed + 1, step))]
    assert not any(torch.equal(batches[i], batches[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize(("length", "block_size"), [(12, 3), (9, 8), (10, 8), (40, 1)])
def test_every_start_including_the_last_is_equally_likely_within_5_sigma(length, block_size):
    draws, starts = 20_000, length - block_size
    x, y = batch(np.arange(length, dtype=np.uint8), block_size, draws, seed=7, step=0)
    counts = torch.bincount(x[:, 0], minlength=starts)
    assert len(counts) == starts  # and y reaches the very last token
    assert y.max() == length - 1
    sigma = (draws * (1 / starts) * (1 - 1 / starts)) ** 0.5
    assert ((counts - draws / starts).abs() <= 5 * sigma).all()
