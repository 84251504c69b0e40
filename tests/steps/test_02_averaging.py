"""Step 02: three ways to say the same average, and a model that lays it beside each token's own vector."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common import reference as ref
from steps import load

step = load(2)
averages = pytest.mark.parametrize("average", [step.average_loop, step.average_matmul, step.average_softmax])
size = st.integers(1, 6)
generators = st.integers(0, 2**32 - 1).map(lambda seed: torch.Generator().manual_seed(seed))


def normal(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@given(B=size, T=size, C=size, generator=generators)
def test_loop_matrix_product_and_masked_softmax_are_one_average(B, T, C, generator):
    x = normal(B, T, C, generator=generator)
    assert_close(step.average_matmul(x), step.average_loop(x))
    assert_close(step.average_softmax(x), step.average_loop(x))


@averages
@given(B=size, T=size, C=size, generator=generators)
def test_each_position_gets_the_mean_of_itself_and_everything_before(average, B, T, C, generator):
    x = normal(B, T, C, generator=generator)
    out = average(x)
    for b in range(B):
        for t in range(T):
            for c in range(C):
                assert out[b, t, c].item() == pytest.approx(sum(x[b, : t + 1, c].tolist()) / (t + 1), abs=1e-12)


@averages
@given(T=st.integers(1, 12))
def test_weights_are_lower_triangular_with_equal_shares_that_sum_to_one(average, T):
    wei = average(torch.eye(T, dtype=torch.float64)[None])[0]  # averaging one-hot rows shows the weights themselves
    assert_close(wei.sum(dim=1), torch.ones(T, dtype=torch.float64))
    assert not wei.triu(1).any()
    for t in range(T):
        assert_close(wei[t, : t + 1], torch.full((t + 1,), 1 / (t + 1), dtype=torch.float64))


@averages
@given(B=size, T=size, C=size, generator=generators)
def test_constant_values_give_that_constant(average, B, T, C, generator):
    constant = normal(B, 1, C, generator=generator).expand(B, T, C)
    assert_close(average(constant), constant)


@averages
@given(B=size, T=size, C=size, generator=generators)
def test_an_average_of_a_sum_is_the_sum_of_the_averages(average, B, T, C, generator):
    a, b = normal(2, B, T, C, generator=generator)
    assert_close(average(2 * a - 3 * b), 2 * average(a) - 3 * average(b))


@pytest.mark.oracle
@pytest.mark.gradient
@averages
@given(B=size, T=size, C=size, generator=generators)
def test_average_and_its_gradient_agree_with_the_numpy_reference(average, B, T, C, generator):
    x, dout = normal(2, B, T, C, generator=generator)
    x.requires_grad_()
    out = average(x)
    out.backward(dout)
    expected, cache = ref.prefix_mean(x.detach().numpy())
    np.testing.assert_allclose(out.detach(), expected, atol=1e-10)
    np.testing.assert_allclose(x.grad, ref.prefix_mean_backward(dout.numpy(), cache), atol=1e-10)


def model_of(V: int, T: int, C: int, generator: torch.Generator) -> torch.nn.Module:
    model = step.Model(step.Config(vocab_size=V, block_size=T, n_embd=C)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return model


@pytest.mark.oracle
@given(B=size, T=size, C=size, V=size, generator=generators)
def test_logits_and_loss_agree_with_the_numpy_reference(B, T, C, V, generator):
    model = model_of(V, T + 1, C, generator)
    idx, targets = torch.randint(V, (2, B, T), generator=generator)
    p = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    x = ref.embedding(p["wte.weight"], idx.numpy())[0] + ref.embedding(p["wpe.weight"], np.arange(T))[0]
    x = np.concatenate((x, ref.prefix_mean(x)[0]), axis=-1)
    expected, _ = ref.linear(x, p["lm_head.weight"], p["lm_head.bias"])
    logits, loss = model(idx, targets)
    np.testing.assert_allclose(logits.detach(), expected, atol=1e-10)
    np.testing.assert_allclose(loss.item(), ref.cross_entropy(expected, targets.numpy())[0], atol=1e-10)


@given(T=st.integers(3, 8), C=size, V=st.integers(2, 6), generator=generators)
def test_the_average_forgets_the_order_of_the_past(T, C, V, generator):
    model = model_of(V, T, C, generator)
    idx = torch.randint(V, (1, T), generator=generator)
    reversed_past = torch.cat((idx[:, :-1].flip(1), idx[:, -1:]), dim=1)
    assert_close(model(reversed_past)[0][:, -1], model(idx)[0][:, -1])


@given(T=st.integers(2, 8), C=size, V=st.integers(2, 6), generator=generators)
def test_each_token_keeps_its_own_vector_beside_the_average(T, C, V, generator):
    model = model_of(V, T, C, generator)
    idx = torch.randint(V, (1, T), generator=generator)
    model.lm_head.weight.data[:, C:] = 0  # the head reads the first half only
    own = model.wte(idx) + model.wpe.weight[:T]
    assert_close(model(idx)[0], own @ model.lm_head.weight[:, :C].T + model.lm_head.bias)
