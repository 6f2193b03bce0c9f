"""What agents without a replay learn from: the rollouts of one round side by side, and the moments of all rounds."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rlplatform.types import Array, Rollout, State


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
