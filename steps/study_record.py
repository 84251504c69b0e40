"""Keep a study: its figures, pictures, report, and the best arm's model, small enough to commit."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.records import ARTIFACTS, write_json
from steps.study_story import ALONE, MEANS, PRUNED, alone_rows, limits, percent, pruned_cells
from textbooks.exam import STRATA

if TYPE_CHECKING:
    from textbooks.study import Plan

DEVIATIONS = (
    ("parameters", "350 M and 1.3 B", "{parameters:,}", "a laptop trains it in minutes"),
    ("raw code", "The Stack and StackOverflow, 35 B tokens", "Python's standard library, {raw:,} characters",
     "every machine with Python holds it"),
    ("filter's labels", "100 k, by GPT-4", "400, by a language model (Claude)", "each label says who judged"),
    ("textbooks", "under 1 B tokens, by GPT-3.5", "{pages:,} characters, by a grammar", "no endpoint is needed, and "
     "every claim in them was computed"),
    ("exercises", "180 M tokens, by GPT-3.5", "{exercises:,} characters, by a grammar, each verified",
     "a solution that was run is known to be right"),
    ("optimizer", "AdamW", "Muon and AdamW", "as in step 07"),
    ("model", "rotary positions, parallel attention and MLP", "GPT-2's shape (step 07)", "this project built it"),
    ("examination", "HumanEval", "six strata of problems, HumanEval's solutions foreseen", "strata tell what was "
     "learned, and what only seems so"),
    ("controls", "none", "equal tokens, permuted code, random subset, copying", "to tell quality from domain and form"),
)  # fmt: skip


def keep(run: Mapping[str, Any], folder: Path, plan: "Plan") -> Path:
    """Write everything about the study into artifacts/ and return where."""
    from textbooks import report

    target = ARTIFACTS / run["step_name"]
    if run["step_name"].startswith("10"):
        best = report.best(run["arms"])
        run = {**run, "deviations": deviations(run), "model_kept": best}
        everything = {**run["pretrained"], **run["arms"]}
        report.draw_ladder(target / "ladder.png", everything, run["baseline_copying"])
        keep_model(folder / f"seed-{plan.seeds[0]}" / best / "model", target / "model")
        adapter = folder / "real" / "after" / "adapter"
        if adapter.exists():
            shutil.rmtree(target / "adapter", ignore_errors=True)
            shutil.copytree(adapter, target / "adapter")
    else:
        report.draw_ladder(target / "ladder.png", run["arms"], run["baseline_copying"])
    report.draw_curves(target / "learning_curves.png", run["arms"])
    write_json(target / "run.json", run)
    (target / "report.md").write_text(markdown(run), encoding="utf-8")
    return target


def keep_model(source: Path, target: Path) -> None:
    """The model's folder with its weights in float16."""
    from safetensors.torch import load_file, save_file

    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, target / name)
    weights = {name: value.half() for name, value in load_file(source / "model.safetensors").items()}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})


def deviations(run: Mapping[str, Any]) -> list[dict[str, str]]:
    """Where this study differs from the paper (arXiv 2306.11644), and why."""
    sizes = {
        "parameters": run["parameters"],
        "raw": run["pretrained"]["A"]["characters"],
        "pages": run["arms"]["C+T"]["characters"],
        "exercises": run["arms"]["C+X"]["characters"],
    }
    names = ("what", "paper", "ours", "why")
    return [dict(zip(names, (cell.format(**sizes) for cell in row), strict=True)) for row in DEVIATIONS]


def markdown(run: Mapping[str, Any]) -> str:
    """The report: the same tables as the walkthrough's, for reading without a terminal."""
    on = run["machine"]
    lines = [
        f"# {run['step_name'][:2]} · The case study: does data quality beat quantity?",
        "",
        f"`{run['command']}` · {len(run['seeds'])} seeds · {run['parameters']:,} parameters · "
        f"{run['wall_seconds']:,.0f} s on {on['cores']} cores of {on['cpu']}, torch {on['torch']}.",
        "",
        "![Problems solved by training data](ladder.png)",
        "",
        "## Problems solved at the first try, % (95 % interval)",
        "",
        f"| arm | reads | {' | '.join(STRATA)} |",
        f"|---|---|{'---|' * len(STRATA)}",
    ]
    for name, arm in {**run.get("pretrained", {}), **run["arms"]}.items():
        lines.append(f"| {name} | {arm['title']} | {' | '.join(percent(arm['scores'][s]) for s in STRATA)} |")
    copying = run["baseline_copying"]["scores"]
    lines.append(f"| copying | the nearest docstring's solution | {' | '.join(percent(copying[s]) for s in STRATA)} |")
    lines += ["", *(f"- **{s}** ({copying[s]['problems']} problems): {MEANS[s]}." for s in STRATA)]
    lines += ["", "## Beside it", "", "| arm | answers that parse | prefers the right body | HumanEval, bits a byte |"]
    lines += ["|---|---|---|---|"]
    for name, arm in {**run.get("pretrained", {}), **run["arms"]}.items():
        choice = arm["forced_choice"]["same"]
        told = f"{100 * choice['value']:.1f} ({100 * choice['low']:.0f}–{100 * choice['high']:.0f}) %"
        lines.append(f"| {name} | {100 * arm['parse_rate']:.1f} % | {told} | {arm['humaneval_bits_per_byte']:.3f} |")
    for section in (_pass_at_k, _hypotheses, _alone, _decontamination, _real, _deviations):
        lines += section(run)
    return "\n".join([*lines, "", "## What this does not show", "", *(f"- {line}" for line in limits(run)), ""])


def _pass_at_k(run: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, arm in run["arms"].items():
        if "pass_at_k" in arm:
            rates = " · ".join(f"pass@{k} {100 * rate:.1f} %" for k, rate in arm["pass_at_k"]["same"].items())
            lines.append(f"- {name}, {arm['samples']} samples a problem, stratum same: {rates}")
    return ["", *lines] if lines else []


def _hypotheses(run: Mapping[str, Any]) -> list[str]:
    if "hypotheses" not in run:
        return []
    lines = ["", "## Claimed before the run", "", "| claim | compared | difference, points | p (Holm) | |"]
    lines.append("|---|---|---|---|---|")
    for claim in run["hypotheses"]:
        told = f"{100 * claim['difference']:+.1f} ({100 * claim['low']:+.1f} to {100 * claim['high']:+.1f})"
        verdict = claim["verdict"]
        if verdict == "not shown":
            verdict += f"; {100 * claim['detectable']:.1f} points would have been, four times in five"
        sides = f"{claim['better']} against {claim['worse']}: {', '.join(claim['strata'])}"
        lines.append(f"| {claim['statement']} | {sides} | {told} | {claim['p_holm']:.2g} | {verdict} |")
    return [*lines, "", "Paired bootstrap over problems; exact McNemar (sign test over seeds); Holm's correction."]


def _alone(run: Mapping[str, Any]) -> list[str]:
    if "against_exercises_alone" not in run:
        return []
    lines = ["", "## What reading first added to exercises alone", "", "| arm | reads | difference, points | by seed |"]
    lines.append("|---|---|---|---|")
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in alone_rows(run)]
    return [*lines, "", ALONE]


def _decontamination(run: Mapping[str, Any]) -> list[str]:
    if not run.get("decontamination"):
        return []
    lines = ["", "## Without the exercises that resemble the examination", ""]
    lines += ["| similarity below | exercises left | with a similar one: before → after | without |"]
    lines += ["|---|---|---|---|"]
    lines += [f"| {' | '.join(pruned_cells(row))} |" for row in run["decontamination"]]
    return [*lines, "", PRUNED.format(seed=run["seeds"][0])]


def _real(run: Mapping[str, Any]) -> list[str]:
    if "real_model" not in run:
        return []
    real = run["real_model"]
    lines = ["", f"## A real pretrained model: {real['model']} with LoRA", ""]
    lines += [f"{real['parameters_trained']:,} of {real['parameters']:,} parameters were trained.", ""]
    lines += [f"| model | {' | '.join(STRATA)} | HumanEval |", f"|---|{'---|' * (len(STRATA) + 1)}"]
    for arm in ("before", "after", "permuted"):
        scores = real[arm]["scores"]
        cells = [*(percent(scores[s]) for s in STRATA), percent(real[arm]["humaneval"])]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    lines += ["", "| compared | difference, points | p |", "|---|---|---|"]
    for name, it in real["compared"].items():
        told = f"{100 * it['value']:+.1f} ({100 * it['low']:+.1f} to {100 * it['high']:+.1f})"
        lines.append(f"| {name} | {told} | {it['p']:.2g} |")
    return [*lines, "", "permuted: finetuned on exercises whose solutions belong to other docstrings."]


def _deviations(run: Mapping[str, Any]) -> list[str]:
    if "deviations" not in run:
        return []
    rows = [f"| {d['what']} | {d['paper']} | {d['ours']} | {d['why']} |" for d in run["deviations"]]
    return ["", "## Where it differs from the paper", "", "| | paper | here | why |", "|---|---|---|---|", *rows]
