"""Classic control as pictures, drawn from observations alone: geometry is the games', pixels a metre and colours are ours.

Pictures are drawn twice as large and reduced, so that edges are smooth and a pole that moves by a fraction of a pixel shows it.
"""

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw

from rlplatform.types import Array

Point = tuple[float, float]  # (x, y) in pixels of the picture, y downwards

SKY, GROUND, BODY, ARM, JOINT, GOAL = (
    (255, 255, 255), (120, 120, 120), (40, 60, 100), (210, 120, 40), (20, 20, 20), (30, 150, 70),
)  # fmt: skip
FINER = 2  # drawn so many times as large

# CartPole: 56 pixels a metre round the middle of the track, so that both ends of it (2.4 m) are seen.
CART_SCALE, TRACK_Y, CART_TOP_Y, CART_HALF_WIDTH = 56.0, 190.0, 166.0, 22.0
POLE_METRES = 1.0  # twice the half-length of 0.5 m that the game calculates with
# The cars: the valley from -1.2 to 0.6 over the whole width.
VALLEY_LEFT, VALLEY_SCALE = -1.2, 320 / 1.8
FLAGS = {"MountainCar": 0.5, "MountainCarContinuous": 0.45}
# Pendulum and Acrobot hang in the middle of a square.
CENTRE, ROD, LINK = 120.0, 70.0, 52.0


def picture(game: str, frame: Array, length: float = 1.0) -> Array:
    """What an observation of a game of classic control shows.

    Args:
        game: "CartPole", ...
        frame: one observation, float32 as `control/<game>` gives it.
        length: factor of the pole's and the rod's length; a link of Acrobot is the unit there.

    Returns:
        [height, width, 3] uint8: 240 x 320, for Pendulum and Acrobot 240 x 240.
    """
    width = 240 if game in ("Acrobot", "Pendulum") else 320
    image = Image.new("RGB", (FINER * width, FINER * 240), SKY)
    _PAINTERS[game](_Brush(image), np.asarray(frame, np.float64), length)
    return np.array(image.reduce(FINER))


def pole_tip(frame: Array, length: float = 1.0) -> Point:
    """CartPole: where the pole ends. Its angle is clockwise from upright."""
    x, theta = 160.0 + CART_SCALE * float(frame[0]), float(frame[2])
    metres = CART_SCALE * POLE_METRES * length
    return x + metres * np.sin(theta), CART_TOP_Y - metres * np.cos(theta)


def car_place(frame: Array) -> Point:
    """Either car: the point of the ground on which it stands. The ground is sin(3 x) 0.45 + 0.55 high."""
    return _ground(float(frame[0]))


def rod_tip(frame: Array, length: float = 1.0) -> Point:
    """Pendulum: where the rod ends. Its angle is anticlockwise from upright, as Gymnasium draws it."""
    return CENTRE - ROD * length * float(frame[1]), CENTRE - ROD * length * float(frame[0])


def link_ends(frame: Array) -> tuple[Point, Point]:
    """Acrobot: where its links end. The first one's angle is anticlockwise from hanging, the second's from the first."""
    first = np.arctan2(frame[1], frame[0])
    second = first + np.arctan2(frame[3], frame[2])
    elbow = (CENTRE + LINK * np.sin(first), CENTRE + LINK * np.cos(first))
    return elbow, (elbow[0] + LINK * np.sin(second), elbow[1] + LINK * np.cos(second))


class _Brush:
    """Draws on an image FINER times as large, in pixels of the picture."""

    def __init__(self, image: Image.Image) -> None:
        self._draw = ImageDraw.Draw(image)

    def line(self, points: list[Point], colour: tuple[int, int, int], width: float) -> None:
        self._draw.line(self._scaled(points), fill=colour, width=round(FINER * width), joint="curve")

    def area(self, points: list[Point], colour: tuple[int, int, int]) -> None:
        self._draw.polygon(self._scaled(points), fill=colour)

    def disc(self, centre: Point, radius: float, colour: tuple[int, int, int]) -> None:
        (x, y), r = centre, radius
        self._draw.ellipse(self._scaled([(x - r, y - r), (x + r, y + r)]), fill=colour)

    @staticmethod
    def _scaled(points: list[Point]) -> list[Point]:
        return [(FINER * float(x), FINER * float(y)) for x, y in points]


def _cartpole(brush: _Brush, frame: Array, length: float) -> None:
    x = 160.0 + CART_SCALE * frame[0]
    brush.line([(0.0, TRACK_Y), (320.0, TRACK_Y)], GROUND, 2)
    for end in (-2.4, 2.4):
        brush.line([(160.0 + CART_SCALE * end, TRACK_Y - 5), (160.0 + CART_SCALE * end, TRACK_Y + 5)], GROUND, 2)
    left, right = x - CART_HALF_WIDTH, x + CART_HALF_WIDTH
    brush.area([(left, CART_TOP_Y), (right, CART_TOP_Y), (right, TRACK_Y), (left, TRACK_Y)], BODY)
    brush.line([(x, CART_TOP_Y), pole_tip(frame, length)], ARM, 6)
    brush.disc((x, CART_TOP_Y), 3, JOINT)


def _ground(x: float) -> Point:
    return (x - VALLEY_LEFT) * VALLEY_SCALE, 240.0 - (np.sin(3.0 * x) * 0.45 + 0.55) * VALLEY_SCALE


def _car(game: str) -> Callable[[_Brush, Array, float], None]:
    def paint(brush: _Brush, frame: Array, _length: float) -> None:
        brush.line([_ground(x) for x in np.linspace(VALLEY_LEFT, 0.6, 91)], GROUND, 2)
        foot_x, foot_y = _ground(FLAGS[game])
        brush.line([(foot_x, foot_y), (foot_x, foot_y - 36)], JOINT, 2)
        brush.area([(foot_x, foot_y - 36), (foot_x + 14, foot_y - 31), (foot_x, foot_y - 26)], GOAL)

        x, y = car_place(frame)
        slope = np.arctan(3.0 * 0.45 * np.cos(3.0 * frame[0]))  # of the ground, upwards to the right
        along, up = np.array([np.cos(slope), -np.sin(slope)]), np.array([-np.sin(slope), -np.cos(slope)])
        corners = [(-14, 5), (14, 5), (14, 16), (-14, 16)]
        brush.area([tuple(np.array([x, y]) + a * along + b * up) for a, b in corners], BODY)
        for wheel in (-8, 8):
            brush.disc(tuple(np.array([x, y]) + wheel * along + 5 * up), 5, JOINT)

    return paint


def _pendulum(brush: _Brush, frame: Array, length: float) -> None:
    brush.line([(CENTRE, CENTRE), rod_tip(frame, length)], ARM, 12)
    brush.disc(rod_tip(frame, length), 6, ARM)
    brush.disc((CENTRE, CENTRE), 4, JOINT)


def _acrobot(brush: _Brush, frame: Array, _length: float) -> None:
    brush.line([(0.0, CENTRE - LINK), (240.0, CENTRE - LINK)], GOAL, 2)
    elbow, tip = link_ends(frame)
    brush.line([(CENTRE, CENTRE), elbow], BODY, 8)
    brush.line([elbow, tip], ARM, 8)
    for joint in ((CENTRE, CENTRE), elbow):
        brush.disc(joint, 4, JOINT)


_PAINTERS: Mapping[str, Callable[[_Brush, Array, float], None]] = {
    "Acrobot": _acrobot,
    "CartPole": _cartpole,
    "MountainCar": _car("MountainCar"),
    "MountainCarContinuous": _car("MountainCarContinuous"),
    "Pendulum": _pendulum,
}
