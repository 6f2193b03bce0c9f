"""The actor on a device against the actor: equal rollouts, to the bit, for equal actions, and states that cross."""

import dataclasses
import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlplatform.actor import Actor, FrameStack
from rlplatform.device_actor import DeviceActor, DeviceFrameStack
from rlplatform.device_types import DeviceRollout, DeviceStep, empty_step
from rlplatform.envs import make, make_on_device
from rlplatform.learner import Learner
from rlplatform.streams import Stream
from rlplatform.types import Rollout
from test_actor import SPEC, Random, Scripted

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or importlib.util.find_spec("rlplatform._cuda") is None,
    reason="no CUDA device, or no CUDA kernels: listed in evaluation/bench/GPU.md",
)
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])


class Adapted:
    """A batch of arrays as one of tensors on the CPU: every method by its meaning, none of it ours."""

    device = "cpu"

    def __init__(self, batch: Any) -> None:
        self.batch, self.spec, self.n, self.first_env = batch, batch.spec, batch.n, batch.first_env
        self.waits = 0

    def reset(self, out: torch.Tensor | None = None) -> torch.Tensor:
        return torch.from_numpy(self.batch.reset().copy())

    def step(self, action: torch.Tensor, out: DeviceStep | None = None) -> DeviceStep:
        assert out is not None
        step = self.batch.step(action.numpy())
        for name in DeviceStep._fields[:-1]:
            getattr(out, name).copy_(torch.from_numpy(getattr(step, name)))
        out.final_frame[step.final_env] = torch.from_numpy(step.final_frame)
        return out

    def check(self) -> None:
        self.waits += 1

    def state_dict(self) -> Any:
        return self.batch.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.batch.load_state_dict(state)

    def close(self) -> None: ...


class OnTensors:
    """A policy of arrays, as one of tensors."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def load(self, weights: Any) -> None:
        self.policy.load(weights)

    def act(self, obs: torch.Tensor, stream: Stream) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        action, extra = self.policy.act(obs.cpu().numpy(), stream)
        return torch.from_numpy(action).to(obs.device), {
            k: torch.from_numpy(v).to(obs.device) for k, v in extra.items()
        }


class Chooses:
    """Random actions of a spec; says what it saw, and a number beside."""

    def __init__(self, spec: Any, bias: int = 0) -> None:
        self.spec, self.bias = spec, bias

    def load(self, weights: Any) -> None:
        self.bias = weights["bias"]

    def act(self, obs: np.ndarray, stream: Stream) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        if self.spec.actions:
            action = (stream.integers(self.spec.actions, len(obs)) + self.bias) % self.spec.actions
        else:
            action = (2 * stream.uniform(len(obs), *self.spec.action_shape) - 1).astype(np.float32)
        return action, {"saw": obs.copy(), "log_prob": stream.normal(len(obs))}


def assert_same(ours: DeviceRollout, theirs: Rollout) -> None:
    assert ours._fields == theirs._fields
    for name, expected in theirs._asdict().items():
        found = getattr(ours, name)
        if name in {"first_env", "version"}:
            assert found == expected, name
        elif name == "episodes":
            for field, x, y in zip(expected._fields, found, expected, strict=True):
                assert isinstance(x, np.ndarray)
                assert x.dtype == y.dtype, field
                np.testing.assert_array_equal(x, y, err_msg=field)
        else:
            mapping = name == "extra"
            assert not mapping or found.keys() == expected.keys()
            for x, y in [(found[k], expected[k]) for k in expected] if mapping else [(found, expected)]:
                assert x.cpu().numpy().dtype == y.dtype, name
                np.testing.assert_array_equal(x.cpu(), y, err_msg=name)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_rollouts_are_the_actors(seed: int, lengths: list[int]) -> None:
    """Lives lost, time limits and terminations anywhere; stacks of three; rollouts cut anywhere."""
    actor = Actor(Random(), Scripted(seed), Stream(seed, "actor"))
    envs = Adapted(Scripted(seed))
    ours = DeviceActor(OnTensors(Random()), envs, Stream(seed, "actor"))
    for k, steps in enumerate(lengths):
        assert_same(ours.collect({"bias": k % 2}, k, steps), actor.collect({"bias": k % 2}, k, steps))
        assert envs.waits == k + 1  # once a rollout


def actors(task: str, device: str, stack: int, n: int = 33, seed: int = 3) -> tuple[Actor, DeviceActor]:
    cpu, there = make(task, n, seed, 5), make_on_device(task, n, seed, 5, device=device)
    cpu.spec = there.spec = dataclasses.replace(cpu.spec, stack=stack)
    policies = Chooses(cpu.spec), OnTensors(Chooses(cpu.spec))
    return Actor(policies[0], cpu, Stream(seed, "actor")), DeviceActor(policies[1], there, Stream(seed, "actor"))


@DEVICES
@pytest.mark.parametrize("stack", [1, 4])
@pytest.mark.parametrize("task", ["catch", "minatar/Breakout", "minatar/Seaquest", "control/CartPole"])
def test_native_games_give_the_actors_rollouts(task: str, stack: int, device: str) -> None:
    actor, ours = actors(task, device, stack)
    ended = 0
    for k, steps in enumerate((1, 17, 40)):
        expected = actor.collect({"bias": 0}, k, steps)
        found = ours.collect({"bias": 0}, k, steps)
        assert_same(found, expected)
        assert str(found.frame.device).startswith(device)
        ended += len(expected.final_at)
    assert ended > 10


def test_continuous_actions_and_time_limits() -> None:
    actor, ours = actors("control/Pendulum", "cpu", 1, n=3)
    for k in range(3):
        expected = actor.collect({"bias": 0}, k, 90)
        assert_same(ours.collect({"bias": 0}, k, 90), expected)
    assert expected.truncated.sum() == 3


@DEVICES
@pytest.mark.parametrize("stack", [1, 3])
def test_either_goes_on_from_the_others_state(device: str, stack: int) -> None:
    actor, ours = actors("minatar/Breakout", device, stack)
    actor.collect({"bias": 0}, 0, 21)
    ours.load_state_dict(actor.state_dict())
    assert_same(ours.collect({"bias": 1}, 1, 30), actor.collect({"bias": 1}, 1, 30))
    back, _ = actors("minatar/Breakout", device, stack, seed=8)
    back.load_state_dict(ours.state_dict())
    assert_same(ours.collect({"bias": 0}, 2, 30), back.collect({"bias": 0}, 2, 30))


def test_a_saved_state_is_a_copy() -> None:
    _, ours = actors("control/CartPole", "cpu", 2)  # whose scores change at every step
    ours.collect({"bias": 0}, 0, 5)
    state = ours.state_dict()
    kept = {name: np.array(state[name]) for name in ("stack", "frame", "first", "score", "length")}
    ours.collect({"bias": 0}, 1, 6)
    for name, value in kept.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)
    ours.load_state_dict(state)
    ours.collect({"bias": 0}, 1, 6)
    for name, value in kept.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)


def test_a_rollout_is_the_callers() -> None:
    _, ours = actors("minatar/Breakout", "cpu", 1)
    first = ours.collect({"bias": 0}, 0, 8)
    kept = [x.clone() for x in first if isinstance(x, torch.Tensor)]
    second = ours.collect({"bias": 0}, 1, 8)
    for x, y in zip((x for x in first if isinstance(x, torch.Tensor)), kept, strict=True):
        np.testing.assert_array_equal(x, y)
    assert first.frame.untyped_storage().data_ptr() != second.frame.untyped_storage().data_ptr()


@pytest.mark.parametrize(("what", "step"), [("reward", 5), ("frame", 6)])
def test_nan_from_an_environment_stops_the_run_and_names_it(what: str, step: int) -> None:
    ours = DeviceActor(OnTensors(Random()), Adapted(Scripted(0, poison=(what, step))), Stream(0, "actor"))
    ours.collect({"bias": 0}, 0, 5)
    with pytest.raises(FloatingPointError, match=rf"{what} of environment\(s\) \[5\]"):
        ours.collect({"bias": 0}, 1, 1)  # the last frame, too, which no step of this rollout acts on


@DEVICES
def test_actions_that_are_none_stop_the_run(device: str) -> None:
    envs = make_on_device("catch", 4, 0, device=device)
    policy = OnTensors(Chooses(dataclasses.replace(envs.spec, actions=4)))
    with pytest.raises(ValueError, match=r"action\(s\) not in \[0, 3\)"):
        DeviceActor(policy, envs, Stream(0, "actor")).collect({"bias": 0}, 0, 20)


def test_stacks_are_the_actors() -> None:
    rng = np.random.default_rng(0)
    for stack in (1, 2, 3):
        spec = dataclasses.replace(SPEC, stack=stack)
        ours, theirs = DeviceFrameStack(5, spec, "cpu"), FrameStack(5, spec)
        for _ in range(9):
            frame, first = rng.normal(size=(5, 2)).astype(np.float32), rng.random(5) < 0.3
            before, kept = ours.obs, ours.obs.clone()
            found = ours.push(torch.from_numpy(frame), torch.from_numpy(first))
            np.testing.assert_array_equal(found, theirs.push(frame, first))
            np.testing.assert_array_equal(before, kept)  # a policy may keep what it was shown


class Counts:
    """An agent that looks at nothing."""

    spec, replay, ready = SPEC, None, True

    def observe(self, rollouts: Any) -> None:
        self.seen = rollouts

    def update(self) -> dict[str, float]:
        return {}


def test_a_learner_counts_the_same_steps_and_games() -> None:
    actor, ours = actors("catch", "cpu", 1)
    learners = [Learner(Counts(), 0.5) for _ in range(2)]
    for k in range(3):
        learners[0].learn([actor.collect({"bias": 0}, k, 11)])
        learners[1].learn([ours.collect({"bias": 0}, k, 11)])
        assert learners[0].ended == learners[1].ended
        assert len(learners[0].ended) > 30
    assert learners[0].steps == learners[1].steps == 3 * 11 * 33
    assert learners[0].updates == learners[1].updates == 3 * 11 * 33 // 2


def test_room_is_of_the_spec() -> None:
    room = empty_step(dataclasses.replace(SPEC, frame_shape=(4, 5), frame_dtype="uint8"), "cpu", 3, 2)
    assert [tuple(x.shape) for x in room] == [(3, 2, 4, 5), (3, 2), (3, 2), (3, 2), (3, 2), (3, 2, 4, 5)]
    assert [x.dtype for x in room] == [torch.uint8, torch.float32, torch.bool, torch.bool, torch.bool, torch.uint8]
