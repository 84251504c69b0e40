"""Inputs that tell a composition from its neighbours.

A test is only worth having if a wrong program fails it. So inputs are drawn around the parameters (the bound
itself, one less, one more), and those are kept that separate the composition from its mutants: a step left out,
two steps swapped, a parameter off by one, the documented trap. A composition in which a step never matters is
refused.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from textbooks.audiences import Audience
from textbooks.grammar.compose import PARAMETERS, Composition, TooLarge, run, trapped
from textbooks.records import digest

MAX_REPR = 76


def draw_value(kind: str, audience: Audience, ks: Sequence[object], rng: random.Random) -> object:
    """One value of this type: small, now and then empty, leaning towards the parameters and to repeats."""
    near = [k + d for k in ks if isinstance(k, int) for d in (-1, 0, 1)]
    letters = [k for k in ks if isinstance(k, str) and len(k) == 1 and k.isalpha()]

    def number() -> int:
        return rng.choice(near) if near and rng.random() < 0.35 else rng.randint(-9, 20)

    def word() -> str:
        chosen = rng.choice(audience.samples)
        if letters and rng.random() < 0.3:
            chosen = rng.choice(letters) + chosen
        return chosen if rng.random() < 0.85 else rng.choice((chosen.upper(), chosen[::-1], chosen[:2], chosen + "s"))

    size = rng.choice((0, 1, 2, 3, 3, 4, 4, 5, 5, 6, 7))
    if kind == "int":
        return rng.choice((0, 1, rng.randint(2, 12), rng.randint(2, 12), rng.randint(10, 60), -rng.randint(1, 30)))
    if kind == "ints":
        values = [number() for _ in range(size)]
        values = sorted(values) if rng.random() < 0.15 else values
        return values + values[:1] if size > 1 and rng.random() < 0.3 else values
    if kind == "words":
        values = [word() for _ in range(size)]
        return values + values[:1] if size > 1 and rng.random() < 0.4 else values
    if kind == "text":
        text = " ".join(word() for _ in range(rng.choice((0, 1, 1, 2, 2, 3))))
        if rng.random() < 0.2:
            return text[: len(text) // 2] + text[: len(text) // 2][::-1]
        return text + rng.choice(("", "", " 12", "!", " 7a", ", 305"))
    return {word(): number() for _ in range(rng.choice((0, 1, 2, 3, 4, 5)))}


def draw_ks(steps: Composition, rng: random.Random) -> list[object]:
    """Parameters for one call: those that are arguments vary, the others are what they are."""
    ks = []
    for step in steps:
        values = PARAMETERS[step.primitive.param][0] if step.argument else ()
        ks.append(rng.choice(values) if values and rng.random() < 0.75 else step.value)
    return ks


def small(value: object) -> bool:
    if isinstance(value, int):
        return abs(value) < 10**7
    if isinstance(value, dict):
        return all(map(small, value.values())) and len(value) <= 16
    if isinstance(value, str):
        return len(value) <= 60
    return len(value) <= 40 and all(map(small, value))


Mutant = Callable[[object, Sequence[object]], object]


def mutants(steps: Composition) -> Iterator[tuple[str, Mutant]]:
    """(what was changed, the changed composition as a function of value and parameters)."""
    for place, step in enumerate(steps):
        primitive = step.primitive
        if primitive.takes == primitive.gives:
            rest = steps[:place] + steps[place + 1 :]
            yield "dropped", lambda v, ks, rest=rest, p=place: run(rest, v, [*ks[:p], *ks[p + 1 :]])[-1] if rest else v
        follows = steps[place + 1].primitive if place + 1 < len(steps) else None
        if follows and primitive.takes == primitive.gives == follows.takes == follows.gives:
            order = [*range(place), place + 1, place, *range(place + 2, len(steps))]
            turned = tuple(steps[i] for i in order)
            yield "swapped", lambda v, ks, t=turned, o=order: run(t, v, [ks[i] for i in o])[-1]
        if primitive.param and not step.argument and isinstance(step.value, int):
            for shift in (-1, 1):
                yield "shifted", lambda v, ks, p=place, s=shift: run(steps, v, [*ks[:p], ks[p] + s, *ks[p + 1 :]])[-1]
        wrong = (*steps[:place], replace(step, primitive=trapped(primitive)), *steps[place + 1 :])
        yield "trapped", lambda v, ks, w=wrong: run(w, v, ks)[-1]


def outcome(function: Mutant, value: object, ks: Sequence[object]) -> str:
    """What the function gives, or the name of the error it raises."""
    try:
        return repr(function(value, ks))
    except Exception as error:
        return type(error).__name__


Case = tuple[object, list[object], object]  # the value, the parameters, the result


def draw_cases(steps: Composition, audience: Audience, rng: random.Random, count: int) -> list[Case] | None:
    """`count` calls with their results, chosen to kill the mutants. None if the composition is degenerate: a
    step that never matters, a result that hardly varies, or values that grow too large to be read."""
    found: dict[str, Case] = {}
    met: list[set[str]] = [set() for _ in steps]  # the distinct values after each step
    for _ in range(4 * count + 12):
        ks = draw_ks(steps, rng)
        value = draw_value(steps[0].primitive.takes, audience, ks, rng)
        try:
            passed = run(steps, value, ks)
        except TooLarge:
            continue
        if all(map(small, passed)) and len(repr(value)) + len(repr(passed[-1])) <= MAX_REPR:
            given = repr((value, [k for k, step in zip(ks, steps, strict=True) if step.argument]))
            found.setdefault(given, (value, ks, passed[-1]))
            for place, result in enumerate(passed):
                met[place].add(repr(result))
    cases = list(found.values())
    results = [repr(result) for _, _, result in cases]
    varied = 2 if steps[-1].primitive.gives == "flag" else 4
    if len(cases) < count or len(set(results)) < varied or min(map(len, met)) < 2:
        return None
    if max(map(results.count, results)) > 0.8 * len(results):
        return None
    chosen: list[int] = []
    for kind, mutant in mutants(steps):
        answers = [outcome(mutant, value, ks) for value, ks, _ in cases]
        told = {n for n, answer in enumerate(answers) if answer != results[n]}
        if not told and kind == "dropped":
            return None
        if told and not told & set(chosen):
            chosen.append(min(told))
    for number in sorted(range(len(cases)), key=lambda n: results[:n].count(results[n])):
        if len(chosen) < count and number not in chosen:
            chosen.append(number)
    return [cases[number] for number in chosen]


def behaviour(steps: Composition, audience: Audience) -> str:
    """A hash of what the composition does on a fixed set of inputs, the same for programs that compute the same
    function with the same arguments, however they are written."""
    rng = random.Random("behaviour")
    plain = replace(audience, samples=("ada", "Zoe", "level", "kit", "Rotor", "banana", "sky", "tree"))
    answers = []
    for _ in range(24):
        ks = [PARAMETERS[s.primitive.param][0][rng.randrange(4)] if s.argument else s.value for s in steps]
        value = draw_value(steps[0].primitive.takes, plain, (3,), rng)
        answers.append(outcome(lambda v, ks: run(steps, v, ks)[-1], value, ks))
    return digest(steps[0].primitive.takes, [s.primitive.param for s in steps if s.argument], answers)[:16]
