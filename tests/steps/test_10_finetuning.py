"""LoRA by hand: equal to peft in what it computes, learns and becomes; a change of low rank beside a frozen base."""

import copy

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from common.linear import Linear
from steps import load

step = load(10)
few = settings(max_examples=max(10, settings.default.max_examples // 4))  # peft takes its time to wrap a model
seeds = st.integers(0, 2**32 - 1)
TARGETS = {"gpt2": ("c_attn", "c_proj", "c_fc"), "llama": ("q_proj", "v_proj", "down_proj"), "ours": ("c_attn", "c_fc")}


def language_model(kind: str, seed: int = 0, dtype=torch.float32) -> nn.Module:
    """A tiny random GPT-2 (Conv1D), Llama (torch's Linear) or GPT of step 07 (our Linear), with dropout off."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=13, n_positions=16, n_embd=12, n_layer=2, n_head=3))
    elif kind == "llama":
        sizes = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=13, max_position_embeddings=16, **sizes))
    else:
        seven = load(7)
        model = seven.Model(seven.Config(vocab_size=13, block_size=16, n_embd=12, n_head=3, n_layer=2))
    return model.to(dtype).eval()


def logits_of(model: nn.Module, idx: torch.Tensor) -> torch.Tensor:
    out = model(idx)
    return out[0] if isinstance(out, tuple) else out.logits


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randint(13, (2, 9), generator=torch.Generator().manual_seed(seed))


def add(model: nn.Module, kind: str, rank=3, alpha=7.0, seed: int = 0, learned: bool = True) -> nn.Module:
    """Our LoRA at the kind's targets; if `learned`, B is no longer zero, as after training."""
    generator = torch.Generator().manual_seed(seed)
    step.add_lora(model, TARGETS[kind], rank, alpha, generator)
    if learned:
        for lora in loras(model):
            nn.init.normal_(lora.B, std=0.3, generator=generator)
    return model


def loras(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, step.LoRA)]


def peft_of(model: nn.Module, kind: str, rank: int = 3, alpha: float = 7.0) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    targets = {"r": rank, "lora_alpha": alpha, "target_modules": list(TARGETS[kind])}
    return get_peft_model(model, LoraConfig(**targets, fan_in_fan_out=kind == "gpt2"))


def pairs(by_hand: nn.Module, by_peft: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Our LoRA and peft's at the same place."""
    from peft.tuners.lora import LoraLayer

    found = [module for module in by_peft.modules() if isinstance(module, LoraLayer)]
    assert len(found) == len(loras(by_hand)) > 0
    return list(zip(loras(by_hand), found, strict=True))


def give_peft_our_weights(by_hand: nn.Module, by_peft: nn.Module) -> None:
    with torch.no_grad():
        for ours, theirs in pairs(by_hand, by_peft):
            theirs.lora_A["default"].weight.copy_(ours.A)
            theirs.lora_B["default"].weight.copy_(ours.B)


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


# ── peft as the witness ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.oracle
@pytest.mark.gradient
@pytest.mark.parametrize("kind", ["gpt2", "llama", "ours"])
@few
@given(seed=seeds, rank=st.integers(1, 5), alpha=st.floats(0.5, 32))
def test_by_hand_equals_peft_in_outputs_gradients_and_merged_weights(kind, seed, rank, alpha):
    base = language_model(kind, seed % 1000)
    by_hand = add(copy.deepcopy(base), kind, rank, alpha, seed)
    by_peft = peft_of(base, kind, rank, alpha)
    give_peft_our_weights(by_hand, by_peft)
    idx = tokens(seed)
    ours, theirs = logits_of(by_hand, idx), logits_of(by_peft, idx)
    assert gap(ours, theirs) <= 1e-6
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(seed)) / ours.numel()
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    for mine, other in pairs(by_hand, by_peft):
        assert mine.A.grad.any() and mine.B.grad.any()
        assert gap(mine.A.grad, other.lora_A["default"].weight.grad) <= 1e-6
        assert gap(mine.B.grad, other.lora_B["default"].weight.grad) <= 1e-6
    merged = by_peft.merge_and_unload().state_dict()
    for name, value in step.merge(by_hand).state_dict().items():
        assert gap(value, merged[name]) <= 1e-6


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_A_is_drawn_as_peft_draws_it_and_B_is_zero(kind):
    base = language_model(kind)
    by_hand = add(copy.deepcopy(base), kind, learned=False, seed=5)
    by_peft = peft_of(base, kind)
    torch.manual_seed(5)
    for mine, other in pairs(by_hand, by_peft):
        other.reset_lora_parameters("default", True)
        assert torch.equal(mine.A, other.lora_A["default"].weight)
        assert not mine.B.any() and not other.lora_B["default"].weight.any()


# ── beginning and end ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", TARGETS)
def test_it_starts_exactly_equal_to_its_base(kind):
    base = language_model(kind)
    adapted = add(copy.deepcopy(base), kind, learned=False)
    assert len(loras(adapted)) == 2 * {"gpt2": 4, "llama": 3, "ours": 2}[kind]
    assert torch.equal(logits_of(adapted, tokens()), logits_of(base, tokens()))


@pytest.mark.parametrize("kind", TARGETS)
def test_merged_equals_unmerged_and_is_a_plain_model_again(kind):
    base = language_model(kind, dtype=torch.float64)
    adapted = add(copy.deepcopy(base), kind)
    before = logits_of(adapted, tokens())
    assert gap(before, logits_of(base, tokens())) > 1e-3
    merged = step.merge(adapted)
    torch.testing.assert_close(logits_of(merged, tokens()), before, rtol=1e-10, atol=1e-10)
    assert not loras(merged) and merged.state_dict().keys() == base.state_dict().keys()


def test_the_change_has_the_rank_it_was_given():
    base = nn.Linear(20, 30, bias=False)
    lora = step.LoRA(copy.deepcopy(base), 4, 8.0, torch.Generator().manual_seed(0))
    nn.init.normal_(lora.B)
    change = (lora.merged().weight - base.weight).double()
    assert torch.linalg.matrix_rank(change, atol=1e-4) == 4


@pytest.mark.parametrize("B", [1, 3])
def test_a_single_cached_token_goes_through_our_own_linear_map(B):
    """common.linear.Linear takes another way for one token and large weights."""
    base = Linear(512, 512)
    lora = step.LoRA(base, 4, 8.0, torch.Generator().manual_seed(0))
    nn.init.normal_(lora.B)
    x = torch.randn(B, 5, 512, generator=torch.Generator().manual_seed(1))
    one_by_one = torch.cat([lora(x[:, t : t + 1]) for t in range(5)], dim=1)
    torch.testing.assert_close(one_by_one, lora(x), rtol=2e-5, atol=2e-5)


# ── what learns ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", TARGETS)
def test_the_base_gets_no_gradient_and_no_update(kind):
    base = language_model(kind)
    adapted = add(copy.deepcopy(base), kind)
    optimizer = torch.optim.AdamW(adapted.parameters(), lr=0.1, weight_decay=0.1)
    logits_of(adapted, tokens()).square().mean().backward()
    optimizer.step()
    learned = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    assert learned == {name for name, _ in adapted.named_parameters() if name.endswith((".A", ".B"))}
    kept = {name.replace(".base.", "."): p for name, p in adapted.named_parameters() if name not in learned}
    assert kept.keys() == dict(base.named_parameters()).keys()
    assert all(torch.equal(kept[name], parameter) for name, parameter in base.named_parameters())


def test_at_the_start_only_B_can_learn_since_A_is_seen_through_a_zero():
    adapted = add(language_model("llama"), "llama", learned=False)
    logits_of(adapted, tokens()).square().mean().backward()
    assert all(lora.B.grad.any() and not lora.A.grad.any() for lora in loras(adapted))


def test_rank_times_inputs_plus_outputs_are_trained():
    lora = step.LoRA(nn.Linear(20, 30), 4, 8.0, torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in lora.parameters() if p.requires_grad) == 4 * (20 + 30)


@pytest.mark.parametrize("wrong", ["c_atn", "wte", "ln_1"])
def test_a_name_of_no_linear_map_is_refused_and_nothing_is_changed(wrong):
    model = language_model("gpt2")
    with pytest.raises(ValueError, match=f"no linear map named '{wrong}'"):
        step.add_lora(model, ("c_attn", wrong), 2, 4.0, torch.Generator())
    assert not loras(model) and all(parameter.requires_grad for parameter in model.parameters())
