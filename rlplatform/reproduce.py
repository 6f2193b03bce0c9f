"""A whole benchmark: the grid of tasks x seeds of one agent, as ordinary runs in ordinary folders."""

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlplatform.config import ConfigError, suggestion
from rlplatform.envs import Suite, suites
from rlplatform.evaluation.groups import gather
from rlplatform.evaluation.published import benchmark_of, counterpart
from rlplatform.grid.cells import Cell, Needs, check
from rlplatform.runconfig import RunConfig, default_folder, resolve_config


@dataclass(frozen=True)
class Grid:
    """What `rlplatform reproduce` runs."""

    suite: str
    agent: str
    cells: tuple[Cell, ...]  # seed by seed, so that a grid that is cut short has whole seeds
    root: Path  # of the runs of this agent on this suite

    @property
    def tasks(self) -> list[str]:
        """In order, without their family."""
        return list(dict.fromkeys(cell.task for cell in self.cells))

    @property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(cell.config.seed for cell in self.cells))


def plan(
    suite: str,
    agent: str,
    *,
    tasks: Sequence[str] = (),
    seeds: str = "5",
    out: Path = Path("runs"),
    overrides: Sequence[str] = (),
    steps: int | None = None,
    own_agent: str | None = None,
    imports: Sequence[str] = (),
    cpus: float | None = None,
    gpus: float = 0.0,
) -> Grid:
    """The grid, checked: every configuration resolves, and no folder holds a run of another one.

    Args:
        suite: a name of `rlplatform list suites`.
        agent: a preset, or with `own_agent` ("package.module:Class") any name for the folder.
        tasks: of the suite, with or without its family; all of them by default.
        seeds: "5" is 0 to 4, "10-14" and "1,3,7" are what they say.
        out: the runs lie in <out>/<suite>/<agent>/<task>/seed_<n>.
        overrides: "key.sub=value" each, for all runs.
        imports: modules to import first, here and in every run: they register suites of one's own.
        cpus: of a run, for Ray [default: threads x actors]; gpus: likewise, may be a fraction.

    Raises:
        ValueError: an unknown suite, task, agent or key, with the nearest known one; seeds that are none.
        RunDirError: a folder holds another run.
    """
    for module in imports:
        importlib.import_module(module)
    found = find_suite(suite)
    chosen = find_tasks(found, tasks)
    cells = []
    for seed in parse_seeds(seeds):
        for task in chosen:
            config = resolve_config(agent, task, overrides, own_agent, seed=seed, steps=steps, imports=tuple(imports))
            folder = default_folder(config, out)
            needs = Needs(config.threads * config.actors if cpus is None else cpus, gpus)
            cells.append(Cell(config, folder, command_of(config, folder, overrides, steps, own_agent), needs))
    for cell in cells:
        check(cell)
    return Grid(found.name, agent, tuple(cells), out / found.name / agent)


def command_of(
    config: RunConfig, folder: Path, overrides: Sequence[str], steps: int | None, own_agent: str | None
) -> tuple[str, ...]:
    """The command line of one run, to be typed by hand as well."""
    given: list[str] = [
        "train",
        config.preset,
        config.task,
        "--seed",
        str(config.seed),
        "--run-dir",
        str(folder.absolute()),
    ]
    given += ["--steps", str(steps)] if steps is not None else []
    given += ["--agent", own_agent] if own_agent is not None else []
    for module in config.imports:
        given += ["--import", module]
    return (*given, *overrides)


def find_suite(name: str) -> Suite:
    """The suite of this name. ConfigError with the nearest one where there is none."""
    known = {suite.name: suite for suite in suites()}
    if name not in known:
        raise ConfigError(f"no suite {name!r}{suggestion(name, list(known))}; known: {', '.join(known)}")
    return known[name]


def find_tasks(suite: Suite, names: Sequence[str]) -> list[str]:
    """The suite's tasks of these names, given with or without their family; all for none. ConfigError with the nearest."""
    by_name = {task.rpartition("/")[2]: task for task in suite.tasks} | {task: task for task in suite.tasks}
    for name in names:
        if name not in by_name:
            raise ConfigError(
                f"{suite.name} has no task {name!r}{suggestion(name, list(by_name))}; "
                f"it has: {', '.join(task.rpartition('/')[2] for task in suite.tasks)}"
            )
    return list(dict.fromkeys(by_name[name] for name in names)) or list(suite.tasks)


def parse_seeds(text: str) -> list[int]:
    """Seeds in words: "5" is 0 to 4, "10-12" is 10, 11, 12, "1,3" is 1 and 3. ConfigError for anything else."""
    if re.fullmatch(r"\d+", text) and int(text) > 0:
        return list(range(int(text)))
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if match is None or ("," not in text and "-" not in text):
            raise ConfigError(f"seeds are a number of them (5), a range (10-14) or a list (1,3,7), got {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ConfigError(f"seeds {part!r}: the range ends before it begins")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def write_report(grid: Grid, out: Path, command: str, few_seeds: bool = False) -> Path | None:
    """The report of the grid's finished runs, beside the published ones of this agent where there are any: its first file.
    None where nothing is finished."""
    from rlplatform.evaluation.analysis import analyse  # here, since matplotlib takes a second
    from rlplatform.evaluation.document import write_report as write

    if not any((cell.folder / "result.json").is_file() for cell in grid.cells):
        return None
    where = benchmark_of(grid.cells[0].config.task)
    theirs = counterpart(where, grid.agent) if where else None
    found = analyse(gather([grid.root], [theirs] if theirs else []), few_seeds=few_seeds)
    return write(found, out, command=command, few_seeds=few_seeds)[0]
