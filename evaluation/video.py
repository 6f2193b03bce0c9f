"""A film of one game: `.gif` with what is installed anyway, `.mp4` where the package imageio-ffmpeg is.

The game filmed is one that is scored: wrap `make_env` and evaluate.

    with filming(make_env, Path("pong.gif")) as filmed:
        scores = evaluate(policy, filmed, episodes=100, seed=seed)
"""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from rlplatform.evaluation.score import MakeEnv
from rlplatform.types import Array, EnvBatch, State, Step


@contextmanager
def filming(make_env: MakeEnv, path: Path, episode: int = 0, fps: float = 15.0) -> Iterator[MakeEnv]:
    """A `make_env` that films the first game of environment `episode`, as its `render(0)` shows it, one picture an agent step.
    The screen on which the game ends is not shown: by then the environment has begun another.

    Args:
        path: ends in .gif (exact colours; a picture takes its size in memory until the end) or .mp4.
        fps: agent steps a second; Atari's real time is 60 / frame skip.

    Raises:
        ValueError: another ending, an environment that cannot render, or .mp4 without imageio-ffmpeg; before a game is played.
    """
    writer = _writer(path, fps)

    def make(*, seed: int, first_env: int) -> EnvBatch:
        env = make_env(seed=seed, first_env=first_env)
        if first_env != episode:
            return env
        if not hasattr(env, "render"):
            env.close()
            raise ValueError(f"{type(env).__name__} has no render(): it cannot be filmed")
        return _Filmed(env, writer)

    try:
        yield make
    finally:
        writer.close()


class _Writer(Protocol):
    def add(self, picture: Array) -> None: ...  # [H, W, 3] uint8
    def close(self) -> None: ...


class _Filmed:
    """An EnvBatch of one that shows its pictures to a writer, for the one game that an evaluation plays."""

    def __init__(self, env: Any, writer: _Writer) -> None:
        self._env, self._writer = env, writer
        self.spec, self.n, self.first_env, self.device = env.spec, env.n, env.first_env, env.device

    def reset(self) -> Array:
        frame: Array = self._env.reset()
        self._writer.add(self._env.render(0))
        return frame

    def step(self, action: Array) -> Step:
        step: Step = self._env.step(action)
        if not step.reset[0]:
            self._writer.add(self._env.render(0))
        return step

    def state_dict(self) -> State:
        state: State = self._env.state_dict()
        return state

    def load_state_dict(self, state: State) -> None:
        self._env.load_state_dict(state)

    def close(self) -> None:
        self._env.close()


def _writer(path: Path, fps: float) -> _Writer:
    if not 0.0 < fps <= 50.0:
        raise ValueError(f"fps must lie in (0, 50], got {fps}")
    if path.suffix == ".gif":
        return _Gif(path, fps)
    if path.suffix == ".mp4":
        if importlib.util.find_spec("imageio_ffmpeg") is None:
            raise ValueError(
                "a film in .mp4 needs the package imageio-ffmpeg (pip install 'rlplatform[video]'); .gif needs nothing"
            )
        return _Mp4(path, fps)
    raise ValueError(f"a film is a .gif or an .mp4, not {path.name!r}")


class _Gif:
    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._pictures: list[Image.Image] = []

    def add(self, picture: Array) -> None:
        self._pictures.append(_with_palette(picture))

    def close(self) -> None:
        if not self._pictures:
            return
        # a GIF counts in 1/100 s: round the times, not their differences, so that the film keeps its length
        ends = np.rint(100.0 / self._fps * np.arange(1, len(self._pictures) + 1)).astype(int)
        durations = (10 * np.diff(ends, prepend=0)).tolist()
        first, *others = self._pictures
        first.save(self._path, save_all=True, append_images=others, duration=durations, loop=0)


class _Mp4:
    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._sink: Any = None

    def add(self, picture: Array) -> None:
        if self._sink is None:
            from imageio_ffmpeg import write_frames  # type: ignore[import-untyped,import-not-found,unused-ignore]

            height, width, _ = picture.shape
            self._sink = write_frames(str(self._path), (width, height), fps=self._fps, quality=9, macro_block_size=2)
            self._sink.send(None)
        self._sink.send(np.ascontiguousarray(picture))

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()


def _with_palette(picture: Array) -> Image.Image:
    """[H, W, 3] uint8 as indices into its own colours: exact up to 256 of them (an Atari screen has at most 128)."""
    packed = picture.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    colours, index = np.unique(packed, return_inverse=True)
    if len(colours) > 256:
        return Image.fromarray(picture).quantize(256)
    image = Image.fromarray(index.reshape(packed.shape).astype(np.uint8))
    image.putpalette(np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8).tobytes())
    return image
