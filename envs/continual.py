"""Environments that change while they are played: MinAtar's games in turn, its actions in another order, classic control under other
dynamics. All of it happens in C++ (csrc/envs/*_continual.hpp).

An environment's steps are cut into phases of `protocol.phase_steps` each. Where a phase ends, the game under way is truncated and the next
phase's begins, so that no return is of two phases. All environments of a run are in the same phase: the number of the phase, and the
run's seed where something is drawn, decide everything. `rlplatform.evaluation.phases` reads a run's curves by phase.
"""

from typing import Any

import numpy as np

from rlplatform import _core
from rlplatform.envs.control import GAMES, ControlBatch
from rlplatform.envs.minatar import ACTIONS, CHANNELS, MinAtarBatch, coloured
from rlplatform.envs.native import NativeBatch, env_keys
from rlplatform.envs.suites import (
    ContinualControlProtocol,
    ContinualMinAtarProtocol,
    PermutedProtocol,
    as_state,
    unknown,
)
from rlplatform.streams import Stream
from rlplatform.types import Array, Spec, State

CARS = ("MountainCar", "MountainCarContinuous")  # which have no length to change


class _Phased(NativeBatch):
    """What batches with phases have in common."""

    @property
    def phase(self) -> int:
        """The number of the current phase: the one in which the frames that were last returned are."""
        return int(self._open().phase)

    def load_state_dict(self, state: State) -> None:
        """Raises ValueError, and changes nothing, where `state` is of another environment, version, size or number, or of
        environments in unlike phases."""
        clocks = np.array(state.get("state", np.zeros((1, 3))))
        if clocks.ndim == 2 and (clocks[:, :3] != clocks[:1, :3]).any():
            raise ValueError(f"not a state of {self.n} environments of {self._name}: they are in different phases")
        super().load_state_dict(state)


class ContinualMinAtarBatch(_Phased, MinAtarBatch):
    """MinAtar that changes."""

    def __init__(
        self, core: Any, name: str, spec: Spec, first_env: int, settings: State, games: tuple[str, ...]
    ) -> None:
        super().__init__(core, name, spec, first_env, settings)
        self._games = games

    def render(self, i: int = 0) -> Array:
        """Environment i as `minatar/<Game>` shows the game of the current phase: [160, 160, 3] uint8."""
        self._open()
        if self._frame is None:
            raise ValueError("nothing to render before reset(), or between load_state_dict() and step()")
        return coloured(self._frame[i][: len(CHANNELS[self.game])])

    @property
    def game(self) -> str:
        """The game of the current phase."""
        return self._games[self.phase % len(self._games)]

    @property
    def meaning(self) -> Array:
        """What each action does in this phase, [6] int64: numbers of `rlplatform.envs.minatar.ACTIONS`."""
        meaning: Array = self._open().meaning
        return meaning


class ContinualControlBatch(_Phased, ControlBatch):
    """Classic control that changes."""

    @property
    def dynamics(self) -> tuple[float, float, float]:
        """The current phase's factors of gravity, lengths and forces."""
        gravity, length, force = self._open().dynamics
        return gravity, length, force


def make_continual_minatar(
    task: str, n: int, seed: int, first_env: int, protocol: ContinualMinAtarProtocol, threads: int = 1
) -> ContinualMinAtarBatch:
    """MinAtar's games in turn: frames uint8 [channels, 10, 10] with as many channels as the game that has most of them, the others' last ones
    dark; the six actions.

    Raises:
        ValueError: no such task or game.
    """
    if task != "continual-minatar":
        raise ValueError(f"unknown task: {task!r}; its games are protocol.games")
    return _minatar(task, n, seed, first_env, protocol, threads, protocol.games, permuted=protocol.permuted)


def make_permuted(
    task: str, n: int, seed: int, first_env: int, protocol: PermutedProtocol, threads: int = 1
) -> ContinualMinAtarBatch:
    """The game of "continual-permuted/<Game>", its actions in another order in each phase but phase 0.

    Raises:
        ValueError: no such game.
    """
    return _minatar(task, n, seed, first_env, protocol, threads, (task.partition("/")[2],), permuted=True)


def make_continual_control(
    task: str, n: int, seed: int, first_env: int, protocol: ContinualControlProtocol, threads: int = 1
) -> ContinualControlBatch:
    """The game of "continual-control/<Game>": frames and actions as in classic control.

    Raises:
        ValueError: no such game, or other lengths for a car.
    """
    name = task.partition("/")[2]
    if name not in GAMES:
        raise ValueError(unknown("game of classic control", name, GAMES))
    if name in CARS and set(protocol.length) != {1.0}:
        raise ValueError(f"{name} has no length: protocol.length must be [1.0], got {list(protocol.length)}")
    game = GAMES[name]
    core = _core.continual_control_batch(
        name, env_keys(seed, first_env, n), threads, getattr(protocol, game.limit), protocol.phase_steps, protocol.first_phase,
        list(protocol.gravity), list(protocol.length), list(protocol.force),
        Stream(seed, "dynamics").key if protocol.drawn else None,
    )  # fmt: skip
    return ContinualControlBatch(core, task, game.spec, first_env, as_state(protocol))


def _minatar(
    task: str,
    n: int,
    seed: int,
    first_env: int,
    protocol: PermutedProtocol,
    threads: int,
    games: tuple[str, ...],
    *,
    permuted: bool,
) -> ContinualMinAtarBatch:
    for game in games:
        if game not in CHANNELS:
            raise ValueError(unknown("MinAtar game", game, CHANNELS))
    core = _core.continual_minatar_batch(
        list(games), env_keys(seed, first_env, n), threads, protocol.sticky, protocol.ramping, protocol.episode_steps,
        protocol.phase_steps, protocol.first_phase, Stream(seed, "permutation").key if permuted else None,
    )  # fmt: skip
    channels = max(len(CHANNELS[game]) for game in games)
    spec = Spec(frame_shape=(channels, 10, 10), frame_dtype="uint8", stack=1, actions=len(ACTIONS))
    return ContinualMinAtarBatch(core, task, spec, first_env, as_state(protocol), games)
