"""`python -m slides.equations`: the article's equations and tables as pictures, since Medium takes neither.

Equations are set by matplotlib's own mathtext; tables are filled from the recorded runs. The fonts come with
matplotlib, so the same version draws the same pixels everywhere.
"""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from common.plotting import ACCENT, FAINT, INK
from common.terminal import count, duration
from slides.sources import ROOT, Missing, SourceError, run, story

PICTURES = ROOT / "article" / "pictures"
WIDTH, DPI = 7.0, 200  # inches, dots: twice the width of a Medium column
Cells = tuple[Sequence[str], Sequence[Sequence[str]]]  # header, rows

EQUATIONS = {
    "cross-entropy": [
        r"$\mathrm{loss} \;=\; -\,\dfrac{1}{N}\,\sum_{t=1}^{N}\; \ln\, p\,(x_{t+1}\;|\;x_{\leq t})"
        r"\qquad\quad p\,(c) \;=\; \dfrac{e^{\,\mathrm{logit}_c}}{\sum_{v}\, e^{\,\mathrm{logit}_v}}$"
    ],
    "attention": [
        r"$\mathrm{weights} \;=\; \mathrm{softmax}\left(\dfrac{Q\,K^{\top}}{\sqrt{D}} + \mathrm{mask}\right)$",
        r"$\mathrm{mask}_{ts} \;=\; 0\;\;\mathrm{if}\;\;s \leq t,\quad -\infty\;\;\mathrm{otherwise}$",
    ],
    "variance": [
        r"$q \cdot k \;=\; \sum_{i=1}^{D}\, q_i\,k_i\qquad\Longrightarrow\qquad \mathrm{Var}\,(q \cdot k) \;=\; D"
        r"\qquad\Longrightarrow\qquad \mathrm{Var}\left(\dfrac{q \cdot k}{\sqrt{D}}\right) \;=\; 1$"
    ],
    "lora": [
        r"$y \;=\; W x \;+\; \dfrac{\alpha}{r}\; B A\, x\qquad\quad W:\;\mathrm{frozen},\quad"
        r" A:\;r \times n,\quad B:\;m \times r,\quad B = 0\;\;\mathrm{at\;first}$"
    ],
}


def draw_equation(file: Path, lines: Sequence[str]) -> None:
    """Each line is one formula in mathtext, centred."""
    heights = [0.85 if "frac" in line else 0.5 for line in lines]
    figure, below = _figure(sum(heights)), sum(heights)
    for line, height in zip(lines, heights, strict=True):
        below -= height
        figure.text(0.5, (below + height / 2) / sum(heights), line, size=15, color=INK, ha="center", va="center")
    _save(figure, file)


def draw_table(file: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A light table as wide as the column: the first column and words to the left, figures to the right.

    Long cells are wrapped at spaces; a column is as wide as its share of the text.
    """
    size, line, gap = 9.0, 0.178, 0.16
    right = [all(_is_figure(row[place]) for row in rows) for place in range(len(header))]
    natural = [max(_inches(cell, size, True) for cell in column) for column in zip(header, *rows, strict=True)]
    space = WIDTH - 0.1 - gap * (len(header) - 1)
    words = sum(width for width in natural if width > space / 4)  # columns of words share what figures leave
    free = space - sum(natural)
    if words:
        widths = [width * (1 + free / words) if width > space / 4 else width for width in natural]
    else:
        widths = [width + free / len(natural) for width in natural]
    wrapped = [[_wrap(cell, widths[i], size) for i, cell in enumerate(row)] for row in (header, *rows)]
    heights = [line * max(len(cell) for cell in row) + 0.13 for row in wrapped]
    figure, top = _figure(sum(heights) + 0.12), 0.06
    total = figure.get_figheight()
    for number, (row, height) in enumerate(zip(wrapped, heights, strict=True)):
        left = 0.05
        for place, cell in enumerate(row):
            x = left + (widths[place] if right[place] else 0)
            style = {"weight": "bold", "color": ACCENT} if number == 0 else {"color": INK}
            align = "right" if right[place] else "left"
            for i, text in enumerate(cell):
                y = 1 - (top + 0.065 + line * (i + 0.5)) / total
                figure.text(x / WIDTH, y, text, size=size, ha=align, va="center", parse_math=False, **style)
            left += widths[place] + gap
        top += height
        colour, thick = (ACCENT, 1.2) if number == 0 else (FAINT, 0.4)
        figure.add_artist(_rule(1 - top / total, colour, thick))
    _save(figure, file)


def _is_figure(text: str) -> bool:
    numbered = len(text) == 2 and text.isdecimal() and text[0] == "0"  # a step's number is a name
    return not text or (text[0] in "0123456789+−–" and not numbered)


@functools.cache
def _inches(text: str, size: float, bold: bool) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    text = text.replace("$", "S")  # a dollar would begin a formula
    return TextPath((0, 0), text, size=size, prop=font).get_extents().width / 72 + 0.02 if text.strip() else 0.0


def _wrap(text: str, inches: float, size: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _inches(longer, size, False) <= inches or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _figure(height: float) -> Any:
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams |= {"font.family": "DejaVu Sans", "mathtext.fontset": "stix"}
    return Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")


def _rule(y: float, colour: str, thick: float) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([0.05 / WIDTH, 1 - 0.05 / WIDTH], [y, y], color=colour, linewidth=thick)


def _save(figure: Any, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Software": None})


# Tables


def ladder() -> Cells:
    rows = []
    for number in range(1, 8):
        told = story(number)
        it = run(told.name)
        figures = f"{it.val_loss:.3f}", f"{2**it.bits_per_char:.1f}", count(it.parameters), duration(it.train_seconds)
        rows.append((f"{number:02d}", told.title, *figures))
    vocabulary = it.config.vocab_size
    rows.append(("", "A uniform guess", f"{math.log(vocabulary):.3f}", f"{vocabulary:.1f}", "", ""))
    return ("step", "idea", "loss", "choices", "parameters", "trained in"), rows


def symptoms() -> Cells:
    seen = run("symptoms")
    rows = []
    for it in seen.mistakes.values():
        healthy = seen.healthy[str(it.step)]
        found = "; ".join(check.name for check in it.failed_checks) or "none: the parameter count tells"
        rows.append((f"{it.step:02d}", it.mistake, f"{healthy.val_loss:.3f}", f"{it.val_loss:.3f}", found))
    return ("step", "the mistake", "healthy", "with it", "checks that turn red"), rows


def funnel() -> Cells:
    means = {
        "prompted": "two topics and an audience, drawn",
        "answered": "the teacher said something",
        "parsed": "it is a function with literal tests, or a page with checkable outputs",
        "verified": "the solution passes, and programs that are not the solution fail",
        "unique": "no near-duplicate of an earlier one",
        "clean": "no benchmark problem in disguise",
    }
    made, local = run("08_textbook_synthesis").funnel, run("08_textbook_synthesis/local").funnel
    columns = (made.exercise, made.section, local.exercise)
    rows = [(name, *(f"{column[name]:,}" for column in columns), means[name]) for name in means]
    return ("stage", "exercises", "pages", "small model", "what it takes"), rows


def arms() -> Cells:
    rows = []
    for name, it in run("09_pretraining").arms.items():
        figures = count(it.characters), count(it.tokens_seen), f"{it.epochs:.1f}"
        rows.append((_minus(name), it.title, *figures))
    return ("arm", "reads", "characters", "tokens read", "times over"), rows


STRATA = {  # as the article calls them
    "same": "same kind",
    "pairs": "new pairs",
    "longer": "longer",
    "wording": "new wording",
    "textbook": "textbook only",
    "unconventional": "by hand",
}


def exam() -> Cells:
    results = run("10_finetuning")
    scored = {_minus(name): it.scores for name, it in results.pretrained.items()}
    scored |= {_minus(name): it.scores for name, it in results.arms.items()}
    scored["copying"] = results.baseline_copying.scores
    real = results.real_model if "real_model" in results else {}
    scored |= {f"SmolLM2, {name}": real[name].scores for name in ("before", "after", "permuted") if name in real}
    rows = []
    for name, scores in scored.items():
        rows.append((name, *(f"{100 * scores[key].rate:.0f}" if key in scores else "–" for key in STRATA)))
    return ("arm", *STRATA.values()), rows


def hypotheses() -> Cells:
    rows = []
    for it in run("10_finetuning").hypotheses:
        points = f"{100 * it.difference:+.1f} ({100 * it.low:+.1f} to {100 * it.high:+.1f})".replace("-", "−")
        rows.append((it.statement, f"{_minus(it.better)} against {_minus(it.worse)}", points, it.verdict))
    return ("the claim", "compared", "difference in points", ""), rows


def _minus(name: str) -> str:
    return name.replace("-", "−")


TABLES: dict[str, Callable[[], Cells]] = {
    "table-ladder": ladder,
    "table-symptoms": symptoms,
    "table-funnel": funnel,
    "table-arms": arms,
    "table-exam": exam,
    "table-hypotheses": hypotheses,
}


def draw(folder: Path, skip_missing: bool = False) -> list[str]:
    """Draw everything into a folder. Returns what was left out and why; raises Missing unless `skip_missing`."""
    for name, lines in EQUATIONS.items():
        draw_equation(folder / f"equation-{name}.png", lines)
    left_out = []
    for name, table in TABLES.items():
        try:
            draw_table(folder / f"{name}.png", *table())
        except Missing as error:
            if not skip_missing:
                raise
            left_out.append(f"{name} is left out: {error}")
    return left_out


def main(
    skip_missing: Annotated[bool, typer.Option("--skip-missing", help="leave out what no run tells yet")] = False,
) -> None:
    """Draw the article's equations and tables into article/pictures/."""
    try:
        for reason in draw(PICTURES, skip_missing):
            typer.secho(reason, fg="yellow", err=True)
    except SourceError as error:
        typer.secho(f"slides.equations: {error}", fg="red", err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    typer.run(main)
