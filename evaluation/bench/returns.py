"""How near the returns come to the memory's bandwidth: `python -m rlplatform.evaluation.bench.returns`.

A recursion reads each input once and writes its output once: (4 T + 1) B float32 for GAE and n-step returns, (5 T + 1) B for
V-trace. The bound is a plain copy that moves as many bytes (half read, half written), on one thread of the CPU, or on the
GPU. The peer is the loop over rows of torch operations that most code has. All three are timed in turns; a share or a ratio
is the median over turns within one turn. On the CPU the time is the thread's own, so that a busy machine costs it no more
than cache and bandwidth. Before a size is timed, ours is compared with the peer.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlplatform import returns
from rlplatform.provenance import machine, packages

RESULTS = Path(__file__).parent / "results"
SIZES = {  # (T, B)
    "PPO on Atari": (128, 8),
    "256 environments": (128, 256),
    "4,096 environments": (128, 4096),
    "past every cache": (32, 262_144),
}
N = 5  # of the n-step returns
TURN_S = 0.02  # each timing repeats its call for about so long
Call = Callable[[], Any]


def gae_by_rows(value: Tensor, reward: Tensor, discount: Tensor, lambda_: float) -> Tensor:
    """The peer: T times a handful of operations on [B]."""
    out, advantage = torch.empty_like(reward), torch.zeros_like(reward[0])
    for t in reversed(range(len(reward))):
        delta = reward[t] + discount[t] * value[t + 1] - value[t]
        advantage = delta + discount[t] * lambda_ * advantage
        out[t] = advantage
    return out


def n_step_by_rows(value: Tensor, reward: Tensor, discount: Tensor, n: int) -> Tensor:
    """The peer: n times a handful of operations on [T, B], over rows that are padded with nothing."""
    T = len(reward)
    out = torch.cat([value[n:], value[-1:].expand(min(n, T), -1)])[:T]
    for j in reversed(range(n)):
        length = max(T - j, 0)
        out[:length] = reward[j:] + discount[j:] * out[:length]
    return out


def vtrace_by_rows(value: Tensor, reward: Tensor, discount: Tensor, rho: Tensor) -> Tensor:
    """The peer, with rho_bar = c_bar = 1."""
    clipped = rho.clamp(max=1.0)
    delta = clipped * (reward + discount * value[1:] - value[:-1])
    out, correction = torch.empty_like(reward), torch.zeros_like(reward[0])
    for t in reversed(range(len(reward))):
        correction = delta[t] + discount[t] * clipped[t] * correction
        out[t] = value[t] + correction
    return out


def timer(device: str) -> Callable[[Call], float]:
    """What times a call on this device: seconds, the mean over about TURN_S of repeats."""

    def on_cpu(call: Call) -> float:
        begin = time.thread_time()
        call()
        repeats = max(1, int(TURN_S / max(time.thread_time() - begin, 1e-7)))
        begin = time.thread_time()
        for _ in range(repeats):
            call()
        return (time.thread_time() - begin) / repeats

    def on_gpu(call: Call) -> float:
        repeats = 20
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        call()
        begin.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        elapsed_ms: float = begin.elapsed_time(end)
        return elapsed_ms / 1e3 / repeats

    return on_gpu if device == "cuda" else on_cpu


def measure(T: int, B: int, device: str, turns: int) -> dict[str, dict[str, float]]:
    """By kernel: microseconds a call, GB/s, the share of a copy's bandwidth, and how many times faster than the peer."""
    generator = torch.Generator(device).manual_seed(0)
    value = torch.randn(T + 1, B, device=device, generator=generator)
    reward = torch.randn(T, B, device=device, generator=generator)
    discount = 0.99 * (torch.rand(T, B, device=device, generator=generator) > 0.01).float()
    rho = torch.randn(T, B, device=device, generator=generator).exp()
    kernels: dict[str, tuple[Call, Call, int]] = {  # ours, the peer, arrays of [T, B] that are moved
        "gae": (
            lambda: returns.gae(value, reward, discount, 0.95),
            lambda: gae_by_rows(value, reward, discount, 0.95),
            4,
        ),
        "n_step": (
            lambda: returns.n_step(value, reward, discount, N),
            lambda: n_step_by_rows(value, reward, discount, N),
            4,
        ),
        "vtrace": (
            lambda: returns.vtrace(value, reward, discount, rho),
            lambda: vtrace_by_rows(value, reward, discount, rho),
            5,
        ),
    }
    seconds = timer(device)
    result = {}
    for name, (ours, peer, arrays) in kernels.items():
        torch.testing.assert_close(ours(), peer(), rtol=1e-4, atol=1e-4)
        moved = 4 * (arrays * T + 1) * B
        source = torch.ones(moved // 8, device=device)
        copy = torch.empty_like(source)
        rows = [(seconds(ours), seconds(partial(copy.copy_, source)), seconds(peer)) for _ in range(turns)]
        own = statistics.median(row[0] for row in rows)
        result[name] = {
            "us": 1e6 * own,
            "gb_per_s": moved / own / 1e9,
            "share_of_copy": statistics.median(row[1] / row[0] for row in rows),
            "times_faster": statistics.median(row[2] / row[0] for row in rows),
        }
    return result


def main() -> None:
    """Measure, print a table, write results/returns_<device>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--out", type=Path, help="[default: results/returns_<device>.json beside this file]")
    arguments = parser.parse_args()
    out = arguments.out or RESULTS / f"returns_{arguments.device}.json"
    torch.set_num_threads(1)  # the bound and the peer, as ours

    sizes = {}
    print(f"{'size':20}{'T':>5}{'B':>9}  {'kernel':8}{'us':>10}{'GB/s':>8}{'of a copy':>11}{'vs torch':>10}")
    for label, (T, B) in SIZES.items():
        kernels = measure(T, B, arguments.device, arguments.turns)
        sizes[label] = {"T": T, "B": B, "kernels": kernels}
        for name, row in kernels.items():
            print(
                f"{label:20}{T:5}{B:9}  {name:8}{row['us']:10.1f}{row['gb_per_s']:8.2f}{row['share_of_copy']:10.0%} "
                f"{row['times_faster']:9.1f}x",
                flush=True,
            )
    out.parent.mkdir(exist_ok=True)
    content = {
        "device": arguments.device,
        "turns": arguments.turns,
        "sizes": sizes,
        "machine": machine(),
        "packages": packages(),
    }
    out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
