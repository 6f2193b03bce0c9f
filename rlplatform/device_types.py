"""The types between a device's environments, its actor and a learner there: those of `types`, with tensors for arrays.

Nothing here waits for a device. `types.Step` lists the last frames of games that ended, so it has to know how many ended;
`DeviceStep` has a row for every environment instead, of which `reset` names those that mean something.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rlplatform.types import Episodes, Rollout, Spec, State, Weights


class DeviceStep(NamedTuple):
    """What N environments hand back, on their device. An environment whose game ended has already been reset."""

    frame: Tensor  # [N, *frame]: the newest frame, to act on next
    reward: Tensor  # [N] float32: raw; NaN where the action was none, and the environment stood still
    terminated: Tensor  # [N] bool
    truncated: Tensor  # [N] bool
    reset: Tensor  # [N] bool: the game really restarted, and `frame` is its first
    final_frame: Tensor  # [N, *frame]: the true last frame where `reset`; other rows are not written


class DeviceEnvBatch(Protocol):
    """N environments stepped together on one device. What environment i draws depends on (seed, first_env + i) alone."""

    spec: Spec
    n: int
    first_env: int  # number of environment 0 among all those of the run
    device: str  # as torch names it: "cuda", "cuda:1"

    def reset(self, out: Tensor | None = None) -> Tensor:
        """Start all games; the first frames, [N, *frame], in `out` where it is given."""
        ...

    def step(self, action: Tensor, out: DeviceStep | None = None) -> DeviceStep:
        """Enqueue one step of all; action is [N] int64 or [N, A] float32, contiguous, on the device. With `out`, which is
        then what is returned, nothing is allocated."""
        ...

    def check(self) -> None:
        """Wait for the device, and raise ValueError if any action since the last check was none."""
        ...

    def state_dict(self) -> State: ...  # enough to go on bit for bit, on the host; waits for the device
    def load_state_dict(self, state: State) -> None: ...
    def close(self) -> None: ...


class DevicePolicy(Protocol):
    """The part of an agent that acts, on a device: it neither waits for it nor draws from anything but `stream`."""

    def load(self, weights: Weights) -> None: ...
    def act(self, obs: Tensor, stream: Any) -> tuple[Tensor, Mapping[str, Tensor]]: ...  # obs: [N, stack, *frame]


class DeviceRollout(NamedTuple):
    """T steps of N environments, field for field a `Rollout`; tensors on the device, but for the episodes."""

    frame: Tensor  # [T, N, *frame]: the newest frame of the observation that was acted on
    first: Tensor  # [T, N] bool: `frame` begins a learner's episode; older frames of the stack are 0
    action: Tensor  # [T, N] int64 or [T, N, A] float32
    reward: Tensor  # [T, N] float32, raw
    terminated: Tensor  # [T, N] bool
    truncated: Tensor  # [T, N] bool
    final_frame: Tensor  # [E, *frame]: true last frames of the games that restarted
    final_at: Tensor  # [E, 2] int64: (t, i) of each, in order of t, then i
    extra: Mapping[str, Tensor]  # what the policy said beside the action: [T, N, ...]
    episodes: Episodes  # numpy, on the host
    first_env: int
    version: int


def on_host(rollout: DeviceRollout) -> Rollout:
    """The same as arrays. Waits for the device."""

    def array(value: Any) -> Any:
        return value.cpu().numpy() if isinstance(value, Tensor) else value

    fields: dict[str, Any] = {name: array(value) for name, value in rollout._asdict().items()}
    return Rollout(**{**fields, "extra": {name: array(value) for name, value in rollout.extra.items()}})


def empty_step(spec: Spec, device: str, *shape: int) -> DeviceStep:
    """Room for the results of a step, or of many: every field is [*shape, ...], not initialised."""
    frames = (*shape, *spec.frame_shape)
    frame, final = (torch.empty(frames, dtype=getattr(torch, spec.frame_dtype), device=device) for _ in range(2))
    reward = torch.empty(shape, dtype=torch.float32, device=device)
    terminated, truncated, reset = (torch.empty(shape, dtype=torch.bool, device=device) for _ in range(3))
    return DeviceStep(frame, reward, terminated, truncated, reset, final)
