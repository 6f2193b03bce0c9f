import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import aggregates
from rlplatform.evaluation import stats
from rlplatform.evaluation.stats import bootstrap

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


def test_intervals_are_seeded_and_do_not_depend_on_the_chunk(monkeypatch) -> None:
    scores = {"a": [0.0, 1.0, 4.0], "b": [2.0, 2.5, 7.0, 1.0]}
    one = stats.interval(scores, stats.iqm, reps=999, seed=1)
    assert stats.interval(scores, stats.iqm, reps=999, seed=1) == one
    assert stats.interval(scores, stats.iqm, reps=999, seed=2) != one
    monkeypatch.setattr(bootstrap, "CHUNK", 100)
    small = stats.interval(scores, stats.iqm, reps=999, seed=1)
    np.testing.assert_allclose([small.point, small.low, small.high], [one.point, one.low, one.high], rtol=1e-14)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "no scores"),
        ({"a": []}, "a: expected one score a run"),
        ({"a": [1.0], "b": [[1.0]]}, r"b: expected one score a run, \[runs\], got shape \(1, 1\)"),
        ({"a": [1.0, 2.0, float("nan")]}, "a: run 2 is not finite"),
        ({"a": [float("inf"), 2.0]}, "a: run 0 is not finite"),
    ],
)
def test_what_is_missing_is_refused_not_skipped(scores, message) -> None:
    for measure in (stats.iqm, stats.mean):
        with pytest.raises(ValueError, match=message):
            measure(scores)
    with pytest.raises(ValueError, match=message):
        stats.interval(scores, stats.mean)


def test_an_interval_from_two_runs_is_refused_unless_asked_for() -> None:
    scores = {"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0]}
    with pytest.raises(ValueError, match=r"there are fewer of: b$"):
        stats.interval(scores, stats.mean)
    assert stats.interval(scores, stats.mean, few_seeds=True, reps=10).point == 1.75


@pytest.mark.parametrize("wrong", [{"confidence": 1.0}, {"confidence": float("nan")}, {"reps": 0}])
def test_an_interval_needs_a_confidence_and_resamples(wrong) -> None:
    with pytest.raises(ValueError, match="confidence must lie in"):
        stats.interval({"a": [1.0, 2.0, 3.0]}, stats.mean, **wrong)


def test_normalize() -> None:
    got = stats.normalize({"a": [0.0, 5.0], "b": [3.0]}, {"a": (-5.0, 5.0), "b": (1.0, 2.0)})
    assert {task: runs.tolist() for task, runs in got.items()} == {"a": [0.5, 1.0], "b": [2.0]}


@pytest.mark.parametrize("module", ["stats", "published", "evals"])
def test_loads_neither_torch_nor_ray(module) -> None:
    code = f"import sys, rlplatform.evaluation.{module}; sys.exit(bool({{'torch', 'ray'}} & set(sys.modules)))"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
