"""A small language model of raw code, and what it knows of a text: the mean of its last hidden states.

The model's class comes from outside (step 07's GPT, or any other): nothing here asks which one it is.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from textbooks.records import END_OF_TEXT

if TYPE_CHECKING:
    import torch.nn as nn
    from tokenizers import Tokenizer

    from common.training import Progress, Recipe

Encode = Callable[[str], Sequence[int]]
"""A text to token numbers."""

VOCABULARY = 2_048
"""Byte-level BPE tokens: about three characters of Python each, and small beside the model's layers."""


PIECES = r"\n *| ?[A-Za-z]+|_[A-Za-z]*|[0-9]| ?[^\w\s]+|\s+|."
"""What no token reaches across: a line end with the whole indentation after it, a word, a digit, a run of signs."""


def train_tokenizer(texts: Sequence[str], vocab_size: int = VOCABULARY) -> "Tokenizer":
    """A byte-level BPE tokenizer learned from `texts`: any text can be encoded, none is unknown.

    END_OF_TEXT is token 0. A line end and its indentation are one token, as a model of code wants it; so a prompt is
    to be encoded *without* a line end behind it, for what follows in training is the token that holds both.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def token_stream(tokenizer: "Tokenizer", texts: Sequence[str]) -> np.ndarray:
    """The texts end to end, each closed by END_OF_TEXT, as token numbers (n,) uint16."""
    closed = (text.rstrip("\n") + "\n" + END_OF_TEXT for text in texts)
    return np.concatenate([np.array(found.ids, dtype=np.uint16) for found in tokenizer.encode_batch(list(closed))])


def train_code_model(
    make_model: Callable[[int], "nn.Module"],
    texts: Sequence[str],
    recipe: "Recipe",
    seed: int,
    on_step: Callable[["Progress"], None] = lambda progress: None,
) -> tuple["nn.Module", Encode]:
    """Train a tokenizer and then `make_model(vocab_size)` on `texts`, on the CPU. A seed gives the same model again.

    The model is a causal one as in step 07: `model(idx, targets)` gives `(logits, loss)`, and it has `lm_head`
    and `config.block_size`. Returns the trained model and the function that encodes a text for it.
    """
    import torch

    from common.optimizers import make_optimizers
    from common.training import train

    tokenizer = train_tokenizer(texts)
    tokens = token_stream(tokenizer, texts)
    torch.manual_seed(seed)
    model = make_model(VOCABULARY)
    optimizers = make_optimizers(
        model, recipe.optimizer, recipe.learning_rate, recipe.muon_learning_rate, recipe.weight_decay
    )
    for progress in train(model, optimizers, tokens, recipe, seed=seed, device=torch.device("cpu")):
        on_step(progress)
    return model, lambda text: tokenizer.encode(text).ids


def mean_pooled_states(model: "nn.Module", encode: Encode, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
    """Each text as the mean, over its tokens, of what `model.lm_head` is given: (n, C) float32.

    `model` is any causal language model with `lm_head` and `config.block_size`; a text longer than a block
    is read in blocks. Padding stands to the right, where no token can see it, and is left out of the mean.
    """
    import torch

    states: list[torch.Tensor] = []
    hook = model.lm_head.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    block, device = model.config.block_size, next(model.parameters()).device
    pieces = [
        (i, tokens[start : start + block])
        for i, tokens in enumerate(list(encode(text)) or [0] for text in texts)
        for start in range(0, len(tokens), block)
    ]
    pieces.sort(key=lambda piece: len(piece[1]))
    sums, counts = [0.0] * len(texts), np.zeros(len(texts))
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(pieces), batch_size):
                batch = pieces[start : start + batch_size]
                rows = [torch.tensor(tokens) for _, tokens in batch]
                model(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device))
                for (i, tokens), row in zip(batch, states.pop(), strict=True):
                    sums[i] = sums[i] + row[: len(tokens)].float().sum(0).cpu().numpy()
                    counts[i] += len(tokens)
    finally:
        hook.remove()
        model.train(training)
    return np.array(sums, dtype=np.float32) / counts[:, None].astype(np.float32)
