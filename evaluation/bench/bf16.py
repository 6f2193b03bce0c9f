"""bfloat16 against float32 at checkpoints of a float32 run of one preset: the same state, batch, augmentation and noise.

    rlplatform bench bf16 [--preset der] [--task atari/Pong] [--steps N] [--checkpoints K] [--threads T] [--out FILE] [KEY=VALUE ...]
    rlplatform bench bf16 --device cuda [--dtype bfloat16 | tf32 | float32] [...]

With a GPU the run learns there, and what it computes in `dtype` is compared with float32 on the CPU: so --dtype float32 says what
its kernels, its layout (channels last) and its order of sums are worth, and the others what they add.

KEY=VALUE change the agent's configuration, as in width=1 hidden=512 for a smaller BBF.

At each checkpoint, evenly spaced over the gradient steps of the run:
  loss_error     |mean TD loss in dtype / in float32 - 1|
  td_error       the largest relative error of one sample's TD loss, which becomes its priority
  spr_error      |mean SPR loss in dtype / in float32 - 1|, where there is one
  cosine         between the two gradients, whole and by part of the network
  norm_error     |length of the gradient in dtype / in float32 - 1|
  batch_cosine   for scale: between the float32 gradients of this batch and of another one
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlplatform.actor import Actor
from rlplatform.agents import load_preset
from rlplatform.agents.spr import Agent
from rlplatform.agents.spr_config import DTYPES, Config, horizon_at
from rlplatform.config import merge
from rlplatform.envs import make, suite_of
from rlplatform.learner import Learner
from rlplatform.provenance import provenance
from rlplatform.replay import Batch
from rlplatform.streams import Stream

PARTS = ("encoder", "projection", "head", "transition", "predictor")


def main() -> None:
    """Train, compare at the checkpoints, print a table, write the result."""
    parser = parser_of(__doc__, "atari/Pong", 5_000, "bf16")
    parser.add_argument("--preset", default="der")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    preset = load_preset(given.preset, suite_of(given.task).name)
    config = merge(Config(), preset.config, overrides=given.overrides)
    along = given.steps, given.checkpoints, given.seed
    rows = compare_along_run(config, given.task, preset.variant, *along, given.device, given.dtype)
    show(given, given.preset, rows)


def parser_of(doc: str | None, task: str, steps: int, out: str) -> argparse.ArgumentParser:
    """The command line of a comparison, with these defaults."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--task", default=task)
    parser.add_argument("--steps", type=int, default=steps, help="agent steps of the run")
    parser.add_argument("--checkpoints", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / f"{out}.json")
    return parser


def show(given: argparse.Namespace, preset: str, rows: list[dict[str, float]]) -> None:
    """Write the result and print its table."""
    named = {name: value for name, value in vars(given).items() if name not in {"out", "preset"}}
    result = {"preset": preset, **named, "rows": rows, "worst": worst(rows), **provenance()}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print("  ".join(f"{name:>15}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>15.4g}" for value in row.values()))
    print("worst:", json.dumps(result["worst"]))


def compare_along_run(
    config: Config, task: str, variant: str, steps: int, checkpoints: int, seed: int, device: str, dtype: str
) -> list[dict[str, float]]:
    """One row a checkpoint of an ordinary float32 run, but for the batches drawn for the comparison."""
    envs = make(task, 1, seed, protocol=suite_of(task).protocol_named(variant))
    agent = Agent(config, envs.spec, 1, seed, device, feed=feed_on(device))
    actor = Actor(agent.policy(), envs, Stream(seed, "actor"))
    learner = Learner(agent, config.replay_ratio)
    at = np.linspace(config.min_replay + 1, steps, checkpoints).astype(int)
    rows = []
    for step in range(1, steps + 1):
        learner.learn([actor.collect(agent.weights(), step, 1)])
        if step in at:
            n, gamma = horizon_at(learner.updates, config)
            batch, other = (agent.replay.sample(config.batch, n, gamma, config.spr_steps) for _ in range(2))
            rows.append({"step": step, "updates": learner.updates, **compare(agent, batch, other, dtype)})
    envs.close()
    return rows


def feed_on(device: str) -> str:
    """A replay on the host, whose batches every device can be given."""
    return "" if device == "cpu" else "staged"


def compare(agent: Agent, batch: Batch, other: Batch, dtype: str = "bfloat16") -> dict[str, float]:
    """The quantities of the docstring above, at the state of this agent."""
    device = str(agent.device)
    exact, half = gradient(agent, "float32", batch), gradient(agent, dtype, batch, device, feed_on(device))
    whole, whole_half = _join(exact.grad), _join(half.grad)
    row = {
        "loss": float(exact.td.mean()),
        "loss_error": abs(float(half.td.mean() / exact.td.mean()) - 1),
        "td_error": float((half.td / exact.td - 1).abs().max()),
        "cosine": _cosine(whole, whole_half),
        **{f"cosine_{part}": _cosine(grad, half.grad[part]) for part, grad in exact.grad.items() if len(grad)},
        "norm_error": abs(float(whole_half.norm() / whole.norm()) - 1),
        "batch_cosine": _cosine(whole, _join(gradient(agent, "float32", other).grad)),
    }
    return {**row, "spr_error": abs(half.spr / exact.spr - 1)} if agent.config.spr_steps else row


class Gradient(NamedTuple):
    """Of one update."""

    td: Tensor  # [B] float64: TD losses
    spr: float  # mean SPR loss; 0 where there is none
    grad: dict[str, Tensor]  # by part of the network, flattened, float64


def gradient(agent: Agent, dtype: str, batch: Batch, device: str = "cpu", feed: str = "") -> Gradient:
    """What a copy of the agent on `device` computes in `dtype`."""
    config = agent.config
    small = dataclasses.replace(config, dtype=dtype, capacity=config.min_replay + 100)
    copy: Any = Agent(small, agent.spec, 1, 0, device, feed=feed)
    copy.load_state_dict(agent.state_dict())
    copy.replay = fixed = _Fixed(batch)
    metrics = copy.update()
    if copy.launches is not None:
        copy.launches.feed.settle()  # the losses are on their way
    parts = {part: getattr(copy.master, part).parameters() for part in PARTS if hasattr(copy.master, part)}
    return Gradient(
        torch.from_numpy(fixed.priority),
        float(metrics.get("losses/spr_loss", 0.0)),
        {
            part: torch.cat([torch.zeros(0), *(p.grad.flatten().cpu() for p in parameters)]).double()
            for part, parameters in parts.items()
        },
    )


def worst(rows: list[dict[str, float]]) -> dict[str, float]:
    """Over the checkpoints: the largest errors and the smallest cosines (for the other batch the largest)."""
    return {
        name: (min if name.startswith("cosine") else max)(row[name] for row in rows)
        for name in rows[0]
        if "error" in name or "cosine" in name
    }


class _Fixed:
    """A replay of one batch."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def sample(self, *_: object) -> Batch:
        return self.batch

    def update_priority(self, _: object, priority: Any) -> None:
        self.priority = priority


def _join(grad: dict[str, Tensor]) -> Tensor:
    return torch.cat(list(grad.values()))


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a, b, dim=0))


if __name__ == "__main__":
    main()
