"""The study: what an arm is trained on, that it goes on where it stopped, and that it comes out the same again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from steps import load
from steps.case_study import PLANS, make_model
from textbooks import exam, report, study
from textbooks.records import END_OF_TEXT, Exercise, Section, read_records, to_row, write_jsonl
from textbooks.similarity import most_similar

pytestmark = pytest.mark.slow  # a minute or two; run in CI
PLAN = replace(
    PLANS["quick"], exercises=60, sections=10, problems=3, steps=3, finetuning_steps=3, seeds=(1,), n_layer=1,
    n_embd=32, block_size=192, batch_size=2, rows=2, vocab_size=400,
)  # fmt: skip
ARMS = (*load(9).ARMS, *load(10).ARMS)
SOME = tuple(arm for arm in ARMS if arm.name in ("A", "B", "C-", "C+X", "C"))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A whole study of a few steps, run once."""
    from textbooks.pipeline import Recipe, parse, prompts_for
    from textbooks.teachers.grammar import GrammarTeacher

    teacher, records = GrammarTeacher(processes=1), []
    teacher.answer(
        prompts_for(Recipe(PLAN.exercises, PLAN.sections), teacher), frozenset(), lambda rows: records.extend(rows)
    )
    parsed = [parse(prompt, answer.text, teacher, answer.spec) for prompt, answer in records if answer.spec]
    folder = tmp_path_factory.mktemp("study")
    exercises, sections = ([r for r in parsed if isinstance(r, kind)] for kind in (Exercise, Section))
    write_jsonl(folder / "data" / "exercises.jsonl", map(to_row, exercises))
    write_jsonl(folder / "data" / "sections.jsonl", map(to_row, sections))
    study.prepare(PLAN, folder, exercises, sections)
    study.Chain(PLAN, 1, folder, make_model, lambda units: None).run(SOME)
    return folder


@pytest.fixture(scope="module")
def chain(made) -> study.Chain:
    return study.Chain(PLAN, 1, made, make_model, lambda units: None)


def result(folder: Path, arm: str) -> dict:
    return json.loads((folder / "seed-1" / arm / "result.json").read_text(encoding="utf-8"))


def test_every_arm_starts_from_one_that_comes_before_it():
    names = [arm.name for arm in ARMS]
    for place, arm in enumerate(ARMS):
        assert not arm.start or arm.start in names[:place]
    assert len(set(names)) == len(names)


def test_arms_that_are_compared_read_as_many_tokens():
    steps = {arm.name: study.steps_of(arm, PLANS["laptop"]) for arm in ARMS}
    assert len({steps[name] for name in ("A", "B", "Br", "C", "C-")}) == 1
    assert steps["A3"] == 3 * steps["A"]
    assert len({steps[arm.name] for arm in ARMS if arm.tuned}) == 1


def test_a_finished_arm_is_not_trained_again(made, chain, monkeypatch):
    again: list[str] = []
    monkeypatch.setattr(study.Chain, "_run", lambda self, arm: again.append(arm.name))
    chain.run(SOME)
    assert not again
    chain.run([replace(SOME[0], name="new")])
    assert again == ["new"]


def test_seeds_run_side_by_side_end_and_are_complete(made, tmp_path):
    """Two processes: one has an arm to run, the other has it already and is not started."""
    again = tmp_path / "again"
    shutil.copytree(made, again)
    shutil.rmtree(again / "seed-1" / "A")
    heard: list[float] = []
    study.run_chains(PLAN, again, make_model, [(1, SOME[:1])], heard.append)
    assert result(again, "A")["passed"] == result(made, "A")["passed"]
    assert sum(heard) >= PLAN.steps


def test_the_arms_of_one_seed_can_run_side_by_side_and_add_up_so(made, tmp_path, monkeypatch):
    again, (first, second) = tmp_path / "again", study.pruned([0.9, 0.7])
    shutil.copytree(made, again)
    chains = [(1, [first]), (1, [second])]
    study.run_chains(PLAN, again, make_model, chains, lambda units: None)
    assert result(again, first.name)["texts"] >= result(again, second.name)["texts"]
    took = [result(again, arm.name)["seconds"] for arm in (first, second)]
    for cores, expected in ((1, sum(took)), (2, max(took)), (4, max(took))):
        monkeypatch.setattr(study.os, "cpu_count", lambda cores=cores: cores)
        assert study.seconds(PLAN, again, chains) == expected


def test_a_seed_that_fails_says_why(made, tmp_path):
    with pytest.raises(RuntimeError, match="seed 1: FileNotFoundError"):
        study.run_chains(PLAN, tmp_path, make_model, [(1, SOME[:1])], lambda units: None)


def test_an_arm_run_again_gives_the_same_answers_problem_by_problem(made, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(made, again)
    shutil.rmtree(again / "seed-1" / "C+X")
    study.Chain(PLAN, 1, again, make_model, lambda units: None).run(SOME)
    first, second = (result(folder, "C+X") for folder in (made, again))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    answers = [(folder / "seed-1" / "C+X" / "answers.jsonl").read_bytes() for folder in (made, again)]
    assert answers[0] == answers[1]


def test_finetuning_begins_with_the_weights_of_its_start(made, chain):
    from safetensors.torch import load_file

    base = load_file(made / "seed-1" / "C" / "model" / "model.safetensors")
    tuned = next(arm for arm in ARMS if arm.name == "C+X")
    begun = chain._begin(tuned)
    assert (begun.wte.weight == base["transformer.wte.weight"]).all()
    fresh = chain._begin(replace(tuned, start=""))
    assert not (fresh.wte.weight == begun.wte.weight).all()


def test_the_random_subset_is_as_large_as_the_filtered_one(chain):
    sizes = {name: sum(map(len, chain.texts(name))) for name in ("raw", "filtered", "random")}
    assert abs(sizes["random"] - sizes["filtered"]) < 0.02 * sizes["filtered"]
    assert 0.9 * PLAN.kept < sizes["filtered"] / sizes["raw"] <= PLAN.kept
    assert set(chain.texts("filtered")) < set(chain.texts("raw")) > set(chain.texts("random"))


def test_the_permuted_arm_reads_the_same_filtered_code_and_as_many_pages(chain):
    right, wrong = chain.texts("textbook"), chain.texts("textbook permuted")
    pages = len(chain.material.sections)
    assert len(right) == len(wrong) and right[:-pages] == wrong[:-pages] == chain.texts("filtered")
    assert right[-pages:] != wrong[-pages:]


def test_pruning_leaves_out_just_what_is_similar_to_the_examination(chain):
    (arm,) = study.pruned([0.8])
    left = chain._exercises(arm)
    assert 0 < len(left) <= len(chain.material.exercises)
    solutions = [(p.exercise.entry_point, p.exercise.solution) for p in chain.material.problems]
    assert most_similar([(e.entry_point, e.solution) for e in left], solutions).max() < 0.8


def test_the_tokenizer_of_a_saved_model_begins_every_prompt_with_end_of_text(made):
    coder = study.open_coder(made / "seed-1" / "C" / "model")
    ids = coder.tokenizer("def f(x):").input_ids
    assert coder.tokenizer.convert_ids_to_tokens(ids)[0] == END_OF_TEXT
    assert coder.tokenizer.decode(ids, skip_special_tokens=True) == "def f(x):"


def test_a_folder_of_another_study_is_refused(made):
    with pytest.raises(ValueError, match="another --out"):
        study.prepare(replace(PLAN, steps=4), made, [], [])


def test_a_study_can_be_extended_by_seeds_and_thresholds(made):
    records = [list(read_records(made / "data" / f"{name}.jsonl")) for name in ("exercises", "sections")]
    about = study.prepare(PLAN, made, *records)
    assert study.prepare(replace(PLAN, seeds=(1, 2, 3), thresholds=(0.5,)), made, *records) == about


def test_a_result_holds_one_outcome_for_each_problem(made):
    problems = exam.load(made / "exam.jsonl")
    found = result(made, "C")
    assert len(found["passed"]) == len(found["parses"]) == len(found["chosen"]) == len(problems)
    figures = report.arm_figures(problems, [found])
    assert figures["scores"]["all"]["problems"] == len(problems) == 3 * 6
    assert figures["epochs"] == found["tokens_seen"] / found["tokens"]
