"""The training loop: one loop for every step, on one CPU, one GPU or many processes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import torch
import torch.distributed as dist
import torch.nn as nn

from common.data import batch


@dataclass(frozen=True)
class Recipe:
    """How a step is trained: sizes, schedule, optimizer. `model` overrides fields of the step's Config."""

    steps: int
    batch_size: int  # rows of block_size tokens, over all processes together
    learning_rate: float
    model: Mapping[str, int | float] = field(default_factory=lambda: MappingProxyType({}))
    optimizer: str = "adamw"
    muon_learning_rate: float = 0.02
    weight_decay: float = 0.1
    grad_clip: float = 1.0  # largest norm of the whole gradient
    warmup_steps: int = 0  # the learning rate climbs from 0 in so many steps
    final_share: float = 1.0  # … and falls in a straight line to this share of itself at the last step
    dtype: str = "float32"
    compile: bool = False


@dataclass(frozen=True)
class Progress:
    """One finished step. `loss` is the mean over the global batch, in nats."""

    step: int  # steps finished so far
    loss: float
    grad_norm: float
    learning_rate_share: float


class Diverged(RuntimeError):
    """The loss or the gradient stopped being a number; nothing was updated with it."""


def schedule(step: int, recipe: Recipe) -> float:
    """The share of the learning rate at a step: linear warm-up, then linear decay to `final_share`."""
    if step < recipe.warmup_steps:
        return (step + 1) / (recipe.warmup_steps + 1)
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return 1 - (1 - recipe.final_share) * done


def train(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    tokens: np.ndarray,
    recipe: Recipe,
    *,
    seed: int,
    start: int = 0,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Progress]:
    """Train in place from step `start` on, and hand back every finished step.

    Everything random in a step (its batch, its dropout) is a function of (seed, step), so stopping after any step and
    starting again from there changes nothing. Under torch.distributed each process takes its share of the rows and
    the gradients are averaged (`model` is then a DistributedDataParallel).

    Raises Diverged before the optimizer could make the damage permanent.
    """
    block_size = _unwrap(model).config.block_size
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.train()
    for step in range(start, recipe.steps):
        torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0]))  # dropout
        share = schedule(step, recipe)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = group["initial_lr"] * share
        x, y = (t[rank::world].to(device) for t in batch(tokens, block_size, recipe.batch_size, seed, step))
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            _, loss = model(x, y)
        loss.backward()
        grad_norm = float(nn.utils.clip_grad_norm_(parameters, recipe.grad_clip))
        loss = loss.detach()
        if world > 1:
            dist.all_reduce(loss)
            loss /= world
        if not (math.isfinite(loss.item()) and math.isfinite(grad_norm)):
            raise Diverged(
                f"step {step + 1}: the loss is {loss.item()} and the gradient's norm {grad_norm}; "
                f"stopped before the update: try a lower learning rate, or float32 if this ran in another dtype"
            )
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        yield Progress(step + 1, loss.item(), grad_norm, share)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    tokens: np.ndarray,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    max_tokens: int | None = None,
    batch_tokens: int = 16_384,
) -> float:
    """Mean loss in nats a token, over all tokens (or the first `max_tokens`) cut into pieces side by side.

    Each piece starts without context, as in training; the last, shorter one is counted too.
    """
    model = _unwrap(model)
    block_size = model.config.block_size
    tokens = tokens[: len(tokens) if max_tokens is None else max_tokens + 1]
    count = len(tokens) - 1
    whole = count // block_size * block_size
    x, y = tokens[:-1], tokens[1:]
    rows = [(x[:whole].reshape(-1, block_size), y[:whole].reshape(-1, block_size))] if whole else []
    rows += [(x[None, whole:], y[None, whole:])] if whole < count else []
    was_training = model.training
    model.eval()
    total = 0.0
    for inputs, targets in rows:
        size = max(1, batch_tokens // inputs.shape[1])
        for i in range(0, len(inputs), size):
            idx, goal = (torch.from_numpy(t[i : i + size].astype(np.int64)).to(device) for t in (inputs, targets))
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                _, loss = model(idx, goal)
            total += loss.item() * idx.numel()
    model.train(was_training)
    return total / count


def _unwrap(model: nn.Module) -> nn.Module:
    """The step's own Model beneath DistributedDataParallel and torch.compile."""
    model = getattr(model, "module", model)
    return getattr(model, "_orig_mod", model)
