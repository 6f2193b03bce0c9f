"""One algorithm against another: differences, probability of improvement, ranks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Unpack

import numpy as np

from rlplatform.evaluation.stats.bootstrap import (
    How,
    Interval,
    Plan,
    Resamples,
    check_runs,
    chunk_rows,
    itself,
    make_interval,
    over_resamples,
    resample,
)
from rlplatform.evaluation.stats.measures import Measure, iqm
from rlplatform.evaluation.stats.samples import Floats, Missing, Sample, Scores, lay_out_pair


def difference(x: Scores, y: Scores, measure: Measure = iqm, paired: bool = False, **how: Unpack[How]) -> Interval:
    """measure(x) - measure(y) over the same tasks.

    Args:
        paired: run i of a task of x belongs with run i of y (the same seed, or the same start): they are drawn together, and what
            they share cancels. Otherwise runs of the two are drawn independently.
    """
    plan, a, b = _pair(x, y, paired, how)
    point = measure.of(itself(a))[0, 0] - measure.of(itself(b))[0, 0]
    samples = _over_pairs(a, b, plan, paired, lambda p, q: measure.of(p)[0] - measure.of(q)[0])
    return make_interval(point, samples, plan, a.runs, b.runs)


def task_differences(x: Scores, y: Scores, paired: bool = False, **how: Unpack[How]) -> dict[str, Interval]:
    """Of each task: the mean over runs of x less that of y. 95 % holds for each by itself, not for all at once."""
    plan, a, b = _pair(x, y, paired, how)
    point = itself(a).task_means()[0, :, 0] - itself(b).task_means()[0, :, 0]
    samples = _over_pairs(a, b, plan, paired, lambda p, q: p.task_means()[0] - q.task_means()[0])
    return _by_task(point, samples, plan, a, b)


def improvement(x: Scores, y: Scores, **how: Unpack[How]) -> Interval:
    """P(X > Y): that a run of x scores above a run of y, ties counted half, averaged over tasks (Agarwal et al. 2021, section 4.2:
    the Mann-Whitney U statistic of each task)."""
    plan, a, b = _pair(x, y, False, how)
    point = task_improvement(itself(a), itself(b)).mean(axis=0)[0]
    samples = _over_pairs(a, b, plan, False, lambda p, q: task_improvement(p, q).mean(axis=0))
    return make_interval(point, samples, plan, a.runs, b.runs)


def task_improvements(x: Scores, y: Scores, **how: Unpack[How]) -> dict[str, Interval]:
    """P(X > Y) on each task. 95 % holds for each by itself, not for all at once."""
    plan, a, b = _pair(x, y, False, how)
    point = task_improvement(itself(a), itself(b))[:, 0]
    samples = _over_pairs(a, b, plan, False, task_improvement)
    return _by_task(point, samples, plan, a, b)


def improvement_matrix(algorithms: Mapping[str, Scores], **how: Unpack[How]) -> dict[tuple[str, str], Interval]:
    """P(a > b) of every ordered pair (a, b) of unlike algorithms; (b, a) is drawn anew, and mirrors (a, b) up to that."""
    return {(a, b): improvement(algorithms[a], algorithms[b], **how) for a, b in permutations(algorithms, 2)}


@dataclass(frozen=True)
class Ranks:
    """How likely each algorithm is to come k-th: rank 1 is the best."""

    algorithms: tuple[str, ...]
    tasks: tuple[str, ...]
    by_task: Floats  # [T, A, A]: of task t, that algorithm a has rank k + 1

    @property
    def overall(self) -> Floats:
        """Averaged over tasks, [A, A]: what a rank plot shows. Each row and each column sums to 1."""
        return np.asarray(self.by_task.mean(axis=0), np.float64)

    @property
    def expected(self) -> Floats:
        """The mean rank of each algorithm, [A], in [1, A]."""
        return np.asarray(self.overall @ np.arange(1, len(self.algorithms) + 1), np.float64)


def rank_distribution(algorithms: Mapping[str, Scores], missing: Missing = "refuse") -> Ranks:
    """Draw one run of every algorithm on a task and rank them: the probability of each rank, where algorithms that tie share the
    ranks that they take up. Exact, by summing over all draws, so it has no seed and no repetitions.
    """
    if not algorithms:
        raise ValueError("no algorithms")
    first = next(iter(algorithms.values()))
    samples = [lay_out_pair(first, scores, missing)[1] for scores in algorithms.values()]
    by_task = [
        _ranks([s.values[0, s.starts[t] : s.starts[t + 1]] for s in samples]) for t in range(len(samples[0].tasks))
    ]
    return Ranks(tuple(algorithms), samples[0].tasks, np.stack(by_task))


def task_improvement(x: Resamples, y: Resamples) -> Floats:
    """P(X > Y) + P(X = Y) / 2 on each task, [T, R]. A run of x beats the draws of y that are sorted below it: O(runs), not O(runs^2)."""
    a, b = x.sample, y.sample
    out = np.empty((len(a.tasks), x.counts.shape[1]))
    for t in range(len(a.tasks)):
        mine, theirs = slice(a.starts[t], a.starts[t + 1]), slice(b.starts[t], b.starts[t + 1])
        values = b.values[0, theirs]
        order = np.argsort(values, kind="stable")
        up_to = np.concatenate([np.zeros((1, y.counts.shape[1])), np.cumsum(y.counts[theirs][order], axis=0)])
        below, not_above = (np.searchsorted(values[order], a.values[0, mine], side=s) for s in ("left", "right"))
        out[t] = (x.counts[mine] * (up_to[below] + up_to[not_above])).sum(axis=0) / (2.0 * x.draws[t] * y.draws[t])
    return out


def _ranks(runs: list[Floats]) -> Floats:
    """[A, A] of one task, by a recursion over the other algorithms on (how many are above, how many tie)."""
    n = len(runs)
    out = np.zeros((n, n))
    for a, own in enumerate(runs):
        state = np.zeros((len(own), n, n))  # [run, above, tied]
        state[:, 0, 0] = 1.0
        for b, other in enumerate(runs):
            if b == a:
                continue
            ordered = np.sort(other)
            below, not_above = (np.searchsorted(ordered, own, side=side) / len(other) for side in ("left", "right"))
            lost, tied = (1.0 - not_above)[:, None, None], (not_above - below)[:, None, None]
            grown = below[:, None, None] * state
            grown[:, 1:, :] += lost * state[:, :-1, :]
            grown[:, :, 1:] += tied * state[:, :, :-1]
            state = grown
        chance = state.mean(axis=0)
        for above in range(n):
            for ties in range(n - above):
                out[a, above : above + ties + 1] += chance[above, ties] / (ties + 1)
    return out


def _pair(x: Scores, y: Scores, paired: bool, how: How) -> tuple[Plan, Sample, Sample]:
    plan = Plan(**how)
    if paired and plan.missing == "drop":
        raise ValueError(
            'pairs of runs and missing="drop" do not go together: dropping one run of a pair would shift the others'
        )
    a, b = lay_out_pair(x, y, plan.missing)
    check_runs(plan, a, b)
    unlike = [task for task, m, n in zip(a.tasks, a.runs, b.runs, strict=True) if m != n]
    if paired and unlike:
        raise ValueError(f"paired runs must be as many on both sides, and are not on: {', '.join(unlike)}")
    return plan, a, b


def _over_pairs(a: Sample, b: Sample, plan: Plan, paired: bool, of: Callable[[Resamples, Resamples], Floats]) -> Floats:
    """What `of` makes of resamples of both, [..., reps]; from the same stream where they are paired."""

    def chunk(first: int, reps: int) -> Floats:
        return of(resample(a, plan, first, reps), resample(b, plan, first, reps, index=0 if paired else 1))

    return over_resamples(plan, chunk_rows(a, b), chunk)


def _by_task(point: Floats, samples: Floats, plan: Plan, a: Sample, b: Sample) -> dict[str, Interval]:
    return {
        task: make_interval(point[t], samples[t], plan, a.runs[t : t + 1], b.runs[t : t + 1])
        for t, task in enumerate(a.tasks)
    }
