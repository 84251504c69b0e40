"""The Hugging Face format: what is exported is opened by the transformers package itself, and comes back unchanged."""

import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from common.hf import export_hf, import_hf, load_hf_state, read_alphabet, read_sizes
from steps import load

step = load(7)
alphabets = st.text(st.characters(exclude_categories=["Cs"]), min_size=2, max_size=30).map(
    lambda text: "".join(sorted(set(text) | {"a", "\n"}))
)
few = settings(max_examples=max(5, settings.default.max_examples // 10))  # each writes files


def gpt(alphabet: str, seed: int, **sizes) -> torch.nn.Module:
    config = {"block_size": 9, "n_embd": 12, "n_head": 3, "n_layer": 2, **sizes}
    model = step.Model(step.Config(vocab_size=len(alphabet), **config)).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return model


@pytest.mark.oracle
@few
@given(alphabet=alphabets, seed=st.integers(0, 2**32 - 1))
def test_transformers_opens_the_exported_folder_with_the_same_logits_and_characters(alphabet, seed):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = gpt(alphabet, seed)
    text = (alphabet * 9)[:9]
    with tempfile.TemporaryDirectory() as folder:
        export_hf(model, Path(folder), alphabet)
        theirs = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    idx = tokenizer(text, return_tensors="pt").input_ids
    assert idx[0].tolist() == [alphabet.index(character) for character in text]
    assert tokenizer.decode(idx[0]) == text
    torch.testing.assert_close(theirs(idx).logits, model(idx)[0], rtol=1e-10, atol=1e-10)
    assert theirs.dtype == torch.float64


@few
@given(
    alphabet=alphabets,
    seed=st.integers(0, 2**32 - 1),
    n_layer=st.integers(0, 3),
    n_head=st.integers(1, 3),
    D=st.integers(1, 4),
)
def test_export_then_import_is_the_identity(alphabet, seed, n_layer, n_head, D):
    model = gpt(alphabet, seed, n_layer=n_layer, n_head=n_head, n_embd=n_head * D)
    with tempfile.TemporaryDirectory() as folder:
        export_hf(model, Path(folder), alphabet)
        back = step.Model(step.Config(**read_sizes(Path(folder)))).double()
        import_hf(back, Path(folder))
        assert read_alphabet(Path(folder)) == alphabet
    assert back.config == model.config
    assert back.lm_head.weight is back.wte.weight
    for name, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


def test_weights_named_as_in_the_first_gpt2_files_are_understood(tmp_path):
    """Those have no `transformer.` in front, and carry the causal mask of every layer."""
    model, back = gpt("abc", 1), gpt("abc", 2)
    export_hf(model, tmp_path, "abc")
    state = {name.removeprefix("transformer."): t for name, t in load_file(tmp_path / "model.safetensors").items()}
    state |= {"h.0.attn.bias": torch.ones(1, 1, 9, 9), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    load_hf_state(back, state | {"lm_head.weight": state["wte.weight"]})
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), back.parameters(), strict=True))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"n_head": 4}, "n_head=3 and the model 4"),
        ({"n_layer": 1}, "n_layer=2 and the model 1"),
        ({"block_size": 8}, "block_size=9 and the model 8"),
        ({"n_embd": 24}, "n_embd=12 and the model 24"),
    ],
)
def test_a_folder_of_another_size_is_refused_and_nothing_is_changed(tmp_path, change, sentence):
    export_hf(gpt("abc", 1), tmp_path, "abc")
    other = gpt("abc", 2, **change)
    before = [parameter.clone() for parameter in other.parameters()]
    with pytest.raises(ValueError, match=sentence):
        import_hf(other, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(before, other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "value"),
    [("activation_function", "gelu"), ("scale_attn_by_inverse_layer_idx", True), ("layer_norm_epsilon", 1e-12)],
)
def test_a_gpt2_that_computes_differently_is_refused(tmp_path, name, value):
    export_hf(gpt("abc", 1), tmp_path, "abc")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(ValueError, match=f"{name}="):
        import_hf(gpt("abc", 2), tmp_path)


def test_a_wrong_shape_a_missing_weight_and_an_untied_head_are_named(tmp_path):
    model = gpt("abc", 1)
    export_hf(model, tmp_path, "abc")
    state = load_file(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"h.0.mlp.c_fc.weight is \[5, 48\] there and \[48, 12\] here"):
        load_hf_state(model, state | {"transformer.h.0.mlp.c_fc.weight": torch.zeros(5, 48)})
    with pytest.raises(ValueError, match=r"only one side has ln_f.bias$"):
        load_hf_state(model, {name: t for name, t in state.items() if name != "transformer.ln_f.bias"})
    with pytest.raises(ValueError, match="not tied"):
        load_hf_state(model, state | {"lm_head.weight": torch.zeros(3, 12)})


@pytest.mark.parametrize("number", range(1, 7))
def test_only_a_gpt2_shaped_model_can_travel(number, tmp_path):
    model = load(number).Model(load(number).Config(vocab_size=3))
    with pytest.raises(ValueError, match=r"take step 07$"):
        export_hf(model, tmp_path / "never", "abc")
    assert not (tmp_path / "never").exists()


def test_weights_written_by_transformers_can_be_read(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=7, n_positions=9, n_embd=12, n_layer=2, n_head=3)).eval()
    theirs.save_pretrained(tmp_path)
    ours = step.Model(step.Config(**read_sizes(tmp_path))).eval()
    import_hf(ours, tmp_path)
    idx = torch.arange(7)[None]
    torch.testing.assert_close(ours(idx)[0], theirs(idx).logits, rtol=2e-5, atol=2e-5)
    save_file({name: p.clone() for name, p in theirs.transformer.state_dict().items()}, tmp_path / "plain")
    load_hf_state(ours, load_file(tmp_path / "plain"))
