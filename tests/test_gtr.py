"""GTR's penalty against its definition in float64, and the properties for which its form was chosen."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from reference import gtr as oracle
from rlplatform.evaluation.bench import gtr_bandit
from rlplatform.techniques import gtr
from rlplatform.techniques.gtr import FORMS, Anchors, TrustConfig

DOUBLE = torch.float64


def logits(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).requires_grad_()


def gradient(config, distance):
    """psi and its slope in D, for one anchor: distance [B]."""
    d = distance.clone().requires_grad_()
    psi = gtr.penalty(d[None], config)
    return psi.detach(), torch.autograd.grad(psi.sum(), d)[0]


# -- divergences --------------------------------------------------------------------------------------------------------


def test_categorical_divergence_by_definition():
    old, new = (logits(k, 40, 6).detach().log_softmax(-1) for k in (0, 1))
    expected = [oracle.categorical_kl(p, q) for p, q in zip(old.exp().numpy(), new.exp().numpy(), strict=True)]
    np.testing.assert_allclose(gtr.categorical_kl(old, new).numpy(), expected, rtol=1e-12)
    # In float32 the sum of terms of order 1 is rounded: 1e-7 measured.
    np.testing.assert_allclose(gtr.categorical_kl(old.float(), new.float()).numpy(), expected, rtol=0, atol=1e-6)


def test_an_action_that_the_anchor_never_takes_adds_nothing():
    old, new = torch.tensor([0.5, 0.5, 0.0]).log(), torch.tensor([0.25, 0.75, 0.0]).log().requires_grad_()
    divergence = gtr.categorical_kl(old, new)
    assert divergence.item() == pytest.approx(0.5 * math.log(2.0) + 0.5 * math.log(2.0 / 3.0), rel=1e-6)
    assert torch.isfinite(torch.autograd.grad(divergence, new)[0]).all()


def test_gaussian_divergence_by_definition():
    old_mean, old_log_std, mean, log_std = (0.5 * logits(k, 40, 3).detach() for k in range(4))
    rows = zip(*(x.numpy() for x in (old_mean, old_log_std.exp(), mean, log_std.exp())), strict=True)
    expected = [oracle.gaussian_kl(*row) for row in rows]
    np.testing.assert_allclose(gtr.gaussian_kl(old_mean, old_log_std, mean, log_std).numpy(), expected, rtol=1e-12)
    by_integral = oracle.gaussian_kl_by_integral(0.3, 0.8, -0.1, 0.5)
    one = gtr.gaussian_kl(*(torch.tensor([x], dtype=DOUBLE) for x in (0.3, math.log(0.8), -0.1, math.log(0.5))))
    assert one.item() == pytest.approx(by_integral, rel=1e-8)


def test_close_by_the_sampled_distance_has_the_divergence_as_its_mean():
    """To the second order in the change: 0.02 in the logits leaves a few percent."""
    old = logits(0, 1, 5).detach().log_softmax(-1)
    new = (old + 0.02 * logits(1, 1, 5).detach()).log_softmax(-1)
    mean = (old.exp() * gtr.sampled_distance(old, new)).sum()
    assert mean.item() == pytest.approx(gtr.categorical_kl(old, new).item(), rel=0.05)
    assert (gtr.sampled_distance(old, new) >= 0.0).all()


# -- the penalty: the tests of the derivation, T1 to T10 ------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_penalties_by_definition(form):
    config = TrustConfig(weight=1.0, form=form, variance=0.09, decay=0.4, widen=0.7)
    distance = torch.from_numpy(np.random.default_rng(0).exponential(0.1, (3, 50)))
    expected = oracle.penalty(distance.numpy(), form, 0.09, 0.4, 0.7)
    np.testing.assert_allclose(gtr.penalty(distance, config).numpy(), expected, rtol=1e-12)


def test_t1_a_wide_kernel_is_the_plain_penalty():
    """In float32, where 1 - exp(-D / 1e6) by itself would be rounded to nothing."""
    new = logits(1, 30, 6).float().detach().requires_grad_()
    found = {}
    for form in ("welsch", "kl"):
        d = gtr.categorical_kl(logits(0, 30, 6).detach().float().log_softmax(-1), new.log_softmax(-1))
        psi = gtr.penalty(d[None], TrustConfig(form=form, variance=1e6)).mean()
        found[form] = psi.detach(), torch.autograd.grad(psi, new)[0]
    for wide, plain in zip(found["welsch"], found["kl"], strict=True):
        assert ((wide - plain).norm() / plain.norm()).item() < 1e-5  # D / (2 sigma^2), at most 3e-6


@pytest.mark.parametrize("form", FORMS)
def test_t3_the_gradient_is_that_of_the_divergence_times_a_weight(form):
    distance = torch.tensor([6.8e-3, 0.061, 0.65, 1e-9, 2.0], dtype=DOUBLE)
    _, slope = gradient(TrustConfig(form=form), distance)
    # Of expm1, torch takes the slope as the value plus 1: right to 1e-16, not to as many digits.
    np.testing.assert_allclose(slope.numpy(), oracle.slope(distance.numpy(), form, 0.04), rtol=1e-12, atol=1e-15)
    if form == "welsch":
        np.testing.assert_allclose(slope[:3].numpy(), [0.844, 0.217, 1e-7], rtol=0.2, atol=1e-3)


def test_t4_the_pull_is_greatest_one_sigma_away():
    """Along a line on which D = d^2 / 2, in the default form: d exp(-d^2 / 2 sigma^2)."""
    sigma = 0.2
    d = torch.linspace(0.001, 1.0, 1_000, dtype=DOUBLE).requires_grad_()
    psi = gtr.penalty((0.5 * d.square())[None], TrustConfig(variance=sigma**2))
    force = torch.autograd.grad(psi.sum(), d)[0]
    assert d[force.argmax()].item() == pytest.approx(sigma, abs=1e-3)
    assert force.max().item() == pytest.approx(sigma * math.exp(-0.5), rel=1e-6)
    assert force[0].item() == pytest.approx(d[0].item(), rel=1e-3)  # stiffness 1 at the anchor
    assert (force >= 0.0).all()
    assert gtr.critical_advantage(TrustConfig(weight=4.0)) == pytest.approx(0.485, abs=5e-4)


def test_kernel_kl_peaks_at_sigma_and_repels_beyond():
    d = torch.linspace(0.001, 1.0, 1_000, dtype=DOUBLE).requires_grad_()
    psi = gtr.penalty((0.5 * d.square())[None], TrustConfig(form="kernel_kl"))
    force = torch.autograd.grad(psi.sum(), d)[0]
    assert d[psi.argmax()].item() == pytest.approx(0.2, abs=1e-3)
    assert psi.max().item() == pytest.approx(0.04 / (2.0 * math.e), rel=1e-4)
    assert force.min().item() == pytest.approx(-0.0395, abs=1e-4)
    assert d[force.argmin()].item() == pytest.approx(0.302, abs=2e-3)


def test_t5_the_penalty_is_bounded():
    distance = torch.tensor([[0.0, 1e-3, 1.0, 1e3, 1e30]] * 3, dtype=torch.float32)
    psi = gtr.penalty(distance, TrustConfig(widen=0.5))
    assert (psi <= 0.04 * (1 + 1e-6)).all()
    assert psi[0] == 0.0
    assert psi[-1].item() == pytest.approx(0.04, rel=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_t6_identical_anchors_are_one_and_equal_weights_have_no_order(form):
    rng = np.random.default_rng(0)
    one = torch.from_numpy(rng.exponential(0.05, (1, 20)))
    many = gtr.penalty(one.expand(4, 20), TrustConfig(form=form))
    np.testing.assert_allclose(many.numpy(), gtr.penalty(one, TrustConfig(form=form)).numpy(), rtol=1e-12)
    several = torch.from_numpy(rng.exponential(0.05, (4, 20)))
    equal = TrustConfig(form=form, decay=1.0)
    np.testing.assert_allclose(
        gtr.penalty(several, equal).numpy(), gtr.penalty(several.flip(0), equal).numpy(), rtol=1e-12
    )
    ordered = TrustConfig(form=form, decay=0.5)
    assert not torch.allclose(gtr.penalty(several, ordered), gtr.penalty(several.flip(0), ordered))


def test_t7_a_far_anchor_only_scales():
    anchor, new = logits(0, 10, 4).detach().log_softmax(-1), logits(0, 10, 4).detach().requires_grad_()
    new.data.add_(0.1 * logits(1, 10, 4).detach())
    near = gtr.categorical_kl(anchor, new.log_softmax(-1))
    config = TrustConfig(decay=0.25)
    alone = torch.autograd.grad(gtr.penalty(near[None], config).sum(), new, retain_graph=True)[0]
    far = near + 10.0  # its slope in the policy is that of the near one: what is left of it is the kernel's doing
    both = torch.autograd.grad(gtr.penalty(torch.stack([near, far]), config).sum(), new)[0]
    np.testing.assert_allclose(both.numpy(), 0.8 * alone.numpy(), rtol=1e-9)  # 1 / (1 + 1/4)


def test_t8_forces_balance_where_lambert_says_or_nowhere():
    """Advantages pull away with constant forces; descent on beta psi - a d, each for itself."""
    config = TrustConfig(weight=4.0)
    advantage = torch.tensor([0.1, 0.3, 0.45, 0.49], dtype=DOUBLE)
    assert (advantage > gtr.critical_advantage(config)).tolist() == [False, False, False, True]
    d = torch.zeros(4, dtype=DOUBLE, requires_grad=True)
    for _ in range(1_000):
        loss = config.weight * gtr.penalty((0.5 * d.square())[None], config) - advantage * d
        d = (d - 0.05 * torch.autograd.grad(loss.sum(), d)[0]).detach().requires_grad_()
    exact = [0.2 * math.sqrt(-oracle.lambert_w0(-((a / (4.0 * 0.2)) ** 2))) for a in advantage[:3].tolist()]
    np.testing.assert_allclose(d[:3].detach().numpy(), exact, rtol=1e-6)
    np.testing.assert_allclose(exact, [0.0252, 0.0815, 0.148], rtol=5e-3)
    assert d[3].item() > 5.0


@pytest.mark.parametrize(
    "form", [form for form in FORMS if form != "kernel_kl_sg"]
)  # which is no gradient of its value
def test_t9_gradients_are_those_of_finite_differences(form):
    config = TrustConfig(form=form, variance=0.5, widen=0.3)
    anchors = torch.stack([logits(k, 4, 3).detach().log_softmax(-1) for k in (1, 2)])
    assert torch.autograd.gradcheck(
        lambda x: gtr.penalty(gtr.categorical_kl(anchors, x.log_softmax(-1)), config), logits(0, 4, 3)
    )
    mean, log_std = (torch.stack([logits(k + n, 4, 2).detach() for n in (0, 1)]) for k in (3, 5))
    assert torch.autograd.gradcheck(
        lambda m, s: gtr.penalty(gtr.gaussian_kl(mean, log_std, m, s), config), (logits(7, 4, 2), logits(8, 4, 2))
    )


def test_t10_the_stopped_kernel_has_the_gradient_of_welsch():
    distance = torch.from_numpy(np.random.default_rng(0).exponential(0.1, 50))
    slopes = [gradient(TrustConfig(form=form), distance)[1] for form in ("kernel_kl_sg", "welsch")]
    np.testing.assert_allclose(slopes[0].numpy(), slopes[1].numpy(), rtol=1e-12, atol=1e-15)  # as in T3


# -- weights, anchors, diagnostics ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0])
def test_anchor_weights(decay):
    weight = gtr.anchor_weights(4, decay, torch.zeros((), dtype=DOUBLE))
    np.testing.assert_allclose(weight.numpy(), oracle.anchor_weights(4, decay), rtol=1e-15)


def test_anchors_are_copies_newest_first_and_no_more_than_asked_for():
    anchors, parameter = Anchors(2), torch.zeros(3)
    for k in range(4):
        parameter.fill_(k)
        anchors.push({"p": parameter})
    assert [snapshot["p"].tolist() for snapshot in anchors.snapshots] == [[3.0] * 3, [2.0] * 3]
    other = Anchors(2)
    other.load_state_dict(anchors.state_dict())
    anchors.push({"p": torch.full((3,), 9.0)})
    assert [snapshot["p"][0].item() for snapshot in other.snapshots] == [3.0, 2.0]
    none = Anchors(0)
    none.push({"p": parameter})
    assert none.snapshots == []


def test_diagnostics_say_where_the_states_are():
    distance = torch.tensor([[0.0, 0.01, 0.03, 0.1], [1.0, 1.0, 1.0, 1.0]])
    kl = torch.tensor([0.0, 0.02, 0.06, 0.2])  # where the distance is a sampled one, it is another
    found = gtr.diagnostics(distance, kl, TrustConfig())
    assert found["trust/kl_mean"].item() == pytest.approx(0.07)
    assert found["trust/kl_p90"].item() == pytest.approx(np.quantile([0.0, 0.02, 0.06, 0.2], 0.9))
    assert found["trust/beyond_peak"].item() == 0.5  # beyond sigma^2 / 2 = 0.02
    assert found["trust/kernel_0"].item() == pytest.approx(np.exp(-distance[0].numpy() / 0.04).mean(), rel=1e-6)
    assert found["trust/kernel_1"].item() < 1e-6
    assert found["trust/penalty"].item() == pytest.approx(
        oracle.penalty(distance.double().numpy(), "welsch", 0.04, 0.5, 0.0).mean()
    )


def test_force_ratio_is_a_ratio_of_norms():
    a, b = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True)
    ratio = gtr.force_ratio((3.0 * a).sum(), (4.0 * a).sum() + 0.0 * b, [a, b])
    assert ratio.item() == pytest.approx(0.75)
    assert gtr.force_ratio(b.square(), a.sum() * 0.5, [a, b]).item() == pytest.approx(6.0 / math.sqrt(0.5))


@pytest.mark.parametrize(
    "wrong", [{"form": "gauss"}, {"variance": 0.0}, {"anchors": 0}, {"decay": 1.5}, {"weight": -1.0}, {"distance": "k3"}, {"widen": math.inf}]
)  # fmt: skip
def test_a_penalty_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=f"trust.{next(iter(wrong))} must be"):
        TrustConfig(**wrong)


# -- the mechanism ----------------------------------------------------------------------------------------------------------

# T11: the arm that has become the best one; how often it is played at the end, and from which step on four times in five.
BANDIT = {
    "none": {0.0: (0.999, 63)},
    "kl": {0.5: (0.52, None), 1.0: (0.16, None), 2.0: (0.048, None), 4.0: (0.033, None)},
    "welsch": {0.5: (0.999, 72), 1.0: (0.999, 89), 2.0: (0.999, 223), 4.0: (0.033, None)},
    "kernel_kl": {0.5: (0.999, 66), 1.0: (0.999, 70), 2.0: (0.999, 89), 4.0: (0.035, None)},
}


def assert_bandit(rows, form):
    assert len(rows) == len(BANDIT[form])
    for row in rows:
        new_arm, steps = BANDIT[form][row["beta"]]
        assert row["new_arm"] == pytest.approx(new_arm, abs=0.005)
        assert row["steps_to_80"] == steps


@pytest.mark.parametrize("form", ["kl", "welsch"])
def test_t11_a_bounded_penalty_lets_a_policy_go_where_the_plain_one_pins_it(form):
    assert_bandit(gtr_bandit.play(form, list(BANDIT[form]), 2_000), form)


def test_t11_as_recorded():
    recorded = json.loads((Path(gtr_bandit.__file__).parent / "results" / "gtr_bandit.json").read_text())["rows"]
    for form in BANDIT:
        assert_bandit([row for row in recorded if row["form"] == form], form)
