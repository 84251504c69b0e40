"""A real pretrained model on our exercises: SmolLM2-135M-Instruct (Allal et al., arXiv 2502.02737) with peft's LoRA.

Three arms, each measured by the same function:

    before     the model as it comes
    after      finetuned on the exercises
    permuted   finetuned on exercises whose solutions belong to other docstrings: what format and domain alone teach

Every arm has a folder, with `adapter/` (peft's own format, which `PeftModel.from_pretrained` opens), `training.json`
and `result.json`. What is there is not made again, so a run that was stopped goes on. An arm is measured on what was
kept: its adapter is read back from its file and merged into a model that training left alone.
"""

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textbooks.records import Exercise, digest

if TYPE_CHECKING:
    from common.training import Progress, Recipe

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"  # where the same model is found in full precision
ARMS = ("before", "after", "permuted")
EVERY_LINEAR_MAP = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Measure = Callable[[Any, Any], Mapping[str, Any]]  # (model, tokenizer) -> plain JSON


@dataclass(frozen=True)
class Plan:
    """How the adapters are shaped and trained. Rank 4 on every linear map of SmolLM2 is 4.9 MB in float32."""

    recipe: "Recipe"
    rank: int = 4
    alpha: float = 8.0
    targets: tuple[str, ...] = EVERY_LINEAR_MAP
    dtype: str = "bfloat16"  # of the frozen weights; adapters are float32


def plans() -> dict[str, Plan]:
    """The presets."""
    from common.training import Recipe

    shared = {"learning_rate": 2e-3, "weight_decay": 0.0, "final_share": 0.0}
    return {
        "quick": Plan(Recipe(steps=4, batch_size=2, **shared)),
        "laptop": Plan(Recipe(steps=200, batch_size=8, warmup_steps=10, **shared)),
        "a100": Plan(Recipe(steps=1500, batch_size=64, warmup_steps=50, **shared), rank=16, alpha=32.0),
    }


def add_adapter(model, plan: Plan, seed: int):
    """The model with peft's LoRA at the plan's targets; the model itself is changed in place and frozen."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=plan.rank,
        lora_alpha=plan.alpha,
        target_modules=list(plan.targets),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft still asks by a name that transformers is giving up
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    config.base_model_name_or_path = NAME  # peft writes the path of this machine's file
    return adapted


def merge_adapter(model, folder: Path):
    """The bare model with the adapter in `folder` read and added into its weights."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder).merge_and_unload().eval()


def study(
    exercises: Sequence[Exercise],
    permuted: Sequence[Exercise],
    measure: Measure,
    folder: Path,
    plan: Plan,
    *,
    seed: int = 0,
    model: Path | None = None,
    device: str = "cpu",
    on_step: Callable[[str, "Progress"], None] = lambda arm, progress: None,
) -> dict[str, Any]:
    """Arm → its result; `folder` keeps every arm as soon as it is done. `on_step` gets the arm and each training step.

    `model` is a GGUF file or Hugging Face folder instead of the cached SmolLM2. Raises ValueError if the folder holds
    an arm of other data or settings, TeacherStopped if the model is not there and cannot be fetched.
    """
    from textbooks.teachers.local import fetch

    path = model or fetch()
    data = dict(zip(ARMS, ((), exercises, permuted), strict=True))
    return {
        arm: _arm(folder / arm, data[arm], measure, path, plan, seed, device, lambda p, arm=arm: on_step(arm, p))
        for arm in ARMS
    }


def _arm(
    folder: Path,
    exercises: Sequence[Exercise],
    measure: Measure,
    path: Path,
    plan: Plan,
    seed: int,
    device: str,
    on_step: Callable[["Progress"], None],
) -> dict[str, Any]:
    """One arm's result, from its folder if it is there."""
    from common.records import write_json
    from textbooks.finetune import prepare
    from textbooks.teachers.local import load

    key = digest(_plain(plan), seed, path.name, [exercise.key for exercise in exercises])
    if done := _read(folder / "result.json", key):
        return done
    model, tokenizer = load(path, plan.dtype)
    model.to(device)
    prepare(model, tokenizer)
    about = {"key": key, "model": path.stem, "parameters": model.num_parameters()}
    if exercises:
        training = _read(folder / "training.json", key)
        if not training:
            model, training = _train(model, tokenizer, exercises, plan, seed, folder, about, on_step)
        about = training
        model = merge_adapter(model, folder / "adapter")
    began = time.perf_counter()
    scores = dict(measure(model, tokenizer))
    result = about | {"scores": scores, "seconds_measuring": round(time.perf_counter() - began, 1)}
    write_json(folder / "result.json", result)
    return result


def _train(model, tokenizer, exercises, plan, seed, folder, about, on_step) -> tuple[Any, dict[str, Any]]:
    """Train an adapter and write it and its figures, `training.json` last. Returns the model without it."""
    from common.records import write_json
    from textbooks.finetune import finetune

    if model.device.type == "cpu":
        model.set_attn_implementation("eager")  # a fifth faster there, since the fused kernel's backward is slow
    adapted = add_adapter(model, plan, seed)
    did = asdict(finetune(adapted, tokenizer, exercises, plan.recipe, seed=seed, on_step=on_step))
    adapted.peft_config["default"].target_modules = sorted(plan.targets)  # peft keeps a set, in any order
    adapted.save_pretrained(folder / "adapter", save_embedding_layers=False)  # else it asks the network about them
    (folder / "adapter" / "README.md").unlink(missing_ok=True)  # a form that peft leaves to be filled in
    size = sum(file.stat().st_size for file in (folder / "adapter").iterdir())
    training = about | {"plan": _plain(plan), "seed": seed, "training": did, "adapter_bytes": size}
    write_json(folder / "training.json", training)
    bare = adapted.unload()
    bare.set_attn_implementation("sdpa")
    return bare, training


def _plain(plan: Plan) -> dict[str, Any]:
    return vars(plan) | {"recipe": {name: value for name, value in vars(plan.recipe).items() if name != "model"}}


def _read(file: Path, key: str) -> dict[str, Any] | None:
    """What an earlier run wrote. Raises ValueError if that run had other data or settings."""
    if not file.exists():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    if found["key"] != key:
        raise ValueError(f"{file.parent} holds a run with other data or settings: choose another folder or delete it")
    return found
