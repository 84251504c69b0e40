"""The raw corpus: the source of Python's own standard library, cut into function-sized chunks.

phi-1 filters a web crawl (arXiv 2306.11644, section 2.1). Every machine with Python already holds a smaller
raw corpus, written by many hands over thirty years, good and bad. It differs from one Python to the next, so
what was read is frozen by a manifest: one `sha256  path` line a file, itself hashed.
"""

import ast
import hashlib
import re
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Not library code that a person wrote to be read: tests, third-party packages, generated tables and parsers,
# build configuration. `encodings` is three quarters generated code pages.
SKIPPED_FOLDERS = {"test", "tests", "idle_test", "testmock", "site-packages", "encodings", "pgen2"}
SKIPPED_FILES = re.compile(r"(__main__|_sysconfigdata.*|python-config|__phello__.*|.*_?tests?|test_.*)\.py")
GENERATED = re.compile(r"auto(matically)?[- ]generated|was generated (by|from)|do not edit", re.IGNORECASE)
HEADER = 600  # characters in which a generated file says that it is one

MIN_LINES, MAX_LINES = 4, 60  # a getter teaches nothing; more than a screenful is not one idea
MAX_CHARACTERS = 2_400  # about 600 tokens: fits the context of a small model

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Chunk:
    """One function or method: `path` relative to the library, `name` qualified, `source` dedented."""

    path: str
    name: str
    source: str

    @property
    def key(self) -> str:
        """The sha256 of the source alone: the same function has the same key in any Python that holds it."""
        return hashlib.sha256(self.source.encode()).hexdigest()


def standard_library() -> Path:
    """Where the running Python keeps its library's source."""
    return Path(sysconfig.get_paths()["stdlib"])


def library_files(root: Path) -> Iterator[Path]:
    """The Python files under `root` that count as library code, in path order."""
    for path in sorted(root.rglob("*.py"), key=lambda path: path.relative_to(root).as_posix()):
        folders = path.relative_to(root).parts[:-1]
        if SKIPPED_FOLDERS.isdisjoint(folders) and not SKIPPED_FILES.fullmatch(path.name):
            yield path


def manifest(root: Path) -> str:
    """`sha256  path` of every file used, one a line, as `sha256sum --check` reads it."""
    lines = (
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(root).as_posix()}\n"
        for path in library_files(root)
    )
    return "".join(lines)


def manifest_hash(root: Path) -> str:
    """One sha256 that stands for the whole raw corpus; recorded with everything made from it."""
    return hashlib.sha256(manifest(root).encode()).hexdigest()


def functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Every function of a module and method of its classes with its qualified name, in order of lines.

    A function inside a function stays part of it; code at the top of the module (tables, a `__main__` block)
    is left out.
    """

    def walk(body: Iterable[ast.stmt], prefix: str) -> Iterator[tuple[str, Function]]:
        for node in body:
            if isinstance(node, Function):
                yield prefix + node.name, node
            elif isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.If | ast.Try):  # definitions chosen by platform or version
                yield from walk([*node.body, *node.orelse], prefix)

    return walk(tree.body, "")


def cut(text: str, path: str) -> Iterator[Chunk]:
    """The function-sized chunks of one file; nothing from a generated file or one that does not parse."""
    if GENERATED.search(text[:HEADER]):
        return
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # lib2to3 keeps some Python 2
        return
    lines = text.split("\n")
    for name, node in functions(tree):
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        body = lines[first - 1 : node.end_lineno]
        margin = body[0][: len(body[0]) - len(body[0].lstrip())]
        source = "\n".join(line.removeprefix(margin).rstrip() for line in body)
        if MIN_LINES <= len(body) <= MAX_LINES and len(source) <= MAX_CHARACTERS:
            yield Chunk(path, name, source)


def chunks(root: Path) -> list[Chunk]:
    """All chunks under `root`, in order of path and line, each source once (the first place it appears)."""
    unique: dict[str, Chunk] = {}
    for path in library_files(root):
        with tokenize.open(path) as file:  # honours a coding cookie
            text = file.read()
        for chunk in cut(text, path.relative_to(root).as_posix()):
            unique.setdefault(chunk.key, chunk)
    return list(unique.values())


def sample(chunks: Iterable[Chunk], n: int, seed: int) -> list[Chunk]:
    """`n` chunks drawn by the hash of `(seed, key)`: most stay the same when the corpus changes a little."""
    return sorted(chunks, key=lambda chunk: hashlib.sha256(f"{seed} {chunk.key}".encode()).digest())[:n]
