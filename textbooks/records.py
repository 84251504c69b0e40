"""The two kinds of record the data set is made of, and the files that hold them.

An `Exercise` is a signature and docstring, a solution, and tests; a `Section` is a page of textbook. Both
carry where they came from. Files are JSONL: one record a line, keys sorted, appended and synced, so a process
killed in mid-write leaves at most one torn last line, which the next opening cuts off.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

END_OF_TEXT = "<|endoftext|>"


def digest(*parts: object) -> str:
    """sha256 (hex) of the parts as canonical JSON: the same on every machine and Python version."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Exercise:
    """One function to write. `solution` starts with `prompt`; neither ends with a newline, because tokenizers
    merge a newline with the indentation that follows it, and a prompt cut between the two is never seen in
    training."""

    entry_point: str
    prompt: str
    solution: str
    tests: tuple[str, ...]
    topic: str
    other_topic: str
    audience: str
    teacher: str
    teacher_prompt: str
    seed: int
    spec: Mapping = field(default_factory=dict, hash=False)

    @property
    def key(self) -> str:
        return digest(self.entry_point, self.prompt, self.solution, list(self.tests))


@dataclass(frozen=True)
class Section:
    """One page of textbook: markdown with fenced Python whose claimed outputs were computed by running it."""

    title: str
    text: str
    topic: str
    other_topic: str
    audience: str
    teacher: str
    teacher_prompt: str
    seed: int
    spec: Mapping = field(default_factory=dict, hash=False)

    @property
    def key(self) -> str:
        return digest(self.title, self.text)


Record = Exercise | Section


def training_text(record: Record) -> str:
    """The text a model is trained on: the solution or the page, always closed by END_OF_TEXT."""
    body = record.solution if isinstance(record, Exercise) else record.text
    return body.rstrip("\n") + "\n" + END_OF_TEXT


def to_row(record: Record) -> dict:
    """The record as a JSON object, with its kind and key beside its fields."""
    return {"kind": type(record).__name__.lower(), "key": record.key, **asdict(record)}


def from_row(row: Mapping) -> Record:
    """The inverse of `to_row`. Raises ValueError if the row was changed after its key was written."""
    fields = {name: value for name, value in row.items() if name not in ("kind", "key")}
    if "tests" in fields:
        fields["tests"] = tuple(fields["tests"])
    record = (Exercise if row["kind"] == "exercise" else Section)(**fields)
    if record.key != row["key"]:
        raise ValueError(f"record {row['key'][:12]} does not match its key: the file was edited; rebuild it")
    return record


def dump(row: Mapping) -> str:
    return json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n"


class Journal:
    """An append-only JSONL file that survives being killed at any byte.

    Opening it cuts off a torn last line; `append` writes whole lines and syncs them before it returns.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._repair()
        self._file = open(self.path, "ab")  # noqa: SIM115 (closed by close)

    def _repair(self) -> None:
        if not self.path.exists():
            return
        with open(self.path, "rb+") as file:
            position = file.seek(0, os.SEEK_END)
            tail = b""
            while position > 0 and b"\n" not in tail:
                step = min(1 << 16, position)
                position = file.seek(position - step)
                tail = file.read(step) + tail
            file.truncate(position + tail.rfind(b"\n") + 1)

    def append(self, rows: Iterable[Mapping]) -> None:
        self._file.write("".join(map(dump, rows)).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def __iter__(self) -> Iterator[dict]:
        return read_jsonl(self.path)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exc) -> None:
        self.close()


def read_jsonl(path: Path) -> Iterator[dict]:
    """Rows of a JSONL file, in order. Raises ValueError that names the first line which is not JSON."""
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                raise ValueError(f"{path}, line {number} is not JSON: delete it and run again") from None


def read_records(path: Path) -> Iterator[Record]:
    return map(from_row, read_jsonl(path))


def write_jsonl(path: Path, rows: Iterable[Mapping]) -> str:
    """Write the rows in one atomic step (a reader sees the old file or the new one); returns the sha256."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    sha = hashlib.sha256()
    with open(partial, "wb") as file:
        for row in rows:
            line = dump(row).encode()
            sha.update(line)
            file.write(line)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return sha.hexdigest()
