"""From a raw answer to a record, by syntax tree.

An answer is markdown; only its fences are found by pattern. What is inside them is read with `ast`, never split
on words: a function called `default_value` or a docstring that says "def" changes nothing.
"""

import ast
import doctest
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from textbooks.records import Exercise, Section
from textbooks.teachers import Prompt
from textbooks.verify import parse_test

FENCE = re.compile(r"^```[ \t]*(\w*)[^\n]*\n(.*?)(?:^```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
MIN_TESTS = 3
BROKEN = (SyntaxError, ValueError, RecursionError, MemoryError)  # what ast.parse raises for text that is not Python


class Unparsed(ValueError):
    """Why an answer is no record: one sentence."""


@dataclass(frozen=True)
class Claim:
    """What a page says that a program answers: to be verified like the tests of an exercise."""

    program: str
    entry_point: str
    tests: tuple[str, ...]


def fences(text: str) -> list[str]:
    """The contents of the fenced Python blocks of a markdown text."""
    return [body for tag, body in FENCE.findall(text) if tag.lower() in ("python", "py", "python3", "pycon", "")]


def parse_exercise(text: str, prompt: Prompt, teacher: str, spec: Mapping) -> Exercise:
    """The exercise in an answer: a function with a docstring, what it needs, and literal asserts about it.

    Raises Unparsed."""
    blocks = fences(text)
    source = "\n\n".join(blocks) if blocks else text
    try:
        source, body = _whole_statements(source)
    except BROKEN as error:
        if not blocks:
            raise Unparsed("It holds no fenced Python.") from None
        raise Unparsed(f"It is not Python ({getattr(error, 'msg', type(error).__name__)}).") from None
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
    if not functions:
        raise Unparsed("It defines no function.")
    asserts = [node for node in body if isinstance(node, ast.Assert)]
    called = [name for node in asserts if (name := _asserted(node)) in functions]
    if not called:
        raise Unparsed("No assert calls a function of the answer.")
    entry_point = max(functions, key=called.count)
    entry = functions[entry_point]
    if not (ast.get_docstring(entry) or "").strip():
        raise Unparsed("The function has no docstring.")
    if len(entry.body) == 1 or all(isinstance(node, ast.Pass) for node in entry.body[1:]):
        raise Unparsed("The function has no body.")
    tests = tuple(dict.fromkeys(t for node in asserts if (t := _literal(source, node, entry_point))))
    if len(tests) < MIN_TESTS:
        raise Unparsed(f"It has {len(tests)} literal asserts about {entry_point}; {MIN_TESTS} are asked for.")
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    needed = [_lines(source, node) for node in body if isinstance(node, kept) and node is not entry]
    before = "\n\n\n".join([*needed, ""]) if needed else ""
    solution = before + _lines(source, entry)
    start = min([entry.lineno, *(d.lineno for d in entry.decorator_list)])
    head = source.splitlines()[start - 1 : entry.body[0].end_lineno]
    head[-1] = _until(head[-1], entry.body[0].end_col_offset)
    return Exercise(
        entry_point, before + "\n".join(head), solution, tests,
        prompt.draw.topic, prompt.draw.other_topic, prompt.draw.audience, teacher, prompt.text, prompt.seed, spec,
    )  # fmt: skip


def _whole_statements(source: str) -> tuple[str, list[ast.stmt]]:
    """The source and its statements; an answer that was cut off in mid-statement loses its last lines."""
    lines = source.splitlines()
    for end in range(len(lines), 0, -1):
        kept = "\n".join(lines[:end])
        try:
            return kept, ast.parse(kept).body
        except BROKEN:
            if end == 1:
                ast.parse(source)  # raises what is wrong with the whole
    raise SyntaxError("it is empty")


def _until(line: str, column: int) -> str:
    """A line up to a column that is counted, as `ast` does, in bytes of UTF-8."""
    return line.encode()[:column].decode()


def _lines(source: str, node: ast.stmt) -> str:
    start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
    return "\n".join(source.splitlines()[start - 1 : node.end_lineno]).rstrip()


def _asserted(node: ast.Assert) -> str:
    """The name of the function that an assert calls on its left side."""
    test = node.test.operand if isinstance(node.test, ast.UnaryOp) else node.test
    call = test.left if isinstance(test, ast.Compare) else test
    return call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""


def _literal(source: str, node: ast.Assert, entry_point: str) -> str:
    """The assert as `assert f(literals) == literal`, or "" if it is none; `is True`, `f(x)` and `not f(x)` count."""
    test, value = node.test, "True"
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        test, value = test.operand, "False"
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq | ast.Is):
        value = ast.get_source_segment(source, test.comparators[0]) or ""
        test = test.left
    text = f"assert {ast.get_source_segment(source, test)} == {value}"
    try:
        parse_test(text, entry_point)
    except ValueError:
        return ""
    return text


def parse_section(text: str, prompt: Prompt, teacher: str, spec: Mapping) -> Section:
    """The page in an answer. Raises Unparsed if it has no title, no function, or no claim that can be checked."""
    text = text.strip()
    title = next((line[2:].strip() for line in text.splitlines() if line.startswith("# ")), "")
    if not title:
        raise Unparsed("It has no title.")
    claims(text)
    return Section(
        title, text, prompt.draw.topic, prompt.draw.other_topic, prompt.draw.audience, teacher, prompt.text,
        prompt.seed, spec,
    )  # fmt: skip


def claims(text: str) -> list[Claim]:
    """Every value that a page's sessions show, beside the code defined above it. Raises Unparsed."""
    code, found = [], []
    for block in fences(text):
        if block.lstrip().startswith(">>>"):
            found += list(_session(block, "\n\n".join(code)))
            continue
        try:
            body = ast.parse(block).body
        except BROKEN:
            raise Unparsed("A fenced block is not Python.") from None
        calls = [node.func for node in ast.walk(ast.Module(body, [])) if isinstance(node, ast.Call)]
        if any(getattr(function, "id", "") == "print" for function in calls):
            raise Unparsed("It prints, so its outputs cannot be checked: it should show a session.")
        code.append(block)
    if not found:
        raise Unparsed("It shows no session whose outputs could be checked.")
    return found


def _session(block: str, program: str) -> Iterator[Claim]:
    try:
        examples = doctest.DocTestParser().get_examples(block)
    except ValueError:
        raise Unparsed("A session is not written as doctest.") from None
    for example in examples:
        try:
            call = ast.parse(example.source, mode="eval").body
            test = f"assert {example.source.strip()} == {example.want.strip() or None}"
            parse_test(test, call.func.id)
        except (SyntaxError, ValueError, AttributeError):
            raise Unparsed("A session shows a value that cannot be checked: it is not a call with literals.") from None
        yield Claim(program, call.func.id, (test,))
