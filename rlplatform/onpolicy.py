"""What agents without a replay learn from: the rollouts of one round side by side, and their observations, stacked as the actor saw
them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlplatform.types import Array, Rollout, Spec, State


class Round(NamedTuple):
    """The rollouts of one round, T steps of N environments in all. As a Rollout, the environments counted from 0."""

    frame: Array  # [T, N, *frame]
    first: Array  # [T, N] bool
    action: Array  # [T, N] int64 or [T, N, A] float32
    reward: Array  # [T, N] float32
    terminated: Array  # [T, N] bool
    truncated: Array  # [T, N] bool
    final_frame: Array  # [E, *frame]
    final_at: Array  # [E, 2] int64: (t, i), in order of the rollouts
    extra: Mapping[str, Array]  # [T, N, ...]; what the policy said at the close, [1, N, ...]


CLOSING = "last_"  # names of what a policy's `close` says begin so


def join(rollouts: list[Rollout]) -> Round:
    """Lay the rollouts of one round side by side, in order of actors. Of a single one nothing is copied."""
    before = np.cumsum([0, *(rollout.reward.shape[1] for rollout in rollouts)])
    at = [rollout.final_at + np.array([0, first_env]) for rollout, first_env in zip(rollouts, before, strict=False)]

    def side_by_side(arrays: list[Array]) -> Array:
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, 1)

    grids: dict[str, Any] = {
        name: side_by_side([getattr(rollout, name) for rollout in rollouts]) for name in Round._fields[:6]
    }
    extra = {
        name: side_by_side([_row(name, rollout.extra[name]) for rollout in rollouts]) for name in rollouts[0].extra
    }
    final_frame = np.concatenate([rollout.final_frame for rollout in rollouts])
    return Round(**grids, final_frame=final_frame, final_at=np.concatenate(at), extra=extra)


def _row(name: str, array: Array) -> Array:
    return array[None] if name.startswith(CLOSING) else array


@dataclass(frozen=True)
class Observations:
    """The observations of a round, put together where they are asked for: a frame lies in memory once."""

    frames: Tensor  # [R, *frame]; channels last: [R, height, width, channels]
    rows: Tensor  # [M, stack] int64: the frames of each observation, oldest first
    channels_last: bool = False  # of frames [channels, height, width]

    def __getitem__(self, index: Tensor) -> Tensor:
        """Observations [B, stack, *frame], of index [B] int64: t * N + i; those after T * N are the true final ones."""
        rows = self.rows[index]
        if self.channels_last:  # the frames of a stack of 1
            return self.frames.index_select(0, rows.flatten()).permute(0, 3, 1, 2)[:, None]
        return self.frames.index_select(0, rows.flatten()).view(*rows.shape, *self.frames.shape[1:])

    def as_floats(self) -> "Observations":
        """The same numbers as float32, of frames [channels, height, width] that are not stacked: laid out as a convolution wants them
        once, for whoever reads a round several times. Four times the memory of bytes."""
        return Observations(self.frames.permute(0, 2, 3, 1).float().contiguous(), self.rows, channels_last=True)


class FrameHistory:
    """Stacks the frames of rounds that follow each other; what is older than an episode's first frame is 0."""

    def __init__(self, streams: int, spec: Spec) -> None:
        """`streams`: environments in a round."""
        self._back = spec.stack - 1
        self._frame = np.zeros((self._back, streams, *spec.frame_shape), spec.frame_dtype)  # the last round's last
        self._first = np.ones((self._back, streams), bool)

    def add(self, given: Round) -> Observations:
        """The T * N observations that were acted on, in order of t, then i; then the true final ones, [E].

        Raises:
            ValueError: another number of environments than was said.
        """
        back, (steps, envs) = self._back, given.reward.shape
        if envs != self._first.shape[1] and back:
            raise ValueError(f"{self._first.shape[1]} environments were announced, {envs} are there")
        shape = given.frame.shape[2:]
        if not back and not len(given.final_at):
            frames: Array = given.frame.reshape(-1, *shape)
        else:
            parts = (self._frame, given.frame, given.final_frame, np.zeros((1, *shape), given.frame.dtype))
            frames = np.concatenate([part.reshape(-1, *shape) for part in parts])
        # Positions in time begin with the frames of the last round; the age of a frame is how many of its episode precede it.
        first = np.concatenate([self._first, given.first])
        time = np.arange(back + steps)[:, None]
        begin = np.maximum.accumulate(np.where(first, time, 0))
        ago = np.arange(back, -1, -1)
        position = time[..., None] - ago  # [back + T, 1, stack]
        rows = position * envs + np.arange(envs)[:, None]
        rows = np.where(position >= begin[..., None], rows, len(frames) - 1)[back:]
        t, i = given.final_at.T
        ends = (back + steps) * envs + np.arange(len(t))
        final = np.concatenate([rows[t, i][:, 1:], ends[:, None]], 1)
        if back:
            self._frame = np.concatenate([self._frame, given.frame])[-back:].copy()
            self._first = first[-back:].copy()
        return Observations(
            torch.from_numpy(frames), torch.from_numpy(np.concatenate([rows.reshape(-1, back + 1), final]))
        )

    def state_dict(self) -> State:
        return {"frame": self._frame.copy(), "first": self._first.copy()}

    def load_state_dict(self, state: State) -> None:
        self._frame, self._first = np.array(state["frame"]), np.array(state["first"])


class RunningMoments:
    """Mean and variance of all that was added (Chan et al. 1983: of two parts from those of each), in float64."""

    def __init__(self, *shape: int) -> None:
        """`shape`: of one sample."""
        self.count = 0
        self.mean: Array = np.zeros(shape)
        self.variance: Array = np.ones(shape)  # of nothing: that which changes nothing

    def add(self, samples: Array) -> None:
        """samples: [M, *shape]."""
        many, x = len(samples), samples.astype(np.float64)
        gap, total = x.mean(0) - self.mean, self.count + many
        squares = x.var(0) * many + gap**2 * (self.count * many / total)
        self.variance = (squares + (self.variance * self.count if self.count else 0.0)) / total
        self.mean = self.mean + gap * (many / total)
        self.count = total

    def state_dict(self) -> State:
        return {"count": self.count, "mean": np.array(self.mean), "variance": np.array(self.variance)}

    def load_state_dict(self, state: State) -> None:
        self.count = int(state["count"])
        self.mean, self.variance = np.array(state["mean"]), np.array(state["variance"])
