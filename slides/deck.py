"""The deck as data: what stands in slides/deck.md, slide by slide. PPTX, presenter mode and tests read it from here."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slides.sources import ROOT, SourceError

DECK = ROOT / "slides" / "deck.md"
TIME = re.compile(r"\[(\d+):(\d\d)\]\s*")


@dataclass(frozen=True)
class Slide:
    """One slide. Texts are Markdown with nothing in them but *emphasis*, **strong** and `code`."""

    kind: str  # title, idea, code or close: how it is laid out
    title: str  # "*05* Multi-head attention"
    lead: str  # the paragraph below the title, or ""
    code: str  # the fence, or ""
    source: tuple[str, ...]  # where the code is from: ("05_multihead", "MultiHead")
    pictures: tuple[tuple[Path, str], ...]  # file and what is to be seen in it
    points: tuple[str, ...]  # the list's items
    notes: str  # what the presenter says
    seconds: int  # in how long

    @property
    def step(self) -> int | None:
        """The step that the slide belongs to; None for the first and the last."""
        number = re.match(r"\*(\d\d)\* ", self.title)
        return int(number[1]) if number else None


def slides(text: str | None = None) -> list[Slide]:
    """The slides of a deck's Markdown, the committed one if none is given. SourceError names a slide without a time."""
    from markdown_it import MarkdownIt

    text = DECK.read_text(encoding="utf-8") if text is None else text
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    pages: list[list[Any]] = [[]]
    for token in MarkdownIt().parse(body):
        if token.type == "hr":
            pages.append([])
        else:
            pages[-1].append(token)
    return [_slide(tokens) for tokens in pages]


def _slide(tokens: list[Any]) -> Slide:
    title, lead, code, source, pictures, points, notes, kind = "", "", "", (), [], [], "", ""
    inside = ""
    for token in tokens:
        if token.type in ("heading_open", "paragraph_open") and inside != "list":
            inside = token.type.removesuffix("_open")
        elif token.type in ("bullet_list_open", "bullet_list_close"):
            inside = "list" if token.type.endswith("open") else ""
        elif token.type == "fence":
            code, source = token.content.rstrip("\n"), tuple(token.info.split()[1:])
        elif token.type == "html_block":
            comment = token.content.strip().removeprefix("<!--").removesuffix("-->").strip()
            kind = comment.split()[1] if comment.startswith("_class:") else kind
            notes = comment if not comment.startswith("_") else notes
        elif token.type == "inline":
            images = [child for child in token.children if child.type == "image"]
            pictures += [((DECK.parent / image.attrs["src"]).resolve(), _alt(image.content)) for image in images]
            if inside == "heading":
                title = token.content
            elif inside == "list":
                points.append(token.content)
            elif not images:
                lead = token.content
    time = TIME.match(notes)
    if not time:
        raise SourceError(f"The slide {title!r} has no note with a time: begin its note with one such as [0:20].")
    seconds = 60 * int(time[1]) + int(time[2])
    return Slide(kind, title, lead, code, source, tuple(pictures), tuple(points), notes[time.end() :], seconds)


def _alt(text: str) -> str:
    """An image's text without Marp's words for size and place."""
    return re.sub(r"\b(bg|fit|contain|cover|left(:\d+%)?|right(:\d+%)?|[wh]:\d+(px)?)(?=\s|$)", "", text).strip()


def minutes(seconds: int) -> str:
    """75 → "1:15"."""
    return f"{seconds // 60}:{seconds % 60:02d}"
