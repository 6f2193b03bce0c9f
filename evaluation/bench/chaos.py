"""Actors on Ray, killed again and again while a learner learns: whether the weights come out the same.

    rlplatform bench chaos [--rounds N] [--every S] [--out FILE]

For each number of actors and each lag: preset c51 on minatar/Breakout for N rounds in one process, which is the reference; then on
Ray, where about every S seconds a randomly chosen actor's process gets a SIGKILL that nothing can catch. Equal means that a digest
of the agent's whole state (networks, optimiser, streams, counters) and that of the actors' (games, streams, stacks) agree.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlplatform.evaluation.bench.ray import STEPS, make_learner, make_playing, show
from rlplatform.loop import train
from rlplatform.perf import Clock
from rlplatform.placement import Placement
from rlplatform.provenance import provenance
from rlplatform.workers.local import LocalWorkers
from rlplatform.workers.ray import RayWorkers, Restart


def digest(state: Any) -> str:
    """SHA-256 of a nested state, with the names and types of its parts."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Mapping):
            for name in sorted(value):
                found.update(name.encode())
                add(value[name])
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        elif isinstance(value, torch.Tensor):
            add(value.detach().contiguous().flatten().view(torch.uint8).numpy())
        elif isinstance(value, np.ndarray):
            found.update(f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes())
        else:
            found.update(repr(value).encode())

    add(state)
    return found.hexdigest()


def learn(workers: Any, actors: int, lag: int, rounds: int) -> tuple[str, str, float]:
    """Digests of agent and actors after so many rounds, and the seconds they took."""
    learner = make_learner(actors)
    begin = time.perf_counter()
    for _ in train(learner, workers, rounds, STEPS, lag):
        pass
    seconds = time.perf_counter() - begin
    return digest(learner.state_dict()), digest(workers.state_dict()), seconds


@contextmanager
def killing(workers: RayWorkers, every: float) -> Iterator[list[int]]:
    """Meanwhile, kill one of the actors about every so many seconds. Yields the list of those killed."""
    rng, over, killed = random.Random(0), threading.Event(), []

    def kill() -> None:
        while not over.wait(every * (0.5 + rng.random())):
            running = [pid for pid in workers.pids if pid not in killed]
            with suppress(ProcessLookupError):  # it has just ended
                if running:
                    victim = rng.choice(running)
                    os.kill(victim, signal.SIGKILL)
                    killed.append(victim)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def chaos(actors: int, lag: int, rounds: int, every: float) -> dict[str, Any]:
    """One row."""
    here = LocalWorkers([make_playing(i, Clock()) for i in range(actors)], lag, 1)
    agent, played, seconds = learn(here, actors, lag, rounds)
    here.close()
    restarts: list[Restart] = []
    there = RayWorkers(
        make_playing, actors, lag, 1, Placement("local", actor_cpus=0.0, retries=20), on_restart=restarts.append
    )
    try:
        with killing(there, every) as killed:
            agent_there, played_there, seconds_there = learn(there, actors, lag, rounds)
    finally:
        there.close()
    return {
        "actors": actors, "lag": lag, "rounds": rounds, "kills": len(killed), "restarts": len(restarts),
        "repeated_rounds": sum(restart.rounds for restart in restarts), "weights_equal": agent == agent_there,
        "actors_equal": played == played_there, "seconds": round(seconds_there, 1), "seconds_in_one_process": round(seconds, 1),
        "weights": agent[:12],
    }  # fmt: skip


def main() -> None:
    """Measure, print the table, write the result; fail if a row is not equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--every", type=float, default=4.0, help="seconds between two kills")
    parser.add_argument(
        "--cells", nargs="+", default=["1,0", "2,0", "2,1", "2,2", "4,1"], help="actors,lag of each row"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "chaos.json")
    given = parser.parse_args()

    torch.set_num_threads(1)
    cells = [(int(actors), int(lag)) for actors, lag in (cell.split(",") for cell in given.cells)]
    rows = show(chaos(actors, lag, given.rounds, given.every) for actors, lag in cells)
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps({"every_s": given.every, "rows": rows, **provenance()}, indent=1) + "\n")
    if not all(row["weights_equal"] and row["actors_equal"] for row in rows):
        raise SystemExit("not equal")


if __name__ == "__main__":
    main()
