"""The clinic: a hidden bug, a conversation on a terminal or through a pipe, and the truth at the end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from steps import clinic
from steps.bugs import ROOT, of_step

SEEDS = range(200)


def visit(said: str, *arguments: object) -> tuple[int, str]:
    """A session with these lines as answers. Returns exit code and what was printed."""
    command = [sys.executable, "-m", "steps.clinic", *map(str, arguments)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "200"}
    done = subprocess.run(
        command, input=said, env=environment, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_the_same_seed_is_the_same_case():
    assert [clinic.draw_case(seed) for seed in SEEDS] == [clinic.draw_case(seed) for seed in SEEDS]
    assert len({clinic.draw_case(seed).bug for seed in SEEDS}) > 30


@pytest.mark.parametrize("step", range(1, 8))
def test_there_are_six_different_diagnoses_and_exactly_one_is_right(step):
    for case in (clinic.draw_case(seed, step) for seed in SEEDS):
        assert case.step == step and case.bug in of_step(step) and case.bug.clinic
        mistakes = [bug.mistake for bug in case.diagnoses]
        assert len(set(mistakes)) == clinic.CHOICES
        assert mistakes.count(case.bug.mistake) == 1


def test_every_bug_that_shows_can_be_drawn():
    possible = {bug.name for step in range(1, 8) for bug in of_step(step) if bug.clinic}
    drawn = {clinic.draw_case(seed, step).bug.name for step in range(1, 8) for seed in range(400)}
    assert drawn == possible


def test_a_wrong_diagnosis_is_answered_by_its_symptom_and_the_right_one_by_the_diff():
    case = clinic.draw_case(seed=3, step=4)
    right = case.diagnoses.index(case.bug) + 1
    wrong = right % len(case.diagnoses) + 1
    code, out = visit(f"h\nx\nd\n0\nd\n{wrong}\nd\n{right}\n", "--step", 4, "--seed", 3)
    assert code == 0
    assert "case 3" in out and case.bug.hint in out
    assert "type the first letter" in out and "choose a number from 1 to 6" in out
    before, _, after = out.partition("Right, at try 2")
    assert case.diagnoses[wrong - 1].symptom in before
    assert case.bug.name not in before and case.bug.name in after
    assert all(line in after for line in case.bug.diff() if line.startswith(("+", "-")))


@pytest.mark.slow
def test_the_patient_can_be_run_and_checked_and_the_truth_is_told_when_the_input_ends():
    seed = next(s for s in range(1000) if clinic.draw_case(s, 3).bug.name == "03_attention.mask-off-by-one")
    code, out = visit("r\nc\n", "--step", 3, "--seed", seed)
    assert code == 0
    final = next(line for line in out.splitlines() if line.lstrip().startswith("final")).split()
    assert float(final[2]) < float(final[1]) - 0.5  # it sees the answer
    assert "✗ the future cannot leak into the past" in out
    before, _, after = out.partition("It was this")
    assert "mask-off-by-one" not in before and "mask-off-by-one" in after


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_leaves_quietly():
    command = [sys.executable, "-m", "steps.clinic", "--seed", "1"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    while "›".encode() not in process.stdout.read1(4096):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, b"")
