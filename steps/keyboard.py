"""Single key presses, on Unix and on Windows: presenter mode turns its pages with them."""

import os
import re
import select
import sys
import time

NAMES = {  # what terminals send for a key, and, after à, what Windows does
    **dict.fromkeys((" ", "\x1b[C", "\x1bOC", "\x1b[B", "\x1bOB", "\x1b[6~", "àM", "àP", "àQ"), "next"),
    **dict.fromkeys(("\x1b[D", "\x1bOD", "\x1b[A", "\x1bOA", "\x1b[5~", "àK", "àH", "àI"), "back"),
    **dict.fromkeys(("\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~", "àG"), "home"),
    **dict.fromkeys(("\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~", "àO"), "end"),
    **dict.fromkeys(("\r", "\n"), "enter"),
    **dict.fromkeys(("\x7f", "\x08"), "erase"),
}
PRESS = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO.|à.|.", re.DOTALL)
UNFINISHED = re.compile(rb"\x1b(\[[0-9;]*|O)?\Z")


class Keyboard:
    """Keys one by one, without Enter and without echo. After its `with`, the terminal's modes are what they were."""

    def __init__(self) -> None:
        self.pressed: list[str] = []

    def __enter__(self) -> "Keyboard":
        if os.name != "nt":
            import termios
            import tty

            self.before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)  # Ctrl-C still interrupts
            modes = termios.tcgetattr(sys.stdin)
            modes[6][termios.VSUSP] = b"\0"  # Ctrl-Z would leave a shell in the middle of a page
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, modes)
        return self

    def __exit__(self, *_: object) -> None:
        if os.name != "nt":
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, self.before)

    def read(self, seconds: float) -> str:
        """The next key, by its name above if it has one, or "" if none is pressed in time."""
        if not self.pressed:
            self.pressed = PRESS.findall(_on_windows(seconds) if os.name == "nt" else _on_unix(seconds))
        key = self.pressed.pop(0) if self.pressed else ""
        return NAMES.get(key, key)


def _on_unix(seconds: float) -> str:
    def typed(seconds: float) -> bytes | None:
        return os.read(sys.stdin.fileno(), 1024) if select.select([sys.stdin], [], [], seconds)[0] else None

    keys = typed(seconds)
    if keys is None:
        return ""
    while UNFINISHED.search(keys) and (rest := typed(0.05)):  # a slow line delivers an arrow key in pieces
        keys += rest
    return keys.decode(errors="ignore") if keys else "q"  # at its end, nothing more can be pressed


def _on_windows(seconds: float) -> str:
    import msvcrt

    end = time.monotonic() + seconds
    while not msvcrt.kbhit():
        if time.monotonic() > end:
            return ""
        time.sleep(0.01)
    key = msvcrt.getwch()
    if key == "\x03":
        raise KeyboardInterrupt
    return "à" + msvcrt.getwch() if key in "\0à" else key
