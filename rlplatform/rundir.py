"""One run on disk, safe to kill at any byte.

    config.yaml        the resolved configuration; protocol.json, provenance.json beside it
    metrics.jsonl      one object a line, each with "step" (agent steps); TensorBoard's events/ repeat it
    evals.csv          every evaluation episode; episodes.csv every game of training
    result.json        the final evaluation; it is there if and only if the run is finished
    checkpoints/       step_<n>/ (the state, where the logs stood) and replay/ (append-only segments that they share)

A checkpoint is written beside, forced to the disk and renamed, so it is there whole or not at all. Opening a run cuts the
logs back to its last checkpoint: what was logged after it will be logged again, equal bit for bit.
"""

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rlplatform import statefile
from rlplatform.replay import Replay
from rlplatform.segments import sync_folder
from rlplatform.types import State

KEEP_CHECKPOINTS = 2  # the last, and the one before it
LOCK_TRIES, LOCK_PAUSE_S = 10, 0.02


class RunDirError(RuntimeError):
    """A run directory that cannot be used as asked; the message says why, and what is still good."""


class RunDir:
    """A run's folder, locked for this process while it is open."""

    def __init__(
        self,
        path: Path,
        files: Mapping[str, str],
        logs: Mapping[str, str],
        complete: Callable[[str], str] = lambda text: text,
    ) -> None:
        """Open or create a run; unless it is finished, cut its logs back to its last checkpoint.

        Args:
            path: the folder.
            files: name -> text, written when the run is new. A run that is there must hold the same text under each name
                that ends in ".yaml" or "protocol.json", but for the device: another configuration may not go on in its place.
            logs: name -> first line, of the append-only files beside metrics.jsonl.
            complete: a configuration that an older version wrote -> the same with the keys that have come since.
        """
        self.path, self._complete = path, complete
        self._events: _Events | None = None  # TensorBoard's writer, opened with the first line logged
        path.mkdir(parents=True, exist_ok=True)
        self._lock = (path / "lock").open("w")
        if not _taken(self._lock):
            self._lock.close()
            raise RunDirError(f"{path} is in use by another process")
        self._logs: dict[str, Any] = {}
        try:
            (path / "checkpoints" / "replay").mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                self._keep(path / name, text)
            _remove_leftovers(path)
            step = self.latest_step()
            marks = {} if step is None else self._saved(step)["marks"]
            for name in ("metrics.jsonl", *logs):
                self._logs[name] = self._open_log(name, marks.get(name, 0))
            for name, header in logs.items():
                if self._logs[name].tell() == 0:
                    self.append(name, header)
        except BaseException:
            self.close()
            raise

    @property
    def finished(self) -> bool:
        return (self.path / "result.json").exists()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write result.json: the run is complete, and will not be cut back again."""
        with self._naming_the_last_good():
            for log in self._logs.values():
                os.fsync(log.fileno())
            part = self.path / "result.json.part"
            with part.open("w") as file:
                json.dump(result, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            part.rename(self.path / "result.json")
            sync_folder(self.path)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line of metrics at agent step `step`, to metrics.jsonl and TensorBoard."""
        self.append("metrics.jsonl", json.dumps({"step": step, **metrics}) + "\n")
        self._tensorboard().add_line(step, metrics)

    def append(self, name: str, text: str) -> None:
        """Append whole lines to the log `name`."""
        with self._naming_the_last_good():
            self._logs[name].write(text)
            self._logs[name].flush()

    def save(self, step: int, state: State, replay: Replay | None) -> Path:
        """A checkpoint at agent step `step`: durable when this returns, or an error and the one before it still good."""
        folder = self.path / "checkpoints"
        final, beside = folder / _name(step), folder / f".{_name(step)}.part"
        if final.exists():  # nothing was learned since
            return final
        with self._naming_the_last_good(clean=beside):
            beside.mkdir()
            for log in self._logs.values():
                os.fsync(log.fileno())
            statefile.write(
                beside,
                {
                    "step": step,
                    "marks": {name: log.tell() for name, log in self._logs.items()},
                    "state": state,
                    "replay": None if replay is None else replay.save(folder / "replay"),
                },
            )
            beside.rename(final)
            sync_folder(folder)
        self._forget_old()
        return final

    def latest_step(self) -> int | None:
        """Agent step of the newest checkpoint."""
        return max(_steps(self.path), default=None)

    def load(self, replay: Replay | None) -> State | None:
        """The newest checkpoint's state, with its replay loaded; None for a new run. Damage is refused by name."""
        step = self.latest_step()
        if step is None:
            return None
        saved = self._saved(step)
        if replay is not None:
            replay.load(self.path / "checkpoints" / "replay", saved["replay"])
        state: State = saved["state"]
        return state

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
        for log in self._logs.values():
            log.close()
        self._lock.close()

    def _keep(self, file: Path, text: str) -> None:
        if not file.exists():
            part = file.with_name(file.name + ".part")
            part.write_text(text)
            part.rename(file)
        elif file.suffix == ".yaml" or file.name == "protocol.json":
            there = file.read_text()
            if there == text:
                return
            there = self._complete(there) if file.suffix == ".yaml" else _filled(there, text)
            if found := departure(there, text):
                raise RunDirError(f"{self.path} holds a run with another {file.name} ({found}); give another --run-dir")
            if there == text:
                return
            part = file.with_name(file.name + ".part")  # the same run, from now on on another device
            part.write_text(text)
            part.rename(file)

    def _saved(self, step: int) -> State:
        try:
            return statefile.read(self.path / "checkpoints" / _name(step))
        except statefile.StateError as error:
            raise RunDirError(f"{error}; to go on from the checkpoint before it, remove that folder") from error

    def _open_log(self, name: str, mark: int) -> Any:
        """Open for appending; cut back to `mark` bytes unless the run is finished."""
        file = self.path / name
        file.touch()
        size = file.stat().st_size
        if size < mark:
            raise RunDirError(f"{file} is damaged: {size} bytes, but {mark} when the last checkpoint was written")
        if not self.finished:
            os.truncate(file, mark)
        return file.open("a", newline="")

    def _tensorboard(self) -> "_Events":
        if self._events is None:
            lines = (self.path / "metrics.jsonl").read_text().splitlines()
            self._events = _Events(self.path / "events", lines[:-1])  # the last is the one being logged
        return self._events

    def _forget_old(self) -> None:
        """Drop all but the newest checkpoints, then the segments that none of those names."""
        folder = self.path / "checkpoints"
        steps = sorted(_steps(self.path))
        for step in steps[:-KEEP_CHECKPOINTS]:
            going = folder / f".{_name(step)}.part"  # a half deleted checkpoint must not look like one
            (folder / _name(step)).rename(going)
            shutil.rmtree(going)
        needed: set[str] = set()
        for step in steps[-KEEP_CHECKPOINTS:]:
            manifest = self._saved(step)["replay"]
            needed |= set() if manifest is None else set(Replay.segments(manifest))
        for file in (folder / "replay").iterdir():
            if file.name not in needed:
                file.unlink()

    def _naming_the_last_good(self, clean: Path | None = None) -> "_LastGood":
        return _LastGood(self, clean)


def read_checkpoint(path: Path) -> State:
    """The state in the newest checkpoint of a run that may be under way elsewhere; changes nothing. RunDirError: none yet."""
    steps = _steps(path)
    if not steps:
        raise RunDirError(f"{path} holds no checkpoint yet")
    state: State = statefile.read(path / "checkpoints" / _name(max(steps)))["state"]
    return state


class _Events:
    """TensorBoard's view of metrics.jsonl. Event files cannot be cut back, so opening writes them anew from the lines."""

    def __init__(self, folder: Path, lines: list[str]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # here, since the import takes a second

        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))
        for line in map(json.loads, lines):
            self.add_line(line.pop("step"), line)

    def add_line(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step, metrics.get("perf/unix_time"))

    def close(self) -> None:
        self._writer.close()


class _LastGood:
    """Turns an operating system's refusal (disk full, no permission) into an error that names the last good checkpoint."""

    def __init__(self, run: RunDir, clean: Path | None) -> None:
        self._run, self._clean = run, clean

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        if self._clean is not None:
            shutil.rmtree(self._clean, ignore_errors=True)
        step = self._run.latest_step()
        good = "there is no checkpoint yet" if step is None else f"the last good checkpoint is {_name(step)}"
        full = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "writing failed"
        raise RunDirError(f"{self._run.path}: {full} ({error}); {good}") from error


def _steps(path: Path) -> list[int]:
    """Agent steps of the checkpoints of a run."""
    return [int(folder.name.removeprefix("step_")) for folder in (path / "checkpoints").glob("step_*")]


def _name(step: int) -> str:
    return f"step_{step:010d}"


def departure(there: str, asked: str) -> str:
    """The first line in which the configuration that is there departs from the one that is asked for, in words; "": in none but the
    device."""
    ours, theirs = _elsewhere(there), _elsewhere(asked)
    return "" if ours == theirs else difference(ours, theirs)


def _filled(there: str, asked: str) -> str:
    """A JSON object with the keys that have come since: by now config.yaml, which holds all of protocol.json, was found the same."""

    def fill(old: Any, new: Any) -> Any:
        if not (isinstance(old, dict) and isinstance(new, dict)):
            return old
        return {
            **{key: fill(old[key], new[key]) if key in old else new[key] for key in new},
            **{k: v for k, v in old.items() if k not in new},
        }

    return json.dumps(fill(json.loads(there), json.loads(asked)), indent=2)


def _elsewhere(text: str) -> str:
    """A configuration but for its device: a run may move, and then goes on to the rounding of the other one."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("device: "))


def difference(there: str, asked: str) -> str:
    """The first line in which two configurations differ, in words."""
    for old, new in zip_longest(there.splitlines(), asked.splitlines()):
        if old != new:
            return f"{'nothing' if old is None else repr(old.strip())} there, {'nothing' if new is None else repr(new.strip())} asked"
    return "only in white space"


def _taken(lock: Any) -> bool:
    """Whether we have the lock: whoever only asks whether a run is under way has it for a moment, which is waited for."""
    for left in reversed(range(LOCK_TRIES)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if left:
                time.sleep(LOCK_PAUSE_S)
        else:
            return True
    return False


def _remove_leftovers(path: Path) -> None:
    """What a kill left half done."""
    for part in [*path.glob("*.part"), *path.glob("checkpoints/.*.part"), *path.glob("checkpoints/replay/*.part")]:
        shutil.rmtree(part) if part.is_dir() else part.unlink()
