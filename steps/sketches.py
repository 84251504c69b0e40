"""The deck's pictures once more, in block characters: what presenter mode shows where the slides have a drawing.

Everything is computed from the committed checkpoints, by the NumPy reference, and from the recorded runs; torch stays
unloaded, so a page turns at once.
"""

import functools
import math
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from common.records import ARTIFACTS, recorded_runs
from common.terminal import ACCENT, count, table
from steps.ladder import runs_of_the_ladder
from steps.story import read

if TYPE_CHECKING:
    import numpy as np

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
    name = "/".join(picture.split("/")[-2:]).removeprefix("pictures/").removeprefix("artifacts/").removesuffix(".png")
    drawing = DRAWINGS.get(name)
    return drawing(number, width) if drawing else None


# Shapes in block characters


def shaded(weights: "np.ndarray", rows: str, columns: str = "") -> Text:
    """A matrix of shares, (R, C), two characters a cell: the darker, the nearer to the largest. `columns` heads it."""
    high = weights.max()
    lines = [Text("    " + " ".join(map(visible, columns)), style="dim")] if columns else []
    for name, row in zip(rows, weights, strict=True):
        cells = "".join(2 * SHADES[math.ceil(4 * max(0.0, share) / high - 0.1)] for share in row)
        lines.append(Text.assemble((f" {visible(name)}  ", "dim"), (cells, ACCENT)))
    return Text("\n").join(lines)


def over_text(shares: "np.ndarray", text: str) -> Text:
    """Two rows of bars above the characters of a text: how much of the attention each of them gets."""
    heights = [round(16 * share / shares.max()) for share in shares]
    upper = " ".join(LEVELS[max(0, height - 8)] for height in heights)
    lower = " ".join(LEVELS[min(8, height)] for height in heights)
    return Text.assemble((f"{upper}\n{lower}\n", ACCENT), " ".join(map(visible, text)))


def bars(rows: Iterable[tuple[str, float, str]], longest: int) -> Table:
    """(name, value, the value in words) as horizontal bars of at most `longest` columns."""
    rows, made = list(rows), Table.grid(padding=(0, 2))
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
    import json

    from safetensors.numpy import load_file

    from common.tokenizer import CharTokenizer

    folder = ARTIFACTS / read(number).name / "checkpoint"
    alphabet = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))["alphabet"]
    params = load_file(folder / "weights.safetensors")
    if "wte.weight" not in params and "lm_head.weight" in params:
        params["wte.weight"] = params["lm_head.weight"]  # step 07 has one tensor for both
    return params, CharTokenizer(alphabet).encode


def one_head(number: int, text: str) -> tuple["np.ndarray", "np.ndarray"]:
    """Scores and weights, both (T, T), of the only head in step 03 or 04."""
    from common.reference import linear, scaled_dot_product_attention

    params, encode = committed(number)
    x = params["wte.weight"][encode(text)] + params["wpe.weight"][: len(text)]
    q, k = (linear(x, params[f"attn.{name}.weight"])[0] for name in ("query", "key"))
    _, (_, _, _, weights, _) = scaled_dot_product_attention(q, k, x)
    return q @ k.T * k.shape[-1] ** -0.5, weights


def finished_gpt(text: str) -> tuple["np.ndarray", list["np.ndarray"]]:
    """Step 07: the logits after the text, (V,), and the weights of every layer, (H, T, T) each."""
    from common.reference import gpt

    params, encode = committed(7)
    idx = encode(text)[None]
    logits, _, (_, _, blocks, *_) = gpt(params, idx, idx, recorded_runs()[7]["config"]["n_head"])
    return logits[0, -1], [attention[2][3][0] for _, attention, *_ in blocks]


def likeliest(logits: "np.ndarray", best: int) -> Table:
    """The `best` likeliest characters with their probabilities."""
    from common.reference import softmax

    shares, alphabet = softmax(logits)[0], recorded_runs()[7]["alphabet"]
    return bars(((visible(alphabet[i]), shares[i], f"{shares[i]:.0%}") for i in shares.argsort()[::-1][:best]), 24)


# One drawing a picture: (the step whose page it is, columns) → what is shown


def title(_: int | None, width: int) -> RenderableType:
    text = SENTENCE[: SENTENCE.index(".") + 1]
    layer, head = 2, 1
    return shaded(finished_gpt(text)[1][layer][head], text)


def bigram(number: int, width: int) -> RenderableType:
    from common.reference import softmax

    shown = " etaonishr"
    params, encode = committed(number)
    logits, places = params["token_table.weight"], encode(shown)
    after = Group("what follows an “h”", "", likeliest(logits[encode("h")[0]], 5))
    return side_by_side(shaded(softmax(logits)[0][places][:, places], shown, shown), after)


def averaging(number: int, width: int) -> RenderableType:
    text = "Whale"
    shares = ["1", *(f"1/{t}" for t in range(2, len(text) + 1))]
    rows = (f"{text[t]}  {f'{share:>5}' * (t + 1)}" for t, share in enumerate(shares))
    return Text("\n\n".join(rows))


def attention(number: int, width: int) -> RenderableType:
    text = "the whale"
    scores, weights = one_head(number, text)
    shown = [
        f"{visible(text[t])} " + "".join(f"{score:6.1f}" if s <= t else "     ·" for s, score in enumerate(row))
        for t, row in enumerate(scores)
    ]
    return side_by_side(
        Group("query · key / √D, the future masked", "", "\n".join(shown)),
        Group("softmax: each row sums to one", "", shaded(weights, text)),
    )


def head(number: int, width: int) -> RenderableType:
    text = "the whale"
    return side_by_side(traced(number, width), Group(f"on “{text}”", "", shaded(one_head(number, text)[1], text)))


def heads(_: int, width: int) -> RenderableType:
    maps = finished_gpt(SENTENCE)[1]
    made = Table.grid(padding=(0, 3, 1, 0))
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
    return side_by_side(traced(number, width), Group(f"after “{text}”", "", likeliest(finished_gpt(text)[0], 4)))


def funnel(number: int, width: int) -> RenderableType:
    kinds = recorded_runs()[number]["funnel"].values()
    totals = {stage: sum(kind[stage] for kind in kinds) for stage in next(iter(kinds))}
    return bars(((stage, total, f"{total:,}") for stage, total in totals.items()), width // 2)


def arms(number: int, width: int) -> RenderableType:
    corpora = recorded_runs()[number]["corpora"].items()
    words = "{} tokens, {:.1f} times its text"
    return bars(
        (
            (f"{arm:3} {it['title']}", it["tokens_seen"], words.format(count(it["tokens_seen"]), it["epochs"]))
            for arm, it in corpora
        ),
        width // 4,
    )


def exam(number: int, width: int) -> RenderableType:
    """Pass@1 of every arm: solid to the lower end of the interval, then to the rate, then to the upper end."""
    made = table("arm", "solved", "", "interval")
    longest = width - 48
    for arm, it in recorded_runs()[number]["arms"].items():
        score = it["scores"]["all"]
        low, rate, high = (round(longest * score[key]) for key in ("low", "rate", "high"))
        bar = "█" * low + "▓" * (rate - low) + "░" * (high - rate)
        made.add_row(arm, f"{score['rate']:.1%}", Text(bar, style=ACCENT), f"{score['low']:.1%} – {score['high']:.1%}")
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
    "10_finetuning/ladder": exam,
    "losses": losses,
}
