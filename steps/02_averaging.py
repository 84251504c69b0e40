"""Step 02 · Averaging the past

A character alone says little; the characters before it say more. The simplest way to let positions talk is to hand
every position the average of everything up to and including itself. Written as a loop it is slow. Written as a
product with a lower-triangular matrix it is one operation. Written as a softmax over masked scores it is the same
matrix again, but now the weights *come from scores*, and scores can be learned: that is the door to attention.

New: characters and positions become vectors, and each position lays the average of its past beside its own vector.
(It keeps its own, because an average alone forgets which character came last.)

Shapes: B batch, T time, V vocabulary, C channels (the length of each vector, n_embd).
"""

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from common.sampling import sample
from common.training import Recipe


@dataclass(frozen=True)
class Config:
    vocab_size: int  # V
    block_size: int = 64  # T at most
    n_embd: int = 128  # C


def average_loop(x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
    """Say it plainly: for each position, the mean of the positions up to it."""
    return torch.stack([x[:, : t + 1].mean(dim=1) for t in range(x.size(1))], dim=1)


def average_matmul(x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
    """The same as one matrix product: row t of the triangle holds 1/(t+1) up to column t, then zeros."""
    tril = torch.tril(torch.ones(x.size(1), x.size(1), dtype=x.dtype, device=x.device))
    wei: Float[Tensor, "T T"] = tril / tril.sum(dim=1, keepdim=True)
    return wei @ x


def average_softmax(x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
    """The same as a softmax: equal scores for the past, minus infinity for the future."""
    tril = torch.tril(torch.ones(x.size(1), x.size(1), dtype=torch.bool, device=x.device))
    scores = torch.zeros(x.size(1), x.size(1), dtype=x.dtype, device=x.device).masked_fill(~tril, float("-inf"))
    wei: Float[Tensor, "T T"] = F.softmax(scores, dim=-1)
    return wei @ x


class Model(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # what the token is
        self.wpe = nn.Embedding(config.block_size, config.n_embd)  # where it stands
        self.lm_head = nn.Linear(2 * config.n_embd, config.vocab_size)

    def forward(
        self, idx: Int[Tensor, "B T"], targets: Int[Tensor, "B T"] | None = None
    ) -> tuple[Float[Tensor, "B T V"], Float[Tensor, ""] | None]:
        pos = torch.arange(idx.size(1), device=idx.device)
        x: Float[Tensor, "B T C"] = self.wte(idx) + self.wpe(pos)
        x: Float[Tensor, "B T 2*C"] = torch.cat((x, average_softmax(x)), dim=-1)
        logits: Float[Tensor, "B T V"] = self.lm_head(x)
        loss = None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss

    @torch.inference_mode()
    def generate(
        self,
        idx: Int[Tensor, "B T"],
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "B T_out"]:
        for _ in range(max_new_tokens):
            logits, _ = self(idx[:, -self.config.block_size :])  # the model never sees more than block_size
            next_idx = sample(logits[:, -1], temperature, top_k, generator)  # only the last position predicts
            idx = torch.cat((idx, next_idx), dim=1)
        return idx


RECIPE = {
    "quick": Recipe(steps=200, batch_size=32, learning_rate=1e-2),
    "laptop": Recipe(steps=3000, batch_size=32, learning_rate=3e-3),
    "gpu": Recipe(
        steps=5000,
        batch_size=64,
        learning_rate=1e-3,
        dtype="bfloat16",
        compile=True,
        model={"block_size": 256, "n_embd": 384},
    ),
}

if __name__ == "__main__":
    from steps.walkthrough import main

    main(2)
