"""SIGReg against its definition in float64 and against the values that are known of it."""

import math

import numpy as np
import pytest
import torch

from reference import sigreg as oracle
from rlplatform.streams import Stream
from rlplatform.techniques import sigreg
from rlplatform.techniques.sigreg import SigReg, SigRegConfig

D = 512


def normals(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def directions(dim, count, seed=1):
    return sigreg.unit(normals(dim, count, seed=seed))


def mean_of(features, form=sigreg.rl, repeats=40, count=16):
    """(mean, standard error) of the statistic over draws of features and directions."""
    found = [float(sum(form(features(k), directions(D, count, 1_000 + k)))) for k in range(repeats)]
    return np.mean(found), np.std(found, ddof=1) / math.sqrt(repeats)


@pytest.mark.parametrize("form", ["rl", "lejepa"])
@pytest.mark.parametrize(("size", "dim", "count"), [(1, 3, 1), (5, 4, 3), (64, 7, 16)])
def test_the_statistic_by_definition(form, size, dim, count):
    h, a = normals(size, dim) * 1.5 + 0.3, directions(dim, count)
    ours = sigreg.FORMS[form](h, a)
    expected = getattr(oracle, form)(h.double().numpy(), a.double().numpy())
    # float32: 3e-7 of the sum measured, at size 64; lejepa is a sum of up to 64 times as much
    np.testing.assert_allclose([float(x) for x in ours], expected, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_statistic():
    h = normals(6, 3).double().requires_grad_()
    a = directions(3, 4).double()
    for form in (sigreg.rl, sigreg.lejepa):
        assert torch.autograd.gradcheck(lambda h, form=form: sum(form(h, a)), (h,))


def test_directions_have_length_one_and_no_preference():
    a = directions(3, 20_000).double()
    np.testing.assert_allclose(a.norm(dim=0).numpy(), 1.0, rtol=1e-6)
    second = (
        a @ a.T / 20_000
    ).numpy()  # a component's square has variance 4 / 45 in three dimensions, a product 1 / 15
    np.testing.assert_array_less(np.abs(second - np.eye(3) / 3), 5 * math.sqrt(4 / 45 / 20_000))
    np.testing.assert_array_less(a.mean(1).abs().numpy(), 5 / math.sqrt(3 * 20_000))


# The table of the released code's behaviour at D = 512: published to three or four digits, or in closed form.


def test_the_floor_of_standard_normals():
    assert oracle.floor_rl() == pytest.approx(0.8474, abs=5e-5)
    for size in (64, 256):
        mean, error = mean_of(lambda k, size=size: normals(size, D, seed=k))
        assert abs(mean - oracle.floor_rl() / size) < 5 * error
        assert error < 0.1 * oracle.floor_rl() / size  # the bound is narrower than the value


def test_the_floor_of_lejepas_form_does_not_depend_on_the_batch():
    # B E|phi_B - phi|^2 = 1 - exp(-t^2); times the window, over [-3, 3]
    t = np.linspace(-3, 3, 33)
    expected = np.trapezoid((1 - np.exp(-t * t)) * np.exp(-0.5 * t * t), t)
    for size in (32, 256):
        mean, error = mean_of(lambda k, size=size: normals(size, D, seed=k), sigreg.lejepa)
        assert 1.04 < expected < 1.07
        assert abs(mean - expected) < 5 * error
        assert error < 0.1


STDS = [
    (0.1, 0.618),
    (0.3, 0.242),
    (0.5, 0.071),
    (0.8, 0.0056),
    (1.0, 0.0),
    (1.25, 0.0040),
    (2.0, 0.0455),
    (3.0, 0.116),
]


@pytest.mark.parametrize(("std", "published"), STDS)
def test_a_wrong_scale_costs_what_the_closed_form_says(std, published):
    expected = oracle.expected_rl(std)
    assert expected == pytest.approx(published, abs=5.5e-4)
    mean, error = mean_of(lambda k: std * normals(512, D, seed=k), repeats=12)
    # Of B numbers, the mean square is that of infinitely many and at most 1 / B; projections of 512 normals are normal.
    assert abs(mean - expected) < 5 * error + 1 / 512


@pytest.mark.parametrize(
    ("what", "features", "published", "tolerance"),
    [
        ("collapsed", lambda k: torch.zeros(4, D), 0.7140, 5e-5),
        ("relu", lambda k: normals(512, D, seed=k).relu(), 0.057, 0.02),
        ("shifted by one", lambda k: normals(512, D, seed=k) + 1.0, 0.076, 0.02),
        ("signs", lambda k: normals(4096, D, seed=k).sign(), 0.0002, 5e-5),
        ("rank 16", lambda k: normals(4096, 16, seed=k) @ torch.eye(16, D) * math.sqrt(D / 16), 3.8e-3, 1.5e-3),
        ("rank 4", lambda k: normals(4096, 4, seed=k) @ torch.eye(4, D) * math.sqrt(D / 4), 0.020, 0.008),
        ("rank 1", lambda k: normals(4096, 1, seed=k) @ torch.eye(1, D) * math.sqrt(D), 0.154, 0.05),
    ],
)  # fmt: skip
def test_what_is_not_isotropic_costs_what_was_measured(what, features, published, tolerance):
    """The published figures are rounded to their last digit, those of few dimensions a mean of few draws: hence `tolerance`."""
    mean, error = mean_of(features, repeats=4, count=150)
    assert abs(mean - published) < 5 * error + 0.5 * tolerance
    assert 5 * error < tolerance


def test_a_gaussian_is_where_the_gradient_vanishes():
    a = directions(8, 64)

    def gradient(h):
        h.requires_grad_()
        return torch.autograd.grad(sum(sigreg.rl(h, a)), h)[0].norm() * math.sqrt(len(h))

    at_gaussian, shrunk = gradient(normals(20_000, 8)), gradient(0.5 * normals(20_000, 8))
    assert at_gaussian < 0.05 * shrunk


@pytest.mark.parametrize("form", ["rl", "lejepa"])
def test_descent_makes_features_standard_normal(form):
    """From mean 1 and scale 1 / 2: after 300 steps the mean is within 0.04 of 0 and the covariance within 0.07 of I (measured)."""
    term = SigReg(SigRegConfig(weight=1.0, form=form), Stream(0, "sigreg"))
    h = (1.0 + 0.5 * normals(256, 4)).requires_grad_()
    optimizer = torch.optim.Adam([h], 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        term.loss(term.parts(h)).backward()
        optimizer.step()
    np.testing.assert_allclose(h.detach().mean(0).numpy(), 0.0, rtol=0, atol=0.08)
    np.testing.assert_allclose(torch.cov(h.detach().T).numpy(), np.eye(4), rtol=0, atol=0.15)


def test_bfloat16_features_are_seen_in_float32():
    h, a = normals(32, 8).bfloat16(), directions(8, 16)
    assert torch.equal(torch.stack(sigreg.rl(h, a)), torch.stack(sigreg.rl(h.float(), a)))


def test_directions_are_drawn_anew_and_a_state_goes_on():
    term, h = SigReg(SigRegConfig(weight=0.5), Stream(0, "sigreg")), normals(64, 8)
    first = term.parts(h)
    state = term.state_dict()
    second = term.parts(h)
    assert not torch.equal(first.real, second.real)
    other = SigReg(SigRegConfig(weight=0.5), Stream(1, "sigreg"))
    other.load_state_dict(state)
    assert torch.equal(torch.stack(other.parts(h)), torch.stack(second))
    assert term.loss(second) == 0.5 * (second.real + second.imaginary)


def test_several_layers_have_directions_of_their_own_and_count_alike():
    term, h = SigReg(SigRegConfig(weight=1.0, directions=3), Stream(0, "sigreg")), normals(20, 5)
    wide = normals(20, 9, seed=3)
    both = term.parts(h, wide)
    stream = Stream(0, "sigreg")
    each = [sigreg.rl(x, sigreg.unit(torch.from_numpy(stream.normal(x.shape[1], 3)))) for x in (h, wide)]
    assert both.real == (each[0].real + each[1].real) / 2
    assert both.imaginary == (each[0].imaginary + each[1].imaginary) / 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight": -0.1}, "sigreg.weight must be finite and >= 0"),
        ({"weight": math.inf}, "sigreg.weight must be finite"),
        ({"form": "jepa"}, "sigreg.form must be one of rl, lejepa"),
        ({"directions": 0}, "sigreg.directions must be >= 1"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        SigRegConfig(**wrong)
