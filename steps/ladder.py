"""The ladder of recorded losses: where each step stands."""

from typing import Any

from rich.table import Table

from common.records import recorded_runs
from common.terminal import count, duration, table
from steps import numbers
from steps.story import read

WIDE, NARROW = 24, 10  # characters for the longest bar, in a terminal of 110 columns or more and below


LANGUAGE_MODEL = range(1, 8)  # the steps that are a language model of the book


def runs_of_the_ladder() -> dict[int, dict[str, Any]]:
    """Step number → recorded run, for steps 01–07."""
    return {number: run for number, run in recorded_runs().items() if number in LANGUAGE_MODEL}


def ladder(width: int, here: int | None = None, val_loss: float | None = None) -> Table:
    """All steps with their recorded validation losses; `here` and its fresh `val_loss` are marked.

    `width` is the terminal's, in columns.
    """
    runs = runs_of_the_ladder()
    losses = {number: run["val_loss"] for number, run in runs.items()}
    longest = WIDE if width >= 110 else NARROW
    worst = max([*losses.values(), val_loss or 0.0], default=1.0)
    made = table("step", "idea", "validation loss", "", "parameters", "trained in", right=(2, 4, 5))
    for number in numbers():
        title = read(number).title
        if number not in runs:
            made.add_row(f"{number:02d}", title, "", "", "", "", style="dim")
            continue
        run, bar = runs[number], "█" * round(longest * losses[number] / worst)
        figures = (f"{losses[number]:.3f}", bar, count(run["parameters"]), duration(run["train_seconds"]))
        made.add_row(f"{number:02d}", title, *figures, style="bold" if number == here else "")
        if number == here and val_loss is not None:
            made.add_row("", "  this run", f"{val_loss:.3f}", "▒" * round(longest * val_loss / worst), style="cyan")
    return made
