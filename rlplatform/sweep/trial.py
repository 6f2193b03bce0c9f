"""A trial: one configuration on all tasks and seeds, taken from rung to rung."""

import importlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlplatform.evaluation.evals import read_evals
from rlplatform.experiment import Progress, Stopped, run
from rlplatform.grid.cells import Cell, Needs, held
from rlplatform.reproduce import command_of
from rlplatform.runconfig import RunConfig
from rlplatform.rundir import RunDirError
from rlplatform.sweep.schema import Sweep, configure, overrides_of, scale_of

RELEASE_S = 60.0  # how long a run is waited for that a killed driver's worker still holds


def cells_of(
    sweep: Sweep, folder: Path, params: Mapping[str, Any], seeds: range, *, confirm: bool = False
) -> list[Cell]:
    """The runs of one configuration, seed by seed."""
    cells = []
    for seed in seeds:
        for task in sweep.tasks:
            config = configure(sweep, task, seed, params, confirm=confirm)
            where = folder / task.rpartition("/")[2] / f"seed_{seed}"
            own = sweep.agent if ":" in sweep.agent else None
            command = command_of(config, where, overrides_of(sweep, params, confirm=confirm), sweep.steps, own)
            cells.append(Cell(config, where, command, needs(sweep, config), folder.name))
    return cells


def needs(sweep: Sweep, config: RunConfig) -> Needs:
    """What one run of the sweep asks for."""
    return Needs(sweep.cpus or config.threads * config.actors, sweep.gpus)


def most(sweep: Sweep) -> Needs:
    """What a run of the sweep may ask for: threads and actors can be part of what is searched."""
    largest: dict[str, Any] = {key: max(sweep.space[key].ends) for key in ("threads", "actors") if key in sweep.space}
    return needs(sweep, configure(sweep, sweep.tasks[0], 0, largest))


def find_modules(sweep: Sweep, cwd: str) -> None:
    """In a worker's process: modules of the user's own lie where he is; those that register environments are imported."""
    if cwd not in sys.path:
        sys.path.append(cwd)
    for module in sweep.imports:
        importlib.import_module(module)


def advance(sweep: Sweep, task: str, seed: int, params: Mapping[str, Any], folder: Path, step: int, cwd: str) -> float:
    """Take a run to the rung at `step`, from wherever it stands, and give its normalised score there.

    Runs in a worker's process, which may be another machine's: everything is by value, and the run's folder is the only memory.
    """
    find_modules(sweep, cwd)
    config = configure(sweep, task, seed, params)
    found = score_at(folder, step, last=step >= config.steps)
    if found is None:
        _wait_for(folder)
        _run_to(config, folder, step)
        found = score_at(folder, step, last=step >= config.steps)
        if found is None:
            raise RunDirError(f"{folder}: agent step {step:,} was passed without an evaluation")
    return normalise(sweep, task, found)


def score_at(folder: Path, step: int, *, last: bool) -> float | None:
    """The mean score of the evaluation that belongs to a rung, raw: the first at or after `step`; `last`: the one that ended the
    run. None where there is none yet."""
    if last and not (folder / "result.json").is_file():
        return None
    try:
        evals = read_evals(folder / "evals.csv")
    except FileNotFoundError:
        return None
    steps = np.unique(evals.step)
    steps = steps[-1:] if last else steps[steps >= step]
    return float(evals.at(int(steps[0])).score.mean()) if len(steps) else None


def normalise(sweep: Sweep, task: str, score: float) -> float:
    """(score - low) / (high - low) on the task's scale; the score itself where there is none."""
    low, high = scale_of(sweep, task) or (0.0, 1.0)
    return (score - low) / (high - low)


def _run_to(config: RunConfig, folder: Path, step: int) -> None:
    """Run until the rung's evaluation is on disk: the run is stopped there with a checkpoint, and the next call goes on."""
    fresh = False  # an evaluation has ended since we last looked

    def on_progress(now: Progress) -> None:
        nonlocal fresh
        fresh |= now.stage == "evaluate" and now.done == now.total

    def there() -> bool:
        nonlocal fresh
        look, fresh = fresh, False
        return look and step < config.steps and score_at(folder, step, last=False) is not None

    try:
        run(config, folder, on_progress, there)
    except Stopped:
        return


def _wait_for(folder: Path) -> None:
    """A killed driver's worker may take a moment to go."""
    end = time.monotonic() + RELEASE_S
    while held(folder) and time.monotonic() < end:
        time.sleep(0.5)
