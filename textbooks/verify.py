"""Verification by execution: does a program do what its tests say, and could anything less have passed them?

The tests never enter the process that runs the program. They are literal (`assert f([1, 2]) == 3`), so the checker
parses them, sends the arguments to an isolated worker, and compares the answers on its own side by exact type and
value. A program can therefore forge only answers, and is not told which ones are right: an early exit, a printed
"passed" or an object that equals everything is just a missing or an unplain answer. Every call is asked twice, in
opposite orders.

An exercise is accepted when its solution passes and its tests tell it from its stand-ins (`textbooks.stand_ins`). The
solution is judged in a fresh process of its own. Trivial stand-ins are text of ours and run here; the mutants of one
solution share one more process, since they could only disturb each other: a solution that wants its mutants to look
wrong can recognise that it was mutated in any process. That hides weak tests; it never makes a wrong answer pass.
"""

import ast
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

from textbooks.isolation import Limits, Worker, available_level
from textbooks.records import Exercise
from textbooks.stand_ins import Case, mutants, probes, trivial_stand_ins
from textbooks.verdicts import NO_VALUE, Outcome, Rejected, Verdict, answers, ask, same, show, values

LIMITS = Limits()
KILLED_SHARE = 0.75  # of the mutants that behave differently, at least this share must fail the tests
Item = TypeVar("Item")


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


def verify(
    program: str,
    entry_point: str,
    tests: Sequence[str],
    limits: Limits = LIMITS,
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
    asked = [*cases, *reversed(cases)]
    checked, seconds = 0, 0.0
    try:
        reply = ask(worker, [program], entry_point, [case.arguments for case in cases], limits)
        seconds = reply.seconds
        for answer in answers(reply, len(asked), limits):
            if not same(answer, asked[checked].expected):
                again = " when asked again, in another order" if checked >= len(cases) else ""
                raise Rejected(Verdict.FAILED, f"It answered {show(answer)}{again}.")
            checked += 1
    except Rejected as rejected:
        failed = asked[checked].source if checked < len(asked) else None
        return replace(rejected.outcome, failed_test=failed, seconds=seconds, level=worker.level)
    return Outcome(Verdict.PASSED, f"All {len(cases)} tests passed.", None, seconds, worker.level)


def check_exercise(
    exercise: Exercise,
    limits: Limits = LIMITS,
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
    """Run a trivial stand-in here: text of ours around literals and a name from a parsed test needs no isolation."""
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
    if not variants:
        return 0, []
    programs = [exercise.solution, *(mutant.program for mutant in variants)]
    brisk = replace(limits, cpu_seconds=min(limits.cpu_seconds, 0.1 + 10 * seconds))
    rows: list[list[object]] = []
    while left := programs[len(rows) :]:  # one that never ends takes its process along; those after it get a new one
        reply = ask(worker, left, exercise.entry_point, calls, brisk)
        given = values(reply)
        starts = range(0, len(given) + 1, len(calls))[: len(left)]
        rows += [(given[i : i + len(calls)] + [NO_VALUE] * len(calls))[: len(calls)] for i in starts]
    reference, killed, survivors = rows[0], 0, []
    for mutant, row in zip(variants, rows[1:], strict=True):
        if not all(map(same, row, (case.expected for case in cases))):
            killed += 1
        elif any(r is not NO_VALUE and not same(r, g) for r, g in zip(reference, row, strict=True)):
            survivors.append(mutant.name)
    return killed, survivors


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
    limits: Limits = LIMITS,
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
    limits: Limits = LIMITS,
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
