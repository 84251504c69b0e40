"""The ladder of recorded losses: where each step stands."""

import math
from typing import Any

from rich.table import Table
from rich.text import Text

from common.records import recorded_runs
from common.terminal import count, duration, table
from steps import numbers
from steps.story import read

BAR = 24  # characters for the longest bar


LANGUAGE_MODEL = range(1, 8)  # the steps that are a language model of the book


def runs_of_the_ladder() -> dict[int, dict[str, Any]]:
    """Step number → recorded run, for steps 01–07."""
    return {number: run for number, run in recorded_runs().items() if number in LANGUAGE_MODEL}


def ladder(here: int | None = None, val_loss: float | None = None) -> Table:
    """All steps with their recorded validation losses; `here` and its fresh `val_loss` are marked."""
    runs = runs_of_the_ladder()
    losses = {number: run["val_loss"] for number, run in runs.items()}
    worst = max(losses.values(), default=1.0)
    made = table("step", "idea", "validation loss", "", "parameters", "trained in", right=(2, 4, 5))
    for number in numbers():
        story = read(number)
        style = "bold" if number == here else ""
        loss = losses.get(number)
        bar = "█" * round(BAR * loss / worst) if loss else ""
        figures = (
            ("", "", "", "")
            if loss is None
            else (
                f"{loss:.3f}",
                bar,
                count(runs[number]["parameters"]),
                duration(runs[number]["train_seconds"]),
            )
        )
        made.add_row(f"{number:02d}", story.title, *figures, style=style)
        if number == here and val_loss is not None and not math.isnan(val_loss):
            made.add_row(
                "",
                Text("  this run"),
                f"{val_loss:.3f}",
                "▒" * round(BAR * val_loss / max(worst, val_loss)),
                "",
                "",
                style="cyan",
            )
    return made
