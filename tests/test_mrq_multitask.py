"""Multitask MR.Q: sizes, losses against float64, actions that a task lacks, exact resuming, and learning two tasks at once."""

import dataclasses

import numpy as np
import pytest
import torch

from going_on import assert_goes_on
from reference import mrq_multitask as oracle
from rlplatform.actor import Actor
from rlplatform.agents import load_preset, mrq_multitask
from rlplatform.agents.mrq_multitask import Agent, Config, Net, Noise, sim_norm, spread, symexp, symlog, value_of
from rlplatform.config import ConfigError, merge
from rlplatform.envs import MultitaskProtocol, Suite, make, register
from rlplatform.experiment import score_policy
from rlplatform.learner import Learner
from rlplatform.runconfig import resolve_config
from rlplatform.streams import Stream
from rlplatform.types import Spec, Step

TINY = Config(
    observation=3, task_embedding=6, encoder_hidden=8, hidden=8, latent=16, action_embedding=4, bins=21, critics=3, batch=8,
    horizon=3, capacity=500, min_replay=10,
)  # fmt: skip
AIMS = np.array([[0.8, -0.8], [-0.8, 0.0]], np.float32)  # of each task; the second has one action only
LAYOUT = np.array([[0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 0, 0, 1]], np.float32)  # observation, mask, number


class Aims:
    """Two tasks of one step: 1 - the squared distance from the action to the task's aim."""

    device = "cpu"

    def __init__(self, n):
        self.n, self.first_env = n, 0
        self.spec = Spec((7,), "float32", 1, 0, (2,))
        self.frame = LAYOUT[np.arange(n) % 2]

    def reset(self):
        return self.frame.copy()

    def step(self, action):
        reward = 1.0 - ((action - AIMS[np.arange(self.n) % 2]) ** 2).sum(1)
        over = np.ones(self.n, bool)
        return Step(self.frame.copy(), reward, over, ~over, over, self.frame.copy(), np.arange(self.n))

    def close(self):
        pass


class OneBatch:
    """Stands in for the replay where a test decides what is drawn."""

    can_sample = True

    def __init__(self, batch):
        self.batch = batch

    def sample(self, *_):
        return self.batch


@pytest.fixture(scope="module", autouse=True)
def _one_pendulum():
    protocol = MultitaskProtocol(("control/Pendulum",), observation=3, actions=1)

    def factory(task, n, seed, first_env, protocol, **_):
        from rlplatform.envs.multitask import make_multitask

        return make_multitask(task, n, seed, first_env, protocol)

    register("onependulum", factory, Suite("onependulum", ("onependulum",), 100, protocol=protocol))


def numbers(net):
    return {name: p.detach().double().numpy().copy() for name, p in net.named_parameters()}


def shaken(net, seed):
    """Gains and biases away from where they begin, so that a part left out is seen."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.from_numpy(0.3 * rng.normal(size=tuple(p.shape)).astype(np.float32)))


@pytest.mark.parametrize(
    ("size", "overrides"),
    [
        (1_527_844, ("encoder_hidden=128", "hidden=256", "latent=384", "critics=3")),
        (5_230_702, ()),
        (15_453_038, ("encoder_hidden=1024", "encoder_layers=3", "hidden=1024")),
        (67_065_784, ("encoder_hidden=2048", "encoder_layers=4", "hidden=2048", "latent=704", "critics=7")),
    ],
)
def test_the_published_sizes(size, overrides):
    """1.5M, 5.2M, 15.5M and 67.1M parameters at 128 + 512 inputs."""
    config = merge(Config(), load_preset("mrq_multitask", "multitask-dmc6").config, overrides=overrides)
    assert sum(p.numel() for p in Net(config, 16).parameters()) == size


def test_latents_are_distributions_in_groups_of_eight():
    x = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    groups = sim_norm(x).reshape(5, 3, 8)
    np.testing.assert_allclose(groups.sum(2), 1.0, atol=1e-6)
    np.testing.assert_allclose(groups[2, 1], oracle.softmax(x[2, 8:16].double().numpy()), atol=1e-7)


def test_symexp_undoes_symlog():
    x = torch.tensor([-2e4, -1.0, -1e-3, 0.0, 0.5, 300.0])
    torch.testing.assert_close(symexp(symlog(x)), x)


def test_the_value_of_two_bins_is_what_they_were_made_from():
    bins = torch.linspace(-10.0, 10.0, 101)
    logits = torch.full((1, 101), -1e9)
    logits[0, 60], logits[0, 61] = np.log(0.25), np.log(0.75)
    torch.testing.assert_close(value_of(logits, bins), symexp(torch.tensor([2.15])))


def an_agent(seed=0):
    agent = Agent(TINY, Aims(2).spec, 2, seed)
    shaken(agent.net, seed + 1)
    shaken(agent.target, seed + 2)
    return agent


def a_batch(agent, rng, size=8):
    """What a replay might give: obs of both tasks, ends of both kinds within."""
    from rlplatform.replay import Batch

    horizon = agent.config.horizon
    task = rng.integers(2, size=size)
    obs = np.repeat(LAYOUT[task][:, None, None], horizon + 1, 1).copy()
    obs[..., :3] = rng.normal(size=(size, horizon + 1, 1, 3))
    mask = np.ones((size, horizon), bool)
    mask[0, 1:], mask[1, :] = False, False
    discount = np.full(size, 0.9, np.float32)
    discount[1] = 0.0
    return Batch(
        obs, rng.uniform(-1, 1, (size, horizon, 2)).astype(np.float32), rng.normal(size=(size, horizon)).astype(np.float32) * 9,
        np.zeros((size, horizon), bool), mask, rng.normal(size=size).astype(np.float32) * 20, discount, obs[:, -1].copy(),
        np.arange(size), np.ones(size),
    )  # fmt: skip


def test_losses_are_those_of_their_definition():
    """Worst relative difference found: 2e-6, of float32."""
    agent = an_agent()
    batch = a_batch(agent, np.random.default_rng(5))
    x, p, target = agent.subsequence(batch), numbers(agent.net), numbers(agent.target)
    embeddings = agent.embeddings.double().numpy()
    flat = batch.obs[:, :, 0].astype(np.float64).swapaxes(0, 1)  # [H + 1, B, 7]
    states, mask, tasks = flat[..., :3], flat[0, :, 3:5], flat[..., 5:] @ embeddings
    action, reward = batch.action.astype(np.float64).swapaxes(0, 1), batch.reward.astype(np.float64).T
    noise = Noise(torch.from_numpy(np.random.default_rng(6).normal(0, 0.2, (8, 2)).astype(np.float32)), (2, 0), (1, 2))

    found = mrq_multitask.encoder_loss(agent.net.encoder, agent.target.encoder, x, agent.bins, TINY)
    dynamics, paid = oracle.encoder_loss(p, target, states, tasks, action, reward, batch.mask.T.astype(float))
    np.testing.assert_allclose([float(found.dynamics), float(found.reward)], [dynamics, paid], rtol=1e-5)
    np.testing.assert_allclose(found.total.item(), dynamics + 0.1 * paid, rtol=1e-5)

    y = mrq_multitask.value_target(agent.target, x, noise, agent.bins)
    wanted = oracle.value_target(
        target, batch.n_return, batch.discount, states[-1], tasks[-1], mask, noise.target.double().numpy(), (2, 0)
    )
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4)  # symexp magnifies what is rounded in symlog

    zs = agent.net.encoder.state(x.states[0].obs, x.states[0].task)
    zsa = agent.net.encoder.pair(zs, x.action[0])
    loss, _ = mrq_multitask.value_loss(agent.net.value(zsa, (0, 1, 2)), torch.from_numpy(wanted).float(), agent.bins)
    np.testing.assert_allclose(loss.item(), oracle.value_loss(p, states[0], tasks[0], action[0], wanted, 3), rtol=1e-5)

    loss, _ = mrq_multitask.policy_loss(agent.net, zs, x.states[0], noise, agent.bins, torch.tensor(1.7))
    wanted = oracle.policy_loss(p, states[0], tasks[0], mask, (1, 2), 1.7)
    np.testing.assert_allclose(loss.item(), wanted, rtol=1e-4)


def test_an_update_moves_every_part_and_the_targets_by_a_hundredth():
    agent = an_agent()
    agent.replay = OneBatch(a_batch(agent, np.random.default_rng(1)))
    before, behind = numbers(agent.net), numbers(agent.target)
    agent.update()
    after = numbers(agent.net)
    for name, value in numbers(agent.target).items():
        assert (after[name] != before[name]).any(), name
        np.testing.assert_allclose(value, behind[name] + 0.01 * (after[name] - behind[name]), atol=1e-6)


def test_the_range_of_values_follows_slowly_and_never_falls_below_one():
    q = torch.arange(101.0)
    assert spread(q) == 90.0
    agent = an_agent()
    agent.replay = OneBatch(a_batch(agent, np.random.default_rng(1)))
    agent.q_range = torch.tensor(1.001)
    narrow = agent.update()
    assert float(narrow["charts/q_range"]) >= 1.0
    agent.q_range = torch.tensor(100.0)
    wide = float(agent.update()["charts/q_range"])
    assert 98.9 < wide < 100.0


def test_a_pair_of_critics_is_any_two_of_them():
    agent, counts = an_agent(), np.zeros((3, 3))
    for _ in range(1_800):
        counts[agent._pair(3)] += 1
    assert not counts.diagonal().any()
    np.testing.assert_array_less(np.abs(counts[~np.eye(3, dtype=bool)] - 300), 5 * np.sqrt(1_800 * 5 / 36))


def test_actions_that_a_task_lacks_are_zero():
    agent, obs = an_agent(), LAYOUT[[0, 1, 1]][:, None]
    for policy in (agent.policy(), agent.eval_policy()):
        for random in (True, False):
            policy.load({**agent.weights(), "random": random})
            action, _ = policy.act(obs, Stream(0, "actor"))
            assert action.dtype == np.float32
            assert (np.abs(action) <= 1.0).all()
            assert (action[:, 0] != 0.0).all()
            np.testing.assert_array_equal(action[:, 1] != 0.0, [True, False, False])


def test_an_evaluation_is_neither_random_nor_noisy():
    agent, obs = an_agent(), LAYOUT[:, None]
    policy, actions = agent.eval_policy(), []
    for random, seed in ((True, 0), (False, 1)):
        policy.load({**agent.weights(), "random": random})
        actions.append(policy.act(obs, Stream(seed, "actor"))[0])
    np.testing.assert_array_equal(*actions)


@pytest.mark.parametrize(
    ("spec", "streams", "message"),
    [
        (Spec((7,), "float32", 1, 0, (2,)), 3, "3 environments do not share out among 2 tasks"),
        (Spec((5,), "float32", 1, 0, (2,)), 2, r"needs frames \[observation \+ actions \+ tasks\]"),
        (Spec((7,), "float32", 1, 3), 2, "needs frames"),
        (Spec((7,), "float32", 2, 0, (2,)), 2, "needs frames"),
        (Spec((7,), "uint8", 1, 0, (2,)), 2, "needs frames"),
    ],
)
def test_other_environments_are_refused(spec, streams, message):
    with pytest.raises(ValueError, match=message):
        Agent(TINY, spec, streams, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("latent", 12), ("critics", 1), ("bins", 4), ("capacity", 10), ("tau", 1.5), ("grad_clip", 0.0), ("noise", -1.0)],
)
def test_configurations_that_cannot_be_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must be"):
        dataclasses.replace(TINY, **{field: value})


def test_a_saved_agent_goes_on_bit_for_bit(tmp_path):
    assert_goes_on(tmp_path, Agent, TINY, "onependulum", 1.0, ("noise", "steps"))


def test_a_loss_that_is_not_finite_stops_the_run():
    agent = an_agent()
    agent.replay = OneBatch(a_batch(agent, np.random.default_rng(0)))
    agent.replay.batch.n_return[0] = np.nan
    with pytest.raises(FloatingPointError, match="the value's loss is nan after 0 agent steps"):
        agent.update()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_two_tasks_at_once(seed):
    """Each has its own best action, which pays 1. One that cannot tell them apart gets no more than 0.36 of the worse paid;
    random actions get -0.9 and 0."""
    config = dataclasses.replace(
        TINY, encoder_hidden=32, hidden=32, latent=32, bins=101, batch=32, learning_rate=1e-3, encoder_learning_rate=1e-3,
        min_replay=200, capacity=5_000, replay_ratio=1.0, tau=0.05,
    )  # fmt: skip
    agent = Agent(config, Aims(2).spec, 2, seed)
    actor, learner = Actor(agent.policy(), Aims(2), Stream(seed, "actor")), Learner(agent, 0.5)
    for _ in range(700):
        learner.learn([actor.collect(agent.weights(), learner.version, 2)])
    policy = agent.eval_policy()
    policy.load(agent.weights())
    action, _ = policy.act(LAYOUT[:, None], Stream(0, "eval"))
    assert Aims(2).step(action).reward.min() > 0.8


def test_an_evaluation_counts_every_task_alike():
    with pytest.raises(ConfigError, match="10 episodes do not share out among 6 tasks: choose a multiple of 6"):
        resolve_config("mrq_multitask", "multitask-dmc6", ["eval.episodes=10"])
    config = resolve_config("mrq_multitask", "multitask-dmc6")
    assert (config.eval.episodes, config.agent.capacity) == (12, 3_000_000)
    with pytest.raises(ConfigError, match="16 episodes do not share out"):
        score_policy(config, Agent(TINY, Aims(2).spec, 2, 0).eval_policy(), 0, 16)


def test_six_tasks_of_deepmind_control_are_played():
    """A few updates of a small agent on the real suite, each environment a task of its own."""
    pytest.importorskip("dm_control")
    envs = make("multitask-dmc6", 6, 0)
    config = dataclasses.replace(TINY, observation=128)
    agent = Agent(config, envs.spec, 6, 0)
    actor, learner = Actor(agent.policy(), envs, Stream(0, "actor")), Learner(agent, 0.075)
    for _ in range(20):
        metrics = learner.learn([actor.collect(agent.weights(), learner.version, 2)])
    assert learner.updates == 17
    assert np.isfinite([float(value) for value in metrics.values()]).all()
    envs.close()
