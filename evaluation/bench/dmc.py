"""Steps a second of DeepMind Control and Gymnasium's MuJoCo tasks: ours beside the packages' own loops.

    rlplatform bench dmc [--tasks T ...] [--steps S] [--rounds R] [--pixels] [--out FILE]

Random play on one core, in turns within one process:
  bare  what the packages themselves offer: dm_control's `Environment.step` twice and its observation flattened, as an agent with
        an action repeat of 2 has to call it, or `gymnasium.make(...).step`; resets included
  ours  a batch of one environment: checked actions, float32 frames, rewards, true last frames, resets
With --pixels, dm_control's own `physics.render` of 84 x 84 pixels after each agent step beside our frames. A figure is CPU time of
the process for one agent step; a ratio is ours over bare, the median over rounds of quotients within one round.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rlplatform.envs import make, suite_of
from rlplatform.provenance import provenance
from rlplatform.types import Array

PICTURE = 84  # pixels a side


def bare_dmc(task: str, *, pixels: bool) -> Callable[[Array], None]:
    """Plays agent steps in dm_control's own environment."""
    from rlplatform.envs.dmc import CAMERAS, _suite, split

    domain, name = split(task)
    env = _suite().load(domain, name, task_kwargs={"random": 0})
    bounds, camera = env.action_spec(), CAMERAS.get(domain, 0)
    centre, half = (bounds.minimum + bounds.maximum) / 2, (bounds.maximum - bounds.minimum) / 2

    def play(actions: Array) -> None:
        last = env.reset()
        for action in actions:
            force = centre + half * action
            for _ in range(2):
                last = env.step(force)
            if pixels:
                env.physics.render(PICTURE, PICTURE, camera_id=camera)
            else:
                np.concatenate([np.ravel(part) for part in last.observation.values()]).astype(np.float32)
            if last.last():
                env.reset()

    return play


def bare_gym(task: str) -> Callable[[Array], None]:
    """Plays steps in Gymnasium's own environment."""
    import gymnasium

    name, version = task.rpartition("/")[2], suite_of(task).protocol.version
    gymnasium.logger.min_level = gymnasium.logger.ERROR  # it would say that v4 is old
    env = gymnasium.make(f"{name}-{version}")
    high = np.asarray(getattr(env.action_space, "high"))  # noqa: B009  # its type does not say that it is a box

    def play(actions: Array) -> None:
        env.reset(seed=0)
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action * high)
            if terminated or truncated:
                env.reset()

    return play


def ours(task: str) -> tuple[Callable[[Array], None], int]:
    """The same in a batch of ours, and how many numbers an action has."""
    batch = make(task, 1, 0)

    def play(actions: Array) -> None:
        batch.reset()
        for action in actions:
            batch.step(action[None])

    return play, batch.spec.action_shape[0]


def cpu_us(play: Callable[[Array], None], actions: Array) -> float:
    """CPU microseconds an agent step."""
    before = time.process_time()
    play(actions)
    return (time.process_time() - before) / len(actions) * 1e6


def measure(task: str, steps: int, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    play, width = ours(task)
    bare = bare_gym(task) if task.startswith("gym/") else bare_dmc(task, pixels=task.startswith("dmc-visual/"))
    rng = np.random.default_rng(0)
    ours_us, bare_us = [], []
    for turn in range(rounds + 1):  # the first warms up and is not counted
        actions = rng.uniform(-1, 1, (steps, width)).astype(np.float32)
        pair = (cpu_us(bare, actions), cpu_us(play, actions)) if turn % 2 else (cpu_us(play, actions), cpu_us(bare, actions))[::-1]  # fmt: skip
        if turn:
            bare_us.append(pair[0])
            ours_us.append(pair[1])
    ratios = [mine / theirs for mine, theirs in zip(ours_us, bare_us, strict=True)]
    return {
        "task": task, "bare_us": round(statistics.median(bare_us), 1), "ours_us": round(statistics.median(ours_us), 1),
        "ours_steps_per_s": round(1e6 / statistics.median(ours_us)), "ratio": round(statistics.median(ratios), 3),
        "worst_ratio": round(max(ratios), 3),
    }  # fmt: skip


def main() -> None:
    """Measure, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", help="by default those of dmc28 and gym5, with --pixels of dmc28-visual")
    parser.add_argument("--steps", type=int, default=300, help="agent steps a turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pixels", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()

    load = list(os.getloadavg())  # before we add to it: what else the machine was doing
    chosen = suite_of("dmc-visual").tasks if given.pixels else suite_of("dmc").tasks + suite_of("gym").tasks
    rows: list[dict[str, Any]] = []
    for task in given.tasks or chosen:
        row = measure(task, given.steps, given.rounds)
        if not rows:
            print("  ".join(f"{name:>26}" if name == "task" else name for name in row))
        print("  ".join(f"{value!s:>{26 if name == 'task' else len(name)}}" for name, value in row.items()), flush=True)
        rows.append(row)
    ratio = statistics.median(row["ratio"] for row in rows)
    print(f"median over tasks of ours / bare: {ratio:.3f}")
    settings = {"steps": given.steps, "rounds": given.rounds}
    result = {**settings, "median_ratio": ratio, "rows": rows, **provenance(), "load": load}
    out = given.out or Path(__file__).parent / "results" / ("dmc_pixels.json" if given.pixels else "dmc.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
