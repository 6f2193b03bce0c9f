"""The files of published scores: `evaluation/references/`, and a folder of the user's own beside it (`own_folder`).

`*_runs.csv` has a row a run, `*_tables.csv` a row a published mean; the columns are COLUMNS and, in tables, any of EXTRA after
them. `sources.toml`, or `<name>.toml` beside an imported `<name>_runs.csv`, says where each agent's numbers come from.
"""

import csv
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent / "references"
COLUMNS = ["benchmark", "task", "agent", "run", "step", "score"]
EXTRA = ["low", "high", "std", "runs"]
AGENT_STEPS = "agent steps"
Runs = NDArray[np.float64]  # [R], one score a run
Key = tuple[str, str, str]  # benchmark, agent, task


class Mean(NamedTuple):
    """A published mean over runs, and what was published about its accuracy."""

    step: int | None  # None for players that did not learn
    score: float
    low: float | None  # ends of a 95 % interval
    high: float | None
    std: float | None  # over runs
    runs: int | None  # None: see Source.mean_of


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
    mean_of: int | None = None  # runs behind each published mean
    unit: str = AGENT_STEPS  # what `step` counts
    frame_skip: int | None = None  # frames an agent step
    imported: bool = False  # from the user's own folder, not shipped


@dataclass(frozen=True)
class Benchmark:
    """A set of tasks under one budget, and where a normalised score has its 0 and its 1."""

    name: str
    title: str  # as people write it
    steps: int  # agent steps of training
    frame_skip: int | None  # frames an agent step, where all agents have the same
    scale: str | tuple[float, float]  # names of the two ends in scales.csv, or the ends of every task
    scales_of: str  # the benchmark's name in scales.csv


@dataclass(frozen=True)
class Store:
    """All that a folder holds, by (benchmark, agent, task)."""

    runs: Mapping[Key, Mapping[int | None, Runs]] = field(default_factory=dict)  # by step
    means: Mapping[Key, tuple[Mean, ...]] = field(default_factory=dict)  # in order of step
    sources: tuple[Source, ...] = ()  # per-run data first within a benchmark


def own_folder() -> Path:
    """Where imported references lie: $RLPLATFORM_REFERENCES, or rlplatform/references in the user's data folder."""
    if given := os.environ.get("RLPLATFORM_REFERENCES"):
        return Path(given)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "rlplatform" / "references"


@cache
def benchmarks() -> dict[str, Benchmark]:
    """What scores were published on, by name."""
    listed = tomllib.loads((FOLDER / "sources.toml").read_text(encoding="utf-8"))["benchmarks"]
    return {
        name: Benchmark(
            name, facts["title"], facts["steps"], facts.get("frame_skip"),
            facts["scale"] if isinstance(facts["scale"], str) else (facts["scale"][0], facts["scale"][1]),
            facts.get("scales_of", name),
        )
        for name, facts in listed.items()
    }  # fmt: skip


@cache
def scales(benchmark: str) -> dict[str, tuple[float, float]]:
    """task -> (score that is 0, score that is 1). Random play and a human on Atari, random play and TD3 on Gym MuJoCo (both from
    arXiv:2501.16142 App. B.3), 0 and 1000 on DeepMind Control."""
    ends = benchmarks()[benchmark].scale
    if not isinstance(ends, str):
        return dict.fromkeys(sorted({task for name, _, task in shipped().means if name == benchmark}), ends)
    with (FOLDER / "scales.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["benchmark"] == benchmarks()[benchmark].scales_of]
    return {row["task"]: (float(row["low"]), float(row["high"])) for row in rows}


@cache
def shipped() -> Store:
    """What comes with the package."""
    return _load(FOLDER, imported=False)


def own() -> Store:
    """What the user has imported; read anew whenever its files change."""
    folder = own_folder()
    files = sorted(folder.glob("*")) if folder.is_dir() else []
    return _own(folder, tuple((file.name, file.stat().st_mtime_ns) for file in files))


@cache
def _own(folder: Path, _state: tuple[tuple[str, int], ...]) -> Store:
    return _load(folder, imported=True) if folder.is_dir() else Store()


def _load(folder: Path, *, imported: bool) -> Store:
    runs: dict[Key, dict[int | None, list[float]]] = {}
    means: dict[Key, list[Mean]] = {}
    for path in sorted(folder.glob("*_runs.csv")):
        for row in _rows(path):
            key = row["benchmark"], row["agent"], row["task"]
            runs.setdefault(key, {}).setdefault(_int(row["step"]), []).append(float(row["score"]))
    for path in sorted(folder.glob("*_tables.csv")):
        for row in _rows(path):
            low, high, std = (_float(row.get(name)) for name in ("low", "high", "std"))
            mean = Mean(_int(row["step"]), float(row["score"]), low, high, std, _int(row.get("runs")))
            means.setdefault((row["benchmark"], row["agent"], row["task"]), []).append(mean)
    frozen = {key: {step: _frozen(of[step]) for step in sorted(of, key=_order)} for key, of in runs.items()}
    ordered = {key: tuple(sorted(rows, key=lambda mean: _order(mean.step))) for key, rows in means.items()}
    return Store(frozen, ordered, tuple(_sources(folder, imported=imported)))


def _sources(folder: Path, *, imported: bool) -> Iterator[Source]:
    for path in sorted(folder.glob("*.toml")):
        agents = tomllib.loads(path.read_text(encoding="utf-8")).get("agents", {})
        for benchmark, listed in agents.items():
            for agent, facts in listed.items():
                yield Source(benchmark=benchmark, agent=agent, imported=imported, **facts)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or [])
        if names[: len(COLUMNS)] != COLUMNS or not set(names[len(COLUMNS) :]) <= set(EXTRA):
            raise ValueError(f"{path}: the columns must be {COLUMNS}, then any of {EXTRA}, got {reader.fieldnames}")
        return list(reader)


def _int(text: str | None) -> int | None:
    return int(text) if text else None


def _float(text: str | None) -> float | None:
    return float(text) if text else None


def _order(step: int | None) -> int:
    return -1 if step is None else step


def _frozen(scores: list[float]) -> Runs:
    array = np.array(scores, np.float64)
    array.flags.writeable = False  # shared by all callers
    return array
