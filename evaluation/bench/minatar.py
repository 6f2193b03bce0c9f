"""Steps a second of MinAtar on one core: the games of the C++ core beside the minatar package.

    rlplatform bench minatar [--games G ...] [--envs N ...] [--rounds R] [--out FILE]

Random play of all six actions, in turns within one process:
  package  `Environment.act`, `state()` (an agent has to see it), and `reset` where a game ended; one environment
  ours     N environments on one thread: frames, rewards, true last frames, resets
A figure is CPU time of the process for one step of one environment; a ratio is the median over rounds of quotients within one
round, between turns that follow each other. Needs the minatar package (`pip install 'rlplatform[test]'`).
"""

import argparse
import importlib
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from rlplatform.envs import make, suite_of
from rlplatform.provenance import provenance
from rlplatform.types import Array

PACKAGE_STEPS = 2_000  # a turn of the package
OUR_STEPS = 65_536  # a turn of ours, of all environments together


class Package:
    """One environment of the minatar package."""

    def __init__(self, game: str) -> None:
        name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in game).lstrip("_")
        self.env = importlib.import_module("minatar").Environment(name)
        self.env.seed(0)
        self.env.reset()

    def play(self, actions: Array) -> None:
        env = self.env
        for action in actions.tolist():
            _, over = env.act(action)
            if over:
                env.reset()
            env.state()


def cpu_us(play: Any, steps: int) -> float:
    """CPU microseconds a step of what `play` does, which is `steps` of them."""
    before = time.process_time()
    play()
    return (time.process_time() - before) / steps * 1e6


def measure(game: str, envs: list[int], rounds: int) -> list[dict[str, Any]]:
    """A row for each N."""
    package, rng = Package(game), np.random.default_rng(0)
    batches = {n: make(f"minatar/{game}", n, 0) for n in envs}
    for batch in batches.values():
        batch.reset()
    theirs: list[float] = []
    ours: dict[int, list[float]] = {n: [] for n in envs}
    ratio: dict[int, list[float]] = {n: [] for n in envs}
    for turn in range(rounds + 1):  # the first warms the caches and is not counted
        for n, batch in batches.items():
            few, many = rng.integers(6, size=PACKAGE_STEPS), rng.integers(6, size=(OUR_STEPS // n, n))
            package_us = cpu_us(lambda actions=few: package.play(actions), PACKAGE_STEPS)
            our_us = cpu_us(lambda b=batch, actions=many: [b.step(action) for action in actions], many.size)
            if turn:
                theirs.append(package_us)
                ours[n].append(our_us)
                ratio[n].append(package_us / our_us)
    return [
        {
            "game": game, "envs": n, "package_us": round(statistics.median(theirs), 2),
            "ours_us": round(statistics.median(ours[n]), 4), "ours_steps_per_s": round(1e6 / statistics.median(ours[n])),
            "ratio": round(statistics.median(ratio[n]), 1), "least_ratio": round(min(ratio[n]), 1),
        }
        for n in envs
    ]  # fmt: skip


def main() -> None:
    """Measure, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    games = [task.partition("/")[2] for task in suite_of("minatar").tasks]
    parser.add_argument("--games", nargs="+", default=games)
    parser.add_argument("--envs", nargs="+", type=int, default=[1, 16, 256, 4096])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "minatar.json")
    given = parser.parse_args()

    load = list(os.getloadavg())  # before we add to it: what else the machine was doing
    rows: list[dict[str, Any]] = []
    for game in given.games:
        for row in measure(game, given.envs, given.rounds):
            if not rows:
                print("  ".join(row))
            print("  ".join(f"{value!s:>{len(name)}}" for name, value in row.items()), flush=True)
            rows.append(row)
    result = {"rounds": given.rounds, "rows": rows, **provenance(), "load": load}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
