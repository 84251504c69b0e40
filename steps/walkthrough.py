"""What `python -m steps.05_multihead` does: the command line that every step shares, and the walk through one step.

Nothing heavy is imported until the options have been read, so `--help` answers at once.
"""

import errno
import os
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from steps.planting import BUG
from steps.story import read

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130  # what a shell expects after Ctrl-C


Training, Machine, Sizes, Sampling, Inside = (
    partial(typer.Option, rich_help_panel=panel)
    for panel in ("Training", "Machine", "Sizes", "Sampling", "Looking inside")
)


@dataclass(frozen=True)
class Options:
    """The options of a step, as typed."""

    preset: str
    book: str
    text: Path | None
    seed: int
    device: str
    dtype: str
    out: Path
    resume: bool
    no_train: bool
    trace: bool
    check: bool
    bug: str | None  # the one that is planted
    from_hf: Path | None
    export_hf: Path | None
    plot: Path | None
    prompt: str | None
    sample: int
    temperature: float
    top_k: int | None
    recipe: dict[str, int | float | str]  # the fields of Recipe that were given
    model: dict[str, int | float]  # the fields of Config that were given


def main(number: int, arguments: list[str] | None = None, console: "Console | None" = None) -> None:
    """Run a step's command line. `arguments` is sys.argv[1:] and `console` the terminal, unless given."""
    story = read(number)
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)

    @app.command(help=f"Step {number:02d} · {story.title}.\n\n{story.idea}")
    def step(
        preset: Annotated[str, Training(help="quick (seconds), laptop (the recorded run) or gpu")] = "laptop",
        book: Annotated[str, Training(help="a book of the catalog: python -m book_data list")] = "moby-dick",
        text: Annotated[Path | None, Training(help="train on this UTF-8 text file instead")] = None,
        seed: Annotated[int, Training(help="everything random follows from it", min=0)] = 1337,
        steps: Annotated[int | None, Training(help="training steps, instead of the preset's", min=1)] = None,
        out: Annotated[Path, Training(help="where checkpoints and the record go")] = Path("runs") / story.name,
        resume: Annotated[bool, Training("--resume", help="continue the run in --out where it stopped")] = False,
        no_train: Annotated[bool, Training("--no-train", help="use the recorded checkpoint; needs no network")] = False,
        device: Annotated[str, Machine(help="auto, cpu, cuda or mps")] = "auto",
        dtype: Annotated[str, Machine(help="auto, float32 or bfloat16")] = "auto",
        optimizer: Annotated[str | None, Sizes(help="adamw or muon")] = None,
        learning_rate: Annotated[float | None, Sizes(help="peak rate of AdamW", min=0.0)] = None,
        batch_size: Annotated[int | None, Sizes(help="rows in a batch", min=1)] = None,
        block_size: Annotated[int | None, Sizes(help="T: how many characters the model sees", min=1)] = None,
        n_embd: Annotated[int | None, Sizes(help="C: length of a token's vector", min=1)] = None,
        n_head: Annotated[int | None, Sizes(help="H: heads in parallel", min=1)] = None,
        n_layer: Annotated[int | None, Sizes(help="blocks in the stack", min=1)] = None,
        dropout: Annotated[float | None, Sizes(help="share of activations zeroed", min=0.0, max=0.99)] = None,
        sample: Annotated[int, Sampling(help="characters to write", min=0)] = 400,
        prompt: Annotated[str | None, Sampling(help="what the text begins with", show_default="a line end")] = None,
        temperature: Annotated[float, Sampling(help="0 takes the likeliest, 1 follows the model", min=0.0)] = 0.8,
        top_k: Annotated[int | None, Sampling(help="draw from the k likeliest only", min=1)] = None,
        trace: Annotated[bool, Inside("--trace", help="show the traced forward pass, every layer, and stop")] = False,
        check: Annotated[bool, Inside("--check", help="run the checklist before training, and stop")] = False,
        from_hf: Annotated[Path | None, Inside(help="use a Hugging Face folder's GPT-2 weights (step 07)")] = None,
        export_hf: Annotated[Path | None, Inside(help="write the weights as a Hugging Face folder (step 07)")] = None,
        bug: Annotated[str | None, Inside(help="plant a known mistake and see what it does; list names them")] = None,
        plot: Annotated[Path | None, Inside(help="draw the loss curve and, from 03 on, attention maps here")] = None,
        present: Annotated[bool, Inside("--present", help="show the step's slides, full-screen, and stop")] = False,
    ) -> None:
        if present:
            from steps.present import present as show

            raise typer.Exit(show(number))
        sizes = {"block_size": block_size, "n_embd": n_embd, "n_head": n_head, "n_layer": n_layer, "dropout": dropout}
        if bug is not None:
            _plant(number, bug, arguments)
        planted = os.environ.get(BUG) or None
        if planted:
            from steps.bugs import announce

            announce(planted)
        if planted and out == Path("runs") / story.name:
            out = out.with_name(f"{out.name}-with-{planted.split('.')[1]}")
        loop = {"steps": steps, "optimizer": optimizer, "learning_rate": learning_rate, "batch_size": batch_size}
        options = Options(
            preset=preset,
            book=book,
            text=text,
            seed=seed,
            device=device,
            dtype=dtype,
            out=out,
            resume=resume,
            no_train=no_train,
            trace=trace,
            check=check,
            bug=planted,
            from_hf=from_hf,
            export_hf=export_hf,
            plot=plot,
            prompt=prompt,
            sample=sample,
            temperature=temperature,
            top_k=top_k,
            recipe=_given(loop),
            model=_given(sizes),
        )
        from steps.walk import walk

        try:
            code = walk(story, options, command(number, arguments), console)
        except (ValueError, RuntimeError, OSError) as error:
            if "GPT_STEPS_TRACEBACK" in os.environ:
                raise
            typer.secho(f"{story.name}: {_sentence(error)}", fg="red", err=True)
            code = 2 if isinstance(error, ValueError | OSError) else 1
        except KeyboardInterrupt:
            code = INTERRUPTED
        if planted and check:
            from steps.bugs import who_catches

            who_catches(planted, checks_failed=code != 0)
        raise typer.Exit(code)

    app(arguments, prog_name=f"python -m steps.{story.name}")


def _plant(number: int, bug: str, arguments: list[str] | None) -> None:
    """List the bugs of a step, or go on in a process that has this one in it."""
    from steps import bugs

    if bug == "list":
        bugs.list_bugs(number)
        raise typer.Exit(0)
    try:
        name = bugs.find(bug, number).name
    except ValueError as error:
        typer.secho(f"{read(number).name}: {error}", fg="red", err=True)
        raise typer.Exit(2) from error
    if os.environ.get(BUG) != name:
        raise typer.Exit(bugs.run_with(name, [f"steps.{read(number).name}", *_typed(arguments)]))


def command(number: int, arguments: list[str] | None = None) -> str:
    """The command as one would type it again."""
    return shlex.join(["python", "-m", f"steps.{read(number).name}", *_typed(arguments)])


def _typed(arguments: list[str] | None) -> list[str]:
    return sys.argv[1:] if arguments is None else arguments


def _given(options: dict[str, int | float | str | None]) -> dict:
    return {name: value for name, value in options.items() if value is not None}


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        todo = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "check the path"
        return f"{error.filename or 'a file'}: {error.strerror.lower()}; {todo} and try again"
    return str(error)
