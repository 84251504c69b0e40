"""Where each step is told: its slides, its section of the article, its cell of a notebook, its tests."""

import json
import re
from functools import cache
from pathlib import Path

from slides.build import ARTICLE
from slides.deck import slides
from slides.sources import ROOT
from steps import numbers
from steps.story import Story, read

NOTHING = "–"


def table() -> str:
    """The README's table, in Markdown; what does not exist yet is a dash."""
    rows = ["| step | slides | article | notebook | tests |", "|---|---|---|---|---|"]
    for story in map(read, numbers()):
        step = _link(f"`{story.name}`", ROOT / "steps" / story.file.name)
        tests = _link("tests", ROOT / "tests" / "steps" / f"test_{story.name}.py")
        rows.append(f"| {step} | {deck_pages(story)} | {article_section(story)} | {notebook_cell(story)} | {tests} |")
    return "\n".join(rows)


def deck_pages(story: Story) -> str:
    """The first and the last slide of a step."""
    pages = [page for page, slide in enumerate(slides(), 1) if slide.step == story.number]
    return _link("–".join(map(str, pages)), ROOT / "slides" / "deck.pdf") if pages else NOTHING


def article_section(story: Story) -> str:
    """The section whose heading begins with the step's number, and its anchor as GitHub makes it."""
    text = ARTICLE.read_text(encoding="utf-8") if ARTICLE.exists() else ""
    heading = re.search(rf"^## ({story.number:02d} · .*)$", text, flags=re.MULTILINE)
    if not heading:
        return NOTHING
    anchor = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
    return _link(heading[1], ARTICLE, f"#{anchor}")


def notebook_cell(story: Story) -> str:
    """The cell, counted from one, with which a notebook's section on the step begins."""
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for place, source in enumerate(_cells(file), 1):
            if re.search(rf"^#+ {story.number:02d} · ", source, flags=re.MULTILINE):
                return _link(f"{file.stem}, cell {place}", file)
    return NOTHING


@cache
def _cells(file: Path) -> list[str]:
    """The sources of a notebook's cells; those that are not text are empty."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) if cell["cell_type"] == "markdown" else "" for cell in cells]


def _link(text: str, file: Path, anchor: str = "") -> str:
    return f"[{text}]({file.relative_to(ROOT).as_posix()}{anchor})" if file.exists() else NOTHING
