"""The walk through one step: idea, trace, training, sample, ladder, what comes next."""

import math
import time
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from rich.console import Console
from rich.markup import escape

import book_data
from common import checkpoint, experiment, hf
from common.data import Corpus, read_corpus, require_length
from common.records import fingerprint, write_json
from common.runtime import Runtime, join_processes, machine, resolve
from common.terminal import bar, count, duration, heading, make_console, passage
from common.tokenizer import CharTokenizer
from common.training import Recipe
from steps import load
from steps.committed import committed
from steps.show import draw, show_checks, show_facts, show_ladder, show_loss, show_trace, tell_idea
from steps.story import Story
from steps.walkthrough import INTERRUPTED, Options


def walk(story: Story, options: Options, command: str, console: Console | None = None) -> int:
    """Show one step from idea to sample. Returns the exit code."""
    step = load(story.number)
    recipe = _recipe(step.RECIPE, options)
    runtime = resolve(options.device, options.dtype, recipe.dtype)
    join_processes(runtime.device)
    console = console or make_console(quiet=not runtime.is_main)
    if (options.no_train or options.from_hf) and not options.check:
        return _walk_saved(console, story, step, options, runtime)
    return _walk_live(console, story, step, recipe, options, runtime, command)


def _walk_live(
    console: Console, story: Story, step: Any, recipe: Recipe, options: Options, runtime: Runtime, command: str
) -> int:
    began = time.perf_counter()
    saved, lines = checkpoint.newest(options.out) if options.resume else (None, [])
    if saved is not None:
        recipe, options = _as_before(saved, story, recipe, options)
    tell_idea(console, story)
    book = book_data.load(
        options.book, text=options.text, on_note=lambda note: console.print(escape(note), style="yellow")
    )
    if saved is not None and saved.about["book"]["sha256"] != book.sha256:
        raise ValueError(f"{options.out} was trained on another text than {book.title}: name the same --book or --text")
    corpus = read_corpus(book.path)
    config = _config(step, recipe, len(corpus.tokenizer))
    require_length(corpus, config.block_size)
    options = replace(options, prompt=_prompt(options, corpus.tokenizer))
    torch.manual_seed(options.seed)
    model = step.Model(config).to(runtime.device)
    show_facts(
        console,
        ("runs on", runtime.reason),
        ("reads", f"{book.title} · {count(book.characters)} characters, {len(corpus.tokenizer)} distinct"),
        ("preset", f"{options.preset} · seed {options.seed} · {_in_words(recipe, config.block_size)}"),
        *[("note", line) for line in lines],
    )
    if options.check:
        return show_checks(console, step, config, corpus, options.seed)
    rows = show_trace(console, model, whole=options.trace)
    if options.trace:
        return 0
    about = {
        "step_name": story.name,
        "preset": options.preset,
        "seed": options.seed,
        "config": asdict(config),
        "recipe": experiment.as_json(recipe),
        "alphabet": corpus.tokenizer.alphabet,
        "book": {"name": book.name, "title": book.title, "sha256": book.sha256, "characters": book.characters},
    }
    result = _train(console, model, corpus, recipe, runtime, options, about, saved)
    if result.interrupted:
        again = command.removesuffix(" --resume") + " --resume"
        console.print(f"\nstopped at step {result.step:,} and saved; go on with: [bold]{escape(again)}[/]")
        return INTERRUPTED
    show_loss(console, result, config.vocab_size)
    text = _show_sample(console, model, corpus.tokenizer, options)
    if runtime.is_main:
        record = {
            "command": command,
            **about,
            "parameters": sum(p.numel() for p in model.parameters()),
            "steps": result.step,
            "tokens_seen": result.step * recipe.batch_size * config.block_size,
            "train_seconds": round(result.train_seconds, 1),
            "wall_seconds": round(time.perf_counter() - began, 1),
            "machine": machine(),
            "device": str(runtime.device),
            "dtype": str(runtime.dtype).removeprefix("torch."),
            "val_loss": result.val_loss,
            "val_tokens": result.val_tokens,
            "bits_per_char": result.val_loss / math.log(2),
            "curve": result.curve,
            "sample": {
                "prompt": options.prompt,
                "temperature": options.temperature,
                "top_k": options.top_k,
                "text": text,
            },
            "trace": [asdict(row) for row in rows],
            "fingerprint": fingerprint(story.file),
        }
        if options.bug is None:  # a run with a planted bug must never be taken for a record
            write_json(options.out / "run.json", record)
        console.print(f"checkpoint and record are in {options.out}", style="dim")
        _export(console, model, corpus.tokenizer, options.export_hf)
        draw(console, options.plot, story, model, corpus.tokenizer, result.curve)
    show_ladder(console, story, result.val_loss)
    return 0


def _walk_saved(console: Console, story: Story, step: Any, options: Options, runtime: Runtime) -> int:
    """The walkthrough with weights that are there already: no training, no network."""
    tell_idea(console, story)
    if options.from_hf:
        model, tokenizer = _from_hf(step, options.from_hf)
        facts, curve = [("weights", str(options.from_hf))], []
    else:
        model, tokenizer, record = committed(story.number)
        where = f"{record['machine']['cores']} cores of {record['machine']['cpu']}"
        facts = [
            ("recorded", f"{record['steps']:,} steps in {duration(record['train_seconds'])} on {where}"),
            ("read", f"{record['book']['title']} · seed {record['seed']}"),
        ]
        curve = record["curve"]
    model.to(runtime.device)
    show_facts(console, ("runs on", runtime.reason), *facts)
    show_trace(console, model, whole=options.trace)
    if options.trace:
        return 0
    _show_sample(console, model, tokenizer, replace(options, prompt=_prompt(options, tokenizer)))
    _export(console, model, tokenizer, options.export_hf)
    draw(console, options.plot, story, model, tokenizer, curve)
    show_ladder(console, story)
    return 0


def _from_hf(step: Any, folder: Path) -> tuple[nn.Module, CharTokenizer]:
    """A model and its characters from a folder that `--export-hf` wrote."""
    if step.Config.__dataclass_fields__.keys() < hf.SIZES.keys():
        raise ValueError("GPT-2's weights fit its exact shape only: use them with step 07")
    model = step.Model(step.Config(**hf.read_sizes(folder)))
    hf.import_hf(model, folder)
    return model, CharTokenizer(hf.read_alphabet(folder))


def _export(console: Console, model: nn.Module, tokenizer: CharTokenizer, folder: Path | None) -> None:
    if folder:
        hf.export_hf(model, folder, tokenizer.alphabet)
        console.print(f"transformers.AutoModelForCausalLM.from_pretrained({str(folder)!r}) opens it", style="dim")


def _prompt(options: Options, tokenizer: CharTokenizer) -> str:
    """What was asked for, or a line end, or in a text that has none its first character.

    Raises ValueError for characters that the model does not know: better before training than after.
    """
    prompt = options.prompt or ("\n" if "\n" in tokenizer.alphabet else tokenizer.alphabet[0])
    tokenizer.encode(prompt)
    return prompt


def _show_sample(console: Console, model: nn.Module, tokenizer: CharTokenizer, options: Options) -> str:
    """Let the model write `--sample` characters after the prompt."""
    device = next(model.parameters()).device
    idx = torch.from_numpy(tokenizer.encode(options.prompt))[None].to(device)
    generator = torch.Generator(device).manual_seed(options.seed)
    heading(console, "What it writes")
    model.eval()
    out = model.generate(idx, options.sample, options.temperature, options.top_k, generator)
    text = tokenizer.decode(out[0].tolist())
    console.print(passage(text, f"temperature {options.temperature:g}", options.prompt))
    return text


def _train(
    console: Console,
    model: nn.Module,
    corpus: Corpus,
    recipe: Recipe,
    runtime: Runtime,
    options: Options,
    about: dict[str, Any],
    saved: checkpoint.Checkpoint | None,
) -> experiment.Result:
    heading(console, "Training")
    if saved is None and runtime.is_main:
        _make_room(console, options.out)
    start = saved.step if saved else 0
    if saved:
        console.print(f"going on from step {start:,}", style="dim")
    with bar(console, recipe.steps, start, "training") as progress:

        def show(state: experiment.State) -> None:
            facts = [f"loss {state.loss:.3f}"]
            facts += [f"val {state.val_loss:.3f}"] if state.val_loss is not None else []
            progress.update(state.step, [*facts, f"{count(state.tokens_per_second)} tok/s"])

        return experiment.run(
            model,
            corpus,
            recipe,
            runtime,
            seed=options.seed,
            folder=options.out,
            about=about,
            resume_from=saved,
            on_step=show,
        )


def _make_room(console: Console, folder: Path) -> None:
    """A new run never overwrites an old one: what is in the way moves aside."""
    if folder.exists() and any(folder.iterdir()):
        number = next(n for n in range(1, 10_000) if not folder.with_name(f"{folder.name}.{n}").exists())
        folder.rename(folder.with_name(f"{folder.name}.{number}"))
        console.print(f"an earlier run was moved to {folder.name}.{number}", style="dim")


def _recipe(presets: dict[str, Recipe], options: Options) -> Recipe:
    if options.preset not in presets:
        raise ValueError(f"there is no preset {options.preset!r}: choose {', '.join(presets)}")
    recipe = presets[options.preset]
    given = dict(options.recipe)
    recipe = experiment.scaled(recipe, given.pop("steps", None))
    return replace(recipe, **given, model={**recipe.model, **options.model})


def _config(step: Any, recipe: Recipe, vocab_size: int) -> Any:
    known = {field.name for field in fields(step.Config)}
    unknown = [name for name in recipe.model if name not in known]
    if unknown:
        raise ValueError(
            f"this step has no {unknown[0]}: leave --{unknown[0].replace('_', '-')} out, or climb to a later step"
        )
    return step.Config(vocab_size=vocab_size, **recipe.model)


def _in_words(recipe: Recipe, block_size: int) -> str:
    return f"{recipe.optimizer} · {recipe.steps:,} steps of {recipe.batch_size} × {block_size} characters"


def _as_before(saved: checkpoint.Checkpoint, story: Story, recipe: Recipe, options: Options) -> tuple[Recipe, Options]:
    """Recipe and options of the run that is continued; only --steps may differ."""
    about = saved.about
    if about["step_name"] != story.name:
        raise ValueError(
            f"{options.out} holds a run of {about['step_name']}: continue it with that step, or choose another --out"
        )
    before = Recipe(**about["recipe"])
    named = about["book"]["name"] in book_data.catalog() and not options.text
    book = {"book": about["book"]["name"]} if named else {}
    if "steps" in options.recipe:
        before = experiment.scaled(before, int(options.recipe["steps"]))
    if before.steps < saved.step:
        raise ValueError(f"{options.out} is at step {saved.step:,} already: choose --steps above that")
    return before, replace(options, seed=about["seed"], preset=about["preset"], **book)
