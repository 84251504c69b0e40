"""Fifty problems that no generator knows, for evaluation only.

phi-1's authors had 50 "unconventional" problems written by people who knew neither the training data nor the model,
to ask for more than a benchmark that may have leaked (arXiv 2306.11644, section 4). These stand in the same place.
They were written by a language model, Claude, one by one: no person wrote or reviewed them, and it knew the grammar.
Nobody can say that no such idea was ever had before. What is tested: every solution passes its tests and stand-ins
fail them, none is a problem of HumanEval by any rule of `decontaminate.py`, and no composition of up to three of the
grammar's primitives, the depth trained on, passes the tests of one.

Nothing that makes training data imports this module; only the evaluation does.
"""

import tomllib
from functools import cache
from importlib import resources

from textbooks.records import Exercise

AUTHOR = "written by a language model (Claude), one by one"


@cache
def problems() -> tuple[Exercise, ...]:
    """The problems, from easy to medium. `solution` goes on from `prompt`, and neither ends with a newline."""
    text = resources.files("textbooks").joinpath("unconventional.toml").read_text(encoding="utf-8")
    return tuple(
        Exercise(
            name, row["prompt"], f"{row['prompt']}\n{row['body']}", tuple(row["tests"]),
            topic="unconventional", other_topic="", audience="", teacher=AUTHOR, teacher_prompt="", seed=0,
        )
        for name, row in tomllib.loads(text).items()
    )  # fmt: skip
