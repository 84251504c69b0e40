"""`python -m steps.readme`: fill in the README's figures from the recorded runs, and draw its pictures.

The README is written by hand; what stands between `<!-- name -->` and `<!-- /name -->` is written here.
"""

import io
import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from common.records import ARTIFACTS
from common.terminal import count, duration
from steps.ladder import runs_of_the_ladder
from steps.story import read

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def filled(text: str, blocks: Mapping[str, Callable[..., str]] | None = None) -> str:
    """The text with every marked block as the records have it; a block may take one argument: `<!-- name it -->`."""
    known = BLOCKS if blocks is None else blocks

    def block(match: re.Match) -> str:
        mark, name, argument = match[1], match[2], match[3]
        return f"<!-- {mark} -->\n{known[name](*[argument] if argument else [])}\n<!-- /{name} -->"

    return re.sub(r"<!-- ((\w+) ?(\S*)) -->\n.*?<!-- /\2 -->", block, text, flags=re.DOTALL)


def ladder_block() -> str:
    runs = runs_of_the_ladder()
    rows = ["| step | idea | validation loss | bits | parameters | trained in |", "|---|---|--:|--:|--:|--:|"]
    for number, run in runs.items():
        story = read(number)
        link = f"[`{story.name}`](steps/{story.file.name})"
        figures = f"{run['val_loss']:.3f} | {run['bits_per_char']:.3f} | {count(run['parameters'])}"
        rows.append(f"| {link} | {story.title} | {figures} | {duration(run['train_seconds'])} |")
    last = runs[max(runs)]
    uniform = math.log(last["config"]["vocab_size"])
    return (
        "\n".join(rows)
        + f"\n\nValidation loss in nats per character over the whole last tenth of *{last['book']['title']}* "
        + f"({count(last['val_tokens'])} characters); a uniform guess has {uniform:.3f}. Preset `laptop`, "
        + f"seed {last['seed']}, float32, {last['machine']['cores']} cores of {last['machine']['cpu']}, "
        + f"torch {last['machine']['torch']}. Records: [`artifacts/`](artifacts)."
    )


def sample_block() -> str:
    text = runs_of_the_ladder()[7]["sample"]["text"].strip("\n")
    return f"```text\n{text}\n```"


def tests_block() -> str:
    tests, planted = (_tests("report"), _tests("planted"))
    rows = [
        ("tests passed", f"{tests['passed']:,}"),
        ("of these, properties (Hypothesis draws sizes, seeds, texts)", f"{tests['properties']:,}"),
        ("examples drawn for them", f"{tests['examples']:,}"),
        ("comparisons with an independent oracle", f"{tests['oracles']:,}"),
        ("gradient checks", f"{tests['gradient_checks']:,}"),
        ("seconds for the whole suite, two cores", f"{tests['seconds']:.0f}"),
    ]
    if planted:
        rows += [
            ("bugs planted, one at a time", f"{planted['bugs']:,}"),
            ("of these, caught by every test that is named with them", f"{planted['caught']:,}"),
            ("seconds for planting all of them, two cores", f"{planted['seconds']:.0f}"),
        ]
    return "\n".join(["| what | figure |", "|---|--:|", *(f"| {name} | {figure} |" for name, figure in rows)])


def _tests(name: str) -> dict:
    file = ARTIFACTS / "tests" / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def benchmark_block() -> str:
    from benchmarks.table import RESULTS, table

    return table(json.loads(RESULTS.read_text(encoding="utf-8")))


def study_block() -> str:
    from steps.study_story import limits, seeds

    file = ARTIFACTS / "10_finetuning" / "run.json"
    if not file.exists():
        return "The study of steps 09 and 10 is not recorded."
    run = json.loads(file.read_text(encoding="utf-8"))
    rows, claims = ["| claim | compared | points | p (Holm) | |", "|---|---|--:|--:|---|"], {}
    for claim in run["hypotheses"]:
        told = f"{100 * claim['difference']:+.1f} ({100 * claim['low']:+.1f} to {100 * claim['high']:+.1f})"
        claims[claim["name"]] = f"{told} points: {claim['verdict']}"
        sides = f"{claim['better']} against {claim['worse']}, {', '.join(claim['strata'])}"
        rows.append(f"| {claim['statement']} | {sides} | {told} | {claim['p_holm']:.2g} | {claim['verdict']} |")
    alone = run["against_exercises_alone"]["C+X"]
    nothing = f"{100 * alone['value']:+.1f} ({100 * alone['low']:+.1f} to {100 * alone['high']:+.1f})"
    quantity, form = claims["quality-beats-quantity"], claims["textbooks-after-finetuning"]
    return (
        f"Filtered code and textbooks against three times as much raw code, each followed by exercises: {quantity}. "
        f"Against the same textbooks with their code permuted, which keeps the form and takes the quality: {form}. "
        f"Against no reading at all (asked when all was run): {nothing} points.\n\n"
        "![Problems solved at the first try, by training data](artifacts/10_finetuning/ladder.png)\n\n"
        + (f"**What it does not show:** {limits(run)[0]}\n\n" if run["near_floor"] else "")
        + "\n".join(rows)
        + f"\n\nDifferences in pass@1 on held-out problems, with 95 % intervals; {len(run['seeds'])} seeds, "
        + f"{count(run['parameters'])} parameters, {duration(run['wall_seconds'])} on {run['machine']['cores']} cores. "
        + f"{seeds(run)}{real_model(run)} The [report](artifacts/10_finetuning/report.md) has every figure, and what "
        + "they do not show."
    )


def real_model(run: dict) -> str:
    """What LoRA made of a pretrained model, in a sentence; "" if it took no part."""
    if "real_model" not in run:
        return ""
    real = run["real_model"]
    before, after, change = real["before"], real["after"], real["compared"]["finetuned, humaneval"]
    solved = [f"{100 * arm['scores']['all']['rate']:.1f} %" for arm in (before, after)]
    human = [f"{arm['humaneval']['passed']:.0f}" for arm in (before, after)]
    interval = f"{100 * change['low']:+.1f} to {100 * change['high']:+.1f} points"
    return (
        f" {real['model']}, finetuned on the same exercises with LoRA, goes from {solved[0]} to {solved[1]} of "
        f"{after['scores']['all']['problems']} of these problems, and on HumanEval from {human[0]} to {human[1]} of "
        f"{after['humaneval']['problems']} ({interval})."
    )


def map_block() -> str:
    from slides.map import table

    return table()


BLOCKS: dict[str, Callable[[], str]] = {
    "ladder": ladder_block,
    "sample": sample_block,
    "tests": tests_block,
    "benchmark": benchmark_block,
    "study": study_block,
    "map": map_block,
}


def draw_screen(path: Path, number: int, arguments: list[str]) -> None:
    """The terminal as a learner sees it, as a picture."""
    from common.terminal import make_console
    from steps.walkthrough import command, main

    console = make_console(record=True, width=100, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    with suppress(SystemExit):
        main(number, arguments, console)
    title = command(number, arguments)
    console.save_svg(str(path), title=title, unique_id=f"step{number:02d}")


def main() -> None:
    draw_screen(ARTIFACTS / "screen.svg", 7, ["--no-train"])
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
