"""Statistics beside rliable: intervals of the same scores, in turns: `rlplatform bench stats`.

Three jobs on lognormal scores of 10 runs x 26 tasks: four aggregates, the probability of improvement of one pair, and the IQM at
100 points of a curve; 50,000 resamples each. Ours does all of them, on one thread and on two. rliable does as many as it can in
under a second a round, and its time is scaled up by the repetitions: its cost is a call a repetition, and `--all` checks that for
the aggregates, once, with all 50,000. Ours goes through rliable's face, with the functions that a user of rliable
writes. A ratio is the median over rounds of two timings that follow each other, in seconds of the processor, ours on one thread: on a busy
machine the time on the wall is what the others leave.

Needs rliable, and pandas below 3: `pip install 'rliable>=1.2' 'pandas<3'`.
"""

import argparse
import importlib
import json
import os
import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from rlplatform.evaluation import stats
from rlplatform.provenance import machine, packages

RESULTS = Path(__file__).parent / "results"
RUNS, TASKS, POINTS, REPS = 10, 26, 100, 50_000
THREADS = (1, 2)


@dataclass(frozen=True)
class Job:
    """What is timed, and how many repetitions of it rliable is asked for."""

    scores: Any
    func: Callable[[Any], Callable[..., Any]]  # of a module with rliable's metrics
    peer_reps: int
    limit_s: float  # that ours is to stay within


def jobs() -> dict[str, Job]:
    """All three, on one set of scores."""
    rng = np.random.default_rng(0)
    x, y = rng.lognormal(size=(RUNS, TASKS)), 1.1 * rng.lognormal(size=(RUNS, TASKS))
    curves = rng.lognormal(size=(RUNS, TASKS, POINTS))

    def aggregates(of: Any) -> Callable[..., Any]:
        return lambda z: np.array([
            of.aggregate_median(z), of.aggregate_iqm(z), of.aggregate_mean(z), of.aggregate_optimality_gap(z)
        ])  # fmt: skip

    def improvement(of: Any) -> Callable[..., Any]:
        return lambda a, b: np.array([of.probability_of_improvement(a, b)])

    def curve(of: Any) -> Callable[..., Any]:
        return lambda z: np.array([of.aggregate_iqm(z[..., point]) for point in range(z.shape[-1])])

    return {
        "4 aggregates": Job(x, aggregates, 2000, 0.3),
        "P(improvement)": Job((x, y), improvement, 50, 1.0),
        "100-point IQM curve": Job(curves, curve, 50, 2.0),
    }


Result = tuple[dict[str, Any], dict[str, Any]]


def timed(call: Callable[[], Result]) -> tuple[float, float, Result]:
    """Seconds on the wall and of the processor, and what came out."""
    wall, processor = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - wall, time.process_time() - processor, result


def ours(job: Job, threads: int) -> Result:
    """Points and intervals, all repetitions."""
    return stats.get_interval_estimates({"x": job.scores}, job.func(stats), reps=REPS, threads=threads)


def theirs(job: Job, reps: int) -> Result:
    """Points and intervals by rliable."""
    library, metrics = (importlib.import_module(f"rliable.{name}") for name in ("library", "metrics"))
    points, ends = library.get_interval_estimates({"x": job.scores}, job.func(metrics), reps=reps)
    return points, ends


def agreement(own: Result, other: Result, reps: int) -> dict[str, float]:
    """How far points differ, at most, and the ends of the intervals, in widths of ours. AssertionError where that is no rounding,
    or more than the other's few repetitions explain."""
    points = float(np.abs(own[0]["x"] - other[0]["x"]).max())
    ends = float((np.abs(own[1]["x"] - other[1]["x"]) / np.ptp(own[1]["x"], axis=0)).max())
    # 5 sigma of a 2.5 % quantile of a normal, in widths of 3.92 of its sigmas
    most = 5 * np.sqrt(0.025 * 0.975 / reps) / 0.058 / 3.92
    assert points < 1e-12, points
    assert ends < most, (ends, most)
    return {"points_differ": points, "ends_differ_in_widths": ends}


def peak_mib(call: Callable[[], Any]) -> float:
    """The most memory held at a time, of what numpy and Python ask for."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def measure(job: Job, rounds: int) -> dict[str, Any]:
    """One job, all columns."""
    theirs(job, 2)  # what is loaded or compiled once
    rows = []
    for _ in range(rounds):
        row = {f"ours_{n}": timed(lambda n=n: ours(job, n)) for n in THREADS}  # type: ignore[misc]
        row["rliable"] = timed(lambda: theirs(job, job.peer_reps))
        rows.append(row)
    scale = {name: REPS / job.peer_reps if name == "rliable" else 1.0 for name in rows[0]}
    columns = {
        name: {"wall_s": times * statistics.median(r[name][0] for r in rows),
               "cpu_s": times * statistics.median(r[name][1] for r in rows)}
        for name, times in scale.items()
    }  # fmt: skip
    return {
        "limit_s": job.limit_s,
        **columns,
        "rliable_reps_timed": job.peer_reps,
        "times_faster_cpu": statistics.median(scale["rliable"] * r["rliable"][1] / r["ours_1"][1] for r in rows),
        "peak_mib": peak_mib(lambda: ours(job, 2)),
        **agreement(rows[-1]["ours_2"][2], rows[-1]["rliable"][2], job.peer_reps),
    }


def main() -> None:
    """Measure, print a table, write results/stats.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--all", action="store_true", help="time all 50,000 repetitions of rliable's 4 aggregates, too")
    parser.add_argument("--out", type=Path, default=RESULTS / "stats.json")
    arguments = parser.parse_args()

    load = os.getloadavg()
    print(
        f"{'seconds, wall (processor)':26}{'limit':>7}{'1 thread':>16}{'2 threads':>16}{'rliable, scaled':>20}{'faster':>9}"
    )
    measured = {}
    for name, job in jobs().items():
        row = measured[name] = measure(job, arguments.rounds)
        one, two, peer = (f"{row[c]['wall_s']:.2f} ({row[c]['cpu_s']:.2f})" for c in ("ours_1", "ours_2", "rliable"))
        print(f"{name:26}{job.limit_s:7.1f}{one:>16}{two:>16}{peer:>20}{row['times_faster_cpu']:8.0f}x", flush=True)
    whole = timed(lambda: theirs(jobs()["4 aggregates"], REPS)) if arguments.all else None
    if whole:
        print(f"rliable, all {REPS:,} repetitions of the 4 aggregates: {whole[0]:.1f} ({whole[1]:.1f})")
    content = {
        "runs": RUNS, "tasks": TASKS, "points": POINTS, "reps": REPS, "rounds": arguments.rounds,
        "jobs": measured,
        "rliable_4_aggregates_all_reps": whole and {"wall_s": whole[0], "cpu_s": whole[1]},
        "load_before": load,
        "versions": {name: version(name) for name in ("rliable", "arch", "pandas", "scipy")},
        "machine": machine(),
        "packages": packages(),
    }  # fmt: skip
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
