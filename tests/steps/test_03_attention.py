"""Step 03: weights that come from the data are still a causal average, asked for by queries and found by keys."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common import reference as ref
from steps import load

step, averaging = load(3), load(2)
size = st.integers(1, 6)
generators = st.integers(0, 2**32 - 1).map(lambda seed: torch.Generator().manual_seed(seed))


def normal(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def attention_of(block_size: int, C: int, D: int, generator: torch.Generator) -> torch.nn.Module:
    attention = step.Attention(step.Config(vocab_size=1, block_size=block_size, n_embd=C, head_size=D)).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    return attention


@given(B=size, T=size, spare=st.integers(0, 2), C=size, D=size, generator=generators)
def test_weights_are_a_causal_average(B, T, spare, C, D, generator):
    wei = attention_of(T + spare, C, D, generator).weights(normal(B, T, C, generator=generator))
    assert wei.shape == (B, T, T)
    assert_close(wei.sum(dim=-1), torch.ones(B, T, dtype=torch.float64))
    assert (wei >= 0).all()
    assert not wei.triu(1).any()


@given(B=size, T=size, C=size, D=size, generator=generators)
def test_every_position_may_look_at_itself(B, T, C, D, generator):
    wei = attention_of(T, C, D, generator).weights(0.1 * normal(B, T, C, generator=generator))
    assert (wei.diagonal(dim1=1, dim2=2) > 0).all()
    assert_close(wei[:, 0, 0], torch.ones(B, dtype=torch.float64))


@given(B=size, T=size, C=size, D=size, generator=generators)
def test_zero_queries_give_the_mean_of_the_prefix_as_in_step_02(B, T, C, D, generator):
    attention, x = attention_of(T, C, D, generator), normal(B, T, C, generator=generator)
    attention.query.weight.data.zero_()
    assert_close(attention(x), averaging.average_loop(x))


@given(T=st.integers(2, 6), D=size, generator=generators)
def test_the_query_asks_and_the_keys_answer(T, D, generator):
    """Queries read the first half of the vector, keys the second. Who asks nothing weighs all of its past alike."""
    attention, x = attention_of(T, 2 * D, D, generator), normal(1, T, 2 * D, generator=generator)
    zero, one = torch.zeros(D, D, dtype=torch.float64), torch.eye(D, dtype=torch.float64)
    attention.query.weight.data = torch.cat((one, zero), dim=1)
    attention.key.weight.data = torch.cat((zero, one), dim=1)
    x[:, -1, :D] = 0
    assert_close(attention.weights(x)[0, -1], torch.full((T,), 1 / T, dtype=torch.float64))
    x[:, -1, :D] = x[:, 0, D:] - x[:, 1, D:]  # asks for the first and against the second
    assert attention.weights(x)[0, -1, 0] > attention.weights(x)[0, -1, 1]


@given(T=size, C=size, D=size, generator=generators)
def test_weights_by_hand_exponentials_of_dot_products_over_the_root_of_the_head_size(T, C, D, generator):
    attention, x = attention_of(T, C, D, generator), normal(1, T, C, generator=generator)
    wei = attention.weights(x)[0]
    for t in range(T):
        query = attention.query.weight @ x[0, t]
        strength = [torch.exp(query @ (attention.key.weight @ x[0, s]) / D**0.5).item() for s in range(t + 1)]
        assert wei[t, : t + 1].tolist() == pytest.approx([each / sum(strength) for each in strength], rel=1e-8)


@pytest.mark.parametrize("D", [4, 16, 64, 256])
def test_scores_of_standard_normal_queries_and_keys_have_variance_one_whatever_the_head_size(D):
    pairs, generator = 8000, torch.Generator().manual_seed(D)
    attention, x = attention_of(2, 2 * D, D, generator), normal(pairs, 2, 2 * D, generator=generator)
    zero, one = torch.zeros(D, D, dtype=torch.float64), torch.eye(D, dtype=torch.float64)
    attention.query.weight.data = torch.cat((one, zero), dim=1)
    attention.key.weight.data = torch.cat((zero, one), dim=1)
    wei = attention.weights(x)[:, 1]
    difference = (wei[:, 0] / wei[:, 1]).log()  # of two scores, which softmax leaves visible
    assert difference.var().item() / 2 == pytest.approx(1, abs=0.15)


@given(B=size, T=size, C=size, D=size, generator=generators)
def test_what_is_averaged_are_the_inputs_themselves(B, T, C, D, generator):
    attention, x = attention_of(T, C, D, generator), normal(B, T, C, generator=generator)
    assert_close(attention(x), torch.einsum("bts,bsc->btc", attention.weights(x), x))


@pytest.mark.oracle
@pytest.mark.gradient
@given(B=size, T=size, C=size, D=size, generator=generators)
def test_attention_and_its_gradients_agree_with_the_numpy_reference(B, T, C, D, generator):
    attention, (x, dout) = attention_of(T, C, D, generator), normal(2, B, T, C, generator=generator)
    x.requires_grad_()
    out = attention(x)
    out.backward(dout)
    q, q_cache = ref.linear(x.detach().numpy(), attention.query.weight.detach().numpy())
    k, k_cache = ref.linear(x.detach().numpy(), attention.key.weight.detach().numpy())
    expected, cache = ref.scaled_dot_product_attention(q, k, x.detach().numpy())
    dq, dk, dx = ref.scaled_dot_product_attention_backward(dout.numpy(), cache)
    dx_q, dquery, _ = ref.linear_backward(dq, q_cache)
    dx_k, dkey, _ = ref.linear_backward(dk, k_cache)
    np.testing.assert_allclose(out.detach(), expected, atol=1e-10)
    np.testing.assert_allclose(x.grad, dx + dx_q + dx_k, atol=1e-9)
    np.testing.assert_allclose(attention.query.weight.grad, dquery, atol=1e-9)
    np.testing.assert_allclose(attention.key.weight.grad, dkey, atol=1e-9)


@pytest.mark.oracle
@given(B=size, T=size, C=size, D=size, V=size, generator=generators)
def test_logits_and_loss_agree_with_the_numpy_reference(B, T, C, D, V, generator):
    model = step.Model(step.Config(vocab_size=V, block_size=T + 1, n_embd=C, head_size=D)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    idx, targets = torch.randint(V, (2, B, T), generator=generator)
    p = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    x = ref.embedding(p["wte.weight"], idx.numpy())[0] + ref.embedding(p["wpe.weight"], np.arange(T))[0]
    q, k = ref.linear(x, p["attn.query.weight"])[0], ref.linear(x, p["attn.key.weight"])[0]
    x = x + ref.scaled_dot_product_attention(q, k, x)[0]
    expected, _ = ref.linear(x, p["lm_head.weight"], p["lm_head.bias"])
    logits, loss = model(idx, targets)
    np.testing.assert_allclose(logits.detach(), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(loss.item(), ref.cross_entropy(expected, targets.numpy())[0], rtol=1e-10, atol=1e-10)
