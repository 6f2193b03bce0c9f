"""Gradual magnitude pruning against its definition, on networks that are not an agent's."""

import copy
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reference import pruning as oracle
from rlplatform.nets import NoisyLinear
from rlplatform.streams import Stream
from rlplatform.techniques import pruning
from rlplatform.techniques.pruning import Pruner, PruningConfig

CONFIG = PruningConfig(sparsity=0.9, begin=4, end=20, every=3)


def net(seed=0):
    made = nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.LayerNorm(32), nn.Linear(32, 16), nn.Linear(16, 3)
    )
    for k, parameter in enumerate(made.parameters()):
        parameter.data.copy_(torch.from_numpy(Stream(seed, "test", k).normal(*parameter.shape)))
    return made


def train(made, pruner, steps, optimizer=None):
    """Gradient steps on a moving target, as an agent takes them."""
    optimizer = optimizer or torch.optim.Adam(made.parameters(), 0.01)
    for k in range(steps):
        x = torch.from_numpy(Stream(1, "x", k).normal(6, 2, 4, 4))
        pruner.begin()
        optimizer.zero_grad()
        made(x).square().sum().backward()
        optimizer.step()
        pruner.apply_(made)
    return optimizer


# -- schedule -----------------------------------------------------------------------------------------------------------


def test_the_schedule_by_definition():
    config = PruningConfig(sparsity=0.95, begin=200, end=800)
    for t in range(1_001):
        ours = 0.95 * pruning.progress(t, config)
        assert ours == pytest.approx(oracle.sparsity(t, 200, 800, 0.95), abs=1e-12)
    # Published, at 0.95: after so many percent of training
    found = [
        round(0.95 * pruning.progress(10 * percent, config), 3) for percent in (10, 20, 30, 40, 50, 60, 70, 80, 100)
    ]
    assert found == [0.0, 0.0, 0.4, 0.669, 0.831, 0.915, 0.946, 0.95, 0.95]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 30), st.integers(1, 40), st.integers(1, 50), st.integers(0, 90))
def test_masks_are_due_every_so_often_and_at_the_end(begin, length, every, now):
    pruner = Pruner(net(), PruningConfig(0.5, begin, begin + length, every))
    due = {*range(begin, begin + length + 1, every), begin + length}
    pruner.updates = now
    # So many steps may be taken together: masks fall due before the first of them, and before none of the others.
    assert pruner.ahead >= 1
    assert not due & set(range(now + 1, now + min(pruner.ahead, 200)))
    assert now + pruner.ahead in due or now >= begin + length
    assert {t for t in range(130) if pruner._due(t)} == due


# -- layers -------------------------------------------------------------------------------------------------------------


def impala(width):
    """Kernels of the Impala network of the paper's "ResNet", 4 frames of 84 x 84, 6 actions."""
    a, b = 16 * width, 32 * width
    stages = [(4, a), (a, b), (b, b)]
    shapes = {}
    for stage, (inputs, outputs) in enumerate(stages):
        shapes[f"{stage}.first"] = (outputs, inputs, 3, 3)
        shapes |= {f"{stage}.{k}": (outputs, outputs, 3, 3) for k in range(4)}
    return shapes | {"dense": (512, 11 * 11 * b), "output": (6, 512)}


@pytest.mark.parametrize(
    ("width", "first", "stack0", "stack1", "other", "dense", "total", "kept"),
    [(1, 0.13, 0.68, 0.77, 0.85, 0.957, 2.08e6, 104e3), (3, 0.22, 0.89, 0.92, 0.94, 0.953, 6.82e6, 341e3)],
)
def test_layers_of_the_impala_network(width, first, stack0, stack1, other, dense, total, kept):
    shapes = impala(width)
    found = pruning.layer_sparsities(shapes, 0.95, "erk")
    expected = {"0.first": first, "0.2": stack0, "1.first": stack1, "2.first": other, "2.3": other, "output": 0.0}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=6e-3), name
    assert found["dense"] == pytest.approx(dense, abs=6e-4)
    size = {name: prod(shape) for name, shape in shapes.items()}
    assert sum(size.values()) == pytest.approx(total, rel=2e-3)
    assert sum((1 - found[name]) * n for name, n in size.items()) == pytest.approx(kept, rel=2e-3)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.lists(st.integers(1, 40), min_size=2, max_size=4), min_size=1, max_size=6), st.floats(0.0, 0.99)
)  # fmt: skip
def test_erk_by_bisection(shapes, final):
    ours = pruning.layer_sparsities({str(k): tuple(shape) for k, shape in enumerate(shapes)}, final, "erk")
    np.testing.assert_allclose(list(ours.values()), oracle.erk(shapes, final), rtol=0, atol=1e-9)
    assert all(0.0 <= s <= 1.0 for s in ours.values())


def test_uniform_is_the_same_everywhere():
    assert pruning.layer_sparsities({"a": (3, 4), "b": (5, 6)}, 0.7, "uniform") == {"a": 0.7, "b": 0.7}


# -- masks --------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=30), st.floats(0.0, 1.0))
def test_the_largest_stay_and_of_equals_the_first(weights, final):
    mask = pruning.magnitude_mask(torch.tensor(weights).view(1, -1), final)
    assert mask.shape == (1, len(weights))
    assert set(mask.flatten().nonzero().flatten().tolist()) == oracle.keep(weights, final)


def test_a_network_becomes_sparse_by_the_schedule_and_stays_so():
    made = net()
    pruner, optimizer, before, seen = Pruner(made, CONFIG), None, None, []
    for t in range(30):
        optimizer = train(made, pruner, 1, optimizer)
        kernels = {name: p.detach() for name, p in made.named_parameters() if p.ndim > 1}
        assert set(pruner.masks) == set(kernels) == {"0.weight", "4.weight", "5.weight"}
        for name, p in kernels.items():
            assert torch.equal(p != 0, pruner.masks[name] != 0), name  # exactly 0 where pruned, and nowhere else
            last = max((u for u in (4, 7, 10, 13, 16, 19, 20) if u <= t), default=0)
            share = pruning.layer_sparsities({k: tuple(v.shape) for k, v in kernels.items()}, 0.9, "erk")[name]
            kept = max(1, round(p.numel() * (1 - share / 0.9 * oracle.sparsity(last, 4, 20, 0.9))))
            assert int((p != 0).sum()) == kept
        if before is not None:
            assert all((pruner.masks[name] <= mask).all() for name, mask in before.items())  # nested
        before = {name: mask.clone() for name, mask in pruner.masks.items()}
        seen.append(pruner.metrics()["pruning/sparsity"])
    total = sum(mask.numel() for mask in before.values())
    assert abs(sum(float(mask.sum()) for mask in before.values()) / total - 0.1) < 2 / total  # rounding of three layers
    assert seen[:4] == [0.0] * 4
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(0.9, abs=1e-3 + 2 / total)
    assert all((p != 0).all() for p in made.parameters() if p.ndim == 1)  # neither biases nor norms


def test_the_mask_is_of_the_weights_before_the_step_and_the_gradient_is_dense():
    """A step that lifts the least weight above all others: it is pruned by what it was, and its moments have seen the gradient."""
    made = nn.Linear(4, 1, bias=False)
    made.weight.data.copy_(torch.tensor([[4.0, 3.0, 2.0, 1.0]]))
    pruner = Pruner(made, PruningConfig(0.5, 0, 1, 1, "uniform"))
    optimizer = torch.optim.Adam(made.parameters(), 5.0)
    pruner.begin()
    assert (pruner.masks["weight"] == 1).all()
    pruner.begin()
    (-made.weight[0, 3]).backward()
    optimizer.step()
    assert made.weight[0, 3].item() == pytest.approx(6.0)
    pruner.apply_(made)
    assert made.weight.tolist() == [[4.0, 3.0, 0.0, 0.0]]
    assert optimizer.state[made.weight]["exp_avg"][0, 3] != 0


def test_no_sparsity_and_all_ones_leave_every_bit():
    plain, off, early = net(), net(), net()
    pruners = Pruner(off, PruningConfig()), Pruner(early, PruningConfig(0.9, 1_000, 2_000))
    optimizer = torch.optim.Adam(plain.parameters(), 0.01)
    for k in range(12):
        optimizer.zero_grad()
        plain(torch.from_numpy(Stream(1, "x", k).normal(6, 2, 4, 4))).square().sum().backward()
        optimizer.step()
    for made, pruner in zip((off, early), pruners, strict=True):
        train(made, pruner, 12)
        for ours, theirs in zip(made.parameters(), plain.parameters(), strict=True):
            assert torch.equal(ours, theirs)
    assert pruners[0].masks == {}
    assert pruners[0].metrics() == {}


def test_a_target_is_pruned_like_the_network():
    made, target = net(), net(seed=9)
    pruner = Pruner(made, CONFIG)
    train(made, pruner, 25)
    pruner.apply_(target)
    for (name, ours), theirs in zip(made.named_parameters(), target.parameters(), strict=True):
        assert ours.ndim == 1 or torch.equal(ours != 0, theirs != 0), name


def test_noise_is_pruned_with_its_mean():
    made = nn.Sequential(NoisyLinear(6, 5, 0.5), NoisyLinear(5, 2, 0.5))
    for layer in made:
        layer.init_(Stream(0, "init"))
    pruner = Pruner(made, PruningConfig(0.6, 0, 1, 1))
    assert set(pruner.masks) == {"0.mu", "1.mu"}
    for _ in range(2):
        pruner.begin()
    pruner.apply_(made)
    for layer in made:
        assert torch.equal(layer.mu == 0, layer.sigma == 0)
        assert (layer.bias_sigma != 0).all()
    zeros = sum(int((layer.mu == 0).sum()) for layer in made)
    assert abs(zeros - 0.6 * 40) <= 1


def test_a_state_goes_on_bit_for_bit():
    one, other = net(), net()
    pruner, again = Pruner(one, CONFIG), Pruner(other, CONFIG)
    optimizer = train(one, pruner, 11)
    saved, weights, moments = pruner.state_dict(), one.state_dict(), copy.deepcopy(optimizer.state_dict())
    kept = {name: mask.clone() for name, mask in saved["masks"].items()}
    resumed = torch.optim.Adam(other.parameters(), 0.01)
    other.load_state_dict({name: t.clone() for name, t in weights.items()})
    resumed.load_state_dict(moments)
    again.load_state_dict(saved)
    assert again.metrics() == pruner.metrics()
    places = [mask.data_ptr() for mask in again.masks.values()]
    train(one, pruner, 14, optimizer)
    train(other, again, 14, resumed)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(saved["masks"][name], mask) for name, mask in kept.items())  # a copy
    assert [mask.data_ptr() for mask in again.masks.values()] == places  # a captured graph knows them


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sparsity": 1.0}, r"pruning.sparsity must be in \[0, 1\)"),
        ({"sparsity": -0.1}, r"pruning.sparsity must be in \[0, 1\)"),
        ({"sparsity": 0.5}, "pruning.end must be more than begin=0, got 0"),
        ({"sparsity": 0.5, "begin": 9, "end": 9}, "pruning.end must be more than begin=9, got 9"),
        ({"begin": -1}, "pruning.begin must be >= 0, got -1"),
        ({"every": 0}, "pruning.every must be >= 1"),
        ({"distribution": "erdos"}, "must be one of erk, uniform"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        PruningConfig(**wrong)


def test_a_weight_that_was_pruned_never_comes_back_for_one_that_became_zero():
    """As where ReDo has set a recycled unit's outgoing weights to 0: equal magnitudes, of which the lower index would win."""
    weight = torch.tensor([[0.0, 0.0, 3.0, 0.0, 0.0, 2.0]])  # pruned: 0, 1; recycled: 3, 4
    before = torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0, 1.0]])
    mask = pruning.magnitude_mask(weight, 0.5, before)
    assert mask.tolist() == [[False, False, True, True, False, True]]
    assert not (mask & (before == 0)).any()
