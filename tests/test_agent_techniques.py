"""ReDo, L2 Init and spectral normalisation in every agent: off they are not there, on they do what they say, and a saved agent goes on."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

from going_on import assert_goes_on
from rlplatform import config as configs
from rlplatform.actor import Actor
from rlplatform.agents import mrq, ppo, pqn, sac, spr
from rlplatform.agents.mrq_config import Config as MrqConfig
from rlplatform.agents.ppo_config import Config as PpoConfig
from rlplatform.agents.spr_config import Config as SprConfig
from rlplatform.envs import make
from rlplatform.learner import Learner
from rlplatform.streams import Stream
from rlplatform.techniques import spectral_norm
from rlplatform.techniques.pruning import PruningConfig
from rlplatform.techniques.redo import ReDoConfig
from rlplatform.techniques.resets import ResetConfig

SPR = {
    "encoder": "flatten",
    "hidden": 16,
    "atoms": 5,
    "sigma0": 0.0,
    "n": 3,
    "batch": 8,
    "capacity": 500,
    "min_replay": 20,
}
ROUND = {"encoder": "flatten", "hidden": 16, "layers": 2, "batch": 8, "epochs": 1}
AGENTS = {  # class, configuration, task, layers that can be normalised
    "spr": (spr.Agent, SprConfig, {**SPR, "target_period": 7}, "catch", ("projection", "head")),
    "spr_moving": (spr.Agent, SprConfig, {**SPR, "target_tau": 0.1, "act_with_target": True}, "catch", ("projection",)),
    "sac": (sac.Agent, sac.Config, {"hidden": 16, "batch": 8, "capacity": 500, "min_replay": 20}, "control/Pendulum", ("critic.first.linear2", "actor.linear2")),
    "mrq": (mrq.Agent, MrqConfig, {"hidden": 16, "action_embedding": 8, "batch": 8, "capacity": 500, "min_replay": 20, "target_period": 5}, "catch", ("value.first.linear3", "policy.linear2", "encoder.state.linear2")),
    "ppo": (ppo.Agent, PpoConfig, {**ROUND, "trust": {"weight": 0.1, "anchors": 3}}, "catch", ("trunk.layers.0", "policy")),
    "ppo_apart": (ppo.Agent, PpoConfig, {**ROUND, "shared": False, "activation": "tanh", "normalize_obs": True}, "control/Pendulum", ("trunk.layers.1", "critic.layers.1", "value")),
    "pqn": (pqn.Agent, pqn.Config, ROUND, "catch", ("hidden.0.linear", "head")),
}  # fmt: skip
ON_POLICY = {
    "ppo": "shuffle",
    "ppo_apart": "shuffle",
    "pqn": "order",
}  # the stream of their minibatches; rounds of 8 steps are one


def config_of(kind, **techniques):
    _, config, given, _, _ = AGENTS[kind]
    return replace(configs.merge(config(), given), **techniques)


def played(kind, rounds, **techniques):
    agent_class, _, _, task, _ = AGENTS[kind]
    envs = make(task, 1, 5)
    agent = agent_class(config_of(kind, **techniques), envs.spec, 1, seed=5)
    steps = 8 if kind in ON_POLICY else 1
    actor, learner = Actor(agent.policy(), envs, Stream(5, "actor")), Learner(agent, Fraction(1, steps))
    for _ in range(rounds):
        learner.learn([actor.collect(agent.weights(), learner.version, steps)])
    return agent


def nets(agent):
    """What learns, and what follows it where something does; SAC's target is its critics alone."""
    online = agent.net if isinstance(agent, sac.Agent | ppo.Agent | pqn.Agent) else agent.online
    return [online, agent.target] if hasattr(agent, "target") else [online]


@pytest.mark.parametrize("kind", AGENTS)
def test_a_saved_agent_goes_on_bit_for_bit_with_all_of_them(tmp_path, kind):
    agent_class, _, _, task, layers = AGENTS[kind]
    reset = ResetConfig(every=9, until=100, shrink=0.9, perturb=0.1)
    resets = {"reset": reset} if hasattr(config_of(kind), "reset") and kind != "mrq" else {}
    config = config_of(kind, redo=ReDoConfig(every=4, tau=0.5, batch=16), l2_init=0.01, spectral_norm=layers, **resets)
    scalars = ("redo", "initial", "spectral_norm", ON_POLICY.get(kind, "noise"))
    steps = 8 if kind in ON_POLICY else 1
    state = assert_goes_on(tmp_path, agent_class, config, task, Fraction(1, steps), scalars, rollout=(steps, 1))
    assert state["redo"]["count"] > 0
    assert state["spectral_norm"]["online"].keys() == {f"{layer}.{which}" for layer in layers for which in "uv"}


@pytest.mark.parametrize("kind", AGENTS)
def test_off_they_leave_no_trace(kind):
    state = played(kind, 25).state_dict()
    assert not {"redo", "initial", "spectral_norm"} & state.keys()
    assert not any("parametrizations" in name for name in state["online"])


def recycle(agent):
    """Now, whenever it is due."""
    agent._redo.tick(1_000)
    assert agent._redo.due()
    agent._redo.due = lambda: True
    agent._recycle()
    del agent._redo.due


@pytest.mark.parametrize("kind", AGENTS)
def test_redo_changes_dormant_units_of_what_learns_and_draws_from_its_own_stream(kind):
    """One recycling with tau so large that all units are dormant, and one with none, from the same state."""
    agent = played(kind, 40, redo=ReDoConfig(every=1_000, tau=100.0, batch=16))
    other = played(kind, 40, redo=ReDoConfig(every=1_000, tau=0.0, batch=16))
    before = {name: p.detach().clone() for name, p in nets(agent)[0].named_parameters()}
    target = [p.detach().clone() for net in nets(agent)[1:] for p in net.parameters()]
    named = {**vars(agent), **({} if agent.replay is None else vars(agent.replay))}
    others = [value for value in named.values() if isinstance(value, Stream)]
    streams = [dict(stream.state_dict()) for stream in others]
    assert streams
    recycle(agent)
    assert [stream.state_dict() for stream in others] == streams
    assert agent._redo.stream.counter > 0
    following = [p for net in nets(agent)[1:] for p in net.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(following, target, strict=True))
    links = nets(agent)[0].links()
    assert agent._redo.count == sum(
        nets(agent)[0].get_submodule(of.layer).bias.shape[0] if of.layer != "encoder.pair_state" else 16 for of in links
    )
    touched = {name for of in links for name in (of.layer, *of.incoming, *(into.module for into in of.into))}
    for name, p in nets(agent)[0].named_parameters():
        owner, _, which = name.rpartition(".")
        changed = not torch.equal(p, before[name])
        assert changed == (
            owner in touched and (which == "weight" or any(owner in (of.layer, *of.incoming) for of in links))
        ), name
    kept = {name: p.detach().clone() for name, p in nets(other)[0].named_parameters()}
    recycle(other)
    dead = other._redo.count
    assert dead < 16  # of some hundred
    assert dead > 0 or all(torch.equal(p, kept[name]) for name, p in nets(other)[0].named_parameters())


@pytest.mark.parametrize("kind", AGENTS)
def test_redo_happens_every_so_many_gradient_steps(kind):
    agent = played(kind, 36, redo=ReDoConfig(every=4, tau=100.0, batch=16))
    once = played(kind, 40, redo=ReDoConfig(every=1_000, tau=100.0, batch=16))
    recycle(once)
    # Gradient steps before the last round, with which what is due is done; PPO does it at the end of a round.
    steps = 36 - (kind == "pqn") if kind in ON_POLICY else 35 - 20 + (kind == "sac")
    assert agent._redo.count == steps // 4 * once._redo.count


@pytest.mark.parametrize("kind", ON_POLICY)
def test_recycled_units_have_no_moments_and_stay_pruned_and_what_is_normalised_is_iterated_anew(kind):
    pruning = PruningConfig(sparsity=0.5, begin=5, end=20, every=5)
    given = {"pruning": pruning, "spectral_norm": AGENTS[kind][-1]}
    agent = played(kind, 40, redo=ReDoConfig(every=1_000, tau=100.0, batch=16), **given)
    net, moments = agent.net, (agent._optimizer if kind == "pqn" else agent._adam).state
    recycled = [
        p for of in net.links() for name in of.incoming or (of.layer,) for p in net.get_submodule(name).parameters()
    ]
    assert any((moments[p]["exp_avg"] != 0).any() for p in recycled)
    expected = spectral_norm.vectors(net)
    recycle(agent)
    assert all((moments[p][key] == 0).all() for p in recycled for key in ("exp_avg", "exp_avg_sq"))
    for name, p in net.named_parameters():
        assert name not in agent._pruner.masks or (p[agent._pruner.masks[name] == 0] == 0).all(), name
    for _ in range(spectral_norm.START):
        expected = iterated(net, expected)
    assert_close(spectral_norm.vectors(net), expected)


@pytest.mark.parametrize("kind", AGENTS)
def test_l2_init_pulls_towards_the_first_weights(kind):
    """With a weight that outdoes every loss the way from the initial weights stays short; the temperature of SAC is no weight."""

    def way(weight):
        agent = played(kind, 60, l2_init=weight)
        start = played(kind, 0)
        pairs = zip(nets(agent)[0].named_parameters(), nets(start)[0].parameters(), strict=True)
        return sum(
            float((p - q).detach().square().sum())
            for (name, p), q in pairs
            if name not in ("temperature.log", "log_std")
        )

    assert way(100.0) < 0.5 * way(0.0)


@pytest.mark.parametrize("kind", AGENTS)
def test_spectral_norm_normalises_what_learns_and_what_follows_and_actors_get_it(kind):
    *_, layers = AGENTS[kind]
    agent = played(kind, 45, spectral_norm=layers)
    online, *targets = nets(agent)
    spectral_norm.iterate_(online, 1_000)
    for layer in layers:
        size = np.linalg.svd(online.get_submodule(layer).weight.detach().numpy(), compute_uv=False)[0]
        np.testing.assert_allclose(
            size, 1.0, atol=1e-3
        )  # after 1,000 iterations more; a gap of 0.2 % leaves 2 % of the error
    following = [layer for layer in layers if kind != "sac" or layer.startswith("critic.")]
    for target, layer in product(targets, following):
        assert parametrize.is_parametrized(
            target.get_submodule(layer.removeprefix("critic.") if kind == "sac" else layer), "weight"
        )
    # What acts is a network without u and v, and does what the normalised one does.
    policy = agent.eval_policy()
    policy.load({**agent.weights(), "epsilon": 0.0})
    obs = np.random.default_rng(0).random((4, agent.spec.stack, *agent.spec.frame_shape)).astype(np.float32)
    decides = agent.probe().forward(torch.from_numpy(obs))[0].detach()
    if kind == "spr_moving":
        decides = spr.q_values(targets[0](torch.from_numpy(obs), None), agent.support).detach()
    if kind == "mrq":  # a draw from the softmax: its logits instead
        found = policy._actor(policy._state(torch.from_numpy(obs))).detach()
    elif kind == "sac":
        found = torch.from_numpy(policy.act(obs, Stream(0, "x"))[0])
    elif kind in ("ppo", "ppo_apart"):
        dist = policy._net.distribution(policy._see(obs))
        found = dist if kind == "ppo" else torch.from_numpy(policy._net.family.mode(dist)).clamp(-1.0, 1.0)
    elif kind == "pqn":
        found = policy.net(torch.from_numpy(obs))
    else:
        found = spr.q_values(policy._net(torch.from_numpy(obs), None), agent.support)
    torch.testing.assert_close(found, decides, rtol=1e-5, atol=1e-6)


def test_a_bfloat16_network_cannot_be_normalised():
    with pytest.raises(ValueError, match=r"needs a matrix in float32, got torch\.bfloat16"):
        played("spr", 0, spectral_norm=("projection",), dtype="bfloat16")


def test_on_a_device_redo_and_l2_init_are_those_of_the_cpu():
    """The feed of a GPU, run on the CPU: the same weights to the bit."""
    weights = []
    for feed in ("", "staged", "resident"):
        envs = make("catch", 1, 5)
        config = config_of(
            "spr", redo=ReDoConfig(every=4, tau=0.5, batch=16), l2_init=0.01, spectral_norm=("projection",)
        )
        agent = spr.Agent(config, envs.spec, 1, 5, feed=feed)
        actor, learner = Actor(agent.policy(), envs, Stream(5, "actor")), Learner(agent, 1.0)
        for _ in range(40):
            learner.learn([actor.collect({**agent.weights(), "epsilon": 1.0}, learner.version, 1)])
        assert agent._redo.count > 0
        weights.append(agent.state_dict()["online"])
    for other in weights[1:]:
        assert all(torch.equal(p, other[name]) for name, p in weights[0].items())


def iterated(net, before):
    """What one step of the power iteration makes of these vectors, on the weights that `net` has now."""
    after = {}
    for name in {name.rpartition(".")[0] for name in before}:
        w = net.get_submodule(name).parametrizations["weight"].original.detach()
        v = torch.nn.functional.normalize(w.T.mv(before[f"{name}.u"]), dim=0)
        after |= {f"{name}.v": v, f"{name}.u": torch.nn.functional.normalize(w.mv(v), dim=0)}
    return after


def assert_close(found, expected):
    """The same operations in the same order: equal but for what vectorised sums round, asked 1e-6."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", AGENTS)
def test_a_gradient_step_is_one_power_iteration_of_each_network(kind):
    agent = played(kind, 33, spectral_norm=AGENTS[kind][-1])  # MR.Q's next copy to its target is two steps away
    before = [spectral_norm.vectors(net) for net in nets(agent)]
    agent.update()
    for net, then, moves in zip(nets(agent), before, (True, kind in ("spr", "spr_moving", "sac")), strict=False):
        stays = {
            name: v for name, v in then.items() if not moves or name.startswith("encoder.")
        }  # MR.Q's is not stepped now
        assert_close(spectral_norm.vectors(net), iterated(net, then) | stays)
        assert not moves or any(not torch.equal(v, then[name]) for name, v in spectral_norm.vectors(net).items())


@pytest.mark.parametrize("kind", ["spr", "mrq"])
def test_a_copy_to_the_target_takes_u_and_v_along(kind):
    agent = played(kind, 33, spectral_norm=AGENTS[kind][-1])
    online, target = nets(agent)
    assert any(
        not torch.equal(v, spectral_norm.vectors(target)[name]) for name, v in spectral_norm.vectors(online).items()
    )
    agent._copy_to_target()
    assert_close(spectral_norm.vectors(target), spectral_norm.vectors(online))


@pytest.mark.parametrize("kind", ["spr", "sac"])
def test_a_reset_iterates_anew(kind):
    agent = played(kind, 33, spectral_norm=AGENTS[kind][-1], reset=ResetConfig(every=1_000, shrink=0.5, perturb=0.5))
    expected = [spectral_norm.vectors(net) for net in nets(agent)]
    agent._reset()
    for _ in range(spectral_norm.START):
        expected = [iterated(net, vectors) for net, vectors in zip(nets(agent), expected, strict=True)]
    for net, vectors in zip(nets(agent), expected, strict=True):
        assert_close(spectral_norm.vectors(net), vectors)


@pytest.mark.parametrize("kind", ON_POLICY)
def test_the_pull_is_part_of_the_gradient_that_is_cut(kind):
    agent = played(kind, 20, l2_init=1e5)
    size = torch.stack([p.grad.norm() for p in agent.net.parameters()]).norm().item()
    assert size == pytest.approx(agent.config.grad_clip if kind == "pqn" else agent.config.max_grad_norm, rel=1e-4)


def test_how_much_ppo_explores_is_no_weight_that_is_pulled():
    agent = played("ppo_apart", 10, l2_init=10.0)
    agent.net.log_std.data.fill_(3.0)
    agent.net.log_std.grad.fill_(0.25)
    agent._pull()
    assert agent.net.log_std.grad.item() == 0.25


def test_older_anchors_of_ppo_are_normalised_as_they_acted():
    agent = played("ppo", 20, spectral_norm=("trunk.layers.0", "policy"))
    newest, oldest = agent._older.snapshots
    assert newest.keys() == agent.weights()["net"].keys()
    for snapshot in (newest, oldest):  # 1 but for what the power iteration still lacks
        assert torch.linalg.matrix_norm(snapshot["trunk.layers.0.weight"], 2).item() == pytest.approx(1.0, abs=0.1)


def test_a_round_that_max_kl_ended_is_a_round_for_redo():
    """Of ten epochs of one gradient step each only the first few are done, and what is due is done with them."""
    given = {"epochs": 10, "max_kl": 1e-9, "learning_rate": 0.01}
    envs = make("catch", 1, 5)
    agent = ppo.Agent(config_of("ppo", redo=ReDoConfig(every=1, tau=100.0, batch=16), **given), envs.spec, 1, seed=5)
    actor, learner = Actor(agent.policy(), envs, Stream(5, "actor")), Learner(agent, Fraction(10, 8))
    counts = []
    for _ in range(3):
        learner.learn([actor.collect(agent.weights(), learner.version, 8)])
        counts.append(agent._redo.count)
    assert agent._adam.state[agent.net.policy.bias]["step"] < 30
    assert counts == [32, 64, 96]


def test_the_temperature_is_no_weight_that_is_pulled():
    agent = played("sac", 30, l2_init=10.0)
    agent.net.temperature.log.data.fill_(3.0)
    agent._step("temperature", 2.0 * agent.net.temperature.log)
    assert agent.net.temperature.log.grad.item() == 2.0


@pytest.mark.parametrize("kind", ["spr", "sac", "mrq", *ON_POLICY])
def test_the_initial_weights_of_a_checkpoint_are_those_that_count(kind):
    """Not those of whoever loads it: another seed's here."""
    state = played(kind, 22, l2_init=0.1).state_dict()
    agent_class, _, _, task, _ = AGENTS[kind]
    other = agent_class(config_of(kind, l2_init=0.1), make(task, 1, 6).spec, 1, seed=6)
    assert any(not torch.equal(v, state["initial"][name]) for name, v in other._initial.state_dict().items())
    other.load_state_dict(state)
    assert all(torch.equal(v, state["initial"][name]) for name, v in other._initial.state_dict().items())
