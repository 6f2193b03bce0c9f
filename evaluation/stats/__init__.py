"""Aggregates over tasks and runs, with intervals: numpy and our core only, seeded, for ragged data.

Scores are `{task: runs}`, any number of runs a task; curves `{task: [runs, points]}`. rliable's tables go through `from_table`,
and its functions are here under their own names.
"""

from rlplatform.evaluation.stats.as_rliable import (
    aggregate_iqm,
    aggregate_mean,
    aggregate_median,
    aggregate_optimality_gap,
    average_score_distributions,
    create_performance_profile,
    get_interval_estimates,
    mean_score_deviation,
    probability_of_improvement,
    run_score_deviation,
    score_distributions,
)
from rlplatform.evaluation.stats.bootstrap import Band, How, Interval
from rlplatform.evaluation.stats.comparisons import (
    Ranks,
    difference,
    improvement,
    improvement_matrix,
    rank_distribution,
    task_differences,
    task_improvements,
)
from rlplatform.evaluation.stats.intervals import (
    SeedsToHalve,
    interval,
    intervals,
    sample_efficiency,
    seeds_to_halve,
    task_intervals,
)
from rlplatform.evaluation.stats.measures import MEASURES, Measure, iqm, mean, median, optimality_gap, optimality_gap_to
from rlplatform.evaluation.stats.profiles import performance_profile
from rlplatform.evaluation.stats.samples import Curves, Floats, Scores, area_under, from_table, normalize, seeds

__all__ = [
    "MEASURES",
    "Band",
    "Curves",
    "Floats",
    "How",
    "Interval",
    "Measure",
    "Ranks",
    "Scores",
    "SeedsToHalve",
    "aggregate_iqm",
    "aggregate_mean",
    "aggregate_median",
    "aggregate_optimality_gap",
    "area_under",
    "average_score_distributions",
    "create_performance_profile",
    "difference",
    "from_table",
    "get_interval_estimates",
    "improvement",
    "improvement_matrix",
    "interval",
    "intervals",
    "iqm",
    "mean",
    "mean_score_deviation",
    "median",
    "normalize",
    "optimality_gap",
    "optimality_gap_to",
    "performance_profile",
    "probability_of_improvement",
    "rank_distribution",
    "run_score_deviation",
    "sample_efficiency",
    "score_distributions",
    "seeds",
    "seeds_to_halve",
    "task_differences",
    "task_improvements",
    "task_intervals",
]
