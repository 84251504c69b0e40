"""The topic tree (topics.txt): topic → subtopic → skill, and the drawing of prompts from it.

A leaf is written "Topic/Subtopic/skill". A prompt asks for one leaf, a second one to combine it with, and an
audience: topic × topic × audience, as in "Textbooks Are All You Need" (section 2), so that the teacher is pushed
away from the few exercises it would otherwise repeat.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

Tree = dict[str, dict[str, tuple[str, ...]]]


@cache
def tree() -> Tree:
    """Topic → subtopic → skills. Raises ValueError that names the line of topics.txt which cannot be read."""
    found: Tree = {}
    text = resources.files("textbooks").joinpath("topics.txt").read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if not line.startswith(" "):
            found[line.strip()] = {}
            continue
        subtopic, colon, skills = line.strip().partition(":")
        if not found or not colon:
            raise ValueError(f"topics.txt, line {number}: write '  Subtopic: skill; skill' below a topic")
        found[list(found)[-1]][subtopic] = tuple(skill.strip() for skill in skills.split(";"))
    return found


def leaves() -> tuple[str, ...]:
    """Every leaf of the tree, in the order of the file."""
    return tuple(
        f"{topic}/{subtopic}/{skill}"
        for topic, subtopics in tree().items()
        for subtopic, skills in subtopics.items()
        for skill in skills
    )


@dataclass(frozen=True)
class Draw:
    topic: str
    other_topic: str
    audience: str


def draw(
    seed: int,
    topics: Sequence[str],
    audiences: Sequence[str],
    accept: Callable[[Draw], bool] = lambda draw: True,
) -> Iterator[Draw]:
    """Endless draws without repeats. Every topic comes up once before any comes up again, likewise the audiences,
    so a short run already covers the tree; `accept` says which pairs a teacher can answer.

    Raises ValueError when a whole round of topics has brought nothing new."""
    rng = random.Random(f"draw:{seed}")
    seen: set[Draw] = set()
    people = _rounds(audiences, rng)
    while True:
        before = len(seen)
        for topic in rng.sample(topics, len(topics)):
            for _ in range(8):
                made = Draw(topic, rng.choice(topics), next(people))
                if made.other_topic != topic and made not in seen and accept(made):
                    seen.add(made)
                    yield made
                    break
        if len(seen) == before:
            raise ValueError("every combination of topics and audiences has been drawn: ask for fewer prompts")


def _rounds(items: Sequence[str], rng: random.Random) -> Iterator[str]:
    while True:
        yield from rng.sample(items, len(items))


def coverage(draws: Sequence[Draw]) -> dict[str, int]:
    """How much of the tree and of the audiences the draws reach."""
    used = {draw.topic for draw in draws} | {draw.other_topic for draw in draws}
    return {
        "leaves": len(leaves()),
        "leaves_used": len(used),
        "subtopics_used": len({leaf.rsplit("/", 1)[0] for leaf in used}),
        "topic_pairs": len({(draw.topic, draw.other_topic) for draw in draws}),
        "audiences_used": len({draw.audience for draw in draws}),
    }
