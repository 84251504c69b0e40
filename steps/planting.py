"""Changed copies of modules that take the place of the originals, in this process and those it starts.

Python looks for `common.data` in every folder of `common.__path__`, first one first. So a folder with a changed
data.py in front of the others is all it takes: nothing else moves, line numbers and shape checks stay as they were,
and any other import hook (jaxtyping's, coverage's) sees an ordinary file.

Two environment variables ask for it, because child processes inherit those: GPT_STEPS_BUG names a planted bug
(steps/bugs.toml), GPT_STEPS_YOURS a folder with a learner's versions of step files (steps/exercises.py).
"""

import atexit
import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

BUG, YOURS = "GPT_STEPS_BUG", "GPT_STEPS_YOURS"


def from_environment() -> None:
    """What steps/__init__.py does first when one of the variables is set. Raises ValueError, one sentence."""
    if os.environ.get(YOURS):
        for file in sorted(Path(os.environ[YOURS]).glob("[0-9][0-9]_*.py")):
            take_the_place_of(f"steps.{file.stem}", file.read_text(encoding="utf-8"))
    if os.environ.get(BUG):
        from steps.bugs import find

        bug = find(os.environ[BUG])
        take_the_place_of(bug.module, bug.planted())


def take_the_place_of(module: str, source: str) -> None:
    """From now on, importing `module` ("common.data") runs `source`. Raises RuntimeError if it was imported before."""
    if module in sys.modules:
        raise RuntimeError(f"{module} is imported already: plant before that, in a fresh process")
    package, _, name = module.rpartition(".")
    folder = Path(tempfile.mkdtemp(prefix="gpt-steps-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    importlib.import_module(package).__path__.insert(0, str(folder))
