"""Where model-written programs run: a confined process that is asked questions and trusted with nothing.

Two levels. `kernel` (Linux 6.7+, the `sandlock` package): Landlock and seccomp let the program read the
standard library and nothing else; writing, the network, starting processes, executing files, signalling
others and large memory are refused by the kernel. `process` (any POSIX system): an empty environment, an
empty folder, a session of its own and resource limits. That stops endless loops, floods and accidents, but
a program can still read your files and open sockets, so it has to be allowed by name.

Starting a confined interpreter costs about 100 ms, so one is kept: a small server inside the sandbox
(`textbooks.worker`) forks a fresh process for each program in about 4 ms. The sandbox admits two processes,
so the program cannot fork in its turn; a second Landlock domain, which the forked process enters before it
runs a line of the program, keeps it from signalling or tracing the server; and it holds one pipe of its
own, so it cannot speak for the server or to the next program.
"""

import io
import json
import os
import platform
import select
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from itertools import zip_longest
from pathlib import Path

from textbooks import worker as protocol

SYSTEM_LIBRARIES = ("/usr/lib", "/lib", "/lib64", "/usr/lib64", "/etc/ld.so.cache")
# What sandlock permits and no exercise needs; much of it harms only where the checker runs as root.
DENIED = (
    *("fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "utimensat", "linkat", "mknodat", "truncate"),
    *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
    *("chroot", "open_tree", "fsopen", "fsmount", "move_mount", "mount_setattr", "fanotify_init"),
    *("settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "syslog", "capset"),
    *("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups"),
    *("prlimit64", "setrlimit", "setpriority", "ioprio_set", "mbind", "migrate_pages", "move_pages"),
    *("sched_setscheduler", "sched_setparam", "sched_setattr", "sched_setaffinity"),
    *("pidfd_open", "pidfd_getfd", "pidfd_send_signal", "process_madvise", "kcmp", "socketpair"),
    *("memfd_create", "memfd_secret", "mq_open"),
)
DENIED_X86 = ("chmod", "chown", "lchown", "utime", "utimes", "futimesat", "link", "mknod")  # its older names
OPEN_FILES = 32
GRACE = 10.0  # seconds the server may be late, on a busy machine, before it counts as lost


class Level(StrEnum):
    KERNEL = "kernel"
    PROCESS = "process"


class IsolationError(RuntimeError):
    """The machine cannot confine programs as asked; the message says what to do."""


class WorkerLost(RuntimeError):
    """The confined server died or stopped answering: says nothing about the program."""


@dataclass(frozen=True)
class Limits:
    """What one program may use, besides its worker's `memory_bytes`. CPU time is what usually ends it, so that a busy
    machine does not turn right answers wrong; the wall limit is for programs that sleep."""

    cpu_seconds: float = 1.0
    wall_seconds: float = 5.0
    answer_bytes: int = 1 << 20


@dataclass(frozen=True)
class Isolation:
    level: Level
    reason: str  # one sentence: why this level and not the other


@dataclass(frozen=True)
class Reply:
    """How a program ended and what it said. `ended`: closed (its pipe, by ending: the normal way), silent
    (closed its pipe and went on), cpu, wall or flood; `signal`: the one that killed it, or 0; `answer`:
    JSON lines, written by the program, so never trusted."""

    ended: str
    signal: int
    seconds: float
    cpu_seconds: float
    answer: str


class Worker:
    """One confined server; `run` it from one thread, and close it (or use `with`). It is started when first
    needed and again after it was lost.

    Raises IsolationError if only the process level is available and `allow_weaker` is not set, or if
    `level` is asked for and not available.
    """

    def __init__(self, allow_weaker: bool = False, level: Level | None = None, memory_bytes: int = 512 << 20):
        offered = Isolation(level, "it was asked for") if level else available_level()
        if offered.level is Level.PROCESS and not allow_weaker:
            raise IsolationError(
                f"Programs could run only at the weaker process level here ({offered.reason}); "
                "pass allow_weaker=True to run them so, or use Linux 6.7+ with the sandlock package."
            )
        self.level = offered.level
        self._memory_bytes = memory_bytes
        self._process = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, program: str, entry_point: str, calls: list, limits: Limits) -> Reply:
        """Run `program` in a fresh process and call its `entry_point` with each of `calls` (lists of encoded
        arguments), first in this order and then in reverse. Raises WorkerLost."""
        return self.run_in_turn([program], entry_point, calls, limits)

    def run_in_turn(self, programs: list[str], entry_point: str, calls: list, limits: Limits) -> Reply:
        """As `run`, for several programs, one after the other in *one* fresh process: the answers of all in a row,
        one for each call. An error in loading one stands in the place of each of its answers."""
        job = {"programs": programs, "entry_point": entry_point, "calls": calls, "limits": asdict(limits)}
        try:
            if self._process is None:
                self._start()
            protocol.write_frame(self._process.stdin, job)
            return Reply(**self._receive(limits.wall_seconds + GRACE))
        except (OSError, ValueError, TypeError, WorkerLost) as error:
            self.close()
            raise WorkerLost(f"the isolated worker was lost ({error})") from error

    def close(self) -> None:
        """End the server and every process it started."""
        process, self._process = self._process, None
        if process is None:
            return
        self._folder.cleanup()
        with suppress(OSError):  # a program may have left the group that `kill` ends
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), 9)
        with suppress(OSError):
            process.kill()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                pipe.close()
        process.wait()

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="candidate-")
        script = Path(protocol.__file__).resolve()
        command = [
            os.path.realpath(sys.executable),
            "-I",
            "-S",
            "-B",
            str(script),
            self.level.value,
            str(self._memory_bytes),
        ]
        if self.level is Level.KERNEL:
            self._process = _sandboxed(command, script, self._memory_bytes)
        else:
            self._process = subprocess.Popen(
                [*command, ""],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                cwd=self._folder.name,
                start_new_session=True,
            )
        if self._receive(GRACE) != {"ready": True}:
            raise WorkerLost("it did not start")

    def _receive(self, seconds: float) -> dict:
        """The server's next frame. A server is trusted to finish a frame that it began."""
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise WorkerLost(f"no answer in {seconds:g} s")
        message = protocol.read_frame(self._process.stdout)
        if message is None:
            raise WorkerLost("it ended")
        return message


def _sandboxed(command: list[str], script: Path, memory_bytes: int) -> object:
    """Start the server under sandlock; returns its live process with binary `stdin` and `stdout`."""
    import resource

    import sandlock
    from sandlock.sandbox import StdioMode

    site = Path(sandlock.__file__).resolve().parent.parent
    readable = [str(script), str(site), sys.base_prefix, *SYSTEM_LIBRARIES]
    sandbox = sandlock.Sandbox(
        fs_readable=[path for path in readable if os.path.exists(path)],
        fs_writable=[os.devnull],
        clean_env=True,
        env={"HOME": "/"},
        max_processes=2,
        max_memory=memory_bytes,
        extra_deny_syscalls=DENIED + (DENIED_X86 if platform.machine() == "x86_64" else ()),
    )
    process = sandbox.popen([*command, str(site)], StdioMode.PIPED, StdioMode.PIPED, StdioMode.NULL)
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
        resource.prlimit(process.pid, limit, (OPEN_FILES, OPEN_FILES) if limit == resource.RLIMIT_NOFILE else (0, 0))
    process.stdin, process.stdout = io.BufferedWriter(process.stdin), io.BufferedReader(process.stdout)
    return process


REFUSALS = {"PermissionError", "BlockingIOError"}
PROBE = """
import os, socket
def attempt(what):
    if what == "reading":
        return os.listdir("/")
    if what == "writing":
        return open("/tmp/probe", "w").close()
    if what == "forking":
        return os.fork() and None
    if what == "connecting":
        return socket.socket().connect(("127.0.0.1", 9))
"""


@cache
def available_level() -> Isolation:
    """The strongest level that works here, found by trying what it must refuse; probed once in a process."""
    harms = ["reading", "writing", "forking", "connecting"]
    try:
        with Worker(level=Level.KERNEL) as worker:
            reply = worker.run(PROBE, "attempt", [[harm] for harm in harms], Limits())
    except ImportError:
        return Isolation(Level.PROCESS, "the sandlock package is not installed")
    except (WorkerLost, RuntimeError) as error:
        return Isolation(Level.PROCESS, f"sandlock does not start on this kernel: {error}")
    errors = [json.loads(line).get("error") for line in reply.answer.splitlines()[: len(harms)]]
    allowed = [harm for harm, error in zip_longest(harms, errors) if error not in REFUSALS]
    if allowed:
        return Isolation(Level.PROCESS, f"sandlock starts but does not refuse {', '.join(allowed)}")
    return Isolation(Level.KERNEL, f"sandlock refused {', '.join(harms)} when tried")
