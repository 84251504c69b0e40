"""From topics to a data set, in stages that can be killed anywhere.

    prompts ─► answers ─► parsed ─► verified ─► unique ─► clean ─► exercises.jsonl, sections.jsonl, removed.jsonl

What is slow or paid for (answers, verdicts, benchmark checks) is kept in append-only journals under the content
hash of what was asked; a stage asks only what its journal does not hold. What is quick (parsing, near-duplicates)
is done again. The data set is written last, in the order of the prompts, so that an interrupted run ends in the
same bytes as an unbroken one.
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from textbooks.audiences import audiences
from textbooks.parse import Unparsed, claims, parse_exercise, parse_section
from textbooks.records import Exercise, Journal, Record, digest, read_jsonl, to_row, write_jsonl
from textbooks.teachers import KINDS, Answer, Prompt, Teacher, TeacherStopped, make_prompt
from textbooks.topics import draw, leaves

STAGES = ("prompted", "answered", "parsed", "verified", "unique", "clean")
Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True)
class Recipe:
    """How large a data set is asked for. The counts are prompts: what passes every filter is fewer."""

    exercises: int
    sections: int
    seed: int = 0


@dataclass(frozen=True)
class Removed:
    """A prompt that led to no record of the data set: at which stage, and why."""

    stage: str
    reason: str
    prompt: Prompt
    record: Record | None = None
    answer: str = ""


@dataclass(frozen=True)
class Result:
    exercises: list[Exercise]
    sections: list[Record]
    removed: list[Removed]
    funnel: dict[str, dict[str, int]]  # kind -> stage -> records that got so far
    unanswered: int
    stopped: str  # why the teacher gave up, "" if it did not
    tokens: dict[str, int]  # as the teacher counted them: "prompt", "completion"
    hashes: dict[str, str]  # file -> sha256


def prompts_for(recipe: Recipe, teacher: Teacher) -> list[Prompt]:
    """The run's prompts: exercises and sections mixed evenly, so that a run cut short holds both."""
    roles = [audience.role for audience in audiences()]
    draws = draw(recipe.seed, reachable_leaves(teacher), roles, teacher.accepts)
    total = recipe.exercises + recipe.sections
    made = []
    for index, drawn in enumerate(islice(draws, total)):
        section = (index + 1) * recipe.sections // total > index * recipe.sections // total
        kind = KINDS[section]
        made.append(make_prompt(teacher.templates[kind], index, kind, drawn, recipe.seed))
    return made


def reachable_leaves(teacher: Teacher) -> tuple[str, ...]:
    """The leaves this teacher can write about at all."""
    subtopics = getattr(teacher, "subtopics", None)
    return tuple(leaf for leaf in leaves() if subtopics is None or leaf.rsplit("/", 1)[0] in subtopics)


def asked(teacher: Teacher) -> dict[str, int]:
    """Topic -> how many of its leaves this teacher is asked about."""
    return dict(Counter(leaf.split("/")[0] for leaf in reachable_leaves(teacher)))


def run(
    recipe: Recipe, teacher: Teacher, folder: Path, allow_weaker: bool = False,
    progress: Progress = lambda stage, done, total: None,
) -> Result:  # fmt: skip
    """Make the data set in `folder`, or go on with the one begun there.

    Raises ValueError if the folder holds a run of other settings, IsolationError if programs cannot be confined,
    and TeacherStopped when the teacher gives up before its first answer."""
    claim_folder(recipe, teacher, folder)
    prompts = prompts_for(recipe, teacher)
    write_jsonl(folder / "prompts.jsonl", ({"key": p.key, **asdict(p)} for p in prompts))
    answers, stopped = answer(prompts, teacher, folder / "answers.jsonl", progress)
    removed: dict[str, Removed] = {}
    records: dict[str, Record] = {}  # by prompt key, in the order of the prompts
    by_record: dict[str, Prompt] = {}
    for prompt in prompts:
        if prompt.key in answers:
            text = answers[prompt.key]["text"]
            try:
                record = parse(prompt, text, teacher, answers[prompt.key]["spec"])
            except Unparsed as reason:
                removed[prompt.key] = Removed("parsed", str(reason), prompt, answer=text)
                continue
            if record.key in by_record:
                removed[prompt.key] = Removed("parsed", "It is word for word an earlier record.", prompt, record)
                continue
            records[prompt.key], by_record[record.key] = record, prompt
    counts = {"prompted": prompts, "answered": [p for p in prompts if p.key in answers]}
    counts["parsed"] = [p for p in prompts if p.key in records]
    write_jsonl(folder / "parsed.jsonl", map(to_row, records.values()))
    for stage, judge in (("verified", verified), ("unique", unique), ("clean", clean)):
        reasons = judge(list(records.values()), folder, allow_weaker, progress)
        for key in [key for key, record in records.items() if record.key in reasons]:
            record = records.pop(key)
            removed[key] = Removed(stage, reasons[record.key], by_record[record.key], record)
        counts[stage] = [p for p in prompts if p.key in records]
    left = [removed[prompt.key] for prompt in prompts if prompt.key in removed]
    tokens = {name: sum(a[f"{name}_tokens"] for a in answers.values()) for name in ("prompt", "completion")}
    return _written(list(records.values()), left, counts, tokens, stopped, folder)


def claim_folder(recipe: Recipe, teacher: Teacher, folder: Path) -> None:
    """Make the folder this run's own. Raises ValueError if it is another's."""
    mine = {"teacher": teacher.name, **asdict(recipe)}
    claim = folder / "recipe.jsonl"
    if claim.exists():
        theirs = next(read_jsonl(claim), None)
        if theirs != mine:
            raise ValueError(f"{folder} holds another run ({theirs}): choose another --out or the same settings")
        return
    if folder.exists() and any(file.name != "ledger.jsonl" for file in folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no run: choose another --out")
    write_jsonl(claim, [mine])


def answer(
    prompts: Sequence[Prompt], teacher: Teacher, path: Path, progress: Progress
) -> tuple[dict[str, dict], str]:
    """Prompt key -> answer, for every prompt that the teacher has answered, now or before; and why it stopped."""
    with Journal(path) as journal:
        answers = {row["key"]: row for row in journal}
        lock = threading.Lock()

        def record(answered: Sequence[tuple[Prompt, Answer]]) -> None:
            rows = [{"key": prompt.key, **asdict(given)} for prompt, given in answered]
            with lock:
                journal.append(rows)
                answers.update({row["key"]: row for row in rows})
                progress("answered", len(answers), len(prompts))

        progress("answered", len(answers), len(prompts))
        try:
            teacher.answer(prompts, frozenset(answers), record)
        except TeacherStopped as reason:
            if not answers:
                raise
            return answers, str(reason)
    return answers, ""


def parse(prompt: Prompt, text: str, teacher: Teacher, spec: dict) -> Record:
    """The record in an answer. Raises Unparsed."""
    parser = parse_section if prompt.kind == "section" else parse_exercise
    return parser(text, prompt, teacher.name, spec)


# ---------------------------------------------------------------- judges: record key -> why it is removed

Item = TypeVar("Item")


def judged(
    path: Path, items: Sequence[Item], key: Callable[[Item], str],
    judge: Callable[[Sequence[Item]], Iterator[tuple[Item, str | None]]], progress: Callable[[int, int], None],
) -> dict[str, str]:  # fmt: skip
    """Reasons to remove items, by key, asking `judge` (which answers in order) only about those not in the journal
    at `path`. A reason "" means that it stays; None, that there is no verdict yet, which is not written down."""
    with Journal(path) as journal:
        known = {row["key"]: row["reason"] for row in journal}
        todo = [item for item in items if key(item) not in known]
        done, rows = len(items) - len(todo), []
        progress(done, len(items))
        for item, reason in judge(todo):
            done += 1
            known[key(item)] = "No verdict: run again." if reason is None else reason
            rows += [] if reason is None else [{"key": key(item), "reason": reason}]
            if len(rows) >= 32:
                journal.append(rows)
                rows = []
                progress(done, len(items))
        journal.append(rows)
        progress(done, len(items))
    return {key(item): known[key(item)] for item in items if known[key(item)]}


def verified(
    records: Sequence[Record], folder: Path, allow_weaker: bool, progress: Progress
) -> dict[str, str]:
    """Exercises whose solution fails, or whose tests let a stand-in pass; pages whose claims are not what running
    their code gives."""
    from textbooks.verify import Job, Verdict, check_many, verify_many

    def reason(outcome) -> str | None:
        if outcome.verdict is Verdict.INFRASTRUCTURE:
            return None
        return "" if outcome.passed else f"{outcome.verdict}: {outcome.reason}"

    def judge_exercises(exercises: Sequence[Exercise]) -> Iterator[tuple[Exercise, str | None]]:
        for exercise, outcome in check_many(exercises, allow_weaker=allow_weaker):
            yield exercise, reason(outcome)

    def judge_claims(jobs: Sequence[Job]) -> Iterator[tuple[Job, str | None]]:
        outcomes = verify_many(jobs, allow_weaker=allow_weaker)
        for job, (_, outcome) in zip(jobs, outcomes, strict=True):
            yield job, reason(outcome)

    exercises = [record for record in records if isinstance(record, Exercise)]
    pages = [record for record in records if not isinstance(record, Exercise)]
    jobs = {
        digest(page.key, claim.program, claim.tests): (page.key, Job("", claim.program, claim.entry_point, claim.tests))
        for page in pages for claim in claims(page.text)
    }  # fmt: skip
    keyed = [Job(key, job.program, job.entry_point, job.tests) for key, (_, job) in jobs.items()]
    found = judged(
        folder / "verified.jsonl", exercises, lambda e: e.key, judge_exercises,
        lambda done, total: progress("verified", done, total),
    )  # fmt: skip
    false = judged(
        folder / "verified_claims.jsonl", keyed, lambda job: job.key, judge_claims,
        lambda done, total: progress("claims", done, total),
    )  # fmt: skip
    return found | {jobs[key][0]: f"a claimed output is false: {reason}" for key, reason in reversed(false.items())}


def unique(records: Sequence[Record], folder: Path, allow_weaker: bool, progress: Progress) -> dict[str, str]:
    """Near-duplicates of an earlier record."""
    from textbooks.dedup import near_duplicates

    found = {}
    for done, (record, duplicate) in enumerate(near_duplicates(records), 1):
        if duplicate is not None:
            found[record.key] = duplicate.reason
        if done % 200 == 0 or done == len(records):
            progress("unique", done, len(records))
    return found


def clean(records: Sequence[Record], folder: Path, allow_weaker: bool, progress: Progress) -> dict[str, str]:
    """Records too close to a HumanEval problem."""
    from textbooks.decontaminate import Decontaminator
    from textbooks.humaneval import problems

    def judge(records: Sequence[Record]) -> Iterator[tuple[Record, str]]:
        if not records:
            return
        with Decontaminator(problems(), allow_weaker=allow_weaker) as contaminated:
            for start in range(0, len(records), 64):
                batch = records[start : start + 64]
                for record, hit in zip(batch, contaminated(batch), strict=True):
                    yield record, hit.reason if hit else ""

    return judged(
        folder / "clean.jsonl", records, lambda r: r.key, judge,
        lambda done, total: progress("clean", done, total),
    )  # fmt: skip


# ---------------------------------------------------------------- the data set


def _written(
    records: Sequence[Record], removed: Sequence[Removed], counts: dict, tokens: dict[str, int], stopped: str,
    folder: Path,
) -> Result:
    exercises = [record for record in records if isinstance(record, Exercise)]
    sections = [record for record in records if not isinstance(record, Exercise)]
    funnel = {
        kind: {stage: sum(prompt.kind == kind for prompt in counts[stage]) for stage in STAGES} for kind in KINDS
    }
    hashes = {
        "exercises.jsonl": write_jsonl(folder / "exercises.jsonl", map(to_row, exercises)),
        "sections.jsonl": write_jsonl(folder / "sections.jsonl", map(to_row, sections)),
        "removed.jsonl": write_jsonl(folder / "removed.jsonl", map(_removed_row, removed)),
    }
    unanswered = len(counts["prompted"]) - len(counts["answered"])
    return Result(exercises, sections, list(removed), funnel, unanswered, stopped, tokens, hashes)


def _removed_row(entry: Removed) -> dict:
    row = {"stage": entry.stage, "reason": entry.reason, "kind": entry.prompt.kind, "prompt": entry.prompt.key}
    return row | ({"record": to_row(entry.record)} if entry.record else {"answer": entry.answer})


def reasons(removed: Iterable[Removed], kind: str) -> Counter:
    """How often each reason occurs, numbers and names taken out so that alike reasons count together."""
    return Counter((r.stage, _kind_of(r.reason)) for r in removed if r.prompt.kind == kind)


def _kind_of(reason: str) -> str:
    reason = re.sub(r" of [0-9a-f]{12}| \([\d.]+\)|HumanEval/\d+", "", reason.split(";")[0])
    reason = re.sub(r"'[^']*'|\d+", "…", reason)
    return reason.replace("close to  by", "close to a HumanEval problem by").strip()


__all__ = ["Recipe", "Removed", "Result", "TeacherStopped", "prompts_for", "run"]
