"""The page on the use of language models says what is recorded, and its links and commands work."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from steps import llm_usage
from steps.bugs import catalog
from steps.llm_usage import BLOCKS, PAGE, ROOT, syntheses
from steps.readme import filled
from textbooks.educational_value import FIRST, SECOND
from textbooks.records import read_jsonl

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_page_says_what_is_recorded():
    pytest.importorskip("sklearn")
    assert filled(TEXT, BLOCKS) == TEXT, "run: python -m steps.llm_usage"
    assert len(re.findall(r"<!-- symptom ", TEXT)) == len(re.findall(r"<!-- check ", TEXT)) >= 4


def test_a_figure_typed_over_is_put_right():
    pytest.importorskip("sklearn")
    (losses,) = re.findall(r"healthy \| [\d.]+ \| ([\d.]+) \| `The se mathomenarn", TEXT)
    assert filled(TEXT.replace(losses, "0.123"), BLOCKS) == TEXT


def test_a_call_to_an_endpoint_would_be_named(monkeypatch):
    assert "**No call to GPT-4" in TEXT
    folder, run = next(iter(syntheses().items()))
    paid = {**run, "teacher": "openai:gpt-4", "usage": {"usd": 1.5}}
    monkeypatch.setattr(llm_usage, "syntheses", lambda: {folder: paid})
    block = llm_usage.recorded_block()
    assert "Models asked through an endpoint: gpt-4." in block and "$1.50" in block and "No call" not in block


def test_every_kept_record_and_label_says_who_made_it():
    for folder, run in syntheses().items():
        rows = list(read_jsonl(ROOT / folder / "sample.jsonl"))
        assert {row["teacher"] for row in rows} <= {run["teacher"]}
    assert all(json.loads(line)["source"] for file in (FIRST, SECOND) for line in file.read_text("utf-8").splitlines())


def test_every_link_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)", TEXT) if "://" not in link]
    assert len(links) > 10
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_every_prompt_file_is_on_the_page():
    prompts = {file.name for file in (ROOT / "textbooks" / "prompts").glob("*.md")}
    assert prompts == set(re.findall(r"\(prompts/(\w+\.md)\)", TEXT))


def test_the_command_for_gpt_4_lacks_nothing_but_the_key(tmp_path):
    pytest.importorskip("openai")
    (command,) = re.findall(r"^python (-m steps\.08_.*?[^\\])$", TEXT, re.MULTILINE | re.DOTALL)
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    environment |= {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    arguments = [sys.executable, *shlex.split(command.replace("\\\n", " "))]
    ran = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert ran.returncode == 2 and "set OPENAI_API_KEY to the endpoint's key" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("bug", re.findall(r"<!-- check (\S+) -->", TEXT))
def test_the_check_of_an_episode_finds_its_bug(bug):
    (block,) = re.findall(rf"<!-- check {bug} -->\n(.*?)<!-- /check -->", TEXT, re.DOTALL)
    command = re.search(r"`python (-m .*?)`", block)[1]
    named = re.findall(r"^- ✗ ([^:]+):", block, re.MULTILINE)
    assert bug in catalog() and named
    arguments = [sys.executable, *shlex.split(command), "--book", "python-reference"]
    ran = subprocess.run(arguments, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    red = re.findall(r"^✗ ([^:]+):", ran.stdout, re.MULTILINE)
    assert ran.returncode == 1 and set(named) <= set(red)
