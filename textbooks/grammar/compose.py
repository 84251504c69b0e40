"""Typed compositions of primitives: what may follow what, what a composition computes, and what is held out.

A `Primitive` maps one type to another; a `Step` is a primitive with its parameter; a composition is a tuple of
steps in which each takes what the one before gives. The code here knows nothing of wording or code style.
"""

import random
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from itertools import pairwise

from textbooks.records import digest

TYPES = {
    "ints": "list[int]", "words": "list[str]", "text": "str", "int": "int",
    "table": "dict[str, int]", "flag": "bool",
}  # fmt: skip
ITEMS = {"ints": "numbers", "words": "words", "text": "characters"}
PARAMETERS = {  # kind of parameter: values drawn, names it has as an argument, its type
    "bound": (tuple(range(-2, 13)), ("bound", "limit", "cutoff", "level"), "int"),
    "amount": (tuple(range(1, 10)), ("amount", "extra", "delta", "offset"), "int"),
    "factor": ((2, 3, 4, 5), ("factor", "scale", "times", "k"), "int"),
    "divisor": ((2, 3, 4, 5, 6, 7), ("divisor", "base", "m", "d"), "int"),
    "count": ((2, 3, 4, 5), ("count", "size", "n", "width"), "int"),
    "letter": (tuple("abcdegilmnoprst"), ("letter", "mark", "char", "symbol"), "str"),
    "separator": (("-", "/", "+", "_", ":", "*"), ("sep", "glue", "between", "joiner"), "str"),
    "ending": (("s", "!", "?", "er", "ly", "x", "ing"), ("ending", "suffix", "tail", "addition"), "str"),
}


LARGEST, LARGEST_COUNT = 10**7, 200


class TooLarge(ValueError):
    pass


@dataclass(frozen=True)
class Primitive:
    """One operation. `kind` says how `code` is used: per item (keep, change, count, any, all) or for the whole
    value (fold, whole); the fields are those of primitives.toml."""

    name: str
    takes: str
    gives: str
    kind: str
    code: str
    do: tuple[str, ...]
    of: tuple[str, ...]
    names: tuple[str, ...]
    idea: str
    trap: str
    why: str
    teaches: tuple[str, ...]
    param: str = ""
    expr: str = ""
    loop: str = ""
    init: str = ""
    update: str = ""
    finish: str = "{out}"

    @property
    def per_item(self) -> bool:
        return self.kind in ("keep", "change")

    def evaluate(self, value: object, k: object) -> object:
        """Raises TooLarge for a number that a learner would not write down, or would count up to."""
        limit = LARGEST_COUNT if self.name == "count_up" else LARGEST
        if isinstance(value, int) and abs(value) > limit:
            raise TooLarge(value)
        return _compiled(self)(value, k)


@dataclass(frozen=True)
class Step:
    """A primitive, its parameter's value, and the parameter's name where the function takes it as an argument."""

    primitive: Primitive
    value: int | str | None = None
    argument: str = ""

    @property
    def k(self) -> str:
        """The parameter as it is written in the code and the docstring."""
        return self.argument or (repr(self.value) if self.value is not None else "")


Composition = tuple[Step, ...]


@cache
def primitives() -> tuple[Primitive, ...]:
    """All primitives, one entry for each type a primitive accepts."""
    text = resources.files("textbooks.grammar").joinpath("primitives.toml").read_text(encoding="utf-8")
    found = []
    for name, row in tomllib.loads(text).items():
        signatures = [row["type"]] if isinstance(row["type"], str) else row["type"]
        kind = next((k for k in ("keep", "change", "count", "any", "all") if k in row), "")
        kind = kind or ("fold" if "init" in row else "whole")
        extra = {key: row[key] for key in ("param", "expr", "loop", "init", "update", "finish") if key in row}
        shared = {key: row[key] for key in ("idea", "trap", "why")}
        shared |= {key: tuple(row[key]) for key in ("do", "of", "names", "teaches")}
        for signature in signatures:
            takes, gives = signature.split(" -> ")
            found.append(Primitive(name, takes, gives, kind, row.get(kind, ""), **shared, **extra))
    return tuple(found)


def whole_expression(primitive: Primitive, code: str, expr: str) -> str:
    """The primitive as one expression with the slots {x}, {i} and {k}, not yet filled."""
    kind, takes, gives = primitive.kind, primitive.takes, primitive.gives
    if kind == "keep" and takes == "table":
        return "{{key: {i} for key, {i} in {x}.items() if " + code + "}}"
    if kind == "change" and takes == "table":
        return "{{key: " + code + " for key, {i} in {x}.items()}}"
    if kind in ("keep", "change"):
        item, test = ("{i}", " if " + code) if kind == "keep" else (code, "")
        inner = f"{item} for {{i}} in {{x}}{test}"
        return f'"".join({inner})' if gives == "text" else f"[{inner}]"
    if kind == "count" and code:
        return f"sum(1 for {{i}} in {{x}} if {code})"
    if kind in ("any", "all"):
        return f"{kind}({code} for {{i}} in {{x}})"
    return expr.replace("{g}", "{x}")


@cache
def _compiled(primitive: Primitive):
    source = whole_expression(primitive, primitive.code, primitive.expr).format(x="x", i="i", k="k")
    return eval(f"lambda x, k: {source}")


@cache
def trapped(primitive: Primitive) -> Primitive:
    """The wrong version of a primitive that its entry documents."""
    if primitive.code:
        return replace(primitive, code=primitive.trap)
    return replace(primitive, kind="whole", expr=primitive.trap, loop="")


def run(steps: Sequence[Step], value: object, ks: Sequence[object] | None = None) -> list[object]:
    """The value after every step, the last being the result. `ks` replaces the parameters' values."""
    values = []
    for index, step in enumerate(steps):
        value = step.primitive.evaluate(value, step.value if ks is None else ks[index])
        values.append(value)
    return values


# ---------------------------------------------------------------- held out


@dataclass(frozen=True)
class HoldOut:
    """What no training record may contain, so that it can be asked in the examination.

    `pairs`: adjacent primitives never seen together. `textbook_only`: primitives that sections explain and no
    exercise uses. `max_depth`: the longest composition trained on. `frames`, `audiences`: docstring frames and
    audiences (with their names for things) kept back; the last wording of every primitive is kept back as well.
    """

    pairs: frozenset[tuple[str, str]] = frozenset()
    textbook_only: frozenset[str] = frozenset()
    max_depth: int = 3
    frames: frozenset[str] = frozenset()
    audiences: frozenset[str] = frozenset()
    wordings: int = 2

    def forbids(self, steps: Sequence[Step]) -> bool:
        names = [step.primitive.name for step in steps]
        return any(pair in self.pairs for pair in pairwise(names))


def compatible_pairs() -> tuple[tuple[str, str], ...]:
    """Every pair of primitive names of which the second can take what the first gives."""
    pairs = {(a.name, b.name) for a in primitives() for b in primitives() if a.gives == b.takes}
    return tuple(sorted(pair for pair in pairs if pair[0] != pair[1]))


TEXTBOOK_ONLY = frozenset(
    {"every_nth", "cap_each", "neighbour_gaps", "initials", "raise_rows", "count_letter", "all_below"}
)


@cache
def standard_hold_out() -> HoldOut:
    """The hold-out of the recorded data set: one pair in eight, chosen by hash, seven primitives, two
    frames, every sixth audience."""
    from textbooks.audiences import audiences

    pairs = {pair for pair in compatible_pairs() if int(digest("pair", pair)[:8], 16) % 8 == 0}
    pairs = {pair for pair in pairs if not TEXTBOOK_ONLY & set(pair)}
    roles = {a.role for number, a in enumerate(audiences()) if number % 6 == 5}
    return HoldOut(frozenset(pairs), TEXTBOOK_ONLY, 3, frozenset({"question", "request"}), frozenset(roles))


# ---------------------------------------------------------------- drawing


def draw_step(primitive: Primitive, rng: random.Random, taken: set[str], argument_rate: float = 0.35) -> Step:
    """A step with its parameter drawn, as a literal or as an argument whose name is not yet taken."""
    if not primitive.param:
        return Step(primitive)
    values, names, _ = PARAMETERS[primitive.param]
    value = rng.choice(values)
    free = [name for name in names if name not in taken]
    if free and rng.random() < argument_rate:
        argument = rng.choice(free)
        taken.add(argument)
        return Step(primitive, value, argument)
    return Step(primitive, value)


def draw_composition(
    rng: random.Random,
    depth: int,
    needed: Sequence[frozenset[str]] = (),
    allowed: frozenset[str] | None = None,
    hold_out: HoldOut | None = None,
) -> Composition | None:
    """A random composition of `depth` steps. Each set in `needed` must meet the primitives used; `allowed` names
    those that may be used. None if twenty tries find nothing."""
    pool = [p for p in primitives() if allowed is None or p.name in allowed]
    hold_out = hold_out or HoldOut()
    for _ in range(20):
        chosen: list[Primitive] = []
        open_needs = list(needed)
        while len(chosen) < depth:
            fits = [p for p in pool if not chosen or (p.takes == chosen[-1].gives and p.name != chosen[-1].name)]
            wanted_names = frozenset().union(*open_needs)
            wanted = [p for p in fits if p.name in wanted_names]
            if wanted and (len(open_needs) > depth - len(chosen) - 1 or rng.random() < 0.6):
                fits = wanted
            if not fits:
                break
            chosen.append(rng.choice(fits))
            open_needs = [names for names in open_needs if chosen[-1].name not in names]
        if len(chosen) < depth or open_needs:
            continue
        taken: set[str] = set()
        steps = tuple(draw_step(primitive, rng, taken) for primitive in chosen)
        if not hold_out.forbids(steps):
            return steps
    return None
