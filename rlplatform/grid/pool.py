"""Where cells run: a pool starts jobs, a job is a process that can be asked to stop. `LocalPool` is this machine."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

from rlplatform.grid.cells import LOG, Cell, Needs

OURS = ("-P",)  # of Python: not the current folder first, where in a checkout rlplatform/ would hide what is installed


class Job(Protocol):
    """One attempt at a cell."""

    @property
    def began(self) -> bool: ...  # False: it waits for a place
    def poll(self) -> int | None: ...  # its exit code, None while it has none
    def stop(self) -> None: ...  # SIGTERM: checkpoint and exit 75
    def kill(self) -> None: ...  # SIGKILL


class Pool(Protocol):
    """Where jobs run."""

    def room(self) -> bool: ...  # whether `start` may be called now
    def start(self, cell: Cell) -> Job: ...
    def close(self) -> None: ...


class LostError(RuntimeError):
    """A job's process or machine is gone, without an exit code."""


class LocalPool:
    """Processes of this machine, at most `jobs` at a time."""

    def __init__(self, jobs: int = 1, env: dict[str, str] | None = None) -> None:
        if jobs < 1:
            raise ValueError(f"jobs must be >= 1, got {jobs}")
        self.jobs, self.env = jobs, env
        self._running: list[LocalJob] = []

    def room(self) -> bool:
        self._running = [job for job in self._running if job.poll() is None]
        return len(self._running) < self.jobs

    def start(self, cell: Cell) -> "LocalJob":
        job = LocalJob(spawn(cell.command, cell.folder, self.env))
        self._running.append(job)
        return job

    def close(self) -> None:
        """Nothing is held but the jobs, which their driver ends."""


class LocalJob:
    """A process of this machine."""

    began = True

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def poll(self) -> int | None:
        return self.process.poll()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()


def check_machine(needs: Needs) -> None:
    """Refuse what this machine does not have at all.

    Raises:
        ValueError: a run asks for GPUs, and torch sees fewer.
    """
    if not needs.gpus:
        return
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if needs.gpus > there:
        raise ValueError(f"a run asks for {needs}; this machine has {there} GPUs that torch can use")


def spawn(
    command: tuple[str, ...], folder: Path, env: dict[str, str] | None = None, cwd: str | None = None
) -> "subprocess.Popen[bytes]":
    """Start `rlplatform <command>`, which ends with this process, and append what it prints to the folder's run.log.

    Called from the thread that stays until the process has ended: Linux counts the thread as the parent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / LOG
    with file.open("ab") as log:
        at = time.strftime("%Y-%m-%d %H:%M:%S")
        log.write(f"{chr(10) if log.tell() else ''}== {at}: rlplatform {shlex.join(command)}\n".encode())
        log.flush()
        return subprocess.Popen(  # noqa: S603  our own command line
            [sys.executable, *OURS, "-m", "rlplatform.grid.child", str(os.getpid()), *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})}, cwd=cwd,
        )  # fmt: skip
