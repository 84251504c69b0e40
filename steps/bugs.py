"""The planted bugs: one-place mistakes in our own code, each of which a named test must catch.

python -m steps.bugs list             all of them, with hints
python -m steps.bugs show NAME        one of them, as a diff
python -m steps.bugs verify           plant each in turn and demand that its tests turn red
python -m steps.05_multihead --bug NAME      walk through a step with a bug planted
"""

import difflib
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steps.planting import BUG

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ROOT = Path(__file__).parent.parent
FILE = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class Bug:
    """One mistake in one place of one file."""

    name: str  # "05_multihead.no-mask": the file's stem, a dot, what it is called
    mistake: str  # what was done wrong, in a few words
    before: str  # text that occurs exactly once in the file …
    after: str  # … and what the mistake makes of it
    symptom: str  # what one sees
    hint: str  # where to look
    caught_by: tuple[str, ...]  # pytest ids; every one must fail
    kind: str = "silent"  # "shape": it crashes
    clinic: bool = True  # its symptom shows in a short run or in the checklist

    @property
    def module(self) -> str:
        """As in `import common.data`."""
        stem = self.name.split(".")[0]
        return f"{'steps' if stem[:2].isdigit() else 'common'}.{stem}"

    @property
    def file(self) -> Path:
        return ROOT / f"{self.module.replace('.', '/')}.py"

    @property
    def step(self) -> int | None:
        """The step it is planted in; None for `common`, which all steps share."""
        return int(self.name[:2]) if self.name[:2].isdigit() else None

    def planted(self) -> str:
        """The file's text with the bug in it. Raises ValueError if the text to change is not there exactly once."""
        text = self.file.read_text(encoding="utf-8")
        if text.count(self.before) != 1:
            raise ValueError(
                f"bug {self.name}: its `before` occurs {text.count(self.before)} times in {self.file.name}, "
                f"not once: mend it in {FILE.name}"
            )
        return text.replace(self.before, self.after)

    def diff(self) -> list[str]:
        """What was changed, as the lines of a unified diff."""
        old, new = self.file.read_text(encoding="utf-8").splitlines(), self.planted().splitlines()
        return list(difflib.unified_diff(old, new, "right", "wrong", n=2, lineterm=""))[2:]


@cache
def catalog() -> dict[str, Bug]:
    """Every bug of bugs.toml by its full name."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    bugs = (
        Bug(name=f"{stem}.{name}", **{**fields, "caught_by": tuple(fields["caught_by"])})
        for stem, named in tables.items()
        for name, fields in named.items()
    )
    return {bug.name: bug for bug in bugs}


def find(name: str, step: int | None = None) -> Bug:
    """A bug by its full name, or by the short one ("no-mask") among those of a step and of `common`.

    Raises ValueError, one sentence.
    """
    here = of_step(step) if step is not None else list(catalog().values())
    found = [bug for bug in here if name in (bug.name, bug.name.split(".")[1])]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{name!r} could be {' or '.join(bug.name for bug in found)}: say which")
    near = difflib.get_close_matches(name, [part for bug in here for part in (bug.name, bug.name.split(".")[1])], 1)
    where = f"step {step:02d}" if step is not None else FILE.name
    raise ValueError(
        f"there is no bug {name!r} in {where}: " + (f"did you mean {near[0]}?" if near else "--bug list names them")
    )


def of_step(step: int) -> list[Bug]:
    """The bugs that a run of this step can show: its own, then those of `common`."""
    return sorted((bug for bug in catalog().values() if bug.step in (step, None)), key=lambda bug: bug.step is None)


def run_with(name: str, arguments: Sequence[str]) -> int:
    """`python -m` these arguments in a fresh process with a bug planted; here the modules are imported already.

    Returns its exit code, if it returns at all.
    """
    command, environment = [sys.executable, "-m", *arguments], {**os.environ, BUG: name}
    if os.name != "nt":
        os.execve(sys.executable, command, environment)
    process = subprocess.Popen(command, env=environment)
    with suppress(KeyboardInterrupt):  # Ctrl-C reaches the other process too, and it decides what to do
        return process.wait()
    return process.wait()


def announce(name: str) -> None:
    """The banner of every run with a bug in it."""
    from common.terminal import heading, make_console

    console = make_console(quiet=os.environ.get("RANK", "0") != "0")
    heading(console, "A bug is planted: nothing here is to be trusted")
    tell(console, find(name))


def who_catches(name: str, checks_failed: bool) -> None:
    """After the checklist: what the checklist cannot see, the tests must."""
    from common.terminal import make_console

    console, bug = make_console(), find(name)
    if not checks_failed:
        console.print(f"\nno check of this list exposes {bug.name}", style="bold")
    console.print("\ntests that catch it", style="bold")
    for test in bug.caught_by:
        console.print(f"  {test}", markup=False, style="dim")


app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command("list")
def list_bugs(
    step: Annotated[int | None, typer.Option(help="only those that a run of this step can show", min=1, max=7)] = None,
) -> None:
    """All planted bugs, with hints."""
    from common.terminal import make_console

    make_console().print(in_a_table(list(catalog().values()) if step is None else of_step(step)))


@app.command()
def show(name: Annotated[str, typer.Argument(help="such as 05_multihead.no-mask")]) -> None:
    """One bug: what was changed, what one sees, which tests catch it."""
    from common.terminal import make_console

    console = make_console()
    bug = _found(name)
    tell(console, bug)
    console.print("caught by", style="bold")
    for test in bug.caught_by:
        console.print(f"  {test}", markup=False)


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="bugs, or files such as training  [default: all]")] = None,
    jobs: Annotated[int, typer.Option(help="how many at a time", min=1)] = 2,
    report: Annotated[Path | None, typer.Option(help="write what happened to this file, as JSON")] = None,
) -> None:
    """Plant each bug and demand that every test named with it turns red. Exits with 1 when one survives."""
    from rich.markup import escape

    from common.terminal import bar, duration, heading, make_console
    from steps.verify import red_without_a_bug, verdicts

    bugs = [bug for bug in catalog().values() if not names or {bug.name, bug.name.split(".")[0]} & set(names)]
    if not bugs:
        raise typer.BadParameter(f"there is no bug and no file {', '.join(names)} in {FILE.name}")
    if not (ROOT / "tests").is_dir():
        raise typer.BadParameter(f"there are no tests in {ROOT}: run this in a checkout of the project")
    console, began = make_console(), time.perf_counter()
    heading(console, f"{len(bugs)} bugs, planted one at a time")
    if red := red_without_a_bug(bugs, jobs):
        console.print(f"not passed without any bug, so they prove nothing: {escape(', '.join(red))}", style="red")
        raise typer.Exit(1)
    found = []
    with bar(console, len(bugs), 0, "planting") as progress:
        for verdict in verdicts(bugs, jobs):
            found.append(verdict)
            if verdict.complaints:
                console.print(f"[bold red]✗ {verdict.bug.name} survives[/]  {escape('; '.join(verdict.complaints))}")
            elif console.is_terminal:
                console.print(f"[green]✓[/] {verdict.bug.name}  [dim]{len(verdict.bug.caught_by)} tests red[/]")
            survived = sum(bool(verdict.complaints) for verdict in found)
            progress.update(len(found), [f"{len(found) - survived} caught", f"{survived} survived"])
    seconds = time.perf_counter() - began
    console.print(f"\n[bold]{len(found) - survived} of {len(found)} bugs caught[/] in {duration(seconds)}")
    if report:
        from common.records import write_json
        from common.runtime import machine

        each = [
            {
                "name": verdict.bug.name,
                "caught": not verdict.complaints,
                "tests": {test: verdict.of(test) for test in verdict.bug.caught_by},
                "seconds": round(verdict.seconds, 1),
            }
            for verdict in sorted(found, key=lambda verdict: verdict.bug.name)
        ]
        about = {"seconds": round(seconds, 1), "jobs": jobs, "machine": machine()}
        write_json(report, {"bugs": len(found), "caught": len(found) - survived, **about, "each": each})
    raise typer.Exit(1 if survived else 0)


def in_a_table(bugs: Sequence[Bug]) -> "Table":
    from common.terminal import table

    made = table("bug", "hint")
    for bug in bugs:
        made.add_row(bug.name, bug.hint)
    return made


def tell(console: "Console", bug: Bug) -> None:
    """The mistake, its symptom and the lines that were changed."""
    from rich.text import Text

    console.print(f"[bold red]planted: {bug.name}[/]")
    console.print(f"[bold]mistake[/]  {bug.mistake}\n[bold]symptom[/]  {bug.symptom}")
    styles = {"+": "green", "-": "red", "@": "cyan"}
    console.print(bug.file.relative_to(ROOT).as_posix(), style="dim")
    for line in bug.diff():
        console.print(Text(line, style=styles.get(line[0], "dim")))


def _found(name: str) -> Bug:
    try:
        return find(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


if __name__ == "__main__":
    app()
