import ale_py
import cv2
import numpy as np
import pytest
from ale_py import roms

from rlplatform import _core

ATARI = ((210, 160), (84, 84))


def opencv(image, out):
    return cv2.resize(image, (out[1], out[0]), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ATARI,
        ((210, 160), (96, 96)),
        ((210, 160), (64, 64)),
        ((210, 160), (1, 1)),
        ((210, 160), (105, 80)),  # whole ratios, which OpenCV treats apart: 2 x 2,
        ((210, 160), (70, 40)),  # 3 x 4,
        ((210, 160), (210, 80)),  # 1 x 2
        ((210, 160), (210, 160)),
        ((210, 160), (209, 159)),
        ((210, 160), (105, 84)),  # whole along one axis only
        ((250, 160), (84, 84)),
        ((97, 53), (11, 7)),
        ((5, 300), (3, 7)),
        ((5, 1001), (3, 1000)),  # slivers of a thousandth of a pixel, which OpenCV drops
    ],
)
def test_reduction_equals_opencv_on_noise(source, out):
    resize, rng = _core.AreaResize(source, out), np.random.default_rng(0)
    for k in range(30):
        # Noise over all levels, over two, and near the ends of the range, where rounding has ties.
        low, high = [(0, 256), (0, 2), (254, 256)][k % 3]
        image = rng.integers(low, high, source, dtype=np.uint8)
        np.testing.assert_array_equal(resize(image), opencv(image, out))


def test_reduction_equals_opencv_at_many_sizes():
    rng = np.random.default_rng(1)
    for _ in range(300):
        source = tuple(int(x) for x in rng.integers(1, 60, 2))
        out = tuple(int(rng.integers(1, x + 1)) for x in source)
        image = rng.integers(0, 256, source, dtype=np.uint8)
        np.testing.assert_array_equal(
            _core.AreaResize(source, out)(image), opencv(image, out), err_msg=f"{source} {out}"
        )


@pytest.mark.parametrize("game", ["pong", "breakout", "seaquest", "bank_heist", "krull"])
def test_frames_of_games_equal_opencv(game):
    """Screens through ALE's palette, our translation, maximum and reduction, against ALE's gray, numpy and OpenCV."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(roms.get_rom_path(game))
    actions = [int(action.value) for action in ale.getMinimalActionSet()]
    screens, rng = _core.Screens(*ATARI), np.random.default_rng(2)
    gray, frame, learned = [None, None], np.empty(ATARI[1], np.uint8), 0
    for t in range(300):
        count = 1 + int(t % 11 != 0)
        for slot in range(2 - count, 2):
            ale.act(int(rng.choice(actions)))
            ale.getScreen(screens.incoming)
            gray[slot] = ale.getScreenGrayscale()
            if not screens.take(slot):
                screens.learn(slot, gray[slot])
                learned += 1
        if ale.game_over():
            ale.reset_game()
        screens.frame(count, frame)
        image = gray[1] if count == 1 else np.maximum(*gray)
        np.testing.assert_array_equal(frame, opencv(image, ATARI[1]))
    assert 1 <= learned < 100


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _core.AreaResize((10, 10), (11, 10)), "cannot enlarge"),
        (lambda: _core.AreaResize((10, 10), (10, 11)), "cannot enlarge"),
        (lambda: _core.AreaResize((10, 10), (0, 5)), r"height and width must be in \[1, 8192\]"),
        (lambda: _core.AreaResize((10, 10, 3), (5, 5)), r"a size is \(height, width\)"),
        (lambda: _core.AreaResize((10, 10), (5, 5))(np.zeros((10, 11), np.uint8)), r"image must be uint8 \[10, 10\]"),
        (
            lambda: _core.AreaResize((10, 10), (5, 5))(np.zeros((10, 10, 1), np.uint8)),
            r"image must be uint8 \[10, 10\]",
        ),
        (lambda: _core.Screens(*ATARI).take(2), "a slot is 0 or 1"),
        (lambda: _core.Screens(*ATARI).frame(3, np.zeros((84, 84), np.uint8)), "made of 1 or 2 screens"),
        (lambda: _core.Screens(*ATARI).frame(1, np.zeros((84, 85), np.uint8)), r"out must be uint8 \[84, 84\]"),
        (lambda: _core.Screens(*ATARI).learn(0, np.zeros((84, 84), np.uint8)), r"gray must be uint8 \[210, 160\]"),
    ],
)
def test_misuse_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_another_dtype_is_refused_not_converted():
    with pytest.raises(TypeError):
        _core.AreaResize((10, 10), (5, 5))(np.zeros((10, 10)))
    with pytest.raises(TypeError):
        _core.AreaResize((10, 10), (5, 5))(np.zeros((20, 10), np.uint8)[::2])
