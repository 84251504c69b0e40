"""A linear layer that is quick for the one new token of cached generation."""

import math

import torch
import torch.nn as nn
from jaxtyping import Float
from torch import Tensor

PIECES = 16  # at most; more than most machines have cores
IN_CACHE = 100_000  # weights; so few stay in a core's cache, and cutting them costs more than it gains


class Linear(nn.Linear):
    """torch's Linear with the same weights; on a CPU, large weights meet a single token in pieces.

    A matrix times one vector takes as long as its weights need to come from memory. BLAS lets one core fetch them all;
    a batch of smaller products, one for each piece of the weights' rows, is shared among the cores.
    """

    def forward(self, x: Float[Tensor, "... I"]) -> Float[Tensor, "... O"]:
        alone = x.dim() == 3 and x.size(1) == 1 and x.device.type == "cpu"
        if not alone or self.weight.numel() < IN_CACHE:
            return super().forward(x)
        pieces = math.gcd(self.out_features, PIECES)
        columns = x[:, 0].T.expand(pieces, -1, -1)  # (pieces, I, B)
        y = torch.bmm(self.weight.unflatten(0, (pieces, -1)), columns).flatten(0, 1).T.unsqueeze(1)
        return y if self.bias is None else y + self.bias
