"""The pipeline: killed anywhere it ends in the same bytes, and only what deserves it gets through."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.textbooks.fault_server import FaultServer, serving
from textbooks import pipeline
from textbooks.pipeline import Recipe
from textbooks.records import read_jsonl, read_records
from textbooks.teachers import FULL, Answer, TeacherStopped
from textbooks.teachers.grammar import GrammarTeacher

ROOT = Path(__file__).parents[2]
DATA = ("exercises.jsonl", "sections.jsonl", "removed.jsonl")


class Scripted:
    """A teacher whose answers are given; it stops, as a real one may, after `until` of them."""

    name, templates = "scripted", FULL

    def __init__(self, answers, until=None):
        self.answers, self.until, self.asked = answers, until, []

    def accepts(self, draw):
        return True

    def report(self):
        return {}

    def answer(self, prompts, answered, record):
        for prompt in prompts:
            if prompt.key not in answered:
                if self.until is not None and len(self.asked) >= self.until:
                    raise TeacherStopped("that is all for today")
                self.asked.append(prompt.index)
                record([(prompt, Answer(self.answers[prompt.index % len(self.answers)]))])


CODE = '''def add_INDEX(values: list[int]) -> int:
    """Return the sum of the values plus INDEX, counting a value twice if it is above 1INDEX."""
    total = INDEX
    for value in values:
        total += 2 * value if value > 1INDEX else value
    return total'''


def right(number: int) -> str:
    """A right answer; every number gives another function."""
    tests = [[], [1, 2, -7], [500, 1], [int(f"1{number}"), 3], [int(f"1{number}") + 1]]
    space: dict = {}
    code = CODE.replace("INDEX", str(number))
    exec(code, space)
    lines = [f"assert add_{number}({t!r}) == {space[f'add_{number}'](t)!r}" for t in tests]
    return "```python\n" + code + "\n\n" + "\n".join(lines) + "\n```"


GOOD = right(7)
BAD = {
    "parsed": "I would rather talk about the weather.",
    "verified": GOOD.replace("value > 17", "value > 16"),
    "clean": '''```python
def below(numbers: list[int], bound: int) -> bool:
    """Return whether all of the numbers are below the bound."""
    for number in numbers:
        if number >= bound:
            return False
    return True

assert below([1, 2, 4, 10], 100) == True
assert below([1, 20, 4, 10], 5) == False
assert below([1, 20, 4, 10], 21) == True
assert below([1, 20, 4, 10], 20) == False
assert below([], 1) == True
```''',
}


def run(folder, teacher, exercises=4, sections=0, **more):
    return pipeline.run(Recipe(exercises, sections), teacher, folder, allow_weaker=True, **more)


def test_what_is_wrong_repeated_or_a_benchmark_is_removed_with_its_stage_and_reason(tmp_path):
    answers = [GOOD, BAD["parsed"], BAD["verified"], GOOD.replace("total", "amount"), BAD["clean"], right(31)]
    result = run(tmp_path, Scripted(answers), exercises=6)
    assert [exercise.entry_point for exercise in result.exercises] == ["add_7", "add_31"]
    assert [(r.prompt.index, r.stage) for r in result.removed] == [
        (1, "parsed"), (2, "verified"), (3, "unique"), (4, "clean"),
    ]  # fmt: skip
    reasons = {r.stage: r.reason for r in result.removed}
    assert "failed" in reasons["verified"] and "near-duplicate" in reasons["unique"]
    assert "HumanEval/52" in reasons["clean"]
    assert result.funnel["exercise"] == {
        "prompted": 6, "answered": 6, "parsed": 5, "verified": 4, "unique": 3, "clean": 2,
    }  # fmt: skip
    assert list(read_records(tmp_path / "exercises.jsonl")) == result.exercises
    assert len(list(read_jsonl(tmp_path / "removed.jsonl"))) == 4


def test_a_teacher_that_stops_leaves_a_data_set_of_what_it_answered_and_is_asked_the_rest_later(tmp_path):
    answers = [right(n) for n in (7, 31, 402, 55)]
    first = run(tmp_path / "a", Scripted(answers, until=2))
    assert (first.unanswered, first.stopped, len(first.exercises)) == (2, "that is all for today", 2)
    second = Scripted(answers)
    again = run(tmp_path / "a", second)
    unbroken = run(tmp_path / "b", Scripted(answers))
    assert second.asked == [2, 3] and again.hashes == unbroken.hashes and again.unanswered == 0


def test_a_teacher_that_never_answers_is_an_error_and_not_an_empty_data_set(tmp_path):
    with pytest.raises(TeacherStopped, match="all for today"):
        run(tmp_path, Scripted([GOOD], until=0))
    assert not (tmp_path / "exercises.jsonl").exists()


def test_a_folder_is_never_shared_by_two_runs(tmp_path):
    run(tmp_path / "a", Scripted([GOOD]), exercises=1)
    with pytest.raises(ValueError, match="holds another run"):
        run(tmp_path / "a", Scripted([GOOD]), exercises=2)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="not empty"):
        run(tmp_path / "b", Scripted([GOOD]))


def test_prompts_mix_both_kinds_evenly_and_name_them():
    prompts = pipeline.prompts_for(Recipe(90, 10), Scripted([]))
    places = [prompt.index for prompt in prompts if prompt.kind == "section"]
    assert len(prompts) == 100 and places == [10 * n + 9 for n in range(10)]
    assert len({prompt.key for prompt in prompts}) == 100


def test_the_grammar_is_asked_only_what_it_can_answer():
    teacher = GrammarTeacher()
    prompts = pipeline.prompts_for(Recipe(40, 4), teacher)
    assert all(teacher.accepts(prompt.draw) for prompt in prompts)
    assert 300 < len(pipeline.reachable_leaves(teacher)) < len(pipeline.reachable_leaves(Scripted([])))


@given(st.lists(st.sampled_from(["", "bad", None]), min_size=1, max_size=80), st.integers(0, 10**6))
def test_a_judge_is_asked_once_about_each_item_whatever_the_cut(tmp_path_factory, verdicts, cut):
    """A verdict of None (no verdict) is never written down; all others survive any cut of the journal."""
    path, asked = tmp_path_factory.mktemp("judge") / "j.jsonl", []

    def judge(items):
        for item in items:
            asked.append(item)
            yield item, verdicts[int(item)]

    def decide():
        return pipeline.judged(path, items, str, judge, lambda done, total: None)

    items = [str(n) for n in range(len(verdicts))]
    first = decide()
    assert asked == items
    assert first == {i: v or "No verdict: run again." for i, v in zip(items, verdicts, strict=True) if v != ""}
    whole = path.read_bytes()
    asked.clear()
    assert decide() == first and asked == [i for i in items if verdicts[int(i)] is None]
    path.write_bytes(whole[: cut % (len(whole) + 1)])
    assert decide() == first and path.read_bytes() == whole


def test_a_small_data_set_of_the_grammar_has_no_duplicates_and_nothing_a_stub_would_pass(tmp_path):
    result = run(tmp_path, GrammarTeacher(), exercises=24, sections=3)
    records = [*result.exercises, *result.sections]
    assert len({record.key for record in records}) == len(records) >= 20 and len(result.sections) >= 2
    assert len(records) + len(result.removed) == 27
    for exercise in result.exercises:
        for stub in ("return None", "pass", "return 0", "return []", "return args[0]", "return True"):
            space: dict = {}
            exec(f"def {exercise.entry_point}(*args):\n    {stub}", space)
            with pytest.raises(AssertionError):
                for test in exercise.tests:
                    exec(test, space)
    before = {name: (tmp_path / name).read_bytes() for name in DATA}
    for journal in ("answers.jsonl", "verified.jsonl", "verified_claims.jsonl", "clean.jsonl"):
        size = (tmp_path / journal).stat().st_size
        os.truncate(tmp_path / journal, size * 2 // 3)
    for name in ("exercises.jsonl", "prompts.jsonl"):
        (tmp_path / name).unlink()
    run(tmp_path, GrammarTeacher(), exercises=24, sections=3)
    assert before == {name: (tmp_path / name).read_bytes() for name in DATA}


def test_an_infrastructure_error_is_not_taken_for_an_answer(tmp_path, monkeypatch):
    from textbooks import verify

    def broken(exercises, **options):
        for exercise in exercises:
            yield exercise, verify.Outcome(verify.Verdict.INFRASTRUCTURE, "the worker was lost.")

    monkeypatch.setattr(verify, "check_many", broken)
    assert run(tmp_path, Scripted([GOOD]), exercises=1).exercises == []
    monkeypatch.undo()
    assert len(run(tmp_path, Scripted([GOOD]), exercises=1).exercises) == 1


def command(folder: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "steps.08_textbook_synthesis", "--exercises", "210", "--sections", "12",
        "--allow-weaker-isolation", "--out", str(folder), *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_fifty_kills_change_nothing(tmp_path):
    """kill -9 at fifty random moments of a run: identical data, nothing lost, nothing twice."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    subprocess.run(command(whole), cwd=ROOT, check=True, capture_output=True)
    length = time.monotonic() - began
    rng = random.Random(8)
    kills = 0
    for _ in range(50):
        process = subprocess.Popen(command(killed), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(rng.uniform(0.3, length * 0.5))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    subprocess.run(command(killed), cwd=ROOT, check=True, capture_output=True)
    assert kills >= 25
    for name in DATA:
        assert (whole / name).read_bytes() == (killed / name).read_bytes()
    for journal in ("answers.jsonl", "verified.jsonl", "clean.jsonl"):
        keys = [row["key"] for row in read_jsonl(killed / journal)]
        assert len(keys) == len(set(keys)) == len(list(read_jsonl(whole / journal)))


@pytest.mark.slow
def test_kills_of_a_paid_run_lose_nothing_and_pay_nothing_twice(tmp_path, monkeypatch):
    """The endpoint bills once for each Idempotency-Key, as providers that honour it do."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")
    server, rng = FaultServer(delay=0.15), random.Random(3)
    with serving(server) as url:
        arguments = ("--teacher", "openai", "--base-url", url, "--model", "m", "--price-in", "1", "--price-out", "1")
        line = [*command(tmp_path / "run", *arguments, "--concurrency", "2")]
        line[line.index("210")], line[line.index("12")] = "60", "0"
        for _ in range(12):
            process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(1.0, 2.5))
            process.kill()
            process.wait()
        subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    answers = list(read_jsonl(tmp_path / "run" / "answers.jsonl"))
    assert len({row["key"] for row in answers}) == len(answers) == 60
    assert len(server.billed) == 60 and set(server.billed.values()) == {1}
    asked_twice = sum(server.seen.values()) - 60
    assert asked_twice <= 12 * 2  # at most what was in flight when it was killed


def test_ctrl_c_says_that_nothing_is_lost_and_exits_130(tmp_path):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command(tmp_path / "run"), cwd=ROOT, **pipes)
    for line in process.stdout:
        if line.startswith("answered"):
            break
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "nothing is lost" in told and "Traceback" not in told
