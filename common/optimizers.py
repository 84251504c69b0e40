"""Which parameters learn how."""

import torch
import torch.nn as nn


def make_optimizers(
    model: nn.Module, name: str, learning_rate: float, muon_learning_rate: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """`adamw` for everything, or `muon` for the hidden matrices and AdamW for the rest.

    Weight decay pulls matrices towards zero and leaves vectors (biases, LayerNorm) alone, as GPT-2's followers do.
    Muon (Jordan 2024) replaces each update of a matrix by the nearest orthogonal one; embeddings and the head, whose
    rows are looked up rather than multiplied together, stay with AdamW.
    """
    if name not in ("adamw", "muon"):
        raise ValueError(f"there is no optimizer {name!r}: choose adamw or muon")
    parameters = list(model.parameters())  # a tied table is listed once
    hidden = set(hidden_matrices(model)) if name == "muon" else set()
    rest = [p for p in parameters if p not in hidden]
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99), fused=True)
    ]
    if hidden:
        matrices = [p for p in parameters if p in hidden]
        optimizers.append(torch.optim.Muon(matrices, lr=muon_learning_rate, weight_decay=weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]  # torch's own name for it; the schedule multiplies this one
    return optimizers


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The weights of linear layers (GPT-2's Conv1D is one, turned) between the embedding and the head."""
    head = model.lm_head.weight if hasattr(model, "lm_head") else None
    linear = (m for m in model.modules() if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D")
    return [m.weight for m in linear if m.weight is not head]
