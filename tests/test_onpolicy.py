"""Rounds of rollouts, running moments against numpy, and the way of a policy."""

import math

import numpy as np
import pytest
import torch

from rlplatform.actor import Actor
from rlplatform.onpolicy import RunningMoments, join
from rlplatform.streams import Stream
from rlplatform.techniques import policy_path
from rlplatform.techniques.gtr import categorical_kl
from rlplatform.techniques.policy_path import PolicyPath, UpdateCosine
from test_actor import Random, Scripted


class Closing(Random):
    """Says what it sees after the last step, too."""

    def close(self, obs):
        return {"last_value": obs[:, -1, 0].copy()}


def rounds(seeds, lengths):
    """Rounds of as many actors as there are seeds, and the environments that they played."""
    envs = [Scripted(seed) for seed in seeds]
    actors = [Actor(Closing(), env, Stream(seed, "actor")) for seed, env in zip(seeds, envs, strict=True)]
    return envs, [[actor.collect({"bias": 0}, 0, steps) for actor in actors] for steps in lengths]


def test_rollouts_lie_side_by_side_in_order_of_actors():
    envs, (rollouts,) = rounds((3, 4), (20,))
    given = join(rollouts)
    np.testing.assert_array_equal(given.reward, np.concatenate([env.rewards[:20] for env in envs], 1))
    np.testing.assert_array_equal(given.extra["last_value"], [np.concatenate([env.frames[20, :, 0] for env in envs])])
    for (t, i), frame in zip(given.final_at, given.final_frame, strict=True):
        np.testing.assert_array_equal(frame, envs[i // 2].finals[t, i % 2])
    assert {i // 2 for _, i in given.final_at} == {0, 1}
    assert np.shares_memory(join(rollouts[:1]).frame, rollouts[0].frame)


def test_running_moments_are_those_of_all_samples():
    rng = np.random.default_rng(0)
    parts = [rng.normal(3.0, 2.0, (size, 4)).astype(np.float32) for size in (1, 7, 300)]
    moments = RunningMoments(4)
    assert moments.variance.tolist() == [1.0] * 4
    for k, part in enumerate(parts):
        moments.add(part)
        so_far = np.concatenate(parts[: k + 1]).astype(np.float64)
        np.testing.assert_allclose(moments.mean, so_far.mean(0), rtol=1e-12)
        np.testing.assert_allclose(moments.variance, so_far.var(0), rtol=1e-10, atol=1e-15)
    other = RunningMoments(4)
    other.load_state_dict(moments.state_dict())
    other.add(parts[0])
    assert other.count == 309
    assert moments.count == 308


def policies(*logits):
    return [torch.tensor([row], dtype=torch.float64).log_softmax(-1) for row in logits]


def test_a_straight_path_is_efficient_and_a_way_there_and_back_is_not(monkeypatch):
    """Small steps of logits: distances add up on the way out, to the second order."""
    monkeypatch.setattr(policy_path, "WINDOW", 2)
    for ways, expected in (([0.0, 0.1, 0.2], 1.0), ([0.0, 0.1, 0.0], 0.0), ([0.0, 0.0, 0.0], 0.0)):
        path = PolicyPath(categorical_kl)
        path.begin(torch.zeros(1))
        for policy in policies(*([x, 0.0] for x in ways)):
            path.note(policy)
        assert path.efficiency.item() == pytest.approx(expected, abs=0.01)
        assert path.states is None


def test_path_efficiency_by_definition(monkeypatch):
    monkeypatch.setattr(policy_path, "WINDOW", 2)
    a, b, c = policies([0.0, 0.5, 1.0], [1.0, -0.5, 0.0], [0.3, 0.3, 0.1])
    path = PolicyPath(categorical_kl)
    path.begin(torch.zeros(1))
    path.note(a), path.note(b)
    saved = PolicyPath(categorical_kl)
    saved.load_state_dict(path.state_dict())
    assert saved.efficiency is None

    def d(p, q):
        return math.sqrt(2.0 * categorical_kl(p, q).item())

    for each in (path, saved):
        each.note(c)
        assert each.efficiency.item() == pytest.approx(d(a, c) / (d(a, b) + d(b, c)), rel=1e-12)


def test_the_cosine_of_successive_changes():
    cosine, found = UpdateCosine(), []
    for p in ([0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [3.0, 5.0], [2.0, 4.0]):
        cosine.note({"a": torch.tensor(p[:1]), "b": torch.tensor(p[1:])})
        found.append(None if cosine.cosine is None else round(cosine.cosine.item(), 6))
    assert found == [None, None, 1.0, 0.0, round(-1.0 / math.sqrt(2.0), 6)]
