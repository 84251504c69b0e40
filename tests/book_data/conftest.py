"""A web server on this machine that misbehaves as told, and a catalog whose sources point at it."""

import http.server
import threading
import time
from collections.abc import Callable

import pytest

import book_data
from book_data import Entry, Source

NOVEL = "Call me Ishmael. Some years ago — never mind how long.\n" * 200
FRAMED = (
    "The Project Gutenberg eBook of a whale\r\n\r\n"
    "*** START OF THE PROJECT GUTENBERG EBOOK A WHALE ***\r\n\r\n"
    + NOVEL.replace("\n", "\r\n")
    + "\r\n*** END OF THE PROJECT GUTENBERG EBOOK A WHALE ***\r\nLicence.\r\n"
).encode()


class Server(http.server.ThreadingHTTPServer):
    """Serves what `pages` holds: bytes, a status code, or a function of the request handler."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64  # connections that wait, so that many at once are not a fault of the server

    def __init__(self):
        self.pages: dict[str, bytes | int | Callable] = {}
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is what some tests are about

    def url(self, page: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{page}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path[1:])
        page = self.server.pages.get(self.path[1:], 404)
        if callable(page):
            page(self)
        elif isinstance(page, int):
            self.send_error(page)
        else:
            self.reply(page)

    def reply(self, body: bytes, length: int | None = None):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def truncated(handler: Handler) -> None:
    handler.reply(NOVEL.encode()[:5000], length=len(NOVEL.encode()))


def hanging(handler: Handler) -> None:
    time.sleep(3)


def trickling(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(400):
        handler.wfile.write(b"drop ")
        time.sleep(0.05)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache on a machine without npm."""
    monkeypatch.setenv("GPT_STEPS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))
    return tmp_path / "cache"


@pytest.fixture
def shelf(monkeypatch):
    """shelf(source, …) makes the default book come from these sources; the Python reference stays."""

    real = book_data.catalog()

    def put(*where: Source, sha256: str | None = None):
        entry = Entry("moby-dick", "A Whale", "A. Sailor", tuple(where), sha256=sha256)
        books = {"moby-dick": entry, "python-reference": real["python-reference"]}
        monkeypatch.setattr(book_data, "catalog", lambda: books)

    return put
