"""SAC against its definition in float64: losses and whole updates; its resets, acting and state."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from going_on import assert_goes_on
from reference import c51
from reference import sac as oracle
from rlplatform.agents import load_preset, sac
from rlplatform.agents.sac import Agent, Config, Net, sample_action
from rlplatform.config import merge
from rlplatform.learner import Learner
from rlplatform.nets import orthogonal_
from rlplatform.replay import Batch
from rlplatform.streams import Stream
from rlplatform.techniques.resets import ResetConfig
from rlplatform.types import Rollout, Spec, empty_episodes

REACH = Spec((3,), "float32", 2, actions=0, action_shape=(2,))
WHOLE = ResetConfig(every=10, until=1_000, fresh=("actor", "critic", "temperature"))
TINY = Config(hidden=4, batch=4, capacity=200, min_replay=10)


def numbers(net):
    return {name: p.detach().double().numpy().copy() for name, p in net.named_parameters()}


def a_batch(rng, size=4):
    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return Batch(
        normal(size, 1, 2, 3), rng.uniform(-1, 1, (size, 1, 2)).astype(np.float32), normal(size, 1), np.zeros((size, 1), bool),
        np.zeros((size, 0), bool), normal(size), np.array([0.9, 0.0, 0.9, 0.9], np.float32), normal(size, 2, 3),
        np.arange(size), np.ones(size),
    )  # fmt: skip


def in_float64(batch):
    size = len(batch.index)
    return {
        "obs": batch.obs.reshape(size, -1).astype(np.float64), "action": batch.action[:, 0].astype(np.float64),
        "reward": batch.n_return.astype(np.float64), "discount": batch.discount.astype(np.float64),
        "next_obs": batch.next_obs.reshape(size, -1).astype(np.float64),
    }  # fmt: skip


class OneBatch:
    """Stands in for the replay where a test decides what is drawn."""

    can_sample = True

    def __init__(self, batch):
        self.batch, self.asked = batch, []

    def add(self, _rollout):
        pass

    def sample(self, *asked):
        self.asked.append(asked)
        return self.batch


def rollout(rng, steps=1):
    no = np.zeros((steps, 1), bool)
    return Rollout(
        rng.normal(size=(steps, 1, 3)).astype(np.float32), no, rng.uniform(-1, 1, (steps, 1, 2)).astype(np.float32),
        np.ones((steps, 1), np.float32), no, no, np.zeros((0, 3), np.float32), np.zeros((0, 2), np.int64), {},
        empty_episodes(), 0, 0,
    )  # fmt: skip


def test_parameters_of_the_published_networks():
    net = Net(Config(), Spec((17,), "float32", 1, 0, (6,)))
    count = {part: sum(p.numel() for p in getattr(net, part).parameters()) for part in sac.PARTS}
    assert count == {
        "actor": 17 * 256 + 256 + 256 * 256 + 256 + 2 * (256 * 6 + 6),
        "critic": 2 * (23 * 256 + 256 + 256 * 256 + 256 + 256 + 1),
        "temperature": 1,
    }


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 6)])
def test_orthogonal_matrices(shape):
    weight = torch.empty(shape)
    orthogonal_(weight, 1.5, Stream(0, "init"))
    w = weight.double()
    small = w.T @ w if shape[0] >= shape[1] else w @ w.T
    np.testing.assert_allclose(small.numpy(), 2.25 * np.eye(len(small)), rtol=0, atol=3e-6)  # float32: 3e-7 measured
    signs = [orthogonal_(weight, 1.0, stream := Stream(k, "init")) or float(weight[0, 0]) > 0 for k in range(400)]
    assert stream.counter > 0
    assert abs(sum(signs) - 200) < 5 * 10  # uniformly distributed: either sign is as likely


def test_initial_networks():
    net = Net(Config(temperature=0.3), REACH)
    net.init_(Stream(0, "init"))
    named = dict(net.named_parameters())
    for name, gain in (
        ("actor.linear2", 2.0),
        ("actor.mean", 2.0),
        ("actor.log_std", 1.0),
        ("critic.first.linear3", 2.0),
    ):
        w = named[f"{name}.weight"].detach().double()
        small = w.T @ w if w.shape[0] > w.shape[1] else w @ w.T
        np.testing.assert_allclose(small.numpy(), gain * np.eye(len(small)), rtol=0, atol=1e-5, err_msg=name)
    assert all((p == 0).all() for name, p in named.items() if name.endswith("bias"))
    assert net.temperature().item() == pytest.approx(0.3)


# -- losses -------------------------------------------------------------------------------------------------------------


def test_the_density_of_an_action():
    rng = np.random.default_rng(0)
    mean, log_std, normal = rng.normal(size=(50, 3)), rng.uniform(-3, 0.5, (50, 3)), rng.normal(size=(50, 3))
    ours = sample_action(*(torch.from_numpy(x.astype(np.float32)) for x in (mean, log_std, normal)))
    expected = oracle.action_and_log_density(mean, np.exp(log_std), normal)
    np.testing.assert_allclose(ours[0].numpy(), expected[0], rtol=0, atol=1e-6)  # float32: 1e-7 measured
    np.testing.assert_allclose(ours[1].numpy(), expected[1], rtol=1e-5, atol=1e-5)  # float32: 1e-6 measured


def test_the_density_integrates_to_one():
    """Over the actions that normals from -6 to 6 become, by the trapezoidal rule: 2e-9 of the mass lie outside."""
    normal = torch.linspace(-6, 6, 4_001, dtype=torch.float64)[:, None]
    action, log_density = sample_action(torch.full_like(normal, 0.4), torch.full_like(normal, -0.2), normal)
    assert torch.trapezoid(log_density.exp(), action[:, 0]).item() == pytest.approx(1.0, abs=1e-5)


def test_far_out_the_density_stays_finite():
    mean = torch.tensor([[30.0], [-30.0]], requires_grad=True)
    action, log_density = sample_action(mean, torch.zeros(2, 1), torch.zeros(2, 1))
    np.testing.assert_array_equal(action.detach().numpy(), [[1.0], [-1.0]])
    # log of the slope: 2 log 2 - 2 |u|
    expected = -0.5 * math.log(2 * math.pi) - 2 * math.log(2) + 60
    np.testing.assert_allclose(log_density.detach().numpy(), expected, rtol=1e-6)
    assert torch.isfinite(torch.autograd.grad(log_density.sum(), mean)[0]).all()


def test_three_updates_are_those_written_out_by_hand():
    """Critics, their target, actor with the new critics, temperature: losses, gradients and Adam's steps in float64."""
    config = dataclasses.replace(TINY, learning_rate=0.01, tau=0.2, temperature=0.5)
    agent: Any = Agent(config, REACH, 1, seed=3)
    for k, parameter in enumerate([*agent.net.parameters(), *agent.target.parameters()]):
        parameter.data.add_(
            torch.from_numpy(Stream(k, "test").normal(*parameter.shape or (1,))).view_as(parameter), alpha=0.2
        )
    for optimizer in agent._optimizers.values():
        optimizer.param_groups[0]["eps"] = 1e-3  # keeps float32's rounding of tiny gradients from growing
    agent.replay = OneBatch(a_batch(np.random.default_rng(5)))
    batch, stream = in_float64(agent.replay.batch), Stream(3, "noise")
    actor, critic, target = numbers(agent.net.actor), numbers(agent.net.critic), numbers(agent.target)
    log_temperature = {"log": np.array([agent.net.temperature.log.item()])}
    moments = {id(net): {name: (0 * p, 0 * p) for name, p in net.items()} for net in (actor, critic, log_temperature)}

    def step(net, loss, t):
        grad = c51.gradient(loss, net)
        for name in net:
            net[name], *moments[id(net)][name] = c51.adam(net[name], grad[name], *moments[id(net)][name], t, 0.01, 1e-3)

    for t in (1, 2, 3):
        metrics = agent.update()
        next_normal, normal = (stream.normal(4, 2).astype(np.float64) for _ in range(2))
        heat = math.exp(log_temperature["log"][0])
        y = oracle.target(actor, target, heat, batch, next_normal)
        assert float(metrics["losses/critic_loss"]) == pytest.approx(oracle.critic_loss(critic, batch, y), rel=1e-5)
        step(critic, lambda net: oracle.critic_loss(net, batch, y), t)  # noqa: B023
        for name in target:
            target[name] += 0.2 * (critic[name] - target[name])
        _, entropy = oracle.actor_loss(actor, critic, heat, batch, normal)
        step(actor, lambda net: oracle.actor_loss(net, critic, heat, batch, normal)[0], t)  # noqa: B023
        step(log_temperature, lambda net: oracle.temperature_loss(net["log"][0], entropy, -1.0), t)  # noqa: B023
        assert float(metrics["charts/entropy"]) == pytest.approx(entropy, rel=1e-5)
    assert stream.counter == agent._noise.counter
    assert agent.replay.asked == [(4, 1, 0.99)] * 3
    ours = (
        (agent.net.actor, actor),
        (agent.net.critic, critic),
        (agent.target, target),
        (agent.net.temperature, log_temperature),
    )
    for module, net in ours:
        for name, value in numbers(module).items():
            # Three steps of 0.01: float32 adds 1e-7 to them.
            np.testing.assert_allclose(value, net[name].reshape(value.shape), rtol=0, atol=1e-6, err_msg=name)


def test_a_time_limit_bootstraps_and_a_termination_does_not():
    agent: Any = Agent(TINY, REACH, 1, seed=0)
    rng = np.random.default_rng(0)
    given = rollout(rng, 20)
    truncated, terminated = given.truncated.copy(), given.terminated.copy()
    (
        truncated[9],
        terminated[15],
    ) = True, True
    first = np.roll(truncated | terminated, 1, 0)
    last = np.full((1, 3), 7.0, np.float32)
    agent.observe([given._replace(
        truncated=truncated, terminated=terminated, first=first, final_frame=last, final_at=np.array([[9, 0]])
    )])  # fmt: skip
    items = agent.replay.eligible()
    x = sac.transitions(agent.replay.gather(items, 1, 0.99))
    assert x.discount[items == 9].item() == pytest.approx(0.99)
    assert x.next_obs[items == 9, 3:].tolist() == last.tolist()
    assert x.discount[x.discount == 0].shape == (1,)  # the termination alone


# -- resets and schedules -----------------------------------------------------------------------------------------------


def test_resets_follow_the_agent_steps_whatever_the_replay_ratio():
    seen = {}
    for ratio in (1.0, 4.0):
        agent: Any = Agent(dataclasses.replace(TINY, reset=WHOLE), REACH, 1, seed=0)
        learner, rng, at = Learner(agent, ratio), np.random.default_rng(0), []
        agent._reset = lambda at=at, learner=learner: at.append((learner.steps, learner.updates))
        for _ in range(35):
            learner.learn([rollout(rng)])
        seen[ratio] = at
    # After 10, 20 and 30 steps with all their updates: the reset comes with the step that follows.
    assert seen == {1.0: [(10, 1), (20, 11), (30, 21)], 4.0: [(10, 4), (20, 44), (30, 84)]}


def test_a_reset_makes_a_new_learner_and_keeps_the_replay():
    agent: Any = Agent(dataclasses.replace(TINY, reset=WHOLE), REACH, 1, seed=0)
    rng = np.random.default_rng(0)
    agent.observe([rollout(rng, 10)])
    for _ in range(5):
        agent.update()
    before, kept = numbers(agent.net), agent.replay.eligible()
    agent.observe([rollout(rng)])
    fresh = Net(agent.config, REACH)
    fresh.init_(Stream(0, "reset"))
    for name, value in numbers(fresh).items():
        np.testing.assert_array_equal(numbers(agent.net)[name], value)
        assert name.endswith("bias") or not np.array_equal(before[name], value)
    for name, value in numbers(agent.target).items():
        np.testing.assert_array_equal(value, numbers(fresh.critic)[name])
    for optimizer in agent._optimizers.values():
        assert all((t == 0).all() for moments in optimizer.state.values() for t in moments.values())
    assert set(kept) < set(agent.replay.eligible())
    assert agent.weights()["random"] is False
    assert agent._resets.count == 1


def test_a_part_can_be_reset_alone():
    reset = ResetConfig(every=10, until=1_000, fresh=("critic.first.linear3",), shrink=1.0)
    agent: Any = Agent(dataclasses.replace(TINY, reset=reset), REACH, 1, seed=0)
    agent.observe([rollout(np.random.default_rng(0), 10)])
    agent.update()
    before, target = numbers(agent.net), numbers(agent.target)
    agent._reset()
    changed = {name for name, value in numbers(agent.net).items() if not np.array_equal(value, before[name])}
    assert changed == {"critic.first.linear3.weight", "critic.first.linear3.bias"}
    changed = {name for name, value in numbers(agent.target).items() if not np.array_equal(value, target[name])}
    assert changed == {"first.linear3.weight", "first.linear3.bias"}


def test_learning_starts_after_the_random_steps():
    agent, rng, seen = Agent(TINY, REACH, 1, seed=0), np.random.default_rng(0), []
    for _ in range(12):
        seen.append((agent.weights()["random"], agent.ready))
        agent.observe([rollout(rng)])
    assert seen == [(True, False)] * 10 + [(False, True)] * 2


# -- acting -------------------------------------------------------------------------------------------------------------


def acting(evaluation, random=False):
    agent = Agent(TINY, REACH, 1, seed=1)
    policy = agent.eval_policy() if evaluation else agent.policy()
    policy.load({**agent.weights(), "random": random})
    return agent, policy


def test_evaluation_takes_the_mode():
    agent, policy = acting(evaluation=True, random=True)  # random steps are for training alone
    obs = np.random.default_rng(0).normal(size=(20, 2, 3)).astype(np.float32)
    action, _ = policy.act(obs, Stream(0, "actor"))
    assert action.dtype == np.float32
    mean, _ = oracle.distribution(numbers(agent.net.actor), obs.reshape(20, 6).astype(np.float64))
    np.testing.assert_allclose(action, np.tanh(mean), rtol=0, atol=1e-6)


def test_training_draws_from_the_policy():
    agent, policy = acting(evaluation=False)
    n = 20_000
    obs = np.repeat(np.random.default_rng(0).normal(size=(1, 2, 3)).astype(np.float32), n, 0)
    action, _ = policy.act(obs, Stream(0, "actor"))
    mean, std = oracle.distribution(numbers(agent.net.actor), obs[:1].reshape(1, 6).astype(np.float64))
    u = np.arctanh(np.clip(action.astype(np.float64), -1 + 1e-7, 1 - 1e-7))
    for a in range(2):
        for sigmas in (-1.0, 0.0, 1.0):
            below, p = (u[:, a] < mean[0, a] + sigmas * std[0, a]).sum(), 0.5 * (1 + math.erf(sigmas / math.sqrt(2)))
            assert abs(below - n * p) < 5 * math.sqrt(n * p * (1 - p))


def test_random_steps_are_uniform():
    _, policy = acting(evaluation=False, random=True)
    n = 9_000
    action, _ = policy.act(np.zeros((n, 2, 3), np.float32), Stream(0, "actor"))
    assert action.dtype == np.float32
    np.testing.assert_array_less(np.abs(action.mean(0)), 5 / math.sqrt(3 * n))
    np.testing.assert_array_less(np.abs((action**2).mean(0) - 1 / 3), 5 * math.sqrt(4 / 45 / n))


# -- state --------------------------------------------------------------------------------------------------------------


def test_a_saved_agent_goes_on_bit_for_bit(tmp_path):
    """Across a reset: at step 40, of 50."""
    config = dataclasses.replace(TINY, reset=dataclasses.replace(WHOLE, every=20))
    counters = ("noise", "reset_draws", "resets", "steps")
    state = assert_goes_on(tmp_path, Agent, config, "control/Pendulum", 2.0, counters)
    assert state["resets"] == {"count": 2}


def test_a_loss_that_is_not_finite_stops_the_run():
    agent: Any = Agent(TINY, REACH, 1, seed=0)
    agent.replay = OneBatch(a_batch(np.random.default_rng(0)))
    agent.replay.batch.n_return[0] = np.nan
    before = numbers(agent.net)
    with pytest.raises(FloatingPointError, match="the critic's loss is nan after 0 agent steps"):
        agent.update()
    for name, value in numbers(agent.net).items():
        np.testing.assert_array_equal(value, before[name])


# -- configuration ------------------------------------------------------------------------------------------------------


def test_presets():
    plain, with_resets = (merge(Config(), load_preset(name, "dmc10-resets").config) for name in ("sac", "sac_resets"))
    assert plain == Config()
    names = ("actor", "critic", "temperature")
    assert with_resets == Config(replay_ratio=32.0, reset=ResetConfig(every=200_000, until=2_000_000, fresh=names))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"capacity": 10_000}, "never start"),
        ({"tau": 2.0}, "tau must be in"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Config(**wrong)


@pytest.mark.parametrize(
    "spec", [Spec((3,), "float32", 1, 4), Spec((84, 84), "uint8", 4, 0, (2,))], ids=["discrete", "pixels"]
)
def test_what_it_is_not_made_for_is_refused(spec):
    with pytest.raises(ValueError, match="needs float32 observations and actions that are vectors"):
        Agent(TINY, spec, 1, seed=0)


def test_a_module_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"no module encoder; there are actor, actor\.linear1"):
        Agent(dataclasses.replace(TINY, reset=ResetConfig(every=1, fresh=("encoder",))), REACH, 1, seed=0)
