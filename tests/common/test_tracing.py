"""The trace tells what really flowed: shapes, parameters, work and attention, without disturbing the model."""

import math

import pytest
import torch
import torch.nn as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from common.tracing import attention_maps, trace
from steps import load

every_step = pytest.mark.parametrize("number", range(1, 8))
few = settings(max_examples=max(5, settings.default.max_examples // 4))
V, C, H, D, LAYERS = 7, 8, 2, 4, 2


def build(number: int, **sizes) -> nn.Module:
    step = load(number)
    sizes = {"n_embd": C, "n_head": H, "n_layer": LAYERS, "head_size": D} | sizes
    sizes = {name: value for name, value in sizes.items() if name in step.Config.__dataclass_fields__}
    return step.Model(step.Config(vocab_size=V, block_size=8, **sizes))


def work(number: int, B: int, T: int) -> int:
    """Floating point operations by hand, from the shapes alone; a multiply-add counts as two."""
    attention = {3: 2 * C * D + T * D + T * C, 4: 3 * C * C + 2 * T * C, 5: 4 * C * C + 2 * T * C}  # for one position
    block = attention[5] + 8 * C * C
    inside = {1: 0, 2: T * C, **attention, 6: LAYERS * block, 7: LAYERS * block}[number]
    head = {1: 0, 2: 2 * C * V}.get(number, C * V)
    return 2 * B * T * (inside + head)


@every_step
@few
@given(B=st.integers(1, 3), T=st.integers(1, 8))
def test_shapes_parameters_and_work_are_those_counted_by_hand(number, B, T):
    model = build(number)
    rows = trace(model, torch.zeros(B, T, dtype=torch.long))
    whole = rows[0]
    assert (whole.name, whole.kind) == ("", "Model")
    assert (whole.input_shape, whole.output_shape) == ((B, T), (B, T, V))
    assert whole.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert whole.flops == work(number, B, T)


@every_step
@few
@given(B=st.integers(1, 3), T=st.integers(1, 8))
def test_every_module_that_ran_is_reported_once_with_its_own_name(number, B, T):
    model = build(number)
    rows = trace(model, torch.zeros(B, T, dtype=torch.long))
    expected = [name for name, m in model.named_modules() if not isinstance(m, nn.Dropout | nn.ModuleList)]
    assert sorted(row.name for row in rows) == sorted(expected)
    for row in rows:
        module = model.get_submodule(row.name)
        assert row.kind == type(module).__name__
        if isinstance(module, nn.Linear):
            assert row.input_shape[-1] == module.in_features
            assert row.output_shape == (*row.input_shape[:-1], module.out_features)
            assert row.flops == 2 * math.prod(row.input_shape) * module.out_features


@every_step
@given(T=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_attention_maps_are_the_weights_each_layer_used(number, T, seed):
    torch.manual_seed(seed)
    model, used = build(number), []
    idx = torch.randint(V, (1, T))
    for module in model.modules():
        if hasattr(module, "weights"):
            module.register_forward_pre_hook(lambda module, args: used.append(module.weights(args[0])[0]))
    model(idx)
    del used[:]
    maps = attention_maps(model.eval(), idx)
    assert len(maps) == {1: 0, 2: 0, 3: 1, 4: 1, 5: H, 6: H * LAYERS, 7: LAYERS}[number]
    for (name, wei), expected in zip(maps, used, strict=True):
        assert hasattr(model.get_submodule(name), "weights")
        assert wei.shape == (H if number == 7 else 1, T, T)
        torch.testing.assert_close(wei, expected.reshape(wei.shape))
        torch.testing.assert_close(wei.sum(-1), torch.ones(wei.shape[:2]))


@every_step
@pytest.mark.parametrize("look", [trace, attention_maps])
@pytest.mark.parametrize("training", [True, False])
def test_looking_leaves_the_model_as_it_was(number, look, training):
    model = build(number, dropout=0.5).train(training)
    look(model, torch.zeros(1, 4, dtype=torch.long))
    assert all(module.training is training for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


@every_step
@pytest.mark.parametrize("look", [trace, attention_maps])
def test_looking_at_a_model_that_fails_leaves_it_as_it_was(number, look):
    model = build(number)
    with pytest.raises(IndexError):
        look(model, torch.full((1, 4), V))  # no such token
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
