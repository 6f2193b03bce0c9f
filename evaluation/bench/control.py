"""Environment steps a second of CartPole: ours beside Gymnasium's two vector forms and, where it is installed, EnvPool's.

    rlplatform bench control [--envs N ...] [--rounds N] [--threads T] [--out FILE]

For N environments, in turns within one process, by the same random actions:
  sync    gymnasium.vector.SyncVectorEnv of CartPole-v1
  vector  gymnasium's CartPoleVectorEnv: NumPy over all environments
  envpool EnvPool's CartPole-v1 (absent where EnvPool is), one thread; envpool_pooled: T threads
  ours    make("control/CartPole"), one thread; ours_pooled: T threads
All through their Python faces, checks included. A turn takes each kind about 50 ms, so that whatever else the machine does
interrupts all of them alike. Gymnasium's and EnvPool's spend a step on each reset; ours do not, which is
not counted in their disfavour: a step is a step. A ratio is the median over rounds of quotients within one round, wall time;
the order goes round, so that a busy machine is busy for all. CPU time of the process is beside it.
"""

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from rlplatform.envs import make
from rlplatform.provenance import provenance
from rlplatform.types import Array

ENVS = (1, 16, 256, 4096)
TURN = 0.05  # seconds


def players(n: int, threads: int) -> dict[str, tuple[Callable[[Array], Any], type]]:
    """Of each kind its step, already reset, and the dtype of its actions."""
    sync = gymnasium.make_vec("CartPole-v1", num_envs=n, vectorization_mode="sync")
    vector = gymnasium.make_vec("CartPole-v1", num_envs=n, vectorization_mode="vector_entry_point")
    sync.reset(seed=0), vector.reset(seed=0)
    found: dict[str, tuple[Callable[[Array], Any], type]] = {
        "sync": (sync.step, np.int64),
        "vector": (vector.step, np.int64),
    }
    for suffix, count in (("", 1), ("_pooled", min(n, threads))):
        ours = make("control/CartPole", n, 0, threads=count)
        ours.reset()
        found[f"ours{suffix}"] = (ours.step, np.int64)
        if importlib.util.find_spec("envpool"):
            import envpool  # type: ignore[import-untyped,import-not-found,unused-ignore]

            pool = envpool.make("CartPole-v1", env_type="gymnasium", num_envs=n, num_threads=count, seed=0)
            pool.reset()
            found[f"envpool{suffix}"] = (pool.step, np.int32)
    return found


def play(step: Callable[[Array], Any], actions: list[Array], steps: int) -> tuple[float, float]:
    """Wall and CPU seconds of a step, over this many."""
    wall, cpu = time.perf_counter(), time.process_time()
    for action in itertools.islice(itertools.cycle(actions), steps):
        step(action)
    return (time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps


def measure(n: int, rounds: int, threads: int) -> dict[str, Any]:
    """One row: environment steps a second of each kind, CPU microseconds an environment step, and how many times as fast
    ours are, by wall and by CPU time."""
    kinds = players(n, threads)
    names = list(kinds)
    chosen: Array = np.random.default_rng(0).integers(2, size=(64, n))
    actions = {name: list(chosen.astype(kinds[name][1])) for name in names}
    steps = {name: 1 + int(TURN / play(kinds[name][0], actions[name], 1 + 4096 // n)[0]) for name in names}
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for k in range(len(names)):
            name = names[(turn + k) % len(names)]
            seconds = play(kinds[name][0], actions[name], steps[name])
            wall[name].append(seconds[0] / n)
            cpu[name].append(seconds[1] / n)
    row: dict[str, Any] = {"envs": n}
    for name in names:  # the first round warms the caches
        row[f"{name}_per_s"] = round(1 / statistics.median(wall[name][1:]))
        row[f"{name}_cpu_us"] = round(statistics.median(cpu[name][1:]) * 1e6, 4)
    for name in names:
        if not name.startswith("ours"):
            mine = "ours_pooled" if name.endswith("pooled") else "ours"
            for suffix, clock in (("", wall), ("_cpu", cpu)):
                quotients = [b / a for a, b in zip(clock[mine][1:], clock[name][1:], strict=True)]
                row[f"{mine}_over_{name}{suffix}"] = round(statistics.median(quotients), 2)
    return row


def main() -> None:
    """Measure, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", type=int, default=list(ENVS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the pooled")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "control.json")
    given = parser.parse_args()

    load = list(os.getloadavg())  # before we add to it: what else the machine was doing
    rows = []
    for n in given.envs:
        rows.append(measure(n, given.rounds, given.threads))
        if len(rows) == 1:
            print("  ".join(rows[0]))
        print("  ".join(f"{value!s:>{len(name)}}" for name, value in rows[-1].items()), flush=True)
    result = {"rounds": given.rounds, "threads": given.threads, "rows": rows, **provenance(), "load": load}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
