"""The topic tree, the audiences, and drawing from them."""

import builtins
import keyword
from itertools import islice

import pytest

from textbooks.audiences import audiences
from textbooks.teachers import FULL, SHORT, make_prompt
from textbooks.topics import Draw, coverage, draw, leaves, tree

TOPICS = ("A/a/1", "A/a/2", "B/b/3")


def test_the_tree_has_a_thousand_leaves_and_no_two_are_alike():
    skills = [leaf.split("/", 2)[2].lower() for leaf in leaves()]
    assert len(skills) >= 1000 and len(set(skills)) == len(skills)
    assert len(tree()) >= 20 and all(len(skills) >= 3 for subs in tree().values() for skills in subs.values())


def test_no_leaf_is_padding():
    """A leaf made by a template would share its words with many others: the most common first three words are few."""
    starts = [" ".join(leaf.split("/", 2)[2].split()[:3]) for leaf in leaves()]
    assert max(starts.count(start) for start in set(starts)) <= 20


def test_there_are_forty_audiences_with_usable_names():
    assert len({audience.role for audience in audiences()}) >= 40
    for audience in audiences():
        assert audience.role.split()[0] in ("a", "an") and len(set(audience.samples)) >= 8
        for name in audience.names.values():
            assert name.isidentifier() and not keyword.iskeyword(name) and not hasattr(builtins, name)


def test_draws_never_repeat_and_are_the_same_for_the_same_seed():
    drawn = list(islice(draw(3, leaves(), [a.role for a in audiences()]), 3000))
    assert len(set(drawn)) == 3000
    assert drawn == list(islice(draw(3, leaves(), [a.role for a in audiences()]), 3000))
    assert drawn != list(islice(draw(4, leaves(), [a.role for a in audiences()]), 3000))


def test_every_topic_comes_up_before_any_comes_up_again():
    size = len(leaves())
    first = [d.topic for d in islice(draw(0, leaves(), ["a baker", "a nurse"]), 2 * size)]
    assert set(first[:size]) == set(first[size:]) == set(leaves())
    assert coverage([Draw(t, t, "a baker") for t in first])["leaves_used"] == size


def test_a_drained_tree_says_so_instead_of_looping():
    with pytest.raises(ValueError, match="every combination"):
        list(draw(0, TOPICS, ["a baker"]))
    assert len(set(islice(draw(0, TOPICS, ["a baker"]), 6))) == 6  # 3 topics × 2 others × 1 audience


def test_the_teacher_decides_what_it_is_asked():
    drawn = islice(draw(0, TOPICS, ["a baker"], lambda d: d.topic.startswith("B") and d.other_topic == "A/a/1"), 1)
    assert list(drawn) == [Draw("B/b/3", "A/a/1", "a baker")]


@pytest.mark.parametrize("name", sorted({*FULL.values(), *SHORT.values(), "grammar"}))
def test_prompts_name_topics_and_audience_and_leave_no_slot_open(name):
    prompt = make_prompt(name, 7, "exercise", Draw("Lists/Slicing a list/take the first items", "A/b/c", "a nurse"), 5)
    assert "take the first items" in prompt.text and "a nurse" in prompt.text
    assert not any("{" + slot + "}" in prompt.text for slot in ("topic", "other_topic", "audience", "kind", "seed"))
