"""The two notebooks, made from templates in Markdown: each fence of Python is a cell, and so is the text between them.

A notebook must run where this project is not installed. So a template takes code from the project in two ways, both by
name: `step(5)` lays a step file out cell by cell, and `files(...)` folds whole modules into a cell that writes them
beside the notebook. Nothing of either is typed in a template.

A fence says what becomes of it:

    ```python                       a cell
    ```python fold TITLE            a cell shown as its title: in Colab a form, in Jupyter a hidden source
    ```python from STEP NAME        a cell that is STEP's NAME, as `slides.sources.snippet` gives it; `fold` may follow
"""

import ast
import functools
import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

from slides.sources import FILTERS, ROOT, SourceError, find, run, shapes, snippet, source_file, story
from steps import numbers

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from steps.bugs import Bug

TEMPLATES = {
    "task_a_nanogpt": ROOT / "slides" / "notebook_a.md.j2",
    "task_b_textbooks": ROOT / "slides" / "notebook_b.md.j2",
}
PACKAGES = ("book_data", "common", "steps", "textbooks")
LINE = 120  # characters, from which a linter asks to be told that a line is meant to be so long
HEADING = re.compile(r"\n+(?=#{1,6} )")  # a heading begins a cell, so that Colab can fold its section
FENCE = re.compile(r"^(?P<ticks>`{3,})python(?P<about>[^\n]*)\n(?P<code>.*?)\n(?P=ticks)$", re.MULTILINE | re.DOTALL)
ABOUT = re.compile(r"(?: from (?P<step>\S+) (?P<name>\S+))?(?: fold (?P<title>.+))?")


def build() -> dict[str, "NotebookNode"]:
    """Name → notebook, without outputs; the same sources give the same bytes. Raises SourceError."""
    return {name: notebook(name, render(template)) for name, template in TEMPLATES.items()}


def render(template: Path) -> str:
    """The template's Markdown, strict about names."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

    environment = Environment(loader=FileSystemLoader(template.parent), undefined=StrictUndefined, trim_blocks=True)
    environment.globals |= {"step": step, "code": code, "files": files, "imports": imports, "heading": heading}
    environment.globals |= {"planted": planted, "bug": bug, "story": story, "run": run, "books": _books()}
    environment.globals |= {"last": max(number for number in numbers() if number <= 7)}
    environment.filters |= FILTERS
    try:
        return environment.get_template(template.name).render()
    except TemplateError as error:
        raise SourceError(f"{template.name}, line {getattr(error, 'lineno', '?')}: {error.message}.") from None


def notebook(name: str, text: str) -> "NotebookNode":
    """The cells of a rendered template; a cell's id is its place."""
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    cells, end = [], 0
    for fence in [*FENCE.finditer(text), None]:
        prose = text[end : fence.start() if fence else len(text)].strip()
        cells += [new_markdown_cell(part) for part in HEADING.split(prose) if part]
        if fence:
            end = fence.end()
            cells.append(new_code_cell(**_code_cell(fence)))
    for place, cell in enumerate(cells):
        cell["id"] = f"{name.split('_')[1]}-{place:03d}"
    return new_notebook(
        cells=cells,
        metadata={
            "accelerator": "GPU",
            "colab": {"gpuType": "T4", "provenance": [], "toc_visible": True},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
    )


def _code_cell(fence: re.Match) -> dict:
    about = ABOUT.fullmatch(fence["about"].rstrip())
    if about is None:
        raise SourceError(f"A fence cannot say {fence['about']!r}: write `from STEP NAME`, `fold TITLE` or nothing.")
    source, metadata = fence["code"], {}
    if about["step"]:
        metadata["source"] = {"file": source_file(about["step"]).relative_to(ROOT).as_posix(), "name": about["name"]}
    if about["title"]:
        source = f'#@title {about["title"]} {{ display-mode: "form" }}\n{source}'
        metadata |= {"cellView": "form", "jupyter": {"source_hidden": True}}
    return {"source": source, "metadata": metadata}


def _fence(source: str, about: str = "") -> str:
    ticks = "`" * max(3, 1 + max(map(len, re.findall(r"^`+", source, re.MULTILINE)), default=0))
    return f"{ticks}python{about and ' '}{about}\n{source}\n{ticks}"


# ---------------------------------------------------------------- what a template may ask for


def code(step: str, name: str, fold: str = "") -> str:
    """A cell that is the class, function or assignment `name` of a step or module, behind a title if `fold` is one."""
    return _fence(snippet(step, name), f"from {step} {name}" + (f" fold {fold}" if fold else ""))


def heading(number: int) -> str:
    """The one section heading of a step, and what the step says of itself."""
    told = story(number)
    shapes = f"\n\n**Shapes.** {told.shapes}" if told.shapes else ""
    return f"## {number:02d} · {told.title}\n\n{told.idea}\n\n**New:** {told.new}{shapes}"


def step(number: int, fold: bool = False) -> str:
    """A step's classes, functions and recipe, a cell each; what the step before had word for word is folded away."""
    name, before = story(number).name, story(number - 1).name if number - 1 in numbers() else None
    cells = []
    for each in definitions(name):
        same = before and each in definitions(before) and snippet(before, each) == snippet(name, each)
        title = f"{each}, as in section {number - 1:02d}" if same else each if fold else ""
        cells += [flow(name, each)] * (not title) + [code(name, each, title)]
    return "\n\n".join(filter(None, cells))


def flow(step: str, name: str) -> str:
    """A line that says what flows through a class or function, from its annotations; empty if they say nothing."""
    function = f"{name}.forward" if isinstance(find(step, name), ast.ClassDef) else name
    with suppress(SourceError):
        return f"`{name}`: {shapes(step, function)}"
    return ""


def definitions(step: str) -> list[str]:
    """The names of a file's classes and functions and of its recipe, in order."""
    body = ast.parse(source_file(step).read_text(encoding="utf-8")).body
    names = [node.name for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return names + ["RECIPE"] * any(isinstance(n, ast.Assign) and n.targets[0].id == "RECIPE" for n in body)


def imports(*steps: str) -> str:
    """The import lines that the definitions of these files need: Python's own, other packages', this project's."""
    lines: set[str] = set()
    for name in steps:
        code = "\n".join(snippet(name, each) for each in definitions(name))
        used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
        for node in ast.parse(source_file(name).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                node.names = [alias for alias in node.names if (alias.asname or alias.name.split(".")[0]) in used]
                lines |= {ast.unparse(node)} if node.names else set()
    groups: list[list[str]] = [[], [], []]
    for line in sorted(lines, key=lambda line: (line.startswith("from"), line)):
        module = line.split()[1].split(".")[0]
        groups[0 if module in sys.stdlib_module_names else 2 if _is_ours(module) else 1].append(line)
    return "\n\n".join("\n".join(group) for group in groups if group)


def bug(name: str) -> "Bug":
    """One of the project's planted mistakes: mistake, symptom, hint."""
    from steps.bugs import find

    return find(name)


def planted(name: str, method: str) -> str:
    """The method ("Head.weights") of a step as it stands with one of the project's planted mistakes in it."""
    text = bug(name).planted()
    scope = ast.parse(text)
    for part in method.split("."):
        scope = next(node for node in scope.body if getattr(node, "name", "") == part)
    found = dedent("\n".join(text.splitlines()[scope.lineno - 1 : scope.end_lineno]))
    if found == snippet(name.split(".")[0], method):
        raise SourceError(f"The mistake {name} is not in {method}: name the method that it changes.")
    return found


def files(title: str, *roots: str, data: tuple[str, ...] = ()) -> str:
    """A folded cell that writes the modules (and all that they import of this project) and data files, unaltered."""
    paths = sorted({path for root in roots for path in closure(root)} | {ROOT / name for name in data})
    entries = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if "'''" in text:
            raise SourceError(f"{path.relative_to(ROOT)} holds three quotes in a row: write them as double ones.")
        entry = f"    \"{path.relative_to(ROOT).as_posix()}\": r'''{text}''',"
        wide = max(map(len, entry.splitlines())) > LINE
        entries.append(f"{entry}  # noqa: E501" if wide else entry)
    return _fence(
        "\n".join(
            [
                "# Generated: whole files of the project, unaltered, written into a folder beside this notebook.",
                "FILES = {",
                *entries,
                "}",
                "for name, text in FILES.items():",
                "    (HELPERS / name).parent.mkdir(parents=True, exist_ok=True)",
                '    (HELPERS / name).write_text(text, encoding="utf-8", newline="\\n")',
                'print(f"{len(FILES)} files written into {HELPERS}")',
            ]
        ),
        f"fold {title}",
    )


@functools.cache
def closure(module: str) -> frozenset[Path]:
    """The files of a module of this project, of its packages, and of every module that it imports anywhere."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        parts = waiting.pop().split(".")
        for depth in range(1, len(parts) + 1):
            base = ROOT.joinpath(*parts[:depth])
            file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
            if file.is_file() and file not in found:
                found.add(file)
                waiting += _imported(file)
    return frozenset(found)


def _imported(file: Path) -> list[str]:
    """The modules of this project that a file imports; `from a import b` may mean the module a.b."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if _is_ours(name)]


def _books() -> str:
    """The names of the catalog's books, as a form in Colab offers them."""
    from book_data import catalog

    return json.dumps(list(catalog()))


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in PACKAGES
