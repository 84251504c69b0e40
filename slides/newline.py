"""`python -m slides.newline`: what one line end at the end of a prompt costs a model of code.

SmolLM2 completes the HumanEval problems greedily, once with the prompts as they were published and once without the
white space at their ends. How many it solves is kept in artifacts/newline/run.json, with some raw answers.
"""

import json
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from common.records import ARTIFACTS, write_json

RECORD = ARTIFACTS / "newline" / "run.json"
MAX_NEW_TOKENS = 128
SHOWN = 4  # raw answers kept of each way


class Way(StrEnum):
    published, stripped = "published", "stripped"


@dataclass(frozen=True)
class WithLineEnd:
    """A tokenizer that puts back the line end which this project takes off every prompt."""

    inner: Any

    def __call__(self, prompt: str) -> Any:
        return self.inner(prompt + "\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def main(
    only: Annotated[Way | None, typer.Option(help="do this way alone, and keep what is recorded of the other")] = None,
) -> None:
    """Measure both ways, about two minutes each, and record them."""
    from common.runtime import machine
    from textbooks.teachers.local import fetch

    run: dict[str, Any] = {"ways": {}}
    if only and RECORD.exists():
        run = json.loads(RECORD.read_text(encoding="utf-8"))
    run |= {"command": "python -m slides.newline", "model": fetch().stem, "dtype": "bfloat16", "machine": machine()}
    run |= {"max_new_tokens": MAX_NEW_TOKENS, "temperature": 0}
    for way in [only] if only else Way:
        run["ways"][str(way)] = measured(way)
        write_json(RECORD, run)
        print(f"{way}: {run['ways'][way]['passed']} of {run['ways'][way]['problems']}", flush=True)


def measured(way: Way) -> dict[str, Any]:
    from textbooks.completion import Coder, complete
    from textbooks.humaneval import check_many, problems
    from textbooks.teachers.local import fetch, load

    began = time.perf_counter()
    model, tokenizer = load(fetch())
    coder = Coder(model, WithLineEnd(tokenizer) if way is Way.published else tokenizer)
    found = problems()
    texts = [one for (one,) in complete(coder, [problem.prompt for problem in found], MAX_NEW_TOKENS)]
    passed = [outcome.passed for _, outcome in check_many(list(zip(found, texts, strict=True)))]
    return {
        "passed": sum(passed),
        "problems": len(passed),
        "outcomes": "".join("01"[one] for one in passed),
        "answers": texts[:SHOWN],
        "seconds": round(time.perf_counter() - began, 1),
    }


if __name__ == "__main__":
    typer.run(main)
