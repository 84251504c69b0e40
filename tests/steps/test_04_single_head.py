"""Step 04: a head hands over values, and is otherwise the attention of step 03."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from common import reference as ref
from steps import load

step, averaging = load(4), load(2)
size = st.integers(1, 6)
generators = st.integers(0, 2**32 - 1).map(lambda seed: torch.Generator().manual_seed(seed))


def normal(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def head_of(block_size: int, C: int, D: int, generator: torch.Generator) -> torch.nn.Module:
    head = step.Head(step.Config(vocab_size=1, block_size=block_size, n_embd=C), head_size=D).double()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return head


@given(B=size, T=size, spare=st.integers(0, 2), C=size, D=size, generator=generators)
def test_weights_are_a_causal_average(B, T, spare, C, D, generator):
    wei = head_of(T + spare, C, D, generator).weights(normal(B, T, C, generator=generator))
    assert_close(wei.sum(dim=-1), torch.ones(B, T, dtype=torch.float64))
    assert (wei >= 0).all()
    assert not wei.triu(1).any()
    assert_close(wei[:, 0, 0], torch.ones(B, dtype=torch.float64))


@given(B=size, T=size, C=size, D=size, generator=generators)
def test_zero_queries_give_the_mean_of_the_values_so_far(B, T, C, D, generator):
    head, x = head_of(T, C, D, generator), normal(B, T, C, generator=generator)
    head.query.weight.data.zero_()
    assert_close(head(x), averaging.average_loop(x @ head.value.weight.T))


@given(B=size, T=size, C=size, D=size, generator=generators)
def test_values_are_what_is_averaged_and_leave_the_weights_alone(B, T, C, D, generator):
    head, x = head_of(T, C, D, generator), normal(B, T, C, generator=generator)
    wei, out = head.weights(x), head(x)
    head.value.weight.data.mul_(3)
    assert torch.equal(head.weights(x), wei)
    assert_close(head(x), 3 * out)


@pytest.mark.parametrize("D", [4, 16, 64, 256])
def test_scores_of_standard_normal_queries_and_keys_have_variance_one_whatever_the_head_size(D):
    pairs, generator = 8000, torch.Generator().manual_seed(D)
    head, x = head_of(2, 2 * D, D, generator), normal(pairs, 2, 2 * D, generator=generator)
    zero, one = torch.zeros(D, D, dtype=torch.float64), torch.eye(D, dtype=torch.float64)
    head.query.weight.data = torch.cat((one, zero), dim=1)
    head.key.weight.data = torch.cat((zero, one), dim=1)
    wei = head.weights(x)[:, 1]
    difference = (wei[:, 0] / wei[:, 1]).log()  # of two scores, which softmax leaves visible
    assert difference.var().item() / 2 == pytest.approx(1, abs=0.15)


@pytest.mark.oracle
@given(B=size, T=size, C=size, D=size, generator=generators)
def test_a_head_is_torchs_scaled_dot_product_attention(B, T, C, D, generator):
    head, x = head_of(T, C, D, generator), normal(B, T, C, generator=generator)
    q, k, v = (x @ linear.weight.T for linear in (head.query, head.key, head.value))
    assert_close(head(x), F.scaled_dot_product_attention(q, k, v, is_causal=True))


@pytest.mark.oracle
@pytest.mark.gradient
@given(B=size, T=size, C=size, D=size, generator=generators)
def test_a_head_and_its_gradients_agree_with_the_numpy_reference(B, T, C, D, generator):
    head, x = head_of(T, C, D, generator), normal(B, T, C, generator=generator).requires_grad_()
    dout = normal(B, T, D, generator=generator)
    out = head(x)
    out.backward(dout)
    params = {name: parameter.detach().numpy() for name, parameter in head.named_parameters()}
    expected, cache = ref.head(x.detach().numpy(), params)
    dx, grads = ref.head_backward(dout.numpy(), cache)
    np.testing.assert_allclose(out.detach(), expected, atol=1e-10)
    np.testing.assert_allclose(x.grad, dx, atol=1e-9)
    for name, parameter in head.named_parameters():
        np.testing.assert_allclose(parameter.grad, grads[name], atol=1e-9, err_msg=name)


@pytest.mark.oracle
@given(B=size, T=size, C=size, V=size, generator=generators)
def test_logits_and_loss_agree_with_the_numpy_reference(B, T, C, V, generator):
    model = step.Model(step.Config(vocab_size=V, block_size=T + 1, n_embd=C)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    idx, targets = torch.randint(V, (2, B, T), generator=generator)
    p = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    x = ref.embedding(p["wte.weight"], idx.numpy())[0] + ref.embedding(p["wpe.weight"], np.arange(T))[0]
    x = x + ref.head(x, ref.part(p, "attn."))[0]
    expected, _ = ref.linear(x, p["lm_head.weight"], p["lm_head.bias"])
    logits, loss = model(idx, targets)
    np.testing.assert_allclose(logits.detach(), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(loss.item(), ref.cross_entropy(expected, targets.numpy())[0], rtol=1e-10, atol=1e-10)
