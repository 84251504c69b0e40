"""The recorded study belongs to this code, its figures follow from its outcomes, and they meet what was promised."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from common.records import ARTIFACTS, fingerprint
from steps import load, story
from steps.case_study import PLANS
from steps.study_record import markdown
from textbooks import exam, report
from textbooks.records import Exercise

PLAN = PLANS["laptop"]
STUB = Exercise("f", "def f(x):", "def f(x):\n    return x", ("assert f(1) == 1",), "a", "b", "c", "t", "", 0)
NAMES = {number: story.read(number).name for number in (9, 10)}


def record(number: int) -> dict:
    return json.loads((ARTIFACTS / NAMES[number] / "run.json").read_text(encoding="utf-8"))


RUN = record(10)
SCORES = RUN["baseline_copying"]["scores"]
PROBLEMS = [exam.Problem(stratum, STUB) for stratum in exam.STRATA for _ in range(SCORES[stratum]["problems"])]


def outcomes() -> dict[str, np.ndarray]:
    """Arm → (seeds, problems), read from what is committed."""
    arms = {**RUN["pretrained"], **RUN["arms"]}
    passed = {name: report.outcomes([{"passed": b} for b in arm["outcomes"].values()]) for name, arm in arms.items()}
    return passed | {"copying": report.outcomes([{"passed": RUN["data"]["baseline"]}])}


def nine_digits(value: object) -> object:
    """Another processor may add up in another order."""
    return json.loads(json.dumps(value), parse_float=lambda digits: float(f"{float(digits):.9g}"))


@pytest.mark.parametrize("number", [9, 10])
def test_it_was_made_with_this_code_and_plan(number):
    run = record(number)
    for name, found in run["fingerprint"].items():
        assert found == fingerprint(story.read(int(name[:2])).file), f"{name} changed since the study was recorded"
    assert run["plan"] == json.loads(json.dumps(asdict(PLAN))) and run["seeds"] == list(PLAN.seeds)
    assert run["command"] == f"python -m steps.{NAMES[number]} --preset laptop --record"


def test_every_arm_answered_every_problem_with_every_seed():
    assert {*RUN["pretrained"], *RUN["arms"]} == {arm.name for n in (9, 10) for arm in load(n).ARMS}
    for found in outcomes().values():
        assert found.shape[1] == len(PROBLEMS) == 5 * PLAN.problems + 50
    assert record(9)["arms"] == RUN["pretrained"]


def test_scores_claims_and_differences_follow_from_the_outcomes():
    passed = outcomes()
    for name, arm in {**RUN["pretrained"], **RUN["arms"]}.items():
        assert nine_digits(report.scores(PROBLEMS, passed[name])) == nine_digits(arm["scores"]), name
    assert nine_digits(report.tested(PROBLEMS, passed)) == nine_digits(RUN["hypotheses"])
    alone = report.against_exercises_alone(PROBLEMS, passed)
    assert nine_digits(alone) == nine_digits(RUN["against_exercises_alone"])


@pytest.mark.parametrize("number", [9, 10])
def test_the_report_is_the_records(number):
    assert (ARTIFACTS / NAMES[number] / "report.md").read_text(encoding="utf-8") == markdown(record(number))


def test_the_study_takes_a_laptop_no_more_than_ninety_minutes():
    assert RUN["wall_seconds"] <= 90 * 60 and RUN["machine"]["cores"] == 2


def test_exercises_lift_the_model_and_teach_more_than_looking_up():
    claims = {claim["name"]: claim for claim in RUN["hypotheses"]}
    assert claims["finetuning-lifts"]["difference"] >= 0.25
    assert claims["not-by-looking-up"]["low"] > 0.1


def test_quality_was_told_from_form_or_a_difference_of_five_points_would_have_been():
    (claim,) = (claim for claim in RUN["hypotheses"] if claim["name"] == "textbooks-after-finetuning")
    assert claim["low"] > 0 or claim["high"] < 0 or claim["detectable"] < 0.05


def test_the_pretrained_model_learned_the_exercises_and_kept_what_it_could():
    real = RUN["real_model"]
    before, after = (real[arm]["scores"]["all"]["rate"] for arm in ("before", "after"))
    assert after >= 3 * before > 0
    assert real["before"]["humaneval"]["problems"] == exam.HUMANEVAL == 164
    assert real["before"]["humaneval"]["passed"] == 7 <= real["after"]["humaneval"]["passed"]


def test_similar_exercises_were_pruned_at_every_threshold():
    assert [row["threshold"] for row in RUN["decontamination"]] == list(PLAN.thresholds) and len(PLAN.thresholds) > 1
    kept = [row["kept"] for row in RUN["decontamination"]]
    assert kept == sorted(kept, reverse=True) and kept[0] < RUN["decontamination"][0]["of"]


def test_what_is_committed_of_models_is_small():
    folder = ARTIFACTS / NAMES[10]
    files = [file for part in ("model", "adapter") for file in (folder / part).rglob("*") if file.is_file()]
    assert {"model.safetensors", "adapter_model.safetensors"} <= {file.name for file in files}
    assert sum(file.stat().st_size for file in files) <= 10_000_000
