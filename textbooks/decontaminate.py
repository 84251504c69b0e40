"""Decontamination: no record may teach a benchmark problem, however it is dressed.

phi-1 asks this in section 5 of its paper (arXiv 2306.11644): an overlap of 13 words finds next to nothing
(four hits, all false), so it compares embeddings and syntax trees. Here are those three rules, and a fourth
that settles it: what passes a problem's tests is a solution of that problem, whatever it looks like.

1. `13-gram`: the record repeats 13 words in a row of a problem's prompt.
2. `syntax tree`: a function's normalised tree is within a few edits of that of a problem's solution.
3. `embedding`: a function is nearer to a problem than two problems are to each other.
4. `behaviour`: a function answers like a problem's solution, and then passes its tests, in isolation.
"""

import ast
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from textbooks.behaviour import Function, answered_alike, first_arguments, observe
from textbooks.dedup import normalised_tree
from textbooks.humaneval import Problem, check
from textbooks.isolation import Worker, WorkerLost
from textbooks.records import Exercise, Record, training_text
from textbooks.verify import Verdict

Embed = Callable[[Sequence[str]], np.ndarray]
"""n texts to vectors (n, d): the mean-pooled states of a model, for one."""

WORDS = 13
"""Words in a row that count as overlap: as in the paper (section 5.1) and GPT-3's (arXiv 2005.14165)."""

TREE_SIMILARITY = 0.9
"""1 - edits / nodes of the longer tree, from which two functions count as one.

The paper tries 0.95 down to 0.8, and shows pairs at 0.9 and below that share a pattern, not a task
(appendix C). Measured on HumanEval: of the 13,366 pairs of its 164 solutions one reaches 0.9, the two that
are one problem (56 and 61: brackets of two kinds); the next is at 0.86. A tree of fewer than ten nodes has
to be equal.
"""


@dataclass(frozen=True)
class Contamination:
    """Why a record was removed: the benchmark problem, the rule that found it, and its score (0 to 1)."""

    problem: str
    rule: str
    score: float

    @property
    def reason(self) -> str:
        return f"too close to {self.problem} by {self.rule} ({self.score:.2f})"


def functions(record: Record) -> list[Function]:
    """What a record teaches to compute: an exercise's solution, or each function in a page's Python.

    Their first arguments come from the exercise's tests or from the page's sessions (`>>> f(1)`).
    """
    if isinstance(record, Exercise):
        return [Function(record.entry_point, record.solution, first_arguments(record.tests))]
    found = []
    for fence in re.findall(r"```python\n(.*?)```", record.text, re.DOTALL):
        try:
            body = ast.parse(fence).body
        except (SyntaxError, ValueError):
            continue  # an interactive session or a trace
        kept = [node for node in body if isinstance(node, ast.FunctionDef | ast.Import | ast.ImportFrom)]
        program = ast.unparse(ast.Module(kept, []))
        for node in kept:
            if isinstance(node, ast.FunctionDef):
                shown = re.findall(rf"^>>> ({node.name}\(.*\))$", record.text, re.MULTILINE)
                found.append(Function(node.name, program, first_arguments(shown)))
    return found


def grams(text: str) -> Iterator[tuple[str, ...]]:
    """Every run of WORDS words of a text, in lower case, signs left out."""
    words = re.findall(r"\w+", text.lower())
    return zip(*(words[i:] for i in range(WORDS)), strict=False)


def tree_labels(program: str, name: str) -> list[str]:
    """The nodes of a function's normalised tree, parents before children; [] if there is no such function."""
    labels: list[str] = []

    def walk(node: ast.AST) -> None:
        match node:
            case ast.Constant(value=detail) | ast.Name(id=detail) | ast.Attribute(attr=detail):
                pass
            case ast.arg(arg=detail) | ast.keyword(arg=detail):
                pass
            case _:
                detail = ""
        labels.append(f"{type(node).__name__} {detail!r}")
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.expr_context):
                walk(child)

    try:
        definitions = [node for node in ast.parse(program).body if isinstance(node, ast.FunctionDef)]
        function = next(node for node in reversed(definitions) if node.name == name)
        walk(normalised_tree(ast.unparse(function)).body[0])
    except (SyntaxError, ValueError, RecursionError, StopIteration):
        return []
    return labels


def tfidf(texts: Sequence[str]) -> Embed:
    """An embedding where there is no model: words and signs, weighted by how rare they are in `texts`."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(token_pattern=r"[A-Za-z]+|\d+|[^\w\s]", sublinear_tf=True).fit(texts)
    return lambda texts: vectorizer.transform(texts).toarray()


class Decontaminator:
    """Knows a benchmark. Called with records, it answers each, in order, with a `Contamination` or None.

    `embed` may be a model's (see `educational_value.mean_pooled_states`); without one it is TF-IDF. The
    rule on embeddings needs no constant: a function is contaminated when its cosine with a problem, the
    benchmark's mean taken out, is above that of any two problems which the tree rule tells apart (TF-IDF on
    HumanEval: 0.65).

    Holds `workers` isolated processes (one a core), so use it in a `with` block. `allow_weaker` is as in
    `isolation.Worker`.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        embed: Embed | None = None,
        workers: int | None = None,
        allow_weaker: bool = False,
    ):
        self.problems = list(problems)
        solutions = [problem.prompt + problem.canonical_solution for problem in self.problems]
        self._grams = {gram: p.task_id for p in reversed(self.problems) for gram in grams(p.prompt)}
        self._labels = [tree_labels(text, p.entry_point) for text, p in zip(solutions, self.problems, strict=True)]
        self._embed = embed or tfidf(solutions)
        vectors = self._embed(solutions)
        self._mean = vectors.mean(axis=0)
        self._vectors = _unit(vectors - self._mean)
        self.embedding_threshold = self._nearest_different_problems()
        self._observed = [observe(problem) for problem in self.problems]
        self._workers = [Worker(allow_weaker) for _ in range(workers or os.cpu_count() or 1)]
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def __enter__(self) -> "Decontaminator":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.close()

    def __call__(self, records: Sequence[Record]) -> list[Contamination | None]:
        found = [self.overlap(training_text(record)) for record in records]
        for rule in (self.trees, self.embeddings, self.behaviours):
            left = [(i, f) for i, record in enumerate(records) if found[i] is None for f in functions(record)]
            for (i, _), hit in zip(left, rule([function for _, function in left]), strict=True):
                found[i] = found[i] or hit
        return found

    def overlap(self, text: str) -> Contamination | None:
        hit = next((self._grams[gram] for gram in grams(text) if gram in self._grams), None)
        return Contamination(hit, "13-gram", 1.0) if hit else None

    def trees(self, taught: Sequence[Function]) -> list[Contamination | None]:
        hits: list[Contamination | None] = []
        for function in taught:
            labels = tree_labels(function.program, function.name)
            scores = [tree_similarity(labels, other) for other in self._labels]
            best = int(np.argmax(scores))
            near = scores[best] >= TREE_SIMILARITY
            hits.append(Contamination(self.problems[best].task_id, "syntax tree", scores[best]) if near else None)
        return hits

    def embeddings(self, taught: Sequence[Function]) -> list[Contamination | None]:
        if not taught:
            return []
        vectors = self._embed([function.program for function in taught])
        hits: list[Contamination | None] = []
        for cosines in _unit(vectors - self._mean) @ self._vectors.T:
            best = int(np.argmax(cosines))
            near = cosines[best] > self.embedding_threshold
            score = float(cosines[best])
            hits.append(Contamination(self.problems[best].task_id, "embedding", score) if near else None)
        return hits

    def _nearest_different_problems(self) -> float:
        """The largest cosine of two problems whose solutions are different trees."""
        cosines = self._vectors @ self._vectors.T
        pairs = zip(*np.triu_indices(len(cosines), 1), strict=True)
        return max(
            float(cosines[i, j])
            for i, j in pairs
            if tree_similarity(self._labels[i], self._labels[j]) < TREE_SIMILARITY
        )

    def behaviours(self, taught: Sequence[Function]) -> list[Contamination | None]:
        """Raises WorkerLost if an isolated process was lost twice: that says nothing about a function."""
        with ThreadPoolExecutor(len(self._workers)) as pool:
            return list(pool.map(self._behaviour, taught))

    def _behaviour(self, function: Function) -> Contamination | None:
        worker = self._idle.get()
        try:
            for problem in answered_alike(function, self._observed, worker):
                completion = f"\n\n{function.program}\n\n{problem.entry_point} = {function.name}\n"
                outcome = check(problem, completion, worker=worker)
                if outcome.verdict is Verdict.INFRASTRUCTURE:
                    raise WorkerLost(outcome.reason)
                if outcome.passed:
                    return Contamination(problem.task_id, "behaviour", 1.0)
        finally:
            self._idle.put(worker)
        return None


def tree_similarity(a: Sequence[str], b: Sequence[str]) -> float:
    """1 - edits / length of the longer list of labels, from 0 to 1; 0 where it is below TREE_SIMILARITY."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.normalized_similarity(a, b, score_cutoff=TREE_SIMILARITY)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
