"""Adam with a cut gradient in one call, against torch's four."""

import copy

import numpy as np
import pytest
import torch

from rlplatform.optim import ClippedAdam, take_gradients


def a_net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))


def a_convolution():
    """Its kernel's gradient comes with the channels last, as its input has them."""
    torch.manual_seed(0)
    kernel = torch.nn.Conv2d(2, 3, 2)
    return torch.nn.Sequential(
        torch.nn.Unflatten(1, (3, 3, 2)), Permute(), kernel, torch.nn.Flatten(), torch.nn.Linear(12, 1)
    )


class Permute(torch.nn.Module):
    def forward(self, x):
        return x.permute(0, 3, 1, 2)


@pytest.mark.parametrize("max_norm", [0.05, 1e6])
@pytest.mark.parametrize("make", [a_net, a_convolution])
def test_descends_as_torchs_own_four_calls(make, max_norm):
    """In float32 the kernel divides by the norm's excess where torch multiplies by its inverse: 1e-8 measured."""
    ours, theirs = make(), make()
    adam = ClippedAdam(ours.parameters(), 0.01, eps=1e-5)
    plain = torch.optim.Adam(theirs.parameters(), 0.01, eps=1e-5)
    rng = np.random.default_rng(0)
    for step in range(20):
        x = torch.from_numpy(rng.normal(size=(16, 5 if make is a_net else 18)).astype(np.float32))
        norm = adam.descend(ours(x).square().mean() * (1 + step), max_norm)
        plain.zero_grad()
        torch.autograd.backward(theirs(x).square().mean() * (1 + step))
        expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
        plain.step()
        assert norm.item() == pytest.approx(expected.item(), rel=1e-4)
        assert not norm.requires_grad
        if step == 9:
            for group in (*adam.param_groups, *plain.param_groups):
                group["lr"] = 0.003
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-5, atol=1e-8)  # cut, as it was taken
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=0, atol=1e-6)
        assert adam.state[a]["step"] == plain.state[b]["step"] == 20
        np.testing.assert_allclose(adam.state[a]["exp_avg"].numpy(), plain.state[b]["exp_avg"].numpy(), atol=1e-6)


def test_what_adjusts_the_gradient_does_so_before_it_is_cut():
    net = torch.nn.Linear(2, 1, bias=False)
    adam = ClippedAdam(net.parameters(), 0.01, eps=1e-5)
    loss = net(torch.full((1, 2), 3.0)).sum()
    norm = adam.descend(loss, 1.0, lambda: net.weight.grad.add_(torch.tensor([[0.0, 1.0]])))
    assert norm.item() == 5.0
    np.testing.assert_allclose(net.weight.grad.numpy(), [[0.6, 0.8]], rtol=1e-6)


def test_goes_on_from_a_state_that_was_laid_into_it():
    one, x = a_net(), torch.ones(3, 5)
    first = ClippedAdam(one.parameters(), 0.01, eps=1e-5)
    for _ in range(3):
        first.descend(one(x).square().mean(), 1.0)
    other = copy.deepcopy(one)
    second = ClippedAdam(other.parameters(), 0.01, eps=1e-5)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        second.state[b] = {key: t.clone() for key, t in first.state[a].items()}
    for net, adam in ((one, first), (other, second)):
        adam.descend(net(x).square().mean(), 1.0)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("half", [False, True])
def test_the_gradient_of_a_part_lies_as_its_parameters_do(half):
    """Fused optimisers run along memory: a kernel's gradient in another layout would step other weights."""
    net, x = a_convolution(), torch.from_numpy(np.random.default_rng(0).normal(size=(16, 18)).astype(np.float32))
    theirs = copy.deepcopy(net)
    online, into = (copy.deepcopy(net).bfloat16(), list(net.parameters())) if half else (net, None)
    x = x.bfloat16() if half else x
    take_gradients("value", online(x).square().mean(), list(online.parameters()), into, after=0)
    same = copy.deepcopy(online)
    same.zero_grad()
    torch.autograd.backward(same(x).square().mean())
    torch.optim.AdamW(net.parameters(), 0.01, fused=True).step()
    for p, q in zip(theirs.parameters(), same.parameters(), strict=True):
        p.grad = q.grad.float().contiguous()
    torch.optim.AdamW(theirs.parameters(), 0.01, foreach=False).step()
    for a, b in zip(net.parameters(), theirs.parameters(), strict=True):
        assert a.grad.stride() == a.stride()
        assert a.grad.dtype == torch.float32
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=0, atol=1e-6)


def test_a_loss_that_is_not_finite_is_named():
    weight = torch.ones(2, requires_grad=True)
    with pytest.raises(FloatingPointError, match="the critic's loss is inf after 7 agent steps"):
        take_gradients("critic", (weight / 0.0).sum(), [weight], after=7)
