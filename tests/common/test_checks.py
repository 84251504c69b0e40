"""The checklist passes for every step, and each check fails for the mistake that it is there to find."""

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from common import checks
from common.checks import checklist
from steps import load

TOKENS = np.frombuffer(b"it was the best of times, it was the worst of times; " * 40, dtype=np.uint8) % 32
NAMES = (
    "targets_are_shifted", "loss_at_init", "loss_is_the_mean_surprise", "no_leak_from_the_future",
    "the_present_is_seen", "order_matters", "rows_are_independent", "evaluation_is_repeatable",
    "attention_rows_sum_to_one", "scores_are_scaled", "fused_equals_explicit", "gradients_reach_everything",
    "a_silent_block_is_the_identity", "scale_by_depth", "cached_equals_uncached", "an_update_moves_everything",
    "overfits_one_batch",
)  # fmt: skip
FUSED = {"fused_equals_explicit", "cached_equals_uncached"}  # step 07 brings them
DEEP = {"a_silent_block_is_the_identity", "scale_by_depth"}  # step 06
DO_NOT_APPLY = {  # by step; all others do
    1: {"order_matters", "attention_rows_sum_to_one", "scores_are_scaled", *(later := {*FUSED, *DEEP})},
    2: {"order_matters", "attention_rows_sum_to_one", "scores_are_scaled", *later},
    3: later,
    4: later,
    5: later,
    6: FUSED,
    7: set(),
}


def gpt(number: int = 7, **sizes) -> nn.Module:
    step = load(number)
    sizes = {"vocab_size": 32, "block_size": 16, "n_embd": 32, "n_head": 2, "n_layer": 3, "head_size": 16} | sizes
    torch.manual_seed(1)
    return step.Model(step.Config(**{k: v for k, v in sizes.items() if k in step.Config.__dataclass_fields__}))


@pytest.mark.parametrize("number", range(1, 8))
def test_every_step_passes_every_check_that_applies_to_it(number):
    results = list(checklist(lambda: gpt(number), TOKENS))
    assert len(results) == len(NAMES)
    for name, check in zip(NAMES, results, strict=True):
        assert check.passed is (None if name in DO_NOT_APPLY[number] else True), check
        assert check.measured and check.why


# ── one mistake for each check ────────────────────────────────────────────────────────────────────────────


def unshifted(model, patch):
    def batch(*args, **options):
        x, _ = load_batch(*args, **options)
        return x, x

    load_batch = checks.batch
    patch.setattr(checks, "batch", batch)


def large_weights(model, patch):
    model.wte.weight.data.mul_(100)


def averaged_twice(model, patch):
    forward = model.forward
    patch.setattr(model, "forward", lambda idx, targets=None: (forward(idx)[0], forward(idx, targets)[1] / idx.size(1)))


def looks_one_ahead(model, patch):
    forward = model.forward

    def leak(idx, targets=None):
        logits = forward(idx)[0]
        logits = logits + F.pad(logits[:, 1:], (0, 0, 0, 1))
        return logits, None

    patch.setattr(model, "forward", leak)


def looks_one_behind(model, patch):
    forward = model.forward
    patch.setattr(model, "forward", lambda idx, targets=None: (F.pad(forward(idx)[0][:, :-1], (0, 0, 1, 0)), None))


def no_positions(model, patch):
    model.wpe.weight.data.zero_()
    model.h = model.h[:1]  # deeper, the mask alone tells the order


def mixes_rows(model, patch):
    model.wte.register_forward_hook(lambda module, args, out: out + out.mean(dim=0))


def dropout_always_on(model, patch):
    model.ln_f.register_forward_hook(lambda module, args, out: F.dropout(out, 0.5))


def softmax_over_the_queries(model, patch):
    attention = model.h[1].attn
    weights = attention.weights
    patch.setattr(attention, "weights", lambda x: weights(x) / weights(x).sum(dim=-2, keepdim=True))


def scaled_by_channels(model, patch):
    attention = model.h[1].attn

    def weights(x):
        q, k, _ = attention.qkv(x)
        future = torch.ones(x.size(1), x.size(1), dtype=torch.bool).triu(1)
        return F.softmax((q @ k.transpose(-2, -1) * x.size(-1) ** -0.5).masked_fill(future, -torch.inf), dim=-1)

    patch.setattr(attention, "weights", weights)


def another_kernel(model, patch):
    model.h[1].attn.register_forward_hook(lambda module, args, out: out.roll(1, 1))


def a_parameter_out_of_reach(model, patch):
    parameters = model.parameters
    patch.setattr(model, "parameters", lambda: list(parameters())[1:])


def a_graph_cut(model, patch):
    model.h[0].mlp.register_forward_hook(lambda module, args, out: out.detach())


def no_residual(model, patch):
    model.h[1].register_forward_hook(lambda module, args, out: out - args[0])


def a_stream_that_doubles(model, patch):
    for block in model.h:
        block.register_forward_hook(lambda module, args, out: 3 * out)


def a_cache_without_a_past(model, patch):
    forward = model.wpe.forward
    patch.setattr(model.wpe, "forward", lambda pos: forward(pos - pos[0]))  # every new token stands at place 0


MISTAKES = {
    "targets_are_shifted": unshifted,
    "loss_at_init": large_weights,
    "loss_is_the_mean_surprise": averaged_twice,
    "no_leak_from_the_future": looks_one_ahead,
    "the_present_is_seen": looks_one_behind,
    "order_matters": no_positions,
    "rows_are_independent": mixes_rows,
    "evaluation_is_repeatable": dropout_always_on,
    "attention_rows_sum_to_one": softmax_over_the_queries,
    "scores_are_scaled": scaled_by_channels,
    "fused_equals_explicit": another_kernel,
    "gradients_reach_everything": a_graph_cut,
    "a_silent_block_is_the_identity": no_residual,
    "scale_by_depth": a_stream_that_doubles,
    "cached_equals_uncached": a_cache_without_a_past,
    "an_update_moves_everything": a_parameter_out_of_reach,
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_check_fails_for_the_mistake_that_it_is_there_to_find(name, monkeypatch):
    check, model = getattr(checks, name), gpt().eval()
    assert check(gpt().eval(), TOKENS).passed
    MISTAKES[name](model, monkeypatch)
    assert check(model, TOKENS).passed is False


def test_a_model_that_cannot_learn_does_not_learn_one_batch_by_heart(monkeypatch):
    model = gpt()
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda idx, targets=None: forward(torch.zeros_like(idx), targets))
    assert checks.overfits_one_batch(model, TOKENS).passed is False


def test_a_cache_that_goes_wrong_only_past_the_first_window_is_found(monkeypatch):
    model = gpt().eval()
    generate = model.generate

    def forgetful(idx, max_new_tokens, temperature=1.0, use_cache=True):
        text = generate(idx, max_new_tokens, temperature).clone()
        text[:, -1] += use_cache
        return text

    monkeypatch.setattr(model, "generate", forgetful)
    assert checks.cached_equals_uncached(model, TOKENS).passed is False
