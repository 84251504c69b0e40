"""What is kept of a run for its reader: figures, a sample, pictures, and a data set card."""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from common.records import ARTIFACTS, write_json
from textbooks.pipeline import STAGES, Result, reasons
from textbooks.records import Exercise, Record, read_jsonl, to_row, training_text, write_jsonl
from textbooks.topics import Draw, coverage, leaves

KEPT = ("run.json", "card.md", "sample.jsonl", "removed_sample.jsonl", "coverage.png", "lengths.png")
SAMPLE = {"exercise": 120, "section": 12}
WHAT_IT_IS_NOT = """\
- The grammar writes what it was built to write: compositions of the primitives in `primitives.toml`. It is narrow by
  design, so that what a model learns from it can be measured; it is not a course of Python.
- A drawn topic is honoured down to its subtopic ("Lists, filtering a list"); the leaf's own skill steers a
  language model's answer, not the grammar's.
- "Verified" means: the solution passes the tests, and programs that are not the solution fail them. It does not
  mean that the docstring describes the solution; for the grammar both are made from one composition, for other
  teachers nobody has checked.
- "Clean" means clean of HumanEval, by the four rules of `decontaminate.py`; no other benchmark was looked at."""


def figures(result: Result) -> dict[str, Any]:
    """Every number the walkthrough and the card print about the data set itself."""
    exercises, sections = result.exercises, result.sections
    draws = [Draw(r.topic, r.other_topic, r.audience) for r in [*exercises, *sections]]
    return {
        "funnel": result.funnel,
        "removed_because": {
            kind: [[stage, reason, n] for (stage, reason), n in reasons(result.removed, kind).most_common(12)]
            for kind in result.funnel
        },
        "unanswered": result.unanswered,
        "stopped": result.stopped,
        "tokens": result.tokens,
        "coverage": coverage(draws),
        "by_topic": _by_topic([*exercises, *sections]),
        "exercise_characters": sum(len(training_text(e)) for e in exercises),
        "section_characters": sum(len(s.text) for s in sections),
        "lengths": {"exercise": _lengths(exercises), "section": _lengths(sections)},
        "tests_an_exercise": round(sum(len(e.tests) for e in exercises) / max(1, len(exercises)), 2),
        "spec": _spec(exercises),
        "hashes": result.hashes,
    }


def example(result: Result, folder: Path, allow_weaker: bool) -> dict[str, Any]:
    """One accepted exercise on its way: its prompt, the raw answer, and who passes its tests; {} if there is none."""
    from textbooks.stand_ins import mutants, trivial_stand_ins
    from textbooks.verify import Job, parse_test, verify_many

    if not result.exercises:
        return {}
    exercise = next((e for e in result.exercises if 300 < len(e.solution) < 700), result.exercises[0])
    prompt = next(row for row in read_jsonl(folder / "prompts.jsonl") if row["text"] == exercise.teacher_prompt)
    raw = next(row for row in read_jsonl(folder / "answers.jsonl") if row["key"] == prompt["key"])
    tests = [parse_test(test, exercise.entry_point) for test in exercise.tests]
    others = [*trivial_stand_ins(exercise.entry_point, tests)[:5], *mutants(exercise.solution)]
    programs = [("the solution", exercise.solution), *((other.name, other.program) for other in others)]
    jobs = [Job(name, program, exercise.entry_point, exercise.tests) for name, program in programs]
    outcomes = verify_many(jobs, allow_weaker=allow_weaker)
    steps = [[name, str(o.verdict), f"{o.failed_test}: {o.reason}" if o.failed_test else o.reason]
             for name, o in outcomes]  # fmt: skip
    return {"prompt": exercise.teacher_prompt, "answer": raw["text"], "verification": steps}


def _by_topic(records: Sequence[Record]) -> dict[str, int]:
    counts = Counter(record.topic.split("/")[0] for record in records)
    return {topic: counts[topic] for topic in dict.fromkeys(leaf.split("/")[0] for leaf in leaves())}


def _lengths(records: Sequence[Record]) -> dict[str, float]:
    sizes = sorted(len(training_text(record)) for record in records)
    return {"median": median(sizes), "shortest": sizes[0], "longest": sizes[-1]} if sizes else {}


def _spec(exercises: Sequence[Exercise]) -> dict[str, dict[str, int]]:
    """How the grammar's exercises spread over depth, code style and docstring frame; {} for other teachers."""
    known = [exercise.spec for exercise in exercises if exercise.spec]
    spread = {name: Counter(str(spec[name]) for spec in known) for name in ("depth", "style", "frame")}
    return {name: dict(sorted(counts.items())) for name, counts in spread.items() if counts}


def write(run: Mapping[str, Any], result: Result, folder: Path) -> None:
    """run.json, card.md, the samples and the pictures, beside the data."""
    _write_samples(result, folder)
    plot(run, result.exercises, result.sections, folder)
    write_json(folder / "run.json", run)
    (folder / "card.md").write_text(card(run), encoding="utf-8")


def keep(run: Mapping[str, Any], folder: Path) -> Path:
    """Copy what `write` wrote to artifacts/: the grammar's run to the step's folder, another's to one inside it."""
    target = ARTIFACTS / run["step_name"]
    target = target if run["teacher"] == "grammar" else target / run["teacher"].split(":")[0]
    target.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copyfile(folder / name, target / name)
    return target


def _write_samples(result: Result, folder: Path) -> None:
    """An even sample of what was kept, and one of what was removed, small enough to be committed."""
    kept = [*_spread(result.exercises, SAMPLE["exercise"]), *_spread(result.sections, SAMPLE["section"])]
    write_jsonl(folder / "sample.jsonl", map(to_row, kept))
    shown = [r for stage in STAGES for r in _spread([e for e in result.removed if e.stage == stage], 8)]
    rows = ({"stage": r.stage, "reason": r.reason, **_what(r)} for r in shown)
    write_jsonl(folder / "removed_sample.jsonl", rows)


def _what(removed) -> dict:
    return {"record": to_row(removed.record)} if removed.record else {"answer": removed.answer[:2000]}


def _spread(items: Sequence, count: int) -> list:
    step = max(1, len(items) // count)
    return list(items[::step][:count])


def plot(run: Mapping[str, Any], exercises: Sequence[Record], sections: Sequence[Record], folder: Path) -> None:
    """coverage.png (records by topic) and lengths.png (characters a record)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from common.plotting import ACCENT, FAINT, INK

    topics = {name: n for name, n in run["by_topic"].items() if n}
    figure, axis = plt.subplots(figsize=(8, 0.3 * len(topics) + 1.4), layout="constrained", facecolor="white")
    axis.barh(list(topics), list(topics.values()), color=ACCENT)
    axis.invert_yaxis()
    used, all_ = run["coverage"]["leaves_used"], run["coverage"]["leaves"]
    axis.set_title(f"Records by topic: {used} of {all_} leaves reached", loc="left", color=INK)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "coverage.png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", facecolor="white")
    shown = ((exercises, "an exercise", ACCENT), (sections, "a page", FAINT))
    for axis, (records, name, color) in zip(axes, shown, strict=True):
        axis.hist([len(training_text(record)) for record in records], bins=40, color=color)
        axis.set_title(f"Characters in {name}", loc="left", color=INK)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "lengths.png", dpi=110, metadata={"Software": None})
    plt.close(figure)


def card(run: Mapping[str, Any]) -> str:
    """The data set card, as markdown; every number in it is read from the run."""
    funnel, machine = run["funnel"], run["machine"]
    rows = [f"| {stage} | {funnel['exercise'][stage]:,} | {funnel['section'][stage]:,} |" for stage in STAGES]
    hashes = [f"| `{name}` | `{sha}` |" for name, sha in run["hashes"].items()]
    removed = [
        f"| {kind} | {stage} | {reason} | {n:,} |"
        for kind, entries in run["removed_because"].items() for stage, reason, n in entries[:8]
    ]  # fmt: skip
    covered = run["coverage"]
    reached = f"{covered['leaves_used']:,} of {covered['leaves']:,} leaves"
    wall = f"{run['wall_seconds']:,.0f} s on {machine['cores']} cores of {machine['cpu']}"
    return "\n".join([
        f"# Data set card: {funnel['exercise']['clean']:,} exercises and {funnel['section']['clean']:,} textbook pages",
        "",
        f"Made by the teacher `{run['teacher']}` with seed {run['seed']}, in {wall}; programs ran at isolation level "
        f"`{run['isolation']['level']}`. No person wrote or reviewed a record.",
        "",
        "```", run["command"], "```",
        "",
        "## What is in it",
        "",
        f"- `exercises.jsonl`: signature, docstring, solution, {run['tests_an_exercise']} literal tests on average; "
        f"{run['exercise_characters']:,} characters of training text.",
        f"- `sections.jsonl`: pages of textbook; {run['section_characters']:,} characters.",
        "- `removed.jsonl`: every prompt that led to no record, with the stage and the reason.",
        f"- Topics: {reached}, {covered['topic_pairs']:,} pairs of them; {covered['audiences_used']} audiences.",
        "- Every record names its teacher, prompt, seed, topics and audience; its key is a hash of its text.",
        "- In training each record is closed by `<|endoftext|>`.",
        "",
        "## How it came to be",
        "",
        "| stage | exercises | pages |", "|---|---:|---:|", *rows,
        "",
        "| kind | stage | why it was removed | times |", "|---|---|---|---:|", *removed,
        "",
        "## What it is not",
        "",
        WHAT_IT_IS_NOT,
        "",
        "## Hashes",
        "",
        "| file | sha256 |", "|---|---|", *hashes,
        "",
    ])  # fmt: skip
