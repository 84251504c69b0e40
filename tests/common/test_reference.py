"""The NumPy reference against witnesses that share no code with it: autograd, finite differences, GPT-2.

Every test draws sizes and a seed. float64 agrees to 1e-10, float32 gives float32, no input is written to.
"""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from common import reference as ref

size = st.integers(1, 5)
leading = st.lists(st.integers(1, 3), max_size=3).map(tuple)  # any number of leading axes, none included
rngs = st.builds(np.random.default_rng, st.integers(0, 2**32 - 1))
spread = st.sampled_from([0.1, 1.0, 20.0])  # 20: saturated tanh and softmax


def flat(values) -> dict:
    """Inputs, or gradients, of any piece by name: (x, {"c_fc.weight": w}) → {"0": x, "c_fc.weight": w}."""
    values = values if isinstance(values, tuple) else (values,)
    named = {}
    for i, value in enumerate(values):
        named |= value if isinstance(value, dict) else {str(i): value}
    return named


def each(function, values: tuple) -> tuple:
    """function applied to every array among the inputs, also to those in a dict."""
    return tuple(
        {k: function(v) for k, v in value.items()} if isinstance(value, dict) else function(value) for value in values
    )


def is_float(array) -> bool:
    return np.asarray(array).dtype.kind == "f"


def assert_close(ours, theirs, name="out"):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    assert np.shape(ours) == np.shape(theirs), name
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10, err_msg=name)


def backward_of(piece):
    return getattr(ref, f"{piece.__name__}_backward")


def assert_agrees_with_autograd(piece, oracle, rng, *inputs, **options):
    """piece = oracle, and piece_backward = the oracle's gradient for every float input, for a random dout."""
    before, piece_backward = each(np.copy, inputs), backward_of(piece)
    out, cache = piece(*inputs, **options)
    dout = rng.standard_normal(np.shape(out))[()]  # a number, not an array, where out is one
    grads = flat(piece_backward(dout, cache))

    leaves = each(lambda a: torch.tensor(a, requires_grad=is_float(a)), inputs)
    expected = oracle(*leaves)
    expected.backward(torch.as_tensor(dout))
    assert_close(out, expected)
    wanted = {name: leaf.grad for name, leaf in flat(leaves).items() if leaf.requires_grad}
    assert grads.keys() == wanted.keys()
    for name, grad in wanted.items():
        assert_close(grads[name], grad, f"gradient of {name}")

    for name, array in flat(before).items():
        assert np.array_equal(array, flat(inputs)[name]), f"{name} was written to"
    out32, cache32 = piece(*each(lambda a: a.astype(np.float32) if is_float(a) else a, inputs), **options)
    grads32 = flat(piece_backward(dout.astype(np.float32), cache32))
    assert {np.asarray(a).dtype for a in (out32, *grads32.values())} == {np.dtype(np.float32)}


def assert_agrees_with_differences(loss, grads: dict, arrays: dict, rng):
    """The slope of the loss along one random direction of all arrays: a fourth-order central difference."""
    step, direction = 1e-5, {name: rng.standard_normal(array.shape) for name, array in arrays.items()}
    a, b, c, d = (
        loss({name: array + n * step * direction[name] for name, array in arrays.items()}) for n in (-2, -1, 1, 2)
    )
    slope = sum((grads[name] * direction[name]).sum() for name in arrays)
    np.testing.assert_allclose(slope, (a - 8 * b + 8 * c - d) / (12 * step), rtol=1e-6, atol=1e-7)


# ── layers ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.oracle
@pytest.mark.gradient
@given(V=size, C=size, shape=leading, rng=rngs)
def test_embedding_agrees_with_torch_and_adds_the_gradients_of_a_repeated_row(V, C, shape, rng):
    def oracle(weight, idx):
        return F.embedding(idx, weight)

    weight, idx = rng.standard_normal((V, C)), rng.integers(V, size=shape)
    assert_agrees_with_autograd(ref.embedding, oracle, rng, weight, idx)


@pytest.mark.oracle
@pytest.mark.gradient
@given(I=size, O=size, shape=leading, rng=rngs)
def test_linear_agrees_with_torch(I, O, shape, rng):  # noqa: E741
    x, weight, bias = (rng.standard_normal(s) for s in ((*shape, I), (O, I), O))
    assert_agrees_with_autograd(ref.linear, F.linear, rng, x, weight, bias)


@pytest.mark.oracle
@pytest.mark.gradient
@given(C=size, shape=leading, spread=spread, rng=rngs)
def test_relu_agrees_with_torch_also_at_zero(C, shape, spread, rng):
    x = spread * rng.standard_normal((*shape, C))
    x[rng.random(x.shape) < 0.5] = 0
    assert_agrees_with_autograd(ref.relu, F.relu, rng, x)


@pytest.mark.oracle
@pytest.mark.gradient
@given(C=size, shape=leading, spread=spread, rng=rngs)
def test_gelu_agrees_with_torch_tanh_form(C, shape, spread, rng):
    x = spread * rng.standard_normal((*shape, C))
    assert_agrees_with_autograd(ref.gelu, partial(F.gelu, approximate="tanh"), rng, x)


@pytest.mark.oracle
@pytest.mark.gradient
@given(C=size, shape=leading, spread=spread, eps=st.sampled_from([1e-5, 0.1]), rng=rngs)
def test_layer_norm_agrees_with_torch(C, shape, spread, eps, rng):
    def oracle(x, weight, bias):
        return F.layer_norm(x, (C,), weight, bias, eps)

    x, (weight, bias) = spread * rng.standard_normal((*shape, C)), rng.standard_normal((2, C))
    assert_agrees_with_autograd(ref.layer_norm, oracle, rng, x, weight, bias, eps=eps)


@pytest.mark.oracle
@given(C=st.integers(2, 5), rng=rngs)
def test_layer_norm_takes_eps_1e_5_unless_told_otherwise(C, rng):
    x, weight, bias = 1e-3 * rng.standard_normal(C), np.ones(C), np.zeros(C)  # var near eps: eps matters
    assert_close(ref.layer_norm(x, weight, bias)[0], torch.nn.LayerNorm(C).double()(torch.tensor(x)))


@pytest.mark.oracle
@pytest.mark.gradient
@given(V=size, shape=leading, spread=spread, rng=rngs)
def test_softmax_agrees_with_torch(V, shape, spread, rng):
    x = spread * rng.standard_normal((*shape, V))
    assert_agrees_with_autograd(ref.softmax, partial(torch.softmax, dim=-1), rng, x)


@pytest.mark.oracle
@pytest.mark.gradient
@given(V=size, shape=leading, spread=spread, rng=rngs)
def test_cross_entropy_agrees_with_torch(V, shape, spread, rng):
    def oracle(logits, targets):
        return F.cross_entropy(logits.reshape(-1, V), targets.reshape(-1))

    logits, targets = spread * rng.standard_normal((*shape, V)), rng.integers(V, size=shape)
    assert_agrees_with_autograd(ref.cross_entropy, oracle, rng, logits, targets)


@given(V=size, shift=st.sampled_from([-1e4, 1e4]), rng=rngs)
def test_huge_logits_overflow_nowhere(V, shift, rng):
    x, target = rng.standard_normal((2, V)), np.zeros(2, int)
    np.testing.assert_allclose(ref.softmax(x + shift)[0], ref.softmax(x)[0], rtol=1e-8)
    np.testing.assert_allclose(
        ref.cross_entropy(x + shift, target)[0], ref.cross_entropy(x, target)[0], rtol=1e-8, atol=1e-8
    )


# ── the past ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.oracle
@pytest.mark.gradient
@given(shape=leading, T=size, C=size, rng=rngs)
def test_prefix_mean_is_the_mean_of_each_prefix(shape, T, C, rng):
    def oracle(x):
        return torch.stack([x[..., : t + 1, :].mean(-2) for t in range(T)], -2)

    x = rng.standard_normal((*shape, T, C))
    assert_agrees_with_autograd(ref.prefix_mean, oracle, rng, x)


@pytest.mark.oracle
@pytest.mark.gradient
@given(shape=leading, T=size, D=size, E=size, spread=spread, rng=rngs)
def test_scaled_dot_product_attention_agrees_with_torch(shape, T, D, E, spread, rng):
    q, k, v = (rng.standard_normal((*shape, T, width)) for width in (D, D, E))
    oracle = partial(F.scaled_dot_product_attention, is_causal=True)
    assert_agrees_with_autograd(ref.scaled_dot_product_attention, oracle, rng, spread * q, k, v)


@given(B=size, T=size, C=size, D=size, rng=rngs)
def test_zero_queries_give_the_prefix_mean(B, T, C, D, rng):
    x, q, k = rng.standard_normal((B, T, C)), np.zeros((B, T, D)), rng.standard_normal((B, T, D))
    assert_close(ref.scaled_dot_product_attention(q, k, x)[0], ref.prefix_mean(x)[0])


# ── modules ───────────────────────────────────────────────────────────────────────────────────────────────


def normal(rng, **shapes) -> dict:
    """Parameters by name; "." is written "__" in the keywords."""
    return {name.replace("__", "."): rng.standard_normal(shape) for name, shape in shapes.items()}


def head_parameters(rng, C, D) -> dict:
    return normal(rng, query__weight=(D, C), key__weight=(D, C), value__weight=(D, C))


def attention_parameters(rng, C) -> dict:
    return normal(rng, c_attn__weight=(3 * C, C), c_attn__bias=3 * C, c_proj__weight=(C, C), c_proj__bias=C)


def mlp_parameters(rng, C) -> dict:
    return normal(rng, c_fc__weight=(4 * C, C), c_fc__bias=4 * C, c_proj__weight=(C, 4 * C), c_proj__bias=C)


def block_parameters(rng, C) -> dict:
    norms = normal(rng, ln_1__weight=C, ln_1__bias=C, ln_2__weight=C, ln_2__bias=C)
    attn, mlp = attention_parameters(rng, C), mlp_parameters(rng, C)
    return norms | {f"attn.{k}": v for k, v in attn.items()} | {f"mlp.{k}": v for k, v in mlp.items()}


def torch_multi_head(x, in_weight, in_bias, out_weight, out_bias, n_head):
    """torch.nn.MultiheadAttention's own function, causal: (B, T, C) → (B, T, C)."""
    x = x.transpose(0, 1)
    T, _, C = x.shape
    out, _ = F.multi_head_attention_forward(
        x, x, x, C, n_head, in_weight, in_bias, None, None, False, 0.0, out_weight, out_bias,
        need_weights=False, attn_mask=torch.ones(T, T, dtype=torch.bool).triu(1),
    )  # fmt: skip
    return out.transpose(0, 1)


ACTIVATIONS = {"relu": F.relu, "gelu": partial(F.gelu, approximate="tanh")}
heads = st.integers(1, 3)
activations = st.sampled_from(sorted(ACTIVATIONS))


@pytest.mark.oracle
@pytest.mark.gradient
@given(B=size, T=size, C=size, D=size, rng=rngs)
def test_head_agrees_with_torch(B, T, C, D, rng):
    def oracle(x, p):
        q, k, v = (F.linear(x, p[f"{name}.weight"]) for name in ("query", "key", "value"))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    x, params = rng.standard_normal((B, T, C)), head_parameters(rng, C, D)
    assert_agrees_with_autograd(ref.head, oracle, rng, x, params)


@pytest.mark.oracle
@pytest.mark.gradient
@given(B=size, T=size, H=heads, D=heads, rng=rngs)
def test_multi_head_agrees_with_torch_multihead_attention(B, T, H, D, rng):
    def oracle(x, p):
        names = [f"heads.{i}.{name}.weight" for name in ("query", "key", "value") for i in range(H)]
        in_weight = torch.cat([p[name] for name in names])
        return torch_multi_head(x, in_weight, None, p["c_proj.weight"], p["c_proj.bias"], H)

    params = normal(rng, c_proj__weight=(H * D, H * D), c_proj__bias=H * D)
    for i in range(H):
        params |= {f"heads.{i}.{k}": v for k, v in head_parameters(rng, H * D, D).items()}
    x = rng.standard_normal((B, T, H * D))
    assert_agrees_with_autograd(ref.multi_head, oracle, rng, x, params)


@pytest.mark.oracle
@pytest.mark.gradient
@given(B=size, T=size, H=heads, D=heads, rng=rngs)
def test_attention_agrees_with_torch_multihead_attention(B, T, H, D, rng):
    def oracle(x, p):
        names = ("c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias")
        return torch_multi_head(x, *(p[name] for name in names), H)

    x, params = rng.standard_normal((B, T, H * D)), attention_parameters(rng, H * D)
    assert_agrees_with_autograd(ref.attention, oracle, rng, x, params, n_head=H)


@pytest.mark.oracle
@pytest.mark.gradient
@given(B=size, T=size, C=size, activation=activations, rng=rngs)
def test_mlp_agrees_with_torch(B, T, C, activation, rng):
    def oracle(x, p):
        hidden = ACTIVATIONS[activation](F.linear(x, p["c_fc.weight"], p["c_fc.bias"]))
        return F.linear(hidden, p["c_proj.weight"], p["c_proj.bias"])

    x, params = rng.standard_normal((B, T, C)), mlp_parameters(rng, C)
    assert_agrees_with_autograd(ref.mlp, oracle, rng, x, params, activation=activation)


TORCH_NAMES = {
    "attn.c_attn.": "self_attn.in_proj_",
    "attn.c_proj.": "self_attn.out_proj.",
    "mlp.c_fc.": "linear1.",
    "mlp.c_proj.": "linear2.",
    "ln_1.": "norm1.",
    "ln_2.": "norm2.",
}


@pytest.mark.oracle
@pytest.mark.gradient
@given(B=size, T=size, H=heads, D=heads, activation=activations, rng=rngs)
def test_block_agrees_with_a_pre_norm_torch_encoder_layer(B, T, H, D, activation, rng):
    C, mask = H * D, torch.ones(T, T, dtype=torch.bool).triu(1)
    layer = torch.nn.TransformerEncoderLayer(
        C, H, 4 * C, 0.0, ACTIVATIONS[activation], norm_first=True, batch_first=True, dtype=torch.float64
    )

    def oracle(x, p):
        renamed = {
            theirs + name.removeprefix(ours): value
            for ours, theirs in TORCH_NAMES.items()
            for name, value in p.items()
            if name.startswith(ours)
        }
        return torch.func.functional_call(layer, renamed, (x, mask), strict=True)

    x, params = rng.standard_normal((B, T, C)), block_parameters(rng, C)
    assert_agrees_with_autograd(ref.block, oracle, rng, x, params, n_head=H, activation=activation)


@given(B=size, T=size, C=size, rng=rngs)
def test_the_activation_is_gelu_unless_told_otherwise(B, T, C, rng):
    x, params = rng.standard_normal((B, T, C)), block_parameters(rng, C)
    assert_close(ref.mlp(x, ref.part(params, "mlp."))[0], ref.mlp(x, ref.part(params, "mlp."), "gelu")[0])
    assert_close(ref.block(x, params, 1)[0], ref.block(x, params, 1, "gelu")[0])


@given(B=size, T=size, H=heads, D=heads, rng=rngs)
def test_fused_attention_equals_heads_side_by_side(B, T, H, D, rng):
    C = H * D
    fused = attention_parameters(rng, C) | {"c_attn.bias": np.zeros(3 * C)}
    single = {name: value for name, value in fused.items() if name.startswith("c_proj.")}
    for name, rows in zip(("query", "key", "value"), np.split(fused["c_attn.weight"], 3), strict=True):
        single |= {f"heads.{i}.{name}.weight": head_rows for i, head_rows in enumerate(np.split(rows, H))}
    x = rng.standard_normal((B, T, C))
    assert_close(ref.attention(x, fused, H)[0], ref.multi_head(x, single)[0])


# ── models ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.gradient
@given(V=size, B=size, T=size, rng=rngs)
def test_bigram_gradient_is_softmax_minus_onehot_over_n(V, B, T, rng):
    table, idx, targets = rng.standard_normal((V, V)), *rng.integers(V, size=(2, B, T))
    logits, loss, cache = ref.bigram(table, idx, targets)
    expected_loss, expected = 0.0, np.zeros((V, V))
    for now, then in zip(idx.flat, targets.flat, strict=True):
        p = np.exp(table[now]) / np.exp(table[now]).sum()
        expected_loss -= np.log(p[then]) / (B * T)
        expected[now] += (p - np.eye(V)[then]) / (B * T)
    assert_close(logits, table[idx])
    assert_close(loss, expected_loss)
    assert_close(ref.bigram_backward(cache), expected)


def gpt2(rng, V, block_size, n_layer, H, D):
    """Hugging Face's GPT-2 in float64 with random weights, and the same weights by our names."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=V,
        n_positions=block_size,
        n_embd=H * D,
        n_layer=n_layer,
        n_head=H,
        attn_implementation="eager",
    )
    model = GPT2LMHeadModel(config).double().eval()  # eval: no dropout
    for parameter in model.parameters():
        parameter.data = torch.tensor(rng.standard_normal(parameter.shape))  # biases and LayerNorms too
    return model, by_our_names(model, lambda parameter: parameter.data)


def by_our_names(model, read) -> dict:
    """GPT-2's Conv1D keeps its weight as (in, out); ours, like torch's, is (out, in)."""
    named = {name.removeprefix("transformer."): read(p).numpy() for name, p in model.named_parameters()}
    conv1d = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    return {name: array.T.copy() if name.endswith(conv1d) else array for name, array in named.items()}


@pytest.mark.oracle
@pytest.mark.gradient
@given(V=size, B=heads, T=size, spare=st.integers(0, 2), n_layer=st.integers(1, 2), H=heads, D=heads, rng=rngs)
def test_gpt_agrees_with_hugging_face_gpt2_in_logits_loss_and_every_gradient(V, B, T, spare, n_layer, H, D, rng):
    model, params = gpt2(rng, V, T + spare, n_layer, H, D)
    idx, targets = rng.integers(V, size=(2, B, T))
    logits, loss, cache = ref.gpt(params, idx, targets, H)
    grads = ref.gpt_backward(cache)

    expected = model(torch.tensor(idx)).logits
    expected_loss = F.cross_entropy(expected.flatten(0, 1), torch.tensor(targets).flatten())
    expected_loss.backward()
    assert_close(logits, expected)
    assert_close(loss, expected_loss)
    wanted = by_our_names(model, lambda parameter: parameter.grad)
    assert grads.keys() == wanted.keys() == params.keys()
    for name in wanted:
        assert_close(grads[name], wanted[name], f"gradient of {name}")


def gpt_parameters(rng, V, block_size, n_layer, C) -> dict:
    params = normal(rng, wte__weight=(V, C), wpe__weight=(block_size, C), ln_f__weight=C, ln_f__bias=C)
    for i in range(n_layer):
        params |= {f"h.{i}.{name}": value for name, value in block_parameters(rng, C).items()}
    return params


@pytest.mark.gradient
@given(V=size, B=heads, T=size, n_layer=st.integers(0, 2), H=heads, D=heads, rng=rngs)
def test_gpt_gradient_agrees_with_finite_differences(V, B, T, n_layer, H, D, rng):
    params = {name: 0.3 * value for name, value in gpt_parameters(rng, V, T, n_layer, H * D).items()}
    idx, targets = rng.integers(V, size=(2, B, T))
    grads = ref.gpt_backward(ref.gpt(params, idx, targets, H)[2])
    assert_agrees_with_differences(lambda p: ref.gpt(p, idx, targets, H)[1], grads, params, rng)


@pytest.mark.gradient
@pytest.mark.parametrize(
    "piece",
    [ref.gelu, ref.softmax, ref.prefix_mean, ref.scaled_dot_product_attention],
    ids=lambda piece: piece.__name__,
)
@given(T=size, C=size, rng=rngs)
def test_layer_gradients_agree_with_finite_differences(piece, T, C, rng):
    names = "qkv" if piece is ref.scaled_dot_product_attention else "x"
    inputs = {str(i): rng.standard_normal((T, C)) for i in range(len(names))}
    out, cache = piece(*inputs.values())
    dout = rng.standard_normal(out.shape)
    grads = flat(backward_of(piece)(dout, cache))
    assert_agrees_with_differences(lambda a: (piece(*a.values())[0] * dout).sum(), grads, inputs, rng)


@given(V=size, B=heads, T=size, H=heads, D=heads, rng=rngs)
def test_gpt_keeps_float32(V, B, T, H, D, rng):
    params = {k: v.astype(np.float32) for k, v in gpt_parameters(rng, V, T, 1, H * D).items()}
    logits, loss, cache = ref.gpt(params, *rng.integers(V, size=(2, B, T)), H)
    assert {a.dtype for a in (logits, loss, *ref.gpt_backward(cache).values())} == {np.dtype(np.float32)}


@given(V=size, T=size, rng=rngs)
def test_gpt_refuses_a_text_longer_than_block_size(V, T, rng):
    idx = np.zeros((1, T + 1), int)
    with pytest.raises(IndexError):
        ref.gpt(gpt_parameters(rng, V, T, 1, 2), idx, idx, 1)
