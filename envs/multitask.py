"""Several tasks in one batch: environment i of a run plays task i mod K, behind one shape of observations and actions.

A frame is [observation, padded with zeros | mask of the actions that the task has | one-hot number of the task]; an action has as
many numbers as the largest task could need, and those under a zero of the mask are dropped. So the task and its actions are known
from the observation alone, in the replay as well as where actions are chosen.
"""

from collections.abc import Sequence

import numpy as np

from rlplatform.envs import make
from rlplatform.envs.native import check_state, describe
from rlplatform.envs.suites import MultitaskProtocol
from rlplatform.types import Array, EnvBatch, Spec, State, Step

STATE_VERSION = 1


def make_multitask(task: str, n: int, seed: int, first_env: int, protocol: MultitaskProtocol) -> EnvBatch:
    """N environments, number `first_env` of the run and on, each a batch of one of its task, by the protocol of that task's suite.

    Raises:
        ValueError: a task that is unknown, has other than float32 vectors and continuous actions, or more of either than fits.
    """
    names = [protocol.tasks[(first_env + i) % len(protocol.tasks)] for i in range(n)]
    members = [make(name, 1, seed, first_env + i) for i, name in enumerate(names)]
    for name, member in zip(names, members, strict=True):
        spec = member.spec
        if spec.actions or spec.frame_dtype != "float32" or spec.stack != 1 or len(spec.frame_shape) != 1:
            raise ValueError(f"{name} has not vectors of float32 and continuous actions, as every task of {task} must")
        for what, size, room in (
            ("observation", spec.frame_shape[0], protocol.observation),
            ("actions", spec.action_shape[0], protocol.actions),
        ):
            if size > room:
                raise ValueError(f"{name} has {size} numbers, more than protocol.{what} = {room}")
    return MultitaskBatch(task, members, names, first_env, protocol)


class MultitaskBatch:
    """Batches of one, side by side. Observations are float32 [N, 1, observation + actions + K], actions float32 [N, actions]."""

    device = "cpu"

    def __init__(
        self, task: str, members: Sequence[EnvBatch], names: Sequence[str], first_env: int, protocol: MultitaskProtocol
    ) -> None:
        """`members`: a batch of one for each environment; `names`: the task that each plays."""
        self.n, self.first_env, self._members = len(members), first_env, list(members)
        room, mask = protocol.observation, protocol.actions
        size = room + mask + len(protocol.tasks)
        repeats = {member.spec.frames_per_step for member in members}
        self.spec = Spec((size,), "float32", 1, actions=0, action_shape=(mask,), frames_per_step=max(repeats))
        self._room, self._origin = room, {"env": task, "version": STATE_VERSION, "n": self.n, "tasks": list(names)}
        self._sizes = [(member.spec.frame_shape[0], member.spec.action_shape[0]) for member in members]
        self._started = False
        self._said = np.zeros((self.n, size), np.float32)  # what never changes: masks and numbers
        for i, (name, (_, actions)) in enumerate(zip(names, self._sizes, strict=True)):
            self._said[i, room : room + actions] = 1.0
            self._said[i, room + mask + protocol.tasks.index(name)] = 1.0

    def reset(self) -> Array:
        frames = self._frames([member.reset() for member in self._open()])
        self._started = True
        return frames

    def step(self, action: Array) -> Step:
        members = self._open()
        self._check(action)
        steps = [
            member.step(np.ascontiguousarray(action[i : i + 1, :size]))
            for i, (member, (_, size)) in enumerate(zip(members, self._sizes, strict=True))
        ]
        frame = self._frames([step.frame for step in steps])
        reward, terminated, truncated, reset = (np.concatenate(part) for part in list(zip(*steps, strict=True))[1:5])
        ended = np.flatnonzero([len(step.final_env) for step in steps])
        final = self._frames([step.final_frame for step in steps])[ended]
        return Step(frame, reward, terminated, truncated, reset, final, ended)

    def state_dict(self) -> State:
        return {**self._origin, "members": [member.state_dict() for member in self._open()]}

    def load_state_dict(self, state: State) -> None:
        """Raises ValueError where `state` is of other tasks, another number, or a member refuses its part; environments that had begun are
        then as they were."""
        members = self._open()
        check_state(state, self._origin)
        if (count := len(state.get("members", ()))) != self.n:
            raise ValueError(f"damaged state: it holds {count} environments, here are {self.n}")
        before = [member.state_dict() for member in members] if self._started else []
        try:
            for member, one in zip(members, state["members"], strict=True):
                member.load_state_dict(one)
        except ValueError:
            for member, kept in zip(members, before, strict=False):
                if kept is not None:
                    member.load_state_dict(kept)
            raise
        self._started = True

    def close(self) -> None:
        for member in self._members:
            member.close()
        self._members = []

    def _frames(self, parts: Sequence[Array]) -> Array:
        """[N, size] of each member's [1, *], or of [0, *] where it has none."""
        frames = self._said.copy()
        for i, part in enumerate(parts):
            if len(part):
                frames[i, : part.shape[1]] = part[0]
        return frames

    def _check(self, action: Array) -> None:
        if action.dtype != np.float32 or action.shape != (self.n, *self.spec.action_shape):
            raise ValueError(f"action must be float32 {[self.n, *self.spec.action_shape]}, got {describe(action)}")
        for i, (_, size) in enumerate(self._sizes):
            if not (np.abs(action[i, :size]) <= 1.0).all():  # NaN is not
                raise ValueError(
                    f"action {action[i, :size].tolist()} of environment {i} of the batch is not in [-1, 1]"
                )

    def _open(self) -> list[EnvBatch]:
        if not self._members:
            raise ValueError("these environments are closed")
        return self._members
