"""Step 06 · The Transformer block

Attention is how positions talk; what they heard must also be thought about. So each position gets a small
feed-forward network of its own (MLP). Attention and MLP together make a block, and blocks are stacked. Two things
keep a deep stack trainable. Each part *adds* to a running vector instead of replacing it (the residual stream), so
gradients flow straight down. And each part reads a normalised copy of it (LayerNorm, placed before the part: "pre-LN").

New: MLP, LayerNorm and dropout; attention + MLP become a Block, and n_layer blocks are stacked.

Shapes: B batch, T time, V vocabulary, C channels (n_embd), H heads (n_head), D head size (D = C / H).
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
    n_head: int = 4  # H
    n_layer: int = 4
    dropout: float = 0.0  # share of activations zeroed while training

    def __post_init__(self):
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd={self.n_embd} must be a multiple of n_head={self.n_head}")


class Head(nn.Module):
    """One head of causal self-attention."""

    def __init__(self, config: Config, head_size: int):
        super().__init__()
        self.query = nn.Linear(config.n_embd, head_size, bias=False)
        self.key = nn.Linear(config.n_embd, head_size, bias=False)
        self.value = nn.Linear(config.n_embd, head_size, bias=False)
        tril = torch.tril(torch.ones(config.block_size, config.block_size, dtype=torch.bool))
        self.register_buffer("tril", tril, persistent=False)

    def weights(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T T"]:
        T = x.size(1)
        q: Float[Tensor, "B T D"] = self.query(x)
        k: Float[Tensor, "B T D"] = self.key(x)
        scores: Float[Tensor, "B T T"] = q @ k.transpose(-2, -1) * k.size(-1) ** -0.5
        scores = scores.masked_fill(~self.tril[:T, :T], float("-inf"))
        return F.softmax(scores, dim=-1)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T D"]:
        v: Float[Tensor, "B T D"] = self.value(x)
        return self.weights(x) @ v


class MultiHead(nn.Module):
    """Several heads side by side; their results are concatenated and projected."""

    def __init__(self, config: Config):
        super().__init__()
        head_size = config.n_embd // config.n_head
        self.heads = nn.ModuleList(Head(config, head_size) for _ in range(config.n_head))
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        x = torch.cat([head(x) for head in self.heads], dim=-1)
        return self.dropout(self.c_proj(x))


class MLP(nn.Module):
    """Feed-forward: widen four times, bend, narrow; every position on its own."""

    def __init__(self, config: Config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        return self.dropout(self.c_proj(F.relu(self.c_fc(x))))


class Block(nn.Module):
    """Talk, then think; each adds to the residual stream what it makes of a normalised copy."""

    def __init__(self, config: Config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = MultiHead(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Model(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # what the token is
        self.wpe = nn.Embedding(config.block_size, config.n_embd)  # where it stands
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size)

    def forward(
        self, idx: Int[Tensor, "B T"], targets: Int[Tensor, "B T"] | None = None
    ) -> tuple[Float[Tensor, "B T V"], Float[Tensor, ""] | None]:
        pos = torch.arange(idx.size(1), device=idx.device)
        x: Float[Tensor, "B T C"] = self.wte(idx) + self.wpe(pos)
        for block in self.h:
            x = block(x)
        x = self.ln_f(x)
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
    "quick": Recipe(steps=80, batch_size=12, learning_rate=3e-3, model={"n_layer": 3}),
    "laptop": Recipe(steps=700, batch_size=12, learning_rate=3e-3, model={"n_layer": 3}),
    "gpu": Recipe(
        steps=5000,
        batch_size=64,
        learning_rate=3e-4,
        dtype="bfloat16",
        compile=True,
        model={"block_size": 256, "n_embd": 384, "n_head": 6, "n_layer": 6, "dropout": 0.2},
    ),
}

if __name__ == "__main__":
    from steps.walkthrough import main

    main(6)
