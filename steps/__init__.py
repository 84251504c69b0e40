"""Seven steps from a bigram to a full GPT, and three from a teacher to a finetuned model."""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parent


def path(number: int) -> Path:
    """The file of a step, such as steps/05_multihead.py for 5."""
    found = sorted(FOLDER.glob(f"{number:02d}_*.py"))
    if not found:
        raise ValueError(f"there is no step {number}: choose one of {', '.join(map(str, numbers()))}")
    return found[0]


def numbers() -> list[int]:
    """The numbers of all steps, in order."""
    return sorted(int(file.name[:2]) for file in FOLDER.glob("[0-9][0-9]_*.py"))


def load(number: int) -> ModuleType:
    """The module of a step. A name that begins with a digit cannot follow `import`; only this place knows how."""
    return importlib.import_module(f"steps.{path(number).stem}")


def _help_at_once() -> None:
    """`python -m steps.05_multihead --help` comes by here before the step imports torch, which takes over a second."""
    asked = sys.orig_argv[sys.orig_argv.index("-m") + 1]
    stem = asked.removeprefix("steps.")
    if stem[:2].isdigit() and int(stem[:2]) <= 7 and (FOLDER / f"{stem}.py").exists():
        from steps.walkthrough import main

        main(int(stem[:2]), ["--help"])


if "GPT_STEPS_BUG" in os.environ or "GPT_STEPS_YOURS" in os.environ:
    from steps.planting import from_environment

    from_environment()

if sys.argv[0] == "-m" and "--help" in sys.argv:
    _help_at_once()
