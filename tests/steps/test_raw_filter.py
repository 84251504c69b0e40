"""The filter of raw code: its record belongs to the code as it is, and is told from the record."""

from typer.testing import CliRunner

import steps
from common.records import fingerprint
from steps import raw_filter
from textbooks import story


def test_the_record_was_made_by_this_code():
    files = [steps.path(7), steps.FOLDER / "raw_filter.py"]
    made_by = {file.stem: fingerprint(file) for file in files}
    assert story.recorded_filter()["fingerprint"] == made_by, "run: python -m steps.raw_filter --record"


def test_what_is_recorded_is_told_and_nothing_is_trained(monkeypatch):
    monkeypatch.setattr(raw_filter, "measure", None)
    told = CliRunner().invoke(raw_filter.app, ["--show"])
    assert told.exit_code == 0
    for name, quality in story.recorded_filter()["quality"].items():
        assert name in told.output and f"{quality['auc']:.3f}" in told.output
