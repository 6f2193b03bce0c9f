"""A replay that stores whole transitions, written from the definition and as slowly as it likes."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

Array = Any


@dataclass
class Slot:
    """One step with its whole observation, or the lone last frame of a truncated episode (`step` False)."""

    obs: Array  # [stack, *frame]
    holds: list[int]  # the slot numbers whose frames obs is made of
    complete: bool  # obs reaches back to the episode's first frame, or is full
    action: Array
    reward: float
    first: bool
    terminated: bool
    truncated: bool
    step: bool
    priority: float


class Item(NamedTuple):
    """What `sample` gives for one index."""

    obs: Array
    action: Array
    reward: Array
    terminated: Array
    mask: Array
    n_return: float
    discount: float
    next_obs: Array
    number: int
    priority: float


@dataclass
class ReplayModel:
    frame_shape: tuple[int, ...]
    frame_dtype: str
    action_shape: tuple[int, ...]
    action_dtype: str
    stack: int
    streams: int
    per_stream: int
    max_n: int
    max_k: int
    alpha: float
    max_priority: float = 1.0
    slots: list[list[Slot]] = field(default_factory=list)  # by stream; all that ever came, none is forgotten

    def __post_init__(self) -> None:
        self.slots = [[] for _ in range(self.streams)]

    def add_step(
        self, stream: int, frame: Array, first: bool, action: Array, reward: float, terminated: bool, truncated: bool,
        final_frame: Array | None,
    ) -> None:  # fmt: skip
        truncated = truncated and not terminated  # where both, nothing follows
        self._append(stream, frame, first, action, reward, terminated, truncated, True)
        if truncated:
            self._append(
                stream, final_frame, False, np.zeros(self.action_shape, self.action_dtype), 0.0, False, False, False
            )

    def _append(self, stream, frame, first, action, reward, terminated, truncated, step) -> None:
        mine = self.slots[stream]
        older = [] if first or not mine else mine[-1].holds
        frames = [] if first or not mine else list(mine[-1].obs[self.stack - len(older) :])
        holds = [*older, len(mine)][-self.stack :]
        frames = [*frames, frame][-self.stack :]
        obs = np.zeros((self.stack, *self.frame_shape), self.frame_dtype)
        for back, f in enumerate(reversed(frames)):
            obs[self.stack - 1 - back] = f
        complete = first or len(holds) == self.stack or (bool(mine) and mine[-1].complete)
        mine.append(
            Slot(
                obs,
                holds,
                complete,
                action,
                reward,
                first,
                terminated,
                truncated,
                step,
                self.max_priority if step else 0.0,
            )
        )

    def index(self, stream: int, seq: int) -> int:
        return seq * self.streams + stream

    def where(self, index: int) -> tuple[int, int]:
        return index % self.streams, index // self.streams

    def is_live(self, stream: int, seq: int) -> bool:
        return seq >= len(self.slots[stream]) - self.per_stream

    def __len__(self) -> int:
        return sum(s.step for slots in self.slots for s in slots[-self.per_stream :])

    def mean_abs_reward(self) -> float:
        kept = [abs(float(s.reward)) for slots in self.slots for s in slots[-self.per_stream :] if s.step]
        return sum(kept) / len(kept) if kept else 0.0

    def is_eligible(self, stream: int, seq: int) -> bool:
        slot = self.slots[stream][seq]
        whole = slot.complete and all(self.is_live(stream, held) for held in slot.holds)
        return slot.step and whole and self._window_is_known(stream, seq)

    def _window_is_known(self, stream: int, seq: int) -> bool:
        """All that could be asked about the step at seq has been seen: H more slots of its episode, or its end."""
        later = self.slots[stream][seq:]
        for j in range(max(self.max_n, self.max_k)):
            if j >= len(later) or (j > 0 and later[j].first):
                return False
            if later[j].terminated or later[j].truncated:
                return True
        h = max(self.max_n, self.max_k)
        return h < len(later) and not later[h].first

    def eligible(self) -> list[int]:
        return sorted(
            self.index(stream, seq)
            for stream, slots in enumerate(self.slots)
            for seq in range(max(0, len(slots) - self.per_stream), len(slots))
            if self.is_eligible(stream, seq)
        )

    def item(self, index: int, n: int, gamma: float, k: int) -> Item:
        stream, seq = self.where(index)
        later = self.slots[stream][seq:]
        steps = 1  # until the episode's end, as far as anyone may look
        while not (later[steps - 1].terminated or later[steps - 1].truncated) and steps < max(n, k) + 1:
            steps += 1
        ends = later[steps - 1].terminated or later[steps - 1].truncated
        alive = [j == 0 or j < steps or (j == steps and not ends) for j in range(k + 1)]  # s_{t+j} before the end

        h = max(k, 1)
        zero = np.zeros((self.stack, *self.frame_shape), self.frame_dtype)
        obs = np.stack([later[j].obs if alive[j] else zero for j in range(k + 1)])
        action = np.zeros((h, *self.action_shape), self.action_dtype)
        reward, terminated = np.zeros(h, np.float32), np.zeros(h, bool)
        for j in range(h):
            if j == 0 or alive[j]:
                action[j], reward[j], terminated[j] = later[j].action, later[j].reward, later[j].terminated
        mask = np.array(alive[1:], bool)

        m = min(n, steps)
        n_return = sum(gamma**j * float(later[j].reward) for j in range(m))
        gone = any(later[j].terminated for j in range(m))
        next_obs = zero if gone else later[m].obs
        discount = 0.0 if gone else gamma**m
        return Item(obs, action, reward, terminated, mask, n_return, discount, next_obs, index, later[0].priority)

    def update_priority(self, index: int, priority: float) -> None:
        stream, seq = self.where(index)
        if self.is_live(stream, seq):
            self.slots[stream][seq].priority = priority**self.alpha
            self.max_priority = max(self.max_priority, priority**self.alpha)
