"""One textbook page of the grammar teacher: concept, worked example, pitfall, trace.

Every output on the page was computed by running the code that is on the page.
"""

import ast
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from textbooks.audiences import Audience
from textbooks.audiences import audience as audience_named
from textbooks.grammar import render, say
from textbooks.grammar.compose import (
    Composition,
    HoldOut,
    Step,
    draw_composition,
    run,
    standard_hold_out,
    trapped,
)  # fmt: skip
from textbooks.grammar.exercise import Order, _needs, arguments, call, check, honours
from textbooks.grammar.inputs import Case, draw_cases

MAX_TRACE = 16


@dataclass(frozen=True)
class Page:
    title: str
    text: str
    spec: dict


def draw(seed: int, index: int, order: Order, hold_out: HoldOut | None = None) -> Page:
    """The page for this order. Raises ValueError if the grammar has none."""
    hold_out = hold_out or standard_hold_out()
    for attempt in range(200):
        rng = random.Random(f"page:{seed}:{index}:{attempt}")
        page = _attempt(rng, order, hold_out, strict=attempt < 120)
        if page is not None:
            return page
    raise ValueError(f"the grammar has no page for {order}: draw another pair of topics")


def _attempt(rng: random.Random, order: Order, hold_out: HoldOut, strict: bool) -> Page | None:
    needed, styles = _needs(rng, order, strict)
    if rng.random() < 0.2 and len(needed) < 2:
        needed.append(hold_out.textbook_only)
    depth = max(rng.choice((1, 1, 2, 2, 2, 3)), min(len(needed), 3))
    steps = draw_composition(rng, depth, needed, None, hold_out)
    if steps is None:
        return None
    audience = audience_named(order.audience)
    argument = say.argument_name(steps[0].primitive.takes, audience, False, rng)
    if argument in [step.argument for step in steps]:
        return None
    name = say.function_name(steps, argument, False, rng)
    style = rng.choice(styles)
    cases = draw_cases(steps, audience, rng, 7)
    if cases is None:
        return None
    example = _shown(name, steps, cases[-1], cases[-1][2]) if rng.random() < 0.4 else []
    main = _function(steps, name, argument, style, rng, _doc(steps, argument, example, rng, hold_out, order))
    if main is None or not honours(order, strict, steps, main):
        return None
    check(main, name, steps, cases)
    cases = [case for case in cases if len(repr(case[0])) <= 48 and case[0] not in ([], "", {})]
    fault = _pitfall(steps, name, argument, cases, rng)
    traced = _trace(steps, name, argument, cases, rng)
    if len(cases) < 3 or fault is None or traced is None:
        return None
    wordings = [rng.randrange(hold_out.wordings) for _ in steps]
    title = say.capital(say.chained([say.order(s, w) for s, w in zip(steps, wordings, strict=True)]))
    parts = [
        f"# {title}", _opening(steps, argument, audience, cases[0], rng),
        *_concept(steps, argument, rng, hold_out),
        *_example(steps, name, main, cases, rng, hold_out),
        *_again(steps, name, argument, style, cases, rng),
        *fault, *traced, *_question(steps, name, cases[-1], rng),
    ]  # fmt: skip
    spec = {
        "primitives": [step.primitive.name for step in steps], "depth": len(steps), "style": style,
        "parameters": [step.k for step in steps], "wordings": wordings, "topics_honoured": 2 if strict else 1,
    }  # fmt: skip
    return Page(title, "\n\n".join(parts), spec)


def _doc(steps, argument, example, rng, hold_out, order) -> list[str]:
    frame = rng.choice([f for f in ("orders", "noun", "bare noun") if f not in hold_out.frames])
    wordings = [rng.randrange(hold_out.wordings) for _ in steps]
    return say.docstring(say.sentences(steps, wordings, frame, argument, order.audience), example)


def _function(steps, name, argument, style, rng, doc: Sequence[str] = ()) -> str | None:
    body = render.body(steps, style, argument, rng)
    if body is None:
        return None
    return "\n".join([render.signature(name, steps, argument), *doc, *(("    " + b).rstrip() for b in body)])


def _fence(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])


def _shown(name: str, steps: Composition, case: Case, result: object) -> list[str]:
    return [f">>> {call(name, steps, case)}", repr(result)]


def _opening(steps, argument, audience: Audience, case: Case, rng) -> str:
    kind = say.KINDS[steps[0].primitive.takes]
    phrase = say.nested(steps, [rng.randrange(2) for _ in steps], f"`{argument}`")
    value = f"`{argument} = {case[0]!r}`"
    return rng.choice((
        f"{say.capital(audience.role)} works with {kind}, say {value}. The question here is how to get {phrase}.",
        f"Take {kind}, as {audience.role} might meet it: {value}. We are after {phrase}.",
        f"Suppose that {audience.role} writes down {value}. This page shows how to find {phrase}.",
        f"Here is {kind} from the work of {audience.role}: {value}. Wanted: {phrase}.",
    ))  # fmt: skip


def _concept(steps, argument, rng, hold_out) -> list[str]:
    heading = rng.choice(("## Concept", "## The idea", "## What to know"))
    told = []
    for number, step in enumerate(steps):
        orders = say.capital(say.order(step, rng.randrange(hold_out.wordings)))
        source = f"`{argument}`" if number == 0 else "the result so far"
        other = say.noun(step, rng.randrange(hold_out.wordings), source)
        told.append(f"**{orders}.** {step.primitive.idea} In short: {other}.")
    return [heading, *told]


def _narrated(steps, case: Case, rng, hold_out) -> str:
    values, told = [case[0], *run(steps, case[0], case[1])], []
    for number, step in enumerate(steps):
        filled = replace(step, argument="", value=case[1][number]) if step.argument else step
        order = say.order(filled, rng.randrange(hold_out.wordings))
        first = ("First", "To begin with", "Step one") if len(steps) > 1 else ("The one step", "Here")
        lead = rng.choice(first) if number == 0 else rng.choice(("Then", "Next", "After that"))
        told.append(f"{lead}: {order}. `{values[number]!r}` becomes `{values[number + 1]!r}`.")
    return " ".join(told)


def _example(steps, name, main, cases, rng, hold_out) -> list[str]:
    heading = rng.choice(("## Worked example", "## An example, worked", "## Example"))
    lines = [line for case in cases[:2] for line in _shown(name, steps, case, case[2])]
    return [heading, _fence(main), _fence(*lines), _narrated(steps, cases[0], rng, hold_out)]


def _again(steps, name, argument, style, cases, rng) -> list[str]:
    """The same function in another style, now and then, with the same output."""
    styles = [other for other in render.STYLES if other != style]
    code = _function(steps, f"{name}_again", argument, rng.choice(styles), rng)
    if code is None or rng.random() < 0.4:
        return []
    check(code, f"{name}_again", steps, cases)
    lead = rng.choice((
        "Written differently, it does the same:", "Another way to write it:", "The same in another style:",
    ))  # fmt: skip
    return [lead, _fence(code), _fence(*_shown(f"{name}_again", steps, cases[1], cases[1][2]))]


def _pitfall(steps, name, argument, cases, rng) -> list[str] | None:
    """One step replaced by its documented wrong version, with an input on which the two differ."""
    for place in rng.sample(range(len(steps)), len(steps)):
        primitive = steps[place].primitive
        changed = (*steps[:place], replace(steps[place], primitive=trapped(primitive)), *steps[place + 1 :])
        code = _function(changed, f"{name}_wrong", argument, "comprehension", rng)
        if code is None:
            continue
        for case in cases:
            try:
                run(changed, case[0], case[1])  # refuses what would grow too large to be run as code
                got = execute(code, f"{name}_wrong")(*arguments(steps, case))
            except Exception:
                continue
            if repr(got) != repr(case[2]) and len(repr(got)) < 70:
                heading = rng.choice(("## Pitfall", "## A common mistake", "## What goes wrong"))
                lines = [*_shown(f"{name}_wrong", steps, case, got), *_shown(name, steps, case, case[2])]
                where = say.order(steps[place], 0)
                return [heading, f"The step in danger: {where}. {primitive.why}", _fence(code), _fence(*lines)]
    return None


def execute(code: str, name: str) -> Callable:
    space: dict = {}
    exec(code, space)
    return space[name]


def _trace(steps, name, argument, cases, rng) -> list[str] | None:
    """What each line changes, recorded by running the function one line at a time."""
    for style in ("loop", "comprehension"):
        code = _function(steps, name, argument, style, rng)
        for case in sorted(cases, key=lambda case: len(repr(case[0]))):
            if code is None or (hasattr(case[0], "__len__") and len(case[0]) < 2):
                continue
            rows = watch(code, name, arguments(steps, case))
            if len(rows) <= MAX_TRACE:
                width = max(len(line) for line, _ in rows)
                table = [f"{line:<{width}}  # {change}" for line, change in rows]
                heading = rng.choice(("## Trace", "## Line by line", "## Step through it"))
                lead = f"`{call(name, steps, case)}`, written as below, changes these names in turn:"
                return [heading, lead, _fence(code), "\n".join(["```text", *table, "```"])]
    return None


def watch(code: str, name: str, values: Sequence[object]) -> list[tuple[str, str]]:
    """(line of code, what it changed) for every executed line that assigns a name or returns."""
    function, source = execute(code, name), code.split("\n")
    names = [node for node in _own_nodes(ast.parse(code).body[0]) if isinstance(node, ast.Name)]
    named = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    rows: list[tuple[str, str]] = []
    known: dict[str, str] = {}
    line = 0

    def note(frame) -> None:
        nonlocal known
        now = {key: repr(value) for key, value in frame.f_locals.items() if key in named}
        changed = [f"{key} = {value}" for key, value in now.items() if known.get(key) != value]
        if changed and line:
            rows.append((source[line - 1].strip(), ", ".join(changed)))
        known = now

    def tracer(frame, event, argument):
        nonlocal line
        if frame.f_code is not function.__code__:
            return None
        if event in ("line", "return"):
            note(frame)
        if event == "return":
            rows.append((source[line - 1].strip(), f"returns {argument!r}"))
        line = frame.f_lineno
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        function(*values)
    finally:
        sys.settrace(before)
    return rows


def _own_nodes(function: ast.FunctionDef):
    """The nodes of a function without those of comprehensions and inner functions."""
    inner = (ast.ListComp, ast.DictComp, ast.GeneratorExp, ast.Lambda, ast.FunctionDef)
    stack = list(function.body)
    while stack:
        node = stack.pop()
        if not isinstance(node, inner):
            yield node
            stack += ast.iter_child_nodes(node)


def _question(steps: tuple[Step, ...], name: str, case: Case, rng) -> list[str]:
    heading = rng.choice(("## Check yourself", "## Your turn", "## Try it"))
    asked = f"Work out `{call(name, steps, case)}` by hand before you look."
    return [heading, asked, _fence(*_shown(name, steps, case, case[2]))]

