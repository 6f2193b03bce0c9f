"""Published scores, offline: `evaluation/references/` read by benchmark, agent and task.

Most agents come with every run of theirs (`published`), the others with a table of means (`published_mean`). Run counts differ
from agent to agent, and a comparison has to accept that.
"""

import csv
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlplatform.evaluation import stats

FOLDER = Path(__file__).parent / "references"
REPS = 10_000  # of an evaluation's interval: its ends are then known to 0.03 standard errors
COLUMNS = ["benchmark", "task", "agent", "run", "step", "score"]
Runs = NDArray[np.float64]  # [R], one score a run


@dataclass(frozen=True)
class Source:
    """Where an agent's published scores come from."""

    benchmark: str
    agent: str  # as in the files
    title: str  # as people write it
    reference: str
    source: str
    licence: str
    runs: int  # a task; 0 where only means were published
    protocol: Mapping[str, Any]  # what is known of it


def sources() -> tuple[Source, ...]:
    """Everything that is shipped, per-run data first."""
    with (FOLDER / "sources.toml").open("rb") as file:
        listed = tomllib.load(file)["agents"]
    return tuple(Source(benchmark="atari100k", agent=agent, **facts) for agent, facts in listed.items())


def source(benchmark: str, agent: str) -> Source:
    """The entry of one agent. ValueError, with what there is, for an agent that is not shipped."""
    known = {entry.agent: entry for entry in sources() if entry.benchmark == benchmark}
    if agent not in known:
        there = ", ".join(sorted(known)) or "none"
        raise ValueError(f"no published scores of {agent!r} on {benchmark!r}; there are: {there}")
    return known[agent]


def tasks(benchmark: str) -> tuple[str, ...]:
    """The benchmark's tasks, by the names that this project uses."""
    return tuple(dict.fromkeys(task for name, _, task in _runs() if name == benchmark))


def task_name(benchmark: str, alias: str) -> str:
    """This project's name for a task in anybody's spelling: "atari/BankHeist", "ALE/BankHeist-v5", "BankHeistNoFrameskip-v4",
    "bank_heist", "Bank Heist" are BankHeist. ValueError if there is no such task."""
    names = {_bare(task): task for task in tasks(benchmark)}
    if _bare(alias) not in names:
        raise ValueError(f"{benchmark} has no task {alias!r}; it has: {', '.join(names.values()) or 'none'}")
    return names[_bare(alias)]


def published(benchmark: str, agent: str, task: str) -> Runs:
    """The final score of every published run, [R], in the order of the source. ValueError where only a mean is known."""
    runs = _runs().get((benchmark, agent, task_name(benchmark, task)))
    if runs is None:
        source(benchmark, agent)
        raise ValueError(f"of {agent!r} only means were published: ask published_mean")
    return runs


def published_runs(benchmark: str, agent: str) -> dict[str, Runs]:
    """All tasks of an agent: task -> runs."""
    return {task: published(benchmark, agent, task) for task in tasks(benchmark)}


def published_mean(benchmark: str, agent: str, task: str) -> float:
    """The published score of a task: the mean over runs, or the table's entry where the runs are not public."""
    source(benchmark, agent)
    key = benchmark, agent, task_name(benchmark, task)
    return _tables()[key] if key in _tables() else float(_runs()[key].mean())


def percentile(score: float, runs: Runs) -> float:
    """Where `score` stands within `runs`, in [0, 100]: the share of runs below it, those equal to it counted half."""
    return 100.0 * float(np.mean(runs < score) + 0.5 * np.mean(runs == score))


def benchmark_of(task: str) -> str | None:
    """The benchmark whose published scores hold this task, by any name; None where nothing was published."""
    for benchmark in dict.fromkeys(entry.benchmark for entry in sources()):
        with suppress(ValueError):
            task_name(benchmark, task)
            return benchmark
    return None


def counterpart(benchmark: str, preset: str) -> str | None:
    """The published agent with runs that a preset of ours re-implements: of the same name ("der"), or of that name and a
    qualifier ("bbf": bbf_rr2); None where there is none."""
    agents = [entry.agent for entry in sources() if entry.benchmark == benchmark and entry.runs]
    return next((agent for agent in agents if agent == preset), None) or next(
        (agent for agent in agents if agent.startswith(preset + "_rr")), None
    )


@dataclass(frozen=True)
class Standing:
    """One run of ours within the published runs of a task."""

    score: stats.Interval  # mean over its episodes; the interval is that of the episodes' chance alone
    percentile: float  # of the mean
    percentile_low: float  # of the interval's ends
    percentile_high: float
    runs: Runs  # theirs


def standing(episodes: Runs, runs: Runs, seed: int = 0) -> Standing:
    """Where the mean of our episodes, [E], stands within published runs, each of which is such a mean too. It is one draw
    from the distribution over training seeds: a percentile anywhere in (2.5, 97.5) is what a faithful agent gives."""
    score = stats.interval({"episodes": episodes}, stats.mean, reps=REPS, seed=seed, few_seeds=True)
    return Standing(
        score, percentile(score.point, runs), percentile(score.low, runs), percentile(score.high, runs), runs
    )


@cache
def _runs() -> dict[tuple[str, str, str], Runs]:
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in _rows(FOLDER / "atari100k_runs.csv"):
        found.setdefault((row["benchmark"], row["agent"], row["task"]), []).append(float(row["score"]))
    out = {key: np.array(scores) for key, scores in found.items()}
    for runs in out.values():
        runs.flags.writeable = False  # shared by all callers
    return out


@cache
def _tables() -> dict[tuple[str, str, str], float]:
    rows = _rows(FOLDER / "atari100k_tables.csv")
    return {(row["benchmark"], row["agent"], row["task"]): float(row["score"]) for row in rows}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != COLUMNS:
            raise ValueError(f"{path}: the columns must be {COLUMNS}, got {reader.fieldnames}")
        return list(reader)


def _bare(name: str) -> str:
    """A game's name without the ornaments of any registry."""
    name = name.rpartition("/")[2]
    name = re.sub(r"((NoFrameskip|Deterministic)?-(ram-)?v\d+)$", "", name)
    return re.sub(r"[^a-z0-9]", "", name.lower())
