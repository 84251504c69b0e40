"""Which parameters learn how: decay on matrices only, Muon on exactly the hidden ones, everything exactly once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.optimizers import hidden_matrices, make_optimizers
from steps import load

every_step = pytest.mark.parametrize("number", range(1, 8))
both = pytest.mark.parametrize("name", ["adamw", "muon"])

HIDDEN = {
    1: [],
    2: [],
    3: ["attn.query", "attn.key"],
    4: ["attn.query", "attn.key", "attn.value"],
    5: [f"attn.heads.{i}.{part}" for i in range(2) for part in ("query", "key", "value")] + ["attn.c_proj"],
    6: [
        f"h.{layer}.attn.heads.{i}.{part}" for layer in range(2) for i in range(2) for part in ("query", "key", "value")
    ]
    + [f"h.{layer}.{part}" for layer in range(2) for part in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")],
    7: [f"h.{layer}.{part}" for layer in range(2) for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")],
}


def build(number: int) -> torch.nn.Module:
    step = load(number)
    sizes = {"n_embd": 8, "n_head": 2, "n_layer": 2, "head_size": 4}
    sizes = {name: value for name, value in sizes.items() if name in step.Config.__dataclass_fields__}
    model = step.Model(step.Config(vocab_size=5, block_size=6, **sizes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def names_of(model: torch.nn.Module, parameters: list) -> list[str]:
    wanted = set(parameters)
    return [name for name, parameter in model.named_parameters() if parameter in wanted]


@every_step
@both
def test_every_parameter_is_in_exactly_one_group_and_a_tied_table_once(number, name):
    model = build(number)
    groups = [group for optimizer in make_optimizers(model, name, 1e-3, 0.02, 0.1) for group in optimizer.param_groups]
    given_out = [parameter for group in groups for parameter in group["params"]]
    assert len(given_out) == len(set(given_out))
    assert set(given_out) == set(model.parameters())
    assert all(group["params"] for group in groups)


@every_step
def test_muon_takes_exactly_the_hidden_matrices(number):
    model = build(number)
    assert sorted(names_of(model, hidden_matrices(model))) == sorted(f"{name}.weight" for name in HIDDEN[number])
    adamw, *muon = make_optimizers(model, "muon", 1e-3, 0.02, 0.1)
    assert isinstance(adamw, torch.optim.AdamW)
    assert [type(optimizer) for optimizer in muon] == [torch.optim.Muon] * bool(HIDDEN[number])
    taken = [parameter for optimizer in muon for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(names_of(model, taken)) == sorted(f"{name}.weight" for name in HIDDEN[number])


@every_step
def test_adamw_alone_takes_everything(number):
    (optimizer,) = make_optimizers(build(number), "adamw", 1e-3, 0.02, 0.1)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.99)}


@every_step
@both
@given(rate=st.floats(1e-4, 0.1), muon_rate=st.floats(1e-4, 0.1), decay=st.floats(0.01, 1.0))
def test_without_a_gradient_a_step_shrinks_matrices_by_the_decay_and_leaves_vectors_alone(
    number, name, rate, muon_rate, decay
):
    model = build(number)
    hidden = set(hidden_matrices(model)) if name == "muon" else set()
    before = {parameter: parameter.detach().clone() for parameter in model.parameters()}
    for parameter in before:
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in make_optimizers(model, name, rate, muon_rate, decay):
        optimizer.step()
    for parameter, old in before.items():
        if parameter.dim() < 2:
            assert torch.equal(parameter, old)
        else:
            shrunk = old * (1 - (muon_rate if parameter in hidden else rate) * decay)
            torch.testing.assert_close(parameter.detach(), shrunk, rtol=1e-5, atol=1e-7)


@every_step
def test_the_schedule_finds_the_learning_rate_each_group_started_from(number):
    for optimizer in make_optimizers(build(number), "muon", 3e-3, 0.02, 0.1):
        expected = 0.02 if isinstance(optimizer, torch.optim.Muon) else 3e-3
        assert all(group["initial_lr"] == group["lr"] == expected for group in optimizer.param_groups)


@every_step
@both
def test_one_step_moves_every_parameter_downhill(number, name):
    torch.manual_seed(0)
    model = build(number)
    idx = torch.randint(5, (8, 6))
    targets = (idx + 1) % 5
    before = [parameter.detach().clone() for parameter in model.parameters()]
    model(idx, targets)[1].backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    for optimizer in make_optimizers(model, name, 1e-3, 1e-3, 0.0):
        optimizer.step()
    for old, parameter, gradient in zip(before, model.parameters(), gradients, strict=True):
        assert ((parameter.detach() - old) * gradient).sum() < 0


def test_an_unknown_optimizer_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"^there is no optimizer 'sgd': choose adamw or muon$"):
        make_optimizers(build(1), "sgd", 1e-3, 0.02, 0.1)
