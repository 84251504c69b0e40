"""Records, and files that survive being cut anywhere."""

import json
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textbooks.records import (
    END_OF_TEXT,
    Exercise,
    Journal,
    Section,
    from_row,
    read_jsonl,
    read_records,
    to_row,
    training_text,
    write_jsonl,
)

EXERCISE = Exercise(
    "f", 'def f(n: int) -> int:\n    """Ü?"""', 'def f(n: int) -> int:\n    """Ü?"""\n    return n',
    ("assert f(1) == 1",), "A/b/c", "D/e/f", "a baker", "grammar", "prompt", 1, {"depth": 2},
)  # fmt: skip
SECTION = Section("T", "# T\n\ntext", "A/b/c", "D/e/f", "a baker", "grammar", "prompt", 1)


def test_records_cannot_be_changed_and_hash_by_what_they_teach():
    with pytest.raises(FrozenInstanceError):
        EXERCISE.topic = "x"
    assert EXERCISE.key == replace(EXERCISE, topic="other", seed=9, spec={}).key
    assert EXERCISE.key != replace(EXERCISE, tests=("assert f(2) == 2",)).key
    assert len({EXERCISE, EXERCISE, SECTION}) == 2


@pytest.mark.parametrize("record", [EXERCISE, SECTION])
def test_every_training_text_ends_with_the_end_of_text_and_holds_it_once(record):
    text = training_text(record)
    assert text.endswith("\n" + END_OF_TEXT) and text.count(END_OF_TEXT) == 1


@pytest.mark.parametrize("record", [EXERCISE, SECTION])
def test_a_record_survives_its_file_and_an_edited_one_is_refused(record, tmp_path):
    write_jsonl(tmp_path / "r.jsonl", [to_row(record)])
    assert list(read_records(tmp_path / "r.jsonl")) == [record]
    row = to_row(record)
    row["solution" if "solution" in row else "text"] += "#"
    with pytest.raises(ValueError, match="does not match its key"):
        from_row(row)


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers()), min_size=1, max_size=5), st.data())
def test_a_file_cut_at_any_byte_keeps_its_whole_lines_and_goes_on(tmp_path_factory, rows, data):
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"
    with Journal(path) as journal:
        journal.append(rows)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    with Journal(path) as journal:
        kept = list(journal)
        assert kept == rows[: len(kept)] and len(kept) == whole[:cut].count(b"\n")
        journal.append(rows[len(kept) :])
    assert path.read_bytes() == whole


def test_a_line_longer_than_the_repair_window_is_cut_whole(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_text('{"a": 1}\n{"b": "' + "x" * 300_000)
    with Journal(path) as journal:
        assert list(journal) == [{"a": 1}]


def test_rows_are_canonical_lines(tmp_path):
    write_jsonl(tmp_path / "r.jsonl", [{"b": 1, "a": "ü\n"}])
    assert (tmp_path / "r.jsonl").read_text(encoding="utf-8") == '{"a": "ü\\n", "b": 1}\n'
    assert json.loads('"ü"') == "ü"


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"a": 1}\n{oops\n')
    with pytest.raises(ValueError, match="line 2"):
        list(read_jsonl(tmp_path / "r.jsonl"))
