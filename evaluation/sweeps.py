"""What a sweep found, as its report sees it: trials, their scores, and the configurations that were run again on held-out seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlplatform.evaluation import stats
from rlplatform.evaluation.stats import Floats, Interval

REPS = 10_000  # resamples of an interval
FEWEST = 2  # runs of every task, below which there is nothing to resample
BASELINE = "baseline"


@dataclass(frozen=True)
class Score:
    """IQM over tasks and seeds, with its interval where there are two seeds or more."""

    point: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return f"{self.point:.3f}" + (f" [{self.low:.3f}, {self.high:.3f}]" if self.low is not None else "")


@dataclass(frozen=True)
class Rung:
    """A trial at one number of agent steps."""

    step: int
    score: Score
    scores: Mapping[str, Sequence[float]]  # task -> normalised score of each seed


@dataclass(frozen=True)
class Trial:
    """One configuration of a search."""

    number: int
    params: Mapping[str, Any]
    state: str  # "running", "complete", "stopped" (by ASHA), "failed"
    rungs: tuple[Rung, ...] = ()
    error: str = ""

    @property
    def name(self) -> str:
        return f"t{self.number:04d}"

    @property
    def last(self) -> Rung | None:
        return self.rungs[-1] if self.rungs else None


@dataclass(frozen=True)
class Candidate:
    """A configuration that was run again on held-out seeds."""

    name: str  # of its trial, or "baseline"
    params: Mapping[str, Any]
    searched: Score | None  # what the search saw
    scores: Mapping[str, Sequence[float]]  # task -> normalised score of each held-out seed


@dataclass(frozen=True)
class Found:
    """Everything a report of a sweep shows."""

    name: str
    title: str  # "c51 on catch"
    space: Mapping[str, str]  # key -> "log, 0.0001 to 0.01"
    logarithmic: frozenset[str]
    trials: tuple[Trial, ...]
    milestones: tuple[int, ...]
    normalised: bool
    importance: Mapping[int, Mapping[str, float]]  # agent steps -> key -> share; empty where trials are too few
    candidates: tuple[Candidate, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)  # agent, suite, tasks, seeds, ...

    @property
    def measure(self) -> str:
        return "IQM of normalised scores" if self.normalised else "IQM of raw scores"


def score(scores: Mapping[str, Sequence[float]]) -> Score:
    """Of normalised scores, task -> seeds: the IQM and the 95 % interval of a bootstrap stratified by task."""
    runs: dict[str, Floats] = {task: np.asarray(of, np.float64) for task, of in scores.items()}
    if min(len(of) for of in runs.values()) < FEWEST:
        return Score(stats.iqm(runs))
    found = stats.interval(runs, stats.iqm, reps=REPS, few_seeds=True, threads=1)
    return Score(found.point, found.low, found.high)


def ranked(candidates: Sequence[Candidate]) -> list[tuple[Candidate, Score]]:
    """From the best held-out score to the worst."""
    return sorted(((one, score(one.scores)) for one in candidates), key=lambda pair: -pair[1].point)


def gap(one: Candidate, other: Candidate) -> Interval | None:
    """IQM of one less that of the other on the held-out seeds; None of fewer than two seeds. Seeds are not paired: the same seed
    draws the same games, but weights that differ play them apart at once."""
    if min(len(of) for side in (one, other) for of in side.scores.values()) < FEWEST:
        return None
    x, y = ({task: np.asarray(of, np.float64) for task, of in side.scores.items()} for side in (one, other))
    return stats.difference(x, y, reps=REPS, few_seeds=True, threads=1)


def verdicts(found: Found) -> list[str]:
    """What the held-out runs say, in words."""
    searched = [one for one in found.candidates if one.name != BASELINE]
    if not searched:
        return ["No configuration was run again on held-out seeds: no winner is named."]
    order = ranked(searched)
    (best, best_score), seeds = order[0], min(len(of) for of in order[0][0].scores.values())
    said = [
        f"{best.name} is the best of {len(order)} on {seeds} held-out seeds: {best_score}"
        + (f"; the search saw {best.searched}." if best.searched else ".")
    ]
    if len(order) > 1:
        said.append(_beside(best, order[1][0], "the runner-up, "))
        said.append(
            f"The best of {len(order)} is chosen by these seeds as well, so its score leans upwards, though less than that of the "
            "search, which was the best of all trials."
        )
    baseline = next((one for one in found.candidates if one.name == BASELINE), None)
    if baseline is not None:
        said.append(_beside(best, baseline, "the preset as it is, "))
    return said


def _beside(best: Candidate, other: Candidate, what: str) -> str:
    difference = gap(best, other)
    if difference is None:
        return f"Against {what}{other.name}: one seed says nothing about a difference."
    interval = f"{difference.point:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
    if difference.low > 0:
        return f"It is above {what}{other.name}, by {interval}."
    if difference.high < 0:
        return f"It is below {what}{other.name}, by {interval}."
    return f"Against {what}{other.name}, the difference is {interval}: too close to call with these seeds."
