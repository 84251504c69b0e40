"""One palette and a few shapes, from which every diagram of the deck is drawn with matplotlib."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.plotting import ACCENT, FAINT, INK

PAPER, SOFT, LINE = "#ffffff", "#e8f1f5", "#cbd5dd"
QUERY, KEY, VALUE = ACCENT, "#c05621", "#2f7d4f"  # one colour each, wherever they appear
TINT = {ACCENT: "#dcecf3", KEY: "#fbe6d8", VALUE: "#dff0e5", FAINT: "#eef1f4", INK: "#e4e7eb", "#7b4ba0": "#ede4f4"}
WIDE = (11.5, 4.6)  # inches: a slide below its heading
DPI = 160
BIG, TEXT, SMALL = 22, 18, 16  # points


class Canvas:
    """A drawing in inches, the origin at the bottom left."""

    def __init__(self, size: tuple[float, float] = WIDE, face: str = PAPER):
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        self._plt = plt
        matplotlib.rcParams["font.family"] = _fonts()
        self.width, self.height = size
        self.figure = plt.figure(figsize=size, facecolor=face)
        self.axis = self.figure.add_axes((0, 0, 1, 1))
        self.axis.set(xlim=(0, size[0]), ylim=(0, size[1]))
        self.axis.axis("off")

    def inset(self, x: float, y: float, width: float, height: float) -> Any:
        """Axes at a place of the drawing, for a plot."""
        return self.figure.add_axes((x / self.width, y / self.height, width / self.width, height / self.height))

    def text(self, x: float, y: float, text: str, size: float = TEXT, color: str = INK, **options: Any) -> None:
        self.axis.text(x, y, text, **{"size": size, "color": color, "ha": "center", "va": "center"} | options)

    def box(
        self, x: float, y: float, width: float, height: float, text: str = "", color: str = ACCENT, size: float = TEXT,
        fill: bool = False,
    ) -> None:  # fmt: skip
        """A rounded box around its centre (x, y)."""
        from matplotlib.patches import FancyBboxPatch

        corner = (x - width / 2, y - height / 2)
        patch = FancyBboxPatch(
            corner, width, height, boxstyle="round,pad=0,rounding_size=0.09", linewidth=1.8, edgecolor=color,
            facecolor=color if fill else TINT.get(color, PAPER),
        )  # fmt: skip
        self.axis.add_patch(patch)
        ink = PAPER if fill else INK if color == FAINT else color
        self.text(x, y, text, size, ink, weight="bold", linespacing=1.15)

    def arrow(self, start: tuple[float, float], end: tuple[float, float], color: str = INK, **options: Any) -> None:
        style = {"arrowstyle": "-|>,head_width=0.28,head_length=0.5", "lw": 1.9, "color": color}
        style |= {"shrinkA": 0, "shrinkB": 0}
        self.axis.annotate("", end, start, arrowprops=style | options)

    def line(self, *points: tuple[float, float], color: str = INK, **options: Any) -> None:
        self.axis.plot(*zip(*points, strict=True), **{"color": color, "lw": 1.9, "solid_capstyle": "round"} | options)

    def plus(self, x: float, y: float, color: str = INK) -> None:
        self.axis.plot([x], [y], "o", ms=22, mfc=PAPER, mec=color, mew=1.9)
        self.line((x - 0.09, y), (x + 0.09, y), color=color)
        self.line((x, y - 0.09), (x, y + 0.09), color=color)

    def matrix(
        self, x: float, y: float, cell: float, values: np.ndarray, color: Callable[[float], Any],
        labels: Sequence[Sequence[str]] | None = None, size: float = SMALL,
    ) -> None:  # fmt: skip
        """Cells with their top left corner at (x, y); a value that is not a number is left blank."""
        from matplotlib.patches import Rectangle

        for row, column in np.ndindex(*values.shape):
            corner, value = (x + column * cell, y - (row + 1) * cell), values[row, column]
            face = PAPER if np.isnan(value) else color(float(value))
            self.axis.add_patch(Rectangle(corner, cell, cell, facecolor=face, edgecolor=LINE, linewidth=0.8))
            if labels is not None and labels[row][column]:
                dark = np.mean(face[:3]) < 0.55 if not isinstance(face, str) else False
                place = (corner[0] + cell / 2, corner[1] + cell / 2)
                self.text(*place, labels[row][column], size, PAPER if dark else INK)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.figure.savefig(path, dpi=DPI, metadata={"Software": None}, facecolor=self.figure.get_facecolor())
        self._plt.close(self.figure)


def shades(color: str = ACCENT, high: float = 1.0) -> Callable[[float], Any]:
    """White at 0, the colour at `high`."""
    from matplotlib.colors import LinearSegmentedColormap

    scale = LinearSegmentedColormap.from_list(color, [PAPER, color])
    return lambda value: scale(min(1.0, max(0.0, value / high)))


def diverging(low: str = KEY, high: str = ACCENT, reach: float = 1.0) -> Callable[[float], Any]:
    """One colour for what is below zero, another for what is above."""
    from matplotlib.colors import LinearSegmentedColormap

    scale = LinearSegmentedColormap.from_list("diverging", [low, PAPER, high])
    return lambda value: scale(min(1.0, max(0.0, 0.5 + 0.5 * value / reach)))


def _fonts() -> list[str]:
    """The deck's own typeface, which a package brings, with DejaVu for the signs that it lacks."""
    from font_source_sans_pro import SourceSansPro, SourceSansProBold
    from matplotlib import font_manager

    for file in (SourceSansPro, SourceSansProBold):
        font_manager.fontManager.addfont(file)
    return ["Source Sans Pro", "DejaVu Sans"]
