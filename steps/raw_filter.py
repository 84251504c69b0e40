"""`python -m steps.raw_filter`: which functions of Python's own library are worth reading? (phi-1's filter, in small)

Trains step 07's GPT on the raw corpus, predicts the labelled chunks' educational value from its states, and compares
that with two filters that need no model. What comes of it is recorded beside step 08.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from common.records import fingerprint, write_json
from common.terminal import bar, make_console
from steps import FOLDER, load

BLOCK = 128  # tokens of byte-level BPE

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    steps: Annotated[int, typer.Option(help="training steps of the small code model", min=1)] = 500,
    seed: Annotated[int, typer.Option(help="everything random follows from it", min=0)] = 1,
    record: Annotated[bool, typer.Option("--record", help="keep the figures in artifacts/")] = False,
    show: Annotated[bool, typer.Option("--show", help="tell what is recorded, without running it")] = False,
) -> None:
    from textbooks import story

    if show:
        story.show_filter(make_console(), story.recorded_filter())
        return
    run = measure(steps, seed)
    story.show_filter(make_console(), run)
    if record:
        write_json(story.FILTER, run)


def measure(steps: int, seed: int) -> dict[str, Any]:
    """Train, embed, predict, compare: everything about one run of the filter."""
    from common.runtime import machine
    from common.training import Recipe
    from textbooks import educational_value as value
    from textbooks import raw_code
    from textbooks.code_model import mean_pooled_states, train_code_model

    began = time.perf_counter()
    step = load(7)
    chunks = raw_code.chunks(raw_code.standard_library())
    labels, second = value.read_labels(value.FIRST), value.read_labels(value.SECOND)
    recipe = Recipe(steps, 16, 1e-3, optimizer="muon", warmup_steps=steps // 20, final_share=0.1)
    losses: list[float] = []
    with bar(make_console(), steps, 0, "code model") as progress:

        def watch(done: Any) -> None:
            losses.append(done.loss)
            progress.update(done.step, [f"loss {done.loss:.3f}"])

        model, encode = train_code_model(
            lambda vocab_size: step.Model(step.Config(vocab_size=vocab_size, block_size=BLOCK)),
            [chunk.source for chunk in chunks],
            recipe,
            seed,
            watch,
        )
    quality = value.compare(chunks, lambda texts: mean_pooled_states(model, encode, texts), labels, seed)
    return {
        "command": f"python -m steps.raw_filter --record --steps {steps} --seed {seed}",
        "corpus": {"chunks": len(chunks), "characters": sum(len(chunk.source) for chunk in chunks)},
        "labels": {
            "n": len(labels),
            "found_here": sum(chunk.key in labels for chunk in chunks),
            "source": next(iter(labels.values())).source,
            "second_source": next(iter(second.values())).source,
            "agreement": asdict(value.agreement(labels, second)),
        },
        "code_model": {"steps": steps, "last_loss": sum(losses[-20:]) / len(losses[-20:])},
        "quality": {name: asdict(found) for name, found in quality.items()},
        "seed": seed,
        "wall_seconds": round(time.perf_counter() - began, 1),
        "machine": machine(),
        "fingerprint": {file.stem: fingerprint(file) for file in (FOLDER / "07_full_gpt.py", Path(__file__))},
    }


if __name__ == "__main__":
    app()
