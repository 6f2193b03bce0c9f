"""Observations of whole rollouts, for learners without a replay: frames stacked as the actor stacked them for the policy."""

from typing import Any

import torch
from torch import Tensor

from rlplatform.types import Spec, State


class Stacks:
    """Frames of N environments, rollout after rollout; keeps the few that the next rollout's first stacks reach back to."""

    def __init__(self, spec: Spec, n: int, device: torch.device) -> None:
        older = (spec.stack - 1, n)
        self._frame = torch.zeros((*older, *spec.frame_shape), dtype=getattr(torch, spec.frame_dtype), device=device)
        self._first = torch.zeros(older, dtype=torch.bool, device=device)

    def push(self, frame: Tensor, first: Tensor, first_env: int) -> Tensor:
        """The observations that a rollout's steps acted on; its frames are remembered.

        Args:
            frame: [T, N, *frame]. first: [T, N] bool, where an episode of the learner begins: older frames count as 0.
            first_env: of the rollout, among the environments of this object.

        Returns:
            [T, N, stack, *frame], oldest first; without a stack, a view of `frame`.
        """
        stack, (steps, n) = len(self._frame) + 1, first.shape
        if stack == 1:
            return frame[:, :, None]
        here = slice(first_env, first_env + n)
        frames, begins = torch.cat([self._frame[:, here], frame]), torch.cat([self._first[:, here], first])
        self._frame[:, here], self._first[:, here] = frames[-stack + 1 :], begins[-stack + 1 :]
        out = frame.new_empty((steps, n, stack, *frame.shape[2:]))
        gone = torch.zeros_like(first)  # an episode began after the frame `back` steps ago
        for back in range(stack):
            start = stack - 1 - back
            old = gone.view(steps, n, *(1,) * (frame.ndim - 2))
            out[:, :, start] = frames[start : start + steps].masked_fill(old, 0)
            gone = gone | begins[start : start + steps]
        return out

    def state_dict(self) -> State:
        return {"frame": self._frame.cpu().clone(), "first": self._first.cpu().clone()}

    def load_state_dict(self, state: State) -> None:
        self._frame.copy_(state["frame"])
        self._first.copy_(state["first"])


def final_observations(obs: Tensor, final_frame: Tensor, final_at: Any) -> Tensor:
    """The true last observations [E, stack, *frame] of the games that restarted, from what their last steps acted on.

    Args:
        obs: [T, N, stack, *frame]. final_frame: [E, *frame]. final_at: [E, 2] int64, (t, i) of each.
    """
    return torch.cat([obs[final_at[:, 0], final_at[:, 1], 1:], final_frame[:, None]], 1)
