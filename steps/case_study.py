"""What `python -m steps.09_pretraining` and `python -m steps.10_finetuning` do: tell the recorded study, or run one.

A study lives in one folder and goes through stages: the data set of step 08, the examination and the tokenizer, the
arms of step 09, those of step 10, the decontamination arms, the pretrained model. Whatever is finished is not done
again, so the same command goes on with a study that was stopped.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steps import load, path
from steps.story import read
from textbooks.study import Chains, Plan

if TYPE_CHECKING:
    import torch.nn as nn
    from rich.console import Console

    from textbooks.exam import Problem
    from textbooks.records import Exercise

REAL_PROBLEMS = 40  # of each stratum, for the pretrained model: it is a hundred times slower than ours
PLANS = {
    "quick": Plan(
        exercises=240, sections=24, problems=5, steps=10, finetuning_steps=10, samples=2, thresholds=(0.9,),
        raw_every=20,
    ),
    "laptop": Plan(
        exercises=13_000, sections=900, problems=200, steps=960, finetuning_steps=4_000, depth=2, samples=4,
        thresholds=(0.9, 0.8),  # as many as run side by side on two cores; the paper has 0.95 and 0.85 as well
    ),
    "a100": Plan(
        exercises=880_000, sections=120_000, problems=1_000, steps=24_000, finetuning_steps=6_000, seeds=(1, 2, 3),
        samples=20, vocab_size=8_192, block_size=512, batch_size=128, rows=256, n_embd=512, n_head=8, n_layer=7,
        dropout=0.1, learning_rate=1e-3, muon_learning_rate=0.02, dtype="bfloat16", compile=True,
    ),
}  # fmt: skip


def make_model(vocab_size: int, plan: Plan) -> "nn.Module":
    """Step 07's GPT in the plan's size."""
    step = load(7)
    sizes = {name: getattr(plan, name) for name in ("block_size", "n_embd", "n_head", "n_layer", "dropout")}
    return step.Model(step.Config(vocab_size=vocab_size, **sizes))


def main(number: int, arguments: Sequence[str] | None = None) -> None:
    """The command line of step 09 or 10."""
    story = read(number)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

    @app.command(help=f"Step {number:02d} · {story.title}.\n\n{story.idea}")
    def step(
        preset: Annotated[
            str | None,
            typer.Option(help="run it: quick (minutes), laptop (the recorded run), a100", show_default="tell"),
        ] = None,
        out: Annotated[
            Path | None, typer.Option(help="the study's folder", show_default="runs/case_study/PRESET")
        ] = None,
        record: Annotated[bool, typer.Option("--record", help="keep figures and pictures in artifacts/")] = False,
        allow_weaker: Annotated[
            bool, typer.Option("--allow-weaker-isolation", help="run programs below the kernel's isolation")
        ] = False,
        with_pretrained: Annotated[
            bool, typer.Option("--pretrained/--no-pretrained", help="step 10: also SmolLM2 (98 MB, and slow)")
        ] = True,
        start: Annotated[bool, typer.Option("--start", help="a100: run it, not only compute it")] = False,
        present: Annotated[bool, typer.Option("--present", help="show the step's slides, and stop")] = False,
    ) -> None:
        if present:
            from steps.present import present as show

            raise typer.Exit(show(number))
        from common.terminal import make_console
        from steps import study_story
        from textbooks import study

        console = make_console()
        try:
            if preset is None:
                study_story.tell_recorded(console, story)
                return
            if preset not in PLANS:
                raise ValueError(f"there is no preset {preset!r}: choose {', '.join(PLANS)}")
            if preset == "a100" and not start:
                study_story.show_on_paper(console, PLANS[preset], make_model)
                return
            study.device_of(PLANS[preset])  # before any work is done
            folder = out or Path("runs") / "case_study" / preset
            run = conduct(number, preset, folder, allow_weaker, with_pretrained, console)
            study_story.tell(console, story, run, folder)
            if record:
                from steps import study_record

                console.print(f"\nkept in {study_record.keep(run, folder, PLANS[preset])}", style="dim")
        except KeyboardInterrupt:
            typer.secho("\nstopped; finished arms are kept: run the same command again to go on", err=True)
            raise typer.Exit(130) from None
        except (ValueError, RuntimeError, OSError) as error:
            if "GPT_STEPS_TRACEBACK" in os.environ:
                raise
            typer.secho(f"{story.name}: {error}", fg="red", err=True)
            raise typer.Exit(2) from None

    app(None if arguments is None else list(arguments), prog_name=f"python -m steps.{story.name}")


def conduct(
    number: int, preset: str, folder: Path, allow_weaker: bool, with_pretrained: bool, console: "Console"
) -> dict[str, Any]:
    """Run what is missing of the study up to step `number`, and return its record. Its `wall_seconds` are those of the
    arms, whenever they were run, as side by side as here, and of the pretrained model."""
    from common.runtime import machine
    from common.terminal import heading
    from textbooks import report, study
    from textbooks.exam import load as load_exam

    plan = PLANS[preset]
    arms = load(9).ARMS
    heading(console, "The data set of step 08")
    exercises, sections = data_set(plan, folder, allow_weaker, console)
    console.print(f"{len(exercises):,} exercises and {len(sections):,} pages")
    heading(console, "The examination, the tokenizer and the baseline")
    about = study.prepare(plan, folder, exercises, sections)
    problems = load_exam(folder / "exam.jsonl")
    console.print(f"{len(problems):,} problems that no record holds")
    heading(console, "The arms")
    stages = [[(seed, arms) for seed in plan.seeds]]
    if number == 10:
        arms = load(10).ARMS
        stages.append([(seed, arms) for seed in plan.seeds])
        stages.append([(plan.seeds[0], [arm]) for arm in study.pruned(plan.thresholds)])
    for chains in stages:
        run_arms(plan, folder, chains, allow_weaker, console)
    results = study.results(folder, plan, arms)
    run = {
        "step_name": read(number).name,
        "command": shlex.join(["python", "-m", f"steps.{read(number).name}", *sys.argv[1:]]),
        "preset": preset,
        "plan": asdict(plan),
        "seeds": list(plan.seeds),
        "config": {n: getattr(plan, n) for n in ("vocab_size", "block_size", "n_embd", "n_head", "n_layer", "dropout")},
        "parameters": next(iter(results.values()))[0]["parameters"],
        "machine": machine(),
        "data": about,
        "fingerprint": fingerprints(number),
        "arms": {name: report.arm_figures(problems, found) for name, found in results.items()},
        "baseline_copying": {"scores": report.scores(problems, report.outcomes([{"passed": about["baseline"]}]))},
        "answers": answers(folder / f"seed-{plan.seeds[0]}", results, problems),
    }
    if number == 10:
        run |= further(plan, folder, problems, exercises, about)
        if with_pretrained:
            run["real_model"] = pretrained(preset, folder, problems, exercises, allow_weaker, console)
    run["near_floor"] = report.near_floor(run["arms"])
    run["seed_spread"] = report.seed_spread(run["arms"])
    run["wall_seconds"] = round(
        sum(study.seconds(plan, folder, chains) for chains in stages) + run.get("real_model", {}).get("seconds", 0), 1
    )
    return run


def data_set(plan: Plan, folder: Path, allow_weaker: bool, console: "Console") -> tuple[list, list]:
    """The exercises and pages that step 08's grammar makes for this plan, kept in the study's folder: all pages, and
    the exercises that are no deeper than the plan's."""
    from textbooks.pipeline import Recipe
    from textbooks.records import read_jsonl, read_records, write_jsonl
    from textbooks.teachers.grammar import GrammarTeacher

    files = [folder / "data" / f"{name}.jsonl" for name in ("exercises", "sections")]
    if not all(file.exists() for file in files):
        source = Path("runs") / path(8).stem / f"grammar-{plan.exercises}-{plan.sections}-0"
        load(8).synthesize(Recipe(plan.exercises, plan.sections), GrammarTeacher(), source, allow_weaker, console)
        rows = read_jsonl(source / "exercises.jsonl")
        write_jsonl(files[0], (row for row in rows if row["spec"]["depth"] <= plan.depth))
        shutil.copyfile(source / "sections.jsonl", files[1])
    return tuple(list(read_records(file)) for file in files)


def run_arms(plan: Plan, folder: Path, chains: Chains, allow_weaker: bool, console: "Console") -> None:
    """Train and examine the arms that are missing, with one bar over all of them."""
    from common.terminal import bar
    from textbooks import study

    chains = [(seed, missing) for seed, arms in chains if (missing := list(study.missing(folder, seed, arms)))]
    if not chains:
        return
    units = [study.units(arm, plan) for _, arms in chains for arm in arms]
    total, done, at_once = sum(units), 0.0, min(len(chains), study.side_by_side(plan))
    with bar(console, total, 0, f"{len(units)} arms") as progress:

        def on_units(more: float) -> None:
            nonlocal done
            done += more
            progress.update(min(total, round(done)), [f"{at_once} side by side"])

        study.run_chains(plan, folder, make_model, chains, on_units, allow_weaker)


def further(plan: Plan, folder: Path, problems, exercises, about) -> dict[str, Any]:
    """What step 10 adds to the arms: the hypotheses, the decontamination table, and the arms before finetuning."""
    from textbooks import report, study
    from textbooks.similarity import most_similar

    every = study.results(folder, plan, (*load(9).ARMS, *load(10).ARMS, *study.pruned(plan.thresholds)))
    passed = {name: report.outcomes(found) for name, found in every.items()}
    passed["copying"] = report.outcomes([{"passed": about["baseline"]}])
    solutions = [(p.exercise.entry_point, p.exercise.solution) for p in problems]
    nearest = most_similar(solutions, [(e.entry_point, e.solution) for e in exercises])
    return {
        "hypotheses": report.tested(problems, passed),
        "against_exercises_alone": report.against_exercises_alone(problems, passed),
        "decontamination": report.decontamination(problems, nearest, every, plan),
        "pretrained": {
            name: report.arm_figures(problems, found) for name, found in every.items() if not found[0]["tuned"]
        },
    }


def pretrained(
    preset: str, folder: Path, problems: Sequence["Problem"], exercises: Sequence["Exercise"], allow_weaker: bool,
    console: "Console",
) -> dict[str, Any]:  # fmt: skip
    """SmolLM2 before and after LoRA on the exercises, and after LoRA on permuted ones. `quick` takes our own GPT of
    arm C instead, exported to the same format: the same code, and nothing to fetch."""
    from common.terminal import bar, heading
    from textbooks import corpora, exam, real_model, report, statistics
    from textbooks.completion import Coder

    heading(console, "A pretrained model and LoRA")
    plan, model = real_model.plans()[preset], None
    if preset == "quick":
        plan, model = replace(plan, targets=("c_attn", "c_fc", "c_proj")), folder / "seed-1" / "C" / "model"
    humaneval = min(exam.HUMANEVAL, PLANS[preset].problems)
    asked = [p for _, part in exam.by_stratum(problems, problems) for p in part[:REAL_PROBLEMS]]

    def measure(model: Any, tokenizer: Any) -> dict[str, Any]:
        coder = Coder(model, tokenizer)
        with bar(console, len(asked) + humaneval, 0, "examination") as progress:
            sheets = exam.sit(coder, asked, on_done=lambda done: progress.update(done, []))
            human = exam.humaneval(
                coder, humaneval, allow_weaker, lambda done: progress.update(len(asked) + done, ["HumanEval"])
            )
        graded = exam.grade(asked, sheets, os.cpu_count() or 1, allow_weaker)
        passed = "".join("01"[sheet[0].passed] for sheet in graded)
        return {"passed": passed, "humaneval": human, "answers": [sheet[0] for sheet in sheets[:: REAL_PROBLEMS // 2]]}

    with bar(console, 2 * plan.recipe.steps, 0, "LoRA") as progress:
        ahead = {"before": 0, "after": 0, "permuted": plan.recipe.steps}
        found = real_model.study(
            exercises, corpora.permuted(exercises, 0), measure, folder / "real", plan, model=model,
            on_step=lambda arm, done: progress.update(ahead[arm] + done.step, [arm, f"loss {done.loss:.3f}"]),
        )  # fmt: skip
    outcomes = {arm: report.outcomes([one["scores"]]) for arm, one in found.items()}
    human = {arm: report.outcomes([{"passed": one["scores"]["humaneval"]}]) for arm, one in found.items()}
    compared = {}
    for name, (better, worse) in {"finetuned": ("after", "before"), "paired": ("after", "permuted")}.items():
        for what, of in (("examination", outcomes), ("humaneval", human)):
            interval = statistics.paired_difference(of[better], of[worse], report.BOOTSTRAP_SEED)
            compared[f"{name}, {what}"] = {**asdict(interval), "p": statistics.mcnemar(of[better], of[worse])}
    return {
        "model": found["before"]["model"],
        "parameters": found["before"]["parameters"],
        "parameters_trained": found["after"]["training"]["parameters_trained"],
        "training": {arm: _brief(found[arm]["training"]) for arm in ("after", "permuted")},
        "compared": compared,
        "seconds": sum(one["seconds_measuring"] + one.get("training", {}).get("seconds", 0) for one in found.values()),
        **{
            arm: {
                "scores": report.scores(asked, outcomes[arm]),
                "humaneval": report.rate(human[arm]),
                "outcomes": one["scores"]["passed"],
                "answers": one["scores"]["answers"],
            }
            for arm, one in found.items()
        },
    }


def _brief(training: dict[str, Any]) -> dict[str, Any]:
    losses = training["losses"]
    every = max(1, len(losses) // 40)
    means = [[i, round(sum(losses[i - every : i]) / every, 4)] for i in range(every, len(losses) + 1, every)]
    return {**training, "losses": None, "curve": means}


def answers(folder: Path, results: dict[str, list[dict[str, Any]]], problems: Sequence["Problem"]) -> list[dict]:
    """Of textbooks and their controls: the first right and the first wrong answer of some strata, for the reader."""
    from textbooks.records import read_jsonl

    found = []
    for name in [name for name in ("C", "C-", "C+X", "C-+X") if name in results]:
        rows = list(read_jsonl(folder / name / "answers.jsonl"))
        bits = results[name][0]["passed"]
        for passed, strata in ((True, ("same", "longer")), (False, ("same", "unconventional"))):
            for stratum in strata:
                places = (i for i, problem in enumerate(problems) if problem.stratum == stratum)
                place = next((i for i in places if (bits[i] == "1") == passed), None)
                if place is not None:
                    found.append({"arm": name, "stratum": stratum, "passed": passed, **rows[place]})
    return found


def fingerprints(number: int) -> dict[str, str]:
    from common.records import fingerprint

    return {file.stem: fingerprint(file) for file in (path(7), path(9), path(number))}
