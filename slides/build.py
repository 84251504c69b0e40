"""`python -m slides.build`: make the deck, the article, the notebooks and the README's table from the steps.

Everything is rendered with Jinja2, strict about undefined names, from what `slides/sources.py` reads.
"""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from slides.sources import FILTERS, FUNCTIONS, ROOT, Missing, SourceError, load_json

DECK, ARTICLE = ROOT / "slides" / "deck.md", ROOT / "article" / "article.md"


class What(StrEnum):
    deck, article, notebooks, all = "deck", "article", "notebooks", "all"


def render(template: Path, skipped: list[str] | None = None) -> str:
    """A template's text.

    Where `skipped` is a list, a `{% block %}` that needs a step, a run or a picture which does not exist is left out
    and the reason is added to the list. Otherwise, and for a name that is wrong, SourceError says what to do.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

    environment = Environment(
        loader=FileSystemLoader(template.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= FUNCTIONS
    environment.filters |= FILTERS
    place = os.path.relpath(template, ROOT)
    try:
        loaded = environment.get_template(template.name)
        context = loaded.new_context({"benchmark": load_json(ROOT / "benchmarks" / "results.json")})
        if skipped is not None:
            for name, blocks in context.blocks.items():
                blocks[:] = [_leaving_out_what_is_missing(name, block, skipped) for block in blocks]
        return "".join(loaded.root_render_func(context))
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise SourceError(f"{place}{f':{line}' if line else ''}: {error.message}.") from None
    except SourceError as error:
        raise type(error)(f"{place}: {error}") from None


def _leaving_out_what_is_missing(name: str, block: Any, skipped: list[str]) -> Any:
    def guarded(context: Any) -> Iterator[str]:
        try:
            yield "".join(block(context))
        except Missing as error:
            skipped.append(f"{name} is left out: {error}")

    return guarded


def deck(skipped: list[str] | None) -> dict[Path, str]:
    return {DECK: render(ROOT / "slides" / "deck.md.j2", skipped)}


def article(skipped: list[str] | None) -> dict[Path, str]:
    return {ARTICLE: render(ROOT / "article" / "article.md.j2", skipped)}


def notebooks(skipped: list[str] | None) -> dict[Path, str]:
    import nbformat

    if importlib.util.find_spec("slides.notebooks") is None:
        raise Missing("slides/notebooks.py does not exist: write it first.")
    from slides.notebooks import build

    made = {name.removesuffix(".ipynb"): nbformat.writes(notebook) + "\n" for name, notebook in build().items()}
    return {ROOT / "notebooks" / f"{name}.ipynb": text for name, text in made.items()}


PARTS = {What.deck: deck, What.article: article, What.notebooks: notebooks}


def outputs(what: What, skipped: list[str] | None = None) -> dict[Path, str]:
    """Every text file that is made, with its text; `skipped` as in `render`, for whole parts too."""
    made: dict[Path, str] = {}
    for part in PARTS if what is What.all else (what,):
        try:
            if part is What.article and not (ROOT / "article" / "article.md.j2").is_file():
                raise Missing("article/article.md.j2 does not exist: write it first.")
            made |= PARTS[part](skipped)
        except Missing as error:
            if skipped is None:
                raise
            skipped.append(f"{part} is left out: {error}")
    return made


def readme() -> dict[Path, str]:
    """The README with its figures, and its table of what was made as it lies on the disk now."""
    from steps.readme import README, filled

    return {README: filled(README.read_text(encoding="utf-8"))}


def stale(made: dict[Path, str]) -> list[Path]:
    """The files whose committed text is not the one that was made."""
    return [file for file, text in made.items() if not file.is_file() or file.read_text(encoding="utf-8") != text]


def write(made: dict[Path, str]) -> None:
    """Write what is stale, and say for every file whether it was."""
    old = stale(made)
    for file, text in made.items():
        if file in old:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        typer.echo(f"{'made' if file in old else 'same'}  {file.relative_to(ROOT).as_posix()}")


def draw_deck() -> list[Path]:
    """Turn slides/deck.md into PPTX, HTML and PDF. SourceError says what is missing where it cannot be done."""
    from slides import pptx

    folder = DECK.parent
    pptx.write(folder / "deck.pptx")
    marp = folder / "node_modules" / ".bin" / "marp"
    if not marp.exists():
        raise SourceError("Marp is missing for deck.html and deck.pdf: install Node.js and npm, then run `make docs`.")
    browsers = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
    if not (os.environ.get("CHROME_PATH") or any(map(shutil.which, browsers))):
        raise SourceError("A browser is missing for deck.pdf: install Chromium, or set CHROME_PATH to one.")
    common = [marp, DECK.name, "--theme", "theme.css", "--allow-local-files", "--no-stdin"]
    for made in ("deck.html", "deck.pdf"):
        done = subprocess.run([*common, "-o", made], cwd=folder, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise SourceError(f"Marp could not make {made}: {done.stderr.strip().splitlines()[-1]}")
    return [folder / f"deck.{kind}" for kind in ("pptx", "html", "pdf")]


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    what: Annotated[What, typer.Argument(help="what to make")] = What.all,
    check: Annotated[bool, typer.Option("--check", help="change nothing; fail when a text is out of date")] = False,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="leave out what needs a run that does not exist yet, and say so")
    ] = False,
) -> None:
    """Make the deck, the article and the notebooks from the steps and their recorded runs."""
    skipped: list[str] | None = [] if skip_missing else None
    try:
        if check and skip_missing:
            raise SourceError("--check must see everything: leave out --skip-missing.")
        made = outputs(what, skipped)
        if check:
            made |= readme() if what is What.all else {}
            if old := stale(made):
                names = ", ".join(file.relative_to(ROOT).as_posix() for file in old)
                raise SourceError(f"Out of date: {names}; run `make docs` and commit what it changes.")
            typer.echo(f"{len(made)} texts are what their sources say")
            return
        write(made)
        if what is What.all:
            write(readme())
        for reason in skipped or []:
            typer.secho(reason, fg="yellow", err=True)
        if DECK in made:
            for file in draw_deck():
                typer.echo(f"made  {file.relative_to(ROOT).as_posix()}")
    except (SourceError, OSError) as error:
        typer.secho(f"slides.build: {error}", fg="red", err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    app()
