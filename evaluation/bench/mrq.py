"""What MR.Q and SAC learn per environment step: milliseconds, beside the bare networks and the machine's matrix products.

    rlplatform bench mrq [--tasks T ...] [--dtypes D ...] [--threads T ...] [--repeats N] [--lap N] [--out FILE]

Tasks are the shapes of published ones, with noise in the replay: `cheetah` (17 numbers, 6 actions), `humanoid` (376, 17), `visual`
(three 84x84 colour frames, 6), `atari` (four gray ones, 18 discrete actions); `sac` is SAC on `cheetah`. A process for each row,
its kinds interleaved in time, so that a busy machine is busy for all:

  learn   one update of value and policy, one of the encoder, with sampling, noise, optimisers, priorities. Timed over whole
          periods of 10 updates instead of 250, so that copies to the targets weigh 25 times what they do in a run
  act     the action of one environment
  bare    forward and backward passes of the same networks on the same batches, and nothing else: the bound on `learn`
  gemm    the matrix products of `bare`, one after the other in their shapes and layouts, and nothing else: the bound on `bare`
  matmul  a square matrix product in that dtype: the ceiling on GFLOP/s

With --lap N, too: 256 indices drawn from a prioritised replay of N, and such items with their contents, beside the indices by a
float64 cumulative sum and a binary search, as the released code draws them.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from rlplatform.agents import mrq, mrq_net, sac
from rlplatform.agents.mrq_config import Config
from rlplatform.evaluation.bench.learner import SIDE, medians
from rlplatform.provenance import provenance
from rlplatform.replay import Replay
from rlplatform.streams import Stream
from rlplatform.types import Rollout, Spec, empty_episodes

STORED = 2_000  # transitions
PERIOD = 10  # updates between copies to the targets
TASKS = {
    "cheetah": Spec((17,), "float32", 1, 0, (6,)),
    "humanoid": Spec((376,), "float32", 1, 0, (17,)),
    "visual": Spec((3, 84, 84), "uint8", 3, 0, (6,)),
    "atari": Spec((84, 84), "uint8", 4, 18),
    "sac": Spec((17,), "float32", 1, 0, (6,)),
}
DTYPES = ("float32", "bfloat16")
# ms of an environment step of `cheetah` at batch 256 on 2 threads of the 2-core AMD EPYC on which the goals were set.
GOALS = {("cheetah", "float32", 2): 106.0, ("cheetah", "bfloat16", 2): 50.0}
_WIDTH = 8  # of a column, at least


def main() -> None:
    """Measure, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=("cheetah", "humanoid", "sac"), choices=TASKS)
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES)
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--repeats", type=int, default=9, help="rounds; of each kind once")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument(
        "--lap", type=int, default=1_000_000, help="items of the replay that is drawn from; 0: not at all"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "mrq.json")
    parser.add_argument("--only", nargs=3, metavar=("TASK", "DTYPE", "THREADS"), help="print this row as JSON")
    given = parser.parse_args()
    if given.only:
        task, dtype, threads = given.only
        json.dump(measure(task, dtype, int(threads), given.batch, given.repeats), sys.stdout)
        return
    rows = []
    for task, threads, dtype in itertools.product(given.tasks, given.threads, given.dtypes):
        if task == "sac" and dtype != "float32":
            continue
        # A process each: threads are set once.
        command = [sys.executable, "-P", "-m", "rlplatform.evaluation.bench.mrq", "--only", task, dtype, str(threads)]
        command += ["--batch", str(given.batch), "--repeats", str(given.repeats)]
        rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))  # noqa: S603
        if len(rows) == 1:
            print("  ".join(f"{name:>{max(len(name), _WIDTH)}}" for name in rows[0]))
        print("  ".join(f"{_text(value):>{max(len(name), _WIDTH)}}" for name, value in rows[-1].items()), flush=True)
    result: dict[str, Any] = {"batch": given.batch, "rows": rows}
    if given.lap:
        result["lap"] = lap(given.lap, given.batch)
        print("lap:", "  ".join(f"{name} {_text(value)}" for name, value in result["lap"].items()))
    result |= {**provenance(), "load": list(os.getloadavg())}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


def measure(task: str, dtype: str, threads: int, batch: int, repeats: int) -> dict[str, Any]:
    """One row: medians over `repeats` rounds of each kind."""
    torch.set_num_threads(threads)
    spec = TASKS[task]
    agent, learn, updates, bare = sac_kinds(spec, batch) if task == "sac" else mrq_kinds(spec, dtype, batch)
    with FlopCounterMode(display=False) as counter:
        bare()
    gemm = products(bare)
    matrix = torch.randn(SIDE, SIDE).to(torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    policy, actor = agent.policy(), Stream(0, "actor")
    policy.load({**agent.weights(), "epsilon": 0.0, "random": False})
    obs = np.zeros((1, spec.stack, *spec.frame_shape), spec.frame_dtype)
    kinds: dict[str, Callable[[], object]] = {
        "learn": learn,
        "bare": bare,
        "gemm": gemm,
        "matmul": lambda: matrix @ matrix,
        "act": lambda: policy.act(obs, actor),
    }
    median = medians(kinds, repeats)
    learned, flops = median["learn"] / updates, counter.get_total_flops()
    ceiling = 2 * SIDE**3 / median["matmul"]
    return {
        "task": task,
        "dtype": dtype,
        "threads": threads,
        "step_ms": 1e3 * (learned + median["act"]),
        "goal_ms": GOALS.get((task, dtype, threads)) if batch == Config().batch else None,
        "learn_ms": 1e3 * learned,
        "bare_ms": 1e3 * median["bare"],
        "learn_vs_bare": median["bare"] / learned,
        "gemm_ms": 1e3 * median["gemm"],
        "learn_vs_gemm": median["gemm"] / learned,
        "gflop": flops / 1e9,
        "gflop_per_s": flops / learned / 1e9,
        "matmul_gflop_per_s": ceiling / 1e9,
        "share_of_matmul": flops / learned / ceiling,
        "bare_share_of_matmul": flops / median["bare"] / ceiling,
        "act_ms": 1e3 * median["act"],
    }


class _Products(TorchDispatchMode):
    """Notes the matrix products and convolutions that run inside it."""

    KINDS = (
        torch.ops.aten.mm,
        torch.ops.aten.addmm,
        torch.ops.aten.bmm,
        torch.ops.aten.convolution,
        torch.ops.aten.convolution_backward,
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in self.KINDS:
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


def products(passes: Callable[[], object]) -> Callable[[], None]:
    """What repeats the matrix products of these passes, on their operands, without anything in between."""
    with _Products() as noted:
        passes()

    @torch.no_grad()
    def repeat() -> None:
        for func, args in noted.calls:
            func(*args)

    return repeat


def mrq_kinds(spec: Spec, dtype: str, batch: int) -> tuple[mrq.Agent, Callable[[], None], int, Callable[[], None]]:
    """(agent, what learns, its updates, what only passes through the networks)."""
    config = Config(dtype=dtype, batch=batch, target_period=PERIOD, capacity=20_000)
    agent = mrq.Agent(config, spec, 1, seed=0)
    agent.observe([noise(spec)])

    def learn() -> None:
        for _ in range(PERIOD):
            agent.update()

    learn()
    unroll = agent.unroll(agent.replay.sample(batch, 1, 0.0, config.horizon))
    x = agent.transitions(agent.replay.sample(batch, config.n, config.gamma))
    shape = (batch, mrq_net.action_size(spec))
    draws = mrq_net.Noise(torch.zeros(shape), torch.zeros(shape), torch.zeros(shape))
    net, target = agent.online, agent.target

    def bare() -> None:
        loss = mrq_net.encoder_loss(net.encoder, target.encoder, unroll, agent.bins, config, terminates=True)
        torch.autograd.grad(loss.total, list(net.encoder.parameters()))
        y = mrq_net.value_target(target, x, draws, agent.scale)
        at = mrq_net.embed(net.encoder, x)
        value_loss, _, _ = mrq_net.value_loss(net.value(at.zsa), y)
        torch.autograd.grad(value_loss, list(net.value.parameters()))
        policy_loss = mrq_net.policy_loss(net.policy, net.encoder, net.value, at.zs, draws.gumbel)
        torch.autograd.grad(policy_loss, list(net.policy.parameters()))

    return agent, learn, PERIOD, bare


def sac_kinds(spec: Spec, batch: int) -> tuple[sac.Agent, Callable[[], object], int, Callable[[], None]]:
    """As mrq_kinds: one update."""
    agent = sac.Agent(sac.Config(batch=batch, capacity=20_000), spec, 1, seed=0)
    agent.observe([noise(spec)])
    x, net = sac.transitions(agent.replay.sample(batch, 1, 0.99)), agent.net
    normal = torch.zeros_like(x.action)

    def bare() -> None:
        y = sac.soft_target(net, agent.target, x, normal)
        loss, _ = sac.critic_loss(net.critic(x.obs, x.action), y)
        torch.autograd.grad(loss, list(net.critic.parameters()))
        loss, _ = sac.actor_loss(net, x.obs, normal)
        torch.autograd.grad(loss, list(net.actor.parameters()))

    return agent, agent.update, 1, bare


def noise(spec: Spec) -> Rollout:
    """`STORED` steps of one environment, in episodes of 500 with a time limit."""
    rng, shape = np.random.default_rng(0), (STORED, 1)
    ended, never = np.zeros(shape, bool), np.zeros(shape, bool)
    ended[499::500] = True
    if spec.frame_dtype == "uint8":
        frames = rng.integers(0, 256, (*shape, *spec.frame_shape), dtype=np.uint8)
    else:
        frames = rng.normal(size=(*shape, *spec.frame_shape)).astype(np.float32)
    action = (
        rng.integers(0, spec.actions, shape)
        if spec.actions
        else rng.uniform(-1, 1, (*shape, *spec.action_shape)).astype(np.float32)
    )
    return Rollout(
        frames, np.roll(ended, 1, 0), action, rng.random(shape).astype(np.float32), never, ended, frames[ended],
        np.ascontiguousarray(np.argwhere(ended)), {}, empty_episodes(), 0, 0,
    )  # fmt: skip


def lap(items: int, batch: int, repeats: int = 50) -> dict[str, float]:
    """Microseconds: medians of draws from `items` priorities of all sizes."""
    spec = Spec((1,), "float32", 1, 0, (1,))
    replay, rng = Replay(spec, items + 10, 1, max_n=3, max_k=5, alpha=0.4), np.random.default_rng(0)
    no = np.zeros((items, 1), bool)
    replay.add(Rollout(
        np.zeros((items, 1, 1), np.float32), no, np.zeros((items, 1, 1), np.float32), np.zeros((items, 1), np.float32), no, no,
        np.zeros((0, 1), np.float32), np.zeros((0, 2), np.int64), {}, empty_episodes(), 0, 0,
    ))  # fmt: skip
    index = replay.eligible()
    priority = np.exp(rng.normal(size=len(index)))
    replay.update_priority(index, priority)
    flat = torch.from_numpy(priority**0.4)
    out = replay.sample(batch, 3, 0.99)

    def by_sum() -> None:
        total = flat.cumsum(0)
        torch.searchsorted(total, torch.rand(batch, dtype=torch.float64) * total[-1])

    kinds: dict[str, Callable[[], object]] = {
        "indices_us": lambda: replay.draw(batch),
        "whole_items_us": lambda: replay.sample(batch, 3, 0.99, 0, out),
        "indices_by_cumsum_us": by_sum,
    }
    return {"items": items, "batch": batch} | {name: 1e6 * seconds for name, seconds in medians(kinds, repeats).items()}


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value if value is not None else "-")


if __name__ == "__main__":
    main()
