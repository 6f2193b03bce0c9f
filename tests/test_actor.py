"""The actor against a plain replay of what its environments were told, and workers at every lag."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlplatform.actor import Actor, FrameStack
from rlplatform.envs import make
from rlplatform.streams import Stream
from rlplatform.types import Spec, Step
from rlplatform.workers.local import LocalWorkers

SPEC = Spec(frame_shape=(2,), frame_dtype="float32", stack=3, actions=2)


class Scripted:
    """Two environments whose steps are read from a list, drawn from a seed: (reward, terminated, truncated, reset) each."""

    spec, n, first_env, device = SPEC, 2, 4, "cpu"

    def __init__(self, seed: int, steps: int = 60, poison: tuple[str, int] | None = None) -> None:
        rng = np.random.default_rng(seed)
        self.frames = rng.normal(size=(steps + 1, 2, 2)).astype(np.float32)
        self.finals = rng.normal(size=(steps, 2, 2)).astype(np.float32)
        self.rewards = rng.normal(size=(steps, 2)).astype(np.float32)
        kind = rng.choice(4, p=[0.7, 0.1, 0.1, 0.1], size=(steps, 2))  # goes on, terminated, truncated, life lost
        self.terminated, self.truncated, self.restarted = (
            (kind == 1) | (kind == 3),
            kind == 2,
            (kind == 1) | (kind == 2),
        )
        if poison is not None:
            what, at = poison
            (self.rewards if what == "reward" else self.frames)[at, 1] = np.nan
        self.actions: list[np.ndarray] = []
        self.t = 0

    def reset(self) -> np.ndarray:
        return self.frames[0]

    def step(self, action: np.ndarray) -> Step:
        t, self.t = self.t, self.t + 1
        self.actions.append(action)
        reset = self.restarted[t]
        return Step(
            self.frames[t + 1], self.rewards[t], self.terminated[t], self.truncated[t], reset, self.finals[t][reset], np.flatnonzero(reset)
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {"t": self.t}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.t = state["t"]

    def close(self) -> None: ...


class Random:
    """Draws its actions, and says what it saw."""

    def __init__(self) -> None:
        self.bias = 0

    def load(self, weights: Any) -> None:
        self.bias = weights["bias"]

    def act(self, obs: np.ndarray, stream: Stream) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        return (stream.integers(2, len(obs)) + self.bias) % 2, {"saw": obs.copy()}


def stacks_by_definition(frames: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The last three frames of each observation, zero where they would reach behind an episode's first."""
    out = np.zeros((*first.shape, 3, 2), np.float32)
    for t, i in np.ndindex(first.shape):
        for back in range(3):
            if t - back < 0 or first[t - back + 1 : t + 1, i].any():
                break
            out[t, i, 2 - back] = frames[t - back, i]
    return out


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_rollouts_are_what_the_environments_did(seed: int, lengths: list[int]) -> None:
    envs = Scripted(seed)
    actor = Actor(Random(), envs, Stream(seed, "actor"))
    rollouts = [actor.collect({"bias": 0}, k, steps) for k, steps in enumerate(lengths)]
    steps = sum(lengths)
    for name, expected in {
        "frame": envs.frames[:steps],
        "reward": envs.rewards[:steps],
        "terminated": envs.terminated[:steps],
        "truncated": envs.truncated[:steps],
        "action": np.stack(envs.actions),
    }.items():
        np.testing.assert_array_equal(np.concatenate([getattr(rollout, name) for rollout in rollouts]), expected, name)
    first = np.ones((steps, 2), bool)
    first[1:] = (envs.terminated | envs.truncated)[: steps - 1]
    np.testing.assert_array_equal(np.concatenate([rollout.first for rollout in rollouts]), first)
    saw = np.concatenate([rollout.extra["saw"] for rollout in rollouts])
    np.testing.assert_array_equal(saw, stacks_by_definition(envs.frames, first))
    begin, score, length = 0, np.zeros(2), np.zeros(2, int)
    for k, rollout in enumerate(rollouts):
        assert (rollout.version, rollout.first_env) == (k, 4)
        at = np.argwhere(envs.restarted[begin : begin + lengths[k]])
        np.testing.assert_array_equal(rollout.final_at, at)
        np.testing.assert_array_equal(
            rollout.final_frame, [envs.finals[begin + t, i] for t, i in at] or np.zeros((0, 2))
        )
        rows = []
        for t in range(lengths[k]):
            score += envs.rewards[begin + t]
            length += 1
            for i in np.flatnonzero(envs.restarted[begin + t]):
                rows.append((t, 4 + i, score[i], length[i]))
                score[i], length[i] = 0.0, 0
        assert list(zip(*rollout.episodes, strict=True)) == rows  # a life lost is no row
        begin += lengths[k]


def test_a_saved_actor_goes_on_as_if_it_had_not_been() -> None:
    one = Actor(Random(), Scripted(7), Stream(7, "actor"))
    one.collect({"bias": 0}, 0, 13)
    two = Actor(Random(), Scripted(7), Stream(8, "another"))
    two.load_state_dict(one.state_dict())
    a, b = one.collect({"bias": 1}, 1, 20), two.collect({"bias": 1}, 1, 20)
    for name, x, y in zip(a._fields, a, b, strict=True):
        if name == "extra":
            x, y = x["saw"], y["saw"]  # noqa: PLW2901
        for left, right in zip(x, y, strict=True) if name == "episodes" else [(x, y)]:
            np.testing.assert_array_equal(left, right, name)


class Forgetful(Scripted):
    """Cannot be saved; each reset begins another list of steps."""

    def reset(self) -> np.ndarray:
        self.t = 0
        return super().reset()

    def state_dict(self) -> None:
        return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise AssertionError("there is no state to load")


@pytest.mark.parametrize("used", [0, 9])
def test_where_environments_cannot_be_saved_their_games_begin_anew(used: int) -> None:
    """All but the actor's own stream is that of a new actor: frames, `first`, stacks, scores."""
    one = Actor(Random(), Forgetful(7), Stream(7, "actor"))
    one.collect({"bias": 0}, 0, 13)
    assert one.state_dict()["envs"] is None
    two, new = (Actor(Random(), Forgetful(3), Stream(8, "another")) for _ in range(2))
    if used:
        two.collect({"bias": 0}, 0, used)
    two.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(two.state_dict()["stream"]["key"], Stream(7, "actor").key)
    assert two.state_dict()["stream"]["counter"] == one.state_dict()["stream"]["counter"] > 0
    rollout, expected = two.collect({"bias": 0}, 1, 30), new.collect({"bias": 0}, 1, 30)
    assert rollout.first[0].all()
    for name in ("frame", "first", "reward", "final_frame"):
        np.testing.assert_array_equal(getattr(rollout, name), getattr(expected, name), name)
    np.testing.assert_array_equal(rollout.extra["saw"], expected.extra["saw"])
    for x, y in zip(rollout.episodes, expected.episodes, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(("what", "step"), [("reward", 5), ("frame", 6)])
def test_nan_from_an_environment_stops_the_run_and_names_it(what: str, step: int) -> None:
    actor = Actor(Random(), Scripted(0, poison=(what, step)), Stream(0, "actor"))
    actor.collect({"bias": 0}, 0, 5)
    with pytest.raises(FloatingPointError, match=rf"{what} of environment\(s\) \[5\]"):
        actor.collect({"bias": 0}, 1, 1)


def test_a_stack_forgets_only_where_it_is_told() -> None:
    stack = FrameStack(2, SPEC)
    for value in (1.0, 2.0, 3.0, 4.0):
        obs = stack.push(np.full((2, 2), value, np.float32), np.array([False, value == 3.0]))
    assert obs[:, :, 0].tolist() == [[2.0, 3.0, 4.0], [0.0, 3.0, 4.0]]


@pytest.mark.parametrize("lag", [0, 2])
def test_workers_collect_in_order_with_the_weights_of_the_call(lag: int) -> None:
    """At lag > 0 the weights are copied when they are handed over: what the learner does to them later is not seen."""
    actors = [Actor(Random(), make("catch", 2, seed=3, first_env=2 * i), Stream(3, "actor", i)) for i in range(2)]
    alone = [Actor(Random(), make("catch", 2, seed=3, first_env=2 * i), Stream(3, "actor", i)) for i in range(2)]
    workers = LocalWorkers(actors, lag)
    weights = {"bias": torch.zeros((), dtype=torch.int64).numpy(), "net": {"w": torch.ones(3)}}
    wait = workers.start(weights, 5, 30)
    if lag:
        weights["bias"][...] = 1
    rollouts = wait()
    assert [rollout.first_env for rollout in rollouts] == [0, 2]
    for rollout, actor in zip(rollouts, alone, strict=True):
        expected = actor.collect({"bias": 0}, 5, 30)
        assert rollout.version == 5
        np.testing.assert_array_equal(rollout.action, expected.action)
        np.testing.assert_array_equal(rollout.frame, expected.frame)
    workers.close()
