"""A finished run as reports and plots see it: read from its folder, never from memory.

`collect` copies what is worth keeping of a run, under `evaluation/results/<suite>/<preset>/<task>/seed_<n>/`: the files below,
logs thinned, no checkpoints. A collected run is a run to every function here.

    config.yaml protocol.json provenance.json result.json    as the run wrote them
    evals.csv       every evaluation episode
    episodes.csv    training episodes, at most KEEP, evenly spaced; where environments change, of each phase
    metrics.jsonl   at most KEEP lines of each kind (a kind is a set of keys), evenly spaced, the first and last among them
    collected.json  how many lines there were, and how many are here

A run that was cut short can be collected as a curve: it has no result.json, and nothing takes it for a result.
"""

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from rlplatform.evaluation.evals import Evals, read_evals

T = TypeVar("T")
KEEP = 500
WHOLE = ("config.yaml", "protocol.json", "provenance.json", "result.json", "evals.csv")
EPISODE_COLUMNS = ["step", "env", "score", "length"]


@dataclass(frozen=True)
class Run:
    """The folder of a run that is finished, or a collected one."""

    folder: Path
    cut_short: bool = False  # take a run that is not finished, too

    def __post_init__(self) -> None:
        for name in WHOLE:
            if not (self.folder / name).is_file() and not (self.cut_short and name == "result.json"):
                missing = "it is not finished" if name == "result.json" else f"{name} is missing"
                raise ValueError(f"{self.folder} is no finished run: {missing}")

    @cached_property
    def config(self) -> dict[str, Any]:
        loaded: Any = OmegaConf.to_container(OmegaConf.load(self.folder / "config.yaml"))
        return dict(loaded)

    @cached_property
    def protocol(self) -> dict[str, Any]:
        """The environment's protocol, and the evaluation's under "evaluation"."""
        return _json(self.folder / "protocol.json")

    @cached_property
    def provenance(self) -> dict[str, Any]:
        return _json(self.folder / "provenance.json")

    @cached_property
    def result(self) -> dict[str, Any]:
        """The summary of the final evaluation and where the time went."""
        return _json(self.folder / "result.json")

    @property
    def finished(self) -> bool:
        return (self.folder / "result.json").is_file()

    @property
    def preset(self) -> str:
        return str(self.config["preset"])

    @property
    def task(self) -> str:
        """As the command line takes it: "atari/Pong"."""
        return str(self.config["task"])

    @property
    def game(self) -> str:
        """The task without its family: "Pong"."""
        return self.task.rpartition("/")[2]

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @cached_property
    def evals(self) -> Evals:
        """All evaluation episodes."""
        return read_evals(self.folder / "evals.csv")

    @cached_property
    def final(self) -> Evals:
        """The episodes of the last evaluation."""
        if len(self.evals.step) == 0:
            raise ValueError(f"{self.folder / 'evals.csv'} holds no episode")
        return self.evals.at(int(self.evals.step.max()))

    @cached_property
    def episodes(self) -> NDArray[np.float64]:
        """Training episodes, [E, 4]: agent step at which it ended, environment, raw score, length."""
        path = self.folder / "episodes.csv"
        if not path.is_file():
            return np.zeros((0, 4))
        return np.array(_csv(path), np.float64).reshape(-1, 4)

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """The lines of metrics.jsonl."""
        return [json.loads(line) for line in _lines(self.folder / "metrics.jsonl")]

    def series(self, metric: str) -> NDArray[np.float64]:
        """[L, 2]: (step, value) of every line that has `metric`."""
        pairs = [(line["step"], line[metric]) for line in self.metrics if metric in line]
        return np.array(pairs, np.float64).reshape(-1, 2)


def collect(folder: Path, out: Path, *, cut_short: bool = False) -> Path:
    """Copy what is worth keeping of the finished run in `folder` (with `cut_short`, of one that is not) to `out`, which must
    not exist. See this module's docstring."""
    run = Run(folder, cut_short)
    if out.exists():
        raise FileExistsError(f"{out} exists: remove it to collect the run again")
    part = out.with_name(out.name + ".part")
    part.mkdir(parents=True)
    for name in WHOLE:
        if name != "result.json" or run.finished:
            shutil.copyfile(folder / name, part / name)
    counts: dict[str, dict[str, int]] = {}
    for name, text in (("metrics.jsonl", _thin_metrics(folder)), ("episodes.csv", _thin_episodes(run))):
        if text is not None:
            kept, there = text
            (part / name).write_text("".join(kept))
            counts[name] = {"lines": there, "kept": len(kept)}
    (part / "collected.json").write_text(json.dumps(counts, indent=2) + "\n")
    part.rename(out)
    return out


def find(root: Path, *, cut_short: bool = False) -> list[Run]:
    """The finished runs under `root`, in order of their path; with `cut_short` those that are not, too."""
    name = "config.yaml" if cut_short else "result.json"
    return [Run(file.parent, cut_short) for file in sorted(root.rglob(name))]


def _thin_metrics(folder: Path) -> tuple[list[str], int]:
    lines = _lines(folder / "metrics.jsonl")
    kinds: dict[tuple[str, ...], list[int]] = {}
    for number, line in enumerate(lines):
        kinds.setdefault(tuple(sorted(json.loads(line))), []).append(number)
    kept = sorted(number for kind in kinds.values() for number in _spread(kind))
    return [lines[number] + "\n" for number in kept], len(lines)


def _thin_episodes(run: Run) -> tuple[list[str], int] | None:
    path = run.folder / "episodes.csv"
    if not path.is_file():
        return None
    header, *lines = path.read_text().splitlines(keepends=True)
    if "phase_steps" not in run.protocol:
        return [header, *_spread(lines)], len(lines) + 1
    phase = int(run.protocol["phase_steps"]) * run.config["actors"] * run.config["envs"]  # agent steps
    phases: dict[int, list[str]] = {}  # one that has few games, as they are long, keeps them
    for line in lines:
        phases.setdefault(int(line.partition(",")[0]) // phase, []).append(line)
    return [header, *(line for games in phases.values() for line in _spread(games))], len(lines) + 1


def _spread(items: Sequence[T]) -> list[T]:
    """At most KEEP of them, evenly spaced, the first and the last included."""
    if len(items) <= KEEP:
        return list(items)
    return [items[i] for i in np.rint(np.linspace(0, len(items) - 1, KEEP)).astype(int)]


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from None
    if not isinstance(read, dict):
        raise ValueError(f"{path}: expected an object, got {type(read).__name__}")  # noqa: TRY004  # the file's fault
    return read


def _lines(path: Path) -> list[str]:
    """The lines of a .jsonl file, each checked to be an object with a step."""
    lines = path.read_text().splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            good = "step" in json.loads(line)
        except (json.JSONDecodeError, TypeError):
            good = False
        if not good:
            raise ValueError(f"{path}, line {number}: not a line of metrics: {line[:80]!r}")
    return lines


def _csv(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if header != EPISODE_COLUMNS:
        raise ValueError(f"{path}: the first line must be {','.join(EPISODE_COLUMNS)!r}, got {','.join(header)!r}")
    for number, row in enumerate(rows, start=2):
        try:
            good = len([float(field) for field in row]) == len(EPISODE_COLUMNS)
        except ValueError:
            good = False
        if not good:
            raise ValueError(f"{path}, line {number}: not a training episode: {','.join(row)!r}")
    return rows
