"""What the arms of the case study are trained on: raw code, its better part, textbooks, and the same texts spoilt.

The control is `permuted`: every docstring keeps its place and gets the code of another record with the same
signature. Vocabulary, formatting, domain and length stay; what is lost is that the code does what the text says.
"""

import ast
import random
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from textbooks.records import Exercise, Record, Section

FENCE = re.compile(r"(```\w+\n.*?```)", re.DOTALL)
Item = TypeVar("Item")


def permuted(records: Sequence[Record], seed: int) -> list[Record]:
    """The records in their order, each with the code of another one of equal signature (argument types and result).

    A record that is alone with its signature keeps its code; so it is in both the data and its control.
    """
    givers = derange(records, signature, seed)
    return [_with_code_of(taker, giver) for taker, giver in zip(records, givers, strict=True)]


def derange(items: Sequence[Item], group: Callable[[Item], Hashable], seed: int) -> list[Item]:
    """For each item another one of its group: a random cycle through every group, so that none gets itself."""
    members: dict[Hashable, list[int]] = {}
    for i, item in enumerate(items):
        members.setdefault(group(item), []).append(i)
    rng = random.Random(seed)
    given = list(range(len(items)))
    for cycle in members.values():
        rng.shuffle(cycle)
        for here, there in zip(cycle, cycle[1:] + cycle[:1], strict=True):
            given[here] = there
    return [items[i] for i in given]


def subset(items: Sequence[Item], length: Callable[[Item], int], total: int, seed: int) -> list[Item]:
    """A random part of the items, in their order, that holds `total` characters or a little less."""
    order = random.Random(seed).sample(range(len(items)), len(items))
    kept, held = [], 0
    for i in order:
        if held + length(items[i]) <= total:
            kept.append(i)
            held += length(items[i])
    return [items[i] for i in sorted(kept)]


def _function(code: str) -> ast.FunctionDef | None:
    """The first statement of the code, if it is a function with plain arguments."""
    try:
        first = ast.parse(code).body[0]
    except (SyntaxError, ValueError, IndexError):
        return None
    return first if isinstance(first, ast.FunctionDef) else None


def main_function(record: Record) -> ast.FunctionDef | None:
    """The function that the record is about: an exercise's own, or the first on a page."""
    if isinstance(record, Exercise):
        return _function(record.solution)
    return _function(_code(next(iter(FENCE.findall(record.text)), "")))


def signature(record: Record) -> tuple[str, ...]:
    """Argument types and result, and for a page the number of its fences; all of it alone if it has no function."""
    function = main_function(record)
    if function is None:
        return (record.key,)
    types = [*(argument.annotation for argument in function.args.args), function.returns]
    fences = len(FENCE.findall(record.text)) if isinstance(record, Section) else 0
    return (str(fences), *(ast.unparse(node) if node else "" for node in types))


def _with_code_of(taker: Record, giver: Record) -> Record:
    if taker is giver:
        return taker
    names = swap(_names(giver), _names(taker))
    if isinstance(taker, Exercise):
        return replace(taker, solution=taker.prompt + renamed(giver.solution.removeprefix(giver.prompt), names))
    parts, theirs = FENCE.split(taker.text), FENCE.findall(giver.text)
    for i, fence in zip(range(1, len(parts), 2), theirs, strict=True):
        parts[i] = _with_docstring_of(parts[i], renamed(fence, names))
    return replace(taker, text="".join(parts))


def _names(record: Record) -> list[str]:
    function = main_function(record)
    return [function.name, *(argument.arg for argument in function.args.args)]


def swap(old: Sequence[str], new: Sequence[str]) -> dict[str, str]:
    """Old names to new ones, and whatever already had a new name to one that became free: no two names meet."""
    names = dict(zip(old, new, strict=True))
    back = {there: here for here, there in names.items()}
    for name in new:
        if name not in names:  # it gives way: follow the chain of renamings to the name that nothing has any more
            free = name
            while free in back:
                free = back[free]
            names[name] = free
    return names


def renamed(code: str, names: Mapping[str, str]) -> str:
    """The code with identifiers replaced and everything else, layout and strings included, as it was.

    `total_again` and `total_wrong` are renamed with `total`: pages show a function in several versions.
    """
    either = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    pattern = re.compile(rf"""(?<![\w.'"])({either})(?=(_again|_wrong)?(?![\w'"]))""")
    return pattern.sub(lambda match: names[match.group(1)], code)


def _with_docstring_of(taker: str, giver: str) -> str:
    """The giver's fence with the taker's docstring in the place of its own; fences without one stay."""
    spans = []
    for fence in (taker, giver):
        function = _function(_code(fence))
        if function is None or ast.get_docstring(function) is None:
            return giver
        spans.append((function.body[0].lineno, function.body[0].end_lineno + 1))  # the fence's own line comes first
    (start, stop), (first, last) = spans
    lines = giver.split("\n")
    return "\n".join([*lines[:first], *taker.split("\n")[start:stop], *lines[last:]])


def _code(fence: str) -> str:
    return fence.partition("\n")[2].removesuffix("```")
