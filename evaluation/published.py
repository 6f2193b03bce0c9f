"""Published scores, offline: what lies in `evaluation/references/` and what the user has imported, by benchmark, agent and task.

Some agents come with every run of theirs (`published`), the others with a table of means (`published_mean`, `curve`). Run counts
differ from agent to agent and from task to task, and a comparison has to accept that.
"""

import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import numpy as np

from rlplatform.envs import suite_of
from rlplatform.evaluation import stats
from rlplatform.evaluation.store import FOLDER, Mean, Runs, Source, own, shipped

REPS = 10_000  # of an evaluation's interval: its ends are then known to 0.03 standard errors
PREFIX = re.compile(r"^(atari|dmc|gym|ale)[-_]", re.IGNORECASE)


def sources() -> tuple[Source, ...]:
    """Everything that is shipped, then everything that was imported."""
    return (*shipped().sources, *own().sources)


def source(benchmark: str, agent: str) -> Source:
    """The entry of one agent. ValueError, with what there is, for an agent that is not there."""
    known = {entry.agent: entry for entry in sources() if entry.benchmark == benchmark}
    if agent not in known:
        there = ", ".join(sorted(known)) or "none"
        raise ValueError(f"no published scores of {agent!r} on {benchmark!r}; there are: {there}")
    return known[agent]


def tasks(benchmark: str) -> tuple[str, ...]:
    """The benchmark's tasks, by the names that this project uses."""
    return tuple(_names(benchmark).values())


def agent_tasks(benchmark: str, agent: str) -> tuple[str, ...]:
    """Those tasks of the benchmark that something was published on for this agent."""
    source(benchmark, agent)
    return tuple(task for task in tasks(benchmark) if _runs(benchmark, agent, task) or _means(benchmark, agent, task))


def task_name(benchmark: str, alias: str) -> str:
    """This project's name for a task in anybody's spelling: "atari/BankHeist", "ALE/BankHeist-v5", "BankHeistNoFrameskip-v4",
    "atari_bank_heist", "Bank Heist" are BankHeist. ValueError if there is no such task."""
    names, aliases = _names(benchmark), _aliases(benchmark)
    for spelled in (alias, PREFIX.sub("", alias)):
        bare = _bare(spelled)
        if found := names.get(bare) or names.get(_bare(aliases.get(bare, ""))):
            return found
    raise ValueError(f"{benchmark} has no task {alias!r}; it has: {', '.join(names.values()) or 'none'}")


def published(benchmark: str, agent: str, task: str, step: int | None = None) -> Runs:
    """The score of every published run, [R], in the order of the source: after training, or at `step` in the source's unit.
    ValueError where only means are known, or nothing at that step or on that task."""
    task = task_name(benchmark, task)
    by_step = _runs(benchmark, agent, task)
    if not by_step:
        source(benchmark, agent)
        if _means(benchmark, agent, task):
            raise ValueError(f"of {agent!r} only means were published: ask published_mean")
        raise ValueError(f"nothing was published of {agent!r} on {task}")
    if step is not None and step not in by_step:
        raise ValueError(f"{agent!r} on {task} has no runs at step {step}; there are: {', '.join(map(str, by_step))}")
    return by_step[step] if step is not None else list(by_step.values())[-1]


def published_runs(benchmark: str, agent: str) -> dict[str, Runs]:
    """All tasks of an agent: task -> runs."""
    return {task: published(benchmark, agent, task) for task in agent_tasks(benchmark, agent)}


def published_mean(benchmark: str, agent: str, task: str, step: int | None = None) -> float:
    """The published score of a task, after training or at `step`: the mean over runs, or the table's entry where the runs are
    not public."""
    rows = curve(benchmark, agent, task)
    found = [row for row in rows if step is None or row.step == step]
    if not found:
        there = ", ".join(str(row.step) for row in rows) or "none"
        raise ValueError(f"{agent!r} on {task} has no score at step {step}; there are: {there}")
    return found[-1].score


def curve(benchmark: str, agent: str, task: str) -> tuple[Mean, ...]:
    """The published means in order of step: of a table, or over runs with their standard deviation."""
    source(benchmark, agent)
    task = task_name(benchmark, task)
    if means := _means(benchmark, agent, task):
        return means
    return tuple(
        Mean(step, float(runs.mean()), None, None, float(runs.std(ddof=1)) if len(runs) > 1 else None, len(runs))
        for step, runs in _runs(benchmark, agent, task).items()
    )


def run_count(entry: Source) -> str:
    """How many runs a task there are, in words: "100 runs", "means of 2-3 runs", "means"."""
    if entry.runs:
        return f"{entry.runs} runs"
    listed = agent_tasks(entry.benchmark, entry.agent)
    behind = {mean.runs or entry.mean_of for task in listed for mean in curve(entry.benchmark, entry.agent, task)}
    counts = sorted(count for count in behind if count is not None)
    return f"means of {'-'.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} runs" if counts else "means"


def percentile(score: float, runs: Runs) -> float:
    """Where `score` stands within `runs`, in [0, 100]: the share of runs below it, those equal to it counted half."""
    return 100.0 * float(np.mean(runs < score) + 0.5 * np.mean(runs == score))


def benchmark_of(task: str) -> str | None:
    """The benchmark of the suite by which a task of ours is played ("atari57-mrq/Pong"; that of "minatar/Breakout" has none), or for
    any other name the first whose published scores hold this task; None where nothing was published."""
    with suppress(ValueError):
        return suite_of(task).benchmark
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


def agent_named(benchmark: str, name: str) -> str:
    """The published agent of this name, or else the one that a preset of this name re-implements ("bbf": "bbf_rr2").

    Raises:
        ValueError: neither is there; the message says what is.
    """
    known = {entry.agent for entry in sources() if entry.benchmark == benchmark}
    found = name if name in known else counterpart(benchmark, name) or name
    return source(benchmark, found).agent


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


def _runs(benchmark: str, agent: str, task: str) -> Mapping[int | None, Runs]:
    key = benchmark, agent, task
    return shipped().runs.get(key) or own().runs.get(key, {})


def _means(benchmark: str, agent: str, task: str) -> tuple[Mean, ...]:
    key = benchmark, agent, task
    return shipped().means.get(key) or own().means.get(key, ())


@cache
def _names(benchmark: str) -> dict[str, str]:
    """Bare name -> task, of the shipped files alone: an import is spelled by them."""
    listed = {task for name, _, task in (*shipped().runs, *shipped().means) if name == benchmark}
    return {_bare(task): task for task in sorted(listed)}


@cache
def _aliases(benchmark: str) -> dict[str, str]:
    families: dict[str, dict[str, str]] = tomllib.loads((FOLDER / "aliases.toml").read_text(encoding="utf-8"))
    return next((table for family, table in families.items() if benchmark.startswith(family)), {})


def _bare(name: str) -> str:
    """A task's name without the ornaments of any registry."""
    name = name.rpartition("/")[2]
    name = re.sub(r"((NoFrameskip|Deterministic)?-(ram-)?v\d+)$", "", name)
    return re.sub(r"[^a-z0-9]", "", name.lower())
