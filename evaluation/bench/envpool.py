"""Frames a second of Atari on EnvPool, beside the exact backend and bare emulation.

    rlplatform bench envpool [--games G ...] [--rounds N] [--threads T] [--out FILE]

For N environments of a game, in turns within one process, each turn 256 agent steps of all environments together:
  bare    ALE's own interface in a Python loop: four `act` and one gray screen; no protocol
  exact   AtariBatch
  envpool EnvPool's own step, with its next-step resets
  pool    PoolBatch: the same, with resets in the same step and the checks of an EnvBatch
All play the variant parity by the same random actions. A ratio is the median over rounds of quotients within one round; the order
of the four goes round, so that a busy machine is busy for all. EnvPool's threads take more than one core where there is one, so
wall time is what counts; CPU time of the process is beside it.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from rlplatform.envs import make, suite_of
from rlplatform.envs.pool import open_pool
from rlplatform.evaluation.bench.atari import Bare
from rlplatform.provenance import provenance
from rlplatform.types import Array, EnvBatch

ENVS = (1, 8, 32)
TURN = 256  # agent steps of all environments together
KINDS = ("bare", "exact", "envpool", "pool")


class BareBatch:
    """N consoles, one after the other."""

    def __init__(self, game: str, n: int) -> None:
        self.consoles = [Bare(game) for _ in range(n)]

    def play(self, actions: Array) -> None:
        for console, chosen in zip(self.consoles, actions.T, strict=True):
            console.play(chosen)

    def close(self) -> None: ...


class Batch:
    """One of our batches."""

    def __init__(self, env: EnvBatch) -> None:
        self.env = env
        env.reset()

    def play(self, actions: Array) -> None:
        for action in actions:
            self.env.step(action)

    def close(self) -> None:
        self.env.close()


class Raw:
    """EnvPool itself."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        pool.reset()

    def play(self, actions: Array) -> None:
        for action in actions.astype(np.int32):
            self.pool.step(action)

    def close(self) -> None:
        self.pool.close()


def measure(game: str, n: int, rounds: int, threads: int) -> dict[str, Any]:
    """One row: agent steps a second of each kind by wall time, CPU microseconds a step, and ratios to `exact`."""
    task, protocol = f"atari/{game}", suite_of("atari").protocol_named("parity")
    exact, threads = make(task, n, 0, protocol=protocol), min(threads, n)
    players: dict[str, Any] = {
        "bare": BareBatch(game, n),
        "exact": Batch(exact),
        "envpool": Raw(open_pool(game, n, 0, 0, protocol, threads)),
        "pool": Batch(make(task, n, 0, protocol=protocol, backend="envpool", threads=threads)),
    }
    rng, steps = np.random.default_rng(0), TURN // n
    wall: dict[str, list[float]] = {kind: [] for kind in KINDS}
    cpu: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(rounds + 1):
        actions = rng.integers(exact.spec.actions, size=(steps, n))
        for k in range(len(KINDS)):
            kind = KINDS[(turn + k) % len(KINDS)]
            wall_before, cpu_before = time.perf_counter(), time.process_time()
            players[kind].play(actions)
            wall[kind].append(time.perf_counter() - wall_before)
            cpu[kind].append(time.process_time() - cpu_before)
    for player in players.values():
        player.close()
    row: dict[str, Any] = {"game": game, "envs": n, "threads": threads}
    for kind in KINDS:  # the first round learns the palette and warms the caches
        row[f"{kind}_frames_per_s"] = round(4 * steps * n / statistics.median(wall[kind][1:]))
        row[f"{kind}_cpu_us"] = round(statistics.median(cpu[kind][1:]) / (steps * n) * 1e6, 1)
    for kind, other in (("exact", "bare"), ("pool", "bare"), ("pool", "exact"), ("pool", "envpool")):
        quotients = [b / a for a, b in zip(wall[kind][1:], wall[other][1:], strict=True)]
        row[f"{kind}_over_{other}"] = round(statistics.median(quotients), 3)
    return row


def main() -> None:
    """Measure, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", default=["Pong", "Breakout", "Seaquest"])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of EnvPool, at most N")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "envpool.json")
    given = parser.parse_args()

    load = list(os.getloadavg())  # before we add to it: what else the machine was doing
    rows = []
    for n in ENVS:
        for game in given.games:
            rows.append(measure(game, n, given.rounds, given.threads))
            if len(rows) == 1:
                print("  ".join(rows[0]))
            print("  ".join(f"{value!s:>{len(name)}}" for name, value in rows[-1].items()), flush=True)
    result = {"rounds": given.rounds, "turn": TURN, "rows": rows, **provenance(), "load": load}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
