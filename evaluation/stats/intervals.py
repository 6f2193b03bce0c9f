"""Intervals of measures: over all tasks, of each task, along a curve, and with more seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Unpack

import numpy as np

from rlplatform.evaluation.stats.bootstrap import (
    Band,
    How,
    Interval,
    Plan,
    check_runs,
    chunk_rows,
    distribution,
    limits,
    make_interval,
    over_resamples,
    resample,
)
from rlplatform.evaluation.stats.measures import MEASURES, Measure, iqm
from rlplatform.evaluation.stats.samples import Curves, Integers, Sample, Scores, lay_out

MOST = 100  # times as many seeds: nobody trains that, and what such a prediction is worth nobody could check
SEARCH_REPS = 10_000  # of each width in the search: each is then known to 1 %


def interval(scores: Scores, measure: Measure, **how: Unpack[How]) -> Interval:
    """Of one measure. With one task and its episodes for runs it is the interval of one evaluation, which knows nothing of how
    much training runs differ."""
    return intervals(scores, [measure], **how)[measure.name]


def intervals(scores: Scores, measures: Sequence[Measure] = MEASURES, **how: Unpack[How]) -> dict[str, Interval]:
    """Of several measures, by name, from the same resamples."""
    plan = Plan(**how)
    sample = lay_out(scores, plan.missing)
    if len(sample.values) != 1:
        raise ValueError(f"expected one score a run, got {len(sample.values)} points: see sample_efficiency")
    check_runs(plan, sample)
    point, samples = distribution(sample, plan, lambda some: np.concatenate([m.of(some) for m in measures]))
    return {m.name: make_interval(point[i], samples[i], plan, sample.runs) for i, m in enumerate(measures)}


def task_intervals(scores: Scores, **how: Unpack[How]) -> dict[str, Interval]:
    """Of each task's mean over runs. 95 % holds for each by itself, not for all at once."""
    plan = Plan(**how)
    sample = lay_out(scores, plan.missing)
    check_runs(plan, sample)
    point, samples = distribution(sample, plan, lambda some: some.task_means()[0])
    return {
        task: make_interval(point[t], samples[t], plan, sample.runs[t : t + 1]) for t, task in enumerate(sample.tasks)
    }


def sample_efficiency(curves: Curves, measure: Measure = iqm, **how: Unpack[How]) -> Band:
    """A measure at every point of the runs' curves, [points]. Whole runs are drawn, so a resample has one curve."""
    plan = Plan(**how)
    sample = lay_out(curves, plan.missing)
    check_runs(plan, sample)
    point, samples = distribution(sample, plan, measure.of)
    return Band(point, *limits(point, samples, plan), plan.confidence, tuple(sample.runs.tolist()))


@dataclass(frozen=True)
class SeedsToHalve:
    """What `seeds_to_halve` predicts."""

    more: int  # seeds of every task, besides those that there are
    now: Interval
    width: float  # of the interval then, about half of now.width


def seeds_to_halve(scores: Scores, measure: Measure = iqm, **how: Unpack[How]) -> SeedsToHalve:
    """How many more seeds of every task until the interval is half as wide.

    Method: a bootstrap of n + k runs from the n of each task gives the width with k more seeds; it is searched for the k at which
    that is a half. Resamples of n runs vary (n - 1) / n as much as runs do, so widths are compared as sqrt(1 - 1 / n) says that
    they will be seen: few seeds look surer than they are.

    Limits: the runs to come are taken to be like those at hand, so it knows of no outlier that has not been seen; with 3 to 5
    seeds a task it is right on average over experiments, and in one may be off by a half. The search's own noise is about 3 % of
    the seeds. ValueError for an interval without width, which nothing can halve.
    """
    plan = Plan(**how)
    sample = lay_out(scores, plan.missing)
    check_runs(plan, sample)
    point, samples = distribution(sample, plan, measure.of)
    search = replace(plan, reps=min(plan.reps, SEARCH_REPS), method="percentile")
    now = make_interval(point[0], samples[0], plan, sample.runs)
    if not now.width > 0.0:
        raise ValueError(f"the interval of {measure.name} has no width: nothing can halve it")
    seen, times = _seen(sample.runs), 4.0
    for _ in range(3):  # each step divides the error of the law width ~ 1 / sqrt(n) by several
        more = max(1, round((times - 1.0) * float(sample.runs.mean())))
        draws = sample.runs + more
        width = _width(sample, measure, search, draws) * _seen(draws) / seen
        times = float(draws.mean() / sample.runs.mean()) * (width / (0.5 * now.width)) ** 2
        if not times < MOST:
            raise ValueError(f"the interval of {measure.name} does not halve with {MOST} times as many seeds")
    more = max(1, round((times - 1.0) * float(sample.runs.mean())))
    draws = sample.runs + more
    return SeedsToHalve(more, now, _width(sample, measure, search, draws) * _seen(draws) / seen)


def _seen(runs: Integers) -> float:
    """The share of the standard deviation over runs that a bootstrap of so many runs a task sees."""
    return math.sqrt(float((1.0 - 1.0 / runs).mean()))


def _width(sample: Sample, measure: Measure, plan: Plan, draws: Integers) -> float:
    rows = chunk_rows(sample)
    values = over_resamples(
        plan, rows, lambda first, reps: measure.of(resample(sample, plan, first, reps, draws=draws))[0]
    )
    low, high = limits(values.mean(), values, plan)
    return float(high - low)
