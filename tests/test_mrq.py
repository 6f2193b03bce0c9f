"""MR.Q against its definition in float64: networks, losses, whole updates; its schedules, acting and state."""

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from going_on import assert_goes_on
from reference import c51
from reference import mrq as oracle
from reference.spr import adamw
from rlplatform.agents import load_preset, mrq, mrq_net
from rlplatform.agents.mrq import Agent, gumbel_noise, shifts
from rlplatform.agents.mrq_config import Config, Release
from rlplatform.agents.mrq_net import Net, PixelState, Scale
from rlplatform.config import merge
from rlplatform.learner import Learner
from rlplatform.replay import Batch
from rlplatform.streams import Stream
from rlplatform.types import Rollout, Spec, empty_episodes

REACH = Spec((3,), "float32", 2, actions=0, action_shape=(2,))
MAZE = dataclasses.replace(REACH, actions=3, action_shape=())
SPECS = pytest.mark.parametrize("spec", [REACH, MAZE], ids=["continuous", "discrete"])
TINY = Config(hidden=5, action_embedding=3, bins=5, batch=4, horizon=3, target_period=2, capacity=200, min_replay=10)
CHEETAH = Spec((17,), "float32", 1, actions=0, action_shape=(6,))


def numbers(net):
    return {name: p.detach().double().numpy().copy() for name, p in net.named_parameters()}


def network(config, spec, seed):
    net = Net(config, spec, torch.float32)
    net.init_(Stream(seed, "init"))
    for parameter in net.parameters():  # biases begin at 0, where a test would not see them
        parameter.data.add_(torch.from_numpy(Stream(seed + 1, "test").normal(*parameter.shape)), alpha=0.1)
    return net


def actions(spec, rng, *shape):
    if spec.actions:
        return rng.integers(0, spec.actions, shape)
    return rng.uniform(-1, 1, (*shape, *spec.action_shape)).astype(np.float32)


def vectors(spec, action):
    return np.eye(spec.actions)[action] if spec.actions else action.astype(np.float64)


def batches(spec, rng, k, size=4):
    """As the replay gives it: the second item terminates at its second step, the third is cut at its first, the last terminates at
    the last of the k steps."""
    h = max(k, 1)
    obs = rng.normal(size=(size, k + 1, 2, 3)).astype(np.float32)
    mask, terminated = np.ones((size, k), bool), np.zeros((size, h), bool)
    reward = (2.0 * rng.normal(size=(size, h))).astype(np.float32)
    for item, end, terminal in ((1, 1, True), (2, 0, False), (3, h - 1, True)):
        if end < h:
            mask[item, end:] = False
            terminated[item, end] = terminal
            reward[item, end + 1 :] = 0.0
            obs[item, end + 1 :] = 0.0
    return Batch(
        obs, actions(spec, rng, size, h), reward, terminated, mask, rng.normal(size=size).astype(np.float32),
        np.array([0.97, 0.0, 0.99, 0.97], np.float32), rng.normal(size=(size, 2, 3)).astype(np.float32), np.arange(size),
        np.ones(size),
    )  # fmt: skip


class OneBatch:
    """Stands in for the replay: one batch of subsequences, one of transitions; notes what was asked and which priorities come back."""

    can_sample = True

    def __init__(self, spec, seed, horizon, mean_abs_reward=0.5):
        rng = np.random.default_rng(seed)
        self.long, self.short = batches(spec, rng, horizon), batches(spec, rng, 0)
        self.mean_abs_reward, self.asked = mean_abs_reward, []

    def add(self, _rollout):
        pass

    def sample(self, *asked):
        self.asked.append(asked[:4])
        return self.long if asked[3] else self.short

    def update_priority(self, index, priority):
        self.index, self.priority = index, priority


def unroll_in_float64(spec, batch):
    terminated = batch.terminated.T.astype(np.float64)
    return {
        "obs0": batch.obs[:, 0].reshape(len(batch.index), -1).astype(np.float64),
        "action": np.moveaxis(vectors(spec, batch.action), 0, 1),
        "reward": batch.reward.T.astype(np.float64),
        "terminated": terminated,
        "ended": ~batch.mask.T,  # the step's own end, or one before it: the first one counts
    }


def later_states(target, batch):
    """The target encoder's states after each step, [H, B, Z]."""
    encoder = oracle.part(target, "encoder.state.")
    return np.array(
        [oracle.vector_state(encoder, o.reshape(len(o), -1)) for o in batch.obs.swapaxes(0, 1)[1:].astype(np.float64)]
    )


def encode(encoder, obs):
    return oracle.vector_state(oracle.part(encoder, "state."), obs)


def two_in_float64(batch):
    flat = {
        "obs": batch.obs[:, 0].reshape(len(batch.index), -1).astype(np.float64),
        "next_obs": batch.next_obs.reshape(len(batch.index), -1).astype(np.float64),
    }
    return flat | {name: getattr(batch, name).astype(np.float64) for name in ("n_return", "discount")}


# -- networks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "encoder", "total"),
    [
        (
            CHEETAH,
            1_751_874,
            3_857_226,
        ),  # 1.75 M and 3.86 M in the released code, Humanoid 4.05 M, both from pixels 4.16 M
        (Spec((376,), "float32", 1, 0, (17,)), 1_938_498, 4_049_493),
        (Spec((3, 84, 84), "uint8", 3, 0, (6,)), 2_051_042, 4_156_394),
        (Spec((84, 84), "uint8", 4, 18), 2_052_674, 4_164_182),
    ],
    ids=["HalfCheetah", "Humanoid", "DMC visual", "Atari"],
)
def test_parameter_counts_are_those_of_the_released_code(spec, encoder, total):
    net = Net(Config(), spec, torch.float32)
    count = {part: sum(p.numel() for p in getattr(net, part).parameters()) for part in mrq.PARTS}
    assert (count["encoder"], count["value"], sum(count.values())) == (encoder, 1_576_962, total)


@SPECS
def test_networks_by_definition(spec):
    net, rng = network(TINY, spec, 0), np.random.default_rng(0)
    ours = numbers(net)
    obs, action = rng.normal(size=(5, 2, 3)).astype(np.float32), actions(spec, rng, 5)
    zs = oracle.vector_state(oracle.part(ours, "encoder.state."), obs.reshape(5, 6).astype(np.float64))
    encoder = oracle.part(ours, "encoder.")
    zsa = oracle.pair(encoder, zs, vectors(spec, action))
    done, following, logits = oracle.model(encoder, zsa)
    with torch.no_grad():
        our_zs = net.encoder.state(torch.from_numpy(obs))
        taken = mrq_net.as_vectors(torch.from_numpy(action), spec)
        our_zsa = net.encoder.pair(our_zs, net.encoder.embed(taken))
        states, outcome = net.encoder.unroll(our_zs, taken[None])
        pairs = [
            (our_zs, zs), (our_zsa, zsa), (states[0], following), (outcome[0, :, 0], done), (outcome[0, :, 1:], logits),
            (net.policy(our_zs), oracle.preactivation(oracle.part(ours, "policy."), zs)),
            (net.value(our_zsa), oracle.value(oracle.part(ours, "value."), zsa)),
        ]  # fmt: skip
    for tensor, expected in pairs:
        # float32, through up to ten layers: 1.8e-6 absolute and 6e-7 relative measured for numbers above 1
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=5e-6, atol=5e-6)


@pytest.mark.parametrize(
    "spec", [Spec((45, 49), "uint8", 2, 3), Spec((3, 41, 31), "uint8", 2, 3)], ids=["gray", "colour"]
)
def test_the_pixel_encoder_by_definition(spec):
    net = PixelState(spec, 6)
    net.init_(Stream(0, "init"))
    for parameter in net.parameters():
        parameter.data.add_(torch.from_numpy(Stream(1, "test").normal(*parameter.shape)), alpha=0.1)
    obs = np.random.default_rng(0).integers(0, 256, (2, spec.stack, *spec.frame_shape), dtype=np.uint8)
    expected = oracle.pixel_state(numbers(net), obs.reshape(2, -1, *spec.frame_shape[-2:]).astype(np.float64))
    ours = net(torch.from_numpy(obs)).detach().numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)  # float32: 1.5e-6 measured


def test_small_byte_frames_go_through_the_linear_encoder():
    assert not mrq_net.is_image(Spec((10, 5), "uint8", 1, 3))
    assert not mrq_net.is_image(Spec((4, 10, 10), "uint8", 1, 3))
    assert mrq_net.is_image(Spec((31, 31), "uint8", 1, 3))
    with pytest.raises(ValueError, match="images must be"):
        mrq_net.is_image(Spec((84, 84, 3), "uint8", 3, 3))
    spec = Spec((2, 2), "uint8", 1, 3)
    net = network(TINY, spec, 0)
    obs = np.array([[[[0, 255], [51, 102]]]], np.uint8)
    expected = oracle.vector_state(oracle.part(numbers(net), "encoder.state."), np.array([[-0.5, 0.5, -0.3, -0.1]]))
    np.testing.assert_allclose(
        net.encoder.state(torch.from_numpy(obs)).detach().numpy(), expected, rtol=1e-5, atol=1e-5
    )


def test_initial_weights_are_uniform_within_the_bound_of_the_papers_layers():
    net = Net(Config(), CHEETAH, torch.float32)
    net.init_(Stream(0, "init"))
    fans = {
        "encoder.state.linear1": 17 + 512, "encoder.action": 6 + 256, "encoder.pair_state": 768 + 512,
        "encoder.pair_action": 768 + 512, "encoder.pair2": 1024, "encoder.dynamics": 512 + 578, "encoder.outcome": 512 + 578,
        "policy.linear3": 512 + 6, "value.first.linear4": 513,
    }  # fmt: skip
    named = dict(net.named_parameters())
    for name, fan in fans.items():
        bound, weight = math.sqrt(2) * math.sqrt(6 / fan), named[f"{name}.weight"].detach().double()
        n = weight.numel()
        assert 0.98 * bound < weight.abs().max() <= bound * (1 + 1e-6) or n < 1_000, name
        # the variance of a uniform distribution is bound^2 / 3, that of the mean square 4 bound^4 / 45 n
        assert abs(weight.square().mean() - bound**2 / 3) < 5 * bound**2 * math.sqrt(4 / 45 / n), name
    assert all((p == 0).all() for name, p in named.items() if name.endswith("bias"))


# -- losses -------------------------------------------------------------------------------------------------------------


def cross_entropy(logits, x, count):
    edges = mrq_net.symexp_bins(count)
    return mrq_net.two_hot_cross_entropy(torch.from_numpy(logits), torch.from_numpy(x), edges).numpy()


def test_two_hot_cross_entropy_by_definition():
    rng = np.random.default_rng(0)
    edges = oracle.bins(65)
    np.testing.assert_allclose(mrq_net.symexp_bins(65).numpy(), edges, rtol=1e-7, atol=1e-12)
    spread = np.sign(rng.normal(size=300)) * np.expm1(rng.uniform(0, 10, 300))
    special = [0.0, 1.0, -1.0, edges[0], edges[-1], edges[40], -1e9, 1e9, 30_000.0]
    x = np.concatenate([spread, special]).astype(np.float32)
    logits = rng.normal(size=(len(x), 65)).astype(np.float32) * 3
    hot = np.array([oracle.two_hot(float(v), edges) for v in x])
    expected = -(hot * np.log(oracle.softmax(logits.astype(np.float64)))).sum(1)
    # Bins and x are rounded to 1e-7 of their size, and bins lie at least a quarter of it apart: 2.1e-6 measured.
    np.testing.assert_allclose(cross_entropy(logits, x, 65), expected, rtol=1e-5, atol=1e-5)
    inside = np.abs(x) < 22_025
    np.testing.assert_allclose((hot @ edges)[inside], x[inside], rtol=1e-9, atol=1e-9)  # its mean is the reward


@SPECS
@pytest.mark.parametrize("terminates", [True, False])
def test_the_encoders_loss_by_definition(spec, terminates):
    online, target, batch = network(TINY, spec, 0), network(TINY, spec, 5), batches(spec, np.random.default_rng(1), 3)
    agent = Agent(TINY, spec, 1, seed=0)
    config = dataclasses.replace(TINY, dynamics_weight=0.7, reward_weight=0.3, done_weight=0.2)
    ours = mrq_net.encoder_loss(
        online.encoder, target.encoder, agent.unroll(batch), mrq_net.symexp_bins(5), config, terminates=terminates
    )
    expected = oracle.encoder_loss(
        oracle.part(numbers(online), "encoder."), later_states(numbers(target), batch), unroll_in_float64(spec, batch), encode,
        oracle.bins(5), (0.7, 0.3, 0.2), terminates,
    )  # fmt: skip
    np.testing.assert_allclose(
        [x.item() for x in ours], expected, rtol=1e-6, atol=1e-6
    )  # float32: 7e-8 of their size measured
    assert (expected[3] > 0) == terminates


@pytest.mark.parametrize("what", ["obs", "reward", "action"])
def test_what_follows_an_end_has_no_influence_on_the_encoders_loss(what):
    online, target, rng = network(TINY, REACH, 0), network(TINY, REACH, 5), np.random.default_rng(1)
    agent, batch = Agent(TINY, REACH, 1, seed=0), batches(REACH, rng, 3)

    def loss(batch):
        x = agent.unroll(batch)
        return mrq_net.encoder_loss(online.encoder, target.encoder, x, agent.bins, TINY, terminates=True).total.item()

    before, changed = loss(batch), copy.deepcopy(batch)
    getattr(changed, what)[2, 1:] = 7.0  # the third item was cut at its first step
    assert loss(changed) == before
    felt = copy.deepcopy(batch)
    getattr(felt, what)[0, 1:] = 7.0
    assert loss(felt) != before


def transitions_of(spec, batch):
    return Agent(TINY, spec, 1, seed=0).transitions(batch)


def noise_of(stream, spec):
    """What an update draws from the stream, in its order: the target's noise, then twice Gumbel's."""
    width, much = spec.actions or 2, 0.5 if spec.actions else 1.0
    cut = np.clip(stream.normal(4, width).astype(np.float64) * 0.2 * much, -0.3 * much, 0.3 * much)
    if not spec.actions:
        return cut, np.zeros(()), np.zeros(())
    first, second = (-np.log(-np.log1p(-stream.uniform(4, width))) for _ in range(2))
    return cut, first, second


@SPECS
def test_the_values_target_by_definition(spec):
    target, batch = network(TINY, spec, 3), batches(spec, np.random.default_rng(2), 0)
    agent: Any = Agent(TINY, spec, 1, seed=4)
    noise = agent._draw_noise()
    cut, gumbel, _ = noise_of(Stream(4, "noise"), spec)
    scale = Scale(torch.tensor(0.25), torch.tensor(2.0))
    ours = mrq_net.value_target(target, transitions_of(spec, batch), noise, scale)
    both = numbers(target)
    expected = oracle.value_target(
        both, two_in_float64(batch), cut, gumbel, 10.0, bool(spec.actions), 0.25, 2.0, encode
    )
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-6, atol=1e-6)  # float32: 1.4e-7 of their size measured
    assert ours[1].item() == batch.n_return[1] / 0.25  # terminated: nothing is bootstrapped


def test_with_scales_of_one_the_target_is_td3s():
    """Fujimoto et al. 2018, Algorithm 1, on embeddings: r + discount * min Q'(a' + clipped noise)."""
    target, batch = network(TINY, REACH, 3), batches(REACH, np.random.default_rng(2), 0)
    agent: Any = Agent(dataclasses.replace(TINY, noise_clip=0.1), REACH, 1, seed=4)
    noise, x, one = agent._draw_noise(), transitions_of(REACH, batch), torch.ones(())
    assert noise.target.abs().max() == pytest.approx(0.1)  # cut somewhere
    y = mrq_net.value_target(target, x, noise, Scale(one, one))
    with torch.no_grad():
        zs = target.encoder.state(x.obs[4:])
        action = (torch.tanh(target.policy(zs)) + noise.target).clamp(-1, 1)
        q1, q2 = target.value(target.encoder.pair(zs, target.encoder.embed(action)))
        expected = torch.from_numpy(batch.n_return) + torch.from_numpy(batch.discount) * torch.minimum(q1, q2)
    assert torch.equal(y, expected)


@SPECS
def test_the_policys_loss_by_definition(spec, monkeypatch):
    """With a weight of what comes before tanh that can be seen: 1e-5 is far below the rest."""
    assert mrq_net.PREACTIVATION_WEIGHT == 1e-5
    monkeypatch.setattr(mrq_net, "PREACTIVATION_WEIGHT", 0.5)
    net, rng = network(TINY, spec, 3), np.random.default_rng(0)
    zs, (_, gumbel, _) = rng.normal(size=(4, 5)), noise_of(Stream(0, "noise"), spec)
    given = (torch.from_numpy(np.asarray(x, np.float32)) for x in (zs, gumbel))
    ours = mrq_net.policy_loss(net.policy, net.encoder, net.value, *given).item()
    parts = (oracle.part(numbers(net), prefix) for prefix in ("policy.", "encoder.", "value."))
    expected = oracle.policy_loss(*parts, zs, gumbel, 10.0, bool(spec.actions), 0.5)
    assert ours == pytest.approx(expected, rel=1e-5)


# -- whole updates ------------------------------------------------------------------------------------------------------


def moments_of(net):
    return {name: (np.zeros_like(p), np.zeros_like(p)) for name, p in net.items()}


def step_by_hand(net, loss, moments, t, rate, largest=None):
    """Gradient by central differences, the norm's cut, AdamW: `net` changes in place."""
    grad = c51.gradient(loss, net)
    if largest is not None:
        grad = oracle.clipped(grad, largest)
    for name in net:
        net[name], *moments[name] = adamw(net[name], grad[name], *moments[name], t, rate, 1e-3, 0.1)


@SPECS
def test_three_updates_are_those_written_out_by_hand(spec):
    """Copies, scales, two bursts of the encoder, value, policy, priorities: all losses, gradients and AdamW steps in float64."""
    config = dataclasses.replace(
        TINY, encoder_learning_rate=0.01, learning_rate=0.02, weight_decay=0.1, grad_clip=0.05, tau=1.0
    )
    agent: Any = Agent(config, spec, 1, seed=3)
    agent.online.load_state_dict(network(config, spec, 11).state_dict())
    for twin in agent.online.value.children():
        twin.linear4.weight.data.mul_(0.1)
    for optimizer in agent._optimizers.values():
        optimizer.param_groups[0]["eps"] = 1e-3  # keeps float32's rounding of tiny gradients from growing
    agent.replay = replay = OneBatch(spec, 5, config.horizon)
    agent._terminates = True
    own = numbers(agent.online)
    parts = {part: oracle.part(own, f"{part}.") for part in mrq.PARTS}
    moments = {part: moments_of(net) for part, net in parts.items()}
    long, short, discrete = unroll_in_float64(spec, replay.long), two_in_float64(replay.short), bool(spec.actions)
    taken = vectors(spec, replay.short.action[:, 0])
    encoder_steps = 0
    stream = Stream(3, "noise")
    for t in (1, 2, 3):
        replay.mean_abs_reward = (1.0, 9.0, 1.5)[t - 1]  # looked at where t is odd
        metrics = agent.update()
        if t in (1, 3):
            target = {f"{part}.{name}": p.copy() for part, net in parts.items() for name, p in net.items()}
            scales = {1: (1.0, 1.0), 3: (1.5, 1.0)}[t]
            later = later_states(target, replay.long)
            for _ in range(2):
                encoder_steps += 1

                def of_encoder(net):
                    return oracle.encoder_loss(net, later, long, encode, oracle.bins(5), (1.0, 0.1, 0.1))[0]  # noqa: B023

                dynamics = oracle.encoder_loss(parts["encoder"], later, long, encode, oracle.bins(5), (1.0, 0.1, 0.1))[
                    1
                ]
                step_by_hand(parts["encoder"], of_encoder, moments["encoder"], encoder_steps, 0.01)
        cut, first, second = noise_of(stream, spec)
        y = oracle.value_target(target, short, cut, first, 1.0, discrete, *scales, encode)
        zs = encode(parts["encoder"], short["obs"])
        zsa = oracle.pair(parts["encoder"], zs, taken)
        _, td = oracle.value_loss(parts["value"], zsa, y)

        def of_value(net):
            return oracle.value_loss(net, zsa, y)[0]  # noqa: B023

        def of_policy(net):
            return oracle.policy_loss(net, parts["encoder"], parts["value"], zs, second, 1.0, discrete)  # noqa: B023

        step_by_hand(parts["value"], of_value, moments["value"], t, 0.02, largest=0.05)
        step_by_hand(parts["policy"], of_policy, moments["policy"], t, 0.02)
        np.testing.assert_allclose(replay.priority, np.maximum(td, 1.0), rtol=5e-6)  # float32: 3.2e-7 measured
        assert td.min() < 1 < td.max()  # where LAP's floor is seen
        assert float(metrics["losses/dynamics_loss"]) == pytest.approx(dynamics, rel=1e-4)
    assert stream.counter == agent._noise.counter
    assert replay.asked == [(4, 1, 0.0, 3)] * 2 + [(4, 3, 0.99, 0)] * 2 + [(4, 1, 0.0, 3)] * 2 + [(4, 3, 0.99, 0)]
    for part, net in parts.items():
        for name, value in numbers(getattr(agent.online, part)).items():
            # Four steps of 0.01 and three of 0.02: float32 adds 1.0e-6 to them, measured.
            np.testing.assert_allclose(value, net[name], rtol=0, atol=1e-5, err_msg=f"{part}.{name}")


def test_the_released_code_stores_the_first_discrete_actions_as_numbers():
    """Of those before min_replay, counted over both environments, also within a subsequence that reaches beyond; others are one-hot."""
    spec = dataclasses.replace(REACH, actions=3, action_shape=())
    batch = batches(spec, np.random.default_rng(0), 3)
    batch = batch._replace(index=np.array([5, 8, 9, 40]))
    plain = np.eye(3, dtype=np.float32)[batch.action.T]
    for release in (Release(), Release(first_actions=True)):
        agent = Agent(dataclasses.replace(TINY, min_replay=10, release=release), spec, 2, seed=0)
        random = np.array([[True, True, True, False], [True, False, False, False], [True, False, False, False]])
        numbers = np.repeat(batch.action.T[..., None], 3, -1)
        expected = np.where(random[..., None] & release.first_actions, numbers, plain)
        np.testing.assert_array_equal(agent.unroll(batch).action, expected)
        np.testing.assert_array_equal(agent.transitions(batch).action, expected[0])


def test_the_released_return_leaves_out_the_reward_of_a_step_that_terminates():
    batch = batches(REACH, np.random.default_rng(0), 3)
    released = dataclasses.replace(TINY, release=Release(terminal_reward=True))
    ours = Agent(released, REACH, 1, seed=0).transitions(batch).n_return
    r, g = batch.reward.astype(np.float64), 0.99
    expected = [
        r[0, 0] + g * r[0, 1] + g**2 * r[0, 2],
        r[1, 0],  # terminated with its second step
        r[2, 0],  # cut after its first, which is no termination
        r[3, 0] + g * r[3, 1],
    ]
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-6)


# -- schedules ----------------------------------------------------------------------------------------------------------


def rollout(spec, rng, steps=1, terminated=False):
    no = np.zeros((steps, 1), bool)
    ends = no.copy()
    ends[-1] = terminated
    return Rollout(
        rng.integers(0, 256, (steps, 1, *spec.frame_shape)).astype(spec.frame_dtype), no,
        actions(spec, rng, steps, 1), np.ones((steps, 1), np.float32), ends, no,
        np.zeros((0, *spec.frame_shape), spec.frame_dtype), np.zeros((0, 2), np.int64), {}, empty_episodes(), 0, 0,
    )  # fmt: skip


def observed(config, steps):
    agent = Agent(config, REACH, 1, seed=0)
    agent.observe([rollout(REACH, np.random.default_rng(0), steps)])
    return agent


@pytest.mark.parametrize("ratio", [1.0, 0.5, 2.0])
def test_the_encoder_keeps_pace_with_the_updates_in_bursts(ratio):
    """What the learner counts: updates = floor(steps * ratio); the encoder's are as many, rounded up to a whole period."""
    config = dataclasses.replace(TINY, target_period=5)
    agent: Any = observed(config, 20)
    events: list[str] = []
    agent.encoder_update = lambda: events.append("encoder")
    agent._copy_to_target = lambda: events.append("copy")
    agent._step = lambda part, _loss: events.append(part)
    learner = Learner(agent, ratio)
    for step in range(1, 25):
        learner.learn([rollout(REACH, np.random.default_rng(step))])
        updates = int(step * ratio)
        assert events.count("value") == events.count("policy") == learner.updates == updates
        assert events.count("encoder") == -(-updates // 5) * 5
    period = ["copy"] + ["encoder"] * 5 + ["value", "policy"] * 5
    assert events == (period * 20)[: len(events)]


def test_targets_and_embeddings_stand_still_within_a_period():
    config = dataclasses.replace(TINY, target_period=3)
    agent: Any = observed(config, 20)
    seen, before = [], copy.deepcopy(agent.state_dict()["online"])
    for _ in range(7):
        agent.update()
        seen.append(copy.deepcopy(agent.state_dict()))
    for first in (0, 3):  # updates 1 to 3 and 4 to 6
        for later in (first + 1, first + 2):
            assert all(torch.equal(seen[first]["target"][n], t) for n, t in seen[later]["target"].items())
            encoder = [n for n in seen[first]["online"] if n.startswith("encoder.")]
            assert all(torch.equal(seen[first]["online"][n], seen[later]["online"][n]) for n in encoder)
            assert any(not torch.equal(seen[first]["online"][n], t) for n, t in seen[later]["online"].items())
    for at, source in ((0, before), (3, seen[2]["online"]), (6, seen[5]["online"])):  # copies of all before the burst
        assert all(torch.equal(source[n], t) for n, t in seen[at]["target"].items())
    assert any(
        not torch.equal(seen[3]["online"][n], t) for n, t in seen[2]["online"].items() if n.startswith("encoder.")
    )


@pytest.mark.parametrize(
    ("released", "expected"),
    [
        # mean |reward| at the four copies: 0.5, 2, 0, 1e-12
        (False, [(0.5, 0.5), (2.0, 0.5), (1e-3, 2.0), (1e-3, 1e-3)]),
        (True, [(0.5, 1.0), (2.0, 0.5), (1e-8, 2.0), (1e-8, 1e-8)]),
    ],
)
def test_rewards_are_measured_at_every_copy(released, expected):
    agent: Any = Agent(
        dataclasses.replace(TINY, target_period=1, release=Release(reward_scale=released)), REACH, 1, seed=0
    )
    agent.replay, scales = OneBatch(REACH, 0, 3), []
    for mean in (0.5, 2.0, 0.0, 1e-12):
        agent.replay.mean_abs_reward = mean
        agent.update()
        scales.append((float(agent.scale.online), float(agent.scale.target)))
    np.testing.assert_allclose(scales, expected, rtol=1e-6)


def test_without_rewards_values_stay_where_the_released_scale_drives_them_away():
    """G1: with all rewards 0, the first targets are bootstrapped at 1 / 1e-8 of their size."""
    largest = []
    for released in (False, True):
        config = dataclasses.replace(TINY, batch=8, target_period=10, release=Release(reward_scale=released))
        agent = Agent(config, REACH, 1, seed=0)
        given = rollout(REACH, np.random.default_rng(0), 40)
        agent.observe([given._replace(reward=np.zeros_like(given.reward))])
        for _ in range(10):
            agent.update()
        largest.append(agent.replay.max_priority)
    assert largest[0] < 2.0
    assert largest[1] > 500.0


def test_learning_about_ends_begins_with_the_first():
    agent: Any = observed(TINY, 20)
    agent.update()
    assert float(agent.update()["losses/done_loss"]) == 0.0
    agent.observe([rollout(REACH, np.random.default_rng(1), 1, terminated=True)])
    assert float(agent.update()["losses/done_loss"]) > 0.0


def test_learning_starts_with_the_step_after_the_random_ones():
    agent, rng = Agent(TINY, REACH, 1, seed=0), np.random.default_rng(0)
    seen = []
    for _ in range(12):
        seen.append((agent.weights()["epsilon"], agent.ready))
        agent.observe([rollout(REACH, rng)])
    assert seen == [(1.0, False)] * 10 + [
        (0.0, False),
        (0.0, True),
    ]  # action 11 is the policy's, the first update follows it


def test_priorities_are_laps():
    """Fujimoto et al. 2020 (arXiv:2007.06049): max(|TD error|, 1)^0.4; new steps enter at the largest that ever was."""
    config = dataclasses.replace(TINY, capacity=30, min_replay=5)
    agent = observed(config, 20)
    items = agent.replay.eligible()
    errors = np.linspace(0.1, 40.0, len(items))
    agent.replay.update_priority(items, np.maximum(errors, 1.0))
    priorities = agent.replay.gather(items, 1, 0.0, 0).priority
    np.testing.assert_allclose(priorities, np.maximum(errors, 1.0) ** 0.4, rtol=1e-12)
    rng, start = np.random.default_rng(1), agent.replay.eligible().max()
    agent.observe([rollout(REACH, rng, 20)])
    new = agent.replay.eligible()
    new = new[new > start + 5]
    assert (agent.replay.gather(new, 1, 0.0, 0).priority == 40.0**0.4).all()


# -- acting -------------------------------------------------------------------------------------------------------------


def acting(spec, *, evaluation, config=TINY, epsilon=0.0):
    agent = Agent(config, spec, 1, seed=1)
    agent.online.load_state_dict(network(config, spec, 2).state_dict())
    policy = agent.eval_policy() if evaluation else agent.policy()
    policy.load({**agent.weights(), "epsilon": epsilon})
    return agent, policy


def preactivations(agent, obs):
    net = numbers(agent.online)
    zs = oracle.vector_state(oracle.part(net, "encoder.state."), obs.reshape(len(obs), -1).astype(np.float64))
    return oracle.preactivation(oracle.part(net, "policy."), zs)


def test_continuous_evaluation_is_the_policy_itself():
    agent, policy = acting(REACH, evaluation=True, epsilon=1.0)  # the training epsilon does not reach it
    obs = np.random.default_rng(0).normal(size=(20, 2, 3)).astype(np.float32)
    action, _ = policy.act(obs, Stream(0, "actor"))
    assert action.dtype == np.float32
    np.testing.assert_allclose(action, np.tanh(preactivations(agent, obs)), rtol=2e-5, atol=2e-5)


def test_continuous_exploration_is_normal_and_cut():
    config = dataclasses.replace(TINY, noise=0.4)
    agent, policy = acting(REACH, evaluation=False, config=config)
    n = 20_000
    obs = np.repeat(np.random.default_rng(0).normal(size=(1, 2, 3)).astype(np.float32), n, 0)
    action, _ = policy.act(obs, Stream(0, "actor"))
    mean = np.tanh(preactivations(agent, obs[:1]))[0]
    assert np.abs(action).max() <= 1.0
    for a in range(2):
        upper = 0.5 * (1 + math.erf((1.0 - mean[a]) / 0.4 / math.sqrt(2)))  # the share below the upper cut
        assert abs((action[:, a] < 1.0).sum() - n * upper) < 5 * math.sqrt(n * upper * (1 - upper))
        assert abs((action[:, a] > mean[a]).sum() - n / 2) < 5 * math.sqrt(n / 4)


def test_discrete_evaluation_draws_from_the_softmax():
    agent, policy = acting(MAZE, evaluation=True)
    n = 20_000
    obs = np.repeat(np.random.default_rng(0).normal(size=(1, 2, 3)).astype(np.float32), n, 0)
    action, _ = policy.act(obs, Stream(0, "actor"))
    assert action.dtype == np.int64
    p = oracle.softmax(preactivations(agent, obs[:1]))[0]
    counts = np.bincount(action, minlength=3)
    np.testing.assert_array_less(np.abs(counts - n * p), 5 * np.sqrt(n * p * (1 - p)))


def test_discrete_exploration_adds_half_the_noise_to_the_soft_choice():
    """A gap of 3 at temperature 10 with noise 0.1: the better of 6 actions is chosen in 0.30 of the cases."""
    spec = dataclasses.replace(MAZE, actions=6)
    agent = Agent(dataclasses.replace(TINY, min_replay=0), spec, 1, seed=0)
    for parameter in agent.online.policy.parameters():
        parameter.data.zero_()
    agent.online.policy.linear3.bias.data[2] = 3.0
    policy, n = agent.policy(), 40_000
    policy.load(agent.weights())
    action, _ = policy.act(np.zeros((n, 2, 3), np.float32), Stream(0, "actor"))
    rng = np.random.default_rng(1)
    logits = np.where(np.arange(6) == 2, 3.0, 0.0)
    soft = oracle.softmax((logits + rng.gumbel(size=(n, 6))) / 10.0)
    p = ((soft + 0.1 * rng.normal(size=(n, 6))).argmax(1) == 2).mean()
    assert p == pytest.approx(0.30, abs=0.01)
    assert abs((action == 2).sum() - n * p) < 5 * math.sqrt(2 * n * p * (1 - p))  # of two samples


@SPECS
def test_random_actions_are_uniform(spec):
    _, policy = acting(spec, evaluation=False, epsilon=1.0)
    policy._actor = None  # calling it would raise
    n = 9_000
    action, _ = policy.act(np.zeros((n, 2, 3), np.float32), Stream(0, "actor"))
    if spec.actions:
        counts = np.bincount(action, minlength=3)
        np.testing.assert_array_less(np.abs(counts - n / 3), 5 * math.sqrt(n * 2 / 9))
    else:
        assert action.shape == (n, 2)
        assert action.dtype == np.float32
        np.testing.assert_array_less(np.abs(action.mean(0)), 5 / math.sqrt(3 * n))
        np.testing.assert_array_less(np.abs((action**2).mean(0) - 1 / 3), 5 * math.sqrt(4 / 45 / n))


def test_epsilon_is_the_share_of_random_actions():
    config, n = dataclasses.replace(TINY, epsilon_eval=0.3), 6_000
    obs = np.ones((n, 2, 3), np.float32)
    _, policy = acting(REACH, evaluation=True, config=config)
    always, _ = acting(REACH, evaluation=True)[1].act(obs, Stream(0, "actor"))
    action, _ = policy.act(obs, Stream(0, "actor"))
    random = (action != always).any(1)
    assert abs(random.sum() - 0.3 * n) < 5 * math.sqrt(n * 0.3 * 0.7)
    np.testing.assert_array_less(np.abs(action[random].mean(0)), 5 / math.sqrt(3 * random.sum()))


def test_a_policy_sees_later_updates_without_loading_again():
    agent, policy = acting(REACH, evaluation=True)
    obs = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    before, _ = policy.act(obs, Stream(0, "actor"))
    agent.replay = OneBatch(REACH, 0, 3)
    agent.update()
    after, _ = policy.act(obs, Stream(0, "actor"))
    assert (before != after).all()


def test_gumbel_noise():
    n = 100_000
    x = gumbel_noise(Stream(0, "noise"), n).double().numpy()
    assert abs(x.mean() - 0.5772156649) < 5 * math.pi / math.sqrt(6 * n)
    assert abs((x < 0).sum() - n / math.e) < 5 * math.sqrt(n / math.e * (1 - 1 / math.e))
    zero: Any = type("Zero", (), {"uniform": lambda _self, *shape: np.zeros(shape)})()
    assert gumbel_noise(zero, 1).item() == pytest.approx(54 * math.log(2))  # not infinite


def test_images_are_shifted_by_up_to_four_pixels_either_way():
    n = 9_000
    draw = shifts(Stream(0, "augment"), n)
    assert (draw.intensity == 1.0).all()
    for axis in range(2):
        values, counts = np.unique(draw.shift[:, axis], return_counts=True)
        np.testing.assert_array_equal(values, np.arange(-4, 5))
        np.testing.assert_array_less(np.abs(counts - n / 9), 5 * math.sqrt(n * 8 / 81))
    assert (draw.shift[:, 0] != draw.shift[:, 1]).mean() > 0.8


@pytest.mark.parametrize(
    "spec", [Spec((33, 35), "uint8", 2, 3), Spec((3, 33, 35), "uint8", 2, 0, (2,))], ids=["gray", "colour"]
)
def test_updates_from_pixels(spec):
    """Each stack is shifted by a draw of its own, and its frames and channels by the same."""
    config = dataclasses.replace(TINY, min_replay=5)
    agent, rng = Agent(config, spec, 1, seed=0), np.random.default_rng(0)
    agent.observe([rollout(spec, rng, 20)])
    batch = agent.replay.sample(4, 1, 0.0, 3)
    draw = shifts(Stream(0, "augment"), 16)
    x = agent.unroll(batch)
    assert x.obs.shape == (16, 2 * (3 if len(spec.frame_shape) == 3 else 1), 33, 35)
    for j in range(4):
        for b in range(4):
            image = batch.obs[b, j].reshape(-1, 33, 35)
            down, right = draw.shift[4 * j + b]
            rows, columns = np.clip(np.arange(33) + down, 0, 32), np.clip(np.arange(35) + right, 0, 34)
            np.testing.assert_array_equal(x.obs[4 * j + b].numpy(), image[:, rows][:, :, columns])
    assert all(math.isfinite(float(value)) for value in agent.update().values())
    policy = agent.policy()
    policy.load(agent.weights())
    action, _ = policy.act(batch.obs[:, 0], Stream(0, "actor"))
    assert action.shape == (4, *spec.action_shape)


# -- state --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("task", ["control/CartPole", "control/Pendulum"])
def test_a_saved_agent_goes_on_bit_for_bit(tmp_path, task, dtype):
    """Saved in the middle of a period."""
    config = dataclasses.replace(TINY, dtype=dtype, target_period=7)
    counters = ("noise", "augment", "steps", "updates", "encoder_updates", "terminates", "scale")
    assert_goes_on(tmp_path, Agent, config, task, 1.0, counters)


def test_a_loss_that_is_not_finite_stops_the_run():
    agent: Any = Agent(TINY, REACH, 1, seed=0)
    agent.replay = OneBatch(REACH, 0, 3)
    agent.replay.long.obs[0] = np.nan
    before = numbers(agent.online)
    with pytest.raises(FloatingPointError, match="the encoder's loss is nan after 0 agent steps"):
        agent.update()
    for name, value in numbers(agent.online).items():
        np.testing.assert_array_equal(value, before[name])


# -- bfloat16 -----------------------------------------------------------------------------------------------------------


def test_bfloat16_gives_the_losses_and_the_gradients_of_float32():
    """At full size from a random state. evaluation/bench/mrq_bf16.py asks the same of the states of a real run."""
    config = dataclasses.replace(Config(), batch=64, target_period=1)
    losses, grad = {}, {}
    for dtype in ("float32", "bfloat16"):
        agent: Any = Agent(dataclasses.replace(config, dtype=dtype), REACH, 1, seed=0)
        agent.replay = OneBatch(REACH, 0, 5)
        agent.replay.long, agent.replay.short = (batches(REACH, np.random.default_rng(1), k, 64) for k in (5, 0))
        agent.replay.short = agent.replay.short._replace(discount=np.full(64, 0.97, np.float32))
        metrics = agent.update()
        losses[dtype] = {name: float(v) for name, v in metrics.items() if name.startswith("losses/")}
        parts = {part: [p.grad.flatten() for p in getattr(agent.master, part).parameters()] for part in mrq.PARTS}
        grad[dtype] = {part: torch.cat(tensors).double() for part, tensors in parts.items()}
    for name in ("losses/value_loss", "losses/dynamics_loss", "losses/reward_loss"):
        assert losses["bfloat16"][name] == pytest.approx(losses["float32"][name], rel=0.02), name
    for part in mrq.PARTS:
        assert torch.cosine_similarity(grad["float32"][part], grad["bfloat16"][part], dim=0) > 0.99, part


# -- configuration ------------------------------------------------------------------------------------------------------


def test_presets():
    plain, faithful = (merge(Config(), load_preset(name, "dmc28").config) for name in ("mrq", "mrq_faithful"))
    assert plain == Config()
    assert faithful == dataclasses.replace(Config(), release=Release(True, True, first_actions=True))
    atari = merge(Config(), load_preset("mrq_faithful", "atari57-mrq").config)
    assert (atari.epsilon, atari.epsilon_eval) == (0.001, 0.001)  # G4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dtype": "half"}, "float32, bfloat16"),
        ({"bins": 64}, "odd"),
        ({"capacity": 10_000}, "never start"),
        ({"horizon": 0}, "horizon must be >= 1"),
        ({"gamma": 1.5}, "in \\[0, 1\\]"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Config(**wrong)


def test_actions_that_are_no_vectors_are_refused():
    with pytest.raises(ValueError, match="discrete actions or vectors"):
        Agent(TINY, dataclasses.replace(REACH, action_shape=(2, 2)), 1, seed=0)
