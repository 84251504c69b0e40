"""The deck's pictures once more, in block characters: what presenter mode shows where the slides have a drawing.

Everything is computed from the committed checkpoints, by the NumPy reference, and from the recorded runs; torch stays
unloaded, so a page turns at once.
"""

import functools
import json
import math
import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any

from jaxtyping import Float
from numpy import ndarray as Array
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from safetensors.numpy import load_file

from common import reference
from common.records import ARTIFACTS, recorded_runs
from common.terminal import ACCENT, count, table
from common.tokenizer import CharTokenizer
from steps.ladder import runs_of_the_ladder
from steps.story import read

SENTENCE = "Call me Ishmael. Some years ago"
HEADS = {  # (layer, head) of step 07: what it attends to in the sentence
    (0, 3): "the character before",
    (0, 2): "the same character",
    (2, 1): "where words begin",
    (3, 1): "how earlier words begin",
}
SHADES, LEVELS = " ░▒▓█", " ▁▂▃▄▅▆▇█"


def sketch(picture: str, number: int | None, width: int) -> RenderableType | None:
    """What a picture of the deck shows, for a terminal of `width` columns; None if there is no such drawing.

    `picture` is its path, such as "../slides/pictures/heads.png", and `number` the step whose page it is on.
    """
    drawing = DRAWINGS.get(PurePosixPath(picture).stem)
    return drawing(number, width) if drawing else None


# Shapes in block characters


def shaded(weights: Float[Array, "R C"], rows: str, columns: str = "") -> Text:
    """A matrix of shares, (R, C), two characters a cell: the denser, the nearer to the largest. `columns` heads it."""
    high = weights.max()
    lines = [Text("    " + " ".join(map(visible, columns)), style="dim")] if columns else []
    for name, row in zip(rows, weights, strict=True):
        cells = "".join(2 * SHADES[round(4 * share / high)] for share in row)
        lines.append(Text.assemble((f" {visible(name)}  ", "dim"), (cells, ACCENT)))
    return Text("\n").join(lines)


def figures(matrix: Float[Array, "R C"], rows: str, masked: bool = False) -> str:
    """A matrix in figures, one decimal; where `masked`, a dot for what lies in the future."""
    lines = (
        [f"{round(float(x), 1) + 0:6.1f}" if not masked or s <= t else "     ·" for s, x in enumerate(row)]
        for t, row in enumerate(matrix)
    )
    return "\n".join(visible(name) + "".join(line) for name, line in zip(rows, lines, strict=True))


def over_text(shares: Float[Array, "T"], text: str) -> Text:
    """Two rows of bars above the characters of a text: how much of the attention each of them gets."""
    heights = [round(16 * share / shares.max()) for share in shares]
    upper = " ".join(LEVELS[max(0, height - 8)] for height in heights)
    lower = " ".join(LEVELS[min(8, height)] for height in heights)
    return Text.assemble((f"{upper}\n{lower}\n", ACCENT), " ".join(map(visible, text)))


def bars(rows: Iterable[tuple[str, float, str]], longest: int) -> Table:
    """(name, value, the value in words) as horizontal bars of at most `longest` columns."""
    rows, made = list(rows), Table.grid(padding=(0, 2, 1, 0), collapse_padding=False)
    most = max(value for _, value, _ in rows)
    for name, value, words in rows:
        eighths = round(8 * longest * value / most)
        made.add_row(name, Text("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8], style=ACCENT), words)
    return made


def visible(character: str) -> str:
    return {" ": "␣", "\n": "¶"}.get(character, character)


# What the checkpoints compute, in NumPy


@functools.cache
def committed(number: int) -> tuple[dict[str, Any], Callable[[str], Any]]:
    """The weights of a step's committed checkpoint by name, and its tokenizer's `encode`."""
    folder = ARTIFACTS / read(number).name / "checkpoint"
    alphabet = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))["alphabet"]
    params = {name: each.astype("float32") for name, each in load_file(folder / "weights.safetensors").items()}
    if "wte.weight" not in params and "lm_head.weight" in params:
        params["wte.weight"] = params["lm_head.weight"]  # step 07 has one tensor for both
    return params, CharTokenizer(alphabet).encode


def one_head(number: int, text: str) -> tuple[Float[Array, "T T"], Float[Array, "T T"]]:
    """Scores, before the mask, and weights of the only head in step 03 or 04."""
    params, encode = committed(number)
    x = params["wte.weight"][encode(text)] + params["wpe.weight"][: len(text)]
    q, k = (reference.linear(x, params[f"attn.{name}.weight"])[0] for name in ("query", "key"))
    _, (_, _, _, weights, _) = reference.scaled_dot_product_attention(q, k, x)
    return q @ k.T * k.shape[-1] ** -0.5, weights


def finished_gpt(text: str) -> tuple[Float[Array, "V"], list[Float[Array, "H T T"]]]:
    """Step 07: the logits after the text, and the attention weights of every layer."""
    params, encode = committed(7)
    idx = encode(text)[None]
    logits, _, (_, _, blocks, *_) = reference.gpt(params, idx, idx, recorded_runs()[7]["config"]["n_head"])
    return logits[0, -1], [attention[2][3][0] for _, attention, *_ in blocks]


def likeliest(logits: Float[Array, "V"], best: int) -> Table:
    """The `best` likeliest characters with their probabilities."""
    shares, alphabet = reference.softmax(logits)[0], recorded_runs()[7]["alphabet"]
    return bars(((visible(alphabet[i]), shares[i], f"{shares[i]:.0%}") for i in shares.argsort()[::-1][:best]), 24)


# One drawing a picture: (the step whose page it is, columns) → what is shown


def title(_: int | None, width: int) -> RenderableType:
    text = SENTENCE[: SENTENCE.index(".") + 1]
    layer, head = next(iter(HEADS))
    return shaded(finished_gpt(text)[1][layer][head], text)


def bigram(number: int, width: int) -> RenderableType:
    shown = " etaonishr"
    params, encode = committed(number)
    logits, places = params["token_table.weight"], encode(shown)
    after = Group("what follows an “h”", "", likeliest(logits[encode("h")[0]], 5))
    return side_by_side(shaded(reference.softmax(logits)[0][places][:, places], shown, shown), after)


def averaging(number: int, width: int) -> RenderableType:
    text = "Whale"
    params, encode = committed(number)
    x = params["wte.weight"][encode(text), :3]
    rows = "\n".join(text[t] + "".join(f"{f'1/{t + 1}':>6}" for _ in range(t + 1)) for t in range(len(text)))
    return side_by_side(
        Group("weights", "", rows),
        Group("@ vectors, 3 of their numbers", "", figures(x, text)),
        Group("= averages of the past", "", figures(reference.prefix_mean(x)[0], text)),
    )


def attention(number: int, width: int) -> RenderableType:
    text = "the whale"
    scores, weights = one_head(number, text)
    return side_by_side(
        Group("query · key / √D, the future masked", "", figures(scores, text, masked=True)),
        Group("softmax: each row sums to one", "", shaded(weights, text)),
    )


def head(number: int, width: int) -> RenderableType:
    text = "the whale"
    return side_by_side(traced(number, width), Group(f"on “{text}”", "", shaded(one_head(number, text)[1], text)))


def heads(_: int, width: int) -> RenderableType:
    maps = finished_gpt(SENTENCE)[1]
    made = Table.grid(padding=(0, 3, 1, 0), collapse_padding=False)
    for (layer, which), looks_at in HEADS.items():
        made.add_row(f"\n[bold]{looks_at}[/]\nlayer {layer}, head {which}", over_text(maps[layer][which][-1], SENTENCE))
    return made


def traced(number: int, width: int) -> RenderableType:
    """The recorded trace; of equal modules in a row the first stands for all."""
    rows = {row["name"]: row for row in recorded_runs()[number]["trace"]}
    made = table("module", "input", "output", "parameters", right=(3,))
    for name, row in rows.items():
        if re.search(r"\.[1-9]", name):
            continue
        parts = name.split(".")
        depth = sum(not part.isdigit() for part in parts)
        label = ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]
        if parts[-1] == "0":
            label += f" … {sum(name[:-1] + str(i) in rows for i in range(len(rows))) - 1}"
        shapes = (" × ".join(map(str, row[end])) for end in ("input_shape", "output_shape"))
        made.add_row("  " * depth + label if name else row["kind"], *shapes, count(row["parameters"]))
    return made


def gpt(number: int, width: int) -> RenderableType:
    text = "Call me Ishma"
    return side_by_side(traced(number, width), Group(f"after “{text}”", "", likeliest(finished_gpt(text)[0], 3)))


def funnel(number: int, width: int) -> RenderableType:
    kinds = recorded_runs()[number]["funnel"].values()
    totals = {stage: sum(kind[stage] for kind in kinds) for stage in next(iter(kinds))}
    return bars(((stage, total, f"{total:,}") for stage, total in totals.items()), width // 2)


def arms(number: int, width: int) -> RenderableType:
    read_by = recorded_runs()[number]["arms"]
    rows = []
    for name, it in read_by.items():
        words = f"{count(it['tokens_seen'])} tokens, {it['epochs']:.1f} epochs"
        rows.append((f"{name.replace('-', '−'):3} {it['title']}", it["tokens_seen"], words))
    return bars(rows, width // 4)


def pass_rates(number: int, width: int) -> RenderableType:
    """Problems solved by what was read: before, and after this step's exercises (+X), with their intervals."""
    runs = recorded_runs()
    scored = runs[number - 1]["arms"] | runs[number]["arms"]
    shown = [name for read_before in ("0", "A", "A3", "B", "C", "C-") for name in (read_before, f"{read_before}+X")]
    made = table("arm", "", "solved, %", "interval", "", right=(2,))
    for name in (name for name in shown if name in scored):
        low, rate, high = (100 * scored[name]["scores"]["all"][key] for key in ("low", "rate", "high"))
        ends = [round((width - 72) * share / 100) for share in (0, low, rate, high)]
        bar = "".join(shade * (end - start) for shade, start, end in zip("█▓░", ends, ends[1:], strict=False))
        figures = f"{rate:.1f}", f"{low:.1f} – {high:.1f}"
        made.add_row(name.replace("-", "−"), scored[name]["title"], *figures, Text(bar, style=ACCENT))
    return made


def losses(_: int | None, width: int) -> RenderableType:
    runs = runs_of_the_ladder()
    rows = [("a uniform guess", math.log(runs[1]["config"]["vocab_size"]))]
    rows += [(f"{number:02d}  {read(number).title}", run["val_loss"]) for number, run in runs.items()]
    return bars(((name, loss, f"{loss:.3f}") for name, loss in rows), width // 2)


def side_by_side(*parts: RenderableType) -> RenderableType:
    return Columns(parts, padding=(0, 6))


DRAWINGS: dict[str, Callable[[Any, int], RenderableType]] = {
    "title": title,
    "bigram": bigram,
    "averaging": averaging,
    "attention": attention,
    "head": head,
    "heads": heads,
    "block": traced,
    "gpt": gpt,
    "funnel": funnel,
    "arms": arms,
    "pass_rates": pass_rates,
    "losses": losses,
}
