"""What a causal language model writes after a prompt, and how likely it finds a text; many prompts at once.

Any Hugging Face causal model will do: ours (exported by `common.hf`) and SmolLM2 go through the same code. What the
tokens of a prompt are is decided in one place, `finetune.prompt_ids`, for training and examining alike.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 64


@dataclass(frozen=True)
class Coder:
    """A model with its tokenizer."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"


def complete(
    coder: Coder,
    prompts: Sequence[str],
    max_new_tokens: int,
    samples: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
    on_done: Callable[[int], None] = lambda done: None,
) -> list[list[str]]:
    """`samples` completions of each prompt: what follows it, up to the end of the function or the end-of-text token.

    Temperature 0 takes the likeliest token. Prompts are grouped by length, shorter ones padded on the left; the same
    prompts and seed give the same completions again on a CPU.
    """
    import torch

    from textbooks.finetune import prompt_ids

    model, tokenizer = coder.model.eval(), coder.tokenizer
    rows = [(i, prompt_ids(coder.tokenizer, prompt)) for i, prompt in enumerate(prompts) for _ in range(samples)]
    rows.sort(key=lambda row: (len(row[1]), row[0]))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    room = getattr(model.config, "max_position_embeddings", None) or math.inf
    how = {"do_sample": False} if temperature == 0 else {"do_sample": True, "temperature": temperature, "top_k": 0}
    found: list[list[str]] = [[] for _ in prompts]
    torch.manual_seed(seed)
    done = 0
    for batch in _batches(rows, room - max_new_tokens):
        width = max(len(ids) for _, ids in batch)
        idx = torch.tensor([[pad] * (width - len(ids)) + ids for _, ids in batch])
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for _, ids in batch])
        new = min(max_new_tokens, room - width)
        if new > 0:
            with torch.inference_mode():
                out = model.generate(
                    idx.to(model.device), attention_mask=mask.to(model.device), max_new_tokens=new, pad_token_id=pad,
                    eos_token_id=tokenizer.eos_token_id, **how,
                )  # fmt: skip
            texts = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        else:  # the prompt alone fills the window
            texts = [""] * len(batch)
        for (i, _), text in zip(batch, texts, strict=True):
            found[i].append(first_function(text))
        done += len(batch)
        on_done(done)
    return found


def _batches(rows: Sequence[tuple[int, list[int]]], roomy: float) -> Iterator[list[tuple[int, list[int]]]]:
    """The rows, sorted by length, in batches. Prompts longer than `roomy` end early where the window does, so only
    those of one length go together: what a prompt is answered never depends on its company."""
    for _, group in groupby(rows, key=lambda row: len(row[1]) if len(row[1]) > roomy else 0):
        while batch := list(islice(group, BATCH)):
            yield batch


def first_function(completion: str) -> str:
    """The completion without what comes after the function it belongs to: cut at the first line that begins at the
    margin, which a model that never learned to stop goes on with (as "Evaluating Large Language Models Trained on
    Code", arXiv 2107.03374, section 2.1, cuts at stop sequences)."""
    lines = completion.split("\n")
    end = next((i for i, line in enumerate(lines) if i and line and not line[0].isspace()), len(lines))
    return "\n".join(lines[:end]).rstrip()


def log_likelihood(coder: Coder, prompts: Sequence[str], continuations: Sequence[str]) -> list[float]:
    """The log-probability (nats) of each continuation after its prompt, end of text not counted.

    Where both do not fit the model's window, the prompt's beginning is left out; a continuation that does not fit
    alone is scored as far as it does, so compare only what is short.
    """
    import torch
    import torch.nn.functional as F

    from textbooks.finetune import prompt_ids

    model = coder.model.eval()
    room = getattr(model.config, "max_position_embeddings", None) or math.inf
    rows = []
    for i, (prompt, continuation) in enumerate(zip(prompts, continuations, strict=True)):
        given = prompt_ids(coder.tokenizer, prompt)
        wanted = coder.tokenizer(continuation, add_special_tokens=False).input_ids[: room - 1]
        given = given[-max(1, min(len(given), room - len(wanted))) :]
        rows.append((i, given, wanted))
    rows.sort(key=lambda row: len(row[1]) + len(row[2]))
    found = [0.0] * len(rows)
    size = max(1, min(BATCH, 250_000 // model.config.vocab_size))  # the chances of a batch are rows × T × V numbers
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        lengths = [len(given) + len(wanted) for _, given, wanted in batch]
        width = max(lengths)
        idx = torch.tensor([(given + wanted + [0] * width)[:width] for _, given, wanted in batch])
        mask = torch.tensor([[1] * length + [0] * (width - length) for length in lengths])
        with torch.inference_mode():
            logits = model(idx.to(model.device), attention_mask=mask.to(model.device)).logits
        chances = F.log_softmax(logits[:, :-1].float().cpu(), dim=-1)
        told = chances.gather(-1, idx[:, 1:, None])[..., 0]
        for row, (i, given, wanted) in zip(told, batch, strict=True):
            found[i] = row[len(given) - 1 : len(given) + len(wanted) - 1].sum().item()
    return found
