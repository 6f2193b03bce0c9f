"""What a report compares: groups of runs of one agent under one protocol, from run folders, from files of scores, or published.

Runs of unlike protocols or configurations never share a group: each distinct one is a group whose name says what is unlike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlplatform.evaluation import protocols
from rlplatform.evaluation.published import agent_named, agent_tasks, benchmark_of, curve, published, source, task_name
from rlplatform.evaluation.runs import Run, find
from rlplatform.evaluation.stats import Floats
from rlplatform.evaluation.store import AGENT_STEPS, benchmarks
from rlplatform.evaluation.tidy import Record, read_scores

POINTS = 60  # of a training curve
WINDOW = 20  # training games that a point is the mean of


@dataclass(frozen=True)
class Curve:
    """How the runs of a task went: the same steps for all of them."""

    steps: Floats  # [P], agent steps
    scores: Floats  # [R, P], raw
    what: str  # "training games, mean of 20", "evaluations", "published means"


@dataclass(frozen=True)
class Group:
    """Runs of one agent under one protocol."""

    name: str  # unique in a report, short
    title: str  # as people write it
    benchmark: str | None  # None: of no benchmark that we know, so scores are raw
    scores: Mapping[str, Floats]  # task -> [R], the raw score of every run after training
    protocol: Mapping[str, Any]  # see protocols
    origin: str  # where it is from, in words, with its licence if published
    ours: bool  # not published
    means: bool = False  # `scores` are published means, one a task: of runs nothing is known
    curves: Mapping[str, Curve] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()

    @property
    def seeds(self) -> str:
        """Runs a task, in words: "5", "14", "2-3"; "means" where only they are known."""
        if self.means:
            return "means"
        counts = sorted({len(runs) for runs in self.scores.values()})
        return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def read_groups(paths: Sequence[Path], benchmark: str | None = None) -> list[Group]:
    """The groups in folders of runs and in files of scores, in the order given.

    Args:
        paths: run folders, folders of such, .csv and .json files.
        benchmark: whose tasks these are, where the first that has them all is not meant.

    Raises:
        ValueError: no run, a malformed file (with line and column), a task that the benchmark does not have.
    """
    groups: list[Group] = []
    folders = {path: _runs_under(path) for path in paths if path.is_dir()}
    among = [run for runs in folders.values() for run in runs]
    for path in paths:
        if path in folders:
            agents = by_agent(folders[path], benchmark, among)
            groups += [_of_runs(name, where, members, path) for name, where, members in agents]
        elif path.is_file():
            groups += _from_file(path, benchmark)
        else:
            raise FileNotFoundError(f"{path}: neither a folder of runs nor a file of scores")
    names = [group.name for group in groups]
    for name in {name for name in names if names.count(name) > 1}:
        same = [i for i, group in enumerate(groups) if group.name == name]
        for count, i in enumerate(same, start=1):
            groups[i] = replace(groups[i], name=f"{name} {count}", title=f"{groups[i].title} {count}")
    return groups


def gather(paths: Sequence[Path], against: Sequence[str] = (), benchmark: str | None = None) -> list[Group]:
    """The groups of a report: those in `paths`, then the published agents, under names that are all different.

    Args:
        paths: as for `read_groups`; may be empty, then the benchmark has to be named or is Atari-100k.
        against: published agents, or presets that re-implement one.
    """
    ours = read_groups(paths, benchmark)
    where = benchmark or (ours[0].benchmark if ours else "atari100k")
    if against and where is None:
        raise ValueError(f"nothing was published on {', '.join(ours[0].scores)}: there is nothing to compare with")
    if where is not None and where not in benchmarks():
        raise ValueError(f"no benchmark {where!r}; known: {', '.join(benchmarks())}")
    names = dict.fromkeys(agent_named(where, agent) for agent in against) if where is not None else {}
    theirs = [published_group(where, agent) for agent in names] if where is not None else []
    taken = {group.name for group in theirs}
    ours = [replace(group, name=f"{group.name} (ours)") if group.name in taken else group for group in ours]
    if not ours and not theirs:
        raise ValueError("nothing to report: name runs, files of scores, or published agents by --against")
    return [*ours, *theirs]


def published_group(benchmark: str, agent: str) -> Group:
    """The published scores of an agent as a group: its runs, or its means."""
    entry = source(benchmark, agent)
    listed = agent_tasks(benchmark, agent)
    rows = {task: curve(benchmark, agent, task) for task in listed}
    scores = {
        task: published(benchmark, agent, task) if entry.runs else np.array([rows[task][-1].score]) for task in listed
    }
    skip = entry.frame_skip or benchmarks()[benchmark].frame_skip
    per_step = skip if entry.unit == "frames" else 1 if entry.unit == AGENT_STEPS else None
    curves = {
        task: Curve(
            np.array([mean.step for mean in means], np.float64) / per_step,
            np.array([[mean.score for mean in means]]),
            "published means",
        )
        for task, means in rows.items()
        if per_step is not None and len(means) > 1 and means[0].step is not None
    }
    protocol = protocols.of_source(entry, benchmarks()[benchmark], {means[-1].step for means in rows.values()})
    origin = f"{entry.reference}. {entry.source} ({entry.licence})"
    return Group(agent, entry.title, benchmark, scores, protocol, origin, False, not entry.runs, curves)


def common_tasks(groups: Sequence[Group]) -> list[str]:
    """The tasks that every group has, in alphabetical order. ValueError if there is none, or of unlike benchmarks."""
    if len({group.benchmark for group in groups}) > 1:
        listed = ", ".join(f"{group.name}: {group.benchmark or 'none that is known'}" for group in groups)
        raise ValueError(f"one report is about one benchmark, got {listed}")
    tasks = sorted(set.intersection(*(set(group.scores) for group in groups)))
    if not tasks:
        raise ValueError(f"there is no task that all of {', '.join(group.name for group in groups)} have scores of")
    return tasks


def _runs_under(root: Path) -> list[Run]:
    runs = [Run(root)] if (root / "result.json").exists() else find(root)
    if not runs:
        raise ValueError(f"{root}: there is no finished run under it")
    return runs


def by_agent(
    runs: Sequence[Run], benchmark: str | None = None, among: Sequence[Run] = ()
) -> list[tuple[str, str | None, list[Run]]]:
    """(name, benchmark, its runs) of each agent: unlike protocols and configurations of a preset are agents of their own, whose names
    say what sets them apart from the others here and `among` those elsewhere."""
    kinds, others = _kinds(runs, benchmark), _kinds(among, benchmark)
    found = []
    for key, members in kinds.items():
        alike = {of: some[0] for of, some in (kinds | others).items() if of[1] == key[1] and of != key}
        found.append((key[1] + _what_is_unlike(members[0], list(alike.values())), key[0] or None, members))
    return found


def _kinds(runs: Sequence[Run], benchmark: str | None) -> dict[tuple[str, str, str, str], list[Run]]:
    """By benchmark, preset, protocol and configuration."""
    kinds: dict[tuple[str, str, str, str], list[Run]] = {}
    for run in runs:
        where = benchmark or benchmark_of(run.task)
        key = where or "", run.preset, repr(protocols.of_run(run)), repr(_flat(run.config["agent"]))
        kinds.setdefault(key, []).append(run)
    return kinds


def _of_runs(name: str, benchmark: str | None, runs: Sequence[Run], root: Path) -> Group:
    by_task: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: (run.task, run.seed)):
        by_task.setdefault(task_name(benchmark, run.task) if benchmark else run.game, []).append(run)
    for task, some in by_task.items():
        seeds = [run.seed for run in some]
        if twice := {seed for seed in seeds if seeds.count(seed) > 1}:
            folders = ", ".join(str(run.folder) for run in some if run.seed in twice)
            raise ValueError(f"seed {min(twice)} of {name} on {task} is there more than once: {folders}")
    scores = {task: np.array([run.final.score.mean() for run in some]) for task, some in by_task.items()}
    curves = {task: made for task, some in by_task.items() if (made := _curve(some)) is not None}
    count = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
    return Group(
        name, f"{name} (ours)", benchmark, scores, protocols.of_run(runs[0]), f"{count} under {root}", ours=True,
        curves=curves, runs=tuple(run for some in by_task.values() for run in some),
    )  # fmt: skip


def _curve(runs: Sequence[Run]) -> Curve | None:
    """Evaluations where all runs have the same three or more of them, or else training games."""
    steps = [np.unique(run.evals.step) for run in runs]
    if len(steps[0]) > 2 and all(np.array_equal(steps[0], other) for other in steps[1:]):
        scores = [[run.evals.at(int(step)).score.mean() for step in steps[0]] for run in runs]
        return Curve(steps[0].astype(np.float64), np.array(scores), "evaluations")
    if any(len(run.episodes) < WINDOW for run in runs):
        return None
    first = max(run.episodes[WINDOW - 1, 0] for run in runs)
    last = min(run.episodes[-1, 0] for run in runs)
    if not first < last:
        return None
    grid = np.linspace(first, last, POINTS)
    smooth = [_running(run.episodes, grid) for run in runs]
    return Curve(grid, np.stack(smooth), f"training games, mean of the last {WINDOW}")


def _running(episodes: Floats, grid: Floats) -> Floats:
    """At each step of the grid, the mean of the last WINDOW games that had ended by then."""
    means = np.convolve(episodes[:, 2], np.full(WINDOW, 1 / WINDOW), "valid")
    ended = np.searchsorted(episodes[:, 0], grid, side="right")
    return np.asarray(means[np.maximum(ended - WINDOW, 0)], np.float64)


def _from_file(path: Path, benchmark: str | None) -> list[Group]:
    by_agent: dict[str, list[Record]] = {}
    for record in read_scores(path):
        by_agent.setdefault(record.agent or path.stem, []).append(record)
    return [_of_records(agent, records, path, benchmark) for agent, records in by_agent.items()]


def _of_records(agent: str, records: Sequence[Record], path: Path, benchmark: str | None) -> Group:
    stated = {record.benchmark for record in records} - {None}
    if len(stated) > 1:
        raise ValueError(
            f"{path}: {agent} has scores of several benchmarks ({', '.join(sorted(map(str, stated)))}): a file each"
        )
    where = benchmark or next(iter(stated), None) or benchmark_of(records[0].task)
    if where is not None and where not in benchmarks():
        raise ValueError(f"{path}: no benchmark {where!r}; known: {', '.join(benchmarks())}")
    means = any(value is not None for record in records for value in (record.low, record.high, record.std, record.runs))
    table: dict[str, dict[str, dict[int, float]]] = {}  # task -> run -> step -> score
    counts: dict[tuple[str, int], int] = {}
    for record in records:
        task, step = task_name(where, record.task) if where else record.task, record.step or 0
        number = counts[task, step] = counts.get((task, step), -1) + 1
        table.setdefault(task, {}).setdefault(record.run if record.run is not None else str(number), {})[step] = (
            record.score
        )
    last = {max(of) for by_run in table.values() for of in by_run.values()}
    if len(last) > 1:
        raise ValueError(
            f"{path}: runs of {agent} end at unlike steps ({', '.join(f'{step:,}' for step in sorted(last))}): "
            "their final scores are of unlike budgets"
        )
    if means and any(len(by_run) > 1 for by_run in table.values()):
        raise ValueError(f"{path}: {agent} has several rows a task, and columns that only means have")
    scores = {task: np.array([of[max(of)] for of in by_run.values()]) for task, by_run in table.items()}
    curves = {task: made for task, by_run in table.items() if (made := _given_curve(by_run.values())) is not None}
    steps = {"steps": last.pop()} if last != {0} else {}
    return Group(agent, agent, where, scores, steps, f"the file {path.name}", ours=True, means=means, curves=curves)


def _given_curve(by_run: Iterable[Mapping[int, float]]) -> Curve | None:
    runs = list(by_run)
    steps = sorted(set.intersection(*(set(run) for run in runs)))
    if len(steps) < 3:
        return None
    return Curve(np.array(steps, np.float64), np.array([[run[step] for step in steps] for run in runs]), "as given")


def _what_is_unlike(run: Run, others: Sequence[Run]) -> str:
    """What sets a run's protocol and configuration apart from those of others of its preset, as " (key=value, ...)": the first fields that
    tell them all apart. A field that says no more than those before it, as one that follows from them, is left out."""
    all_of_them = [{**_flat(one.config["agent"]), **protocols.of_run(one)} for one in (run, *others)]
    words, told_apart = list[str](), [""] * len(all_of_them)
    for key, value in all_of_them[0].items():
        finer = [f"{told}\n{one.get(key)!r}" for told, one in zip(told_apart, all_of_them, strict=True)]
        if len(set(finer)) > len(set(told_apart)):
            words.append(f"{key}={value}")
            told_apart = finer
    if any(benchmark_of(other.task) != benchmark_of(run.task) for other in others):
        words.insert(0, benchmark_of(run.task) or run.task)
    return f" ({', '.join(words)})" if words else ""


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in config.items():
        out.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value})
    return out
