"""From the book of a sweep to what its report shows."""

from collections.abc import Mapping
from pathlib import Path

from rlplatform.evaluation.sweep_report import write
from rlplatform.evaluation.sweeps import Found
from rlplatform.sweep.book import Book
from rlplatform.sweep.confirm import best, candidates, held_out
from rlplatform.sweep.schema import Param, Sweep, scale_of


def write_report(book: Book, importance: Mapping[int, Mapping[str, float]], command: str) -> list[Path]:
    """report.html, report.md, trials.csv, confirm.csv and the figures, in the sweep's folder; the page first."""
    return write(found(book, importance), book.folder / "report", command=command)


def found(book: Book, importance: Mapping[int, Mapping[str, float]]) -> Found:
    """What was found so far."""
    sweep = book.sweep
    return Found(
        sweep.name, f"{sweep.preset} on {sweep.suite}", {key: in_words(param) for key, param in sweep.space.items()},
        frozenset(key for key, param in sweep.space.items() if param.type == "log"),
        tuple(book.trials[number] for number in sorted(book.trials)), tuple(sweep.milestones),
        all(scale_of(sweep, task) is not None for task in sweep.tasks), importance,
        tuple(candidates(book, best(book))), _facts(sweep),
    )  # fmt: skip


def in_words(param: Param) -> str:
    """As "log, 0.0001 to 0.01"."""
    if param.type == "choice":
        return f"one of {', '.join(map(str, param.choices))}"
    return f"{param.type}, {param.low:g} to {param.high:g}"


def _facts(sweep: Sweep) -> dict[str, str]:
    tasks = [task.rpartition("/")[2] for task in sweep.tasks]
    out = {
        "agent": sweep.agent, "suite": sweep.suite, "tasks": ", ".join(tasks), "agent steps of a run": f"{sweep.steps:,}",
        "seeds of a trial": f"0 to {sweep.seeds - 1}" if sweep.seeds > 1 else "0",
    }  # fmt: skip
    if sweep.overrides:
        out["of all runs"] = ", ".join(sweep.overrides)
    if sweep.rungs.first:
        rungs = ", ".join(f"{step:,}" for step in sweep.milestones[:-1])
        out["rungs"] = f"{rungs} agent steps; the best 1 in {sweep.rungs.factor} of those that got there goes on (ASHA)"
    out["sampler"] = f"TPE (Optuna), seed {sweep.seed}, the first {sweep.startup} trials at random"
    if sweep.confirm.top:
        seeds = held_out(sweep)
        out["held-out seeds"] = f"{seeds.start} to {seeds.stop - 1}" if len(seeds) > 1 else str(seeds.start)
    return out
