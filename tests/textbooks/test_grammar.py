"""The grammar: right by construction, deterministic, rich, and free of what is held out."""

import builtins
import doctest
import keyword
import random
import re
from itertools import pairwise

import pytest

from textbooks.audiences import audiences
from textbooks.grammar import page, render, say
from textbooks.grammar.compose import (
    TEXTBOOK_ONLY,
    HoldOut,
    Step,
    TooLarge,
    draw_composition,
    draw_step,
    primitives,
    run,
    standard_hold_out,
    trapped,
)
from textbooks.grammar.exercise import (
    STRATA,
    Drawn,
    Order,
    covered_subtopics,
    feasible,
    honours,
    subtopics_of,
    taught_by,
)
from textbooks.grammar.inputs import draw_ks, draw_value, outcome
from textbooks.parse import claims
from textbooks.teachers import Prompt
from textbooks.teachers.grammar import GrammarTeacher, examination
from textbooks.topics import Draw, leaves, tree

SEEDS = range(40)


def some_order(seed: int) -> Order:
    rng = random.Random(seed)
    while True:
        pair = tuple(sorted(rng.sample(sorted(covered_subtopics()), 2)))
        if feasible(pair, standard_hold_out()):
            return Order(f"{pair[0]}/x", f"{pair[1]}/y", rng.choice(training_audiences()))


def training_audiences() -> list[str]:
    return [a.role for a in audiences() if a.role not in standard_hold_out().audiences]


def result(code: str, name: str, arguments: list):
    space: dict = {}
    exec(code, space)
    return space[name](*arguments)


@pytest.mark.parametrize("primitive", primitives(), ids=lambda p: f"{p.name}-{p.takes}")
def test_every_style_of_a_primitive_computes_the_same(primitive):
    rng = random.Random(primitive.name)
    steps = (draw_step(primitive, rng, set(), argument_rate=0.5),)
    shown = set()
    for style in render.STYLES:
        body = render.body(steps, style, "given", rng)
        if body is None:
            continue
        code = "\n".join([render.signature("f", steps, "given"), *("    " + line for line in body)])
        shown.add(code)
        for _ in range(60):
            ks = draw_ks(steps, rng)
            value = draw_value(primitive.takes, audiences()[0], ks, rng)
            arguments = [value, *ks] if steps[0].argument else [value]
            assert repr(result(code, "f", arguments)) == repr(run(steps, value, ks)[-1]), code
    assert shown


@pytest.mark.parametrize("primitive", primitives(), ids=lambda p: f"{p.name}-{p.takes}")
def test_the_documented_trap_is_really_wrong(primitive):
    rng = random.Random(primitive.name)
    step = draw_step(primitive, rng, set())
    wrong = (Step(trapped(primitive), step.value, step.argument),)
    differs = 0
    for _ in range(120):
        ks = draw_ks((step,), rng)
        value = draw_value(primitive.takes, audiences()[1], ks, rng)
        right = outcome(lambda v, k: run((step,), v, k)[-1], value, ks)
        differs += right != outcome(lambda v, k: run(wrong, v, k)[-1], value, ks)
    assert differs


def test_the_entries_of_all_primitives_are_whole():
    subtopics = {f"{topic}/{subtopic}" for topic, subs in tree().items() for subtopic in subs}
    assert len({p.name for p in primitives()}) >= 40
    for p in primitives():
        assert len(p.do) == len(p.of) == 3 and len(set(p.do)) == len(set(p.of)) == 3
        assert all(phrase.count("{x}") == 1 for phrase in p.of) and not any("{x}" in phrase for phrase in p.do)
        assert all(("{k}" in phrase) == bool(p.param) for phrase in (*p.do, *p.of)), p.name
        assert set(p.teaches) <= subtopics and p.idea.endswith(".") and p.why.endswith(".")
        for name in p.names:
            assert name.isidentifier() and not keyword.iskeyword(name)
        variable = next(n for n in p.names if n not in ("sum", "sorted", "reversed"))
        assert not hasattr(builtins, variable)


def test_every_covered_subtopic_is_in_the_tree():
    assert covered_subtopics() <= {leaf.rsplit("/", 1)[0] for leaf in leaves()}
    assert set(taught_by()) <= covered_subtopics()


@pytest.mark.parametrize("seed", SEEDS)
def test_an_exercise_passes_its_own_tests_and_examples_and_honours_its_topics(seed):
    order = some_order(seed)
    drawn = Drawn.draw(seed, 0, order)
    space: dict = {}
    exec(drawn.solution + "\n" + "\n".join(drawn.tests), space)
    examples = doctest.DocTestParser().get_doctest(space[drawn.entry_point].__doc__, space, "d", None, 0)
    assert doctest.DocTestRunner().run(examples, out=lambda text: None).failed == 0
    assert drawn.solution.startswith(drawn.prompt) and 5 <= len(drawn.tests) <= 7
    assert honours(order, drawn.spec["topics_honoured"] == 2, drawn.steps, drawn.solution)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_step_of_an_exercise_matters_to_its_tests(seed):
    """Leaving out any step that can be left out must make some test fail."""
    drawn = Drawn.draw(seed, 0, some_order(seed))
    for place, step in enumerate(drawn.steps):
        if step.primitive.takes == step.primitive.gives and len(drawn.steps) > 1:
            rest = drawn.steps[:place] + drawn.steps[place + 1 :]
            kept = [[*case[1][:place], *case[1][place + 1 :]] for case in drawn.cases]
            got = [run(rest, case[0], ks)[-1] for case, ks in zip(drawn.cases, kept, strict=True)]
            assert any(repr(g) != repr(case[2]) for g, case in zip(got, drawn.cases, strict=True))


def test_an_exercise_depends_on_nothing_but_its_seed_index_and_order():
    order = some_order(1)
    again = [Drawn.draw(5, 3, order) for _ in range(2)]
    assert again[0] == again[1]
    assert Drawn.draw(6, 3, order).solution != again[0].solution != Drawn.draw(5, 4, order).solution


def test_this_text_is_what_seed_zero_gives_on_every_machine():
    drawn = Drawn.draw(0, 0, Order("Lists/Filtering a list/x", "Lists/Aggregating a list/y", "a baker"))
    assert (drawn.entry_point, drawn.spec["primitives"], drawn.spec["style"]) == (
        "answer_pastries", ["keep_starting", "how_many"], "functional",
    )  # fmt: skip


def test_training_holds_nothing_that_is_held_out():
    hold_out = standard_hold_out()
    assert len(hold_out.pairs) >= 100 and len(TEXTBOOK_ONLY) >= 5
    for seed in range(120):
        drawn = Drawn.draw(seed, 1, some_order(seed))
        names = drawn.spec["primitives"]
        assert not set(pairwise(names)) & hold_out.pairs and not set(names) & TEXTBOOK_ONLY
        assert len(names) <= hold_out.max_depth and drawn.spec["frame"] not in hold_out.frames
        assert max(drawn.spec["wordings"]) < hold_out.wordings


def exam(stratum: str, count: int = 25):
    return examination(stratum, count, 11)


def test_each_stratum_breaks_exactly_its_own_rule():
    hold_out = standard_hold_out()
    for stratum in STRATA:
        for drawn in exam(stratum, 12):
            names, spec = drawn.spec["primitives"], drawn.spec
            assert bool(set(pairwise(names)) & hold_out.pairs) == (stratum == "pairs")
            assert (len(names) > hold_out.max_depth) == (stratum == "longer")
            assert (spec["frame"] in hold_out.frames) == (stratum == "wording")
            assert (min(spec["wordings"]) >= hold_out.wordings) == (stratum == "wording")
            assert bool(set(names) & TEXTBOOK_ONLY) == (stratum == "textbook")


def test_problems_of_an_examination_behave_differently_from_one_another_and_from_training():
    asked = exam("same")
    seen = {exercise.spec["behaviour"] for exercise in asked}
    assert len(seen) == len(asked) == 25
    again = examination("same", 25, 11, seen)
    assert len(again) == 25 and not seen & {exercise.spec["behaviour"] for exercise in again}


def test_an_unknown_stratum_is_one_sentence():
    with pytest.raises(ValueError, match="choose one of same, pairs"):
        examination("hard", 1, 0)


def test_behaviour_tells_functions_apart_and_code_styles_not():
    seen: dict[str, set] = {}
    for seed in range(60):
        drawn = Drawn.draw(seed, 2, some_order(seed % 7))
        seen.setdefault(drawn.spec["behaviour"], set()).add(
            (tuple(drawn.spec["primitives"]), tuple(drawn.spec["types"]))
        )
    assert len(seen) > 20


def test_a_number_too_large_to_count_to_is_refused_before_it_is_counted_to():
    rng = random.Random(0)
    up = next(p for p in primitives() if p.name == "count_up")
    with pytest.raises(TooLarge):
        run((Step(up),), 10**12)
    square = next(p for p in primitives() if p.name == "square_it")
    with pytest.raises(TooLarge):
        run((Step(square),) * 6, 50)
    assert draw_composition(rng, 2, allowed=frozenset({"count_up", "total"})) is not None


@pytest.mark.parametrize("seed", range(12))
def test_every_output_on_a_page_is_what_running_its_code_gives(seed):
    made = page.draw(seed, 0, some_order(seed))
    found = claims(made.text)
    assert len(found) >= 4
    for claim in found:
        exec(claim.program + "\n" + "\n".join(claim.tests), {})
    headings = re.findall(r"^##? .*", made.text, re.MULTILINE)
    assert len(headings) == 6 and headings[0] == f"# {made.title}"


@pytest.mark.parametrize("seed", range(12))
def test_a_trace_shows_the_values_a_debugger_would_show(seed):
    text = page.draw(seed, 0, some_order(seed)).text
    code, rows = re.search(r"in turn:\n\n```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL).groups()
    call = re.search(r"`(\w+\(.*\))`, written as below", text)[1]
    space: dict = {}
    exec(code, space)
    assert rows.rstrip().endswith(f"returns {eval(call, space)!r}")
    lines = {line.strip() for line in code.splitlines()}
    assert all(row.split("  # ")[0].strip() in lines for row in rows.strip().splitlines())


def test_a_tracer_that_was_set_is_left_in_place():
    import sys

    def tracer(*arguments):
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        page.watch("def f(n):\n    m = n + 1\n    return m", "f", [1])
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert page.watch("def f(n):\n    m = n + 1\n    return m", "f", [1]) == [
        ("m = n + 1", "m = 2"), ("return m", "returns 2"),
    ]  # fmt: skip


def test_nested_noun_phrases_name_the_argument_once_at_the_end():
    for seed in range(40):
        steps = draw_composition(random.Random(seed), 3)
        phrase = say.nested(steps, [0] * 3, "GIVEN")
        assert phrase.count("GIVEN") == 1


def test_a_fused_pass_is_not_carried_over_a_change_of_characters():
    """Doubling a character makes two: a later keep must look at each of them."""
    by_name = {(p.name, p.takes): p for p in primitives()}
    steps = (Step(by_name["double_letters", "text"]), Step(by_name["keep_letters", "text"]))
    assert [len(group) for group in render.runs(steps, fuse=True)] == [1, 1]


@pytest.mark.parametrize(
    ("template", "slots", "text"),
    [
        ("{i} % 2 == 0", {"i": "n + 1"}, "(n + 1) % 2 == 0"),
        ("{i} > {k}", {"i": "n * n", "k": "3"}, "n * n > 3"),
        ("{x}[::-1]", {"x": "a + b"}, "(a + b)[::-1]"),
        ("sum({x})", {"x": "n for n in nums"}, "sum(n for n in nums)"),
        ("{i} * {i}", {"i": "-n"}, "-n * -n"),
    ],
)
def test_parentheses_appear_exactly_where_leaving_them_out_changes_the_meaning(template, slots, text):
    assert render.fill(template, **slots) == text


@pytest.mark.parametrize(
    ("test", "opposite"),
    [
        ("n > 3", "n <= 3"),
        ("c not in 'ae'", "c in 'ae'"),
        ("n % 2 == 0", "n % 2 != 0"),
        ("c.isalpha()", "not c.isalpha()"),
    ],
)
def test_a_negated_test_is_true_when_the_test_is_false(test, opposite):
    assert render.negated(test) == opposite


def test_the_teacher_answers_in_order_and_alike_in_one_process_and_in_many():
    draws = [some_order(seed) for seed in range(210)]
    prompts = [
        Prompt(i, "section" if i % 20 == 0 else "exercise", Draw(o.topic, o.other_topic, o.audience), 0, "")
        for i, o in enumerate(draws)
    ]
    alone, many = [], []
    GrammarTeacher(processes=1).answer(prompts[:40], frozenset(), alone.extend)
    GrammarTeacher(processes=2).answer(prompts, frozenset(), many.extend)
    assert [p.index for p, _ in many] == list(range(210)) and many[:40] == alone
    rest = []
    GrammarTeacher(processes=1).answer(prompts[:40], {p.key for p in prompts[:30]}, rest.extend)
    assert rest == alone[30:]


def test_the_teacher_accepts_only_what_it_can_practise_and_no_held_out_audience():
    teacher = GrammarTeacher(HoldOut(audiences=frozenset({"a nurse"})))
    good = Draw("Lists/Filtering a list/x", "Lists/Slicing a list/y", "a baker")
    assert teacher.accepts(good)
    assert not teacher.accepts(Draw(good.topic, good.other_topic, "a nurse"))
    assert not teacher.accepts(Draw("Classes and objects/Methods/x", good.other_topic, "a baker"))


def test_subtopics_are_read_from_the_code_itself():
    code = "def f(xs, k):\n    if not xs:\n        return 0\n    return sum(map(lambda x: x if x > k else 0, xs))"
    assert {
        "Functions/Returning early", "Functions/Lambda expressions", "Functions/Map and filter",
        "Conditionals/Conditional expressions", "Functions/Parameters and arguments",
    } <= subtopics_of((), code)  # fmt: skip

