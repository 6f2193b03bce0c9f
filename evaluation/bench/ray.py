"""Actors on Ray: transport beside bare Ray, how long learner and actors wait, and whether the object store fills.

    rlplatform bench ray [--rounds N] [--minutes M] [--only transport|waiting|store] [--out FILE]

transport  A round of one actor whose rollout is made beforehand, beside a bare Ray actor that is handed the bytes of the same weights
           as one array (`ray.put`) and returns those of the rollout as one (`ray.get`); beside one that is handed and returns the
           single arrays in lists; and beside one that is handed a byte and returns it, the least that two calls and two objects
           cost. In turns; ratios are medians over rounds of quotients.
waiting    Training of preset c51 on minatar/Breakout at lag 0, 1, 2: agent steps a second, the share of the wall time that the
           learner waits for rollouts, the share that the actors wait for something to do, and the lag of the policy.
store      The same training for M minutes: the bytes in the object store, and the slope of their floor.

Logical CPUs are given out freely (Ray is started with room for all actors): what counts is the machine's own, which is recorded.
--only measures one part and leaves the others in the file as they were; each part names its own command, machine and load.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray._private.internal_api import node_stats

from rlplatform.actor import Actor
from rlplatform.agents import load_preset, resolve
from rlplatform.config import merge
from rlplatform.envs import make, suite_of
from rlplatform.learner import Learner
from rlplatform.loop import train
from rlplatform.perf import Clock
from rlplatform.placement import Placement
from rlplatform.provenance import provenance
from rlplatform.streams import Stream
from rlplatform.types import Agent, Array, Rollout, Spec, State, Weights, empty_episodes
from rlplatform.workers.parcel import size
from rlplatform.workers.ray import RayWorkers

ATARI = Spec(frame_shape=(84, 84), frame_dtype="uint8", stack=4, actions=18)
CASES = (  # name, preset, its task, environments, steps
    ("minatar, c51", "c51", "minatar/Breakout", 16, 16),
    ("minatar, c51, long rounds", "c51", "minatar/Breakout", 64, 64),
    ("atari, der", "der", "atari/Pong", 8, 16),
    ("atari, der, long rounds", "der", "atari/Pong", 16, 64),
    ("atari, bbf, a step a round", "bbf", "atari/Pong", 1, 1),
)
SAMPLE_S = 0.25
STRETCHES = 10  # of the measurement of the object store; at the least a sample each
TASK, PRESET = "minatar/Breakout", "c51"
ENVS, STEPS, RATIO = 16, 16, 1 / 64  # of an actor; gradient steps per agent step


class Canned:
    """An actor whose rollout was made beforehand."""

    def __init__(self, envs: int, steps: int, frame: tuple[int, ...]) -> None:
        flags = np.zeros((steps, envs), bool)
        frames = np.random.default_rng(0).integers(256, size=(steps, envs, *frame), dtype=np.uint8)
        self.rollout = Rollout(
            frames, flags, flags.astype(np.int64), flags.astype(np.float32), flags, flags, frames[0, :1],
            np.zeros((1, 2), np.int64), {}, empty_episodes(), 0, 0,
        )  # fmt: skip
        self.state = {"envs": {"bytes": bytes(200 * envs)}, "stack": frames[:1].repeat(4, 0)}

    def collect(self, weights: Weights, version: int, steps: int) -> Rollout:
        assert weights["net"]
        return self.rollout

    def state_dict(self) -> State:
        return self.state


def make_canned(i: int, clock: Clock, envs: int, steps: int, frame: tuple[int, ...]) -> Any:
    """For RayWorkers."""
    return Canned(envs, steps, frame)


class Bare:
    """What a round is at the least: so much there, so much back."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def round(self, weights: Any) -> Any:
        assert len(weights)
        return self.answer


def arrays_of(tree: Any) -> list[Array]:
    """The arrays and tensors in nested mappings and tuples, each as its bytes where they lie."""
    if isinstance(tree, torch.Tensor):
        tree = tree.detach().numpy()
    if isinstance(tree, np.ndarray):
        return [tree.reshape(-1).view(np.uint8)]
    if isinstance(tree, Mapping):
        tree = tuple(tree.values())
    return [array for item in tree for array in arrays_of(item)] if isinstance(tree, tuple) else []


def in_one(arrays: list[Array]) -> Array:
    """One array of the same bytes, in memory of torch's as weights are: numpy asks for huge pages, and so is read faster."""
    return torch.cat([torch.tensor(array) for array in arrays]).numpy()


def round_of(workers: RayWorkers, weights: Weights, k: int) -> Any:
    """Round k, by a new version of the weights."""
    return workers.start(weights, k, 1)()


def bare_round(actor: Any, sent: Any, k: int) -> Any:
    """One of a Bare actor."""
    return ray.get(actor.round.remote(ray.put(sent)))


def transport(rounds: int) -> Iterator[dict[str, Any]]:
    """A row a case."""
    for name, preset, task, envs, steps in CASES:
        spec = ATARI if task.startswith("atari/") else spec_of(task)
        canned = partial(make_canned, envs=envs, steps=steps, frame=spec.frame_shape)
        back = arrays_of(Canned(envs, steps, spec.frame_shape).rollout)
        weights = make_agent(preset, task, spec, envs, capacity=4_000, min_replay=100).weights()
        workers = RayWorkers(canned, 1, 0, 1, Placement("auto", actor_cpus=0.0))
        runs: dict[str, Callable[[int], Any]] = {"ours": partial(round_of, workers, weights)}
        byte, there = np.ones(1, np.uint8), arrays_of(weights)
        bare = []
        for kind, sent, answer in (
            ("bare", in_one(there), in_one(back)),
            ("arrays", there, back),
            ("byte", byte, byte),
        ):
            bare.append(ray.remote(Bare).options(num_cpus=0).remote(answer))
            runs[kind] = partial(bare_round, bare[-1], sent)
        times: dict[str, list[float]] = {kind: [] for kind in runs}
        for k in range(rounds + 5):
            for kind in sorted(runs, reverse=k % 2 == 1):
                begin = time.perf_counter()
                runs[kind](k)
                times[kind].append(time.perf_counter() - begin)
        workers.close()
        for actor in bare:
            ray.kill(actor)
        kept = {kind: seconds[5:] for kind, seconds in times.items()}
        row = {"case": name, "kib_there": round(size(there) / 1024), "kib_back": round(size(back) / 1024)}
        row |= {f"{kind}_us": round(1e6 * statistics.median(kept[kind])) for kind in runs}
        for kind in ("bare", "arrays"):
            quotients = [a / b for a, b in zip(kept["ours"], kept[kind], strict=True)]
            row[f"ours_over_{kind}"] = round(statistics.median(quotients), 3)
        yield row


def make_agent(preset: str, task: str, spec: Spec, streams: int, seed: int = 0, **fields: Any) -> Agent:
    """A preset's agent, some of its hyper-parameters replaced."""
    chosen = load_preset(preset, suite_of(task).name)
    config = merge(resolve(chosen.agent).config_class(), chosen.config, fields)
    agent: Agent = resolve(chosen.agent)(config, spec, streams, seed)
    return agent


def make_learner(actors: int) -> Learner:
    """The one of the training, for so many actors; it begins to learn after four rounds."""
    return Learner(make_agent(PRESET, TASK, spec_of(TASK), actors * ENVS, min_replay=actors * ENVS * STEPS * 4), RATIO)


def spec_of(task: str) -> Spec:
    """What its frames look like."""
    env = make(task, 1, 0)
    env.close()
    return env.spec


def make_playing(i: int, clock: Clock, seed: int = 0) -> Actor:
    """Actor i of the training, for RayWorkers."""
    envs = make(TASK, ENVS, seed, i * ENVS)
    policy = make_agent(PRESET, TASK, envs.spec, ENVS, seed).policy()
    clock.watch(policy, "act", "act")
    clock.watch(envs, "step", "env")
    return Actor(policy, envs, Stream(seed, "actor", i))


class Waits:
    """Workers whose waits are timed."""

    def __init__(self, workers: RayWorkers, clock: Clock) -> None:
        self.workers, self.clock = workers, clock

    def start(self, weights: Weights, version: int, steps: int) -> Any:
        return self.clock.timed(self.workers.start(weights, version, steps), "wait")


@contextmanager
def training(actors: int, lag: int, rounds: int) -> Iterator[tuple[Learner, Clock, Any]]:
    """A learner, the clock that its workers share, and the loop that is about to run."""
    clock = Clock()
    workers = RayWorkers(make_playing, actors, lag, 1, Placement("auto", actor_cpus=0.0), clock)
    learner = make_learner(actors)
    try:
        yield learner, clock, train(learner, Waits(workers, clock), rounds, STEPS, lag)
    finally:
        workers.close()


def waiting(actors: int, rounds: int) -> Iterator[dict[str, Any]]:
    """A row a lag."""
    for lag in (0, 1, 2):
        with training(actors, lag, rounds + 20) as (learner, clock, loop):
            for _ in range(20):  # until it learns
                next(loop)
            begin, before, steps = time.perf_counter(), dict(clock.seconds), learner.steps
            lags = []
            for _ in loop:
                lags.append(learner.lag)
            seconds = time.perf_counter() - begin
            spent = {name: total - before[name] for name, total in clock.seconds.items()}
        yield {
            "actors": actors, "lag": lag, "steps_per_s": round((learner.steps - steps) / seconds),
            "round_ms": round(1e3 * seconds / rounds, 2), "learner_waits": round(spent["wait"] / seconds, 3),
            "actors_wait": round(1 - spent["collect"] / (actors * seconds), 3), "policy_lag": statistics.mean(lags),
        }  # fmt: skip


def store(actors: int, minutes: float) -> dict[str, Any]:
    """Bytes in the object store of this node, four times a second after a warm-up of 20 rounds. They rise while versions of the weights
    are kept for rounds that a restart would repeat, and fall when an actor's state arrives; what leaks would raise the floor. Its
    slope by least squares over the lowest of ten stretches, each longer than many such waves, with its standard error."""
    node = ray.nodes()[0]
    times: list[float] = []
    used: list[int] = []
    count: list[int] = []
    with training(actors, 1, 10**9) as (learner, _, loop):
        for _ in range(20):
            next(loop)
        begin = time.monotonic()
        for _ in loop:
            now = time.monotonic() - begin
            if now >= SAMPLE_S * len(times):
                stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats
                times.append(now)
                used.append(stats.object_store_bytes_used)
                count.append(stats.num_local_objects)
            if now > 60 * minutes:
                break
        rounds = learner.version
    at = [part.mean() for part in np.array_split(np.array(times), STRETCHES)]
    floor = [part.min() for part in np.array_split(np.array(used), STRETCHES)]
    (slope, _), covariance = np.polyfit(at, floor, 1, cov=True)
    return {
        "actors": actors, "minutes": minutes, "rounds": rounds, "samples": len(times), "slope_bytes_per_s": round(float(slope), 1),
        "standard_error": round(float(covariance[0, 0] ** 0.5), 1),
        "floor_kib": round(min(floor) / 1024), "median_kib": round(statistics.median(used) / 1024), "max_kib": round(max(used) / 1024), "max_objects": max(count),
    }  # fmt: skip


def show(rows: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print rows as they come."""
    out: list[dict[str, Any]] = []
    for row in rows:
        if not out:
            print("  ".join(row))
        print("  ".join(f"{value!s:>{len(name)}}" for name, value in row.items()), flush=True)
        out.append(row)
    return out


def main() -> None:
    """Measure, print tables, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--only", choices=("transport", "waiting", "store"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ray.json")
    given = parser.parse_args()
    if 60 * given.minutes < 2 * STRETCHES:
        parser.error(f"--minutes: a slope needs {2 * STRETCHES} seconds at the least")

    load = list(os.getloadavg())  # before we add to it: what else the machine was doing
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    torch.set_num_threads(1)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    measured: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "transport": lambda: show(transport(given.rounds)),
        "waiting": lambda: show(waiting(given.actors, given.rounds)),
        "store": lambda: show([store(given.actors, given.minutes)]),
    }
    result: dict[str, Any] = {}
    if given.only is not None and given.out.is_file():
        result = json.loads(given.out.read_text())
    try:
        for part in measured if given.only is None else (given.only,):
            result[part] = {"rows": measured[part](), "rounds": given.rounds, **provenance(), "load": load}
    finally:
        ray.shutdown()
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
