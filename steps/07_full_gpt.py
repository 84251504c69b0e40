"""Step 07 · The full GPT

Step 06 is already a GPT; this step gives it GPT-2's exact shape, so that weights can travel in both directions. All
heads are computed by one fused linear map and one fused attention kernel. GELU replaces ReLU. The table that reads
tokens also writes them (weight tying). Weights start small, and those that write into the residual stream smaller
still, so that depth does not inflate it. And generation keeps the keys and values it has already computed.

New: fused query-key-value and scaled_dot_product_attention, GELU, weight tying, GPT-2's initialisation, cached keys.

Shapes: B batch, T time, V vocabulary, C channels (n_embd), H heads (n_head), D head size (D = C / H).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from common.linear import Linear
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


class KeyValues:
    """What one layer has already computed for the text so far, while generating."""

    keys: Float[Tensor, "B H S D"] | None = None
    values: Float[Tensor, "B H S D"] | None = None

    def append(self, k: Float[Tensor, "B H T D"], v: Float[Tensor, "B H T D"]) -> tuple[Tensor, Tensor]:
        if self.keys is not None:
            k, v = torch.cat((self.keys, k), dim=2), torch.cat((self.values, v), dim=2)
        self.keys, self.values = k, v
        return k, v


class Attention(nn.Module):
    """Causal self-attention, all heads at once."""

    def __init__(self, config: Config):
        super().__init__()
        self.n_head = config.n_head
        self.c_attn = Linear(config.n_embd, 3 * config.n_embd)  # query, key and value of every head
        self.c_proj = Linear(config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def qkv(self, x: Float[Tensor, "B T C"]) -> tuple[Float[Tensor, "B H T D"], ...]:
        return tuple(part.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=-1))

    def weights(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B H T T"]:
        """What the fused kernel computes and never shows: for plots and tests only."""
        q, k, _ = self.qkv(x)
        scores = q @ k.transpose(-2, -1) * k.size(-1) ** -0.5
        future = torch.ones(x.size(1), x.size(1), dtype=torch.bool, device=x.device).triu(1)
        return F.softmax(scores.masked_fill(future, float("-inf")), dim=-1)

    def forward(self, x: Float[Tensor, "B T C"], cache: KeyValues | None = None) -> Float[Tensor, "B T C"]:
        q, k, v = self.qkv(x)
        if cache is not None:
            k, v = cache.append(k, v)
        y: Float[Tensor, "B H T D"] = F.scaled_dot_product_attention(
            q,
            k,
            v,
            is_causal=x.size(1) > 1,  # a single new token may look at everything that is cached
            scale=k.size(-1) ** -0.5,
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        return self.dropout(self.c_proj(y.transpose(1, 2).flatten(2)))


class MLP(nn.Module):
    """Feed-forward: widen four times, bend, narrow; every position on its own."""

    def __init__(self, config: Config):
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        return self.dropout(self.c_proj(F.gelu(self.c_fc(x), approximate="tanh")))


class Block(nn.Module):
    """Talk, then think; each adds to the residual stream what it makes of a normalised copy."""

    def __init__(self, config: Config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: Float[Tensor, "B T C"], cache: KeyValues | None = None) -> Float[Tensor, "B T C"]:
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp(self.ln_2(x))


class Model(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # what the token is
        self.wpe = nn.Embedding(config.block_size, config.n_embd)  # where it stands
        self.dropout = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.apply(self.init_weights)
        self.lm_head.weight = self.wte.weight  # one table reads tokens and writes them

    def init_weights(self, module: nn.Module) -> None:
        """GPT-2: normal with std 0.02; projections into the residual stream, of which each layer has two, smaller."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, Attention | MLP):
            nn.init.normal_(module.c_proj.weight, std=0.02 / math.sqrt(2 * self.config.n_layer))

    def forward(
        self,
        idx: Int[Tensor, "B T"],
        targets: Int[Tensor, "B T"] | None = None,
        cache: list[KeyValues] | None = None,
    ) -> tuple[Float[Tensor, "B T V"], Float[Tensor, ""] | None]:
        past = 0 if not cache or cache[0].keys is None else cache[0].keys.size(2)
        if past and idx.size(1) > 1:
            raise ValueError(f"the cache holds {past} tokens already: feed what follows one token at a time")
        pos = torch.arange(past, past + idx.size(1), device=idx.device)
        x: Float[Tensor, "B T C"] = self.dropout(self.wte(idx) + self.wpe(pos))
        for block, layer_cache in zip(self.h, cache or [None] * len(self.h), strict=True):
            x = block(x, layer_cache)
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
        use_cache: bool = True,
    ) -> Int[Tensor, "B T_out"]:
        start, cache = max(0, idx.size(1) - self.config.block_size), None
        for _ in range(max_new_tokens):
            if idx.size(1) - start > self.config.block_size:  # window full: go on with its newer half
                start, cache = idx.size(1) - max(1, self.config.block_size // 2), None
            if use_cache and cache is not None:
                new = idx[:, -1:]  # everything before is in the cache
            else:
                new, cache = idx[:, start:], [KeyValues() for _ in self.h] if use_cache else None
            logits, _ = self(new, cache=cache)
            next_idx = sample(logits[:, -1], temperature, top_k, generator)
            idx = torch.cat((idx, next_idx), dim=1)
        return idx


RECIPE = {
    "quick": Recipe(steps=100, batch_size=12, learning_rate=3e-3, optimizer="muon", warmup_steps=5, final_share=0.0),
    "laptop": Recipe(steps=2000, batch_size=16, learning_rate=3e-3, optimizer="muon", warmup_steps=50, final_share=0.0),
    "gpu": Recipe(
        steps=5000,
        batch_size=64,
        learning_rate=1e-3,
        optimizer="muon",
        warmup_steps=100,
        final_share=0.0,
        dtype="bfloat16",
        compile=True,
        model={"block_size": 256, "n_embd": 384, "n_head": 6, "n_layer": 6, "dropout": 0.2},
    ),
}

if __name__ == "__main__":
    from steps.walkthrough import main

    main(7)
