"""Pictures of classic control: what is drawn is where the state says, found by its colour."""

import numpy as np
import pytest

from rlplatform.envs import ContinualControlProtocol, make
from rlplatform.envs import control_pictures as pictures
from rlplatform.envs.control import GAMES
from rlplatform.envs.control_pictures import ARM, BODY, GOAL, picture
from rlplatform.evaluation.score import evaluate
from rlplatform.evaluation.video import filming


def of_colour(image, colour):
    """(x, y) of the pixels with this very colour, [K, 2]: the insides of a shape, since its edge is blended."""
    y, x = np.nonzero((image == np.array(colour, np.uint8)).all(2))
    return np.stack([x, y], axis=1)


def observation(game, *numbers):
    if game == "Pendulum":
        return np.array([np.cos(numbers[0]), np.sin(numbers[0]), 0.0], np.float32)
    if game == "Acrobot":
        a, b = numbers
        return np.array([np.cos(a), np.sin(a), np.cos(b), np.sin(b), 0.0, 0.0], np.float32)
    return np.array(numbers, np.float32)


@pytest.mark.parametrize("game", GAMES)
def test_pictures_have_a_shape_and_show_the_frame(game):
    batch, rng = make(f"control/{game}", 3, 0), np.random.default_rng(0)
    frame = batch.reset()
    for _ in range(30):
        count = GAMES[game].actions
        frame = batch.step(rng.integers(count, size=3) if count else np.ones((3, 1), np.float32)).frame
    image = batch.render(2)
    assert image.shape == (240, 240 if game in ("Acrobot", "Pendulum") else 320, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, picture(game, frame[2]))
    assert (image != batch.render(0)).any()  # two states, two pictures
    assert 0.6 < (image == 255).all(2).mean() < 0.99


@pytest.mark.parametrize("x", [-2.0, -0.03, 0.0, 1.4])
@pytest.mark.parametrize("theta", [-0.2, 0.0, 0.15])
def test_the_cart_stands_and_the_pole_leans_where_the_state_says(x, theta):
    image = picture("CartPole", observation("CartPole", x, 9.0, theta, 9.0))
    cart, pole = of_colour(image, BODY), of_colour(image, ARM)
    # 56 pixels a metre from the middle of 320, in pixels counted by their corner: within one.
    middle = (cart[:, 0].min() + cart[:, 0].max() + 1) / 2
    assert abs(middle - (160 + 56 * x)) <= 1
    top = pole[pole[:, 1] < pole[:, 1].min() + 3].mean(0)
    assert abs(top[0] + 0.5 - (160 + 56 * x + 56 * np.sin(theta))) <= 3  # it is 6 wide, and its end is slanted
    assert abs(top[1] - (pictures.CART_TOP_Y - 56 * np.cos(theta))) <= 4
    # Its direction, by the line through its pixels, to the right for a positive angle.
    slope = np.polyfit(-pole[:, 1], pole[:, 0], 1)[0]
    assert abs(np.arctan(slope) - theta) < 0.03


def test_a_longer_pole_is_drawn_longer():
    heights = []
    for length in (0.5, 1.0, 1.5):
        pole = of_colour(picture("CartPole", observation("CartPole", 0, 0, 0, 0), length), ARM)
        heights.append(pictures.CART_TOP_Y - pole[:, 1].min())
    np.testing.assert_allclose(heights, [28, 56, 84], atol=2)
    protocol = ContinualControlProtocol(phase_steps=1, length=(1.0, 1.5))
    batch = make("continual-control/CartPole", 1, 0, protocol=protocol)
    batch.reset()
    step = batch.step(np.array([0]))
    np.testing.assert_array_equal(batch.render(), picture("CartPole", step.frame[0], length=1.5))


@pytest.mark.parametrize("game", ["MountainCar", "MountainCarContinuous"])
@pytest.mark.parametrize("x", [-1.1, -0.52, 0.0, 0.4])
def test_the_car_stands_on_the_hill(game, x):
    image = picture(game, observation(game, x, 0.0))
    car = of_colour(image, BODY).mean(0) + 0.5
    ground = np.array([(x + 1.2) * 320 / 1.8, 240 - (np.sin(3 * x) * 0.45 + 0.55) * 320 / 1.8])
    slope = np.arctan(1.35 * np.cos(3 * x))
    expected = ground + 10.5 * np.array([-np.sin(slope), -np.cos(slope)])  # the middle of its body is above it
    np.testing.assert_allclose(car, expected, atol=2.5)  # its wheels cover a part of it
    flag = of_colour(image, GOAL).mean(0)
    assert abs(flag[0] - (pictures.FLAGS[game] + 1.2) * 320 / 1.8 - 5) < 3


@pytest.mark.parametrize("angle", [0.0, 1.0, np.pi / 2, 2.5, -2.0])
def test_the_pendulum_points_where_the_state_says(angle):
    """Upright at 0, to the left at a quarter turn."""
    rod = of_colour(picture("Pendulum", observation("Pendulum", angle)), ARM).mean(0) + 0.5
    direction = rod - 120
    expected = np.array([-np.sin(angle), -np.cos(angle)])
    assert direction @ expected / np.linalg.norm(direction) > 0.999
    # Half of a rod of 70 with a round end, of which the joint covers 4.
    np.testing.assert_allclose(np.linalg.norm(direction), 37, atol=3)


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.0), (1.2, 0.7), (-2.0, 1.5), (np.pi, 0.3)])
def test_acrobot_s_links_hang_where_the_state_says(first, second):
    image = picture("Acrobot", observation("Acrobot", first, second))
    upper, lower = of_colour(image, BODY).mean(0) + 0.5, of_colour(image, ARM).mean(0) + 0.5
    elbow = 120 + 52 * np.array([np.sin(first), np.cos(first)])
    tip = elbow + 52 * np.array([np.sin(first + second), np.cos(first + second)])
    np.testing.assert_allclose(upper, (120 + elbow) / 2, atol=3)
    np.testing.assert_allclose(lower, (elbow + tip) / 2, atol=3)
    line = of_colour(image, GOAL)
    assert set(line[:, 1]) <= {67, 68}  # one link above the joint, at 120 - 52


class Rightwards:
    """A policy that pushes the cart to the right."""

    def load(self, weights):
        pass

    def act(self, obs, stream):
        return np.ones(len(obs), np.int64), {}


@pytest.mark.parametrize("task", ["control/CartPole", "continual-control/CartPole"])
def test_an_evaluation_can_be_filmed(task, tmp_path):
    from PIL import Image, ImageSequence

    def make_env(*, seed, first_env):
        return make(task, 1, seed, first_env)

    with filming(make_env, tmp_path / "cart.gif", 0, fps=15.0) as filmed:
        scores = evaluate(Rightwards(), filmed, 1, seed=5)
    with Image.open(tmp_path / "cart.gif") as film:
        frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)]
        shown_ms = sum(frame.info["duration"] for frame in ImageSequence.Iterator(film))  # like pictures are joined
    assert abs(shown_ms - scores.episodes[0].length * 1000 / 15) <= 5
    carts = [of_colour(frame, BODY)[:, 0].mean() for frame in frames]
    assert carts[-1] > carts[0] + 3


def test_there_is_nothing_to_draw_before_a_reset():
    batch = make("control/Pendulum", 1, 0)
    with pytest.raises(ValueError, match="nothing to render"):
        batch.render()
    batch.reset()
    assert batch.render().any()
    batch.load_state_dict(batch.state_dict())
    with pytest.raises(ValueError, match="nothing to render"):
        batch.render()
    batch.close()
    with pytest.raises(ValueError, match="closed"):
        batch.render()
