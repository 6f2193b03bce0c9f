"""Atari 2600 games on EnvPool: the throughput backend. Its threads emulate without Python's global lock, and it cannot be
saved: runs on it record `exact_resume: false`.

EnvPool has its own idea of a game's start and of an agent step. What a protocol asks beyond that is refused by name, never
approximated; docs/envs.md tells where the two backends give the same games, and where only the same distribution.
"""

import functools
import importlib.util
import os
from pathlib import Path
from typing import Any

import ale_py
import numpy as np

from rlplatform.envs.atari import rom_hash, rom_path
from rlplatform.envs.native import describe
from rlplatform.envs.suites import AtariProtocol
from rlplatform.streams import Stream
from rlplatform.types import Array, Spec, State, Step

SCREEN = (210, 160)  # EnvPool reads that many pixels, whatever the game


class Pool:
    """What all environments on EnvPool's threads have in common: no state, and rows that may rest."""

    device = "cpu"
    _pool: Any  # EnvPool's own vector environment; None once closed
    _playing: Array  # int32, those that are not retired

    def __init__(self, n: int, first_env: int, spec: Spec, pool: Any) -> None:
        self.n, self.first_env, self.spec, self._pool = n, first_env, spec, pool
        self._playing = np.arange(n, dtype=np.int32)

    def retire(self, env: int) -> None:
        """Environment `env` of the batch is not emulated any more: in every later Step its row is 0."""
        self._playing = self._playing[self._playing != env]

    def state_dict(self) -> None:
        """None: EnvPool cannot be saved."""

    def load_state_dict(self, state: State) -> None:
        """Raises ValueError: there is no state."""
        raise ValueError("EnvPool cannot restore an environment: games begin anew")

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
        self._pool = None

    def _opened(self) -> Any:
        if self._pool is None:
            raise ValueError("these environments are closed")
        return self._pool

    def _spread(self, values: Array) -> Array:
        """Rows of those that play among rows of 0, [N, ...]."""
        if len(values) == self.n:
            return values
        out = np.zeros((self.n, *values.shape[1:]), values.dtype)
        out[self._playing] = values
        return out


class PoolBatch(Pool):
    """N emulators of one game on EnvPool's threads, by the contract of AtariBatch with the exceptions below.

    - It has no state: `state_dict` is None.
    - The last frame of a game that is over on the first or second frame of an agent step is the frame before it: EnvPool
      takes no picture then. Such a game has terminated, so nobody learns from this frame.
    - Lives are counted once an agent step: one that is lost and won back within it is not seen.

    What environment i draws (the number of no-ops) comes from EnvPool's generator, seeded by the stream (seed, "env",
    first_env + i), 31 bits of its key. It depends neither on the other environments nor on threads.
    """

    def __init__(
        self, task: str, n: int, seed: int, first_env: int = 0, protocol: AtariProtocol | None = None,
        threads: int | None = None,
    ) -> None:  # fmt: skip
        """`task`: "atari/<Game>". `threads`: that emulate; as many as there are cores, at most n, if not given. Nothing but
        speed depends on it.

        Raises:
            ValueError: no such game, one that EnvPool plays otherwise, a protocol that it cannot express (with every field
                that stands in the way), n or threads < 1, or EnvPool is not installed.
        """
        threads = threads_for(n, threads)
        self.protocol = protocol or AtariProtocol()
        refuse(self.protocol)
        pool = open_pool(task.rpartition("/")[2], n, seed, first_env, self.protocol, threads)
        size = self.protocol.frame_size
        spec = Spec(
            frame_shape=(size, size), frame_dtype="uint8", stack=self.protocol.stack,
            actions=int(pool.single_action_space.n), frames_per_step=self.protocol.frame_skip,
        )  # fmt: skip
        super().__init__(n, first_env, spec, pool)
        self._lives: Array = np.zeros(0, np.int32)  # [N], after the last step; none before the first reset

    def reset(self) -> Array:
        obs, info = self._opened().reset(self._playing)
        self._lives = np.zeros(self.n, np.int32)
        self._lives[self._playing] = info["lives"]
        return self._rows(obs)

    def step(self, action: Array) -> Step:
        pool = self._opened()
        if not self._lives.size:
            raise ValueError("reset() the environments before the first step()")
        playing, protocol = self._playing, self.protocol
        obs, reward, _, _, info = pool.step(self._checked(action)[playing].astype(np.int32), playing)
        assert np.array_equal(info["env_id"], playing)
        game_over, capped = info["terminated"].astype(bool), info["elapsed_step"] >= protocol.episode_steps
        lost = (info["lives"] < self._lives[playing]) & protocol.life_loss_terminal
        self._lives[playing] = info["lives"]
        terminated, over = game_over | lost, game_over | capped
        frame, ended = self._rows(obs), playing[over]
        final_frame = frame[ended]
        if ended.size:  # at once: the step that EnvPool would spend on it is never seen
            obs, info = pool.reset(ended)
            frame[ended] = obs[:, 0]
            self._lives[ended] = info["lives"]
        return Step(
            frame, self._spread(reward), self._spread(terminated), self._spread(capped & ~terminated),
            self._spread(over), final_frame, ended.astype(np.int64),
        )  # fmt: skip

    def _rows(self, obs: Array) -> Array:
        """The newest frames of those that play, [n, 1, size, size], as [N, size, size]."""
        newest: Array = obs[:, 0]
        return newest if len(newest) == self.n else self._spread(newest)

    def _checked(self, action: Array) -> Array:
        found: Any = action  # whatever its annotation says
        if not isinstance(found, np.ndarray) or found.dtype != np.int64 or found.shape != (self.n,):
            raise ValueError(f"action must be int64 [{self.n}], got {describe(found)}")
        if (wrong := np.flatnonzero((action < 0) | (action >= self.spec.actions))).size:
            i = int(wrong[0])
            raise ValueError(f"action {action[i]} of environment {i} of the batch is not in [0, {self.spec.actions})")
        return action


def refuse(protocol: AtariProtocol) -> None:
    """Raise ValueError with every field by which this protocol is more than EnvPool can play, and what it can."""
    wrong = []
    if protocol.sticky != 0.0:
        wrong.append(
            f"sticky={protocol.sticky:g} (EnvPool draws them from the emulator's generator, not the environment's stream; "
            "it can without, 0)"
        )
    if protocol.life_loss_terminal and protocol.stop_skip_at_life_loss:
        wrong.append("stop_skip_at_life_loss=True (EnvPool always runs all frames of an agent step; it can with False)")
    if protocol.noop_min != 1:
        wrong.append(
            f"noop_min={protocol.noop_min} (EnvPool begins a game with U{{1, ..., noop_max}} no-ops; it can with 1)"
        )
    if protocol.noop_unit != "frame":
        wrong.append(f'noop_unit={protocol.noop_unit} (a no-op of EnvPool is one emulator frame; it can with "frame")')
    if wrong:
        raise ValueError(
            f"EnvPool cannot play this protocol: {'; '.join(f'protocol.{one}' for one in wrong)}. "
            "The exact backend plays it, and EnvPool plays the variant parity"
        )


def open_pool(game: str, n: int, seed: int, first_env: int, protocol: AtariProtocol, threads: int) -> Any:
    """EnvPool's own vector environment, by a protocol that `refuse` takes: environment i of it is seeded by the stream (seed,
    "env", first_env + i). Raises ValueError where EnvPool is not installed or plays this game otherwise than ale-py."""
    rom = rom_path(game)
    envpool = package()
    name = f"{game}-v5"
    if name not in envpool.list_all_envs():
        raise ValueError(f"EnvPool does not have the game {game}")
    if (screen := _screen(rom)) != SCREEN:
        raise ValueError(f"EnvPool reads {SCREEN} pixels of every screen, and that of {game} has {screen}")
    pool = envpool.make(
        name, env_type="gymnasium", num_envs=n, num_threads=threads, seed=env_seeds(seed, first_env, n),
        stack_num=1, frame_skip=protocol.frame_skip, img_height=protocol.frame_size, img_width=protocol.frame_size,
        max_episode_steps=protocol.episode_steps, noop_max=protocol.noop_max, full_action_space=protocol.full_action_set,
        repeat_action_probability=0.0, use_fire_reset=False, episodic_life=False, reward_clip=False,
        use_inter_area_resize=True, gray_scale=True,
    )  # fmt: skip
    theirs = Path(pool.config["base_path"]) / "atari" / "roms" / rom.name
    if rom_hash(theirs) != rom_hash(rom):
        raise ValueError(f"EnvPool's ROM of {game} is {rom_hash(theirs)}, that of ale-py {rom_hash(rom)}: another game")
    return pool


def package() -> Any:
    """EnvPool itself. ValueError where it is not installed."""
    if importlib.util.find_spec("envpool") is None:
        raise ValueError("the backend envpool needs the package envpool: pip install 'rlplatform[throughput]'")
    import envpool  # type: ignore[import-untyped,import-not-found,unused-ignore]  # takes a second

    return envpool


def threads_for(n: int, threads: int | None) -> int:
    """`threads`, or as many as there are cores and at most n. ValueError where one of the two is < 1."""
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be >= 1, got {threads}")
    return threads or min(n, _cores())


def env_seeds(seed: int, first_env: int, n: int) -> list[int]:
    """What EnvPool's generators of environments first_env, ... are seeded by: 31 bits of the keys of their streams."""
    return [Stream(seed, "env", first_env + i).key >> 33 for i in range(n)]


@functools.cache
def _screen(rom: Path) -> tuple[int, int]:
    """Height and width of a game's screen."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.loadROM(rom)
    height, width = ale.getScreenDims()
    return int(height), int(width)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
