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


def _before_torch() -> None:
    """`--help` and `--present` of a step come by here before it imports torch, which takes over a second."""
    stem = sys.orig_argv[sys.orig_argv.index("-m") + 1].removeprefix("steps.")
    if not stem[:2].isdigit() or not (FOLDER / f"{stem}.py").exists():
        return
    if "--help" in sys.argv and int(stem[:2]) <= 7:
        from steps.walkthrough import main

        main(int(stem[:2]), ["--help"])
    if "--present" in sys.argv:
        from steps.present import present

        sys.exit(present(int(stem[:2])))


if "GPT_STEPS_BUG" in os.environ or "GPT_STEPS_YOURS" in os.environ:
    from steps.planting import from_environment

    from_environment()

if sys.argv[0] == "-m" and {"--help", "--present"} & set(sys.argv):
    _before_torch()
