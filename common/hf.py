"""GPT-2-shaped weights to and from the Hugging Face format: a folder that `AutoModelForCausalLM` opens.

The two sides mean the same and write it differently: Hugging Face puts `transformer.` before every name, and GPT-2's
Conv1D keeps a linear map as (in, out) where torch's Linear keeps (out, in). Files are JSON and safetensors, so
neither direction needs the transformers package.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn as nn
from safetensors.torch import load_file, save_file
from torch import Tensor

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
CONV1D = ("c_attn.weight", "c_fc.weight", "c_proj.weight")
NOT_WEIGHTS = (".attn.bias", ".attn.masked_bias")  # the masks that older files carry along
FIXED = {  # what a GPT-2 may vary and ours does not
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}
SIZES = {name: name for name in ("vocab_size", "n_embd", "n_head", "n_layer")} | {"block_size": "n_positions"}


def export_hf(model: nn.Module, folder: Path, alphabet: str) -> None:
    """Write the model (step 07) and its characters so that AutoModelForCausalLM and AutoTokenizer open the folder.

    Raises ValueError for a model that has not GPT-2's shape.
    """
    state = {f"transformer.{name}": _turned(name, p.detach()) for name, p in _parameters(model).items()}
    sizes = {theirs: getattr(model.config, ours) for ours, theirs in SIZES.items()}
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), model.config.dropout)
    dtype = str(model.wte.weight.dtype).removeprefix("torch.")
    about = {"architectures": ["GPT2LMHeadModel"], "dtype": dtype, "bos_token_id": None, "eos_token_id": None}
    every_character = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": every_character,
        "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "unknown"},  # which no single character is
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / CONFIG, FIXED | sizes | dropout | about)
    _write(folder / TOKENIZER, tokenizer)
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def read_sizes(folder: Path) -> dict[str, int]:
    """The fields of a Config that fits the folder's weights. Raises ValueError where ours computes differently."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    for name, ours in FIXED.items():
        if config.get(name, ours) != ours:
            raise ValueError(f"{folder} has {name}={config[name]!r}, and this GPT knows {ours!r} only: choose another")
    return {ours: config[theirs] for ours, theirs in SIZES.items()}


def read_alphabet(folder: Path) -> str:
    """The characters that `export_hf` wrote."""
    vocabulary = json.loads((folder / TOKENIZER).read_text(encoding="utf-8"))["model"]["vocab"]
    return "".join(sorted(vocabulary, key=vocabulary.get))


def import_hf(model: nn.Module, folder: Path) -> None:
    """Copy the weights of a GPT-2 folder into the model. Raises ValueError, and changes nothing, if they do not fit."""
    for name, value in read_sizes(folder).items():
        if getattr(model.config, name) != value:
            raise ValueError(
                f"{folder} has {name}={value} and the model {getattr(model.config, name)}: build it with read_sizes"
            )
    load_hf_state(model, load_file(folder / WEIGHTS))


def load_hf_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a GPT-2 state dict into the model. Raises ValueError, and changes nothing, if one weight does not fit."""
    given = {name.removeprefix("transformer."): t for name, t in state.items() if not name.endswith(NOT_WEIGHTS)}
    head = given.pop("lm_head.weight", None)
    ours = _parameters(model)
    if ours.keys() != given.keys():
        raise ValueError(f"the weights do not fit: only one side has {min(ours.keys() ^ given.keys())}")
    for name, parameter in ours.items():
        if _turned(name, given[name]).shape != parameter.shape:
            raise ValueError(f"{name} is {list(given[name].shape)} there and {list(parameter.shape)} here, (out, in)")
    if head is not None and not torch.equal(head, given["wte.weight"]):
        raise ValueError("lm_head.weight is not wte.weight there: a model whose head is not tied does not fit")
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(_turned(name, given[name]))


def _turned(name: str, weight: Tensor) -> Tensor:
    """(in, out) ↔ (out, in) for the linear maps; everything else stays as it is."""
    return weight.T.contiguous() if name.endswith(CONV1D) else weight.contiguous()


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    if not hasattr(model, "lm_head") or model.lm_head.weight is not getattr(model, "wte", model.lm_head).weight:
        raise ValueError("only a GPT with GPT-2's shape and a tied head fits the Hugging Face format: take step 07")
    return dict(model.named_parameters())  # the tied table once, as wte.weight


def _write(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
