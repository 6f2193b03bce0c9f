import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import aggregates
from reference import bootstrap as definition_of
from rlplatform.evaluation import stats
from rlplatform.streams import Stream

X = {"a": [0.0, 1.0, 4.0, 1.0], "b": [2.0, 2.5, 7.0]}
Y = {"b": [2.0, 3.0, 2.0, 2.5, 8.0], "a": [1.0, 1.0, 0.5]}  # ragged, ties, another order of tasks
levels = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 3.0])
table = st.lists(st.lists(levels, min_size=1, max_size=5), min_size=2, max_size=2).map(lambda t: {"a": t[0], "b": t[1]})


def resamples(scores, index, reps, seed=0):
    key = Stream(seed, "bootstrap", index).key
    return [definition_of.resample(scores, key, r) for r in range(reps)]


def in_order_of_x(y):
    return {task: y[task] for task in X}


@settings(deadline=None)  # the machine may be busy
@given(x=table, y=table)
def test_improvement_is_the_definition_on_every_resample(x, y) -> None:
    got = stats.improvement(x, y, reps=12, few_seeds=True, confidence=0.9)
    assert got.point == pytest.approx(definition_of.improvement(x, y), abs=1e-12)
    samples = [definition_of.improvement(a, b) for a, b in zip(resamples(x, 0, 12), resamples(y, 1, 12), strict=True)]
    np.testing.assert_allclose([got.low, got.high], np.quantile(samples, [0.05, 0.95]), rtol=0, atol=1e-12)
    assert stats.improvement(y, x, reps=2, few_seeds=True).point == pytest.approx(1.0 - got.point, abs=1e-12)


def test_improvement_of_each_task() -> None:
    got = stats.task_improvements(X, Y, reps=40, seed=2)
    for task, runs in X.items():
        assert got[task].point == pytest.approx(definition_of.improvement_of_task(runs, Y[task]), abs=1e-12)
        pairs = zip(resamples(X, 0, 40, 2), resamples(in_order_of_x(Y), 1, 40, 2), strict=True)
        samples = [definition_of.improvement_of_task(a[task], b[task]) for a, b in pairs]
        np.testing.assert_allclose([got[task].low, got[task].high], np.quantile(samples, [0.025, 0.975]), atol=1e-12)
        assert (got[task].runs, got[task].against) == ((len(runs),), (len(Y[task]),))


def test_improvement_matrix_has_every_ordered_pair() -> None:
    got = stats.improvement_matrix({"x": X, "y": Y, "z": X}, reps=20)
    assert list(got) == [("x", "y"), ("x", "z"), ("y", "x"), ("y", "z"), ("z", "x"), ("z", "y")]
    assert got["x", "y"] == stats.improvement(X, Y, reps=20)
    assert got["x", "z"].point == 0.5


@pytest.mark.parametrize(
    ("measure", "definition"), [(stats.iqm, aggregates.iqm), (stats.median, aggregates.median)], ids=["iqm", "median"]
)
def test_difference_is_of_independent_resamples(measure, definition) -> None:
    got = stats.difference(X, Y, measure, reps=40, seed=4)
    assert got.point == pytest.approx(definition(X) - definition(Y), abs=1e-12)
    pairs = zip(resamples(X, 0, 40, 4), resamples(in_order_of_x(Y), 1, 40, 4), strict=True)
    samples = [definition(a) - definition(b) for a, b in pairs]
    np.testing.assert_allclose([got.low, got.high], np.quantile(samples, [0.025, 0.975]), rtol=0, atol=1e-12)


def test_paired_runs_are_drawn_together() -> None:
    shifted = {task: [run - 3.0 for run in runs] for task, runs in X.items()}
    exact = stats.difference(X, shifted, stats.mean, paired=True, reps=100)
    np.testing.assert_allclose([exact.low, exact.point, exact.high], 3.0, rtol=1e-14)  # what pairs share cancels
    assert stats.difference(X, shifted, stats.mean, reps=100).width > 1.0
    scaled = {task: [2.0 * run for run in runs] for task, runs in X.items()}
    got, own = stats.difference(scaled, X, stats.mean, paired=True), stats.interval(X, stats.mean)
    np.testing.assert_allclose([got.low, got.high], [own.low, own.high], rtol=1e-12)
    by_task = stats.task_differences(scaled, X, paired=True, reps=99)
    alone = stats.task_intervals(X, reps=99)
    for task in X:
        np.testing.assert_allclose(
            [by_task[task].low, by_task[task].high], [alone[task].low, alone[task].high], rtol=1e-12
        )


def test_task_differences_are_of_means() -> None:
    got = stats.task_differences(X, Y, reps=40)
    pairs = list(zip(resamples(X, 0, 40), resamples(in_order_of_x(Y), 1, 40), strict=True))
    for task, runs in X.items():
        samples = [np.mean(a[task]) - np.mean(b[task]) for a, b in pairs]
        np.testing.assert_allclose([got[task].low, got[task].high], np.quantile(samples, [0.025, 0.975]), atol=1e-12)
        assert got[task].point == pytest.approx(np.mean(runs) - np.mean(Y[task]), abs=1e-12)


def test_a_difference_holds_zero_as_often_as_it_says() -> None:
    """Two samples of one distribution, 20 runs of 5 tasks: 90 % intervals of the difference in means miss 0 in 10 % of cases."""
    rng, missed, cases = np.random.default_rng(0), 0, 400
    for case in range(cases):
        x, y = (stats.from_table(rng.normal(size=(20, 5))) for _ in range(2))
        got = stats.difference(x, y, stats.mean, confidence=0.9, reps=400, seed=case, threads=1)
        missed += not got.low <= 0.0 <= got.high
    # a bootstrap of 20 runs sees sqrt(19 / 20) of the spread, so 10.9 % are missed rather than 10 %; 5 sigma of 400 cases
    assert abs(missed / cases - 0.109) < 5 * np.sqrt(0.109 * 0.891 / cases), missed


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.improvement(X, {"a": [1.0, 2, 3], "c": [1.0, 2, 3]}), "only one side has scores of: b, c"),
        (
            lambda: stats.difference(X, Y, paired=True),
            "paired runs must be as many on both sides, and are not on: a, b",
        ),
        (lambda: stats.difference(X, X, paired=True, missing="drop"), 'missing="drop" do not go together'),
        (lambda: stats.rank_distribution({}), "no algorithms"),
        (lambda: stats.rank_distribution({"x": X, "y": {"a": [1.0]}}), "only one side has scores of: b"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@settings(deadline=None)  # the machine may be busy
@given(runs=st.lists(st.lists(levels, min_size=1, max_size=3), min_size=1, max_size=4))
def test_ranks_are_the_definition(runs) -> None:
    algorithms = {f"x{a}": {"t": own} for a, own in enumerate(runs)}
    got = stats.rank_distribution(algorithms)
    np.testing.assert_allclose(got.by_task[0], definition_of.rank_distribution(runs), rtol=0, atol=1e-12)
    np.testing.assert_allclose(got.overall.sum(axis=0), 1.0, atol=1e-12)
    np.testing.assert_allclose(got.overall.sum(axis=1), 1.0, atol=1e-12)


def test_ranks_are_averaged_over_tasks_in_one_order() -> None:
    got = stats.rank_distribution(
        {"x": {"a": [1.0], "b": [0.0]}, "y": {"b": [5.0, -1.0], "a": [0.0]}, "z": {"a": [2.0], "b": [9.0]}}
    )
    assert (got.algorithms, got.tasks) == (("x", "y", "z"), ("a", "b"))
    assert got.by_task[0].tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert got.by_task[1].tolist() == [[0, 0.5, 0.5], [0, 0.5, 0.5], [1, 0, 0]]
    np.testing.assert_allclose(got.expected, [2.25, 2.75, 1.0])
