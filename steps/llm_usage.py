"""`python -m steps.llm_usage`: fill in the figures of textbooks/LLM_USAGE.md from the records.

The page is written by hand; what stands between `<!-- name -->` and `<!-- /name -->` is written here.
"""

import json
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

from common.records import ARTIFACTS
from steps.bugs import find
from steps.readme import filled

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "textbooks" / "LLM_USAGE.md"
SYNTHESIS = ARTIFACTS / "08_textbook_synthesis"
SYMPTOMS = ARTIFACTS / "symptoms" / "run.json"
KINDS = {"exercise": "exercises", "section": "pages"}


def syntheses() -> dict[str, dict[str, Any]]:
    """The recorded runs of step 08, by their folder below the root."""
    files = sorted(SYNTHESIS.rglob("run.json"))
    return {file.parent.relative_to(ROOT).as_posix(): json.loads(file.read_text(encoding="utf-8")) for file in files}


def recorded_block() -> str:
    from textbooks.educational_value import FIRST, SECOND, read_labels
    from textbooks.unconventional import AUTHOR, problems

    rows = ["| data | made by | kept, of those asked for | tokens read, written | cost |", "|---|---|---|--:|--:|"]
    for folder, run in syntheses().items():
        funnel = {KINDS[kind]: stages for kind, stages in run["funnel"].items()}
        kept = ", ".join(f"{f['clean']:,} of {f['prompted']:,} {kind}" for kind, f in funnel.items())
        tokens = f"{run['tokens']['prompt']:,}, {run['tokens']['completion']:,}"
        cost = f"${run['usage']['usd']:.2f}" if "usd" in run["usage"] else "none: it ran here"
        rows.append(f"| [step 08](../{folder}/card.md) | `{run['teacher']}` | {kept} | {tokens} | {cost} |")
    for file in (FIRST, SECOND):
        for source, count in Counter(label.source for label in read_labels(file).values()).items():
            rows.append(f"| [labels](labels/{file.name}) | {source} | {count} labels | not recorded | not recorded |")
    rows.append(
        f"| [unconventional problems](unconventional.toml) | {AUTHOR} | {len(problems())} problems "
        "| not recorded | not recorded |"
    )
    runs = syntheses().values()
    refused = [run["teacher"] for run in runs if not sum(stages["clean"] for stages in run["funnel"].values())]
    said = [f"Nothing of what `{teacher}` wrote was kept: every answer was refused." for teacher in refused]
    return "\n".join(rows) + "\n\n" + " ".join([_paid([run["teacher"] for run in runs]), *said])


def _paid(teachers: list[str]) -> str:
    asked = sorted({teacher.removeprefix("openai:") for teacher in teachers if teacher.startswith("openai:")})
    if asked:
        return f"Models asked through an endpoint: {', '.join(asked)}."
    return "**No call to GPT-4, to ChatGPT or to any other paid endpoint stands behind any recorded run.**"


def settings_block() -> str:
    from textbooks.teachers.openai import Endpoint

    chosen = {"max_tokens", "temperature", "timeout", "attempts", "backoff", "concurrency"}
    rows = [f"| `{f.name}` | {f.default:g} |" for f in fields(Endpoint) if f.name in chosen]
    return "\n".join(["| setting | default |", "|---|--:|", *rows])


def agreement_block() -> str:
    from textbooks.educational_value import FIRST, SECOND, agreement, read_labels

    found = agreement(read_labels(FIRST), read_labels(SECOND))
    return (
        f"Cohen's kappa of the two labellings, on the {found.n} chunks that both judged: {found.keep:.2f} on what to "
        f"keep, {found.score:.2f} on the five scores (weighted by squares)."
    )


def seen() -> dict[str, Any]:
    return json.loads(SYMPTOMS.read_text(encoding="utf-8"))


def conditions_block() -> str:
    run = seen()
    sizes = ", ".join(f"{name} {size}" for name, size in run["sizes"].items())
    machine = run["machine"]
    return (
        f"{run['steps']} steps on the first {run['characters']:,} characters of `{run['book']}`, {sizes} (as far as a "
        f"step has them), one seed, {machine['cores']} cores of {machine['cpu']}, torch {machine['torch']}: "
        f"`{run['command']}`."
    )


def symptom_block(bug: str) -> str:
    run = seen()
    mistake = run["mistakes"][bug]
    rows = ["| | training loss | validation loss | it writes |", "|---|--:|--:|---|"]
    for who, found in (("healthy", run["healthy"][str(mistake["step"])]), ("this one", mistake)):
        text = found["texts"]["drawn"].replace("\n", " ⏎ ")
        rows.append(f"| {who} | {found['train_loss']:.3f} | {found['val_loss']:.3f} | `{text}` |")
    return "\n".join(rows)


def check_block(bug: str) -> str:
    mistake, planted = seen()["mistakes"][bug], find(bug)
    module, name = planted.module, bug.partition(".")[2]
    changed = [line for line in planted.diff() if line[0] in "+-"]
    return "\n".join(
        [
            f"`python -m {module} --bug {name} --check`",
            "",
            *(f"- ✗ {check['name']}: {check['measured']}" for check in mistake["failed_checks"]),
            "",
            f"It was this: {planted.mistake}.",
            "",
            "```diff",
            *changed,
            "```",
            "",
            f"Guarded by `{planted.caught_by[0]}`.",
        ]
    )


BLOCKS = {
    "recorded": recorded_block,
    "settings": settings_block,
    "agreement": agreement_block,
    "conditions": conditions_block,
    "symptom": symptom_block,
    "check": check_block,
}


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), BLOCKS), encoding="utf-8")
