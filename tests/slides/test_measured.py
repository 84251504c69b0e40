"""What the article measures for itself: planted mistakes beside healthy models, and one line end."""

import pytest
from typer.testing import CliRunner

from slides import newline, symptoms
from slides.sources import run
from steps.bugs import find


def test_every_mistake_is_planted_in_the_step_that_is_looked_at():
    assert all(find(name).step == step for name, step in symptoms.MISTAKES.items())


def test_an_unknown_mistake_is_refused_in_words():
    told = CliRunner().invoke(symptoms.app, ["--only", "01_bigram.no-such-thing"])
    assert told.exit_code == 2
    assert "no-such-thing is not examined here" in told.output


@pytest.mark.slow
@pytest.mark.network
def test_a_mistake_is_seen_again_as_it_was_recorded():
    from common.runtime import machine

    record, name = run("symptoms"), "05_multihead.scaled-by-channels"
    if machine() != record.machine:
        pytest.skip("another machine rounds differently")
    seen = symptoms.trained(5, record.book, name)
    assert seen == {key: record.mistakes[name][key] for key in seen}
    red = [check["name"] for check in symptoms.examined(5, record.book, name) if check["passed"] is False]
    assert red == [check.name for check in record.mistakes[name].failed_checks]


def test_the_line_end_is_put_back_and_nothing_else_is_changed():
    class Tokenizer:
        eos_token = "</s>"

        def __call__(self, prompt: str) -> str:
            return f"tokens of {prompt!r}"

    wrapped = newline.WithLineEnd(Tokenizer())
    assert wrapped("def f():") == r"tokens of 'def f():\n'"
    assert wrapped.eos_token == "</s>"
