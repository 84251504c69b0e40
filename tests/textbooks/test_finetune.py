"""Finetuning: only completions are learned, end-of-text with them; adapters are kept and come back; runs go on."""

import copy
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.hf import export_hf, import_hf, read_sizes
from common.training import Diverged, Recipe
from steps import load
from textbooks import finetune, real_model
from textbooks.finetune import IGNORE, collate, completion_loss, encode, pick, prepare, prompt_ids
from textbooks.records import END_OF_TEXT, Exercise, read_records, training_text

SAMPLE = Path(__file__).parents[2] / "artifacts" / "08_textbook_synthesis" / "sample.jsonl"
EXERCISES = [record for record in read_records(SAMPLE) if isinstance(record, Exercise)][:24]
LORA = load(10)


@pytest.fixture(scope="module")
def tokenizer():
    """Byte-level BPE, trained on the sample, that keeps indentation whole as the study's does."""
    return bpe()


def bpe(eos: str | None = END_OF_TEXT):
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([e.solution for e in EXERCISES], vocab_size=400, special_tokens=[END_OF_TEXT])
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token=eos, pad_token=eos)


def gpt2(vocab_size: int, seed: int = 0, window: int = 256, dropout: float = 0.0):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    sizes = {"n_positions": window, "n_embd": 32, "n_layer": 1, "n_head": 2}
    drop = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, **sizes, **drop)).eval()


def llama(vocab_size: int, seed: int = 0):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, max_position_embeddings=256, **sizes)).eval()


def recipe(steps: int = 5, **changes) -> Recipe:
    return Recipe(steps=steps, **{"batch_size": 2, "learning_rate": 5e-3, "weight_decay": 0.0, **changes})


def generated(model, tokenizer, prompt: str, max_new_tokens: int = 120) -> list[int]:
    ids = torch.tensor([prompt_ids(tokenizer, prompt)])
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False)
    return out[0, ids.shape[1] :].tolist()


# ── what is read and what is learned ──────────────────────────────────────────────────────────────────────


def test_minus_100_masks_the_prompt_and_the_padding_and_nothing_else(tokenizer):
    rows = encode(tokenizer, EXERCISES)
    batch = collate(rows, tokenizer.pad_token_id)
    assert len({len(ids) for ids, _ in rows}) > 1
    for exercise, ids, mask, labels in zip(EXERCISES, *(batch[n] for n in batch), strict=True):
        learned = labels != IGNORE
        assert torch.equal(ids[learned], labels[learned])
        assert tokenizer.decode(ids[learned]) == exercise.solution.removeprefix(exercise.prompt) + "\n" + END_OF_TEXT
        assert tokenizer.decode(ids[mask.bool() & ~learned]) == exercise.prompt
        assert not learned[mask == 0].any() and (ids[mask == 0] == tokenizer.pad_token_id).all()


def test_who_learns_prompts_learns_all_but_the_padding(tokenizer):
    rows = encode(tokenizer, EXERCISES, learn_prompts=True)
    assert rows == [(ids, ids) for ids, _ in encode(tokenizer, EXERCISES)]
    batch = collate(rows, tokenizer.pad_token_id)
    assert torch.equal(batch["labels"] != IGNORE, batch["attention_mask"].bool())


def test_end_of_text_is_learned_though_padding_has_the_same_id(tokenizer):
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    labels = collate(encode(tokenizer, EXERCISES), tokenizer.pad_token_id)["labels"]
    assert ((labels == tokenizer.eos_token_id).sum(dim=1) == 1).all()


def test_newline_and_indentation_are_one_token_that_the_completion_begins_with(tokenizer):
    for exercise, (ids, labels) in zip(EXERCISES, encode(tokenizer, EXERCISES), strict=True):
        first = next(label for label in labels if label != IGNORE)
        assert tokenizer.decode(first).startswith("\n  ")
        assert ids == tokenizer(training_text(exercise)).input_ids, "encoded in two parts as it is in one"


@pytest.mark.parametrize("end", ["", "\n", "\n    ", "  \n\n"])
def test_a_prompt_is_read_without_the_white_space_that_ends_it(tokenizer, end):
    exercise = EXERCISES[0]
    assert prompt_ids(tokenizer, exercise.prompt + end) == prompt_ids(tokenizer, exercise.prompt)
    changed = dataclasses.replace(exercise, prompt=exercise.prompt + "\n")
    assert encode(tokenizer, [changed]) == encode(tokenizer, [exercise])


def test_a_prompt_begins_as_its_tokenizer_begins_a_text_and_only_once(tokenizer):
    from tokenizers.processors import TemplateProcessing

    beginning, ends = bpe(), tokenizer.eos_token_id
    beginning.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{END_OF_TEXT} $A", special_tokens=[(END_OF_TEXT, ends)]
    )
    ((ids, labels),) = encode(beginning, EXERCISES[:1])
    ((bare, of_bare),) = encode(tokenizer, EXERCISES[:1])
    assert (ids, labels) == ([ends, *bare], [IGNORE, *of_bare])


@pytest.mark.oracle
@pytest.mark.parametrize("make", [gpt2, llama])
def test_the_loss_and_its_gradient_are_those_of_transformers(tokenizer, make):
    ours = make(len(tokenizer))
    theirs = copy.deepcopy(ours)
    batch = collate(encode(tokenizer, EXERCISES[:4]), tokenizer.pad_token_id)
    loss, expected = completion_loss(ours, batch), theirs(**batch).loss
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)
    loss.backward()
    expected.backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_what_stands_in_the_padding_changes_no_loss(tokenizer, make):
    model = make(len(tokenizer))
    rows = encode(tokenizer, EXERCISES[:4])
    padded_with_a, padded_with_b = (completion_loss(model, collate(rows, pad)) for pad in (0, 7))
    assert torch.equal(padded_with_a, padded_with_b)


@given(st.lists(st.integers(1, 99), min_size=1, max_size=30), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_every_exercise_is_seen_once_an_epoch_in_an_order_that_only_seed_and_step_decide(lengths, size, seed):
    steps = math.ceil(len(lengths) / size)
    for epoch in range(3):
        seen = [pick(lengths, size, seed, step) for step in range(epoch * steps, (epoch + 1) * steps)]
        assert sorted(row for rows in seen for row in rows) == list(range(len(lengths)))
        assert max(map(len, seen)) <= size and max(map(len, seen)) - min(map(len, seen)) <= 1
        assert pick(lengths, size, seed, epoch * steps) == seen[0]


def test_batches_are_alike_in_length_and_change_from_epoch_to_epoch():
    lengths = np.random.default_rng(0).integers(70, 190, 1000).tolist()
    longest = [max(lengths[row] for row in pick(lengths, 8, 0, step)) for step in range(125)]
    assert 8 * sum(longest) < 1.25 * sum(lengths), "in random batches it is about 1.35"
    assert abs(np.corrcoef(range(125), longest)[0, 1]) < 0.5, "short ones do not come first"
    assert pick(lengths, 8, 0, 0) != pick(lengths, 8, 1, 0)
    assert {frozenset(pick(lengths, 8, 0, s)) for s in range(125)}.isdisjoint(
        frozenset(pick(lengths, 8, 0, s)) for s in range(125, 250)
    )


# ── the loop ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("make", [gpt2, llama])
def test_a_model_that_learned_one_exercise_writes_its_solution_and_stops(tokenizer, make):
    exercise = min(EXERCISES, key=lambda e: len(e.solution))
    model = make(len(tokenizer))
    prepare(model, tokenizer)
    assert generated(model, tokenizer, exercise.prompt)[-1] != tokenizer.eos_token_id
    done = finetune.finetune(model, tokenizer, [exercise], recipe(60, learning_rate=1e-2, batch_size=1), seed=0)
    written = generated(model, tokenizer, exercise.prompt)
    assert tokenizer.decode(written) == exercise.solution.removeprefix(exercise.prompt) + "\n" + END_OF_TEXT
    assert done.losses[-1] < 0.05 < 1 < done.losses[0]
    assert not model.training


@pytest.mark.oracle
def test_the_loop_learns_what_a_plain_loop_of_transformers_loss_and_adamw_learns(tokenizer):
    ours = gpt2(len(tokenizer))
    theirs = copy.deepcopy(ours)
    plan = recipe(6, warmup_steps=2, final_share=0.1, grad_clip=0.5)
    done = finetune.finetune(ours, tokenizer, EXERCISES[:8], plan, seed=7)
    rows = encode(tokenizer, EXERCISES[:8])
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=5e-3, betas=(0.9, 0.99), weight_decay=0.0)
    for step, share in enumerate([1 / 3, 2 / 3, 1.0, 0.775, 0.55, 0.325]):
        optimizer.param_groups[0]["lr"] = 5e-3 * share
        chosen = pick([len(ids) for ids, _ in rows], 2, 7, step)
        loss = theirs(**collate([rows[i] for i in chosen], tokenizer.pad_token_id)).loss
        assert done.losses[step] == pytest.approx(loss.item(), abs=1e-5)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-4)


def test_the_same_seed_gives_the_same_losses_and_weights_to_the_last_bit_and_another_seed_does_not(tokenizer):
    def run(seed, drawn_before=0):
        model = gpt2(len(tokenizer), dropout=0.1)
        torch.rand(drawn_before)
        return finetune.finetune(model, tokenizer, EXERCISES, recipe(), seed=seed).losses, list(model.parameters())

    (losses, weights), (again, same), (others, _) = run(3), run(3, drawn_before=5), run(4)
    assert losses == again != others
    assert all(torch.equal(a, b) for a, b in zip(weights, same, strict=True))


def test_figures_are_counted_and_every_step_is_reported(tokenizer):
    steps = []
    model = gpt2(len(tokenizer))
    done = finetune.finetune(model, tokenizer, EXERCISES[:4], recipe(2), seed=0, on_step=steps.append)
    rows = encode(tokenizer, EXERCISES[:4])
    assert [progress.step for progress in steps] == [1, 2]
    assert tuple(progress.loss for progress in steps) == done.losses
    assert done.tokens_read == sum(len(ids) for ids, _ in rows)
    assert done.tokens_learned == sum(label != IGNORE for _, labels in rows for label in labels)
    assert (done.exercises, done.left_out, done.parameters_trained) == (4, 0, model.num_parameters())


def test_exercises_longer_than_the_window_are_left_out_and_counted(tokenizer):
    lengths = sorted(len(ids) for ids, _ in encode(tokenizer, EXERCISES))
    done = finetune.finetune(gpt2(len(tokenizer), window=lengths[9]), tokenizer, EXERCISES, recipe(1), seed=0)
    fitting = sum(length <= lengths[9] for length in lengths)
    assert 10 <= fitting < len(EXERCISES)
    assert (done.exercises, done.left_out) == (fitting, len(EXERCISES) - fitting)
    with pytest.raises(ValueError, match="none of 24 exercises fits the model's 8 tokens"):
        finetune.finetune(gpt2(len(tokenizer), window=8), tokenizer, EXERCISES, recipe(1), seed=0)


def test_a_tokenizer_that_cannot_end_a_text_is_refused():
    with pytest.raises(ValueError, match="no end-of-text token"):
        encode(bpe(eos=None), EXERCISES)


def test_it_stops_before_an_update_by_what_is_no_number(tokenizer):
    model = gpt2(len(tokenizer))
    model.transformer.ln_f.weight.data[0] = float("nan")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(Diverged, match="step 1: the loss is nan"):
        finetune.finetune(model, tokenizer, EXERCISES, recipe(), seed=0)
    assert all(torch.equal(p.nan_to_num(), before[name].nan_to_num()) for name, p in model.state_dict().items())


# ── adapters ──────────────────────────────────────────────────────────────────────────────────────────────


def by_hand(model):
    return LORA.add_lora(model, ("q_proj", "v_proj", "down_proj"), 2, 4.0, torch.Generator().manual_seed(0))


def by_peft(model, seed: int = 0):
    plan = real_model.Plan(recipe(), rank=2, alpha=4.0, targets=("q_proj", "v_proj", "down_proj"))
    return real_model.add_adapter(model, plan, seed)


@pytest.mark.oracle
def test_lora_by_hand_learns_step_by_step_what_peft_learns(tokenizer):
    ours, theirs = by_hand(llama(len(tokenizer))), by_peft(llama(len(tokenizer)))
    drawn = dict(ours.named_parameters())
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_A" in name:
                parameter.copy_(drawn[name.removeprefix("base_model.model.").replace("lora_A.default.weight", "A")])
    losses, expected = (finetune.finetune(m, tokenizer, EXERCISES, recipe(8), seed=1).losses for m in (ours, theirs))
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    assert losses[0] != losses[-1]
    merged, reference = LORA.merge(ours), theirs.merge_and_unload()
    for mine, other in zip(merged.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-5)


def test_finetuning_with_lora_leaves_the_base_alone(tokenizer):
    base = llama(len(tokenizer))
    adapted = by_hand(copy.deepcopy(base))
    done = finetune.finetune(adapted, tokenizer, EXERCISES, recipe(weight_decay=0.1), seed=0)
    kept = {name.replace(".base.", "."): p for name, p in adapted.named_parameters() if not p.requires_grad}
    assert all(torch.equal(kept[name], parameter) for name, parameter in base.named_parameters())
    assert done.parameters_trained == adapted.num_parameters() - base.num_parameters() > 0


def test_an_adapter_by_hand_is_small_on_disk_and_comes_back_with_the_same_logits(tokenizer, tmp_path):
    adapted, fresh = by_hand(llama(len(tokenizer))), by_hand(llama(len(tokenizer)))
    finetune.finetune(adapted, tokenizer, EXERCISES, recipe(), seed=0)
    idx = torch.tensor([prompt_ids(tokenizer, EXERCISES[0].prompt)])
    assert not torch.equal(fresh(idx).logits, adapted(idx).logits)
    finetune.save_trained(adapted, tmp_path / "a" / "lora.safetensors")
    finetune.load_trained(fresh, tmp_path / "a" / "lora.safetensors")
    assert torch.equal(fresh(idx).logits, adapted(idx).logits)
    numbers = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert (tmp_path / "a" / "lora.safetensors").stat().st_size < 4 * numbers + 2000


def test_an_adapter_of_another_rank_is_refused_and_nothing_is_changed(tokenizer, tmp_path):
    small, large = (LORA.add_lora(llama(99), ("q_proj",), r, 4.0, torch.Generator().manual_seed(0)) for r in (2, 3))
    finetune.save_trained(large, tmp_path / "lora.safetensors")
    before = copy.deepcopy(small.state_dict())
    with pytest.raises(ValueError, match="does not fit this model"):
        finetune.load_trained(small, tmp_path / "lora.safetensors")
    assert all(torch.equal(before[name], value) for name, value in small.state_dict().items())


# ── our own GPT ───────────────────────────────────────────────────────────────────────────────────────────


def test_our_own_gpt_of_step_07_goes_out_is_finetuned_by_the_same_code_and_comes_home(tmp_path):
    """It knows characters and no end of a text: `prepare` gives it one, in the model and in the tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    seven = load(7)
    exercise = min(EXERCISES, key=lambda e: len(e.solution))
    alphabet = "".join(sorted(set(exercise.solution)))
    torch.manual_seed(0)
    own = seven.Model(seven.Config(len(alphabet), block_size=256, n_embd=32, n_head=2, n_layer=1))
    export_hf(own, tmp_path / "base", alphabet)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    prepare(model, tokenizer)
    table = model.get_input_embeddings().weight
    assert tokenizer.eos_token_id == len(alphabet) == len(table) - 1
    torch.testing.assert_close(table[-1], table[:-1].mean(dim=0))
    assert tokenizer.decode(prompt_ids(tokenizer, exercise.prompt)) == exercise.prompt
    done = finetune.finetune(model, tokenizer, [exercise], recipe(120, learning_rate=1e-2, batch_size=1), seed=0)
    assert done.losses[-1] < 0.05 < 1 < done.losses[0]
    written = generated(model, tokenizer, exercise.prompt)
    assert tokenizer.decode(written) == exercise.solution.removeprefix(exercise.prompt) + "\n" + END_OF_TEXT
    model.save_pretrained(tmp_path / "finetuned")
    home = seven.Model(seven.Config(**read_sizes(tmp_path / "finetuned")))
    import_hf(home, tmp_path / "finetuned")
    idx = torch.tensor([prompt_ids(tokenizer, exercise.prompt)])
    torch.testing.assert_close(home(idx)[0], model(idx).logits, rtol=2e-5, atol=2e-5)


def test_prepare_changes_nothing_of_a_pair_that_can_end_a_text(tokenizer):
    model = gpt2(len(tokenizer))
    before, ending = copy.deepcopy(model.state_dict()), tokenizer.eos_token_id
    prepare(model, tokenizer)
    assert tokenizer.eos_token_id == model.generation_config.eos_token_id == ending
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# ── the real model's study, on a tiny one ─────────────────────────────────────────────────────────────────

PLAN = real_model.Plan(recipe(12, learning_rate=2e-2), rank=2, alpha=4.0, dtype="float32")
PERMUTED = [
    dataclasses.replace(e, solution=e.prompt + other.solution.removeprefix(other.prompt))
    for e, other in zip(EXERCISES, EXERCISES[1:] + EXERCISES[:1], strict=True)
]


class Measuring:
    """Loss on the true exercises, and how often it was asked; stops a run, as a person may, before its n-th answer."""

    def __init__(self, stop_at: int = 99):
        self.asked, self.stop_at = 0, stop_at

    def __call__(self, model, tokenizer) -> dict[str, float]:
        self.asked += 1
        if self.asked == self.stop_at:
            raise KeyboardInterrupt
        with torch.no_grad():
            return {"loss": completion_loss(model, collate(encode(tokenizer, EXERCISES), 0)).item()}


@pytest.fixture(scope="module")
def small_model(tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run(folder: Path, model: Path, measure, **changes) -> dict:
    given = {"exercises": EXERCISES, "permuted": PERMUTED, "plan": PLAN, **changes}
    return real_model.study(measure=measure, folder=folder, model=model, seed=0, **given)


def test_three_arms_are_measured_once_and_kept(small_model, tmp_path):
    measure, steps = Measuring(), []
    results = run(tmp_path, small_model, measure, on_step=lambda arm, progress: steps.append((arm, progress.step)))
    assert tuple(results) == real_model.ARMS and measure.asked == 3
    assert steps == [(arm, step) for arm in ("after", "permuted") for step in range(1, 13)]
    before, after, permuted = results.values()
    assert "training" not in before and after["key"] != permuted["key"]
    assert after["training"]["parameters_trained"] == permuted["training"]["parameters_trained"] < before["parameters"]
    assert after["training"]["losses"] != permuted["training"]["losses"], "each learned from its own exercises"
    assert max(after["scores"]["loss"], permuted["scores"]["loss"]) < before["scores"]["loss"]
    assert run(tmp_path, small_model, measure) == json.loads(json.dumps(results)) and measure.asked == 3


def test_what_was_measured_is_the_adapter_that_was_kept_and_says_nothing_of_this_machine(small_model, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    measure = Measuring()
    results = run(tmp_path, small_model, measure)
    adapter = tmp_path / "after" / "adapter"
    assert {file.name for file in adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert results["after"]["adapter_bytes"] == sum(file.stat().st_size for file in adapter.iterdir())
    assert str(small_model) not in (adapter / "adapter_config.json").read_text()
    merged = real_model.merge_adapter(AutoModelForCausalLM.from_pretrained(small_model), adapter)
    assert measure(merged, AutoTokenizer.from_pretrained(small_model)) == results["after"]["scores"]


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_a_run_stopped_while_measuring_goes_on_and_trains_nothing_twice(small_model, tmp_path, stop_at):
    unbroken = run(tmp_path / "unbroken", small_model, Measuring())
    trained = []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", small_model, Measuring(stop_at), on_step=lambda arm, _: trained.append(arm))
    measure = Measuring()
    results = run(tmp_path / "broken", small_model, measure, on_step=lambda arm, _: trained.append(arm))
    assert measure.asked == 4 - stop_at and len(trained) == 24
    assert {arm: r["scores"] for arm, r in results.items()} == {arm: r["scores"] for arm, r in unbroken.items()}


def test_a_folder_of_other_data_or_settings_is_not_taken_for_this_run(small_model, tmp_path):
    run(tmp_path, small_model, Measuring())
    for changes in ({"exercises": EXERCISES[1:]}, {"plan": dataclasses.replace(PLAN, rank=3)}):
        with pytest.raises(ValueError, match="holds a run with other data or settings"):
            run(tmp_path, small_model, Measuring(), **changes)


def test_each_preset_keeps_to_its_bounds():
    """Rank · (inputs + outputs) over SmolLM2's 30 layers of 576, 192 and 1536, four bytes each."""
    sizes = {"q_proj": 576 + 576, "k_proj": 576 + 192, "v_proj": 576 + 192, "o_proj": 576 + 576}
    sizes |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), 576 + 1536)
    plan = real_model.plans()["laptop"]
    assert 30 * plan.rank * sum(sizes[name] for name in plan.targets) * 4 < 4.95e6
