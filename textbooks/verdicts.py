"""What is concluded from a program's answers: the verdicts, and how an answer is read and compared.

Everything a program writes is a stranger's data: it is read as JSON, never evaluated or unpickled, bounded in size,
and compared by exact type and value with what was expected.
"""

import errno
import json
import math
import signal
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from textbooks.isolation import Level, Limits, Reply, Worker, WorkerLost
from textbooks.worker import decode, encode

REFUSALS = {"PermissionError", "BlockingIOError", "MemoryError"}
DENIALS = {errno.EPERM, errno.EACCES, errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.EFBIG, errno.ENOSPC}
NO_VALUE = object()  # in the place of an answer that is missing or an error


class Verdict(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    REFUSED = "refused"  # the isolation or a resource limit denied it something
    INFRASTRUCTURE = "infrastructure error"  # says nothing about the program: try again


@dataclass(frozen=True)
class Outcome:
    verdict: Verdict
    reason: str  # one sentence
    failed_test: str | None = None
    seconds: float = 0.0  # of wall time, inside the worker
    level: Level | None = None  # None: decided without running anything

    @property
    def passed(self) -> bool:
        return self.verdict is Verdict.PASSED


def same(a: object, b: object) -> bool:
    """Equal in type and value all the way down. Floats may differ by rounding (relative 1e-9, absolute
    1e-12)."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        theirs = {_typed(key): value for key, value in b.items()}
        return len(a) == len(b) and all(_typed(k) in theirs and same(v, theirs[_typed(k)]) for k, v in a.items())
    if isinstance(a, set | frozenset):
        return set(map(_typed, a)) == set(map(_typed, b))
    return a == b


def _typed(key: Hashable) -> tuple:
    """A key that tells 1, 1.0 and True apart."""
    return (type(key), tuple(map(_typed, key)) if isinstance(key, tuple) else key)


class Rejected(BaseException):
    """A program gave no usable answer. Not an Exception, so that no `except` in a trusted test can swallow
    it."""

    def __init__(self, verdict: Verdict, reason: str):
        self.outcome = Outcome(verdict, reason)


def answers(reply: Reply, count: int, limits: Limits) -> Iterator[object]:
    """The `count` values a program was asked for, one by one. Raises Rejected at the first that is missing
    or unusable, and at the end if the program did not stop there."""
    lines = reply.answer.split("\n")[:-1]
    for line in lines[:count]:
        yield read_line(line)
    ends = {
        "cpu": (Verdict.TIMED_OUT, f"It used more than {limits.cpu_seconds:g} s of CPU time."),
        "wall": (Verdict.TIMED_OUT, f"It did not finish in {limits.wall_seconds:g} s."),
        "flood": (
            Verdict.FAILED,
            f"It wrote more than {limits.answer_bytes} bytes where its answers belong.",
        ),
        "silent": (Verdict.FAILED, "It closed its channel and went on running."),
    }
    if reply.ended in ends:
        raise Rejected(*ends[reply.ended])
    if reply.signal == signal.SIGKILL:
        raise Rejected(Verdict.REFUSED, "The isolation killed it, as it does for taking too much memory.")
    if reply.signal:
        raise Rejected(Verdict.FAILED, f"It crashed with signal {reply.signal}.")
    if len(lines) != count:
        raise Rejected(Verdict.FAILED, f"It gave {len(lines)} answers to {count} calls and ended.")


def read_line(line: str) -> object:
    """The value in one line of a program's answer. Raises Rejected if there is none."""
    try:
        message = json.loads(line)
        if message.keys() == {"value"}:
            return decode(message["value"])
        kind, text, errno_ = message["error"], message["text"], message["errno"]
        where = "Loading it" if "loading" in message else "It"
        reason = f"{where} raised {_plain(kind)}: {_plain(text)}".rstrip(": ") + "."
        refused = kind in REFUSALS or errno_ in DENIALS
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise Rejected(Verdict.FAILED, f"It did not answer with plain data ({_plain(error)}).") from None
    raise Rejected(Verdict.REFUSED if refused else Verdict.FAILED, reason)


def _plain(value: object) -> str:
    """Safe to print and to store: one short line of ASCII."""
    text = str(value).encode("ascii", "backslashreplace").decode()
    return "".join(c if c.isprintable() else " " for c in text)[:160]


def show(value: object) -> str:
    try:
        return _plain(repr(value))[:80]
    except (ValueError, RecursionError):  # an integer too long to print, or a value too deep
        return f"a large {type(value).__name__}"


def ask(worker: Worker, programs: list[str], entry_point: str, calls: Sequence[Sequence], limits: Limits) -> Reply:
    """The reply of one process that runs `programs` in turn. Raises Rejected if the worker is lost twice."""
    encoded = [encode(list(arguments)) for arguments in calls]
    for _ in range(2):
        try:
            return worker.run_in_turn(programs, entry_point, encoded, limits)
        except WorkerLost as error:
            lost = _plain(error)
    raise Rejected(Verdict.INFRASTRUCTURE, f"Twice, {lost}.")


def values(reply: Reply) -> list[object]:
    """All answers, with NO_VALUE for those that are errors."""
    found = []
    for line in reply.answer.split("\n")[:-1]:
        try:
            found.append(read_line(line))
        except Rejected:
            found.append(NO_VALUE)
    return found
