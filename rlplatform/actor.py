"""The actor: N environments and a policy; turns weights into experience. No I/O, no clock, no Ray."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlplatform.streams import Stream
from rlplatform.types import Array, EnvBatch, Episodes, Policy, Rollout, Spec, State, Step, Weights


class FrameStack:
    """The newest `stack` frames of N environments, zero before an episode's first frame."""

    def __init__(self, n: int, spec: Spec) -> None:
        self.obs: Array = np.zeros((n, spec.stack, *spec.frame_shape), spec.frame_dtype)  # oldest first

    def push(self, frame: Array, first: Array) -> Array:
        """Append frame [N, *frame]; where first [N] bool, forget the older ones. The observation, [N, stack, *frame], is
        overwritten by the next call."""
        self.obs[:, :-1] = self.obs[:, 1:]
        self.obs[first] = 0
        self.obs[:, -1] = frame
        return self.obs


class Actor:
    """Turns weights into experience: `collect` is a function of (state, weights, version), and the state can be saved.

    Where the environments cannot be saved, loading begins their games anew: the next rollout has `first` where nothing ended
    before, which a replay takes for a cut.
    """

    def __init__(self, policy: Policy, envs: EnvBatch, stream: Stream) -> None:
        self._policy, self._envs, self._stream = policy, envs, stream
        self._stack = FrameStack(envs.n, envs.spec)
        self._begin()

    def _begin(self) -> None:
        n = self._envs.n
        self._frame = self._envs.reset()
        self._first: Array = np.ones(n, bool)
        self._obs = self._stack.push(self._frame, self._first)
        self._score, self._length = np.zeros(n), np.zeros(n, np.int64)  # of the game under way

    def collect(self, weights: Weights, version: int, steps: int) -> Rollout:
        """Act for `steps` agent steps in all environments with these weights."""
        self._policy.load(weights)
        rows: list[tuple[Any, ...]] = []
        finals: list[Array] = []
        final_at: list[tuple[int, int]] = []
        ended: list[tuple[int, int, float, int]] = []
        for t in range(steps):
            frame, first = self._frame, self._first
            action, extra = self._policy.act(self._obs, self._stream)
            step = self._envs.step(action)
            _check_finite(step, self._envs)
            rows.append((frame, first, action, step.reward, step.terminated, step.truncated, extra))
            finals.append(step.final_frame)
            final_at.extend((t, i) for i in step.final_env)
            self._score += step.reward
            self._length += 1
            for i in step.final_env:
                ended.append((t, self._envs.first_env + i, self._score[i], self._length[i]))
            self._score[step.reset] = 0.0
            self._length[step.reset] = 0
            self._frame, self._first = step.frame, step.terminated | step.truncated
            self._obs = self._stack.push(self._frame, self._first)
        *columns, extras = zip(*rows, strict=True)
        extra_rows = {**_stack_extras(extras), **closing(self._policy, self._obs)}
        frame, first, action, reward, terminated, truncated = (np.stack(column) for column in columns)
        return Rollout(
            frame,
            first,
            action,
            reward,
            terminated,
            truncated,
            final_frame=np.concatenate(finals),
            final_at=np.array(final_at, np.int64).reshape(-1, 2),
            extra=extra_rows,
            episodes=_episodes(ended),
            first_env=self._envs.first_env,
            version=version,
        )

    def state_dict(self) -> State:
        return {
            "envs": self._envs.state_dict(),
            "stream": self._stream.state_dict(),
            "stack": self._stack.obs.copy(),
            "frame": self._frame.copy(),
            "first": self._first.copy(),
            "score": self._score.copy(),
            "length": self._length.copy(),
        }

    def load_state_dict(self, state: State) -> None:
        self._stream.load_state_dict(state["stream"])
        if state["envs"] is None:
            self._begin()
            return
        self._envs.load_state_dict(state["envs"])
        self._stack.obs[:] = state["stack"]
        self._obs = self._stack.obs
        self._frame, self._first = np.array(state["frame"]), np.array(state["first"])
        self._score[:], self._length[:] = state["score"], state["length"]


def uniform_actions(spec: Spec, n: int, stream: Stream) -> Array:
    """What acts before anything is learned: [n] int64, or [n, A] float32 uniform in [-1, 1)."""
    if spec.actions:
        return stream.integers(spec.actions, n)
    return (2.0 * stream.uniform(n, *spec.action_shape) - 1.0).astype(np.float32)


def closing(policy: Any, obs: Any) -> Mapping[str, Any]:
    """What a policy that has `close` says of the observations [N, stack, *frame] after a rollout's last step."""
    said: Mapping[str, Any] = policy.close(obs) if hasattr(policy, "close") else {}
    return said


def _check_finite(step: Step, envs: EnvBatch) -> None:
    """A NaN from a simulator poisons a replay for good: stop at the step that made it."""
    for what, values in (("reward", step.reward), ("frame", step.frame)):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            wrong = sorted({int(i) + envs.first_env for i in np.argwhere(~np.isfinite(values))[:, 0]})
            raise FloatingPointError(f"NaN or infinity in the {what} of environment(s) {wrong}")


def _stack_extras(extras: tuple[Mapping[str, Array], ...]) -> dict[str, Array]:
    return {name: np.stack([extra[name] for extra in extras]) for name in extras[0]}


def _episodes(ended: list[tuple[int, int, float, int]]) -> Episodes:
    step, env, score, length = zip(*ended, strict=True) if ended else ((), (), (), ())
    return Episodes(
        np.array(step, np.int64), np.array(env, np.int64), np.array(score, np.float64), np.array(length, np.int64)
    )
