"""From logits to the next token: the right ones, as often as they should come."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from common.sampling import sample

seeds = st.integers(0, 2**32 - 1)
size = st.integers(1, 6)
vocabularies = st.integers(2, 9)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distinct_logits(B: int, V: int, seed: int) -> torch.Tensor:
    """Logits 0, 1, 2 … in another order for each row."""
    return torch.stack([torch.randperm(V, generator=generator(seed + b)) for b in range(B)]).float()


@given(B=size, V=vocabularies, seed=seeds)
def test_temperature_zero_takes_the_likeliest_token(B, V, seed):
    logits = distinct_logits(B, V, seed)
    assert torch.equal(sample(logits, temperature=0.0), logits.argmax(-1, keepdim=True))


@given(B=size, V=vocabularies, seed=seeds)
def test_a_temperature_near_zero_takes_the_likeliest_token_too(B, V, seed):
    logits = distinct_logits(B, V, seed)
    assert torch.equal(sample(logits, 1e-3, None, generator(seed)), logits.argmax(-1, keepdim=True))


@given(V=vocabularies, seed=seeds, data=st.data())
def test_top_k_keeps_exactly_the_k_likeliest(V, seed, data):
    top_k = data.draw(st.integers(1, V))
    logits = distinct_logits(1, V, seed)
    drawn = sample((0.1 * logits).expand(2000, V), 1.0, top_k, generator(seed))
    assert set(drawn.flatten().tolist()) == set(logits[0].topk(top_k).indices.tolist())


@given(B=size, V=vocabularies, seed=seeds, temperature=st.floats(0.1, 9))
def test_top_1_is_greedy_at_any_temperature(B, V, seed, temperature):
    logits = distinct_logits(B, V, seed)
    assert torch.equal(sample(logits, temperature, 1, generator(seed)), logits.argmax(-1, keepdim=True))


@given(B=size, V=vocabularies, seed=seeds)
def test_unless_told_otherwise_nothing_is_sharpened_or_left_out(B, V, seed):
    logits = distinct_logits(B, V, seed)
    plain = torch.multinomial(F.softmax(logits, dim=1), 1, generator=generator(seed))
    assert torch.equal(sample(logits, generator=generator(seed)), plain)


@given(B=size, V=vocabularies, seed=seeds, more=st.integers(0, 3))
def test_a_top_k_of_the_whole_vocabulary_or_more_changes_nothing(B, V, seed, more):
    logits = distinct_logits(B, V, seed)
    assert torch.equal(sample(logits, 1.0, V + more, generator(seed)), sample(logits, 1.0, None, generator(seed)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [None, 1, 3, 6])
def test_tokens_come_as_often_as_softmax_says_within_5_sigma(temperature, top_k):
    draws, logits = 40_000, torch.tensor([0.3, -1.0, 2.0, 1.1, 0.0, -0.4])
    drawn = sample(logits.expand(draws, 6), temperature, top_k, generator(11))
    kept = logits if top_k is None else logits.masked_fill(logits < logits.topk(top_k).values[-1], float("-inf"))
    p = F.softmax(kept / temperature, dim=0).double()
    counts = torch.bincount(drawn.flatten(), minlength=6)
    assert ((counts - draws * p).abs() <= 5 * (draws * p * (1 - p)).sqrt()).all()


@given(B=size, V=vocabularies, seed=seeds, top_k=st.none() | size)
def test_the_generator_decides_and_nothing_else(B, V, seed, top_k):
    logits = distinct_logits(B, V, seed)
    before = torch.get_rng_state()
    first, again = (sample(logits, 1.0, top_k, generator(seed)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


@given(B=size, V=vocabularies, seed=seeds, dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_every_row_gets_one_token_of_its_own_in_any_precision(B, V, seed, dtype):
    sure = torch.randint(V, (B, 1), generator=generator(seed))
    logits = torch.full((B, V), float("-inf"), dtype=dtype).scatter(1, sure, 1.0)
    assert torch.equal(sample(logits, 1.0, None, generator(seed)), sure)
