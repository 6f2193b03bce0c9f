from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from rlplatform.evaluation import video
from rlplatform.evaluation.score import evaluate
from rlplatform.evaluation.video import filming
from toy_envs import Constant, Toy


def screen(i: int, t: int) -> np.ndarray:
    picture = np.zeros((6, 8, 3), np.uint8)
    picture[:] = (i, 200, 10)
    picture[t % 6, t % 8] = (t * 9 % 256, t * 5 % 256, 255)
    return picture


class Rendering(Toy):
    def render(self, i: int = 0) -> np.ndarray:
        assert i == 0
        return screen(self.first_env, self.t)


def pictures_of(path: Path) -> tuple[list[np.ndarray], list[int]]:
    with Image.open(path) as film:
        frames = [(np.array(frame.convert("RGB")), frame.info["duration"]) for frame in ImageSequence.Iterator(film)]
    return [picture for picture, _ in frames], [duration for _, duration in frames]


@pytest.mark.parametrize("episode", [0, 3])
def test_a_gif_shows_every_step_of_the_game_that_is_scored(tmp_path, episode: int) -> None:
    path = tmp_path / "film.gif"
    with filming(Rendering, path, episode, fps=15.0) as filmed:
        scores = evaluate(Constant(1), filmed, 5, seed=5, lanes=2)
    assert scores == evaluate(Constant(1), Toy, 5, seed=5, lanes=2)
    pictures, durations = pictures_of(path)
    length = scores.episodes[episode].length
    assert length > 2
    np.testing.assert_array_equal(pictures, [screen(episode, t) for t in range(length)])
    np.testing.assert_allclose(
        np.cumsum(durations), 1000 / 15 * np.arange(1, length + 1), atol=5.0
    )  # to half a 1/100 s


def test_more_colours_than_a_palette_holds_are_approximated() -> None:
    many = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    error = np.abs(np.array(video._with_palette(many).convert("RGB")).astype(float) - many)
    assert 0 < error.mean() < 30
    exact = many[:16, :16]
    assert len(np.unique(exact.reshape(-1, 3), axis=0)) == 256
    np.testing.assert_array_equal(np.array(video._with_palette(exact).convert("RGB")), exact)


def test_what_cannot_be_filmed_is_refused_before_a_game(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(video.importlib.util, "find_spec", lambda _: None)
    for name, fps, message in (
        ("film.avi", 15.0, r"a \.gif or an \.mp4, not 'film\.avi'"),
        ("film.mp4", 15.0, "needs the package imageio-ffmpeg"),
        ("film.gif", 0.0, "fps must lie in"),
        ("film.gif", float("nan"), "fps must lie in"),
    ):
        with pytest.raises(ValueError, match=message), filming(Rendering, tmp_path / name, fps=fps):
            pytest.fail("entered")
    with pytest.raises(ValueError, match="Toy has no render"), filming(Toy, tmp_path / "film.gif") as filmed:
        evaluate(Constant(), filmed, 1, seed=5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # imageio-ffmpeg leaves its pipes to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_mp4(tmp_path) -> None:
    reader = pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "film.mp4"
    with filming(Rendering, path, 0, fps=15.0) as filmed:
        length = evaluate(Constant(), filmed, 1, seed=5).episodes[0].length
    frames = reader.read_frames(str(path))
    facts = next(frames)
    assert facts["size"] == (8, 6)
    assert facts["fps"] == 15.0
    assert len(list(frames)) == length
