"""Finetuning any Hugging Face causal language model on exercises: what it reads, what it is asked for, and the loop.

Three decisions, each of which a test guards:

- Of a pretrained model only the completion is asked: labels are −100 over the prompt and over padding. The docstring
  is given at test time, so nothing is gained by learning to write docstrings. A GPT of ours that has read a million
  tokens does gain: names repeat in a prompt, and it has still to learn to copy one. So its prompts are learned too
  (`learn_prompts`).
- End-of-text is learned as the last label. Padding is masked by its place, not by its id: most tokenizers pad with
  end-of-text, and masking that id would teach a model never to stop.
- `prompt_ids` alone decides what the tokens of a prompt are, in training and measuring alike, and the completion is
  encoded apart. There is no newline at the end: a tokenizer merges newline and indentation into one token, and a
  prompt cut between the two ends in a token that training never showed. The beginning is the tokenizer's own: nothing
  for SmolLM2, whose baseline was measured so, and end-of-text for a GPT of ours whose tokenizer puts it there, because
  in pretraining it stood before every text.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.optimizers import make_optimizers
from common.training import Diverged, Progress, Recipe, schedule
from textbooks.records import END_OF_TEXT, Exercise, training_text

IGNORE = -100  # the label that cross_entropy passes over
Encoded = tuple[list[int], list[int]]  # token ids and labels, equally long


@dataclass(frozen=True)
class Finetuned:
    """What one finetuning did. `losses`: mean nats a learned token, one a step, before that step's update."""

    losses: tuple[float, ...]
    exercises: int  # that fitted
    left_out: int  # longer than the model's window
    parameters_trained: int
    tokens_read: int  # padding not counted
    tokens_learned: int
    seconds: float


def prepare(model: nn.Module, tokenizer) -> None:
    """Give model and tokenizer an end-of-text token if they have none, and let generation stop at it."""
    if tokenizer.eos_token is None:
        tokenizer.add_special_tokens({"eos_token": END_OF_TEXT})
        table = model.get_input_embeddings()
        if tokenizer.eos_token_id >= table.num_embeddings:
            average = table.weight.detach().mean(dim=0)
            table = model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
            with torch.no_grad():
                table.weight[tokenizer.eos_token_id] = average  # what is drawn at random would differ each time
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id


def prompt_ids(tokenizer, prompt: str) -> list[int]:
    """The tokens of a prompt: without the white space that ends it, with what the tokenizer begins a text with."""
    return tokenizer(prompt.rstrip()).input_ids


def encode(tokenizer, exercises: Sequence[Exercise], learn_prompts: bool = False) -> list[Encoded]:
    """Ids and labels of each exercise: prompt, completion, end-of-text. Raises ValueError if there is no such token."""
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-text token: call prepare(model, tokenizer) first")
    encoded = []
    for exercise in exercises:
        read = prompt_ids(tokenizer, exercise.prompt)
        completion = training_text(exercise).removesuffix(END_OF_TEXT).removeprefix(exercise.prompt.rstrip())
        written = [*tokenizer(completion, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        encoded.append((read + written, (read if learn_prompts else [IGNORE] * len(read)) + written))
    return encoded


def collate(rows: Sequence[Encoded], pad_id: int) -> dict[str, Tensor]:
    """The rows as `input_ids`, `attention_mask` and `labels`, each (B, T): padded on the right to the longest."""
    T = max(len(ids) for ids, _ in rows)
    batch = {
        "input_ids": [ids + [pad_id] * (T - len(ids)) for ids, _ in rows],
        "attention_mask": [[1] * len(ids) + [0] * (T - len(ids)) for ids, _ in rows],
        "labels": [labels + [IGNORE] * (T - len(labels)) for _, labels in rows],
    }
    return {name: torch.tensor(values) for name, values in batch.items()}


def pick(lengths: Sequence[int], batch_size: int, seed: int, step: int) -> list[int]:
    """Which exercises, given the length of each, a step sees: every one once an epoch. Pure in (seed, step).

    Batches are alike in length, so that little is padding, and come in a random order. Lengths are blurred by a fifth
    before they are sorted: other neighbours in every epoch.
    """
    epoch, place = divmod(step, -(-len(lengths) // batch_size))
    rng = np.random.default_rng((seed, epoch))
    order = np.argsort(np.array(lengths) * rng.uniform(0.8, 1.2, len(lengths)))
    batches = np.array_split(order, -(-len(lengths) // batch_size))
    return batches[rng.permutation(len(batches))[place]].tolist()


def completion_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean nats over the labels that are not −100; the logits at t are judged by the label at t + 1.

    Logits are computed only where there is such a label: the head of a small model with a large vocabulary would
    otherwise spend most of its work on tokens that nothing is learned from.
    """
    following = F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORE)
    learned = following != IGNORE
    out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], logits_to_keep=learned)
    return F.cross_entropy(out.logits.float(), following[learned])


def finetune(
    model: nn.Module,
    tokenizer,
    exercises: Sequence[Exercise],
    recipe: Recipe,
    *,
    seed: int,
    learn_prompts: bool = False,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> Finetuned:
    """Train in place whatever of the model requires a gradient: all of it, peft's adapters, or LoRA by hand.

    Of the recipe, `batch_size` counts exercises and `dtype` is that of autocast; `model` and `compile` are for whoever
    makes the model. Every step is a function of (seed, step). Exercises that do not fit the model's window are left
    out and counted.

    Raises ValueError if none fits or the tokenizer cannot end a text, Diverged before an update by no number.
    """
    window = model.config.max_position_embeddings
    given = encode(tokenizer, exercises, learn_prompts)
    fitting = [row for row in given if len(row[0]) <= window]
    if not fitting:
        raise ValueError(f"none of {len(given)} exercises fits the model's {window} tokens: take a larger block_size")
    lengths = [len(ids) for ids, _ in fitting]
    began, tokens, losses = time.perf_counter(), [0, 0], []
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizers = make_optimizers(
        model, recipe.optimizer, recipe.learning_rate, recipe.muon_learning_rate, recipe.weight_decay
    )
    dtype = getattr(torch, recipe.dtype)
    model.train()
    for step in range(recipe.steps):
        torch.manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1)[0]))  # dropout
        share = schedule(step, recipe)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = group["initial_lr"] * share
        batch = collate([fitting[i] for i in pick(lengths, recipe.batch_size, seed, step)], tokenizer.pad_token_id)
        with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = completion_loss(model, {name: tensor.to(model.device) for name, tensor in batch.items()})
        loss.backward()
        grad_norm = float(nn.utils.clip_grad_norm_(trained, recipe.grad_clip))
        if not (math.isfinite(loss.item()) and math.isfinite(grad_norm)):
            raise Diverged(f"step {step + 1}: the loss is {loss.item()}, the gradient {grad_norm}: lower learning_rate")
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        tokens = [tokens[0] + int(batch["attention_mask"].sum()), tokens[1] + int((batch["labels"] != IGNORE).sum())]
        on_step(Progress(step + 1, loss.item(), grad_norm, share))
    model.eval()
    return Finetuned(
        losses=tuple(losses),
        exercises=len(fitting),
        left_out=len(given) - len(fitting),
        parameters_trained=sum(p.numel() for p in trained),
        tokens_read=tokens[0],
        tokens_learned=tokens[1],
        seconds=time.perf_counter() - began,
    )


def save_trained(model: nn.Module, file: Path) -> None:
    """Write what requires a gradient, by name: for a LoRA by hand its A and B, and nothing of the base."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}, file)


def load_trained(model: nn.Module, file: Path) -> None:
    """Read it back into a model made in the same way. Raises ValueError, and changes nothing, if it does not fit."""
    ours = {name: p for name, p in model.named_parameters() if p.requires_grad}
    theirs = load_file(file)
    if {name: p.shape for name, p in ours.items()} != {name: t.shape for name, t in theirs.items()}:
        raise ValueError(f"{file} does not fit this model: add LoRA to the same targets with the same rank first")
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(theirs[name])
