"""The books: which there are, where each comes from, and how a text is read and cleaned.

`load()` gives *Moby Dick*, `load("emma")` another book of the catalog, `load(text=path)` any text file.
"""

import io
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from book_data.cache import cache_folder, intact, keep, written_aside
from book_data.cleaning import BookError, blocks, measure, plan
from book_data.progress import watched
from book_data.sources import Source, Unavailable

__all__ = ["DEFAULT", "Book", "BookError", "Entry", "Source", "cache_folder", "cached", "catalog", "load"]

DEFAULT = "moby-dick"
OFFLINE = "python-reference"
UNPINNED = "Project Gutenberg's edition changes now and then: recorded numbers will not reproduce exactly"


@dataclass(frozen=True)
class Book:
    """A text that is ready to be read.

    path: a cleaned UTF-8 file with LF line ends; a clean `text=` file is used where it lies
    sha256, characters: of that file
    source: what served it
    notes: one line for each thing that was done to it, or that a reader of its numbers must know
    """

    name: str
    title: str
    author: str  # "" where it is not known
    path: Path
    sha256: str
    characters: int
    source: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A book of the catalog. sha256 and characters are None where they differ from machine to machine."""

    name: str
    title: str
    author: str
    sources: tuple[Source, ...]
    year: int | None = None
    sha256: str | None = None
    characters: int | None = None


def catalog() -> dict[str, Entry]:
    """The books of catalog.toml by name, the default first."""
    text = Path(__file__).with_name("catalog.toml").read_text(encoding="utf-8")
    return {
        name: Entry(name, sources=tuple(Source(**source) for source in fields.pop("sources")), **fields)
        for name, fields in tomllib.loads(text).items()
    }


def load(
    name: str = DEFAULT,
    *,
    text: Path | None = None,
    cache: Path | None = None,
    fallback: bool = True,
    again: bool = False,
    on_note: Callable[[str], None] | None = None,
) -> Book:
    """The book called `name`, or the file `text`: from the cache, or fetched, checked and cleaned.

    fallback: go on with the Python reference when the default book cannot be fetched
    again: fetch even if the cache has the book
    on_note: is called with each of the book's notes, and with a line before each download

    Raises BookError: no such book, no source serves it, or the text cannot be used.
    """
    say = on_note or (lambda note: None)
    folder = Path(cache or cache_folder())
    if text is not None:
        book = _from_file(Path(text), folder)
    else:
        entry = catalog().get(name)
        if entry is None:
            raise BookError(
                f"there is no book {name!r}; choose one of {', '.join(catalog())}, or use --text FILE"
            )
        book = None if again else cached(entry, folder)
        try:
            book = book or _fetch(entry, folder, say)
        except _Unfetched as error:
            if not fallback or name != DEFAULT:
                raise
            book = load(OFFLINE, cache=folder)
            note = f"{error.what}; going on with {book.title} ({OFFLINE}), so numbers will differ"
            book = replace(book, notes=(note, *book.notes))
    for note in book.notes:
        say(note)
    return book


def cached(entry: Entry, folder: Path | None = None) -> Book | None:
    """The entry's book if the cache has it whole. Touches no network."""
    folder = Path(folder or cache_folder()) / "books"
    try:
        record = json.loads((folder / f"{entry.name}.json").read_bytes())
        book = Book(**record | {"path": folder / record["path"], "notes": tuple(record["notes"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    current = book.sha256 == entry.sha256 or UNPINNED in book.notes
    return book if current and intact(book.path, book.sha256) else None


class _Unfetched(BookError):
    def __init__(self, what: str):
        self.what = what
        super().__init__(f"{what}; connect to a network, or use --book {OFFLINE} or --text FILE")


def _fetch(entry: Entry, folder: Path, say: Callable[[str], None]) -> Book:
    """The book from the first source that serves it, kept in the cache."""
    failures = []
    for source in entry.sources:
        if source.module is None:
            say(f"fetching {entry.title} from {source}")
        try:
            return _receive(entry, source, folder / "books", tuple(failures))
        except Unavailable as error:
            failures.append(str(error))
    raise _Unfetched(f"{entry.title} could not be fetched ({'; '.join(failures)})")


def _receive(entry: Entry, source: Source, folder: Path, failures: tuple[str, ...]) -> Book:
    file = io.BytesIO(source.read())
    try:
        todo = plan(file, source.name)
    except BookError as error:
        raise Unavailable(f"what came is no book: {error}") from None
    notes = todo.notes
    if source.url and source.sha256 is None:
        if not todo.framed:
            raise Unavailable(f"{source.name} sent something else than a whole Project Gutenberg book")
        notes = (*notes, UNPINNED)
    path, sha256, characters = keep(file, todo, folder, entry.name)
    book = Book(entry.name, entry.title, entry.author, path, sha256, characters, str(source), notes)
    if source.module is None:
        with written_aside(folder / f"{entry.name}.json") as out:
            out.write(json.dumps(vars(book) | {"path": path.name}, indent=1).encode())
    return replace(book, notes=(*(f"{failure}; tried the next source" for failure in failures), *notes))


def _from_file(path: Path, folder: Path) -> Book:
    try:
        if path.is_dir():
            raise BookError(f"{path} is a folder; name a text file in it")
        if not path.exists():
            raise BookError(f"there is no file {path}; check its spelling and the folder you are in")
        if not path.is_file():
            raise BookError(f"{path} is not a regular file; save its text to one first")
        with path.open("rb") as file:
            todo = plan(file, str(path))
            if todo.notes:
                kept, sha256, characters = keep(file, todo, folder / "texts", path.stem)
            else:
                size = file.seek(0, 2)
                sha256, characters = measure(watched(blocks(file), f"hashing {path.name}", size))
                kept = path
    except OSError as error:
        raise BookError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
    return Book(path.stem, path.name, "", kept, sha256, characters, f"file ({path})", todo.notes)
