"""Step 03 · Attention: weights from the data

An average treats the whole past alike. Attention lets every position choose: it emits a query ("what am I looking
for?") and a key ("what do I hold?"), and the dot product of a query with a key is the score of that pair. Scores of
the future are masked, softmax makes the rest into weights that sum to one, and the past is averaged with *those*.
Dividing by the square root of the head size keeps the scores' variance near one, so that softmax starts out soft.

New: the scores of step 02, which were all zero, now come from the data through two linear maps, query and key; and
what a position gathers is added to its own vector, which from here on keeps its width.

Shapes: B batch, T time, V vocabulary, C channels (n_embd), D head size (the length of a query or key).
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
    head_size: int = 32  # D


class Attention(nn.Module):
    """Causal self-attention without values: a weighted average of the inputs themselves."""

    def __init__(self, config: Config):
        super().__init__()
        self.query = nn.Linear(config.n_embd, config.head_size, bias=False)
        self.key = nn.Linear(config.n_embd, config.head_size, bias=False)
        tril = torch.tril(torch.ones(config.block_size, config.block_size, dtype=torch.bool))
        self.register_buffer("tril", tril, persistent=False)

    def weights(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T T"]:
        T = x.size(1)
        q: Float[Tensor, "B T D"] = self.query(x)
        k: Float[Tensor, "B T D"] = self.key(x)
        scores: Float[Tensor, "B T T"] = q @ k.transpose(-2, -1) * k.size(-1) ** -0.5
        scores = scores.masked_fill(~self.tril[:T, :T], float("-inf"))
        return F.softmax(scores, dim=-1)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        return self.weights(x) @ x


class Model(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # what the token is
        self.wpe = nn.Embedding(config.block_size, config.n_embd)  # where it stands
        self.attn = Attention(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size)

    def forward(
        self, idx: Int[Tensor, "B T"], targets: Int[Tensor, "B T"] | None = None
    ) -> tuple[Float[Tensor, "B T V"], Float[Tensor, ""] | None]:
        pos = torch.arange(idx.size(1), device=idx.device)
        x: Float[Tensor, "B T C"] = self.wte(idx) + self.wpe(pos)
        x = x + self.attn(x)
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
    "quick": Recipe(steps=150, batch_size=32, learning_rate=3e-3),
    "laptop": Recipe(steps=2500, batch_size=32, learning_rate=3e-3),
    "gpu": Recipe(
        steps=5000,
        batch_size=64,
        learning_rate=1e-3,
        dtype="bfloat16",
        compile=True,
        model={"block_size": 256, "n_embd": 384, "head_size": 64},
    ),
}

if __name__ == "__main__":
    from steps.walkthrough import main

    main(3)
