"""Performance profiles: how much of the scores lies above each level (Agarwal et al. 2021, section 4.2)."""

from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike

from rlplatform.evaluation.stats.bootstrap import Band, How, Plan, Resamples, check_runs, distribution, limits
from rlplatform.evaluation.stats.samples import Floats, Scores, lay_out


def performance_profile(scores: Scores, taus: ArrayLike, averages: bool = False, **how: Unpack[How]) -> Band:
    """The share above each tau, [K], never at it: of runs (score distribution), or of tasks by their means over runs (average-score
    distribution).

    Args:
        taus: levels, [K], in any order.
        averages: of task means. It is noisier and biased with few runs; the paper recommends the other.
    """
    plan = Plan(**how)
    levels = np.asarray(taus, np.float64)
    if levels.ndim != 1 or np.isnan(levels).any():
        raise ValueError(
            f"taus must be levels, [K], got shape {levels.shape}" + " with NaN" * bool(np.isnan(levels).any())
        )
    sample = lay_out(scores, plan.missing)
    check_runs(plan, sample)
    point, samples = distribution(sample, plan, lambda some: (tasks_above if averages else runs_above)(some, levels))
    return Band(point, *limits(point, samples, plan), plan.confidence, tuple(sample.runs.tolist()))


def runs_above(some: Resamples, taus: Floats) -> Floats:
    """The weight of runs with a score > tau: [K, R]."""
    order, values = some.sample.order[0], some.sample.sorted[0]
    equal = bool((some.draws == some.draws[0]).all())
    weight = np.ones(len(order)) if equal else some.weight[order]  # whole numbers, so that nothing is rounded
    up_to = np.concatenate(
        [np.zeros((1, some.counts.shape[1])), np.cumsum(some.counts[order] * weight[:, None], axis=0)]
    )
    share: Floats = (up_to[-1] - up_to[np.searchsorted(values, taus, side="right")]) / up_to[-1]
    return share


def tasks_above(some: Resamples, taus: Floats) -> Floats:
    """The share of tasks with a mean > tau: [K, R]."""
    means = some.task_means()[0]
    return np.stack([(means > tau).mean(axis=0) for tau in taus]) if len(taus) else np.zeros((0, means.shape[1]))
