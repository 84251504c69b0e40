"""Presenter mode: the deck in a terminal, a key a page.

`python -m steps present` shows all of it, `python -m steps.05_multihead --present` the pages of one step. They
are those of slides/deck.md, which is made from the steps: the same order, words and code. Pictures become block
characters (steps/sketches.py), and a key lets the committed checkpoint write. Nothing here needs a network, and torch
is imported only when a model is to write.
"""

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import typer
from rich.console import Console, RenderableType
from rich.control import Control
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from common.records import ARTIFACTS
from common.terminal import ACCENT, make_console, passage
from steps.keyboard import Keyboard
from steps.pages import Lines, Page, blocks, pages_of, split
from steps.story import read

DECK = Path(__file__).parent.parent / "slides" / "deck.md"
SMALLEST = 80, 24  # columns and lines of a window
WIDEST = 110  # columns of a page; it stands in the middle of a wider window
LOOK = Theme({"markdown.em": f"bold {ACCENT}", "markdown.code": "italic", "markdown.item.bullet": ACCENT})
INTERRUPTED, TERMINATED = 130, 143
KEYS = {
    "space  →  PgDn": "on; a page that does not fit comes in parts",
    "←  PgUp": "back",
    "Home  End": "the first page; the last",
    "12 Enter": "page 12; g does what Enter does",
    "n": "the notes, shown or hidden",
    "l": "live: the committed checkpoint of the step writes; any key stops it",
    "t": "train the step with its quick preset; asks first",
    "r": "the clock starts again",
    "q  Ctrl-C": "quit",
}


class Presenter:
    """The pages on the alternate screen, and what each key does."""

    def __init__(self, pages: Sequence[Page], console: Console):
        self.pages, self.console, self.keyboard = pages, console, Keyboard()
        self.at, self.part, self.parts = 0, 0, 1  # the page, and which part of it where it does not fit
        self.notes, self.typed, self.says = False, "", ""
        self.began = time.monotonic()
        self.shown: Lines = []
        self.laid_out = functools.lru_cache(len(pages))(self._lay_out)

    @property
    def page(self) -> Page:
        return self.pages[self.at]

    def run(self) -> None:
        """Until q is pressed. Whatever happens, the terminal is given back as it was."""
        with ExitStack() as self.stage:
            self.enter()
            while (key := self.wait()) != "q":
                self.says = ""
                self.typed = self.typed[-3:] + key if key.isdecimal() else self.press(key)

    def enter(self) -> None:
        self.stage.enter_context(self.keyboard)
        self.stage.enter_context(self.console.screen())
        self.shown = []

    def press(self, key: str) -> str:
        """Do what a key stands for. Returns what is left of a number that is being typed."""
        if self.typed and key == "erase":
            return self.typed[:-1]
        if self.typed and key in ("enter", "g"):
            self.jump(int(self.typed) - 1)
        elif key in ("next", "enter"):
            self.turn(1)
        elif key in ("back", "erase"):
            self.turn(-1)
        elif key in ("home", "end"):
            self.jump(0 if key == "home" else len(self.pages) - 1)
        elif key == "g":
            self.says = "type the number of a page, then Enter"
        elif key == "n":
            self.notes = not self.notes
        elif key == "r":
            self.began = time.monotonic()
        elif key in ("l", "t", "?"):
            {"l": self.live, "t": self.train, "?": self.help}[key]()
        return ""

    def turn(self, by: int) -> None:
        if 0 <= self.part + by < self.parts:
            self.part += by
        elif 0 <= self.at + by < len(self.pages):
            self.at, self.part = self.at + by, 0 if by > 0 else sys.maxsize  # coming back: the last part

    def jump(self, place: int) -> None:
        if 0 <= place < len(self.pages):
            self.at, self.part = place, 0
        else:
            self.says = f"there is no page {place + 1}: choose 1 to {len(self.pages)}"

    def help(self) -> None:
        keys = Table.grid(padding=(0, 4))
        for key, what in KEYS.items():
            keys.add_row(Text(key, style=f"bold {ACCENT}"), what)
        self.wait(framed(keys, "keys"))

    def wait(self, instead: RenderableType | None = None) -> str:
        """Show the page, or something instead of it, until a key is pressed; meanwhile clock and window may change."""
        while True:
            self.draw(instead)
            if key := self.keyboard.read(0.25):
                return key

    # What is on the screen

    def draw(self, instead: RenderableType | None = None) -> bool:
        """Bring the screen up to date. Returns whether everything fits on it."""
        width, height = self.console.size = os.get_terminal_size(sys.stdout.fileno())
        if problem := too_small(width, height):
            self.put(self.console.render_lines(problem), width, height)
            return False
        self.side = max(2, (width - WIDEST) // 2)
        told = framed(Text(self.page.notes), f"notes · {clock(self.page.seconds)}")
        notes = self.lines(told) if self.notes else []
        room = max(1, height - 3 - len(notes))
        screens = split([self.lines(instead)] if instead else self.laid_out(self.page, width), room)
        if not instead:
            self.parts, self.part = len(screens), min(self.part, len(screens) - 1)
        body = screens[0 if instead else self.part]
        above = 0 if instead else (room - len(body)) // 3
        body = [*[[]] * above, *body, *[[]] * (room - len(body) - above)]
        frame = [*self.lines(self.header()), [], *body, *notes, *self.lines(self.footer())]
        self.put(frame, width, height)
        return len(screens) == 1

    def _lay_out(self, page: Page, width: int) -> list[Lines]:
        """The blocks of a page as lines, without the empty line that begins a list."""
        laid_out = (self.lines(block) for block in blocks(page, width - 2 * self.side))
        return [lines if any(part.text.strip() for part in lines[0]) else lines[1:] for lines in laid_out if lines]

    def lines(self, shown: RenderableType) -> Lines:
        """Laid out between the margins."""
        return self.console.render_lines(Padding(shown, (0, self.side)), self.console.options.update(height=None))

    def put(self, frame: Lines, width: int, height: int) -> None:
        """Write the lines that are not on the screen yet."""
        frame = [Segment.adjust_line_length(line, width) for line in (*frame, *[[]] * height)][:height]
        if len(self.shown) != height or Segment.get_line_length(self.shown[0]) != width:
            self.console.control(Control.clear())
            self.shown = [[]] * height
        for row, (line, before) in enumerate(zip(frame, self.shown, strict=True)):
            if line != before:
                self.console.update_screen_lines([line], 0, row)
        self.shown = frame

    def header(self) -> Rule:
        number = f"{self.page.step:02d} · " if self.page.step else ""
        return Rule(Text(number + self.page.title, style=f"bold {ACCENT}"), align="left", style="dim")

    def footer(self) -> Table:
        place = f"{self.at + 1}/{len(self.pages)}" + (f" · part {self.part + 1}/{self.parts}" if self.parts > 1 else "")
        elapsed = int(time.monotonic() - self.began)
        planned, total = (sum(page.seconds for page in pages) for pages in (self.pages[: self.at + 1], self.pages))
        late = f" · {clock(elapsed - planned)} late" if elapsed > planned else ""
        times = Text.assemble(f"{clock(elapsed)} · planned {clock(planned)} of {clock(total)}", (late, "bold yellow"))
        made = Table.grid(expand=True)
        made.add_column()
        made.add_column(justify="center", ratio=1)
        if self.typed or self.says:
            made.add_row(place, f"page {self.typed}▏Enter" if self.typed else self.says)
        else:
            made.add_row(place, times, "? help  q quit")
        return made

    # What runs live

    def live(self) -> None:
        """The committed checkpoint of the page's step writes; where the page is of no step, the last one does."""
        committed = [int(folder.parent.name[:2]) for folder in sorted(ARTIFACTS.glob("0[1-7]_*/checkpoint"))]
        number = self.page.step or committed[-1]
        if number not in committed:
            self.says = f"step {number:02d} has no checkpoint here: press l on another page"
            return
        self.draw(f"reading the checkpoint of step {number:02d} …")
        text, title, self.says = "", f"step {number:02d} writes", "any key stops it"
        try:
            for character in writing(number):
                while not text and self.keyboard.read(0):
                    pass  # impatience, while torch was loading
                if not self.draw(passage(text + character, title)):
                    break  # the screen is full
                text += character
                if self.keyboard.read(0.01):
                    break
        except ValueError as error:  # a damaged checkpoint
            text = str(error)
        self.says = "any key: back to the page"
        self.wait(passage(text, title))
        self.says = ""

    def train(self) -> None:
        """Train the page's step in a process of its own, once the presenter has agreed."""
        if not self.page.step:
            self.says = "press t on a page of a step"
            return
        command = ["-m", f"steps.{read(self.page.step).name}", "--preset", "quick"]
        question = f"python {' '.join(command)}\n\ny: yes · any other key: no"
        if self.wait(framed(question, "train now?")) != "y":
            return
        self.stage.close()
        before = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for what trains
        try:
            subprocess.run([sys.executable, *command], check=False)
        finally:
            signal.signal(signal.SIGINT, before)
        self.console.print("\nany key: back to the page", style="dim")
        with self.keyboard:
            while not self.keyboard.read(1):
                pass
        self.enter()


def writing(number: int) -> Iterator[str]:
    """What the committed checkpoint of a step writes, a character at a time, with the dice of its recorded sample."""
    import torch

    from steps.committed import committed

    model, tokenizer, run = committed(number)
    generator = torch.Generator().manual_seed(run["seed"])
    idx = torch.from_numpy(tokenizer.encode(run["sample"]["prompt"]))[None]
    while True:
        idx = model.generate(idx, 1, run["sample"]["temperature"], run["sample"]["top_k"], generator)
        yield tokenizer.decode(idx[0, -1:].tolist())


def framed(shown: RenderableType, title: str) -> Panel:
    return Panel(shown, title=title, title_align="left", border_style="dim", padding=(0, 1))


def clock(seconds: int) -> str:
    return f"{seconds // 60}:{seconds % 60:02d}"


def too_small(width: int, height: int) -> str:
    """A sentence if a window of this size cannot hold a page, else nothing."""
    if width >= SMALLEST[0] and height >= SMALLEST[1]:
        return ""
    return f"make the window {SMALLEST[0]} columns and {SMALLEST[1]} lines large: it has {width} and {height}"


def present(step: int | None = None) -> int:
    """Present the deck, or the pages of one step. Returns the exit code."""
    console = make_console(theme=LOOK)
    try:
        pages = _presentable(step, console)
    except ValueError as error:
        typer.secho(f"present: {error}", fg="red", err=True)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        Presenter(pages, console).run()
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _presentable(step: int | None, console: Console) -> list[Page]:
    """The pages that are asked for. Raises ValueError where they cannot be shown."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or console.is_dumb_terminal or console.legacy_windows:
        raise ValueError("pages are turned by keys on a full screen: run it in a terminal, without a pipe")
    if problem := too_small(*os.get_terminal_size(sys.stdout.fileno())):
        raise ValueError(problem)
    if not DECK.is_file():
        raise ValueError("slides/deck.md does not exist: make it with python -m slides.build deck")
    pages = [page for page in pages_of(DECK.read_text(encoding="utf-8")) if step in (None, page.step)]
    if not pages:
        raise ValueError(f"the deck has no page of step {step:02d}: record that step, then build the deck again")
    return pages
