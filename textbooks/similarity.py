"""How alike two programs are as syntax trees, for the paper's decontamination table (arXiv 2306.11644, section 5.2)."""

from collections.abc import Sequence

import numpy as np

from textbooks.decontaminate import tree_labels

Named = tuple[str, str]
"""A function's name and the program that holds it."""


def most_similar(programs: Sequence[Named], others: Sequence[Named], least: float = 0.5) -> np.ndarray:
    """For each program its greatest similarity with any of `others`, (n,): 1 - edits / nodes of the longer normalised
    syntax tree; 0 where it is below `least`."""
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist

    numbers: dict[str, int] = {}
    trees = [
        [numbers.setdefault(label, len(numbers)) for label in tree_labels(program, name)]
        for name, program in (*programs, *others)
    ]
    mine, theirs = trees[: len(programs)], trees[len(programs) :]
    scores = cdist(mine, theirs, scorer=Levenshtein.normalized_similarity, score_cutoff=least, dtype=np.float32)
    return scores.max(axis=1)
