"""Teachers: prompts in, answers out, usage counted. Grammar, a small local model, or any endpoint."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Protocol, runtime_checkable

from textbooks.records import digest
from textbooks.topics import Draw

KINDS = ("exercise", "section")
FULL = {"exercise": "exercise", "section": "section"}
SHORT = {"exercise": "exercise_short", "section": "section_short"}  # for models that lose their way in a long prompt


class TeacherStopped(Exception):
    """The teacher cannot go on; the message is one sentence that says what to do. What was answered is kept."""


@dataclass(frozen=True)
class Prompt:
    """One request. `text` is exactly what the teacher is given."""

    index: int
    kind: str
    draw: Draw
    seed: int
    text: str

    @property
    def key(self) -> str:
        return digest("prompt", asdict(self))


@dataclass(frozen=True)
class Answer:
    """One raw answer. Tokens are those the teacher counted (0 for the grammar); `spec` is what a generator knows
    about its own text."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    spec: Mapping = field(default_factory=dict, hash=False)


Answered = tuple[Prompt, Answer]
Record = Callable[[Sequence[Answered]], None]


@runtime_checkable
class Teacher(Protocol):
    """`answer` asks the prompts whose keys are not among `answered`. It calls `record` as soon as answers are there,
    from any thread, and leaves out the prompts that failed, so that the next run asks them again."""

    name: str
    templates: Mapping[str, str]  # kind -> the prompt file it is asked with

    def accepts(self, draw: Draw) -> bool: ...

    def report(self) -> dict: ...  # what it spent, in this process or in all

    def answer(self, prompts: Sequence[Prompt], answered: Container[str], record: Record) -> None: ...


def template(name: str) -> str:
    """The text of textbooks/prompts/NAME.md."""
    return resources.files("textbooks").joinpath(f"prompts/{name}.md").read_text(encoding="utf-8")


def said(leaf: str) -> str:
    """A leaf of the topic tree in words: "Lists, filtering a list: keep the even numbers"."""
    topic, subtopic, skill = leaf.split("/", 2)
    return f"{topic}, {subtopic[:1].lower()}{subtopic[1:]}: {skill}"


def make_prompt(name: str, index: int, kind: str, draw: Draw, seed: int) -> Prompt:
    """The prompt for a draw, from the template called `name`."""
    slots = {"topic": said(draw.topic), "other_topic": said(draw.other_topic), "audience": draw.audience}
    slots |= {"kind": kind, "seed": str(seed), "index": str(index)}
    text = template(name)
    for slot, value in slots.items():
        text = text.replace("{" + slot + "}", value)
    return Prompt(index, kind, draw, seed, text.strip())
