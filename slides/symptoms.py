"""`python -m slides.symptoms`: what the loss says about planted mistakes, and which check finds each of them.

Each mistake of MISTAKES is planted in a small model, which trains beside a healthy one as in the clinic; then the
checklist examines it. What was seen is kept in artifacts/symptoms/run.json. `--only NAME` does one mistake over.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer

from common.records import ARTIFACTS, fingerprint, write_json
from steps import clinic, path
from steps.bugs import find
from steps.planting import BUG

RECORD = ARTIFACTS / "symptoms" / "run.json"
MISTAKES = {  # planted in this file, and looked at in this step
    "01_bigram.softmax-before-cross-entropy": 1,
    "02_averaging.masked-with-zero": 2,
    "03_attention.mask-off-by-one": 3,
    "03_attention.mask-too-weak": 3,
    "04_single_head.value-is-key": 4,
    "05_multihead.scaled-by-channels": 5,
    "05_multihead.heads-in-a-plain-list": 5,
    "06_block.layernorm-over-time": 6,
    "06_block.residual-from-the-copy": 6,
    "06_block.dropout-left-on": 6,
    "07_full_gpt.heads-not-transposed-back": 7,
    "07_full_gpt.cache-position-off-by-one": 7,
    "07_full_gpt.causal-with-cache": 7,
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    only: Annotated[list[str] | None, typer.Option(help="do this mistake alone, and keep what is recorded")] = None,
    book: Annotated[str, typer.Option(help="what is read: python -m book_data list")] = "moby-dick",
    inside: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    if inside:  # this is the process with the mistake in it
        print(json.dumps(checks(inside, book)))
        return
    unknown = set(only or ()) - set(MISTAKES)
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)} is not examined here: choose from {', '.join(MISTAKES)}")
    from common.runtime import machine

    run = {"healthy": {}, "mistakes": {}}
    if only and RECORD.exists():
        run = json.loads(RECORD.read_text(encoding="utf-8"))
    run |= {"command": "python -m slides.symptoms", "book": book, "characters": clinic.CHARACTERS, "machine": machine()}
    run |= {"steps": clinic.STEPS, "sizes": clinic.SIZES, "fingerprints": fingerprints()}
    for name in only or MISTAKES:
        step = MISTAKES[name]
        healthy = run["healthy"].get(str(step)) or trained(step, book, "")
        run["healthy"][str(step)] = healthy
        run["mistakes"][name] = seen = {"step": step, "mistake": find(name).mistake, **trained(step, book, name)}
        failed = [check for check in examined(step, book, name) if check["passed"] is False]
        seen["failed_checks"] = [{key: check[key] for key in ("name", "measured")} for check in failed]
        run["mistakes"] = {key: run["mistakes"][key] for key in MISTAKES if key in run["mistakes"]}
        write_json(RECORD, run)
        red = "; ".join(check["name"] for check in failed) or "no check turns red"
        print(f"{name}: {healthy['val_loss']:.3f} healthy, {seen['val_loss']:.3f} with it; {red}", flush=True)


def fingerprints() -> dict[str, str]:
    """Of every step that is looked at: a record is stale when its code has changed."""
    return {str(step): fingerprint(path(step)) for step in sorted(set(MISTAKES.values()))}


def trained(step: int, book: str, bug: str) -> dict[str, Any]:
    """The last losses of a short run, and what the model writes, greedily and drawn."""
    ran = clinic._inside("run", step, book, bug)
    ran.check_returncode()
    found = json.loads(ran.stdout)
    texts = {"greedy": found["texts"]["temperature 0"], "drawn": found["texts"]["seed 1"]}
    train_loss = found["curve"][-1]["train_loss"]
    return {"train_loss": train_loss, "texts": texts, **{key: found[key] for key in ("val_loss", "parameters")}}


def examined(step: int, book: str, bug: str) -> list[dict[str, Any]]:
    """The checklist's findings, from a process with the mistake planted."""
    command = [sys.executable, "-m", "slides.symptoms", "--inside", str(step), "--book", book]
    environment = {**os.environ, BUG: bug, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=True)
    return json.loads(ran.stdout)


def checks(step: int, book: str) -> list[dict[str, Any]]:
    from common.checks import checklist

    module, config, corpus = clinic.patient(step, book)
    config = replace(config, **({"dropout": 0.0} if hasattr(config, "dropout") else {}))
    return [asdict(check) for check in checklist(lambda: module.Model(config), corpus.train)]


if __name__ == "__main__":
    app()
