"""Which raw code is worth reading? The filter of phi-1 (arXiv 2306.11644, section 2.1), at laptop size.

A teacher labels a few hundred chunks (`prompts/educational_value.md`), a small language model trained on
the raw code turns each chunk into the mean of its last hidden states, and a random forest learns to predict
the labels from that. The paper labelled about 100,000 files with GPT-4, used a pretrained code model, and
kept 17 % of the tokens.

The labels here were written by a language model (Claude), as each of them says: not by people, and not by
GPT-4.
"""

import ast
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from textbooks.raw_code import Chunk

LABELS = Path(__file__).parent / "labels"
FIRST, SECOND = LABELS / "educational_value.jsonl", LABELS / "educational_value_second.jsonl"

KEEP_SCORE = 4
"""Labels run from 1 to 5; the prompt keeps "much" and "a model example"."""

KEPT_FRACTION = 0.17
"""The share of the raw corpus that phi-1's filter kept (6 B of 35 B tokens)."""


@dataclass(frozen=True)
class Label:
    """A chunk's educational value: `key` is the sha256 of its source, `source` says who judged."""

    key: str
    score: int
    source: str


def read_labels(path: Path = FIRST) -> dict[str, Label]:
    """Labels by chunk key. Raises ValueError naming a line whose score is not 1 to 5."""
    labels = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        row = json.loads(line)
        if row["score"] not in (1, 2, 3, 4, 5):
            raise ValueError(f"{path}, line {number}: the score is {row['score']!r}, give one from 1 to 5")
        labels[row["key"]] = Label(row["key"], row["score"], row["source"])
    return labels


def labelled(chunks: Iterable[Chunk], labels: Mapping[str, Label]) -> tuple[list[Chunk], np.ndarray]:
    """The chunks that have a label, and their scores (n,): a label fits only the source that was read."""
    found = [chunk for chunk in chunks if chunk.key in labels]
    return found, np.array([labels[chunk.key].score for chunk in found])


@dataclass(frozen=True)
class Agreement:
    """Cohen's kappa of two labellings of `n` chunks: 0 is chance, 1 is identity.

    `keep` is on kept or not; `score` on the five scores, weighted by the square of their distance.
    """

    n: int
    keep: float
    score: float


def agreement(first: Mapping[str, Label], second: Mapping[str, Label]) -> Agreement:
    """How far two labellings agree on the chunks that both judged.

    FIRST and SECOND are by one model in two sessions, the second in another order and without sight of the first:
    what they give is its agreement with itself, not that of two different judges.
    """
    from sklearn.metrics import cohen_kappa_score

    keys = [key for key in second if key in first]
    a, b = (np.array([labels[key].score for key in keys]) for labels in (first, second))
    return Agreement(
        len(keys),
        float(cohen_kappa_score(a >= KEEP_SCORE, b >= KEEP_SCORE)),
        float(cohen_kappa_score(a, b, weights="quadratic", labels=[1, 2, 3, 4, 5])),
    )


def length_and_docstring(chunks: Sequence[Chunk]) -> np.ndarray:
    """The plainest features, (n, 3): lines, characters, and characters of docstring."""
    docstrings = (ast.get_docstring(ast.parse(chunk.source).body[0]) or "" for chunk in chunks)
    rows = [
        (chunk.source.count("\n") + 1, len(chunk.source), len(docstring))
        for chunk, docstring in zip(chunks, docstrings, strict=True)
    ]
    return np.array(rows, dtype=np.float64)


def _forest(seed: int):
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(200, min_samples_leaf=2, max_features="sqrt", n_jobs=-1, random_state=seed)


@dataclass(frozen=True)
class Quality:
    """How well a forest on some features predicts what is kept, on chunks it was not trained on.

    `auc` with its 95 % bootstrap interval; `precision` among the `kept` share that scores highest;
    `base_rate` is the precision of keeping at random.
    """

    auc: float
    auc_low: float
    auc_high: float
    precision: float
    kept: float
    base_rate: float
    n: int


def cross_validate(
    features: np.ndarray,
    scores: np.ndarray,
    seed: int,
    kept: float = KEPT_FRACTION,
    keep_score: int = KEEP_SCORE,
    repeats: int = 5,
) -> Quality:
    """Predict each chunk's score (n,) from its features (n, d) by forests trained on the other folds.

    Five stratified folds, `repeats` times over; a chunk's prediction is the mean over the repeats. The forest
    learns the score, not just kept or not: where few chunks are kept, the order among the others tells most.
    Raises ValueError if fewer than five chunks are kept, or all but so many.
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold

    good = scores >= keep_score
    if min(good.sum(), (~good).sum()) < 5:
        raise ValueError(f"{good.sum()} of {len(good)} labels say keep, and five of each kind are needed: label more")
    predicted = np.zeros(len(scores))
    for repeat in range(repeats):
        folds = StratifiedKFold(5, shuffle=True, random_state=seed + repeat)
        for train, test in folds.split(features, good):
            forest = _forest(seed + repeat).fit(features[train], scores[train])
            predicted[test] += forest.predict(features[test]) / repeats
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, len(good), len(good)) for _ in range(500))
    aucs = [roc_auc_score(good[draw], predicted[draw]) for draw in draws if 0 < good[draw].sum() < len(good)]
    top = np.argsort(-predicted, kind="stable")[: max(1, round(kept * len(good)))]
    low, high = np.quantile(aucs, [0.025, 0.975])
    return Quality(
        float(roc_auc_score(good, predicted)),
        float(low),
        float(high),
        float(good[top].mean()),
        kept,
        float(good.mean()),
        len(good),
    )


def compare(
    chunks: Sequence[Chunk], embed: Callable[[Sequence[str]], np.ndarray], labels: Mapping[str, Label], seed: int
) -> dict[str, Quality]:
    """The filter beside two that need no model, all on the labelled ones among `chunks`.

    `embed` maps n texts to vectors (n, d). TF-IDF learns its weights from all chunks, labelled or not.
    """
    from textbooks.decontaminate import tfidf

    known, scores = labelled(chunks, labels)
    texts = [chunk.source for chunk in known]
    features = {
        "model states": embed(texts),
        "TF-IDF": tfidf([chunk.source for chunk in chunks])(texts),
        "length and docstring": length_and_docstring(known),
    }
    return {name: cross_validate(rows, scores, seed) for name, rows in features.items()}


def keep_best(
    chunks: Sequence[Chunk],
    features: np.ndarray,
    labels: Mapping[str, Label],
    seed: int,
    kept: float = KEPT_FRACTION,
) -> list[Chunk]:
    """The chunks that a forest trained on the labelled ones rates highest, in corpus order.

    `features` (n, d) has a row for each chunk. As many are kept as hold a share `kept` of all characters.
    """
    known = np.array([chunk.key in labels for chunk in chunks])
    scores = np.array([labels[chunk.key].score for chunk in chunks if chunk.key in labels])
    predicted = _forest(seed).fit(features[known], scores).predict(features)
    lengths = np.array([len(chunk.source) for chunk in chunks])
    order = np.argsort(-predicted, kind="stable")
    within = np.cumsum(lengths[order]) <= kept * lengths.sum()
    return [chunks[i] for i in sorted(order[within])]
