"""The checklist that a careful person runs before training. Each check says what it measured and why one looks.

Every check works on any step's model, handed in as a function that makes a fresh one; what does not apply says why.
"""

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn

from common.data import batch
from common.optimizers import make_optimizers
from common.training import Recipe, train

OVERFIT_STEPS = 200


@dataclass(frozen=True)
class Check:
    name: str
    passed: bool | None  # None: does not apply
    measured: str
    why: str  # what a failure would mean


MakeModel = Callable[[], nn.Module]


def checklist(make_model: MakeModel, tokens: np.ndarray, seed: int = 1) -> Iterator[Check]:
    """Run every check, cheapest first. `make_model` returns a new float32 model on the CPU; `tokens` is text."""
    for check in (
        targets_are_shifted,
        loss_at_init,
        loss_is_the_mean_surprise,
        no_leak_from_the_future,
        the_present_is_seen,
        order_matters,
        rows_are_independent,
        evaluation_is_repeatable,
        attention_rows_sum_to_one,
        scores_are_scaled,
        fused_equals_explicit,
        gradients_reach_everything,
        a_silent_block_is_the_identity,
        scale_by_depth,
        cached_equals_uncached,
        an_update_moves_everything,
        overfits_one_batch,
    ):
        torch.manual_seed(seed)
        yield check(make_model().eval(), tokens)


def _pieces(model: nn.Module, tokens: np.ndarray, rows: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return batch(tokens, min(model.config.block_size, 32), rows, seed=0, step=0)


def _another(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    return (tokens + 1) % model.config.vocab_size


def targets_are_shifted(model: nn.Module, tokens: np.ndarray) -> Check:
    x, y = _pieces(model, tokens)
    passed = torch.equal(x[:, 1:], y[:, :-1]) and not torch.equal(x, y)
    return Check(
        "targets are the inputs, one later",
        passed,
        "equal after a shift by one" if passed else "not a shift by one",
        "unshifted targets: the model learns to copy, and the loss falls to zero",
    )


def loss_at_init(model: nn.Module, tokens: np.ndarray) -> Check:
    _, loss = model(*_pieces(model, tokens, rows=32))
    guess = math.log(model.config.vocab_size)
    slack = 0.15 if hasattr(model, "init_weights") else 0.8
    return Check(
        "loss at init is near ln V",
        abs(loss.item() - guess) < slack,
        f"{loss.item():.3f} against ln {model.config.vocab_size} = {guess:.3f} (± {slack})",
        "weights that start too large (far above), or a model that sees the answer (far below)",
    )


def loss_is_the_mean_surprise(model: nn.Module, tokens: np.ndarray) -> Check:
    x, y = _pieces(model, tokens)
    logits, loss = model(x, y)
    by_hand = -torch.log_softmax(logits.double(), dim=-1).gather(-1, y[..., None]).mean()
    return Check(
        "loss is the mean of −log p(target)",
        abs(loss.item() - by_hand.item()) < 1e-4,
        f"{loss.item():.5f} against {by_hand.item():.5f} by hand",
        "a loss averaged twice or over the wrong axis: it still falls, and every figure is wrong",
    )


def no_leak_from_the_future(model: nn.Module, tokens: np.ndarray) -> Check:
    x, _ = _pieces(model, tokens)
    T = x.size(1)
    logits, _ = model(x)
    worst = 0.0
    for t in (1, T // 2, T - 1):
        changed = x.clone()
        changed[:, t] = _another(model, changed[:, t])
        worst = max(worst, (model(changed)[0][:, :t] - logits[:, :t]).abs().max().item())
    return Check(
        "the future cannot leak into the past",
        worst == 0,
        f"changing token t moves logits before t by {worst:.2g}",
        "a mask that is missing or off by one: the loss looks wonderful, the generated text does not",
    )


def the_present_is_seen(model: nn.Module, tokens: np.ndarray) -> Check:
    x, _ = _pieces(model, tokens)
    logits, _ = model(x)
    changed = x.clone()
    changed[:, -1] = _another(model, changed[:, -1])
    moved = (model(changed)[0][:, -1] - logits[:, -1]).abs().max().item()
    return Check(
        "the newest token is seen",
        moved > 0,
        f"changing it moves its own logits by {moved:.2g}",
        "a mask that hides one token too many",
    )


def order_matters(model: nn.Module, tokens: np.ndarray) -> Check:
    name, why = "the order of the past matters", "position embeddings that are missing, or added to nothing"
    if not hasattr(model, "wpe"):
        return Check(name, None, "this model looks at one token only", why)
    x, _ = _pieces(model, tokens)
    swapped = x.clone()
    swapped[:, :-1] = x[:, :-1].flip(1)
    moved = (model(swapped)[0][:, -1] - model(x)[0][:, -1]).abs().max().item()
    measured = f"reversing the past moves the last logits by {moved:.2g}"
    if not any(hasattr(m, "weights") for m in model.modules()):
        return Check(name, None if moved < 1e-4 else False, f"an average forgets it: {measured}", why)
    return Check(name, moved > 1e-5, measured, why)


def rows_are_independent(model: nn.Module, tokens: np.ndarray) -> Check:
    x, _ = _pieces(model, tokens)
    logits, _ = model(x)
    changed = x.clone()
    changed[1:] = _another(model, changed[1:])
    moved = (model(changed)[0][0] - logits[0]).abs().max().item()
    return Check(
        "rows of a batch are independent",
        moved == 0,
        f"changing rows 1… moves row 0 by {moved:.2g}",
        "a reshape that mixes the batch axis into another one",
    )


def evaluation_is_repeatable(model: nn.Module, tokens: np.ndarray) -> Check:
    x, _ = _pieces(model, tokens)
    for dropout in (module for module in model.modules() if isinstance(module, nn.Dropout)):
        dropout.p = 0.5  # in evaluation it must not matter
    moved = (model(x)[0] - model(x)[0]).abs().max().item()
    return Check(
        "evaluating twice gives the same",
        moved == 0,
        f"two passes differ by {moved:.2g}",
        "dropout that stays on: validation loss and samples are worse than the model",
    )


def attention_rows_sum_to_one(model: nn.Module, tokens: np.ndarray) -> Check:
    from common.tracing import attention_maps

    name, why = "attention weights are a causal average", "a softmax over the wrong axis, or before the mask"
    maps = attention_maps(model, _pieces(model, tokens, rows=1)[0])
    if not maps:
        return Check(name, None, "this model has no attention yet", why)
    off = max((wei.sum(-1) - 1).abs().max().item() for _, wei in maps)
    future = max(wei.triu(1).abs().max().item() for _, wei in maps)
    return Check(
        name,
        off < 1e-5 and future == 0,
        f"rows sum to 1 within {off:.1g}; weight on the future {future:.1g}",
        why,
    )


def scores_are_scaled(model: nn.Module, tokens: np.ndarray) -> Check:
    name = "scores are divided by the root of the head size"
    why = "a root of another size, or no scale: softmax starts too flat or too sharp, and it trains all the same"
    found: list[float] = []

    def look(module: nn.Module, inputs: tuple) -> None:
        q, k = module.qkv(inputs[0])[:2] if hasattr(module, "qkv") else (module.query(inputs[0]), module.key(inputs[0]))
        last = (q @ k.transpose(-2, -1))[..., -1, :], module.weights(inputs[0])[..., -1, :].log()
        raw, scaled = (scores - scores[..., :1] for scores in last)  # softmax keeps differences of scores
        found.append((k.size(-1) ** 0.5 * (raw * scaled).sum() / (raw * raw).sum()).item())

    hooks = [m.register_forward_pre_hook(look) for m in model.modules() if hasattr(m, "weights")]
    model(_pieces(model, tokens)[0])
    for hook in hooks:
        hook.remove()
    if not found:
        return Check(name, None, "this model has no scores yet", why)
    off = max(found, key=lambda factor: abs(factor - 1))
    return Check(name, abs(off - 1) < 0.01, f"{off:.3f} times the score that √D asks for", why)


def fused_equals_explicit(model: nn.Module, tokens: np.ndarray) -> Check:
    name = "fused attention equals the explicit one"
    why = "a kernel that was given another mask, scale or order: the attention maps would show what is not computed"
    off: list[float] = []

    def compare(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        explicit = module.weights(inputs[0]) @ module.qkv(inputs[0])[2]
        off.append((module.c_proj(explicit.transpose(1, 2).flatten(2)) - output).abs().max().item())

    hooks = [m.register_forward_hook(compare) for m in model.modules() if hasattr(m, "qkv")]
    model(_pieces(model, tokens)[0])
    for hook in hooks:
        hook.remove()
    if not off:
        return Check(name, None, "this model has no fused attention", why)
    return Check(name, max(off) < 1e-5, f"they differ by {max(off):.2g}", why)


def gradients_reach_everything(model: nn.Module, tokens: np.ndarray) -> Check:
    model.train()
    x, y = batch(tokens, model.config.block_size, 32, seed=0, step=0)
    model(x, y)[1].backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    total = sum(1 for _ in model.parameters())
    return Check(
        "gradients reach every parameter",
        not dead,
        f"{total - len(dead)} of {total} tensors" + (f"; none reaches {', '.join(dead[:3])}" if dead else ""),
        "a layer that was built and never called, or a graph cut by detach",
    )


def a_silent_block_is_the_identity(model: nn.Module, tokens: np.ndarray) -> Check:
    name = "a silent block hands its input on"
    why = "a missing or misplaced residual connection: a deep stack has no straight way down for the gradient"
    if not hasattr(model, "h"):
        return Check(name, None, "this model has no blocks", why)
    for projection, parameter in model.h.named_parameters():
        if "c_proj" in projection:
            parameter.data.zero_()
    off: list[float] = []
    for block in model.h:
        block.register_forward_hook(lambda _, inputs, output: off.append((output - inputs[0]).abs().max().item()))
    model(_pieces(model, tokens)[0])
    return Check(name, max(off) == 0, f"with its projections at zero it changes the stream by {max(off):.2g}", why)


def scale_by_depth(model: nn.Module, tokens: np.ndarray) -> Check:
    name = "signals keep their scale through depth"
    why = "activations or gradients that grow or vanish with each layer: missing LayerNorm, residual or scaled init"
    if not hasattr(model, "h"):
        return Check(name, None, "this model is one layer deep", why)
    model.train()
    outputs: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    hooks = [block.register_forward_hook(keep) for block in model.h]
    model(*_pieces(model, tokens, rows=16))[1].backward()
    for hook in hooks:
        hook.remove()
    stds = [o.std().item() for o in outputs]
    grads = [o.grad.norm().item() for o in outputs]
    activation = max(stds) / max(min(stds), 1e-30)
    gradient = max(grads) / max(min(grads), 1e-30)
    return Check(
        name,
        activation < 4 and gradient < 4,
        f"activation std {' '.join(f'{s:.2g}' for s in stds)}; gradient norm {' '.join(f'{g:.2g}' for g in grads)}",
        why,
    )


def cached_equals_uncached(model: nn.Module, tokens: np.ndarray) -> Check:
    name, why = "cached decoding equals uncached", "a cache that forgets its position or mixes up layers"
    if "use_cache" not in inspect.signature(model.generate).parameters:
        return Check(name, None, "this model recomputes everything for every token", why)
    start = torch.from_numpy(tokens[:8].astype(np.int64))[None]
    past = 20
    length = max(0, model.config.block_size - start.size(1)) + past
    for parameter in model.double().parameters():  # an untrained model repeats one token: make it care
        parameter.data.mul_(4)
    cached, uncached = (model.generate(start, length, temperature=0, use_cache=use) for use in (True, False))
    same = int((cached == uncached).sum()) - start.size(1)
    return Check(
        name,
        same == length,
        f"{same} of {length} tokens agree, {past} of them past the first window",
        why,
    )


def an_update_moves_everything(model: nn.Module, tokens: np.ndarray) -> Check:
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizers = make_optimizers(model, "muon", 1e-3, 0.02, weight_decay=0.0)
    recipe = Recipe(steps=1, batch_size=32, learning_rate=1e-3)
    list(train(model, optimizers, tokens, recipe, seed=0, device=torch.device("cpu")))
    still = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    return Check(
        "one update moves every parameter",
        not still,
        f"{len(before) - len(still)} of {len(before)} tensors" + (f"; not {', '.join(still[:3])}" if still else ""),
        "parameters that no optimizer holds, or gradients cleared before they were used",
    )


def overfits_one_batch(model: nn.Module, tokens: np.ndarray) -> Check:
    x, y = _pieces(model, tokens)
    floor = 0.0 if hasattr(model, "wpe") else _pair_entropy(x.flatten().tolist(), y.flatten().tolist())
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.3 if floor else 3e-3, weight_decay=0.0)
    for _ in range(OVERFIT_STEPS):
        optimizer.zero_grad()
        loss = model(x, y)[1]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    reached = loss.item()
    return Check(
        "one batch can be learned by heart",
        reached < floor + 0.1,
        f"{reached:.3f} nats after {OVERFIT_STEPS} steps" + (f"; pairs alone allow {floor:.3f}" if floor else ""),
        "a bug in the model, the loss or the optimizer: 128 characters are easy to memorise",
    )


def _pair_entropy(now: list[int], following: list[int]) -> float:
    """The best a table of pairs can do: the entropy of the next token given this one, in nats."""
    pairs, singles = Counter(zip(now, following, strict=True)), Counter(now)
    return -sum(n * math.log(n / singles[a]) for (a, _), n in pairs.items()) / len(now)
