"""What presenter mode shows in place of the deck's pictures: computed as the models compute it, drawn to scale."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import steps
from common import checkpoint
from common.records import ARTIFACTS, recorded_runs
from common.terminal import make_console
from common.tokenizer import CharTokenizer
from common.tracing import attention_maps
from steps import sketches, story

ROOT = Path(__file__).parents[2]


def trained(number: int, text: str):
    """A step's model with its committed weights, and a text as its tokens."""
    step, saved = steps.load(number), checkpoint.read(ARTIFACTS / story.read(number).name / "checkpoint")
    model = step.Model(step.Config(**saved.about["config"])).eval()
    saved.restore(model)
    return model, torch.from_numpy(CharTokenizer(saved.about["alphabet"]).encode(text))[None]


def printed(drawing, width: int = 96) -> list[str]:
    console = make_console(width=width)
    with console.capture() as captured:
        console.print(drawing)
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.oracle
@pytest.mark.parametrize("number", [3, 4])
def test_the_weights_of_one_head_are_those_of_the_torch_model(number):
    model, idx = trained(number, "the whale")
    [(_, theirs)] = attention_maps(model, idx)
    scores, weights = sketches.one_head(number, "the whale")
    np.testing.assert_allclose(weights, theirs[0].numpy(), atol=2e-5)
    exp = np.tril(np.exp(scores))
    np.testing.assert_allclose(exp / exp.sum(-1, keepdims=True), weights, atol=2e-5)


@pytest.mark.oracle
def test_the_finished_gpt_predicts_and_attends_as_the_torch_model_does():
    model, idx = trained(7, sketches.SENTENCE)
    logits, maps = sketches.finished_gpt(sketches.SENTENCE)
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(idx)[0][0, -1].numpy(), atol=1e-3)
    theirs = attention_maps(model, idx)
    assert len(maps) == len(theirs) == recorded_runs()[7]["config"]["n_layer"]
    for ours, (_, wei) in zip(maps, theirs, strict=True):
        np.testing.assert_allclose(ours, wei.numpy(), atol=2e-5)


def test_the_likeliest_characters_come_first_with_their_probabilities():
    model, idx = trained(7, "Call me Ishma")
    with torch.no_grad():
        shares, tokens = torch.softmax(model(idx)[0][0, -1], -1).topk(4)
    alphabet = recorded_runs()[7]["alphabet"]
    rows = [line.split() for line in printed(sketches.likeliest(sketches.finished_gpt("Call me Ishma")[0], 4)) if line]
    assert [row[0] for row in rows] == [sketches.visible(alphabet[i]) for i in tokens]
    assert [row[-1] for row in rows] == [f"{share:.0%}" for share in shares]


def test_the_terminal_shows_the_same_heads_and_sentence_as_the_deck():
    from slides.pictures import HEADS
    from steps.show import SENTENCE

    assert (sketches.HEADS, sketches.SENTENCE) == (HEADS, SENTENCE)


def test_every_picture_of_the_deck_has_a_drawing():
    template = (ROOT / "slides" / "deck.md.j2").read_text(encoding="utf-8")
    names = re.findall(r'picture\("(.*?)\.png"', template)
    assert len(names) > 10 and set(names) == set(sketches.DRAWINGS)
    assert sketches.sketch("../slides/pictures/nothing.png", 5, 96) is None


@pytest.mark.parametrize("number", [4, 6, 7])
def test_a_trace_counts_every_parameter_of_the_equal_modules_it_leaves_out(number):
    lines = printed(sketches.traced(number, 96))
    assert lines[1].startswith("Model")
    layers = recorded_runs()[number]["config"].get("n_layer")
    assert sum(f"h.0 … {(layers or 0) - 1}" in line for line in lines) == (layers is not None)
    names = {line.split()[0].split(".")[-1] for line in lines[2:]}
    recorded = {re.sub(r".*\.", "", row["name"]) for row in recorded_runs()[number]["trace"]} - {""}
    assert {name for name in recorded if not name.isdigit()} <= names


shares = st.floats(0, 1)


@given(st.lists(st.lists(shares, min_size=3, max_size=3), min_size=1, max_size=6).filter(lambda m: np.max(m) > 0.01))
def test_the_denser_the_cell_the_larger_the_share(matrix):
    weights = np.array(matrix)
    lines = sketches.shaded(weights, "a" * len(matrix)).plain.splitlines()
    cells = np.array([[sketches.SHADES.index(line[4 + 2 * column]) for column in range(3)] for line in lines])
    assert all(line[4::2] == line[5::2] for line in lines)
    assert cells[weights == weights.max()].min() == 4 and not cells[weights < 0.12 * weights.max()].any()
    order = np.argsort(weights, axis=None)
    assert (np.diff(cells.flatten()[order]) >= 0).all()


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=6), st.integers(4, 60))
def test_bars_are_as_long_as_their_values(values, longest):
    lines = [line for line in printed(sketches.bars([("x", v, "") for v in values], longest)) if line]
    widths = [line.count("█") + (" ▏▎▍▌▋▊▉".index(line[-1]) / 8 if line[-1] in "▏▎▍▌▋▊▉" else 0) for line in lines]
    np.testing.assert_allclose(widths, np.array(values) / max(values) * longest, atol=1 / 16 + 1e-9)


def test_bars_over_a_text_stand_over_their_characters():
    upper, lower, text = sketches.over_text(np.array([0.0, 1.0, 0.5, 0.25]), "a b\n").plain.splitlines()
    assert text == "a ␣ b ¶" and upper == "  █    " and lower == "  █ █ ▄"


def test_pass_rates_show_rate_and_interval_to_scale_before_and_after(monkeypatch):
    def arm(title, low, rate, high):
        return {"title": title, "scores": {"all": {"low": low, "rate": rate, "high": high}}}

    after = {"C+X": arm("textbooks, then exercises", 0.5, 0.75, 1.0), "C+T": arm("not in the figure", 0.0, 0.0, 0.0)}
    runs = {9: {"arms": {"C": arm("textbooks", 0.0, 0.1, 0.25)}}, 10: {"arms": after}}
    monkeypatch.setattr(sketches, "recorded_runs", lambda: runs)
    _, before, after = printed(sketches.pass_rates(10, 112), 112)
    assert before.split()[:6] == ["C", "textbooks", "10.0", "0.0", "–", "25.0"] and "75.0  50.0 – 100.0" in after
    assert (before.count("█"), before.count("▓"), before.count("░")) == (0, 4, 6)
    assert (after.count("█"), after.count("▓"), after.count("░")) == (20, 10, 10)


def test_the_arms_are_as_long_as_what_they_read(monkeypatch):
    texts = {"A": {"title": "raw", "tokens_seen": 500_000, "epochs": 1.0}}
    texts["A3"] = {"title": "three times", "tokens_seen": 1_500_000, "epochs": 0.5}
    monkeypatch.setattr(sketches, "recorded_runs", lambda: {9: {"arms": texts}})
    short, long = (line for line in printed(sketches.arms(9, 96)) if line)
    assert (short.count("█"), long.count("█")) == (8, 24)
    assert "500 k tokens, 1.0 epochs" in short and "A3  three times" in long
