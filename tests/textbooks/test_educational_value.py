"""The filter finds what its labels call good, on chunks it has not seen; labels say who wrote them."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from common.training import Recipe
from textbooks import educational_value as value
from textbooks.code_model import mean_pooled_states, token_stream, train_code_model, train_tokenizer
from textbooks.educational_value import Label, agreement, cross_validate, keep_best, labelled, read_labels
from textbooks.raw_code import Chunk
from textbooks.records import END_OF_TEXT


class Config:
    block_size = 16


class Model(nn.Module):
    """The smallest causal language model: the mean of the embeddings so far."""

    config = Config()

    def __init__(self, vocab_size: int):
        super().__init__()
        self.wte = nn.Embedding(vocab_size, 8)
        self.lm_head = nn.Linear(8, vocab_size)

    def forward(self, idx, targets=None):
        x = self.wte(idx).cumsum(1) / torch.arange(1, idx.size(1) + 1)[:, None]
        logits = self.lm_head(x)
        return logits, None if targets is None else nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def corpus(n: int) -> list[Chunk]:
    return [Chunk("m.py", f"f{i}", f"def f{i}():\n    return {i}\n" + "#" * (i % 7)) for i in range(n)]


def labels_for(chunks: list[Chunk], scores: np.ndarray) -> dict[str, Label]:
    return {c.key: Label(c.key, int(s), "a test") for c, s in zip(chunks, scores, strict=True)}


def test_every_label_says_that_a_language_model_wrote_it():
    for path in (value.FIRST, value.SECOND):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert all("language model (Claude)" in row["source"] for row in rows)
        assert all(row["keep"] == (row["score"] >= value.KEEP_SCORE) for row in rows)
        assert len({row["key"] for row in rows}) == len(rows)


def test_the_second_labelling_is_of_chunks_of_the_first_in_another_order():
    first, second = list(read_labels()), list(read_labels(value.SECOND))
    assert len(first) == 400 and len(second) >= 120 and set(second) <= set(first)
    places = [first.index(key) for key in second]
    assert abs(np.corrcoef(places, range(len(places)))[0, 1]) < 0.25


def test_a_label_fits_only_the_very_source_that_was_read():
    chunks = corpus(3)
    labels = labels_for(chunks[:2], np.array([1, 5]))
    changed = Chunk("m.py", "f0", chunks[0].source + " ")
    found, scores = labelled([changed, *chunks], labels)
    assert found == chunks[:2] and scores.tolist() == [1, 5]


def test_a_score_out_of_range_is_named_with_its_line(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text('{"key": "a", "score": 3, "source": "x"}\n{"key": "b", "score": 6, "source": "x"}\n')
    with pytest.raises(ValueError, match=r"labels\.jsonl, line 2: the score is 6, give one from 1 to 5"):
        read_labels(path)


def test_kappa_is_one_for_identity_zero_for_chance_and_as_by_hand_between():
    keys = [f"k{i}" for i in range(400)]
    label = lambda scores: {k: Label(k, int(s), "") for k, s in zip(keys, scores, strict=False)}  # noqa: E731
    rng = np.random.default_rng(0)
    some, other = rng.integers(1, 6, 400), rng.integers(1, 6, 400)
    assert agreement(label(some), label(some)).keep == agreement(label(some), label(some)).score == 1
    assert abs(agreement(label(some), label(other)).keep) < 0.15
    # 20 both keep, 15 both drop, 5 and 10 differ: observed 0.7, chance 0.5
    first = [4] * 25 + [3] * 25
    second = [4] * 20 + [3] * 5 + [4] * 10 + [3] * 15
    assert agreement(label(first), label(second)).keep == pytest.approx((0.7 - 0.5) / (1 - 0.5))


def planted(n: int, seed: int, signal: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.choice([1, 2, 3, 4, 5], n, p=[0.3, 0.3, 0.2, 0.15, 0.05])
    features = rng.normal(size=(n, 6))
    features[:, 0] += signal * scores
    return features, scores


def test_features_that_tell_are_found_and_features_that_do_not_are_at_chance():
    told = cross_validate(*planted(150, 0, 2.0), seed=1, repeats=1)
    features, scores = planted(150, 0, 0.0)
    chance = cross_validate(features, scores, seed=1, repeats=1)
    assert told.auc > 0.9 and told.precision > 2 * told.base_rate
    assert told.auc_low < told.auc < told.auc_high
    assert chance.auc_low < 0.5 < chance.auc_high
    assert told.base_rate == np.mean(scores >= 4) and told.n == 150


def test_no_chunk_is_judged_by_a_forest_that_saw_its_label():
    """Noise is enough for a forest to know its own chunks by heart; it must not help with the others."""
    features, scores = planted(150, 3, 0.0)
    assert cross_validate(features, scores, seed=0, repeats=1).auc < 0.7


def test_too_few_labels_of_a_kind_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="4 of 50 labels say keep, and five of each kind are needed"):
        cross_validate(np.zeros((50, 2)), np.array([5] * 4 + [1] * 46), seed=0)


def test_the_filter_keeps_the_asked_share_of_characters_and_the_best_of_them():
    chunks = corpus(200)
    features, scores = planted(200, 5, 3.0)
    kept = keep_best(chunks, features, labels_for(chunks[:100], scores[:100]), seed=0, kept=0.2)
    share = sum(len(c.source) for c in kept) / sum(len(c.source) for c in chunks)
    assert 0.18 < share <= 0.2
    assert kept == [chunk for chunk in chunks if chunk in kept]
    unseen = [scores[i] for i in range(100, 200) if chunks[i] in kept]
    assert np.mean(unseen) > scores[100:].mean() + 1


def test_the_filter_is_compared_on_the_labelled_chunks_alone(monkeypatch):
    monkeypatch.setattr(value, "cross_validate", lambda rows, scores, seed: (rows.shape[0], scores.tolist(), seed))
    chunks = corpus(12)
    table = value.compare(chunks, lambda texts: np.ones((len(texts), 2)), labels_for(chunks[:5], np.arange(1, 6)), 9)
    assert list(table) == ["model states", "TF-IDF", "length and docstring"]
    assert set(map(str, table.values())) == {str((5, [1, 2, 3, 4, 5], 9))}


def test_length_and_docstring_are_counted():
    chunk = Chunk("m.py", "f", 'def f():\n    """Five."""\n    return 5')
    plain = Chunk("m.py", "g", "def g():\n    return 5")
    assert value.length_and_docstring([chunk, plain]).tolist() == [[3, 37, 5], [2, 21, 0]]


def test_states_are_the_mean_over_a_texts_own_tokens_and_no_others():
    """Not over padding, not over the texts beside it, and over all blocks of a long text."""
    torch.manual_seed(0)
    model = Model(300).train()
    texts = ["short", "a much longer text, which takes several blocks of sixteen tokens to read", "", "mid length"]
    encode = lambda text: list(text.encode())  # noqa: E731
    states = mean_pooled_states(model, encode, texts, batch_size=3)
    assert states.shape == (4, 8) and states.dtype == np.float32
    assert model.training
    for text, state in zip(texts, states, strict=True):
        tokens = encode(text) or [0]
        blocks = [tokens[i : i + 16] for i in range(0, len(tokens), 16)]
        with torch.no_grad():
            rows = [model.wte(torch.tensor(b)).cumsum(0) / torch.arange(1, len(b) + 1)[:, None] for b in blocks]
        np.testing.assert_allclose(state, torch.cat(rows).mean(0), atol=1e-5)
        np.testing.assert_allclose(state, mean_pooled_states(model, encode, [text])[0], atol=1e-5)


def test_the_hook_is_gone_even_after_a_failure():
    model = Model(4)
    with pytest.raises(IndexError):
        mean_pooled_states(model, lambda text: [99], ["x"])
    assert not model.lm_head._forward_pre_hooks


def test_the_tokenizer_encodes_any_text_and_gives_it_back():
    tokenizer = train_tokenizer(["def f(x):\n    return x\n"] * 50, vocab_size=300)
    assert len(tokenizer.encode("    return x").ids) < len("    return x")
    for text in ("Ünknown ☃ \x00", "a_b\n\n        if x1 != 20:\t# é", "  \n \n"):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_a_line_end_and_its_indentation_are_one_token_and_the_prompt_ends_before_it():
    tokenizer = train_tokenizer(["def f(x):\n    if x:\n        return x\n"] * 50, vocab_size=300)
    prompt, rest = "def f(x):", "\n    if x:\n        return x"
    pieces = tokenizer.encode(rest)
    assert [token for token in pieces.tokens if token.startswith("Ċ")] == ["ĊĠĠĠĠ", "ĊĠĠĠĠĠĠĠĠ"]
    assert tokenizer.encode(prompt + rest).ids == tokenizer.encode(prompt).ids + pieces.ids


def test_every_text_in_a_stream_is_closed_by_the_end_of_text_token():
    tokenizer = train_tokenizer(["x = 1\n"] * 50, vocab_size=300)
    end = tokenizer.token_to_id(END_OF_TEXT)
    stream = token_stream(tokenizer, ["x = 1", "y = 2\n"])
    assert (stream == end).sum() == 2 and stream[-1] == end
    assert tokenizer.decode(stream, skip_special_tokens=False) == f"x = 1\n{END_OF_TEXT}y = 2\n{END_OF_TEXT}"


def test_a_code_model_learns_its_corpus_and_the_same_seed_learns_it_again():
    texts = [f"def f{i}(x):\n    return x + {i}\n" for i in range(60)]
    recipe = Recipe(steps=30, batch_size=4, learning_rate=1e-2)
    losses: list[list[float]] = []
    states = []
    for _ in range(2):
        losses.append([])
        model, encode = train_code_model(Model, texts, recipe, 7, lambda p: losses[-1].append(p.loss))
        states.append(mean_pooled_states(model, encode, texts[:3]))
    assert losses[0][-1] < losses[0][0] - 0.5
    assert losses[0] == losses[1] and np.array_equal(*states)
