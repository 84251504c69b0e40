"""The examination: unseen, graded by running, and each stratum breaks the rule it is named after."""

import pytest

from textbooks import exam
from textbooks.exam import Problem
from textbooks.grammar.compose import TEXTBOOK_ONLY
from textbooks.records import Exercise
from textbooks.teachers.grammar import examination
from textbooks.verify import Verdict, verify


@pytest.fixture(scope="module")
def training() -> list[Exercise]:
    return examination("same", 60, seed=11)


@pytest.fixture(scope="module")
def problems(training) -> list[Problem]:
    return exam.draw(training, [], 6, seed=12, depth=3)


def test_every_stratum_is_there_and_none_of_its_problems_is_in_the_training_data(problems, training):
    counts = {stratum: len(found) for stratum, found in exam.by_stratum(problems, problems)}
    assert counts == dict.fromkeys(exam.STRATA, 6)
    trees = {tree for record in training for tree in exam._trees(record)}
    behaviours = {record.spec["behaviour"] for record in training}
    for problem in problems:
        assert trees.isdisjoint(exam._trees(problem.exercise))
        assert problem.exercise.spec.get("behaviour") not in behaviours


def test_no_problem_is_deeper_than_the_exercises_and_longer_ones_are_by_one(training):
    for problem in exam.draw(training, [], 4, seed=3, depth=2):
        if problem.stratum != "unconventional":
            depth = problem.exercise.spec["depth"]
            assert depth == 3 if problem.stratum == "longer" else depth <= 2


def test_a_problem_that_is_in_the_training_data_is_never_asked(training, problems):
    """The examination drawn from the same seed, when its own problems are the training data, asks others."""
    asked = [problem.exercise for problem in problems if problem.stratum == "same"]
    again = exam.draw([*training, *asked], [], 6, seed=12, depth=3)
    assert {e.key for e in asked}.isdisjoint(p.exercise.key for p in again)


def test_strata_break_the_rule_they_are_named_after(problems):
    depth = {stratum: {p.exercise.spec["depth"] for p in part} for stratum, part in exam.by_stratum(problems, problems)
             if stratum != "unconventional"}  # fmt: skip
    assert depth["longer"] == {4} and max(depth["same"]) <= 3 and depth["pairs"] == {2}
    for problem in problems:
        held_out = TEXTBOOK_ONLY & set(problem.exercise.spec.get("primitives", ()))
        assert bool(held_out) == (problem.stratum == "textbook")


def test_the_solutions_pass_the_examination_and_the_mutants_do_not(problems):
    right = [[problem.exercise.solution] for problem in problems]
    assert all(sheet[0].passed and sheet[0].parses for sheet in exam.grade(problems, right))
    bodies = [[p.exercise.prompt + p.body] for p in problems if p.mutant]
    wrong = [[p.exercise.prompt + p.mutant] for p in problems if p.mutant]
    asked = [p for p in problems if p.mutant]
    assert len(asked) > 0.9 * len(problems)
    assert all(sheet[0].passed for sheet in exam.grade(asked, bodies))
    assert not any(sheet[0].passed for sheet in exam.grade(asked, wrong))


def test_what_is_no_python_or_another_function_is_not_run_and_does_not_pass(problems):
    name = problems[0].exercise.entry_point
    sheets = [["def", f"def {name}x(): pass", f"def {name}(*a):\n    return None", ""]]
    assert [(g.passed, g.parses) for g in exam.grade(problems[:1], sheets)[0]] == [
        (False, False), (False, False), (False, True), (False, False),
    ]  # fmt: skip


def test_copying_gives_the_nearest_exercise_under_the_problems_name(training):
    asked = [Problem("same", exercise) for exercise in training[:5]]
    for (program,), problem in zip(exam.copied(training, asked), asked, strict=True):
        assert program == problem.exercise.solution
        outcome = verify(program, problem.exercise.entry_point, problem.exercise.tests)
        assert outcome.verdict is Verdict.PASSED


def test_a_saved_examination_is_read_back_as_it_was(problems, tmp_path):
    exam.save(problems, tmp_path / "exam.jsonl")
    assert exam.load(tmp_path / "exam.jsonl") == problems


def test_a_stratum_that_cannot_be_filled_says_so(training, monkeypatch):
    monkeypatch.setattr(exam, "examination", lambda *_: training[:3])
    with pytest.raises(ValueError, match="ask for fewer"):
        exam.draw([], [], 5, seed=1, depth=3)
