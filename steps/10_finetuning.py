"""Step 10 · Finetuning

A pretrained model learns a task by training on, with examples of that task alone: here it reads an exercise and is
judged by what it writes after it, end-of-text included. (A GPT of step 09 has read so little that it is judged by the
whole exercise: it has still to learn to copy a name.) LoRA keeps every weight as it is. Beside a linear map it learns
two thin matrices, whose product is what finetuning would have added to the map's weights. They start as no change at
all, they are the only thing to train and to keep, and in the end their product can be added into the weights, so that
the finetuned model is as large and as fast as the one it came from.

New: the loss counts the completion only, and what is learned is a change of low rank beside frozen weights (LoRA).

Shapes: I inputs and O outputs of a linear map, R rank of its change: weight (O, I) + scale · B (O, R) A (R, I)
"""

import math
from collections.abc import Collection
from pathlib import Path

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

from textbooks.study import Arm

NAME = Path(__file__).stem
ARMS = (  # the GPTs of step 09, and one that read nothing, all of their weights trained on
    Arm("0+X", "exercises alone", "exercises", tuned=True, samples=True),
    Arm("A+X", "raw code, then exercises", "exercises", "A", tuned=True),
    Arm("A3+X", "three times the raw code, then exercises", "exercises", "A3", tuned=True),
    Arm("B+X", "filtered code, then exercises", "exercises", "B", tuned=True),
    Arm("C+X", "textbooks, then exercises", "exercises", "C", tuned=True, samples=True),
    Arm("C-+X", "permuted textbooks, then exercises", "exercises", "C-", tuned=True),
    Arm("C+T", "textbooks, then more textbook", "pages", "C", tuned=True),
)


class LoRA(nn.Module):
    """A frozen linear map plus a change of low rank (Hu et al., arXiv 2106.09685, equation 3)."""

    def __init__(self, base: nn.Module, rank: int, alpha: float, generator: torch.Generator):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.is_linear = isinstance(base, nn.Linear)  # else GPT-2's Conv1D, which keeps its weight as (I, O)
        outputs, inputs = base.weight.shape if self.is_linear else base.weight.T.shape
        A = nn.init.kaiming_uniform_(torch.empty(rank, inputs), a=math.sqrt(5), generator=generator)
        self.A = nn.Parameter(A.to(base.weight))
        self.B = nn.Parameter(base.weight.new_zeros(outputs, rank))  # so the change starts at zero
        self.scale = alpha / rank

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The base itself, with the change added into its weight."""
        change: Float[Tensor, "O I"] = self.scale * self.B @ self.A
        self.base.weight += change if self.is_linear else change.T
        return self.base


def add_lora(
    model: nn.Module, targets: Collection[str], rank: int, alpha: float, generator: torch.Generator
) -> nn.Module:
    """Freeze the model, and put a LoRA in place of every linear map that has one of the names (such as c_attn).

    Raises ValueError, and changes nothing, if a name belongs to no linear map.
    """
    places = [(parent, name) for parent in model.modules() for name, _ in parent.named_children() if name in targets]
    for name in targets:
        kinds = {type(getattr(parent, name)) for parent, found in places if found == name}
        if not kinds or not all(issubclass(kind, nn.Linear) or kind.__name__ == "Conv1D" for kind in kinds):
            raise ValueError(f"the model has no linear map named {name!r}: choose targets from its named_modules()")
    model.requires_grad_(False)
    for parent, name in places:
        setattr(parent, name, LoRA(getattr(parent, name), rank, alpha, generator))
    return model


def merge(model: nn.Module) -> nn.Module:
    """Put every linear map back, with what its LoRA has learned added into its weight."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoRA):
                setattr(parent, name, child.merged())
    return model


if __name__ == "__main__":
    from steps.case_study import main

    main(10)
