"""SPR, SR-SPR, BBF and DrQ(eps) against their definitions in float64; their schedules and resets against the published numbers."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reference import c51
from reference import spr as oracle
from rlplatform.agents import load_preset, spr_net, spr_release
from rlplatform.agents.spr import Agent
from rlplatform.agents.spr_config import Config, Release, horizon_at
from rlplatform.agents.spr_net import Net, double_dqn_target, q_values, renormalize, spr_loss, td_loss
from rlplatform.config import merge
from rlplatform.learner import Learner
from rlplatform.nets import ImpalaCNN, SameConv, Transition, flat
from rlplatform.replay import Batch
from rlplatform.streams import Stream
from rlplatform.techniques.resets import ResetConfig, Schedule
from rlplatform.types import Rollout, Spec, empty_episodes

PONG = Spec((84, 84), "uint8", 4, actions=6)
ATARI18 = dataclasses.replace(PONG, actions=18)
TINY = Spec((5, 4), "uint8", 2, actions=2)
MAP = (2, 3, 2)  # of the tiny encoder: channels, height, width


class TinyEncoder(nn.Module):
    """One convolution, so that a gradient can be had by differences: two channels of 3 x 2."""

    map_shape = MAP
    features = 12

    def __init__(self) -> None:
        super().__init__()
        self.conv = SameConv(2, 2, 3, 2, (5, 4))

    def init_(self, stream):
        self.conv.init_(stream)

    def forward(self, obs):
        return flat(torch.relu(self.conv(obs.to(self.conv.weight.dtype), 1.0 / 255.0)))


@pytest.fixture
def tiny_encoder(monkeypatch):
    monkeypatch.setattr(spr_net, "encoder", lambda _name, _spec, _width: TinyEncoder())


def preset(name, suite="atari100k", **changes):
    return merge(Config(), load_preset(name, suite).config, changes)


TINY_BBF = preset(
    "bbf", encoder="nature", hidden=5, atoms=3, v_max=2.0, spr_steps=2, n=4, n_final=2, anneal=2, capacity=200, min_replay=10,
    batch=4, learning_rate=0.01, adam_eps=1e-3, target_tau=0.3,
)  # fmt: skip


def numbers(net):
    return {name: p.detach().double().numpy().copy() for name, p in net.named_parameters()}


def part(net, prefix):
    return {name.removeprefix(prefix): value for name, value in numbers(net).items() if name.startswith(prefix)}


def tiny_batch(rng, k=2, size=4):
    """As the replay gives it: the second item's episode ends after one step, so that nothing is there later."""
    obs = rng.integers(0, 256, (size, k + 1, 2, 5, 4)).astype(np.uint8)
    mask = np.ones((size, k), bool)
    mask[1, 1:] = False
    obs[1, 2:] = 0
    return Batch(
        obs, rng.integers(0, 2, (size, max(k, 1))), np.zeros((size, max(k, 1)), np.float32), np.zeros((size, max(k, 1)), bool),
        mask, rng.normal(size=size).astype(np.float32), np.array([0.9, 0.0, 0.8, 0.9], np.float32),
        rng.integers(0, 256, (size, 2, 5, 4)).astype(np.uint8), np.arange(size), rng.random(size) + 0.1,
    )  # fmt: skip


class OneBatch:
    """Stands in for the replay where a test decides what is drawn; notes what was asked and which priorities come back."""

    can_sample = True

    def __init__(self, batch):
        self.batch, self.asked = batch, []

    def add(self, _rollout):
        pass

    def sample(self, *asked):
        self.asked.append(asked)
        return self.batch

    def update_priority(self, index, priority):
        self.index, self.priority = index, priority


def rollout(spec, rng, steps=1):
    no = np.zeros((steps, 1), bool)
    return Rollout(
        rng.integers(0, 256, (steps, 1, *spec.frame_shape)).astype(spec.frame_dtype), no,
        rng.integers(0, spec.actions, (steps, 1)), np.ones((steps, 1), np.float32), no, no,
        np.zeros((0, *spec.frame_shape), spec.frame_dtype), np.zeros((0, 2), np.int64), {}, empty_episodes(), 0, 0,
    )  # fmt: skip


# -- networks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "spec", "expected"),
    [
        ("bbf", PONG, {"encoder": 1_552_192, "projection": 31_721_472, "predictor": 4_196_352, "head": 731_493, "transition": 302_080}),
        ("bbf", ATARI18, {"encoder": 1_552_192, "projection": 31_721_472, "predictor": 4_196_352, "head": 1_985_481, "transition": 315_904}),
        ("sr_spr", ATARI18, {"encoder": 77_984, "projection": 3_965_440, "predictor": 262_656, "head": 497_097, "transition": 84_224}),
        ("spr", ATARI18, {"encoder": 77_984, "projection": 7_930_880, "predictor": 262_656, "head": 994_194, "transition": 84_224}),
        ("drq_eps", ATARI18, {"encoder": 77_984, "projection": 3_965_440, "head": 9_747}),
    ],
)  # fmt: skip
def test_parameter_counts_are_those_of_the_published_agents(name, spec, expected):
    net = Net(preset(name), spec, torch.float32)
    assert {key: sum(p.numel() for p in child.parameters()) for key, child in net.named_children()} == expected
    acting = Net(preset(name), spec, torch.float32, acting=True)
    assert {key for key, _ in acting.named_children()} == {"encoder", "projection", "head"}


@pytest.mark.parametrize("size", [(11, 8), (12, 5), (84, 84)])
def test_impala_by_definition(size):
    if size == (84, 84):  # the real size, where the loops take a second
        net, batch = ImpalaCNN(4, size, 1), 1
        assert net.map_shape == (32, 11, 11)
    else:
        net, batch = ImpalaCNN(2, size, 1), 2
    net.init_(Stream(0, "init"))
    x = np.random.default_rng(0).integers(0, 256, (batch, 4 if size == (84, 84) else 2, *size)).astype(np.uint8)
    ours = net(torch.from_numpy(x)).detach().numpy()
    expected = oracle.impala(numbers(net), x / 255.0)
    assert ours.shape == (batch, net.features)
    # Fifteen convolutions in float32 whose outputs are of the order of 1: 3e-7 of the largest measured.
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_latent_dynamics_by_definition():
    net = Transition((3, 4, 5), actions=4)
    net.init_(Stream(1, "init"))
    rng = np.random.default_rng(1)
    latent, action = rng.random((6, 60)).astype(np.float32), rng.integers(0, 4, 6)
    ours = net(torch.from_numpy(latent), torch.from_numpy(action)).detach().numpy()
    weights = {f"transition.{name}": value for name, value in numbers(net).items()}
    expected = oracle.transition(weights, latent.astype(np.float64), action, (3, 4, 5), 4)
    assert (expected > 0).any()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)  # float32: 2e-7 measured


def test_renormalised_latents_lie_between_0_and_1():
    z = np.random.default_rng(2).normal(size=(5, 30)).astype(np.float32) * np.array(
        [[1e-3], [1], [10], [1e3], [0]], np.float32
    )
    ours = renormalize(torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(ours, oracle.renormalized(z.astype(np.float64)), rtol=1e-5, atol=1e-6)
    assert (ours[:4].min(1) == 0).all()
    np.testing.assert_allclose(ours[1:4].max(1), 1.0, atol=1e-5)  # 1e-5 beside a range of 4 and more
    assert (ours[4] == 0).all()  # of no range: no division by 0


# -- losses -------------------------------------------------------------------------------------------------------------


def test_spr_loss_by_definition():
    rng = np.random.default_rng(3)
    p, y = rng.normal(size=(2, 5, 7, 16)).astype(np.float32)
    mask = (rng.random((5, 7)) < 0.7).astype(np.float32)
    ours = spr_loss(torch.from_numpy(p), torch.from_numpy(y), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(ours, oracle.spr(p.astype(np.float64), y.astype(np.float64), mask), rtol=1e-5, atol=1e-6)
    one = torch.ones(5, 7)
    f = torch.from_numpy
    np.testing.assert_allclose(spr_loss(f(p), f(3.0 * p), one).numpy(), 0.0, atol=1e-6)  # length does not matter
    np.testing.assert_allclose(spr_loss(f(p), f(-p), one).numpy(), 4.0, rtol=1e-6)  # opposite: 2 - 2 cos = 4
    zero = torch.zeros(5, 7, 16, requires_grad=True)
    spr_loss(zero, f(y), one).sum().backward()
    assert torch.isfinite(zero.grad).all()


def test_with_one_atom_it_is_double_dqn_with_the_huber_loss():
    rng = np.random.default_rng(4)
    online, target = rng.normal(size=(2, 50, 3, 1)).astype(np.float32)
    reward, discount = rng.normal(size=50).astype(np.float32) * 2, rng.choice([0.0, 0.9], 50).astype(np.float32)
    f = torch.from_numpy
    y = double_dqn_target(f(online), f(target), f(reward), f(discount), torch.ones(1)).numpy()
    expected = oracle.scalar_target(
        online[..., 0], target[..., 0], reward.astype(np.float64), discount.astype(np.float64)
    )
    np.testing.assert_allclose(y[:, 0], expected, rtol=1e-5, atol=1e-6)
    assert (expected != oracle.scalar_target(target[..., 0], target[..., 0], reward, discount)).any()
    chosen = rng.normal(size=(50, 1)).astype(np.float32) * 3
    td = td_loss(f(chosen), f(y)).numpy()
    np.testing.assert_allclose(td, oracle.huber(chosen[:, 0].astype(np.float64) - y[:, 0]), rtol=1e-5, atol=1e-6)
    assert (np.abs(chosen - y) > 1).any()
    assert (np.abs(chosen - y) < 1).any()
    np.testing.assert_array_equal(q_values(f(online), torch.ones(1)).numpy(), online[..., 0])


# -- one update ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_encoder")
def test_two_updates_are_those_written_out_by_hand():
    """Augmentation, both losses, gradient by central differences, importance weights, AdamW in its two groups, the target's
    moving average, new priorities, and n and gamma on their way, all in float64."""
    agent: Any = Agent(TINY_BBF, TINY, 1, seed=5)
    for parameter in agent.target.parameters():
        parameter.data.add_(torch.from_numpy(Stream(9, "test").normal(*parameter.shape)), alpha=0.3)
    batch = tiny_batch(np.random.default_rng(6))
    agent.replay = OneBatch(batch)
    online, target = numbers(agent.online), numbers(agent.target)
    moments = {name: (np.zeros_like(p), np.zeros_like(p)) for name, p in online.items()}
    support, weight, draws = np.linspace(-2.0, 2.0, 3), c51.importance_weights(batch.priority), Stream(5, "augment")

    def encode(net, images):
        convolved = oracle.same_conv(images, net["encoder.conv.weight"], net["encoder.conv.bias"], 2)
        return oracle.renormalized(oracle.written_out(oracle.relu(convolved)))

    for t in (1, 2):
        metrics = agent.update()
        images = np.concatenate([batch.obs[:, 0], batch.obs[:, 1], batch.obs[:, 2], batch.next_obs])
        shift = draws.integers(8, 16, 2) - 4
        intensity = 1.0 + 0.05 * np.clip(draws.normal(16).astype(np.float64), -2, 2)
        data = {
            "obs": oracle.augmented(images, shift, intensity).reshape(4, 4, 2, 5, 4), "action": batch.action.T,
            "mask": batch.mask.T, "n_return": batch.n_return.astype(np.float64),
            "discount": batch.discount.astype(np.float64),
        }  # fmt: skip
        data["y"] = oracle.td_target(online, target, data, encode, support)  # without gradient

        def sample_losses(net, data=data, target=target):
            return oracle.sample_losses(net, target, data, encode, support, MAP, 2)

        def loss(net):
            td, spr = sample_losses(net)
            return (weight * (td + 5.0 * spr)).mean()

        td, spr = sample_losses(online)
        grad = c51.gradient(loss, online)
        for name, value in online.items():
            decay = 0.1 if value.ndim > 1 else 0.0
            online[name], *moments[name] = oracle.adamw(value, grad[name], *moments[name], t, 0.01, 1e-3, decay)
        target = {name: value + 0.3 * (online[name] - value) for name, value in target.items()}
        np.testing.assert_allclose(agent.replay.priority, td + 1e-10, rtol=1e-5)  # float32: 4e-7 measured
        assert float(metrics["losses/td_loss"]) == pytest.approx(td.mean(), rel=1e-5)
        assert float(metrics["losses/spr_loss"]) == pytest.approx(spr.mean(), rel=1e-5)
    # A gradient near 1e-3, Adam's epsilon here, doubles a relative error: steps of 0.01 that agree to 1e-4 of themselves.
    for ours, expected in ((agent.online, online), (agent.target, target)):
        for name, value in numbers(ours).items():
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=2e-6, err_msg=name)
    assert [asked[:2] for asked in agent.replay.asked] == [(4, 4), (4, 3)]  # n: 4, then 4 sqrt(1/2) = 2.8
    np.testing.assert_allclose([a[2] for a in agent.replay.asked], [0.97, 1 - (0.03 * 0.003) ** 0.5], rtol=1e-12)
    assert agent.replay.asked[0][3] == 2


@pytest.mark.parametrize(("encoder", "frame"), [("flatten", (5, 4)), ("nature", (12, 12)), ("impala", (12, 12))])
def test_learning_and_acting_see_the_same_numbers(encoder, frame):
    spec = Spec(frame, "uint8", 2, actions=3)
    agent: Any = Agent(Config(encoder=encoder, hidden=8, capacity=100, min_replay=5, n=1, sigma0=0.0), spec, 1, seed=0)
    obs = np.random.default_rng(0).integers(0, 256, (4, 2, *frame)).astype(np.uint8)
    none = np.zeros((4, 0), bool)
    zero = np.zeros(4, np.float32)
    batch = Batch(
        obs[:, None], np.zeros((4, 1), np.int64), zero[:, None], none, none, zero, zero, obs, np.arange(4), np.ones(4)
    )
    learned = agent.online(agent.inputs(batch).obs[:4], None)
    acted = agent.online(torch.from_numpy(obs), None)
    np.testing.assert_allclose(learned.detach().numpy(), acted.detach().numpy(), rtol=1e-6, atol=1e-7)
    assert acted.abs().max() < 10  # of pixels in [0, 1]


@pytest.mark.usefixtures("tiny_encoder")
def test_noise_reaches_the_values_and_not_the_predictions():
    config = dataclasses.replace(TINY_BBF, sigma0=5.0)
    net = Net(config, TINY, torch.float32)
    net.init_(Stream(0, "init"))
    latent, action = torch.rand(3, 12), torch.zeros(2, 3, dtype=torch.int64)
    one, other = net.noise(Stream(0, "noise")), net.noise(Stream(1, "noise"))
    assert not torch.allclose(net.logits(latent, one), net.logits(latent, other))
    mean = {name.replace("mu", "weight").replace("bias_weight", "bias"): v for name, v in numbers(net).items()}
    z = latent.double().numpy()
    projected = net.project(latent).detach().numpy()
    np.testing.assert_allclose(projected, oracle.linear(mean, "projection", z), rtol=1e-5, atol=1e-5)
    ahead = net.predict(latent, action).detach().numpy()
    z = oracle.renormalized(oracle.transition(mean, z, action[0].numpy(), MAP, 2))
    expected = oracle.linear(mean, "predictor", oracle.linear(mean, "projection", z))
    np.testing.assert_allclose(ahead[0], expected, rtol=1e-5, atol=1e-5)
    assert ahead.shape == (2, 3, 5)


@pytest.mark.usefixtures("tiny_encoder")
def test_weight_decay_leaves_biases_alone():
    agent: Any = Agent(dataclasses.replace(TINY_BBF, learning_rate=1e-3), TINY, 1, seed=0)
    decay, keep = agent._adam.param_groups
    names = {id(p): name for name, p in agent.master.named_parameters()}
    assert {names[id(p)].rpartition(".")[2] for p in decay["params"]} == {"weight"}
    assert {names[id(p)].rpartition(".")[2] for p in keep["params"]} == {"bias"}
    assert (decay["weight_decay"], keep["weight_decay"]) == (0.1, 0.0)
    assert len(names) == len(decay["params"]) + len(keep["params"])


@pytest.mark.usefixtures("tiny_encoder")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_moving_average_is_kept_in_float32_and_acts(dtype):
    """Steps of 0.005 would be lost in bfloat16, which has 8 bits."""
    agent: Any = Agent(dataclasses.replace(TINY_BBF, dtype=dtype, target_tau=0.005), TINY, 1, seed=1)
    agent.replay = OneBatch(tiny_batch(np.random.default_rng(0)))
    expected = numbers(agent.target_master)
    for _ in range(20):
        agent.update()
        now = numbers(agent.master)
        expected = {name: value + 0.005 * (now[name] - value) for name, value in expected.items()}
    for name, value in numbers(agent.target_master).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, atol=1e-7, err_msg=name)
    weights = agent.weights()["net"]
    for name, p in agent.target_master.named_parameters():
        if name.split(".")[0] in ("transition", "predictor"):
            assert name not in weights
        else:
            assert torch.equal(weights[name], p.to(agent._dtype))
    assert any(not torch.equal(weights[n], p) for n, p in agent.online.named_parameters() if n in weights)


# -- schedules ----------------------------------------------------------------------------------------------------------


def test_n_and_gamma_at_every_breakpoint():
    bbf = preset("bbf")
    at = {0: 10, 426: 10, 427: 9, 1_349: 9, 1_350: 8, 2_389: 8, 2_390: 7, 3_578: 7, 3_579: 6, 4_965: 6, 4_966: 5, 6_632: 5,
          6_633: 4, 8_719: 4, 8_720: 3, 10_000: 3, 40_000: 3}  # fmt: skip
    assert {c: horizon_at(c, bbf)[0] for c in at} == at
    gamma = {0: 0.97, 1_000: 0.9762, 2_500: 0.9831, 5_000: 0.9905, 7_500: 0.9947, 10_000: 0.997, 40_000: 0.997}
    np.testing.assert_allclose([horizon_at(c, bbf)[1] for c in gamma], list(gamma.values()), atol=5e-5)
    assert horizon_at(123, preset("sr_spr")) == (10, 0.99)
    assert bbf.max_n == 10
    assert dataclasses.replace(bbf, n=3, n_final=10).max_n == 10
    assert preset("der").max_n == 10


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("bbf", [20_001, 40_001, 60_001, 80_001]),
        ("bbf_rr8", list(range(5_001, 95_002, 5_000))),
        ("spr_resets", [20_001, 40_001, 60_001, 80_001]),
        ("sr_spr_rr4", list(range(10_001, 90_002, 10_000))),
        ("sr_spr_rr16", list(range(2_501, 97_502, 2_500))),
        ("der", []),
    ],
)
def test_resets_fall_where_the_published_agents_have_them(name, steps):
    config = preset(name)
    schedule = Schedule(config.reset_period, config.reset.until)
    assert [step for step in range(100_002) if schedule.due(step)] == steps
    assert len(steps) == {"bbf": 4, "bbf_rr8": 19, "spr_resets": 4, "sr_spr_rr4": 9, "sr_spr_rr16": 39, "der": 0}[name]


class Counting:
    """An agent whose updates only count, to see what the learner's arithmetic and the schedules make of 100,000 steps."""

    def __init__(self, config):
        self.schedule = Schedule(config.reset_period, config.reset.until)
        self.steps = self.updates = 0
        self.min_replay, self.at = config.min_replay, []

    @property
    def ready(self):
        return self.steps > self.min_replay

    def observe(self, rollouts):
        if self.schedule.due(self.steps):
            self.at.append(self.updates)
        self.steps += sum(r.reward.size for r in rollouts)

    def update(self):
        self.updates += 1
        return {}


def test_gradient_steps_at_the_resets_and_in_all():
    config = preset("bbf")
    agent = Counting(config)
    learner = Learner(agent, config.replay_ratio)
    one = rollout(Spec((1,), "uint8", 1, 2), np.random.default_rng(0))
    for _ in range(100_000):
        learner.learn([one])
    assert agent.at == [36_002, 76_002, 116_002, 156_002]
    assert agent.updates == 196_000


# -- resets -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_encoder")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_reset_of_bbf(dtype):
    config = dataclasses.replace(
        TINY_BBF, dtype=dtype, reset=dataclasses.replace(TINY_BBF.reset, every=8, until=100), replay_ratio=2.0
    )
    agent: Any = Agent(config, TINY, 1, seed=2)
    agent.replay = OneBatch(tiny_batch(np.random.default_rng(0)))
    rng = np.random.default_rng(1)
    for _ in range(3):
        agent.update()
    agent.observe([rollout(TINY, rng, 5)])  # the period is 4 agent steps
    before, target = numbers(agent.master), numbers(agent.target_master)
    agent.observe([rollout(TINY, rng, 1)])
    draws, nets = Stream(2, "reset"), []
    for _ in range(2):
        net = Net(config, TINY, torch.float32)
        net.init_(draws)
        nets.append(numbers(net))
    for ours, old, fresh in ((agent.master, before, nets[0]), (agent.target_master, target, nets[1])):
        for name, value in numbers(ours).items():
            kept = name.split(".")[0] in ("encoder", "transition")
            expected = 0.5 * old[name] + 0.5 * fresh[name] if kept else fresh[name]
            np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-8, err_msg=name)
    assert not np.allclose(nets[0]["head.weight"], nets[1]["head.weight"])
    for state in agent._adam.state.values():
        assert all(not value.any() for value in state.values())
        assert set(state) == {"step", "exp_avg", "exp_avg_sq"}
    assert agent._cycle == 0
    assert horizon_at(agent._cycle, config) == (4, config.gamma)
    assert all(
        torch.equal(a, b.to(agent._dtype))
        for a, b in zip(agent.online.parameters(), agent.master.parameters(), strict=True)
    )
    agent.update()
    assert agent._cycle == 1
    assert float(agent.update()["charts/resets"]) == 1


@pytest.mark.usefixtures("tiny_encoder")
def test_a_reset_of_the_last_layer_keeps_the_rest_and_the_copied_target_follows():
    config = dataclasses.replace(
        TINY_BBF,
        target_tau=0.0,
        target_period=1,
        act_with_target=False,
        reset=ResetConfig(every=8, until=100, fresh=("head",)),
    )
    agent: Any = Agent(config, TINY, 1, seed=2)
    agent.replay = OneBatch(tiny_batch(np.random.default_rng(0)))
    agent.observe([rollout(TINY, np.random.default_rng(1), 5)])
    agent.update()
    before = numbers(agent.online)
    agent.observe([rollout(TINY, np.random.default_rng(1), 1)])
    for name, value in numbers(agent.online).items():
        assert name.startswith("head.") != np.array_equal(value, before[name]), name
        np.testing.assert_array_equal(numbers(agent.target)[name], value)


def test_what_is_reset_must_be_there():
    config = dataclasses.replace(TINY_BBF, reset=ResetConfig(every=10, fresh=("haed",)))
    with pytest.raises(ValueError, match="no module haed; there are encoder"):
        Agent(config, PONG, 1, seed=0)


# -- state --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_encoder")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_state_round_trip_goes_on_bit_for_bit_across_resets(dtype):
    config = dataclasses.replace(
        TINY_BBF, dtype=dtype, reset=dataclasses.replace(TINY_BBF.reset, every=8, until=1_000), anneal=5
    )
    agent: Any = Agent(config, TINY, 1, seed=0)
    other: Any = Agent(config, TINY, 1, seed=99)

    def go_on(agent, seed, rounds):
        rng = np.random.default_rng(seed)
        for _ in range(rounds):
            agent.replay = OneBatch(tiny_batch(rng))
            agent.observe([rollout(TINY, rng, 1)])
            agent.update()
            agent.update()

    go_on(agent, 0, 7)
    state = agent.state_dict()
    go_on(agent, 1, 9)
    other.load_state_dict(state)
    go_on(other, 1, 9)
    first, second = agent.state_dict(), other.state_dict()
    assert first["resets"]["count"] == 3
    for key in ("online", "target"):
        assert all(torch.equal(value, second[key][name]) for name, value in first[key].items())
    for name, moments in first["adam"].items():
        assert all(torch.equal(value, second["adam"][name][key]) for key, value in moments.items())
    rest = ("noise", "augment", "reset_draws", "resets", "steps", "cycle", "next_copy")
    assert {key: first[key] for key in rest} == {key: second[key] for key in rest}


# -- the released code's departures -------------------------------------------------------------------------------------


def episode(rng, length, steps=40):
    """Games of `length` steps that end in a termination; the reward of step t is t."""
    frame = rng.integers(0, 256, (steps, 1, 5, 4)).astype(np.uint8)
    ended = np.zeros((steps, 1), bool)
    ended[length - 1 :: length] = True
    first = np.roll(ended, 1, 0)
    return Rollout(
        frame, first, rng.integers(0, 2, (steps, 1)), np.arange(steps, dtype=np.float32)[:, None], ended, np.zeros_like(ended),
        frame[ended], np.ascontiguousarray(np.argwhere(ended)), {}, empty_episodes(), 0, 0,
    )  # fmt: skip


def stacked(rollout, t, length):
    """[stack 2, 5, 4]: the older frame is 0 at the start of an episode."""
    older = rollout.frame[t - 1, 0] if t % length else np.zeros((5, 4), np.uint8)
    return np.stack([older, rollout.frame[t, 0]])


@pytest.mark.usefixtures("tiny_encoder")
def test_the_released_n_step_target_and_mask():
    """Q1 and Q4 of what is known of the released code: R_n + gamma^n V(s_{t+n-1}), terminal within n - 1 steps only; a mask one
    step too strict, and none in row 0."""
    length, n, gamma, k = 6, 3, 0.9, 2
    config = dataclasses.replace(TINY_BBF, release=Release(n_step=True, mask=True), batch=64, n=n, anneal=0, alpha=0.0)
    agent: Any = Agent(config, TINY, 1, seed=0)
    played = episode(np.random.default_rng(0), length)
    agent.replay.add(played)
    batch = spr_release.sample(agent.replay, config, n, gamma)
    ends = played.terminated[:, 0]
    seen = set()
    for row, t in enumerate(batch.index):
        m = min(n, length - t % length)  # steps until the episode ends, at most n
        assert batch.n_return[row] == pytest.approx(sum(gamma**j * (t + j) for j in range(m)), rel=1e-6)
        done = ends[t : t + n - 1].any()
        assert batch.discount[row] == pytest.approx(0.0 if done else gamma**n, rel=1e-6)
        if not done:
            np.testing.assert_array_equal(batch.next_obs[row], stacked(played, t + n - 1, length))
        for j in range(1, k + 1):
            strict = not ends[t : t + j + 1].any()
            assert batch.mask[row, j - 1] == (strict or row == 0), (row, t, j)
            if strict or (row == 0 and t + j < 40):
                np.testing.assert_array_equal(batch.obs[row, j], stacked(played, t + j, length))
        seen.add((int(t) % length, done))
    assert {phase for phase, _ in seen} == set(range(length))
    assert batch.obs.shape == (64, k + 1, 2, 5, 4)
    assert batch.action.shape == (64, k)


@pytest.mark.usefixtures("tiny_encoder")
def test_the_mask_of_row_0_is_absent_where_an_episode_ends():
    config = dataclasses.replace(TINY_BBF, release=Release(mask=True), batch=1, n=2, anneal=0, alpha=0.0)
    agent: Any = Agent(config, TINY, 1, seed=0)
    played = episode(np.random.default_rng(0), 3)
    agent.replay.add(played)
    crossed = 0
    for _ in range(60):
        batch = spr_release.sample(agent.replay, config, 2, 0.9)
        t = int(batch.index[0])
        for j in (1, 2):
            crosses = played.terminated[t : t + j, 0].any()
            reachable = t + j <= 40 - 3 or not crosses  # at the end of the replay it is not eligible yet
            if reachable:
                assert batch.mask[0, j - 1]
                np.testing.assert_array_equal(batch.obs[0, j], stacked(played, t + j, 3))
            crossed += crosses and reachable
    assert crossed > 20


@pytest.mark.usefixtures("tiny_encoder")
def test_the_released_priorities():
    agent: Any = Agent(dataclasses.replace(TINY_BBF, release=Release(priorities=True)), TINY, 1, seed=0)
    agent.replay = OneBatch(tiny_batch(np.random.default_rng(0)))
    metrics = agent.update()
    np.testing.assert_array_equal(agent.replay.index, [0])
    np.testing.assert_allclose(agent.replay.priority, [float(metrics["losses/td_loss"])], rtol=1e-6)


# -- configuration ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoder": "flatten"}, "without a convolutional encoder"),
        ({"gamma_final": 1.0}, "below 1"),
        ({"release": Release(n_step=True), "n_final": 1}, "release.n_step"),
        ({"release": Release(mask=True), "spr_steps": 0}, "release.mask"),
        ({"target_tau": -0.1}, r"in \[0, 1\]"),
        ({"weight_decay": float("inf")}, "finite"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(preset("bbf"), **wrong)


def test_frames_that_cannot_be_augmented_are_refused():
    with pytest.raises(ValueError, match="augment needs uint8 frames"):
        Agent(preset("drq_eps", encoder="flatten"), Spec((3,), "float32", 2, actions=3), 1, seed=0)
