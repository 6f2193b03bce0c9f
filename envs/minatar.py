"""MinAtar's five games (Young and Tian 2019, arXiv:1903.03176) in the C++ core."""

import colorsys
import dataclasses

import numpy as np

from rlplatform import _core
from rlplatform.envs.native import NativeBatch, env_keys
from rlplatform.envs.suites import MinAtarProtocol, unknown
from rlplatform.types import Array, Spec

# What each channel of a frame marks; channel 0 is the player.
CHANNELS = {
    "Asterix": ("player", "enemy", "trail", "gold"),
    "Breakout": ("paddle", "ball", "trail", "brick"),
    "Freeway": ("chicken", "car", "speed 1", "speed 2", "speed 3", "speed 4", "speed 5"),
    "Seaquest": (
        "submarine's front", "submarine's back", "own bullet", "trail", "enemy bullet", "enemy fish", "enemy submarine",
        "oxygen", "divers on board", "diver",
    ),
    "SpaceInvaders": ("cannon", "alien", "alien going left", "alien going right", "own bullet", "enemy bullet"),
}  # fmt: skip
ACTIONS = ("none", "left", "up", "right", "down", "fire")  # in every game, whether or not it heeds them


class MinAtarBatch(NativeBatch):
    """A `NativeBatch` that shows its channels in colour."""

    def render(self, i: int = 0) -> Array:
        """Environment i as a picture, [160, 160, 3] uint8: 16 x 16 pixels a cell, black where nothing is. Where a cell has
        several channels, the first of them is seen."""
        self._open()
        if self._frame is None:
            raise ValueError("nothing to render before reset(), or between load_state_dict() and step()")
        return coloured(self._frame[i])


def make_minatar(
    task: str, n: int, seed: int, first_env: int, protocol: MinAtarProtocol, threads: int = 1
) -> MinAtarBatch:
    """A MinAtar game: frames uint8 [channels, 10, 10], 255 where MinAtar's state is true and 0 elsewhere; the six ACTIONS;
    rewards as the game gives them. The end of a game is a termination, Freeway's time limit too, as in MinAtar.

    Raises:
        ValueError: no such game.
    """
    game = task.partition("/")[2]
    if game not in CHANNELS:
        raise ValueError(unknown("MinAtar game", game, CHANNELS))
    core = _core.minatar_batch(
        game, env_keys(seed, first_env, n), threads, protocol.sticky, protocol.ramping, protocol.episode_steps
    )
    spec = Spec(frame_shape=(len(CHANNELS[game]), 10, 10), frame_dtype="uint8", stack=1, actions=len(ACTIONS))
    return MinAtarBatch(core, task, spec, first_env, dataclasses.asdict(protocol))


def coloured(frame: Array) -> Array:
    """A frame [channels, height, width] as a picture, [16 height, 16 width, 3] uint8. See MinAtarBatch.render."""
    lit = frame > 0
    colour = np.array([[0, 0, 0], *palette(len(lit))], np.uint8)
    picture: Array = colour[np.where(lit.any(0), 1 + lit.argmax(0), 0)]
    return picture.repeat(16, axis=0).repeat(16, axis=1)


def palette(channels: int) -> Array:
    """One colour a channel, [channels, 3] uint8: white for the player, then hues all round the circle."""
    hues = [colorsys.hsv_to_rgb(k / (channels - 1), 0.75, 0.95) for k in range(channels - 1)]
    return np.array([(255, 255, 255), *(tuple(round(255 * part) for part in hue) for hue in hues)], np.uint8)
