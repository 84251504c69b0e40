"""Verification by execution: does a program do what its tests say, and could anything less have passed them?

The tests never enter the process that runs the program. They are literal (`assert f([1, 2]) == 3`), so the
checker parses them, sends the arguments to an isolated worker, and compares the answers on its own side by
exact type and value. A program can therefore forge only answers, and it is not told which ones are right:
an early exit, a printed "passed" or an object that equals everything is just a missing or an unplain
answer. Every call is asked twice, in opposite orders.

An exercise is accepted when its solution passes and its tests tell it from its stand-ins
(`textbooks.stand_ins`). The solution and every mutant run in fresh processes of their own, so none can
influence the verdict on another. A solution could still recognise that it was mutated and break on purpose;
that only hides weak tests, it never makes a wrong answer pass.
"""

import ast
import errno
import json
import math
import os
import queue
import signal
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from textbooks.isolation import Level, Limits, Reply, Worker, WorkerLost, available_level
from textbooks.records import Exercise
from textbooks.stand_ins import Case, mutants, probes, trivial_stand_ins
from textbooks.worker import decode, encode

REFUSALS = {"PermissionError", "BlockingIOError", "MemoryError"}
DENIALS = {errno.EPERM, errno.EACCES, errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.EFBIG, errno.ENOSPC}
KILLED_SHARE = 0.75  # of the mutants that behave differently, at least this share must fail the tests


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    REFUSED = "refused"  # the isolation or a resource limit denied it something
    INFRASTRUCTURE = "infrastructure error"  # says nothing about the program: try again


@dataclass(frozen=True)
class Outcome:
    verdict: Verdict
    reason: str  # one sentence
    failed_test: str | None = None
    seconds: float = 0.0  # of wall time, inside the worker
    level: Level | None = None  # None: decided without running anything

    @property
    def passed(self) -> bool:
        return self.verdict is Verdict.PASSED


@dataclass(frozen=True)
class Job:
    key: Hashable
    program: str
    entry_point: str
    tests: tuple[str, ...]


def parse_test(source: str, entry_point: str) -> Case:
    """Take `assert f(1, [2]) == 3` apart. Raises ValueError if it is anything but one call of `entry_point`
    with literal positional arguments, compared by `==` with a literal."""
    try:
        (statement,) = ast.parse(source).body
        call, expected = statement.test.left, statement.test.comparators
        shape = (type(statement), type(statement.test), [type(op) for op in statement.test.ops], type(call))
        if shape != (ast.Assert, ast.Compare, [ast.Eq], ast.Call) or call.keywords or call.func.id != entry_point:
            raise ValueError
        return Case(source, tuple(map(ast.literal_eval, call.args)), ast.literal_eval(expected[0]))
    except (SyntaxError, ValueError, TypeError, AttributeError, RecursionError, MemoryError):
        raise ValueError(f"not a literal assert about {entry_point}: {ascii(source)[:80]}") from None


def same(a: object, b: object) -> bool:
    """Equal in type and value all the way down. Floats may differ by rounding (relative 1e-9, absolute
    1e-12)."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        theirs = {_typed(key): value for key, value in b.items()}
        return len(a) == len(b) and all(_typed(k) in theirs and same(v, theirs[_typed(k)]) for k, v in a.items())
    if isinstance(a, set | frozenset):
        return set(map(_typed, a)) == set(map(_typed, b))
    return a == b


def _typed(key: Hashable) -> tuple:
    """A key that tells 1, 1.0 and True apart."""
    return (type(key), tuple(map(_typed, key)) if isinstance(key, tuple) else key)


class Rejected(BaseException):
    """A program gave no usable answer. Not an Exception, so that no `except` in a trusted test can swallow
    it."""

    def __init__(self, verdict: Verdict, reason: str):
        self.outcome = Outcome(verdict, reason)


def answers(reply: Reply, count: int, limits: Limits) -> Iterator[object]:
    """The `count` values a program was asked for, one by one. Raises Rejected at the first that is missing
    or unusable, and at the end if the program did not stop there."""
    lines = reply.answer.split("\n")[:-1]
    for line in lines[:count]:
        yield _answer(line)
    ends = {
        "cpu": (Verdict.TIMED_OUT, f"It used more than {limits.cpu_seconds:g} s of CPU time."),
        "wall": (Verdict.TIMED_OUT, f"It did not finish in {limits.wall_seconds:g} s."),
        "flood": (
            Verdict.FAILED,
            f"It wrote more than {limits.answer_bytes} bytes where its answers belong.",
        ),
        "silent": (Verdict.FAILED, "It closed its channel and went on running."),
    }
    if reply.ended in ends:
        raise Rejected(*ends[reply.ended])
    if reply.signal == signal.SIGKILL:
        raise Rejected(Verdict.REFUSED, "The isolation killed it, as it does for taking too much memory.")
    if reply.signal:
        raise Rejected(Verdict.FAILED, f"It crashed with signal {reply.signal}.")
    if len(lines) != count:
        raise Rejected(Verdict.FAILED, f"It gave {len(lines)} answers to {count} calls and ended.")


def _answer(line: str) -> object:
    try:
        message = json.loads(line)
        if message.keys() == {"value"}:
            return decode(message["value"])
        kind, text, errno_ = message["error"], message["text"], message["errno"]
        where = "Loading it" if "loading" in message else "It"
        reason = f"{where} raised {_plain(kind)}: {_plain(text)}".rstrip(": ") + "."
        refused = kind in REFUSALS or errno_ in DENIALS
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise Rejected(Verdict.FAILED, f"It did not answer with plain data ({_plain(error)}).") from None
    raise Rejected(Verdict.REFUSED if refused else Verdict.FAILED, reason)


def _plain(value: object) -> str:
    """Safe to print and to store: one short line of ASCII."""
    text = str(value).encode("ascii", "backslashreplace").decode()
    return "".join(c if c.isprintable() else " " for c in text)[:160]


def _show(value: object) -> str:
    try:
        return _plain(repr(value))[:80]
    except (ValueError, RecursionError):  # an integer too long to print, or a value too deep
        return f"a large {type(value).__name__}"


def verify(
    program: str,
    entry_point: str,
    tests: Sequence[str],
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    worker: Worker | None = None,
    allow_weaker: bool = False,
) -> Outcome:
    """Run `program` isolated and compare what its `entry_point` answers with what `tests` expect.

    `worker` saves starting one (about 100 ms). Raises IsolationError as Worker does; never raises for what a
    program does. A worker that is lost twice gives INFRASTRUCTURE.
    """
    if worker is None:
        with Worker(allow_weaker) as fresh:
            return verify(program, entry_point, tests, limits, fresh)
    try:
        cases = [parse_test(test, entry_point) for test in tests]
    except ValueError as error:
        return Outcome(Verdict.FAILED, f"A test is {error}.")
    if not cases:
        return Outcome(Verdict.FAILED, "It has no tests.")
    return _verify(program, entry_point, cases, limits, worker)


def ask(worker: Worker, programs: list[str], entry_point: str, calls: Sequence[Sequence], limits: Limits) -> Reply:
    """The reply of one process that runs `programs` in turn. Raises Rejected if the worker is lost twice."""
    encoded = [encode(list(arguments)) for arguments in calls]
    for _ in range(2):
        try:
            return worker.run_in_turn(programs, entry_point, encoded, limits)
        except WorkerLost as error:
            lost = _plain(error)
    raise Rejected(Verdict.INFRASTRUCTURE, f"Twice, {lost}.")


def _verify(program: str, entry_point: str, cases: Sequence[Case], limits: Limits, worker: Worker) -> Outcome:
    asked = [*cases, *reversed(cases)]
    checked, seconds = 0, 0.0
    try:
        reply = ask(worker, [program], entry_point, [case.arguments for case in cases], limits)
        seconds = reply.seconds
        for answer in answers(reply, len(asked), limits):
            if not same(answer, asked[checked].expected):
                again = " when asked again, in another order" if checked >= len(cases) else ""
                raise Rejected(Verdict.FAILED, f"It answered {_show(answer)}{again}.")
            checked += 1
    except Rejected as rejected:
        failed = asked[checked].source if checked < len(asked) else None
        return replace(rejected.outcome, failed_test=failed, seconds=seconds, level=worker.level)
    return Outcome(Verdict.PASSED, f"All {len(cases)} tests passed.", None, seconds, worker.level)


def check_exercise(
    exercise: Exercise,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    worker: Worker | None = None,
    allow_weaker: bool = False,
) -> Outcome:
    """Whether the solution passes its tests *and* the tests are worth passing: every trivial stand-in fails
    them, and so does a KILLED_SHARE of the mutants that behave differently. Survivors are named in the
    reason."""
    if worker is None:
        with Worker(allow_weaker) as fresh:
            return check_exercise(exercise, limits, fresh)
    outcome = verify(exercise.solution, exercise.entry_point, exercise.tests, limits, worker)
    if not outcome.passed:
        return outcome
    cases = [parse_test(test, exercise.entry_point) for test in exercise.tests]
    stand_ins = trivial_stand_ins(exercise.entry_point, cases)
    weak = [s.name for s in stand_ins if _passes_trusted(s.program, exercise.entry_point, cases)]
    if weak:
        return replace(outcome, verdict=Verdict.FAILED, reason=f"Its tests also pass a program that {weak[0]}.")
    try:
        killed, survivors = _kill(exercise, cases, limits, outcome.seconds, worker)
    except Rejected as rejected:
        return replace(rejected.outcome, level=worker.level)
    score = f"{killed} of {killed + len(survivors)} mutants"
    if killed < KILLED_SHARE * (killed + len(survivors)):
        names = "; ".join(survivors[:3])
        return replace(outcome, verdict=Verdict.FAILED, reason=f"Its tests fail only {score}; not when {names}.")
    return replace(outcome, reason=f"{outcome.reason[:-1]}; {len(stand_ins)} trivial stand-ins and {score} failed.")


def stand_ins(exercise: Exercise) -> list[str]:
    """Every program that should fail the exercise's tests: the trivial ones, then the mutants, which may be
    equivalent."""
    cases = [parse_test(test, exercise.entry_point) for test in exercise.tests]
    return [s.program for s in trivial_stand_ins(exercise.entry_point, cases) + mutants(exercise.solution)]


def _passes_trusted(program: str, entry_point: str, cases: Sequence[Case]) -> bool:
    """Run a trivial stand-in here: it is text of ours around literals, so it needs no isolation."""
    namespace: dict = {}
    exec(program, namespace)
    return all(same(namespace[entry_point](*case.arguments), case.expected) for case in cases)


def _kill(
    exercise: Exercise, cases: Sequence[Case], limits: Limits, seconds: float, worker: Worker
) -> tuple[int, list[str]]:
    """How many mutants fail the tests, and the names of those that pass them and yet behave differently.
    Where the solution itself gives no value, its behaviour is not defined and a mutant may do as it
    likes."""
    variants = mutants(exercise.solution)
    calls = [*(case.arguments for case in cases), *probes(cases)]
    programs = [exercise.solution, *(mutant.program for mutant in variants)]
    brisk = replace(limits, cpu_seconds=min(limits.cpu_seconds, 0.2 + 20 * seconds))
    rows: list[list[object]] = []
    while left := programs[len(rows) :]:  # one that never ends takes its process along; those after it get a new one
        reply = ask(worker, left, exercise.entry_point, calls, brisk)
        values = [_value(line) for line in reply.answer.split("\n")[:-1]]
        starts = range(0, len(values) + 1, 2 * len(calls))[: len(left)]
        rows += [(values[i : i + len(calls)] + [NO_VALUE] * len(calls))[: len(calls)] for i in starts]
    reference, killed, survivors = rows[0], 0, []
    for mutant, row in zip(variants, rows[1:], strict=True):
        if not all(map(same, row, (case.expected for case in cases))):
            killed += 1
        elif any(r is not NO_VALUE and not same(r, g) for r, g in zip(reference, row, strict=True)):
            survivors.append(mutant.name)
    return killed, survivors


NO_VALUE = object()


def _value(line: str) -> object:
    """An answer, or NO_VALUE where there was an error instead."""
    try:
        return _answer(line)
    except Rejected:
        return NO_VALUE


Item = TypeVar("Item")


def spread(
    task: Callable[[Worker, Item], Outcome], items: Iterable[Item], workers: int | None, allow_weaker: bool
) -> Iterator[tuple[Item, Outcome]]:
    """Run `task` over `items` on several workers, in order, reading only a little ahead."""
    count = workers or os.cpu_count() or 1
    with ExitStack() as stack:
        idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for _ in range(count):
            idle.put(stack.enter_context(Worker(allow_weaker)))

        def run(item: Item) -> Outcome:
            worker = idle.get()
            try:
                return task(worker, item)
            finally:
                idle.put(worker)

        pool = stack.enter_context(ThreadPoolExecutor(count))
        pending: deque = deque()
        for item in items:
            pending.append((item, pool.submit(run, item)))
            if len(pending) >= 4 * count:
                done, future = pending.popleft()
                yield done, future.result()
        for done, future in pending:
            yield done, future.result()


def verify_many(
    jobs: Iterable[Job],
    workers: int | None = None,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    allow_weaker: bool = False,
) -> Iterator[tuple[Hashable, Outcome]]:
    """`verify` over many programs on all cores: (key, outcome) in the order of the jobs."""

    def task(worker: Worker, job: Job) -> Outcome:
        return verify(job.program, job.entry_point, job.tests, limits, worker)

    for job, outcome in spread(task, jobs, workers, allow_weaker):
        yield job.key, outcome


def check_many(
    exercises: Iterable[Exercise],
    workers: int | None = None,
    limits: Limits = Limits(),  # noqa: B008 (frozen)
    allow_weaker: bool = False,
) -> Iterator[tuple[Exercise, Outcome]]:
    """`check_exercise` over many exercises on all cores, in their order."""

    def task(worker: Worker, exercise: Exercise) -> Outcome:
        return check_exercise(exercise, limits, worker)

    return spread(task, exercises, workers, allow_weaker)


if __name__ == "__main__":
    isolation = available_level()
    print(f"isolation level: {isolation.level} ({isolation.reason})")
    sample = Job(0, "def double(n):\n    return 2 * n", "double", ("assert double(2) == 4", "assert double(5) == 10"))
    start = time.perf_counter()
    verdicts = [outcome.verdict for _, outcome in verify_many([sample] * 400, allow_weaker=True)]
    rate = len(verdicts) / (time.perf_counter() - start)
    print(f"{verdicts.count(Verdict.PASSED)} of {len(verdicts)} sample programs passed, {rate:.0f} a second")
