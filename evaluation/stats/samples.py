"""Scores as people have them, and laid out for resampling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Scores = Mapping[str, ArrayLike]  # task -> one score a run, [runs]; as many runs a task as there are
Curves = Mapping[str, ArrayLike]  # task -> [runs, points]: the same points of every run of every task
Missing = Literal["refuse", "drop"]


@dataclass(frozen=True)
class Sample:
    """N runs of T tasks at P points: P = 1 but for curves. The runs of a task are next to each other."""

    tasks: tuple[str, ...]
    values: Floats  # [P, N]
    runs: Integers  # [T] runs of each task, N in all

    @cached_property
    def starts(self) -> Integers:
        """Where each task's runs begin, and N: [T + 1]."""
        return np.concatenate([[0], np.cumsum(self.runs)])

    @cached_property
    def order(self) -> Integers:
        """The runs from the lowest to the highest, at each point: [P, N]."""
        return np.argsort(self.values, axis=1, kind="stable")

    @cached_property
    def sorted(self) -> Floats:
        """The values in that order: [P, N]."""
        return np.take_along_axis(self.values, self.order, axis=1)


def lay_out(scores: Scores | Curves, missing: Missing = "refuse") -> Sample:
    """Check scores once, and lay them out.

    Args:
        scores: task -> [runs], or task -> [runs, points].
        missing: what NaN means: "refuse" it, or "drop" the runs that have one, which leaves their task with fewer.

    ValueError: no task, a task without runs, infinity, NaN unless dropped, unlike numbers of points.
    """
    if missing not in ("refuse", "drop"):
        raise ValueError(f'missing is "refuse" or "drop", got {missing!r}')
    if not scores:
        raise ValueError("no scores")
    tables = {task: np.asarray(values, np.float64) for task, values in scores.items()}
    curves = next(iter(tables.values())).ndim == 2
    for task, values in tables.items():
        if values.ndim != 1 + curves or values.size == 0:
            form = "curves like the first task's, [runs, points]" if curves else "one score a run, [runs]"
            raise ValueError(f"{task}: expected {form}, got shape {values.shape}")
    points = {values.shape[1:] for values in tables.values()}
    if len(points) > 1:
        raise ValueError(f"tasks have unlike numbers of points: {sorted(shape[0] for shape in points)}")
    kept = {task: _finite(task, values.reshape(len(values), -1), missing) for task, values in tables.items()}
    runs = np.array([len(values) for values in kept.values()], np.int64)
    return Sample(tuple(kept), np.ascontiguousarray(np.concatenate(list(kept.values())).T), runs)


def lay_out_pair(x: Scores, y: Scores, missing: Missing = "refuse") -> tuple[Sample, Sample]:
    """Two of the same tasks, in the order of the first. ValueError names the tasks that only one of them has."""
    if set(x) != set(y):
        raise ValueError(f"only one side has scores of: {', '.join(sorted(set(x) ^ set(y)))}")
    return lay_out(x, missing), lay_out({task: y[task] for task in x}, missing)


def from_table(table: ArrayLike, tasks: Sequence[str] | None = None) -> dict[str, Floats]:
    """rliable's form, [runs, tasks] or [runs, tasks, points], as task -> runs; tasks are called "0", "1", ... unless named."""
    values = np.asarray(table, np.float64)
    if values.ndim not in (2, 3):
        raise ValueError(f"expected a table [runs, tasks] or [runs, tasks, points], got shape {values.shape}")
    names = [str(t) for t in range(values.shape[1])] if tasks is None else list(tasks)
    if len(set(names)) != values.shape[1]:
        raise ValueError(f"the table has {values.shape[1]} tasks, and there are {len(set(names))} different names")
    return {name: values[:, t] for t, name in enumerate(names)}


def seeds(scores: Scores | Curves, missing: Missing = "refuse") -> dict[str, int]:
    """How many runs each task has: what a table of aggregates says beside them."""
    sample = lay_out(scores, missing)
    return {task: int(runs) for task, runs in zip(sample.tasks, sample.runs, strict=True)}


def normalize(scores: Scores, scales: Mapping[str, Sequence[float]]) -> dict[str, Floats]:
    """(score - low) / (high - low) by task, with `scales[task]` = (low, high)."""
    return {
        task: (np.asarray(runs, np.float64) - scales[task][0]) / (scales[task][1] - scales[task][0])
        for task, runs in scores.items()
    }


def area_under(curves: Curves, steps: ArrayLike) -> dict[str, Floats]:
    """Each run's mean height over the budget, by the trapezoid rule: task -> [runs], scores like any others.

    Args:
        curves: task -> [runs, points].
        steps: where the points lie, [points], ascending. The area is divided by steps[-1] - steps[0], so that it is in the
            unit of the scores.
    """
    at = np.asarray(steps, np.float64)
    if at.ndim != 1 or len(at) < 2 or not (np.diff(at) > 0).all():
        raise ValueError(f"steps must be two or more, ascending, got {at.tolist()}")
    share = np.diff(at) / (at[-1] - at[0])
    areas = {}
    for task, values in curves.items():
        heights = np.asarray(values, np.float64)
        if heights.ndim != 2 or heights.shape[1] != len(at):
            raise ValueError(f"{task}: expected [runs, {len(at)}], got shape {heights.shape}")
        areas[task] = (0.5 * (heights[:, 1:] + heights[:, :-1]) * share).sum(axis=1)
    return areas


def _finite(task: str, values: Floats, missing: Missing) -> Floats:
    absent = np.asarray(np.isnan(values).any(axis=1))
    if missing == "drop" and not absent.all():
        values, absent = values[~absent], np.zeros(1, np.bool_)
    if absent.any():
        raise ValueError(
            f"{task}: all runs are NaN" if absent.all() and missing == "drop" else
            f'{task}: run {int(np.argmax(absent))} is not finite; leave out runs that are missing, or say missing="drop"'
        )  # fmt: skip
    infinite = np.isinf(values).any(axis=1)
    if infinite.any():
        raise ValueError(f"{task}: run {int(np.argmax(infinite))} is not finite, but infinite")
    return values
