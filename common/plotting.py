"""Pictures of a run: how the loss fell, and where the heads look."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

INK, ACCENT, FAINT = "#1f2933", "#0b6e99", "#9aa5b1"


def plot_run(
    path: Path,
    title: str,
    curve: Sequence[dict[str, Any]],
    uniform_loss: float,
    maps: Sequence[tuple[str, np.ndarray]] = (),
    text: str = "",
) -> None:
    """Write one picture: the loss curve and, where there are heads, their attention over `text`.

    `curve` holds {"step", "train_loss", "val_loss"}; `maps` holds (name, weights (H, T, T)), as `attention_maps` gives.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    heads = [(f"{name} · head {h}" if len(wei) > 1 else name, wei[h]) for name, wei in maps for h in range(len(wei))]
    columns = min(4, len(heads)) or 1
    rows = -(-len(heads) // columns)
    figure = plt.figure(figsize=(max(8, 3.4 * columns), 4.2 + 3.5 * rows), layout="constrained", facecolor="white")
    top, *below = figure.subfigures(2, 1, height_ratios=[4.2, 3.5 * rows]) if rows else (figure,)
    _draw_curve(top.subplots(), title, curve, uniform_loss)
    if below:
        below[0].suptitle("Where each position (row) looks (column)", fontsize=11, color=INK)
        for axis, (name, wei) in zip(np.ravel(below[0].subplots(rows, columns)), heads, strict=False):
            _draw_map(axis, name, wei, text)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def plot_ladder(path: Path, rungs: Sequence[tuple[str, float]], uniform_loss: float) -> None:
    """Write the ladder: one bar a step with its validation loss. `rungs` holds (title, loss), first step first."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = [title for title, _ in rungs]
    losses = [loss for _, loss in rungs]
    figure, axis = plt.subplots(figsize=(9, 0.55 * len(rungs) + 1.5), layout="constrained", facecolor="white")
    axis.barh(titles, losses, color=[FAINT] * (len(rungs) - 1) + [ACCENT], height=0.62)
    for place, loss in enumerate(losses):
        axis.text(loss + 0.03, place, f"{loss:.3f}", va="center", color=INK, fontsize=11)
    axis.axvline(uniform_loss, color=FAINT, linestyle=":", linewidth=1.2)
    axis.text(
        uniform_loss - 0.04,
        len(rungs) - 0.7,
        "a uniform guess",
        color=FAINT,
        ha="right",
        va="center",
        fontsize=10,
    )
    axis.invert_yaxis()
    axis.set_xlabel("validation loss (nats per character; lower is better)", color=INK)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(left=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def _draw_curve(axis: Any, title: str, curve: Sequence[dict[str, Any]], uniform_loss: float) -> None:
    steps = [point["step"] for point in curve]
    axis.plot(steps, [point["train_loss"] for point in curve], color=FAINT, label="training", linewidth=1.4)
    axis.plot(steps, [point["val_loss"] for point in curve], color=ACCENT, label="validation", linewidth=2)
    axis.axhline(uniform_loss, color=INK, linestyle=":", linewidth=1, label="a uniform guess")
    axis.set(xlabel="step", ylabel="loss (nats per character)")
    axis.set_title(title, color=INK, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)


def _draw_map(axis: Any, name: str, wei: np.ndarray, text: str) -> None:
    axis.imshow(wei, cmap="Blues", vmin=0)
    axis.set_title(name, fontsize=9, color=INK)
    labels = [{" ": "␣", "\n": "¶"}.get(character, character) for character in text]
    axis.set_xticks(range(len(labels)), labels, fontsize=5, family="DejaVu Sans Mono")
    axis.set_yticks(range(len(labels)), labels, fontsize=5, family="DejaVu Sans Mono")
    axis.tick_params(length=0)
