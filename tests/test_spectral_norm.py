"""Spectral normalisation against the singular values of float64, torch's own, and the gradient written out."""

import numpy as np
import pytest
import torch
from torch import nn

from rlplatform.nets import NoisyLinear, SameConv
from rlplatform.streams import Stream
from rlplatform.techniques import spectral_norm


def net():
    made = nn.ModuleDict({"conv": SameConv(3, 8, 3, 1, (5, 5)), "linear": nn.Linear(7, 4), "head": nn.Linear(4, 2)})
    made["conv"].init_(Stream(0, "init"))
    return made


def largest(weight):
    return np.linalg.svd(weight.detach().double().flatten(1).numpy(), compute_uv=False)[0]


def test_the_largest_singular_value_becomes_one():
    """After 300 iterations, whose error falls as (s2 / s1)^2 each: measured 2e-7, asked 1e-5. The own weights keep their values."""
    ours = net()
    before = {name: p.detach().clone() for name, p in ours.named_parameters()}
    spectral_norm.attach_(ours, ["conv", "linear"])
    spectral_norm.iterate_(ours, 300)
    for name in ("conv", "linear"):
        own = ours[name].parametrizations["weight"].original
        assert torch.equal(own, before[f"{name}.weight"])
        np.testing.assert_allclose(largest(ours[name].weight), 1.0, atol=1e-5)
        np.testing.assert_allclose(ours[name].weight.detach(), before[f"{name}.weight"] / largest(own), atol=1e-5)
    assert torch.equal(ours["head"].weight, before["head.weight"])


def test_an_iteration_is_torch_s():
    """torch's own parametrisation in training mode makes one iteration a pass: the same numbers from the same vectors, but for the order of
    sums: measured 6e-8, asked 1e-6."""
    ours, theirs = nn.Linear(7, 4), nn.Linear(7, 4)
    theirs.load_state_dict(ours.state_dict())
    torch.nn.utils.parametrizations.spectral_norm(theirs)
    their = theirs.parametrizations["weight"][0]
    holder = nn.ModuleDict({"x": ours})
    spectral_norm.attach_(holder, ["x"])
    mine = ours.parametrizations["weight"][0]
    mine.u.copy_(their._u)
    mine.v.copy_(their._v)
    for _ in range(3):
        expected = theirs.weight.detach()  # iterates u first, then v
        mine.u.copy_(their._u)
        mine.v.copy_(their._v)
        torch.testing.assert_close(ours.weight.detach(), expected, rtol=0, atol=1e-6)
    spectral_norm.iterate_(holder)
    w = ours.parametrizations["weight"].original.detach().double()
    v = torch.nn.functional.normalize(w.T @ their._u.double(), dim=0)
    u = torch.nn.functional.normalize(w @ v, dim=0)
    torch.testing.assert_close(mine.v.double(), v, rtol=0, atol=1e-6)
    torch.testing.assert_close(mine.u.double(), u, rtol=0, atol=1e-6)


def test_the_gradient_takes_u_and_v_for_constants():
    """Miyato et al. 2018, Eq. 12: (G - <G, W / sigma> u v^T) / sigma, with G the gradient of the normalised weight. float32: asked 1e-5."""
    ours = nn.ModuleDict({"x": nn.Linear(5, 3)})
    spectral_norm.attach_(ours, ["x"])
    spectral_norm.iterate_(ours, 2)
    norm, w = ours["x"].parametrizations["weight"][0], ours["x"].parametrizations["weight"].original
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    loss = ours["x"](x).square().sum()
    loss.backward()
    sigma = norm.u @ w @ norm.v
    bar = (w / sigma).detach().requires_grad_()
    (x @ bar.T + ours["x"].bias.detach()).square().sum().backward()
    expected = (bar.grad - (bar.grad * bar).sum() * torch.outer(norm.u, norm.v)) / sigma
    torch.testing.assert_close(w.grad, expected.detach(), rtol=1e-5, atol=1e-5)


def test_a_pass_changes_nothing():
    ours = nn.ModuleDict({"x": nn.Linear(5, 3)})
    spectral_norm.attach_(ours, ["x"])
    before = spectral_norm.vectors(ours)
    first = ours["x"](torch.ones(2, 5))
    assert torch.equal(first, ours["x"](torch.ones(2, 5)))
    assert all(torch.equal(v, spectral_norm.vectors(ours)[name]) for name, v in before.items())
    spectral_norm.iterate_(ours)
    assert not torch.equal(before["x.u"], spectral_norm.vectors(ours)["x.u"])


def test_acting_networks_take_plain_weights():
    ours, other = net(), net()
    spectral_norm.attach_(ours, ["linear"])
    spectral_norm.iterate_(ours, 5)
    named = dict(spectral_norm.plain(ours))
    assert named.keys() == dict(other.named_parameters()).keys()
    assert torch.equal(named["linear.weight"], ours["linear"].weight)
    assert not named["linear.weight"].requires_grad
    assert named["head.weight"].data_ptr() == ours["head"].weight.data_ptr()  # live
    assert dict(spectral_norm.plain(other)).keys() == named.keys()


def test_u_and_v_are_copied_saved_and_loaded():
    ours, target = net(), net()
    for made in (ours, target):
        spectral_norm.attach_(made, ["conv", "linear"])
    spectral_norm.iterate_(ours, 3)
    saved = spectral_norm.vectors(ours)
    assert saved.keys() == {"conv.u", "conv.v", "linear.u", "linear.v"}
    spectral_norm.copy_(target, ours)
    assert all(torch.equal(v, saved[name]) for name, v in spectral_norm.vectors(target).items())
    spectral_norm.iterate_(ours)
    assert not torch.equal(saved["conv.v"], spectral_norm.vectors(ours)["conv.v"])  # saved ones are copies
    spectral_norm.load_vectors(ours, saved)
    assert all(torch.equal(v, saved[name]) for name, v in spectral_norm.vectors(ours).items())
    assert spectral_norm.vectors(net()) == {}


def test_what_cannot_be_normalised_is_refused():
    noisy = nn.ModuleDict(
        {
            "x": NoisyLinear(3, 2, 0.1),
            "norm": nn.LayerNorm(3),
            "y": nn.Linear(2, 2),
            "small": nn.Linear(2, 2).bfloat16(),
        }
    )
    for name, message in (
        ("x", "no layer 'x' with a weight; there are norm, y, small"), ("nowhere", "no layer 'nowhere'"), ("norm", "norm needs a matrix"),
        ("small", "small needs a matrix in float32, got torch.bfloat16"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            spectral_norm.attach_(noisy, [name])
    with pytest.raises(ValueError, match="no layer 'y' with a weight; there are norm, small"):
        spectral_norm.attach_(noisy, ["y", "y"])
