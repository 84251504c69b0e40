"""One exercise of the grammar teacher: a composition, worded, written in a style, with tests that were run.

Everything is a pure function of (seed, index, topics, audience, examination): the same call gives the same text
on every machine.
"""

import ast
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from textbooks.audiences import audience as audience_named
from textbooks.grammar import render, say
from textbooks.grammar.compose import (
    Composition,
    HoldOut,
    compatible_pairs,
    draw_composition,
    primitives,
    standard_hold_out,
)  # fmt: skip
from textbooks.grammar.inputs import Case, behaviour, draw_cases

STRATA = ("same", "pairs", "longer", "wording", "textbook")  # what an examination asks; see `Drawn.draw`
DEPTHS = (1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3)
SHOWN_BY_STYLE = {
    "Loops/For loops": ("loop", "continue"), "Loops/Skipping with continue": ("continue",),
    "Variables/Updating a variable": ("loop", "continue"), "Functions/Lambda expressions": ("functional",),
    "Functions/Map and filter": ("functional",), "Functions/Helper functions": ("helper",),
    "Functions/Returning early": ("early return",), "Conditionals/If statements": ("loop", "early return"),
    "Comprehensions/List comprehensions": ("comprehension", "nested", "helper"),
    "Comprehensions/Conditions in comprehensions": ("comprehension", "nested", "helper"),
    "Comprehensions/Generator expressions": ("comprehension", "nested", "helper"),
    "Booleans and comparisons/Combining conditions": ("comprehension", "nested", "loop"),
    "Functions/Parameters and arguments": render.STYLES, "Functions/Docstrings and examples": render.STYLES,
}  # fmt: skip


@dataclass(frozen=True)
class Order:
    """What is asked for: two leaves of the topic tree ("Topic/Subtopic/skill") and an audience's role."""

    topic: str
    other_topic: str
    audience: str

    @property
    def subtopics(self) -> tuple[str, str]:
        return tuple(leaf.rsplit("/", 1)[0] for leaf in (self.topic, self.other_topic))


@cache
def taught_by() -> dict[str, frozenset[str]]:
    """Subtopic -> the primitives that practise it."""
    found: dict[str, set[str]] = {}
    for primitive in primitives():
        for subtopic in primitive.teaches:
            found.setdefault(subtopic, set()).add(primitive.name)
    return {subtopic: frozenset(names) for subtopic, names in sorted(found.items())}


@cache
def covered_subtopics() -> frozenset[str]:
    """The subtopics the grammar can practise, by a primitive or by a code style."""
    return frozenset(taught_by()) | frozenset(SHOWN_BY_STYLE)


def subtopics_of(steps: Composition, code: str) -> set[str]:
    """What a program really practises: what its primitives teach, and what its syntax tree shows."""
    shown = {subtopic for step in steps for subtopic in step.primitive.teaches}
    tree = ast.parse(code)
    outer = tree.body[0]
    for node in ast.walk(tree):
        match node:
            case ast.For():
                shown.add("Loops/For loops")
                if any(isinstance(inner, ast.Return | ast.Break) for inner in ast.walk(node)):
                    shown.add("Loops/Leaving a loop early")
            case ast.While():
                shown.add("Loops/While loops")
            case ast.Continue():
                shown.add("Loops/Skipping with continue")
            case ast.AugAssign():
                shown.add("Variables/Updating a variable")
            case ast.If():
                shown.add("Conditionals/If statements")
                if node in outer.body and isinstance(node.body[0], ast.Return):
                    shown.add("Functions/Returning early")
            case ast.IfExp():
                shown.add("Conditionals/Conditional expressions")
            case ast.BoolOp(op=ast.And()):
                shown.add("Booleans and comparisons/Combining conditions")
            case ast.ListComp() | ast.DictComp() | ast.GeneratorExp():
                names = {ast.ListComp: "List comprehensions", ast.DictComp: "Dictionary comprehensions"}
                shown.add("Comprehensions/" + names.get(type(node), "Generator expressions"))
                if node.generators[0].ifs:
                    shown.add("Comprehensions/Conditions in comprehensions")
            case ast.Lambda():
                shown.add("Functions/Lambda expressions")
            case ast.Call(func=ast.Name(id="map" | "filter")):
                shown.add("Functions/Map and filter")
            case ast.FunctionDef() if node is not outer:
                shown.add("Functions/Helper functions")
    if len(outer.args.args) > 1:
        shown.add("Functions/Parameters and arguments")
    if ">>> " in (ast.get_docstring(outer) or ""):
        shown.add("Functions/Docstrings and examples")
    return shown


@dataclass(frozen=True)
class Drawn:
    """An exercise before it is a record."""

    entry_point: str
    prompt: str
    solution: str
    tests: tuple[str, ...]
    spec: dict
    steps: Composition
    cases: tuple[Case, ...]
    argument: str

    @classmethod
    def draw(
        cls, seed: int, index: int, order: Order, stratum: str = "same", hold_out: HoldOut | None = None,
        attempts: int = 200,
    ) -> "Drawn":
        """The exercise for this order. In training, and in the stratum "same", nothing held out occurs; the other
        strata each break one rule: unseen `pairs` of primitives, `longer` compositions (one step more than
        trained on), unseen `wording` (frames, wordings, names), and primitives only the `textbook` explains.

        Raises ValueError if no composition honours the order; ask `covered_subtopics` first."""
        hold_out = hold_out or standard_hold_out()
        for attempt in range(attempts):
            rng = random.Random(f"{seed}:{index}:{stratum}:{attempt}")
            drawn = _attempt(rng, order, stratum, hold_out, strict=attempt < 120)
            if drawn is not None:
                return drawn
        raise ValueError(f"the grammar has no exercise for {order}: draw another pair of topics")


def honours(order: Order, strict: bool, steps: Composition, code: str) -> bool:
    wanted = order.subtopics if strict else order.subtopics[:1]
    return set(wanted) <= subtopics_of(steps, code)


def _needs(rng: random.Random, order: Order, strict: bool) -> tuple[list[frozenset[str]], tuple[str, ...]]:
    """The primitives and the code style that the two subtopics (not `strict`: the first) ask for."""
    needed, styles = [], render.STYLES
    for subtopic in order.subtopics if strict else order.subtopics[:1]:
        by_primitive, by_style = taught_by().get(subtopic), SHOWN_BY_STYLE.get(subtopic)
        if by_style and (not by_primitive or rng.random() < 0.5):
            styles = tuple(style for style in styles if style in by_style) or by_style
        elif by_primitive:
            needed.append(by_primitive)
    return needed, styles


def _composition(rng: random.Random, needed, stratum: str, hold_out: HoldOut) -> Composition | None:
    everything = frozenset(p.name for p in primitives())
    allowed = everything - hold_out.textbook_only
    depths = [depth for depth in DEPTHS if depth <= hold_out.max_depth]
    if stratum == "longer":
        return draw_composition(rng, hold_out.max_depth + 1, needed, allowed, hold_out)
    if stratum == "textbook":
        return draw_composition(rng, rng.choice(depths), [*needed, hold_out.textbook_only], None, hold_out)
    if stratum == "pairs":
        open_ = HoldOut(frozenset(compatible_pairs()) - hold_out.pairs)
        steps = draw_composition(rng, 2, needed, allowed, open_)
        return steps if steps and not open_.forbids(steps) else None
    depth = rng.choice(depths)
    return draw_composition(rng, max(depth, min(len(needed), hold_out.max_depth)), needed, allowed, hold_out)


def _attempt(rng, order: Order, stratum: str, hold_out: HoldOut, strict: bool) -> Drawn | None:
    needed, styles = _needs(rng, order, strict)
    steps = _composition(rng, needed, stratum, hold_out)
    if steps is None:
        return None
    audience, unseen = audience_named(order.audience), stratum == "wording"
    argument = say.argument_name(steps[0].primitive.takes, audience, unseen, rng)
    name = say.function_name(steps, argument, unseen, rng)
    style = rng.choice(styles)
    if argument in [step.argument for step in steps]:
        return None
    body = render.body(steps, style, argument, rng)
    if body is None:
        return None
    cases = draw_cases(steps, audience, rng, rng.choice((5, 6, 7)) + 2)
    if cases is None:
        return None
    shown = rng.choice((0, 0, 1, 1, 2))
    tests, examples = cases[:-2], cases[-2:][:shown]
    frames = [frame for frame in say.FRAMES if (frame in hold_out.frames) == unseen]
    frame = rng.choice(frames)
    wordings = [hold_out.wordings if unseen else rng.randrange(hold_out.wordings) for _ in steps]
    paragraphs = say.sentences(steps, wordings, frame, argument, order.audience)
    lines = [line for case in examples for line in (f">>> {call(name, steps, case)}", repr(case[2]))]
    head = [render.signature(name, steps, argument), *say.docstring(paragraphs, lines)]
    prompt = "\n".join(head)
    solution = "\n".join([*head, *(("    " + line).rstrip() for line in body)])
    if len(head[0]) > 100 or not honours(order, strict, steps, solution):
        return None
    check(solution, name, steps, cases)
    spec = {
        "primitives": [step.primitive.name for step in steps], "depth": len(steps), "style": style, "frame": frame,
        "wordings": wordings, "parameters": [step.k for step in steps], "stratum": stratum,
        "types": [steps[0].primitive.takes, *(step.primitive.gives for step in steps)],
        "behaviour": behaviour(steps, audience), "topics_honoured": 2 if strict else 1,
    }  # fmt: skip
    literal = tuple(f"assert {call(name, steps, case)} == {case[2]!r}" for case in tests)
    return Drawn(name, prompt, solution, literal, spec, steps, tuple(cases), argument)


def arguments(steps: Composition, case: Case) -> list[object]:
    return [case[0], *(k for k, step in zip(case[1], steps, strict=True) if step.argument)]


def call(name: str, steps: Composition, case: Case) -> str:
    return f"{name}({', '.join(map(repr, arguments(steps, case)))})"


def check(solution: str, name: str, steps: Composition, cases: Sequence[Case]) -> None:
    """Run the rendered program against the composition itself; a difference is a bug in the grammar."""
    space: dict = {}
    exec(solution, space)
    for case in cases:
        got = space[name](*arguments(steps, case))
        if repr(got) != repr(case[2]):
            raise AssertionError(f"{call(name, steps, case)} gave {got!r}, not {case[2]!r}:\n{solution}")


def feasible(subtopics: tuple[str, str], hold_out: HoldOut, tries: int = 40) -> bool:
    """Whether some exercise honours both subtopics; found by trying, without drawing any tests."""
    order = Order(f"{subtopics[0]}/", f"{subtopics[1]}/", "")
    for attempt in range(tries):
        rng = random.Random(f"feasible:{subtopics}:{attempt}")
        needed, styles = _needs(rng, order, True)
        steps = _composition(rng, needed, "same", hold_out)
        body = steps and render.body(steps, rng.choice(styles), "given", rng)
        if body:
            code = "\n".join([render.signature("f", steps, "given"), *("    " + line for line in body)])
            if set(subtopics) <= subtopics_of(steps, code) | {"Functions/Docstrings and examples"}:
                return True
    return False
