"""DER against its definition in float64, its schedules, its state."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from reference import c51
from rlplatform.agents import load_preset, presets, resolve
from rlplatform.agents.spr import Agent
from rlplatform.agents.spr_config import Config, epsilon_at
from rlplatform.agents.spr_net import Net, categorical_projection, double_dqn_target, importance_weights, q_values
from rlplatform.config import merge
from rlplatform.envs import suite_of
from rlplatform.replay import Batch
from rlplatform.runconfig import resolve_config
from rlplatform.streams import Stream
from rlplatform.types import Rollout, Spec, empty_episodes

PONG = Spec((84, 84), "uint8", 4, actions=6)
TINY = Spec((3,), "float32", 2, actions=3)
SMALL = Config(encoder="flatten", hidden=4, atoms=5, v_max=2.0, sigma0=0.5, batch=4, capacity=100, min_replay=10, n=3)


def rollout(spec, rng, steps=1, envs=1, reward=None):
    """Experience without ends, as an actor would hand it over."""
    frame = rng.integers(0, 256, (steps, envs, *spec.frame_shape)).astype(spec.frame_dtype)
    reward = (
        rng.normal(size=(steps, envs)).astype(np.float32)
        if reward is None
        else np.full((steps, envs), reward, np.float32)
    )
    no = np.zeros((steps, envs), bool)
    return Rollout(
        frame, no, rng.integers(0, spec.actions, (steps, envs)), reward, no, no,
        np.zeros((0, *spec.frame_shape), spec.frame_dtype), np.zeros((0, 2), np.int64), {}, empty_episodes(), 0, 0,
    )  # fmt: skip


def tiny_batch(rng, size=4):
    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    none = np.zeros((size, 0), bool)
    discount = np.array([0.97, 0.0, 0.97, 0.95], np.float32)
    return Batch(
        draw(size, 1, 2, 3), rng.integers(0, 3, (size, 1)), draw(size, 1), np.zeros((size, 1), bool), none, draw(size),
        discount, draw(size, 2, 3), np.arange(size), rng.random(size) + 0.1,
    )  # fmt: skip


class OneBatch:
    """Stands in for the replay where a test decides what is drawn; keeps the priorities that come back."""

    def __init__(self, batch):
        self.batch = batch

    def sample(self, *_args, **_kwargs):
        return self.batch

    def update_priority(self, index, priority):
        self.index, self.priority = index, priority


def as_float64(batch):
    """What the oracle takes, without the axis of the subsequence; frames flattened."""
    size = len(batch.index)
    return {
        "obs": batch.obs[:, 0].reshape(size, -1).astype(np.float64),
        "next_obs": batch.next_obs.reshape(size, -1).astype(np.float64),
        "action": batch.action[:, 0],
        "n_return": batch.n_return.astype(np.float64),
        "discount": batch.discount.astype(np.float64),
    }


def parameters(net):
    return {name: p.detach().double().numpy().copy() for name, p in net.named_parameters()}


def two_noises(stream, inputs=6, hidden=4, outputs=20):
    """The normals of one update in the order in which they are drawn: this state's layers, then the next state's."""
    draws = [stream.normal(n).astype(np.float64) for n in (inputs + hidden, hidden + outputs) * 2]
    split = [(d[:k], d[k:]) for d, k in zip(draws, (inputs, hidden) * 2, strict=True)]
    return split[:2], split[2:]


# -- the network --------------------------------------------------------------------------------------------------------


def test_parameter_counts_are_those_of_the_published_agent():
    net = Net(Config(), dataclasses.replace(PONG, actions=18), torch.float32)
    count = {
        part: sum(p.numel() for p in getattr(net, part).parameters()) for part in ("encoder", "projection", "head")
    }
    assert count == {"encoder": 77_984, "projection": 7_930_880, "head": 994_194}


def test_logits_by_definition():
    net = Net(SMALL, TINY, torch.float32)
    net.init_(Stream(0, "init"))
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    ours = net(torch.from_numpy(x), net.noise(Stream(0, "noise"))).detach().numpy()
    normals, _ = two_noises(Stream(0, "noise"))
    expected = c51.logits(parameters(net), x.reshape(5, 6).astype(np.float64), normals, 5)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)  # float32: 2.5e-7 measured
    q = q_values(torch.from_numpy(ours), torch.linspace(-2, 2, 5)).numpy()
    np.testing.assert_allclose(q, c51.softmax(expected) @ np.linspace(-2, 2, 5), rtol=1e-5, atol=1e-5)


# -- the loss -----------------------------------------------------------------------------------------------------------

SUPPORT = torch.linspace(-10.0, 10.0, 51)


def distributions(rng, size, atoms=51):
    return rng.dirichlet(np.full(atoms, 0.3), size).astype(np.float32)


def project(prob, reward, discount, support=SUPPORT):
    prob, reward, discount = (torch.from_numpy(np.asarray(x, np.float32)) for x in (prob, reward, discount))
    return categorical_projection(prob, reward, discount, support).numpy()


def test_projection_by_definition():
    rng = np.random.default_rng(0)
    prob = distributions(rng, 300)
    reward = np.concatenate(
        [rng.normal(size=100) * 5, rng.integers(-12, 13, 100) * 0.4, rng.choice([-50.0, 50.0, 0.0], 100)]
    )
    discount = rng.choice([0.0, 0.5, 0.99**10, 1.0], 300)
    expected = c51.projection(prob.astype(np.float64), reward, discount, SUPPORT.double().numpy())
    # Where an atom lands is off by 1e-6 in float32 at |z| <= 10, hence its mass by 1e-6 / 0.4: 1.9e-6 measured.
    np.testing.assert_allclose(project(prob, reward, discount), expected, rtol=0, atol=2e-5)


def test_projection_keeps_mass_and_inside_the_support_the_mean():
    rng = np.random.default_rng(1)
    prob = distributions(rng, 200)
    reward, discount = rng.uniform(-1, 1, 200), rng.uniform(0, 0.9, 200)  # |r + g z| <= 10
    out = project(prob, reward, discount)
    np.testing.assert_allclose(out.sum(1), 1.0, atol=1e-5)  # 51 float32 terms: 1.1e-6 measured
    assert (out >= 0).all()
    mean = prob.astype(np.float64) @ SUPPORT.numpy()
    np.testing.assert_allclose(out @ SUPPORT.numpy(), reward + discount * mean, rtol=0, atol=4e-5)  # 3.2e-6 measured
    far = project(prob, np.full(200, 30.0), np.ones(200))
    np.testing.assert_allclose(far.sum(1), 1.0, atol=1e-5)


def test_projection_at_the_edges():
    point = np.zeros((1, 51), np.float32)
    point[0, 25] = 1.0  # all mass at 0
    for reward, where in ((10.0, 50), (-10.0, 0), (11.0, 50), (-99.0, 0), (0.0, 25), (0.4, 26), (-0.4, 24)):
        out = project(point, [reward], [0.9])[0]
        assert out[where] == pytest.approx(1.0, abs=1e-5), reward
    half = project(point, [0.1], [0.9])[0]
    assert half[25] == pytest.approx(0.75, abs=1e-5)
    assert half[26] == pytest.approx(0.25, abs=1e-5)


def test_projection_of_a_terminated_state_forgets_what_follows():
    rng = np.random.default_rng(2)
    a, b = distributions(rng, 1), distributions(rng, 1)
    np.testing.assert_allclose(project(a, [1.3], [0.0]), project(b, [1.3], [0.0]), atol=1e-6)


def test_projection_shifted_by_one_atom_is_the_distribution_shifted():
    prob = distributions(np.random.default_rng(3), 1)
    out = project(prob, [0.4], [1.0])[0]
    np.testing.assert_allclose(out[1:50], prob[0, :49], rtol=0, atol=2e-6)  # 1.6e-7 measured
    assert out[50] == pytest.approx(prob[0, 49] + prob[0, 50], abs=2e-5)


def test_importance_weights():
    p = np.array([4.0, 1.0, 0.25, 9.0])
    ours = importance_weights(torch.from_numpy(p)).numpy()
    np.testing.assert_allclose(ours, c51.importance_weights(p), rtol=1e-12)
    np.testing.assert_allclose(ours, [0.25, 0.5, 1.0, 1 / 6], rtol=1e-12)


def test_the_online_network_chooses_and_the_target_network_values():
    """Two networks that disagree on the best action, so that any other combination gives another target."""
    online, target = (Net(SMALL, TINY, torch.float32) for _ in range(2))
    online.init_(Stream(1, "init"))
    target.init_(Stream(2, "init"))
    rng = np.random.default_rng(4)
    batch = tiny_batch(rng)
    noise = online.noise(Stream(0, "noise"))
    normals, _ = two_noises(Stream(0, "noise"))
    support = torch.linspace(-2.0, 2.0, 5)
    f = torch.from_numpy
    logits = (net(f(batch.next_obs), noise).detach() for net in (online, target))
    ours = double_dqn_target(*logits, f(batch.n_return), f(batch.discount), support)
    nets, flat, z = (parameters(online), parameters(target)), as_float64(batch), support.double().numpy()
    expected, chosen = c51.double_dqn_target(*nets, flat, normals, z)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-6, atol=1e-6)  # float32: 3e-8 measured
    _, alone = c51.double_dqn_target(nets[1], nets[1], flat, normals, z)
    assert (chosen != alone).any()


# -- one update ---------------------------------------------------------------------------------------------------------


def test_three_updates_are_those_written_out_by_hand():
    """Loss, gradient (central differences), importance weights, Adam and the new priorities, all in float64."""
    config = dataclasses.replace(SMALL, learning_rate=0.01, adam_eps=1e-3)
    agent: Any = Agent(config, TINY, 1, seed=3)
    for parameter in agent.target.parameters():
        parameter.data.add_(torch.from_numpy(Stream(9, "test").normal(*parameter.shape)), alpha=0.3)
    batch = tiny_batch(np.random.default_rng(5))
    agent.replay = OneBatch(batch)
    online, target, flat = parameters(agent.online), parameters(agent.target), as_float64(batch)
    support, weight = np.linspace(-2.0, 2.0, 5), c51.importance_weights(batch.priority)
    moments = {name: (np.zeros_like(p), np.zeros_like(p)) for name, p in online.items()}
    stream = Stream(3, "noise")
    for t in (1, 2, 3):
        metrics = agent.update()
        normals, next_normals = two_noises(stream)
        y, _ = c51.double_dqn_target(online, target, flat, next_normals, support)
        td = c51.cross_entropy(online, flat, y, normals)
        grad = c51.gradient(lambda net: (weight * c51.cross_entropy(net, flat, y, normals)).mean(), online)  # noqa: B023
        for name, value in online.items():
            online[name], *moments[name] = c51.adam(value, grad[name], *moments[name], t, 0.01, 1e-3)
        np.testing.assert_allclose(agent.replay.priority, td + 1e-10, rtol=2e-6)  # float32: 1.7e-7 measured
        assert float(metrics["losses/td_loss"]) == pytest.approx(td.mean(), rel=1e-5)
    np.testing.assert_array_equal(agent.replay.index, batch.index)
    assert stream.counter == agent._noise.counter
    for name, value in parameters(agent.online).items():
        # Three steps of about 0.01 each, whose float32 rounding eps = 1e-3 keeps from growing: error 3.8e-8 measured.
        np.testing.assert_allclose(value, online[name], rtol=0, atol=4e-7, err_msg=name)


def test_a_loss_that_is_not_finite_stops_the_run_and_changes_nothing():
    agent: Any = Agent(SMALL, TINY, 1, seed=0)
    batch = tiny_batch(np.random.default_rng(0))
    batch.obs[0] = np.nan
    agent.replay = OneBatch(batch)
    before = parameters(agent.online)
    with pytest.raises(FloatingPointError, match="after 0 agent steps"):
        agent.update()
    assert not hasattr(agent.replay, "priority")
    for name, value in parameters(agent.online).items():
        np.testing.assert_array_equal(value, before[name])


# -- schedules ----------------------------------------------------------------------------------------------------------


def test_epsilon_at_every_breakpoint():
    at = [epsilon_at(step, Config()) for step in (0, 1_600, 1_601, 2_600, 3_599, 3_600, 3_601, 100_000)]
    np.testing.assert_allclose(at, [1, 1, 1 - 0.99 / 2000, 0.505, 0.01 + 0.99 / 2000, 0.01, 0.01, 0.01], rtol=1e-12)


def test_epsilon_travels_with_the_weights():
    config = dataclasses.replace(SMALL, min_replay=4, epsilon_decay=4)
    agent, rng = Agent(config, TINY, 1, seed=0), np.random.default_rng(0)
    seen = []
    for _ in range(10):
        seen.append(agent.weights()["epsilon"])
        agent.observe([rollout(TINY, rng)])
    np.testing.assert_allclose(seen, [1, 1, 1, 1, 1, 0.7525, 0.505, 0.2575, 0.01, 0.01], rtol=1e-12)


def test_learning_starts_after_min_replay_steps():
    agent, rng = Agent(SMALL, TINY, 2, seed=0), np.random.default_rng(0)
    ready = []
    for _ in range(8):
        agent.observe([rollout(TINY, rng, envs=2)])
        ready.append(agent.ready)
    assert ready == [False] * 5 + [True] * 3  # 10 transitions are not more than 10


@pytest.mark.parametrize(
    ("envs", "steps", "expected"),
    [(1, 1, {9: 8, 17: 16, 25: 24, 33: 32}), (2, 3, {18: 12, 24: 18, 30: 24})],  # every 8 steps; when seen: of when
)
def test_target_is_copied_after_the_updates_of_every_period(envs, steps, expected):
    config = dataclasses.replace(SMALL, target_period=8)
    agent, rng = Agent(config, TINY, envs, seed=0), np.random.default_rng(0)
    copies, value = {}, float(agent.target.head.bias_mu[0])
    for seen in range(envs * steps, 37, envs * steps):
        agent.observe([rollout(TINY, rng, steps, envs)])
        with torch.no_grad():
            agent.online.head.bias_mu.fill_(seen)  # stands for the updates after this rollout
        if agent.target.head.bias_mu[0] != value:
            value = copies[seen] = float(agent.target.head.bias_mu[0])
    assert copies == expected


def test_rewards_are_clipped_for_learning_only():
    agent: Any = Agent(SMALL, TINY, 1, seed=0)
    rng = np.random.default_rng(0)
    given = [rollout(TINY, rng, 4, reward=r) for r in (-7.0, -0.5, 0.25, 30.0)]
    seen = []
    agent.replay.add = lambda r: seen.append(r.reward.copy())
    agent.observe(given)
    np.testing.assert_array_equal([r[0, 0] for r in seen], [-1.0, -0.5, 0.25, 1.0])
    assert given[3].reward[0, 0] == 30.0


# -- acting -------------------------------------------------------------------------------------------------------------


def acting(evaluation, epsilon=0.0, config=SMALL, spec=TINY):
    agent: Any = Agent(config, spec, 1, seed=1)
    policy = agent.eval_policy() if evaluation else agent.policy()
    policy.load({**agent.weights(), "epsilon": epsilon})
    return agent, policy


def test_evaluation_is_greedy_on_the_mean_weights():
    agent, policy = acting(evaluation=True, epsilon=1.0)  # the training epsilon does not reach it
    obs = np.random.default_rng(0).normal(size=(2_000, 2, 3)).astype(np.float32)
    q = c51.softmax(c51.logits(parameters(agent.online), obs.reshape(-1, 6), (None, None), 5)) @ np.linspace(-2, 2, 5)
    action, extra = policy.act(obs, Stream(0, "actor"))
    assert action.dtype == np.int64
    assert extra == {}
    differ = (action != q.argmax(1)).sum()
    # epsilon 0.001, a random action is another one in 2 of 3 cases: 1.33 expected, 5 sigma above
    assert differ <= 1.33 + 5 * 1.33**0.5


def test_training_draws_noise_anew_at_every_step():
    config = dataclasses.replace(SMALL, sigma0=5.0)
    _, policy = acting(evaluation=False, config=config)
    obs, stream = np.ones((1, 2, 3), np.float32), Stream(0, "actor")
    assert {int(policy.act(obs, stream)[0][0]) for _ in range(50)} == {0, 1, 2}
    _, policy = acting(evaluation=True, config=config)
    counts = np.bincount([policy.act(obs, stream)[0][0] for _ in range(200)], minlength=3)
    assert counts.max() >= 198  # noise off: one action but for epsilon = 0.001, 0.13 others expected


def test_exploring_actions_are_uniform():
    _, policy = acting(evaluation=False, epsilon=1.0)
    n = 9_000
    action, _ = policy.act(np.zeros((n, 2, 3), np.float32), Stream(0, "actor"))
    counts = np.bincount(action, minlength=3)
    np.testing.assert_array_less(np.abs(counts - n / 3), 5 * (n * (1 / 3) * (2 / 3)) ** 0.5)


def test_epsilon_is_the_share_of_random_actions():
    _, policy = acting(evaluation=False, epsilon=0.3)
    obs, stream, n = np.ones((6_000, 2, 3), np.float32), Stream(0, "actor"), 6_000
    counts = np.bincount(policy.act(obs, stream)[0], minlength=3)
    p = 0.3 * 2 / 3  # of an action that is not the greedy one
    assert abs(n - counts.max() - n * p) < 5 * (n * p * (1 - p)) ** 0.5


def test_nothing_is_computed_while_epsilon_is_one():
    _, policy = acting(evaluation=False, epsilon=1.0)
    policy._net = None  # calling it would raise
    actions, _ = policy.act(np.zeros((500, 2, 3), np.float32), Stream(0, "actor"))
    assert set(actions.tolist()) == {0, 1, 2}


def test_a_policy_sees_later_updates_without_loading_again():
    agent, policy = acting(evaluation=True)
    obs = np.random.default_rng(0).normal(size=(500, 2, 3)).astype(np.float32)
    before, _ = policy.act(obs, Stream(0, "actor"))
    agent.replay = OneBatch(tiny_batch(np.random.default_rng(1)))
    for group in agent._adam.param_groups:
        group["lr"] = 0.5
    agent.update()
    after, _ = policy.act(obs, Stream(0, "actor"))
    assert (before != after).any()


# -- state --------------------------------------------------------------------------------------------------------------


def learn(agent, batches):
    for batch in batches:
        agent.replay = OneBatch(batch)
        agent.update()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_state_round_trip_goes_on_bit_for_bit(dtype):
    config = dataclasses.replace(SMALL, dtype=dtype, target_period=4)
    rng = np.random.default_rng(0)
    batches = [tiny_batch(rng) for _ in range(8)]
    steps = [rollout(TINY, rng) for _ in range(11)]
    agent, other = Agent(config, TINY, 1, seed=0), Agent(config, TINY, 1, seed=99)
    agent.observe(steps)
    learn(agent, batches[:4])
    state = agent.state_dict()
    kept = {name: t.clone() for name, t in state["online"].items()}
    learn(agent, batches[4:])
    assert all(torch.equal(kept[name], t) for name, t in state["online"].items())  # a copy, not a view
    other.load_state_dict(state)
    assert other.weights()["epsilon"] == agent.weights()["epsilon"]
    learn(other, batches[4:])
    for agent_ in (agent, other):
        replay, agent_.replay = agent_.replay, type("Quiet", (), {"add": lambda *_: None})()
        agent_.observe([steps[0]])  # copies the target: 11 steps were seen, the next copy was due at 4
        agent_.replay = replay
    learn(agent, batches)
    learn(other, batches)
    first, second = agent.state_dict(), other.state_dict()
    for part in ("online", "target"):
        assert all(torch.equal(t, second[part][name]) for name, t in first[part].items())
    for name, moments in first["adam"].items():
        assert all(torch.equal(t, second["adam"][name][key]) for key, t in moments.items())
    assert {k: first[k] for k in ("noise", "steps", "next_copy")} == {
        k: second[k] for k in ("noise", "steps", "next_copy")
    }


def test_state_before_the_first_update_can_be_loaded():
    agent, other = Agent(SMALL, TINY, 1, seed=0), Agent(SMALL, TINY, 1, seed=1)
    learn(other, [tiny_batch(np.random.default_rng(0))])  # has moments to forget
    other.load_state_dict(agent.state_dict())
    batch = tiny_batch(np.random.default_rng(1))
    learn(agent, [batch])
    learn(other, [batch])
    assert all(torch.equal(a, b) for a, b in zip(agent.online.parameters(), other.online.parameters(), strict=True))


# -- bfloat16 -----------------------------------------------------------------------------------------------------------


def test_bfloat16_gives_the_loss_and_the_gradient_of_float32():
    """At full size from a random state. evaluation/bench/bf16.py asks the same of the states of a real run."""
    rng = np.random.default_rng(0)
    size = 32
    pixels = rng.integers(0, 256, (2, size, 4, 84, 84), dtype=np.uint8)
    batch = Batch(
        pixels[0][:, None], rng.integers(0, 6, (size, 1)), np.zeros((size, 1), np.float32), np.zeros((size, 1), bool),
        np.zeros((size, 0), bool), rng.normal(size=size).astype(np.float32), np.full(size, 0.9, np.float32), pixels[1],
        np.arange(size), np.ones(size),
    )  # fmt: skip
    loss, grad = {}, {}
    for dtype in ("float32", "bfloat16"):
        agent: Any = Agent(dataclasses.replace(Config(), dtype=dtype), PONG, 1, seed=0)
        agent.replay = OneBatch(batch)
        loss[dtype] = float(agent.update()["losses/td_loss"])
        grad[dtype] = torch.cat([p.grad.flatten() for p in agent.master.parameters()]).double()
    # 8e-7 measured; other processors round otherwise
    assert loss["bfloat16"] == pytest.approx(loss["float32"], rel=1e-4)
    cosine = torch.cosine_similarity(grad["float32"], grad["bfloat16"], dim=0)
    assert cosine > 0.998  # 0.99979 measured


# -- configuration ------------------------------------------------------------------------------------------------------


def test_presets_name_real_fields_of_their_agents():
    for suite in ("atari100k", "catch", "unknown"):
        for name in presets():
            preset = load_preset(name, suite)
            merge(resolve(preset.agent).config_class(), preset.config)  # refuses unknown keys
        config = Config(**load_preset("der", suite).config)
        assert (config == Config()) == (suite != "catch")


def test_a_preset_departs_from_its_base_key_by_key_and_suite_by_suite():
    bbf, sr_spr = load_preset("bbf"), load_preset("sr_spr")
    assert bbf.config["reset"] == {**sr_spr.config["reset"], "shrink": 0.5, "perturb": 0.5}
    assert {**sr_spr.config, **bbf.config} == bbf.config  # nothing of the base is lost
    assert load_preset("bbf_rr8").config == {**bbf.config, "replay_ratio": 8.0}
    assert [load_preset(name).variant for name in ("der", "drq_eps", "bbf_rr8")] == ["", "", "bbf"]
    catch = load_preset("bbf", "catch")
    assert catch.variant == ""
    assert catch.config["width"] == 1  # bbf's own value for the suite
    assert catch.config["min_replay"] == 200  # spr's, two presets below
    assert catch.config["reset"] == {**bbf.config["reset"], "every": 2_000, "until": 3_000}
    run = resolve_config("bbf", "atari/Pong")
    assert run.protocol == suite_of("atari/Pong").protocol_named("bbf")
    assert run.agent.reset.fresh == ("projection", "predictor", "head")
    assert resolve_config("bbf", "atari/Pong", ["agent.reset.fresh=[head]"]).agent.reset.fresh == ("head",)


def test_what_is_unknown_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="did you mean bbf_rr8"):
        load_preset("bbf_r8")
    with pytest.raises(ValueError, match="did you mean spr"):
        resolve("sprr")
    with pytest.raises(ValueError, match="is not an agent"):
        resolve("rlplatform.agents.spr:Net")
    assert resolve("spr") is resolve("rlplatform.agents.spr:Agent") is Agent


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"encoder": "resnet"}, "nature, nature_valid, impala, minatar, flatten"),
        ({"dtype": "half"}, "float32"),
        ({"capacity": 1_600}, "never start"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Config(**wrong)


def test_continuous_actions_are_refused():
    with pytest.raises(ValueError, match="discrete"):
        Agent(SMALL, dataclasses.replace(TINY, actions=0, action_shape=(2,)), 1, seed=0)
