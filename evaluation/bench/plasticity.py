"""What it costs to look into an agent while it learns: `plasticity.every`.

    rlplatform bench plasticity [--every E] [--rounds R] [--runs PRESET=TASK ...] [--out FILE]

Per preset and task, in one process, one after the other in each round; medians over rounds, on one thread:
  update  one gradient step, by Agent.update()
  look    one look, before and after a gradient step: the passes, the measures and the gradients of single observations
  keep    keeping the observations of one agent step
The share is what `every` agent steps take with a look over what they take without, less 1: (look + every * keep) over
every * replay ratio * update. Acting and environments are left out, so that it is an upper bound.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from rlplatform.actor import Actor
from rlplatform.agents import load_preset, resolve
from rlplatform.config import merge
from rlplatform.envs import make, suite_of
from rlplatform.evaluation.bench.learner import medians
from rlplatform.inspection import Inspection
from rlplatform.plasticity_config import PlasticityConfig
from rlplatform.provenance import provenance
from rlplatform.streams import Stream

RUNS = (
    "c51=minatar/Breakout", "der=atari/Pong", "spr=atari/Pong", "bbf=atari/Pong", "sac=control/Pendulum", "mrq=control/Pendulum",
)  # fmt: skip
FILL = 400  # agent steps before the first measurement
KEPT = 100  # steps that are kept in one timing: a single one would be the clock's and the cache's


def measure(run: str, every: int, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    preset, _, task = run.partition("=")
    suite = suite_of(task)
    chosen = load_preset(preset, suite.name)
    agent_class = resolve(chosen.agent)
    config = merge(agent_class.config_class(), chosen.config, {"min_replay": FILL - 100})
    env = make(task, 1, 0, protocol=suite.protocol_named(chosen.variant))
    agent = agent_class(config, env.spec, 1, 0)
    looks = PlasticityConfig(every=every)
    actor, inspection = Actor(agent.policy(), env, Stream(0, "bench")), Inspection(agent, looks, 1)
    rollouts = [actor.collect(agent.weights(), 0, 1) for _ in range(FILL)]
    for step, rollout in enumerate(rollouts):
        agent.observe([rollout])
        inspection.observe([rollout], step * max(1, every // looks.observations))  # every one is kept
    one = rollouts[-1:]

    def look() -> None:
        inspection.before()
        inspection.after(0, 1)

    agent.update()

    def keep() -> None:
        for step in range(KEPT):
            inspection.observe(one, step)

    median = medians({"update": agent.update, "look": look, "keep": keep}, rounds)
    median["keep"] /= KEPT
    base = every * config.replay_ratio * median["update"]
    return {
        "preset": preset,
        "task": task,
        "parameters": sum(p.numel() for p in agent.probe().net.parameters()),
        "replay_ratio": config.replay_ratio,
        "update_ms": 1e3 * median["update"],
        "look_ms": 1e3 * median["look"],
        "keep_us": 1e6 * median["keep"],
        "share": (median["look"] + every * median["keep"]) / base,
    }


def main() -> None:
    """Measure, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1_000, help="agent steps between looks")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--runs", nargs="+", default=RUNS, metavar="PRESET=TASK")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    load = list(os.getloadavg())
    rows: list[dict[str, Any]] = []
    for run in given.runs:
        rows.append(measure(run, given.every, given.rounds))
        if len(rows) == 1:
            print("  ".join(f"{name:>16}" for name in rows[0]))
        print("  ".join(f"{f'{v:.4g}' if isinstance(v, float) else v:>16}" for v in rows[-1].values()), flush=True)
    result = {"every": given.every, "rounds": given.rounds, "rows": rows, **provenance(), "load": load}
    out = given.out or Path(__file__).parent / "results" / "plasticity.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
