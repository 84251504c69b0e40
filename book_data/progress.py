"""A progress bar that appears only when something takes more than two seconds."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

PATIENCE = 2.0  # seconds


def watched(blocks: Iterable[bytes], label: str, total: int | None = None) -> Iterator[bytes]:
    """Pass the blocks on; show bytes done of `total` and the time left on stderr, if it is a terminal."""
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
