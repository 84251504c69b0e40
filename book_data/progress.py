"""A progress bar that appears only when something takes more than two seconds."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import ExitStack
from typing import TypeVar

PATIENCE = 2.0  # seconds
Block = TypeVar("Block", bound=Sized)


def watched(blocks: Iterable[Block], label: str, total: int | None = None) -> Iterator[Block]:
    """Pass the blocks on; on a terminal show how much of `total` is done, and the time left."""
    started, done, bar = time.monotonic(), 0, None
    with ExitStack() as stack:
        for block in blocks:
            yield block
            done += len(block)
            if bar is None and time.monotonic() - started > PATIENCE and sys.stderr.isatty():
                bar = stack.enter_context(_bar())
                task = bar.add_task(label, total=total)
            if bar is not None:
                bar.update(task, completed=done)


def _bar():
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        "{task.description}",
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
