"""The controlled study: equal models, equal tokens, different data.

Every seed is a chain of its own: pretrain the arms, finetune them, examine each. An arm is a folder with the model in
the Hugging Face format and `result.json`, written last; an arm whose result is there is not run again, so a study that
was stopped goes on with the arm it was at. On a CPU chains run side by side, one process and one thread each, so
that how many cores there are changes no sum; a plan that asks for `compile` runs them one by one on a CUDA GPU.
"""

import json
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textbooks import corpora, exam
from textbooks.completion import Coder
from textbooks.records import END_OF_TEXT, Exercise, Section, digest, read_records, training_text, write_jsonl
from textbooks.similarity import most_similar

if TYPE_CHECKING:
    import torch
    import torch.nn as nn
    from tokenizers import Tokenizer

    from common.training import Recipe
    from textbooks.raw_code import Chunk

EXAM_UNITS = 60  # what sitting and grading the examination once costs, in training steps
MakeModel = Callable[[int, "Plan"], "nn.Module"]
"""vocab_size and the plan to a model as in step 07."""


@dataclass(frozen=True)
class Arm:
    """One model of the study: what it starts from, what it is trained on, and how long (a share of the usual)."""

    name: str
    title: str
    data: str
    start: str = ""  # the arm whose weights it begins with; "" for random ones
    tuned: bool = False  # trained for `finetuning_steps` instead of `steps`
    longer: int = 1
    samples: bool = False  # also answer several times, for pass@k
    keep_below: float = 1.0  # exercises this similar to an examined problem are left out (decontamination)


Chains = Sequence[tuple[int, Sequence[Arm]]]
"""Seeds, each with the arms to run one after the other; side by side with the other chains."""


def pruned(thresholds: Sequence[float]) -> tuple[Arm, ...]:
    """C+X again, without the exercises that are similar to a problem of the examination."""
    return tuple(
        Arm(f"C+X<{t:g}", f"C+X, similarity below {t:g}", "exercises", "C", tuned=True, keep_below=t)
        for t in thresholds
    )


@dataclass(frozen=True)
class Plan:
    """A preset: how large everything is. A training step reads `batch_size` × `block_size` tokens."""

    exercises: int  # prompts for step 08's grammar, as its own preset
    sections: int
    problems: int  # of each drawn stratum, and at most so many of HumanEval
    steps: int  # of pretraining
    finetuning_steps: int
    depth: int = 3  # the exercises and problems compose at most so many primitives; the stratum `longer` one more
    seeds: tuple[int, ...] = (1, 2)
    samples: int = 8
    temperature: float = 0.6
    thresholds: tuple[float, ...] = (0.95, 0.9, 0.85, 0.8)  # of similarity, for decontamination; the paper's
    vocab_size: int = 2_048
    block_size: int = 256
    batch_size: int = 4
    rows: int = 4  # exercises in a finetuning step
    n_embd: int = 128
    n_head: int = 4
    n_layer: int = 4
    dropout: float = 0.0
    learning_rate: float = 1e-2
    muon_learning_rate: float = 0.05
    dtype: str = "float32"
    compile: bool = False
    kept: float = 0.17  # of the raw characters, by the filter: as the paper's
    raw_every: int = 1  # read every so many-th function of the raw code, and all that have a label


@dataclass(frozen=True)
class Material:
    """What every arm of a study shares: the tokenizer, the examination, and the texts."""

    tokenizer: "Tokenizer"
    problems: list[exam.Problem]
    exercises: list[Exercise]
    sections: list[Section]
    raw: list["Chunk"]

    @classmethod
    def load(cls, folder: Path, raw_every: int = 1) -> "Material":
        from tokenizers import Tokenizer

        exercises, sections = (list(read_records(folder / "data" / f"{n}.jsonl")) for n in ("exercises", "sections"))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        return cls(tokenizer, exam.load(folder / "exam.jsonl"), exercises, sections, raw_functions(raw_every))


def raw_functions(every: int) -> list["Chunk"]:
    """The raw code: every so many-th function of Python's library, and all that have a label."""
    from textbooks import raw_code
    from textbooks.educational_value import read_labels

    labels, found = read_labels(), raw_code.chunks(raw_code.standard_library())
    return [chunk for i, chunk in enumerate(found) if i % every == 0 or chunk.key in labels]


def prepare(plan: Plan, folder: Path, exercises: Sequence[Exercise], sections: Sequence[Section]) -> dict[str, Any]:
    """Draw the examination, learn the tokenizer, sit the baseline, and write them into the folder; what they are.

    Raises ValueError if the folder holds a study with other settings or data.
    """
    from textbooks import raw_code
    from textbooks.code_model import train_tokenizer

    settings = {name: value for name, value in asdict(plan).items() if name not in ("seeds", "thresholds")}
    about = {
        "plan": settings,  # more seeds or thresholds are more arms, and change none that is there
        "exercises": digest([record.key for record in exercises]),
        "sections": digest([record.key for record in sections]),
        "raw": raw_code.manifest_hash(raw_code.standard_library()),
    }
    file = folder / "about.json"
    if file.exists():
        found = json.loads(file.read_text(encoding="utf-8"))
        if {name: found[name] for name in about} != about:
            raise ValueError(f"{folder} holds a study with other settings or data: choose another --out, or delete it")
        return found
    problems = exam.draw(exercises, sections, plan.problems, seed=0, depth=plan.depth)
    texts = [chunk.source for chunk in raw_functions(plan.raw_every)]
    texts += [training_text(record) for record in (*exercises, *sections)]
    folder.mkdir(parents=True, exist_ok=True)
    train_tokenizer([text.removesuffix(END_OF_TEXT) for text in texts], plan.vocab_size).save(
        str(folder / "tokenizer.json")
    )
    about["exam"] = exam.save(problems, folder / "exam.jsonl")
    answers = exam.copied(exercises, problems)
    graded = exam.grade(problems, answers, workers=os.cpu_count() or 1)
    about["baseline"] = _bits(sheet[0].passed for sheet in graded)
    _write(file, about)
    return about


# ---------------------------------------------------------------- one seed


class Chain:
    """The arms of one seed, one after the other. `report(units)` hears how much work is done, in training steps."""

    def __init__(
        self, plan: Plan, seed: int, folder: Path, make_model: MakeModel, report: Callable[[float], None],
        allow_weaker: bool = False,
    ):  # fmt: skip
        self.plan, self.seed, self.make_model, self.report = plan, seed, make_model, report
        self.allow_weaker, self.device = allow_weaker, device_of(plan)
        self.folder = folder / f"seed-{seed}"
        self.material = Material.load(folder, plan.raw_every)
        self._texts: dict[str, list[str]] = {}

    def run(self, arms: Sequence[Arm]) -> None:
        for arm in arms:
            if not (self.folder / arm.name / "result.json").exists():
                self._run(arm)

    def _run(self, arm: Arm) -> None:
        began = time.perf_counter()
        folder = self.folder / arm.name
        trained = self._finetune(arm) if arm.data == "exercises" else self._pretrain(arm)
        found = self._examine(arm, open_coder(folder / "model", self.device))
        seconds = round(time.perf_counter() - began, 1)
        _write(folder / "result.json", {**asdict(arm), "seed": self.seed, **trained, **found, "seconds": seconds})

    def _pretrain(self, arm: Arm) -> dict[str, Any]:
        """Every token counts, in pieces of a stream of texts: the loop of steps 01–07."""
        import torch

        from common.optimizers import make_optimizers
        from common.training import train
        from textbooks.code_model import token_stream

        plan, recipe, texts = self.plan, self._recipe(arm), self.texts(arm.data)
        tokens = token_stream(self.material.tokenizer, texts)
        model = self._begin(arm).to(self.device)
        optimizers = make_optimizers(
            model, recipe.optimizer, recipe.learning_rate, recipe.muon_learning_rate, recipe.weight_decay
        )
        losses = []
        how = {"device": self.device, "dtype": getattr(torch, recipe.dtype)}
        trained = torch.compile(model) if plan.compile else model
        for done in train(trained, optimizers, tokens, recipe, seed=self.seed, **how):
            losses.append(done.loss)
            self.report(1)
        save_hf(model, self.folder / arm.name / "model", self.material.tokenizer)
        return {
            "texts": len(texts),
            "characters": sum(map(len, texts)),
            "tokens": len(tokens),
            "tokens_seen": recipe.steps * recipe.batch_size * plan.block_size,
            "parameters": sum(p.numel() for p in model.parameters()),
            "curve": _thinned(losses),
        }

    def _finetune(self, arm: Arm) -> dict[str, Any]:
        """An exercise a row, read from its beginning: the loop that also finetunes a pretrained model."""
        from textbooks.finetune import finetune, prepare

        exercises = self._exercises(arm)
        folder = self.folder / arm.name / "model"
        save_hf(self._begin(arm), folder, self.material.tokenizer)
        coder = open_coder(folder, self.device)
        prepare(coder.model, coder.tokenizer)
        did = finetune(
            coder.model, coder.tokenizer, exercises, self._recipe(arm),
            seed=self.seed, learn_prompts=True, on_step=lambda _: self.report(1),
        )  # fmt: skip
        coder.model.save_pretrained(folder)
        return {
            "texts": did.exercises,
            "characters": sum(len(exercise.solution) for exercise in exercises),
            "tokens_seen": did.tokens_read,
            "tokens_learned": did.tokens_learned,
            "parameters": did.parameters_trained,
            "curve": _thinned(did.losses),
        }

    def _begin(self, arm: Arm) -> "nn.Module":
        """The model before training: random weights, or those of the arm it starts from."""
        import torch

        from common.hf import import_hf

        torch.manual_seed(self.seed)
        model = self.make_model(self.plan.vocab_size, self.plan)
        if arm.start:
            import_hf(model, self.folder / arm.start / "model")
        return model

    def _recipe(self, arm: Arm) -> "Recipe":
        from common.training import Recipe

        steps, plan = steps_of(arm, self.plan), self.plan
        size = plan.batch_size
        if arm.tuned:  # an exercise is about half a block long: either way a step reads as many tokens
            size = plan.rows if arm.data == "exercises" else plan.rows // 2
        return Recipe(
            steps, size, plan.learning_rate, optimizer="muon", muon_learning_rate=plan.muon_learning_rate,
            warmup_steps=steps // 20, final_share=0.0, dtype=plan.dtype,
        )  # fmt: skip

    def _examine(self, arm: Arm, coder: Coder) -> dict[str, Any]:
        problems = self.material.problems
        answers = exam.sit(coder, problems)
        graded = exam.grade(problems, answers, allow_weaker=self.allow_weaker)
        self.report(EXAM_UNITS)
        choices = exam.forced_choice(coder, problems)
        found = {
            "passed": _bits(sheet[0].passed for sheet in graded),
            "parses": _bits(sheet[0].parses for sheet in graded),
            "chosen": "".join("-" if choice is None else "01"[choice] for choice in choices),
            "humaneval_bits_per_byte": exam.humaneval_bits_per_byte(coder, self.plan.problems),
        }
        rows = [{"program": sheet[0]} for sheet in answers]
        if arm.samples:
            sheets = exam.sit(coder, problems, self.plan.samples, self.plan.temperature, self.seed)
            marked = exam.grade(problems, sheets, allow_weaker=self.allow_weaker)
            found["correct"] = [sum(graded.passed for graded in sheet) for sheet in marked]
            found["samples"] = self.plan.samples
            self.report(EXAM_UNITS * self.plan.samples)
        write_jsonl(self.folder / arm.name / "answers.jsonl", rows)
        return found

    def texts(self, data: str) -> list[str]:
        """The texts that an arm trains on, by the name of its data."""
        if data not in self._texts:
            self._texts[data] = self._make(data)
        return self._texts[data]

    def _make(self, data: str) -> list[str]:
        material, seed = self.material, self.seed
        raw = [chunk.source for chunk in material.raw]
        match data:
            case "raw":
                return raw
            case "filtered":
                return self._filtered()
            case "random":
                return corpora.subset(raw, len, sum(map(len, self.texts("filtered"))), seed)
            case "textbook" | "textbook permuted":
                pages = corpora.permuted(material.sections, seed) if "permuted" in data else material.sections
                return self.texts("filtered") + [page.text for page in pages]
            case "pages":
                return [page.text for page in material.sections]
        raise ValueError(f"there is no data called {data!r}")

    def _filtered(self) -> list[str]:
        """The raw code that a forest on the states of this seed's model A rates highest, as phi-1 does it."""
        from common.hf import import_hf
        from textbooks import educational_value as value
        from textbooks.code_model import mean_pooled_states

        model = self.make_model(self.plan.vocab_size, self.plan)
        import_hf(model, self.folder / "A" / "model")
        model.to(self.device)
        raw = self.material.raw

        def encode(text: str) -> list[int]:
            return self.material.tokenizer.encode(text).ids

        states = mean_pooled_states(model, encode, [chunk.source for chunk in raw])
        kept = value.keep_best(raw, states, value.read_labels(), self.seed, self.plan.kept)
        return [chunk.source for chunk in kept]

    def _exercises(self, arm: Arm) -> list[Exercise]:
        exercises = self.material.exercises
        if arm.keep_below == 1:
            return exercises
        solutions = [(p.exercise.entry_point, p.exercise.solution) for p in self.material.problems]
        nearest = most_similar([(e.entry_point, e.solution) for e in exercises], solutions)
        return [exercise for exercise, score in zip(exercises, nearest, strict=True) if score < arm.keep_below]


def device_of(plan: Plan) -> "torch.device":
    """Where a plan is trained. Raises RuntimeError if it is for a GPU and there is none."""
    import torch

    if not plan.compile:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError("this preset is for a CUDA GPU, and there is none here: take --preset laptop")
    return torch.device("cuda")


def steps_of(arm: Arm, plan: Plan) -> int:
    return (plan.finetuning_steps if arm.tuned else plan.steps) * arm.longer


def units(arm: Arm, plan: Plan) -> int:
    return steps_of(arm, plan) + EXAM_UNITS * (1 + (plan.samples if arm.samples else 0))


def save_hf(model: "nn.Module", folder: Path, tokenizer: "Tokenizer") -> None:
    """The model and its tokenizer as a folder that AutoModelForCausalLM and AutoTokenizer open. There the tokenizer
    begins every text with end-of-text, as every text but the first begins in training."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    from common.hf import export_hf

    export_hf(model, folder, alphabet="")
    ours = Tokenizer.from_str(tokenizer.to_str())
    end = (END_OF_TEXT, ours.token_to_id(END_OF_TEXT))
    ours.post_processor = TemplateProcessing(single=f"{END_OF_TEXT} $A", special_tokens=[end])
    ours.save(str(folder / "tokenizer.json"))
    names = dict.fromkeys(("eos_token", "bos_token", "pad_token"), END_OF_TEXT)
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names})


def open_coder(folder: Path, device: "torch.device | str" = "cpu") -> Coder:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # it warns of padding without a mask where nothing is padded
    return Coder(AutoModelForCausalLM.from_pretrained(folder).to(device), AutoTokenizer.from_pretrained(folder))


def _thinned(losses: Sequence[float], points: int = 40) -> list[list[float]]:
    """[step, mean loss since the point before], at most about `points` of them."""
    every = max(1, len(losses) // points)
    ends = range(every, len(losses) + 1, every)
    return [[end, round(float(np.mean(losses[end - every : end])), 4)] for end in ends]


# ---------------------------------------------------------------- all chains


def side_by_side(plan: Plan) -> int:
    """How many chains run at once."""
    return 1 if plan.compile else os.cpu_count() or 1


def run_chains(
    plan: Plan, folder: Path, make_model: MakeModel, chains: Chains, on_units: Callable[[float], None],
    allow_weaker: bool = False,
) -> None:  # fmt: skip
    """Run the arms that are missing. A chain is a seed and its arms, one after the other; chains run side by side.
    Raises RuntimeError with the reason of a chain that failed; whatever ends it, the arms that were finished stay."""
    context = multiprocessing.get_context("spawn")
    news = context.Queue()  # (which chain, units done), (which, None) at the end, (which, why it failed)
    waiting = {
        i: context.Process(target=_chain, args=(i, plan, seed, folder, make_model, arms, news, allow_weaker))
        for i, (seed, arms) in enumerate(chains)
        if any(missing(folder, seed, arms))
    }
    running: dict[int, multiprocessing.Process] = {}
    try:
        while waiting or running:
            while waiting and len(running) < side_by_side(plan):
                i, process = waiting.popitem()
                running[i] = process
                process.start()
            try:
                i, told = news.get(timeout=10)
            except queue.Empty:
                for i, process in running.items():
                    if process.exitcode is not None:
                        raise RuntimeError(
                            f"the process of seed {chains[i][0]} was killed: run again to go on"
                        ) from None
                continue
            if isinstance(told, str):
                raise RuntimeError(f"seed {chains[i][0]}: {told}")
            if told is None:
                running.pop(i).join()
            else:
                on_units(told)
    finally:
        for process in running.values():
            process.terminate()
            process.join()


def missing(folder: Path, seed: int, arms: Sequence[Arm]) -> Iterator[Arm]:
    return (arm for arm in arms if not (folder / f"seed-{seed}" / arm.name / "result.json").exists())


def _chain(
    which: int, plan: Plan, seed: int, folder: Path, make_model: MakeModel, arms: Sequence[Arm], news,
    allow_weaker: bool,
) -> None:  # fmt: skip
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _live_with_parent()
    torch.set_num_threads(1)
    try:
        Chain(plan, seed, folder, make_model, lambda units: news.put((which, units)), allow_weaker).run(arms)
        news.put((which, None))
    except Exception as error:
        news.put((which, f"{type(error).__name__}: {error}"))
        raise


def _live_with_parent() -> None:
    def watch() -> None:
        multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def results(folder: Path, plan: Plan, arms: Sequence[Arm]) -> dict[str, list[dict[str, Any]]]:
    """Arm → its results, one a seed; only arms that every seed has finished."""
    found = {}
    for arm in arms:
        files = [folder / f"seed-{seed}" / arm.name / "result.json" for seed in plan.seeds]
        read = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
        if read:
            found[arm.name] = read
    return found


def seconds(plan: Plan, folder: Path, chains: Chains) -> float:
    """How long finished chains took, as side by side as they run here."""
    took = [
        sum(json.loads((folder / f"seed-{seed}" / arm.name / "result.json").read_bytes())["seconds"] for arm in arms)
        for seed, arms in chains
    ]
    return max(max(took), sum(took) / side_by_side(plan))


def _bits(values: Iterable[bool]) -> str:
    return "".join("01"[bool(value)] for value in values)


def _write(path: Path, value: Any) -> None:
    from common.records import write_json

    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, value)
