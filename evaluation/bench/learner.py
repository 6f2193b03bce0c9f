"""Gradient steps a second of every preset of the SPR family, beside the bare networks and the machine's matrix products.

    rlplatform bench learner [--presets P ...] [--dtypes D ...] [--threads T ...] [--repeats N] [--actions A] [--out FILE]
    rlplatform bench learner --device cuda [...]      on a GPU: learner_gpu.py says what is measured there

Per preset, dtype and number of threads a process of its own; the kinds interleaved in time, so that a busy machine is busy
for all:
  full    Agent.update(): sampling, augmentation, noise, forward, backward, optimiser, target, priorities
  bare    forward and backward passes of the same networks on the same batch, and nothing else: the bound
  matmul  a square matrix product in that dtype: the ceiling on GFLOP/s
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from rlplatform.agents import load_preset
from rlplatform.agents.spr import Agent
from rlplatform.agents.spr_config import Config
from rlplatform.agents.spr_net import losses
from rlplatform.config import merge
from rlplatform.evaluation.bench import learner_gpu
from rlplatform.provenance import provenance
from rlplatform.streams import Stream
from rlplatform.types import Spec

SIDE = 1024  # of the matrices of the ceiling
PRESETS = ("der", "drq_eps", "spr", "sr_spr", "bbf")  # the others differ in schedules alone
DTYPES = ("float32", "bfloat16")
_WIDTH = 8  # of a column, at least


def main() -> None:
    """Measure, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument(
        "--dtypes", nargs="+", choices=("float32", "tf32", "bfloat16"), help="[default: all of the device's]"
    )
    parser.add_argument("--threads", nargs="+", help="of the CPU [default: 1 2; with a GPU 1]")
    parser.add_argument("--repeats", type=int, default=15, help="timings of each kind; a third of them for bbf")
    parser.add_argument("--actions", type=int, default=18)
    parser.add_argument("--out", type=Path, help="[default: results/learner.json or learner_gpu.json here]")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--only", nargs=3, metavar=("PRESET", "DTYPE", "THREADS"), help="print this row as JSON")
    given = parser.parse_args()
    on_cpu = given.device == "cpu"
    if given.only:
        preset, dtype, threads = given.only
        if on_cpu:
            row = measure(preset, dtype, int(threads), given.actions, given.repeats)
        else:
            row = learner_gpu.measure(preset, dtype, given.device, given.actions, given.repeats)
        json.dump(row, sys.stdout)
        return
    rows = []
    out = given.out or Path(__file__).parent / "results" / ("learner.json" if on_cpu else "learner_gpu.json")
    out.parent.mkdir(exist_ok=True)
    all_threads = given.threads or (("1", "2") if on_cpu else ("1",))
    dtypes = given.dtypes or (DTYPES if on_cpu else learner_gpu.DTYPES)
    for preset, threads, dtype in itertools.product(given.presets, all_threads, dtypes):
        # A process each: threads are set once, and the peak of memory is its own.
        command = [sys.executable, "-P", "-m", "rlplatform.evaluation.bench.learner", "--only", preset, dtype, threads]
        command += ["--actions", str(given.actions), "--device", given.device]
        command += ["--repeats", str(given.repeats if "bbf" not in preset else max(3, given.repeats // 3))]
        rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))  # noqa: S603
        if len(rows) == 1:
            print("  ".join(f"{name:>{max(len(name), _WIDTH)}}" for name in rows[0]))
        print("  ".join(f"{_text(value):>{max(len(name), _WIDTH)}}" for name, value in rows[-1].items()), flush=True)
        # After every row: what was measured is not lost where the time runs out.
        result = {"actions": given.actions, "rows": rows, **provenance(), "load": list(os.getloadavg())}
        out.write_text(json.dumps(result, indent=1) + "\n")
    if not on_cpu:
        print(learner_gpu.beside(rows))


def medians(kinds: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds that each takes: the median over rounds in which all have their turn. The first calls, which compile kernels, are
    not counted."""
    for step in kinds.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(repeats):
        for name, step in kinds.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def measure(preset: str, dtype: str, threads: int, actions: int, repeats: int) -> dict[str, Any]:
    """One row: medians over `repeats` rounds of one full step, one bare step, one matrix product and one action each."""
    torch.set_num_threads(threads)
    config = merge(Config(), load_preset(preset).config, {"dtype": dtype})
    spec = Spec((84, 84), "uint8", 4, actions)
    agent = learner_gpu.filled(Agent(config, spec, 1, seed=0))
    bare = bare_step(agent)
    with FlopCounterMode(display=False) as counter:
        bare()
    matrix = torch.randn(SIDE, SIDE).to(torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    policy, obs, actor = agent.policy(), np.zeros((1, 4, 84, 84), np.uint8), Stream(0, "actor")
    policy.load({**agent.weights(), "epsilon": 0.0})
    kinds: dict[str, Callable[[], object]] = {
        "full": agent.update,
        "bare": bare,
        "matmul": lambda: matrix @ matrix,
        "act": lambda: policy.act(obs, actor),
    }
    median = medians(kinds, repeats)
    flops = counter.get_total_flops()
    ceiling = 2 * SIDE**3 / median["matmul"]
    return {
        "preset": preset,
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


def bare_step(agent: Agent) -> Callable[[], None]:
    """The passes of one update, less everything that is not a network or its loss, on one batch."""
    config, online = agent.config, agent.online
    x = agent.inputs(agent.replay.sample(config.batch, config.n, config.gamma, config.spr_steps))
    noise, next_noise = (online.noise(Stream(0, "bench")) for _ in range(2))

    def step() -> None:
        out = losses(online, agent.target, x, noise, next_noise, agent.support, config.spr_weight)
        online.zero_grad()
        torch.autograd.backward(out.total)

    return step


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
