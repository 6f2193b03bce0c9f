"""The command line: verbs over rlplatform.experiment. The only part of the library that prints."""

import dataclasses
import importlib
import json
import pkgutil
import runpy
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from rlplatform import cli_grid
from rlplatform import config as configs
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
from rlplatform.evaluation.runs import find
from rlplatform.evaluation.video import filming
from rlplatform.experiment import Progress as RunProgress
from rlplatform.experiment import Stopped, estimate, load_policy, run, score_policy, summary
from rlplatform.grid import EXIT_STOPPED
from rlplatform.placement import Placement
from rlplatform.runconfig import RunConfig, default_folder, maker, read_config, resolve_config
from rlplatform.rundir import RunDirError
from rlplatform.tracking import Tracker

app = typer.Typer(
    help="Train, evaluate and compare reinforcement-learning agents. Runs are exact: the same command resumes a run, bit for bit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

TaskName = Annotated[str, typer.Argument(help="A task, such as atari/Pong or catch (`rlplatform list tasks`).")]
Seed = Annotated[int | None, typer.Option(help="Seed of the run [default: 0].")]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="Actors as Ray processes: local, auto or HOST:PORT of a cluster [default: in this process]. The result is the same."
    ),
]
ActorCpus = Annotated[float, typer.Option(help="Logical CPUs of each Ray actor.")]
LearnerGpus = Annotated[
    float, typer.Option(help="Logical GPUs of the learner where there is Ray; 0.25: four share one.")
]
ActorDeadline = Annotated[float, typer.Option(help="Seconds after which an actor that gives no rollout is replaced.")]
Track = Annotated[bool, typer.Option("--track", help="Also log to Weights & Biases (extra `wandb`).")]
Project = Annotated[str, typer.Option(help="The wandb project that --track logs to.")]
Against = Annotated[
    list[str] | None,
    typer.Option(
        help="Published agents to compare with (`rlplatform list references`), separated by commas; repeatable."
    ),
]
BenchmarkName = Annotated[str | None, typer.Option(help="Whose tasks these are, where their names do not say.")]
Margin = Annotated[
    float | None, typer.Option(help="The difference that matters to a verdict [default: a tenth of theirs].")
]
Reps = Annotated[int, typer.Option(min=100, help="Resamples of an interval.")]


@app.command()
def train(
    agent: AgentName,
    task: TaskName,
    overrides: Overrides = None,
    seed: Seed = None,
    steps: Steps = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="The run's folder [default: runs/<suite>/<agent>/<task>/seed_<n>].")
    ] = None,
    own_agent: OwnAgent = None,
    imports: Imports = None,
    dry_run: Annotated[
        bool, typer.Option(help="Print the resolved configuration and what the run needs, and stop.")
    ] = False,
    ray_address: RayAddress = None,
    actor_cpus: ActorCpus = 1.0,
    learner_gpus: LearnerGpus = 0.0,
    actor_deadline: ActorDeadline = 600.0,
    track: Track = False,
    project: Project = "rlplatform",
) -> None:
    """Train an agent on a task and evaluate it; a run that was interrupted goes on.

    SIGTERM and Ctrl-C write a checkpoint and exit with code 75; the same command resumes.
    """
    with errors_as_messages():
        config = _resolve(agent, task, overrides, own_agent, imports, seed=seed, steps=steps)
        folder = run_dir or default_folder(config)
        if dry_run:
            _print_plan(config, folder)
            return
        placement = _placement(ray_address, actor_cpus, learner_gpus, actor_deadline)
        _run(config, folder, placement, project if track else None)


@app.command()
def resume(
    run_dir: Annotated[Path, typer.Argument(help="A run's folder.")],
    ray_address: RayAddress = None,
    actor_cpus: ActorCpus = 1.0,
    learner_gpus: LearnerGpus = 0.0,
    actor_deadline: ActorDeadline = 600.0,
    track: Track = False,
    project: Project = "rlplatform",
) -> None:
    """Go on with a run, by its folder alone; its actors may live elsewhere than before."""
    with errors_as_messages():
        placement = _placement(ray_address, actor_cpus, learner_gpus, actor_deadline)
        _run(_config_of(run_dir), run_dir, placement, project if track else None)


@app.command()
def evaluate(
    run_dir: Annotated[Path, typer.Argument(help="A run's folder.")],
    episodes: Annotated[int | None, typer.Option(help="Episodes [default: the run's eval.episodes].")] = None,
    backend: Annotated[
        str | None, typer.Option(help="exact, or envpool for Atari on threads [default: the run's own].")
    ] = None,
    lanes: Annotated[
        int | None, typer.Option(help="Games under way at a time [default: the run's eval.lanes].")
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where the policy acts: cpu, cuda or cuda:N, wherever the run learned.")
    ] = "cpu",
    video: Annotated[
        Path | None, typer.Option(help="Also film episode 0 of this evaluation into this file (.gif or .mp4).")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Score the newest checkpoint of a run by its protocol. The run's own files stay as they are."""
    with errors_as_messages():
        _config_of(run_dir)
        config, policy, step = load_policy(run_dir, device)
        config = dataclasses.replace(
            config,
            backend=backend or config.backend,
            eval=dataclasses.replace(config.eval, lanes=config.eval.lanes if lanes is None else lanes),
        )
        with ExitStack() as films:
            make = maker(config) if video is None else films.enter_context(filming(maker(config), video))
            scores = score_policy(config, policy, step, episodes or config.eval.episodes, make=make)
        result = summary(scores, step)
        if json_output:
            typer.echo(json.dumps(result))
        else:
            _print_result(config, result)
        if video is not None:
            typer.echo(f"episode 0 is filmed in {video}", err=json_output)


@app.command()
def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Finished runs, folders of such, .csv and .json files of scores; none: published agents alone."
        ),
    ] = None,
    against: Against = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write report.html, report.md, tables.csv, tables.tex and the figures into this folder."),
    ] = None,
    benchmark: BenchmarkName = None,
    few_seeds: FewSeeds = False,
    margin: Margin = None,
    reps: Reps = 10_000,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw the training curves into this file (.png or .svg).")
    ] = None,
) -> None:
    """Report runs: aggregates with intervals, profiles, P(improvement), tasks beside published ones, protocol, cost.

    With --out: a page to read offline, the same in Markdown, tables and figures. Without: on the terminal, a page for one run, a
    table for a folder of runs.
    """
    from rlplatform.evaluation import plots
    from rlplatform.evaluation import report as report_  # here, since matplotlib takes a second
    from rlplatform.evaluation.analysis import analyse
    from rlplatform.evaluation.document import to_markdown, write_report
    from rlplatform.evaluation.groups import gather

    with errors_as_messages():
        paths, agents = runs or [], _agents(against)
        if out is None and len(paths) == 1 and paths[0].is_dir():
            single = (paths[0] / "result.json").exists()
            typer.echo(report_.summarise(paths[0], agents) if single else report_.results(paths[0]))
        else:
            found = analyse(gather(paths, agents, benchmark), reps=reps, few_seeds=few_seeds)
            if out is None:
                typer.echo(to_markdown(found, [], [], ""))
            else:
                files = write_report(found, out, command=command_line(), margin=margin, reps=reps, few_seeds=few_seeds)
                typer.echo(f"{files[0]} and {len(files) - 1} more files")
        if plot is not None:
            plots.curve([run for path in paths for run in find(path)], plot)


@app.command()
def phases(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs on one suite `continual-*`, folders of such.")],
    baseline: Annotated[
        str, typer.Option(help="The agent in whose units overall scores are [default: the first one's].")
    ] = "",
    few_seeds: FewSeeds = False,
    reps: Reps = 10_000,
    plot: Annotated[Path | None, typer.Option(help="Also draw areas by phase into this file (.png or .svg).")] = None,
) -> None:
    """Compare agents where environments change: area by phase, overall, P(improvement), steps to recover, as Markdown."""
    from rlplatform.evaluation import phase_report

    with errors_as_messages():
        table = phase_report.gather([run for path in runs for run in find(path)], baseline)
        typer.echo(phase_report.to_markdown(table, reps=reps, few_seeds=few_seeds), nl=False)
        if plot is not None:
            phase_report.plot(table, plot, reps=reps, few_seeds=few_seeds)


@app.command()
def compare(
    mine: Annotated[list[Path], typer.Argument(help="Finished runs, folders of such, .csv and .json files of scores.")],
    against: Against = None,
    benchmark: BenchmarkName = None,
    few_seeds: FewSeeds = False,
    margin: Margin = None,
    reps: Reps = 10_000,
    json_output: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Say whether runs are consistent with, above or below a published agent, or too few to tell, and how many would."""
    from rlplatform.evaluation.compare import compare as compare_
    from rlplatform.evaluation.compare import to_json, to_text
    from rlplatform.evaluation.groups import gather

    with errors_as_messages():
        if not (agents := _agents(against)):
            raise ValueError("name what to compare with: --against bbf_rr2 (`rlplatform list references`)")
        groups = gather(mine, agents, benchmark)
        ours, theirs = [g for g in groups if g.ours], [g for g in groups if not g.ours]
        found = [compare_(a, b, margin, reps=reps, few_seeds=few_seeds) for a in ours for b in theirs]
        if json_output:
            typer.echo(json.dumps([to_json(one) for one in found], indent=2))
        else:
            typer.echo("\n".join(to_text(one) for one in found), nl=False)


@app.command("config")
def config_(
    agent: AgentName, task: TaskName, overrides: Overrides = None, seed: Seed = None, steps: Steps = None,
    own_agent: OwnAgent = None, imports: Imports = None,
) -> None:  # fmt: skip
    """Print the resolved configuration as YAML: every key that KEY=VALUE can set."""
    with errors_as_messages():
        typer.echo(
            configs.to_yaml(_resolve(agent, task, overrides, own_agent, imports, seed=seed, steps=steps)), nl=False
        )


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="agents, tasks, suites, references or benches.")] = "agents",
) -> None:
    """List what can be named on this command line."""
    listers: dict[str, Callable[[], Iterator[tuple[str, ...]]]] = {
        "agents": _list_agents, "tasks": _list_tasks, "suites": _list_suites, "references": _list_references, "benches": _list_benches,
    }  # fmt: skip
    with errors_as_messages():
        if what not in listers:
            raise configs.ConfigError(
                f"cannot list {what!r}{configs.suggestion(what, list(listers))}; known: {', '.join(listers)}"
            )
        table = Table(box=None, pad_edge=False, show_header=False)
        for row in listers[what]():
            table.add_row(*row)
        Console().print(table)


@app.command("import-references")
def import_references_(
    file: Annotated[Path, typer.Argument(help="CSV (tidy or wide) or JSON of scores: your own copy.")],
    benchmark: Annotated[str | None, typer.Option(help="For files without a column of that name.")] = None,
    suffix: Annotated[str, typer.Option(help="An agent is filed as <its name>_<suffix>.")] = "imported",
    reference: Annotated[str, typer.Option(help="The paper, shown with every comparison.")] = "not said",
    licence: Annotated[str, typer.Option(help="Of the file, shown with every comparison.")] = "not said",
    unit: Annotated[str, typer.Option(help='What its steps count: "agent steps" or "frames".')] = "agent steps",
) -> None:
    """Add published scores that may not be shipped, from your own copy, to what runs can be compared with.

    They are kept in $RLPLATFORM_REFERENCES, or in rlplatform/references of your data folder.
    """
    from rlplatform.evaluation.importer import import_references

    with errors_as_messages():
        for added in import_references(file, benchmark, suffix=suffix, reference=reference, licence=licence, unit=unit):
            typer.echo(added)


@app.command()
def doctor() -> None:
    """Say which parts are active on this machine, and why the others are not."""
    from rlplatform.doctor import diagnose

    table = Table("part", "active", "version", "why", box=None, pad_edge=False)
    rows = diagnose()
    for row in rows:
        table.add_row(row.part, "yes" if row.active else "no", row.version or "", row.why)
    Console(markup=False).print(table)  # "rlplatform[cluster]" is no markup
    if any(row.required and not row.active for row in rows):
        raise typer.Exit(EXIT_FAILED)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="A benchmark (`rlplatform list benches`); what follows is passed on to it.")
    ],
) -> None:
    """Run a throughput benchmark: a table, and a result file with the machine recorded."""
    with errors_as_messages():
        known = [row[0] for row in _list_benches()]
        if name not in known:
            raise configs.ConfigError(
                f"no benchmark {name!r}{configs.suggestion(name, known)}; known: {', '.join(known)}"
            )
    sys.argv = [f"rlplatform bench {name}", *context.args]
    runpy.run_module(f"rlplatform.evaluation.bench.{name}", run_name="__main__")


cli_grid.register(app)


def main() -> None:
    """The console script."""
    app()


def _agents(against: list[str] | None) -> list[str]:
    return [name for given in against or () for name in given.split(",") if name]


def _resolve(
    agent: str, task: str, overrides: list[str] | None, own_agent: str | None, imports: list[str] | None, **given: Any
) -> RunConfig:
    sys.path.append(str(Path.cwd()))  # modules of the user's own lie where he is
    if ":" in agent and own_agent is None:
        own_agent, agent = agent, agent.rpartition(":")[2].lower()
    for module in imports or ():
        importlib.import_module(module)
    return resolve_config(agent, task, overrides or (), own_agent, imports=tuple(imports or ()), **given)


def _config_of(run_dir: Path) -> RunConfig:
    sys.path.append(str(Path.cwd()))
    if not (run_dir / "config.yaml").exists():
        raise RunDirError(f"{run_dir} is not a run: it has no config.yaml")
    return read_config(run_dir)


def _placement(ray: str | None, actor_cpus: float, learner_gpus: float, deadline_s: float) -> Placement:
    return Placement(ray or "", actor_cpus=actor_cpus, learner_gpus=learner_gpus, deadline_s=deadline_s)


def _run(config: RunConfig, folder: Path, placement: Placement, project: str | None = None) -> None:
    asked_to_stop = False

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    try:
        with ExitStack() as open_:
            show = open_.enter_context(_progress_shown(config, folder))
            if project is None:
                result = run(config, folder, show, lambda: asked_to_stop, placement)
            else:
                name = f"{config.preset} {config.task} {config.seed}"
                tracker = open_.enter_context(Tracker(folder, asdict(config), name, project))

                def show_and_follow(now: RunProgress) -> None:
                    show(now)
                    tracker.follow()

                result = run(config, folder, show_and_follow, lambda: asked_to_stop, placement)
                tracker.finish(result)
    except Stopped as stopped:
        typer.echo(str(stopped), err=True)
        raise typer.Exit(EXIT_STOPPED) from None
    _print_result(config, result)
    typer.echo(f"everything is in {folder}")


@contextmanager
def _progress_shown(config: RunConfig, folder: Path) -> Iterator[Callable[[RunProgress], None]]:
    """A live line on a terminal, plain lines otherwise."""
    console = Console(stderr=True)
    console.print(
        f"{config.preset} on {config.task}, seed {config.seed}, {config.steps:,} agent steps -> {folder}",
        highlight=False,
    )
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.fields[facts]}"))  # fmt: skip
        with Progress(*columns, console=console, refresh_per_second=4) as bar:
            tasks: dict[str, Any] = {}

            def show(now: RunProgress) -> None:
                if now.stage not in tasks:
                    tasks[now.stage] = bar.add_task(now.stage, total=now.total, facts="")
                bar.update(tasks[now.stage], completed=now.done, facts=_facts(now.metrics))

            yield show
        return
    last = time.monotonic()
    first: tuple[float, RunProgress] | None = None

    def show_line(now: RunProgress) -> None:
        nonlocal last, first
        at = time.monotonic()
        if first is None or first[1].stage != now.stage:
            first = at, now
        if at - last >= PLAIN_EVERY_S or now.done == now.total:
            last = at
            done = now.done - first[1].done
            left = f", {duration((at - first[0]) / done * (now.total - now.done))} left" if done else ""
            console.print(
                f"{now.stage} {now.done:,} of {now.total:,}{left}  {_facts(now.metrics)}",
                highlight=False,
                soft_wrap=True,
            )

    yield show_line


def _facts(metrics: Mapping[str, float]) -> str:
    """The few numbers worth a line."""
    shown = {
        "return": ("charts/episodic_return", "{:.1f}"), "steps/s": ("charts/SPS", "{:.1f}"),
        "updates/s": ("perf/updates_per_s", "{:.1f}"), "replay ratio": ("replay/ratio", "{:.2f}"), "loss": ("losses/td_loss", "{:.3f}"),
    }  # fmt: skip
    return "  ".join(
        f"{label} {form.format(metrics[name])}" for label, (name, form) in shown.items() if name in metrics
    )


def _print_result(config: RunConfig, result: Mapping[str, Any]) -> None:
    console = Console()
    console.print(
        f"{config.preset} on {config.task}, seed {config.seed}, after {result['step']:,} agent steps: "
        f"mean {result['mean']:.2f}, median {result['median']:.2f}, sd {result['std']:.2f}, "
        f"range {result['min']:g} to {result['max']:g} over {result['episodes']} episodes",
        highlight=False,
        soft_wrap=True,
    )
    if "human_normalized_mean" in result:
        console.print(f"normalised mean {result['human_normalized_mean']:.3f}", highlight=False)


def _print_plan(config: RunConfig, folder: Path) -> None:
    typer.echo(configs.to_yaml(config), nl=False)
    for name, value in estimate(config).lines().items():
        typer.echo(f"# {name}: {value}")
    typer.echo(f"# run directory: {folder}")


def _list_agents() -> Iterator[tuple[str, ...]]:
    from rlplatform.agents import load_preset, presets

    for name in presets():
        yield name, load_preset(name).agent


def _list_tasks() -> Iterator[tuple[str, ...]]:
    from rlplatform.envs import tasks

    yield from ((name,) for name in tasks())


def _list_suites() -> Iterator[tuple[str, ...]]:
    from rlplatform.envs import suites

    for suite in suites():
        yield (
            suite.name,
            f"{len(suite.tasks)} tasks",
            f"{suite.steps:,} agent steps",
            f"{suite.episodes} evaluation episodes" + (f" every {suite.every:,} steps" if suite.every else ""),
        )


def _list_references() -> Iterator[tuple[str, ...]]:
    from rlplatform.evaluation.published import agent_tasks, run_count, sources

    yield "benchmark", "agent", "as people write it", "runs", "tasks", "licence", "reference"
    for source in sources():
        many = str(len(agent_tasks(source.benchmark, source.agent)))
        licence = source.licence + (", imported" if source.imported else "")
        yield source.benchmark, source.agent, source.title, run_count(source), many, licence, source.reference


def _list_benches() -> Iterator[tuple[str, ...]]:
    package = importlib.import_module("rlplatform.evaluation.bench")
    for module in pkgutil.iter_modules(package.__path__):
        found = importlib.util.find_spec(f"{package.__name__}.{module.name}")
        assert found is not None
        assert found.origin is not None
        docstring = next(iter(Path(found.origin).read_text().split('"""')[1:2]), "")
        yield module.name, docstring.strip().splitlines()[0] if docstring else ""
