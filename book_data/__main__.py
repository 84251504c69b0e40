"""`python -m book_data`: which books there are, fetch one, look into one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

import book_data
from book_data import Book, BookError
from book_data.profile import Profile, profile

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Name = Annotated[str, typer.Argument(help="A name that `list` shows.")]


@app.callback()
def books() -> None:
    """The books that the models read."""


@app.command("list")
def list_books() -> None:
    """Show the catalog, and what of it is in the cache."""
    from rich.table import Table

    console = _console()
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("book", style="cyan", no_wrap=True)
    table.add_column("title")
    table.add_column("author")
    table.add_column("characters", justify="right")
    table.add_column("cached")
    table.add_column("source")
    for entry in book_data.catalog().values():
        built_in = entry.sources[0].module is not None
        book = None if built_in else book_data.cached(entry)
        characters = book.characters if book else entry.characters
        table.add_row(
            entry.name,
            entry.title,
            entry.author,
            f"{characters:,}" if characters else "varies",
            "built in" if built_in else "yes" if book else "no",
            book.source.split(" (")[0] if book else ", ".join(source.name for source in entry.sources),
        )
    console.print(table)
    console.print(f"\ncache: {book_data.cache_folder()}", style="dim", soft_wrap=True)


@app.command()
def fetch(
    name: Name = book_data.DEFAULT,
    again: Annotated[bool, typer.Option("--again", help="Fetch it even if the cache has it.")] = False,
) -> None:
    """Bring a book into the cache, checked by its hash."""
    with _one_sentence():
        book = book_data.load(name, fallback=False, again=again, on_note=_note)
    _console().print(
        f"{book.title}: {book.characters:,} characters from {book.source}\n{book.path}\nsha256 {book.sha256}",
        soft_wrap=True,
        highlight=False,
    )


@app.command()
def inspect(
    book: Annotated[
        str, typer.Argument(metavar="NAME_or_FILE", help="A book of the catalog, or a text file.")
    ],
) -> None:
    """Count what is in a text: its alphabet, lines, words, and how it is split."""
    with _one_sentence():
        if book in book_data.catalog():
            loaded = book_data.load(book, fallback=False, on_note=_note)
        else:
            loaded = book_data.load(text=Path(book), on_note=_note)
        counted = profile(loaded)
    _show(loaded, counted)


def _show(book: Book, counted: Profile) -> None:
    from rich.table import Table
    from rich.text import Text

    console = _console()
    console.print(Text(book.title, style="bold"), Text(f"by {book.author}" if book.author else ""))
    numbers = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    numbers.add_column(style="dim", no_wrap=True)
    numbers.add_column(overflow="fold")
    for label, value in {
        "source": book.source,
        "cleaned": "; ".join(book.notes) or "nothing to clean",
        "sha256": book.sha256,
        "characters": f"{counted.characters:,}",
        "lines": f"{counted.lines:,} (the longest has {counted.longest_line:,} characters)",
        "words": f"{counted.words:,}",
        "split": f"train {counted.train:,} · validation {counted.validation:,} (always the last 10 %)",
        "alphabet": f"{len(counted.alphabet)} distinct characters",
        "": "".join(map(_visible, counted.alphabet[:400])),
    }.items():
        numbers.add_row(label, Text(value))
    console.print(numbers)

    console.print("\nmost frequent characters", style="bold")
    top = counted.frequencies.most_common(12)
    room = min(console.width, 100) - 30
    for character, count in top:
        bar = "█" * max(1, round(room * count / top[0][1]))
        share = count / counted.characters
        console.print(Text.assemble(f"{_visible(character):>6}  ", (bar, "cyan"), f" {share:.1%}  {count:,}"))

    console.print("\nfirst lines", style="bold")
    for line in counted.head.split("\n")[:8]:
        console.print(
            Text("  " + "".join(c if c == " " else _visible(c) for c in line)),
            overflow="ellipsis",
            no_wrap=True,
        )


def _visible(character: str) -> str:
    """A character as something that can be seen: ␣ for a space, an escape for what does not print."""
    return "␣" if character == " " else character if character.isprintable() else repr(character)[1:-1]


def _console():
    """The terminal's console; without a terminal, plain lines that are not cut at 80 columns."""
    from rich.console import Console

    sys.stdout.reconfigure(errors="replace")  # an old code page cannot stop a listing
    console = Console()
    return console if console.is_terminal else Console(width=160, color_system=None)


def _note(note: str) -> None:
    typer.echo(note, err=True)


@contextmanager
def _one_sentence() -> Iterator[None]:
    """A BookError ends the command with its sentence and exit code 2."""
    try:
        yield
    except BookError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    app(prog_name="python -m book_data")
