"""Checkpoints that survive a power cut, and never run code when they are opened.

A checkpoint is a folder: weights and optimizer state as safetensors, everything else as JSON with the sha256 of each
file. It is written aside, synced and renamed, so it is there whole or not at all; the two newest are kept, so a
damaged one leaves the one before.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from safetensors import SafetensorError
from safetensors.torch import load, load_model, save_file, save_model

MANIFEST = "checkpoint.json"
WEIGHTS = "weights.safetensors"
OPTIMIZERS = "optimizers.safetensors"
KEEP = 2


class CheckpointError(ValueError):
    """No checkpoint can be used; says which were tried and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were checked. `about` is what was handed to `save`, with the step and versions."""

    folder: Path
    about: dict[str, Any]

    @property
    def step(self) -> int:
        return self.about["step"]

    def restore(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer] = ()) -> None:
        """Copy the weights, and the optimizers' state where wanted, into place."""
        try:
            load_model(model, self.folder / WEIGHTS, device=str(next(model.parameters()).device))
        except RuntimeError as error:
            raise CheckpointError(
                f"{self.folder} does not fit this model: it was saved by another step or size"
            ) from error
        if optimizers:
            tensors = load((self.folder / OPTIMIZERS).read_bytes())
            for number, optimizer in enumerate(optimizers):
                optimizer.load_state_dict(_unpack(tensors, number, self.about["optimizers"][number]))


def save(
    root: Path,
    step: int,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    about: dict[str, Any],
) -> Path:
    """Write root/checkpoint-STEP and forget all but the two newest. `about` must be plain JSON.

    Raises CheckpointError where the disk does not take it; older checkpoints are left alone then.
    """
    target = root / f"checkpoint-{step:06d}"
    aside = root / f".writing-{target.name}"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        _write(aside, step, model, optimizers, about)
        if target.exists():  # the same step of the same run, saved again after a resume
            shutil.rmtree(target)
        os.replace(aside, target)
        _sync(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(
            f"{target} cannot be written ({reason}): free some space or choose another --out"
        ) from error
    for old in _all(root)[KEEP:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _write(
    aside: Path, step: int, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], about: dict[str, Any]
) -> None:
    save_model(model, str(aside / WEIGHTS))
    if optimizers:
        tensors, groups = _pack(optimizers)
        save_file(tensors, aside / OPTIMIZERS)
        about = {**about, "optimizers": groups}
    files = {file.name: sha256(file) for file in sorted(aside.iterdir())}
    manifest = {**about, "step": step, "torch": torch.__version__, "files": files}
    manifest["sha256"] = _digest(manifest)
    (aside / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for file in aside.iterdir():
        _sync(file)
    _sync(aside)


def newest(root: Path) -> tuple[Checkpoint, list[str]]:
    """The newest undamaged checkpoint under a folder (or the folder itself), and a line about each one passed over."""
    folders = [root] if (root / MANIFEST).exists() else _all(root)
    damaged = []
    for folder in folders:
        try:
            return read(folder), [f"{line}; using {folder.name} instead" for line in damaged]
        except CheckpointError as error:
            damaged.append(str(error))
    if damaged:
        raise CheckpointError(
            f"{'; '.join(damaged)}; no good checkpoint is left in {root}: train again without --resume"
        )
    raise CheckpointError(f"there is no checkpoint in {root}: train first, without --resume")


def read(folder: Path) -> Checkpoint:
    """Open one checkpoint and compare every file with its sha256. Raises CheckpointError, one sentence."""
    try:
        about = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files, digest = about["files"], about.pop("sha256")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder.name} is damaged: {MANIFEST} cannot be read") from error
    if _digest(about) != digest:
        raise CheckpointError(f"{folder.name} is damaged: {MANIFEST} does not match its own sha256")
    for name, expected in files.items():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder.name} is damaged: {name} is missing")
        if sha256(folder / name) != expected:
            raise CheckpointError(f"{folder.name} is damaged: {name} does not match its sha256")
    return Checkpoint(folder, about)


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _all(root: Path) -> list[Path]:
    return sorted(root.glob("checkpoint-*"), reverse=True)


def _sync(path: Path) -> None:
    """Ask the disk to keep it. Windows cannot open a folder for this, and does not need it."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _pack(optimizers: Sequence[torch.optim.Optimizer]) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """Optimizer state as one flat dictionary of tensors, and the groups as JSON."""
    tensors, groups = {}, []
    for number, optimizer in enumerate(optimizers):
        state = optimizer.state_dict()
        groups.append(state["param_groups"])
        for parameter, values in state["state"].items():
            for name, value in values.items():
                tensors[f"{number}.{parameter}.{name}"] = value.contiguous()
    return tensors, groups


def _unpack(tensors: dict[str, torch.Tensor], number: int, groups: list[Any]) -> dict[str, Any]:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        owner, parameter, name = key.split(".")
        if int(owner) == number:
            state.setdefault(int(parameter), {})[name] = tensor
    return {"state": state, "param_groups": groups}
