"""One run on disk, safe to kill at any byte.

    config.yaml        the resolved configuration; protocol.json, provenance.json beside it
    metrics.jsonl      one object a line, each with "step" (agent steps); TensorBoard's events/ repeat it
    evals.csv          every evaluation episode
    checkpoints/       step_<n>/ (the state, where the logs stood) and replay/ (append-only segments that they share)

A checkpoint is written beside, forced to the disk and renamed, so it is there whole or not at all. Opening a run cuts the
logs back to its last checkpoint: what was logged after it will be logged again, equal bit for bit.
"""

import csv
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlplatform import statefile
from rlplatform.replay import Replay
from rlplatform.types import State

KEEP_CHECKPOINTS = 2  # the last, and the one before it


class RunDirError(RuntimeError):
    """A run directory that cannot be used as asked; the message says why, and what is still good."""


class RunDir:
    """A run's folder, locked for this process while it is open."""

    def __init__(self, path: Path, files: Mapping[str, str], eval_columns: Sequence[str]) -> None:
        """Open or create a run.

        Args:
            path: the folder.
            files: name -> text, written when the run is new. A run that is there must hold the same text under each name
                that ends in ".yaml" or "protocol.json": another configuration may not go on in its place.
            eval_columns: header of evals.csv.
        """
        self.path = path
        self._events: Any = None  # TensorBoard's writer, opened with the first line logged
        path.mkdir(parents=True, exist_ok=True)
        self._lock = (path / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunDirError(f"{path} is in use by another process") from None
        (path / "checkpoints" / "replay").mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            self._keep(path / name, text)
        _remove_leftovers(path)
        step = self.latest_step()
        marks = {} if step is None else self._marks(step)
        self._metrics = _open_at(path / "metrics.jsonl", marks.get("metrics", 0))
        self._evals = _open_at(path / "evals.csv", marks.get("evals", 0))
        if self._evals.tell() == 0:
            self._write_csv([eval_columns])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line of metrics at agent step `step`."""
        line = json.dumps({"step": step, **metrics})
        with self._naming_the_last_good():
            self._metrics.write(line + "\n")
            self._metrics.flush()
        for name, value in metrics.items():
            self._tensorboard().add_scalar(name, value, step)

    def log_evals(self, rows: Iterable[Sequence[object]]) -> None:
        """Append evaluation episodes, one row each, in the order of the columns."""
        with self._naming_the_last_good():
            self._write_csv(rows)

    def save(self, step: int, state: State, replay: Replay | None) -> Path:
        """A checkpoint at agent step `step`: durable when this returns, or an error and the one before it still good."""
        folder = self.path / "checkpoints"
        final, beside = folder / _name(step), folder / f".{_name(step)}.part"
        if final.exists():  # nothing was learned since
            return final
        with self._naming_the_last_good(clean=beside):
            beside.mkdir()
            for log in (self._metrics, self._evals):
                log.flush()
                os.fsync(log.fileno())
            statefile.write(
                beside,
                {
                    "step": step,
                    "marks": {"metrics": self._metrics.tell(), "evals": self._evals.tell()},
                    "state": state,
                    "replay": None if replay is None else replay.save(folder / "replay"),
                },
            )
            beside.rename(final)
            statefile.sync_folder(folder)
        self._forget_old()
        return final

    def latest_step(self) -> int | None:
        """Agent step of the newest checkpoint."""
        steps = [int(path.name.removeprefix("step_")) for path in (self.path / "checkpoints").glob("step_*")]
        return max(steps, default=None)

    def load(self, replay: Replay | None) -> State | None:
        """The newest checkpoint's state, with its replay loaded; None for a new run. Damage is refused by name."""
        step = self.latest_step()
        if step is None:
            return None
        saved = statefile.read(self.path / "checkpoints" / _name(step))
        if replay is not None:
            replay.load(self.path / "checkpoints" / "replay", saved["replay"])
        state: State = saved["state"]
        return state

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
        self._metrics.close()
        self._evals.close()
        self._lock.close()

    def _keep(self, file: Path, text: str) -> None:
        if not file.exists():
            part = file.with_name(file.name + ".part")
            part.write_text(text)
            part.rename(file)
        elif file.suffix == ".yaml" or file.name == "protocol.json":
            there = file.read_text()
            if there != text:
                pairs = zip(there.splitlines(), text.splitlines(), strict=False)
                differing = next((f"{old.strip()!r} there, {new.strip()!r} asked" for old, new in pairs if old != new), "")
                raise RunDirError(f"{self.path} holds a run with another {file.name}: {differing}; give another --run-dir")

    def _marks(self, step: int) -> Mapping[str, int]:
        marks: Mapping[str, int] = statefile.read(self.path / "checkpoints" / _name(step))["marks"]
        return marks

    def _write_csv(self, rows: Iterable[Sequence[object]]) -> None:
        csv.writer(self._evals, lineterminator="\n").writerows(rows)
        self._evals.flush()

    def _tensorboard(self) -> Any:
        """The event writer. Event files cannot be cut, so the first use writes them anew from metrics.jsonl."""
        if self._events is None:
            from torch.utils.tensorboard import SummaryWriter  # here, since the import takes a second

            shutil.rmtree(self.path / "events", ignore_errors=True)
            self._events = SummaryWriter(str(self.path / "events"))  # type: ignore[no-untyped-call]
            lines = (self.path / "metrics.jsonl").read_text().splitlines()
            for line in map(json.loads, lines[:-1]):  # the last is the one being logged
                for name, value in line.items():
                    if name != "step":
                        self._events.add_scalar(name, value, line["step"])
        return self._events

    def _forget_old(self) -> None:
        """Drop all but the newest checkpoints, then the segments that none of those names."""
        folder = self.path / "checkpoints"
        steps = sorted(int(path.name.removeprefix("step_")) for path in folder.glob("step_*"))
        for step in steps[:-KEEP_CHECKPOINTS]:
            going = folder / f".{_name(step)}.part"  # a half deleted checkpoint must not look like one
            (folder / _name(step)).rename(going)
            shutil.rmtree(going)
        needed: set[str] = set()
        for step in steps[-KEEP_CHECKPOINTS:]:
            manifest = statefile.read(folder / _name(step))["replay"]
            needed |= set() if manifest is None else set(Replay.segments(manifest))
        for file in (folder / "replay").iterdir():
            if file.name not in needed:
                file.unlink()

    def _naming_the_last_good(self, clean: Path | None = None) -> "_LastGood":
        return _LastGood(self, clean)


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


def _name(step: int) -> str:
    return f"step_{step:010d}"


def _open_at(file: Path, offset: int) -> Any:
    """Open for appending, cut back to `offset` bytes."""
    file.touch()
    size = file.stat().st_size
    if size < offset:
        raise RunDirError(f"{file} is damaged: {size} bytes, but {offset} when the last checkpoint was written")
    os.truncate(file, offset)
    return file.open("a", newline="")


def _remove_leftovers(path: Path) -> None:
    """What a kill left half done."""
    for part in [*path.glob("*.part"), *path.glob("checkpoints/.*.part"), *path.glob("checkpoints/replay/*.part")]:
        shutil.rmtree(part) if part.is_dir() else part.unlink()
