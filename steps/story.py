"""What a step says about itself, read from its file without running it."""

import ast
from dataclasses import dataclass
from pathlib import Path

from steps import numbers, path


@dataclass(frozen=True)
class Story:
    """The docstring of a step, taken apart."""

    number: int
    title: str  # "Multi-head attention"
    idea: str
    new: str
    shapes: str
    file: Path

    @property
    def name(self) -> str:
        """As in `python -m steps.05_multihead`."""
        return self.file.stem


def read(number: int) -> Story:
    """The story of one step."""
    file = path(number)
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    first, *paragraphs = [" ".join(part.split()) for part in docstring.split("\n\n")]
    parts = {key: next((p for p in paragraphs if p.startswith(key)), "") for key in ("New: ", "Shapes: ")}
    idea = " ".join(p for p in paragraphs if p not in parts.values())
    new, shapes = (text.removeprefix(key) for key, text in parts.items())
    return Story(number, first.split(" · ", 1)[-1], idea, new, shapes, file)


def following(number: int) -> Story | None:
    """The story of the step after this one."""
    return read(number + 1) if number + 1 in numbers() else None
