"""L2 Init: the gradient of the penalty, by autograd from its definition."""

import pytest
import torch
from torch import nn

from rlplatform.techniques import l2_init


def moved():
    net = nn.Linear(3, 2)
    initial = l2_init.Initial(net.named_parameters(), 0.3)
    start = [p.detach().clone() for p in net.parameters()]
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return net, initial, start


def test_the_gradient_is_that_of_the_penalty():
    """2 w (theta - theta_0) in float32 against autograd's in float64: measured 1e-7 relative to the largest, asked 1e-6."""
    net, initial, start = moved()
    data = [torch.full_like(p, 5.0) for p in net.parameters()]
    for p, grad in zip(net.parameters(), data, strict=True):
        p.grad = grad.clone()
    initial.pull_(net.named_parameters())
    exact = [p.detach().double().requires_grad_() for p in net.parameters()]
    penalty = 0.3 * sum((p - q.double()).square().sum() for p, q in zip(exact, start, strict=True))
    for p, expected in zip(net.parameters(), torch.autograd.grad(penalty, exact), strict=True):
        torch.testing.assert_close(p.grad.double() - 5.0, expected, rtol=0, atol=5e-6)
        assert expected.abs().max() > 0.1


def test_what_has_no_gradient_is_left_alone():
    net, initial, _ = moved()
    net.weight.grad = torch.zeros_like(net.weight)
    initial.pull_(net.named_parameters())
    assert net.bias.grad is None
    assert (net.weight.grad != 0).any()


def test_the_initial_weights_are_kept_and_restored():
    net, initial, start = moved()
    state = initial.state_dict()
    assert all(torch.equal(state[name], value) for (name, _), value in zip(net.named_parameters(), start, strict=True))
    other = l2_init.Initial(net.named_parameters(), 0.3)
    places = [value.data_ptr() for value in other._values.values()]
    other.load_state_dict(state)
    assert [value.data_ptr() for value in other._values.values()] == places
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())


def test_a_weight_of_zero_is_nothing_and_others_are_checked():
    net = nn.Linear(1, 1)
    assert l2_init.initial(net.named_parameters(), 0.0) is None
    assert l2_init.initial(net.named_parameters(), 0.1).weight == 0.1
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="l2_init must be finite"):
            l2_init.initial(net.named_parameters(), wrong)
