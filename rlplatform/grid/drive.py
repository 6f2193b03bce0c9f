"""Drives the cells of a grid to their end: starts them where there is room, tries again what failed, stops all when asked.

The driver keeps nothing on disk. Killed at any moment, it starts over by looking at the runs: finished ones stay, broken ones go on
from their checkpoints, and those that another process holds are left to it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from rlplatform.grid import EXIT_STOPPED
from rlplatform.grid.cells import Cell, Standing, held, standing, tail
from rlplatform.grid.pool import Job, LostError, Pool
from rlplatform.rundir import RunDirError

LOOK_S = 2.0  # between two looks into the folder of a run under way
GRACE_S = 30.0  # how long a run that another process holds is waited for: a killed driver's runs are still being saved


class State(StrEnum):
    """Of a cell."""

    WAITING = "waiting"
    QUEUED = "queued"  # given to the pool, which has no place for it yet
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    HELD = "held"  # by another process


@dataclass
class Entry:
    """A cell, and how it is going."""

    cell: Cell
    state: State = State.WAITING
    standing: Standing = field(default_factory=Standing)
    failures: int = 0  # attempts of this driver that ended badly
    note: str = ""  # of a failure or a holder, in a line
    job: Job | None = None
    saved_before: int = 0  # agent step of the checkpoint that this attempt began from
    not_before: float = 0.0  # monotonic time of the next attempt

    @property
    def share(self) -> float:
        """Done, in [0, 1]."""
        return 1.0 if self.state is State.DONE else min(self.standing.step / self.cell.config.steps, 1.0)


@dataclass(frozen=True)
class Outcome:
    """What became of a grid."""

    entries: tuple[Entry, ...]
    stopped: bool  # asked to, with everything saved

    def of(self, *states: State) -> list[Entry]:
        """The entries in one of these states."""
        return [entry for entry in self.entries if entry.state in states]


def survey(cells: Sequence[Cell]) -> list[Entry]:
    """Where all cells stand, by their folders."""
    return [_seen(Entry(cell)) for cell in cells]


def drive(
    entries: Sequence[Entry],
    pool: Pool,
    *,
    retries: int = 2,
    on_turn: Callable[[Sequence[Entry]], None] = lambda entries: None,
    on_event: Callable[[Entry], None] = lambda entry: None,
    should_stop: Callable[[], int] = lambda: 0,
    turn_s: float = 0.25,
    again_s: float = 1.0,
    grace_s: float = GRACE_S,
) -> Outcome:
    """Run all cells that are not done.

    Args:
        entries: of `survey`.
        retries: how often a cell that failed is tried again, from its last checkpoint.
        on_turn: called every turn; on_event: when a cell's state has changed for good or it has failed once.
        should_stop: how many times the grid was asked to stop: once stops runs with a checkpoint, twice kills them.
        again_s: pause before a cell is tried again.
        grace_s: how long cells that another process holds are waited for, once nothing else is left to do.
    """
    loop = _Loop(entries, pool, retries, on_event, again_s)
    alone_since: float | None = None  # when nothing but held cells was left
    stops, looked = 0, 0.0
    while True:
        now = time.monotonic()
        if should_stop() > stops:
            stops += 1
            loop.stop(kill=stops > 1)
        loop.reap(stopping=stops > 0)
        if not stops:
            loop.take_up_released()
            loop.start()
        if now - looked >= LOOK_S:
            looked = now
            for entry in loop.under_way():
                loop.look(entry)
        on_turn(entries)
        waiting = [entry for entry in entries if entry.state is State.WAITING]
        if not loop.under_way() and (stops or not waiting):
            alone = [entry for entry in entries if entry.state is State.HELD]
            alone_since = alone_since or now
            if stops or not alone or now - alone_since >= grace_s:
                break
        else:
            alone_since = None
        time.sleep(turn_s)
    unfinished = any(entry.state is not State.DONE for entry in entries)
    return Outcome(tuple(entries), stops > 0 and unfinished)


class _Loop:
    """The moves of `drive`."""

    def __init__(
        self, entries: Sequence[Entry], pool: Pool, retries: int, on_event: Callable[[Entry], None], again_s: float
    ) -> None:
        self.entries, self.pool, self.retries = entries, pool, retries
        self.on_event, self.again_s = on_event, again_s

    def under_way(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.job is not None]

    def look(self, entry: Entry) -> None:
        """Read how far it is; what cannot be read is its own process's to say."""
        if entry.job is not None and entry.job.began:
            entry.state = State.RUNNING
        try:
            entry.standing = standing(entry.cell)
        except RunDirError as error:
            entry.note = str(error)

    def start(self) -> None:
        for entry in self.entries:
            if entry.state is not State.WAITING or time.monotonic() < entry.not_before:
                continue
            if not self.pool.room():
                return
            if held(entry.cell.folder):
                self._hold(entry)
                continue
            entry.saved_before = entry.standing.saved
            entry.job = self.pool.start(entry.cell)
            entry.state = State.RUNNING if entry.job.began else State.QUEUED

    def take_up_released(self) -> None:
        for entry in self.entries:
            if entry.state is State.HELD and time.monotonic() >= entry.not_before:
                entry.not_before = time.monotonic() + self.again_s
                if not held(entry.cell.folder) and _seen(entry).state is not State.WAITING:
                    self.on_event(entry)  # whoever had it has ended it

    def reap(self, stopping: bool) -> None:
        for entry in self.under_way():
            assert entry.job is not None
            try:
                code = entry.job.poll()
            except LostError as error:
                entry.job = None
                self._failed(entry, str(error), stopping)
                continue
            if code is not None:
                entry.job = None
                self._ended(entry, code, stopping)

    def stop(self, kill: bool) -> None:
        for entry in self.under_way():
            assert entry.job is not None
            entry.job.kill() if kill else entry.job.stop()

    def _ended(self, entry: Entry, code: int, stopping: bool) -> None:
        self.look(entry)
        if entry.standing.result is not None:  # whatever the process did after it
            entry.state, entry.note = State.DONE, ""
            self.on_event(entry)
        elif code == EXIT_STOPPED and (stopping or entry.standing.saved > entry.saved_before):
            entry.state = State.WAITING  # preempted, and further than before: not a failure
        elif code == 0:
            self._failed(
                entry, "it ended well, but there is no result.json here: do all nodes share this folder?", stopping
            )
        elif held(entry.cell.folder):
            self._hold(entry)
        else:
            signal = f"signal {-code}" if code < 0 else f"exit code {code}"
            self._failed(entry, f"{signal} at agent step {entry.standing.step:,}", stopping)

    def _failed(self, entry: Entry, note: str, stopping: bool) -> None:
        if stopping:
            entry.state = State.WAITING  # whatever it was, it was asked to end
            return
        entry.failures += 1
        entry.note = note
        entry.state = State.FAILED if entry.failures > self.retries else State.WAITING
        entry.not_before = time.monotonic() + self.again_s
        self.on_event(entry)

    def _hold(self, entry: Entry) -> None:
        if entry.state is not State.HELD:
            entry.state, entry.note = State.HELD, "another process has it open"
            entry.not_before = time.monotonic() + self.again_s
            self.on_event(entry)


def seconds_left(entries: Sequence[Entry]) -> float | None:
    """Of running time, summed over the runs that are not done; None while there is nothing to judge by.

    A run under way goes on at its present pace; one that waits takes what finished runs took, or what those under way will.
    """
    done = [float(e.standing.result["elapsed_s"]) for e in entries if e.standing.result is not None]
    rest = {id(e): _rest(e) for e in entries if e.state is State.RUNNING}
    known = [(e.cell.config.steps / e.standing.per_s) for e in entries if e.state is State.RUNNING and e.standing.per_s]
    typical = sum(done) / len(done) if done else sum(known) / len(known) if known else None
    total = 0.0
    for entry in entries:
        if entry.state in (State.DONE, State.FAILED, State.HELD):
            continue
        left = rest.get(id(entry))
        if left is None:
            if typical is None:
                return None
            left = typical * (1.0 - entry.share)
        total += left
    return total


def failures(entries: Sequence[Entry]) -> str:
    """The logs of what failed, in words."""
    return "\n\n".join(
        f"{entry.cell.name}: {entry.note} after {entry.failures} attempt{'' if entry.failures == 1 else 's'}. "
        f"{entry.cell.folder / 'run.log'} ends:\n{tail(entry.cell.folder)}"
        for entry in entries
        if entry.state is State.FAILED
    )


def _rest(entry: Entry) -> float | None:
    if not entry.standing.per_s:
        return None
    return max(entry.cell.config.steps - entry.standing.step, 0) / entry.standing.per_s


def _seen(entry: Entry) -> Entry:
    """By the folder alone: done, failed for a damaged result, or waiting."""
    try:
        entry.standing = standing(entry.cell)
    except RunDirError as error:
        entry.state, entry.note = State.FAILED, str(error)
        return entry
    entry.note = ""
    entry.state = State.WAITING if entry.standing.result is None else State.DONE
    return entry
