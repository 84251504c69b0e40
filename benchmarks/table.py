"""The recorded figures as a Markdown table. Needs no torch, so it renders at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Row:
    """One comparison: `ours` and `theirs` name figures of a round; the ratio is ours / theirs."""

    part: str
    what: str
    unit: str
    ours: str
    theirs: str
    target: str  # for the ratio
    beside: str = "nanoGPT"


ROWS = (
    Row("time-to-loss", "training until the validation loss is 1.873 nats", "s", "ours", "nanogpt", "≤ 0.40"),
    Row("step", "training step, AdamW", "ms", "ours", "nanogpt", "≤ 1"),
    Row("step", "training step, Muon here, AdamW there", "ms", "ours_muon", "nanogpt", "–"),
    Row("generate", "generating 200 characters", "per s", "ours_1x200", "nanogpt_1x200", "≥ 5"),
    Row("generate", "", "per s", "ours_1x200", "hugging_face_1x200", "> 1", "Hugging Face"),
    Row("generate", "… in eight streams", "per s", "ours_8x200", "nanogpt_8x200", "–"),
    Row("generate", "", "per s", "ours_8x200", "hugging_face_8x200", "–", "Hugging Face"),
    Row("generate", "generating 500 characters, past the window", "per s", "ours_1x500", "nanogpt_1x500", "–"),
)


def table(results: dict[str, Any]) -> str:
    """Every comparison that was recorded, then the conditions under which it was."""
    lines = ["| | step 07 | beside it | ratio | target |", "|---|--:|--:|--:|--:|"]
    for row in ROWS:
        if row.part in results:
            rounds = list(results[row.part]["rounds"].values())
            ours, theirs = (_figure(median(r[key] for r in rounds), row.unit) for key in (row.ours, row.theirs))
            ratio = _range([r[row.ours] / r[row.theirs] for r in rounds])
            lines.append(f"| {row.what} | {ours} | {row.beside}: {theirs} | {ratio} | {row.target} |")
    if "memory" in results:
        rounds = list(results["memory"]["rounds"].values())
        big, novel = (median(r[key] for r in rounds) for key in ("big_mb", "novel_mb"))
        seconds = median(r["read_seconds"] for r in rounds)
        what = f"peak memory while training from a text of 1 GB (read in {seconds:.0f} s)"
        lines.append(f"| {what} | {big:,.0f} MB | the novel: {novel:,.0f} MB | {big - novel:+,.0f} MB | < +1,000 MB |")
    return "\n".join([*lines, "", " ".join(_conditions(results))])


def _conditions(results: dict[str, Any]) -> Iterator[str]:
    yield (
        "Medians over rounds in which all ran one after the other; a ratio is taken within a round, in brackets its "
        "least and greatest. Training: *Moby Dick*, 4 layers × 128, block 64, float32; to reach the loss, `laptop` "
        "with `--steps 450` against the CPU setting of nanoGPT's README, time for evaluation not counted; for a "
        "single step, both with "
        "batch 12. Generating: 6 layers × 384, block 256, the same weights in all, from a prompt of one character; "
        "Hugging Face's GPT-2 cannot write past its window."
    )
    if "time-to-loss" in results:
        rounds = results["time-to-loss"]["rounds"].values()
        if missed := [r["nanogpt_loss"] for r in rounds if not r["nanogpt_reached"]]:
            yield (
                f"In {len(missed)} of {len(rounds)} rounds nanoGPT's 2,000 iterations ended above 1.873 "
                f"(at {max(missed):.3f} or less): there the time of its whole run was taken."
            )
    for about, parts in _by_conditions(results).items():
        yield f"{', '.join(parts).capitalize()}: {about}."


def _by_conditions(results: dict[str, Any]) -> dict[str, list[str]]:
    """Conditions in words → what was measured under them, with the number of rounds."""
    parts: dict[str, list[str]] = {}
    for part, found in results.items():
        on = found["conditions"]
        about = (
            f"{on['cores']} cores of {on['cpu']}, {on['threads']} threads for all, {on['system']}, "
            f"Python {on['python']}, torch {on['torch']}, transformers {on['transformers']}, "
            f"nanoGPT {on['nanogpt'][:7]}, {found['date']}"
        )
        parts.setdefault(about, []).append(f"{part.replace('-', ' ')} × {len(found['rounds'])}")
    return parts


def _figure(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def _range(ratios: list[float]) -> str:
    least, middle, most = (f"{ratio:.2f}" for ratio in (min(ratios), median(ratios), max(ratios)))
    return f"**{middle}** ({least}–{most})"
