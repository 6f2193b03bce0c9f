"""Numbers that sum up scores: IQM, median, mean, optimality gap (Agarwal et al. 2021, arXiv:2108.13264, section 4.3).

Tasks weigh the same and so do the runs of a task: a run's weight is 1 / (tasks * runs of its task). On a rectangle every measure
is rliable's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rlplatform.evaluation.stats.bootstrap import Resamples, itself
from rlplatform.evaluation.stats.samples import Floats, Missing, Scores, lay_out


@dataclass(frozen=True)
class Measure:
    """A number that sums up scores. `of` takes R resamples of P points and gives [P, R]."""

    name: str
    of: Callable[[Resamples], Floats]

    def __call__(self, scores: Scores, missing: Missing = "refuse") -> float:
        """ValueError for NaN (unless dropped), infinity, no task, a task without runs."""
        sample = lay_out(scores, missing)
        if len(sample.values) != 1:
            raise ValueError(
                f"{self.name} takes one score a run, got {len(sample.values)} points: see sample_efficiency"
            )
        return float(self.of(itself(sample))[0, 0])


def optimality_gap_to(target: float) -> Measure:
    """How far scores fall short of `target`, on average: the mean of max(target - score, 0)."""

    def of(some: Resamples) -> Floats:
        short = some.task_sums(np.maximum(target - some.sample.values, 0.0))
        return _over_tasks(short / some.draws[:, None])

    return Measure(f"optimality gap to {target:g}", of)


def _over_tasks(means: Floats) -> Floats:
    return np.asarray(means.mean(axis=1), np.float64)


def _mean(some: Resamples) -> Floats:
    return _over_tasks(some.task_means())


def _median(some: Resamples) -> Floats:
    return np.asarray(np.median(some.task_means(), axis=1), np.float64)


def _iqm(some: Resamples) -> Floats:
    """Both ends lose floor(n / 4) draws of n, scipy's and rliable's rule: whole ones on a rectangle; on ragged data the same
    share of the weight, where a run that straddles the edge counts in part."""
    n, equal = int(some.draws.sum()), bool((some.draws == some.draws[0]).all())
    weight = np.ones(len(some.counts)) if equal else some.weight  # whole numbers, so that nothing is rounded
    low = float(n // 4) if equal else (n // 4) / n
    high = n - low if equal else 1.0 - low
    return some.middle(weight, low, high)


mean = Measure("mean", _mean)
median = Measure("median", _median)  # over tasks, of each task's mean
iqm = Measure("IQM", _iqm)  # mean of the middle half of all runs
optimality_gap = optimality_gap_to(1.0)
MEASURES = (iqm, median, mean, optimality_gap)  # the four of a report
