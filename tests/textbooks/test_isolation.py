"""The confined worker: what it promises about levels, limits, loss, and what travels over its pipe."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textbooks import isolation
from textbooks.isolation import Isolation, IsolationError, Level, Limits, Worker, WorkerLost, available_level
from textbooks.verdicts import same
from textbooks.worker import HASHED_ITEMS, INT_BITS, decode, encode

ECHO = "def echo(value):\n    return value"
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


@pytest.fixture(scope="module", params=list(Level))
def worker(request):
    if request.param is Level.KERNEL and available_level().level is not Level.KERNEL:
        pytest.skip("needs kernel isolation")
    with Worker(allow_weaker=True, level=request.param) as worker:
        yield worker


def values_of(worker: Worker, program: str, name: str, *calls: list, limits: Limits = Limits()) -> list:  # noqa: B008
    reply = worker.run(program, name, [encode(list(call)) for call in calls], limits)
    return [decode(json.loads(line)["value"]) for line in reply.answer.splitlines()]


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process ends within so many seconds; a zombie has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if ") Z " in Path(f"/proc/{pid}/stat").read_text():
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


# ---- levels --------------------------------------------------------------------------------------------------------


def test_the_level_comes_with_its_reason():
    assert available_level().level in Level
    assert len(available_level().reason.split()) > 3


@linux
def test_where_the_kernel_can_confine_it_does():
    """Or else a sandbox that lost a wall would skip the tests of the kernel level, and nothing would turn red."""
    sandlock = pytest.importorskip("sandlock")
    if sandlock.landlock_abi_version() < sandlock.min_landlock_abi():
        pytest.skip("this kernel has no Landlock that would do")
    assert available_level().level is Level.KERNEL, available_level().reason


def test_a_level_below_the_kernel_must_be_allowed_by_name(monkeypatch):
    monkeypatch.setattr(isolation, "available_level", lambda: Isolation(Level.PROCESS, "no Landlock"))
    with pytest.raises(IsolationError, match=r"process level.*no Landlock.*allow_weaker=True"):
        Worker()
    with Worker(allow_weaker=True) as worker:
        assert worker.level is Level.PROCESS
        assert values_of(worker, ECHO, "echo", [1]) == [1, 1]


def test_a_sandbox_that_does_not_confine_is_not_called_kernel_isolation(monkeypatch):
    def unconfined(command, script, memory_bytes):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen([*command[:5], "process", str(memory_bytes), ""], **pipes)

    monkeypatch.setattr(isolation, "_sandboxed", unconfined)
    found = available_level.__wrapped__()
    assert found.level is Level.PROCESS
    assert "does not refuse" in found.reason
    assert "reading" in found.reason


def test_a_missing_sandbox_package_is_the_reason_for_the_weaker_level(monkeypatch):
    monkeypatch.setitem(sys.modules, "sandlock", None)
    assert available_level.__wrapped__() == Isolation(Level.PROCESS, "the sandlock package is not installed")


# ---- running -------------------------------------------------------------------------------------------------------


def test_each_call_is_answered_twice_the_second_time_in_reverse(worker):
    assert values_of(worker, ECHO, "echo", [1], [2], [3]) == [1, 2, 3, 3, 2, 1]


def test_programs_in_turn_have_separate_names_and_keep_their_places(worker):
    programs = ["x = 1\ndef f():\n    return x", "def f(:", "def f():\n    return x"]
    reply = worker.run_in_turn(programs, "f", [[]], Limits())
    first, syntax, name = [json.loads(line) for line in reply.answer.splitlines()]
    assert first == {"value": 1}
    assert (syntax["error"], syntax["loading"]) == ("SyntaxError", True)
    assert name["error"] == "NameError"


def test_nothing_of_one_run_is_left_for_the_next(worker):
    values_of(worker, "import builtins, json\nbuiltins.left = json.left = 1\ndef f():\n    return 0", "f", [])
    look = "import json\ndef f():\n    return 'left' in dir(__builtins__) or hasattr(json, 'left')"
    assert values_of(worker, look, "f", []) == [False, False]


def test_the_environment_and_the_command_line_are_bare(worker):
    look = "import os, sys\ndef f():\n    return [sys.argv, sorted(os.environ)]"
    argv, names = values_of(worker, look, "f", [])[0]
    assert argv == [""]
    assert set(names) <= {"HOME", "PATH", "LANG", "LC_CTYPE", "TERM", "USER", "PWD"}


def test_waiting_costs_no_cpu_time(worker):
    program = "import time\ndef f():\n    time.sleep(0.25)\n    return 1"
    assert values_of(worker, program, "f", [], limits=Limits(cpu_seconds=0.2, wall_seconds=10)) == [1, 1]


def test_memory_that_is_given_back_is_not_held_against_the_program(worker):
    program = "def f():\n    return sum(len(bytearray(100 << 20)) for _ in range(10))"
    assert values_of(worker, program, "f", [], limits=Limits(cpu_seconds=5, wall_seconds=20)) == [1000 << 20] * 2


# ---- loss and ending -----------------------------------------------------------------------------------------------


def test_a_server_that_dies_is_a_loss_and_the_next_run_starts_another(worker):
    assert values_of(worker, ECHO, "echo", [1]) == [1, 1]
    os.kill(worker._process.pid, signal.SIGKILL)
    with pytest.raises(WorkerLost, match="lost"):
        worker.run(ECHO, "echo", [[1]], Limits())
    assert values_of(worker, ECHO, "echo", [2]) == [2, 2]


def test_a_server_that_stops_answering_is_a_loss(worker, monkeypatch):
    assert values_of(worker, ECHO, "echo", [1]) == [1, 1]
    monkeypatch.setattr(isolation, "GRACE", 0.2)
    os.kill(worker._process.pid, signal.SIGSTOP)
    with pytest.raises(WorkerLost, match=r"no answer in 0\.3 s"):
        worker.run(ECHO, "echo", [[1]], Limits(wall_seconds=0.1))


ESCAPEE = """
import ctypes, os, time
ctypes.CDLL(None).prctl(1, 0)
try:
    os.setsid()
except OSError:
    pass
def f():
    time.sleep(60)
"""


@linux
def test_giving_up_on_a_server_ends_a_program_that_left_its_group(worker, monkeypatch):
    assert values_of(worker, ECHO, "echo", [1]) == [1, 1]
    server = worker._process.pid
    children = Path(f"/proc/{server}/task/{server}/children")
    running: list[str] = []
    watcher = threading.Timer(0.7, lambda: running.extend(children.read_text().split()))
    watcher.start()
    monkeypatch.setattr(isolation, "GRACE", -59.0)
    with pytest.raises(WorkerLost, match="no answer in 1 s"):
        worker.run(ESCAPEE, "f", [[]], Limits(wall_seconds=60))
    watcher.join()
    assert len(running) == 1
    assert gone(server)
    assert gone(int(running[0]))


@linux
@pytest.mark.parametrize("level", list(Level))
def test_a_killed_checker_leaves_nothing_running(level):
    if level is Level.KERNEL and available_level().level is not Level.KERNEL:
        pytest.skip("needs kernel isolation")
    script = (
        "import sys, threading, time\n"
        "from textbooks.isolation import Level, Limits, Worker\n"
        f"worker = Worker(allow_weaker=True, level=Level({level.value!r}))\n"
        "worker.run('def f(): pass', 'f', [], Limits())\n"
        "print(worker._process.pid, flush=True)\n"
        "worker.run('def f():\\n    while True:\\n        pass', 'f', [[]], Limits(2, 2))\n"
    )
    checker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    server = int(checker.stdout.readline())
    children = Path(f"/proc/{server}/task/{server}/children")
    while not (running := children.read_text().split()):
        time.sleep(0.01)
    checker.kill()
    checker.wait()
    assert gone(int(running[0]), 10)
    assert gone(server, 10)


@linux
def test_one_server_holds_no_pipe_of_another():
    with Worker(allow_weaker=True) as first, Worker(allow_weaker=True) as second:
        for worker in (first, second):
            values_of(worker, ECHO, "echo", [1])
        theirs = [
            {os.readlink(link) for link in Path(f"/proc/{worker._process.pid}/fd").iterdir()}
            for worker in (first, second)
        ]
    pipes = [{name for name in names if name.startswith("pipe:")} for names in theirs]
    assert pipes[0]
    assert not pipes[0] & pipes[1]


# ---- the wire ------------------------------------------------------------------------------------------------------

scalars = (
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats() | st.complex_numbers()
    | st.text(st.characters(codec=None)) | st.binary()
)  # fmt: skip
keys = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.sets(keys, max_size=4)
    | st.frozensets(keys, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(plain)
def test_plain_values_come_back_as_they_went_types_included(value):
    assert same(decode(json.loads(json.dumps(encode(value)))), value)


tags = st.sampled_from(["int", "tuple", "set", "frozenset", "dict", "bytes", "complex", "other", "pickle"])
written = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(tags, inner, max_size=2),
)


@given(written)
def test_whatever_a_program_writes_is_refused_or_decodes_to_plain_data(wire):
    try:
        value = decode(wire)
    except (ValueError, TypeError, AttributeError):
        return
    assert same(decode(encode(value)), value)


class Int(int):
    pass


class Text(str):
    pass


LOOK_PLAIN = {"Int": Int(1), "Text": Text("a"), "range": range(3), "iterator": iter([]), "function": len, "class": Int}


@pytest.mark.parametrize("value", LOOK_PLAIN.values(), ids=LOOK_PLAIN)
def test_what_only_looks_plain_is_named_and_refused(value):
    with pytest.raises(ValueError, match="not plain data"):
        decode(encode([value]))


@pytest.mark.parametrize(
    "value", [1 << INT_BITS, -(1 << INT_BITS), set(range(HASHED_ITEMS + 1))], ids=["int", "negative", "set"]
)
def test_values_that_would_be_costly_to_decode_are_refused(value):
    with pytest.raises(ValueError, match="more than"):
        decode(encode(value))
