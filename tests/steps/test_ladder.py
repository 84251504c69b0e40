"""The ladder against itself: with the same weights, switch off what a step adds, and the step before remains."""

import pytest
import torch
import torch.nn as nn
from hypothesis import given
from hypothesis import strategies as st

from steps import load

pytestmark = pytest.mark.oracle
size = st.integers(1, 5)
heads = st.integers(1, 3)
widths = st.integers(2, 4)  # D
generators = st.integers(0, 2**32 - 1).map(lambda seed: torch.Generator().manual_seed(seed))


def build(number: int, generator: torch.Generator, **sizes) -> nn.Module:
    model = load(number).Model(load(number).Config(vocab_size=5, block_size=6, **sizes)).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    return model


def copy(target: nn.Module, source: nn.Module, *names: str) -> None:
    for name in names:
        target.get_submodule(name).load_state_dict(source.get_submodule(name).state_dict())


def assert_same_logits(a: nn.Module, b: nn.Module, T: int, generator: torch.Generator) -> None:
    idx = torch.randint(5, (2, T), generator=generator)
    torch.testing.assert_close(a(idx, idx), b(idx, idx), rtol=1e-10, atol=1e-10)


def fuse(attention: nn.Module, multi_head: nn.Module) -> None:
    """Give step 07's fused attention the weights of separate heads."""
    rows = [getattr(head, name).weight for name in ("query", "key", "value") for head in multi_head.heads]
    attention.c_attn.weight.data = torch.cat(rows).detach().clone()
    attention.c_attn.bias.data.zero_()
    copy(attention, multi_head, "c_proj")


@given(T=st.integers(1, 6), C=size, generator=generators)
def test_02_that_ignores_the_average_is_a_bigram_of_token_and_position(T, C, generator):
    averaging, bigram = build(2, generator, n_embd=C), build(1, generator)
    averaging.wpe.weight.data.zero_()
    averaging.lm_head.weight.data[:, C:] = 0
    table = averaging.wte.weight @ averaging.lm_head.weight[:, :C].T + averaging.lm_head.bias
    bigram.token_table.weight.data = table.detach()
    assert_same_logits(averaging, bigram, T, generator)


@given(T=st.integers(1, 6), C=size, generator=generators)
def test_03_with_zero_queries_is_the_average_of_02_added(T, C, generator):
    attention, averaging = build(3, generator, n_embd=C, head_size=3), build(2, generator, n_embd=C)
    copy(averaging, attention, "wte", "wpe")
    attention.attn.query.weight.data.zero_()
    averaging.lm_head.weight.data = attention.lm_head.weight.data.repeat(1, 2)  # x + average = [1 1] · [x, average]
    averaging.lm_head.bias.data = attention.lm_head.bias.data
    assert_same_logits(attention, averaging, T, generator)


@given(T=st.integers(1, 6), C=size, generator=generators)
def test_04_with_values_that_are_the_inputs_is_03(T, C, generator):
    head, attention = build(4, generator, n_embd=C), build(3, generator, n_embd=C, head_size=C)
    copy(head, attention, "wte", "wpe", "lm_head", "attn.query", "attn.key")
    nn.init.eye_(head.attn.value.weight)
    assert_same_logits(head, attention, T, generator)


@given(T=st.integers(1, 6), C=size, generator=generators)
def test_05_with_one_head_and_no_projection_is_04(T, C, generator):
    multi_head, head = build(5, generator, n_embd=C, n_head=1), build(4, generator, n_embd=C)
    copy(multi_head, head, "wte", "wpe", "lm_head")
    multi_head.attn.heads[0].load_state_dict(head.attn.state_dict())
    nn.init.eye_(multi_head.attn.c_proj.weight)
    nn.init.zeros_(multi_head.attn.c_proj.bias)
    assert_same_logits(multi_head, head, T, generator)


@given(T=st.integers(1, 6), H=heads, D=widths, generator=generators)
def test_06_without_mlp_and_layernorm_is_05(T, H, D, generator):
    block = build(6, generator, n_embd=H * D, n_head=H, n_layer=1)
    multi_head = build(5, generator, n_embd=H * D, n_head=H)
    copy(block, multi_head, "wte", "wpe", "lm_head")
    block.h[0].attn.load_state_dict(multi_head.attn.state_dict())
    block.h[0].ln_1, block.ln_f = nn.Identity(), nn.Identity()
    nn.init.zeros_(block.h[0].mlp.c_proj.weight)
    nn.init.zeros_(block.h[0].mlp.c_proj.bias)
    assert_same_logits(block, multi_head, T, generator)


@given(B=size, T=st.integers(1, 6), H=heads, D=widths, generator=generators)
def test_07s_fused_attention_is_06s_explicit_one(B, T, H, D, generator):
    full = build(7, generator, n_embd=H * D, n_head=H, n_layer=1).h[0].attn
    explicit = build(6, generator, n_embd=H * D, n_head=H, n_layer=1).h[0].attn
    fuse(full, explicit)
    x = torch.randn(B, T, H * D, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(full(x), explicit(x), rtol=1e-10, atol=1e-10)
    maps = torch.stack([head.weights(x) for head in explicit.heads], dim=1)
    torch.testing.assert_close(full.weights(x), maps, rtol=1e-10, atol=1e-10)


@given(T=st.integers(1, 6), H=heads, D=widths, n_layer=st.integers(1, 2), generator=generators)
def test_06_with_gelu_and_its_token_table_as_head_is_07(T, H, D, n_layer, generator):
    sizes = {"n_embd": H * D, "n_head": H, "n_layer": n_layer}
    full, block = build(7, generator, **sizes), build(6, generator, **sizes)
    copy(full, block, "wte", "wpe", "ln_f")
    block.lm_head.weight.data, block.lm_head.bias.data = full.wte.weight.data, torch.zeros(5, dtype=torch.float64)
    for ours, theirs in zip(full.h, block.h, strict=True):
        copy(ours, theirs, "ln_1", "ln_2", "mlp")
        fuse(ours.attn, theirs.attn)
        theirs.mlp.forward = ours.mlp.forward  # ReLU became GELU; the weights are the same
    assert_same_logits(full, block, T, generator)
