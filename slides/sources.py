"""What a template may take from the project: code by syntax tree, figures from recorded runs, pictures by name.

Everything here only reads. What is not there raises `Missing` (a step or a run that does not exist yet) or
`SourceError` (a name that is wrong), each with one sentence that says what to do.
"""

import ast
import difflib
import functools
import io
import json
import math
import subprocess
import sys
import tokenize
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

from common.records import ARTIFACTS
from common.terminal import count, duration
from steps import numbers
from steps.story import Story, read

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "slides" / "pictures"
COLUMNS, LINES = 76, 16  # of code, at most, on a slide


class SourceError(ValueError):
    """A template asks for something that its source does not hold."""


class Missing(SourceError):
    """A template asks for a step, a recorded run or a picture that does not exist (yet)."""


class Record(dict):
    """A JSON object whose keys are attributes too, and which names the file when a key is wrong."""

    def __init__(self, file: str, pairs: dict[str, Any]):
        super().__init__(pairs)
        self._file = file

    def __missing__(self, key: str) -> Any:
        raise SourceError(f"{self._file} has no {key!r} here: choose one of {', '.join(map(str, self))}.")

    def __getattribute__(self, name: str) -> Any:  # a key such as "items" comes before the method of that name
        return self[name] if not name.startswith("_") and name in self else super().__getattribute__(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying and pickling ask for names that nobody has
            raise AttributeError(name)
        return self[name]


def load_json(file: Path) -> Record:
    """A JSON file of the project as a `Record`, all the way down."""
    name = file.relative_to(ROOT).as_posix()
    if not file.is_file():
        raise Missing(f"{name} does not exist: record that run first.")
    return json.loads(file.read_text(encoding="utf-8"), object_hook=lambda pairs: Record(name, pairs))


@functools.cache
def run(name: str) -> Record:
    """A recorded run: `run("07_full_gpt").val_loss`, `run("08_textbook_synthesis/local")`, `run("tests/report")`."""
    folder = ARTIFACTS / name
    return load_json(folder / "run.json" if folder.is_dir() or "/" not in name else folder.with_suffix(".json"))


def story(number: int) -> Story:
    """What a step says about itself: number, name, title, idea, new, shapes, file."""
    if number not in numbers():
        raise Missing(f"There is no step {number} in steps/: write it first.")
    return read(number)


# Code


def source_file(name: str) -> Path:
    """The file behind "05_multihead" (a step), or behind a path such as "textbooks/verify"."""
    file = ROOT / ("" if "/" in name else "steps") / f"{name}.py"
    if not file.is_file():
        raise Missing(f"{file.relative_to(ROOT).as_posix()} does not exist: name a step or a module of the project.")
    return file


def find(step: str, name: str) -> ast.stmt:
    """The class, function, method or assignment called `name` ("Head", "Head.forward", "RECIPE") in a file."""
    scope: Any = ast.parse(source_file(step).read_text(encoding="utf-8"))
    for part in name.split("."):
        named = {key: node for node in scope.body for key in _names(node)}
        if part not in named:
            raise SourceError(f"{step} has no {name!r}: at {part!r}, choose one of {', '.join(named)}.")
        scope = named[part]
    return scope


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def snippet(step: str, name: str, doc: bool = True, comments: bool = True) -> str:
    """The source of `name` as it stands in the file, dedented; without docstrings or comments where asked.

    A method comes without its class: `snippet("05_multihead", "MultiHead.forward")`.
    """
    node = find(step, name)
    lines: list[str | None] = list(source_file(step).read_text(encoding="utf-8").splitlines())
    if not comments:
        lines = list(_without_comments("\n".join(lines)).splitlines())
    if not doc:
        for inner in ast.walk(node):
            if isinstance(inner, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(inner) is not None:
                end = inner.body[0].end_lineno
                after = end + 1 if end < len(lines) and not (lines[end] or "").strip() else end
                lines[inner.body[0].lineno - 1 : after] = [None] * (after - inner.body[0].lineno + 1)
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return dedent("\n".join(line for line in lines[first - 1 : node.end_lineno] if line is not None)).strip("\n")


def _without_comments(text: str) -> str:
    """The text without comments; a line that was nothing else is gone from sight but keeps its number."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    return "\n".join(lines)


def fit(step: str, names: Sequence[str]) -> str:
    """Several pieces of a file's code for a slide: no docstrings or comments, laid out anew where a line is too long.

    Raises SourceError where they are more than COLUMNS × LINES all the same.
    """
    code = "\n\n".join(snippet(step, name, doc=False, comments=False) for name in names)
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", str(COLUMNS), "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=True)
    laid_out = done.stdout.replace("\n\n\n", "\n\n").strip("\n")
    rows = laid_out.split("\n")
    if len(rows) > LINES or max(map(len, rows)) > COLUMNS:
        what = f"{', '.join(names)} of {step}"
        raise SourceError(f"{what} is more than {COLUMNS} columns × {LINES} lines on a slide: show less of it.")
    return laid_out


def _model_lines(number: int) -> list[str]:
    """The lines of a step that are the model: no docstrings, comments or blank lines, no recipe and no main."""
    name = story(number).name
    nodes = ast.parse(source_file(name).read_text(encoding="utf-8")).body
    kept = [node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    code = "\n".join(snippet(name, each, doc=False, comments=False) for each in kept)
    return [line for line in code.splitlines() if line.strip()]


def diff(before: int, after: int) -> str:
    """The model lines that are new in one step against another, in their order and with their indentation."""
    changes = difflib.ndiff(_model_lines(before), _model_lines(after))
    return "\n".join(line[2:] for line in changes if line.startswith("+ "))


def shapes(step: str, name: str) -> str:
    """What flows through a function, from its annotations: "x (B, T, C) → q (B, T, D) → scores (B, T, T)".

    Arguments that may be left out, such as targets, are left out.
    """
    node = find(step, name)
    if not isinstance(node, ast.FunctionDef):
        raise SourceError(f"{name!r} in {step} is not a function: shapes are read from a function's annotations.")
    needed = node.args.args[: len(node.args.args) - len(node.args.defaults)]
    typed = [(argument.arg, argument.annotation) for argument in needed]
    typed += [(inner.target.id, inner.annotation) for inner in ast.walk(node) if isinstance(inner, ast.AnnAssign)]
    flow = [f"{what} ({shape})" for what, annotation in typed if (shape := _shape(annotation))]
    last = _shape(node.returns)
    if last and (len(flow) < 2 or not flow[-1].endswith(f"({last})")):
        flow.append(f"({last})")
    if not flow:
        raise SourceError(f"{name!r} in {step} has no shapes in its annotations: name another function.")
    return " → ".join(flow)


def _shape(annotation: ast.expr | None) -> str:
    """The first shape in an annotation such as Float[Tensor, "B T C"], as "B, T, C"; empty if there is none."""
    for node in ast.walk(annotation) if annotation else ():
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
            text = node.slice.elts[-1]
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                return ", ".join(text.value.split())
    return ""


# Pictures


def picture(name: str, alt: str, size: str = "") -> str:
    """A picture of artifacts/ or slides/pictures/ as Markdown, seen from a folder such as slides/ or article/.

    `alt` says what is to be seen in it; `size` is Marp's, such as "h:420".
    """
    if not alt.strip():
        raise SourceError(f"The picture {name!r} needs a text that says what is to be seen in it.")
    for folder in (PICTURES, ARTIFACTS):
        if (folder / name).is_file():
            place = f"../{(folder / name).relative_to(ROOT).as_posix()}"
            return f"![{alt} {size}]({place})" if size else f"![{alt}]({place})"
    raise Missing(f"The picture {name!r} is neither in slides/pictures/ nor in artifacts/: draw or record it first.")


def screen(name: str, alt: str, size: str = "") -> str:
    """A recorded terminal screen, an SVG, as `picture` gives it."""
    if not name.endswith(".svg"):
        raise SourceError(f"{name!r} is not a terminal screen: name an .svg of artifacts/.")
    return picture(name, alt, size)


# Figures


def n(value: float, decimals: int = 2) -> str:
    """1.5264 → "1.53"."""
    return f"{value:.{decimals}f}"


def pct(value: float, decimals: int = 0) -> str:
    """0.1234 → "12 %"."""
    return f"{100 * value:.{decimals}f} %"


def points(value: float, decimals: int = 1) -> str:
    """A difference of rates: 0.1234 → "+12.3 points"."""
    return f"{100 * value:+.{decimals}f} points".replace("-", "−")


def big(value: float) -> str:
    """1190317 → "1,190,317"."""
    return f"{round(value):,}"


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "snippet": snippet,
    "diff": diff,
    "fit": fit,
    "shapes": shapes,
    "run": run,
    "story": story,
    "picture": picture,
    "screen": screen,
}
FILTERS: dict[str, Callable[..., Any]] = {
    "n": n,
    "pct": pct,
    "points": points,
    "big": big,
    "count": count,
    "duration": duration,
    "ln": math.log,
}
