"""From the arms' results to what is published: rates with intervals, hypotheses, tables, figures, cards."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from textbooks import exam, statistics
from textbooks.exam import Problem
from textbooks.study import Plan

DRAWN = tuple(stratum for stratum in exam.STRATA if stratum != "unconventional")
BOOTSTRAP_SEED = 0
FLOOR = 0.05  # of all problems solved: where no arm reaches it, arms can hardly differ
Results = Mapping[str, Sequence[Mapping[str, Any]]]  # arm -> one result a seed


def outcomes(results: Sequence[Mapping[str, Any]], name: str = "passed") -> np.ndarray:
    """(seeds, problems) of 0 and 1; "-" (nothing to choose from) is NaN."""
    return np.array([[np.nan if bit == "-" else float(bit) for bit in result[name]] for result in results])


def within(problems: Sequence[Problem], strata: Sequence[str]) -> np.ndarray:
    """Which problems belong to the strata; "drawn" is all but the unconventional ones, "all" is all."""
    groups = {"drawn": DRAWN, "all": exam.STRATA}
    wanted = {stratum for name in strata for stratum in groups.get(name, (name,))}
    return np.array([problem.stratum in wanted for problem in problems])


def scores(problems: Sequence[Problem], passed: np.ndarray) -> dict[str, dict[str, float]]:
    """Stratum → pass@1 with its interval, for (seeds, problems) of 0 and 1; and "all"."""
    return {stratum: rate(passed[:, within(problems, [stratum])]) for stratum in (*exam.STRATA, "all")}


def rate(passed: np.ndarray) -> dict[str, float]:
    """How many problems were solved (a mean over seeds), of how many, and the rate with its interval."""
    interval = statistics.bootstrap_rate(passed, BOOTSTRAP_SEED)
    return {
        "passed": float(passed.mean(axis=0).sum()),
        "problems": passed.shape[1],
        "rate": interval.value,
        "low": interval.low,
        "high": interval.high,
    }


def arm_figures(problems: Sequence[Problem], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything that is published about one arm, over its seeds."""
    first = results[0]
    chosen = outcomes(results, "chosen")
    found = {
        "title": first["title"],
        "data": first["data"],
        "start": first["start"],
        "tuned": first["tuned"],
        "texts": first["texts"],
        "characters": first["characters"],
        "tokens_seen": first["tokens_seen"],
        "scores": scores(problems, outcomes(results)),
        "parse_rate": float(outcomes(results, "parses").mean()),
        "forced_choice": {
            stratum: asdict(statistics.bootstrap_rate(part, BOOTSTRAP_SEED))
            for stratum in exam.STRATA
            if (part := _known(chosen[:, within(problems, [stratum])])).size
        },
        "humaneval_bits_per_byte": float(np.mean([result["humaneval_bits_per_byte"] for result in results])),
        "curve": [[step, float(np.mean(losses))] for step, losses in _curves(results)],
        "outcomes": {str(result["seed"]): result["passed"] for result in results},
        "seconds": [result["seconds"] for result in results],
    }
    if "tokens" in first:
        found |= {"tokens": first["tokens"], "epochs": first["tokens_seen"] / first["tokens"]}
    if "correct" in first:
        n = first["samples"]
        found["pass_at_k"] = {
            stratum: {str(k): _pass_at(results, n, k, within(problems, [stratum])) for k in range(1, n + 1)}
            for stratum in exam.STRATA
        }
        found["samples"] = n
    return found


def _known(chosen: np.ndarray) -> np.ndarray:
    return chosen[:, ~np.isnan(chosen).any(axis=0)]


def _curves(results: Sequence[Mapping[str, Any]]) -> list[tuple[int, list[float]]]:
    return [(step, [result["curve"][i][1] for result in results]) for i, (step, _) in enumerate(results[0]["curve"])]


def _pass_at(results: Sequence[Mapping[str, Any]], n: int, k: int, part: np.ndarray) -> float:
    correct = np.array([result["correct"] for result in results])[:, part]
    return float(np.mean([statistics.pass_at_k(n, int(c), k) for c in correct.flat]))


def best(arms: Mapping[str, Mapping[str, Any]]) -> str:
    """The arm that solves most problems."""
    return max(arms, key=lambda name: arms[name]["scores"]["all"]["rate"])


def near_floor(arms: Mapping[str, Mapping[str, Any]]) -> bool:
    return arms[best(arms)]["scores"]["all"]["rate"] < FLOOR


def hypotheses() -> dict[str, dict[str, Any]]:
    return tomllib.loads(resources.files("textbooks").joinpath("hypotheses.toml").read_text(encoding="utf-8"))


def tested(problems: Sequence[Problem], passed: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Every hypothesis whose arms are there: the paired difference with its interval, exact p, and p after Holm."""
    found = []
    for name, claim in hypotheses().items():
        if claim["better"] in passed and claim["worse"] in passed:
            part = within(problems, claim["strata"])
            better, worse = (passed[claim[side]][:, part] for side in ("better", "worse"))
            interval = statistics.paired_difference(better, worse, BOOTSTRAP_SEED)
            found.append(
                {
                    "name": name,
                    **claim,
                    "difference": interval.value,
                    "low": interval.low,
                    "high": interval.high,
                    "by_seed": [float(d) for d in better.mean(axis=1) - worse.mean(axis=1)],
                    "p": statistics.mcnemar(better, worse),
                    "detectable": statistics.detectable(better, worse),
                }
            )
    for claim, p in zip(found, statistics.holm([claim["p"] for claim in found]), strict=True):
        claim["p_holm"] = p
        claim["verdict"] = verdict(claim)
    return found


def verdict(claim: Mapping[str, Any]) -> str:
    """What may be said of a claim. An interval over problems knows nothing of other trainings, so seeds must agree."""
    if claim["p_holm"] >= 0.05 or claim["low"] <= 0 <= claim["high"]:
        return "not shown"
    if min(claim["by_seed"]) > 0:
        return "holds"
    return "the reverse" if max(claim["by_seed"]) < 0 else "seeds disagree"


def against_exercises_alone(problems: Sequence[Problem], passed: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """Arm → what reading something first added to exercises alone (0+X), on all drawn problems. No claim was written
    down about these differences, so they have an interval and no p."""
    part = within(problems, ["drawn"])
    alone, found = passed["0+X"][:, part], {}
    for name in passed:
        if name.endswith("+X") and name != "0+X":
            read = passed[name][:, part]
            by_seed = [float(d) for d in read.mean(axis=1) - alone.mean(axis=1)]
            found[name] = {**asdict(statistics.paired_difference(read, alone, BOOTSTRAP_SEED)), "by_seed": by_seed}
    return found


def seed_spread(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The arm whose seeds differ most in what they solve, with the lowest and the highest share."""
    rates = {name: [np.mean([*map(int, bits)]) for bits in arm["outcomes"].values()] for name, arm in arms.items()}
    name = max(rates, key=lambda name: max(rates[name]) - min(rates[name]))
    return {"arm": name, "lowest": float(min(rates[name])), "highest": float(max(rates[name]))}


def decontamination(
    problems: Sequence[Problem], nearest: Sequence[float], results: Results, plan: Plan
) -> list[dict[str, Any]]:
    """The paper's table (section 5.2): what is left of the score when similar exercises are pruned, on the problems
    that had a similar exercise before pruning and on those that had none. `nearest` (problems,) is each problem's
    greatest similarity with an exercise."""
    part, rows = within(problems, ["drawn"]), []
    for threshold in plan.thresholds:
        name = f"C+X<{threshold:g}"
        if name not in results:
            continue
        before, after = (outcomes(results[arm])[: len(results[name])] for arm in ("C+X", name))
        kept, of = (results[arm][0]["texts"] for arm in (name, "C+X"))
        row: dict[str, Any] = {"threshold": threshold, "kept": kept, "of": of}
        for label, like in (("similar", True), ("not_similar", False)):
            chosen = part & ((np.asarray(nearest) >= threshold) == like)
            row[label] = {"problems": int(chosen.sum())}
            if chosen.any():
                rates = [statistics.bootstrap_rate(found[:, chosen], BOOTSTRAP_SEED) for found in (before, after)]
                row[label] |= {"before": asdict(rates[0]), "after": asdict(rates[1])}
        rows.append(row)
    return rows


# ---------------------------------------------------------------- pictures

def draw_ladder(path: Path, arms: Mapping[str, Mapping[str, Any]], baseline: Mapping[str, Any]) -> None:
    """pass@1 by training data, before and after finetuning, with 95 % intervals, as the paper's Figure 2.1."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(arms)
    figure, axes = plt.subplots(1, 2, figsize=(13, 5.2), sharey=True, width_ratios=(1.4, 1))
    for axis, strata in zip(axes, (("same", "pairs", "wording"), ("longer", "textbook")), strict=True):
        width = 0.8 / len(strata)
        for place, stratum in enumerate(strata):
            rates = [arms[name]["scores"][stratum] for name in names]
            x = np.arange(len(names)) + (place - (len(strata) - 1) / 2) * width
            middle = np.array([100 * rate["rate"] for rate in rates])
            spread = [[100 * abs(rate[end] - rate["rate"]) for rate in rates] for end in ("low", "high")]
            shade = ("#0b7285", "#5f3dc4", "#c2571a")[place]
            axis.bar(x, middle, width * 0.92, label=stratum, color=shade, alpha=0.85)
            axis.errorbar(x, middle, yerr=spread, fmt="none", ecolor="#222", elinewidth=1, capsize=2)
            copying = 100 * baseline["scores"][stratum]["rate"]
            axis.axhline(copying, color=shade, linestyle=":", linewidth=1)
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axis.legend(title="stratum", frameon=False, loc="upper left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.axvline(sum(not arm["tuned"] for arm in arms.values()) - 0.5, color="#999", linewidth=1)
    axes[0].set_ylabel("problems solved at the first try (%)")
    figure.suptitle("What the data does: before finetuning (left of the line) and after; dotted: copying the nearest")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def draw_curves(path: Path, arms: Mapping[str, Mapping[str, Any]]) -> None:
    """The training loss of each arm (its own data, so curves of different data are not comparable in height)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4.5))
    for name, arm in arms.items():
        axis.plot(*zip(*arm["curve"], strict=True), label=f"{name}: {arm['title']}", linewidth=1.6)
    axis.set_xlabel("training step")
    axis.set_ylabel("training loss (nats a token)")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def read_recorded(path: Path) -> dict[str, Any]:
    """Raises ValueError if nothing is recorded."""
    if not path.exists():
        raise ValueError(f"no run is recorded in {path.parent.name}: run it with --preset quick")
    return json.loads(path.read_text(encoding="utf-8"))
