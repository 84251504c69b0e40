"""One composition as Python, in several styles.

Neighbouring item-by-item steps (keep, change) and the fold after them are fused into one loop or comprehension,
as a person would write them; the other steps take a whole value. A style may decline (None): too long a line,
or nothing in the composition for it to show.
"""

import ast
import random
from collections.abc import Sequence
from functools import cache

from textbooks.grammar.compose import PARAMETERS, TYPES, Composition, Primitive, Step, run, whole_expression

STYLES = ("comprehension", "nested", "loop", "continue", "functional", "helper", "early return")
ITEM_NAMES = {
    "ints": ("n", "x", "num", "value", "v"), "words": ("word", "w", "item", "s"),
    "text": ("c", "ch", "char", "letter_"), "table": ("value", "v", "amount_", "entry"), "int": ("i", "j"),
}  # fmt: skip
EMPTY = {"ints": "[]", "words": "[]", "text": '""', "table": "{}"}
FLIPPED = {" == ": " != ", " != ": " == ", " > ": " <= ", " < ": " >= ", " not in ": " in ", " in ": " not in "}
MAX_LINE = 88


@cache
def fill(template: str, **slots: str) -> str:
    """The template with its slots filled; an expression is put in parentheses only where leaving them out would
    change what the template means."""
    atomic = {name: text for name, text in slots.items() if _is_atomic(text)}
    wrapped = {name: f"({text})" for name, text in slots.items() if name not in atomic}
    bare, safe = template.format(**slots), template.format(**atomic, **wrapped)
    try:
        return bare if ast.dump(ast.parse(bare)) == ast.dump(ast.parse(safe)) else safe
    except SyntaxError:
        return safe


def _is_atomic(text: str) -> bool:
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:
        return True
    kinds = (ast.Name, ast.Constant, ast.Call, ast.Subscript, ast.Attribute, ast.List, ast.ListComp, ast.DictComp)
    return isinstance(node, kinds)


def negated(test: str) -> str:
    """The opposite of a test, written with the opposite operator where it has a single one."""
    used = [op for op in FLIPPED if op in test]
    used = [op for op in used if not (op == " in " and " not in " in test)]
    return test.replace(used[0], FLIPPED[used[0]]) if len(used) == 1 else f"not {test}"


class Run:
    """Steps that share one pass over the items: any number of keep and change steps, then perhaps one that ends
    the pass (count, any, all, fold). `tests` must hold for an item to count, `value` is what it has become."""

    def __init__(self, steps: Sequence[Step], item: str):
        self.takes, self.gives = steps[0].primitive.takes, steps[-1].primitive.gives
        self.item, self.tests, self.value = item, [], item
        self.end: Step | None = None
        for step in steps:
            primitive = step.primitive
            if primitive.kind == "keep":
                self.tests.append(fill(primitive.code, i=self.value, k=step.k))
            elif primitive.kind == "change":
                self.value = fill(primitive.code, i=self.value, k=step.k)
            else:
                self.end = step
        self.final_test = ""
        if self.end and self.end.primitive.code:
            self.final_test = fill(self.end.primitive.code, i=self.value, k=self.end.k)

    def header(self, source: str) -> str:
        if self.takes == "table":
            return f"for key, {self.item} in {source}.items()"
        return f"for {self.item} in {source}"

    def stream(self, source: str, value: str, tests: Sequence[str]) -> str:
        return f"{value} {self.header(source)}" + (f" if {' and '.join(tests)}" if tests else "")

    def collected(self, inner: str) -> str:
        return f'"".join({inner})' if self.gives == "text" else f"[{inner}]"

    def as_expression(self, source: str) -> str:
        """The pass as a comprehension or a generator handed to a built-in."""
        if self.end is None:
            if self.takes == "table":
                return "{" + self.stream(source, f"key: {self.value}", self.tests) + "}"
            return self.collected(self.stream(source, self.value, self.tests))
        primitive = self.end.primitive
        if primitive.kind == "count":
            tests = [*self.tests, *filter(None, [self.final_test])]
            return f"sum({self.stream(source, '1', tests)})" if tests else f"len({source})"
        if primitive.kind in ("any", "all"):
            return f"{primitive.kind}({self.stream(source, self.final_test, self.tests)})"
        plain = not self.tests and self.value == self.item
        items = source if plain else self.stream(source, self.value, self.tests)
        if not plain and not primitive.expr.endswith("({g})"):
            items = f"({items})"
        return primitive.expr.replace("{g}", items)

    def as_functional(self, source: str, steps: Sequence[Step]) -> str:
        """The pass with map, filter and lambda. Tables have no such form and stay comprehensions."""
        if self.takes == "table":
            return self.as_expression(source)
        items, lazy = source, False
        for step in steps:
            primitive, code = step.primitive, fill(step.primitive.code, i=self.item, k=step.k)
            if primitive.per_item:
                tool = "filter" if primitive.kind == "keep" else "map"
                items, lazy = f"{tool}(lambda {self.item}: {code}, {items})", True
            elif primitive.kind in ("any", "all"):
                return f"{primitive.kind}(map(lambda {self.item}: {code}, {items}))"
            elif primitive.kind == "count":
                counted = f"filter(lambda {self.item}: {code}, {items})" if primitive.code else items
                return f"len(list({counted}))" if lazy or primitive.code else f"len({items})"
            else:
                return primitive.expr.replace("{g}", items)
        return f'"".join({items})' if self.gives == "text" else f"list({items})"

    def as_loop(self, source: str, out: str, skip: bool, leave: bool) -> list[str]:
        """The pass written out. `skip` turns tests into guards with continue; `leave` returns from inside."""
        primitive = self.end.primitive if self.end else None
        kind, value, body = primitive.kind if primitive else "", self.value, []
        tests = list(self.tests)
        if kind == "":
            start = EMPTY[self.gives]
            body = [f"{out}.append({value})"]
            if self.gives in ("text", "table"):
                body = [f"{out} += {value}" if self.gives == "text" else f"{out}[key] = {value}"]
        elif kind == "count":
            start, body = "0", [f"{out} += 1"]
            tests += filter(None, [self.final_test])
        elif kind in ("any", "all"):
            start, found = str(kind == "all"), str(kind == "any")
            tests.append(self.final_test if kind == "any" else negated(self.final_test))
            body = [f"return {found}"] if leave else [f"{out} = {found}", "break"]
        else:
            start = primitive.init
            if primitive.update.count("{i}") > 1 and not value.isidentifier():
                body, value = [f"current = {value}"], "current"
            body += fill(primitive.update, i=value, out=out).split("\n")
        lines = [] if leave and kind in ("any", "all") else [f"{out} = {start}"]
        lines.append(self.header(source) + ":")
        if skip and tests:
            for test in tests:
                lines += [f"    if {negated(test)}:", "        continue"]
            tests = []
        if tests:
            lines.append(f"    if {' and '.join(tests)}:")
        lines += [("        " if tests else "    ") + line for line in body]
        if leave and kind in ("any", "all"):
            lines.append(f"return {start}")
        return lines


def runs(steps: Composition, fuse: bool) -> list[list[Step]]:
    """The composition cut into passes. A change of characters ends its pass: one may have become several."""
    groups: list[list[Step]] = []
    for step in steps:
        last = groups[-1][-1].primitive if groups else None
        streams = step.primitive.kind in ("keep", "change", "count", "any", "all", "fold")
        joins = last is not None and last.per_item and streams and fuse
        if joins and not (last.kind == "change" and last.gives == "text"):
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def whole(step: Step, source: str, item: str) -> str:
    primitive = step.primitive
    return fill(whole_expression(primitive, primitive.code, primitive.expr), x=source, i=item, k=step.k)


def body(steps: Composition, style: str, argument: str, rng: random.Random) -> list[str] | None:
    """The lines of the function's body (not indented), or None if the style has nothing to show here."""
    taken = {argument, *(step.argument for step in steps), "key", "key_", "left", "met", "current", "sum_so_far"}
    item = {kind: _free(names, taken, rng) for kind, names in ITEM_NAMES.items()}
    groups = runs(steps, fuse=style in ("loop", "continue", "early return") or rng.random() < 0.6)
    lines: list[str] = []
    if style == "early return":
        lines = _guard(steps, argument)
    if style == "helper":
        return _with_helper(steps, argument, item, rng)
    loops = style in ("loop", "continue") or (style == "early return" and steps[-1].primitive.kind in ("any", "all"))
    source, used = argument, taken | set(item.values())
    for number, group in enumerate(groups):
        first, final = group[0].primitive, number == len(groups) - 1
        pass_ = Run(group, item[first.takes]) if first.kind != "whole" else None
        variable = "result" if final and rng.random() < 0.4 else _variable(group[-1].primitive, used)
        if loops and (pass_ or first.loop):
            if pass_:
                lines += pass_.as_loop(source, variable, style == "continue", style == "early return" and final)
            else:
                loop = fill_lines(first.loop, x=source, out=variable, i=item["int"] if "range" in first.loop
                                  or first.takes == "int" else item[first.takes], k=group[0].k)
                lines += loop
            finish = group[-1].primitive.finish.format(out=variable)
            if finish != variable and not final:
                lines.append(f"{variable} = {finish}")
            if final and not lines[-1].startswith("return"):
                lines.append(f"return {finish}")
        else:
            if pass_ is None:
                expression = whole(group[0], source, item["int"] if "range" in first.expr else item[first.takes])
            elif style == "functional":
                expression = pass_.as_functional(source, group)
            else:
                expression = pass_.as_expression(source)
            if final:
                assign = style == "comprehension" and rng.random() < 0.3
                lines += [f"{variable} = {expression}", f"return {variable}"] if assign else [f"return {expression}"]
            elif style == "nested" and _slots(groups[number + 1]) == 1 and len(expression) < 60:
                source = expression if _is_atomic(expression) else f"({expression})"
                continue
            else:
                lines.append(f"{variable} = {expression}")
        used.add(variable)
        source = variable
    shown = {"functional": "lambda", "continue": "continue", "loop": "for "}.get(style, "")
    text = "\n".join(lines)
    if not lines or shown not in text or any(len(line) > MAX_LINE - 4 for line in lines):
        return None
    return lines


def _slots(group: Sequence[Step]) -> int:
    first = group[0].primitive
    return first.expr.count("{x}") + first.expr.count("{g}") if first.kind in ("whole", "fold") else 1


def fill_lines(template: str, **slots: str) -> list[str]:
    return template.format(**slots).split("\n")


def _free(names: Sequence[str], taken: set[str], rng: random.Random) -> str:
    return rng.choice([name.rstrip("_") for name in names if name.rstrip("_") not in taken] or ["it"])


def _variable(primitive: Primitive, used: set[str]) -> str:
    return next(name for name in (*primitive.names, "result", "outcome", "answer") if _usable(name, used))


def _usable(name: str, used: set[str]) -> bool:
    return name not in used and name not in ("sum", "sorted", "reversed", "min", "max", "set")


def _guard(steps: Composition, argument: str) -> list[str]:
    """A first line that answers for empty input, or nothing if the answer depends on the other arguments."""
    takes = steps[0].primitive.takes
    if takes not in EMPTY:
        return []
    choices = [PARAMETERS[s.primitive.param][0] if s.argument else (s.value,) for s in steps]
    empty = ast.literal_eval(EMPTY[takes])
    answers = {repr(run(steps, empty, [values[i % len(values)] for values in choices])[-1]) for i in range(12)}
    if len(answers) != 1:
        return []
    answer = answers.pop()
    return [f"if not {argument}:", "    return " + ('""' if answer == "''" else answer)]


def _with_helper(steps: Composition, argument: str, item: dict, rng: random.Random) -> list[str] | None:
    """An inner function for the first step that looks at one item, called from a comprehension."""
    number = next((n for n, s in enumerate(steps) if s.primitive.code and s.primitive.takes != "table"), None)
    if number is None:
        return None
    step = steps[number]
    primitive, name = step.primitive, item[step.primitive.takes]
    changes = primitive.kind == "change"
    helper = rng.choice(("convert", "changed", "new_value") if changes else ("wanted", "fits", "passes"))
    lines = [f"def {helper}({name}):", f"    return {fill(primitive.code, i=name, k=step.k)}", ""]
    called = Primitive(**{**vars(primitive), "code": f"{helper}({{i}})"})
    new = (*steps[:number], Step(called, step.value, step.argument), *steps[number + 1 :])
    rest = body(new, "comprehension", argument, rng)
    return None if rest is None or any(len(line) > MAX_LINE - 4 for line in lines) else lines + rest


def signature(name: str, steps: Composition, argument: str) -> str:
    """`def name(argument: type, ...) -> type:` with the parameters that are arguments in order of use."""
    given = [f"{argument}: {TYPES[steps[0].primitive.takes]}"]
    given += [f"{s.argument}: {PARAMETERS[s.primitive.param][2]}" for s in steps if s.argument]
    return f"def {name}({', '.join(given)}) -> {TYPES[steps[-1].primitive.gives]}:"
