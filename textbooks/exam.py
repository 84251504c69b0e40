"""The examination: problems that no arm was trained on, in strata, and how an answer sheet is graded by running it.

| stratum | what is new about it |
|---|---|
| same | nothing but the problem: same primitives, pairs, depth and wording as in training |
| pairs | two primitives that never stand next to each other in training |
| longer | one primitive more than any training exercise has |
| wording | frames, wordings and names kept back |
| textbook | a primitive that pages explain and no exercise uses |
| unconventional | written by hand; no composition of primitives |

A problem is left out if a training record has the same syntax tree, the same behaviour, or (pages, whose behaviour is
not recorded) the same primitives with the same parameters.
"""

import ast
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from textbooks import unconventional
from textbooks.completion import Coder, complete, log_likelihood
from textbooks.corpora import renamed
from textbooks.decontaminate import functions, tfidf
from textbooks.dedup import normalised_tree
from textbooks.grammar.compose import standard_hold_out
from textbooks.grammar.exercise import STRATA as DRAWN
from textbooks.records import Exercise, Section, from_row, read_jsonl, to_row, write_jsonl
from textbooks.stand_ins import mutants
from textbooks.teachers.grammar import examination
from textbooks.verify import Job, verify_many

STRATA = (*DRAWN, "unconventional")
MAX_NEW_TOKENS = 110
HUMANEVAL = 164  # problems
HUMANEVAL_TOKENS = 128


@dataclass(frozen=True)
class Problem:
    """`mutant` is the solution's body with one small mistake that the tests catch, `body` the right one, both laid
    out by the same printer; "" where no mutant was caught."""

    stratum: str
    exercise: Exercise
    body: str = ""
    mutant: str = ""


def draw(
    exercises: Sequence[Exercise], sections: Sequence[Section], count: int, seed: int, depth: int
) -> list[Problem]:  # fmt: skip
    """`count` problems of each stratum (of the unconventional one there are 50), none of them in the training records.
    They are compositions of at most `depth` primitives, as the exercises are, and of one more in the stratum `longer`.

    Raises ValueError if a stratum cannot be filled.
    """
    seen = {record.spec["behaviour"] for record in exercises if "behaviour" in record.spec}
    trees = {tree for record in (*exercises, *sections) for tree in _trees(record)}
    explained = {_recipe(page) for page in sections if "primitives" in page.spec}
    hold_out = replace(standard_hold_out(), max_depth=depth)
    drawn: list[Problem] = []
    for stratum in DRAWN:
        candidates = examination(stratum, count + count // 4 + 5, seed, seen, hold_out)
        kept = [e for e in candidates if _recipe(e) not in explained and trees.isdisjoint(_trees(e))]
        if len(kept) < count:
            raise ValueError(f"stratum {stratum!r} has {len(kept)} unseen problems of {count}: ask for fewer")
        kept = kept[:count]
        drawn += [Problem(stratum, exercise) for exercise in kept]
        seen |= {exercise.spec["behaviour"] for exercise in kept}
        trees |= {tree for exercise in kept for tree in _trees(exercise)}
    drawn += [Problem("unconventional", exercise) for exercise in unconventional.problems()[:count]]
    return with_mutants(drawn)


def _trees(record: Exercise | Section) -> set[str]:
    found = (normalised_tree(function.program) for function in functions(record))
    return {ast.dump(tree) for tree in found if tree is not None}


def _recipe(record: Exercise | Section) -> tuple:
    return tuple(record.spec["primitives"]), tuple(record.spec["parameters"])


def with_mutants(problems: Sequence[Problem], allow_weaker: bool = False) -> list[Problem]:
    """Each problem with its first mutant that its tests catch."""
    made = {i: mutants(problem.exercise.solution) for i, problem in enumerate(problems)}
    jobs = [
        Job((i, k), mutant.program, problems[i].exercise.entry_point, problems[i].exercise.tests)
        for i, found in made.items()
        for k, mutant in enumerate(found[:3])
    ]
    caught: dict[int, int] = {}
    for (i, k), outcome in verify_many(jobs, allow_weaker=allow_weaker):
        if not outcome.passed:
            caught.setdefault(i, k)
    found = []
    for i, problem in enumerate(problems):
        body = body_of(problem.exercise.solution, problem.exercise.entry_point)
        mutant = body_of(made[i][caught[i]].program, problem.exercise.entry_point) if i in caught else ""
        both = bool(mutant) and mutant != body
        found.append(Problem(problem.stratum, problem.exercise, *((body, mutant) if both else ("", ""))))
    return found


def body_of(program: str, name: str) -> str:
    """The statements of a function below its docstring, as one printer lays them out, beginning with a line end."""
    function = next(n for n in ast.parse(program).body if isinstance(n, ast.FunctionDef) and n.name == name)
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    lines = [line for statement in statements for line in ast.unparse(statement).split("\n")]
    return "".join(f"\n    {line}" for line in lines)


def save(problems: Sequence[Problem], path: Path) -> str:
    """Returns the sha256 of the file."""
    rows = ({"stratum": p.stratum, "body": p.body, "mutant": p.mutant, **to_row(p.exercise)} for p in problems)
    return write_jsonl(path, rows)


def load(path: Path) -> list[Problem]:
    def problem(row: dict) -> Problem:
        own = {name: row.pop(name) for name in ("stratum", "body", "mutant")}
        return Problem(exercise=from_row(row), **own)

    return [problem(row) for row in read_jsonl(path)]


# ---------------------------------------------------------------- answering and grading


@dataclass(frozen=True)
class Graded:
    passed: bool
    parses: bool  # is Python and defines the function


def grade(
    problems: Sequence[Problem], answers: Sequence[Sequence[str]], workers: int = 1, allow_weaker: bool = False
) -> list[list[Graded]]:
    """Run every program of every answer sheet (whole programs, several a problem) against the problem's tests, in
    isolation; equal programs run once. Raises RuntimeError for a program that got no verdict: run again."""
    names = [problem.exercise.entry_point for problem in problems]
    parses = [[defines(text, name) for text in texts] for name, texts in zip(names, answers, strict=True)]
    wanted = {
        (i, text): Job((i, text), text, names[i], problems[i].exercise.tests)
        for i, texts in enumerate(answers)
        for text, fine in zip(texts, parses[i], strict=True)
        if fine
    }
    passed = {}
    for key, outcome in verify_many(wanted.values(), workers=workers, allow_weaker=allow_weaker):
        if outcome.verdict == "infrastructure error":
            raise RuntimeError(f"a program got no verdict ({outcome.reason}): run again")
        passed[key] = outcome.passed
    return [
        [Graded(passed.get((i, text), False), fine) for text, fine in zip(texts, parses[i], strict=True)]
        for i, texts in enumerate(answers)
    ]


def defines(program: str, name: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "1if" is bad style, and Python says so on the reader's terminal
            body = ast.parse(program).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in body)


def sit(
    coder: Coder, problems: Sequence[Problem], samples: int = 1, temperature: float = 0.0, seed: int = 0,
    on_done: Callable[[int], None] = lambda done: None,
) -> list[list[str]]:  # fmt: skip
    """The model's answers: the programs (prompt and completion) it writes for each problem."""
    prompts = [problem.exercise.prompt for problem in problems]
    written = complete(coder, prompts, MAX_NEW_TOKENS, samples, temperature, seed, on_done)
    return [[prompt + text for text in texts] for prompt, texts in zip(prompts, written, strict=True)]


def forced_choice(coder: Coder, problems: Sequence[Problem]) -> list[bool | None]:
    """Whether the model finds the right body likelier than the mutant; None where there is no mutant."""
    asked = [problem for problem in problems if problem.mutant]
    prompts = [problem.exercise.prompt for problem in asked]
    right = log_likelihood(coder, prompts, [problem.body for problem in asked])
    wrong = log_likelihood(coder, prompts, [problem.mutant for problem in asked])
    answers = iter(a > b for a, b in zip(right, wrong, strict=True))
    return [next(answers) if problem.mutant else None for problem in problems]


def humaneval_bits_per_byte(coder: Coder, count: int = HUMANEVAL) -> float:
    """How well the model foresees the canonical solutions of HumanEval's first `count` problems: −log₂ p over their
    UTF-8 bytes; lower is better."""
    from textbooks.humaneval import problems

    found = problems()[:count]
    nats = log_likelihood(coder, [p.prompt for p in found], ["\n" + p.canonical_solution.rstrip() for p in found])
    size = sum(len(p.canonical_solution.rstrip().encode()) + 1 for p in found)
    return -float(sum(nats)) / np.log(2) / size


def humaneval(
    coder: Coder, count: int = HUMANEVAL, allow_weaker: bool = False,
    on_done: Callable[[int], None] = lambda done: None,
) -> str:  # fmt: skip
    """HumanEval's first `count` problems, greedy, 128 tokens: "1" for each one solved and "0" for the others."""
    from textbooks.humaneval import check_many, problems

    found = problems()[:count]
    written = complete(coder, [p.prompt for p in found], HUMANEVAL_TOKENS, on_done=on_done)
    pairs = [(problem, texts[0]) for problem, texts in zip(found, written, strict=True)]
    return "".join("01"[outcome.passed] for _, outcome in check_many(pairs, allow_weaker=allow_weaker))


def copied(exercises: Sequence[Exercise], problems: Sequence[Problem]) -> list[list[str]]:
    """The answers of who only looks things up: for each problem the solution of the training exercise whose prompt is
    nearest (cosine of TF-IDF over words and signs), under the problem's name."""
    embed = tfidf([exercise.prompt for exercise in exercises])
    known, asked = embed([e.prompt for e in exercises]), embed([p.exercise.prompt for p in problems])
    nearest = (exercises[int(i)] for i in (asked @ known.T).argmax(axis=1))
    pairs = zip(nearest, problems, strict=True)
    return [[renamed(e.solution, {e.entry_point: p.exercise.entry_point})] for e, p in pairs]


def by_stratum(problems: Sequence[Problem], values: Iterable) -> Iterator[tuple[str, list]]:
    """The values of each stratum, in the strata's order; `values` has one for each problem."""
    grouped: dict[str, list] = {stratum: [] for stratum in STRATA}
    for problem, value in zip(problems, values, strict=True):
        grouped[problem.stratum].append(value)
    return ((stratum, found) for stratum, found in grouped.items() if found)
