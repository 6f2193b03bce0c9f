"""MR.Q's first learning from pictures, as a user begins a run: shapes, speed and memory of whole runs in processes of their own.

    rlplatform bench smoke [--tasks TASK ...] [--steps N] [--threads T] [--out FILE]

Each run is `rlplatform train mrq TASK --steps N` under the task's own protocol: 10,000 random steps, then an update a step, the first
preceded by the encoder's burst of 250. Reported of each:

  observation   as a policy sees it, and the actions
  parameters    that are learned
  random        agent steps a second of the first 10,000, environment and replay included
  update        milliseconds of an update of values and policy and the encoder's that comes with it, the burst spread over its period
  peak          most memory that the process had (GiB), how much of that the transitions in its replay are, and the replay when it is full

A run that ends otherwise than by itself, or in which a loss is not finite or an update is missing, is an error.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rlplatform.agents import load_preset
from rlplatform.agents.mrq import Agent
from rlplatform.agents.mrq_config import Config
from rlplatform.config import merge
from rlplatform.envs import make, suite_of
from rlplatform.provenance import provenance

TASKS = ("atari57-mrq/Pong", "dmc-visual/walker-walk")
GIB = 2**30


def main() -> None:
    """Run them one after the other, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--steps", type=int, default=Config().min_replay + Config().target_period, help="agent steps")
    parser.add_argument("--threads", type=int, default=1, help="of matrix products")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "smoke.json")
    given = parser.parse_args()
    if given.steps <= Config().min_replay + 1:
        parser.error(f"nothing is learned in {given.steps} steps: learning begins after {Config().min_replay + 1}")
    load = list(os.getloadavg())  # before we add to it
    rows = []
    for task in given.tasks:
        rows.append(short_run(task, given.steps, given.threads))
        if len(rows) == 1:
            print("  ".join(rows[0]))
        print("  ".join(f"{value!s:>{len(key)}}" for key, value in rows[-1].items()), flush=True)
    given.out.parent.mkdir(exist_ok=True)
    result = {"steps": given.steps, "threads": given.threads, "rows": rows, **provenance(), "load": load}
    given.out.write_text(json.dumps(result, indent=1) + "\n")


def short_run(task: str, steps: int, threads: int) -> dict[str, Any]:
    """One row.

    Raises:
        RuntimeError: the run failed, or did not learn what it should have.
    """
    options = ["--seed", "0", "--steps", str(steps), "eval.episodes=1", "log_every=250", f"threads={threads}"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-P", "-m", "rlplatform", "train", "mrq", task, *options, "--run-dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
        _, status, used = os.wait4(process.pid, 0)  # of this child alone, unlike getrusage(RUSAGE_CHILDREN)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{task}: the run ended with code {process.returncode}; what it said is on the terminal")
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "perf/elapsed_s" in line]  # those of evaluations have none
    random = next(line for line in reversed(lines) if line["step"] <= Config().min_replay)
    last = lines[-1]
    losses = {name: value for name, value in last.items() if name.startswith("losses/")}
    updates, of_encoder = last["charts/updates"], last["charts/encoder_updates"]
    period = Config().target_period
    if not losses or not all(math.isfinite(value) for value in losses.values()):
        raise RuntimeError(f"{task}: a loss is not finite: {losses}")
    if updates != steps - Config().min_replay or of_encoder != math.ceil(updates / period) * period:
        raise RuntimeError(f"{task}: {updates} updates and {of_encoder} of the encoder after {steps} steps")
    envs = make(task, 1, seed=0, first_env=0)
    spec = envs.spec
    envs.close()
    agent = Agent(merge(Config(), load_preset("mrq", suite_of(task).name).config), spec, 1, seed=0)
    learned = sum(tensor.numel() for tensor in agent.state_dict()["online"].values())
    # The burst is whole at its first update: a run that ends within a period has paid for all of it.
    seconds = last["perf/sample_s"] + last["perf/update_s"]
    return {
        "task": task,
        "observation": f"{spec.frame_dtype} {[spec.stack, *spec.frame_shape]}",
        "actions": spec.actions or list(spec.action_shape),
        "parameters": learned,
        "random_steps_per_s": round(random["step"] / random["perf/elapsed_s"]),
        "ms_per_update": round(1e3 * seconds / of_encoder),
        "peak_gib": round(used.ru_maxrss * 1024 / GIB, 2),
        "stored_gib": round(agent.replay.nbytes / GIB * steps / agent.replay.capacity, 2),
        "full_replay_gib": round(agent.replay.nbytes / GIB, 2),
    }


if __name__ == "__main__":
    main()
