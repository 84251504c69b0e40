"""What runs inside the isolation: a server that forks one fresh process for each model-written program.

It is started as a script by `textbooks.isolation`, holds no secrets, and imports nothing of this project. A
request carries a program, the name of a function in it and the arguments to call it with; never an expected
value. The forked process gives up its rights, runs the program, and answers every call twice (the second
time in reverse order, so that answers which depend on earlier calls show). The server only measures, kills
and relays.

Wire: four bytes of length, then JSON. Values travel as JSON where JSON has them and as one-key objects such
as `{"tuple": [...]}` where it has not; `encode` and `decode` are inverse on plain values, types included.
"""

import ctypes
import gc
import json
import os
import select
import signal
import struct
import sys
import time
from contextlib import suppress
from importlib import import_module

COMMON = ("collections", "copy", "functools", "heapq", "itertools", "math", "random", "re", "string", "typing")
INT_BITS = 1 << 16  # the largest integer and ...
HASHED_ITEMS = 4096  # ... the largest set or dict accepted from a program: bounds what decoding can cost


def encode(value: object) -> object:
    """A plain value as JSON; anything else, a subclass of a plain type included, as `{"other": type
    name}`."""
    kind = type(value)
    if kind is int:
        return value if -(2**53) < value < 2**53 else {"int": hex(value)}
    if value is None or kind in (bool, str, float):
        return value
    if kind is list:
        return [encode(item) for item in value]
    if kind in (tuple, set, frozenset):
        return {kind.__name__: [encode(item) for item in value]}
    if kind is dict:
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind is complex:
        return {"complex": [value.real, value.imag]}
    return {"other": str(kind.__name__)[:80]}


def decode(wire: object) -> object:
    """The inverse of `encode`. Raises ValueError or TypeError on anything that `encode` does not produce
    for a plain value, and on values beyond INT_BITS or HASHED_ITEMS."""
    if isinstance(wire, list):
        return [decode(item) for item in wire]
    if not isinstance(wire, dict):
        return wire
    if len(wire) != 1:
        raise ValueError("malformed value")
    ((tag, body),) = wire.items()
    if tag == "other":
        raise ValueError(f"a value of type {str(body)[:80]!r}, which is not plain data")
    if tag in ("set", "frozenset", "dict") and len(body) > HASHED_ITEMS:
        raise ValueError(f"a {tag} of more than {HASHED_ITEMS} items")
    match tag:
        case "int" if len(body) <= INT_BITS // 4:
            return int(body, 16)
        case "int":
            raise ValueError(f"an integer of more than {INT_BITS} bits")
        case "tuple" | "set" | "frozenset":
            return {"tuple": tuple, "set": set, "frozenset": frozenset}[tag](map(decode, body))
        case "dict":
            return {decode(key): decode(item) for key, item in body}
        case "bytes":
            return bytes.fromhex(body)
        case "complex":
            return complex(*map(float, body))
    raise ValueError("malformed value")


def read_frame(file: object) -> dict | None:
    """The next frame of a binary file, or None at its end."""
    header = file.read(4)
    if len(header) < 4:
        return None
    (length,) = struct.unpack("!I", header)
    body = file.read(length)
    return json.loads(body) if len(body) == length else None


def write_frame(file: object, message: dict) -> None:
    body = json.dumps(message).encode("ascii")
    file.write(struct.pack("!I", len(body)) + body)
    file.flush()


def give_up_rights(level: str, memory_bytes: int) -> None:
    """Confine this process for good. At the kernel level the sandbox already limits memory, files and processes;
    here a second, narrower Landlock domain keeps the program from signalling or tracing the server, and from
    reading anything but the standard library. At the process level all there is are resource limits."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: never outlive the server
    if level == "kernel":
        import sandlock

        sandlock.confine(sandlock.Sandbox(fs_readable=[os.path.dirname(os.__file__)]))
        return
    import resource

    os.setsid()
    limits = {"AS": memory_bytes, "FSIZE": 0, "CORE": 0, "NOFILE": 32, "NPROC": 1}
    for name, value in limits.items():
        with suppress(AttributeError, ValueError, OSError):  # not every system has each of them
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def failure(error: BaseException) -> dict:
    try:
        text = str(error)[:200]
    except BaseException:
        text = ""
    return {"error": str(type(error).__name__)[:80], "errno": getattr(error, "errno", None), "text": text}


def answer_calls(job: dict, channel: object) -> None:
    """Run each program and write one JSON line for each of its calls. A program alone, which is to be judged, is
    asked again in reverse order, and its answers are sent one by one, to show where it stops."""
    alone = len(job["programs"]) == 1
    calls = job["calls"] + job["calls"][::-1] if alone else job["calls"]

    def send(message: dict) -> None:
        channel.write(json.dumps(message).encode("ascii") + b"\n")
        if alone:
            channel.flush()

    for program in job["programs"]:
        try:
            namespace: dict = {"__name__": "candidate"}
            exec(compile(program, "<candidate>", "exec"), namespace)
            function = namespace.get(name := job["entry_point"])
            if function is None:
                raise NameError(f"it defines no function {name}")
        except BaseException as error:
            for _ in calls:
                send({"loading": True, **failure(error)})
        else:
            for arguments in calls:
                try:
                    send({"value": encode(function(*decode(arguments)))})
                except BaseException as error:
                    send(failure(error))
        channel.flush()


def cpu_seconds(pid: int, since: float) -> float:
    """CPU time used by a process; the wall time since `since` where the system cannot tell."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # Linux: what clock_getcpuclockid(3) computes
    except (AttributeError, OSError):
        return time.monotonic() - since


def wait(pid: int, seconds: float | None) -> int | None:
    """The status of a process that ends within so many seconds (None: whenever it does), or None if it does
    not."""
    if seconds is None:
        return os.waitpid(pid, 0)[1]
    deadline = time.monotonic() + seconds
    while (found := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.0005)
    return found[1]


def run(job: dict, level: str, memory_bytes: int) -> dict:
    """Fork, let the child answer, and end it: when it closes its pipe, says too much, or its time is over."""
    limits = job["limits"]
    source, sink = os.pipe()
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(sink, 3)
            os.closerange(4, 64)  # the server's own pipes among them
            give_up_rights(level, memory_bytes)
            channel = open(3, "wb", 1 << 20)  # noqa: SIM115 (open until the exit: its end is how the server knows)
            answer_calls(job, channel)
        finally:
            os._exit(0)
    os.close(sink)
    answer, ended = bytearray(), "cpu"
    while (cpu_left := limits["cpu_seconds"] - cpu_seconds(pid, start)) > 0:
        if (wall_left := limits["wall_seconds"] - (time.monotonic() - start)) <= 0:
            ended = "wall"
            break
        if select.select([source], [], [], max(0.001, min(cpu_left, wall_left)))[0]:
            chunk = os.read(source, 1 << 16)
            answer += chunk
            if not chunk or len(answer) > limits["answer_bytes"]:
                ended = "flood" if chunk else "closed"
                break
    cpu = cpu_seconds(pid, start)
    os.close(source)
    status = wait(pid, 0.1 if ended == "closed" else 0.0)
    if status is None:
        ended = "silent" if ended == "closed" else ended  # it closed its pipe, and went on
        os.kill(pid, signal.SIGKILL)
        status = wait(pid, None)
    if level != "kernel":
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)  # whatever it left behind in its session
    return {
        "ended": ended,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "seconds": time.monotonic() - start,
        "cpu_seconds": cpu,
        "answer": answer.decode("ascii", "replace"),
    }


def main(level: str, memory_bytes: str, site: str) -> None:
    if level == "kernel":
        sys.path.append(site)
        import sandlock  # noqa: F401 (loaded once, here, for every process to come)

        sys.path.remove(site)
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    sys.argv[:] = [""]
    for module in COMMON:
        import_module(module)
    gc.freeze()  # spares the forked processes from copying what they inherit
    write_frame(replies, {"ready": True})
    while (job := read_frame(requests)) is not None:
        write_frame(replies, run(job, level, int(memory_bytes)))


if __name__ == "__main__":
    main(*sys.argv[1:])
