"""Atari 2600 games on the Arcade Learning Environment's own interface: every emulator can be saved and restored exactly.

An emulator is deterministic. All that varies between games is drawn here, from the environment's stream: the number of
no-ops at the start of a game, and sticky actions. ALE's own sticky actions stay off: their generator cannot be saved.
"""

import functools
import hashlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import ale_py
import numpy as np
from ale_py import roms

from rlplatform import _core
from rlplatform.envs.native import check_state, describe
from rlplatform.envs.suites import AtariProtocol, unknown
from rlplatform.streams import Stream
from rlplatform.types import Array, Spec, State, Step

STATE_VERSION = 1
NOOP = 0  # in every action set
LAST_BUT_ONE, LAST = 0, 1  # of the two screens that make a frame


class AtariBatch:
    """N emulators of one game.

    A reward is the sum over the frames of an agent step, unclipped. A frame is the maximum of the gray levels of the
    step's last two screens, reduced by area. Where a life lost or the end of the game cuts the step short, and at the start
    of a game, it is the one screen on which the emulator stands.
    """

    device = "cpu"

    def __init__(self, task: str, n: int, seed: int, first_env: int = 0, protocol: AtariProtocol | None = None) -> None:
        """`task`: "<family>/<Game>", as in "atari/MsPacman".

        Raises:
            ValueError: no such game (with the nearest names), or n < 1.
        """
        if n < 1:
            raise ValueError(f"n must be >= 1, got {n}")
        self.game, self.protocol = task.rpartition("/")[2], protocol or AtariProtocol()
        self.n, self.first_env = n, first_env
        rom = rom_path(self.game)
        streams = [Stream(seed, "env", first_env + i) for i in range(n)]
        self._emulators: list[Emulator] = [Emulator(rom, self.protocol, stream) for stream in streams]
        size = self.protocol.frame_size
        self.spec = Spec(
            frame_shape=(size, size), frame_dtype="uint8", stack=self.protocol.stack,
            actions=len(self._emulators[0].actions), frames_per_step=self.protocol.frame_skip,
        )  # fmt: skip
        self._origin = {
            "env": task, "version": STATE_VERSION, "n": n, "ale": ale_py.__version__, "rom": rom_hash(rom),
            "actions": self.spec.actions,
        }  # fmt: skip
        self._started = False

    def reset(self) -> Array:
        emulators = self._open()
        frame = np.empty((self.n, *self.spec.frame_shape), np.uint8)
        for emulator, row in zip(emulators, frame, strict=True):
            emulator.start(row)
        self._started = True
        return frame

    def step(self, action: Array) -> Step:
        emulators = self._open()
        if not self._started:
            raise ValueError("reset() the environments before the first step()")
        chosen = self._checked(action)
        frame = np.empty((self.n, *self.spec.frame_shape), np.uint8)
        outcomes, final_frame, final_env = [], [], []
        for i, emulator in enumerate(emulators):
            outcome = emulator.step(chosen[i], frame[i])
            outcomes.append(outcome)
            if outcome.over:
                final_frame.append(frame[i].copy())
                final_env.append(i)
                emulator.start(frame[i])
        reward, terminated, truncated, over = zip(*outcomes, strict=True)
        return Step(
            frame, np.array(reward, np.float32), np.array(terminated), np.array(truncated), np.array(over),
            np.array(final_frame, np.uint8).reshape(-1, *self.spec.frame_shape), np.array(final_env, np.int64),
        )  # fmt: skip

    def render(self, i: int = 0) -> Array:
        """The screen of environment i, [210, 160, 3] uint8 RGB."""
        return self._open()[i].ale.getScreenRGB()

    def state_dict(self) -> State:
        return {
            **self._origin,
            "emulators": [emulator.state_dict() for emulator in self._open()],
            "started": self._started,
        }

    def load_state_dict(self, state: State) -> None:
        """Raises ValueError, and changes nothing, where `state` is of another game, ROM, ALE or number of environments."""
        emulators = self._open()
        check_state(state, self._origin)
        try:
            saved = [_Saved.of(one) for one in state["emulators"]]
            started = bool(state["started"])
        except KeyError as error:
            raise ValueError(f"damaged state: it lacks {error}") from error
        if len(saved) != self.n:
            raise ValueError(f"the state holds {len(saved)} emulators, here are {self.n}")
        for emulator, one in zip(emulators, saved, strict=True):
            emulator.load(one)
        self._started = started

    def close(self) -> None:
        self._emulators = []

    def _open(self) -> "list[Emulator]":
        if not self._emulators:
            raise ValueError("these environments are closed")
        return self._emulators

    def _checked(self, action: Array) -> list[int]:
        found: Any = action  # whatever its annotation says
        if not isinstance(found, np.ndarray) or found.dtype != np.int64 or found.shape != (self.n,):
            raise ValueError(f"action must be int64 [{self.n}], got {describe(found)}")
        chosen: list[int] = found.tolist()
        for i, one in enumerate(chosen):
            if not 0 <= one < self.spec.actions:
                raise ValueError(f"action {one} of environment {i} of the batch is not in [0, {self.spec.actions})")
        return chosen


class Outcome(NamedTuple):
    """What an agent step of one emulator came to, beside its frame."""

    reward: float
    terminated: bool
    truncated: bool
    over: bool  # the game is to be started anew


class Emulator:
    """One game console, with the protocol around it."""

    def __init__(self, rom: Path, protocol: AtariProtocol, stream: Stream) -> None:
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # or it greets on stderr
        self.ale = ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.setInt("random_seed", 0)  # nothing draws from it; left unset it would be the clock
        self.ale.loadROM(rom)
        chosen = self.ale.getLegalActionSet() if protocol.full_action_set else self.ale.getMinimalActionSet()
        self.actions = [int(action.value) for action in chosen]
        self._protocol, self._stream = protocol, stream
        self._stops = protocol.life_loss_terminal and protocol.stop_skip_at_life_loss
        self._screens = _core.Screens(self.ale.getScreenDims(), (protocol.frame_size, protocol.frame_size))
        self._incoming = self._screens.incoming
        self._lives = 0  # after the last frame
        self._steps = 0  # agent steps since the start of the game
        self._last = NOOP  # the action of the last frame, for sticky ones

    def start(self, frame: Array) -> None:
        """Begin a game, no-ops included, and write its first frame, [size, size] uint8."""
        protocol = self._protocol
        noops = protocol.noop_min + int(self._stream.integers(protocol.noop_max - protocol.noop_min + 1, 1)[0])
        self._begin()
        shown = 1  # how many of the last screens make the frame
        for _ in range(noops):
            if protocol.noop_unit == "step":
                _, _, over, shown = self._advance([NOOP] * protocol.frame_skip)
            else:
                self.ale.act(NOOP)
                over, self._lives = self.ale.game_over(), self.ale.lives()
            if over:  # no game of the suite is over that soon; of another one, a plain start is what remains
                self._begin()
                shown = 1
                break
        self._steps = 0
        self._show(shown, frame)

    def step(self, action: int, frame: Array) -> Outcome:
        """One agent step; writes the newest frame."""
        reward, lost, over, shown = self._advance(self._chosen(self.actions[action]))
        self._steps += 1
        capped = self._steps >= self._protocol.episode_steps
        terminated = over or (lost and self._protocol.life_loss_terminal)
        self._show(shown, frame)
        return Outcome(reward, terminated, capped and not terminated, over or capped)

    def state_dict(self) -> State:
        packed = self.ale.cloneState().serialize()
        return {
            "ale": packed,
            "digest": _digest(packed),
            "lives": self._lives,
            "steps": self._steps,
            "last": self._last,
            "stream": self._stream.state_dict(),
        }

    def load(self, saved: "_Saved") -> None:
        self.ale.act(NOOP)  # a console that never ran a frame restores wrongly (Qbert)
        self.ale.restoreState(saved.ale)
        self._lives, self._steps, self._last = saved.lives, saved.steps, saved.last
        self._stream.key, self._stream.counter = saved.key, saved.counter

    def _begin(self) -> None:
        self.ale.reset_game()
        self._lives, self._last = self.ale.lives(), NOOP

    def _chosen(self, action: int) -> list[int]:
        """The action of each frame of a step. A sticky frame repeats what the frame before it did."""
        skip = self._protocol.frame_skip
        if self._protocol.sticky == 0.0:
            return [action] * skip
        sticks = self._stream.uniform(skip) < self._protocol.sticky
        out, last = [], self._last
        for stick in sticks:
            last = last if stick else action
            out.append(last)
        return out

    def _advance(self, actions: list[int]) -> tuple[float, bool, bool, int]:
        """Run one frame for each action, fewer where a life lost or the end of the game stops the step. (sum of rewards,
        was a life lost, is the game over, how many of the last screens make the frame)."""
        ale, last = self.ale, len(actions) - 1
        act, count_lives, game_over = ale.act, ale.lives, ale.game_over
        reward, lost, lives = 0.0, False, self._lives
        for k, action in enumerate(actions):
            reward += act(action)
            before, lives = lives, count_lives()
            lost = lost or lives < before
            over = game_over()
            if over or (lost and self._stops):
                break
            if k == last - 1:
                self._take(LAST_BUT_ONE)
        self._lives, self._last = lives, action
        return reward, lost, over, 2 if 0 < k == last else 1

    def _show(self, screens: int, frame: Array) -> None:
        """Write the frame that the last one or two screens make."""
        self._take(LAST)
        self._screens.frame(screens, frame)

    def _take(self, slot: int) -> None:
        # Palette entries, not gray levels: ALE takes 14 us to translate a screen, and most of it did not change.
        self.ale.getScreen(self._incoming)
        if not self._screens.take(slot):
            self._screens.learn(slot, self.ale.getScreenGrayscale())


# ale-py has their ROMs, but its single-player interface ends the process on them: they need two players.
TWO_PLAYERS = frozenset({"Combat", "Joust", "MazeCraze", "Warlords"})


def games() -> list[str]:
    """Names of all games that can be played, as tasks take them after "atari/"."""
    return sorted({_camel(name) for name in roms.get_all_rom_ids()} - TWO_PLAYERS)


@functools.cache
def rom_path(game: str) -> Path:
    """The ROM of a game, from the ale-py package.

    Raises:
        ValueError: no such game; the message offers the nearest names.
    """
    if game in TWO_PLAYERS:
        raise ValueError(f"{game} needs two players, which the emulator's interface for one does not offer")
    for name in roms.get_all_rom_ids():
        if _camel(name) == game:
            path = roms.get_rom_path(name)
            if path is None:
                raise ValueError(f"the ROM of {game} in this ale-py is damaged: its checksum is wrong")
            return Path(path)
    raise ValueError(unknown("Atari game", game, games()))


@functools.cache
def rom_hash(path: Path) -> str:
    """MD5 of a ROM: the name by which emulators know it."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _camel(name: str) -> str:
    """ms_pacman -> MsPacman: the names of Gymnasium and of the literature."""
    return "".join(part[:1].upper() + part[1:] for part in re.split("_", name))


def _digest(packed: bytes) -> str:
    return hashlib.blake2b(packed, digest_size=8).hexdigest()


class _Saved(NamedTuple):
    """What an emulator's state_dict() gave, read whole before anything is changed by it."""

    ale: Any
    lives: int
    steps: int
    last: int
    key: int
    counter: int

    @staticmethod
    def of(one: State) -> "_Saved":
        if _digest(one["ale"]) != one["digest"]:  # ALE itself takes a truncated state without a word
            raise ValueError("damaged emulator state: it is not what its digest was made of")
        stream = one["stream"]
        lives, steps, last = int(one["lives"]), int(one["steps"]), int(one["last"])
        return _Saved(ale_py.ALEState(one["ale"]), lives, steps, last, int(stream["key"]), int(stream["counter"]))
