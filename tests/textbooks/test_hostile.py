"""Programs that try to pass without being right, to harm, or to hang: none passes, none harms, none hangs.

The programs and what the checker must say of each are in `hostile/programs.toml`.
"""

import ctypes
import os
import re
import socket
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from textbooks.isolation import Level, Limits, Worker, available_level
from textbooks.verify import Verdict, verify

PROGRAMS = tomllib.loads((Path(__file__).parent / "hostile" / "programs.toml").read_text(encoding="utf-8"))
TESTS = ("assert answer(2) == 52", "assert answer(3) == 117", "assert answer(-1) == 13")
HONEST = "def answer(n):\n    return 13 * n * n"
LIMITS = Limits(cpu_seconds=0.4, wall_seconds=6.0)
LONGEST = 10.0  # seconds for the longest of them, on a busy machine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts processes through /proc")
confined = pytest.mark.skipif(
    sys.platform == "linux" and available_level().level is not Level.KERNEL, reason="needs kernel isolation"
)


class Surroundings:
    """Everything a program could harm: a folder with the tests in it, sockets that listen, files, processes."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "tests.txt").write_text("\n".join(TESTS))
        folder.chmod(0o777)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.local, self.abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        self.local_path = f"/tmp/hostile-{os.getpid()}.socket"
        self.local.bind(self.local_path)
        self.abstract.bind("\0" + self.local_path)
        for listening in (self.local, self.abstract):
            listening.listen()
        for each in (self.tcp, self.udp, self.local, self.abstract):
            each.setblocking(False)
        self.before = self.state()

    def fill_in(self, program: str) -> str:
        values = {
            "FOLDER": self.folder,
            "PORT": self.tcp.getsockname()[1],
            "UDP_PORT": self.udp.getsockname()[1],
            "SOCKET": self.local_path,
            "PROJECT": Path(__file__).resolve().parents[2],
            "HOME": Path.home(),
            "SURROGATE": "\udc80",
            "LONG": "x" * 1_000_000,
        }
        for name, value in values.items():
            program = program.replace(f"@{name}@", str(value))
        return program

    def state(self) -> dict:
        """What must be the same afterwards. Canaries are the files that a program would have left behind."""
        places = (Path.home(), Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path.cwd(), Path(os.__file__).parent)
        return {
            "tests": (self.folder / "tests.txt").read_text(),
            "mode": (self.folder / "tests.txt").stat().st_mode,
            "files": sorted(path.name for path in self.folder.iterdir()),
            "canaries": [path for place in places for path in place.glob("*candidate[-_]canary*")],
            "contacts": self._contacts(),
        }

    def _contacts(self) -> int:
        count = 0
        for listening in (self.tcp, self.local, self.abstract):
            try:
                listening.accept()
            except BlockingIOError:
                continue
            count += 1
        try:
            self.udp.recv(10)
        except BlockingIOError:
            return count
        return count + 1

    def close(self) -> None:
        for each in (self.tcp, self.udp, self.local, self.abstract):
            each.close()
        os.unlink(self.local_path)


@pytest.fixture
def surroundings(tmp_path):
    found = Surroundings(tmp_path)
    yield found
    found.close()


@pytest.fixture(scope="module")
def workers():
    """One worker of each level for all programs: so each also has to leave it in order for the next."""
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans become our children, whatever they call themselves
    made: dict[Level, Worker] = {}
    yield lambda level: made.setdefault(level, Worker(level=level, allow_weaker=True, memory_bytes=256 << 20))
    for worker in made.values():
        worker.close()
    ctypes.CDLL(None).prctl(36, 0)


def processes(of: int) -> set[int]:
    """All live descendants of a process."""
    found = set()
    for task in Path(f"/proc/{of}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            if ") Z " not in Path(f"/proc/{child}/stat").read_text():
                found |= {child} | processes(child)
    return found


def judge_and_look_around(name: str, worker: Worker, surroundings: Surroundings) -> None:
    expected = PROGRAMS[name]
    assert verify(HONEST, "answer", TESTS, LIMITS, worker).passed
    running = processes(os.getpid())

    own = {name: expected[name] for name in ("wall_seconds", "cpu_seconds") if name in expected}
    limits = replace(LIMITS, **own)
    start = time.monotonic()
    outcome = verify(surroundings.fill_in(expected["program"]), "answer", TESTS, limits, worker)
    seconds = time.monotonic() - start

    assert (outcome.verdict, outcome.level) == (Verdict(expected["verdict"]), worker.level), outcome.reason
    assert re.search(expected["reason"], outcome.reason), outcome.reason
    assert seconds < LONGEST
    assert processes(os.getpid()) == running, "it left a process behind, or ended the server"
    assert surroundings.state() == surroundings.before
    assert verify(HONEST, "answer", TESTS, LIMITS, worker).passed


@confined
@pytest.mark.parametrize("name", PROGRAMS)
def test_no_hostile_program_passes_harms_or_hangs(name, workers, surroundings):
    judge_and_look_around(name, workers(Level.KERNEL), surroundings)


@pytest.mark.parametrize("name", [name for name, program in PROGRAMS.items() if program.get("weaker")])
def test_forgery_and_exhaustion_fail_at_the_weaker_level_too(name, workers, surroundings):
    judge_and_look_around(name, workers(Level.PROCESS), surroundings)


def test_the_suite_is_as_large_as_it_claims():
    assert len(PROGRAMS) >= 45
    assert not [name for name, program in PROGRAMS.items() if program["verdict"] == "passed"]
