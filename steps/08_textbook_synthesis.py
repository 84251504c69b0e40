"""Step 08 · Textbook synthesis

Good data can be made. A teacher is asked for small exercises and textbook pages, each about two topics and for one
audience, so that no two prompts are alike. Whatever it answers is distrusted: it must parse, its solution must pass
its own tests in a sandbox, programs that are *not* the solution must fail them, and nothing that repeats another
record or a benchmark problem may stay. What is left is a data set in which every record was run.

New: the data is written by a teacher and filtered by execution, instead of being collected.

Shapes: topics × topics × audiences → prompts → answers → records → verified → unique → clean
"""

import shlex
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from textbooks.pipeline import Recipe
from textbooks.teachers import Teacher, TeacherStopped

NAME = Path(__file__).stem
RECIPE = {
    "quick": Recipe(exercises=240, sections=24),
    "laptop": Recipe(exercises=13_000, sections=900),
    "large": Recipe(exercises=880_000, sections=120_000),  # CodeExercises of phi-1 holds 879.5 K; for an endpoint
}


def synthesize(recipe: Recipe, teacher: Teacher, folder: Path, allow_weaker: bool, console) -> dict:
    """Make the data set in `folder`, or go on with it, and return every figure about it."""
    from common.records import fingerprint
    from common.runtime import machine
    from textbooks import card, pipeline
    from textbooks.isolation import available_level
    from textbooks.story import StageBars

    began = time.perf_counter()
    resumed = (folder / "answers.jsonl").exists()
    with StageBars(console) as bars:
        result = pipeline.run(recipe, teacher, folder, allow_weaker, bars.update)
    run = {
        "step_name": NAME,
        "command": shlex.join(["python", "-m", f"steps.{NAME}", *sys.argv[1:]]),
        "teacher": teacher.name,
        "seed": recipe.seed,
        "recipe": asdict(recipe),
        "isolation": asdict(available_level()),
        "machine": machine(),
        "asked": pipeline.asked(teacher),
        "usage": teacher.report(),
        **card.figures(result),
        "wall_seconds": round(time.perf_counter() - began, 1),
        "resumed": resumed,  # if so, the seconds are of this session alone
        "example": card.example(result, folder, allow_weaker),
        "fingerprint": fingerprint(Path(__file__)),
    }
    card.write(run, result, folder)
    return run


def make_teacher(name: str, folder: Path, model: str | None, **endpoint) -> Teacher:
    """Raises ValueError for a teacher that does not exist, TeacherStopped for one that cannot start."""
    if name == "grammar":
        from textbooks.teachers.grammar import GrammarTeacher

        return GrammarTeacher()
    if name == "local":
        from textbooks.teachers.local import LocalTeacher

        return LocalTeacher(model and Path(model))
    if name == "openai":
        from textbooks.teachers.openai import Endpoint, OpenAITeacher

        return OpenAITeacher(Endpoint(model or "gpt-4o-mini", **endpoint), folder / "ledger.jsonl")
    raise ValueError(f"there is no teacher {name!r}: choose grammar, local or openai")


def walk(recipe: Recipe, teacher: Teacher, folder: Path, allow_weaker: bool, keep: bool) -> None:
    """The walkthrough: topics, the run, and what came of it."""
    from common.terminal import heading, make_console
    from textbooks import card, pipeline, story

    console = make_console()
    story.show_tree(console, pipeline.asked(teacher))
    heading(console, "Asking, running, filtering")
    run = synthesize(recipe, teacher, folder, allow_weaker, console)
    story.tell(console, run, folder)
    kept = f", and for keeping in {card.keep(run, folder)}" if keep else ""
    console.print(f"\nthe data set and its card are in {folder}{kept}", style="dim")
    if run["unanswered"]:
        why = run["stopped"] or "run the same command again"
        raise TeacherStopped(f"{run['unanswered']:,} prompts have no answer yet: {why}")


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.command(help="\n\n".join(" ".join(part.split()) for part in __doc__.split("\n\n")[:2]))
def main(
    preset: Annotated[str, typer.Option(help="quick (a minute), laptop (the recorded run) or large")] = "laptop",
    teacher: Annotated[str, typer.Option(help="grammar (needs nothing), local (a small model) or openai")] = "grammar",
    seed: Annotated[int, typer.Option(help="everything random follows from it", min=0)] = 0,
    exercises: Annotated[int | None, typer.Option(help="prompts for exercises", show_default="preset's", min=0)] = None,
    sections: Annotated[int | None, typer.Option(help="prompts for pages", show_default="preset's", min=0)] = None,
    out: Annotated[Path | None, typer.Option(help="the run's folder", show_default=f"runs/{NAME}/…")] = None,
    show: Annotated[bool, typer.Option("--show", "--no-train", help="tell the story of the recorded run")] = False,
    record: Annotated[bool, typer.Option("--record", help="keep figures, sample and card in artifacts/")] = False,
    model: Annotated[str | None, typer.Option(help="local: a GGUF file or folder; openai: the model's name")] = None,
    base_url: Annotated[str | None, typer.Option(help="openai: the endpoint (key: OPENAI_API_KEY)")] = None,
    price_in: Annotated[float, typer.Option(help="openai: dollars a million prompt tokens", min=0)] = 0.0,
    price_out: Annotated[float, typer.Option(help="openai: dollars a million answer tokens", min=0)] = 0.0,
    budget_usd: Annotated[float | None, typer.Option(help="openai: never spend more", min=0)] = None,
    budget_tokens: Annotated[int | None, typer.Option(help="openai: never use more", min=0)] = None,
    concurrency: Annotated[int, typer.Option(help="openai: requests at once", min=1)] = 8,
    allow_weaker: Annotated[bool, typer.Option("--allow-weaker-isolation", help="below the kernel's")] = False,
    present: Annotated[bool, typer.Option("--present", help="show the step's slides, full-screen, and stop")] = False,
) -> None:
    if present:
        from steps.present import present as show_slides

        raise typer.Exit(show_slides(8))
    try:
        if show:
            from textbooks import story

            return story.tell_recorded(NAME)
        if preset not in RECIPE:
            raise ValueError(f"there is no preset {preset!r}: choose {', '.join(RECIPE)}")
        if budget_usd is not None and not price_in + price_out:
            raise ValueError("a budget in dollars needs prices: pass --price-in and --price-out")
        given = {"exercises": exercises, "sections": sections}
        recipe = replace(RECIPE[preset], seed=seed, **{k: v for k, v in given.items() if v is not None})
        folder = out or Path("runs") / NAME / f"{teacher}-{recipe.exercises}-{recipe.sections}-{seed}"
        endpoint = {"base_url": base_url, "price_in": price_in, "price_out": price_out, "concurrency": concurrency}
        endpoint |= {"budget_usd": budget_usd, "budget_tokens": budget_tokens}
        walk(recipe, make_teacher(teacher, folder, model, **endpoint), folder, allow_weaker, record)
    except KeyboardInterrupt:
        typer.secho("\nstopped; nothing is lost: run the same command again to go on", err=True)
        raise typer.Exit(130) from None
    except (ValueError, RuntimeError, OSError, TeacherStopped) as error:
        typer.secho(f"{NAME}: {error}", fg="red", err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    app()
