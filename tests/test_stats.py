import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import aggregates
from reference import bootstrap as definition_of
from rlplatform import _core
from rlplatform.evaluation import stats
from rlplatform.evaluation.stats import bootstrap
from rlplatform.evaluation.stats.samples import lay_out
from rlplatform.streams import Stream

PAIRS = [
    (stats.mean, aggregates.mean),
    (stats.median, aggregates.median),
    (stats.iqm, aggregates.iqm),
    (stats.optimality_gap, aggregates.optimality_gap),
]
runs = st.lists(st.floats(-10, 10), min_size=1, max_size=7)
ragged = st.lists(runs, min_size=1, max_size=5).map(lambda tasks: {f"t{i}": runs for i, runs in enumerate(tasks)})
EXACT = {"rtol": 1e-12, "atol": 1e-13}  # sums of up to 35 float64 below 10: a few ulp of 10, 2e-15 each


@pytest.mark.parametrize(("ours", "definition"), PAIRS)
@settings(deadline=None)  # the machine may be busy
@given(scores=ragged)
def test_each_measure_is_its_definition_on_ragged_data(ours, definition, scores) -> None:
    np.testing.assert_allclose(ours(scores), definition(scores), **EXACT)


@pytest.mark.parametrize(("ours", "definition"), PAIRS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 5), (26, 10), (4, 7)])
def test_each_measure_on_rectangles(ours, definition, shape) -> None:
    table = np.random.default_rng(0).normal(size=shape)
    scores = {f"t{i}": row for i, row in enumerate(table)}
    np.testing.assert_allclose(ours(scores), definition(scores), **EXACT)


def test_iqm_of_a_rectangle_is_the_trimmed_mean_of_all_runs() -> None:
    assert stats.iqm({"a": [0.0, 1.0, 2.0, 3.0], "b": [100.0, 5.0, -50.0, 4.0]}) == (1 + 2 + 3 + 4) / 4
    assert stats.iqm({"a": [0.0, 1.0, 5.0]}) == 2.0  # floor(3 / 4) = 0 runs are cut


def test_tasks_weigh_the_same_however_many_runs_they_have() -> None:
    few = {"a": [1.0, 3.0], "b": [0.0]}
    many = {"a": [1.0, 3.0] * 50, "b": [0.0]}
    assert stats.mean(few) == stats.mean(many) == 1.0
    assert stats.median(many) == 1.0
    assert stats.optimality_gap(many) == 0.5
    assert stats.optimality_gap_to(3.0)(many) == 2.0


def test_interval_is_the_quantiles_of_all_resamples() -> None:
    scores = {"a": [0.0, 1.0, 4.0], "b": [2.0, 2.5, 7.0]}
    for ours, definition in PAIRS:
        every = sorted(definition(resample) for resample in aggregates.all_resamples(scores))  # 729
        got = stats.interval(scores, ours, confidence=0.9, reps=40_000, seed=3)
        assert got.point == pytest.approx(definition(scores), abs=1e-12)
        assert got.confidence == 0.9
        for q, value in ((0.05, got.low), (0.95, got.high)):
            # 5 sigma of an empirical distribution function over 40,000 draws, and ties: 0.0055
            below, upto = np.mean(np.array(every) < value - 1e-9), np.mean(np.array(every) <= value + 1e-9)
            assert below - 0.0055 <= q <= upto + 0.0055, (ours.name, q, value)


def test_interval_of_a_mean_has_the_width_of_its_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=400)
    got = stats.interval({"a": values}, stats.mean, reps=20_000)
    error = values.std() / 20  # of a resample's mean, exactly
    # a 2.5 % quantile of 20,000 draws is within 5 * sqrt(q (1 - q) / 20000) / density = 0.09 errors; 0.05 for the non-normality
    np.testing.assert_allclose([got.low, got.high], values.mean() + np.array([-1.96, 1.96]) * error, atol=0.14 * error)


RAGGED = {"a": [0.0, 1.0, 4.0], "b": [2.0, 2.5, 7.0, 1.0, 1.0], "c": [-3.0, 0.5, 0.25, 9.0]}


@pytest.mark.parametrize("draws", [None, [7, 1, 2]])
def test_resamples_are_the_definition_s(draws) -> None:
    sample, plan = lay_out(RAGGED), bootstrap.Plan(seed=5)
    some = bootstrap.resample(sample, plan, 4, 11, index=2, draws=None if draws is None else np.array(draws))
    key = Stream(5, "bootstrap", 2).key
    for r in range(11):
        expected = definition_of.resample(RAGGED, key, 4 + r, draws and dict(zip(RAGGED, draws, strict=True)))
        picked = np.repeat(sample.values[0], some.counts[:, r].astype(int))
        for task, got in zip(RAGGED, np.split(picked, np.cumsum(some.draws)[:-1]), strict=True):
            np.testing.assert_array_equal(np.sort(got), np.sort(expected[task]))


@pytest.mark.parametrize(("ours", "definition"), PAIRS)
@pytest.mark.parametrize("scores", [RAGGED, {"a": [0.0, 1.0, 4.0, 2.0], "b": [2.0, 2.5, 7.0, 1.0]}])
@pytest.mark.parametrize("more", [0, 3])
def test_each_measure_of_each_resample(ours, definition, scores, more) -> None:
    sample, plan = lay_out(scores), bootstrap.Plan()
    draws = {task: len(runs) + more for task, runs in scores.items()}
    got = ours.of(bootstrap.resample(sample, plan, 0, 30, draws=np.array(list(draws.values()))))
    key = Stream(0, "bootstrap", 0).key
    expected = [definition(definition_of.resample(scores, key, r, draws)) for r in range(30)]
    np.testing.assert_allclose(got[0], expected, **EXACT)
    assert got.std() > 0


def test_intervals_are_seeded_and_depend_on_neither_threads_nor_chunks(monkeypatch) -> None:
    def everything(**how):
        return (
            stats.intervals(RAGGED, reps=999, **how),
            stats.improvement(RAGGED, {**RAGGED, "a": [1.0, 2.0, 3.0, 0.0]}, reps=999, **how),
            stats.performance_profile(RAGGED, [0.5, 2.0], reps=999, **how).low.tolist(),
        )

    one = everything(seed=1, threads=1)
    assert everything(seed=1, threads=1) == one
    assert all(
        a != b for a, b in zip(everything(seed=2, threads=1)[:2], one[:2], strict=True)
    )  # a profile has few values
    monkeypatch.setattr(bootstrap, "CHUNK", 252)  # 21 rows of 12 runs, but a chunk begins at an even number
    assert bootstrap.chunk_rows(lay_out(RAGGED)) == 20
    assert everything(seed=1, threads=1) == everything(seed=1, threads=3) == one


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "no scores"),
        ({"a": []}, "a: expected one score a run"),
        ({"a": [1.0], "b": [[1.0]]}, r"b: expected one score a run, \[runs\], got shape \(1, 1\)"),
        ({"a": [1.0, 2.0, float("nan")]}, "a: run 2 is not finite"),
        ({"a": [float("inf"), 2.0]}, "a: run 0 is not finite, but infinite"),
    ],
)
def test_what_is_missing_is_refused_not_skipped(scores, message) -> None:
    for measure in (stats.iqm, stats.mean):
        with pytest.raises(ValueError, match=message):
            measure(scores)
    with pytest.raises(ValueError, match=message):
        stats.interval(scores, stats.mean)


def test_nan_is_refused_or_dropped_by_name() -> None:
    nan = float("nan")
    scores, whole = {"a": [1.0, nan, 3.0, 5.0], "b": [2.0, 4.0, 9.0]}, {"a": [1.0, 3.0, 5.0], "b": [2.0, 4.0, 9.0]}
    with pytest.raises(
        ValueError, match='a: run 1 is not finite; leave out runs that are missing, or say missing="drop"'
    ):
        stats.interval(scores, stats.mean)
    assert stats.mean(scores, missing="drop") == 4.0
    assert stats.seeds(scores, missing="drop") == {"a": 3, "b": 3}
    assert stats.interval(scores, stats.iqm, reps=50, missing="drop") == stats.interval(whole, stats.iqm, reps=50)
    with pytest.raises(ValueError, match="a: all runs are NaN"):
        stats.mean({"a": [nan, nan]}, missing="drop")
    with pytest.raises(ValueError, match="b: run 0 is not finite, but infinite"):
        stats.mean({"a": [nan, 1.0], "b": [float("-inf")]}, missing="drop")
    with pytest.raises(ValueError, match='missing is "refuse" or "drop", got "skip"|\'skip\''):
        stats.mean(whole, missing="skip")
    curves = {"a": [[1.0, nan], [1.0, 2.0], [3.0, 4.0], [0.0, 1.0]]}  # a run that lacks a point is dropped whole
    assert stats.sample_efficiency(curves, stats.mean, reps=9, missing="drop").point == pytest.approx([4 / 3, 7 / 3])


TWO_RUNS = {"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0]}


@pytest.mark.parametrize(
    "call",
    [
        lambda how: stats.interval(TWO_RUNS, stats.mean, **how),
        lambda how: stats.task_intervals(TWO_RUNS, **how),
        lambda how: stats.sample_efficiency({"a": np.ones((3, 2)), "b": np.ones((2, 2))}, **how),
        lambda how: stats.seeds_to_halve(TWO_RUNS, **how),
        lambda how: stats.performance_profile(TWO_RUNS, [0.0], **how),
        lambda how: stats.improvement({"a": [1.0, 2, 3], "b": [1.0, 2, 3]}, TWO_RUNS, **how),
        lambda how: stats.task_improvements(TWO_RUNS, TWO_RUNS, **how),
        lambda how: stats.difference(TWO_RUNS, {"a": [1.0, 2, 3], "b": [1.0, 2, 3]}, **how),
        lambda how: stats.task_differences(TWO_RUNS, TWO_RUNS, **how),
        lambda how: stats.get_interval_estimates({"x": TWO_RUNS}, stats.aggregate_mean, **how),
        lambda how: stats.create_performance_profile({"x": TWO_RUNS}, [0.0], **how),
    ],
)
def test_an_interval_from_two_runs_is_refused_unless_asked_for(call) -> None:
    with pytest.raises(
        ValueError, match=r"an interval needs 3 runs of every task \(or few_seeds=True\), there are fewer of: b$"
    ):
        call({"reps": 10})
    assert call({"reps": 10, "few_seeds": True})


def test_intervals_say_how_many_runs_they_rest_on() -> None:
    assert stats.interval(RAGGED, stats.iqm, reps=2).runs == (3, 5, 4)
    assert stats.performance_profile(RAGGED, [0.0], reps=2).runs == (3, 5, 4)
    assert [one.runs for one in stats.task_intervals(RAGGED, reps=2).values()] == [(3,), (5,), (4,)]
    shuffled = {"c": [1.0] * 6, "a": [1.0] * 3, "b": [1.0] * 7}
    both = stats.difference(RAGGED, shuffled, reps=2)
    assert (both.runs, both.against) == ((3, 5, 4), (3, 7, 6))  # in the order of the first
    assert stats.seeds(RAGGED) == {"a": 3, "b": 5, "c": 4}


def test_task_intervals_are_those_of_each_task_alone() -> None:
    got = stats.task_intervals(RAGGED, reps=20_000, confidence=0.8)
    for task, runs in RAGGED.items():
        every = np.array([np.mean(some[task]) for some in aggregates.all_resamples({task: runs})])
        assert got[task].point == pytest.approx(np.mean(runs), abs=1e-12)
        for q, value in ((0.1, got[task].low), (0.9, got[task].high)):  # 5 sigma of 20,000 draws: 0.0107
            assert np.mean(every < value - 1e-9) - 0.0107 <= q <= np.mean(every <= value + 1e-9) + 0.0107


@pytest.mark.parametrize(("ours", "definition"), PAIRS)
def test_sample_efficiency_is_the_measure_at_each_point(ours, definition) -> None:
    rng = np.random.default_rng(0)
    curves = {"a": rng.normal(size=(4, 5)), "b": rng.normal(size=(6, 5))}
    got = stats.sample_efficiency(curves, ours, reps=64, seed=3)
    key = Stream(3, "bootstrap", 0).key
    for point in range(5):
        scores = {task: values[:, point] for task, values in curves.items()}
        assert got.point[point] == pytest.approx(definition(scores), abs=1e-12)
        samples = [
            definition(definition_of.resample(scores, key, r)) for r in range(64)
        ]  # whole runs: the same at each point
        np.testing.assert_allclose([got.low[point], got.high[point]], np.quantile(samples, [0.025, 0.975]), atol=1e-12)
    assert stats.sample_efficiency(curves, ours, reps=64, seed=3, threads=3).low.tolist() == got.low.tolist()


@pytest.mark.parametrize(
    ("averages", "definition"),
    [(False, definition_of.share_of_runs_above), (True, definition_of.share_of_tasks_above)],
)
@settings(deadline=None)  # the machine may be busy
@given(scores=ragged, taus=st.lists(st.sampled_from([-3.0, 0.0, 0.5, 1.0, 11.0]), max_size=4))
def test_profiles_are_their_definitions(averages, definition, scores, taus) -> None:
    levels = [*taus, next(iter(scores.values()))[0]]  # a level that a run has: above it, not at it
    got = stats.performance_profile(scores, levels, averages, reps=20, few_seeds=True)
    np.testing.assert_allclose(got.point, [definition(scores, tau) for tau in levels], rtol=0, atol=1e-12)
    key = Stream(0, "bootstrap", 0).key
    samples = [[definition(definition_of.resample(scores, key, r), tau) for tau in levels] for r in range(20)]
    np.testing.assert_allclose([got.low, got.high], np.quantile(samples, [0.025, 0.975], axis=0), rtol=0, atol=1e-12)


def test_profiles_refuse_what_is_no_level() -> None:
    for wrong in ([[1.0]], [float("nan")]):
        with pytest.raises(ValueError, match="taus must be levels"):
            stats.performance_profile(RAGGED, wrong)


def test_area_under_curves() -> None:
    steps = [2.0, 3.0, 6.0]
    curves = {"a": [[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]], "b": [[5.0, -1.0, 3.0]]}
    got = stats.area_under(curves, steps)
    expected = {task: [definition_of.area_under(run, steps) for run in runs] for task, runs in curves.items()}
    assert {task: runs.tolist() for task, runs in got.items()} == {
        t: pytest.approx(v, abs=1e-15) for t, v in expected.items()
    }
    assert expected["a"] == [1.75, 1.0]
    for wrong in ([0.0, 2.0, 2.0], [0.0], [0.0, float("nan"), 1.0]):
        with pytest.raises(ValueError, match="steps must be two or more, ascending"):
            stats.area_under(curves, wrong)
    with pytest.raises(ValueError, match=r"a: expected \[runs, 2\], got shape \(2, 3\)"):
        stats.area_under(curves, [0.0, 1.0])


@pytest.mark.parametrize("method", ["percentile", "basic", "norm", "bc"])
def test_each_method_is_its_formula(method) -> None:
    samples = np.round(np.random.default_rng(0).gamma(2.0, size=4001), 1)  # many at the point, which are not below it
    point = np.float64(1.2)
    low, high = bootstrap.limits(point, samples, bootstrap.Plan(confidence=0.9, method=method))
    q05, q95 = np.quantile(samples, [0.05, 0.95])
    z = 1.6448536269514722  # of 0.95
    z0 = NormalDist().inv_cdf(np.mean(samples < 1.2))
    moved = [np.quantile(samples, NormalDist().cdf(2 * z0 + side * z)) for side in (-1, 1)]
    reach = z * samples.std(ddof=1)
    expected = {
        "percentile": (q05, q95),
        "basic": (2.4 - q95, 2.4 - q05),
        "norm": (1.2 - reach, 1.2 + reach),
        "bc": moved,
    }
    np.testing.assert_allclose([low, high], expected[method], rtol=1e-12)


def test_bias_correction_says_where_it_is_not_defined() -> None:
    with pytest.raises(ValueError, match='"bc" is not defined where 0% of the resamples lie below'):
        stats.interval({"a": [1.0, 1.0, 1.0]}, stats.mean, method="bc", reps=10)


@pytest.mark.parametrize("measure", [stats.mean, stats.iqm])
@pytest.mark.parametrize(("runs", "tasks"), [(3, 6), (5, 10), (10, 4)])
def test_with_as_many_seeds_as_predicted_the_interval_is_half_as_wide(runs, tasks, measure) -> None:
    """Over many experiments, whose runs are normal about means that differ by task."""
    rng, before, after = np.random.default_rng(0), [], []
    for _ in range(60):
        means = rng.normal(size=tasks)
        draw = lambda n, means=means: {f"t{t}": means[t] + rng.normal(size=n) for t in range(tasks)}
        now = stats.seeds_to_halve(draw(runs), measure, reps=1000, threads=1)
        before.append(now.now.width)
        after.append(stats.interval(draw(runs + now.more), measure, reps=1000, threads=1).width)
        assert now.width == pytest.approx(
            now.now.width / 2, rel=0.15
        )  # 5 sigma of a width from 1,000 resamples, and rounding
    ratio = np.mean(after) / np.mean(before)
    error = ratio * np.hypot(np.std(before) / np.mean(before), np.std(after) / np.mean(after)) / np.sqrt(60)
    # and 5 %: a root of a variance from few runs is too small on average, by 2 % of 6 tasks of 3 runs
    assert abs(ratio - 0.5) < 5 * error + 0.025, (ratio, error)
    assert error < 0.025  # so that twice as many seeds, 0.71, would fail


def test_seeds_to_halve_of_a_mean_solves_its_formula() -> None:
    """Of a mean the width is sqrt((1 - 1/n) / n) times a constant: n = 5 needs m with (1 - 1/m)/m a quarter of (1 - 1/5)/5."""
    rng = np.random.default_rng(1)
    got = stats.seeds_to_halve({f"t{t}": rng.normal(size=5) for t in range(20)}, stats.mean)
    m = 24.0 / 1.0  # (1 - 1/24)/24 = 0.03993, a quarter of 0.16 is 0.04
    assert abs(got.more + 5 - m) <= 0.05 * m + 1  # two widths from 10,000 or more resamples each: 3 % of m
    assert stats.seeds_to_halve(RAGGED, reps=500).more > 4


def test_what_no_seed_can_halve_is_refused() -> None:
    with pytest.raises(ValueError, match="has no width: nothing can halve it"):
        stats.seeds_to_halve({"a": [1.0, 1.0, 1.0]})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"confidence": 1.0}, "confidence must lie in"),
        ({"confidence": float("nan")}, "confidence must lie in"),
        ({"reps": 0}, "reps be >= 1"),
        ({"threads": -1}, "threads must be >= 1"),
        ({"method": "bca"}, "method is percentile, basic, norm or bc"),
    ],
)
def test_how_is_checked(wrong, message) -> None:
    with pytest.raises(ValueError, match=message):
        stats.interval({"a": [1.0, 2.0, 3.0]}, stats.mean, **wrong)


def test_points_belong_to_curves() -> None:
    curves = {"a": np.ones((3, 2))}
    for call in (stats.mean, lambda scores: stats.interval(scores, stats.mean)):
        with pytest.raises(ValueError, match="got 2 points: see sample_efficiency"):
            call(curves)
    with pytest.raises(ValueError, match=r"tasks have unlike numbers of points: \[2, 4\]"):
        stats.sample_efficiency({"a": np.ones((3, 2)), "b": np.ones((3, 4))})


COUNTS, STARTS, VALUE = np.ones((3, 2)), np.array([0, 2, 3]), np.ones((1, 3))
ORDER, WEIGHT = np.array([[0, 1, 2]]), np.ones(3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _core.resample(0, 0, np.array([1, 3]), np.array([1]), 2), "starts must be"),
        (lambda: _core.resample(0, 0, np.array([0, 2, 2]), np.array([1, 1]), 2), "starts must ascend"),
        (lambda: _core.resample(0, 0, STARTS, np.array([1]), 2), "draws must be"),
        (lambda: _core.resample(0, 0, STARTS, np.array([1, 0]), 2), "draws must be >= 1"),
        (lambda: _core.resample(0, 0, STARTS, np.array([1, 1]), -1), "reps must be >= 0"),
        (lambda: _core.stratum_sums(np.ones(3), STARTS, VALUE), "counts must be a matrix"),
        (lambda: _core.stratum_sums(np.ones((4, 2)), STARTS, VALUE), "disagree about N"),
        (lambda: _core.stratum_sums(COUNTS, STARTS, np.ones((1, 4))), "disagree about N"),
        (lambda: _core.trimmed_means(COUNTS, np.ones(2), ORDER, VALUE, 0.0, 1.0), "disagree"),
        (lambda: _core.trimmed_means(COUNTS, WEIGHT, ORDER.T, VALUE, 0.0, 1.0), "disagree"),
        (lambda: _core.trimmed_means(COUNTS, WEIGHT, ORDER + 1, VALUE, 0.0, 1.0), "order must hold numbers of runs"),
        (lambda: _core.trimmed_means(COUNTS, WEIGHT, ORDER - 1, VALUE, 0.0, 1.0), "order must hold numbers of runs"),
        (lambda: _core.trimmed_means(COUNTS, WEIGHT, ORDER, VALUE, 1.0, 1.0), "0 <= low < high"),
        (lambda: _core.trimmed_means(COUNTS, WEIGHT, ORDER, VALUE, float("nan"), 1.0), "0 <= low < high"),
    ],
)
def test_kernels_refuse_what_does_not_fit(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_normalize() -> None:
    got = stats.normalize({"a": [0.0, 5.0], "b": [3.0]}, {"a": (-5.0, 5.0), "b": (1.0, 2.0)})
    assert {task: runs.tolist() for task, runs in got.items()} == {"a": [0.5, 1.0], "b": [2.0]}


@pytest.mark.parametrize("module", ["stats", "published", "evals"])
def test_loads_neither_torch_nor_ray(module) -> None:
    code = f"import sys, rlplatform.evaluation.{module}; sys.exit(bool({{'torch', 'ray'}} & set(sys.modules)))"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
