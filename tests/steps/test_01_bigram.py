"""Step 01: a table of scores, checked against counting and against arithmetic by hand."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from common import reference as ref
from steps import load

step = load(1)
seeds = st.integers(0, 2**32 - 1)
texts = st.lists(st.integers(0, 4), min_size=2, max_size=40).map(lambda text: torch.tensor([text]))


def bigram(V: int, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return step.Model(step.Config(vocab_size=V)).double()


@given(text=texts, seed=seeds)
def test_logits_are_the_table_row_of_the_current_token_alone(text, seed):
    model = bigram(5, seed)
    logits, _ = model(text)
    for place, token in enumerate(text[0]):
        assert torch.equal(logits[0, place], model.token_table.weight[token])


@given(text=texts, seed=seeds)
def test_loss_is_the_negative_log_likelihood_of_the_text_by_hand(text, seed):
    model = bigram(5, seed)
    table = model.token_table.weight.tolist()
    total = 0.0
    for now, following in zip(text[0, :-1].tolist(), text[0, 1:].tolist(), strict=True):
        total -= math.log(math.exp(table[now][following]) / sum(map(math.exp, table[now])))
    _, loss = model(text[:, :-1], text[:, 1:])
    assert loss.item() == pytest.approx(total / (text.size(1) - 1), rel=1e-10)


@pytest.mark.gradient
@given(text=texts, seed=seeds)
def test_gradient_is_softmax_minus_onehot_over_the_number_of_targets(text, seed):
    model = bigram(5, seed)
    now, following = text[:, :-1], text[:, 1:]
    model(now, following)[1].backward()
    expected = torch.zeros(5, 5, dtype=torch.float64)
    for a, b in zip(now[0], following[0], strict=True):
        expected[a] += (F.softmax(model.token_table.weight[a], dim=0) - F.one_hot(b, 5)) / now.numel()
    torch.testing.assert_close(model.token_table.weight.grad, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.oracle
@given(B=st.integers(1, 3), T=st.integers(1, 6), V=st.integers(1, 6), seed=seeds)
def test_logits_loss_and_gradient_agree_with_the_numpy_reference(B, T, V, seed):
    model = bigram(V, seed)
    idx, targets = torch.randint(V, (2, B, T))
    logits, loss = model(idx, targets)
    loss.backward()
    table = model.token_table.weight.detach().numpy()
    expected_logits, expected_loss, cache = ref.bigram(table, idx.numpy(), targets.numpy())
    np.testing.assert_allclose(logits.detach(), expected_logits, rtol=1e-10)
    np.testing.assert_allclose(loss.item(), expected_loss, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(model.token_table.weight.grad, ref.bigram_backward(cache), rtol=1e-10, atol=1e-12)


@given(text=texts, seed=seeds)
def test_the_count_table_is_where_learning_comes_to_rest(text, seed):
    model = bigram(5, seed)
    pairs = Counter(zip(text[0, :-1].tolist(), text[0, 1:].tolist(), strict=True))
    seen = Counter(text[0, :-1].tolist())
    with torch.no_grad():
        for now in seen:
            counts = torch.tensor([pairs[now, following] for following in range(5)], dtype=torch.float64)
            model.token_table.weight[now] = counts.clamp(min=1e-12).log()
    _, loss = model(text[:, :-1], text[:, 1:])
    loss.backward()
    assert model.token_table.weight.grad.abs().max() < 1e-10
    entropy = -sum(n * math.log(n / seen[now]) for (now, _), n in pairs.items()) / (text.size(1) - 1)
    assert loss.item() == pytest.approx(entropy, abs=1e-9)


@settings(max_examples=5)
@given(text=st.lists(st.integers(0, 3), min_size=60, max_size=100).map(lambda text: torch.tensor([text])), seed=seeds)
def test_training_long_enough_ends_at_the_relative_frequencies_of_the_pairs(text, seed):
    assume(set(text[0, :-1].tolist()) == {0, 1, 2, 3})
    model = bigram(4, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        model(text[:, :-1], text[:, 1:])[1].backward()
        optimizer.step()
    counts = torch.zeros(4, 4, dtype=torch.float64)
    for now, following in zip(text[0, :-1], text[0, 1:], strict=True):
        counts[now, following] += 1
    frequencies = counts / counts.sum(dim=1, keepdim=True)
    torch.testing.assert_close(F.softmax(model.token_table.weight, dim=1), frequencies, rtol=0, atol=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_generated_characters_come_as_often_as_the_table_says_within_5_sigma(seed):
    model, rows = bigram(5, seed), 20_000
    start = torch.arange(5).repeat(rows)[:, None]
    following = model.generate(start, 1, generator=torch.Generator().manual_seed(seed))[:, 1]
    probabilities = F.softmax(model.token_table.weight, dim=1)
    for now in range(5):
        counts = torch.bincount(following[start[:, 0] == now], minlength=5)
        sigma = (rows * probabilities[now] * (1 - probabilities[now])).sqrt()
        assert ((counts - rows * probabilities[now]).abs() < 5 * sigma).all()
