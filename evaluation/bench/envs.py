"""Environments of the C++ core beside every peer that is installed, and their speed over N. One file for all of it.

    rlplatform bench envs [--parts minatar control gymnax scaling] [--envs N ...] [--rounds R] [--out FILE] [--plot FILE]

  minatar  MinAtar's games beside the minatar package, CPU time on one core: `rlplatform bench minatar`'s rows
  control  CartPole beside Gymnasium's vector forms and EnvPool, wall and CPU time: `rlplatform bench control`'s rows
  gymnax   games that gymnax has, too, beside it on the CPU (`pip install gymnax`)
  scaling  steps a second on one thread over N = 1, ..., 65,536, and the plot of these (SVG or PNG)

gymnax is played as it is meant to be: `vmap` over N, `scan` over T steps, all in one jitted call that is compiled and run once before it is timed,
waiting for its result. Both sides take the same number of actions a step from arrays drawn before, uniform over the actions that each offers
(gymnax's MinAtar has only those that a game heeds), and begin the next game in the same step. gymnax carries its last frames on and gives the
sum of rewards; ours gives every frame to Python. A figure is per step of one environment; `cpu` is CPU time of the process over all its threads,
which is what one core would take, `wall` has whatever threads XLA takes on its side and one on ours. Ratios are medians over rounds of quotients within
one round.
"""

import argparse
import importlib
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from rlplatform.envs import make, suite_of
from rlplatform.evaluation.bench import control, minatar
from rlplatform.evaluation.plots import save
from rlplatform.provenance import provenance

PARTS = ("minatar", "control", "gymnax", "scaling")
GYMNAX = {  # its Seaquest is unfinished
    "minatar/Asterix": "Asterix-MinAtar",
    "minatar/Breakout": "Breakout-MinAtar",
    "minatar/Freeway": "Freeway-MinAtar",
    "minatar/SpaceInvaders": "SpaceInvaders-MinAtar",
    "control/CartPole": "CartPole-v1",
}
STEPS = 65_536  # of all environments together in a turn, at least 64 calls
SCALE = tuple(4**k for k in range(9))  # 1, ..., 65,536
Clocks = tuple[float, float]  # seconds on the wall and of CPU time


def timed(play: Callable[[], Any]) -> Clocks:
    """Of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    play()
    return time.perf_counter() - wall, time.process_time() - cpu


def calls(n: int, steps: int) -> int:
    """Steps of a batch of n in a turn."""
    return max(64, steps // n)


def ours(task: str, n: int, t: int) -> Callable[[], Any]:
    """t steps of a batch of n on one thread."""
    batch = make(task, n, 0)
    batch.reset()
    actions = np.random.default_rng(0).integers(batch.spec.actions, size=(t, n))

    def play() -> None:
        for action in actions:
            batch.step(action)  # a list of them would measure fresh memory

    return play


def gymnax(name: str, n: int, t: int) -> Callable[[], Any]:
    """t steps of n environments of gymnax in one compiled call."""
    jax, package = importlib.import_module("jax"), importlib.import_module("gymnax")
    env, params = package.make(name)
    actions = jax.numpy.asarray(np.random.default_rng(0).integers(env.num_actions, size=(t, n)), jax.numpy.int32)
    reset, step = (jax.vmap(f, in_axes=axes) for f, axes in ((env.reset, (0, None)), (env.step, (0, 0, 0, None))))

    def rollout(key: Any, obs: Any, state: Any) -> Any:
        def one(carry: Any, action: Any) -> Any:
            key, _, state, total = carry
            keys = jax.random.split(key, n + 1)
            obs, state, reward, *_ = step(keys[1:], state, action, params)
            return (keys[0], obs, state, total + reward.sum()), None

        return jax.lax.scan(one, (key, obs, state, jax.numpy.float32(0.0)), actions)[0]

    compiled = jax.jit(rollout)
    obs, state = reset(jax.random.split(jax.random.PRNGKey(0), n), params)
    carry = [jax.random.PRNGKey(1), obs, state]

    def play() -> None:
        carry[:] = jax.block_until_ready(compiled(*carry))[:3]

    play()  # compiles
    return play


def beside_gymnax(task: str, n: int, rounds: int, steps: int) -> dict[str, Any]:
    """One row."""
    t = calls(n, steps)
    kinds = {"ours": ours(task, n, t), "gymnax": gymnax(GYMNAX[task], n, t)}
    seconds: dict[str, list[Clocks]] = {name: [] for name in kinds}
    for turn in range(rounds + 1):  # the first warms the caches and is not counted
        for name in sorted(kinds, reverse=bool(turn % 2)):
            clocks = timed(kinds[name])
            if turn:
                seconds[name].append(clocks)
    row: dict[str, Any] = {"task": task, "envs": n}
    for k, clock in enumerate(("wall", "cpu")):
        for name in kinds:
            row[f"{name}_{clock}_us"] = round(statistics.median(pair[k] for pair in seconds[name]) / (t * n) * 1e6, 4)
        quotients = [b[k] / a[k] for a, b in zip(seconds["ours"], seconds["gymnax"], strict=True)]
        row[f"ours_over_gymnax_{clock}"] = round(statistics.median(quotients), 2)
    return row


def scaling(task: str, n: int, rounds: int, steps: int) -> dict[str, Any]:
    """One row: steps a second of all environments together, by wall and by CPU time."""
    t = calls(n, steps)
    play = ours(task, n, t)
    play()
    turns = [timed(play) for _ in range(rounds)]
    wall, cpu = (statistics.median(pair[k] for pair in turns) for k in range(2))
    return {"task": task, "envs": n, "per_s": round(t * n / wall), "per_cpu_s": round(t * n / cpu)}


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Steps a second over N, a line for each task, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = sorted((row["envs"], row["per_cpu_s"]) for row in rows if row["task"] == task)
        axes.plot(*zip(*mine, strict=True), marker="o", markersize=3.5, label=task)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("environments in a batch")
    axes.set_ylabel("steps of an environment\nper second of CPU time, one thread")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize="small")
    save(figure, path)


def table(rows: list[dict[str, Any]]) -> None:
    """The last of the rows, under the names of its columns where it is the first with these."""
    if len(rows) == 1 or list(rows[-1]) != list(rows[-2]):
        print("  ".join(rows[-1]))
    print("  ".join(f"{value!s:>{len(name)}}" for name, value in rows[-1].items()), flush=True)


def main() -> None:
    """Measure, print tables, write the result and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results = Path(__file__).parent / "results"
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tasks", nargs="+", default=[*suite_of("minatar").tasks, "control/CartPole"])
    parser.add_argument("--envs", nargs="+", type=int, default=[1, 16, 256, 4096], help="of the comparisons")
    parser.add_argument("--scale", nargs="+", type=int, default=list(SCALE), help="N of the part `scaling`")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=STEPS, help="of all environments together in a turn")
    parser.add_argument("--out", type=Path, default=results / "envs.json")
    parser.add_argument("--plot", type=Path, default=None, help="of the part `scaling` [default: none]")
    given = parser.parse_args()
    if "gymnax" in given.parts and importlib.util.find_spec("gymnax") is None:
        parser.error("the part gymnax needs the package (pip install gymnax); --parts names the others")

    load = list(os.getloadavg())  # before we add to it: what else the machine was doing
    parts: dict[str, list[dict[str, Any]]] = {part: [] for part in given.parts}

    def note(part: str, row: dict[str, Any]) -> None:
        parts[part].append(row)
        table(parts[part])

    games = [task.partition("/")[2] for task in given.tasks if task.startswith("minatar/")]
    for part in given.parts:
        if part == "minatar":
            for game in games:
                for row in minatar.measure(game, given.envs, given.rounds):
                    note(part, row)
        elif part == "control":
            for n in given.envs:
                note(part, control.measure(n, given.rounds, len(os.sched_getaffinity(0))))
        else:
            measure, counts = (beside_gymnax, given.envs) if part == "gymnax" else (scaling, given.scale)
            for task in given.tasks:
                for n in counts if part == "scaling" or task in GYMNAX else ():
                    note(part, measure(task, n, given.rounds, given.steps))
    peers = {name: version(name) for name in ("minatar", "gymnax", "jax", "envpool") if importlib.util.find_spec(name)}
    result = {
        "rounds": given.rounds,
        "steps": given.steps,
        "parts": parts,
        "peers": peers,
        **provenance(),
        "load": load,
    }
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    if given.plot is not None and "scaling" in parts:
        plot(parts["scaling"], given.plot)


if __name__ == "__main__":
    main()
