"""The training loop: each step is a pure function of (seed, step), and the figures it reports are the true ones."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data import batch
from common.optimizers import make_optimizers
from common.training import Diverged, Recipe, evaluate, schedule, train
from steps import load

CPU = torch.device("cpu")
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=max(5, settings.default.max_examples // 10))  # each trains a little
TEXT = np.frombuffer(b"the whale and the sea and the whale again; " * 30, dtype=np.uint8) % 32
RECIPE = Recipe(steps=6, batch_size=4, learning_rate=1e-2, warmup_steps=2, final_share=0.1)


def gpt(number: int = 7, seed: int = 0, **sizes) -> nn.Module:
    torch.manual_seed(seed)
    step = load(number)
    sizes = {"vocab_size": 32, "block_size": 8, "n_embd": 16, "n_head": 2, "n_layer": 2, "head_size": 8} | sizes
    return step.Model(step.Config(**{k: v for k, v in sizes.items() if k in step.Config.__dataclass_fields__}))


def optimizers_of(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    return make_optimizers(model, recipe.optimizer, recipe.learning_rate, 0.02, recipe.weight_decay)


def trained(model: nn.Module, recipe: Recipe, seed: int, tokens: np.ndarray = TEXT) -> list:
    return list(train(model, optimizers_of(model, recipe), tokens, recipe, seed=seed, device=CPU))


# ── the schedule ──────────────────────────────────────────────────────────────────────────────────────────


@given(steps=st.integers(1, 300), warmup=st.integers(0, 40), final=st.floats(0, 1))
def test_the_learning_rate_climbs_in_a_straight_line_and_falls_in_one(steps, warmup, final):
    recipe = replace(RECIPE, steps=steps + warmup, warmup_steps=warmup, final_share=final)
    shares = [schedule(step, recipe) for step in range(recipe.steps + 1)]
    expected = np.interp(range(recipe.steps + 1), [-1, warmup, recipe.steps], [0, 1, final])
    np.testing.assert_allclose(shares, expected, atol=1e-12)
    assert shares[0] > 0  # the first step already learns


@few
@given(seed=seeds, optimizer=st.sampled_from(["adamw", "muon"]))
def test_each_step_uses_its_share_of_every_groups_learning_rate(seed, optimizer):
    recipe, model = replace(RECIPE, optimizer=optimizer), gpt()
    optimizers = optimizers_of(model, recipe)
    groups = [group for each in optimizers for group in each.param_groups]
    for step, progress in enumerate(train(model, optimizers, TEXT, recipe, seed=seed, device=CPU)):
        assert progress.learning_rate_share == schedule(step, recipe)
        assert [group["lr"] for group in groups] == [group["initial_lr"] * schedule(step, recipe) for group in groups]


# ── a step ────────────────────────────────────────────────────────────────────────────────────────────────


@few
@given(seed=seeds, grad_clip=st.sampled_from([0.01, 0.5, 1e9]), rows=st.integers(1, 5))
def test_training_is_forward_backward_clip_and_update_and_reports_what_it_saw(seed, grad_clip, rows):
    """Against the loop written out here, with plain SGD so that an update shows its gradient."""
    recipe = replace(RECIPE, grad_clip=grad_clip, batch_size=rows)
    model, by_hand = gpt().double(), gpt().double()
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "initial_lr": 0.5}], lr=0.5)
    progress = list(train(model, [optimizer], TEXT, recipe, seed=seed, device=CPU))
    for step in range(recipe.steps):
        x, y = batch(TEXT, 8, rows, seed, step)
        logits, _ = by_hand(x)
        loss = F.cross_entropy(logits.reshape(-1, 32), y.reshape(-1))
        gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt().item()
        with torch.no_grad():
            for parameter, gradient in zip(by_hand.parameters(), gradients, strict=True):
                parameter -= 0.5 * schedule(step, recipe) * min(1, grad_clip / norm) * gradient
        assert progress[step].step == step + 1
        assert progress[step].loss == pytest.approx(loss.item(), rel=1e-6)
        assert progress[step].grad_norm == pytest.approx(norm, rel=1e-6)
    for ours, expected in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)


@few
@given(seed=seeds, stop=st.integers(1, 5), optimizer=st.sampled_from(["adamw", "muon"]))
def test_stopping_after_any_step_and_going_on_changes_nothing_not_even_dropout(seed, stop, optimizer):
    recipe = replace(RECIPE, optimizer=optimizer)
    unbroken = gpt(dropout=0.3)
    losses = [progress.loss for progress in trained(unbroken, recipe, seed)]
    stopped = gpt(dropout=0.3)
    optimizers = optimizers_of(stopped, recipe)
    loop = train(stopped, optimizers, TEXT, recipe, seed=seed, device=CPU)
    first = [next(loop).loss for _ in range(stop)]
    loop.close()
    torch.manual_seed(99)  # whatever happened in between
    again, state = gpt(dropout=0.3), copy.deepcopy([each.state_dict() for each in optimizers])
    again.load_state_dict(stopped.state_dict())
    optimizers = optimizers_of(again, recipe)
    for each, saved in zip(optimizers, state, strict=True):
        each.load_state_dict(saved)
    rest = train(again, optimizers, TEXT, recipe, seed=seed, start=stop, device=CPU)
    assert first + [progress.loss for progress in rest] == losses
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), unbroken.parameters(), strict=True))


@few
@given(seed=seeds)
def test_the_seed_decides_and_another_seed_decides_otherwise(seed):
    first, again, other = (trained(gpt(), RECIPE, s) for s in (seed, seed, seed + 1))
    assert first == again
    assert [progress.loss for progress in first] != [progress.loss for progress in other]


def test_training_turns_dropout_on_even_for_a_model_left_in_evaluation():
    model = gpt(dropout=0.5).eval()
    trained(model, RECIPE, seed=1)
    assert model.training
    thinned, whole = (trained(gpt(dropout=rate), replace(RECIPE, steps=1), seed=1)[0].loss for rate in (0.5, 0.0))
    assert thinned != whole


def test_every_step_drops_other_units_and_the_same_ones_when_run_again():
    def dropped() -> list[torch.Tensor]:
        model, seen = gpt(dropout=0.5), []
        model.dropout.register_forward_hook(lambda module, args, out: seen.append(out == 0))
        trained(model, RECIPE, seed=1)
        return seen

    first, again = dropped(), dropped()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for i, a in enumerate(first) for b in first[:i])


@pytest.mark.parametrize("number", range(1, 8))
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_step_learns(number, optimizer):
    recipe = Recipe(steps=60, batch_size=16, learning_rate=0.1 if number == 1 else 1e-2, optimizer=optimizer)
    losses = [progress.loss for progress in trained(gpt(number), recipe, seed=0)]
    assert np.mean(losses[-5:]) < min(losses[0], math.log(32)) - 0.8


# ── stopping before damage ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_number_that_is_none_stops_the_run_before_the_update(value, where):
    model = gpt()
    optimizers = optimizers_of(model, RECIPE)
    loop = train(model, optimizers, TEXT, RECIPE, seed=0, device=CPU)
    assert next(loop).step == 1
    if where == "loss":
        model.ln_f.register_forward_hook(lambda module, args, out: out * value)
    else:
        model.wpe.weight.register_hook(lambda gradient: gradient * value)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(Diverged, match=r"^step 2: the loss is .* stopped before the update: try a lower learning rate"):
        next(loop)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


# ── evaluation ────────────────────────────────────────────────────────────────────────────────────────────


@given(
    length=st.integers(2, 60), block_size=st.integers(1, 9), budget=st.integers(1, 40), seed=seeds,
    most=st.none() | st.integers(1, 70),
)  # fmt: skip
def test_evaluation_is_the_mean_over_every_token_cut_into_pieces_side_by_side(length, block_size, budget, seed, most):
    model = gpt(5, seed, block_size=block_size).double()
    tokens = np.random.default_rng(seed).integers(0, 32, size=length).astype(np.uint8)
    text = torch.from_numpy(tokens.astype(np.int64))[: length if most is None else most + 1]
    surprise = []
    for start in range(0, len(text) - 1, block_size):
        piece = text[start : start + block_size + 1]
        log_p = F.log_softmax(model(piece[None, :-1])[0][0], dim=-1)
        surprise += [-log_p[place, token].item() for place, token in enumerate(piece[1:])]
    measured = evaluate(model, tokens, device=CPU, max_tokens=most, batch_tokens=budget)
    assert measured == pytest.approx(sum(surprise) / len(surprise), rel=1e-9)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_runs_without_dropout_and_leaves_the_model_as_it_found_it(training):
    model = gpt(dropout=0.5).train(training)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    first, again = (evaluate(model, TEXT, device=CPU) for _ in range(2))
    assert first == again == evaluate(gpt(), TEXT, device=CPU)
    assert model.training is training
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
