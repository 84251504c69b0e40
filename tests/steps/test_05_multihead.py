"""Step 05: heads side by side, checked against torch's own multi-head attention."""

import numpy as np
import pytest
import torch
import torch.nn as nn
from hypothesis import given
from hypothesis import strategies as st

from common import reference as ref
from steps import load

step = load(5)
size = st.integers(1, 5)
heads = st.integers(1, 4)
generators = st.integers(0, 2**32 - 1).map(lambda seed: torch.Generator().manual_seed(seed))


def normal(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def multi_head_of(block_size: int, H: int, D: int, generator: torch.Generator) -> nn.Module:
    multi_head = step.MultiHead(step.Config(vocab_size=1, block_size=block_size, n_embd=H * D, n_head=H)).double()
    for parameter in multi_head.parameters():
        nn.init.normal_(parameter, generator=generator)
    return multi_head


def torchs_own(ours: nn.Module) -> nn.MultiheadAttention:
    """torch.nn.MultiheadAttention with the same weights: all queries, then all keys, then all values."""
    C, H = ours.c_proj.in_features, len(ours.heads)
    theirs = nn.MultiheadAttention(C, H, batch_first=True, dtype=torch.float64)
    rows = [getattr(head, name).weight for name in ("query", "key", "value") for head in ours.heads]
    theirs.in_proj_weight.data = torch.cat(rows).detach().clone()
    theirs.in_proj_bias.data.zero_()
    theirs.out_proj.load_state_dict(ours.c_proj.state_dict())
    return theirs


@pytest.mark.oracle
@pytest.mark.gradient
@given(B=size, T=size, H=heads, D=size, generator=generators)
def test_output_weights_and_every_gradient_equal_torchs_multihead_attention(B, T, H, D, generator):
    ours, (x, dout) = multi_head_of(T, H, D, generator), normal(2, B, T, H * D, generator=generator)
    theirs, x_theirs = torchs_own(ours), x.clone().requires_grad_()
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    expected, maps = theirs(x_theirs, x_theirs, x_theirs, attn_mask=future, average_attn_weights=False)
    expected.backward(dout)
    out = ours(x.requires_grad_())
    out.backward(dout)
    assert_close(out, expected)
    assert_close(torch.stack([head.weights(x) for head in ours.heads], dim=1), maps)
    assert_close(x.grad, x_theirs.grad)
    rows = [getattr(head, name).weight.grad for name in ("query", "key", "value") for head in ours.heads]
    assert_close(torch.cat(rows), theirs.in_proj_weight.grad)
    assert_close(ours.c_proj.weight.grad, theirs.out_proj.weight.grad)
    assert_close(ours.c_proj.bias.grad, theirs.out_proj.bias.grad)


@given(B=size, T=size, H=heads, D=size, generator=generators, data=st.data())
def test_permuting_the_heads_with_the_columns_of_the_projection_changes_nothing(B, T, H, D, generator, data):
    multi_head, x = multi_head_of(T, H, D, generator), normal(B, T, H * D, generator=generator)
    out = multi_head(x)
    order = data.draw(st.permutations(range(H)))
    multi_head.heads = nn.ModuleList(multi_head.heads[i] for i in order)
    columns = multi_head.c_proj.weight.data.unflatten(1, (H, D))
    multi_head.c_proj.weight.data = columns[:, order].flatten(1)
    assert_close(multi_head(x), out)


@given(B=size, T=size, H=heads, D=size, generator=generators, data=st.data())
def test_each_head_speaks_through_its_own_columns_of_the_projection(B, T, H, D, generator, data):
    multi_head, x = multi_head_of(T, H, D, generator), normal(B, T, H * D, generator=generator)
    kept = data.draw(st.integers(0, H - 1))
    columns = multi_head.c_proj.weight.data.unflatten(1, (H, D))
    columns[:, [i for i in range(H) if i != kept]] = 0
    expected = multi_head.heads[kept](x) @ columns[:, kept].T + multi_head.c_proj.bias
    assert_close(multi_head(x), expected)


@given(B=size, T=size, H=heads, D=size, generator=generators)
def test_every_heads_weights_are_a_causal_average(B, T, H, D, generator):
    multi_head, x = multi_head_of(T + 1, H, D, generator), normal(B, T, H * D, generator=generator)
    for head in multi_head.heads:
        wei = head.weights(x)
        assert_close(wei.sum(dim=-1), torch.ones(B, T, dtype=torch.float64))
        assert not wei.triu(1).any()


@given(H=heads, D=size)
def test_the_heads_share_the_width_between_them(H, D):
    multi_head = step.MultiHead(step.Config(vocab_size=1, n_embd=H * D, n_head=H))
    assert [head.query.weight.shape for head in multi_head.heads] == [(D, H * D)] * H
    assert sum(p.numel() for p in multi_head.parameters()) == 4 * (H * D) ** 2 + H * D  # whatever the number of heads


@pytest.mark.parametrize("D", [4, 16, 64])
def test_scores_have_variance_one_by_the_head_size_and_not_by_the_width(D):
    pairs, generator = 8000, torch.Generator().manual_seed(D)
    multi_head, x = multi_head_of(2, 4, D, generator), normal(pairs, 2, 4 * D, generator=generator)
    head = multi_head.heads[2]
    head.query.weight.data = torch.eye(4 * D, dtype=torch.float64)[:D]
    head.key.weight.data = torch.eye(4 * D, dtype=torch.float64)[D : 2 * D]
    wei = head.weights(x)[:, 1]
    difference = (wei[:, 0] / wei[:, 1]).log()  # of two scores, which softmax leaves visible
    assert difference.var().item() / 2 == pytest.approx(1, abs=0.15)


@pytest.mark.oracle
@pytest.mark.gradient
@given(B=size, T=size, H=heads, D=size, generator=generators)
def test_multi_head_and_its_gradients_agree_with_the_numpy_reference(B, T, H, D, generator):
    multi_head, (x, dout) = multi_head_of(T, H, D, generator), normal(2, B, T, H * D, generator=generator)
    out = multi_head(x.requires_grad_())
    out.backward(dout)
    params = {name: parameter.detach().numpy() for name, parameter in multi_head.named_parameters()}
    expected, cache = ref.multi_head(x.detach().numpy(), params)
    dx, grads = ref.multi_head_backward(dout.numpy(), cache)
    np.testing.assert_allclose(out.detach(), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(x.grad, dx, rtol=1e-8, atol=1e-10)
    for name, parameter in multi_head.named_parameters():
        np.testing.assert_allclose(parameter.grad, grads[name], rtol=1e-8, atol=1e-10, err_msg=name)


@pytest.mark.oracle
@given(B=size, T=size, H=heads, D=size, V=size, generator=generators)
def test_logits_and_loss_agree_with_the_numpy_reference(B, T, H, D, V, generator):
    model = step.Model(step.Config(vocab_size=V, block_size=T + 1, n_embd=H * D, n_head=H)).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    idx, targets = torch.randint(V, (2, B, T), generator=generator)
    p = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    x = ref.embedding(p["wte.weight"], idx.numpy())[0] + ref.embedding(p["wpe.weight"], np.arange(T))[0]
    x = x + ref.multi_head(x, ref.part(p, "attn."))[0]
    expected, _ = ref.linear(x, p["lm_head.weight"], p["lm_head.bias"])
    logits, loss = model(idx, targets)
    np.testing.assert_allclose(logits.detach(), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(loss.item(), ref.cross_entropy(expected, targets.numpy())[0], rtol=1e-10, atol=1e-10)
