"""Is an agent as good as another? `compare` gives the difference with its interval, P(improvement), and a verdict in words.

The verdict rests on the 95 % interval of the difference and on a margin, the difference that would matter (a tenth of theirs
unless said otherwise):

    above, below              the interval lies on one side of 0
    consistent with           it holds 0 and lies within the margin: a difference that matters is ruled out
    too few seeds to tell     anything else, with the number of seeds a task that would tell if the estimates stay as they are
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rlplatform.evaluation import protocols, stats
from rlplatform.evaluation.analysis import FEWEST, Estimate, least, task_gaps
from rlplatform.evaluation.groups import Group, common_tasks
from rlplatform.evaluation.published import percentile
from rlplatform.evaluation.stats import Floats, Measure
from rlplatform.evaluation.store import scales

Z = 1.959964  # of a 95 % interval
MARGIN = 0.1  # of theirs
MOST = 100_000  # seeds: beyond it the answer is that none will do
Word = Literal["above", "below", "consistent with", "too few seeds to tell"]


@dataclass(frozen=True)
class TaskRow:
    """One task of a comparison, in raw scores."""

    task: str
    ours: float
    theirs: float
    runs: tuple[int, int]
    difference: Estimate
    improvement: float  # P(a run of ours scores above one of theirs)
    percentile: float | None  # of our mean within their runs


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

    ours: Group
    theirs: Group
    tasks: tuple[str, ...]
    measure: str  # "IQM", or "mean" where only their means are public
    normalised: bool
    ours_at: float
    theirs_at: float
    difference: Estimate
    improvement: Estimate | None  # None of published means
    margin: float
    word: Word
    seeds: int | None  # a task, of ours, that would tell; None where that is not the question, or none would
    verdict: str  # a sentence
    rows: tuple[TaskRow, ...]
    unlike: str  # a sentence, or empty
    unstated: str  # likewise: what could not be compared


def compare(
    ours: Group,
    theirs: Group,
    margin: float | None = None,
    *,
    reps: int = 10_000,
    seed: int = 0,
    few_seeds: bool = False,
) -> Comparison:
    """Compare two groups over the tasks that both have.

    Args:
        margin: the difference that matters, in the unit of the scores; a tenth of theirs by default.
        few_seeds: take the interval of 2 runs a task for what it is worth.

    Raises:
        ValueError: no task in common, unlike benchmarks, no runs of ours, or a margin that is none.
    """
    if ours.means:
        raise ValueError(f"of {ours.title} only means are known: a comparison needs runs of it")
    tasks = common_tasks([ours, theirs])
    ends = scales(ours.benchmark) if ours.benchmark else {}
    normalised = set(tasks) <= set(ends)
    a, b = ({task: group.scores[task] for task in tasks} for group in (ours, theirs))
    x, y = (stats.normalize(of, ends) if normalised else dict(of) for of in (a, b))
    measure = stats.mean if theirs.means else stats.iqm
    at = measure(x), measure(y)
    margin = max(MARGIN * abs(at[1]), 1e-9) if margin is None else margin
    if not margin > 0 or not math.isfinite(margin):
        raise ValueError(f"a margin is a positive number, got {margin}")
    enough = min(len(runs) for runs in x.values()) >= least(few_seeds)
    gap = Estimate(at[0] - at[1])
    if enough:
        gap = Estimate.of(stats.difference(x, y, measure, reps=reps, seed=seed, few_seeds=True))
    chance = None
    if not theirs.means:
        p = stats.improvement(x, y, reps=reps, seed=seed, few_seeds=True)
        chance = Estimate.of(p) if enough else Estimate(p.point)
    word = _word(gap, margin)
    asked = word == "too few seeds to tell"
    seeds = _seeds(x, y, measure, gap, margin, theirs.means, reps, seed) if asked else None
    known_to = 0.0 if theirs.means else Z * math.sqrt(_variance(y, measure, reps, seed)) if asked else 0.0
    rows = _rows(a, b, theirs.means, reps, seed, few_seeds)
    return Comparison(
        ours, theirs, tuple(tasks), measure.name, normalised, *at, gap, chance, margin, word, seeds,
        _sentence(ours, theirs, measure.name, gap, margin, word, seeds, known_to), rows,
        protocols.differences(ours.title, ours.protocol, theirs.title, theirs.protocol),
        protocols.unknowns(ours.title, ours.protocol, theirs.title, theirs.protocol),
    )  # fmt: skip


def _word(gap: Estimate, margin: float) -> Word:
    if gap.low is None or gap.high is None:
        return "too few seeds to tell"
    if gap.low > 0 or gap.high < 0:
        return "above" if gap.low > 0 else "below"
    return "consistent with" if -margin < gap.low and gap.high < margin else "too few seeds to tell"


def _seeds(
    x: Mapping[str, Floats],
    y: Mapping[str, Floats],
    measure: Measure,
    gap: Estimate,
    margin: float,
    means: bool,
    reps: int,
    seed: int,
) -> int | None:
    """Seeds a task of ours with which the interval would be decided: it leaves 0 outside or lies within the margin, whichever takes
    fewer, if the difference stays where it is. The spread over our seeds is that of our runs, or of theirs where ours are too few;
    variances of a measure fall as 1 / seeds."""
    theirs = 0.0 if means else _variance(y, measure, reps, seed)
    n = min(len(runs) for runs in x.values())
    of_ours = gap.known or n >= FEWEST
    if not of_ours and means:
        return None
    spread, count = (x, n) if of_ours else (y, min(len(runs) for runs in y.values()))
    one = _variance(spread, measure, reps, seed) * count  # of a single seed a task
    half = max(abs(gap.point), margin - abs(gap.point)) if of_ours else margin
    left = (half / Z) ** 2 - theirs
    if left <= 0 or one / left > MOST:
        return None
    return max(FEWEST, n + 1, math.ceil(one / left))


def _variance(scores: Mapping[str, Floats], measure: Measure, reps: int, seed: int) -> float:
    """Of the measure over repeated experiments, with n runs a task; a bootstrap sees (n - 1) / n of it."""
    n = sum(len(runs) for runs in scores.values()) / len(scores)
    if n <= 1:
        return 0.0
    drawn = stats.interval(scores, measure, reps=reps, seed=seed, few_seeds=True)
    return ((drawn.high - drawn.low) / (2 * Z)) ** 2 * n / (n - 1)


def _rows(
    ours: Mapping[str, Floats], theirs: Mapping[str, Floats], means: bool, reps: int, seed: int, few_seeds: bool
) -> tuple[TaskRow, ...]:
    gaps = task_gaps(ours, theirs, means, reps, seed, few_seeds)
    rows = []
    for task, mine in ours.items():
        other = theirs[task]
        gap = gaps.get(task, Estimate(float(mine.mean() - other.mean())))
        above = float((mine[:, None] > other).mean() + 0.5 * (mine[:, None] == other).mean())
        place = None if means else percentile(float(mine.mean()), other)
        rows.append(TaskRow(task, float(mine.mean()), float(other.mean()), (len(mine), len(other)), gap, above, place))
    return tuple(rows)


def _sentence(
    ours: Group, theirs: Group, measure: str, gap: Estimate, margin: float, word: Word, seeds: int | None, floor: float
) -> str:
    fewest = min(len(runs) for runs in ours.scores.values())
    a, b = ours.title, theirs.title
    interval = "" if gap.low is None or gap.high is None else f" [{gap.low:+.3f}, {gap.high:+.3f}]"
    found = f"the difference in {measure} is {gap.point:+.3f}{interval}"
    if word in {"above", "below"}:
        return f"{a} is {word} {b}: {found}."
    if word == "consistent with":
        return f"{a} is consistent with {b}: {found}, within ±{margin:.3f}, the difference that would matter."
    have = f"{fewest} seed{'s' if fewest > 1 else ''} a task" + ("" if interval else ", too few for an interval")
    if seeds is None:
        enough = f"no number of seeds of {a} would: what would matter is ±{margin:.3f}, and {b} alone is known to ±{floor:.3f}"
        if theirs.means:
            enough = "how many would cannot be said from their means alone"
    else:
        enough = (
            f"about {seeds} seeds a task would, if the estimates stay as they are (what would matter: ±{margin:.3f})"
        )
    return f"Too few seeds to tell {a} from {b}: {found} with {have}; {enough}."


def to_text(found: Comparison) -> str:
    """In Markdown: the verdict, the numbers it rests on, what is unlike, and a row a task."""
    a, b = found.ours.title, found.theirs.title
    tasks = f"{len(found.tasks)} tasks" if len(found.tasks) > 1 else found.tasks[0]
    parts = [f"# {a} against {b}: {tasks}", f"**{found.verdict}**"]
    parts += [f"> {sentence}" for sentence in (found.unlike, found.unstated) if sentence]
    unit = "normalised" if found.normalised else "raw"
    numbers = [
        f"| {found.measure}, {unit} | {found.ours_at:.3f} | {found.theirs_at:.3f} | {_signed(found.difference)} |",
    ]
    if found.improvement is not None:
        p = found.improvement
        interval = f" [{p.low:.2f}, {p.high:.2f}]" if p.low is not None else ""
        numbers.append(f"| P({a} > {b}) | {p.point:.2f}{interval} | | |")
    parts.append("\n".join([f"| | {a} | {b} | difference [95 %] |", "|---|---:|---:|---:|", *numbers]))
    rows = [
        f"| task | {a} | {b} | runs | difference [95 %] | P(above) | percentile of ours |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found.rows:
        place = "" if row.percentile is None else f"{row.percentile:.0f}"
        above = "" if row.percentile is None else f"{row.improvement:.2f}"
        rows.append(
            f"| {row.task} | {row.ours:,.1f} | {row.theirs:,.1f} | {row.runs[0]}, {row.runs[1]} | {_signed(row.difference, 1)} "
            f"| {above} | {place} |"
        )
    parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def to_json(found: Comparison) -> dict[str, Any]:
    """The same for programs."""
    return {
        "ours": found.ours.name, "theirs": found.theirs.name, "tasks": list(found.tasks), "measure": found.measure,
        "normalised": found.normalised, "value": [found.ours_at, found.theirs_at], "difference": asdict(found.difference),
        "improvement": None if found.improvement is None else asdict(found.improvement), "margin": found.margin,
        "verdict": found.word, "seeds": found.seeds, "sentence": found.verdict, "unlike": found.unlike, "unstated": found.unstated,
        "rows": [asdict(row) for row in found.rows],
    }  # fmt: skip


def _signed(found: Estimate, digits: int = 3) -> str:
    interval = (
        "" if found.low is None or found.high is None else f" [{found.low:+,.{digits}f}, {found.high:+,.{digits}f}]"
    )
    return f"{found.point:+,.{digits}f}{interval}"
