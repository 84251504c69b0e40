"""From a text file to batches. The last tenth of every text is validation, always."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from common.tokenizer import CharTokenizer

CHUNK = 1 << 22  # characters read at a time: a text of any size is encoded in bounded memory


@dataclass(frozen=True)
class Corpus:
    """A text as tokens. `tokens` may be a memory map, so a text larger than memory still works."""

    tokenizer: CharTokenizer
    tokens: np.ndarray  # (characters,) uint8, uint16 or uint32

    @property
    def train(self) -> np.ndarray:
        return self.tokens[: self._split]

    @property
    def validation(self) -> np.ndarray:
        return self.tokens[self._split :]

    @property
    def _split(self) -> int:
        return len(self.tokens) * 9 // 10


def read_corpus(path: Path, tokenizer: CharTokenizer | None = None) -> Corpus:
    """Encode a UTF-8 text file, with its own alphabet or with the one given."""
    if tokenizer is None:
        tokenizer = CharTokenizer("".join(sorted(set().union(*map(set, _chunks(path))))))
    dtype = np.min_scalar_type(max(0, len(tokenizer) - 1))
    with tempfile.TemporaryFile() as file:  # has no name, and vanishes with the last reference to the map
        for chunk in _chunks(path):
            file.write(tokenizer.encode(chunk).astype(dtype).tobytes())
        file.flush()
        if os.fstat(file.fileno()).st_size == 0:
            raise ValueError(f"{path} is empty: choose a text with something in it")
        return Corpus(tokenizer, np.memmap(file, dtype=dtype, mode="r"))


def _chunks(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8", newline="") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def require_length(corpus: Corpus, block_size: int) -> None:
    """Raise ValueError unless both parts hold at least one piece of block_size tokens and its targets."""
    shortest = min(len(corpus.train), len(corpus.validation))
    if shortest < block_size + 1:
        needed = 10 * (block_size + 1)
        raise ValueError(
            f"the text has {len(corpus.tokens):,} characters, and block_size {block_size} needs at least {needed:,} "
            f"(a tenth is validation): choose a longer text or a smaller --block-size"
        )


def batch(
    tokens: np.ndarray, block_size: int, batch_size: int, seed: int, step: int
) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Random pieces of text and, as targets, the same pieces one character later.

    A pure function of (seed, step): there is no hidden cursor, so a resumed run sees exactly the batches that the
    unbroken one would have seen. Every start index, the last one included, is equally likely.
    """
    starts = np.random.default_rng((seed, step)).integers(0, len(tokens) - block_size, size=batch_size)
    pieces = torch.from_numpy(tokens[starts[:, None] + np.arange(block_size + 1)].astype(np.int64))
    return pieces[:, :-1], pieces[:, 1:]
