"""What every step from 01 to 07 promises, for sizes and seeds that nobody chose by hand."""

import ast
import dataclasses
import inspect
import math

import jaxtyping
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st

from steps import load, path

every_step = pytest.mark.parametrize("number", range(1, 8))
steps_with_a_past = pytest.mark.parametrize("number", range(2, 8))
steps_with_positions = pytest.mark.parametrize("number", range(3, 8))


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes and a seed. C is at least 4: LayerNorm leaves next to nothing of fewer channels."""

    V: int
    B: int
    T: int
    spare: int  # positions of the table that go unused
    H: int
    D: int
    n_layer: int
    seed: int

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def model(self, number: int) -> nn.Module:
        """A step's model in float64, with no parameter left at a special value such as 0 or 1."""
        step = load(number)
        sizes = {"n_embd": self.H * self.D, "n_head": self.H, "n_layer": self.n_layer, "head_size": self.D}
        sizes |= {"vocab_size": self.V, "block_size": self.T + self.spare}
        names = {field.name for field in dataclasses.fields(step.Config)}
        model = step.Model(step.Config(**{k: v for k, v in sizes.items() if k in names})).double().eval()
        generator = self.generator()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5, generator=generator)
        return model

    def tokens(self, *shape: int) -> torch.Tensor:
        return torch.randint(self.V, shape or (self.B, self.T), generator=self.generator())


def cases(min_T: int = 1) -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        V=st.integers(2, 7),
        B=st.integers(1, 3),
        T=st.integers(min_T, 7),
        spare=st.integers(0, 2),
        H=st.integers(1, 3),
        D=st.integers(4, 5),
        n_layer=st.integers(1, 2),
        seed=st.integers(0, 2**32 - 1),
    )


def another(tokens: torch.Tensor, V: int) -> torch.Tensor:
    return (tokens + 1) % V


def logits_of(model: nn.Module, idx: torch.Tensor) -> torch.Tensor:
    return model(idx)[0]


# ── what goes in and what comes out ───────────────────────────────────────────────────────────────────────


@every_step
@given(case=cases())
def test_logits_are_B_T_V_and_the_loss_is_one_number_when_there_are_targets(number, case):
    model, idx = case.model(number), case.tokens()
    logits, loss = model(idx, another(idx, case.V))
    assert logits.shape == (case.B, case.T, case.V)
    assert loss.shape == ()
    assert model(idx)[1] is None


@every_step
@given(case=cases())
def test_the_loss_is_the_mean_of_minus_log_p_of_the_targets(number, case):
    idx, targets = case.tokens(2, case.B, case.T)
    logits, loss = case.model(number)(idx, targets)
    surprise = [
        math.log(sum(math.exp(other - row[target]) for other in row))
        for row, target in zip(logits.flatten(0, 1).tolist(), targets.flatten().tolist(), strict=True)
    ]
    assert loss.item() == pytest.approx(sum(surprise) / len(surprise), rel=1e-10, abs=1e-10)


@every_step
def test_a_wrong_shape_is_refused_at_the_door(number):
    model = load(number).Model(load(number).Config(vocab_size=3))
    idx = torch.zeros(2, 4, dtype=torch.long)
    with pytest.raises(jaxtyping.TypeCheckError, match="targets"):
        model(idx, idx[:, 1:])


@every_step
def test_every_shape_annotation_inside_the_step_is_true(number):
    """The import hook checks what goes into a function and comes out; here also `q: Float[Tensor, "B T D"] = …`."""

    class Enforce(ast.NodeTransformer):
        def visit_AnnAssign(self, node):
            if node.value is None or not isinstance(node.target, ast.Name):
                return node
            check = ast.parse(f"assert isinstance({node.target.id}, {ast.unparse(node.annotation)}), '{node.lineno}'")
            enforced.append(node.lineno)
            return [node, *check.body]

        def visit_ClassDef(self, node):
            is_module = any(ast.unparse(base) == "nn.Module" for base in node.bases)
            return self.generic_visit(node) if is_module else node

        def visit_FunctionDef(self, node):
            node.decorator_list.append(ast.parse("jaxtyped(typechecker=beartype)", mode="eval").body)
            return self.generic_visit(node)

    enforced: list[int] = []
    tree = ast.fix_missing_locations(Enforce().visit(ast.parse(path(number).read_text(encoding="utf-8"))))
    step = {"jaxtyped": jaxtyping.jaxtyped, "beartype": beartype, "__name__": "enforced"}
    exec(compile(tree, str(path(number)), "exec"), step)
    names = {field.name for field in dataclasses.fields(step["Config"])}
    sizes = {"vocab_size": 11, "block_size": 5, "n_embd": 12, "n_head": 2, "n_layer": 1, "head_size": 7}
    model = step["Model"](step["Config"](**{k: v for k, v in sizes.items() if k in names}))
    idx = torch.zeros(2, 3, dtype=torch.long)
    assert model(idx, idx)[0].shape == (2, 3, 11)
    assert model.generate(idx, 4).shape == (2, 7)
    for module in model.modules():
        if hasattr(module, "weights"):
            module.weights(torch.zeros(2, 3, 12))
    assert len(enforced) >= (1 if number == 1 else 2)


# ── time flows one way ────────────────────────────────────────────────────────────────────────────────────


@every_step
@given(case=cases(min_T=2), data=st.data())
def test_future_tokens_cannot_change_past_logits(number, case, data):
    model, idx = case.model(number), case.tokens()
    t = data.draw(st.integers(1, case.T - 1))
    changed = idx.clone()
    changed[:, t:] = another(changed[:, t:], case.V)
    assert torch.equal(logits_of(model, changed)[:, :t], logits_of(model, idx)[:, :t])


@steps_with_a_past
@given(case=cases(min_T=2), data=st.data())
def test_logits_have_exactly_no_gradient_from_later_inputs(number, case, data):
    model, idx = case.model(number), case.tokens()
    t = data.draw(st.integers(0, case.T - 2))
    inputs = []
    model.wte.register_forward_hook(lambda module, args, out: inputs.append(out))
    logits = logits_of(model, idx)
    weight = torch.randn(case.V, dtype=torch.float64, generator=case.generator())
    (gradient,) = torch.autograd.grad((logits[:, t] * weight).sum(), inputs[0])
    assert not gradient[:, t + 1 :].any()
    assert gradient[:, t].any()


@steps_with_a_past
@given(case=cases(min_T=2), data=st.data())
def test_every_earlier_token_reaches_the_last_logits(number, case, data):
    model, idx = case.model(number), case.tokens()
    t = data.draw(st.integers(0, case.T - 1))
    inputs = []
    model.wte.register_forward_hook(lambda module, args, out: inputs.append(out))
    logits = logits_of(model, idx)
    weight = torch.randn(case.V, dtype=torch.float64, generator=case.generator())
    (gradient,) = torch.autograd.grad((logits[:, -1] * weight).sum(), inputs[0])
    assert gradient[:, t].any(dim=-1).all()


@every_step
@given(case=cases(min_T=2), data=st.data())
def test_a_prefix_alone_gives_the_logits_it_has_in_the_whole(number, case, data):
    model, idx = case.model(number), case.tokens()
    t = data.draw(st.integers(1, case.T - 1))
    torch.testing.assert_close(logits_of(model, idx[:, :t]), logits_of(model, idx)[:, :t], rtol=1e-10, atol=1e-10)


@steps_with_positions
@given(case=cases(min_T=3))
def test_only_the_position_table_tells_the_order_of_the_past(number, case):
    model = case.model(number)
    idx = (torch.arange(case.T) % case.V)[None]
    swapped = idx.clone()
    swapped[:, [0, 1]] = idx[:, [1, 0]]
    assert (logits_of(model, swapped)[:, -1] - logits_of(model, idx)[:, -1]).abs().max() > 1e-9
    if number < 6 or case.n_layer == 1:  # in a deeper stack the mask alone tells the order
        model.wpe.weight.data.zero_()
        torch.testing.assert_close(logits_of(model, swapped)[:, -1], logits_of(model, idx)[:, -1], rtol=0, atol=1e-10)


# ── rows are strangers ────────────────────────────────────────────────────────────────────────────────────


@every_step
@given(case=cases(), data=st.data())
def test_one_row_of_a_batch_never_affects_another(number, case, data):
    model, idx = case.model(number), case.tokens(case.B + 1, case.T)
    row = data.draw(st.integers(0, case.B))
    changed = another(idx, case.V)
    changed[row] = idx[row]
    assert torch.equal(logits_of(model, changed)[row], logits_of(model, idx)[row])
    alone = logits_of(model, idx[row : row + 1])[0]
    torch.testing.assert_close(alone, logits_of(model, idx)[row], rtol=1e-10, atol=1e-10)


# ── gradients ─────────────────────────────────────────────────────────────────────────────────────────────


@every_step
@given(case=cases(min_T=2))
def test_every_parameter_gets_a_gradient(number, case):
    model = case.model(number).train()
    idx = case.tokens()
    model(idx, another(idx, case.V))[1].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def assert_gradients_match_differences(model: nn.Module, idx: torch.Tensor, targets: torch.Tensor, fast: bool):
    names = [name for name, _ in model.named_parameters()]
    values = tuple(parameter.detach().clone().requires_grad_() for parameter in model.parameters())

    def logits_and_loss(*values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (idx, targets))

    assert torch.autograd.gradcheck(logits_and_loss, values, atol=1e-6, rtol=1e-4, fast_mode=fast)


@pytest.mark.gradient
@every_step
def test_every_single_gradient_matches_finite_differences(number):
    case = Case(V=3, B=2, T=3, spare=0, H=2, D=2, n_layer=1, seed=3)
    idx, targets = case.tokens(2, case.B, case.T)
    assert_gradients_match_differences(case.model(number), idx, targets, fast=False)


@pytest.mark.gradient
@every_step
@settings(max_examples=settings.default.max_examples // 4)  # dear, and one direction through all parameters says much
@given(case=cases())
def test_gradients_match_finite_differences_in_a_random_direction(number, case):
    idx, targets = case.tokens(2, case.B, case.T)
    model = case.model(number)
    bends = []
    for name, module in model.named_modules():
        if number == 6 and name.endswith("c_fc"):
            module.register_forward_hook(lambda module, args, out: bends.append(out.detach().abs().min()))
    model(idx)
    if min(bends, default=1) > 1e-4:  # ReLU has no derivative at 0
        assert_gradients_match_differences(model, idx, targets, fast=True)


# ── generation ────────────────────────────────────────────────────────────────────────────────────────────


def generate_plainly(model, idx, count, choose):
    """Crop to the block, run everything again, take the last position: what generation means, without any trick."""
    for _ in range(count):
        logits = logits_of(model, idx[:, -model.config.block_size :])
        idx = torch.cat((idx, choose(logits[:, -1])), dim=1)
    return idx


@every_step
@given(case=cases(), count=st.integers(0, 12))
def test_generation_keeps_the_prompt_and_adds_what_was_asked_for(number, case, count):
    out = case.model(number).generate(case.tokens(), count, generator=case.generator())
    assert out.shape == (case.B, case.T + count)
    assert torch.equal(out[:, : case.T], case.tokens())
    assert set(out.flatten().tolist()) <= set(range(case.V))


@every_step
@given(case=cases(), count=st.integers(1, 12))
def test_greedy_generation_takes_the_likeliest_token_after_the_last_position(number, case, count):
    model = case.model(number)
    if number == 7:  # beyond its first window it goes on differently, see test_07
        count = min(count, case.spare + 1)
    expected = generate_plainly(model, case.tokens(), count, lambda logits: logits.argmax(-1, keepdim=True))
    assert torch.equal(model.generate(case.tokens(), count, temperature=0), expected)


@every_step
@given(case=cases(), count=st.integers(1, 6), temperature=st.sampled_from([0.5, 1.0, 2.0]), data=st.data())
def test_generation_draws_with_the_temperature_top_k_and_generator_it_was_given(number, case, count, temperature, data):
    model, generator = case.model(number), case.generator()
    count = min(count, case.spare + 1) if number == 7 else count
    top_k = data.draw(st.integers(1, case.V - 1))

    def choose(logits):
        kept, tokens = logits.float().topk(top_k)
        drawn = torch.multinomial(F.softmax(kept / temperature, dim=-1), 1, generator=generator)
        return tokens.gather(-1, drawn)

    drawn = model.generate(case.tokens(), count, temperature, top_k, case.generator())
    assert torch.equal(drawn, generate_plainly(model, case.tokens(), count, choose))


@every_step
@given(case=cases(), count=st.integers(1, 6))
def test_generation_draws_from_the_models_own_distribution_unless_told_otherwise(number, case, count):
    model = case.model(number)
    drawn = model.generate(case.tokens(), count, generator=case.generator())
    assert torch.equal(drawn, model.generate(case.tokens(), count, 1.0, None, case.generator()))


# ── sizes ─────────────────────────────────────────────────────────────────────────────────────────────────


@every_step
@given(case=cases())
def test_the_number_of_parameters_is_the_one_counted_by_hand(number, case):
    V, T, C, D, L = case.V, case.T + case.spare, case.H * case.D, case.D, case.n_layer
    tables, head = V * C + T * C, C * V + V
    expected = {
        1: V * V,
        2: tables + 2 * C * V + V,
        3: tables + 2 * C * D + head,
        4: tables + 3 * C * C + head,
        5: tables + 4 * C * C + C + head,
        6: tables + L * (12 * C * C + 10 * C) + 2 * C + head,  # a block: 4C² attention, 8C² MLP, biases, LayerNorms
        7: tables + L * (12 * C * C + 13 * C) + 2 * C,  # queries, keys and values have biases, the head is the table
    }
    assert sum(parameter.numel() for parameter in case.model(number).parameters()) == expected[number]


@every_step
def test_a_config_cannot_be_changed_after_the_model_was_built(number):
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(number).Config(vocab_size=3).block_size = 5


@pytest.mark.parametrize("number", [5, 6, 7])
def test_heads_that_do_not_divide_the_width_are_refused_in_one_sentence(number):
    with pytest.raises(ValueError, match=r"^n_embd=10 must be a multiple of n_head=3$"):
        load(number).Config(vocab_size=3, n_embd=10, n_head=3)


@every_step
@pytest.mark.parametrize("preset", ["quick", "laptop", "gpu"])
def test_every_recipe_builds_a_model(number, preset):
    step = load(number)
    recipe = step.RECIPE[preset]
    with torch.device("meta"):
        model = step.Model(step.Config(vocab_size=83, **recipe.model))
    assert inspect.signature(model.forward).parameters.keys() >= {"idx", "targets"}
    assert 0 <= recipe.warmup_steps < recipe.steps


@every_step
def test_a_checkpoint_holds_parameters_and_nothing_else(number):
    model = load(number).Model(load(number).Config(vocab_size=5))
    assert {t.data_ptr() for t in model.state_dict().values()} == {p.data_ptr() for p in model.parameters()}
