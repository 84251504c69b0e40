"""Step 01 · A bigram language model

A language model answers one question: given the text so far, how likely is each next character? The smallest model
that learns to answer looks at the last character only. It keeps a table with one row for each character; the row
holds a score (a logit) for every character that may follow. Softmax turns scores into probabilities, cross-entropy
says how surprised the model was by the character that really came, and gradient descent moves the scores.

New: tokens become logits, a loss compares them with the targets, and sampling draws text one character at a time.

Shapes: B batch (independent pieces of text), T time (positions in a piece), V vocabulary (distinct characters).
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
    block_size: int = 64  # T at most; a bigram needs one character, but the batches are the same for every step


class Model(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.token_table = nn.Embedding(config.vocab_size, config.vocab_size)  # row: this character, column: the next

    def forward(
        self, idx: Int[Tensor, "B T"], targets: Int[Tensor, "B T"] | None = None
    ) -> tuple[Float[Tensor, "B T V"], Float[Tensor, ""] | None]:
        logits: Float[Tensor, "B T V"] = self.token_table(idx)
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
    "quick": Recipe(steps=200, batch_size=32, learning_rate=0.1),
    "laptop": Recipe(steps=2000, batch_size=32, learning_rate=0.02),
    "gpu": Recipe(steps=5000, batch_size=256, learning_rate=0.05),
}

if __name__ == "__main__":
    from steps.walkthrough import main

    main(1)
