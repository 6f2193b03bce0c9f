"""The measures against their definitions in float64 (tests/reference/plasticity.py) and closed forms; whose activation is whose."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reference import plasticity as definition
from rlplatform.agents import mrq_net, ppo, sac, spr_config, spr_net
from rlplatform.agents.mrq_config import Config as MrqConfig
from rlplatform.agents.pqn_net import Net
from rlplatform.nets import NatureCNN
from rlplatform.streams import Stream
from rlplatform.techniques import plasticity
from rlplatform.techniques.activations import Recorder, layer_of, record
from rlplatform.types import Spec

RNG = np.random.default_rng(0)
FEATURES = {
    "wide": RNG.standard_normal((20, 50)), "tall": RNG.standard_normal((50, 20)).clip(0),
    "low": RNG.standard_normal((30, 3)) @ RNG.standard_normal((3, 40)), "uneven": RNG.standard_normal((40, 10)) * 0.3 ** np.arange(10),
}  # fmt: skip


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("delta", [0.01, 0.2])
def test_ranks_are_those_of_their_definitions(name, delta):
    """In float64 throughout: the ranks that are integers are equal, the effective one to 1e-13 relative; asked: 1e-11."""
    z = FEATURES[name]
    values = plasticity.singular_values(torch.from_numpy(z))
    np.testing.assert_allclose(plasticity.effective_rank(values), definition.effective_rank(z), rtol=1e-11)
    assert plasticity.srank(values, delta) == definition.srank(z, delta)
    assert plasticity.approximate_rank(values, delta) == definition.approximate_rank(z, delta)
    for epsilon in (0.01, 0.5):
        assert plasticity.feature_rank(values, len(z), epsilon) == definition.feature_rank(z, epsilon)


def test_ranks_in_closed_form():
    equal = plasticity.singular_values(3.0 * torch.eye(8))
    np.testing.assert_allclose(plasticity.effective_rank(equal), 8.0, rtol=1e-14)
    assert [plasticity.srank(equal, d) for d in (0.0, 0.01, 0.125, 0.126, 0.5)] == [8, 8, 7, 7, 4]
    # Singular values 4, 2, 1, 1: shares 1/2, 3/4, 7/8, 1; their squares 16, 4, 1, 1.
    values = plasticity.singular_values(torch.diag(torch.tensor([2.0, 1.0, 4.0, 1.0])))
    np.testing.assert_allclose(values, [4, 2, 1, 1])
    assert [plasticity.srank(values, d) for d in (0.5, 0.25, 0.2, 0.01)] == [1, 2, 3, 4]
    assert [plasticity.approximate_rank(values, d) for d in (0.3, 0.1, 0.05)] == [1, 2, 3]
    assert [plasticity.feature_rank(values, 4, e) for e in (0.49, 0.51, 1.1, 2.1)] == [4, 2, 1, 0]
    np.testing.assert_allclose(plasticity.effective_rank(values), 2.0 ** (0.5 + 0.25 * 2 + 0.25 * 3), rtol=1e-14)
    nothing = plasticity.singular_values(torch.zeros(5, 3))
    assert plasticity.effective_rank(nothing) == plasticity.srank(nothing) == plasticity.approximate_rank(nothing) == 0


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 3, 2)])
def test_dormant_units_are_those_of_the_definition(shape):
    """float32 activations, float64 means: measured 3e-16 relative, asked 1e-12."""
    h = torch.from_numpy(RNG.standard_normal(shape).astype(np.float32))
    h[:, 1] *= 1e-3
    h[:, 3] = 0.0
    expected = definition.unit_scores(h.numpy())
    np.testing.assert_allclose(plasticity.unit_scores(h), expected, rtol=1e-12)
    score = float(plasticity.unit_scores(h)[0])
    assert plasticity.dormant(h, score)[0]
    assert not plasticity.dormant(h, score * (1 - 1e-12))[0]
    assert plasticity.dormant(h, 0.025).tolist() == [False, True, False, True, False]
    assert plasticity.dormant(h, 0.0).tolist() == plasticity.dead(h).tolist() == [False, False, False, True, False]
    assert plasticity.dormant(-h, 0.025).tolist() == [False, True, False, True, False]  # the size counts
    assert plasticity.dormant(torch.zeros(shape), 0.0).all()


def test_a_unit_is_dead_where_it_is_zero_everywhere():
    h = torch.zeros(4, 3, 2, 2)
    h[2, 1, 0, 1] = 1e-30
    assert plasticity.dead(h).tolist() == [True, False, True]


def test_a_share_counts_units_not_layers():
    masks = [torch.tensor([True, False]), torch.tensor([True] * 6)]
    assert plasticity.share(masks) == 7 / 8


def test_norms_churn_and_shift():
    assert plasticity.norm([torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]) == 5.0
    assert plasticity.norm([]) == 0.0
    assert plasticity.feature_norm(torch.tensor([[3.0, 4.0], [0.0, 1.0]])) == 3.0
    q = torch.tensor([[1.0, 2.0], [2.0, 1.0], [0.0, 1.0], [5.0, 4.0]])
    moved = q + torch.tensor([[0.0, 9.0], [0.0, 0.9], [2.0, 0.0], [0.0, 0.0]])
    assert plasticity.churn(q, moved) == 0.25
    a = torch.zeros(2, 2)
    assert plasticity.shift(a, torch.tensor([[3.0, 0.0], [0.0, 4.0]])) == 2.5  # sqrt(25 / 4)


def test_gradient_covariance_is_cosines():
    """Products of 40 float32 numbers: measured 4e-8 absolute, asked 1e-6."""
    g = RNG.standard_normal((6, 40)).astype(np.float32)
    g[2], g[4] = -3.0 * g[0], 0.0
    found = plasticity.gradient_covariance(torch.from_numpy(g)).numpy()
    expected = definition.cosines(g.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert found[4].tolist() == [0.0] * 6
    mean = sum(abs(expected[i, j]) for i in range(6) for j in range(6) if i != j) / 30
    np.testing.assert_allclose(plasticity.collinearity(torch.from_numpy(found)), mean, atol=1e-6)
    assert plasticity.collinearity(-torch.ones(3, 3)) == 1.0
    assert plasticity.collinearity(torch.eye(3)) == 0.0


def test_gradients_of_single_inputs():
    """Of w x^2 + b they are known; one parameter has no influence, and `.grad` stays what it was."""
    net = nn.Linear(3, 1)
    net.unused = nn.Parameter(torch.ones(2))
    net.weight.grad = torch.full((1, 3), 7.0)
    x = torch.arange(6.0).reshape(2, 3)
    with torch.no_grad():  # whoever looks may have switched gradients off
        found = plasticity.sample_gradients(net, lambda x: net(x.square())[:, 0], x)
    by_name = dict(zip(["weight", "bias", "unused"], found.split([3, 1, 2], 1), strict=True))
    np.testing.assert_array_equal(by_name["weight"], x.square())
    np.testing.assert_array_equal(by_name["bias"], np.ones((2, 1)))
    np.testing.assert_array_equal(by_name["unused"], np.zeros((2, 2)))
    assert net.weight.grad.tolist() == [[7.0] * 3]
    assert net.bias.grad is None


class Small(nn.Module):
    """Activations as functions, modules and methods; two matrices before one activation; a norm with weights between."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 4, bias=False)
        self.norm = nn.LayerNorm(4)
        self.block = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))

    def forward(self, x):
        x = F.relu(self.norm(self.one(x)))
        x = (x @ self.two.weight.T).relu()
        return torch.tanh(self.block(x))


def test_an_activation_belongs_to_the_matrix_before_it():
    net, x = Small(), torch.randn(6, 3)
    layers, out = record(net, net, x, outputs=["block.2"])
    assert list(layers) == ["one", "two", "block.0"]
    first = F.relu(net.norm(net.one(x)))
    assert torch.equal(layers["one"], first)
    assert torch.equal(layers["two"], F.relu(net.two(first)))
    assert torch.equal(layers["block.0"], torch.tanh(net.block[0](F.relu(net.two(first)))))
    assert torch.equal(out, net(x))
    assert list(record(net, net, x)[0]) == ["one", "two", "block.0", "block.2"]
    assert not any(h.requires_grad for h in layers.values())


def test_a_layer_that_is_used_twice_is_told_apart():
    net = nn.Linear(2, 2)
    with Recorder(nn.ModuleDict({"a": net})) as recorder:
        F.relu(net(F.relu(net(torch.ones(1, 2)))))
    assert list(recorder.layers) == ["a", "a#2"]


def test_a_pass_through_other_weights_is_refused():
    net, other = Small(), Small()
    with pytest.raises(ValueError, match="no activation of Small was seen"):
        record(net, other, torch.zeros(1, 3))
    assert layer_of("a.parametrizations.weight.original") == layer_of("a.weight") == "a"


PIXELS, VECTOR = Spec((84, 84), "uint8", 4, 3), Spec((5,), "float32", 1, 0, (2,))


def test_layers_of_the_networks():
    net = NatureCNN(4, (84, 84))
    net.init_(Stream(0, "init"))
    obs = torch.from_numpy(Stream(0, "obs").integers(256, 2, 4, 84, 84).astype(np.uint8))
    layers, features = record(net, net, obs)
    assert {name: tuple(h.shape) for name, h in layers.items()} == {
        "conv1": (2, 32, 21, 21), "conv2": (2, 64, 11, 11), "conv3": (2, 64, 11, 11),
    }  # fmt: skip
    assert torch.equal(layers["conv3"].permute(0, 2, 3, 1).flatten(1), features)
    impala = spr_net.Net(spr_config.Config(encoder="impala", hidden=8), PIXELS, torch.float32)
    impala.init_(Stream(0, "init"))
    stage = ["conv", "block1.conv1", "block1.conv2", "block2.conv1"]
    last = [
        *(f"encoder.stage{i}.{part}" for i in (1, 2, 3) for part in stage),
        "encoder.stage3.block2.conv2",
        "projection",
    ]
    assert list(record(impala, lambda x: impala(x, None), obs)[0]) == last
    minatar = spr_net.Net(
        spr_config.Config(encoder="minatar", hidden=8), Spec((4, 10, 10), "uint8", 1, 3), torch.float32
    )
    minatar.init_(Stream(0, "init"))
    layers, _ = record(minatar, lambda x: minatar(x, None), torch.ones(2, 1, 4, 10, 10))
    assert {name: h.shape[1] for name, h in layers.items()} == {"encoder": 16, "projection": 8}


@pytest.mark.parametrize("stack", [1, 4])
def test_a_channel_of_pqns_maps_is_a_unit(stack):
    net = Net("nature", 1, 8, 1, Spec((84, 84), "uint8", stack, 3))
    net.init_(Stream(0, "init"))
    obs = torch.from_numpy(Stream(0, "obs").integers(256, 2, stack, 84, 84).astype(np.uint8))
    layers, _ = record(net, net, obs)
    assert {name: tuple(h.shape) for name, h in layers.items()} == {
        "convs.0": (2, 32, 20, 20), "convs.1": (2, 64, 9, 9), "convs.2": (2, 64, 7, 7), "hidden.0.linear": (2, 8),
    }  # fmt: skip
    place = net.convs[0](obs.float() / 255.0, 1.0)[:, :, 3, 5]
    assert torch.allclose(place.mean(1), torch.zeros(2), atol=1e-5)  # channels are what layer norm is over
    assert torch.allclose(layers["convs.0"][:, :, 3, 5], place.relu(), atol=1e-5)


@pytest.mark.parametrize("apart", [False, True])
def test_what_ppo_decides_is_what_its_environment_is_given(apart):
    """Of observations as they come: it scales them itself. The last layer before the value is the features'."""
    spec = Spec((5,), "float32", 2, 0, (2,)) if apart else Spec((5,), "float32", 2, 3)
    config = ppo.Config(encoder="flatten", hidden=8, layers=2, shared=not apart, normalize_obs=apart, activation="tanh")
    agent = ppo.Agent(config, spec, 1, 0)
    if apart:
        agent._obs_moments.add(3.0 + 2.0 * Stream(0, "past").normal(50, 2, 5))
        agent.net.policy.weight.data.mul_(1_000.0)
    policy, obs = agent.eval_policy(), Stream(0, "obs").normal(6, 2, 5)
    policy.load(agent.weights())
    probe = agent.probe()
    layers, (decides, value) = record(probe.net, probe.forward, torch.from_numpy(obs), probe.outputs)
    trunks = ("trunk", "critic") if apart else ("trunk",)
    assert list(layers) == [f"{trunk}.layers.{i}" for trunk in trunks for i in (0, 1)]
    dist = policy._net.distribution(policy._see(obs))
    expected = torch.from_numpy(policy._net.family.mode(dist).clip(-1.0, 1.0)) if apart else dist
    assert torch.equal(decides, expected)
    assert not apart or (decides.abs() == 1.0).any()
    assert torch.equal(value, torch.from_numpy(policy.close(obs)["last_value"]))


@pytest.mark.parametrize("kind", ["sac", "mrq", "mrq_pixels"])
def test_layers_of_actors_and_critics(kind):
    if kind == "sac":
        agent = sac.Agent(sac.Config(hidden=8, min_replay=1, capacity=20), VECTOR, 1, 0)
        expected = [
            "actor.linear1",
            "actor.linear2",
            *(f"critic.{c}.linear{i}" for c in ("first", "second") for i in (1, 2)),
        ]
    else:
        from rlplatform.agents.mrq import Agent

        spec = VECTOR if kind == "mrq" else PIXELS
        agent = Agent(MrqConfig(hidden=8, action_embedding=4, min_replay=1, capacity=20), spec, 1, 0)
        states = [f"linear{i}" for i in (1, 2, 3)] if kind == "mrq" else [*(f"conv{i}" for i in (1, 2, 3, 4)), "linear"]
        expected = [
            *(f"encoder.state.{name}" for name in states), "policy.linear1", "policy.linear2", "encoder.action", "encoder.pair_state",
            "encoder.pair2", *(f"value.{v}.linear{i}" for v in ("first", "second") for i in (1, 2, 3)),
        ]  # fmt: skip
        assert isinstance(agent.online, mrq_net.Net)
    probe = agent.probe()
    layers, (choice, value) = record(
        probe.net, probe.forward, torch.ones(3, agent.spec.stack, *agent.spec.frame_shape), probe.outputs
    )
    assert list(layers) == expected
    assert value.shape == (3,)
    assert choice.shape == (3, agent.spec.actions or 2)
