"""The planted bugs: one-place mistakes in our own code, each of which a named test must catch.

python -m steps.bugs list             all of them, with hints
python -m steps.bugs show NAME        one of them, as a diff
python -m steps.bugs verify           plant each in turn and demand that its tests turn red
python -m steps.05_multihead --bug NAME      walk through a step with a bug planted
"""

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILE = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class Bug:
    """One mistake in one place of one file."""

    name: str  # "05_multihead.no-mask": the file's stem, a dot, what it is called
    mistake: str  # what was done wrong, in a few words
    before: str  # text that occurs exactly once in the file …
    after: str  # … and what the mistake makes of it
    symptom: str  # what one sees
    hint: str  # where to look
    caught_by: tuple[str, ...]  # pytest ids; every one must fail
    kind: str = "silent"  # "shape": it crashes

    @property
    def module(self) -> str:
        """As in `import common.data`."""
        stem = self.name.split(".")[0]
        return f"{'steps' if stem[:2].isdigit() else 'common'}.{stem}"

    @property
    def file(self) -> Path:
        return ROOT / f"{self.module.replace('.', '/')}.py"

    @property
    def step(self) -> int | None:
        """The step it is planted in; None for `common`, which all steps share."""
        return int(self.name[:2]) if self.name[:2].isdigit() else None

    def planted(self) -> str:
        """The file's text with the bug in it. Raises ValueError if the text to change is not there exactly once."""
        text = self.file.read_text(encoding="utf-8")
        if text.count(self.before) != 1:
            raise ValueError(
                f"bug {self.name}: its `before` occurs {text.count(self.before)} times in {self.file.name}, "
                f"not once: mend it in {FILE.name}"
            )
        return text.replace(self.before, self.after)

    def diff(self) -> list[str]:
        """What was changed, as the lines of a unified diff."""
        old, new = self.file.read_text(encoding="utf-8").splitlines(), self.planted().splitlines()
        return list(difflib.unified_diff(old, new, "right", "wrong", n=2, lineterm=""))[2:]


@cache
def catalog() -> dict[str, Bug]:
    """Every bug of bugs.toml by its full name."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    bugs = (
        Bug(name=f"{stem}.{name}", **{**fields, "caught_by": tuple(fields["caught_by"])})
        for stem, named in tables.items()
        for name, fields in named.items()
    )
    return {bug.name: bug for bug in bugs}


def find(name: str, step: int | None = None) -> Bug:
    """A bug by its full name, or by the short one ("no-mask") among those of a step and of `common`.

    Raises ValueError, one sentence.
    """
    here = of_step(step) if step is not None else list(catalog().values())
    found = [bug for bug in here if name in (bug.name, bug.name.split(".")[1])]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{name!r} could be {' or '.join(bug.name for bug in found)}: say which")
    near = difflib.get_close_matches(name, [part for bug in here for part in (bug.name, bug.name.split(".")[1])], 1)
    where = f"step {step:02d}" if step is not None else FILE.name
    raise ValueError(
        f"there is no bug {name!r} in {where}: " + (f"did you mean {near[0]}?" if near else "--bug list names them")
    )


def of_step(step: int) -> list[Bug]:
    """The bugs that a run of this step can show: its own, then those of `common`."""
    return sorted((bug for bug in catalog().values() if bug.step in (step, None)), key=lambda bug: bug.step is None)
