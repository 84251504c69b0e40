"""Where a book's bytes come from: an npm package, a web address, or a module of this Python."""

import hashlib
import http.client
import importlib
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from book_data.progress import watched

LIMIT = 32 << 20  # bytes; no book in the catalog comes near
TIMEOUT = 15.0  # seconds without an answer
DEADLINE = 120.0  # seconds for a whole download


class Unavailable(Exception):
    """One source cannot serve the book; the message is a clause that says why."""


@dataclass(frozen=True)
class Source:
    """One place that has the book: exactly one of npm (with file), url and module is given.

    sha256: of the raw file, or None where the file changes from time to time
    """

    name: str
    npm: str | None = None
    file: str | None = None
    url: str | None = None
    module: str | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.npm or self.url or self.module})"

    def read(self) -> bytes:
        """The raw file, checked against its sha256. Raises Unavailable."""
        if self.npm:
            raw = _npm(self.npm, self.file or "")
        elif self.url:
            raw = _http(self.name, self.url)
        else:
            raw = _topics(self.module or "")
        found = hashlib.sha256(raw).hexdigest()
        if self.sha256 not in (None, found):
            raise Unavailable(f"{self.name} sent another file: sha256 {found[:8]}…, not {self.sha256[:8]}…")
        return raw


def _npm(package: str, file: str) -> bytes:
    """One file of a published package, through the npm client and whatever registry it is set up for."""
    npm = shutil.which("npm")  # on Windows this finds npm.cmd
    if npm is None:
        raise Unavailable("npm is not installed")
    command = [npm, "pack", package, "--silent", "--ignore-scripts", "--fetch-retries=1"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            code = subprocess.run(command, cwd=folder, timeout=DEADLINE, **quiet).returncode
        except subprocess.TimeoutExpired:
            raise Unavailable(f"npm gave no answer in {DEADLINE:.0f} s") from None
        except OSError as error:
            raise Unavailable(f"npm could not be started ({error.strerror})") from None
        tarballs = list(Path(folder).glob("*.tgz"))
        if code != 0 or not tarballs:
            raise Unavailable(f"npm could not bring {package} (exit code {code})")
        return _member(tarballs[0], file)


def _member(tarball: Path, file: str) -> bytes:
    """Exactly one file of a tarball; nothing else is read and nothing is unpacked."""
    try:
        with tarfile.open(tarball, "r:gz") as tar:
            for member in tar:
                if member.name == file and member.isfile() and member.size <= LIMIT:
                    return tar.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError, zlib.error):
        raise Unavailable("npm brought a damaged package") from None
    raise Unavailable(f"the package has no file {file}")


def _http(name: str, url: str) -> bytes:
    """The body behind a web address: whole, at most LIMIT bytes, within DEADLINE seconds."""
    request = urllib.request.Request(url, headers={"User-Agent": "gpt-step-by-step (fetches one book, once)"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            length = answer.length
            raw = b"".join(watched(_body(name, answer), name, length))
    except urllib.error.HTTPError as error:
        raise Unavailable(f"{name} answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", None) or error
        reason = getattr(cause, "strerror", None) or cause
        raise Unavailable(f"{name} could not be reached ({reason})") from None
    if length is not None and len(raw) != length:
        raise Unavailable(f"{name} stopped after {len(raw):,} of {length:,} bytes")
    return raw


def _body(name: str, answer: http.client.HTTPResponse) -> Iterator[bytes]:
    size, deadline = 0, time.monotonic() + DEADLINE
    while block := answer.read1(1 << 16):
        size += len(block)
        if size > LIMIT:
            raise Unavailable(f"{name} sent more than {LIMIT >> 20} MiB")
        if time.monotonic() > deadline:
            raise Unavailable(f"{name} took more than {DEADLINE:.0f} s")
        yield block


def _topics(module: str) -> bytes:
    """The language reference inside every Python: its topics in alphabetical order."""
    try:
        topics = importlib.import_module(module).topics
    except ImportError:
        raise Unavailable(f"this Python was installed without {module}") from None
    return "\n".join(topics[title] for title in sorted(topics)).encode()
