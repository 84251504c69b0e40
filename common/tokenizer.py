"""Characters to numbers and back."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import SupportsInt

import numpy as np


@dataclass(frozen=True)
class CharTokenizer:
    """Every distinct character is a token; its number is its place in `alphabet` (sorted by code point)."""

    alphabet: str

    @classmethod
    def of(cls, text: str) -> "CharTokenizer":
        return cls("".join(sorted(set(text))))

    @cached_property
    def _number_of(self) -> np.ndarray:
        """Code point → token number, or −1 where the alphabet has no such character."""
        table = np.full(max(map(ord, self.alphabet), default=0) + 2, -1, dtype=np.int64)
        for number, character in enumerate(self.alphabet):
            table[ord(character)] = number
        return table

    def __len__(self) -> int:
        return len(self.alphabet)

    def encode(self, text: str) -> np.ndarray:
        """Token numbers, int64, one a character.

        Raises ValueError naming the characters that the alphabet lacks.
        """
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        numbers = self._number_of[np.minimum(points, len(self._number_of) - 1)]
        if (numbers < 0).any():
            unknown = sorted(set(text) - set(self.alphabet))
            names = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in unknown[:8]) + (" …" if len(unknown) > 8 else "")
            raise ValueError(f"the model's {len(self)} characters do not include {names}: leave them out")
        return numbers

    def decode(self, tokens: Iterable[SupportsInt]) -> str:
        return "".join(self.alphabet[int(token)] for token in tokens)
