"""Cleaning agrees with the obvious in-memory version, wherever the chunks are cut."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from book_data.cleaning import BookError, cleaned, measure, plan

START = "*** START OF {} PROJECT GUTENBERG EBOOK {} ***"
END = "*** END OF {} PROJECT GUTENBERG EBOOK {} ***"
chunks = st.integers(1, 9) | st.sampled_from([100, 1023, 1024, 1025, 4096, 1 << 20])
awkward_text = st.text(st.sampled_from("aé—𝄞\r\n "), min_size=1, max_size=60)
lines = st.lists(
    st.sampled_from(["Call me", "", "  —", "*** stars ***", "a PROJECT GUTENBERG EBOOK", "x" * 700])
)


def clean(raw: bytes, chunk: int = 1 << 20) -> tuple[bytes, tuple[str, ...]]:
    file = io.BytesIO(raw)
    todo = plan(file, "book.txt", chunk=chunk)
    return b"".join(cleaned(file, todo, chunk=chunk)), todo.notes


@settings(deadline=None)
@given(awkward_text, st.booleans(), chunks)
def test_line_ends_and_characters_survive_any_chunk_border(text, bom, chunk):
    raw = b"\xef\xbb\xbf" * bom + text.encode()
    result, notes = clean(raw, chunk)
    assert result.decode() == text.replace("\r\n", "\n").replace("\r", "\n")
    alone = text.replace("\r\n", "")
    assert notes == (
        *["removed a byte-order mark"] * bom,
        *["CRLF line ends became LF"] * ("\r\n" in text),
        *["CR line ends became LF"] * ("\r" in alone),
    )


@settings(deadline=None)
@given(awkward_text, st.integers(1, 9))
def test_characters_and_hash_are_those_of_the_whole_text(text, chunk):
    raw = text.encode()
    pieces = [raw[i : i + chunk] for i in range(0, len(raw), chunk)]
    assert measure(pieces) == (measure([raw])[0], len(text))


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=40).filter(lambda raw: 0 not in raw), chunks)
def test_the_first_invalid_byte_is_named_wherever_it_lies(raw, chunk):
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        with pytest.raises(BookError, match=rf"byte 0x{raw[error.start]:02x} at offset {error.start}\)"):
            plan(io.BytesIO(raw), "book.txt", chunk=chunk)
    else:
        if raw != b"\xef\xbb\xbf":
            plan(io.BytesIO(raw), "book.txt", chunk=chunk)


@settings(deadline=None)
@given(st.text("aé—", max_size=30), chunks)
def test_a_nul_byte_looks_binary_and_is_named(text, chunk):
    raw = text.encode() + b"\0rest"
    with pytest.raises(BookError, match=rf"looks binary \(a NUL byte at offset {len(text.encode())}\)"):
        plan(io.BytesIO(raw), "book.txt", chunk=chunk)


@settings(deadline=None)
@given(lines, lines, lines, st.sampled_from(["THE", "THIS"]), st.sampled_from(["\n", "\r\n", "\r"]), chunks)
def test_gutenberg_header_and_footer_go_and_the_book_stays(before, body, after, article, end, chunk):
    title = "MOBY-DICK;\nOR, THE WHALE"
    book = ["First line", *body, "Last line"]
    whole = [*before, START.format(article, title), "", "", *book, END.format(article, title), *after]
    result, notes = clean("\n".join(whole).replace("\n", end).encode(), chunk)
    assert result.decode() == "\n".join(book) + "\n"
    assert notes[-1].startswith("stripped the Project Gutenberg header and footer (")


@pytest.mark.parametrize(
    "closing", ["End of the Project Gutenberg EBook of Emma", "End of Project Gutenberg's Emma"]
)
def test_the_older_closing_line_belongs_to_the_footer(closing):
    text = f"{START.format('THIS', 'EMMA')}\nBook.\n\n{closing}\n\n{END.format('THIS', 'EMMA')}\nLicence\n"
    assert clean(text.encode())[0] == b"Book.\n\n"


@settings(deadline=None)
@given(st.integers(2, 4), chunks)
def test_several_books_in_one_file_are_all_kept(count, chunk):
    one = f"Header\n{START.format('THE', 'X')}\nBook {{}}.\n{END.format('THE', 'X')}\nLicence\n"
    result, notes = clean("".join(one.format(i) for i in range(count)).encode(), chunk)
    assert result.decode() == "".join(f"Book {i}.\n" for i in range(count))
    assert f"header and footer of {count} books" in notes[0]


@pytest.mark.parametrize(
    ("text", "kept", "part"),
    [
        (f"Header\n{START.format('THE', 'X')}\nBook.\n", "Book.\n", "header ("),
        (f"Book.\n{END.format('THE', 'X')}\nLicence", "Book.\n", "footer ("),
        (f"{START.format('THE', 'X')}\n{END.format('THE', 'X')}\nBook.", None, "frame"),
        (f"\ufeff{START.format('THE', 'X')}\nBook.\n", "Book.\n", "header ("),
    ],
)
def test_half_a_frame_is_stripped_and_an_empty_one_is_an_error(text, kept, part):
    if kept is None:
        with pytest.raises(BookError, match=part):
            clean(text.encode())
    else:
        result, notes = clean(text.encode())
        assert result.decode() == kept
        assert part in notes[-1]


def test_a_line_that_only_mentions_the_project_is_text():
    text = f"We read: {START.format('THE', 'X')}\nProject Gutenberg is a library.\n"
    assert clean(text.encode()) == (text.encode(), ())


@pytest.mark.parametrize("raw", [b"", b"\xef\xbb\xbf"])
def test_nothing_to_read_is_an_error(raw):
    with pytest.raises(BookError, match="give a file with text in it"):
        clean(raw)


@pytest.mark.parametrize(
    ("encoding", "hint"), [("utf-16", "iconv -f utf-16 -t utf-8"), ("latin1", "iconv -f latin1 -t utf-8")]
)
def test_another_encoding_comes_with_the_command_that_converts_it(encoding, hint):
    with pytest.raises(BookError, match=hint):
        clean("café au lait".encode(encoding))
