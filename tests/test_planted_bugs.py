"""The planted bugs: every one still fits the code, planting works beside other hooks, and a survivor is noticed.

That each is caught is proved by `python -m steps.bugs verify`, which takes minutes and is a command of its own.
"""

import ast
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from steps import bugs, planting
from steps.bugs import Bug, catalog, find, of_step
from steps.verify import Outcome, Verdict
from steps.walkthrough import main

EVERY = list(catalog().values())
NO_MASK = "05_multihead.no-mask"


def python(*arguments: object, bug: str = "", **options) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, planting.BUG: bug, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, env=environment, cwd=bugs.ROOT, capture_output=True, encoding="utf-8", timeout=300, **options
    )


@pytest.mark.parametrize("bug", EVERY, ids=lambda bug: bug.name)
def test_each_bug_fits_the_code_once_and_changes_what_it_does(bug):
    planted = bug.planted()  # raises if the text is not there exactly once
    assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse(bug.file.read_text(encoding="utf-8")))


def test_there_are_at_least_eighty_and_they_cover_every_step_and_what_the_steps_share():
    assert len(EVERY) >= 80
    stems = Counter(bug.name.split(".")[0] for bug in EVERY)
    for number in range(1, 8):
        assert sum(count for stem, count in stems.items() if stem.startswith(f"{number:02d}_")) >= 8
    shared = {"data", "tokenizer", "training", "optimizers", "experiment", "sampling", "checkpoint", "tracing"}
    assert shared <= stems.keys()


@pytest.mark.parametrize("bug", EVERY, ids=lambda bug: bug.name)
def test_each_bug_is_explained_and_names_tests_that_exist(bug):
    for sentence in (bug.symptom, bug.hint):
        assert sentence[0].isupper() and sentence[-1] in ".?"
    assert bug.mistake[-1] not in ".?"
    assert bug.kind in ("silent", "shape")
    assert bug.caught_by
    for test in bug.caught_by:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (bugs.ROOT / file).read_text(encoding="utf-8")


def test_few_bugs_are_found_by_crashing():
    assert sum(bug.kind == "shape" for bug in EVERY) <= len(EVERY) // 20


def test_no_two_bugs_are_the_same():
    assert len({bug.planted() for bug in EVERY}) == len(EVERY)


def test_a_bug_whose_text_is_gone_or_occurs_twice_is_an_error():
    fields = {"mistake": "", "after": "", "symptom": "", "hint": "", "caught_by": ()}
    with pytest.raises(ValueError, match=r"occurs 0 times in data\.py, not once: mend it in bugs\.toml"):
        Bug(name="data.x", before="no such text", **fields).planted()
    with pytest.raises(ValueError, match="not once"):
        Bug(name="data.x", before="tokens", **fields).planted()


def test_a_short_name_is_enough_within_a_step():
    assert find("no-mask", step=5).name == NO_MASK
    assert find("data.seeds-overlap", step=5) in of_step(5)
    with pytest.raises(ValueError, match="did you mean no-mask"):
        find("no-maks", step=5)
    with pytest.raises(ValueError, match=r"there is no bug .05_multihead\.no-mask. in step 04"):
        find(NO_MASK, step=4)
    with pytest.raises(ValueError, match=r"could be 03_attention.no-mask or .*: say which"):
        find("no-mask")


LOOK = """
import sys, inspect
{first}
{second}
step = steps.load(5)
import torch
model = step.Model(step.Config(vocab_size=3, block_size=4, n_embd=4, n_head=2))
leak = model(torch.tensor([[0, 1, 2]]))[0][0, 0] - model(torch.tensor([[0, 1, 1]]))[0][0, 0]
print("planted" if leak.any() else "healthy", "masked_fill" in inspect.getsource(step.Head.weights))
try:
    model.attn(torch.zeros(1, 2))
except Exception as error:
    print(type(error).__name__)
"""
HOOK = 'import jaxtyping; jaxtyping.install_import_hook(["steps", "common"], "beartype.beartype")'


@pytest.mark.slow
@pytest.mark.parametrize("lines", [(HOOK, "import steps"), ("import steps", HOOK)], ids=["hook first", "steps first"])
def test_a_planted_module_has_its_shapes_checked_like_any_other(lines):
    script = LOOK.format(first=lines[0], second=lines[1])
    assert python("-c", script, bug=NO_MASK).stdout.split() == ["planted", "False", "TypeCheckError"]
    assert python("-c", script).stdout.split() == ["healthy", "True", "TypeCheckError"]


def test_child_processes_inherit_the_bug_and_nothing_is_left_behind():
    script = (
        "import subprocess, sys, steps, common.data; print(common.data.__file__, flush=True)\n"
        "if len(sys.argv) > 1: subprocess.run([sys.executable, '-c', sys.argv[1]])"
    )
    files = {Path(line) for line in python("-c", script, script, bug="data.seed-ignored").stdout.split()}
    assert len(files) == 2
    assert not any(file.is_relative_to(bugs.ROOT) or file.parent.exists() for file in files)


def test_planting_what_is_imported_already_is_refused():
    with pytest.raises(RuntimeError, match=r"steps.bugs is imported already: plant before that"):
        planting.take_the_place_of("steps.bugs", "")


def test_a_bug_counts_as_caught_only_if_every_named_test_fails_by_its_claim():
    bug = find(NO_MASK)
    bug = Bug(**{**bug.__dict__, "caught_by": ("a.py::test_x", "a.py::test_y[2]")})

    def complaints(x: str, y: str, kind: str = "silent") -> list[str]:
        outcomes = {"a.py::test_x[1]": Outcome("passed"), "a.py::test_x[2]": Outcome(x), "a.py::test_y[2]": Outcome(y)}
        return Verdict(Bug(**{**bug.__dict__, "kind": kind}), outcomes, 0.0).complaints

    assert complaints("failed", "failed") == []
    assert complaints("failed", "passed") == ["a.py::test_y[2]: passed"]
    assert complaints("crashed", "failed") == ["a.py::test_x: crashed"]
    assert complaints("crashed", "failed", kind="shape") == []
    assert Verdict(bug, {}, 0.0).complaints == ["a.py::test_x: missing", "a.py::test_y[2]: missing"]
    assert Verdict(Bug(**{**bug.__dict__, "caught_by": ()}), {}, 0.0).complaints


@pytest.mark.slow
def test_verify_plants_runs_reports_and_tells_a_survivor(tmp_path):
    """The real thing on two small bugs; then again, blind to one of them."""
    report = tmp_path / "report.json"
    found = python("-m", "steps.bugs", "verify", "tokenizer.decode-off-by-one", "--report", report)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "1 of 1 bugs caught" in found.stdout
    assert '"caught": 1' in report.read_text(encoding="utf-8")
    blind = (
        "from steps import bugs; from dataclasses import replace; all = bugs.catalog()\n"
        "name = 'tokenizer.decode-off-by-one'\n"
        "all[name] = replace(all[name], caught_by=('tests/common/test_optimizers.py::{test}',))\n"
        "bugs.app(['verify', name])"
    )
    unaware = next(
        line.split("(")[0].removeprefix("def ")
        for line in (bugs.ROOT / "tests/common/test_optimizers.py").read_text(encoding="utf-8").splitlines()
        if line.startswith("def test_")
    )
    survived = python("-c", f"if __name__ == '__main__':\n exec({blind.format(test=unaware)!r})")
    assert survived.returncode == 1, survived.stdout + survived.stderr
    assert "tokenizer.decode-off-by-one survives" in survived.stdout


@pytest.mark.slow
def test_a_walk_with_a_bug_says_so_learns_from_the_future_and_leaves_no_record(tmp_path, capsys):
    text, out = tmp_path / "text.txt", tmp_path / "run"
    text.write_text("to be or not to be, that is the question\n" * 200, encoding="utf-8")
    sizes = ["--block-size", "16", "--batch-size", "4", "--steps", "4", "--sample", "9"]
    said = python("-m", "steps.05_multihead", "--bug", "no-mask", "--text", text, "--out", out, *sizes)
    assert said.returncode == 0, said.stderr
    assert f"planted: {NO_MASK}" in said.stdout
    assert "-        scores = scores.masked_fill" in said.stdout
    assert list(out.glob("checkpoint-*")) and not (out / "run.json").exists()


def test_the_checklist_shows_which_check_exposes_a_bug(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be, that is the question\n" * 200, encoding="utf-8")
    said = python("-m", "steps.03_attention", "--bug", "no-mask", "--text", text, "--check", "--block-size", "16")
    assert said.returncode == 1
    assert "✗ the future cannot leak into the past" in said.stdout
    assert find("no-mask", 3).caught_by[0] in said.stdout.replace("\n", "")


def test_the_bugs_of_a_step_can_be_listed_and_an_unknown_one_is_a_sentence(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(5, ["--bug", "list"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert NO_MASK in out and "data.targets-not-shifted" in out and "06_block" not in out
    with pytest.raises(SystemExit) as stopped:
        main(5, ["--bug", "no-such"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("05_multihead: there is no bug 'no-such' in step 05")


def test_nothing_is_recorded_with_a_bug():
    said = python("-m", "steps.record", "1", bug=NO_MASK)
    assert said.returncode == 2
    assert "only the steps as they are are recorded" in " ".join(said.stderr.replace("│", " ").split())
