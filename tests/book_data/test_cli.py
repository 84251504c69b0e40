"""`python -m book_data`: what a reader sees, and that a fault is a sentence and exit code 2."""

import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from book_data import load
from book_data.profile import CHUNK, profile


def run(*arguments: str, cache, **environment: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "GPT_STEPS_CACHE": str(cache), "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(
        [sys.executable, "-m", "book_data", *arguments],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        timeout=60,
    )


def test_an_unreachable_book_is_one_sentence_and_exit_code_2(cache):
    ran = run("fetch", "moby-dick", cache=cache, https_proxy="http://127.0.0.1:9")
    assert ran.returncode == 2
    assert ran.stdout == ""
    error = ran.stderr.splitlines()[-1]
    assert error.startswith(
        "error: Moby-Dick; or, The Whale could not be fetched (npm is not installed; GitHub"
    )
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "arguments", [("fetch", "no-such-book"), ("inspect", "no-such-file"), ("inspect", ".")]
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, cache):
    ran = run(*arguments, cache=cache)
    assert ran.returncode == 2
    assert re.fullmatch(r"error: [^\n]+\n", ran.stderr)


def test_list_shows_every_book_and_whether_it_is_cached(cache):
    ran = run("list", cache=cache)
    assert ran.returncode == 0
    rows = {line.split()[0]: line for line in ran.stdout.splitlines() if line.strip()}
    assert "Herman Melville" in rows["moby-dick"]
    assert "1,190,317" in rows["moby-dick"]
    assert " no " in rows["moby-dick"]
    assert "built in" in rows["python-reference"]
    assert "\x1b" not in ran.stdout


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("arguments", [("list",), ("inspect", "python-reference")])
def test_a_terminal_of_any_width_is_not_overrun(columns, arguments, cache):
    ran = run(*arguments, cache=cache, COLUMNS=str(columns), FORCE_COLOR="1", TERM="xterm-256color")
    assert ran.returncode == 0
    assert "\x1b[" in ran.stdout
    seen = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in ran.stdout.splitlines()]
    assert max(len(line.rstrip()) for line in seen if not line.startswith("cache:")) <= columns


def test_no_color_is_honoured(cache):
    ran = run("list", cache=cache, COLUMNS="80", FORCE_COLOR="1", NO_COLOR="1", TERM="xterm-256color")
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", ran.stdout)


def test_inspect_says_what_was_cleaned_and_prints_no_control_characters(tmp_path, cache):
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffaab\x1b[31m\r\nccc ddd\r\n".encode())
    ran = run("inspect", str(path), cache=cache)
    assert ran.returncode == 0
    assert "removed a byte-order mark; CRLF line ends became LF" in ran.stdout
    assert "2 (the longest has 8 characters)" in ran.stdout
    assert "\x1b" not in ran.stdout
    assert "aab\\x1b[31m" in ran.stdout


@pytest.mark.parametrize(
    "text", ["one", "one\n", "\n\n", "a b\n  c\n\nlonger line", "word " * (CHUNK // 3), "w" * (CHUNK + 9)]
)
def test_the_profile_counts_what_the_whole_text_counts(text, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(text.encode())
    counted = profile(load(text=path))
    lines = text.removesuffix("\n").split("\n")
    assert counted.frequencies == Counter(text)
    assert (counted.lines, counted.words) == (len(lines), len(text.split()))
    assert counted.longest_line == max(map(len, lines))
    assert counted.validation == len(text) - len(text) * 9 // 10
    assert counted.train + counted.validation == len(text)


def test_importing_the_package_stays_light():
    heavy = "{'torch', 'numpy', 'rich', 'typer', 'transformers'}"
    code = f"import sys, book_data; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
