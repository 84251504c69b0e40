"""A chat-completions endpoint on the loopback interface that misbehaves on demand.

It serves the requests of one prompt by a script of faults, then answers. It bills like a provider: once for each
Idempotency-Key it has answered, and it counts every request it saw.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = (
    "429", "429 retry-after", "500", "hang", "reset", "reset mid-body", "truncated", "invalid json",
    "empty choices", "wrong content type", "null content", "no usage",
)  # fmt: skip
ANSWER = '''```python
def double_{n}(value: int) -> int:
    """Return twice the value, plus {n}."""
    return 2 * value + {n}

assert double_{n}(1) == {a}
assert double_{n}(0) == {n}
assert double_{n}(-3) == {b}
```'''


def good_answer(number: int) -> str:
    return ANSWER.format(n=number, a=2 + number, b=number - 6)


class FaultServer:
    """`script` gives the faults for the n-th distinct prompt; `status` replaces every answer by that HTTP status."""

    def __init__(self, script: Callable[[int], Sequence[str]] = lambda n: (), status: int = 0, delay: float = 0.0):
        self.script, self.status, self.delay = script, status, delay
        self.lock = threading.Lock()
        self.numbers: dict[str, int] = {}  # Idempotency-Key -> number of the prompt
        self.seen: Counter = Counter()  # requests by prompt number
        self.billed: Counter = Counter()  # answers given by prompt number, repeats of a key not counted
        self.times: list[tuple[int, float]] = []
        self.at_once = self.most_at_once = 0
        self.headers: list[dict] = []

    def next_fault(self, key: str) -> tuple[int, str]:
        with self.lock:
            number = self.numbers.setdefault(key, len(self.numbers))
            faults = list(self.script(number))
            turn = self.seen[number]
            self.seen[number] += 1
            self.times.append((number, time.monotonic()))
            return number, faults[turn] if turn < len(faults) else ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments) -> None:
        pass

    def reply(self, body: bytes, status: int = 200, kind: str = "application/json", claimed: int | None = None, **more):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if claimed is None else claimed))
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def do_POST(self) -> None:
        owner: FaultServer = self.server.owner
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with owner.lock:
            owner.at_once += 1
            owner.most_at_once = max(owner.most_at_once, owner.at_once)
            owner.headers.append(dict(self.headers))
        try:
            self.serve(owner, request)
        except OSError:
            self.close_connection = True
        finally:
            with owner.lock:
                owner.at_once -= 1

    def serve(self, owner: FaultServer, request: dict) -> None:
        key = self.headers.get("Idempotency-Key", "")
        number, fault = owner.next_fault(key)
        time.sleep(owner.delay)
        echoed = self.headers.get("Authorization", "").removeprefix("Bearer ")  # as careless servers do
        error = json.dumps({"error": {"message": f"no: your key is {echoed}", "code": "bad"}}).encode()
        if owner.status:
            return self.reply(error, owner.status)
        usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
        body = {
            "id": "x", "object": "chat.completion", "created": 1, "model": request["model"], "usage": usage,
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ""}}],
        }  # fmt: skip
        body["choices"][0]["message"]["content"] = good_answer(number)
        text = json.dumps(body).encode()
        if fault == "429":
            return self.reply(error, 429)
        if fault == "429 retry-after":
            return self.reply(error, 429, Retry_After="0.4")
        if fault == "500":
            return self.reply(error, 500)
        if fault == "hang":
            time.sleep(1.5)
            return self.cut()
        if fault == "reset":
            return self.cut()
        if fault == "reset mid-body":
            self.reply(text[:40], claimed=len(text))
            return self.cut()
        if fault == "truncated":
            return self.reply(text[: len(text) // 2])
        if fault == "invalid json":
            return self.reply(b"{'not': json")
        if fault == "empty choices":
            return self.reply(json.dumps({**body, "choices": []}).encode())
        if fault == "wrong content type":
            return self.reply(b"<html>busy</html>", kind="text/html")
        if fault == "null content":
            body["choices"][0]["message"]["content"] = None
            return self.reply(json.dumps(body).encode())
        if fault == "no usage":
            return self.reply(json.dumps({**body, "usage": None}).encode())
        with owner.lock:
            owner.billed[number] = 1
        self.reply(text)


@contextmanager
def serving(owner: FaultServer):
    """The server's base URL, for as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.owner = owner
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
