"""ReDo, L2 Init and spectral normalisation in every agent: off they are not there, on they do what they say, and a saved agent goes on."""

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

from going_on import assert_goes_on
from rlplatform.actor import Actor
from rlplatform.agents import mrq, sac, spr
from rlplatform.agents.mrq_config import Config as MrqConfig
from rlplatform.agents.spr_config import Config as SprConfig
from rlplatform.envs import make
from rlplatform.learner import Learner
from rlplatform.streams import Stream
from rlplatform.techniques import spectral_norm
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
AGENTS = {  # class, configuration, task, layers that can be normalised
    "spr": (spr.Agent, SprConfig, {**SPR, "target_period": 7}, "catch", ("projection", "head")),
    "spr_moving": (spr.Agent, SprConfig, {**SPR, "target_tau": 0.1, "act_with_target": True}, "catch", ("projection",)),
    "sac": (sac.Agent, sac.Config, {"hidden": 16, "batch": 8, "capacity": 500, "min_replay": 20}, "control/Pendulum", ("critic.first.linear2", "actor.linear2")),
    "mrq": (mrq.Agent, MrqConfig, {"hidden": 16, "action_embedding": 8, "batch": 8, "capacity": 500, "min_replay": 20, "target_period": 5}, "catch", ("value.first.linear3", "policy.linear2", "encoder.state.linear2")),
}  # fmt: skip
SCALARS = {"spr": ("redo", "initial", "spectral_norm", "noise"), "sac": ("redo", "initial", "spectral_norm", "noise")}


def config_of(kind, **techniques):
    _, config, given, _, _ = AGENTS[kind]
    return config(**given, **techniques)


def played(kind, rounds, **techniques):
    agent_class, _, _, task, _ = AGENTS[kind]
    envs = make(task, 1, 5)
    agent = agent_class(config_of(kind, **techniques), envs.spec, 1, seed=5)
    actor, learner = Actor(agent.policy(), envs, Stream(5, "actor")), Learner(agent, 1.0)
    for _ in range(rounds):
        learner.learn([actor.collect(agent.weights(), learner.version, 1)])
    return agent


def nets(agent):
    """What learns, and what follows it; SAC's target is its critics alone."""
    online = agent.net if isinstance(agent, sac.Agent) else agent.online
    return online, agent.target


@pytest.mark.parametrize("kind", AGENTS)
def test_a_saved_agent_goes_on_bit_for_bit_with_all_of_them(tmp_path, kind):
    agent_class, _, _, task, layers = AGENTS[kind]
    resets = {"reset": ResetConfig(every=9, until=100, shrink=0.9, perturb=0.1)} if kind != "mrq" else {}
    config = config_of(kind, redo=ReDoConfig(every=4, tau=0.5, batch=16), l2_init=0.01, spectral_norm=layers, **resets)
    state = assert_goes_on(tmp_path, agent_class, config, task, 1.0, ("redo", "initial", "spectral_norm", "noise"))
    assert state["redo"]["count"] > 0
    assert state["spectral_norm"]["online"].keys() == {f"{layer}.{which}" for layer in layers for which in "uv"}


@pytest.mark.parametrize("kind", AGENTS)
def test_off_they_leave_no_trace(kind):
    state = played(kind, 25).state_dict()
    assert not {"redo", "initial", "spectral_norm"} & state.keys()
    assert not any("parametrizations" in name for name in state["online"])


@pytest.mark.parametrize("kind", AGENTS)
def test_redo_changes_dormant_units_of_what_learns_and_draws_from_its_own_stream(kind):
    """One recycling with tau so large that all units are dormant, and one with none, from the same state."""
    agent = played(kind, 40, redo=ReDoConfig(every=1_000, tau=100.0, batch=16))
    other = played(kind, 40, redo=ReDoConfig(every=1_000, tau=0.0, batch=16))
    before = {name: p.detach().clone() for name, p in nets(agent)[0].named_parameters()}
    target = [p.detach().clone() for p in nets(agent)[1].parameters()]
    others = [agent._noise, agent.replay.stream, getattr(agent, "_reset_draws", agent._noise)]
    streams = [dict(stream.state_dict()) for stream in others]
    agent._recycle()
    assert [stream.state_dict() for stream in others] == streams
    assert agent._redo.stream.counter > 0
    assert all(torch.equal(p, q) for p, q in zip(nets(agent)[1].parameters(), target, strict=True))
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
    other._recycle()
    dead = other._redo.count
    assert dead < 16  # of some hundred
    assert dead > 0 or all(torch.equal(p, kept[name]) for name, p in nets(other)[0].named_parameters())


@pytest.mark.parametrize("kind", AGENTS)
def test_redo_happens_every_so_many_gradient_steps(kind):
    agent = played(kind, 36, redo=ReDoConfig(every=4, tau=100.0, batch=16))
    once = played(kind, 40, redo=ReDoConfig(every=1_000, tau=100.0, batch=16))
    once._recycle()
    steps = 36 - 20 + (kind == "sac")  # gradient steps; what is due is done with the next round
    assert agent._redo.count == (steps - 1) // 4 * once._redo.count


@pytest.mark.parametrize("kind", AGENTS)
def test_l2_init_pulls_towards_the_first_weights(kind):
    """With a weight that outdoes every loss the way from the initial weights stays short; the temperature of SAC is no weight."""

    def way(weight):
        agent = played(kind, 60, l2_init=weight)
        start = played(kind, 0)
        pairs = zip(nets(agent)[0].named_parameters(), nets(start)[0].parameters(), strict=True)
        return sum(
            float((p - q).detach().square().sum()) for (name, p), q in pairs if not name.startswith("temperature")
        )

    assert way(100.0) < 0.5 * way(0.0)


@pytest.mark.parametrize("kind", AGENTS)
def test_spectral_norm_normalises_what_learns_and_what_follows_and_actors_get_it(kind):
    *_, layers = AGENTS[kind]
    agent = played(kind, 45, spectral_norm=layers)
    online, target = nets(agent)
    spectral_norm.iterate_(online, 200)
    for layer in layers:
        size = np.linalg.svd(online.get_submodule(layer).weight.detach().numpy(), compute_uv=False)[0]
        np.testing.assert_allclose(
            size, 1.0, atol=1e-3
        )  # after 200 iterations more; a gap of 1 % leaves 2 % of the error
    following = [layer for layer in layers if kind != "sac" or layer.startswith("critic.")]
    for layer in following:
        assert parametrize.is_parametrized(
            target.get_submodule(layer.removeprefix("critic.") if kind == "sac" else layer), "weight"
        )
    # What acts is a network without u and v, and does what the normalised one does.
    policy = agent.eval_policy()
    policy.load({**agent.weights(), "epsilon": 0.0})
    obs = np.random.default_rng(0).random((4, agent.spec.stack, *agent.spec.frame_shape)).astype(np.float32)
    decides = agent.probe().forward(torch.from_numpy(obs))[0].detach()
    if kind == "spr_moving":
        decides = spr.q_values(target(torch.from_numpy(obs), None), agent.support).detach()
    if kind == "mrq":  # a draw from the softmax: its logits instead
        found = policy._actor(policy._state(torch.from_numpy(obs))).detach()
    elif kind == "sac":
        found = torch.from_numpy(policy.act(obs, Stream(0, "x"))[0])
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
    for net, then, moves in zip(nets(agent), before, (True, kind in ("spr", "spr_moving", "sac")), strict=True):
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


def test_the_temperature_is_no_weight_that_is_pulled():
    agent = played("sac", 30, l2_init=10.0)
    agent.net.temperature.log.data.fill_(3.0)
    agent._step("temperature", 2.0 * agent.net.temperature.log)
    assert agent.net.temperature.log.grad.item() == 2.0


@pytest.mark.parametrize("kind", ["spr", "sac", "mrq"])
def test_the_initial_weights_of_a_checkpoint_are_those_that_count(kind):
    """Not those of whoever loads it: another seed's here."""
    state = played(kind, 22, l2_init=0.1).state_dict()
    agent_class, _, _, task, _ = AGENTS[kind]
    other = agent_class(config_of(kind, l2_init=0.1), make(task, 1, 6).spec, 1, seed=6)
    assert any(not torch.equal(v, state["initial"][name]) for name, v in other._initial.state_dict().items())
    other.load_state_dict(state)
    assert all(torch.equal(v, state["initial"][name]) for name, v in other._initial.state_dict().items())
