"""Presenter mode, used as a presenter would: keys typed into a pseudo-terminal, pages read off its screen."""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from itertools import accumulate
from pathlib import Path

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.segment import Segment

from common.terminal import make_console
from steps.pages import pages_of, split
from steps.present import DECK, Presenter, clock

ROOT = Path(__file__).parents[2]
TEXT = DECK.read_text(encoding="utf-8")
PRESENT = ("-m", "steps", "present")
RIGHT, LEFT, PAGE_DOWN, PAGE_UP = b"\x1b[C", b"\x1b[D", b"\x1b[6~", b"\x1b[5~"
NO_FRAME = r"(?s)\A(?!.*╭─ (keys|step)).* planned "
HOME, END, CTRL_C = b"\x1b[H", b"\x1b[F", b"\x03"
COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3\d|4\d|9\d|10[0-7])(?:;\d+)*m")
SAY_WHETHER_TORCH = (
    "from steps.present import present; present(); import sys; print('torch is', 'torch' in sys.modules)"
)


class Terminal:
    """A pseudo-terminal with a program in it; `text` is what its screen shows."""

    def __init__(self, *arguments: str, size: tuple[int, int] = (100, 30), cwd: Path = ROOT, **environment: str):
        self.master, self.slave = os.openpty()
        self.screen, self.raw = pyte.Screen(*size), b""
        self.stream = pyte.ByteStream(self.screen)
        self.before = termios.tcgetattr(self.slave)
        self._set(size)
        unset = {"NO_COLOR": "", "COLUMNS": "", "LINES": "", "FORCE_COLOR": ""}
        inherited = {name: value for name, value in os.environ.items() if name not in unset}
        settings = {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
        self.process = subprocess.Popen(
            [sys.executable, *arguments], cwd=cwd, env=inherited | settings, start_new_session=True,
            stdin=self.slave, stdout=self.slave, stderr=self.slave,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def _set(self, size: tuple[int, int]) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        self._set((columns, lines))

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    @property
    def footer(self) -> str:
        return self.screen.display[-1].strip()

    @property
    def place(self) -> str:
        """Such as "3/18", or "3/18 · part 1/2"."""
        return re.split(r"\s{2,}", self.footer)[0]

    def listen(self, seconds: float) -> None:
        """Take what the program writes until it has been quiet for so long."""
        while select.select([self.master], [], [], seconds)[0]:
            written = os.read(self.master, 65536)
            self.raw += written
            self.stream.feed(written)

    def until(self, wanted: str, seconds: float = 30) -> str:
        """Wait until the screen matches a pattern, and return the screen."""
        end = time.monotonic() + seconds
        while not re.search(wanted, self.text):
            assert time.monotonic() < end, f"{wanted!r} does not come:\n{self.text}"
            self.listen(0.02)
        self.listen(0.02)
        return self.text

    def press(self, keys: bytes, wanted: str = "") -> str:
        """Type, and wait for what should come of it. Returns the screen."""
        os.write(self.master, keys)
        return self.until(wanted)

    def at(self, keys: bytes) -> str:
        """Type, and return the place that one is at when all of it has been read: the help opens and closes last."""
        self.press(keys + b"?", "╭─ keys")
        place = self.place
        self.press(b"x", NO_FRAME)
        return place

    def end(self) -> int:
        """Wait for the program to end. Returns its exit code."""
        code = self.process.wait(timeout=30)
        self.listen(0.1)
        return code


def started(*arguments: str, **options) -> Terminal:
    terminal = Terminal(*arguments, **options)
    terminal.until(r"\n +1/\d+.* planned ")
    return terminal


# An independent reading of the deck, by the parser of Markdown itself


def slides() -> list[list]:
    made: list[list] = [[]]
    for token in MarkdownIt().parse(TEXT.split("\n---\n", 1)[1]):
        if token.type == "hr":
            made.append([])
        else:
            made[-1].append(token)
    return made


SLIDES = slides()
N = len(SLIDES)
TIMES = [60 * int(minutes) + int(seconds) for minutes, seconds in re.findall(r"<!-- \[(\d+):(\d\d)\]", TEXT)]
NOTES = re.findall(r"<!-- \[\d+:\d\d\] (.*?) -->", TEXT, re.DOTALL)


def plain(inline) -> str:
    return "".join(child.content or "" for child in inline.children if child.type != "image")


def words_of(tokens: list) -> list[str]:
    """Every word of a slide that is not code, a note or a picture, in order; the heading comes first."""
    return " ".join(plain(token) for token in tokens if token.type == "inline").split()


def lines_of_code(tokens: list) -> list[str]:
    return [line for token in tokens if token.type == "fence" for line in token.content.splitlines()]


def heading(tokens: list) -> str:
    number, *words = words_of([tokens[next(i for i, t in enumerate(tokens) if t.type == "heading_open") + 1]])
    return " ".join([number, "·", *words] if number.isdigit() else [number, *words])


def walk(terminal: Terminal) -> dict[int, list[str]]:
    """Page number → its screens, from the first page to the last by the space bar alone."""
    shown: dict[int, list[str]] = {}
    while True:
        number, part, parts = re.match(r"(\d+)/\d+(?: · part (\d+)/(\d+))?", terminal.place).groups()
        shown.setdefault(int(number), []).append(terminal.text)
        if int(number) == N and part == parts:
            return shown
        new = f"{number}/{N} · part {int(part) + 1}/{parts}" if part != parts else f"{int(number) + 1}/{N}"
        os.write(terminal.master, b" ")
        terminal.until(rf"(?m)^ +{new}\b[^\n]*\Z")


@pytest.fixture(scope="module")
def walked() -> dict[int, list[str]]:
    with started(*PRESENT) as terminal:
        return walk(terminal)


# The pages


def test_the_pages_come_in_the_order_of_the_deck(walked):
    headings = [screens[0].splitlines()[0].strip(" ─") for screens in walked.values()]
    assert list(walked) == list(range(1, N + 1)) and N >= 18
    assert headings == [heading(tokens) for tokens in SLIDES]


def test_at_100_by_30_every_page_is_whole(walked):
    assert [number for number, screens in walked.items() if len(screens) > 1] == []


@pytest.mark.parametrize(("size", "keys"), [((80, 24), b"n"), ((100, 30), b""), ((160, 45), b"n")])
def test_no_word_and_no_line_of_code_is_lost_at_any_size(size, keys):
    with started(*PRESENT, size=size) as terminal:
        terminal.press(keys, "notes ·" if keys else "planned")
        shown = walk(terminal)
    for tokens, screens, notes in zip(SLIDES, shown.values(), NOTES, strict=True):
        lines = [line for screen in screens for line in screen.splitlines()]
        bodies = [line.strip() for line in lines]
        for line in lines_of_code(tokens):
            assert line.strip() in bodies, line
        seen = iter(" ".join(bodies).replace("•", " ").split())
        wanted = words_of([token for token in tokens if token.type == "inline"])
        assert all(word in seen for word in wanted if word != heading(tokens).split()[0]), wanted
        if keys:
            assert " ".join(notes.split()) in " ".join(" ".join(bodies).replace("│", " ").split())


def test_every_picture_has_a_drawing_and_keeps_its_words(walked):
    for tokens, screens in zip(SLIDES, walked.values(), strict=True):
        pictures = [c for t in tokens if t.type == "inline" for c in t.children if c.type == "image"]
        for picture in pictures:
            says, prose = re.sub(r" (bg|[hw]:|fit|right:).*", "", picture.content), " ".join(words_of(tokens))
            shown = [line.strip() for line in screens[0].splitlines()[1:] if line.strip()]
            caption = next(place for place, line in enumerate(shown) if line and says.startswith(line))
            assert len([line for line in shown[:caption] if line not in prose]) >= 4, says


def test_one_step_alone_shows_its_own_pages():
    with started("-m", "steps.05_multihead", "--present") as terminal:
        assert terminal.text.startswith("  05 · Multi-head attention")
        assert terminal.at(END) == "2/2" and terminal.text.startswith("  05 · Multi-head attention")
        terminal.press(b"q")
        assert terminal.end() == 0


def test_every_step_has_pages_and_the_option():
    assert {page.step for page in pages_of(TEXT)} >= {None, *range(1, 9)}
    with started("-m", "steps.08_textbook_synthesis", "--present") as terminal:
        assert terminal.text.startswith("  08 · ")


# The keys


def test_every_key_does_what_the_help_says():
    with started(*PRESENT) as terminal:
        for key in (b" ", RIGHT, PAGE_DOWN, b"\x1bOC", b"\x1b[B", b"\r"):
            assert terminal.at(HOME + key) == f"2/{N}", key
        for key in (LEFT, PAGE_UP, b"\x1bOD", b"\x1b[A", b"\x7f"):
            assert terminal.at(b"3\r" + key) == f"2/{N}", key
        for end, home in ((END, HOME), (b"\x1bOF", b"\x1bOH"), (b"\x1b[4~", b"\x1b[1~"), (b"\x1b[8~", b"\x1b[7~")):
            assert terminal.at(end) == terminal.at(RIGHT) == f"{N}/{N}"
            assert terminal.at(home) == terminal.at(LEFT) == f"1/{N}"
        assert terminal.at(b"12\r") == f"12/{N}" and terminal.at(b"7g") == f"7/{N}"
        assert terminal.at(b"12\x7f\r") == f"1/{N}" and terminal.at(b"9x" + RIGHT) == f"2/{N}"
        terminal.press(b"99\r", f"there is no page 99: choose 1 to {N}")
        terminal.press(b"g", "type the number of a page")
        terminal.press(b"4", "page 4▏Enter")
        assert terminal.at(b"\r") == f"4/{N}"
        assert terminal.at(b"\x1b") == terminal.at("²é".encode()) == terminal.at(b"9" * 900) == f"4/{N}"
        os.write(terminal.master, b"\x1b[")  # an arrow key in two pieces, as a slow line delivers it
        time.sleep(0.02)
        assert terminal.at(b"C") == f"5/{N}"
        assert terminal.at(RIGHT * 3) == f"8/{N}"
        told = terminal.press(b"?", "╭─ keys")
        for key in ("space", "PgDn", "PgUp", "Home", "End", "Enter", " n ", " l ", " t ", " r ", "Ctrl-C"):
            assert key in told, key
        terminal.press(b"q", NO_FRAME)
        terminal.press(b"q")
        assert terminal.end() == 0


def test_a_page_in_parts_is_gone_through_part_by_part_and_back_again():
    with started(*PRESENT, size=(80, 24)) as terminal:
        terminal.press(b"n", "notes ·")
        forth = [terminal.at(b"")] + [terminal.at(b" ") for _ in range(6)]
        back = [terminal.at(LEFT) for _ in range(6)]
        assert forth[0] == f"1/{N} · part 1/2" and len(set(forth)) == 7
        assert back == forth[-2::-1]


def test_notes_come_on_demand_and_stay_until_they_are_sent_away():
    with started(*PRESENT) as terminal:
        assert "notes" not in terminal.text
        for number in (1, 2, 3):
            keys = b"n" if number == 1 else f"{number}\r".encode()
            shown = terminal.press(keys, rf"(?s)notes · {clock(TIMES[number - 1])}.* {number}/{N}\b")
            told = " ".join(re.sub("[│╭╮╰╯─]", " ", shown).split())
            assert NOTES[number - 1].strip() in told
        assert terminal.at(b"n") == f"3/{N}" and "notes" not in terminal.text


def test_the_footer_plans_with_the_times_of_the_notes(walked):
    assert len(TIMES) == N
    for number, planned in enumerate(accumulate(TIMES), 1):
        assert f"planned {clock(planned)} of {clock(sum(TIMES))}" in walked[number][0].splitlines()[-1]


def test_the_clock_runs_starts_again_and_tells_when_one_is_late():
    with started(*PRESENT) as terminal:
        terminal.until(r"\n +1/\d+ +0:02 · planned")
        terminal.press(b"r", " 0:00 · planned")
    presenter = Presenter(pages_of(TEXT), make_console(width=100))
    presenter.began -= TIMES[0] + 65
    with presenter.console.capture() as captured:
        presenter.console.print(presenter.footer())
    assert f"{clock(TIMES[0] + 65)} · planned {clock(TIMES[0])} of {clock(sum(TIMES))} · 1:05 late" in captured.get()


# The terminal


def is_restored(terminal: Terminal) -> bool:
    left = terminal.raw.rfind(b"\x1b[?1049l") > terminal.raw.rfind(b"\x1b[?1049h") >= 0
    return left and not terminal.screen.cursor.hidden and termios.tcgetattr(terminal.slave) == terminal.before


BREAKS_DOWN = """
from steps import present
def footer(self, times=[]):
    times.append(1)
    return 1 / 0 if len(times) > 3 else "  1/1  planned 0:00"
present.Presenter.footer = footer
present.present()
"""


@pytest.mark.parametrize(
    ("how", "code"), [("q", 0), ("Ctrl-C", 130), ("Ctrl-C while it writes", 130), ("SIGTERM", 143), ("exception", 1)]
)
def test_the_terminal_is_left_as_it_was_found(how, code):
    program = ("-c", BREAKS_DOWN) if how == "exception" else PRESENT
    with started(*program) as terminal:
        assert terminal.screen.cursor.hidden and b"\x1b[?1049h" in terminal.raw
        modes = termios.tcgetattr(terminal.slave)
        assert modes != terminal.before
        assert modes[6][termios.VSUSP] == b"\0"  # Ctrl-Z would leave a shell on the page
        if how.endswith("writes"):
            terminal.press(b"2\rl", r"step 01 writes[^╯]*\w")
        if how == "SIGTERM":
            terminal.process.send_signal(signal.SIGTERM)
        else:
            terminal.press({"q": b"q", "exception": b"   "}.get(how, CTRL_C))
        assert terminal.end() == code
        assert is_restored(terminal)
        after = terminal.raw.rpartition(b"\x1b[?1049l")[2]
        assert (b"ZeroDivisionError" in after) == (how == "exception") == (b"Traceback" in terminal.raw)


def test_a_window_that_changes_its_size_is_filled_again():
    with started(*PRESENT) as terminal:
        assert terminal.at(b"3\r") == f"3/{N}"
        for size in ((100, 40), (140, 40), (100, 30), (140, 40)):
            terminal.resize(*size)
            once = r"\A +01 · (?!.*01 · )(?!.*help.*help).*def forward"
            assert len(terminal.until(rf"(?s){once}.*\n +3/{N}[^\n]*\Z").splitlines()) == size[1]
        terminal.resize(60, 20)
        terminal.until("make the window 80 columns and 24 lines large: it has 60")
        terminal.resize(100, 30)
        again = terminal.until(rf"\n +3/{N}[^\n]*\Z")
        assert "def forward(" in again and "make the window" not in again


def test_no_color_means_none_and_without_it_there_is_some():
    with started(*PRESENT) as colourful, started(*PRESENT, NO_COLOR="1") as bare:
        for terminal in (colourful, bare):
            terminal.press(b"3\rn", "╭─ notes")
            assert terminal.at(HOME + b"n") == f"1/{N}"
        assert COLOUR.search(colourful.raw)
        assert not COLOUR.search(bare.raw), COLOUR.search(bare.raw)
        assert bare.text.splitlines()[:-1] == colourful.text.splitlines()[:-1]


@pytest.mark.parametrize(
    ("size", "environment", "sentence"),
    [
        ((60, 20), {}, "make the window 80 columns and 24 lines large: it has 60 and 20"),
        ((100, 23), {}, "make the window 80 columns and 24 lines large: it has 100 and 23"),
        ((100, 30), {"TERM": "dumb"}, "run it in a terminal"),
    ],
)
def test_where_no_page_can_be_shown_one_sentence_says_what_to_do(size, environment, sentence):
    with Terminal(*PRESENT, size=size, **environment) as terminal:
        assert terminal.end() == 2
        assert sentence in "".join(terminal.text.splitlines()) and b"\x1b[?1049h" not in terminal.raw
        assert len(terminal.text.split("present: ")) == 2 and "Traceback" not in terminal.text


@pytest.mark.parametrize("piped", ["stdin", "stdout"])
def test_a_pipe_is_no_stage(piped):
    master, slave = os.openpty()
    command, streams = [sys.executable, *PRESENT], {"stdin": slave, "stdout": slave, piped: subprocess.PIPE}
    ran = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60, **streams)
    os.close(master)
    os.close(slave)
    assert ran.returncode == 2 and not ran.stdout
    assert ran.stderr.count("\n") == 1 and "run it in a terminal" in ran.stderr


@pytest.mark.parametrize(
    ("deck", "sentence"),
    [
        (None, "slides/deck.md does not exist: make it with python -m slides.build deck"),
        ("---\na: b\n---\n# Title\n<!-- [0:10] Hello. -->", "the deck has no page of step 05: record that step"),
        ("---\na: b\n---\n# Title\n<!-- Hello. -->", "give every slide a heading and notes with their time"),
    ],
)
def test_a_deck_that_cannot_be_shown_is_one_sentence(deck, sentence, tmp_path):
    file = tmp_path / "deck.md"
    if deck:
        file.write_text(deck, encoding="utf-8")
    code = f"import pathlib, sys; from steps import present; present.DECK = pathlib.Path({str(file)!r})"
    with Terminal("-c", f"{code}; sys.exit(present.present(5))", size=(160, 30)) as terminal:
        assert terminal.end() == 2 and sentence in terminal.text and "Traceback" not in terminal.text


# What runs live


def test_a_page_turns_without_torch_and_the_checkpoint_writes_on_a_key():
    import torch

    from common import checkpoint
    from common.records import ARTIFACTS, recorded_runs
    from common.tokenizer import CharTokenizer
    from steps import load

    with started("-c", SAY_WHETHER_TORCH) as terminal:
        walk(terminal)
        terminal.press(b"q")
        assert terminal.end() == 0 and "torch is False" in terminal.raw.decode()
    with started("-c", SAY_WHETHER_TORCH) as terminal:
        number = [page.step for page in pages_of(TEXT)].index(5) + 1
        terminal.press(f"{number}\rl".encode(), "reading the checkpoint")
        terminal.press(b"  ", r"step 05 writes[^\n]*(\n +│ +\w[^\n]*){3}")  # keys of impatience stop nothing
        stopped = terminal.press(b"x", "any key: back to the page")
        terminal.listen(0.5)
        frame = re.search(r"╭─ step 05 writes(.*?)╰", terminal.text, re.DOTALL).group(1)
        assert frame in stopped  # it writes no more
        assert terminal.at(b"x") == f"{number}/{N}"
        terminal.press(b"q")
        assert terminal.end() == 0 and "torch is True" in terminal.raw.decode()
    written = " ".join(re.sub("[│─╮]", " ", frame).split())
    run, step = recorded_runs()[5], load(5)
    saved = checkpoint.read(ARTIFACTS / "05_multihead" / "checkpoint")
    model = step.Model(step.Config(**saved.about["config"])).eval()
    saved.restore(model)
    tokenizer = CharTokenizer(saved.about["alphabet"])
    prompt = torch.from_numpy(tokenizer.encode(run["sample"]["prompt"]))[None]
    dice = torch.Generator().manual_seed(run["seed"])
    text = tokenizer.decode(model.generate(prompt, 3_000, run["sample"]["temperature"], None, dice)[0].tolist())
    assert len(written) > 30 and " ".join(text.split()).startswith(written)


IN_A_HURRY = """
from steps import present
read = present.Keyboard.read
present.Keyboard.read = lambda self, seconds: read(self, seconds if seconds > 0.1 else 0)
present.present()
"""


def test_a_full_screen_ends_the_writing_and_nothing_scrolls_away():
    with started("-c", IN_A_HURRY, size=(80, 24)) as terminal:
        lines = terminal.press(b"2\rnl", "any key: back to the page").splitlines()
        bottom = next(place for place, line in enumerate(lines) if "╭─ notes" in line)
        assert lines[2].strip().startswith("╭─ step 01 writes") and lines[bottom - 1].strip().startswith("╰")


def test_where_there_is_no_checkpoint_the_footer_says_so():
    with started("-m", "steps.08_textbook_synthesis", "--present") as terminal:
        terminal.press(b"l", "step 08 has no checkpoint here: press l on another page")
        assert terminal.at(b"l") == "1/2"


def test_nothing_is_trained_unless_asked_and_ctrl_c_stops_the_training_alone(tmp_path):
    with started("-m", "steps.08_textbook_synthesis", "--present", cwd=tmp_path) as terminal:
        terminal.press(b"t", "python -m steps.08_textbook_synthesis --preset quick")
        assert terminal.at(b"n") == "1/2" and "notes" not in terminal.text and not list(tmp_path.iterdir())
        terminal.press(b"ty", "Asking, running, filtering")
        assert is_restored(terminal)
        terminal.press(CTRL_C, "any key: back to the page")
        terminal.press(b"x", NO_FRAME)
        assert terminal.screen.cursor.hidden and "08 · " in terminal.text
        terminal.press(CTRL_C)
        assert terminal.end() == 130 and is_restored(terminal)


# Pages that do not fit


@given(st.lists(st.integers(1, 40), max_size=8), st.integers(1, 30))
def test_parts_hold_every_line_once_in_order_and_break_blocks_only_where_they_must(sizes, room):
    blocks = [[[Segment(f"{block}.{line}")] for line in range(size)] for block, size in enumerate(sizes)]
    parts = split(blocks, room)
    lines = [line for part in parts for line in part if line]
    assert lines == [line for block in blocks for line in block]
    assert all(len(part) <= room for part in parts)
    assert all(part[0] and part[-1] for part in parts if part)
    for block in blocks:
        if len(block) <= room:
            assert sum(block[0] in part or block[-1] in part for part in parts) == 1
