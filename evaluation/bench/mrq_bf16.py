"""MR.Q in bfloat16 against float32 at checkpoints of a float32 run: the same state, batches and noise.

    rlplatform bench mrq_bf16 [--task control/Pendulum] [--steps N] [--checkpoints K] [--threads T] [--out FILE] [KEY=VALUE ...]

KEY=VALUE change the agent's configuration, as in hidden=128 for smaller networks. At each checkpoint, evenly spaced over the updates
of the run, for one step of the encoder and one of value and policy:
  *_error       |loss in bfloat16 / in float32 - 1|: of the next states, the reward, the value
  priority_error  the largest relative error of one item's new priority, max(|TD error|, 1)
  cosine_*      between the two gradients of the encoder, the value and the policy
  batch_*       for scale: between the float32 gradients of these batches and of others
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlplatform.actor import Actor
from rlplatform.agents import load_preset
from rlplatform.agents.mrq import PARTS, Agent
from rlplatform.agents.mrq_config import Config
from rlplatform.config import merge
from rlplatform.envs import make, suite_of
from rlplatform.evaluation.bench.bf16 import parser_of, show
from rlplatform.learner import Learner
from rlplatform.replay import Batch
from rlplatform.streams import Stream

LOSSES = ("dynamics", "reward", "value")


def main() -> None:
    """Train, compare at the checkpoints, print a table, write the result."""
    given = parser_of(__doc__, "control/Pendulum", 3_000, "mrq_bf16").parse_args()
    torch.set_num_threads(given.threads)
    config = merge(Config(), load_preset("mrq", suite_of(given.task).name).config, overrides=given.overrides)
    rows = compare_along_run(config, given.task, given.steps, given.checkpoints, given.seed)
    show(given, "mrq", rows)


def compare_along_run(config: Config, task: str, steps: int, checkpoints: int, seed: int) -> list[dict[str, float]]:
    """One row a checkpoint of an ordinary float32 run, but for the batches drawn for the comparison."""
    envs = make(task, 1, seed)
    agent = Agent(config, envs.spec, 1, seed)
    actor = Actor(agent.policy(), envs, Stream(seed, "actor"))
    learner = Learner(agent, config.replay_ratio)
    at = np.linspace(config.min_replay + 2, steps, checkpoints).astype(int)
    rows = []
    for step in range(1, steps + 1):
        learner.learn([actor.collect(agent.weights(), step, 1)])
        if step in at:
            rows.append({"step": step, "updates": learner.updates, **compare(agent)})
    envs.close()
    return rows


def compare(agent: Agent) -> dict[str, float]:
    """The quantities of the docstring above, at the state of this agent."""
    config = agent.config

    def batches() -> tuple[Batch, Batch]:
        return (
            agent.replay.sample(config.batch, 1, 0.0, config.horizon),
            agent.replay.sample(config.batch, config.n, config.gamma),
        )

    long, short = batches()
    exact, half = (once(agent, dtype, long, short) for dtype in ("float32", "bfloat16"))
    others = once(agent, "float32", *batches())
    return {
        **{f"{name}_error": abs(half.loss[name] / exact.loss[name] - 1) for name in LOSSES},
        "priority_error": float(np.abs(half.priority / exact.priority - 1).max()),
        **{f"cosine_{part}": _cosine(exact.grad[part], half.grad[part]) for part in PARTS},
        **{f"batch_{part}": _cosine(exact.grad[part], others.grad[part]) for part in PARTS},
    }


class Once(NamedTuple):
    """Of one step of the encoder, and, from the same state, one of value and policy."""

    loss: dict[str, float]
    grad: dict[str, Tensor]  # by part, flattened, float64
    priority: Any  # [B] float32


def once(agent: Agent, dtype: str, long: Batch, short: Batch) -> Once:
    """What a copy of the agent computes in `dtype` on subsequences and transitions."""
    copy: Any = Agent(
        dataclasses.replace(agent.config, dtype=dtype, capacity=agent.config.min_replay + 100), agent.spec, 1, seed=0
    )
    state = {**agent.state_dict(), "updates": 1}  # within a period: no burst
    copy.replay = fixed = _Fixed(long, short)
    copy.load_state_dict(state)
    copy.encoder_update()
    grad = {"encoder": _grad(copy.master.encoder)}
    of_encoder = dict(zip(("dynamics", "reward"), copy.state_dict()["encoder_loss"].tolist(), strict=False))
    copy.load_state_dict(state)
    metrics = copy.update()
    grad |= {part: _grad(getattr(copy.master, part)) for part in ("value", "policy")}
    return Once(of_encoder | {"value": float(metrics["losses/value_loss"])}, grad, fixed.priority)


class _Fixed:
    """A replay of one batch of each kind."""

    def __init__(self, long: Batch, short: Batch) -> None:
        self.long, self.short = long, short

    def sample(self, _batch: int, _n: int, _gamma: float, k: int, _out: object) -> Batch:
        return self.long if k else self.short

    def update_priority(self, _: object, priority: Any) -> None:
        self.priority = priority


def _grad(module: torch.nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]).double()


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a, b, dim=0))


if __name__ == "__main__":
    main()
