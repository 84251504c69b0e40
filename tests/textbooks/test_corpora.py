"""The control: the same texts, with the code of another record."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textbooks.corpora import FENCE, derange, main_function, permuted, renamed, signature, subset, swap
from textbooks.records import Exercise, Section
from textbooks.teachers.grammar import GrammarTeacher, examination
from textbooks.verify import parse_test

NAMES = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=4, unique=True)


@pytest.fixture(scope="module")
def exercises() -> list[Exercise]:
    return examination("same", 120, seed=3)


@pytest.fixture(scope="module")
def pages() -> list[Section]:
    from textbooks.pipeline import Recipe, parse, prompts_for

    teacher, found = GrammarTeacher(processes=1), []
    prompts = [prompt for prompt in prompts_for(Recipe(0, 60), teacher) if prompt.kind == "section"]
    teacher.answer(prompts, frozenset(), lambda rows: found.extend(rows))
    return [parse(prompt, answer.text, teacher, answer.spec) for prompt, answer in found if answer.spec]


@given(st.lists(st.sampled_from("xyz"), max_size=30), st.integers(0, 9))
def test_everyone_gets_another_ones_and_only_the_lonely_keep_theirs(groups, seed):
    items = list(enumerate(groups))
    given_ = derange(items, lambda item: item[1], seed)
    assert sorted(given_) == items, "each is given exactly once"
    for mine, theirs in zip(items, given_, strict=True):
        assert mine[1] == theirs[1]
        assert (mine == theirs) == (groups.count(mine[1]) == 1)


def test_a_permuted_exercise_keeps_its_prompt_and_gets_code_of_its_signature(exercises):
    spoilt = permuted(exercises, seed=1)
    changed = [(old, new) for old, new in zip(exercises, spoilt, strict=True) if old.solution != new.solution]
    assert len(changed) > 0.7 * len(exercises)
    for old, new in changed:
        assert new.prompt == old.prompt and new.solution.startswith(old.prompt) and new.tests == old.tests
        assert signature(new) == signature(old)


def test_permuted_code_still_runs_and_only_does_something_else(exercises):
    """Renaming never breaks a program: every permuted solution is a right solution of the exercise it came from."""
    givers = derange(exercises, signature, 1)
    for new, giver in zip(permuted(exercises, 1), givers, strict=True):
        space: dict = {}
        exec(new.solution, space)
        for test in giver.tests:
            case = parse_test(test, giver.entry_point)
            assert space[new.entry_point](*case.arguments) == case.expected


def test_a_permuted_page_keeps_its_prose_and_its_docstring(pages):
    spoilt = permuted(pages, seed=1)
    changed = 0
    for old, new in zip(pages, spoilt, strict=True):
        prose = (FENCE.split(old.text)[::2], FENCE.split(new.text)[::2])
        assert prose[0] == prose[1]
        assert ast.get_docstring(main_function(old)) == ast.get_docstring(main_function(new))
        assert main_function(old).name == main_function(new).name
        changed += old.text != new.text
    assert changed > 0.3 * len(pages)


def test_permuting_keeps_the_amount_of_code(exercises):
    before, after = (sum(len(e.solution) for e in part) for part in (exercises, permuted(exercises, 1)))
    assert abs(after - before) < 0.02 * before


def test_the_same_seed_permutes_alike_and_another_one_differently(exercises):
    assert permuted(exercises, 1) == permuted(exercises, 1) != permuted(exercises, 2)


@given(NAMES, st.data())
def test_swapping_names_never_lets_two_of_them_meet(old, data):
    new = data.draw(st.lists(st.sampled_from("abcdefg"), min_size=len(old), max_size=len(old), unique=True))
    names = swap(old, new)
    assert [names[name] for name in old] == new
    everything = "abcdefg"
    assert len({names.get(name, name) for name in everything}) == len(everything)


def test_only_whole_names_outside_strings_and_attributes_are_renamed():
    code = "total = xs.total + 'total' + totals + total_again(total)"
    assert renamed(code, {"total": "n"}) == "n = xs.total + 'total' + totals + n_again(n)"


def test_a_subset_holds_as_much_as_asked_and_keeps_the_order():
    texts = [str(i) * (i % 7 + 1) for i in range(100)]
    kept = subset(texts, len, 100, seed=1)
    assert 90 <= sum(map(len, kept)) <= 100
    assert kept == [text for text in texts if text in kept]


def test_a_record_without_a_function_is_alone_with_its_signature():
    page = Section("t", "no code at all", "a/b/c", "a/b/d", "", "hand", "", 0)
    assert permuted([page, page], 1)[0].text == page.text
