"""Environment steps a second on a GPU, against the bytes that a step has to write.

    rlplatform bench device_envs [--tasks T ...] [--envs N ...] [--rounds R] [--out FILE]

For each task and N, by random actions that already lie on the device, results in tensors that are there already:
  eager  STEPS steps, each a call from Python
  graph  the same STEPS steps, captured into one CUDA graph, so that no launch waits for Python
  fill   STEPS times torch's fill_ of as many bytes as a step writes: frames, rewards and three flags, N (bytes + 7)
A round times the three in turns with CUDA events. `share` is the graph's part of the bound: fill's time over the graph's, the median
over rounds of quotients within one round; what a step reads, its state and last frames are not in the bound. Before a task is
timed, it is compared with the CPU's batch of the same task at N = 1,024 to the bit; where a step takes a sine or cosine,
whose last bit differs, that comparison is left to tests/test_device_envs.py.

Without a GPU there is nothing to measure, and this says so.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlplatform.device_types import empty_step
from rlplatform.envs import make, make_on_device
from rlplatform.provenance import provenance

TASKS = (
    "catch", "minatar/Asterix", "minatar/Breakout", "minatar/Freeway", "minatar/Seaquest", "minatar/SpaceInvaders",
    "control/CartPole", "control/Acrobot", "control/MountainCar", "control/MountainCarContinuous", "control/Pendulum",
)  # fmt: skip
SAME_BITS = ("catch", "minatar/", "control/CartPole")
ENVS = tuple(2**k for k in range(10, 21, 2))
STEPS = 32  # in one timing


def random_actions(batch: Any, count: int, seed: int) -> Tensor:
    """[count, N] int64 or [count, N, A] float32 in [-1, 1], where the batch is."""
    rng = np.random.default_rng(seed)
    shape = (count, batch.n, *batch.spec.action_shape)
    if batch.spec.actions:
        return torch.from_numpy(rng.integers(batch.spec.actions, size=shape)).to(batch.device)
    return torch.from_numpy(rng.uniform(-1, 1, size=shape).astype(np.float32)).to(batch.device)


def compare(task: str, device: str, n: int = 1024) -> None:
    """Raise AssertionError unless 100 steps are the CPU's, bit for bit."""
    theirs, ours = make(task, n, 0), make_on_device(task, n, 0, device=device)
    np.testing.assert_array_equal(ours.reset().cpu(), theirs.reset())
    for action in random_actions(ours, 100, 1):
        found, expected = ours.step(action), theirs.step(action.cpu().numpy())
        for name in ("frame", "reward", "terminated", "truncated", "reset"):
            np.testing.assert_array_equal(
                getattr(found, name).cpu(), getattr(expected, name), err_msg=f"{task}: {name}"
            )
        np.testing.assert_array_equal(found.final_frame[found.reset].cpu(), expected.final_frame)
    ours.check()


def captured(play: Callable[[], None]) -> Callable[[], None]:
    """The work that `play` enqueues, as one graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        play()
    return graph.replay


def seconds(play: Callable[[], None]) -> float:
    """Of the device, from the first launch to the last one's end."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    play()
    end.record()
    end.synchronize()
    milliseconds: float = begin.elapsed_time(end)
    return milliseconds / 1e3


def measure(
    task: str,
    n: int,
    rounds: int,
    device: str,
    time: Callable[[Callable[[], None]], float] = seconds,
    capture: Callable[[Callable[[], None]], Callable[[], None]] = captured,
) -> dict[str, Any]:
    """One row: steps a second of all environments together, eager and as a graph, and the graph's share of the bound."""
    batch = make_on_device(task, n, 0, device=device)
    actions, out = random_actions(batch, STEPS, 1), empty_step(batch.spec, batch.device, n)
    bytes_written = n * (out.frame.element_size() * int(np.prod(batch.spec.frame_shape)) + 7)
    room = torch.empty(bytes_written, dtype=torch.uint8, device=device)
    batch.reset(out.frame)

    def steps() -> None:
        for action in actions:
            batch.step(action, out)

    def fill() -> None:
        for _ in range(STEPS):
            room.fill_(1)

    steps()  # loads the kernels
    fill()
    kinds = {"eager": steps, "graph": capture(steps), "fill": capture(fill)}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(rounds + 1):
        for k in range(len(kinds)):
            name = list(kinds)[(turn + k) % len(kinds)]
            times[name].append(time(kinds[name]) / STEPS)
    batch.check()
    took = {name: statistics.median(values[1:]) for name, values in times.items()}  # the first round warms up
    share = statistics.median(b / a for a, b in zip(times["graph"][1:], times["fill"][1:], strict=True))
    return {
        "task": task, "envs": n, "bytes": bytes_written // n, "eager_per_s": round(n / took["eager"]),
        "graph_per_s": round(n / took["graph"]), "graph_us": round(1e6 * took["graph"], 2),
        "fill_gb_per_s": round(bytes_written / took["fill"] / 1e9, 1), "share": round(share, 3),
    }  # fmt: skip


def main() -> None:
    """Measure, print a table, write results/device_envs.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--envs", nargs="+", type=int, default=list(ENVS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "device_envs.json")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "device_envs measures a GPU, and torch finds none here; for the CPU: rlplatform bench minatar, control"
        )

    rows: list[dict[str, Any]] = []
    for task in given.tasks:
        if task.startswith(SAME_BITS):
            compare(task, "cuda")
        for n in given.envs:
            rows.append(measure(task, n, given.rounds, "cuda"))
            if len(rows) == 1:
                print("  ".join(rows[0]))
            print("  ".join(f"{value!s:>{len(name)}}" for name, value in rows[-1].items()), flush=True)
    result = {"gpu": torch.cuda.get_device_name(), "rounds": given.rounds, "steps": STEPS, "rows": rows, **provenance()}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
