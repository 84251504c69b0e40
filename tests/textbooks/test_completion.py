"""Completions of many prompts at once are those of each alone, and a likelihood is the sum of its tokens'."""

import pytest
import torch
import torch.nn.functional as F

from steps import load
from textbooks.code_model import train_tokenizer
from textbooks.completion import Coder, complete, first_function, log_likelihood
from textbooks.study import open_coder, save_hf

PROMPTS = ["def f(x):", "def double(n: int) -> int:\n    \"\"\"Twice n.\"\"\"", "x", "def g(a, b, c):\n    return"]


@pytest.fixture(scope="module")
def coder(tmp_path_factory) -> Coder:
    """A GPT with random weights, large enough that its choices differ from prompt to prompt."""
    tokenizer = train_tokenizer(["def f(x):\n    return x + 1\n\n\ndef g(a):\n    return a\n"] * 20, vocab_size=300)
    step = load(7)
    torch.manual_seed(4)
    model = step.Model(step.Config(vocab_size=300, block_size=48, n_embd=32, n_head=2, n_layer=2))
    with torch.no_grad():
        model.wte.weight.mul_(20)
    folder = tmp_path_factory.mktemp("coder")
    save_hf(model, folder, tokenizer)
    return open_coder(folder)


def test_a_batch_of_prompts_is_completed_as_each_prompt_alone(coder):
    together = complete(coder, PROMPTS, 12)
    alone = [complete(coder, [prompt], 12)[0] for prompt in PROMPTS]
    assert together == alone and len({texts[0] for texts in together}) > 1


def test_samples_differ_and_the_seed_gives_them_again(coder):
    first, again, other = (complete(coder, PROMPTS, 12, 4, 1.5, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert all(len(texts) == 4 and len(set(texts)) > 1 for texts in first)


def test_a_prompt_that_fills_the_window_is_answered_with_nothing(coder):
    assert complete(coder, ["x " * 100, "x"], 5)[0] == [""]


def test_nothing_is_written_past_the_window(coder):
    (texts,) = complete(coder, ["x"], 500)
    assert len(coder.tokenizer(texts[0], add_special_tokens=False).input_ids) < 48


@pytest.mark.parametrize(
    ("completion", "kept"),
    [
        ("\n    return x\n", "\n    return x"),
        ("\n    return x\n\n\ndef g():\n    pass", "\n    return x"),
        (" x\n\n    y = 1\nprint(y)", " x\n\n    y = 1"),
        ("", ""),
        ("\n\tif x:\n\t\treturn 1\n# done", "\n\tif x:\n\t\treturn 1"),
    ],
)
def test_a_completion_ends_with_its_function(completion, kept):
    assert first_function(completion) == kept


def test_the_likelihood_is_the_sum_over_the_continuations_tokens(coder):
    rest = ["\n    return x", "\n    return n + n", " = 1", " a + b * c"]
    found = log_likelihood(coder, PROMPTS, rest)
    for prompt, continuation, value in zip(PROMPTS, rest, found, strict=True):
        given = coder.tokenizer(prompt).input_ids
        wanted = coder.tokenizer(continuation, add_special_tokens=False).input_ids
        with torch.no_grad():
            logits = coder.model(torch.tensor([given + wanted])).logits[0]
        told = F.log_softmax(logits, dim=-1)
        expected = sum(told[len(given) - 1 + i, token].item() for i, token in enumerate(wanted))
        assert value == pytest.approx(expected, abs=1e-3)


def test_a_long_prompt_loses_its_beginning_not_the_continuation(coder):
    long, rest = "x " * 60, "\n    return x"
    (value,) = log_likelihood(coder, [long], [rest])
    assert value < 0 and value != log_likelihood(coder, ["x"], [rest])[0]
