"""One training run from start to record: resume, train, watch, save, stop cleanly."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from common import checkpoint
from common.data import Corpus
from common.optimizers import make_optimizers
from common.runtime import Runtime, join_processes
from common.training import Diverged, Recipe, evaluate, train

WATCH_TOKENS = 8_192  # of the validation part, for the curve; the final figure uses all of it
WATCH_POINTS = 20  # how often the curve is measured in a whole run
SAVE_EVERY_SECONDS = 30.0
FINAL_TOKENS = 4_000_000  # a validation part longer than this is cut, and the record says so


@dataclass(frozen=True)
class State:
    """What the reader of a running experiment sees after each step."""

    step: int
    loss: float
    val_loss: float | None  # the last one measured
    tokens_per_second: float


@dataclass
class Result:
    """What a run amounts to. Losses in nats a token."""

    step: int
    train_seconds: float  # of training steps alone, all sessions added up
    curve: list[dict[str, Any]] = field(default_factory=list)
    val_loss: float = math.nan
    val_tokens: int = 0  # how many the validation loss was measured on
    cut: bool = False  # the validation part was longer than that
    interrupted: bool = False


def run(
    model: nn.Module,
    corpus: Corpus,
    recipe: Recipe,
    runtime: Runtime,
    *,
    seed: int,
    folder: Path,
    about: Mapping[str, Any],
    resume_from: checkpoint.Checkpoint | None = None,
    on_step: Callable[[State], None] = lambda state: None,
) -> Result:
    """Train `model` (already on the device) in place, saving into `folder`.

    `about` goes into each checkpoint as it is. Ctrl-C finishes the step, saves and returns with `interrupted` set;
    a second Ctrl-C stops at once. Raises common.training.Diverged with the last good state kept.
    """
    optimizers = make_optimizers(
        model, recipe.optimizer, recipe.learning_rate, recipe.muon_learning_rate, recipe.weight_decay
    )
    result = Result(step=0, train_seconds=0.0)
    if resume_from is not None:
        resume_from.restore(model, optimizers)
        done = resume_from.about["progress"]
        result = Result(resume_from.step, done["train_seconds"], done["curve"])
    trained = _for_training(model, recipe, runtime)
    watch_every = max(1, recipe.steps // WATCH_POINTS)
    losses = list(done["losses"]) if resume_from is not None else []  # since the last point of the curve
    val_loss = result.curve[-1]["val_loss"] if result.curve else None
    last_save = time.monotonic()

    def save() -> None:
        nonlocal last_save
        if runtime.is_main and all(p.isfinite().all() for p in model.parameters()):  # never over a good one
            progress = {"train_seconds": result.train_seconds, "curve": result.curve, "losses": losses}
            checkpoint.save(folder, result.step, model, optimizers, {**about, "progress": progress})
        last_save = time.monotonic()

    where = {"device": runtime.device, "dtype": runtime.dtype}
    tokens_a_step = recipe.batch_size * model.config.block_size
    begin, first = time.perf_counter(), result.step
    spent = 0.0  # on training steps in this session
    with _ctrl_c_asks_to_stop() as asked:
        try:
            for progress in train(trained, optimizers, corpus.train, recipe, seed=seed, start=first, **where):
                result.step = progress.step
                spent += time.perf_counter() - begin
                result.train_seconds += time.perf_counter() - begin
                losses.append(progress.loss)
                if progress.step % watch_every == 0 or progress.step == recipe.steps:
                    val_loss = evaluate(trained, corpus.validation, max_tokens=WATCH_TOKENS, **where)
                    mean = sum(losses) / len(losses)
                    result.curve.append({"step": progress.step, "train_loss": mean, "val_loss": val_loss})
                    losses.clear()
                on_step(
                    State(
                        progress.step,
                        progress.loss,
                        val_loss,
                        (progress.step - first) * tokens_a_step / spent,
                    )
                )
                if _agree(asked(), runtime):
                    result.interrupted = progress.step < recipe.steps
                    break
                if time.monotonic() - last_save > SAVE_EVERY_SECONDS and progress.step < recipe.steps:
                    save()
                begin = time.perf_counter()
        except Diverged:
            save()
            raise
        save()
    if not result.interrupted:
        result.val_loss = evaluate(trained, corpus.validation, max_tokens=FINAL_TOKENS, **where)
        available = len(corpus.validation) - 1
        result.val_tokens, result.cut = min(available, FINAL_TOKENS), available > FINAL_TOKENS
    return result


def scaled(recipe: Recipe, steps: int | None) -> Recipe:
    """The recipe with another number of steps; warm-up is never longer than a tenth of them."""
    if steps is None:
        return recipe
    return replace(recipe, steps=steps, warmup_steps=min(recipe.warmup_steps, steps // 10))


def as_json(recipe: Recipe) -> dict[str, Any]:
    return {**asdict(replace(recipe, model={})), "model": dict(recipe.model)}


def _for_training(model: nn.Module, recipe: Recipe, runtime: Runtime) -> nn.Module:
    if recipe.compile and runtime.device.type == "cuda":
        model = torch.compile(model)
    if join_processes(runtime.device) > 1:
        model = nn.parallel.DistributedDataParallel(model)
    return model


def _agree(stop: bool, runtime: Runtime) -> bool:
    """Under torchrun every process must stop at the same step: one that was asked is enough."""
    if not torch.distributed.is_initialized():
        return stop
    asked = torch.tensor(int(stop), device=runtime.device)
    torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
    return bool(asked)


@contextmanager
def _ctrl_c_asks_to_stop() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C is a request, which the function handed back reports; the second interrupts as usual."""
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        previous = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not in the main thread: nothing to catch
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, previous)
