"""The diagrams of parts: one head, several heads, the block, the GPT, the arms of the case study, LoRA."""

from slides.drawing import ACCENT, BIG, FAINT, INK, KEY, QUERY, SMALL, TEXT, VALUE, Canvas


def head() -> Canvas:
    """x becomes query, key and value; the first two make the weights, which average the third."""
    canvas, y = Canvas(), (3.55, 2.35, 0.85)
    canvas.box(0.9, 2.15, 1.0, 3.3, "x", INK, 30)
    for place, name, color in zip(y, ("query", "key", "value"), (QUERY, KEY, VALUE), strict=True):
        canvas.arrow((1.45, place), (2.1, place), color)
        canvas.box(3.0, place, 1.75, 0.8, name, color, BIG)
    canvas.text(3.0, 4.13, "what am I looking for?", SMALL, QUERY)
    canvas.text(3.0, 2.93 - 1.12, "what do I hold?", SMALL, KEY)
    canvas.text(3.0, 0.28, "what do I tell?", SMALL, VALUE)
    canvas.line((3.92, y[0]), (4.5, y[0]), (4.5, 2.95), color=QUERY)
    canvas.line((3.92, y[1]), (4.5, y[1]), (4.5, 2.95), color=KEY)
    canvas.arrow((4.5, 2.95), (5.0, 2.95))
    canvas.box(5.85, 2.95, 1.6, 1.0, "q · k / √D", INK, BIG)
    canvas.arrow((6.7, 2.95), (7.2, 2.95))
    canvas.box(8.2, 2.95, 1.9, 1.0, "mask,\nsoftmax", INK, BIG)
    canvas.text(5.85, 3.75, "scores", TEXT)
    canvas.text(8.2, 3.75, "weights", TEXT)
    canvas.line((3.92, y[2]), (9.75, y[2]), color=VALUE)
    canvas.line((9.2, 2.95), (9.75, 2.95))
    canvas.arrow((9.75, 2.95), (9.75, 2.2))
    canvas.arrow((9.75, y[2]), (9.75, 1.6), VALUE)
    canvas.plus(9.75, 1.9)
    canvas.text(9.4, 1.55, "average", SMALL, ha="right")
    canvas.arrow((9.95, 1.9), (10.45, 1.9))
    canvas.text(10.85, 1.9, "out", BIG, weight="bold")
    return canvas


def multihead() -> Canvas:
    """Heads side by side, each on its part of the width, concatenated and projected."""
    canvas, rows = Canvas(), (3.72, 2.68, 1.64, 0.6)
    canvas.box(0.9, 2.16, 1.0, 3.9, "x", INK, 30)
    colors = (ACCENT, KEY, VALUE, "#7b4ba0")
    for row, (y, color) in enumerate(zip(rows, colors, strict=True)):
        canvas.arrow((1.45, y), (2.4, y), color)
        canvas.box(3.6, y, 2.3, 0.78, f"head {row}", color, BIG)
        canvas.arrow((4.8, y), (5.75, y), color)
        canvas.box(6.2, y, 0.8, 1.0, "", color, fill=True)
    canvas.text(5.28, 4.1, "D", TEXT)
    canvas.text(1.93, 4.1, "C", TEXT)
    canvas.arrow((6.7, 2.16), (7.7, 2.16))
    canvas.text(7.2, 2.42, "C", TEXT)
    canvas.box(8.75, 2.16, 2.0, 1.3, "projection", INK, BIG)
    canvas.arrow((9.8, 2.16), (10.5, 2.16))
    canvas.text(10.85, 2.16, "out", BIG, weight="bold")
    canvas.text(6.2, -0.02 + 4.25, "concatenate", SMALL)
    return canvas


def block() -> Canvas:
    """The residual stream, and the two parts that read it and add to it."""
    canvas, stream, branch = Canvas(), 0.75, 2.75
    canvas.text(0.45, stream, "x", 30, weight="bold")
    canvas.line((0.75, stream), (10.9, stream), color=ACCENT, lw=7)
    canvas.arrow((10.7, stream), (11.25, stream), ACCENT, lw=7)
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


def gpt() -> Canvas:
    """The whole model from characters to the next one's probabilities, on the book's first words."""
    from slides.pictures import bars, ids, trained, visible
    from slides.sources import run
    import torch

    model, tokenizer = trained(7)
    text = "Call me Ishma"
    with torch.no_grad():
        after = torch.softmax(model(ids(tokenizer, text))[0][0, -1], dim=-1).numpy()
    best = after.argsort()[::-1][:4]
    canvas, y = Canvas(), 2.35
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
    bars(canvas, (9.95, 1.2, 1.5, 2.3), [visible(tokenizer.decode([i])) for i in best], after[best])
    canvas.text(10.6, 3.85, "next?", BIG, weight="bold")
    return canvas


def arms() -> Canvas:
    """What each arm of step 09 is trained on: equal tokens, save one that has three times as many."""
    canvas = Canvas()
    raw, kept, book, spoilt = FAINT, ACCENT, VALUE, KEY
    rows = (
        ("A", ((raw, 1),), "raw code"),
        ("A3", ((raw, 3),), "raw code, three times the tokens"),
        ("B", ((kept, 1),), "filtered for educational value"),
        ("Br", ((raw, 0.5), (raw, 0.5)), "a random part of the raw, as small as B"),
        ("C", ((kept, 0.5), (book, 0.5)), "filtered + textbooks"),
        ("C−", ((kept, 0.5), (spoilt, 0.5)), "the same, answers swapped among questions"),
    )
    for row, (name, parts, what) in enumerate(rows):
        y, x = 3.9 - row * 0.71, 1.2
        canvas.text(0.6, y, name, BIG, weight="bold")
        for color, length in parts:
            canvas.line((x, y), (x + 1.6 * length - 0.04, y), color=color, lw=26, solid_capstyle="butt")
            x += 1.6 * length
        canvas.text(6.2, y, what, BIG, ha="left")
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
