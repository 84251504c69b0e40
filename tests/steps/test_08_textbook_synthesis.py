"""Step 08's command line, and its recorded run."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import steps
from common.records import ARTIFACTS, fingerprint
from textbooks.audiences import audiences
from textbooks.parse import parse_exercise, parse_section
from textbooks.pipeline import Recipe, prompts_for
from textbooks.records import Exercise, read_jsonl, read_records
from textbooks.teachers.grammar import GrammarTeacher

STEP = steps.load(8)
FOLDER = ARTIFACTS / "08_textbook_synthesis"
ROOT = Path(__file__).parents[2]


def invoke(*arguments: str):
    return CliRunner().invoke(STEP.app, list(arguments))


def test_help_comes_at_once_and_names_every_teacher():
    began = time.perf_counter()
    line = [sys.executable, "-m", "steps.08_textbook_synthesis", "--help"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert time.perf_counter() - began < 4  # under a second on a quiet machine
    assert all(word in done.stdout for word in ("grammar", "local", "openai", "--budget-usd"))


def test_help_imports_nothing_heavy():
    code = "import sys, steps; steps.load(8); print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "sklearn", "matplotlib", "openai"} & set(eval(done.stdout))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--preset", "huge"], "there is no preset 'huge'"),
        (["--teacher", "oracle"], "there is no teacher 'oracle'"),
        (["--teacher", "openai"], "set OPENAI_API_KEY"),
        (["--teacher", "openai", "--budget-usd", "1"], "pass --price-in and --price-out"),
        (["--teacher", "local", "--model", "nowhere.gguf", "--exercises", "1", "--sections", "0"], "there is no model"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = invoke(*arguments, "--out", str(tmp_path / "run"), "--allow-weaker-isolation")
    assert done.exit_code == 2
    assert sentence in done.stderr and done.stderr.count("\n") == 1 and "Traceback" not in done.output


def test_a_run_from_start_to_card(tmp_path):
    arguments = ("--exercises", "8", "--sections", "1", "--out", str(tmp_path), "--allow-weaker-isolation")
    done = invoke(*arguments)
    assert done.exit_code == 0, done.output
    for heading in ("The topic tree", "One prompt", "One raw answer", "From prompts to records", "Yield by teacher"):
        assert heading in done.stdout
    run = json.loads((tmp_path / "run.json").read_text())
    card = (tmp_path / "card.md").read_text()
    assert all(sha in card for sha in run["hashes"].values()) and run["isolation"]["level"] in card
    assert (tmp_path / "coverage.png").stat().st_size > 5000 and (tmp_path / "lengths.png").stat().st_size > 5000
    assert run["example"]["verification"][0][1] == "passed"
    assert {verdict for _, verdict, _ in run["example"]["verification"][1:6]} == {"failed"}


def test_the_recorded_story_is_told_without_running_anything():
    began = time.perf_counter()
    done = invoke("--show")
    assert done.exit_code == 0, done.output
    assert time.perf_counter() - began < 30
    assert "Is it right, and would anything less have passed?" in done.stdout


def recorded(*folder: str) -> dict:
    return json.loads(FOLDER.joinpath(*folder, "run.json").read_text(encoding="utf-8"))


def test_the_recorded_run_is_of_this_code_and_reaches_the_figures():
    run = recorded()
    assert run["fingerprint"] == fingerprint(steps.path(8))
    assert run["funnel"]["exercise"]["clean"] >= 10_000 and run["section_characters"] >= 2_000_000
    assert run["isolation"]["level"] == "kernel" and not run["resumed"] and not run["unanswered"]
    assert run["wall_seconds"] <= 600 and run["recipe"] == {**vars(STEP.RECIPE["laptop"]), "seed": run["seed"]}


def test_the_local_teachers_run_is_recorded_beside_it():
    run = recorded("local")
    assert run["teacher"].startswith("local:") and run["usage"]["tokens_per_second"] >= 100
    assert run["fingerprint"] == fingerprint(steps.path(8))


def test_the_committed_sample_is_what_the_grammar_writes_today():
    """Every tenth record of the sample, made again from its prompt, is the same to the letter."""
    run, teacher = recorded(), GrammarTeacher(processes=1)
    prompts = {p.text: p for p in prompts_for(Recipe(**run["recipe"]), teacher)}
    sample = list(read_records(FOLDER / "sample.jsonl"))[::10]
    assert len(sample) >= 10
    made = []
    teacher.answer([prompts[record.teacher_prompt] for record in sample], frozenset(), made.extend)
    for record, (prompt, answer) in zip(sample, made, strict=True):
        parser = parse_exercise if isinstance(record, Exercise) else parse_section
        assert parser(answer.text, prompt, teacher.name, answer.spec) == record


def test_the_committed_files_are_small_and_name_no_person_or_machine_path():
    roles = {audience.role for audience in audiences()}
    assert all(row["audience"] in roles for row in read_jsonl(FOLDER / "sample.jsonl"))
    for file in FOLDER.rglob("*"):
        if file.is_file():
            assert file.stat().st_size < 1_000_000
        if file.suffix in (".json", ".jsonl", ".md"):
            assert "/tmp/" not in file.read_text(encoding="utf-8")
