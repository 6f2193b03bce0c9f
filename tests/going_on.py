"""A saved agent goes on bit for bit: what the tests of several agents ask alike."""

import copy
from collections.abc import Mapping

import torch

from rlplatform.actor import Actor
from rlplatform.envs import make
from rlplatform.learner import Learner
from rlplatform.streams import Stream


def assert_goes_on(folder, agent_class, config, task, replay_ratio, scalars, rollout=(1, 1), rounds=(30, 20)):
    """After 30 rounds of one step on one environment and 20 more, two agents are equal, one of which was loaded in between from what
    the other saved. `scalars`: parts of the state beside networks and moments that are compared. `rollout`: steps of a round, and
    environments. Returns the first one's state."""
    steps, n = rollout

    def made():
        envs = make(task, n, 5)
        agent = agent_class(config, envs.spec, n, seed=5)
        return agent, Actor(agent.policy(), envs, Stream(5, "actor")), Learner(agent, replay_ratio)

    def play(parts, rounds):
        agent, actor, learner = parts
        return [learner.learn([actor.collect(agent.weights(), learner.version, steps)]) for _ in range(rounds)]

    first, second = made(), made()
    play(first, rounds[0])
    has_replay = first[0].replay is not None
    kept, replay = [part.state_dict() for part in first[1:]], first[0].replay.save(folder) if has_replay else None
    copied = copy.deepcopy(kept[1])
    metrics = play(first, rounds[1])
    for name, t in copied["agent"]["online"].items():
        assert torch.equal(kept[1]["agent"]["online"][name], t), f"{name} of a saved state changed"
    second[1].load_state_dict(kept[0])
    second[2].load_state_dict(kept[1])
    if has_replay:
        second[0].replay.load(folder, replay)
    again = play(second, rounds[1])
    assert [{k: float(v) for k, v in m.items()} for m in metrics] == [
        {k: float(v) for k, v in m.items()} for m in again
    ]
    one, other = first[0].state_dict(), second[0].state_dict()
    for part in ("online", "target") if "target" in one else ("online",):
        assert all(torch.equal(t, other[part][name]) for name, t in one[part].items())
    for name, moments in one["adam"].items():
        assert all(torch.equal(t, other["adam"][name][key]) for key, t in moments.items())
    for name in scalars:
        assert_same(one[name], other[name], name)
    return one


def assert_same(one, other, name):
    """Two parts of states, to the bit."""
    if isinstance(one, Mapping):
        assert one.keys() == other.keys(), name
        for key, value in one.items():
            assert_same(value, other[key], f"{name}/{key}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), name
    else:
        assert one == other, name
