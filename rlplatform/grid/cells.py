"""A run of a grid, and where it stands by its folder alone: nothing of a grid is kept but the runs themselves."""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlplatform import config as configs
from rlplatform.runconfig import RunConfig, with_later_keys
from rlplatform.rundir import RunDirError, departure

LOG = "run.log"  # what a cell's process prints, in its run's folder
TAIL = 1 << 16  # bytes of metrics.jsonl that surely hold its last lines


@dataclass(frozen=True)
class Needs:
    """What one run asks for while it runs."""

    cpus: float = 1.0
    gpus: float = 0.0

    def __str__(self) -> str:
        cpus = f"{self.cpus:g} CPU{'' if self.cpus == 1 else 's'}"
        return cpus + (f" and {self.gpus:g} GPU{'' if self.gpus == 1 else 's'}" if self.gpus else "")


@dataclass(frozen=True)
class Cell:
    """One run of a grid: an ordinary run in an ordinary folder, started by an ordinary command."""

    config: RunConfig
    folder: Path
    command: tuple[str, ...]  # what follows `rlplatform`: "train", agent, task, ...
    needs: Needs = Needs()
    label: str = ""  # of its configuration, where a grid has several

    @property
    def task(self) -> str:
        """Without its family: "Pong"."""
        return self.config.task.rpartition("/")[2]

    @property
    def row(self) -> str:
        """What all seeds of it share: "Pong", or "t0007 Pong"."""
        return f"{self.label} {self.task}".strip()

    @property
    def name(self) -> str:
        return f"{self.row} seed {self.config.seed}"


@dataclass(frozen=True)
class Standing:
    """Where a run stands, read from its folder."""

    step: int = 0  # newest agent step that was logged
    saved: int = 0  # agent step of the newest checkpoint
    per_s: float = 0.0  # agent steps a second over the last line of metrics; 0: not known
    result: Mapping[str, Any] | None = None  # of a finished run


def check(cell: Cell) -> None:
    """Refuse a folder that holds a run of another configuration.

    Raises:
        RunDirError: naming the folder and the first line that differs.
    """
    file = cell.folder / "config.yaml"
    if not file.is_file():
        return
    there, asked = file.read_text(), configs.to_yaml(cell.config)
    if there != asked and (found := departure(with_later_keys(there), asked)):
        raise RunDirError(f"{cell.folder} holds a run of another configuration ({found}); give another --out")


def held(folder: Path) -> bool:
    """Whether a process has this run open, on this machine or on another that shares the file system."""
    try:
        with (folder / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def standing(cell: Cell) -> Standing:
    """Where a run stands. Reads a few files and changes nothing; the run may be under way.

    Raises:
        RunDirError: result.json is damaged.
    """
    folder = cell.folder
    try:
        text = (folder / "result.json").read_text()
    except FileNotFoundError:
        result = None
    else:
        try:
            result = json.loads(text)
        except json.JSONDecodeError as error:
            raise RunDirError(
                f"{folder / 'result.json'} is damaged ({error}); remove it to go on with the run"
            ) from None
    line = _last_line(folder / "metrics.jsonl", "charts/SPS")
    saved = max((int(one.name.removeprefix("step_")) for one in (folder / "checkpoints").glob("step_*")), default=0)
    if result is not None:
        return Standing(int(result["step"]), saved, float(line.get("charts/SPS", 0.0)), result)
    return Standing(max(int(line.get("step", 0)), saved), saved, float(line.get("charts/SPS", 0.0)))


def tail(folder: Path, lines: int = 12) -> str:
    """The end of what a cell's last attempt printed."""
    try:
        text = (folder / LOG).read_text(errors="replace")
    except FileNotFoundError:
        return "(it has no log)"
    attempt = text.rpartition("\n== ")[2] if "\n== " in text else text.removeprefix("== ")
    said = attempt.splitlines()[1:]  # the first is the command
    return "\n".join(said[-lines:]) or "(it printed nothing)"


def _last_line(file: Path, key: str) -> Mapping[str, Any]:
    """The last whole line of a .jsonl file that has `key`, or {}."""
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, size - TAIL))
            text = opened.read().decode(errors="replace")
    except FileNotFoundError:
        return {}
    for line in reversed(text.splitlines()):
        try:
            read = json.loads(line)
        except json.JSONDecodeError:  # the first of these lines, cut by the seek, or the last, not written to its end
            continue
        if isinstance(read, dict) and key in read:
            return read
    return {}
