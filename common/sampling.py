"""From logits to the next token."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def sample(
    logits: Float[Tensor, "B V"],
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "B 1"]:
    """Draw one token for each row of logits.

    `temperature` divides the logits: below 1 the likely become likelier, and 0 always takes the likeliest (argmax).
    `top_k` keeps the k likeliest tokens and forgets the rest (Fan et al. 2018).
    """
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    logits = logits.float() / temperature
    if top_k is None or top_k >= logits.size(-1):
        return torch.multinomial(F.softmax(logits, dim=-1), 1, generator=generator)
    logits, tokens = logits.topk(top_k, dim=-1)
    choice = torch.multinomial(F.softmax(logits, dim=-1), 1, generator=generator)
    return tokens.gather(-1, choice)
