"""How a step looks in the terminal, and in a picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from rich.console import Console
from rich.markup import escape

from common.checks import checklist
from common.data import Corpus
from common.experiment import Result
from common.terminal import count, heading, table
from common.tokenizer import CharTokenizer
from common.tracing import Row, attention_maps, trace
from steps.ladder import LANGUAGE_MODEL, ladder
from steps.story import Story, following

PROSE = 100  # columns; longer lines are hard to read
SENTENCE = "Call me Ishmael. Some years ago"  # what the heads look at in the attention maps


def tell_idea(console: Console, story: Story) -> None:
    heading(console, f"Step {story.number:02d} · {story.title}")
    console.print(f"{story.idea}\n", width=min(console.width, PROSE))
    show_facts(console, ("new", story.new), ("shapes", story.shapes))
    console.print()


def show_facts(console: Console, *facts: tuple[str, str]) -> None:
    """Names on the left, what they are on the right."""
    made = table("", "")
    made.show_header = False
    for name, value in facts:
        made.add_row(f"[bold cyan]{name}[/]", escape(value))
    console.print(made, width=min(console.width, PROSE))


def show_trace(console: Console, model: nn.Module, whole: bool = False) -> list[Row]:
    """Run the model once and print what flowed. Of equal modules in a row only the first is shown, unless `whole`."""
    idx = torch.zeros(1, model.config.block_size, dtype=torch.long, device=next(model.parameters()).device)
    rows = trace(model, idx)
    heading(console, "One forward pass, traced")
    made = table("module", "type", "input", "output", "parameters", "FLOPs", right=(4, 5))
    for row in rows:
        parts = row.name.split(".")
        later = next((place for place, part in enumerate(parts) if part.isdigit() and part != "0"), None)
        indent = "  " * sum(not part.isdigit() for part in parts if part)
        name = ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]
        if later is None or whole:
            shapes = (" × ".join(map(str, shape)) for shape in (row.input_shape, row.output_shape))
            made.add_row(indent + (name or "model"), row.kind, *shapes, count(row.parameters), count(row.flops))
        elif later == len(parts) - 1 and parts[-1] == "1":
            last = len(model.get_submodule(row.name.rpartition(".")[0])) - 1
            others = f"{parts[-2]}.1" + (f" … {last}" if last > 1 else "")
            made.add_row(indent + others, row.kind, "", "", "each the same", "", style="dim")
    console.print(made)
    return rows


def show_checks(console: Console, step: Any, config: Any, corpus: Corpus, seed: int) -> int:
    """Run the checklist and explain each line. Returns 1 if a check failed."""
    heading(console, "Before training: the checklist")
    marks = {True: "[green]✓[/]", False: "[bold red]✗[/]", None: "[dim]–[/]"}
    failed = 0
    for found in checklist(lambda: step.Model(config), corpus.train, seed):
        failed += found.passed is False
        console.print(f"{marks[found.passed]} [bold]{found.name}[/]: {escape(found.measured)}")
        console.print(f"  [dim]{'look for' if found.passed is False else 'guards against'} {escape(found.why)}[/]")
    console.print(
        "\nall that apply pass" if not failed else f"\n[bold red]{failed} failed[/]: mend that before training"
    )
    return 1 if failed else 0


def show_loss(console: Console, result: Result, vocab_size: int) -> None:
    part = (
        "the whole validation part" if not result.cut else f"the first {count(result.val_tokens)} validation characters"
    )
    console.print(
        f"\nvalidation loss [bold]{result.val_loss:.4f}[/] nats ({result.val_loss / math.log(2):.3f} bits) a character "
        f"over {part}; a uniform guess has {math.log(vocab_size):.3f}"
    )


def show_ladder(console: Console, story: Story, val_loss: float | None = None) -> None:
    heading(console, "Where this step stands")
    console.print(ladder(console.width, story.number, val_loss))
    coming = following(story.number)
    if coming:
        console.print(f"\n[bold cyan]next[/]  {coming.title}: python -m steps.{coming.name}")
    if coming and coming.number in LANGUAGE_MODEL:
        console.print(f"      what it changes: python -m steps.diff {story.number} {coming.number}", style="dim")


def draw(
    console: Console,
    path: Path | None,
    story: Story,
    model: nn.Module,
    tokenizer: CharTokenizer,
    curve: Sequence[dict[str, Any]],
) -> None:
    """Write the picture of a run, if one was asked for."""
    if path is None:
        return
    from common.plotting import plot_run

    text = "".join(c for c in SENTENCE if c in tokenizer.alphabet)[: model.config.block_size]
    idx = torch.from_numpy(tokenizer.encode(text))[None].to(next(model.parameters()).device)
    maps = [(name, wei.numpy()) for name, wei in attention_maps(model, idx)] if text else []
    plot_run(path, f"Step {story.number:02d} · {story.title}", curve, math.log(len(tokenizer)), maps, text)
    console.print(f"picture written to {path}", style="dim")
