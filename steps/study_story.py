"""The case study told in a terminal, from its record."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.text import Text

from common.records import ARTIFACTS
from common.terminal import count, duration, heading, table
from steps import load
from steps.story import Story
from textbooks.exam import STRATA
from textbooks.report import best

if TYPE_CHECKING:
    from rich.console import Console

    from textbooks.study import Plan

MEANS = {
    "same": "only the problem is new",
    "pairs": "two primitives never seen together",
    "longer": "one primitive more than any exercise has",
    "wording": "phrases and names kept back",
    "textbook": "a primitive that only pages explain",
    "unconventional": "written by hand, not composed",
}
ALONE = "Against 0+X, on all problems that were drawn. Looked at when all was run: no claim, and so no p."
PRUNED = (
    "C+X, seed {seed}, finetuned again without the exercises whose syntax tree is at least so similar to that of a "
    "problem's solution (1 is equal). Who only remembers loses where there was a similar exercise, and not elsewhere."
)
NOT_SHOWN = (
    "Nothing about large models or much data: the sizes and tokens stand above.",
    "Nothing about GPT-4 as a teacher: the textbooks and exercises come from a grammar, and say what it can say.",
    "Little about HumanEval: our own models are not asked to solve it; given is how well they foresee its solutions.",
    "The examination is made by the grammar that made the exercises (the unconventional problems are not): what is "
    "learned is learned for its world.",
)


def seeds(run: Mapping[str, Any]) -> str:
    """How much chance there is in a training, and what intervals have to say about it."""
    it = run["seed_spread"]
    lowest, highest = (f"{100 * it[end]:.1f} %" for end in ("lowest", "highest"))
    apart = f", and matter: {it['arm']} solves {lowest} of the problems with one seed and {highest} with another"
    return (
        f"Seeds are few{apart if highest != lowest else ''}. Intervals speak of other problems of the same kind, not "
        "of other trainings; so a claim holds only if every seed says the same."
    )


def limits(run: Mapping[str, Any]) -> tuple[str, ...]:
    """What the study does not show; first of all, if so, that nobody solved enough to differ."""
    always = (*NOT_SHOWN, seeds(run))
    if run["plan"]["finetuning_steps"] > run["plan"]["steps"] and any(arm["tuned"] for arm in run["arms"].values()):
        always += (
            f"Finetuning takes {run['plan']['finetuning_steps']:,} steps after {run['plan']['steps']:,} of "
            "pretraining, at the same learning rate: little of what was read first may be left by then, so arms that "
            "differ only in it are compared where they are most alike.",
        )
    if not run["near_floor"]:
        return always
    arm = run["arms"][best(run["arms"])]
    floor = (
        f"That data quality does not matter. No arm solves more than {100 * arm['scores']['all']['rate']:.1f} % of the "
        "problems, and so close to the floor arms can hardly differ. Something was learned "
        f"({100 * arm['parse_rate']:.0f} % of the best arm's answers are Python that defines the function), but this "
        "budget is too small for this examination."
    )
    return (floor, *always)


def percent(rate: Mapping[str, float]) -> str:
    """87.5 % with its interval, short."""
    return f"{100 * rate['rate']:.1f} ({100 * rate['low']:.0f}–{100 * rate['high']:.0f})"


def tell_recorded(console: "Console", story: Story) -> None:
    """Raises ValueError if nothing is recorded."""
    file = ARTIFACTS / story.name / "run.json"
    if not file.exists():
        raise ValueError(f"no run of {story.name} is recorded: pass --preset quick to run one")
    tell(console, story, json.loads(file.read_text(encoding="utf-8")), file.parent)


def tell(console: "Console", story: Story, run: Mapping[str, Any], folder: Path) -> None:
    heading(console, f"Step {story.number:02d} · {story.title}")
    console.print(Text(story.idea))
    on = run["machine"]
    console.print(
        f"\n{run['preset']} · {len(run['seeds'])} seeds · {count(run['parameters'])} parameters · "
        f"{duration(run['wall_seconds'])} on {on['cores']} cores of {on['cpu']}\n{escape(run['command'])}",
        style="dim",
    )
    show_data(console, run)
    show_scores(console, run)
    show_beside(console, run)
    for show in (show_hypotheses, show_against_exercises_alone, show_decontamination, show_real):
        show(console, run)
    show_answers(console, run)
    heading(console, "What this does not show")
    for line in limits(run):
        console.print(Text(f"· {line}"))


def show_data(console: "Console", run: Mapping[str, Any]) -> None:
    heading(console, "What each arm read")
    rows = table("arm", "begins with", "reads", "texts", "characters", "tokens read", right=(3, 4, 5))
    for name, arm in run["arms"].items():
        start = arm["start"] or "random weights"
        figures = (f"{arm['texts']:,}", count(arm["characters"]), count(arm["tokens_seen"]))
        rows.add_row(Text(name, style="bold"), start, arm["title"], *figures)
    console.print(rows)


def show_scores(console: "Console", run: Mapping[str, Any]) -> None:
    heading(console, "Problems solved at the first try, % (95 % interval)")
    rows = table("arm", *STRATA, right=tuple(range(1, len(STRATA) + 1)))
    for name, arm in run.get("pretrained", {}).items():
        rows.add_row(Text(name, style="dim"), *(Text(percent(arm["scores"][s]), style="dim") for s in STRATA))
    for name, arm in run["arms"].items():
        rows.add_row(Text(name, style="bold"), *(percent(arm["scores"][stratum]) for stratum in STRATA))
    copying = run["baseline_copying"]["scores"]
    rows.add_row(Text("copying", style="dim"), *(percent(copying[stratum]) for stratum in STRATA))
    console.print(rows)
    for stratum, meaning in MEANS.items():
        problems = run["baseline_copying"]["scores"][stratum]["problems"]
        console.print(Text(f"{stratum}: {meaning} ({problems} problems)", style="dim"))
    console.print(Text("copying: the solution of the training exercise with the nearest docstring", style="dim"))


def show_beside(console: "Console", run: Mapping[str, Any]) -> None:
    heading(console, "What pass@1 cannot see")
    rows = table("arm", "answers that parse", "prefers the right body", "HumanEval, bits a byte", right=(1, 2, 3))
    for name, arm in run["arms"].items():
        choice = arm["forced_choice"]["same"]
        preferred = f"{100 * choice['value']:.1f} ({100 * choice['low']:.0f}–{100 * choice['high']:.0f}) %"
        figures = (f"{100 * arm['parse_rate']:.1f} %", preferred, f"{arm['humaneval_bits_per_byte']:.3f}")
        rows.add_row(Text(name, style="bold"), *figures)
    console.print(rows)
    for name, arm in run["arms"].items():
        if "pass_at_k" in arm:
            told = " · ".join(f"pass@{k} {100 * arm['pass_at_k']['same'][str(k)]:.1f} %" for k in (1, arm["samples"]))
            console.print(Text(f"{name}, {arm['samples']} samples a problem, stratum same: {told}", style="dim"))


def show_hypotheses(console: "Console", run: Mapping[str, Any]) -> None:
    if "hypotheses" not in run:
        return
    heading(console, "What was claimed before the run, and what came of it")
    rows = table("claim", "compared", "difference, points", "p (Holm)", "", right=(2, 3))
    for claim in run["hypotheses"]:
        told = f"{100 * claim['difference']:+.1f} ({100 * claim['low']:+.1f} to {100 * claim['high']:+.1f})"
        color = {"holds": "green", "the reverse": "red"}.get(claim["verdict"], "yellow")
        sides = f"{claim['better']} against {claim['worse']}, {', '.join(claim['strata'])}"
        rows.add_row(Text(claim["statement"]), sides, told, f"{claim['p_holm']:.2g}", Text(claim["verdict"], color))
    console.print(rows)
    for claim in run["hypotheses"]:
        if claim["verdict"] == "not shown":
            least = f"{100 * claim['detectable']:.1f} points"
            console.print(
                Text(f"{claim['name']}: a true difference of {least} would have shown four times in five", style="dim")
            )


def show_against_exercises_alone(console: "Console", run: Mapping[str, Any]) -> None:
    if "against_exercises_alone" not in run:
        return
    heading(console, "What reading first added to exercises alone")
    rows = table("arm", "reads", "points (95 % interval)", "by seed", right=(2, 3))
    for name, cells in alone_rows(run):
        rows.add_row(Text(name, style="bold"), *cells)
    console.print(rows)
    console.print(Text(ALONE, style="dim"))


def alone_rows(run: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The lines of that table."""
    for name, it in run["against_exercises_alone"].items():
        told = f"{100 * it['value']:+.1f} ({100 * it['low']:+.1f} to {100 * it['high']:+.1f})"
        yield name, [run["arms"][name]["title"], told, ", ".join(f"{100 * d:+.1f}" for d in it["by_seed"])]


def show_decontamination(console: "Console", run: Mapping[str, Any]) -> None:
    if not run.get("decontamination"):
        return
    heading(console, "Without the exercises that resemble the examination")
    rows = table(
        "similarity below", "exercises left", "problems that had a similar one: before → after", "the others",
        right=(1,),
    )  # fmt: skip
    for row in run["decontamination"]:
        rows.add_row(*pruned_cells(row))
    console.print(rows)
    console.print(Text(PRUNED.format(seed=run["seeds"][0]), style="dim"))


def pruned_cells(row: Mapping[str, Any]) -> list[str]:
    """A line of the decontamination table."""
    cells = [f"{row['threshold']:g}", f"{row['kept']:,} of {row['of']:,}"]
    for part in (row["similar"], row["not_similar"]):
        rates = [percent({"rate": part[when]["value"], **part[when]}) for when in ("before", "after") if when in part]
        cells.append(f"{' → '.join(rates) or '–'} % of {part['problems']}")
    return cells


def show_real(console: "Console", run: Mapping[str, Any]) -> None:
    if not run.get("real_model"):
        return
    heading(console, "A real pretrained model: SmolLM2-135M-Instruct with LoRA")
    rows = table("model", *STRATA, "HumanEval", right=tuple(range(1, len(STRATA) + 2)))
    for arm in ("before", "after", "permuted"):
        found = run["real_model"].get(arm)
        if found:
            cells = [percent(found["scores"][s]) if s in found["scores"] else "–" for s in STRATA]
            rows.add_row(Text(arm, style="bold"), *cells, percent(found["humaneval"]))
    console.print(rows)
    trained = run["real_model"].get("parameters_trained")
    if trained:
        console.print(Text(f"{trained:,} of {run['real_model']['parameters']:,} parameters were trained", style="dim"))


def show_answers(console: "Console", run: Mapping[str, Any]) -> None:
    from rich.panel import Panel

    from textbooks.story import code

    if not run.get("answers"):
        return
    heading(console, "Answers, right and wrong")
    for answer in run["answers"]:
        style = "green" if answer["passed"] else "yellow"
        title = f"{answer['arm']} · {answer['stratum']} · {'passed' if answer['passed'] else 'failed'}"
        console.print(Panel(code(answer["program"]), title=title, title_align="left", border_style=style))


def on_paper(plan: "Plan", parameters: int) -> dict[str, float]:
    """What a preset would need, computed: FLOPs by 6 · N · tokens (Kaplan et al., arXiv 2001.08361, section 2.1),
    memory as weights, gradients and AdamW's two moments in float32 plus the activations that backward keeps."""
    from textbooks.study import pruned, steps_of

    tokens_a_step = plan.batch_size * plan.block_size
    every_seed = sum(steps_of(arm, plan) for n in (9, 10) for arm in load(n).ARMS)
    one_seed = sum(steps_of(arm, plan) for arm in pruned(plan.thresholds))
    tokens = (every_seed * len(plan.seeds) + one_seed) * tokens_a_step
    kept_a_token = plan.n_layer * 34 * plan.n_embd * 2 + plan.vocab_size * 6  # Korthikanti et al., arXiv 2205.05198
    flops = 6 * parameters * tokens
    return {
        "tokens": tokens,
        "flops": flops,
        "bytes": 16 * parameters + kept_a_token * tokens_a_step,
        "hours": flops / (0.4 * 312e12) / 3600,
    }


def show_on_paper(console: "Console", plan: "Plan", make_model: Callable) -> None:
    import torch

    with torch.device("meta"):
        parameters = sum(p.numel() for p in make_model(plan.vocab_size, plan).parameters())
    found = on_paper(plan, parameters)
    heading(console, "The preset a100, on paper: it has not been run")
    rows = table("", "", right=(1,))
    rows.add_row("parameters", count(parameters))
    rows.add_row("tokens, all arms and seeds", count(found["tokens"]))
    rows.add_row("training FLOPs (6 · parameters · tokens)", f"{found['flops']:.2g}")
    rows.add_row("memory at most, of 40 GB", f"{found['bytes'] / 1e9:.1f} GB")
    rows.add_row("hours on one A100 (bf16, 312 TFLOP/s, 40 % used)", f"{found['hours']:.0f}")
    console.print(rows)
    console.print("\nbf16, torch.compile and fused attention; start it with --start", style="dim")
