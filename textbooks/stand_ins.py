"""Programs that are not the solution and must fail its tests: trivial ones, and mutants of the solution.

A trivial stand-in returns None, one of its arguments, or a constant taken from the expected values. A mutant is the
solution with one small change. Some mutants are equivalent to the solution, which no test can or should detect;
whether two programs are equivalent is undecidable, so it is approximated: a mutant that also agrees with the solution
on `probes`, arguments recombined from and near to those of the tests, counts as equivalent. So a difference that
shows only far from all the tests' arguments is not held against them.
"""

import ast
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

MAX_MUTANTS = 8
MAX_PROBES = 24


@dataclass(frozen=True)
class Case:
    """`assert entry_point(*arguments) == expected`, taken apart."""

    source: str
    arguments: tuple
    expected: object


@dataclass(frozen=True)
class StandIn:
    name: str  # what it does instead, as a phrase: "returns its first argument"
    program: str


def trivial_stand_ins(entry_point: str, tests: Sequence[Case]) -> list[StandIn]:
    """Programs written here, not by a model; each is one `return` of something that ignores the task."""
    arity = min((len(test.arguments) for test in tests), default=0)
    answers = {"returns None": "None"}
    answers |= {f"returns argument {i + 1}": f"args[{i}]" for i in range(arity)}
    answers |= {f"always returns {constant}"[:80]: constant for constant in sorted({repr(t.expected) for t in tests})}
    return [StandIn(name, f"def {entry_point}(*args):\n    return {value}") for name, value in answers.items()]


COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
DROPPED = (ast.Assign, ast.AugAssign, ast.Expr, ast.Return)
Change = tuple[str, Callable[[], None], Callable[[], None]]  # what it is, do it, undo it


def _assign(target: object, name: str, value: object, label: str) -> Change:
    old = getattr(target, name)
    return label, lambda: setattr(target, name, value), lambda: setattr(target, name, old)


def _changes(tree: ast.AST) -> Iterator[Change]:
    """Every single change, in the order of the source."""
    for node in ast.walk(tree):
        line = f"on line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Compare):
            old, *rest = node.ops
            new = COMPARISONS[type(old)]()
            yield _assign(node, "ops", [new, *rest], f"{type(old).__name__} becomes {type(new).__name__} {line}")
        elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in ARITHMETIC:
            new = ARITHMETIC[type(node.op)]()
            yield _assign(node, "op", new, f"{type(node.op).__name__} becomes {type(new).__name__} {line}")
        elif isinstance(node, ast.Constant) and type(node.value) is bool:
            yield _assign(node, "value", not node.value, f"{node.value} becomes {not node.value} {line}")
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            yield _assign(node, "value", node.value + 1, f"{node.value} becomes {node.value + 1} {line}")
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            negated = ast.UnaryOp(ast.Not(), node.test)
            yield _assign(node, "test", negated, f"the condition is negated {line}")
        for name in ("body", "orelse"):
            block = getattr(node, name, None)
            for i, statement in enumerate(block if isinstance(block, list) else []):
                if isinstance(statement, DROPPED) and not _docstring(statement):
                    dropped = [*block[:i], ast.Pass(), *block[i + 1 :]]
                    label = f"the statement on line {statement.lineno} is dropped"
                    yield _assign(node, name, dropped, label)


def _docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def mutants(solution: str, limit: int = MAX_MUTANTS) -> list[StandIn]:
    """At most `limit` mutants, spread evenly over the solution's possible changes; [] if it does not
    parse."""
    try:
        tree = ast.parse(solution)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    changes = list(_changes(tree))
    chosen = {round(i * (len(changes) - 1) / max(1, limit - 1)) for i in range(limit)} if changes else set()
    found = []
    for i in sorted(chosen):
        label, change, undo = changes[i]
        change()
        try:
            found.append(StandIn(label, ast.unparse(ast.fix_missing_locations(tree))))
        except RecursionError:
            return []  # nested too deep to be written out
        undo()
    return found


def probes(tests: Sequence[Case], limit: int = MAX_PROBES) -> list[tuple]:
    """More arguments in the likeness of the tests': recombined between tests, and each one varied
    slightly."""
    seen = {repr(test.arguments) for test in tests}
    arities = {len(test.arguments) for test in tests}
    found: list[tuple] = []
    for arity in sorted(arities):
        rows = [test.arguments for test in tests if len(test.arguments) == arity]
        varied = ((*row[:i], near, *row[i + 1 :]) for row in rows for i in range(arity) for near in _near(row[i]))
        recombined = itertools.product(*zip(*rows, strict=True)) if arity > 1 else ()
        for candidate in itertools.chain(varied, itertools.islice(recombined, 4 * limit)):
            if repr(candidate) not in seen:
                seen.add(repr(candidate))
                found.append(candidate)
    stride = max(1, len(found) // limit)
    return found[::stride][:limit]


def _near(value: object) -> list:
    if type(value) is int:
        return [value + 1, value - 1] if value > 0 else [value + 1]
    if type(value) in (str, list, tuple) and len(value) > 1:
        return [value[:-1], value[1:], value[::-1], value + value]
    if type(value) is dict and len(value) > 1:
        return [dict(list(value.items())[1:])]
    if type(value) is float:
        return [value + 0.5]
    return [not value] if type(value) is bool else []
