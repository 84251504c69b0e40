"""Runs the project's own tests in a process where a module was replaced, and says what became of each.

A forkserver has PyTorch, pytest and Hypothesis imported already, and neither `steps` nor `common`; so each planted bug
costs a fork and its own tests, not seconds of imports. Where there is no fork (Windows) it works too, more slowly.
"""

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import groupby

from steps.bugs import ROOT, Bug
from steps.planting import BUG, YOURS

HEAVY = ["torch", "torch.utils.flop_counter", "safetensors.torch", "transformers.models.gpt2.modeling_gpt2"]
HEAVY += ["pytest", "hypothesis", "jaxtyping", "beartype", "rich", "typer"]
LIMIT = 300  # seconds for one run of pytest


@dataclass(frozen=True)
class Outcome:
    """What became of one test: "passed", "failed" (a claim did not hold) or "crashed" (anything else)."""

    kind: str
    message: str = ""  # the first line of the error


Outcomes = dict[str, Outcome]  # by pytest id, in the order of the run


@dataclass(frozen=True)
class Verdict:
    """What became of one planted bug."""

    bug: Bug
    outcomes: Outcomes
    seconds: float

    def of(self, test: str) -> str:
        """The outcome of one entry of `caught_by`: red if any of its parameters is, and "missing" if it never ran."""
        found = {o.kind for name, o in self.outcomes.items() if name == test or name.startswith(f"{test}[")}
        return next((kind for kind in ("failed", "crashed", "passed") if kind in found), "missing")

    @property
    def complaints(self) -> list[str]:
        """Why the bug does not count as caught; empty if it does."""
        red = {"failed", "crashed"} if self.bug.kind == "shape" else {"failed"}
        wrong = [f"{test}: {self.of(test)}" for test in self.bug.caught_by if self.of(test) not in red]
        return wrong if self.bug.caught_by else ["no test is named that catches it"]


def verdicts(bugs: Sequence[Bug], jobs: int) -> Iterator[Verdict]:
    """Plant every bug, `jobs` at a time, and hand back what happened as it happens."""
    with _pool(jobs) as pool:
        waiting: dict[Future, Bug] = {pool.submit(run_tests, bug.caught_by, {BUG: bug.name}): bug for bug in bugs}
        try:
            for done in as_completed(waiting):
                yield Verdict(waiting[done], *done.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def red_without_a_bug(bugs: Sequence[Bug], jobs: int) -> list[str]:
    """Those of the tests that do not pass as things are: they would prove nothing."""
    named = sorted({test for bug in bugs for test in bug.caught_by})
    files = [list(tests) for _, tests in groupby(named, lambda test: test.partition("::")[0])]
    with _pool(jobs) as pool:
        green = {name for outcomes, _ in pool.map(run_tests, files) for name in _passed(outcomes)}
    return [test for test in named if not any(name == test or name.startswith(f"{test}[") for name in green)]


def run_in_a_process(arguments: Sequence[str], environment: Mapping[str, str]) -> Outcomes:
    """Run pytest with these arguments in a fresh process with these environment variables."""
    with _pool(1) as pool:
        return pool.submit(run_tests, arguments, environment).result()[0]


def run_tests(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[Outcomes, float]:
    """Inside such a process: run pytest, and say what became of each test, and in how many seconds."""
    began = time.perf_counter()
    os.chdir(ROOT)
    os.environ.update({"HYPOTHESIS_PROFILE": "bugs", **(environment or {})})
    ours = [name for name in sys.modules if name.split(".")[0] in ("steps", "common")]
    before = {name: sys.modules.pop(name) for name in ours}  # the tests import them anew: replaced, with shapes checked
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(LIMIT)
    import pytest

    watcher = _Watcher()
    fixed = ["-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not network"]
    with tempfile.TemporaryDirectory() as scratch:  # workers of a pool skip atexit: what is left goes with this folder
        os.environ["TMPDIR"], tempfile.tempdir = scratch, scratch
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
            code = pytest.main([*fixed, *arguments], plugins=[watcher])
    sys.modules.update(before)
    if code == pytest.ExitCode.INTERNAL_ERROR:
        raise RuntimeError(f"pytest itself failed:\n{said.getvalue()}")
    return watcher.outcomes, time.perf_counter() - began


class _Watcher:
    """A pytest plugin that tells a claim that did not hold from a crash."""

    def __init__(self):
        self.outcomes: Outcomes = {}

    def pytest_runtest_logreport(self, report) -> None:
        if report.when == "call" and report.passed:
            self.outcomes[report.nodeid] = Outcome("passed")

    def pytest_exception_interact(self, node, call, report) -> None:
        import pytest
        from torch.autograd.gradcheck import GradcheckError

        error = call.excinfo.value
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
        kind = "failed" if isinstance(error, AssertionError | pytest.fail.Exception | GradcheckError) else "crashed"
        first = next(iter(str(error).strip().splitlines()), "")
        self.outcomes[report.nodeid] = Outcome(kind, first if kind == "failed" else f"{type(error).__name__}: {first}")


def _passed(outcomes: Outcomes) -> list[str]:
    return [name for name, outcome in outcomes.items() if outcome.kind == "passed"]


def _pool(jobs: int) -> ProcessPoolExecutor:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in (BUG, YOURS):
        os.environ.pop(name, None)
    context = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
    if hasattr(os, "fork"):
        context.set_forkserver_preload(HEAVY)
    return ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1)


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"the tests took more than {LIMIT} seconds")
