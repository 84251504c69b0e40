"""The linear layer of step 07: whatever path it takes, it computes what torch's own computes."""

import pytest
import torch
import torch.nn as nn

from common import linear
from common.linear import Linear

SHAPES = [(1, 1), (3, 1), (8, 1), (2, 5), (1, 40)]  # B, T


@pytest.mark.parametrize("out_features", [384, 1152, 330, 331])  # with 16 pieces, 16, 2 and 1
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("B", "T"), SHAPES)
def test_it_equals_torchs_linear_forward_and_backward(out_features, bias, B, T):
    torch.manual_seed(0)
    ours, theirs = (make(400, out_features, bias=bias).double() for make in (Linear, nn.Linear))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(B, T, 400, dtype=torch.float64, requires_grad=True)
    goal = torch.randn(B, T, out_features, dtype=torch.float64)
    y, expected = ours(x), theirs(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
    found = torch.autograd.grad((y * goal).sum(), (x, *ours.parameters()))
    wanted = torch.autograd.grad((expected * goal).sum(), (x, *theirs.parameters()))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("x", "weights", "in_pieces"),
    [
        (torch.zeros(1, 1, 400), 400, True),
        (torch.zeros(8, 1, 400), 400, True),
        (torch.zeros(1, 2, 400), 400, False),  # a prompt, or training
        (torch.zeros(1, 400), 400, False),  # no time axis: nothing says that this is one token
        (torch.zeros(1, 1, 100), 100, False),  # small enough for a cache
    ],
)
def test_only_large_weights_and_a_single_token_go_in_pieces(x, weights, in_pieces, monkeypatch):
    calls = []
    bmm = torch.bmm
    monkeypatch.setattr(linear.torch, "bmm", lambda *inputs: calls.append(1) or bmm(*inputs))
    Linear(weights, weights)(x)
    assert bool(calls) == in_pieces
