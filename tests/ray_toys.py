"""What actors in other processes play in tests: importable by its own name, since a Ray worker has to import it, too."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlplatform.actor import Actor
from rlplatform.envs import make, register, suite_of
from rlplatform.perf import Clock
from rlplatform.streams import Stream
from rlplatform.types import Step


class Linear:
    """Acts by a matrix product in bfloat16 and one in float32, and says what it saw and with how many threads."""

    def load(self, weights: Any) -> None:
        self.weights = weights

    def act(self, obs: np.ndarray, stream: Stream) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        flat = torch.from_numpy(obs.reshape(len(obs), -1)).float()
        scores = flat @ self.weights["net"]["float"] + (flat.bfloat16() @ self.weights["net"]["half"]).float()
        action = (scores.argmax(1).numpy() + stream.integers(3, len(obs))) % 3
        threads = np.full(len(obs), torch.get_num_threads())
        return action, {"scores": scores.numpy(), "threads": threads, "at": np.full(len(obs), self.at())}

    def at(self) -> int:
        return self.weights["net"]["float"].data_ptr() % 64


def weights_of(version: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(version)
    made = torch.randn(50, 3, generator=generator)
    return {"net": {"float": made, "half": made.bfloat16()}, "epsilon": 0.1 * version}


class Wrapped:
    """Catch with a fault."""

    def __init__(self, seed: int, first_env: int, n: int = 2) -> None:
        self.inner = make("catch", n, seed, first_env)
        self.spec, self.n, self.first_env, self.device = self.inner.spec, n, first_env, "cpu"
        self.steps = 0

    def reset(self) -> np.ndarray:
        return self.inner.reset()

    def step(self, action: np.ndarray) -> Step:
        self.steps += 1
        return self.inner.step(action)

    def state_dict(self) -> Any:
        return {"inner": self.inner.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: Any) -> None:
        self.inner.load_state_dict(state["inner"])
        self.steps = state["steps"]

    def close(self) -> None:
        self.inner.close()


class Slow(Wrapped):
    """So that a kill falls into a round."""

    def step(self, action: np.ndarray) -> Step:
        time.sleep(0.002)
        return super().step(action)


class Forgetful(Wrapped):
    """Cannot be saved."""

    def state_dict(self) -> None:
        return None


class Once(Wrapped):
    """Hangs at its 25th step, or dies there, unless the file `flag` says that somebody did."""

    def __init__(self, seed: int, first_env: int, flag: Path | None, *, dies: bool) -> None:
        super().__init__(seed, first_env)
        self.flag, self.dies = flag, dies

    def step(self, action: np.ndarray) -> Step:
        if self.steps == 25 and (self.flag is None or not self.flag.exists()):
            if self.flag is not None:
                self.flag.touch()
            if self.dies:
                os._exit(3)
            self.stand_still()
        return super().step(action)

    def stand_still(self) -> None:
        time.sleep(1000)


class Poisoned(Wrapped):
    """Gives a reward that is not finite at its 25th step."""

    def step(self, action: np.ndarray) -> Step:
        step = super().step(action)
        return step._replace(reward=step.reward * np.float32(np.nan)) if self.steps == 25 else step


def make_linear(i: int, clock: Clock, kind: Any = Wrapped, **options: Any) -> Actor:
    """Actor i of seed 7."""
    policy, envs = Linear(), kind(7, 2 * i, **options)
    clock.watch(policy, "act", "act")
    return Actor(policy, envs, Stream(7, "actor", i))


def make_late(i: int, clock: Clock, flag: Path) -> Actor:
    """Dies before it has begun, once."""
    if not flag.exists():
        flag.touch()
        os._exit(3)
    return make_linear(i, clock)


def make_broken(i: int, clock: Clock) -> Actor:
    raise ValueError("no such game")


_catch = suite_of("catch")
register("slowcatch", lambda task, n, seed, first_env, protocol, **_: Slow(seed, first_env, n), _catch)
register("forgetfulcatch", lambda task, n, seed, first_env, protocol, **_: Forgetful(seed, first_env, n), _catch)
