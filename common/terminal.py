"""How the project speaks in a terminal: colour and live bars where they help, plain lines where there is none."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

ACCENT = "cyan"


def make_console(quiet: bool = False, **options) -> Console:
    """A console that honours NO_COLOR and the width of the terminal; 100 columns where there is no terminal."""
    console = Console(highlight=False, quiet=quiet, **options)
    if not console.is_terminal and "width" not in options and "COLUMNS" not in os.environ:
        console.width = 100
    return console


def heading(console: Console, text: str) -> None:
    console.print()
    console.rule(Text(text, style=f"bold {ACCENT}"), align="left", style="dim")


def passage(text: str, title: str, prompt: str = "") -> Panel:
    """Generated text in a frame, with what the model was given set apart from what it wrote."""
    body = Text.assemble((prompt, "bold"), text.removeprefix(prompt))
    return Panel(body, title=title, title_align="left", border_style="dim", padding=(0, 1))


def duration(seconds: int | float) -> str:
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def count(number: int | float) -> str:
    """A number as people say it: 803 · 12.3 k · 1.19 M."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}" if number == int(number) else f"{number:.3g}"


class Bar:
    """A progress bar for steps of work; without a terminal, a line now and then instead."""

    LINES = 10  # how many lines a whole run prints where there is no terminal

    def __init__(self, console: Console, total: int, start: int, label: str):
        self.console, self.total, self.start, self.label = console, total, start, label
        self.began = time.monotonic()
        self._next_line = start + max(1, (total - start) // self.LINES)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None, complete_style=ACCENT, finished_style=ACCENT),
            TextColumn("{task.completed:,}/{task.total:,}"),
            TextColumn("{task.fields[facts]}"),
            console=console,
            expand=True,
            refresh_per_second=8,
            disable=not console.is_terminal or console.quiet,
        )
        self._task = self._progress.add_task(label, total=total, completed=start, facts="")

    def update(self, done: int, facts: Sequence[str]) -> None:
        """`facts` are short texts such as "loss 1.83"; the remaining time is added."""
        elapsed = time.monotonic() - self.began
        left = elapsed / max(1, done - self.start) * (self.total - done)
        line = " · ".join([*facts, f"{duration(left)} left" if done < self.total else f"took {duration(elapsed)}"])
        self._progress.update(self._task, completed=done, facts=line)
        if self._progress.disable and (done >= self._next_line or done == self.total):
            self._next_line += max(1, (self.total - self.start) // self.LINES)
            self.console.print(f"{self.label} {done:,}/{self.total:,} · {line}")


@contextmanager
def bar(console: Console, total: int, start: int, label: str) -> Iterator[Bar]:
    made = Bar(console, total, start, label)
    with made._progress:
        yield made


def table(*columns: str, right: Sequence[int] = ()) -> Table:
    """A light table; `right` numbers the columns that hold figures."""
    made = Table(box=None, pad_edge=False, header_style=f"bold {ACCENT}", padding=(0, 2, 0, 0))
    for place, name in enumerate(columns):
        made.add_column(name, justify="right" if place in right else "left", overflow="fold")
    return made
