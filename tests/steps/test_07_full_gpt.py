"""Step 07: GPT-2 itself, as Hugging Face's model with the same weights bears witness; tied, initialised and cached."""

import math

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from common import reference as ref
from common.hf import load_hf_state
from steps import load

step = load(7)
size = st.integers(1, 4)
heads = st.integers(1, 3)
widths = st.integers(2, 5)  # D
generators = st.integers(0, 2**32 - 1).map(lambda seed: torch.Generator().manual_seed(seed))
few = settings(max_examples=max(5, settings.default.max_examples // 4))


def normal(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def assert_close(ours, theirs, tolerance: float = 1e-10):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def scrambled(module: nn.Module, generator: torch.Generator, std: float = 1.0) -> nn.Module:
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=std, generator=generator)
    return module.eval()


def config_of(H: int, D: int, **others) -> object:
    return step.Config(**{"vocab_size": 7, "block_size": 8, "n_embd": H * D, "n_head": H, "n_layer": 2} | others)


# ── Hugging Face's GPT-2 ──────────────────────────────────────────────────────────────────────────────────


def hugging_face_gpt2(config) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    names = {"vocab_size": "vocab_size", "n_positions": "block_size", "n_embd": "n_embd", "n_head": "n_head"}
    sizes = {theirs: getattr(config, ours) for theirs, ours in names.items()}
    return GPT2LMHeadModel(GPT2Config(n_layer=config.n_layer, attn_implementation="eager", **sizes)).eval()


@pytest.mark.oracle
@pytest.mark.gradient
@few
@given(B=size, T=st.integers(1, 8), H=heads, D=widths, n_layer=st.integers(1, 3), generator=generators)
def test_logits_loss_and_every_gradient_equal_hugging_faces_gpt2(B, T, H, D, n_layer, generator):
    config = config_of(H, D, n_layer=n_layer)
    theirs, ours = scrambled(hugging_face_gpt2(config), generator, std=0.5), step.Model(config).double().eval()
    load_hf_state(ours, theirs.state_dict())
    idx, targets = torch.randint(7, (2, B, T), generator=generator)
    logits, loss = ours(idx, targets)
    expected = theirs(idx).logits
    expected_loss = F.cross_entropy(expected.flatten(0, 1), targets.flatten())
    assert_close(logits, expected)
    assert_close(loss, expected_loss)
    loss.backward()
    expected_loss.backward()
    gradients = {name.removeprefix("transformer."): parameter.grad for name, parameter in theirs.named_parameters()}
    assert gradients.keys() == {name for name, _ in ours.named_parameters()}
    for name, parameter in ours.named_parameters():
        turned = name.endswith(("c_attn.weight", "c_fc.weight", "c_proj.weight"))
        torch.testing.assert_close(
            parameter.grad, gradients[name].T if turned else gradients[name], rtol=1e-9, atol=1e-9
        )


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(3))
def test_in_float32_the_logits_equal_hugging_faces_within_rounding(seed):
    torch.manual_seed(seed)
    config = step.Config(vocab_size=83, block_size=32, n_embd=64, n_head=4, n_layer=3)
    theirs, ours = hugging_face_gpt2(config), step.Model(config).eval()
    load_hf_state(ours, theirs.state_dict())
    idx = torch.randint(83, (2, 32))
    expected = theirs(idx).logits
    assert ((ours(idx)[0] - expected).abs() <= 2e-5 * expected.abs().clamp(min=1)).all()


@pytest.mark.oracle
@pytest.mark.gradient
@given(B=size, T=st.integers(1, 8), H=heads, D=widths, n_layer=st.integers(0, 2), generator=generators)
def test_logits_loss_and_every_gradient_agree_with_the_numpy_reference(B, T, H, D, n_layer, generator):
    model = scrambled(step.Model(config_of(H, D, n_layer=n_layer)), generator, std=0.5)
    idx, targets = torch.randint(7, (2, B, T), generator=generator)
    params = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    expected, expected_loss, cache = ref.gpt(params, idx.numpy(), targets.numpy(), H)
    logits, loss = model(idx, targets)
    loss.backward()
    np.testing.assert_allclose(logits.detach(), expected, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(loss.item(), expected_loss, rtol=1e-10)
    for name, gradient in ref.gpt_backward(cache).items():
        np.testing.assert_allclose(model.get_parameter(name).grad, gradient, rtol=1e-7, atol=1e-9, err_msg=name)


@pytest.mark.oracle
def test_gpt2_small_has_its_published_number_of_parameters():
    with torch.device("meta"):
        model = step.Model(step.Config(vocab_size=50257, block_size=1024, n_embd=768, n_head=12, n_layer=12))
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808


# ── fused attention ───────────────────────────────────────────────────────────────────────────────────────


@given(B=size, T=st.integers(1, 8), H=heads, D=widths, generator=generators)
def test_fused_attention_equals_the_explicit_weights_times_values(B, T, H, D, generator):
    attention = scrambled(step.Attention(config_of(H, D)), generator)
    x = normal(B, T, H * D, generator=generator)
    _, _, v = attention.qkv(x)
    y = (attention.weights(x) @ v).transpose(1, 2).flatten(2)
    assert_close(attention(x), attention.c_proj(y))


@given(B=size, T=st.integers(1, 8), H=heads, D=widths, generator=generators)
def test_weights_of_every_head_are_a_causal_average(B, T, H, D, generator):
    wei = scrambled(step.Attention(config_of(H, D)), generator).weights(normal(B, T, H * D, generator=generator))
    assert wei.shape == (B, H, T, T)
    assert_close(wei.sum(dim=-1), torch.ones(B, H, T, dtype=torch.float64))
    assert not wei.triu(1).any()
    assert_close(wei[..., 0, 0], torch.ones(B, H, dtype=torch.float64))


@pytest.mark.oracle
@given(B=size, T=st.integers(1, 8), H=heads, D=widths, generator=generators)
def test_attention_equals_torchs_multihead_attention(B, T, H, D, generator):
    attention = scrambled(step.Attention(config_of(H, D)), generator)
    theirs = nn.MultiheadAttention(H * D, H, batch_first=True, dtype=torch.float64)
    theirs.in_proj_weight, theirs.in_proj_bias = attention.c_attn.weight, attention.c_attn.bias
    theirs.out_proj.load_state_dict(attention.c_proj.state_dict())
    x = normal(B, T, H * D, generator=generator)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    expected, maps = theirs(x, x, x, attn_mask=future, average_attn_weights=False)
    assert_close(attention(x), expected)
    assert_close(attention.weights(x), maps)


@pytest.mark.parametrize("D", [4, 16, 64])
def test_scores_have_variance_one_by_the_head_size_and_not_by_the_width(D):
    pairs, generator = 2000, torch.Generator().manual_seed(D)
    attention = step.Attention(config_of(4, D)).double()
    attention.c_attn.weight.data[: 4 * D] = torch.eye(4 * D, dtype=torch.float64)  # a head's query reads its own part
    attention.c_attn.weight.data[4 * D : 8 * D] = torch.eye(4 * D, dtype=torch.float64).roll(
        D, dims=1
    )  # the key another
    nn.init.zeros_(attention.c_attn.bias)
    wei = attention.weights(normal(pairs, 2, 4 * D, generator=generator))[:, :, 1]
    difference = (wei[..., 0] / wei[..., 1]).log()  # of two scores, which softmax leaves visible
    assert difference.var().item() / 2 == pytest.approx(1, abs=0.15)


# ── GELU, tying, initialisation ───────────────────────────────────────────────────────────────────────────


@given(B=size, T=size, H=heads, D=widths, generator=generators)
def test_the_mlp_bends_by_gpt2s_tanh_form_of_gelu(B, T, H, D, generator):
    mlp, x = scrambled(step.MLP(config_of(H, D)), generator), normal(B, T, H * D, generator=generator)
    hidden = mlp.c_fc(x)
    bent = 0.5 * hidden * (1 + torch.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
    assert_close(mlp(x), mlp.c_proj(bent))


def test_reading_and_writing_share_one_table_counted_once():
    model = step.Model(config_of(2, 4))
    assert model.lm_head.weight is model.wte.weight
    assert sum(p is model.wte.weight for p in model.parameters()) == 1
    assert model.lm_head.bias is None


@pytest.mark.gradient
@given(B=size, T=size, H=heads, D=widths, generator=generators)
def test_the_tied_table_gets_the_sum_of_both_gradients(B, T, H, D, generator):
    model = scrambled(step.Model(config_of(H, D)), generator, std=0.5)
    idx, targets = torch.randint(7, (2, B, T), generator=generator)
    model(idx, targets)[1].backward()
    read, write = (model.wte.weight.detach().clone().requires_grad_() for _ in range(2))
    untied = {"wte.weight": read, "lm_head.weight": write}
    torch.func.functional_call(model, untied, (idx, targets), tie_weights=False)[1].backward()
    assert read.grad.any() and write.grad.any()
    assert_close(model.wte.weight.grad, read.grad + write.grad)


@pytest.mark.parametrize("n_layer", [1, 2, 8])
def test_weights_start_with_std_002_and_into_the_residual_stream_smaller_by_depth(n_layer):
    torch.manual_seed(n_layer)
    model = step.Model(config_of(4, 16, n_layer=n_layer, vocab_size=83, block_size=64))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "ln_" in name:
            assert (parameter == 1).all(), name
        else:
            std = 0.02 / math.sqrt(2 * n_layer) if name.endswith("c_proj.weight") else 0.02
            sigma = std / math.sqrt(2 * parameter.numel())  # how exactly so many numbers can show their std
            assert parameter.std().item() == pytest.approx(std, abs=5 * sigma), name
            assert parameter.mean().item() == pytest.approx(0, abs=5 * std / math.sqrt(parameter.numel())), name


@settings(max_examples=10)
@given(V=st.integers(2, 300), n_layer=st.integers(0, 4), seed=st.integers(0, 2**32 - 1))
def test_an_untrained_model_is_as_surprised_as_a_guess(V, n_layer, seed):
    torch.manual_seed(seed)
    model = step.Model(step.Config(vocab_size=V, block_size=16, n_embd=32, n_layer=n_layer))
    idx, targets = torch.randint(V, (2, 16, 16))
    assert model(idx, targets)[1].item() == pytest.approx(math.log(V), abs=0.1)


def test_one_batch_can_be_learned_by_heart():
    torch.manual_seed(0)
    model = step.Model(step.Config(vocab_size=13, block_size=8, n_embd=32, n_head=2, n_layer=2))
    idx, targets = torch.randint(13, (2, 4, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(idx, targets)[1]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02


@given(T=st.integers(1, 8), H=heads, D=widths, seed=st.integers(0, 2**32 - 1))
def test_bfloat16_stays_within_a_hundredth_of_float32(T, H, D, seed):
    torch.manual_seed(seed)
    model = step.Model(config_of(H, D)).eval()
    idx = torch.randint(7, (2, T))
    expected = model(idx)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(idx)[0]
    assert ((logits.float() - expected).abs() <= 1e-2 * expected.abs().clamp(min=1)).all()


# ── the residual stream and dropout ───────────────────────────────────────────────────────────────────────


@given(B=size, T=size, H=heads, D=widths, dropout=st.sampled_from([0.0, 0.5]), generator=generators)
def test_zeroed_output_projections_make_the_block_the_identity(B, T, H, D, dropout, generator):
    block = scrambled(step.Block(config_of(H, D, dropout=dropout)), generator).train()
    for linear in (block.attn.c_proj, block.mlp.c_proj):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    x, dout = normal(2, B, T, H * D, generator=generator)
    out = block(x.requires_grad_())
    out.backward(dout)
    assert torch.equal(out, x)
    assert torch.equal(x.grad, dout)


@given(T=st.integers(1, 8), H=heads, D=widths, generator=generators)
def test_dropout_is_off_in_evaluation(T, H, D, generator):
    model = scrambled(step.Model(config_of(H, D, dropout=0.5)), generator)
    plain = step.Model(config_of(H, D, dropout=0.0)).double()
    plain.load_state_dict(model.state_dict())
    idx = torch.randint(7, (2, T), generator=generator)
    assert torch.equal(model(idx)[0], model(idx)[0])
    assert torch.equal(model(idx)[0], plain(idx)[0])


@pytest.mark.parametrize("part", ["dropout", "attn", "mlp"])
def test_dropout_in_training_zeroes_its_share_of_embeddings_attention_and_mlp(part):
    torch.manual_seed(1)
    model = scrambled(step.Model(config_of(2, 8, dropout=0.2, block_size=64)), torch.Generator().manual_seed(1)).train()
    watched = [model.dropout] if part == "dropout" else [getattr(block, part) for block in model.h]
    seen = []
    for module in watched:
        module.register_forward_hook(lambda module, args, out: seen.append((out == 0).double()))
    model(torch.randint(7, (32, 64)))
    assert len(seen) == len(watched)
    for dropped in seen:
        assert dropped.mean().item() == pytest.approx(0.2, abs=5 * math.sqrt(0.2 * 0.8 / dropped.numel()))


def test_dropout_in_training_also_thins_the_attention_weights():
    torch.manual_seed(1)
    attention = step.Attention(config_of(2, 8, dropout=0.5, block_size=64)).double().train()
    for parameter in attention.parameters():
        nn.init.zeros_(parameter)
    attention.c_attn.bias.data[-16:] = 1  # every value is 1, so that every average of values is 1 …
    attention.c_proj.weight.data = torch.eye(16, dtype=torch.float64)
    out = attention(torch.zeros(4, 64, 16, dtype=torch.float64))
    kept = out[out != 0]
    assert ((kept - 2).abs() > 1e-6).any()  # … unless weights were dropped: then it is not always 1 / (1 − 0.5)
    assert_close(attention.eval()(torch.zeros(4, 64, 16, dtype=torch.float64)), torch.ones(4, 64, 16).double())


# ── cached keys and values ────────────────────────────────────────────────────────────────────────────────


@given(B=size, T=st.integers(1, 8), H=heads, D=widths, n_layer=st.integers(1, 3), generator=generators, data=st.data())
def test_one_token_at_a_time_through_the_cache_gives_the_logits_of_the_whole(B, T, H, D, n_layer, generator, data):
    model = scrambled(step.Model(config_of(H, D, n_layer=n_layer)), generator, std=0.5)
    idx = torch.randint(7, (B, T), generator=generator)
    prompt = data.draw(st.integers(1, T))
    cache = [step.KeyValues() for _ in model.h]
    pieces = [model(idx[:, :prompt], cache=cache)[0]]
    pieces += [model(idx[:, t : t + 1], cache=cache)[0] for t in range(prompt, T)]
    assert_close(torch.cat(pieces, dim=1), model(idx)[0])
    assert all(layer.keys.shape == layer.values.shape == (B, H, T, D) for layer in cache)


@few
@given(
    B=size, block_size=st.integers(1, 6), T=st.integers(1, 9), count=st.integers(1, 20), top_k=st.none() | size,
    temperature=st.sampled_from([0.0, 0.7, 1.0]), n_layer=st.integers(1, 2), generator=generators,
)  # fmt: skip
def test_cached_and_uncached_generation_agree_past_the_block_size_too(
    B, block_size, T, count, top_k, temperature, n_layer, generator
):
    model = scrambled(step.Model(config_of(2, 4, n_layer=n_layer, block_size=block_size)), generator, std=0.5)
    idx = torch.randint(7, (B, T), generator=generator)
    cached, uncached = (
        model.generate(idx, count, temperature, top_k, torch.Generator().manual_seed(1), use_cache=use)
        for use in (True, False)
    )
    assert torch.equal(cached, uncached)


@few
@given(block_size=st.integers(1, 6), T=st.integers(1, 9), count=st.integers(1, 20), generator=generators)
def test_a_full_window_goes_on_with_its_newer_half(block_size, T, count, generator):
    model = scrambled(step.Model(config_of(2, 4, block_size=block_size)), generator, std=0.5)
    prompt = torch.randint(7, (1, T), generator=generator)
    text, window = prompt, prompt[:, -block_size:]
    for _ in range(count):
        if window.size(1) > block_size:
            window = window[:, -max(1, block_size // 2) :]
        following = model(window)[0][:, -1].argmax(dim=-1, keepdim=True)
        text, window = torch.cat((text, following), dim=1), torch.cat((window, following), dim=1)
    assert torch.equal(model.generate(prompt, count, temperature=0), text)


@few
@given(T=st.integers(1, 12), generator=generators)
def test_within_the_first_window_generation_is_plain_recomputation(T, generator):
    model = scrambled(step.Model(config_of(2, 4, block_size=12)), generator, std=0.5)
    prompt = torch.randint(7, (2, T), generator=generator)
    text = prompt
    while text.size(1) <= 12:
        text = torch.cat((text, model(text)[0][:, -1].argmax(dim=-1, keepdim=True)), dim=1)
    assert torch.equal(model.generate(prompt, 13 - T, temperature=0), text)


def test_the_cache_computes_one_position_for_each_new_token():
    model, lengths = step.Model(config_of(2, 4, block_size=16)), []
    model.h[0].register_forward_pre_hook(lambda module, args: lengths.append(args[0].size(1)))
    model.generate(torch.zeros(1, 5, dtype=torch.long), 10)
    assert lengths == [5] + [1] * 9


def test_a_filled_cache_refuses_more_than_one_token_at_a_time():
    step = load(7)
    model = step.Model(step.Config(vocab_size=5, block_size=8, n_embd=8, n_head=2, n_layer=1)).eval()
    cache = [step.KeyValues() for _ in model.h]
    model(torch.zeros(1, 3, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="holds 3 tokens already: feed what follows one token at a time"):
        model(torch.zeros(1, 2, dtype=torch.long), cache=cache)
    model(torch.zeros(1, 1, dtype=torch.long), cache=cache)
    assert cache[0].keys.size(2) == 4


def test_past_the_window_generation_goes_on_with_its_newer_half(monkeypatch):
    model = step.Model(step.Config(vocab_size=5, block_size=8, n_embd=4, n_head=1, n_layer=1)).eval()
    lengths, forward = [], step.Model.forward
    monkeypatch.setattr(
        step.Model, "forward", lambda self, idx, **more: lengths.append(idx.size(1)) or forward(self, idx, **more)
    )
    model.generate(torch.zeros(1, 1, dtype=torch.long), 18, use_cache=False)
    assert lengths == [1, 2, 3, 4, 5, 6, 7, 8, 4, 5, 6, 7, 8, 4, 5, 6, 7, 8]
