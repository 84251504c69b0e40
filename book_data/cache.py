"""The user's cache: texts under their content's hash, written so that a file is whole or absent."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from book_data.cleaning import BookError, Plan, blocks, cleaned, measure


def cache_folder() -> Path:
    """Where books are kept: $GPT_STEPS_CACHE, or `gpt-step-by-step` in the user's cache folder."""
    if named := os.environ.get("GPT_STEPS_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gpt-step-by-step"


def keep(file: BinaryIO, plan: Plan, folder: Path, stem: str) -> tuple[Path, str, int]:
    """Put the cleaned text of `file` into `folder` unless it is there: (path, sha256, characters)."""
    sha256, characters = measure(cleaned(file, plan))
    path = folder / f"{stem}-{sha256[:16]}.txt"
    if not intact(path, sha256):
        with written_aside(path) as out:
            out.writelines(cleaned(file, plan))
    return path, sha256, characters


def intact(path: Path, sha256: str) -> bool:
    """Whether the file can be read and has this hash."""
    try:
        with path.open("rb") as file:
            return measure(blocks(file))[0] == sha256
    except OSError:
        return False


@contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the name `path` only once it is whole and on the disk; safe beside other writers.

    Raises BookError if it cannot be written; then nothing is left behind.
    """
    aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as out:
            aside = Path(out.name)
            yield out
            out.flush()
            os.fsync(out.fileno())
        aside.replace(path)
    except OSError as error:
        raise BookError(
            f"cannot write to the cache {path.parent} ({error.strerror}); "
            "set GPT_STEPS_CACHE to a folder that has room and is yours"
        ) from None
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)
