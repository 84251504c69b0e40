"""Near-duplicates: two records that would teach a model the same thing.

Two tests, each cheap enough for every record. A program is a duplicate when its *normalised syntax tree* has
been seen: names, comments, annotations, docstrings and layout are taken out, so a renamed copy is the same
tree. A text is a duplicate when it shares most of its token shingles with one already kept: MinHash and
locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman and Ullman, *Mining of Massive Datasets*,
chapter 3) propose candidates without comparing all pairs, and the exact Jaccard similarity decides.

The first record of a group is the one that is kept, so a longer input never changes what was decided before.
"""

import ast
import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from textbooks.records import Exercise, Record, training_text

SHINGLE = 5
"""Tokens a shingle: long enough that sharing one is not chance; also BigCode's size (arXiv 2301.03988)."""

THRESHOLD = 0.8
"""Jaccard similarity from which two texts count as one.

Each changed token spoils five shingles: in a text of 60 tokens one change leaves 55/65 = 0.85, two leave
50/70 = 0.71. So at 0.8 an exercise as short as ours may differ from its neighbour by a word of the docstring
and a token of the code ("even", `== 0`) and still be another exercise. BigCode takes 0.7, on whole files.
"""

BANDS, ROWS = 18, 7
"""A pair becomes a candidate when one band of seven MinHash values agrees: 1 - (1 - J^7)^18 of pairs.

That is 98.6 % at J = 0.8 and 99.9 % at 0.85, and 13 % at 0.5, each of which costs one exact comparison.
"""

_MULTIPLIERS = np.random.default_rng(1).integers(1, 2**64, SHINGLE, dtype=np.uint64) | np.uint64(1)

_Scope = (
    ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
    | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Module
)  # fmt: skip
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _bound_names(scope: ast.AST) -> list[str]:
    """Names that a scope binds itself, in the order of the text; those of the scopes inside it are theirs."""
    bound: dict[str, None] = {}
    outer: set[str] = set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.ClassDef(name=name):
                    bound[name] = None
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    bound[name] = None
                case ast.ExceptHandler(name=str(name)):
                    bound[name] = None
                case ast.Global(names=names) | ast.Nonlocal(names=names):
                    outer.update(names)
            if not isinstance(child, _Scope):
                walk(child)

    walk(scope)
    return [name for name in bound if name not in outer]


class _Normalise(ast.NodeTransformer):
    """Renames what a program binds to v0, v1, … in order of binding, and drops what does not run."""

    def __init__(self):
        self.scopes: list[dict[str, str]] = []
        self.count = 0

    def renamed(self, name: str) -> str:
        return next((scope[name] for scope in reversed(self.scopes) if name in scope), name)

    def visit(self, node: ast.AST) -> ast.AST | None:
        if isinstance(node, _Definition):
            node.name, node.returns = self.renamed(node.name), None
        if isinstance(node, _Definition | ast.Module) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        if not isinstance(node, _Scope):
            return super().visit(node)
        names = _bound_names(node)
        self.scopes.append({name: f"v{self.count + i}" for i, name in enumerate(names)})
        self.count += len(names)
        self.generic_visit(node)
        self.scopes.pop()
        return node

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.renamed(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self.renamed(node.arg))

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.ExceptHandler:
        node.name = node.name and self.renamed(node.name)
        return self.generic_visit(node)

    def visit_Global(self, node: ast.Global | ast.Nonlocal) -> ast.Global | ast.Nonlocal:
        node.names = [self.renamed(name) for name in node.names]
        return node

    visit_Nonlocal = visit_Global

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        return self.generic_visit(ast.Assign([node.target], node.value)) if node.value else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        return None if node.module == "typing" else node


def normalised_tree(program: str) -> ast.Module | None:
    """The syntax tree of `program` without its own names, annotations and docstrings; None if not Python.

    Attributes, constants and names from outside (`len`) are kept: `x + 1` is not `x + 2`. Equal trees run
    alike, but for what hangs on names (recursion limits, tracebacks, keyword arguments).
    """
    try:
        return _Normalise().visit(ast.parse(program))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def shingles(text: str) -> np.ndarray:
    """The distinct token shingles of `text` as sorted 32-bit hashes (n,): words and signs, no white space.

    A text shorter than a shingle is padded to one. Tokens are hashed by CRC-32, windows by multiply-shift.
    """
    tokens = [zlib.crc32(token.encode()) for token in re.findall(r"\w+|[^\w\s]", text)]
    tokens += [0] * (SHINGLE - len(tokens))
    windows = np.lib.stride_tricks.sliding_window_view(np.array(tokens, dtype=np.uint64), SHINGLE)
    return np.unique((windows * _MULTIPLIERS).sum(axis=1, dtype=np.uint64) >> np.uint64(32))


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """|a ∩ b| / |a ∪ b| of two arrays of distinct values."""
    shared = np.intersect1d(a, b, assume_unique=True).size
    return shared / (a.size + b.size - shared)


@dataclass(frozen=True)
class Duplicate:
    """Why a record was removed: `of` is the key of the one kept, `score` the similarity (1.0 for trees)."""

    of: str
    rule: str
    score: float

    @property
    def reason(self) -> str:
        return f"near-duplicate of {self.of[:12]} by {self.rule} ({self.score:.2f})"


class DuplicateIndex:
    """The records kept so far: `add` answers with the `Duplicate` a record is, or keeps it and answers None.

    Time and memory grow in step with the records kept: about 1.5 kB and a few hundred microseconds each.
    """

    def __init__(self, threshold: float = THRESHOLD):
        from datasketch import MinHash, MinHashLSH

        self.threshold = threshold
        self._empty = MinHash(BANDS * ROWS, hashfunc=int)
        self._lsh = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
        self._trees: dict[bytes, str] = {}
        self._shingles: dict[str, np.ndarray] = {}

    def add(self, record: Record) -> Duplicate | None:
        key, tree = record.key, None
        if isinstance(record, Exercise) and (module := normalised_tree(record.solution)) is not None:
            tree = hashlib.sha256(ast.dump(module).encode()).digest()
            if tree in self._trees:
                return Duplicate(self._trees[tree], "syntax tree", 1.0)
        grams = shingles(training_text(record))
        sketch = self._empty.copy()
        sketch.update_batch(grams)
        scores = {other: jaccard(grams, self._shingles[other]) for other in self._lsh.query(sketch)}
        if scores and max(scores.values()) >= self.threshold:
            nearest = max(scores, key=lambda other: (scores[other], other))
            return Duplicate(nearest, "shingles", scores[nearest])
        self._lsh.insert(key, sketch)
        self._shingles[key] = grams
        if tree is not None:
            self._trees[tree] = key
        return None


def near_duplicates(
    records: Iterable[Record], threshold: float = THRESHOLD
) -> Iterator[tuple[Record, Duplicate | None]]:
    """Each record, in order, with the reason to remove it or None."""
    index = DuplicateIndex(threshold)
    for record in records:
        yield record, index.add(record)
