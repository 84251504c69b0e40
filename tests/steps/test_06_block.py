"""Step 06: a block adds to the residual stream what it makes of a normalised copy."""

import numpy as np
import pytest
import torch
import torch.nn as nn
from hypothesis import given
from hypothesis import strategies as st

from common import reference as ref
from steps import load

step = load(6)
size = st.integers(1, 4)
heads = st.integers(1, 3)
widths = st.integers(2, 5)  # D: LayerNorm needs more than one channel
generators = st.integers(0, 2**32 - 1).map(lambda seed: torch.Generator().manual_seed(seed))


def normal(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def assert_close(ours, theirs, tolerance: float = 1e-10):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def scrambled(module: nn.Module, generator: torch.Generator) -> nn.Module:
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, generator=generator)
    return module


def config_of(H: int, D: int, **others) -> object:
    return step.Config(**{"vocab_size": 5, "block_size": 8, "n_embd": H * D, "n_head": H, "n_layer": 2} | others)


def silence(block: nn.Module) -> None:
    """Zero what the block writes into the residual stream."""
    for linear in (block.attn.c_proj, block.mlp.c_proj):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)


# ── the residual stream ───────────────────────────────────────────────────────────────────────────────────


@given(B=size, T=size, H=heads, D=widths, dropout=st.sampled_from([0.0, 0.5]), generator=generators)
def test_zeroed_output_projections_make_the_block_the_identity(B, T, H, D, dropout, generator):
    block = scrambled(step.Block(config_of(H, D, dropout=dropout)), generator).train()
    silence(block)
    x = normal(B, T, H * D, generator=generator).requires_grad_()
    dout = normal(B, T, H * D, generator=generator)
    out = block(x)
    out.backward(dout)
    assert torch.equal(out, x)
    assert torch.equal(x.grad, dout)  # the gradient flows straight down


@given(T=size, H=heads, D=widths, n_layer=st.integers(1, 3), generator=generators)
def test_a_silent_stack_is_no_stack(T, H, D, n_layer, generator):
    model = scrambled(step.Model(config_of(H, D, n_layer=n_layer)), generator)
    idx = torch.randint(5, (2, T), generator=generator)
    for block in model.h:
        silence(block)
    x = model.wte(idx) + model.wpe.weight[:T]
    assert_close(model(idx)[0], model.lm_head(model.ln_f(x)))


@given(B=size, T=size, H=heads, D=widths, generator=generators)
def test_attention_is_added_first_and_the_mlp_reads_the_sum(B, T, H, D, generator):
    block, x = scrambled(step.Block(config_of(H, D)), generator), normal(B, T, H * D, generator=generator)
    after_attention = x + block.attn(block.ln_1(x))
    assert_close(block(x), after_attention + block.mlp(block.ln_2(after_attention)))


@given(T=size, H=heads, D=widths, n_layer=st.integers(0, 3), generator=generators)
def test_every_layer_is_used_once_in_order_and_normalised_at_the_end(T, H, D, n_layer, generator):
    model = scrambled(step.Model(config_of(H, D, n_layer=n_layer)), generator)
    idx = torch.randint(5, (2, T), generator=generator)
    x = model.wte(idx) + model.wpe.weight[:T]
    for block in model.h:
        x = block(x)
    assert_close(model(idx)[0], model.lm_head(model.ln_f(x)))


# ── LayerNorm ─────────────────────────────────────────────────────────────────────────────────────────────


@given(
    T=size, H=heads, D=st.integers(4, 6), generator=generators, shift=st.floats(-9, 9), scale=st.sampled_from([0.5, 3])
)
def test_what_a_block_adds_ignores_the_shift_and_scale_of_the_stream(T, H, D, generator, shift, scale):
    block = scrambled(step.Block(config_of(H, D)), generator)
    x = 1000 * normal(2, T, H * D, generator=generator)  # large, so that eps is next to nothing
    for part, norm in ((block.attn, block.ln_1), (block.mlp, block.ln_2)):
        assert_close(part(norm(scale * x + shift)), part(norm(x)), tolerance=1e-4)
    assert_close(block(x + shift) - (x + shift), block(x) - x, tolerance=1e-8)


@given(B=size, T=size, H=heads, D=st.integers(4, 6), generator=generators)
def test_each_position_is_normalised_over_its_own_channels(B, T, H, D, generator):
    model, seen = step.Model(config_of(H, D)).double(), []  # LayerNorm's own scale is still 1, its shift 0
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    for norm in norms:
        norm.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    model(torch.randint(5, (B, T), generator=generator))
    assert len(seen) == len(norms) == 2 * 2 + 1
    for x, out in seen:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        assert_close(out, (x - mean) / (variance + 1e-5).sqrt(), tolerance=1e-8)


@given(B=size, T=size, H=heads, D=widths, generator=generators)
def test_a_constant_vector_is_normalised_without_dividing_by_zero(B, T, H, D, generator):
    block = scrambled(step.Block(config_of(H, D)), generator)
    x = normal(B, T, 1, generator=generator).expand(B, T, H * D).clone().requires_grad_()
    out = block(x)
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()


# ── MLP and dropout ───────────────────────────────────────────────────────────────────────────────────────


@given(T=st.integers(2, 5), H=heads, D=widths, generator=generators, data=st.data())
def test_the_mlp_works_on_every_position_on_its_own(T, H, D, generator, data):
    mlp, x = scrambled(step.MLP(config_of(H, D)), generator), normal(1, T, H * D, generator=generator)
    order = data.draw(st.permutations(range(T)))
    assert_close(mlp(x[:, order]), mlp(x)[:, order])


@given(H=heads, D=widths)
def test_the_mlp_is_four_times_as_wide_inside(H, D):
    mlp = step.MLP(config_of(H, D))
    assert mlp.c_fc.weight.shape == (4 * H * D, H * D)
    assert mlp.c_proj.weight.shape == (H * D, 4 * H * D)


@given(H=heads, D=widths, generator=generators)
def test_the_mlp_bends_without_the_bend_it_would_be_a_straight_line(H, D, generator):
    mlp, x = scrambled(step.MLP(config_of(H, D)), generator), normal(1, 64, H * D, generator=generator)
    zero = mlp(torch.zeros_like(x))
    assert (mlp(x) + mlp(-x) - 2 * zero).abs().max() > 1e-3


@given(T=size, H=heads, D=widths, generator=generators)
def test_dropout_is_off_in_evaluation(T, H, D, generator):
    model = scrambled(step.Model(config_of(H, D, dropout=0.5)), generator).eval()
    plain = step.Model(config_of(H, D, dropout=0.0)).double()
    plain.load_state_dict(model.state_dict())
    idx = torch.randint(5, (2, T), generator=generator)
    assert torch.equal(model(idx)[0], model(idx)[0])
    assert torch.equal(model(idx)[0], plain(idx)[0])


@pytest.mark.parametrize("part", ["attn", "mlp"])
@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_dropout_in_training_zeroes_its_share_and_scales_the_rest_up(part, dropout):
    generator = torch.Generator().manual_seed(1)
    block = scrambled(step.Block(config_of(2, 8, dropout=dropout, block_size=64)), generator)
    x = normal(32, 64, 16, generator=generator)
    whole = getattr(block.eval(), part)(x)
    torch.manual_seed(2)
    thinned = getattr(block.train(), part)(x)
    dropped = thinned == 0
    sigma = (dropout * (1 - dropout) / dropped.numel()) ** 0.5
    assert dropped.double().mean().item() == pytest.approx(dropout, abs=5 * sigma)
    assert_close(thinned[~dropped], whole[~dropped] / (1 - dropout))


# ── witnesses ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.oracle
@pytest.mark.gradient
@given(B=size, T=size, H=heads, D=widths, generator=generators)
def test_a_block_and_its_input_gradient_equal_torchs_pre_norm_encoder_layer(B, T, H, D, generator):
    block, C = scrambled(step.Block(config_of(H, D)), generator), H * D
    theirs = nn.TransformerEncoderLayer(C, H, 4 * C, 0.0, "relu", norm_first=True, batch_first=True).double()
    rows = [getattr(head, name).weight for name in ("query", "key", "value") for head in block.attn.heads]
    theirs.self_attn.in_proj_weight.data = torch.cat(rows).detach().clone()
    theirs.self_attn.in_proj_bias.data.zero_()
    pairs = (
        (theirs.self_attn.out_proj, block.attn.c_proj),
        (theirs.linear1, block.mlp.c_fc),
        (theirs.linear2, block.mlp.c_proj),
        (theirs.norm1, block.ln_1),
        (theirs.norm2, block.ln_2),
    )
    for target, source in pairs:
        target.load_state_dict(source.state_dict())
    x, dout = normal(2, B, T, C, generator=generator)
    x_theirs = x.clone().requires_grad_()
    expected = theirs(x_theirs, src_mask=torch.ones(T, T, dtype=torch.bool).triu(1))
    expected.backward(dout)
    out = block(x.requires_grad_())
    out.backward(dout)
    assert_close(out, expected, tolerance=1e-9)
    assert_close(x.grad, x_theirs.grad, tolerance=1e-8)
    for target, source in pairs:
        assert_close(source.weight.grad, target.weight.grad, tolerance=1e-8)
        assert_close(source.bias.grad, target.bias.grad, tolerance=1e-8)


@pytest.mark.oracle
@given(B=size, T=size, H=heads, D=widths, n_layer=size, generator=generators)
def test_logits_and_loss_agree_with_the_numpy_reference(B, T, H, D, n_layer, generator):
    model = scrambled(step.Model(config_of(H, D, n_layer=n_layer)), generator)
    idx, targets = torch.randint(5, (2, B, T), generator=generator)
    p = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    x = ref.embedding(p["wte.weight"], idx.numpy())[0] + ref.embedding(p["wpe.weight"], np.arange(T))[0]
    for i in range(n_layer):
        b = ref.part(p, f"h.{i}.")
        x = x + ref.multi_head(ref.layer_norm(x, b["ln_1.weight"], b["ln_1.bias"])[0], ref.part(b, "attn."))[0]
        x = x + ref.mlp(ref.layer_norm(x, b["ln_2.weight"], b["ln_2.bias"])[0], ref.part(b, "mlp."), "relu")[0]
    x, _ = ref.layer_norm(x, p["ln_f.weight"], p["ln_f.bias"])
    expected, _ = ref.linear(x, p["lm_head.weight"], p["lm_head.bias"])
    logits, loss = model(idx, targets)
    np.testing.assert_allclose(logits.detach(), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(loss.item(), ref.cross_entropy(expected, targets.numpy())[0], rtol=1e-9, atol=1e-9)
