"""Answers are read by syntax tree: what looks like code in a text, or like a keyword in a name, changes nothing."""

import pytest

from textbooks.parse import Unparsed, claims, parse_exercise, parse_section
from textbooks.teachers import Prompt
from textbooks.topics import Draw

PROMPT = Prompt(0, "exercise", Draw("A/b/c", "D/e/f", "a baker"), 0, "the prompt")
GOOD = '''def default_def(define: str, deft: int = 3) -> str:
    """Return the default: def is not a keyword here.

    >>> default_def("def", 1)
    'def'
    """
    return define * deft if deft else "def "'''
TESTS = 'assert default_def("a", 2) == "aa"\nassert default_def("def", 1) == "def"\nassert default_def("", 0) == "def "'


def parse(text):
    return parse_exercise(text, PROMPT, "teacher", {})


def test_the_word_def_in_names_docstrings_and_strings_does_not_split_an_answer():
    exercise = parse(f"Here you are:\n\n```python\n{GOOD}\n\n{TESTS}\n```\nDone, def!")
    assert exercise.solution == GOOD
    assert exercise.prompt == GOOD[: GOOD.rindex('"""') + 3]
    assert exercise.tests == tuple(TESTS.split("\n"))


def test_the_solution_starts_with_the_prompt_and_neither_ends_with_a_newline():
    exercise = parse(f"```python\nimport math\n\n{GOOD}\n\n\n{TESTS}\n\n```")
    assert exercise.solution.startswith(exercise.prompt) and exercise.prompt.startswith("import math")
    assert not exercise.solution.endswith("\n") and not exercise.prompt.endswith("\n")
    exec(exercise.solution + "\n" + "\n".join(exercise.tests), {})


def test_a_helper_defined_below_is_moved_above():
    text = f"{GOOD.replace('define * deft', 'again(define, deft)')}\n\ndef again(s, n):\n    return s * n\n\n{TESTS}"
    exercise = parse(text)
    assert exercise.prompt.index("def again") < exercise.prompt.index("def default_def")
    exec(exercise.solution + "\n" + "\n".join(exercise.tests), {})


def test_characters_beyond_ascii_do_not_shift_the_prompt():
    code = 'def f(ä: int) -> int:\n    """Gib ä zurück – €."""; x = 1\n    return ä\n'
    exercise = parse(code + "assert f(1) == 1\nassert f(2) == 2\nassert f(3) == 3")
    assert exercise.prompt.endswith('– €."""')


def test_is_true_and_bare_calls_count_as_tests():
    code = 'def even(n: int) -> bool:\n    """Even?"""\n    return n % 2 == 0\n'
    tests = parse(code + "assert even(2)\nassert not even(3)\nassert even(4) is True\n").tests
    assert tests == ("assert even(2) == True", "assert even(3) == False", "assert even(4) == True")


def test_an_answer_cut_off_in_the_middle_keeps_its_whole_statements():
    exercise = parse(f'```python\n{GOOD}\n\n{TESTS}\nassert default_def("b", 2) == "b')
    assert exercise.tests == tuple(TESTS.split("\n"))


BAD = {
    "It holds no fenced Python": "I would rather not.",
    "It is not Python": "```python\ndef f(:\n```",
    "no function": "```python\nx = 1\nassert x == 1\n```",
    "No assert calls": f"```python\n{GOOD}\nassert 1 == 1\n```",
    "no docstring": "```python\ndef f(n):\n    return n\nassert f(1) == 1\nassert f(2) == 2\nassert f(3) == 3\n```",
    "no body": '```python\ndef f(n):\n    """D."""\nassert f(1) == 1\nassert f(2) == 2\nassert f(3) == 3\n```',
    "1 literal asserts": f'```python\n{GOOD}\nassert default_def("a") == "aaa"\nassert default_def(x) == y\n```',
}


@pytest.mark.parametrize("reason", BAD)
def test_what_is_no_exercise_is_refused_with_the_reason(reason):
    with pytest.raises(Unparsed, match=reason):
        parse(BAD[reason])


def test_nothing_in_an_answer_is_executed_while_it_is_read(tmp_path):
    mark = tmp_path / "mark"
    parse(f"```python\nimport os\nos.mkdir({str(mark)!r})\n{GOOD}\n{TESTS}\n```")
    assert not mark.exists()


PAGE = '''# Doubling

Text with `def`.

```python
def double(n: int) -> int:
    """Twice n."""
    return 2 * n
```

```python
>>> double(4)
8
>>> double(-1)
-2
```
'''


def test_a_page_claims_what_its_sessions_show():
    assert parse_section(PAGE, PROMPT, "teacher", {}).title == "Doubling"
    found = claims(PAGE)
    assert [claim.tests for claim in found] == [("assert double(4) == 8",), ("assert double(-1) == -2",)]
    assert all("def double" in claim.program and claim.entry_point == "double" for claim in found)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("# Doubling", "Doubling"), "no title"),
        ((">>> double(4)\n8\n>>> double(-1)\n-2", "double(4)"), "no session"),
        ((">>> double(4)", ">>> print(double(4))"), "cannot be checked"),
        (("return 2 * n", "print(n)"), "prints"),
        (("return 2 * n", "return 2 * "), "not Python"),
    ],
)
def test_a_page_whose_outputs_cannot_be_checked_is_refused(change, reason):
    with pytest.raises(Unparsed, match=reason):
        parse_section(PAGE.replace(*change), PROMPT, "teacher", {})
