"""All numbers of a report, computed once: `analyse` takes groups and gives what its tables and figures show.

Seeds decide what can be said. Of a group with a task of fewer than 3 runs the point estimates are given and no interval, unless
`few_seeds`; of published means the mean and the median over tasks, which need no runs, and neither IQM nor optimality gap, which
do (DER's IQM is 0.183 over its runs and 0.196 over its means).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rlplatform.evaluation import protocols, stats
from rlplatform.evaluation.groups import Group, common_tasks
from rlplatform.evaluation.published import percentile
from rlplatform.evaluation.stats import Band, Floats, Interval, Ranks
from rlplatform.evaluation.store import benchmarks, scales

MEASURES = (*stats.MEASURES[:3], stats.optimality_gap)
NAMES = {stats.optimality_gap.name: "optimality gap"}
FEWEST = 3  # runs a task below which a bootstrap knows too little
FEWEST_AT_ALL = 2  # below which it knows nothing: one run drawn again and again has no spread
MANY = 39  # runs of which one more lies outside their range with a chance of 2 / 40
TAUS = 161  # points of a profile
LINEAR = 0.5  # normalised scores are shown about linearly up to here, and by their ratio beyond


@dataclass(frozen=True)
class Estimate:
    """A number, and its interval where there are runs enough."""

    point: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, interval: Interval) -> "Estimate":
        return cls(interval.point, interval.low, interval.high)

    @property
    def known(self) -> bool:
        return self.low is not None


@dataclass(frozen=True)
class Analysis:
    """What `analyse` found. Everything is by group name; the first group is the one that the others are compared with."""

    groups: tuple[Group, ...]
    tasks: tuple[str, ...]  # that all groups have, in alphabetical order
    left_out: Mapping[str, tuple[str, ...]]  # tasks of a group that others lack
    ends: Mapping[str, tuple[float, float]]  # raw scores that are 0 and 1, of each task; empty where scores are raw
    scores: Mapping[str, Mapping[str, Floats]]  # normalised where the benchmark has a scale
    aggregates: Mapping[str, Mapping[str, Estimate]]  # by measure's name, those that can be given
    taus: Floats  # [K]
    profiles: Mapping[str, Band]  # [K]
    improvement: Mapping[tuple[str, str], Interval]  # P(first > second), both ways
    ranks: Ranks | None  # of the groups whose runs are known; None where there are not two
    per_task: Mapping[str, Mapping[str, Estimate]]  # mean over runs, raw
    marks: Mapping[
        str, Mapping[str, int]
    ]  # +1: the first group is above this one on the task, -1 below; 0 neither is shown
    curves: Mapping[str, tuple[Floats, Band]]  # steps [P], IQM over tasks with its band
    notes: tuple[str, ...]  # sentences: what was left out, and why
    unlike: tuple[str, ...]  # sentences: protocols that differ
    unstated: tuple[str, ...]  # sentences: what could not be compared

    @property
    def subject(self) -> Group:
        return self.groups[0]

    @property
    def normalised(self) -> bool:
        return bool(self.ends)

    @property
    def title(self) -> str:
        """Of the benchmark."""
        return benchmarks()[self.subject.benchmark].title if self.subject.benchmark else "scores"


def analyse(groups: Sequence[Group], *, reps: int = 10_000, seed: int = 0, few_seeds: bool = False) -> Analysis:
    """Compare groups over the tasks that all of them have.

    Args:
        groups: the subject first. Of one benchmark.
        reps: resamples of the aggregates' and tasks' intervals; profiles, curves and P(improvement) take a fifth.
        few_seeds: give intervals of groups with 2 runs a task, too.
    """
    tasks = common_tasks(groups)
    benchmark = groups[0].benchmark
    ends = {task: end for task, end in scales(benchmark).items() if task in tasks} if benchmark else {}
    normalised = set(ends) == set(tasks)
    raw = {group.name: {task: group.scores[task] for task in tasks} for group in groups}
    scores = {name: stats.normalize(of, ends) if normalised else of for name, of in raw.items()}
    enough = {
        group.name: not group.means and min(len(runs) for runs in raw[group.name].values()) >= least(few_seeds)
        for group in groups
    }
    with_runs = [name for name in raw if enough[name]]
    few = max(2, reps // 5)
    taus = _taus([scores[name] for name in with_runs], normalised)
    return Analysis(
        tuple(groups), tuple(tasks),
        {group.name: tuple(sorted(set(group.scores) - set(tasks))) for group in groups},
        ends if normalised else {}, scores,
        {group.name: _aggregates(group, scores[group.name], enough[group.name], reps, seed) for group in groups},
        taus,
        {name: stats.performance_profile(scores[name], taus, reps=few, seed=seed, few_seeds=True) for name in with_runs},
        _improvement(scores, with_runs, few, seed),
        stats.rank_distribution({name: scores[name] for name in with_runs}) if len(with_runs) > 1 else None,
        {group.name: _per_task(group, raw[group.name], reps, seed, few_seeds) for group in groups},
        {group.name: _marks(groups[0], group, tasks, reps, seed, few_seeds) for group in groups[1:]},
        {group.name: made for group in groups if (made := _curve(group, tasks, ends, few, seed)) is not None},
        tuple(_notes(groups, tasks, normalised, enough)),
        tuple(_sentences(groups, protocols.differences)), tuple(_sentences(groups, protocols.unknowns)),
    )  # fmt: skip


def least(few_seeds: bool) -> int:
    """Runs of a task that an interval takes."""
    return FEWEST_AT_ALL if few_seeds else FEWEST


def _aggregates(group: Group, scores: Mapping[str, Floats], enough: bool, reps: int, seed: int) -> dict[str, Estimate]:
    if group.means:
        return {measure.name: Estimate(measure(scores)) for measure in (stats.median, stats.mean)}
    if not enough:
        return {_name(measure.name): Estimate(measure(scores)) for measure in MEASURES}
    found = stats.intervals(scores, MEASURES, reps=reps, seed=seed, few_seeds=True)
    return {_name(name): Estimate.of(interval) for name, interval in found.items()}


def _name(measure: str) -> str:
    return NAMES.get(measure, measure)


def _taus(scores: Sequence[Mapping[str, Floats]], normalised: bool) -> Floats:
    """From the lowest to where nine in ten of the best group's runs lie below; evenly spaced as they are drawn."""
    if not scores:
        return np.zeros(0)
    every = [np.concatenate(list(of.values())) for of in scores]
    high = max(float(np.quantile(values, 0.9)) for values in every)
    low = min([0.0, *(float(np.quantile(values, 0.02)) for values in every)])
    high = high if high > low else low + 1.0
    if not normalised:
        return np.linspace(low, high, TAUS)
    return np.asarray(
        LINEAR * np.sinh(np.linspace(np.arcsinh(low / LINEAR), np.arcsinh(high / LINEAR), TAUS)), np.float64
    )


def _improvement(
    scores: Mapping[str, Mapping[str, Floats]], names: Sequence[str], reps: int, seed: int
) -> dict[tuple[str, str], Interval]:
    found = {}
    for a, b in combinations(names, 2):
        p = found[a, b] = stats.improvement(scores[a], scores[b], reps=reps, seed=seed, few_seeds=True)
        found[b, a] = Interval(1 - p.point, 1 - p.high, 1 - p.low, p.confidence, p.against, p.runs)
    return found


def _per_task(group: Group, raw: Mapping[str, Floats], reps: int, seed: int, few_seeds: bool) -> dict[str, Estimate]:
    if group.means:
        return {task: Estimate(float(runs[0])) for task, runs in raw.items()}
    sure = {task: runs for task, runs in raw.items() if len(runs) >= least(few_seeds)}
    found = stats.task_intervals(sure, reps=reps, seed=seed, few_seeds=True) if sure else {}
    return {
        task: Estimate.of(found[task]) if task in found else Estimate(float(runs.mean())) for task, runs in raw.items()
    }


def task_gaps(
    ours: Mapping[str, Floats], theirs: Mapping[str, Floats], means: bool, reps: int, seed: int, few_seeds: bool
) -> dict[str, Estimate]:
    """The difference of the means with its interval, on the tasks where both have runs enough (theirs may be published means)."""
    few = least(few_seeds)
    sure = [task for task in ours if len(ours[task]) >= few and (means or len(theirs[task]) >= few)]
    if not sure:
        return {}
    x, y = ({task: of[task] for task in sure} for of in (ours, theirs))
    found = stats.task_differences(x, y, reps=reps, seed=seed, few_seeds=True)
    return {task: Estimate.of(gap) for task, gap in found.items()}


def _marks(one: Group, other: Group, tasks: Sequence[str], reps: int, seed: int, few_seeds: bool) -> dict[str, int]:
    """Where the difference of the means has an interval beyond 0; of fewer runs than that takes, where our mean lies outside the
    middle 95 % of many published runs."""
    marks = dict.fromkeys(tasks, 0)
    if other.means or one.means:
        return marks
    ours, theirs = ({task: group.scores[task] for task in tasks} for group in (one, other))
    gaps = task_gaps(ours, theirs, False, reps, seed, few_seeds)
    for task in tasks:
        if task in gaps:
            low, high = gaps[task].low, gaps[task].high
            assert low is not None
            assert high is not None
            marks[task] = int(low > 0) - int(high < 0)
        elif len(theirs[task]) >= MANY:
            place = percentile(float(ours[task].mean()), theirs[task])
            marks[task] = int(place > 97.5) - int(place < 2.5)
    return marks


def _curve(
    group: Group, tasks: Sequence[str], ends: Mapping[str, tuple[float, float]], reps: int, seed: int
) -> tuple[Floats, Band] | None:
    """The IQM over tasks along training, on a grid that all tasks reach."""
    if group.means or not all(task in group.curves for task in tasks):
        return None
    curves = [group.curves[task] for task in tasks]
    first, last = max(c.steps[0] for c in curves), min(c.steps[-1] for c in curves)
    if not first < last:
        return None
    grid = np.linspace(
        first, last, min(60, *(len(c.steps) for c in curves)) if len(curves) > 1 else len(curves[0].steps)
    )
    on_grid = {
        task: np.stack([np.interp(grid, made.steps, run) for run in made.scores])
        for task, made in zip(tasks, curves, strict=True)
    }
    if set(ends) == set(tasks):
        on_grid = {task: (runs - ends[task][0]) / (ends[task][1] - ends[task][0]) for task, runs in on_grid.items()}
    return grid, stats.sample_efficiency(on_grid, reps=reps, seed=seed, few_seeds=True)


def _notes(groups: Sequence[Group], tasks: Sequence[str], normalised: bool, enough: Mapping[str, bool]) -> list[str]:
    notes = []
    if not normalised:
        notes.append(
            "No scale is known for these tasks: scores are raw, and an aggregate weighs tasks by their points."
        )
    for group in groups:
        if left := sorted(set(group.scores) - set(tasks)):
            listed = ", ".join(left[:6]) + (f" and {len(left) - 6} more" if len(left) > 6 else "")
            notes.append(f"Left out of {group.title}, since not all have them: {listed}.")
        if group.means:
            notes.append(
                f"Of {group.title} only means are public: it has no interval, no profile and no probability of improvement, "
                "and no IQM, which over means is another number than over runs."
            )
        elif not enough[group.name]:
            least = min(len(group.scores[task]) for task in tasks)
            notes.append(
                f"{group.title} has {least} run{'s' if least > 1 else ''} on some tasks: an interval needs {FEWEST} of every "
                "task, and none is given."
            )
    return notes


def _sentences(
    groups: Sequence[Group], say: Callable[[str, protocols.Protocol, str, protocols.Protocol], str]
) -> list[str]:
    first = groups[0]
    return [said for other in groups[1:] if (said := say(first.title, first.protocol, other.title, other.protocol))]
