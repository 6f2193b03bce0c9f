"""The verbs over many runs: `reproduce` and `sweep`."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rlplatform.cli_common import (
    EXIT_FAILED,
    PLAIN_EVERY_S,
    AgentName,
    FewSeeds,
    Imports,
    Overrides,
    OwnAgent,
    Steps,
    command_line,
    duration,
    errors_as_messages,
)
from rlplatform.evaluation.sweeps import verdicts
from rlplatform.experiment import estimate
from rlplatform.grid import EXIT_STOPPED
from rlplatform.grid.cells import Needs
from rlplatform.grid.cluster import RayPool, connect
from rlplatform.grid.drive import Entry, Outcome, State, drive, failures, seconds_left, survey
from rlplatform.grid.pool import LocalPool, Pool, check_machine
from rlplatform.ray_join import prepare
from rlplatform.reproduce import Grid, plan, write_report
from rlplatform.sweep.book import Book
from rlplatform.sweep.confirm import best, cells
from rlplatform.sweep.schema import Sweep, configure, read_sweep
from rlplatform.sweep.summary import found as found_in
from rlplatform.sweep.summary import in_words
from rlplatform.sweep.summary import write_report as write_sweep_report
from rlplatform.sweep.trial import most

WIDE = 12  # seeds that a table has a column each for
MARKS = {
    State.WAITING: ("·", "dim"), State.QUEUED: ("queued", "dim"), State.RUNNING: ("", "cyan"), State.DONE: ("✓", "green"),
    State.FAILED: ("✗ failed", "bold red"), State.HELD: ("held", "yellow"),
}  # fmt: skip

RayAddress = Annotated[
    str | None,
    typer.Option(help="Run on Ray: auto (this machine's cluster, or RAY_ADDRESS), local (start one), HOST:PORT."),
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Runs at a time [default: 1; with Ray all that fit].")]
Gpus = Annotated[float, typer.Option(min=0.0, help="GPUs of a run, for Ray; may be a fraction.")]
Cpus = Annotated[float | None, typer.Option(min=0.0, help="CPUs of a run, for Ray [default: threads x actors].")]
Retries = Annotated[int, typer.Option(min=0, help="Times that a failed run is tried again.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(reproduce)
    app.command()(sweep)


def reproduce(
    suite: Annotated[str, typer.Argument(help="A suite (`rlplatform list suites`).")],
    agent: AgentName,
    overrides: Overrides = None,
    seeds: Annotated[str, typer.Option(help="How many (0, 1, ...), or which: 10-14, or 1,3,7.")] = "5",
    tasks: Annotated[
        list[str] | None, typer.Option(help="Tasks of the suite, separated by commas; repeatable [default: all].")
    ] = None,
    steps: Steps = None,
    out: Annotated[Path, typer.Option(help="Runs go to <out>/<suite>/<agent>/<task>/seed_<n>.")] = Path("runs"),
    ray_address: RayAddress = None,
    jobs: Jobs = None,
    gpus: Gpus = 0.0,
    cpus: Cpus = None,
    retries: Retries = 2,
    own_agent: OwnAgent = None,
    imports: Imports = None,
    few_seeds: FewSeeds = False,
    dry_run: Annotated[bool, typer.Option(help="Print the grid and what it costs, and stop.")] = False,
) -> None:
    """Run an agent on a whole suite: tasks x seeds, each an ordinary run, and a report at the end.

    The same command goes on after any kill: finished runs stay, broken ones go on from their checkpoints. SIGTERM and Ctrl-C
    write checkpoints and exit with code 75; a second one kills. Code 1: some runs failed, and are listed with their logs.
    """
    with errors_as_messages():
        sys.path.append(str(Path.cwd()))
        if ":" in agent and own_agent is None:
            own_agent, agent = agent, agent.rpartition(":")[2].lower()
        names = [name for given in tasks or () for name in given.split(",") if name]
        grid = plan(
            suite, agent, tasks=names, seeds=seeds, out=out, overrides=overrides or (), steps=steps, own_agent=own_agent,
            imports=imports or (), cpus=cpus, gpus=gpus,
        )  # fmt: skip
        console = Console(highlight=False)
        entries = survey(grid.cells)
        if dry_run:
            _print_plan(console, grid, entries, jobs)
            return
        if any(entry.state is not State.DONE for entry in entries):
            outcome = _drive(console, grid.suite, grid.agent, entries, ray_address, jobs, retries)
        else:
            outcome = Outcome(tuple(entries), stopped=False)
        _finish(console, grid, outcome, few_seeds)


def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep.yaml (docs/sweeps.md).")],
    out: Annotated[Path, typer.Option(help="The sweep goes to <out>/<name>.")] = Path("sweeps"),
    ray_address: Annotated[
        str, typer.Option(help="local (start Ray here), auto (this machine's cluster, or RAY_ADDRESS), or HOST:PORT.")
    ] = "local",
    dry_run: Annotated[bool, typer.Option(help="Print what would be searched and what it costs, and stop.")] = False,
) -> None:
    """Search hyper-parameters on Ray Tune, and run the best again on held-out seeds before a winner is named.

    The same command goes on after any kill, and with a larger `trials` in the file it searches further. SIGTERM and Ctrl-C exit with
    code 75. Code 1: some trials or runs failed, and are listed.
    """
    with errors_as_messages():
        sys.path.append(str(Path.cwd()))
        asked_for = read_sweep(file)
        if dry_run:
            _print_sweep(asked_for, out)
            return
        prepare()
        from rlplatform.sweep import tune  # Ray and Optuna, or a word on how to get them

        console = Console(highlight=False)
        book = Book(out / asked_for.name, asked_for)
        try:
            with stops() as asked:
                well = _search(console, book, ray_address, asked, tune.search)
                if asked():
                    console.print("stopped: the same command goes on")
                    raise typer.Exit(EXIT_STOPPED)
            trials = book.of("complete", "stopped")
            weights = {step: tune.importance(trials, asked_for.space, step) for step in asked_for.milestones}
            shares = {step: found for step, found in weights.items() if found}
            page = write_sweep_report(book, shares, command_line())[0]
            for said in verdicts(found_in(book, shares)):
                console.print(said, soft_wrap=True)
            console.print(f"report: {page}", soft_wrap=True)
        finally:
            book.close()
        if not well:
            raise typer.Exit(EXIT_FAILED)


def _search(
    console: Console, book: Book, ray_address: str, asked: Callable[[], int],
    search: Callable[[Book, Callable[[str], None], Callable[[], int]], None],
) -> bool:  # fmt: skip
    """Trials, then the best on held-out seeds; whether nothing failed. Ray is joined where there is something to run."""
    asked_for = book.sweep
    joined = False

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    def join() -> None:
        nonlocal joined
        if not joined:
            say(f"Ray: {connect(ray_address, most(asked_for), asked_for.parallel)}")
            rearm()
            joined = True

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def rearm() -> None:
        for number, handler in before.items():  # Ray puts handlers of its own in place
            signal.signal(number, handler)

    try:
        if book.of("running") or len(book.trials) < asked_for.trials:
            join()
            search(book, say, asked)
        failed = book.of("failed")
        for trial in failed:
            typer.echo(f"{trial.name} failed: {trial.error} ({book.folder_of(trial.number) / 'error.txt'})", err=True)
        if asked():
            return False
        entries = survey(cells(book, best(book)))
        if all(entry.state is State.DONE for entry in entries):
            return not failed
        join()
        say(f"held-out seeds: {footer(entries)}")
        with shown(console, asked_for.suite, "held-out runs") as (turn, event):
            outcome = drive(
                entries, RayPool(), retries=asked_for.retries, on_turn=turn, on_event=event, should_stop=asked
            )
        if said := failures(outcome.entries):
            typer.echo(said, err=True)
        return not failed and not outcome.of(State.FAILED, State.HELD)
    finally:
        if joined:
            RayPool().close()


def open_pool(console: Console, ray_address: str | None, jobs: int | None, needs: Needs) -> Pool:
    """The place for runs that was asked for, checked to have what one needs."""
    if ray_address is None:
        check_machine(needs)
        return LocalPool(jobs or 1)
    console.print(f"Ray: {connect(ray_address, needs)}", soft_wrap=True)
    return RayPool(jobs)


@contextmanager
def stops() -> Iterator[Callable[[], int]]:
    """Counts SIGTERM and Ctrl-C while open."""
    asked = 0

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shown(
    console: Console, suite: str, agent: str
) -> Iterator[tuple[Callable[[Sequence[Entry]], None], Callable[[Entry], None]]]:
    """(each turn, each event) as a live table on a terminal, as plain lines elsewhere."""

    def say(entry: Entry) -> None:
        console.print(_event(entry), soft_wrap=True)

    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, vertical_overflow="visible") as live:
            yield lambda entries: live.update(grid_table(suite, agent, entries)), lambda entry: None
        return
    last = time.monotonic()

    def turn(entries: Sequence[Entry]) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_EVERY_S:
            last = time.monotonic()
            going = [f"{e.cell.name} {e.share:.0%}" for e in entries if e.state is State.RUNNING]
            more = f" and {len(going) - 4} more" if len(going) > 4 else ""
            console.print(f"{footer(entries)}: {', '.join(going[:4])}{more}", soft_wrap=True)

    yield turn, say


def grid_table(suite: str, agent: str, entries: Sequence[Entry]) -> Group:
    """The grid as a table, a row a task."""
    by_task: dict[str, dict[int, Entry]] = {}
    for entry in entries:
        by_task.setdefault(entry.cell.row, {})[entry.cell.config.seed] = entry
    seeds = sorted({entry.cell.config.seed for entry in entries})
    table = Table(box=None, pad_edge=False, title=f"{agent} on {suite}", title_justify="left")
    table.add_column("task")
    for heading in [f"seed {seed}" for seed in seeds] if len(seeds) <= WIDE else ["done", "running", "failed", "of"]:
        table.add_column(heading, justify="right")
    for task, of in by_task.items():
        if len(seeds) <= WIDE:
            table.add_row(task, *(_cell_text(of[seed]) if seed in of else Text("") for seed in seeds))
        else:
            counts = [sum(e.state is state for e in of.values()) for state in (State.DONE, State.RUNNING, State.FAILED)]
            table.add_row(task, *map(str, counts), str(len(of)))
    return Group(table, Text(footer(entries), style="bold"))


def footer(entries: Sequence[Entry]) -> str:
    """How many are where, and what is left."""
    counts = {state: sum(entry.state is state for entry in entries) for state in State}
    waiting = counts[State.WAITING] + counts[State.QUEUED]
    words = [f"{counts[State.DONE]} of {len(entries)} done", f"{counts[State.RUNNING]} running", f"{waiting} waiting"]
    words += [f"{counts[state]} {state}" for state in (State.FAILED, State.HELD) if counts[state]]
    left = seconds_left(entries)
    if left:
        needs = entries[0].cell.needs
        hours = (
            f"{left / 3600 * needs.gpus:.1f} GPU-hours" if needs.gpus else f"{left / 3600 * needs.cpus:.1f} CPU-hours"
        )
        words.append(f"about {duration(left / max(counts[State.RUNNING], 1))} left ({hours})")
    return ", ".join(words)


def _drive(
    console: Console, suite: str, agent: str, entries: Sequence[Entry], ray_address: str | None, jobs: int | None, retries: int
) -> Outcome:  # fmt: skip
    cells = [entry.cell for entry in entries]
    pool = open_pool(console, ray_address, jobs, cells[0].needs)
    try:
        # After the pool: Ray puts a handler of its own in place when it is joined.
        with stops() as asked, shown(console, suite, agent) as (turn, event):
            console.print(f"{agent} on {suite}: {footer(entries)}", soft_wrap=True)
            return drive(entries, pool, retries=retries, on_turn=turn, on_event=event, should_stop=asked)
    finally:
        pool.close()


def _finish(console: Console, grid: Grid, outcome: Outcome, few_seeds: bool) -> None:
    console.print(f"{grid.agent} on {grid.suite}: {footer(outcome.entries)}", soft_wrap=True)
    if said := failures(outcome.entries):
        typer.echo(said, err=True)
    for entry in outcome.of(State.HELD):
        typer.echo(
            f"{entry.cell.name}: {entry.cell.folder} is in use by another process; the same command takes it up",
            err=True,
        )
    if outcome.stopped:
        console.print("stopped, and saved: the same command goes on")
        raise typer.Exit(EXIT_STOPPED)
    page = write_report(grid, grid.root / "report", command_line(), few_seeds)
    if page is not None:
        console.print(f"report: {page}", soft_wrap=True)
    if outcome.of(State.FAILED, State.HELD):
        raise typer.Exit(EXIT_FAILED)


def _print_plan(console: Console, grid: Grid, entries: Sequence[Entry], jobs: int | None) -> None:
    console.print(grid_table(grid.suite, grid.agent, entries))
    config, needs = grid.cells[0].config, grid.cells[0].needs
    todo = sum(1.0 - entry.share for entry in entries if entry.state is not State.DONE)
    cost_of_one = estimate(config)
    hours = cost_of_one.hours
    typer.echo(f"a run: {config.steps:,} agent steps, {needs}; each in {grid.root}/<task>/seed_<n>")
    for name, value in cost_of_one.lines().items():
        typer.echo(f"a run of {grid.cells[0].task}, {name}: {value}")
    cost = f"{todo:.1f} runs to go: about {duration(todo * hours * 3600)} one after the other, evaluations not counted"
    cost += f" ({todo * hours * needs.cpus:.2f} CPU-hours"
    cost += f", {todo * hours * needs.gpus:.2f} GPU-hours at this machine's pace)" if needs.gpus else ")"
    typer.echo(cost + (f"; {duration(todo * hours * 3600 / jobs)} with {jobs} at a time" if jobs and jobs > 1 else ""))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if jobs and jobs * needs.cpus > cores:
        typer.echo(f"note: {jobs} runs of {needs} at a time share the {cores} cores of this machine")


def _print_sweep(asked_for: Sweep, out: Path) -> None:
    config = configure(asked_for, asked_for.tasks[0], 0, {})
    cost_of_one = estimate(config)
    hours = cost_of_one.hours
    runs = asked_for.trials * asked_for.seeds * len(asked_for.tasks)
    again = (asked_for.confirm.top + asked_for.confirm.baseline) * asked_for.confirm.seeds * len(asked_for.tasks)
    again = again if asked_for.confirm.top else 0
    typer.echo(f"{asked_for.name}: {asked_for.trials} trials of {len(asked_for.space)} keys in {out / asked_for.name}")
    for key, param in asked_for.space.items():
        typer.echo(f"  {key}: {in_words(param)}")
    typer.echo(
        f"a trial: {len(asked_for.tasks)} tasks x {asked_for.seeds} seeds, scored at {asked_for.milestones} agent steps"
    )
    for name, value in cost_of_one.lines().items():
        typer.echo(f"a run of {config.task} by the preset, {name}: {value}")
    left = "fewer, since trials are stopped" if asked_for.rungs.first else "no trial is stopped"
    typer.echo(
        f"at most {runs} runs and {again} on held-out seeds: about {(runs + again) * hours:.2f} hours one after the other at the "
        f"preset's cost, evaluations not counted ({left})"
    )


def _cell_text(entry: Entry) -> Text:
    mark, style = MARKS[entry.state]
    if entry.state is State.DONE:
        assert entry.standing.result is not None
        mark += f" {float(entry.standing.result['mean']):,.4g}"
    elif entry.state is State.RUNNING or (entry.state is State.WAITING and entry.share):
        mark += f" {entry.share:.0%}"
    return Text(mark.strip(), style=style)


def _event(entry: Entry) -> str:
    result = entry.standing.result
    if entry.state is State.DONE and result is not None:
        return f"{entry.cell.name}: done in {duration(float(result['elapsed_s']))}, mean {float(result['mean']):,.4g}"
    again = "; it is tried again" if entry.state is State.WAITING else ""
    return f"{entry.cell.name}: {entry.state if not again else 'failed'} ({entry.note}){again}"
