"""What the host knows of a replay on a device without asking it, so that adding and learning need not wait for an answer."""

import numpy as np

from rlplatform.types import Array, Rollout

_OPEN, _ENDED, _UNKNOWN = 0, 1, 2  # the last step of a stream: its episode goes on, ended, or only the device knows


class HostView:
    """Of every stream whether its last step ended an episode, and of them all whether something can be drawn.

    What can be drawn stays so without cuts: in a full stream the oldest step whose stack is whole, or the one after it, has its
    window, since a stream is no shorter than a stack, a window and one slot more. A cut may take the windows of all steps; then
    this is not known any more.
    """

    def __init__(self, streams: int) -> None:
        self._last = np.full(streams, _OPEN, np.int8)
        self.can_sample = False  # True: it can; False: not, or not known

    def forget(self) -> None:
        """Only the device knows."""
        self._last[:] = _UNKNOWN
        self.can_sample = False

    def forget_streams(self, first_env: int, envs: int) -> None:
        """A rollout that only the device has seen was added to these; it cut nothing."""
        self._last[first_env : first_env + envs] = _UNKNOWN

    def is_sound(self, rollout: Rollout, actions: int) -> bool:
        """Whether the kernels will find nothing to refuse in a rollout whose dtypes and shapes are right. False where something is
        wrong, or where it cannot be said: then the device is to be asked. `actions`: their number, 0 where they are floats."""
        before = self._before(rollout)
        if before is None or not _ascending(rollout.final_at, *rollout.first.shape):
            return False
        final = np.zeros(rollout.first.shape, bool)
        final[rollout.final_at[:, 0], rollout.final_at[:, 1]] = True
        ends = rollout.terminated | rollout.truncated
        in_order = (rollout.first | ~before).all() and (final | rollout.terminated | ~rollout.truncated).all()
        known = ((rollout.action >= 0) & (rollout.action < actions)).all() if actions else _finite(rollout.action)
        values = _finite(rollout.reward) and _finite(rollout.frame) and _finite(rollout.final_frame)
        return bool(in_order and (ends | ~final).all() and known and values)

    def added(self, rollout: Rollout) -> None:
        """It is in the replay."""
        before = self._before(rollout)
        if before is None or (rollout.first & ~before).any():
            self.can_sample = False
        if len(rollout.first):
            ended = rollout.terminated[-1] | rollout.truncated[-1]
            self._last[rollout.first_env : rollout.first_env + len(ended)] = np.where(ended, _ENDED, _OPEN)

    def _before(self, rollout: Rollout) -> Array | None:
        """[T, N] bool: an episode ended right before this step; None: only the device knows."""
        last = self._last[rollout.first_env : rollout.first_env + rollout.first.shape[1]]
        if (last == _UNKNOWN).any():
            return None
        ends = rollout.terminated | rollout.truncated
        return np.concatenate([(last == _ENDED)[None], ends])[: len(ends)]


def _ascending(final_at: Array, steps: int, envs: int) -> bool:
    """Whether these (t, i) are steps of a rollout [steps, envs], each after the one before."""
    t, i = final_at.T
    inside = (t >= 0).all() and (t < steps).all() and (i >= 0).all() and (i < envs).all()
    return bool(inside and (np.diff(t * envs + i) > 0).all())


def _finite(values: Array) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())
