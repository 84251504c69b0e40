"""A synthesis run told in the terminal: live, or from what was recorded."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.markdown import Markdown
from rich.panel import Panel
from rich.syntax import Syntax
from rich.text import Text
from rich.tree import Tree

from common.records import ARTIFACTS
from common.terminal import ACCENT, bar, count, duration, heading, make_console, table
from textbooks.pipeline import STAGES
from textbooks.records import Exercise, from_row, read_jsonl, training_text
from textbooks.topics import leaves, tree

FILTER = ARTIFACTS / "08_textbook_synthesis" / "filter.json"  # what python -m steps.raw_filter recorded
STAGE_MEANS = {
    "prompted": "topic × topic × audience, drawn without repeats",
    "answered": "the teacher gave an answer",
    "parsed": "the answer is a function, a docstring and literal tests, or a page with checkable outputs",
    "verified": "the solution passes its tests, stand-ins and mutants fail them; a page's outputs are true",
    "unique": "no near-duplicate of an earlier record, by syntax tree and by MinHash",
    "clean": "no HumanEval problem in disguise: 13-gram, tree, embedding, behaviour",
}


class StageBars:
    """A progress bar for each stage in turn, with the time that is left of it."""

    def __init__(self, console: Console):
        self.console, self.stage, self.open = console, "", ExitStack()

    def __enter__(self) -> "StageBars":
        return self

    def __exit__(self, *_: object) -> None:
        self.open.close()

    def update(self, stage: str, done: int, total: int) -> None:
        if stage != self.stage:
            self.open.close()
            self.stage, self.bar = stage, self.open.enter_context(bar(self.console, total, done, f"{stage:<8}"))
        self.bar.update(done, [])


def code(text: str) -> Syntax:
    return Syntax(text, "python", theme="ansi_light", background_color="default", word_wrap=True)


def show_tree(console: Console, asked: Mapping[str, int]) -> None:
    """The topic tree: every topic with how many of its leaves are asked about, one topic unfolded."""
    heading(console, "The topic tree")
    total = sum(asked.values())
    root = Tree(f"[bold]Python[/] · {len(leaves()):,} leaves, of which this teacher is asked about {total:,}")
    for topic, subtopics in tree().items():
        size = sum(map(len, subtopics.values()))
        branch = root.add(f"{topic} [dim]· {len(subtopics)} subtopics, {size} leaves, {asked.get(topic, 0)} asked[/]")
        if topic == "Lists":
            for subtopic in list(subtopics)[:4]:
                twig = branch.add(f"[{ACCENT}]{subtopic}[/]")
                twig.add(Text("; ".join(subtopics[subtopic][:4]) + "; …", style="dim"))
            branch.add(Text(f"… {len(subtopics) - 4} more", style="dim"))
    console.print(root)


def show_example(console: Console, example: Mapping[str, Any]) -> None:
    """One prompt, the raw answer to it, and its verification step by step."""
    heading(console, "One prompt")
    console.print(Panel(Text(example["prompt"]), border_style="dim", padding=(0, 1)))
    heading(console, "One raw answer")
    console.print(Panel(Text(example["answer"]), border_style="dim", padding=(0, 1)))
    heading(console, "Is it right, and would anything less have passed?")
    rows = table("program", "tests say", "because")
    for name, verdict, reason in example["verification"]:
        good = (verdict == "passed") == (name == "the solution")
        rows.add_row(name, Text(verdict, style="green" if good else "yellow"), Text(reason, style="dim"))
    console.print(rows)


def show_funnel(console: Console, run: Mapping[str, Any]) -> None:
    heading(console, "From prompts to records")
    rows = table("stage", "exercises", "pages", "what it takes", right=(1, 2))
    for stage in STAGES:
        kinds = [f"{run['funnel'][kind][stage]:,}" for kind in ("exercise", "section")]
        rows.add_row(stage, *kinds, Text(STAGE_MEANS[stage], style="dim"))
    console.print(rows)
    console.print()
    why = table("removed at", "because", "exercises", right=(2,))
    for stage, reason, times in run["removed_because"]["exercise"][:8]:
        why.add_row(stage, Text(reason), f"{times:,}")
    console.print(why)


def show_yield(console: Console, runs: Sequence[Mapping[str, Any]]) -> None:
    """Clean records out of prompts, by teacher: this run and the recorded ones."""
    heading(console, "Yield by teacher")
    rows = table("teacher", "exercises asked", "kept", "yield", "pages asked", "kept", "took", right=(1, 2, 3, 4, 5, 6))
    for run in runs:
        exercise, section = run["funnel"]["exercise"], run["funnel"]["section"]
        share = f"{exercise['clean'] / max(1, exercise['prompted']):.1%}"
        asked, kept = f"{exercise['prompted']:,}", f"{exercise['clean']:,}"
        pages = f"{section['prompted']:,}", f"{section['clean']:,}"
        rows.add_row(run["teacher"], asked, kept, share, *pages, duration(run["wall_seconds"]))
    console.print(rows)


def show_records(console: Console, kept: Sequence, removed: Sequence[tuple[str, str, str]]) -> None:
    """A few accepted records, then a few removed ones (stage, reason, text)."""
    heading(console, "Accepted")
    for record in kept:
        if isinstance(record, Exercise):
            told = code(training_text(record) + "\n\n" + "\n".join(record.tests[:3]))
            console.print(Panel(told, title=f"for {record.audience}", title_align="left", border_style="green"))
        else:
            page = Markdown("\n## ".join(record.text.split("\n## ")[:2]))
            title = f"the beginning of a page, {len(record.text):,} characters"
            console.print(Panel(Group(page), title=title, title_align="left", border_style="green"))
    heading(console, "Removed")
    for stage, reason, text in removed:
        shown = "\n".join(text.splitlines()[:14])
        console.print(Panel(Text(shown), title=f"{stage}: {reason}"[:96], title_align="left", border_style="yellow"))


def show_size(console: Console, run: Mapping[str, Any]) -> None:
    heading(console, "How far it reaches")
    topics = {name: n for name, n in run["by_topic"].items() if n}
    most = max(topics.values(), default=1)
    rows = table("topic", "records", "", right=(1,))
    for topic, n in topics.items():
        rows.add_row(topic, f"{n:,}", Text("█" * max(1, round(40 * n / most)), style=ACCENT))
    console.print(rows)
    covered = run["coverage"]
    console.print(
        f"\n{covered['leaves_used']:,} of {covered['leaves']:,} leaves · {covered['topic_pairs']:,} pairs of topics · "
        f"{covered['audiences_used']} audiences · {count(run['exercise_characters'])} characters of exercises · "
        f"{count(run['section_characters'])} of textbook"
    )
    for kind, size in run["lengths"].items():
        if size:
            console.print(
                f"{kind}: median {size['median']:,.0f} characters, from {size['shortest']:,} to {size['longest']:,}",
                style="dim",
            )


def show_filter(console: Console, run: Mapping[str, Any]) -> None:
    """The other source of good data, as phi-1 has it: raw code, of which a filter keeps what is worth reading."""
    heading(console, "Which raw code is worth reading?")
    labels, agreed = run["labels"], run["labels"]["agreement"]
    console.print(
        f"{run['corpus']['chunks']:,} functions of Python's own library, {labels['n']} of them labelled for "
        f"educational value.\nlabels: {labels['source']}\nsecond labelling: {labels['second_source']}\n"
        f"agreement on what to keep: Cohen's kappa {agreed['keep']:.2f} (n = {agreed['n']})\n"
    )
    rows = table("features", "AUC", "95 % interval", "precision", "kept", "at random", right=(1, 2, 3, 4, 5))
    for name, q in run["quality"].items():
        interval = f"{q['auc_low']:.2f}–{q['auc_high']:.2f}"
        rows.add_row(
            name, f"{q['auc']:.3f}", interval, f"{q['precision']:.3f}", f"{q['kept']:.0%}", f"{q['base_rate']:.3f}"
        )
    console.print(rows)
    console.print(f"\n{run['command']}", style="dim")


def recorded_filter() -> dict[str, Any]:
    return json.loads(FILTER.read_text(encoding="utf-8"))


def tell(console: Console, run: Mapping[str, Any], folder: Path) -> None:
    """The story of a finished run, from its figures and from the samples in `folder`."""
    if run["example"]:
        show_example(console, run["example"])
    show_funnel(console, run)
    others = [other for other in recorded(run["step_name"]) if other["teacher"] != run["teacher"]]
    show_yield(console, [run, *others])
    kept = [from_row(row) for row in read_jsonl(folder / "sample.jsonl")]
    exercises = [record for record in kept if isinstance(record, Exercise)]
    pages = [record for record in kept if not isinstance(record, Exercise)]
    removed = {}
    for row in read_jsonl(folder / "removed_sample.jsonl"):
        record = row.get("record", {})
        text = row.get("answer") or record.get("solution") or record.get("text", "")
        removed.setdefault(row["stage"], (row["stage"], row["reason"], text))
    show_records(console, [*exercises[1:3], *pages[:1]], list(removed.values()))
    show_size(console, run)
    show_filter(console, recorded_filter())


def recorded(name: str) -> list[dict[str, Any]]:
    """The committed runs of this step, the grammar's first."""
    files = [ARTIFACTS / name / "run.json", *sorted((ARTIFACTS / name).glob("*/run.json"))]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def tell_recorded(name: str) -> None:
    """The story of the committed run: no model, no network, nothing executed. Raises ValueError if there is none."""
    runs = recorded(name)
    if not runs:
        raise ValueError(f"no run of {name} is recorded: leave --show out")
    run, console = runs[0], make_console()
    show_tree(console, run["asked"])
    where = f"{run['machine']['cores']} cores of {run['machine']['cpu']}, isolation level {run['isolation']['level']}"
    console.print(f"\nrecorded in {duration(run['wall_seconds'])} on {where}: {run['command']}", style="dim")
    tell(console, run, ARTIFACTS / name)
