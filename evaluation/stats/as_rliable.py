"""rliable's functions under rliable's names and arguments, so that code written for it runs by another import.

    from rlplatform.evaluation import stats as rly  # from rliable import library as rly
    from rlplatform.evaluation import stats as metrics  # from rliable import metrics

Scores are [runs, tasks] or, where tasks have unlike numbers of runs, {task: runs}. What differs: intervals are seeded, NaN is
refused or dropped by name, fewer than 3 runs of a task are refused unless few_seeds, of the methods there is no "bca", and the
points of a curve come from the same runs in each resample (rliable draws other runs at every point; each point's interval is
the same).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rlplatform.evaluation.stats.bootstrap import (
    Plan,
    Resamples,
    check_runs,
    chunk_rows,
    itself,
    limits,
    over_resamples,
    resample,
)
from rlplatform.evaluation.stats.comparisons import task_improvement
from rlplatform.evaluation.stats.measures import Measure, iqm, mean, median, optimality_gap_to
from rlplatform.evaluation.stats.profiles import runs_above, tasks_above
from rlplatform.evaluation.stats.samples import Floats, Missing, Sample, Scores, from_table, lay_out, lay_out_pair
from rlplatform.evaluation.stats.trace import Node, Traced, together, trace
from rlplatform.streams import Stream

METHODS = {"percentile": "percentile", "basic": "basic", "norm": "norm", "normal": "norm", "bc": "bc", "debiased": "bc", "bias-corrected": "bc"}  # fmt: skip


def aggregate_mean(scores: Any) -> Any:
    """Mean over tasks of the mean over runs."""
    return _aggregate(mean, scores)


def aggregate_median(scores: Any) -> Any:
    """Median over tasks of the mean over runs."""
    return _aggregate(median, scores)


def aggregate_iqm(scores: Any) -> Any:
    """Mean of the middle half of all runs."""
    return _aggregate(iqm, scores)


def aggregate_optimality_gap(scores: Any, gamma: float = 1) -> Any:
    """Mean of max(gamma - score, 0)."""
    return _aggregate(optimality_gap_to(gamma), scores)


def probability_of_improvement(scores_x: Any, scores_y: Any) -> Any:
    """P(X > Y), ties counted half, averaged over tasks."""
    if isinstance(scores_x, Traced) and isinstance(scores_y, Traced):
        scores_x.check_one_point()
        scores_y.check_one_point()
        return Node(lambda args: task_improvement(scores_x.pick(args), scores_y.pick(args)).mean(axis=0))
    if isinstance(scores_x, Mapping) or isinstance(scores_y, Mapping):
        a, b = lay_out_pair(_scores(scores_x), _scores(scores_y))
    else:
        a, b = _sample(scores_x), _sample(scores_y)
        if len(a.runs) != len(b.runs):
            raise ValueError(f"both sides need the same tasks, got {len(a.runs)} and {len(b.runs)}")
    return float(task_improvement(itself(a), itself(b)).mean())


def run_score_deviation(scores: Any, tau: float) -> Any:
    """The share of runs above tau."""
    return _share(runs_above, scores, tau)


def mean_score_deviation(scores: Any, tau: float) -> Any:
    """The share of tasks whose mean over runs is above tau."""
    return _share(tasks_above, scores, tau)


def score_distributions(scores: Any, tau_list: ArrayLike) -> Any:
    """run_score_deviation at every tau."""
    return np.array([run_score_deviation(scores, tau) for tau in np.ravel(tau_list)])


def average_score_distributions(scores: Any, tau_list: ArrayLike) -> Any:
    """mean_score_deviation at every tau."""
    return np.array([mean_score_deviation(scores, tau) for tau in np.ravel(tau_list)])


def get_interval_estimates(
    score_dict: Mapping[str, Any],
    func: Callable[..., Any],
    method: str = "percentile",
    task_bootstrap: bool = False,
    reps: int = 50_000,
    confidence_interval_size: float = 0.95,
    random_state: Any = None,
    *,
    few_seeds: bool = False,
    missing: Missing = "refuse",
    threads: int = 0,
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """Points and intervals of func for every algorithm.

    A func that only arranges, adds and multiplies the measures above, as `lambda x: np.array([aggregate_iqm(x), aggregate_mean(x)])`,
    is computed for thousands of resamples at a time; any other is called once a resample, with the same draws.

    Args:
        score_dict: algorithm -> scores, [runs, tasks] or [runs, tasks, points] or {task: runs}; or -> a list or tuple of those,
            which are drawn independently and passed to func side by side.
        func: of scores, a number or an array of numbers.
        method: "percentile", "basic", "norm" or "bc".
        task_bootstrap: draw tasks, too, with replacement: how much the result depends on the choice of tasks.
        random_state: a seed, or a numpy RandomState or Generator to draw one from; 0 by default.

    Returns:
        algorithm -> func(scores), and algorithm -> [2, numbers], the lower ends and the upper ends.
    """
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(METHODS)}, got {method!r}")
    how: dict[str, Any] = {"few_seeds": few_seeds, "missing": missing, "threads": threads, "method": METHODS[method]}
    plan = Plan(confidence=confidence_interval_size, reps=reps, seed=_seed(random_state), **how)
    points, ends = {}, {}
    for name, given in score_dict.items():
        several = isinstance(given, list | tuple)
        if several and task_bootstrap:
            raise ValueError(f"{name}: task_bootstrap draws the tasks of one table of scores, not of several")
        samples = [lay_out(_scores(scores), missing) for scores in (given if several else [given])]
        check_runs(plan, *samples)
        points[name] = func(*(_as_given(sample) for sample in samples))
        point = np.ravel(np.asarray(points[name], np.float64))
        nodes = None if task_bootstrap else trace(func, samples, point)
        drawn = _by_call(func, samples, plan, task_bootstrap) if nodes is None else _by_nodes(nodes, samples, plan)
        ends[name] = np.stack(limits(point, drawn, plan))
    return points, ends


def create_performance_profile(
    score_dict: Mapping[str, Any],
    tau_list: ArrayLike,
    use_score_distribution: bool = True,
    custom_profile_func: Callable[..., Any] | None = None,
    method: str = "percentile",
    task_bootstrap: bool = False,
    reps: int = 2000,
    confidence_interval_size: float = 0.95,
    *,
    random_state: Any = None,
    few_seeds: bool = False,
    missing: Missing = "refuse",
    threads: int = 0,
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """Profiles [taus] and their bands [2, taus] for every algorithm; the keywords are those of get_interval_estimates."""
    profile = custom_profile_func or (score_distributions if use_score_distribution else average_score_distributions)
    return get_interval_estimates(
        score_dict, lambda scores: profile(scores, tau_list), method, task_bootstrap, reps, confidence_interval_size,
        random_state, few_seeds=few_seeds, missing=missing, threads=threads,
    )  # fmt: skip


def _aggregate(measure: Measure, scores: Any) -> Any:
    if isinstance(scores, Traced):
        return Node.measured(measure, scores)
    return float(measure.of(itself(_sample(scores)))[0, 0])


def _share(above: Callable[[Resamples, Floats], Floats], scores: Any, tau: float) -> Any:
    level = np.array([tau], np.float64)
    if isinstance(scores, Traced):
        scores.check_one_point()
        return Node(lambda args: above(scores.pick(args), level)[0])
    return float(above(itself(_sample(scores)), level)[0, 0])


def _scores(scores: Any) -> Scores:
    return scores if isinstance(scores, Mapping) else from_table(scores)


def _sample(scores: Any) -> Sample:
    """One score a run of a table, without a look at each task: what a func that is called 50,000 times asks for."""
    table = np.asarray(scores, np.float64) if not isinstance(scores, Mapping) else None
    if table is not None and table.ndim == 2 and table.size and np.isfinite(table).all():
        runs, tasks = table.shape
        return Sample(tuple(map(str, range(tasks))), table.T.reshape(1, -1), np.full(tasks, runs))
    sample = lay_out(_scores(scores))
    if len(sample.values) != 1:
        raise ValueError(f"expected one score a run, got {len(sample.values)} points: take one by scores[..., point]")
    return sample


def _as_given(sample: Sample, values: Floats | None = None) -> Any:
    """What func is called with: a table where the sample is one, and {task: runs} where it is ragged."""
    values = sample.values if values is None else values
    pieces = [piece[0] if len(piece) == 1 else piece.T for piece in np.split(values, sample.starts[1:-1], axis=1)]
    if len(set(sample.runs.tolist())) == 1:
        return np.stack(pieces, axis=1)
    return dict(zip(sample.tasks, pieces, strict=True))


def _by_nodes(nodes: Sequence[Node], samples: Sequence[Sample], plan: Plan) -> Floats:
    """[nodes, reps]."""
    of = together(nodes)
    of([itself(sample) for sample in samples])  # sorts what is sorted once, before threads would each do it

    def chunk(first: int, reps: int) -> Floats:
        return of([resample(sample, plan, first, reps, index) for index, sample in enumerate(samples)])

    return over_resamples(plan, chunk_rows(*samples), chunk)


def _by_call(func: Callable[..., Any], samples: Sequence[Sample], plan: Plan, task_bootstrap: bool) -> Floats:
    """[numbers, reps], one call a resample, from the draws that `resample` makes its counts of."""
    streams = [Stream(plan.seed, "bootstrap", i) for i in range(len(samples))]
    tasks = Stream(plan.seed, "bootstrap tasks")
    rows = chunk_rows(*samples)
    out = []
    for done in range(0, plan.reps, rows):
        now = min(rows, plan.reps - done)
        uniforms = [stream.uniform(now, s.values.shape[1]) for stream, s in zip(streams, samples, strict=True)]
        for r in range(now):
            arguments = []
            for uniform, sample in zip(uniforms, samples, strict=True):
                if task_bootstrap:
                    arguments.append(_of_drawn_tasks(sample, tasks))
                    continue
                picked = np.repeat(sample.starts[:-1], sample.runs) + (
                    uniform[r] * np.repeat(sample.runs, sample.runs)
                ).astype(np.int64)
                arguments.append(_as_given(sample, sample.values[:, picked]))
            out.append(np.ravel(np.asarray(func(*arguments), np.float64)))
    return np.stack(out, axis=1)


def _of_drawn_tasks(sample: Sample, stream: Stream) -> Any:
    """A resample of tasks, and of the runs of each task drawn, as many as that task has."""
    chosen = stream.integers(len(sample.runs), len(sample.runs))
    runs = sample.runs[chosen]
    picked = np.repeat(sample.starts[chosen], runs) + (stream.uniform(int(runs.sum())) * np.repeat(runs, runs)).astype(
        np.int64
    )
    names = tuple(f"{place}: {sample.tasks[task]}" for place, task in enumerate(chosen))
    return _as_given(Sample(names, sample.values[:, picked], runs))


def _seed(random_state: Any) -> int:
    if random_state is None:
        return 0
    for draw in ("randint", "integers"):
        if hasattr(random_state, draw):
            return int(getattr(random_state, draw)(2**31 - 1))
    return int(random_state)
