"""The best configurations again, on seeds that the search has not seen: only these name a winner."""

from pathlib import Path

from rlplatform.evaluation.sweeps import BASELINE, Candidate, Trial
from rlplatform.grid.cells import Cell
from rlplatform.sweep.book import Book
from rlplatform.sweep.schema import Sweep
from rlplatform.sweep.trial import cells_of, normalise, score_at


def best(book: Book) -> list[Trial]:
    """The trials that are run again: the best of those that came to their end."""
    complete = [trial for trial in book.of("complete") if trial.last is not None]
    complete.sort(key=lambda trial: (-trial.rungs[-1].score.point, trial.number))
    return complete[: book.sweep.confirm.top]


def held_out(sweep: Sweep) -> range:
    """The seeds of the runs that confirm: those after the search's."""
    return range(sweep.seeds, sweep.seeds + sweep.confirm.seeds)


def cells(book: Book, chosen: list[Trial]) -> list[Cell]:
    """All their runs, and the baseline's."""
    sweep, root = book.sweep, book.folder / "confirm"
    out = [
        cell
        for trial in chosen
        for cell in cells_of(sweep, root / trial.name, trial.params, held_out(sweep), confirm=True)
    ]
    if chosen and sweep.confirm.baseline:
        out += cells_of(sweep, root / BASELINE, {}, held_out(sweep), confirm=True)
    return out


def candidates(book: Book, chosen: list[Trial]) -> list[Candidate]:
    """What the runs that are finished have found; a configuration with an unfinished run is left out."""
    root = book.folder / "confirm"
    found = [
        Candidate(trial.name, trial.params, trial.rungs[-1].score, scores)
        for trial in chosen
        if (scores := _scores(book.sweep, root / trial.name)) is not None
    ]
    baseline = _scores(book.sweep, root / BASELINE) if book.sweep.confirm.baseline else None
    return [*found, Candidate(BASELINE, {}, None, baseline)] if baseline is not None else found


def _scores(sweep: Sweep, folder: Path) -> dict[str, list[float]] | None:
    scores: dict[str, list[float]] = {}
    for task in sweep.tasks:
        name = task.rpartition("/")[2]
        for seed in held_out(sweep):
            raw = score_at(folder / name / f"seed_{seed}", sweep.steps, last=True)
            if raw is None:
                return None
            scores.setdefault(name, []).append(normalise(sweep, task, raw))
    return scores
