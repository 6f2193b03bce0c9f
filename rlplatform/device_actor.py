"""The actor of environments that live on a device: a rollout is collected without waiting for it, and waits once, at its end.

`EnvBatch.device` decides at wiring: `Actor` for numpy, `DeviceActor` for tensors. Given equal actions, both make the same
rollouts to the bit, and either goes on from the other's state.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlplatform.actor import closing
from rlplatform.device_types import DeviceEnvBatch, DevicePolicy, DeviceRollout, DeviceStep, empty_step
from rlplatform.types import Episodes, Spec, State, Weights


class DeviceFrameStack:
    """The newest `stack` frames of N environments, zero before an episode's first frame."""

    def __init__(self, n: int, spec: Spec, device: str) -> None:
        dtype = getattr(torch, spec.frame_dtype)
        self.obs = torch.zeros((n, spec.stack, *spec.frame_shape), dtype=dtype, device=device)  # oldest first

    def push(self, frame: Tensor, first: Tensor) -> Tensor:
        """Append frame [N, *frame]; where first [N] bool, forget the older ones. A new tensor, [N, stack, *frame]."""
        forget = first.view(-1, *(1,) * (self.obs.ndim - 1))
        self.obs = torch.cat([self.obs[:, 1:].masked_fill(forget, 0), frame[:, None]], 1)
        return self.obs


class DeviceActor:
    """Turns weights into experience on a device: `collect` is a function of (state, weights, version).

    A rollout takes room for T + 1 frames of each environment, and while it is collected for T last frames beside them.
    """

    def __init__(self, policy: DevicePolicy, envs: DeviceEnvBatch, stream: Any) -> None:
        """`stream`: the policy's randomness, with state_dict and load_state_dict as a `Stream` has them."""
        self._policy, self._envs, self._stream = policy, envs, stream
        self._stack = DeviceFrameStack(envs.n, envs.spec, envs.device)
        self._frame = envs.reset()
        self._first = torch.ones(envs.n, dtype=torch.bool, device=envs.device)
        self._obs = self._stack.push(self._frame, self._first)
        self._score = torch.zeros(envs.n, dtype=torch.float64, device=envs.device)  # of the game under way
        self._length = torch.zeros(envs.n, dtype=torch.int64, device=envs.device)

    def collect(self, weights: Weights, version: int, steps: int) -> DeviceRollout:
        """Act for `steps` agent steps in all environments with these weights.

        Raises:
            ValueError: the policy's actions were none, in some environment.
            FloatingPointError: NaN or infinity in a reward or a frame.
        """
        envs, device = self._envs, self._envs.device
        self._policy.load(weights)
        # Row t is what step t acts on; step t writes row t + 1 of everything.
        rows = empty_step(envs.spec, device, steps + 1, envs.n)
        rows.frame[0].copy_(self._frame)
        first = torch.empty_like(rows.reset)
        first[0].copy_(self._first)
        score = torch.empty(first.shape, dtype=torch.float64, device=device)
        length = torch.empty(first.shape, dtype=torch.int64, device=device)
        actions, extras = [], []
        for t in range(1, steps + 1):
            action, extra = self._policy.act(self._obs, self._stream)
            actions.append(action)
            extras.append(extra)
            step = envs.step(action, DeviceStep(*(field[t] for field in rows)))
            score[t], length[t] = self._score.add_(step.reward), self._length.add_(1)
            self._score.masked_fill_(step.reset, 0.0)
            self._length.masked_fill_(step.reset, 0)
            torch.logical_or(step.terminated, step.truncated, out=first[t])
            self._obs = self._stack.push(step.frame, first[t])
        self._frame, self._first = rows.frame[-1].clone(), first[-1].clone()  # views would keep the rollout alive
        envs.check()  # the device is waited for here
        _check_finite(rows.reward[1:], rows.frame[1:], envs)
        at = rows.reset[1:].nonzero().contiguous()  # torch gives it transposed, and a replay takes rows
        ended = at[:, 0] + 1, at[:, 1]
        return DeviceRollout(
            rows.frame[:-1],
            first[:-1],
            torch.stack(actions),
            rows.reward[1:],
            rows.terminated[1:],
            rows.truncated[1:],
            final_frame=rows.final_frame[ended],
            final_at=at,
            extra={**_stack_extras(extras), **closing(self._policy, self._obs)},
            episodes=_episodes(at, score[ended], length[ended], envs.first_env),
            first_env=envs.first_env,
            version=version,
        )

    def state_dict(self) -> State:
        """As an `Actor`'s: on the host, in numpy. Waits for the device."""
        return {
            "envs": self._envs.state_dict(),
            "stream": self._stream.state_dict(),
            "stack": self._stack.obs.cpu().numpy().copy(),
            "frame": self._frame.cpu().numpy().copy(),
            "first": self._first.cpu().numpy().copy(),
            "score": self._score.cpu().numpy().copy(),
            "length": self._length.cpu().numpy().copy(),
        }

    def load_state_dict(self, state: State) -> None:
        def there(name: str) -> Tensor:
            return torch.from_numpy(np.array(state[name])).to(self._envs.device)

        self._stream.load_state_dict(state["stream"])
        self._envs.load_state_dict(state["envs"])
        self._obs = self._stack.obs = there("stack")
        self._frame, self._first = there("frame"), there("first")
        self._score, self._length = there("score"), there("length")


def _check_finite(reward: Tensor, frame: Tensor, envs: DeviceEnvBatch) -> None:
    """As the actor's check of each step, over all of a rollout: reward [T, N], frame [T, N, *frame]."""
    for what, values in (("reward", reward), ("frame", frame)):
        if values.is_floating_point():
            good = values.isfinite().transpose(0, 1).flatten(1).all(1)  # [N]
            wrong = (~good).nonzero().flatten().tolist()
            if wrong:
                raise FloatingPointError(
                    f"NaN or infinity in the {what} of environment(s) {[i + envs.first_env for i in wrong]}"
                )


def _stack_extras(extras: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([extra[name] for extra in extras]) for name in extras[0]}


def _episodes(at: Tensor, score: Tensor, length: Tensor, first_env: int) -> Episodes:
    """In one copy to the host: integers below 2^53 are whole in float64."""
    rows = torch.cat([at.double(), length.double()[:, None], score[:, None]], 1).cpu().numpy()
    step, env, length_, score_ = rows.T
    return Episodes(step.astype(np.int64), env.astype(np.int64) + first_env, score_.copy(), length_.astype(np.int64))
