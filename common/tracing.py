"""What really flowed through a model: shapes, parameters and work, read from a running forward pass."""

from dataclasses import dataclass

import torch
import torch.nn as nn
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


@dataclass(frozen=True)
class Row:
    """One module call. `flops` counts a multiply-add as two, for this call and everything inside it."""

    name: str  # as in state_dict; "" is the model itself
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    flops: int


FUSED_ATTENTION_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # torch counts it on GPUs only


def _fused_attention_flops(q: tuple, k: tuple, v: tuple, *_: object, **__: object) -> int:
    return sdpa_flop_count(q, k, v)


@torch.no_grad()
def trace(model: nn.Module, idx: Int[Tensor, "B T"]) -> list[Row]:
    """Run the model once on `idx` and report every module that took part, outermost first."""
    names = {module: name for name, module in model.named_modules()}
    calls: list[tuple[nn.Module, tuple[int, ...], tuple[int, ...], int]] = []
    started: list[int] = []
    counter = FlopCounterMode(display=False, custom_mapping={FUSED_ATTENTION_ON_CPU: _fused_attention_flops})

    def before(module: nn.Module, inputs: tuple) -> None:
        started.append(counter.get_total_flops())
        calls.append((module, (), (), 0))
        positions.append(len(calls) - 1)

    def after(module: nn.Module, inputs: tuple, output: Tensor | tuple) -> None:
        first = output[0] if isinstance(output, tuple) else output
        flops = counter.get_total_flops() - started.pop()
        calls[positions.pop()] = (module, tuple(inputs[0].shape), tuple(first.shape), flops)

    positions: list[int] = []
    watched = [m for m in names if not isinstance(m, nn.Dropout | nn.ModuleList)]
    hooks = [m.register_forward_pre_hook(before) for m in watched] + [m.register_forward_hook(after) for m in watched]
    was_training = model.training
    model.eval()
    try:
        with counter:
            model(idx)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return [
        Row(names[m], type(m).__name__, shape_in, shape_out, sum(p.numel() for p in m.parameters()), flops)
        for m, shape_in, shape_out, flops in calls
    ]


@torch.no_grad()
def attention_maps(model: nn.Module, idx: Int[Tensor, "1 T"]) -> list[tuple[str, Float[Tensor, "H T T"]]]:
    """The attention weights of every head for one piece of text, layer by layer.

    Works for every module with a method `weights(x)`; a module without heads gives one map.
    """
    maps: list[tuple[str, Tensor]] = []

    def record(name: str):
        def hook(module: nn.Module, inputs: tuple) -> None:
            wei = module.weights(inputs[0])
            maps.append((name, wei[0].detach().cpu().reshape(-1, *wei.shape[-2:]).float()))

        return hook

    hooks = [m.register_forward_pre_hook(record(n)) for n, m in model.named_modules() if hasattr(m, "weights")]
    was_training = model.training
    model.eval()
    try:
        model(idx)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return maps
