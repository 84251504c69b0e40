"""Does a function behave like a benchmark problem's solution? Asked cheaply, and in isolation.

A problem is put to a function only if its calls fit: as many arguments, of the same types. All problems that
fit are asked together, in one process, with the first few calls that each problem's own tests make. Only a
function that answers these as the problem's solution does is worth the whole test.
"""

import ast
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice

from textbooks.humaneval import Problem
from textbooks.isolation import Limits, Worker, WorkerLost
from textbooks.verify import Rejected, ask
from textbooks.worker import decode

PROBES = 8  # calls of each problem on which a function must agree before the whole test is run
LIMITS = Limits(cpu_seconds=2.0, wall_seconds=8.0)  # for the probes of all problems together
STUCK = 3  # calls that may hang before the rest of a function's probes are given up


@dataclass(frozen=True)
class Function:
    """A function that a record teaches; `arguments` are those of its first test, None where it has none."""

    name: str
    program: str
    arguments: tuple | None = None


@dataclass(frozen=True)
class Observed:
    """A problem, and the first calls that its tests make of its own solution: (arguments, value) each."""

    problem: Problem
    calls: list[tuple[tuple, object]]


class _Enough(Exception):
    pass


def observe(problem: Problem) -> Observed:
    """Run a problem's tests on its own solution, up to PROBES calls, and note what is asked and answered.

    The benchmark's code runs in this process: it comes with the package, and its checker trusts it too.
    """
    calls: list[tuple[tuple, object]] = []
    namespace: dict = {}
    exec(f"{problem.prompt}{problem.canonical_solution}\n{problem.test}", namespace)
    solution = namespace[problem.entry_point]

    def candidate(*arguments: object) -> object:
        asked = deepcopy(arguments)
        answer = solution(*arguments)
        calls.append((asked, deepcopy(answer)))
        if len(calls) == PROBES:
            raise _Enough
        return answer

    with suppress(_Enough):
        namespace["check"](candidate)
    return Observed(problem, calls)


def first_arguments(calls: Sequence[str]) -> tuple | None:
    """The literal arguments in the first of `assert f(1, [2]) == 3` or `f(1, [2])`; None if there is none."""
    try:
        call = next(node for node in ast.walk(ast.parse(calls[0])) if isinstance(node, ast.Call))
        return tuple(ast.literal_eval(argument) for argument in call.args)
    except (IndexError, StopIteration, SyntaxError, ValueError):
        return None


def fits(arguments: tuple, others: tuple) -> bool:
    """Whether two calls have as many arguments, of the same types, down to the collections' first items."""
    return len(arguments) == len(others) and all(map(_same_type, arguments, others))


def _same_type(a: object, b: object) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return isinstance(a, bool) == isinstance(b, bool)
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple | set | frozenset | dict) and a and b:
        return _same_type(next(iter(a)), next(iter(b)))
    return True


def agree(a: object, b: object) -> bool:
    """Equal as a lenient test would have it: floats to six digits, a list like a tuple."""
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-6)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(agree, a, b))
    return a == b


def answered_alike(function: Function, benchmark: Sequence[Observed], worker: Worker) -> list[Problem]:
    """The problems that fit the function and on whose observed calls it gives the observed values.

    First all that fit are asked one call each, then those it answered alike the others. Raises WorkerLost if the
    isolated process was lost twice, which says nothing about the function.
    """
    alike = [
        observed
        for observed in benchmark
        if function.arguments is None or fits(function.arguments, observed.calls[0][0])
    ]
    for part in (slice(1), slice(1, None)):
        alike = list(_answered(function, alike, part, worker))
    return [observed.problem for observed in alike]


def _answered(function: Function, asked: Sequence[Observed], part: slice, worker: Worker) -> Iterator[Observed]:
    """Those of `asked` whose calls in `part` the function answers as observed; one process answers them all."""
    for _ in range(STUCK):
        calls = [arguments for observed in asked for arguments, _ in observed.calls[part]]
        try:
            reply = ask(worker, [function.program], function.name, calls, LIMITS) if calls else None
        except Rejected as rejected:
            raise WorkerLost(rejected.outcome.reason) from None
        values = iter(_values(reply.answer.splitlines()[: len(calls)]) if reply else ())
        for place, observed in enumerate(asked):
            right = [value for _, value in observed.calls[part]]
            given = list(islice(values, len(right)))
            if len(given) < len(right):  # a call hung and its process was ended: go on behind it
                asked = asked[place + 1 :]
                break
            with suppress(OverflowError, RecursionError):  # too large or too deep to compare: not alike
                if agree(given, right):
                    yield observed
        else:
            return


def _values(lines: Sequence[str]) -> list[object]:
    """The values that a process answered with; an error is a value that agrees with nothing."""
    values: list[object] = []
    for line in lines:
        try:
            values.append(decode(json.loads(line)["value"]))
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
            values.append(object())
    return values
