"""Measure step 07 beside nanoGPT and Hugging Face's GPT-2: one machine, one session, one run after the other.

    git clone https://github.com/karpathy/nanoGPT
    python -m benchmarks.run --nanogpt nanoGPT                              # everything, about 20 minutes
    python -m benchmarks.run --nanogpt nanoGPT --only generate --rounds 2   # one part; the others stay
    python -m benchmarks.run --table                                        # the recorded figures, as Markdown

Every part is measured in rounds. In a round all contenders run one after the other, the first of them another one each
time, and a ratio is taken within a round only. Every side has torch's default number of threads. A round is written to
benchmarks/results.json as soon as it is done; rounds that other code or another machine measured are dropped then.
"""

import argparse
import contextlib
import datetime
import importlib.util
import io
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn as nn

import book_data
import steps
from benchmarks.table import RESULTS, table
from common.data import Corpus, batch, read_corpus
from common.experiment import scaled
from common.optimizers import make_optimizers
from common.records import fingerprint, write_json
from common.runtime import machine
from common.training import Recipe, evaluate, train

Round = dict[str, float | bool | None]
CPU = torch.device("cpu")
STEP = steps.load(7)
SMALL = {"block_size": 64, "n_embd": 128, "n_head": 4, "n_layer": 4}
LARGE = {"block_size": 256, "n_embd": 384, "n_head": 6, "n_layer": 6}

TARGET = 1.873  # nats: what nanoGPT's CPU setting ends at on this book
SHORT = 450  # steps of our run to it: the laptop recipe, its schedule ending here
LOOK_EVERY = 25  # training steps between two measurements of the validation loss …
LOOK_BELOW = TARGET + 0.2  # … once the training loss (mean over as many steps) is below this
BIG_TEXT = 1_000_000_000  # bytes


# ── the two sides ───────────────────────────────────────────────────────────────────────────────────────────────────


def novel() -> Corpus:
    return read_corpus(book_data.load(fallback=False).path)


def our_training(corpus: Corpus, seed: int, recipe: Recipe) -> tuple[nn.Module, Iterator[float]]:
    """Step 07 and its training: each `next` is one step, its loss in nats."""
    torch.manual_seed(seed)
    model = STEP.Model(STEP.Config(vocab_size=len(corpus.tokenizer), **SMALL))
    optimizers = make_optimizers(
        model, recipe.optimizer, recipe.learning_rate, recipe.muon_learning_rate, recipe.weight_decay
    )
    return model, (done.loss for done in train(model, optimizers, corpus.train, recipe, seed=seed, device=CPU))


def their_training(
    corpus: Corpus, seed: int, nanogpt: ModuleType, bias: bool
) -> tuple[nn.Module, Iterator[float]]:
    """nanoGPT's model and optimizer, driven as its README and config/train_shakespeare_char.py set its CPU run.

    4 × 128, block 64, batch 12, 2000 iterations, no dropout, AdamW 1e-3 with β₂ 0.99 and weight decay 0.1, clipping at
    1, 100 iterations of warm-up, then a cosine to 1e-4. Batches come from our function, which is the faster one.
    """
    torch.manual_seed(seed)
    model = their_model(nanogpt, len(corpus.tokenizer), SMALL, bias)
    with quiet():
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")

    def run() -> Iterator[float]:
        for step in range(2000):
            cosine = 0.5 * (1 + math.cos(math.pi * (step - 100) / (2000 - 100)))
            rate = 1e-3 * (step + 1) / 101 if step < 100 else 1e-4 + cosine * (1e-3 - 1e-4)
            for group in optimizer.param_groups:
                group["lr"] = rate
            x, y = batch(corpus.train, SMALL["block_size"], 12, seed, step)
            _, loss = model(x, y.contiguous())
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield loss.item()

    return model, run()


def their_model(nanogpt: ModuleType, vocab_size: int, sizes: dict[str, int], bias: bool) -> nn.Module:
    with quiet():
        return nanogpt.GPT(nanogpt.GPTConfig(vocab_size=vocab_size, bias=bias, dropout=0.0, **sizes))


def load_nanogpt(checkout: Path) -> ModuleType:
    """nanoGPT's model.py, imported from where it lies."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", checkout / "model.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up here
    spec.loader.exec_module(module)
    return module


def quiet() -> contextlib.AbstractContextManager:
    return contextlib.redirect_stdout(io.StringIO())


# ── the parts: each measures one round ──────────────────────────────────────────────────────────────────────────────


def measure_time_to_loss(number: int, nanogpt: ModuleType) -> Round:
    """Seconds of training until the loss over the whole validation part is TARGET; the evaluations are not counted."""
    corpus = novel()
    sides = {
        "ours": lambda: our_training(corpus, number, scaled(STEP.RECIPE["laptop"], SHORT)),
        "nanogpt": lambda: their_training(corpus, number, nanogpt, bias=False),
    }
    found: Round = {}
    for name, begin in in_turn(sides, number):
        model, losses = begin()
        seconds, step, loss, recent = 0.0, 0, math.inf, math.inf
        while loss > TARGET:
            clock = time.perf_counter()
            some = list(islice(losses, LOOK_EVERY))
            seconds += time.perf_counter() - clock
            if not some:
                break
            step, before, recent = step + len(some), recent, statistics.mean(some)
            if recent < LOOK_BELOW or step >= 2000:
                loss = evaluate(model, corpus.validation, device=CPU)
                print(f"  {name}: step {step}, {seconds:.1f} s, validation {loss:.4f}", flush=True)
                if loss <= TARGET and before >= LOOK_BELOW:
                    raise RuntimeError(f"{name} was below {TARGET} at the first look: raise LOOK_BELOW")
        found |= {name: seconds, f"{name}_steps": step, f"{name}_loss": loss, f"{name}_reached": loss <= TARGET}
    return found


def measure_step(number: int, nanogpt: ModuleType) -> Round:
    """Milliseconds for one training step, its batch included: 4 × 128, block 64, batch 12, float32."""
    corpus = novel()
    adamw = replace(STEP.RECIPE["laptop"], batch_size=12, optimizer="adamw")
    sides = {
        "ours": our_training(corpus, number, adamw),
        "nanogpt": their_training(corpus, number, nanogpt, bias=True),
        "ours_muon": our_training(corpus, number, replace(adamw, optimizer="muon")),
    }
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(number, number + 9):
        for name, (_, losses) in in_turn(sides, turn):
            clock = time.perf_counter()
            done = len(list(islice(losses, 30)))
            spent[name].append((time.perf_counter() - clock) / done)
    return {name: 1000 * statistics.median(values[1:]) for name, values in spent.items()}  # the first warms up


def measure_generate(number: int, nanogpt: ModuleType) -> Round:
    """Characters a second, all streams together, from a prompt of one: 6 × 384, block 256, the same weights for all."""
    ours, theirs, hugging = same_weights(number, nanogpt)

    def ask_hugging(idx: torch.Tensor, count: int) -> torch.Tensor:
        sizes = {"max_new_tokens": count, "min_new_tokens": count, "pad_token_id": 0}
        return hugging.generate(idx, attention_mask=torch.ones_like(idx), do_sample=True, top_k=0, **sizes)

    found: Round = {}
    for streams, count, repeats in ((1, 200, 5), (8, 200, 1), (1, 500, 1)):
        sides = {"ours": ours.generate, "nanogpt": theirs.generate}
        if count < LARGE["block_size"]:  # Hugging Face's GPT-2 cannot write past its window
            sides["hugging_face"] = ask_hugging
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(number, number + repeats):
            for name, generate in in_turn(sides, turn):
                idx = torch.zeros(streams, 1, dtype=torch.long)
                with torch.inference_mode():
                    generate(idx, 8)
                    clock = time.perf_counter()
                    out = generate(idx, count)
                    seconds[name].append(time.perf_counter() - clock)
                if out.shape != (streams, count + 1):
                    raise RuntimeError(f"{name} wrote {tuple(out.shape)}, not {(streams, count + 1)}")
        for name, values in seconds.items():
            found[f"{name}_{streams}x{count}"] = streams * count / statistics.median(values)
    return found


def measure_memory(number: int, nanogpt: ModuleType) -> Round:
    """Peak resident MB of a `quick` training run, on the novel and on a text of 1 GB (the novel over and over)."""
    text = book_data.load(fallback=False).path.read_bytes()
    found: Round = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        big = Path(folder) / "big.txt"
        with open(big, "wb") as file:
            for _ in range(math.ceil(BIG_TEXT / len(text))):
                file.write(text)
        found["big_text_bytes"] = big.stat().st_size
        clock = time.perf_counter()
        corpus = read_corpus(book_data.load(text=big).path)
        found["read_seconds"] = time.perf_counter() - clock
        del corpus
        for name, of in in_turn({"novel": ["--book", "moby-dick"], "big": ["--text", str(big)]}, number):
            out = ["--preset", "quick", "--out", str(Path(folder) / name)]
            clock = time.perf_counter()
            found[f"{name}_mb"] = peak_megabytes([sys.executable, "-m", "steps.07_full_gpt", *of, *out])
            found[f"{name}_seconds"] = time.perf_counter() - clock
            print(f"  {name}: {found[f'{name}_mb']:.0f} MB, {found[f'{name}_seconds']:.0f} s", flush=True)
    return found


def same_weights(seed: int, nanogpt: ModuleType) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Step 07, nanoGPT's GPT and Hugging Face's GPT-2, all holding step 07's weights; their logits are compared."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    ours = STEP.Model(STEP.Config(vocab_size=83, **LARGE)).eval()
    theirs = their_model(nanogpt, 83, LARGE, bias=True).eval()
    sizes = {name: LARGE[name] for name in ("n_embd", "n_head", "n_layer")}
    hugging = GPT2LMHeadModel(
        GPT2Config(vocab_size=83, n_positions=LARGE["block_size"], bos_token_id=None, eos_token_id=None, **sizes)
    ).eval()
    weights = {f"transformer.{name}": value for name, value in ours.state_dict().items() if name != "lm_head.weight"}
    weights["lm_head.weight"] = ours.lm_head.weight
    theirs.load_state_dict(weights)
    linear = {f"transformer.{name}.weight" for name, module in ours.named_modules() if isinstance(module, nn.Linear)}
    hugging.load_state_dict({name: value.T if name in linear else value for name, value in weights.items()})
    idx = torch.randint(83, (2, 40))
    with torch.inference_mode():
        expected = ours(idx)[0]
        torch.testing.assert_close(hugging(idx).logits, expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(theirs(idx, idx)[0], expected, rtol=0, atol=1e-3)  # its GELU is the exact one
    return ours, theirs, hugging


def peak_megabytes(command: list[str]) -> float:
    """Run a command to its end; the most memory it had resident at once, in 10⁶ bytes."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)  # Popen need not wait for it again
    if child.returncode:
        raise RuntimeError(f"{shlex.join(command)} ended with exit code {child.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def in_turn(sides: dict[str, Any], turn: int) -> list[tuple[str, Any]]:
    """The contenders in an order that moves on by one with every turn."""
    pairs = list(sides.items())
    return pairs[turn % len(pairs) :] + pairs[: turn % len(pairs)]


def cpu_seconds_elsewhere() -> float:
    """Seconds of CPU that anybody but this program has used since the machine started; NaN where nothing tells."""
    try:
        busy = os.sysconf("SC_CLK_TCK"), Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    except (OSError, ValueError):
        return math.nan
    user, nice, system, _idle, _iowait, *interrupts = map(int, busy[1])
    return (user + nice + system + sum(interrupts)) / busy[0] - sum(os.times()[:4])


# ── running and recording ───────────────────────────────────────────────────────────────────────────────────────────

PARTS: dict[str, tuple[Callable[[int, ModuleType], Round], int]] = {  # how to measure a round, how many rounds
    "time-to-loss": (measure_time_to_loss, 3),
    "step": (measure_step, 5),
    "generate": (measure_generate, 5),
    "memory": (measure_memory, 1),
}


def record(path: Path, part: str, number: int, found: Round, about: dict[str, Any]) -> None:
    """Add a round to the results, replacing the round of that number; rounds measured under other conditions go."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    before = results.get(part, {})
    rounds = before["rounds"] if before.get("conditions") == about["conditions"] else {}
    results[part] = {**about, "rounds": dict(sorted({**rounds, str(number): found}.items()))}
    write_json(path, results)


def conditions(checkout: Path) -> dict[str, Any]:
    """What must be equal for two rounds to be compared."""
    import transformers

    commit = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True)
    return {
        **machine(),
        "threads": torch.get_num_threads(),
        "transformers": transformers.__version__,
        "nanogpt": commit.stdout.strip() or "unknown",
        "fingerprint": fingerprint(steps.path(7)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--only", choices=PARTS, help="measure this part only")
    parser.add_argument("--rounds", type=int, nargs="+", help="the numbers of the rounds to measure; also their seeds")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the recorded figures as Markdown, and stop")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.results.read_text(encoding="utf-8"))))
        return
    if options.nanogpt is None or not (options.nanogpt / "model.py").exists():
        parser.error("name a checkout of karpathy/nanoGPT: --nanogpt FOLDER")
    nanogpt = load_nanogpt(options.nanogpt)
    for part in [options.only] if options.only else PARTS:
        measure, usual = PARTS[part]
        for number in options.rounds or range(1, usual + 1):
            print(f"{part}, round {number}", flush=True)
            about = {
                "command": f"python -m benchmarks.run --nanogpt nanoGPT --only {part}",
                "date": datetime.date.today().isoformat(),
                "conditions": conditions(options.nanogpt),
            }
            clock, before = time.perf_counter(), cpu_seconds_elsewhere()
            found = measure(number, nanogpt)
            found["cores_busy_elsewhere"] = (cpu_seconds_elsewhere() - before) / (time.perf_counter() - clock)
            found = {name: round(value, 4) if isinstance(value, float) else value for name, value in found.items()}
            record(options.results, part, number, found, about)
            print("  " + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
