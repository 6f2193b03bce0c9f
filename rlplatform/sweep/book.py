"""The folder of a sweep. Its trials are kept in it, one file each, and nowhere else: whoever opens the folder goes on.

sweep.yaml                    what may not change
trials/t0007/trial.json       parameters, state, and the scores at its rungs
trials/t0007/<task>/seed_0/   the runs: ordinary ones
confirm/<name>/<task>/...     the best configurations on held-out seeds
report/                       the page, tables and figures
"""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlplatform.evaluation.sweeps import Rung, Score, Trial
from rlplatform.rundir import RunDirError, difference
from rlplatform.segments import sync_folder
from rlplatform.sweep.schema import Sweep, identity


class Book:
    """The trials of a sweep, on disk. One process at a time has it open."""

    def __init__(self, folder: Path, sweep: Sweep) -> None:
        """Open or begin.

        Raises:
            RunDirError: another process has it open, the folder holds another sweep, or a trial's file is damaged.
        """
        self.folder, self.sweep = folder, sweep
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RunDirError(f"{folder} is in use by another process") from None
        try:
            self._check_identity()
            self.trials = {
                trial.number: trial for trial in map(read_trial, sorted(folder.glob("trials/t*/trial.json")))
            }
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another process have it."""
        self._lock.close()

    def folder_of(self, number: int) -> Path:
        return self.folder / "trials" / f"t{number:04d}"

    def of(self, *states: str) -> list[Trial]:
        """The trials in these states, in order of their number."""
        return [self.trials[number] for number in sorted(self.trials) if self.trials[number].state in states]

    def begin(self, params: Mapping[str, Any]) -> Trial:
        """A new trial, on disk before anything of it runs."""
        trial = Trial(max(self.trials, default=-1) + 1, dict(params), "running")
        self._write(trial)
        return trial

    def note(self, number: int, rung: Rung) -> None:
        """A score at a rung. Said again after a restart, it replaces what was said before."""
        trial = self.trials[number]
        kept = tuple(one for one in trial.rungs if one.step != rung.step)
        self._write(replace(trial, rungs=tuple(sorted((*kept, rung), key=lambda one: one.step))))

    def end(self, number: int, state: str, error: str = "") -> None:
        """The trial runs no more."""
        self._write(replace(self.trials[number], state=state, error=error))

    def _write(self, trial: Trial) -> None:
        self.trials[trial.number] = trial
        write_whole(self.folder_of(trial.number) / "trial.json", json.dumps(asdict(trial), indent=1) + "\n")

    def _check_identity(self) -> None:
        file, asked = self.folder / "sweep.yaml", identity(self.sweep)
        if not file.is_file():
            write_whole(file, asked)
        elif (there := file.read_text()) != asked:
            raise RunDirError(
                f"{self.folder} holds another sweep ({difference(there, asked)}); give this one another name, or another --out"
            )


def read_trial(file: Path) -> Trial:
    """A trial.json. RunDirError where it is damaged."""
    try:
        read = json.loads(file.read_text())
        rungs = tuple(Rung(one["step"], Score(**one["score"]), one["scores"]) for one in read["rungs"])
        return Trial(read["number"], read["params"], read["state"], rungs, read["error"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise RunDirError(
            f"{file} is damaged ({type(error).__name__}: {error}); remove its folder to try it anew"
        ) from None


def write_whole(file: Path, text: str) -> None:
    """Beside, forced to the disk, then renamed: the file is there whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    with part.open("w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    part.rename(file)
    sync_folder(file.parent)
