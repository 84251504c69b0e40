"""The deck's slides as pages for a terminal, read from slides/deck.md."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.markdown import Markdown
from rich.segment import Segment
from rich.syntax import Syntax
from rich.text import Text

from steps.sketches import sketch

Lines = list[list[Segment]]


@dataclass(frozen=True)
class Page:
    """One slide."""

    title: str
    step: int | None  # None on the title and on the closing page
    body: str  # Markdown
    notes: str
    seconds: int  # planned for it


BREAK = re.compile(r"^---$", re.MULTILINE)
NOTES = re.compile(r"<!--\s*\[(\d+):(\d\d)\]\s*(.*?)\s*-->", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
HEADING = re.compile(r"^#+ (?:\*(\d\d)\* )?(.*)$", re.MULTILINE)
CODE = r"^```python[^\n]*\n(?P<code>.*?)\n```$"
PICTURE = r"^!\[(?P<says>[^\]]*?)(?: (?:bg|left|right|fit|[wh]:)\S*)*\]\((?P<picture>.*?)\)$"  # without its size
PARAGRAPH = re.compile(r"\s*\n\s*\n\s*|^\s+|\s+$")
BLOCK = re.compile(f"{CODE}|{PICTURE}", re.DOTALL | re.MULTILINE)


def pages_of(deck: str) -> list[Page]:
    """The slides of a Marp deck, in order. Notes begin with their time, as in <!-- [0:20] What to say. -->

    Raises ValueError for a slide that lacks a heading or notes.
    """
    _, _front_matter, *slides = BREAK.split(deck)
    return [_page(slide) for slide in slides]


def _page(slide: str) -> Page:
    heading, told = HEADING.search(slide), NOTES.search(slide)
    if not heading or not told:
        raise ValueError(
            f"give every slide a heading and notes with their time; this one lacks them: {slide.strip()!r}"
        )
    minutes, seconds, notes = told.groups()
    step, title = heading.groups()
    body = COMMENT.sub("", HEADING.sub("", slide, count=1))
    return Page(title, int(step) if step else None, body, notes, 60 * int(minutes) + int(seconds))


def blocks(page: Page, width: int) -> Iterator[RenderableType]:
    """The parts of a page, in order: paragraphs and lists, code, pictures."""
    done = 0
    for found in BLOCK.finditer(page.body):
        yield from _prose(page.body[done : found.start()])
        done = found.end()
        if found["code"] is not None:
            yield Syntax(found["code"], "python", theme="ansi_dark", background_color="default", word_wrap=True)
        else:
            yield Group(sketch(found["picture"], page.step, width) or "", Text(f"\n{found['says']}", style="dim"))
    yield from _prose(page.body[done:])


def _prose(text: str) -> Iterator[Markdown]:
    return (Markdown(part, style="none" if part.startswith("- ") else "bold") for part in PARAGRAPH.split(text) if part)


def split(parts_of_page: Sequence[Lines], room: int) -> list[Lines]:
    """Blocks of lines as screens of at most `room` lines: broken between blocks, inside one only where it must be."""
    screens: list[Lines] = [[]]
    for lines in parts_of_page:
        if screens[-1] and len(screens[-1]) + 1 + len(lines) <= room:
            screens[-1].append([])
        elif screens[-1]:
            screens.append([])
        screens[-1] += lines
        while len(screens[-1]) > room:
            screens[-1:] = [screens[-1][:room], screens[-1][room:]]
    return screens
