"""What is recorded of the benchmark meets its targets, and the table says what is recorded."""

import json
from statistics import median

import pytest

from benchmarks.table import RESULTS, ROWS, table


@pytest.fixture(scope="module")
def results():
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def ratio(results, part, ours, theirs):
    return median(r[ours] / r[theirs] for r in results[part]["rounds"].values())


def test_the_recorded_figures_meet_their_targets(results):
    assert ratio(results, "time-to-loss", "ours", "nanogpt") <= 0.40
    assert ratio(results, "step", "ours", "nanogpt") <= 1
    assert ratio(results, "generate", "ours_1x200", "nanogpt_1x200") >= 5
    assert ratio(results, "generate", "ours_1x200", "hugging_face_1x200") > 1
    for memory in results["memory"]["rounds"].values():
        assert memory["big_text_bytes"] >= 1e9
        assert memory["big_mb"] - memory["novel_mb"] < 1000


def test_our_run_reached_the_loss_in_every_round(results):
    for r in results["time-to-loss"]["rounds"].values():
        assert r["ours_reached"] and r["ours_loss"] <= 1.873
        assert r["nanogpt_reached"] or r["nanogpt_steps"] == 2000  # its whole run counts where it never got there


def test_every_comparison_is_in_the_table(results):
    lines = table(results).splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(ROWS) + 1


def test_a_ratio_is_taken_within_a_round():
    times = {"1": (10.0, 20.0), "2": (28.0, 40.0)}
    rounds = {number: {"ours": a, "ours_muon": a, "nanogpt": b} for number, (a, b) in times.items()}
    names = ("cpu", "cores", "system", "python", "torch", "threads", "transformers", "nanogpt")
    made = table({"step": {"date": "2000-01-01", "conditions": dict.fromkeys(names, "?"), "rounds": rounds}})
    assert "| 19 ms | nanoGPT: 30 ms | **0.60** (0.50–0.70) | ≤ 1 |" in made


def test_a_round_measured_again_replaces_itself_and_nothing_else(tmp_path):
    from benchmarks.run import record

    file = tmp_path / "results.json"
    here, there = ({"conditions": {"cpu": name}} for name in ("this one", "another"))

    def rounds(part: str) -> dict:
        return json.loads(file.read_text(encoding="utf-8"))[part]["rounds"]

    record(file, "memory", 1, {"ours": 0.0}, here)
    record(file, "step", 1, {"ours": 1.0}, here)
    record(file, "step", 2, {"ours": 2.0}, here)
    record(file, "step", 1, {"ours": 3.0}, here)
    assert rounds("step") == {"1": {"ours": 3.0}, "2": {"ours": 2.0}}
    record(file, "step", 2, {"ours": 4.0}, there)
    assert rounds("step") == {"2": {"ours": 4.0}}, "rounds from two machines must not be compared"
    assert rounds("memory") == {"1": {"ours": 0.0}}
