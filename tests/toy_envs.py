"""An environment whose scores can be worked out on paper, and policies for it."""

import numpy as np

from rlplatform.streams import Stream
from rlplatform.types import Spec, Step

SPEC = Spec(frame_shape=(3,), frame_dtype="float32", stack=3, actions=4)


class Toy:
    """Environment i: a stream of (seed, i) draws its length L and the reward of each step; the agent's action is added to the
    reward. A life is lost every 4 steps (called a truncation in every third
    environment). Games of odd environments are truncated at L. Frame: (i + 1, step, lives lost)."""

    def __init__(
        self, seed: int, first_env: int, n: int = 1, log: list | None = None, bad_at: int | None = None
    ) -> None:
        self.spec, self.n, self.first_env, self.device = SPEC, n, first_env, "cpu"
        self.length, self.rewards = self.script(seed, first_env)
        self.t, self.games, self.bad_at = 0, 0, bad_at
        self.log = [] if log is None else log
        self.log.append(("open", first_env))

    @staticmethod
    def script(seed: int, i: int) -> tuple[int, np.ndarray]:
        stream = Stream(seed, "toy", i)
        return 1 + int(stream.integers(20)), stream.integers(10, 32) - 5

    def _frame(self) -> np.ndarray:
        return np.array([[self.first_env + 1, self.t, self.t // 4]], np.float32)

    def reset(self) -> np.ndarray:
        self.t = 0
        return self._frame()

    def step(self, action: np.ndarray) -> Step:
        assert action.shape == (1,)
        assert self.games == 0, "stepped beyond the first game"
        reward = np.array([self.rewards[self.t] + action[0]], np.float32)
        if self.t == self.bad_at:
            reward[:] = np.nan
        self.t += 1
        over = self.t == self.length
        truncated, terminated = over and self.first_env % 2 == 1, over and self.first_env % 2 == 0
        if self.t % 4 == 0 and not over:  # the learner's episode ends here, the game goes on
            truncated, terminated = self.first_env % 3 == 0, self.first_env % 3 != 0
        final = self._frame()[:1] if over else np.zeros((0, 3), np.float32)
        if over:
            self.t, self.games = 0, self.games + 1
        flags = [np.array([value]) for value in (terminated, truncated, over)]
        return Step(self._frame(), reward, *flags, final, np.flatnonzero([over]))

    def state_dict(self) -> dict:
        raise NotImplementedError

    def load_state_dict(self, state: dict) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.log.append(("close", self.first_env))


class ToyBatch:
    """The games of Toy as one batch, again and again, which can leave environments out; `lengths` replaces those drawn. The
    frame of a later game: 100 more for each before it, in its last column."""

    def __init__(self, seed: int, n: int, lengths: tuple[int, ...] | None = None) -> None:
        self.spec, self.n, self.first_env, self.device = SPEC, n, 0, "cpu"
        self.games = [Toy(seed, i) for i in range(n)]
        if lengths is not None:
            for game, length in zip(self.games, lengths, strict=True):
                game.length = length
        self.retired, self.stepped, self.closed = set(), [0] * n, False
        self.played = np.zeros(n, np.int64)

    def reset(self) -> np.ndarray:
        return np.concatenate([game.reset() for game in self.games])

    def step(self, action: np.ndarray) -> Step:
        rows = []
        for i, game in enumerate(self.games):
            if i in self.retired:
                none = np.zeros((1, 3), np.float32)
                rows.append(Step(none, np.zeros(1, np.float32), *[np.zeros(1, bool)] * 3, none[:0], np.zeros(0, int)))
            else:
                rows.append(game.step(action[i : i + 1]))
                game.games = 0  # it may play another
                self.stepped[i] += 1
        *columns, _, _ = (np.concatenate(column) for column in zip(*rows, strict=True))
        final = np.concatenate([row.final_frame for row in rows])
        self.played += columns[-1]
        columns[0][:, 2] += np.where(self.playing(), 100 * self.played, 0)
        return Step(*columns, final, np.flatnonzero(columns[-1]))

    def playing(self) -> np.ndarray:
        return ~np.isin(np.arange(self.n), list(self.retired))

    def retire(self, env: int) -> None:
        self.retired.add(env)

    def close(self) -> None:
        self.closed = True


class Constant:
    """Always the same action; keeps what it saw."""

    def __init__(self, action: int = 0) -> None:
        self.action, self.seen = action, []

    def load(self, weights: dict) -> None: ...

    def act(self, obs: np.ndarray, _stream: Stream) -> tuple[np.ndarray, dict]:
        self.seen.append(obs.copy())
        return np.full(len(obs), self.action, np.int64), {}


class Chance(Constant):
    """Draws each row's action."""

    def act(self, obs: np.ndarray, stream: Stream) -> tuple[np.ndarray, dict]:
        return stream.integers(4, len(obs)), {}
