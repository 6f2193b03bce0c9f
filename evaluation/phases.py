"""Learning in environments that change, read from training episodes: return, area under the curve and steps to recover, by phase.

A phase is `phase_steps` steps of each environment, so `phase_steps` times the number of environments in agent steps of the run. Scores are of
whole games: what is cut short where a phase ends is counted, and left out of every mean.

    for phase in phases_of(Run(folder)):
        print(phase.number, phase.score, phase.area, phase.recovery)
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlplatform.envs import suite_of
from rlplatform.evaluation.runs import Run

LAST = 0.2  # the part of a phase whose mean is the level that it reached


@dataclass(frozen=True)
class Phase:
    """What a run did in one phase. Scores are raw; NaN where there is nothing to say."""

    number: int
    start: int  # agent steps of the run before it
    stop: int  # ... and up to its end, or the run's
    games: int  # that ended in it by themselves
    whole: bool  # the run played all of it
    cut: int  # that ended on its very last step: cut short there, but for what happened to end just then
    score: float  # mean of those games
    area: float  # mean height of `curve`: the area under it over the phase's length, in units of the score
    level: float  # mean of the last fifth of `curve`
    recovery: float  # agent steps from `start` until `curve` was back; 0: nothing was lost, inf: not in this phase
    curve: NDArray[np.float64]  # [bins]: mean score of the games that ended in each equal part of the phase


def by_phase(
    episodes: NDArray[np.float64],
    *,
    envs: int,
    phase_steps: int,
    steps: int,
    first_phase: int = 0,
    cycle: int = 0,
    bins: int = 20,
    fraction: float = 0.9,
) -> list[Phase]:
    """Cut a run's training episodes by phase.

    A part of a phase in which no game ended takes the mean of the part before it, or, where there is none, of the first part that has one.

    `recovery` asks when the agent was back at the level that it had reached before: in the last phase that was the same (`cycle` phases ago) or,
    without a cycle, in the phase before. Where the curve begins at f and that level was l, it is back in the first part with a mean
    of f + fraction (l - f) or more, and the steps are counted to the end of that part.

    Args:
        episodes: [E, 4] as `Run.episodes`: agent step at which a game ended, environment, score, length.
        envs: of the run, all actors together.
        phase_steps: steps of each environment in a phase.
        steps: agent steps of the run so far.
        first_phase: number of the phase in which it began.
        cycle: after how many phases the same ones come again; 0: never.
        bins: parts of a phase.
        fraction: of what was lost, in (0, 1].

    Returns:
        The phases in order, the last one perhaps not at its end.

    Raises:
        ValueError: an argument outside its range, or an episode that ended after `steps` or between two steps of its environments.
    """
    for name, value in (("envs", envs), ("phase_steps", phase_steps), ("bins", bins)):
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    if steps < 0 or first_phase < 0 or cycle < 0:
        raise ValueError(f"steps, first_phase and cycle must be >= 0, got {steps}, {first_phase} and {cycle}")
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction must lie in (0, 1], got {fraction}")
    ended = np.asarray(episodes, np.float64).reshape(-1, 4)
    at, score = ended[:, 0], ended[:, 2]
    if (at % envs != 0).any() or (at < 1).any() or (at > steps).any():
        raise ValueError(f"an episode ends at a multiple of {envs} environments, at most at step {steps}")

    length = phase_steps * envs
    whole = at % length != 0
    phases: list[Phase] = []
    for k in range(-(-steps // length)):
        start, stop = k * length, min((k + 1) * length, steps)
        here = (at > start) & (at <= stop)
        counted = here & whole
        # The part of an episode's last step: parts are [a, b) of steps counted from 0, the last step is at - envs.
        part = ((at[counted] - envs - start) * bins // length).astype(np.int64)
        curve = _filled(part, score[counted], -(-(stop - start) * bins // length))
        tail = curve[-max(1, round(LAST * bins)) :]
        before = phases[k - (cycle or 1)].level if k >= (cycle or 1) else math.nan
        phases.append(
            Phase(
                number=first_phase + k, start=start, stop=stop, games=int(counted.sum()), whole=stop - start == length, cut=int((here & ~whole).sum()),
                score=float(score[counted].mean()) if counted.any() else math.nan,
                area=float(curve.mean()), level=float(tail.mean()),
                recovery=_recovery(curve, before, fraction, length / bins), curve=curve,
            )
        )  # fmt: skip
    return phases


def phases_of(run: Run, bins: int = 20, fraction: float = 0.9) -> list[Phase]:
    """The phases of a run on a suite `continual-*`, by its own protocol. A collected run has up to 500 evenly spaced episodes
    of each phase: its means are of these, and `games` and `cut` count them.

    Raises:
        ValueError: nothing changes in the run's environments.
    """
    kind: Any = type(suite_of(run.task).protocol)
    fields = {field.name for field in dataclasses.fields(kind)}
    if "phase_steps" not in fields:
        raise ValueError(f"{run.folder}: {run.task} has no phases")
    protocol = kind(**{name: value for name, value in run.protocol.items() if name in fields})
    return by_phase(
        run.episodes, envs=run.config["actors"] * run.config["envs"], phase_steps=protocol.phase_steps, steps=_steps(run),
        first_phase=protocol.first_phase, cycle=protocol.cycle, bins=bins, fraction=fraction,
    )  # fmt: skip


def _steps(run: Run) -> int:
    """Agent steps that the run made: whole rounds, so perhaps more than it was asked for; of one cut short, those it logged."""
    if run.finished:
        a_round = run.config["actors"] * run.config["envs"] * run.config["rollout"]
        return int(-(-run.config["steps"] // a_round) * a_round)
    logged = [int(line["step"]) for line in run.metrics]
    return max([*logged, *run.episodes[:, 0].astype(int).tolist()], default=0)


def _filled(part: NDArray[np.int64], score: NDArray[np.float64], parts: int) -> NDArray[np.float64]:
    """[parts] means by part; where there is none, that of the nearest part before, else of the first that has one."""
    count = np.bincount(part, minlength=parts)
    there = np.flatnonzero(count)
    if not there.size:
        return np.full(parts, np.nan)
    mean = np.bincount(part, score, minlength=parts)[there] / count[there]
    source = np.maximum(np.searchsorted(there, np.arange(parts), side="right") - 1, 0)
    return np.asarray(mean[source], np.float64)


def _recovery(curve: NDArray[np.float64], before: float, fraction: float, width: float) -> float:
    """Agent steps until the curve was back at `before`. See by_phase."""
    if math.isnan(before) or math.isnan(curve[0]):
        return math.nan
    first = float(curve[0])
    if first >= before:
        return 0.0
    back = np.flatnonzero(curve >= first + fraction * (before - first))
    return float((back[0] + 1) * width) if back.size else math.inf
