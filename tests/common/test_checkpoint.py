"""Checkpoints: whole or not there, checked when opened, and never a reason to lose the one before."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import steps
from common import checkpoint
from common.checkpoint import CheckpointError
from common.optimizers import make_optimizers

FILES = [checkpoint.MANIFEST, checkpoint.WEIGHTS, checkpoint.OPTIMIZERS]


def trained(seed: int = 0, updates: int = 2):
    """A tiny step-07 model with Muon and AdamW, a few updates old."""
    step = steps.load(7)
    torch.manual_seed(seed)
    model = step.Model(step.Config(vocab_size=11, block_size=8, n_embd=16, n_head=2, n_layer=2))
    optimizers = make_optimizers(model, "muon", 1e-3, 0.02, 0.1)
    for _ in range(updates):
        model(torch.randint(11, (2, 8)), torch.randint(11, (2, 8)))[1].backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return model, optimizers


def same(a, b) -> bool:
    """Equal weights and equal optimizer state, to the last bit."""
    (model_a, optimizers_a), (model_b, optimizers_b) = a, b
    weights = all(torch.equal(p, q) for p, q in zip(model_a.parameters(), model_b.parameters(), strict=True))
    packed_a, groups_a = checkpoint._pack(optimizers_a)
    packed_b, groups_b = checkpoint._pack(optimizers_b)
    return (
        weights
        and packed_a.keys() == packed_b.keys()
        and all(torch.equal(packed_a[k], packed_b[k]) for k in packed_a)
        and json.dumps(groups_a) == json.dumps(groups_b)
    )


def test_what_was_saved_comes_back_to_the_last_bit(tmp_path):
    before = trained(seed=1)
    checkpoint.save(tmp_path, 2, *before, {"seed": 1, "alphabet": "é\n"})
    saved, lines = checkpoint.newest(tmp_path)
    after = trained(seed=2, updates=0)
    assert not same(before, after)
    saved.restore(*after)
    assert same(before, after)
    assert (saved.step, saved.about["alphabet"], lines) == (2, "é\n", [])
    assert after[0].lm_head.weight is after[0].wte.weight  # still one table


def test_the_two_newest_are_kept(tmp_path):
    state = trained()
    for step in (1, 2, 3, 10):
        checkpoint.save(tmp_path, step, *state, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-000003", "checkpoint-000010"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "missing"])
def test_damage_is_found_and_the_one_before_is_used_and_named(tmp_path, name, damage):
    older, newer = trained(seed=1), trained(seed=2)
    checkpoint.save(tmp_path, 1, *older, {})
    file = checkpoint.save(tmp_path, 2, *newer, {}) / name
    content = bytearray(file.read_bytes())
    if damage == "flipped bit":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.unlink()
    saved, lines = checkpoint.newest(tmp_path)
    assert saved.step == 1
    (line,) = lines
    assert "checkpoint-000002 is damaged" in line and name in line and "checkpoint-000001" in line


def test_every_byte_of_the_manifest_is_guarded(tmp_path):
    folder = checkpoint.save(tmp_path, 1, *trained(), {"seed": 7})
    file = folder / checkpoint.MANIFEST
    content = file.read_bytes()
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 2
        file.write_bytes(changed)
        if json_or_none(changed) != json_or_none(content):
            with pytest.raises(CheckpointError, match="damaged"):
                checkpoint.read(folder)


def json_or_none(content: bytes):
    try:
        return json.loads(content)
    except ValueError:
        return None


def test_with_nothing_good_left_one_sentence_says_what_to_do(tmp_path):
    folder = checkpoint.save(tmp_path, 1, *trained(), {})
    (folder / checkpoint.WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="train again without --resume"):
        checkpoint.newest(tmp_path)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        checkpoint.newest(tmp_path / "nowhere")


def test_weights_of_another_model_are_refused(tmp_path):
    checkpoint.save(tmp_path, 1, *trained(), {})
    step = steps.load(7)
    wider = step.Model(step.Config(vocab_size=11, block_size=8, n_embd=32, n_head=2, n_layer=2))
    with pytest.raises(CheckpointError, match="does not fit"):
        checkpoint.newest(tmp_path)[0].restore(wider)


class Killed(BaseException):
    """Stands for a process that ends here: nothing after it runs, no handler catches it."""


def cut_at(monkeypatch, number: int) -> list[int]:
    """Make the `number`-th write, fsync or rename the last thing that happens. Returns a counter."""
    calls = [0]

    def cutting(function):
        def wrapped(*args, **kwargs):
            calls[0] += 1
            if calls[0] == number:
                raise Killed
            return function(*args, **kwargs)

        return wrapped

    for owner, name in [
        (checkpoint, "save_model"), (checkpoint, "save_file"), (Path, "write_text"), (os, "fsync"), (os, "replace"),
    ]:  # fmt: skip
        monkeypatch.setattr(owner, name, cutting(getattr(owner, name)))
    return calls


def test_killed_at_every_write_sync_and_rename_a_good_checkpoint_is_left(tmp_path, monkeypatch):
    older, newer = trained(seed=1), trained(seed=2)
    with monkeypatch.context() as patch:
        points = cut_at(patch, number=-1)
        checkpoint.save(tmp_path / "count", 1, *older, {})
    assert points[0] >= 8  # two tensor files, the manifest, three fsyncs of files, two of folders, the rename
    for number in range(1, points[0] + 1):
        root = tmp_path / str(number)
        checkpoint.save(root, 1, *older, {})
        with monkeypatch.context() as patch:
            cut_at(patch, number)
            with pytest.raises(Killed):
                checkpoint.save(root, 2, *newer, {})
        saved, _ = checkpoint.newest(root)
        again = trained(seed=3, updates=0)
        saved.restore(*again)
        assert same(again, newer if saved.step == 2 else older)
        checkpoint.save(root, 2, *newer, {})  # and what was left behind is not in the way
        assert checkpoint.newest(root)[0].step == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file size limit to set")
def test_a_disk_that_takes_no_more_says_so_and_keeps_the_one_before(tmp_path):
    script = """
import resource, sys, pathlib
import torch
from common import checkpoint
model = torch.nn.Linear(300, 300)
root = pathlib.Path(sys.argv[1])
checkpoint.save(root, 1, model, (), {})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoint.save(root, 2, model, (), {})
except checkpoint.CheckpointError as error:
    print(error)
print(checkpoint.newest(root)[0].step, sorted(p.name for p in root.iterdir()))
"""
    ran = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    said, left = ran.stdout.splitlines()
    assert "cannot be written" in said and "free some space" in said
    assert left == "1 ['checkpoint-000001']"


def test_nothing_is_ever_unpickled():
    root = Path(checkpoint.__file__).parent.parent
    sources = [file for folder in ("common", "steps", "book_data") for file in (root / folder).rglob("*.py")]
    assert len(sources) > 20
    for file in sources:
        code = file.read_text(encoding="utf-8")
        assert "torch.load(" not in code and "pickle" not in code, file


def test_saving_the_same_step_again_replaces_it(tmp_path):
    checkpoint.save(tmp_path, 1, *trained(seed=1), {"seed": 1})
    checkpoint.save(tmp_path, 1, *trained(seed=1), {"seed": 2})
    assert checkpoint.newest(tmp_path)[0].about["seed"] == 2
    shutil.rmtree(tmp_path / "checkpoint-000001")
    with pytest.raises(CheckpointError):
        checkpoint.newest(tmp_path)
