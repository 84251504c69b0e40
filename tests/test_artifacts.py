"""What is recorded belongs to the code as it stands, and the README says what is recorded."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common import checkpoint
from common.records import ARTIFACTS, fingerprint, recorded_runs
from common.runtime import machine
from steps import readme, story
from steps.ladder import LANGUAGE_MODEL, runs_of_the_ladder

ROOT = Path(readme.__file__).parent.parent


@pytest.mark.parametrize("number", LANGUAGE_MODEL)
def test_the_record_was_made_with_this_code(number):
    message = f"step {number} changed since it was recorded: python -m steps.record {number}"
    assert recorded_runs()[number]["fingerprint"] == fingerprint(story.read(number).file), message


def test_a_fingerprint_ignores_words_and_sees_code(tmp_path):
    file = tmp_path / "step.py"

    def made(text: str) -> str:
        file.write_text(text, encoding="utf-8")
        return fingerprint(file)

    plain = made('"""One."""\ndef f(x):\n    """Two."""\n    return x * 2  # three\n')
    assert made('"""Uno."""\n\ndef f(x):\n    """Due."""\n    return x*2\n') == plain
    assert made('"""One."""\ndef f(x):\n    """Two."""\n    return x * 3  # three\n') != plain
    assert made('"""One."""\ndef f(x: int):\n    """Two."""\n    return x * 2  # three\n') != plain


def test_validation_loss_falls_at_every_step():
    losses = [run["val_loss"] for run in runs_of_the_ladder().values()]
    assert len(losses) == 7
    assert losses == sorted(losses, reverse=True) and len(set(losses)) == 7
    assert losses[0] < math.log(83) and losses[-1] <= 1.62


@pytest.mark.parametrize("number", LANGUAGE_MODEL)
def test_a_record_says_its_conditions(number):
    run = recorded_runs()[number]
    assert run["command"] == f"python -m steps.{story.read(number).name} --seed 1337"
    assert run["preset"] == "laptop" and run["book"]["name"] == "moby-dick"
    assert run["book"]["sha256"].startswith("fe282a57") and run["val_tokens"] == 119_031
    assert run["curve"][-1]["step"] == run["steps"] == run["recipe"]["steps"]
    assert run["bits_per_char"] == run["val_loss"] / math.log(2)
    assert {"cpu", "cores", "torch", "python", "system"} <= run["machine"].keys()
    assert run["wall_seconds"] <= (180 if number == 7 else 30)


@pytest.mark.parametrize("number", LANGUAGE_MODEL)
def test_the_committed_weights_write_the_recorded_sample(number, capsys):
    from steps.walkthrough import main

    if machine()["cpu"] != recorded_runs()[number]["machine"]["cpu"]:
        pytest.skip("another processor rounds differently, and one rounded probability changes the text")
    with pytest.raises(SystemExit) as stopped:
        main(number, ["--no-train"])
    assert stopped.value.code == 0
    shown = re.sub(r"[│╭╮╰╯\s]", "", capsys.readouterr().out)
    assert re.sub(r"\s", "", recorded_runs()[number]["sample"]["text"]) in shown


def test_the_recorded_walkthrough_needs_no_network_and_no_cache(tmp_path):
    environment = {**os.environ, "GPT_STEPS_CACHE": str(tmp_path), "PATH": "", "https_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "steps.07_full_gpt", "--no-train", "--sample", "20"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", LANGUAGE_MODEL)
def test_the_committed_checkpoint_is_whole(number):
    saved = checkpoint.read(ARTIFACTS / story.read(number).name / "checkpoint")
    assert saved.step == recorded_runs()[number]["steps"]


def test_what_is_recorded_stays_small():
    assert sum(file.stat().st_size for file in ARTIFACTS.rglob("*") if file.is_file()) < 20_000_000


def test_the_readme_says_what_is_recorded():
    text = readme.README.read_text(encoding="utf-8")
    assert readme.filled(text) == text, "the README's figures are not the recorded ones: python -m steps.readme"
    for name in readme.BLOCKS:
        assert f"<!-- {name} -->" in text and f"<!-- /{name} -->" in text


def test_every_path_that_the_readme_links_exists():
    links = re.findall(r"\]\(([^)#:]+)\)", readme.README.read_text(encoding="utf-8"))
    assert len(links) >= 6
    assert [link for link in links if not (ROOT / link).exists()] == []
