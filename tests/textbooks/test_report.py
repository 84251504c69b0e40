"""What is published of the study follows from its outcomes."""

import numpy as np
import pytest

from steps import load
from steps.case_study import PLANS, make_model
from steps.study_story import on_paper
from textbooks import exam, report, study
from textbooks.records import Exercise

EXERCISE = Exercise("f", "def f(x):", "def f(x):\n    return x", ("assert f(1) == 1",), "a", "b", "c", "t", "", 0)
PROBLEMS = [exam.Problem(stratum, EXERCISE) for stratum in exam.STRATA for _ in range(20)]
ARMS = {arm.name: arm for arm in (*load(9).ARMS, *load(10).ARMS)}


def bits(rates: dict[str, int]) -> np.ndarray:
    """One seed that solves the first so many of each stratum's twenty problems."""
    return np.array([[float(i < rates.get(s, 0)) for s in exam.STRATA for i in range(20)]])


def test_a_score_counts_its_own_stratum_and_all_counts_every_one():
    found = report.scores(PROBLEMS, bits({"same": 10, "longer": 4}))
    assert found["same"]["rate"] == 0.5 and found["same"]["problems"] == 20
    assert found["pairs"]["rate"] == 0 and found["all"]["passed"] == 14
    assert found["same"]["low"] < 0.5 < found["same"]["high"]


def test_drawn_is_every_stratum_but_the_unconventional_one():
    assert report.within(PROBLEMS, ["drawn"]).sum() == 100
    assert report.within(PROBLEMS, ["all"]).sum() == 120
    assert report.within(PROBLEMS, ["textbook"]).sum() == 20


def test_every_hypothesis_names_arms_and_strata_that_exist():
    for claim in report.hypotheses().values():
        assert claim["better"] in ARMS and claim["worse"] in {*ARMS, "copying"}
        assert set(claim["strata"]) <= {*exam.STRATA, "drawn", "all"}


def test_a_large_difference_holds_no_difference_does_not_and_a_reverse_one_does_not():
    strong, weak = bits(dict.fromkeys(exam.STRATA, 19)), bits(dict.fromkeys(exam.STRATA, 2))
    passed = {**dict.fromkeys(ARMS, weak), "C+X": strong, "A+X": strong, "copying": weak}
    found = {claim["name"]: claim for claim in report.tested(PROBLEMS, passed)}
    said = {name: claim["verdict"] for name, claim in found.items()}
    assert said["textbooks-after-finetuning"] == "holds" and found["textbooks-after-finetuning"]["low"] > 0.5
    assert said["quality-before-quantity"] == "not shown" and found["quality-before-quantity"]["p"] == 1
    assert said["filter-helps"] == "the reverse" and found["filter-helps"]["difference"] < 0
    assert all(claim["p_holm"] >= claim["p"] for claim in found.values())


def test_a_claim_holds_only_if_every_seed_says_so():
    strong, weak = (bits(dict.fromkeys(exam.STRATA, n)) for n in (19, 4))
    steady, torn = np.vstack([strong, strong]), np.vstack([strong, bits({})])
    for better, said in ((steady, "holds"), (torn, "seeds disagree")):
        passed = {**dict.fromkeys(ARMS, np.vstack([weak, weak])), "C+X": better, "copying": weak}
        found = {claim["name"]: claim for claim in report.tested(PROBLEMS, passed)}
        assert found["quality-before-quantity"]["low"] > 0 and found["quality-before-quantity"]["verdict"] == said
        assert len(found["not-by-looking-up"]["by_seed"]) == 2
    arms = {"A": {"outcomes": {"1": "0110", "2": "0111"}}, "B": {"outcomes": {"1": "0000", "2": "1111"}}}
    assert report.seed_spread(arms) == {"arm": "B", "lowest": 0.0, "highest": 1.0}


def test_what_reading_added_is_told_of_every_arm_that_learned_the_exercises():
    alone, better = bits(dict.fromkeys(exam.STRATA, 10)), bits(dict.fromkeys(exam.STRATA, 16))
    found = report.against_exercises_alone(PROBLEMS, {**dict.fromkeys(ARMS, alone), "A3+X": better})
    assert set(found) == {name for name in ARMS if name.endswith("+X")} - {"0+X"}
    assert found["A3+X"]["value"] == pytest.approx(0.3) and found["A3+X"]["by_seed"] == pytest.approx([0.3])
    assert found["A3+X"]["low"] > 0.2 and found["C+X"]["value"] == 0


def test_pruning_is_judged_apart_on_problems_with_and_without_a_similar_exercise():
    plan = PLANS["quick"]
    seen, unseen = bits(dict.fromkeys(exam.STRATA, 20)), bits({})
    results = {
        "C+X": [{"passed": "".join(str(int(b)) for b in seen[0]), "texts": 100}],
        "C+X<0.9": [{"passed": "".join(str(int(b)) for b in unseen[0]), "texts": 60}],
    }
    nearest = [0.95 if i % 2 else 0.5 for i in range(len(PROBLEMS))]
    (row,) = report.decontamination(PROBLEMS, nearest, results, plan)
    assert (row["kept"], row["of"]) == (60, 100)
    for part in ("similar", "not_similar"):
        assert row[part]["problems"] == 50
        assert (row[part]["before"]["value"], row[part]["after"]["value"]) == (1, 0)


def test_the_large_preset_fits_its_machine_on_paper():
    import torch

    plan = PLANS["a100"]
    with torch.device("meta"):
        parameters = sum(p.numel() for p in make_model(plan.vocab_size, plan).parameters())
    found = on_paper(plan, parameters)
    assert 20e6 < parameters < 30e6
    assert found["bytes"] < 40e9 and found["hours"] < 24 * 7
    assert found["flops"] == pytest.approx(6 * parameters * found["tokens"])


def test_the_hypotheses_name_each_kind_of_arm_once_pretrained_arms_are_examined_too():
    named = {claim[side] for claim in report.hypotheses().values() for side in ("better", "worse")}
    assert {"C", "C+X", "C-+X", "A+X", "A3+X", "B+X", "0+X", "C+T", "copying"} == named
    assert all(study.steps_of(ARMS[name], PLANS["laptop"]) > 0 for name in named - {"copying"})
