"""Aggregates over tasks and runs, with intervals: numpy only, seeded, for ragged data.

Scores are `{task: runs}`, any number of runs a task. Tasks weigh the same and so do the runs of a task: a run's weight is
1 / (tasks * runs of its task). On a rectangle every measure is rliable's (Agarwal et al. 2021, arXiv:2108.13264).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlplatform.streams import Stream

Floats = NDArray[np.float64]
Scores = Mapping[str, ArrayLike]
CHUNK = 1 << 21  # resampled values held at a time: 16 MiB of float64, and a few such arrays


@dataclass(frozen=True)
class Strata:
    """Which of the N runs belong together: the runs of a task are next to each other."""

    counts: NDArray[np.int64]  # [T] runs of each task
    starts: NDArray[np.int64]  # [T] where each task's runs begin
    weight: Floats  # [N], sums to 1

    @property
    def rectangular(self) -> bool:
        return bool((self.counts == self.counts[0]).all())


@dataclass(frozen=True)
class Measure:
    """A number that sums up scores. `of` takes values [R, N], R resamples of the same N runs, and gives [R]."""

    name: str
    of: Callable[[Floats, Strata], Floats]

    def __call__(self, scores: Scores) -> float:
        """ValueError for NaN, infinity, no task, or a task without runs."""
        values, strata = _flat(scores)
        return float(self.of(values[None], strata)[0])


@dataclass(frozen=True)
class Interval:
    """An estimate, and the range that holds the true value with `confidence`."""

    point: float
    low: float
    high: float
    confidence: float


def optimality_gap_to(target: float) -> Measure:
    """How far scores fall short of `target`, on average: the mean of max(target - score, 0)."""
    return Measure(
        f"optimality gap to {target:g}", lambda values, strata: np.maximum(target - values, 0.0) @ strata.weight
    )


def interval(
    scores: Scores,
    measure: Measure,
    confidence: float = 0.95,
    reps: int = 50_000,
    seed: int = 0,
    few_runs: bool = False,
) -> Interval:
    """Percentile interval of a stratified bootstrap: runs are drawn with replacement within each task.

    Args:
        scores: task -> runs. With one task and its episodes for runs it is the interval of one evaluation, which knows
            nothing of how much training runs differ.
        reps: resamples.
        seed: the same seed gives the same interval.
        few_runs: accept a task with fewer than 3 runs, of which a bootstrap knows too little.
    """
    values, strata = _flat(scores)
    if not 0.0 < confidence < 1.0 or reps < 1:
        raise ValueError(f"confidence must lie in (0, 1) and reps be >= 1, got {confidence} and {reps}")
    if strata.counts.min() < 3 and not few_runs:
        few = ", ".join(task for task, runs in zip(scores, strata.counts, strict=True) if runs < 3)
        raise ValueError(f"an interval needs 3 runs of every task (or few_runs=True), there are fewer of: {few}")
    stream = Stream(seed, "bootstrap")
    counts, starts = (np.repeat(array, strata.counts) for array in (strata.counts, strata.starts))
    rows = max(2, CHUNK // len(values) // 2 * 2)  # even: a stream gives its draws in pairs, so that chunks join exactly
    samples = []
    for done in range(0, reps, rows):
        draws = stream.uniform(min(rows, reps - done), len(values))
        samples.append(measure.of(values[starts + (draws * counts).astype(np.int64)], strata))
    low, high = np.quantile(np.concatenate(samples), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(measure.of(values[None], strata)[0]), float(low), float(high), confidence)


def normalize(scores: Scores, scales: Mapping[str, Sequence[float]]) -> dict[str, Floats]:
    """(score - low) / (high - low) by task, with `scales[task]` = (low, high)."""
    return {
        task: (np.asarray(runs, np.float64) - scales[task][0]) / (scales[task][1] - scales[task][0])
        for task, runs in scores.items()
    }


def _flat(scores: Scores) -> tuple[Floats, Strata]:
    if not scores:
        raise ValueError("no scores")
    runs = {task: np.asarray(values, np.float64) for task, values in scores.items()}
    for task, values in runs.items():
        if values.ndim != 1 or len(values) == 0:
            raise ValueError(f"{task}: expected one score a run, [runs], got shape {values.shape}")
        if not np.isfinite(values).all():
            first = int(np.argmin(np.isfinite(values)))
            raise ValueError(f"{task}: run {first} is not finite; leave out runs that are missing")
    counts = np.array([len(values) for values in runs.values()], np.int64)
    weight = np.repeat(1.0 / (len(counts) * counts), counts)
    return np.concatenate(list(runs.values())), Strata(counts, np.cumsum(counts) - counts, weight)


def _mean(values: Floats, strata: Strata) -> Floats:
    return values @ strata.weight


def _median(values: Floats, strata: Strata) -> Floats:
    means: Floats = np.add.reduceat(values, strata.starts, axis=1) / strata.counts
    return np.asarray(np.median(means, axis=1), np.float64)


def _iqm(values: Floats, strata: Strata) -> Floats:
    n = values.shape[1]
    cut = n // 4  # scipy's and rliable's rule: whole runs are cut
    if strata.rectangular:
        middle = np.partition(values, (cut, n - cut - 1), axis=1)[:, cut : n - cut]
        return np.asarray(middle.mean(axis=1), np.float64)
    order = np.argsort(values, axis=1)
    weight = strata.weight[order]
    up_to = np.cumsum(weight, axis=1)
    low, high = cut / n, 1.0 - cut / n  # the same share of the weight; a run that straddles the edge counts in part
    kept = np.clip(np.minimum(up_to, high) - np.maximum(up_to - weight, low), 0.0, None)
    return np.asarray((kept * np.take_along_axis(values, order, axis=1)).sum(axis=1) / kept.sum(axis=1), np.float64)


mean = Measure("mean", _mean)
median = Measure("median", _median)  # over tasks, of each task's mean
iqm = Measure("IQM", _iqm)  # mean of the middle half of all runs
optimality_gap = optimality_gap_to(1.0)
