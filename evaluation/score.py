"""Evaluation: a policy plays whole games by the environment's protocol, and every game is a row.

**One to one.** Episode i is the first game of environment i, a batch of one made by `make_env(seed=seed, first_env=i)`; what
the policy draws for it comes from `Stream(seed, "eval", i)`. A life lost does not end an episode; `Step.reset` does.

**Lanes.** At most `lanes` games are under way. Lane k plays the episodes k, k + lanes, k + 2 lanes, ... one after another, and
the policy always acts on [lanes, stack, *frame]: the row of a lane that has run out of episodes is zero and its action is
dropped. A matrix product rounds by the shape of its batch, so this shape is kept fixed and belongs to the protocol.

What follows for a policy whose rows do not influence each other: episode i is a function of (weights, seed, i, lanes), bit
for bit, whatever the number of episodes (from `lanes` on) and of threads that step environments. Another number of lanes
changes nothing but rounding, as long as the policy draws row by row (epsilon-greedy does; noise common to a batch does not).
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rlplatform.actor import FrameStack
from rlplatform.streams import Stream
from rlplatform.types import Array, EnvBatch, Policy, Spec, Step

LANES = 16  # the default: with 100 episodes about seven games a lane, so that few rows are idle at the end


class Scale(NamedTuple):
    """Where a normalised score has its 0 (random play on Atari) and its 1 (the human there, 1000 on DeepMind Control)."""

    low: float
    high: float

    def of(self, score: float) -> float:
        return (score - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Episode:
    """One game played to its end."""

    episode: int  # its number, which is its environment's
    score: float  # sum of raw rewards
    length: int  # agent steps
    truncated: bool  # ended by the cap on steps, not by the game
    normalized: float | None  # None where the benchmark has no scale


@dataclass(frozen=True)
class Scores:
    """All games of one evaluation, in order of their number."""

    seed: int  # of the environments and of the policy's draws
    lanes: int
    episodes: tuple[Episode, ...]

    @property
    def score(self) -> NDArray[np.float64]:
        """Raw scores, [E]."""
        return np.array([episode.score for episode in self.episodes], np.float64)


class MakeEnv(Protocol):
    """Makes a batch of one environment, number `first_env` of those seeded by `seed`."""

    def __call__(self, *, seed: int, first_env: int) -> EnvBatch: ...


class Retiring(EnvBatch, Protocol):
    """A batch that can leave single environments out."""

    def retire(self, env: int) -> None:
        """Environment `env` of the batch plays no more: its rows of later Steps are 0."""
        ...


Rows = list[tuple[Step, int]]  # of each lane that was stepped: its Step, and which row of it is the lane's


class _Table(Protocol):
    """Where the games of all lanes are played."""

    @property
    def spec(self) -> Spec: ...
    def begin(self, lane: int, number: int) -> Array: ...  # the first frame of the lane's next episode, [*frame]
    def step(self, lanes: list[int], action: Array) -> Rows: ...  # action: of all lanes, [lanes, ...]
    def leave(self, lane: int) -> None: ...  # the lane has no more episodes


def evaluation_seed(run_seed: int, step: int) -> int:
    """The seed of the evaluation after agent step `step` of the run with `run_seed`: 53 bits (exact in JSON and in float64),
    other environments than the training's, and others at each step."""
    return Stream(run_seed, "evaluation", step).key >> 11


def evaluate(
    policy: Policy,
    make_env: MakeEnv,
    episodes: int,
    seed: int,
    *,
    lanes: int = LANES,
    threads: int = 1,
    scale: Scale | None = None,
    on_episode: Callable[[Episode], None] | None = None,
) -> Scores:
    """Play `episodes` games with the weights that `policy` holds, by the rule in this module's docstring.

    Args:
        policy: an agent's `eval_policy()`, loaded. Its `act` may draw from the stream it is given in any shape: a draw with
            `lanes` as leading dimension is one per row, from each row's own episode; any other is common to all rows.
        make_env: makes environment i, and with it the protocol: no-ops, sticky actions, the cap on steps.
        episodes: how many games, >= 1.
        seed: `evaluation_seed(run_seed, step)` within a run.
        lanes: games under way at a time, >= 1, no more than `episodes` are used. Part of the protocol.
        threads: threads that step environments; the result does not depend on it.
        scale: turns a raw score into a normalised one.
        on_episode: told of each game when it ends, in the order of ending, which is the same every time.

    Raises:
        FloatingPointError: an environment paid NaN or infinity.
    """
    if episodes < 1 or lanes < 1 or threads < 1:
        raise ValueError(f"episodes, lanes and threads must be >= 1, got {episodes}, {lanes} and {threads}")
    with ExitStack() as cleanup:
        step_all = map if threads == 1 else cleanup.enter_context(ThreadPoolExecutor(threads)).map
        singles = _Singles(make_env, seed, step_all)
        cleanup.callback(singles.close)
        return _play(policy, singles, episodes, seed, min(lanes, episodes), scale, on_episode)


def evaluate_together(
    policy: Policy,
    env: Retiring,
    episodes: int,
    seed: int,
    *,
    scale: Scale | None = None,
    on_episode: Callable[[Episode], None] | None = None,
) -> Scores:
    """`evaluate` on one batch that steps all its games at once, with as many lanes as it has environments: as a backend with
    threads of its own likes it.

    Environment k plays the episodes k, k + N, k + 2 N, ... one after another and is retired after its last. Which games count
    is settled before the first is played, so a short game counts no more than a long one. Where no game depends on those
    before it in its environment (N = episodes, or a start without chance), the scores are those of `evaluate`.

    Args:
        env: N environments, new, N <= episodes, made with `seed`; closed at the end.

    Raises:
        ValueError: more environments than episodes.
        FloatingPointError: an environment paid NaN or infinity.
    """
    with closing(env):
        if not 1 <= env.n <= episodes:
            raise ValueError(f"{episodes} episodes need 1 to {episodes} environments, got {env.n}")
        return _play(policy, _Together(env), episodes, seed, env.n, scale, on_episode)


def _play(
    policy: Policy,
    table: _Table,
    episodes: int,
    seed: int,
    lanes: int,
    scale: Scale | None,
    on_episode: Callable[[Episode], None] | None,
) -> Scores:
    queue = [iter(range(lane, episodes, lanes)) for lane in range(lanes)]
    draws = _Draws(seed, lanes)
    ended: dict[int, Episode] = {}
    playing: dict[int, _Game] = {}  # by lane

    def start(lane: int) -> None:
        if (number := next(queue[lane], None)) is not None:
            playing[lane] = _Game(number, table.begin(lane, number))
            draws.rows[lane] = Stream(seed, "eval", number)
        else:
            table.leave(lane)

    for lane in range(lanes):
        start(lane)
    spec = table.spec
    stack = FrameStack(lanes, spec)
    while playing:
        frame = np.zeros((lanes, *spec.frame_shape), spec.frame_dtype)
        first = np.ones(lanes, bool)
        for lane, game in playing.items():
            frame[lane], first[lane] = game.frame, game.first
        action, _ = policy.act(stack.push(frame, first), draws)
        steps = table.step(list(playing), action)
        over = [lane for lane, (step, row) in zip(list(playing), steps, strict=True) if playing[lane].note(step, row)]
        for lane in over:
            game = playing.pop(lane)
            ended[game.number] = episode = game.result(scale)
            start(lane)
            if on_episode is not None:
                on_episode(episode)
    return Scores(seed, lanes, tuple(ended[number] for number in range(episodes)))


class _Singles:
    """A batch of one for each episode."""

    def __init__(self, make_env: MakeEnv, seed: int, step_all: Callable[..., Iterable[Step]]) -> None:
        self._make_env, self._seed, self._step_all = make_env, seed, step_all
        self._envs: dict[int, EnvBatch] = {}  # by lane

    @property
    def spec(self) -> Spec:
        return self._envs[0].spec

    def begin(self, lane: int, number: int) -> Array:
        self.leave(lane)
        env = self._envs[lane] = self._make_env(seed=self._seed, first_env=number)
        if env.n != 1:
            raise ValueError(f"evaluation plays one environment a batch, make_env gave {env.n}")
        frame: Array = env.reset()[0]
        return frame

    def step(self, lanes: list[int], action: Array) -> Rows:
        def one(lane: int) -> Step:
            return self._envs[lane].step(action[lane : lane + 1])

        return [(step, 0) for step in self._step_all(one, lanes)]

    def leave(self, lane: int) -> None:
        if lane in self._envs:
            self._envs.pop(lane).close()

    def close(self) -> None:
        for lane in list(self._envs):
            self.leave(lane)


class _Together:
    """One batch, an environment a lane."""

    def __init__(self, env: Retiring) -> None:
        self._env, self.spec = env, env.spec
        self._frame = env.reset()

    def begin(self, lane: int, number: int) -> Array:
        frame: Array = self._frame[lane]  # begun in the step that ended the game before
        return frame

    def step(self, lanes: list[int], action: Array) -> Rows:
        step = self._env.step(action)
        self._frame = step.frame
        return [(step, lane) for lane in lanes]

    def leave(self, lane: int) -> None:
        self._env.retire(lane)


class _Game:
    """An episode under way."""

    def __init__(self, number: int, frame: Array) -> None:
        self.number, self.frame = number, frame
        self.first = True  # `frame` is the oldest that the policy may see
        self.score, self.length = 0.0, 0
        self.truncated = False

    def note(self, step: Step, row: int) -> bool:
        """One agent step, environment `row` of its batch; True if it was the game's last."""
        self.score += float(step.reward[row])
        self.length += 1
        if not np.isfinite(self.score):
            raise FloatingPointError(f"NaN or infinity in the reward of episode {self.number}, step {self.length}")
        self.frame = step.frame[row]
        self.first = bool(step.terminated[row] | step.truncated[row])
        self.truncated = bool(step.truncated[row])
        return bool(step.reset[row])

    def result(self, scale: Scale | None) -> Episode:
        normalized = None if scale is None else scale.of(self.score)
        return Episode(self.number, self.score, self.length, self.truncated, normalized)


class _Draws:
    """The episodes' streams, drawn from as one: to a policy it is a Stream."""

    def __init__(self, seed: int, lanes: int) -> None:
        self.rows = [Stream(seed, "eval", lane) for lane in range(lanes)]
        self._common = Stream(seed, "eval common")

    def uniform(self, *shape: int) -> NDArray[np.float64]:
        if shape[:1] != (len(self.rows),):
            return self._common.uniform(*shape)
        return np.stack([row.uniform(*shape[1:]) for row in self.rows])

    def normal(self, *shape: int) -> NDArray[np.float32]:
        if shape[:1] != (len(self.rows),):
            return self._common.normal(*shape)
        return np.stack([row.normal(*shape[1:]) for row in self.rows])

    def integers(self, bound: int, *shape: int) -> NDArray[np.int64]:
        if shape[:1] != (len(self.rows),):
            return self._common.integers(bound, *shape)
        return np.stack([row.integers(bound, *shape[1:]) for row in self.rows])
