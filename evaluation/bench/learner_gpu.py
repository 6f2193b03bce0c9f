"""Gradient steps on a GPU: what `rlplatform bench learner --device cuda` measures, a row per preset and dtype.

  step    a gradient step, everything included, in launches of as many as the preset takes per agent step
  round   the same with acting and adding one agent step to the replay before each launch, per gradient step: a run without
          its environment
  eager   the same step without a graph: launched kernel by kernel
  bare    forward and backward of the same networks on one batch, as a graph, and nothing else
  kernels the sum of the kernels' own times within a step, by torch's profiler: what is left of `step` is gaps between them
  matmul, conv  the card's ceilings: a square product, and a 3 x 3 convolution of 128 channels, channels last, in that dtype

Kinds are interleaved in time; each figure is the median of rounds. TFLOP/s count the products and convolutions of `bare`.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # its name everywhere
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from rlplatform.agents import load_preset
from rlplatform.agents.spr import Agent
from rlplatform.agents.spr_config import DTYPES as TORCH_DTYPES
from rlplatform.agents.spr_config import Config
from rlplatform.agents.spr_net import losses
from rlplatform.config import merge
from rlplatform.device import products
from rlplatform.device_streams import DeviceStream
from rlplatform.graphs import WARM_UP, Graphed
from rlplatform.streams import Stream
from rlplatform.types import Rollout, Spec, empty_episodes

DTYPES = ("float32", "tf32", "bfloat16")
STORED = 2_000  # transitions: 14 MB of frames, far beyond the caches' reach for one batch
WINDOW_S = 0.1  # of one timing, at least
TARGETS_MS = {
    "bbf": (6.0, 4.6)
}  # a gradient step of a whole run on an H100: 20, then 15 minutes for 100,000 agent steps
PUBLISHED_MS = {"bbf": 46.0}  # the authors' code, on half an A100 (Schwarzer et al. 2023)


def measure(
    preset: str, dtype: str, device: str, actions: int, repeats: int, side: int = 8192, **changes: Any
) -> dict[str, Any]:
    """One row. `side`: of the matrices of the ceiling; `changes`: of the preset's configuration."""
    config = merge(Config(), load_preset(preset).config, {"dtype": dtype, **changes})
    spec = Spec((84, 84), "uint8", 4, actions)
    on_cpu = device == "cpu"  # where tests run it
    agent: Any = filled(Agent(config, spec, 1, seed=0, device=device, feed="resident" if on_cpu else ""))
    steps = max(1, int(config.replay_ratio))
    bare, flops = bare_step(agent)
    act_and_add = acting(agent)

    def whole_round() -> None:
        act_and_add()
        agent.updates(steps)

    def eager() -> None:
        with products(tf32=dtype == "tf32"):
            agent.launches.step()

    matmul, conv, flop = ceilings(TORCH_DTYPES[dtype], agent.device, side)
    tf32 = dtype == "tf32"
    kinds: dict[str, tuple[Callable[[], object], int]] = {  # what, and how many steps it is
        "step": (lambda: agent.updates(steps), steps),
        "round": (whole_round, steps),
        "eager": (eager, 1),
        "bare": (bare, 1),
        "matmul": (_within(matmul, tf32=tf32), 1),
        "conv": (_within(conv, tf32=tf32), 1),
    }
    for call, _ in kinds.values():
        for _ in range(WARM_UP + 2):
            call()
    kernels_s = 0.0 if on_cpu else kernel_seconds(kinds["step"][0], agent.device) / steps
    _reset_peak(agent.device)
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(repeats):
        for name, (call, count) in kinds.items():
            seconds[name].append(window(call, agent.device) / count)
    s = {name: float(np.median(times)) for name, times in seconds.items()}
    ceiling = {name: flop[name] / s[name] for name in flop}
    best = max(ceiling.values())
    target, published = TARGETS_MS.get(preset), PUBLISHED_MS.get(preset)
    return {
        "preset": preset,
        "dtype": dtype,
        "steps_per_s": 1 / s["step"],
        **{f"{name}_ms": 1e3 * s[name] for name in ("step", "round", "eager", "bare")},
        "kernels_ms": 1e3 * kernels_s,
        "gaps": 1 - kernels_s / s["step"],
        "bare_share": s["bare"] / s["step"],
        "tflop": flops / 1e12,
        "tflop_per_s": flops / s["step"] / 1e12,
        "matmul_tflop_per_s": ceiling["matmul"] / 1e12,
        "conv_tflop_per_s": ceiling["conv"] / 1e12,
        "share_of_ceiling": flops / s["step"] / best,
        "target_ms": None if target is None else target[0],
        "published_ms": published,
        "peak_mib": _peak(agent.device) / 2**20,
    }


def beside(rows: list[dict[str, Any]]) -> str:
    """The promises, beside what was measured."""
    lines = []
    for row in rows:
        for target in TARGETS_MS.get(row["preset"], ()):
            kept = "reached" if row["round_ms"] <= target else "not reached"
            lines.append(
                f"{row['preset']} {row['dtype']}: {row['round_ms']:.2f} ms a step with acting, to reach {target} ms: {kept}"
            )
        if (published := PUBLISHED_MS.get(row["preset"])) is not None:
            lines.append(
                f"{row['preset']} {row['dtype']}: {published / row['round_ms']:.1f} times the published {published} ms"
            )
        lines.append(f"{row['preset']} {row['dtype']}: {100 * row['gaps']:.0f} % of a step is gaps between kernels")
    return "\n".join(lines)


def window(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call: of as many as fill a window, waited for once."""
    count, start = 0, time.perf_counter()
    while True:
        call()
        count += 1
        if count % 8 == 0 or device.type == "cpu":
            _wait(device)
            if (taken := time.perf_counter() - start) >= WINDOW_S:
                return taken / count


def kernel_seconds(call: Callable[[], object], device: torch.device) -> float:
    """What the kernels of one call take themselves, added up; copies included."""
    _wait(device)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        call()
        _wait(device)
    return float(sum(event.self_device_time_total for event in seen.key_averages())) / 1e6


def ceilings(
    dtype: torch.dtype, device: torch.device, side: int
) -> tuple[Callable[[], object], Callable[[], object], dict[str, float]]:
    """A product of matrices, a convolution, and what each computes."""
    matrix = torch.randn(side, side, device=device).to(dtype)
    images, size, channels = max(1, side // 32), 42, 128
    x = torch.randn(images, channels, size, size, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    kernel = (
        torch.randn(channels, channels, 3, 3, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    )
    flop = {"matmul": 2.0 * side**3, "conv": 2.0 * images * size**2 * channels**2 * 9}
    return lambda: matrix @ matrix, lambda: F.conv2d(x, kernel, padding=1), flop


def acting(agent: Agent) -> Callable[[], None]:
    """One agent step without its environment: a policy that never explores acts, and the replay takes the step."""
    policy, stream = agent.policy(), Stream(0, "actor")
    obs = np.zeros((1, agent.spec.stack, *agent.spec.frame_shape), np.uint8)
    step = noise(agent.spec, 1)

    def act_and_add() -> None:
        policy.load({**agent.weights(), "epsilon": 0.0})
        action, _ = policy.act(obs, stream)
        agent.observe([step._replace(action=action[None])])

    return act_and_add


def filled(agent: Agent) -> Agent:
    """The agent with `STORED` transitions of noise in its replay, games of 200 steps."""
    agent.observe([noise(agent.spec, STORED)])
    return agent


def noise(spec: Spec, steps: int) -> Rollout:
    """So many steps of one environment, games of 200 steps; the first goes on from what came before."""
    rng = np.random.default_rng(0)
    shape = (steps, 1)
    ended = np.zeros(shape, bool)
    ended[199::200] = True
    first = np.zeros(shape, bool)
    first[1:] = ended[:-1]
    first[0] = steps > 1
    frames = rng.integers(0, 256, (*shape, *spec.frame_shape), dtype=np.uint8)
    ended[-1] = False  # the next rollout goes on
    return Rollout(
        frames, first, rng.integers(0, spec.actions, shape), rng.choice([-1.0, 0.0, 1.0], shape).astype(np.float32), ended,
        np.zeros(shape, bool), frames[ended], np.ascontiguousarray(np.argwhere(ended)), {}, empty_episodes(), 0, 0,
    )  # fmt: skip


def bare_step(agent: Any) -> tuple[Callable[[], None], int]:
    """The passes of one update, less everything that is not a network or its loss, on one batch, as a graph; and their FLOP."""
    config, online = agent.config, agent.online
    x = agent.launches.inputs()
    x = x._replace(**{name: value.clone() for name, value in x._asdict().items()})  # the feed's own are written again
    draws = DeviceStream(Stream(0, "bench"), agent.device)
    noise_, next_noise = (online.noise(draws) for _ in range(2))

    def step() -> None:
        with products(tf32=config.dtype == "tf32"):
            out = losses(online, agent.target, x, noise_, next_noise, agent.support, config.spr_weight)
            online.zero_grad()
            torch.autograd.backward(out.total)

    with FlopCounterMode(display=False) as counter:
        step()
    return Graphed(step, agent.device), counter.get_total_flops()


def _within(call: Callable[[], object], *, tf32: bool) -> Callable[[], object]:
    def wrapped() -> object:
        with products(tf32=tf32):
            return call()

    return wrapped


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int:
    """What torch held at most, the graphs' own pools included, which its count of allocated bytes leaves out."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0
