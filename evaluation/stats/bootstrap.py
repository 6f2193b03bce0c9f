"""The stratified bootstrap: runs are drawn with replacement within each task (Agarwal et al. 2021, arXiv:2108.13264, section 4).

A resample is kept as a number a run, how many times it was drawn: runs need sorting once, not once a resample. Resample r of a
seed is a function of (seed, r) and the numbers of runs alone, whatever the measures, the threads and the chunks are.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, TypedDict

import numpy as np

from rlplatform import _core
from rlplatform.evaluation.stats.samples import Floats, Integers, Missing, Sample
from rlplatform.streams import Stream

CHUNK = 1 << 19  # counts held at a time: 4 MiB of float64, and a few such arrays
Method = Literal["percentile", "basic", "norm", "bc"]


class How(TypedDict, total=False):
    """How intervals are made: keywords of every function that gives one."""

    confidence: float  # 0.95: how often the interval is to hold the true value
    reps: int  # 50,000 resamples
    seed: int  # 0; the same seed gives the same interval
    few_seeds: bool  # False: whether to accept a task with fewer than 3 runs, of which a bootstrap knows too little
    missing: Missing  # "refuse": what NaN means, see lay_out
    method: Method  # "percentile", rliable's default
    threads: int  # all that this process may use; no result depends on it


@dataclass(frozen=True)
class Plan:
    """`How`, with the defaults, checked."""

    confidence: float = 0.95
    reps: int = 50_000
    seed: int = 0
    few_seeds: bool = False
    missing: Missing = "refuse"
    method: Method = "percentile"
    threads: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.confidence < 1.0 or self.reps < 1:
            raise ValueError(f"confidence must lie in (0, 1) and reps be >= 1, got {self.confidence} and {self.reps}")
        if self.method not in ("percentile", "basic", "norm", "bc"):
            raise ValueError(f"method is percentile, basic, norm or bc (bias-corrected), got {self.method!r}")
        if self.threads < 0:
            raise ValueError(f"threads must be >= 1, or 0 for all, got {self.threads}")

    @property
    def workers(self) -> int:
        """Threads to use."""
        if self.threads:
            return self.threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Interval:
    """An estimate, and the range that holds the true value with `confidence`."""

    point: float
    low: float
    high: float
    confidence: float
    runs: tuple[int, ...] = ()  # of each task, that it rests on
    against: tuple[int, ...] = ()  # runs of each task on the other side, where two are compared

    @property
    def width(self) -> float:
        return self.high - self.low


@dataclass(frozen=True)
class Band:
    """Estimates at K places, [K] each: what is drawn as a line with a band."""

    point: Floats
    low: Floats
    high: Floats
    confidence: float
    runs: tuple[int, ...] = ()  # of each task


@dataclass(frozen=True)
class Resamples:
    """R resamples of a sample, as counts."""

    sample: Sample
    counts: Floats  # [N, R]: how many times each run was drawn
    draws: Integers  # [T]: how many runs of each task a resample has

    @property
    def weight(self) -> Floats:
        """[N]: what one draw of a run counts for. Tasks weigh the same and so do the draws of a task; sums to 1 over a resample."""
        return np.repeat(1.0 / (len(self.draws) * self.draws), self.sample.runs)

    def task_sums(self, values: Floats) -> Floats:
        """Sums over the draws of each task: [P, N] values give [P, T, R]."""
        return _core.stratum_sums(self.counts, self.sample.starts, values)

    def middle(self, weight: Floats, low: float, high: float) -> Floats:
        """The mean of what lies between `low` and `high` of the weight, when the draws are laid end to end by value: [P, R]. A run
        that straddles an end counts in part."""
        order, values = self.sample.order, self.sample.sorted
        return _core.trimmed_means(self.counts, weight, order, values, low, high)

    def task_means(self) -> Floats:
        """[P, T, R]."""
        return self.task_sums(self.sample.values) / self.draws[:, None]


def itself(sample: Sample) -> Resamples:
    """The sample as one resample of itself, each run drawn once: what points are computed from."""
    return Resamples(sample, np.ones((sample.values.shape[1], 1)), sample.runs)


def chunk_rows(*samples: Sample) -> int:
    """How many resamples to hold at a time, for chunks of all of these to match."""
    runs: int = max(sample.values.shape[1] for sample in samples)
    return max(2, CHUNK // runs // 2 * 2)


def resample(
    sample: Sample, plan: Plan, first: int, reps: int, index: int = 0, draws: Integers | None = None
) -> Resamples:
    """The resamples first, ..., first + reps - 1, with `first` even.

    Args:
        index: of the stream: unlike indices are independent, and like ones draw the same runs of samples of the same form.
        draws: runs to draw of each task, [T]; as many as it has by default.
    """
    draws = sample.runs if draws is None else draws
    stream = Stream(plan.seed, "bootstrap", index)
    assert first % 2 == 0  # its doubles come in pairs
    counts = _core.resample(stream.key, first * int(draws.sum()) // 2, sample.starts, draws, reps)
    return Resamples(sample, counts, draws)


def over_resamples(plan: Plan, rows: int, of: Callable[[int, int], Floats]) -> Floats:
    """What of(first, reps) makes of all resamples, [..., plan.reps], `rows` at a time, in plan.workers threads: all that takes
    time, here and in numpy, leaves the interpreter to the others."""
    chunks = [(first, min(rows, plan.reps - first)) for first in range(0, plan.reps, rows)]
    if plan.workers == 1 or len(chunks) == 1:
        return np.concatenate([of(*chunk) for chunk in chunks], axis=-1)
    with ThreadPoolExecutor(plan.workers) as threads:
        return np.concatenate(list(threads.map(lambda chunk: of(*chunk), chunks)), axis=-1)


def check_runs(plan: Plan, *samples: Sample) -> None:
    """ValueError where a task has too few runs for an interval, unless few_seeds."""
    few = dict.fromkeys(
        task for sample in samples for task, runs in zip(sample.tasks, sample.runs, strict=True) if runs < 3
    )
    if few and not plan.few_seeds:
        raise ValueError(
            f"an interval needs 3 runs of every task (or few_seeds=True), there are fewer of: {', '.join(few)}"
        )


def distribution(sample: Sample, plan: Plan, of: Callable[[Resamples], Floats]) -> tuple[Floats, Floats]:
    """What `of` makes of the sample, [...], and of all resamples, [..., reps]."""
    point = of(itself(sample))[..., 0]
    return point, over_resamples(plan, chunk_rows(sample), lambda *chunk: of(resample(sample, plan, *chunk)))


def limits(point: Floats, samples: Floats, plan: Plan) -> tuple[Floats, Floats]:
    """The ends of the interval: [...] of the point's shape, from samples [..., reps].

    Efron and Tibshirani 1993, chapters 12 to 14: "percentile", quantiles of the resamples; "basic", those mirrored at the point;
    "norm", the point and normal quantiles of the resamples' standard deviation; "bc", quantiles moved by twice the normal
    quantile of the share of resamples below the point.
    """
    tail = (1.0 - plan.confidence) / 2.0
    if plan.method == "norm":
        reach = NormalDist().inv_cdf(1.0 - tail) * samples.std(axis=-1, ddof=1)
        return point - reach, point + reach
    if plan.method == "bc":
        return _bias_corrected(point, samples, tail)
    low, high = np.quantile(samples, [tail, 1.0 - tail], axis=-1)
    return (2.0 * point - high, 2.0 * point - low) if plan.method == "basic" else (low, high)


def make_interval(
    point: Floats, samples: Floats, plan: Plan, runs: Integers, against: Integers | None = None
) -> Interval:
    """Of one number: point [], samples [reps]."""
    low, high = limits(point, samples, plan)
    other = () if against is None else tuple(against.tolist())
    return Interval(float(point), float(low), float(high), plan.confidence, tuple(runs.tolist()), other)


def _bias_corrected(point: Floats, samples: Floats, tail: float) -> tuple[Floats, Floats]:
    normal, reps = NormalDist(), samples.shape[-1]
    flat, low, high = samples.reshape(-1, reps), [], []
    for value, row in zip(np.ravel(point), flat, strict=True):
        below = (row < value).mean()
        if not 0.0 < below < 1.0:
            raise ValueError(
                f'method "bc" is not defined where {below:.0%} of the resamples lie below the point: use "percentile"'
            )
        shift = 2.0 * normal.inv_cdf(float(below))
        ends = np.quantile(row, [normal.cdf(shift + normal.inv_cdf(q)) for q in (tail, 1.0 - tail)])
        low.append(ends[0])
        high.append(ends[1])
    return np.reshape(low, np.shape(point)), np.reshape(high, np.shape(point))
