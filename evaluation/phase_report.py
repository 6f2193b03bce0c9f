"""Agents side by side on environments that change: what each scored in each phase, with intervals over seeds, and overall.

A run's score in a phase is the area under its curve there (`phases.Phase.area`): how well it did on the way, not where it ended.
Phases pay on different scales, so the overall score of a run is the mean over phases of its area divided by the baseline's mean
area there, less the phases in which a run of the baseline scored nothing: whole runs are resampled, since the phases of one run depend on each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rlplatform.evaluation import stats
from rlplatform.evaluation.phases import Phase, phases_of
from rlplatform.evaluation.plots import INK, OTHERS, OURS, THEIRS, new_figure, save, titles
from rlplatform.evaluation.runs import Run
from rlplatform.evaluation.stats.bootstrap import Plan, check_runs, make_interval
from rlplatform.evaluation.stats.samples import lay_out

COLOURS = (OTHERS, OURS, THEIRS, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's; the baseline in gray
ALL = "all"  # the name of what is not a phase, among tasks of the statistics


@dataclass(frozen=True)
class PhaseTable:
    """Runs of several agents on one task, cut by the same phases."""

    task: str
    names: tuple[str, ...]  # of the phases: the game played, where the protocol says so
    baseline: str
    phases: Mapping[str, list[list[Phase]]]  # by agent, of each run
    seeds: Mapping[str, tuple[int, ...]]

    @cached_property
    def counted(self) -> tuple[int, ...]:
        """The phases, from 0, that are whole and in which games ended by themselves in every run: the others have no score."""
        return _counted(self.phases)

    def areas(self, agent: str) -> NDArray[np.float64]:
        """[runs, phases that count]."""
        return np.array([[run[k].area for k in self.counted] for run in self.phases[agent]])

    def scores(self, agent: str) -> dict[str, NDArray[np.float64]]:
        """Of each phase that counts, by its number from 1, areas of all runs."""
        return {str(k + 1): column for k, column in zip(self.counted, self.areas(agent).T, strict=True)}

    @cached_property
    def measured(self) -> tuple[int, ...]:
        """Of the phases that count those in which areas can be had in units of the baseline's: each of its runs has a positive one, so
        that every resample of them has."""
        return tuple(k for k in self.counted if all(run[k].area > 0.0 for run in self.phases[self.baseline]))

    def measured_areas(self, agent: str) -> NDArray[np.float64]:
        """[runs, phases that are measured].

        Raises:
            ValueError: there is none.
        """
        if not self.measured:
            raise ValueError(
                f"{self.baseline} has a run without a positive area in every phase: nothing is in units of it"
            )
        return np.array([[run[k].area for k in self.measured] for run in self.phases[agent]])

    def overall(self, agent: str) -> dict[str, NDArray[np.float64]]:
        """Of each run, the mean over the phases that are measured of its area in units of the baseline's mean area there. Raises as
        `measured_areas`."""
        return {ALL: (self.measured_areas(agent) / self.measured_areas(self.baseline).mean(0)).mean(1)}


def gather(runs: Sequence[Run], baseline: str = "") -> PhaseTable:
    """Cut runs by their phases and group them by agent.

    Args:
        runs: of one task and protocol, finished, all with as many phases.
        baseline: the agent (a preset's name) in whose units overall scores are; the first one by default.

    Raises:
        ValueError: no runs, unlike tasks, protocols or numbers of phases, two runs of one agent and seed, no such baseline.
    """
    if not runs:
        raise ValueError("no runs")
    first = runs[0]
    phases: dict[str, list[list[Phase]]] = {}
    seeds: dict[str, tuple[int, ...]] = {}
    for run in runs:
        if _same(run) != _same(first):
            raise ValueError(
                f"{run.folder} and {first.folder} are not of one task, protocol and length of phases in agent steps"
            )
        found = phases_of(run)
        if phases and len(found) != len(phases[first.preset][0]):
            raise ValueError(f"{run.folder} has {len(found)} phases, {first.folder} has {len(phases[first.preset][0])}")
        if run.seed in seeds.get(run.preset, ()):
            raise ValueError(f"{run.folder}: another run of {run.preset} has seed {run.seed}, too")
        phases.setdefault(run.preset, []).append(found)
        seeds[run.preset] = (*seeds.get(run.preset, ()), run.seed)
    if baseline and baseline not in phases:
        raise ValueError(f"no runs of the baseline {baseline!r}; there are {', '.join(phases)}")
    if not _counted(phases):
        raise ValueError(
            "no phase is whole and had games that ended by themselves in every run: nothing can be compared"
        )
    names = tuple(_name(first.protocol, phase.number) for phase in phases[first.preset][0])
    return PhaseTable(first.task, names, baseline or first.preset, phases, seeds)


def to_markdown(table: PhaseTable, **how: Unpack[stats.How]) -> str:
    """Areas of each phase and overall with intervals over runs, steps to recover, P(improvement) over the baseline."""
    agents = list(table.phases)
    per_phase = {agent: stats.task_intervals(table.scores(agent), **how) for agent in agents}
    lines = [
        f"{table.task}: area under the training curve by phase, mean over runs [{100 * Plan(**how).confidence:g} % interval]",
        "",
        f"| phase | {' | '.join(f'{agent}, {len(table.phases[agent])} runs' for agent in agents)} |",
        "|---" * (len(agents) + 1) + "|",
    ]
    for k, name in enumerate(table.names):
        cells = [_cell(per_phase[agent][str(k + 1)]) if k in table.counted else "-" for agent in agents]
        lines.append(f"| {k + 1} {name} | {' | '.join(cells)} |".replace("  ", " "))
    if table.measured:
        cells = ["1" if agent == table.baseline else _cell(ratio(table, agent, **how), 3) for agent in agents]
        lines.append(f"| all, {table.baseline} = 1 | {' | '.join(cells)} |")
        ours = table.overall(table.baseline)
        better = [
            "-" if agent == table.baseline else _cell(stats.improvement(table.overall(agent), ours, **how))
            for agent in agents
        ]
        lines.append(f"| P(better than {table.baseline}) | {' | '.join(better)} |")
    lines.append(f"| recovered, of phases with a loss | {' | '.join(_recovered(table, agent) for agent in agents)} |")
    if unmeasured := [str(k + 1) for k in table.counted if k not in table.measured]:
        lines += [
            "",
            f"Overall leaves out phases {', '.join(unmeasured)}: a run of {table.baseline} has no positive area there.",
        ]
    if left_out := [str(k + 1) for k in range(len(table.names)) if k not in table.counted]:
        lines += [
            "",
            f"Phases {', '.join(left_out)} do not count: in some run no game ended there by itself, or the budget ended within.",
        ]
    return "\n".join(lines) + "\n"


def ratio(table: PhaseTable, agent: str, **how: Unpack[stats.How]) -> stats.Interval:
    """The mean over phases of an agent's mean area over the baseline's, with its interval: runs of both are drawn anew in each resample,
    so that the chance in the baseline's runs counts, too.

    Raises:
        ValueError: as PhaseTable.overall, and fewer than 3 runs of one of them without `few_seeds`.
    """
    plan = Plan(**how)
    check_runs(plan, lay_out(table.scores(agent)), lay_out(table.scores(table.baseline)))
    mine, base = table.measured_areas(agent), table.measured_areas(table.baseline)
    draws = np.random.Generator(np.random.Philox(plan.seed))

    def drawn(areas: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(areas[draws.integers(len(areas), size=(plan.reps, len(areas)))].mean(1))

    samples = (drawn(mine) / drawn(base)).mean(1)
    point = np.asarray((mine.mean(0) / base.mean(0)).mean())
    return make_interval(point, samples, plan, np.array([len(mine)]), np.array([len(base)]))


def plot(table: PhaseTable, path: Path, **how: Unpack[stats.How]) -> Figure:
    """Areas in units of the baseline's, where they can be had, phase by phase and overall: a dot an agent with its interval over runs. Into a .png or .svg."""
    fig, (panel,) = new_figure(1, height=4.8)
    overall = bool(table.measured)
    drawn = table.measured or table.counted
    columns = [f"{k + 1}\n{table.names[k]}" for k in drawn] + ["all"] * overall
    width = 0.7 / len(table.phases)
    for i, (agent, colour) in enumerate(zip(table.phases, cycle(COLOURS), strict=False)):
        of_phases = stats.task_intervals(table.scores(agent), **how)
        found = [of_phases[str(k + 1)] for k in drawn]
        units = [*table.measured_areas(table.baseline).mean(0), 1.0] if overall else [1.0] * len(found)
        if overall:
            one = stats.Interval(1.0, 1.0, 1.0, 0.95)
            found.append(one if agent == table.baseline else ratio(table, agent, **how))
        x = np.arange(len(columns)) + (i - (len(table.phases) - 1) / 2) * width
        panel.vlines(
            x,
            [one.low / unit for one, unit in zip(found, units, strict=True)],
            [one.high / unit for one, unit in zip(found, units, strict=True)],
            color=colour, linewidth=3.0, alpha=0.45,
        )  # fmt: skip
        panel.plot(
            x, [one.point / unit for one, unit in zip(found, units, strict=True)], "o", color=colour, label=agent
        )
    if overall:
        panel.axhline(1.0, color=OTHERS, linewidth=1.0)
        panel.axvline(len(columns) - 1.5, color=OTHERS, linewidth=1.0)
        panel.set_ylim(bottom=0.0)
    panel.set_xticks(range(len(columns)), columns, fontsize=9)
    panel.set_ylabel(f"area, {table.baseline} = 1" if overall else "area", color=INK)
    panel.legend(frameon=False, fontsize=9, ncols=2)
    runs = sorted({len(runs) for runs in table.phases.values()})
    counted = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    titles(
        fig,
        f"{table.task}, by phase",
        f"area under the training curve; bars: {100 * Plan(**how).confidence:g} % over {counted} runs",
    )
    save(fig, path)
    return fig


def _counted(phases: Mapping[str, list[list[Phase]]]) -> tuple[int, ...]:
    runs = [run for agent in phases.values() for run in agent]
    return tuple(k for k in range(len(runs[0])) if all(run[k].whole and run[k].games for run in runs))


def _same(run: Run) -> tuple[Any, ...]:
    """What runs must have in common: the task, the protocol, and the length of a phase in agent steps, not in each environment's."""
    protocol = {
        name: value for name, value in run.protocol.items() if name != "evaluation"
    }  # training curves are compared
    steps = protocol.pop("phase_steps", 0) * run.config["actors"] * run.config["envs"]
    return run.task, protocol, steps


def _name(protocol: Mapping[str, Any], phase: int) -> str:
    games = protocol.get("games")
    return str(games[phase % len(games)]) if games else ""


def _cell(found: stats.Interval, digits: int = 2) -> str:
    return f"{found.point:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _recovered(table: PhaseTable, agent: str) -> str:
    """How many of the phases that count in which something had been lost got it back, and the median of their steps."""
    steps = np.array([run[k].recovery for run in table.phases[agent] for k in table.counted])
    lost = steps[(steps > 0.0) & ~np.isnan(steps)]
    back = lost[np.isfinite(lost)]
    return f"{len(back)} of {len(lost)}" + (f", median {np.median(back):,.0f} steps" if len(back) else "")
