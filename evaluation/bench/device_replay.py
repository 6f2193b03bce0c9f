"""The device replay's kernels beside a copy on the same device: `rlplatform bench device_replay`. Needs a GPU.

100,000 slots of Atari frames, batches as the SPR family draws them (k = 5, n = 10, four frames a stack). Each kernel is
captured 50 times into one CUDA graph, so that what is timed is the device's time and not the launches; after it, within the
same turn, a copy_ that moves as many bytes (half read, half written). A share is the median over turns of the copy's time over
the kernel's. Bytes are those that must move: what is written, and each frame that is read once, though the stacks of a
subsequence overlap (the second reading comes from the cache). Draws and priorities move little; their bound is the wait of one
load for the next, so their time alone says something. "launched" is one call without a graph, as the host sees it.
Before anything is timed, a batch is compared with the CPU replay's.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlplatform.device_augment import augmentation, draw
from rlplatform.device_replay import DeviceReplay
from rlplatform.device_streams import DeviceStream
from rlplatform.provenance import machine, packages
from rlplatform.replay import Replay
from rlplatform.streams import Stream
from rlplatform.types import Rollout, Spec, empty_episodes

SPEC = Spec((84, 84), "uint8", 4, 18)
N, K, GAMMA, ALPHA = 10, 5, 0.99, 0.5
FRAME = 84 * 84
CALLS = 50  # of a kernel in one graph
BATCHES = (32, 256)
ROLLOUTS = ((1, 1), (1, 128), (20, 128))  # (T, N) of `add`
Call = Callable[[], object]


def rollout(steps: int, envs: int, seed: int) -> Rollout:
    """Noise, with an episode's end in every 200 steps."""
    rng, grid = np.random.default_rng(seed), (steps, envs)
    ended = rng.random(grid) < 1 / 200
    first = np.concatenate([np.ones((1, envs), bool), ended[:-1]])
    none = np.zeros((0, 84, 84), np.uint8), np.zeros((0, 2), np.int64)
    return Rollout(
        rng.integers(0, 256, (*grid, 84, 84), np.uint8), first, rng.integers(0, 18, grid),
        rng.normal(size=grid).astype(np.float32), ended, np.zeros(grid, bool), *none, {}, empty_episodes(), 0, 0,
    )  # fmt: skip


def on_device(r: Rollout) -> SimpleNamespace:
    """The same with tensors, as a producer on the device hands it over."""
    tensors = {name: torch.from_numpy(getattr(r, name)).cuda() for name in Rollout._fields[:8]}
    return SimpleNamespace(**tensors, first_env=r.first_env)


def agree(capacity: int) -> None:
    """A batch of the device replay is the CPU replay's."""
    sizes = (SPEC, min(capacity, 2_000), 1, N, K, ALPHA)
    cpu, ours = Replay(*sizes), DeviceReplay(*sizes)
    steps = rollout(1_000, 1, seed=1)
    cpu.add(steps)
    ours.add(steps)
    ours.set(N, GAMMA)
    batch = ours.batch(32, K)
    stacks = ours.stack(ours.sample(batch), ours.stacks(batch))
    expected = cpu.sample(32, N, GAMMA, K)
    np.testing.assert_array_equal(batch.index.cpu().numpy(), expected.index)
    np.testing.assert_array_equal(stacks.obs.cpu().numpy(), expected.obs)
    np.testing.assert_array_equal(batch.n_return.cpu().numpy(), expected.n_return)


def graph_of(call: Call) -> Callable[[], None]:
    """`call` CALLS times, as one graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            call()
    return graph.replay


def device_s(run: Callable[[], None]) -> float:
    """Of one of the CALLS calls in a graph, by the device's own clock."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    elapsed_ms: float = begin.elapsed_time(end)
    return elapsed_ms / 1e3 / CALLS


def host_s(call: Call) -> float:
    """What one call takes of the host, without a graph, over CALLS calls that follow each other."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(CALLS):
        call()
    took = (time.perf_counter() - begin) / CALLS
    torch.cuda.synchronize()
    return took


def copy_of(moved: int) -> Call:
    """A copy that moves so many bytes: half of them read, half written."""
    source = torch.ones(max(moved // 2, 1), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def kernels(replay: DeviceReplay, size: int) -> dict[str, tuple[Call, int]]:
    """By name: a call, and the bytes that it must move."""
    batch = replay.batch(size, K)
    replay.set(N, GAMMA)
    replay.sample(batch)
    stacks, draws = replay.stacks(batch), augmentation((K + 2) * size)
    stream, priority = DeviceStream(Stream(0, "augment")), torch.rand(size, device="cuda")
    images: dict[torch.dtype, Tensor] = {d: replay.images(batch, d) for d in (torch.float32, torch.bfloat16)}
    written = size * (K + 2) * SPEC.stack * FRAME
    read = size * (K + SPEC.stack + SPEC.stack) * FRAME  # the subsequence's frames, and the next observation's
    slot = 4 + 1 + 8 + 8  # reward, bits, action, priority
    levels = (replay.capacity - 1).bit_length()
    return {
        "sample": (lambda: replay.sample(batch), size * (16 * levels + (N + K) * slot + 16 * (K + 2))),
        "stack": (lambda: replay.stack(batch, stacks), read + written),
        "shift, float32": (lambda: replay.shift(batch, draws, images[torch.float32]), read + 4 * written),
        "shift, bfloat16": (lambda: replay.shift(batch, draws, images[torch.bfloat16]), read + 2 * written),
        "draw augmentation": (lambda: draw(stream, draws), (K + 2) * size * 20),
        "update_priority": (lambda: replay.update_priority(batch.index, priority), size * (24 * levels + 28)),
    }


def measure(calls: dict[str, tuple[Call, int]], turns: int) -> dict[str, dict[str, float]]:
    """By kernel: microseconds, GB/s, share of a copy's bandwidth, and microseconds of the host without a graph."""
    result = {}
    for name, (call, moved) in calls.items():
        run, bound = graph_of(call), graph_of(copy_of(moved))
        run(), bound()
        rows = [(device_s(run), device_s(bound)) for _ in range(turns)]
        own = statistics.median(row[0] for row in rows)
        result[name] = {
            "us": 1e6 * own,
            "gb_per_s": moved / own / 1e9,
            "share_of_copy": statistics.median(row[1] / row[0] for row in rows),
            "launched_us": 1e6 * statistics.median(host_s(call) for _ in range(turns)),
        }
    return result


def main() -> None:
    """Measure, print a table, write results/device_replay.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capacity", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "device_replay.json")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("rlplatform bench device_replay needs a CUDA device, and torch sees none")
    agree(given.capacity)
    replay = DeviceReplay(SPEC, given.capacity, 1, N, K, ALPHA)
    piece = on_device(rollout(1_000, 1, seed=0))
    for _ in range(given.capacity // 1_000):
        replay.add(piece)
    replay.check()

    sizes: dict[str, Any] = {f"batch {size}": measure(kernels(replay, size), given.turns) for size in BATCHES}
    for steps, envs in ROLLOUTS:
        target = DeviceReplay(SPEC, max(given.capacity, 64 * envs), envs, N, K, ALPHA)
        new = on_device(rollout(steps, envs, seed=2))
        new.first, new.terminated = (
            torch.ones_like(new.first),
            torch.zeros_like(new.terminated),
        )  # it comes again and again
        add: dict[str, tuple[Call, int]] = {"add": (partial(target.add, new), 2 * steps * envs * FRAME)}
        sizes[f"add {steps} x {envs}"] = measure(add, given.turns)
        target.check()

    print(
        f"{torch.cuda.get_device_name()}\n{'':16}{'kernel':20}{'us':>10}{'GB/s':>10}{'of a copy':>11}{'launched, us':>14}"
    )
    for label, rows in sizes.items():
        for name, row in rows.items():
            print(
                f"{label:16}{name:20}{row['us']:10.1f}{row['gb_per_s']:10.1f}{row['share_of_copy']:10.0%} "
                f"{row['launched_us']:13.1f}"
            )
    content = {
        "device": torch.cuda.get_device_name(),
        "capacity": given.capacity,
        "turns": given.turns,
        "calls": CALLS,
        "sizes": sizes,
        "machine": machine(),
        "packages": packages(),
    }
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
