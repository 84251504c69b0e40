"""The diagrams of parts: one head, several heads, the block, the arms of the case study, LoRA."""

from slides.drawing import ACCENT, BIG, FAINT, INK, KEY, LINE, PAPER, QUERY, SMALL, TEXT, VALUE, Canvas
from slides.sources import run

HEAD_COLORS = (ACCENT, KEY, VALUE, "#7b4ba0")


def head() -> Canvas:
    """x becomes query, key and value; the first two make the weights, which average the third."""
    canvas, y = Canvas(), (3.55, 2.35, 0.85)
    canvas.box(0.9, 2.15, 1.0, 3.3, "x", INK, 30)
    for place, name, color in zip(y, ("query", "key", "value"), (QUERY, KEY, VALUE), strict=True):
        canvas.arrow((1.45, place), (2.1, place), color)
        canvas.box(3.0, place, 1.75, 0.8, name, color, BIG)
    canvas.text(3.0, 4.13, "what am I looking for?", SMALL, QUERY)
    canvas.text(3.0, 1.76, "what do I hold?", SMALL, KEY)
    canvas.text(3.0, 0.28, "what do I tell?", SMALL, VALUE)
    canvas.line((3.92, y[0]), (4.5, y[0]), (4.5, 2.95), color=QUERY)
    canvas.line((3.92, y[1]), (4.5, y[1]), (4.5, 2.95), color=KEY)
    canvas.arrow((4.5, 2.95), (5.0, 2.95))
    canvas.box(5.85, 2.95, 1.6, 1.0, "q · k / √D", INK, BIG)
    canvas.arrow((6.7, 2.95), (7.2, 2.95))
    canvas.box(8.2, 2.95, 1.9, 1.0, "mask,\nsoftmax", INK, BIG)
    canvas.text(5.85, 3.75, "scores", TEXT)
    canvas.text(8.2, 3.75, "weights", TEXT)
    canvas.line((9.2, 2.95), (9.85, 2.95))
    canvas.arrow((3.92, y[2]), (8.95, y[2]), VALUE)
    canvas.arrow((9.85, 2.95), (9.85, 1.4))
    canvas.box(9.85, y[2], 1.6, 1.0, "weights\n@ v", INK, TEXT)
    canvas.arrow((10.7, y[2]), (11.1, y[2]))
    canvas.text(11.28, y[2], "y", 30, weight="bold")
    return canvas


def multihead() -> Canvas:
    """Heads side by side, each on its part of the width, concatenated and projected."""
    canvas, rows = Canvas(), (3.35, 2.45, 1.55, 0.65)
    canvas.box(0.9, 2.0, 1.0, 3.5, "x", INK, 30)
    for row, (y, color) in enumerate(zip(rows, HEAD_COLORS, strict=True)):
        canvas.arrow((1.45, y), (2.4, y), color)
        canvas.box(3.6, y, 2.3, 0.7, f"head {row}", color, BIG)
        canvas.arrow((4.8, y), (5.75, y), color)
        canvas.box(6.2, y, 0.8, 0.88, "D", color, BIG, fill=True)
    canvas.text(0.9, 4.05, "C wide", TEXT)
    canvas.text(6.2, 4.05, "concatenated: C wide", TEXT)
    canvas.arrow((6.7, 2.0), (7.7, 2.0))
    canvas.box(8.75, 2.0, 2.0, 1.3, "projection", INK, BIG)
    canvas.arrow((9.8, 2.0), (10.6, 2.0))
    canvas.text(10.95, 2.0, "y", 30, weight="bold")
    return canvas


def block() -> Canvas:
    """The residual stream, and the two parts that read it and add to it."""
    canvas, stream, branch = Canvas(), 0.75, 2.75
    canvas.text(0.45, stream, "x", 30, weight="bold")
    canvas.line((0.75, stream), (11.0, stream), color=ACCENT, lw=7)
    canvas.arrow((10.92, stream), (11.3, stream), ACCENT, lw=7)
    canvas.text(5.7, 0.25, "the residual stream: each part adds to it, nothing replaces it", TEXT, ACCENT)
    for left, parts in ((1.3, ("LayerNorm", "attention")), (6.3, ("LayerNorm", "MLP"))):
        canvas.line((left, stream), (left, branch))
        canvas.arrow((left, branch), (left + 0.35, branch))
        canvas.box(left + 1.2, branch, 1.7, 0.95, parts[0], FAINT, TEXT)
        canvas.arrow((left + 2.1, branch), (left + 2.45, branch))
        canvas.box(left + 3.25, branch, 1.6, 1.3, parts[1], ACCENT if parts[1] == "attention" else KEY, BIG, fill=True)
        canvas.line((left + 4.07, branch), (left + 4.4, branch))
        canvas.arrow((left + 4.4, branch), (left + 4.4, stream + 0.2))
        canvas.plus(left + 4.4, stream)
    canvas.text(1.3 + 2.2, 3.85, "talk to the past", BIG, ACCENT, weight="bold")
    canvas.text(6.3 + 2.2, 3.85, "think about it", BIG, KEY, weight="bold")
    return canvas


def arms() -> Canvas:
    """What each arm of step 09 reads: a bar as long as its tokens, cut where its text begins again."""
    study = run("09_pretraining")
    texts = study.arms
    filtered = min(1.0, texts.B.characters / texts.C.characters)  # the part of C's text that is filtered code
    colors = {"B": ((ACCENT, 1.0),), "C": ((ACCENT, filtered), (VALUE, 1 - filtered))}
    colors["C-"] = ((ACCENT, filtered), (KEY, 1 - filtered))
    longest = max(texts[name].tokens_seen for name in study.arms)
    canvas, full = Canvas(), 4.6
    for row, name in enumerate(study.arms):
        y, x, text = 4.15 - row * 0.74, 1.15, texts[name]
        canvas.text(0.6, y, name.replace("-", "−"), BIG, weight="bold")
        canvas.text(6.05, y, text.title, BIG, ha="left")
        once = full * text.tokens_seen / longest / text.epochs
        for share in [1.0] * int(text.epochs) + [text.epochs % 1]:
            for color, part in colors.get(name, ((FAINT, 1.0),)):
                canvas.line((x, y), (x + once * part * share, y), color=color, lw=28, solid_capstyle="butt")
                x += once * part * share
            canvas.line((x, y - 0.22), (x, y + 0.22), color=PAPER, lw=3)
    return canvas


def pass_rates() -> Canvas:
    """The case study's figure: problems solved by what was read, before and after finetuning, with 95 % intervals."""
    before, after = run("09_pretraining").arms, run("10_finetuning").arms
    names = {"0": "nothing", "A": "raw code", "A3": "three times\nas much", "B": "filtered code"}
    names |= {"C": "filtered code,\ntextbooks", "C-": "the same,\npermuted"}
    canvas = Canvas()
    axis = canvas.inset(0.75, 0.8, 10.6, 3.25)
    shown = [arms[key].scores["all"] for arms in (before, after) for key in arms if key.removesuffix("+X") in names]
    top = 120 * max(score.high for score in shown)
    for place, name in enumerate(names):
        bars = ((-0.2, before.get(name), LINE), (0.2, after[f"{name}+X"], ACCENT))
        for shift, arm, color in bars:
            if arm is None:
                continue
            score = arm.scores["all"]
            spread = [[100 * (score.rate - score.low)], [100 * (score.high - score.rate)]]
            axis.bar(place + shift, 100 * score.rate, 0.38, color=color)
            axis.errorbar(place + shift, 100 * score.rate, spread, fmt="none", ecolor=INK, elinewidth=2, capsize=6)
            digits = 0 if top > 20 else 1
            label = (place + shift, 100 * score.high + top / 40, f"{100 * score.rate:.{digits}f}")
            axis.text(*label, size=BIG, ha="center", color=INK, weight="bold")
    axis.set_xticks(range(len(names)), names.values(), size=TEXT, color=INK)
    axis.set_yticks([])
    axis.set_ylim(0, top)
    axis.set_ylabel("problems solved, %", size=TEXT, color=INK)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(length=0, pad=8)
    for x, text, color in ((1.6, "before finetuning", INK), (4.9, "after finetuning on exercises", ACCENT)):
        canvas.text(x, 4.4, text, BIG, color, ha="left", weight="bold")
        swatch = LINE if color == INK else ACCENT
        canvas.line((x - 0.4, 4.4), (x - 0.15, 4.4), color=swatch, lw=16, solid_capstyle="butt")
    return canvas


def lora() -> Canvas:
    """The frozen matrix, and the thin product beside it that is trained."""
    from matplotlib.patches import Polygon, Rectangle

    canvas = Canvas()
    canvas.text(0.6, 2.15, "x", 30, weight="bold")
    canvas.line((0.9, 2.15), (1.6, 2.15))
    canvas.line((1.6, 3.2), (1.6, 0.95))
    canvas.arrow((1.6, 3.2), (3.2, 3.2))
    canvas.axis.add_patch(Rectangle((3.25, 2.35), 3.6, 1.7, facecolor="#eef1f4", edgecolor=FAINT, lw=2))
    canvas.text(5.05, 3.35, "W", 34, weight="bold")
    canvas.text(5.05, 2.75, "frozen: never changes", TEXT)
    canvas.arrow((1.6, 0.95), (2.6, 0.95), KEY)
    canvas.axis.add_patch(Polygon([(2.7, 1.8), (2.7, 0.1), (4.4, 0.65), (4.4, 1.25)], fc="#fbe6d8", ec=KEY, lw=2))
    canvas.text(3.4, 0.95, "A", 34, KEY, weight="bold")
    canvas.arrow((4.45, 0.95), (5.6, 0.95), KEY)
    canvas.text(5.03, 1.2, "rank r", TEXT, KEY)
    canvas.axis.add_patch(Polygon([(5.7, 1.25), (5.7, 0.65), (7.4, 0.1), (7.4, 1.8)], fc="#fbe6d8", ec=KEY, lw=2))
    canvas.text(6.7, 0.95, "B", 34, KEY, weight="bold")
    canvas.line((6.9, 3.2), (8.4, 3.2))
    canvas.arrow((8.4, 3.2), (8.4, 2.35))
    canvas.line((7.45, 0.95), (8.4, 0.95), color=KEY)
    canvas.arrow((8.4, 0.95), (8.4, 1.95), KEY)
    canvas.plus(8.4, 2.15)
    canvas.arrow((8.6, 2.15), (9.3, 2.15))
    canvas.text(10.35, 2.15, "W x + B A x", 24, weight="bold")
    canvas.text(10.1, 0.95, "only A and B learn;\nB starts at zero", TEXT, KEY)
    return canvas
