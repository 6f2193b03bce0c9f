"""From bytes to a network's first maps on the CPU: MinAtar's convolution, the layout of pixels, and the pages that a gradient step clears.

    rlplatform bench frames [--repeats N] [--out FILE]

  conv    frames of MinAtar's Breakout played at random, 256 of them, under the 16 filters of its network with ReLU, forward and backward:
          our pass over the set bytes, and torch's convolution of the same numbers, laid out for it beforehand
  layout  256 stacks of four 84 x 84 frames as float32 with the channels last: in one pass, laid out as bytes and then converted (torch), and
          converted first (torch)
  pages   a gradient step of PPO's network on such stacks, in a process that keeps the memory it frees, as a learner's does, and in one that
          leaves that to the C library: page faults and seconds in the kernel

Milliseconds on one thread, medians over rounds in which all have their turn.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # its name everywhere
from torch import Tensor

from rlplatform import _core
from rlplatform.agents.ppo_config import Config
from rlplatform.agents.ppo_net import Net
from rlplatform.envs import make
from rlplatform.frame_conv import channels_last, frame_conv
from rlplatform.provenance import provenance
from rlplatform.streams import Stream
from rlplatform.types import Spec

BATCH = 256
STEPS = 8  # gradient steps whose pages are counted


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=51, help="rounds")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "frames.json")
    parser.add_argument("--only", choices=("kept", "left"), help="be the process whose pages are counted")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.only:
        print(json.dumps(pages(kept=given.only == "kept")))
        return
    load = list(os.getloadavg())  # before we add to it
    _core.keep_freed_memory()
    result: dict[str, Any] = {"conv_ms": conv(given.repeats), "layout_ms": layout(given.repeats)}
    result["pages"] = {who: apart(who) for who in ("kept", "left")}
    for name, row in result.items():
        print(name, json.dumps(row))
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(
        json.dumps({"repeats": given.repeats, **result, **provenance(), "load": load}, indent=1) + "\n"
    )


def in_turns(kinds: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for k in range(repeats + 1):  # the first warms up and is not counted
        for name, call in kinds.items():
            start = time.perf_counter()
            call()
            if k:
                seconds[name].append(time.perf_counter() - start)
    return {name: round(1e3 * statistics.median(some), 3) for name, some in seconds.items()}


def conv(repeats: int) -> dict[str, float]:
    """Of the first layer, and the share of bytes that are set."""
    envs, rng = make("minatar/Breakout", 64, 0), np.random.default_rng(0)
    envs.reset()
    played = [envs.step(rng.integers(0, envs.spec.actions, 64)).frame.copy() for _ in range(32)]
    x = torch.from_numpy(np.concatenate(played)[-BATCH:])
    weight = torch.from_numpy(rng.normal(size=(16, x.shape[1], 3, 3)).astype(np.float32)).requires_grad_()
    bias = torch.zeros(16, requires_grad=True)
    laid = channels_last(x, torch.float32)

    def ours() -> Tensor:
        return frame_conv(x, weight, bias, relu=True)

    def dense() -> Tensor:
        return F.relu(F.conv2d(laid, weight, bias))

    out, other = ours(), dense()
    upon, others = torch.randn_like(out), torch.randn_like(other)
    kinds: dict[str, Callable[[], object]] = {
        "ours_forward": ours,
        "torch_forward": dense,
        "ours_backward": lambda: torch.autograd.grad(out, [weight, bias], upon, retain_graph=True),
        "torch_backward": lambda: torch.autograd.grad(other, [weight, bias], others, retain_graph=True),
    }
    return {"set": round(float((x != 0).float().mean()), 3), **in_turns(kinds, repeats)}


def layout(repeats: int) -> dict[str, float]:
    """Of stacks of frames."""
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (BATCH, 4, 84, 84), np.uint8))
    kinds: dict[str, Callable[[], object]] = {
        "one_pass": lambda: channels_last(x, torch.float32),
        "bytes_first": lambda: x.contiguous(memory_format=torch.channels_last).float(),
        "floats_first": lambda: x.float().contiguous(memory_format=torch.channels_last),
    }
    return in_turns(kinds, repeats)


def pages(*, kept: bool) -> dict[str, float]:
    """Of a gradient step, once there were some."""
    if kept:
        _core.keep_freed_memory()
    spec = Spec((84, 84), "uint8", 4, 6)
    net = Net(Config(), spec)
    net.init_(Stream(0, "init"))
    parameters = list(net.parameters())
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (BATCH, 4, 84, 84), np.uint8))

    def step() -> None:
        dist, value = net(x)
        torch.autograd.grad(dist.sum() + value.sum(), parameters)

    for _ in range(3):
        step()
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(STEPS):
        step()
    after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - start
    return {
        "faults": (after.ru_minflt - before.ru_minflt) / STEPS,
        "kernel_ms": round(1e3 * (after.ru_stime - before.ru_stime) / STEPS, 1),
        "ms": round(1e3 * seconds / STEPS, 1),
        "most_mib": after.ru_maxrss // 1024,
    }


def apart(who: str) -> dict[str, float]:
    """`pages` in a process of its own."""
    command = [sys.executable, "-P", "-m", "rlplatform.evaluation.bench.frames", "--only", who]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603
    return found


if __name__ == "__main__":
    main()
