"""Actors on Ray: transport beside bare Ray, how long learner and actors wait, and whether the object store fills.

    rlplatform bench ray [--rounds N] [--minutes M] [--only transport|waiting|store] [--out FILE]

transport  A round of one actor whose rollout is made beforehand, beside a bare Ray actor that is handed one array of as many bytes
           (`ray.put`) and returns one of as many (`ray.get`); in turns, and the ratio is the median over rounds of quotients.
waiting    Training of preset c51 on minatar/Breakout at lag 0, 1, 2: agent steps a second, the share of the wall time that the
           learner waits for rollouts, the share that the actors wait for something to do, and the lag of the policy.
store      The same training for M minutes: the bytes in the object store, sampled once a second, and their slope.

Logical CPUs are given out freely (Ray is started with room for all actors): what counts is the machine's own, which is recorded.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator
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
from rlplatform.types import Agent, Rollout, Spec, State, Weights, empty_episodes
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
    """What a round is at the least: bytes there, bytes back."""

    def __init__(self, bytes_back: int) -> None:
        self.answer = np.ones(bytes_back, np.uint8)  # zeros would be one page of the kernel's, read from the cache

    def round(self, weights: Any) -> Any:
        assert len(weights)
        return self.answer


def transport(rounds: int) -> Iterator[dict[str, Any]]:
    """A row a case."""
    for name, preset, task, envs, steps in CASES:
        spec = ATARI if task.startswith("atari/") else spec_of(task)
        canned = partial(make_canned, envs=envs, steps=steps, frame=spec.frame_shape)
        bytes_back = size(Canned(envs, steps, spec.frame_shape).rollout)
        weights = make_agent(preset, task, spec, envs, capacity=4_000, min_replay=100).weights()
        there = np.ones(size(weights), np.uint8)
        workers = RayWorkers(canned, 1, 0, 1, Placement("auto", actor_cpus=0.0))
        bare = ray.remote(Bare).options(num_cpus=0).remote(bytes_back)

        def ours(k: int, workers: RayWorkers = workers, weights: Weights = weights) -> Any:
            return workers.start(weights, k, 1)()

        def theirs(k: int, bare: Any = bare, there: Any = there) -> Any:
            return ray.get(bare.round.remote(ray.put(there)))

        times: dict[Any, list[float]] = {ours: [], theirs: []}
        for k in range(rounds + 5):
            for run in (ours, theirs) if k % 2 else (theirs, ours):
                begin = time.perf_counter()
                run(k)
                times[run].append(time.perf_counter() - begin)
        workers.close()
        ray.kill(bare)
        pairs = list(zip(times[ours][5:], times[theirs][5:], strict=True))
        yield {
            "case": name, "kib_there": round(there.nbytes / 1024), "kib_back": round(bytes_back / 1024),
            "ours_us": round(1e6 * statistics.median(a for a, _ in pairs)),
            "bare_us": round(1e6 * statistics.median(b for _, b in pairs)),
            "ours_over_bare": round(statistics.median(a / b for a, b in pairs), 3),
        }  # fmt: skip


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
    """Bytes in the object store of this node by the second, after a warm-up of 20 rounds; the slope by least squares."""
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
            if now >= len(times):
                stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats
                times.append(now)
                used.append(stats.object_store_bytes_used)
                count.append(stats.num_local_objects)
            if now > 60 * minutes:
                break
        rounds = learner.version
    slope = float(np.polyfit(times, used, 1)[0]) if len(times) > 1 else 0.0
    return {
        "actors": actors, "minutes": minutes, "rounds": rounds, "samples": len(times), "slope_bytes_per_s": round(slope, 1),
        "median_kib": round(statistics.median(used) / 1024), "max_kib": round(max(used) / 1024), "max_objects": max(count),
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

    load = list(os.getloadavg())  # before we add to it: what else the machine was doing
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    torch.set_num_threads(1)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    result: dict[str, Any] = {"rounds": given.rounds, "envs": ENVS, "steps": STEPS, "ratio": RATIO}
    try:
        if given.only in (None, "transport"):
            result["transport"] = show(transport(given.rounds))
        if given.only in (None, "waiting"):
            result["waiting"] = show(waiting(given.actors, given.rounds))
        if given.only in (None, "store"):
            result["store"] = show([store(given.actors, given.minutes)])
    finally:
        ray.shutdown()
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps({**result, **provenance(), "load": load}, indent=1) + "\n")


if __name__ == "__main__":
    main()
