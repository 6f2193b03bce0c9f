"""Stacked observations of rollouts, against what the policy saw."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlplatform.actor import Actor
from rlplatform.stacks import Stacks
from rlplatform.streams import Stream
from test_actor import SPEC, Random, Scripted

CPU = torch.device("cpu")


def push(stacks, rollout):
    parts = (rollout.frame, rollout.first, rollout.final_frame, rollout.final_at)
    return stacks.push(*map(torch.from_numpy, parts), first_env=rollout.first_env)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 4), st.booleans())
def test_observations_are_what_the_policy_saw(seed, lengths, depth, both):
    """Stacks that reach into earlier rollouts and over ends of episodes, with rollouts shorter than a stack, of two actors in turn."""
    spec, rng = dataclasses.replace(SPEC, stack=depth), np.random.default_rng(seed)
    envs = [Scripted(seed + actor) for actor in range(1 + both)]
    for env in envs:
        env.spec = spec
    actors = [Actor(Random(), env, Stream(seed, f"actor/{k}")) for k, env in enumerate(envs)]
    stacks = Stacks(spec, 6 + 2 * both, CPU)
    for k, steps in enumerate(lengths):
        if k == 1:  # a state goes on
            other = Stacks(spec, 6 + 2 * both, CPU)
            other.load_state_dict(stacks.state_dict())
            stacks = other
        for number, actor in enumerate(actors):
            rollout = actor.collect({"bias": 0}, k, steps)
            rollout = rollout._replace(first_env=4 + 2 * number)
            seen, saw = push(stacks, rollout), rollout.extra["saw"]
            size = 2 * steps
            np.testing.assert_array_equal(seen[:size].unflatten(0, (steps, 2)).numpy(), saw)
            shuffled = rng.permutation(size)
            np.testing.assert_array_equal(
                seen[torch.from_numpy(shuffled)].numpy(), saw.reshape(size, depth, -1)[shuffled]
            )
            assert len(seen.rows) == size + len(rollout.final_at)
            for row, frame, (t, i) in zip(seen[size:].numpy(), rollout.final_frame, rollout.final_at, strict=True):
                np.testing.assert_array_equal(row, [*saw[t, i, 1:], frame])


def test_more_environments_than_were_announced_are_refused():
    rollout = Actor(Random(), Scripted(1), Stream(1, "actor")).collect({"bias": 0}, 0, 3)
    with pytest.raises(ValueError, match="5 environments were announced, 6 are there"):
        push(Stacks(SPEC, 5, CPU), rollout)
