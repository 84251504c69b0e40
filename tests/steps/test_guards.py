"""Claims about a whole run, each of which one planted bug breaks and nothing else would notice."""

import numpy as np
import pytest
import torch

from common import checkpoint, experiment
from common.data import Corpus
from common.optimizers import make_optimizers
from common.runtime import resolve
from common.tokenizer import CharTokenizer
from common.training import Recipe, train
from steps import load

CPU = resolve("cpu")
RECIPE = Recipe(steps=40, batch_size=4, learning_rate=1e-2)


def corpus() -> Corpus:
    """A thousand characters; those of the validation part occur nowhere else."""
    rng = np.random.default_rng(0)
    tokens = np.concatenate((rng.integers(0, 9, 900), rng.integers(9, 12, 100))).astype(np.uint8)
    return Corpus(CharTokenizer("abcdefghijkl"), tokens)


def model(number: int, **sizes: float) -> torch.nn.Module:
    step = load(number)
    torch.manual_seed(1)
    return step.Model(step.Config(vocab_size=12, block_size=8, n_embd=8, n_head=2, **sizes))


def run(net, folder, **options):
    losses: list[float] = []
    result = experiment.run(
        net, corpus(), RECIPE, CPU, seed=3, folder=folder, about={}, on_step=lambda s: losses.append(s.loss), **options
    )
    return result, losses


def test_a_run_never_trains_on_the_validation_part(tmp_path):
    net, seen = model(5), []
    net.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs) if module.training else None)
    run(net, tmp_path)
    assert len(seen) == 2 * RECIPE.steps
    assert all((tokens < 9).all() for tokens in seen)


def test_each_point_of_the_curve_is_the_mean_of_the_steps_since_the_one_before(tmp_path):
    result, losses = run(model(5), tmp_path)
    pairs = [sum(losses[i : i + 2]) / 2 for i in range(0, RECIPE.steps, 2)]
    assert [point["train_loss"] for point in result.curve] == pytest.approx(pairs)


def test_what_was_measured_at_the_end_is_what_is_on_the_disk(tmp_path):
    net, fresh = model(5), model(5)
    run(net, tmp_path)
    assert sorted(folder.name for folder in tmp_path.glob("checkpoint-*"))[-1:] == ["checkpoint-000040"]
    checkpoint.newest(tmp_path)[0].restore(fresh)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), fresh.parameters(), strict=True))


def test_the_training_time_of_all_sessions_adds_up(tmp_path):
    net = model(5)
    about = {"progress": {"train_seconds": 1000.0, "curve": [], "losses": []}}
    optimizers = make_optimizers(net, "adamw", 1e-2, 0.02, 0.1)
    checkpoint.save(tmp_path, 38, net, optimizers, about)
    result, _ = run(net, tmp_path, resume_from=checkpoint.newest(tmp_path)[0])
    assert 1000 < result.train_seconds < 1100


def test_every_step_drops_other_units_and_always_the_same_in_the_same_step():
    def masks() -> list[torch.Tensor]:
        net, found = model(7, n_layer=1, dropout=0.5), []
        net.dropout.register_forward_hook(lambda module, inputs, output: found.append(output == 0))
        optimizers = make_optimizers(net, "adamw", 1e-2, 0.02, 0.1)
        for _ in train(net, optimizers, corpus().train, Recipe(3, 4, 1e-2), seed=3, device=CPU.device):
            pass
        return found

    first, again = masks(), masks()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])


@pytest.mark.parametrize(("number", "sizes"), [(5, {}), (6, {"n_layer": 3})])
def test_every_head_is_part_of_the_model_and_is_trained_and_saved(number, sizes):
    names = [name for name, _ in model(number, **sizes).named_parameters()]
    for part in ("query", "key", "value"):
        assert sum(part in name for name in names) == 2 * sizes.get("n_layer", 1)
