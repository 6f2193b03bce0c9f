"""Gradient steps a second of preset `der`, beside the bare networks and the machine's matrix products.

    rlplatform bench learner [--repeats N] [--actions A] [--out FILE]

Per dtype and number of threads, each in a process of its own, interleaved in time so that a busy machine is busy for all:
  full    Agent.update(): sampling, noise, forward, backward, optimiser, priorities
  bare    forward and backward passes of the same networks on the same batch, and nothing else: the bound
  matmul  a square matrix product in that dtype: the ceiling on GFLOP/s
"""

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from rlplatform.agents import load_preset
from rlplatform.agents.spr import Agent, Config, target_distribution
from rlplatform.provenance import provenance
from rlplatform.streams import Stream
from rlplatform.types import Rollout, Spec, empty_episodes

SIDE = 1024  # of the matrices of the ceiling
STORED = 2_000  # transitions: 14 MB of frames, far beyond the caches' reach for one batch


def main() -> None:
    """Measure, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=25, help="timings of each kind")
    parser.add_argument("--actions", type=int, default=18)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "learner.json")
    parser.add_argument("--only", nargs=2, metavar=("DTYPE", "THREADS"), help="print this row as JSON")
    given = parser.parse_args()
    if given.only:
        json.dump(measure(given.only[0], int(given.only[1]), given.actions, given.repeats), sys.stdout)
        return
    rows = []
    for threads in ("1", "2"):
        for dtype in ("float32", "bfloat16"):  # a process each: threads are set once, and the peak of memory is its own
            command = [sys.executable, "-P", "-m", "rlplatform.evaluation.bench.learner", "--only", dtype, threads]
            command += ["--actions", str(given.actions), "--repeats", str(given.repeats)]
            rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))  # noqa: S603
    result = {"preset": "der", "actions": given.actions, "rows": rows, **provenance(), "load": list(os.getloadavg())}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    columns = list(rows[0])
    print("  ".join(columns))
    for row in rows:
        print("  ".join(f"{_text(row[name]):>{len(name)}}" for name in columns))


def measure(dtype: str, threads: int, actions: int, repeats: int) -> dict[str, Any]:
    """One row: medians over `repeats` rounds of one full step, one bare step and one matrix product each."""
    torch.set_num_threads(threads)
    config = dataclasses.replace(Config(**load_preset("der").config), dtype=dtype)
    spec = Spec((84, 84), "uint8", 4, actions)
    agent = filled(Agent(config, spec, 1, seed=0))
    bare = bare_step(agent)
    with FlopCounterMode(display=False) as counter:
        bare()
    matrix = torch.randn(SIDE, SIDE).to(agent.online.projection.mu.dtype)
    policy, obs, actor = agent.policy(), np.zeros((1, 4, 84, 84), np.uint8), Stream(0, "actor")
    policy.load({**agent.weights(), "epsilon": 0.0})
    kinds: dict[str, Callable[[], object]] = {
        "full": agent.update,
        "bare": bare,
        "matmul": lambda: matrix @ matrix,
        "act": lambda: policy.act(obs, actor),
    }
    for step in kinds.values():
        step()  # first calls compile kernels
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(repeats):
        for name, step in kinds.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    median = {name: float(np.median(times)) for name, times in seconds.items()}
    flops = counter.get_total_flops()
    ceiling = 2 * SIDE**3 / median["matmul"]
    return {
        "dtype": dtype,
        "threads": threads,
        "steps_per_s": 1 / median["full"],
        "full_ms": 1e3 * median["full"],
        "bare_ms": 1e3 * median["bare"],
        "full_vs_bare": median["bare"] / median["full"],
        "gflop": flops / 1e9,
        "gflop_per_s": flops / median["full"] / 1e9,
        "matmul_gflop_per_s": ceiling / 1e9,
        "share_of_matmul": flops / median["full"] / ceiling,
        "bare_share_of_matmul": flops / median["bare"] / ceiling,
        "act_ms": 1e3 * median["act"],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def filled(agent: Agent) -> Agent:
    """The agent with `STORED` transitions of noise in its replay, games of 200 steps."""
    rng = np.random.default_rng(0)
    shape = (STORED, 1)
    ended = np.zeros(shape, bool)
    ended[199::200] = True
    frames = rng.integers(0, 256, (*shape, *agent.spec.frame_shape), dtype=np.uint8)
    agent.observe([
        Rollout(
            frames, np.roll(ended, 1, 0), rng.integers(0, agent.spec.actions, shape),
            rng.choice([-1.0, 0.0, 1.0], shape).astype(np.float32), ended, np.zeros(shape, bool), frames[ended],
            np.ascontiguousarray(np.argwhere(ended)), {}, empty_episodes(), 0, 0,
        )
    ])  # fmt: skip
    return agent


def bare_step(agent: Agent) -> Callable[[], None]:
    """The passes of one update, less everything that is not a network, on one batch."""
    config = agent.config
    batch = agent.replay.sample(config.batch, config.n, config.gamma)
    online, target = agent.online, agent.target
    obs, next_obs = torch.from_numpy(batch.obs[:, 0]), torch.from_numpy(batch.next_obs)
    reward, discount = torch.from_numpy(batch.n_return), torch.from_numpy(batch.discount)
    noise, next_noise = (online.noise(Stream(0, "bench")) for _ in range(2))
    rows, action = torch.arange(config.batch), torch.from_numpy(batch.action[:, 0])

    def step() -> None:
        y = target_distribution((online, target), next_obs, reward, discount, next_noise, agent.support)
        loss = -(y * online(obs, noise)[rows, action].log_softmax(-1)).sum(-1).mean()
        online.zero_grad()
        torch.autograd.backward(loss)

    return step


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
