"""The models that are committed beside their records."""

from typing import TYPE_CHECKING, Any

from common.records import ARTIFACTS, recorded_runs
from steps import load, path

if TYPE_CHECKING:
    import torch.nn as nn

    from common.tokenizer import CharTokenizer


def committed(number: int) -> tuple["nn.Module", "CharTokenizer", dict[str, Any]]:
    """A step's trained model, in evaluation mode on the CPU, its characters and its record.

    Raises ValueError if no run of the step is recorded.
    """
    from common import checkpoint
    from common.tokenizer import CharTokenizer

    name, run = path(number).stem, recorded_runs().get(number)
    if run is None:
        raise ValueError(f"no run of {name} is recorded: leave --no-train out")
    step, saved = load(number), checkpoint.read(ARTIFACTS / name / "checkpoint")
    model = step.Model(step.Config(**saved.about["config"])).eval()
    saved.restore(model)
    return model, CharTokenizer(saved.about["alphabet"]), run
