"""`python -m slides.pictures`: draw the deck's diagrams into slides/pictures/.

What they show of a model is computed from its committed checkpoint, and every figure comes from a recorded run.
"""

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer

from slides import diagrams
from slides.drawing import ACCENT, BIG, FAINT, INK, KEY, LINE, PAPER, SMALL, SOFT, TEXT, Canvas, diverging, shades
from slides.sources import PICTURES, Missing, run, story

MONO = {"family": "DejaVu Sans Mono"}
NIGHT = "#12263a"  # behind the title


def visible(character: str) -> str:
    return {" ": "␣", "\n": "¶"}.get(character, character)


def trained(number: int) -> tuple[Any, Any]:
    """A step's model with its committed weights, and its tokenizer."""
    from steps.committed import committed

    return committed(number)[:2]


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
        axis.text(value + 0.02 * values.max(), row, f"{value:.0%}", va="center", size=TEXT, color=INK)
    axis.set(xlim=(0, (1 + 0.8 / place[2]) * values.max()), xticks=[])
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
    canvas, cell, left, top = Canvas(), 0.37, 1.4, 4.1
    canvas.matrix(left, top, cell, table[np.ix_(places, places)], shades(ACCENT, 0.45))
    for i, character in enumerate(map(visible, shown)):
        canvas.text(left - 0.22, top - (i + 0.5) * cell, character, TEXT, **MONO)
        canvas.text(left + (i + 0.5) * cell, top + 0.21, character, TEXT, **MONO)
    canvas.text(left - 0.62, top - 5 * cell, "this character", SMALL, rotation=90)
    canvas.text(left + 5 * cell, 0.17, "the next character", SMALL)
    row = shown.index("h")
    middle = top - (row + 0.5) * cell
    canvas.line(
        (left, middle + cell / 2), (left + 10 * cell, middle + cell / 2), (left + 10 * cell, middle - cell / 2),
        (left, middle - cell / 2), (left, middle + cell / 2), color=INK, lw=2.4,
    )  # fmt: skip
    canvas.arrow((left + 10 * cell + 0.15, middle), (6.6, 2.3))
    after = table[places[row]]
    best = after.argsort()[::-1][:5]
    canvas.text(7.0, 4.2, "what follows an “h”", BIG, ha="left", weight="bold")
    bars(canvas, (7.3, 0.3, 3.9, 3.5), [visible(tokenizer.decode([i])) for i in best], after[best])
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
    canvas, cell, top = Canvas(), 0.66, 3.75
    canvas.matrix(0.7, top, cell, np.where(wei > 0, wei, np.nan), shades(ACCENT, 1.1), fractions, TEXT)
    canvas.text(4.42, top - 2.5 * cell, "@", 30)
    canvas.matrix(5.2, top, cell, x, diverging())
    canvas.text(8.2, top - 2.5 * cell, "=", 30)
    canvas.matrix(8.65, top, cell, wei @ x, diverging())
    for i, character in enumerate(text):
        for left in (0.43, 4.97):
            canvas.text(left, top - (i + 0.5) * cell, character, BIG, **MONO)
    for middle, name in ((2.35, "weights"), (6.52, "vectors"), (9.97, "averages of the past")):
        canvas.text(middle, 4.2, name, BIG, weight="bold")
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
    canvas, cell, top = Canvas(), 0.345, 3.65
    panels = (
        (0.55, scores, diverging(reach=np.abs(scores).max()), "scores", "query · key / √D"),
        (4.4, np.where(seen, scores, np.nan), diverging(reach=np.abs(scores).max()), "mask", "no looking ahead"),
        (8.25, np.where(seen, wei, np.nan), shades(ACCENT, 0.7), "weights", "softmax: each row sums to one"),
    )
    for left, values, color, name, note in panels:
        canvas.matrix(left, top, cell, values, color)
        canvas.text(left + 4.5 * cell, 4.32, name, BIG, weight="bold")
        canvas.text(left + 4.5 * cell, 0.25, note, TEXT)
        for i, character in enumerate(map(visible, text)):
            canvas.text(left - 0.17, top - (i + 0.5) * cell, character, SMALL, **MONO)
            canvas.text(left + (i + 0.5) * cell, top + 0.17, character, SMALL, **MONO)
    for start in (3.72, 7.57):
        canvas.arrow((start, top - 4.5 * cell), (start + 0.4, top - 4.5 * cell))
    return canvas


HEADS = {  # (layer, head) of the finished model: what it attends to in the book's first words
    (0, 3): "the character before",
    (0, 2): "the same character",
    (2, 1): "where words begin",
    (3, 1): "how earlier words begin",
}


def heads() -> Canvas:
    """Where four heads of the finished GPT look from the last character of the book's first words."""
    from common.tracing import attention_maps
    from steps.show import SENTENCE

    model, tokenizer = trained(7)
    maps = dict(attention_maps(model, ids(tokenizer, SENTENCE)))
    labels = [[visible(character) for character in SENTENCE]]
    canvas, cell, left = Canvas(), 0.352, 0.3
    right = left + cell * len(SENTENCE)
    canvas.text(right - 0.45, 4.38, "from here", SMALL, KEY, ha="center")
    for row, ((layer, head), looks_at) in enumerate(HEADS.items()):
        y = 3.72 - row * 1.11
        wei = maps[f"h.{layer}.attn"][head].numpy()[-1:]
        canvas.text(left, y + 0.22, looks_at, BIG, ACCENT, ha="left", weight="bold")
        canvas.text(left + 4.0, y + 0.2, f"layer {layer}, head {head}", SMALL, INK, ha="left")
        canvas.matrix(left, y, cell, wei, shades(ACCENT, 0.5), labels, TEXT)
        corners = ((right - cell, y), (right, y), (right, y - cell), (right - cell, y - cell), (right - cell, y))
        canvas.line(*corners, color=KEY, lw=2.6)
    return canvas


def gpt() -> Canvas:
    """The whole model from characters to the next one's probabilities, on the book's first words."""
    import torch

    model, tokenizer = trained(7)
    text = "Call me Ishma"
    with torch.no_grad():
        after = torch.softmax(model(ids(tokenizer, text))[0][0, -1], dim=-1).numpy()
    best = after.argsort()[::-1][:3]
    canvas, y = Canvas(), 2.5
    canvas.text(1.0, y, "Call me\nIshma", BIG, family="DejaVu Sans Mono")
    canvas.arrow((1.75, y), (2.1, y))
    canvas.box(2.85, y, 1.4, 1.5, "token +\nposition", ACCENT, TEXT)
    canvas.arrow((3.6, y), (3.95, y))
    layers = run("07_full_gpt").config.n_layer
    for i in reversed(range(layers)):
        canvas.box(4.75 + 0.13 * i, y + 0.13 * i, 1.5, 1.6, "block" if i == 0 else "", KEY, BIG)
    canvas.text(4.75, y - 0.45, f"× {layers}", TEXT, KEY)
    canvas.arrow((6.0, y), (6.35, y))
    canvas.box(7.0, y, 1.2, 1.5, "Layer\nNorm", FAINT, TEXT)
    canvas.arrow((7.65, y), (8.0, y))
    canvas.box(8.6, y, 1.1, 1.5, "to\nlogits", ACCENT, TEXT)
    canvas.arrow((9.2, y), (9.55, y))
    canvas.line((2.85, y - 0.8), (2.85, 0.75), (8.6, 0.75), (8.6, y - 0.8), color=ACCENT, ls=(0, (3, 2)))
    canvas.text(5.7, 0.4, "one table reads characters and writes them", TEXT, ACCENT)
    bars(canvas, (10.0, 1.4, 1.45, 1.9), [visible(tokenizer.decode([i])) for i in best], after[best])
    canvas.text(10.6, 3.75, "next?", BIG, weight="bold")
    return canvas


def funnel() -> Canvas:
    """How many records each stage of step 08 let through."""
    record = run("08_textbook_synthesis")
    stages = list(record.funnel.exercise)
    totals = [sum(kind[stage] for kind in record.funnel.values()) for stage in stages]
    what = {
        "prompted": "two topics, one audience",
        "answered": "a teacher writes",
        "parsed": "is it a program?",
        "verified": "run; then try to break it",
        "unique": "no near-duplicate",
        "clean": "no benchmark problem",
    }
    canvas, step, longest = Canvas(), 0.72, 5.1
    for row, (stage, total) in enumerate(zip(stages, totals, strict=True)):
        y = 4.15 - row * step
        last = row == len(stages) - 1
        width = longest * total / totals[0]
        canvas.text(1.75, y, stage, BIG, ACCENT if last else INK, ha="right", weight="bold")
        canvas.line((2.0, y), (2.0 + width, y), color=ACCENT if last else LINE, lw=26, solid_capstyle="butt")
        canvas.text(2.15, y - 0.01, f"{total:,}", TEXT, PAPER if last else INK, ha="left", weight="bold")
        canvas.text(7.35, y, what[stage], BIG, ha="left")
    return canvas


def losses() -> Canvas:
    """The ladder: the validation loss of every step beside that of a uniform guess."""
    from steps.ladder import runs_of_the_ladder

    runs = runs_of_the_ladder()
    uniform = float(np.log(runs[1]["config"]["vocab_size"]))
    canvas, step, longest = Canvas(), 0.56, 5.9
    rows = [("a uniform guess", uniform)] + [(f"{n:02d}  {story(n).title}", runs[n]["val_loss"]) for n in runs]
    for row, (name, loss) in enumerate(rows):
        y, last = 4.25 - row * step, row == len(rows) - 1
        color = ACCENT if last else LINE if row else SOFT
        weight = "bold" if last else "normal"
        canvas.text(4.3, y, name, TEXT, ACCENT if last else INK, ha="right", weight=weight)
        canvas.line((4.5, y), (4.5 + longest * loss / uniform, y), color=color, lw=24, solid_capstyle="butt")
        canvas.text(4.6 + longest * loss / uniform, y, f"{loss:.3f}", TEXT, ha="left", weight=weight)
    return canvas


def title() -> Canvas:
    """One head's triangle over the book's first words, for the title."""
    from common.tracing import attention_maps
    from steps.show import SENTENCE

    model, tokenizer = trained(7)
    layer, head = 2, 1
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


DRAWN: dict[str, Callable[[], Canvas]] = {
    "title": title,
    "bigram": bigram,
    "averaging": averaging,
    "attention": attention,
    "head": diagrams.head,
    "multihead": diagrams.multihead,
    "heads": heads,
    "block": diagrams.block,
    "gpt": gpt,
    "losses": losses,
    "funnel": funnel,
    "arms": diagrams.arms,
    "pass_rates": diagrams.pass_rates,
    "lora": diagrams.lora,
}


def main(names: Annotated[list[str] | None, typer.Argument(help="which ones; all unless named")] = None) -> None:
    """Draw the deck's diagrams into slides/pictures/; one whose run is not recorded yet is left out, and named."""
    unknown = set(names or ()) - set(DRAWN)
    if unknown:
        raise typer.BadParameter(f"there is no picture {min(unknown)!r}: choose from {', '.join(DRAWN)}")
    for name in names or DRAWN:
        try:
            DRAWN[name]().save(PICTURES / f"{name}.png")
            typer.echo(f"drawn  {name}.png")
        except Missing as reason:
            typer.secho(f"{name}.png is left out: {reason}", fg="yellow", err=True)


if __name__ == "__main__":
    typer.run(main)
