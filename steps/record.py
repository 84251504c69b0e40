"""`python -m steps.record`: run the steps with their laptop presets and keep what they say.

Each step runs as a learner would run it, in a process of its own. What is kept under artifacts/NN_name/ is the record,
the sample, the picture and the weights in float16, after a check that the float16 weights write the same sample.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from common.records import ARTIFACTS, recorded_runs, write_json
from common.terminal import heading, make_console
from steps.ladder import LANGUAGE_MODEL
from steps.planting import BUG, YOURS
from steps.story import read

app = typer.Typer(add_completion=False)


@app.command()
def main(
    numbers: Annotated[list[int] | None, typer.Argument(help="the steps to record  [default: 1 to 7]")] = None,
    seed: Annotated[int, typer.Option(help="the seed of every run")] = 1337,
) -> None:
    """Record the steps again and draw the ladder."""
    for replaced in (BUG, YOURS):
        if os.environ.get(replaced):
            raise typer.BadParameter(
                f"{replaced} replaces a step, and only the steps as they are are recorded: unset it"
            )
    console = make_console()
    for number in numbers or LANGUAGE_MODEL:
        if number not in LANGUAGE_MODEL:
            raise typer.BadParameter(f"there is no language model in step {number}: choose from 1 to 7")
        heading(console, f"recording {read(number).name}")
        record(number, seed)
    draw_ladder(ARTIFACTS / "ladder.png")
    console.print(f"recorded under {ARTIFACTS.name}/")


def record(number: int, seed: int) -> None:
    """Run one step in a process of its own and move what it made into artifacts/."""
    story = read(number)
    folder = ARTIFACTS / story.name
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "run"
        options = ["--seed", str(seed), "--out", str(out), "--plot", str(folder / "run.png")]
        subprocess.run([sys.executable, "-m", f"steps.{story.name}", *options], check=True)
        run = json.loads((out / "run.json").read_text(encoding="utf-8"))
        keep_weights(number, out, folder / "checkpoint", run)
    run["command"] = f"python -m steps.{story.name} --seed {seed}"
    write_json(folder / "run.json", run)
    (folder / "sample.txt").write_text(run["sample"]["text"] + "\n", encoding="utf-8")


def keep_weights(number: int, out: Path, folder: Path, run: dict) -> None:
    """Save the weights in float16 if they still write the recorded sample, else in float32."""
    import torch

    from common import checkpoint
    from common.tokenizer import CharTokenizer
    from steps import load

    saved, _ = checkpoint.newest(out)
    step = load(number)
    about = {key: saved.about[key] for key in ("step_name", "preset", "seed", "config", "alphabet", "book")}
    tokenizer, sample = CharTokenizer(about["alphabet"]), run["sample"]
    start = torch.from_numpy(tokenizer.encode(sample["prompt"]))[None]
    for dtype in (torch.float16, torch.float32):
        model = step.Model(step.Config(**about["config"])).eval()
        saved.restore(model)
        model.to(dtype).float()  # what loading the rounded weights gives
        generator = torch.Generator().manual_seed(run["seed"])
        length = len(sample["text"]) - start.size(1)
        text = model.generate(start, length, sample["temperature"], sample["top_k"], generator)[0]
        if tokenizer.decode(text.tolist()) == sample["text"]:
            break
    with tempfile.TemporaryDirectory() as scratch:
        made = checkpoint.save(Path(scratch), saved.step, model.to(dtype), (), {**about, "dtype": str(dtype)[6:]})
        shutil.copytree(made, folder)


def draw_ladder(path: Path) -> None:
    """Draw the recorded losses, one bar a step."""
    import math

    from common.plotting import plot_ladder

    runs = {number: run for number, run in recorded_runs().items() if number in LANGUAGE_MODEL}
    rungs = [(f"{number:02d}  {read(number).title}", run["val_loss"]) for number, run in runs.items()]
    plot_ladder(path, rungs, math.log(len(runs[max(runs)]["alphabet"])))


if __name__ == "__main__":
    app()
