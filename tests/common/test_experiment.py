"""A run can be stopped anywhere and goes on as if it had not been."""

import math
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import steps
from common import checkpoint, experiment
from common.data import Corpus
from common.runtime import resolve
from common.tokenizer import CharTokenizer
from common.training import Diverged, Recipe, evaluate, schedule

RECIPE = Recipe(steps=12, batch_size=4, learning_rate=1e-2, optimizer="muon", warmup_steps=3, final_share=0.0)
CPU = resolve("cpu")


def corpus(length: int = 2_000) -> Corpus:
    return Corpus(CharTokenizer("abcdefghijk"), np.random.default_rng(0).integers(0, 11, length).astype(np.uint8))


def model(number: int = 7):
    step = steps.load(number)
    sizes = {"block_size": 8, "n_embd": 16, "n_head": 2, "n_layer": 2, "dropout": 0.2}
    known = {name: size for name, size in sizes.items() if name in step.Config.__dataclass_fields__}
    torch.manual_seed(5)
    return step.Model(step.Config(vocab_size=11, **known))


def run(net, folder: Path, recipe: Recipe = RECIPE, stop_after: int | None = None, **options):
    """Run until the end, or until Ctrl-C comes during step `stop_after`."""
    losses = []

    def on_step(state):
        losses.append(state.loss)
        if state.step == stop_after:
            signal.raise_signal(signal.SIGINT)

    result = experiment.run(
        net, corpus(), recipe, CPU, seed=3, folder=folder, about={"seed": 3}, on_step=on_step, **options
    )
    return result, losses


def weights(net) -> list[torch.Tensor]:
    return [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize("number", [6, 7])  # both with dropout; 07 tied
@pytest.mark.parametrize("stop_after", [1, 5, 11])
def test_stopped_and_resumed_is_the_unbroken_run_to_the_last_bit(tmp_path, number, stop_after):
    whole, all_losses = run(whole_model := model(number), tmp_path / "whole")
    first, losses_before = run(model(number), tmp_path / "cut", stop_after=stop_after)
    assert first.interrupted and first.step == stop_after and math.isnan(first.val_loss)
    saved, _ = checkpoint.newest(tmp_path / "cut")
    fresh = model(number)
    for parameter in fresh.parameters():
        parameter.data.zero_()  # nothing may come from anywhere but the checkpoint
    second, losses_after = run(fresh, tmp_path / "cut", resume_from=saved)
    assert losses_before + losses_after == all_losses
    assert all(torch.equal(p, q) for p, q in zip(weights(fresh), weights(whole_model), strict=True))
    assert second.val_loss == whole.val_loss
    assert second.curve == whole.curve


def test_a_run_that_was_not_stopped_ends_with_a_measured_loss(tmp_path):
    result, losses = run(net := model(), tmp_path)
    assert not result.interrupted and result.step == len(losses) == RECIPE.steps
    assert result.val_loss == evaluate(net, corpus().validation, device=CPU.device)
    assert result.val_tokens == 199 and not result.cut
    assert [point["step"] for point in result.curve] == list(range(1, 13))
    assert result.curve[0]["train_loss"] == losses[0]


def test_a_loss_that_is_no_number_stops_before_the_update_and_keeps_the_last_good_state(tmp_path):
    net = model()
    poisoned = {}

    def on_step(state):
        if state.step == 4:
            poisoned["good"] = weights(net)
            net.ln_f.weight.data[0] = math.nan

    with pytest.raises(Diverged, match="step 5: the loss is nan"):
        experiment.run(net, corpus(), RECIPE, CPU, seed=3, folder=tmp_path, about={}, on_step=on_step)
    untouched = [p for name, p in net.named_parameters() if name != "ln_f.weight"]
    good = [w for (name, _), w in zip(net.named_parameters(), poisoned["good"], strict=True) if name != "ln_f.weight"]
    assert all(torch.equal(p, w) for p, w in zip(untouched, good, strict=True))
    assert not (tmp_path / "checkpoint-000005").exists()


def test_a_poisoned_state_is_not_saved_over_a_good_one(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "SAVE_EVERY_SECONDS", 0.0)
    net = model()

    def on_step(state):
        if state.step == 4:
            net.ln_f.weight.data[0] = math.nan

    with pytest.raises(Diverged):
        experiment.run(net, corpus(), RECIPE, CPU, seed=3, folder=tmp_path, about={}, on_step=on_step)
    again = model()
    checkpoint.newest(tmp_path)[0].restore(again)
    assert all(p.isfinite().all() for p in again.parameters())


def test_the_schedule_warms_up_and_decays_in_straight_lines():
    shares = [schedule(step, RECIPE) for step in range(RECIPE.steps)]
    assert shares[:4] == [0.25, 0.5, 0.75, 1.0]
    falls = np.diff(shares[3:])
    assert np.allclose(falls, falls[0]) and falls[0] < 0
    assert math.isclose(shares[-1] + falls[0], 0.0, abs_tol=1e-12)
    assert {schedule(step, replace(RECIPE, warmup_steps=0, final_share=1.0)) for step in range(12)} == {1.0}
