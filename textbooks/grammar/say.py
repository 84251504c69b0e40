"""One composition in English: what the function is called and what its docstring says.

A docstring is a frame (an order, a noun phrase, a numbered list …) filled with one wording of every step. Noun
phrases put the operation before what it acts on ("the sum of the squares of xs"), so that nesting them stays
unambiguous.
"""

import random
import textwrap
from collections.abc import Sequence

from textbooks.audiences import Audience
from textbooks.grammar.compose import ITEMS, Composition, Step

FRAMES = ("orders", "noun", "bare noun", "story", "list", "mixed", "contract", "purpose", "question", "request")
KINDS = {
    "ints": "a list of whole numbers", "words": "a list of words", "text": "a text", "int": "a whole number",
    "table": "a dictionary from words to whole numbers", "flag": "True or False",
}  # fmt: skip
PLAIN_NAMES = {
    "ints": ("nums", "numbers", "values", "xs", "data"), "words": ("words", "strings", "names", "tokens", "terms"),
    "text": ("text", "s", "line", "message", "string"), "int": ("n", "number", "value", "num", "amount"),
    "table": ("table", "counts", "mapping", "lookup", "d"),
}  # fmt: skip
RARE_NAMES = {"ints": "sequence", "words": "entries", "text": "content", "int": "integer", "table": "registry"}
VERBS = ("get", "find", "compute", "make", "build")
BLANK_NAMES = ("solve", "transform", "process", "answer", "work_out", "evaluate")
RARE_VERBS = ("derive", "obtain", "yield_of")


def order(step: Step, wording: int) -> str:
    return step.primitive.do[wording].format(k=step.k, items=ITEMS.get(step.primitive.takes, "entries"))


def noun(step: Step, wording: int, of: str) -> str:
    items = ITEMS.get(step.primitive.takes, "entries")
    return step.primitive.of[wording].format(x=of, k=step.k, items=items)


def nested(steps: Sequence[Step], wordings: Sequence[int], of: str) -> str:
    for step, wording in zip(steps, wordings, strict=True):
        of = noun(step, wording, of)
    return of


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def chained(orders: Sequence[str]) -> str:
    if len(orders) == 1:
        return orders[0]
    if len(orders) == 2:
        return f"{orders[0]}, then {orders[1]}"
    return ", ".join([orders[0], *(f"then {o}" for o in orders[1:-1])]) + f", and finally {orders[-1]}"


def sentences(steps: Composition, wordings: Sequence[int], frame: str, argument: str, role: str) -> list[str]:
    """The docstring's paragraphs."""
    orders = [order(step, wording) for step, wording in zip(steps, wordings, strict=True)]
    phrase = nested(steps, wordings, argument)
    kind = KINDS[steps[0].primitive.takes]
    if frame == "orders":
        return [f"Given {argument}, {chained(orders)}. Return the result."]
    if frame == "noun":
        return [f"Return {phrase}."]
    if frame == "bare noun":
        return [f"{capital(phrase)}."]
    if frame == "story":
        told = ". ".join(capital(o) if n == 0 else f"Then {o}" for n, o in enumerate(orders))
        return [f"{capital(role)} has {kind}, {argument}. {told}. Return what comes out."]
    if frame == "list":
        lines = [f"{number}. {capital(o)}." for number, o in enumerate(orders, 1)]
        return [f"Start from {argument} and return the last result:", "\n".join(lines)]
    if frame == "mixed" and len(steps) > 1:
        last = noun(steps[-1], wordings[-1], "what you have then")
        return [f"From {argument}, {chained(orders[:-1])}. Return {last}."]
    if frame == "contract":
        return [f"{argument}: {kind}.\nReturns {KINDS[steps[-1].primitive.gives]}: {phrase}."]
    if frame == "purpose":
        return [f"For {role}: {phrase}."]
    if frame == "question":
        return [f"Can you tell {phrase}? Return it."]
    if frame == "request":
        return [f"Please take {argument} and {chained(orders)}; hand back the outcome."]
    return [f"Return {phrase}."]


def docstring(paragraphs: Sequence[str], examples: Sequence[str], indent: str = "    ") -> list[str]:
    """The docstring's lines, quotes included; examples are (call, output) lines for doctest."""
    lines: list[str] = []
    for paragraph in paragraphs:
        lines += [""] if lines else []
        for line in paragraph.split("\n"):
            lines += textwrap.wrap(line, 80, break_long_words=False, break_on_hyphens=False)
    if examples:
        lines += ["", *examples]
    if len(lines) == 1:
        return [f'{indent}"""{lines[0]}"""']
    return [f'{indent}"""{lines[0]}', *((indent + line).rstrip() for line in lines[1:]), f'{indent}"""']


def argument_name(takes: str, audience: Audience, unseen: bool, rng: random.Random) -> str:
    """The name of the first argument: the audience's word for it, or a plain one."""
    if unseen:
        return rng.choice((audience.names[takes], RARE_NAMES[takes]))
    return audience.names[takes] if rng.random() < 0.5 else rng.choice(PLAIN_NAMES[takes])


def function_name(steps: Composition, argument: str, unseen: bool, rng: random.Random) -> str:
    """A name that tells the steps, in one of several fashions, or (one in six) nothing at all."""
    words = [rng.choice(step.primitive.names) for step in steps]
    if unseen:
        return f"{rng.choice(RARE_VERBS)}_{'_'.join(words)}"
    choice = rng.random()
    if choice < 0.17:
        return f"{rng.choice(BLANK_NAMES)}_{argument}"
    if choice < 0.45:
        name = "_of_".join(reversed(words))
    elif choice < 0.75:
        name = "_".join(words)
    else:
        name = f"{rng.choice(VERBS)}_{'_'.join(reversed(words))}"
    return name if name not in ("sum", "sorted", "reversed", "set", "max", "min", argument) else f"get_{name}"

