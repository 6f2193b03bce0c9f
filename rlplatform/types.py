"""The types that cross a seam. Arrays are numpy between actors and learner; [T, N] is time by environment, in this order.

Observations travel as the **newest frame only**. Whoever needs a stack builds it: the actor for the policy, the replay
for the learner. A frame is [*frame] as an environment makes it; an observation is [stack, *frame], oldest first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# Nested mappings with str keys; leaves are arrays, tensors, int, float, bool, str, bytes, None or lists.
State = Mapping[str, Any]
# What Policy.load takes, by name: tensors and scalars (schedules such as epsilon travel here).
Weights = Mapping[str, Any]
Metrics = Mapping[str, Any]  # scalars by name, left as tensors until somebody logs them


@dataclass(frozen=True)
class Spec:
    """What an environment's frames and actions look like."""

    frame_shape: tuple[int, ...]  # of one frame, as it travels
    frame_dtype: str  # numpy name: "uint8", "float32"
    stack: int  # frames in one observation, which is [stack, *frame_shape]
    actions: int  # number of discrete actions; 0 where actions are continuous
    action_shape: tuple[int, ...] = ()  # () for discrete (int64), (A,) for continuous (float32 in [-1, 1])
    frames_per_step: int = 1  # emulator frames an agent step takes: 4 on Atari

    @property
    def action_dtype(self) -> str:
        return "int64" if self.actions else "float32"


class Step(NamedTuple):
    """What N environments hand back. An environment whose game ended has already been reset (same-step auto-reset)."""

    frame: Array  # [N, *frame]: the newest frame, to act on next
    reward: Array  # [N] float32: raw, unclipped, summed over the repeated frames
    terminated: Array  # [N] bool: nothing follows for the learner (a life lost, too, where the protocol says so)
    truncated: Array  # [N] bool: time ran out; bootstrap from final_frame
    reset: Array  # [N] bool: the game really restarted, and `frame` is its first. Episode returns follow this
    final_frame: Array  # [E, *frame]: the true last frame of each game that restarted, in order of final_env
    final_env: Array  # [E] int64: where `reset` is True, ascending


class EnvBatch(Protocol):
    """N environments stepped together. What environment i draws depends on (seed, first_env + i) alone."""

    spec: Spec
    n: int
    first_env: int  # number of environment 0 among all those of the run
    device: str  # "cpu": arrays are numpy

    def reset(self) -> Array:
        """Start all games; the first frames, [N, *frame]. Called once, before the first step."""
        ...

    def step(self, action: Array) -> Step: ...  # action: [N] int64 or [N, A] float32
    def state_dict(self) -> State | None: ...  # enough to go on bit for bit; None: cannot be saved, games begin anew
    def load_state_dict(self, state: State) -> None: ...
    def close(self) -> None: ...


class Episodes(NamedTuple):
    """The games that ended within a rollout: E rows."""

    step: Array  # [E] int64, the t within the rollout at which it ended
    env: Array  # [E] int64, number among all environments of the run
    score: Array  # [E] float64, sum of raw rewards since the game started
    length: Array  # [E] int64, agent steps since the game started


class Rollout(NamedTuple):
    """T steps of N environments, and the version of the weights that chose the actions."""

    frame: Array  # [T, N, *frame]: the newest frame of the observation that was acted on
    first: Array  # [T, N] bool: `frame` begins a learner's episode; older frames of the stack are 0
    action: Array  # [T, N] int64 or [T, N, A] float32
    reward: Array  # [T, N] float32, raw
    terminated: Array  # [T, N] bool
    truncated: Array  # [T, N] bool
    final_frame: Array  # [E, *frame]: true last frames of the games that restarted
    final_at: Array  # [E, 2] int64: (t, i) of each, in order of t, then i
    extra: Mapping[
        str, Array
    ]  # what the policy said beside the action (log-prob, value), [T, N, ...]; by `close`, [N, ...]
    episodes: Episodes
    first_env: int  # number of this rollout's environment 0 among all those of the run
    version: int


class Policy(Protocol):
    """The part of an agent that acts: no optimiser. `stream` is the actor's own randomness.

    One whose agent learns from rollouts alone may also have `close(obs)`, what it says of the observations after a rollout's
    last step (the value from which a return is bootstrapped): arrays [N, ...], laid into the rollout's `extra`."""

    def load(self, weights: Weights) -> None: ...
    def act(self, obs: Array, stream: Any) -> tuple[Array, Mapping[str, Array]]: ...  # obs: [N, stack, *frame]


class Agent(Protocol):
    """One algorithm, one file. The class names its frozen dataclass of hyper-parameters as `config_class`, which has a
    `replay_ratio`, and is made as Agent(config, spec, streams, seed): `streams` environments will be observed. One that can
    learn on a GPU also takes device="cuda"; where several of its gradient steps cost one launch there, it says how many as
    `steps_per_launch`, and `updates(count)` takes up to so many. One whose environments may be on its device (backend=device)
    takes feed="resident", then observes `DeviceRollout`s, and has a `device_policy()`, a `DevicePolicy`."""

    spec: Spec
    replay: Any  # a Replay, checkpointed as segments beside the state; None where there is none

    @property
    def ready(self) -> bool: ...  # enough was observed to learn; before that no replay credit accrues
    def policy(self) -> Policy: ...  # for an actor
    def eval_policy(self) -> Policy: ...  # for evaluation: the protocol's epsilon, noise and network
    def weights(self) -> Weights: ...  # what policy().load takes: live tensors, not copies
    def observe(self, rollouts: list[Rollout]) -> None: ...
    def update(self) -> Metrics: ...  # one gradient step
    def state_dict(self) -> State: ...  # networks, optimisers, streams, counters; not the replay
    def load_state_dict(self, state: State) -> None: ...


class Workers(Protocol):
    """Where the actors live."""

    def start(self, weights: Weights, version: int, steps: int) -> Callable[[], list[Rollout]]:
        """Ask every actor for one rollout; return the call that waits for them, in actor order."""
        ...


def empty_episodes() -> Episodes:
    """No game ended: E = 0."""
    zero = np.zeros(0, np.int64)
    return Episodes(zero, zero, np.zeros(0), zero)
