"""`python -m slides.pictures`: draw the deck's diagrams into slides/pictures/.

What they show of a model is computed from its committed checkpoint, and every figure comes from a recorded run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from slides import diagrams
from slides.drawing import ACCENT, BIG, FAINT, INK, LINE, PAPER, SMALL, TEXT, VALUE, Canvas, diverging, shades
from slides.sources import PICTURES, run, story

MONO = {"family": "DejaVu Sans Mono"}
NIGHT = "#12263a"  # behind the title


def visible(character: str) -> str:
    return {" ": "␣", "\n": "¶"}.get(character, character)


def trained(number: int) -> tuple[Any, Any]:
    """A step's model with its committed weights, and its tokenizer."""
    from common import checkpoint
    from common.records import ARTIFACTS
    from common.tokenizer import CharTokenizer
    from steps import load

    step, saved = load(number), checkpoint.read(ARTIFACTS / story(number).name / "checkpoint")
    model = step.Model(step.Config(**saved.about["config"])).eval()
    saved.restore(model)
    return model, CharTokenizer(saved.about["alphabet"])


def ids(tokenizer: Any, text: str) -> Any:
    """The text as (1, T) tokens."""
    import torch

    return torch.from_numpy(tokenizer.encode(text))[None]


def bars(canvas: Canvas, place: tuple[float, float, float, float], names: list[str], values: np.ndarray) -> None:
    """Probabilities of characters as horizontal bars, the likeliest first, in (x, y, width, height)."""
    axis = canvas.inset(*place)
    axis.barh(range(len(names)), values, color=[ACCENT] + [FAINT] * (len(names) - 1), height=0.66)
    axis.set_yticks(range(len(names)), names, size=TEXT, color=INK, **MONO)
    for row, value in enumerate(values):
        axis.text(value + 0.015, row, f"{value:.0%}", va="center", size=TEXT, color=INK)
    axis.set(xlim=(0, 1.25 * values.max()), xticks=[])
    axis.invert_yaxis()
    axis.spines[["top", "right", "bottom"]].set_visible(False)
    axis.tick_params(length=0)


def bigram() -> Canvas:
    """The trained table of step 01 for frequent characters, and one of its rows."""
    import torch

    model, tokenizer = trained(1)
    table = torch.softmax(model.token_table.weight.detach(), dim=-1).numpy()
    shown = " etaonishr"
    places = tokenizer.encode(shown)
    canvas, cell, left, top = Canvas(), 0.345, 1.55, 3.78
    canvas.matrix(left, top, cell, table[np.ix_(places, places)], shades(ACCENT, 0.45))
    for i, character in enumerate(map(visible, shown)):
        canvas.text(left - 0.22, top - (i + 0.5) * cell, character, TEXT, **MONO)
        canvas.text(left + (i + 0.5) * cell, top + 0.2, character, TEXT, **MONO)
    canvas.text(left - 0.62, top - 5 * cell, "this character", SMALL, FAINT, rotation=90)
    canvas.text(left + 5 * cell, 0.1, "the next character", SMALL, FAINT)
    row = shown.index("h")
    middle = top - (row + 0.5) * cell
    canvas.line(
        (left, middle + cell / 2), (left + 10 * cell, middle + cell / 2), (left + 10 * cell, middle - cell / 2),
        (left, middle - cell / 2), (left, middle + cell / 2), color=INK, lw=2.4,
    )  # fmt: skip
    canvas.arrow((left + 10 * cell + 0.15, middle), (6.7, 2.3))
    after = table[places[row]]
    best = after.argsort()[::-1][:5]
    canvas.text(7.2, 3.95, "what follows an “h”", BIG, ha="left", weight="bold")
    bars(canvas, (7.5, 0.25, 3.6, 3.4), [visible(tokenizer.decode([i])) for i in best], after[best])
    return canvas


def averaging() -> Canvas:
    """The lower-triangular matrix of step 02, and what it does to vectors."""
    text = "Whale"
    model, tokenizer = trained(2)
    x = model.wte(ids(tokenizer, text))[0, :, :4].detach().numpy()
    x = x / np.abs(x).max()
    wei = np.tril(np.ones((5, 5))) / np.arange(1, 6)[:, None]
    fractions = [["1" if i == 0 else f"1/{i + 1}" if j <= i else "" for j in range(5)] for i in range(5)]
    fractions[0][1:] = [""] * 4
    canvas, cell, top = Canvas(), 0.62, 3.65
    canvas.matrix(0.9, top, cell, np.where(wei > 0, wei, np.nan), shades(ACCENT, 1.1), fractions, TEXT)
    canvas.text(4.45, top - 2.5 * cell, "@", 30)
    canvas.matrix(5.35, top, cell * 0.82, x, diverging())
    canvas.text(7.95, top - 2.5 * cell, "=", 30)
    canvas.matrix(8.65, top, cell * 0.82, wei @ x, diverging())
    for i, character in enumerate(text):
        canvas.text(0.6, top - (i + 0.5) * cell, character, BIG, **MONO)
        canvas.text(5.08, top - (i + 0.5) * cell * 0.82, character, BIG, **MONO)
    for x_middle, name in ((2.45, "weights"), (6.37, "vectors"), (9.67, "averages of the past")):
        canvas.text(x_middle, 4.02, name, BIG, weight="bold")
    canvas.text(2.45, 0.25, "no weight above the diagonal: the future stays unseen", SMALL, INK, ha="center")
    return canvas


def attention() -> Canvas:
    """The scores of step 03 on a few real characters: raw, masked, and as weights."""
    import torch

    text = "the whale"
    model, tokenizer = trained(3)
    with torch.no_grad():
        x = model.wte(ids(tokenizer, text)) + model.wpe(torch.arange(len(text)))
        wei = model.attn.weights(x)[0].numpy()
        q, k = model.attn.query(x)[0], model.attn.key(x)[0]
        scores = (q @ k.T * k.size(-1) ** -0.5).numpy()
    seen = np.tril(np.ones_like(scores)) > 0
    canvas, cell, top = Canvas(), 0.335, 3.35
    panels = (
        (0.55, scores, diverging(reach=np.abs(scores).max()), "scores", "query · key / √D"),
        (4.4, np.where(seen, scores, np.nan), diverging(reach=np.abs(scores).max()), "mask", "no looking ahead"),
        (8.25, np.where(seen, wei, np.nan), shades(ACCENT, 0.7), "weights", "softmax: each row sums to one"),
    )
    for left, values, color, name, note in panels:
        canvas.matrix(left, top, cell, values, color)
        canvas.text(left + 4.5 * cell, 4.02, name, BIG, weight="bold")
        canvas.text(left + 4.5 * cell, 0.08, note, SMALL)
        for i, character in enumerate(map(visible, text)):
            canvas.text(left - 0.17, top - (i + 0.5) * cell, character, SMALL, **MONO)
            canvas.text(left + (i + 0.5) * cell, top + 0.17, character, SMALL, **MONO)
    for start in (3.72, 7.57):
        canvas.arrow((start, top - 4.5 * cell), (start + 0.4, top - 4.5 * cell))
    return canvas


def heads() -> Canvas:
    """Where four heads of the finished GPT look from one position of the book's first words."""
    from common.tracing import attention_maps
    from steps.show import SENTENCE

    model, tokenizer = trained(7)
    maps = dict(attention_maps(model, ids(tokenizer, SENTENCE)))
    position = len(SENTENCE) - 1
    canvas, cell, top = Canvas(), 0.325, 3.4
    color = shades(ACCENT, 0.5)
    for row, (layer, head) in enumerate(HEADS):
        wei = maps[f"h.{layer}.attn"][head].numpy()[position]
        y = top - row * 0.86
        canvas.text(0.75, y - cell / 2, f"layer {layer}\nhead {head}", SMALL, INK, linespacing=1.0)
        canvas.matrix(1.4, y + 0.1, cell, wei[None, :1] * np.nan, color) if False else None
        labels = [[visible(character) for character in SENTENCE]]
        canvas.matrix(1.4, y, cell, wei[None], color, labels, TEXT)
    return canvas


HEADS = ((0, 1), (0, 2), (1, 0), (2, 3))


def funnel() -> Canvas:
    """How many records each stage of step 08 let through."""
    record = run("08_textbook_synthesis")
    stages = list(record.funnel.exercise)
    totals = [sum(kind[stage] for kind in record.funnel.values()) for stage in stages]
    what = {
        "prompted": "topic × topic × audience",
        "answered": "a teacher writes",
        "parsed": "is it a program?",
        "verified": "run it, then try to break it",
        "unique": "no near-duplicate",
        "clean": "no benchmark problem",
    }
    canvas, step, longest = Canvas(), 0.66, 5.4
    for row, (stage, total) in enumerate(zip(stages, totals, strict=True)):
        y = 3.85 - row * step
        last = row == len(stages) - 1
        width = longest * total / totals[0]
        canvas.text(1.75, y, stage, BIG, ACCENT if last else INK, ha="right", weight="bold")
        canvas.line((2.0, y), (2.0 + width, y), color=ACCENT if last else LINE, lw=26, solid_capstyle="butt")
        canvas.text(2.15, y - 0.01, f"{total:,}", TEXT, PAPER if last else INK, ha="left", weight="bold")
        canvas.text(7.75, y, what[stage], TEXT, ha="left")
    return canvas


def title() -> Canvas:
    """One head's triangle over the book's first words, for the title."""
    from common.tracing import attention_maps
    from steps.show import SENTENCE

    model, tokenizer = trained(7)
    layer, head = HEADS[0]
    wei = dict(attention_maps(model, ids(tokenizer, SENTENCE)))[f"h.{layer}.attn"][head].numpy()
    side = 7.2
    canvas = Canvas((side, side), NIGHT)
    cell = side * 0.9 / len(SENTENCE)
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    glow = LinearSegmentedColormap.from_list("glow", ["#1b3550", "#2f9ac4", "#d7f1fb"])
    for row in range(len(SENTENCE)):
        for column in range(row + 1):
            corner = (0.05 * side + column * cell, 0.95 * side - (row + 1) * cell)
            face = glow(float(min(1, wei[row, column] / 0.6)))
            canvas.axis.add_patch(Rectangle(corner, cell * 0.86, cell * 0.86, facecolor=face, linewidth=0))
    return canvas


PICTURES_BY_NAME: dict[str, Callable[[], Canvas]] = {
    "title": title,
    "bigram": bigram,
    "averaging": averaging,
    "attention": attention,
    "head": diagrams.head,
    "multihead": diagrams.multihead,
    "heads": heads,
    "block": diagrams.block,
    "gpt": diagrams.gpt,
    "funnel": funnel,
    "arms": diagrams.arms,
    "lora": diagrams.lora,
}


def draw(names: list[str], folder: Path = PICTURES) -> list[Path]:
    """Draw the named pictures and return their files."""
    made = []
    for name in names:
        PICTURES_BY_NAME[name]().save(folder / f"{name}.png")
        made.append(folder / f"{name}.png")
    return made


def main(names: Annotated[list[str] | None, typer.Argument(help="which ones; all unless named")] = None) -> None:
    """Draw the deck's diagrams into slides/pictures/."""
    unknown = set(names or ()) - set(PICTURES_BY_NAME)
    if unknown:
        raise typer.BadParameter(f"there is no picture {min(unknown)!r}: choose from {', '.join(PICTURES_BY_NAME)}")
    for file in draw(names or list(PICTURES_BY_NAME)):
        typer.echo(file.name)


if __name__ == "__main__":
    typer.run(main)
