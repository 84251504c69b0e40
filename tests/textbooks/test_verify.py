"""Verification: verdicts, exact comparison, stand-ins, mutants, and many at once."""

import ast
import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textbooks import verify as verify_module
from textbooks.isolation import Limits, Reply, Worker, WorkerLost, available_level
from textbooks.records import Exercise
from textbooks.stand_ins import mutants, probes, trivial_stand_ins
from textbooks.verdicts import Rejected, Verdict, answers, read_line, same
from textbooks.verify import (
    Job,
    check_exercise,
    check_many,
    parse_test,
    stand_ins,
    verify,
    verify_many,
)

COUNT_EVEN = '''def count_even(xs: list[int]) -> int:
    """How many of the numbers are even."""
    total = 0
    for x in xs:
        if x % 2 == 0:
            total += 1
    return total'''
GOOD_TESTS = (
    "assert count_even([1, 2, 4]) == 2",
    "assert count_even([]) == 0",
    "assert count_even([7, 9, 3]) == 0",
    "assert count_even([8, 6, 2, 5]) == 3",
)
LIMITS = Limits(cpu_seconds=0.5, wall_seconds=5)


@pytest.fixture(scope="module")
def worker():
    with Worker(allow_weaker=True) as worker:
        yield worker


def exercise(solution: str, *tests: str) -> Exercise:
    name = ast.parse(solution).body[0].name
    prompt = solution[: solution.index('"""', solution.index('"""') + 3) + 3] if '"""' in solution else ""
    return Exercise(name, prompt, solution, tests, "topic", "other", "audience", "written by hand", "", 0)


# ---- verdicts ------------------------------------------------------------------------------------------------------


def test_a_right_program_passes_at_a_stated_level(worker):
    outcome = verify(COUNT_EVEN, "count_even", GOOD_TESTS, worker=worker)
    assert (outcome.verdict, outcome.passed, outcome.failed_test) == (Verdict.PASSED, True, None)
    assert outcome.level is worker.level
    assert outcome.seconds > 0


def test_a_wrong_program_fails_with_the_test_and_its_answer(worker):
    outcome = verify(COUNT_EVEN.replace("== 0", "== 1"), "count_even", GOOD_TESTS, worker=worker)
    assert outcome.verdict is Verdict.FAILED
    assert outcome.failed_test == GOOD_TESTS[0]
    assert outcome.reason == "It answered 1."


@pytest.mark.parametrize(
    ("body", "verdict", "reason"),
    [
        ("raise ValueError('no')", Verdict.FAILED, "It raised ValueError: no."),
        ("while True: pass", Verdict.TIMED_OUT, "It used more than 0.5 s of CPU time."),
        ("raise PermissionError", Verdict.REFUSED, "It raised PermissionError."),
        ("raise MemoryError", Verdict.REFUSED, "It raised MemoryError."),
        ("import os; os._exit(0)", Verdict.FAILED, "It gave 0 answers to 2 calls and ended."),
    ],
)
def test_each_way_to_fail_has_its_verdict_and_its_sentence(body, verdict, reason, worker):
    outcome = verify(f"def f():\n    {body}", "f", ["assert f() == 1"], LIMITS, worker)
    assert (outcome.verdict, outcome.reason, outcome.failed_test) == (verdict, reason, "assert f() == 1")


def test_a_program_without_tests_never_passes(worker):
    assert verify(COUNT_EVEN, "count_even", [], worker=worker).verdict is Verdict.FAILED


def test_a_lost_worker_is_tried_again_and_then_counts_against_nobody(worker, monkeypatch):
    losses = itertools.count()
    run = worker.run_in_turn

    def lose(times):
        def run_in_turn(*arguments):
            if next(losses) < times:
                raise WorkerLost("it ended")
            return run(*arguments)

        monkeypatch.setattr(worker, "run_in_turn", run_in_turn)
        return verify(COUNT_EVEN, "count_even", GOOD_TESTS, worker=worker)

    assert lose(1).passed
    losses = itertools.count()
    outcome = lose(2)
    assert (outcome.verdict, outcome.reason) == (Verdict.INFRASTRUCTURE, "Twice, it ended.")
    losses = itertools.count()
    monkeypatch.setattr(worker, "run_in_turn", lambda *_: (_ for _ in ()).throw(WorkerLost("it ended")))
    assert check_exercise(exercise(COUNT_EVEN, *GOOD_TESTS), worker=worker).verdict is Verdict.INFRASTRUCTURE


def test_expected_values_never_enter_the_worker(worker, monkeypatch):
    sent = []
    run = worker.run_in_turn

    def spy(*arguments):
        sent.append(repr(arguments))
        return run(*arguments)

    monkeypatch.setattr(worker, "run_in_turn", spy)
    program = "def secret(n):\n    return str(n * 7) + 'tail'"
    tests = ("assert secret(3) == '21tail'", "assert secret(5) == '35tail'")
    assert check_exercise(exercise(program, *tests), worker=worker).passed
    assert len(sent) == 2
    assert not [job for job in sent if "21tail" in job or "35tail" in job or "assert" in job]


# ---- tests and comparison ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "f(1) == 2",
        "assert f(1)",
        "assert f(1) == g(2)",
        "assert f(1) == 1 + 1",
        "assert f(g(1)) == 2",
        "assert f(x=1) == 2",
        "assert f(*[1]) == 2",
        "assert f(1) != 2",
        "assert f(1) == 2 == 2",
        "assert g(1) == 2",
        "assert f.g(1) == 2",
        "assert 2 == f(1)",
        "assert f(1) == 2; import os",
        "assert f(1) == 2\nassert f(2) == 3",
        "assert f(1) ==",
        "",
        "assert f(1) == \0",
        "assert f(" + "[" * 500 + "]" * 500 + ") == 2",
        "assert f(1) == " + "-" * 100_000 + "1",
    ],
)
def test_only_literal_asserts_about_the_function_are_tests(source, worker):
    with pytest.raises(ValueError, match="not a literal assert about f"):
        parse_test(source, "f")
    outcome = verify("def f(x):\n    return 2", "f", [source], worker=worker)
    assert outcome.verdict is Verdict.FAILED
    assert outcome.level is None


def test_a_literal_assert_is_taken_apart():
    case = parse_test("assert f(-1, 'a', [(1, {2})]) == {'k': None}", "f")
    assert (case.arguments, case.expected) == ((-1, "a", [(1, {2})]), {"k": None})


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1, True, False), (1, 1.0, False), (0.0, -0.0, True), (0.1 + 0.2, 0.3, True), (1.0, 1.000001, False),
        ([1], (1,), False), ({1}, frozenset({1}), False), ({1: 2}, {1.0: 2}, False), ({1: 2}, {True: 2}, False),
        ({(1, 2)}, {(1.0, 2)}, False), ({1: 0.3}, {1: 0.1 + 0.2}, True), ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ([1, [2]], [1, [True]], False), (float("nan"), float("nan"), True), (float("inf"), 1e308, False),
        ("a", b"a", False), (None, False, False), ([], [None], False), ({}, {None: None}, False), (1j, 1j, True),
    ],
)  # fmt: skip
def test_values_are_the_same_by_type_and_value(a, b, equal):
    assert same(a, b) is same(b, a) is equal


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=2),
    lambda x: st.lists(x, max_size=3) | st.tuples(x, x) | st.dictionaries(st.integers(0, 3), x, max_size=3),
    max_leaves=6,
)


@given(values, values)
def test_same_is_equality_sharpened_by_type(a, b):
    assert same(a, a)
    if same(a, b):
        assert a == b
    elif a == b:  # Python's == overlooks a type somewhere
        assert repr(a) != repr(b)


@given(st.text() | st.text('{}[]":,\\ntruefalsvdioxc0123456789 '))
def test_any_line_is_an_answer_or_a_rejection(line):
    try:
        read_line(line)
    except Rejected as rejected:
        assert rejected.outcome.verdict in (Verdict.FAILED, Verdict.REFUSED)
        assert rejected.outcome.reason.isprintable()
        assert rejected.outcome.reason.isascii()


# ---- stand-ins -----------------------------------------------------------------------------------------------------


def test_good_tests_tell_the_solution_from_every_stand_in(worker):
    outcome = check_exercise(exercise(COUNT_EVEN, *GOOD_TESTS), worker=worker)
    assert outcome.passed, outcome.reason
    assert outcome.reason == "All 4 tests passed; 5 trivial stand-ins and 8 of 8 mutants failed."


@pytest.mark.parametrize(
    ("solution", "tests", "survivor"),
    [
        ("def f(x):\n    return None", ["assert f(1) == None", "assert f(2) == None"], "returns None"),
        ("def f(x):\n    return abs(x)", ["assert f(1) == 1", "assert f(0) == 0"], "returns argument 1"),
        ("def f(x, y):\n    return max(x, y)", ["assert f(1, 2) == 2", "assert f(3, 4) == 4"], "returns argument 2"),
        ("def f(x):\n    return x > 0", ["assert f(1) == True", "assert f(2) == True"], "always returns True"),
    ],
)
def test_tests_that_a_trivial_stand_in_passes_reject_the_exercise(solution, tests, survivor, worker):
    outcome = check_exercise(exercise(solution, *tests), worker=worker)
    assert (outcome.verdict, outcome.reason) == (Verdict.FAILED, f"Its tests also pass a program that {survivor}.")


@pytest.mark.parametrize("tests", [GOOD_TESTS, GOOD_TESTS[:1], GOOD_TESTS[1:3]])
def test_trivial_stand_ins_fare_in_the_worker_as_they_do_here(tests, worker):
    cases = [parse_test(test, "count_even") for test in tests]
    for stand_in in trivial_stand_ins("count_even", cases):
        here = verify_module._passes_trusted(stand_in.program, "count_even", cases)
        assert verify(stand_in.program, "count_even", tests, worker=worker).passed is here


def test_tests_that_miss_a_boundary_are_weak_and_the_survivors_named(worker):
    grade = "def grade(n):\n    if n > 10:\n        return 'high'\n    return 'low'"
    beside = ("assert grade(12) == 'high'", "assert grade(9) == 'low'")
    outcome = check_exercise(exercise(grade, *beside), worker=worker)
    assert outcome.verdict is Verdict.FAILED
    assert "Gt becomes GtE on line 2" in outcome.reason
    near = (*beside, "assert grade(10) == 'low'", "assert grade(11) == 'high'")
    assert check_exercise(exercise(grade, *near), worker=worker).passed


def test_mutants_that_behave_as_the_solution_does_are_not_counted(worker):
    largest = "def largest(xs):\n    return sorted(xs, reverse=5 > 0)[0]"
    names = [mutant.name for mutant in mutants(largest)]
    equivalent = {"Gt becomes GtE on line 2", "5 becomes 6 on line 2", "0 becomes 1 on line 2"}
    assert len(equivalent & set(names)) == 3
    tests = ("assert largest([3, 1]) == 3", "assert largest([5, 9, 7]) == 9")
    outcome = check_exercise(exercise(largest, *tests), worker=worker)
    assert outcome.passed
    assert " and 2 of 2 mutants failed" in outcome.reason  # the return dropped, the wrong item taken


def test_mutants_that_never_end_are_killed_without_much_waiting(worker):
    solution = (
        "def count_down(n):\n    steps = 0\n    while n > 0:\n        n -= 1\n        steps += 2\n    return steps"
    )
    tests = ("assert count_down(3) == 6", "assert count_down(0) == 0", "assert count_down(7) == 14")
    start = time.monotonic()
    outcome = check_exercise(exercise(solution, *tests), worker=worker)
    assert outcome.passed, outcome.reason
    assert time.monotonic() - start < 10


def test_a_solution_that_fails_is_not_saved_by_good_tests(worker):
    outcome = check_exercise(exercise(COUNT_EVEN.replace("+= 1", "+= 2"), *GOOD_TESTS), worker=worker)
    assert (outcome.verdict, outcome.failed_test) == (Verdict.FAILED, GOOD_TESTS[0])


def test_every_mutant_is_one_small_change_that_compiles():
    original = ast.unparse(ast.parse(COUNT_EVEN))
    found = mutants(COUNT_EVEN, limit=100)
    assert len({mutant.program for mutant in found}) == len(found) > 8
    for mutant in found:
        compile(mutant.program, "mutant", "exec")
        differing = sum(a != b for a, b in zip(original.split("\n"), mutant.program.split("\n"), strict=True))
        assert differing == 1, mutant.name
    assert mutants("def f(:") == []


def test_stand_ins_come_as_programs_for_anyone_to_run(worker):
    programs = stand_ins(exercise(COUNT_EVEN, *GOOD_TESTS))
    assert "def count_even(*args):\n    return None" in programs
    outcomes = [verify(program, "count_even", GOOD_TESTS, worker=worker) for program in programs]
    assert not [outcome for outcome in outcomes if outcome.passed]


def test_probes_are_new_arguments_of_the_same_kind():
    cases = [parse_test(test, "f") for test in ("assert f([1, 2], 'ab') == 0", "assert f([3], 'c') == 0")]
    found = probes(cases)
    assert ([1, 2], "c") in found
    assert all(type(xs) is list and type(s) is str for xs, s in found)
    assert not [case for case in cases if case.arguments in found]


# ---- many ----------------------------------------------------------------------------------------------------------


def test_many_come_back_in_order_with_their_own_verdicts():
    jobs = [Job(i, f"def f():\n    return {i % 3}", "f", ("assert f() == 1",)) for i in range(30)]
    found = list(verify_many(jobs, allow_weaker=True))
    assert [key for key, _ in found] == list(range(30))
    assert [outcome.passed for _, outcome in found] == [i % 3 == 1 for i in range(30)]


def test_many_are_read_only_a_little_ahead():
    read = itertools.count()
    jobs = (Job(next(read), "def f():\n    return 1", "f", ("assert f() == 1",)) for _ in itertools.count())
    found = verify_many(jobs, workers=2, allow_weaker=True)
    assert [next(found)[1].passed for _ in range(5)] == [True] * 5
    found.close()
    assert next(read) < 20


@pytest.mark.slow
def test_at_least_twenty_exercises_a_second_stand_ins_included():
    available_level()
    many = [exercise(COUNT_EVEN, *GOOD_TESTS)] * 100
    start = time.monotonic()
    assert all(outcome.passed for _, outcome in check_many(many, allow_weaker=True))
    assert len(many) / (time.monotonic() - start) >= 20


@pytest.mark.parametrize("count", [1, 3])
def test_a_program_gives_as_many_answers_as_it_was_called(count):
    """One too few, and one too many: a line that was not asked for is a program writing where it should not."""
    reply = Reply("closed", 0, 0.0, 0.0, '{"value": 1}\n' * 2)
    with pytest.raises(Rejected) as rejected:
        list(answers(reply, count, LIMITS))
    assert rejected.value.outcome.reason == f"It gave 2 answers to {count} calls and ended."
