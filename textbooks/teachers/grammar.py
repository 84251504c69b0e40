"""The grammar as a teacher: deterministic in (seed, index, draw), free, and right by construction."""

import os
import signal
import threading
from collections.abc import Container, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import islice
from multiprocessing import connection, get_context, parent_process

from textbooks.audiences import audiences
from textbooks.grammar import exercise, page
from textbooks.grammar.compose import HoldOut, standard_hold_out
from textbooks.grammar.exercise import STRATA, Drawn, Order, covered_subtopics
from textbooks.records import Exercise
from textbooks.teachers import KINDS, Answer, Prompt, Record
from textbooks.topics import Draw, draw, leaves

MANY = 200  # prompts from which starting processes pays
CHUNK = 16


@cache
def _feasible(subtopics: tuple[str, str], hold_out: HoldOut) -> bool:
    return exercise.feasible(subtopics, hold_out)


class GrammarTeacher:
    """Nothing held out occurs in its answers; `hold_out` says what that is."""

    name = "grammar"
    subtopics = covered_subtopics()
    templates = dict.fromkeys(KINDS, "grammar")

    def __init__(self, hold_out: HoldOut | None = None, processes: int | None = None):
        self.hold_out = hold_out or standard_hold_out()
        self.processes = processes or os.cpu_count() or 1

    def accepts(self, draw: Draw) -> bool:
        """Whether the grammar can practise both topics in one function."""
        subtopics = Order(draw.topic, draw.other_topic, draw.audience).subtopics
        if draw.audience in self.hold_out.audiences or not set(subtopics) <= covered_subtopics():
            return False
        return _feasible(tuple(sorted(subtopics)), self.hold_out)

    def report(self) -> dict:
        return {"processes": self.processes}

    def answer(self, prompts: Sequence[Prompt], answered: Container[str], record: Record) -> None:
        todo = [prompt for prompt in prompts if prompt.key not in answered]
        work = partial(_answer, self.hold_out)
        if len(todo) < MANY or self.processes == 1:
            for prompt in todo:
                record([(prompt, work(prompt))])
            return
        with ProcessPoolExecutor(self.processes, get_context("spawn"), _live_with_parent) as pool:
            found = zip(todo, pool.map(work, todo, chunksize=CHUNK), strict=True)
            while chunk := list(islice(found, CHUNK)):
                record(chunk)


def _answer(hold_out: HoldOut, prompt: Prompt) -> Answer:
    """The answer in the form in which any teacher gives it: markdown with fenced Python."""
    order = Order(prompt.draw.topic, prompt.draw.other_topic, prompt.draw.audience)
    try:
        if prompt.kind == "section":
            made = page.draw(prompt.seed, prompt.index, order, hold_out)
            return Answer(made.text, spec=made.spec)
        drawn = Drawn.draw(prompt.seed, prompt.index, order, "same", hold_out)
    except ValueError as error:
        return Answer(str(error))  # found again when the answer is parsed, and removed with this reason
    tests = "\n".join(drawn.tests)
    return Answer(f"```python\n{drawn.solution}\n\n\n{tests}\n```", spec=drawn.spec)


def examination(
    stratum: str, count: int, seed: int, seen: Container[str] = frozenset(), hold_out: HoldOut | None = None
) -> list[Exercise]:
    """`count` problems of one stratum (see `Drawn.draw`), no two of which behave alike and none of which behaves like
    one of `seen`: the `spec["behaviour"]` of the training exercises. Raises ValueError for an unknown stratum."""
    if stratum not in STRATA:
        raise ValueError(f"there is no stratum {stratum!r}: choose one of {', '.join(STRATA)}")
    hold_out = hold_out or standard_hold_out()
    roles = [a.role for a in audiences() if (a.role in hold_out.audiences) == (stratum == "wording")]
    topics = [leaf for leaf in leaves() if leaf.rsplit("/", 1)[0] in covered_subtopics()]
    found: dict[str, Exercise] = {}
    for index, made in enumerate(draw(seed, topics, roles)):
        if len(found) == count:
            break
        try:
            order = Order(made.topic, made.other_topic, made.audience)
            drawn = Drawn.draw(seed, index, order, stratum, hold_out, attempts=12)
        except ValueError:
            continue
        if drawn.spec["behaviour"] not in seen:
            exercise = Exercise(
                drawn.entry_point, drawn.prompt, drawn.solution, drawn.tests, made.topic, made.other_topic,
                made.audience, "grammar", f"examination {stratum}, seed {seed}, index {index}", seed, drawn.spec,
            )  # fmt: skip
            found.setdefault(drawn.spec["behaviour"], exercise)
    return list(found.values())


def _live_with_parent() -> None:
    """In a child: leave Ctrl-C to the parent, and end when the parent does, even if it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        connection.wait([parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
