"""`python -m steps.clinic`: one line of a step is wrong. Examine the patient, and say which.

A bug is drawn from the planted ones (steps/bugs.toml) and never named. You may watch it train beside a healthy copy,
run the checklist, ask for a hint; then you choose among plausible diagnoses.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from steps import load
from steps.bugs import Bug, of_step, tell
from steps.planting import BUG
from steps.story import read

if TYPE_CHECKING:
    from common.data import Corpus

SIZES = {"block_size": 32, "n_embd": 48, "n_head": 4, "n_layer": 3, "dropout": 0.1}  # small: a run takes seconds
STEPS = 200
CHARACTERS = 90_000  # of the book: a tenth of them is validated on in a second
OWN = 0.7  # how often the bug is in the step itself, and not in what all steps share
CHOICES = 6
MENU = "[bold]r[/]un  [bold]c[/]hecklist  [bold]h[/]int  [bold]d[/]iagnose  [bold]g[/]ive up"


@dataclass(frozen=True)
class Case:
    """A step with a bug in it, and what it might be."""

    step: int
    bug: Bug
    diagnoses: tuple[Bug, ...]  # the right one among them


def draw_case(seed: int, step: int | None = None) -> Case:
    """The same seed gives the same case."""
    rng = random.Random(seed)
    step = step or rng.randint(1, 7)
    suspects = [bug for bug in of_step(step) if bug.clinic]
    place = step if rng.random() < OWN else None
    bug = rng.choice([bug for bug in suspects if bug.step == place])
    others = {other.mistake: other for other in rng.sample(suspects, len(suspects)) if other.mistake != bug.mistake}
    diagnoses = sorted([bug, *list(others.values())[: CHOICES - 1]], key=lambda _: rng.random())
    return Case(step, bug, tuple(diagnoses))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    step: Annotated[int | None, typer.Option(help="examine this step  [default: any]", min=1, max=7)] = None,
    seed: Annotated[int | None, typer.Option(help="draws the bug; the same seed is the same case", min=0)] = None,
    book: Annotated[str, typer.Option(help="what it is trained on: python -m book_data list")] = "python-reference",
    inside: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    from common.terminal import make_console

    console = make_console()
    if inside:  # this is the process with the bug in it
        assert step is not None
        (run_inside if inside == "run" else check_inside)(console, step, book)
        return
    seed = random.SystemRandom().randrange(10_000) if seed is None else seed
    try:
        examine(console, draw_case(seed, step), seed, book)
    except KeyboardInterrupt:
        console.print()
        raise typer.Exit(130) from None


def examine(console: Console, case: Case, seed: int, book: str) -> None:
    """The conversation."""
    from common.terminal import heading

    story = read(case.step)
    heading(console, f"The clinic · case {seed}")
    console.print(
        f"Step {story.number:02d}, {story.title}: one line is wrong, in {story.file.name} or in common/. Which?"
    )
    tries = 0
    while True:
        answer = ask(console, MENU)
        if answer is None or answer.startswith("g"):
            heading(console, "It was this")
            return tell(console, case.bug)
        if answer.startswith("r"):
            show_run(console, case, book)
        elif answer.startswith("c"):
            console.print(_inside("check", case.step, book, case.bug.name).stdout, markup=False, end="")
        elif answer.startswith("h"):
            console.print(case.bug.hint, style="italic")
        elif answer.startswith("d"):
            chosen = choose(console, case)
            tries += chosen is not None
            if chosen == case.bug:
                heading(console, "Right, at once" if tries == 1 else f"Right, at try {tries}")
                return tell(console, case.bug)
            if chosen:
                console.print(f"[red]No.[/] With that, one would see: {chosen.symptom}")
        else:
            console.print("type the first letter of what you want to do", style="dim")


def ask(console: Console, question: str) -> str | None:
    """One line, in lower case; None where there is nobody left to answer."""
    try:
        answer = console.input(f"\n{question} › ")
    except EOFError:
        return None
    if not sys.stdin.isatty():
        console.print(answer, markup=False)  # so that a piped session reads like a typed one
    return answer.strip().lower()


def choose(console: Console, case: Case) -> Bug | None:
    for number, bug in enumerate(case.diagnoses, 1):
        console.print(f"  [bold]{number}[/]  {bug.mistake}")
    answer = ask(console, f"what is wrong, 1–{len(case.diagnoses)}?")
    if answer and answer.isdecimal() and 1 <= int(answer) <= len(case.diagnoses):
        return case.diagnoses[int(answer) - 1]
    console.print(f"choose a number from 1 to {len(case.diagnoses)}", style="dim")
    return None


def show_run(console: Console, case: Case, book: str) -> None:
    """A short run of the patient beside a healthy one."""
    from common.terminal import heading, table

    with console.status(f"training two small models for {STEPS} steps"):
        healthy, sick = (_inside("run", case.step, book, bug) for bug in ("", case.bug.name))
    right = json.loads(healthy.stdout)
    if sick.returncode:
        console.print(f"[red]It crashes[/]: {sick.stderr.strip().splitlines()[-1]}")
        return
    wrong = json.loads(sick.stdout)
    made = table("after step", "healthy: training", "validation", "patient: training", "validation", right=range(5))
    for a, b in zip(right["curve"], wrong["curve"], strict=False):
        losses = (f"{p[key]:.3f}" for p in (a, b) for key in ("train_loss", "val_loss"))
        made.add_row(str(a["step"]), *losses)
    made.add_row("[bold]final[/]", "", f"{right['val_loss']:.3f}", "", f"{wrong['val_loss']:.3f}", style="bold")
    heading(console, f"{STEPS} steps")
    console.print(made)
    console.print(
        f"\nparameters: healthy {right['parameters']:,}, patient {wrong['parameters']:,} · "
        f"a uniform guess loses {right['guess']:.3f}"
    )
    heading(console, "What they write")
    for label in right["texts"]:
        console.print(f"[bold]{label}[/]")
        for who, texts in (("healthy", right["texts"]), ("patient", wrong["texts"])):
            console.print(f"  {who}  {texts[label]!r}", markup=False, style="dim" if who == "healthy" else "")


def _inside(what: str, step: int, book: str, bug: str) -> subprocess.CompletedProcess[str]:
    """Look at the step in a process of its own, with the bug planted ("" for the healthy one)."""
    command = [sys.executable, "-m", "steps.clinic", "--inside", what, "--step", str(step), "--book", book]
    environment = {**os.environ, BUG: bug, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)


def run_inside(console: Console, number: int, book: str) -> None:
    """Train a small model and print what happened, as JSON."""
    import math

    import torch

    from common import experiment
    from common.runtime import resolve

    step, config, corpus = patient(number, book)
    torch.manual_seed(1)
    model = step.Model(config)
    recipe = replace(step.RECIPE["quick"], batch_size=16, model={})
    recipe = experiment.scaled(recipe, STEPS)
    with tempfile.TemporaryDirectory() as folder:
        result = experiment.run(model, corpus, recipe, resolve("cpu"), seed=1, folder=Path(folder), about={})
    model.eval()
    start = torch.from_numpy(corpus.tokenizer.encode("The "))[None]

    def text(temperature: float, top_k: int | None, seed: int) -> str:
        generator = torch.Generator().manual_seed(seed)
        return corpus.tokenizer.decode(model.generate(start, 72, temperature, top_k, generator)[0].tolist())

    texts = {
        "seed 1": text(0.8, None, 1),
        "seed 1 again": text(0.8, None, 1),
        "temperature 0.1": text(0.1, None, 1),
        "temperature 0": text(0.0, None, 1),
        "top_k 2": text(0.8, 2, 1),
    }
    parameters = sum(p.numel() for p in model.parameters())
    found = {"curve": result.curve[1::2], "val_loss": result.val_loss, "texts": texts, "parameters": parameters}
    print(json.dumps({**found, "guess": math.log(config.vocab_size)}))


def check_inside(console: Console, number: int, book: str) -> None:
    """Run the checklist."""
    from steps.show import show_checks

    step, config, corpus = patient(number, book)
    show_checks(console, step, replace(config, **({"dropout": 0.0} if hasattr(config, "dropout") else {})), corpus, 1)


def patient(number: int, book: str) -> tuple[Any, Any, "Corpus"]:
    """The step, a small configuration of it, and what it reads."""
    import book_data
    from common.data import read_corpus

    step, corpus = load(number), read_corpus(book_data.load(book).path)
    corpus = replace(corpus, tokens=corpus.tokens[:CHARACTERS])
    known = {field.name for field in fields(step.Config)}
    sizes = {name: size for name, size in SIZES.items() if name in known}
    return step, step.Config(vocab_size=len(corpus.tokenizer), **sizes), corpus


if __name__ == "__main__":
    app()
