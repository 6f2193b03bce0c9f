"""Observations of whole rollouts, for learners without a replay: frames stacked as the actor stacked them for the policy."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlplatform.types import Spec, State


@dataclass(frozen=True)
class Observations:
    """The observations of a rollout, put together where they are asked for: a frame lies in memory once."""

    frames: Tensor  # [R, *frame]
    rows: Tensor  # [M, stack] int64: the frames of each observation, oldest first

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Observations [B, stack, *frame], of index [B] int64: t * N + i; those after T * N are the true final ones."""
        rows = self.rows[index]
        return self.frames.index_select(0, rows.flatten()).view(*rows.shape, *self.frames.shape[1:])


class Stacks:
    """Stacks the frames of rollouts that follow each other; what is older than an episode's first frame is 0."""

    def __init__(self, spec: Spec, n: int, device: torch.device) -> None:
        """`n`: environments in all, of which each rollout has some."""
        older = (spec.stack - 1, n)  # what the next rollout's first stacks reach back to
        self._frame = torch.zeros((*older, *spec.frame_shape), dtype=getattr(torch, spec.frame_dtype), device=device)
        self._first = torch.ones(older, dtype=torch.bool, device=device)

    def push(
        self, frame: Tensor, first: Tensor, final_frame: Tensor, final_at: Tensor, *, first_env: int = 0
    ) -> Observations:
        """The T * N observations that were acted on, in order of t, then i; then the true final ones, [E]. Keeps the newest frames.

        Args:
            frame: [T, N, *frame]. first: [T, N] bool, where an episode of the learner begins: older frames count as 0.
            final_frame: [E, *frame], of the games that restarted. final_at: [E, 2] int64, (t, i) of each.
            first_env: of this rollout, among the environments of this object.

        Raises:
            ValueError: more environments than were announced.
        """
        back, (steps, n) = len(self._frame), first.shape
        here = slice(first_env, first_env + n)
        if first_env + n > self._first.shape[1]:
            raise ValueError(f"{self._first.shape[1]} environments were announced, {first_env + n} are there")
        if not back and not len(final_at):
            frames = frame.flatten(0, 1)
        else:
            parts = (
                self._frame[:, here].flatten(0, 1),
                frame.flatten(0, 1),
                final_frame,
                torch.zeros_like(frame[0, :1]),
            )
            frames = torch.cat(parts)
        # Positions in time begin with the frames that were kept; a stack reaches back to where its episode began.
        begins = torch.cat([self._first[:, here], first])
        time = torch.arange(back + steps, device=frame.device)[:, None]
        begin = torch.where(begins, time, 0).cummax(0).values
        position = time[..., None] - torch.arange(back, -1, -1, device=frame.device)  # [back + T, 1, stack]
        rows = position * n + torch.arange(n, device=frame.device)[:, None]
        rows = torch.where(position >= begin[..., None], rows, len(frames) - 1)[back:]
        ends = (back + steps) * n + torch.arange(len(final_at), device=frame.device)
        final = torch.cat([rows[final_at[:, 0], final_at[:, 1], 1:], ends[:, None]], 1)
        if back:
            self._frame[:, here] = torch.cat([self._frame[:, here], frame])[-back:]
            self._first[:, here] = begins[-back:]
        return Observations(frames, torch.cat([rows.flatten(0, 1), final]))

    def state_dict(self) -> State:
        return {"frame": self._frame.cpu().clone(), "first": self._first.cpu().clone()}

    def load_state_dict(self, state: State) -> None:
        self._frame.copy_(state["frame"])
        self._first.copy_(state["first"])
