"""A text as the model reads it: valid UTF-8, LF line ends, the book and nothing around it.

Two passes over the bytes, each in chunks, so that a text of any size needs a few chunks of memory:
`plan` finds what is wrong and what must change, `cleaned` yields the changed bytes.
"""

import codecs
import hashlib
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

from book_data.progress import watched

CHUNK = 1 << 20  # bytes
BOM = codecs.BOM_UTF8
CONTINUATION = bytes(range(0x80, 0xC0))  # in UTF-8 every other byte begins a character
LONGEST_MARK = 1024  # bytes; no match of MARK is longer
MARK = re.compile(
    rb"""(?ix) (?<=[\r\n]) (?:
        (?P<start> \*\*\*\ ?START\ OF\ TH(?:E|IS)\ PROJECT\ GUTENBERG\ EBOOK [^*]{0,400} \*\*\*
            (?: [ \t]{0,40} (?: \r\n? | \n ) ){0,12} )
      | \*\*\*\ ?END\ OF\ TH(?:E|IS)\ PROJECT\ GUTENBERG\ EBOOK
      | END\ OF\ (?: TH(?:E|IS)\  )? PROJECT\ GUTENBERG )"""
)


class BookError(ValueError):
    """A book that cannot be had. The message is one sentence that says what to do."""


@dataclass(frozen=True)
class Plan:
    """What `cleaned` has to do to one file.

    spans: byte ranges [begin, end) of the file that are kept, in order
    line_ends: whether CR or CRLF must become LF
    framed: whether a Project Gutenberg header and footer were both found
    notes: one line for each change; empty when the file is clean as it is
    """

    spans: tuple[tuple[int, int], ...]
    line_ends: bool
    framed: bool
    notes: tuple[str, ...]


def plan(file: BinaryIO, name: str, *, chunk: int = CHUNK) -> Plan:
    """Read the whole seekable `file` once for faults and once for Project Gutenberg's frame.

    Raises BookError, calling the file `name`: empty, binary, or not UTF-8 (with the byte's offset).
    """
    size = file.seek(0, 2)
    if size == 0:
        raise BookError(f"{name} is empty; give a file with text in it")
    crlf, cr = _check(file, name, chunk)
    file.seek(0)
    first = len(BOM) if file.read(len(BOM)) == BOM else 0
    spans = _spans(_marks(file, first, chunk), first, size)
    if not any(begin < end for begin, end in spans):
        raise BookError(f"{name} holds no text apart from its frame; give a file with text in it")

    notes = []
    if first:
        notes.append("removed a byte-order mark")
    if crlf:
        notes.append("CRLF line ends became LF")
    if cr:
        notes.append("CR line ends became LF")
    header, footer = spans[0][0] > first, spans[-1][1] < size
    if header or footer:
        frame = " and ".join(["header"] * header + ["footer"] * footer)
        books = f" of {len(spans)} books" if len(spans) > 1 else ""
        stripped = size - first - sum(end - begin for begin, end in spans)
        notes.append(f"stripped the Project Gutenberg {frame}{books} ({stripped:,} bytes)")
    return Plan(tuple(spans), crlf or cr, header and footer, tuple(notes))


def cleaned(file: BinaryIO, plan: Plan, *, chunk: int = CHUNK) -> Iterator[bytes]:
    """The bytes of the cleaned text, in blocks of about `chunk` bytes."""
    for begin, end in plan.spans:
        file.seek(begin)
        held = b""  # a CR at the end of a block waits: the next byte may be its LF
        while begin < end and (block := file.read(min(chunk, end - begin))):
            begin += len(block)
            if plan.line_ends:
                block = held + block
                held = b"\r" if block.endswith(b"\r") and begin < end else b""
                block = block.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            yield block


def measure(stream: Iterable[bytes]) -> tuple[str, int]:
    """(sha256, number of characters) of valid UTF-8 that comes in blocks."""
    digest, characters = hashlib.sha256(), 0
    for block in stream:
        digest.update(block)
        characters += len(block.translate(None, CONTINUATION))
    return digest.hexdigest(), characters


def blocks(file: BinaryIO, chunk: int = CHUNK, *, begin: int = 0) -> Iterator[bytes]:
    """The file from byte `begin` on, in blocks of `chunk` bytes."""
    file.seek(begin)
    while block := file.read(chunk):
        yield block


def _check(file: BinaryIO, name: str, chunk: int) -> tuple[bool, bool]:
    """(has CRLF, has CR without LF); raises BookError at the first NUL or byte that is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = total = pairs = 0
    last = b""
    for block in watched(blocks(file, chunk), f"checking {name}", total=file.seek(0, 2)):
        nul = block.find(0)
        _decode(decoder, block if nul < 0 else block[:nul], offset, file, name)
        if nul >= 0:
            raise BookError(
                f"{name} looks binary (a NUL byte at offset {offset + nul:,}); give a plain text file"
            )
        total += block.count(b"\r")
        pairs += block.count(b"\r\n") + (last == b"\r" and block.startswith(b"\n"))
        last = block[-1:]
        offset += len(block)
    _decode(decoder, b"", offset, file, name, final=True)
    return pairs > 0, total > pairs


def _decode(
    decoder: codecs.IncrementalDecoder,
    block: bytes,
    offset: int,
    file: BinaryIO,
    name: str,
    *,
    final: bool = False,
) -> None:
    """Feed a block that begins at byte `offset`; bytes of an unfinished character wait in the decoder."""
    waiting = len(decoder.getstate()[0])
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError as error:
        where = offset - waiting + error.start
        byte = error.object[error.start]
        file.seek(0)
        utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding = "utf-16" if utf16 else "latin1"
        raise BookError(
            f"{name} is not UTF-8 (byte 0x{byte:02x} at offset {where:,}); convert it first, "
            f"for example with: iconv -f {encoding} -t utf-8 {shlex.quote(name)} > utf8.txt"
        ) from None


def _marks(file: BinaryIO, first: int, chunk: int) -> Iterator[tuple[bool, int, int]]:
    """(is it a START line, begin, end) of every Project Gutenberg mark, in bytes from the file's beginning.

    A window overlaps the next one by the longest mark, so a chunk's border cannot hide or cut one.
    """
    origin, window = first - 1, b"\n"  # a line break first, so that every line follows one
    for block in chain(blocks(file, chunk, begin=first), [b""]):
        window += block
        limit = max(len(window) - LONGEST_MARK, 1) if block else len(window)
        named = b"gutenberg" in window.lower()  # many times faster than the pattern, and almost never there
        for match in MARK.finditer(window) if named else ():
            if match.start() < limit:
                yield match["start"] is not None, origin + match.start(), origin + match.end()
        origin, window = origin + limit - 1, window[limit - 1 :]


def _spans(marks: Iterable[tuple[bool, int, int]], first: int, size: int) -> list[tuple[int, int]]:
    """The byte ranges between START and END marks; a text may be several books one after the other."""
    spans: list[tuple[int, int]] = []
    begin: int | None = first
    started = False
    for is_start, mark_begin, mark_end in marks:
        if is_start and not started:
            begin, started = mark_end, True
        elif not is_start and begin is not None:
            spans.append((begin, max(begin, mark_begin)))
            begin, started = None, False
    if begin is not None:
        spans.append((begin, size))
    return spans
