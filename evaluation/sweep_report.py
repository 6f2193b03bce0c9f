"""The report of a sweep: a page to read offline, the same in Markdown, tables as CSV, figures."""

import csv
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from rlplatform.evaluation.document import to_png, to_svg
from rlplatform.evaluation.figures import FAINT, INK, NARROW, PALETTE, SOFT, WIDE
from rlplatform.evaluation.page import Section, page, paragraphs, picture
from rlplatform.evaluation.sweeps import BASELINE, Found, Score, Trial, ranked, verdicts
from rlplatform.evaluation.tables import Cell, Table

DONE, STOPPED, FAILED = PALETTE[0], PALETTE[6], PALETTE[7]
COLOURS = "cividis"  # even in lightness, and the same to colour-blind eyes
SCORING = (
    "A trial is a configuration on all tasks and seeds; its score is the interquartile mean over these runs, each the mean of an "
    "evaluation's episodes, with the 95 % percentile interval of a bootstrap stratified by task (Agarwal et al. 2021, arXiv:2108.13264). "
    "The score of the best trial of a search leans upwards, since it was chosen for being high; so the best are run again on seeds that "
    "the search has not seen, and only those scores name a winner. Intervals cover the chance of seeds, not that of the search."
)
WEIGHING = (
    "Importance: PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255) of Optuna over all trials that were scored at that many agent "
    "steps: each key's share in what sets the best quarter apart. It is given for 10 trials or more, and says nothing about values that "
    "were not tried."
)
METHODS = (SCORING, WEIGHING)
Draw = Callable[[Found, float], Figure]


def write(found: Found, out: Path, *, command: str = "") -> list[Path]:
    """Write everything into the folder `out` and return the files' paths, report.html first."""
    drawn: dict[str, tuple[str, Draw]] = {"search": ("Scores of the trials", search)}
    if _scored(found):
        drawn["space"] = ("The space, two keys at a time", space)
    if found.importance:
        drawn["importance"] = ("Importance of each key", importance)
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    pictures, files = {}, []
    for name, (shows, draw) in drawn.items():
        wide = draw(found, WIDE)
        svg = to_svg(wide)
        (folder / f"{name}.png").write_bytes(to_png(wide))
        (folder / f"{name}.svg").write_bytes(svg)
        files += [folder / f"{name}.png", folder / f"{name}.svg"]
        pictures[name] = picture(svg, to_svg(draw(found, NARROW)), shows, CAPTIONS[name])
    texts = {
        "report.html": to_html(found, pictures, command),
        "report.md": to_markdown(found, {name: shows for name, (shows, _) in drawn.items()}, command),
        "trials.csv": trials_csv(found),
        "held_out.csv": held_out_csv(found),
    }
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    return [out / name for name in texts] + files


CAPTIONS = {
    "search": "Each trial at the last rung that it reached, with its 95 % interval. Filled: at the end of its runs; hollow: stopped by ASHA.",
    "space": "Off the diagonal, each point is a trial, coloured by its score; on it, the score by one key alone. Larger: at the end of its "
    "runs. Scores of stopped trials are those of their last rung, after fewer agent steps.",
    "importance": "By number of agent steps: at the first rung all trials count, at the last those that were not stopped.",
}


def trials_table(found: Found, limit: int | None = None) -> Table:
    """Trials from the furthest and best to the worst, or the first `limit` of them."""
    order = sorted(found.trials, key=_rank)
    header = [Cell("trial"), Cell("state", "text"), Cell("agent steps"), Cell(found.measure), *map(Cell, found.space)]
    rows = []
    for trial in order[:limit]:
        last = trial.last
        row = [
            Cell(trial.name),
            Cell(trial.state),
            Cell(f"{last.step:,}" if last else ""),
            Cell(str(last.score) if last else ""),
        ]
        rows.append([*row, *(Cell(_value(trial.params[key])) for key in found.space)])
    note = f"The first {limit} of {len(order)}; trials.csv has all." if limit is not None and len(order) > limit else ""
    return Table("trials", "Trials", header, rows, note)


def held_out_table(found: Found) -> Table | None:
    """The configurations that were run again."""
    if not found.candidates:
        return None
    header = [Cell("configuration"), Cell("on held-out seeds"), Cell("in the search"), *map(Cell, found.space)]
    rows = []
    for i, (one, score) in enumerate(ranked(found.candidates)):
        best = "best" if i == 0 else ""
        row = [Cell(one.name), Cell(str(score), best), Cell(str(one.searched) if one.searched else "")]
        rows.append(
            [*row, *(Cell(_value(one.params[key]) if key in one.params else "as it is") for key in found.space)]
        )
    return Table("held_out", "On held-out seeds", header, rows, f"{found.measure}, with 95 % intervals.")


def facts_table(found: Found) -> Table:
    """What was searched, and how."""
    rows = [[Cell(name), Cell(words)] for name, words in found.facts.items()]
    rows += [[Cell(key), Cell(words)] for key, words in found.space.items()]
    return Table("facts", "What was searched", [Cell("what"), Cell("value")], rows, words=True)


def trials_csv(found: Found) -> str:
    """A line for each trial at each of its rungs, at full precision; trials without a rung have one line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["trial", "state", *found.space, "agent_steps", "score", "low", "high"])
    for trial in found.trials:
        lead = [trial.name, trial.state, *(trial.params[key] for key in found.space)]
        for rung in trial.rungs:
            writer.writerow([*lead, rung.step, rung.score.point, rung.score.low, rung.score.high])
        if not trial.rungs:
            writer.writerow([*lead, "", "", "", ""])
    return out.getvalue()


def held_out_csv(found: Found) -> str:
    """A line for each held-out run."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["configuration", *found.space, "task", "run", "score"])
    for one in found.candidates:
        lead = [one.name, *(one.params.get(key, "") for key in found.space)]
        for task, scores in one.scores.items():
            writer.writerows([*lead, task, run, score] for run, score in enumerate(scores))
    return out.getvalue()


def to_html(found: Found, pictures: dict[str, str], command: str) -> str:
    """The page."""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in verdicts(found))
    sections = [Section("verdicts", "In words", f'<ul class="verdicts">{items}</ul>')]
    held_out = held_out_table(found)
    if held_out is not None:
        sections.append(Section("held_out", held_out.title, _dense(held_out)))
    sections.append(Section("trials", "Trials", pictures["search"] + _dense(trials_table(found, 30))))
    if "importance" in pictures:
        sections.append(Section("importance", "Importance", pictures["importance"]))
    if "space" in pictures:
        sections.append(Section("space", "Interactions", pictures["space"]))
    facts = facts_table(found)
    sections.append(Section("facts", facts.title, '<div class="words">' + facts.to_html() + "</div>"))
    sections.append(Section("methods", "How it was computed", paragraphs([*METHODS, *_notes(found)])))
    made = f"<p>Made by <code>{html.escape(command)}</code></p>" if command else ""
    return page(f"Sweep {found.name}: {found.title}", lede(found), "", sections, made)


def to_markdown(found: Found, drawn: dict[str, str], command: str) -> str:
    """The same, for a repository."""
    image = {name: f"![{shows}](figures/{name}.png)\n\n*{CAPTIONS[name]}*" for name, shows in drawn.items()}
    parts = [f"# Sweep {found.name}: {found.title}", lede(found), "\n".join(f"- {said}" for said in verdicts(found))]
    held_out = held_out_table(found)
    if held_out is not None:
        parts += [f"## {held_out.title}", held_out.to_markdown()]
    parts += ["## Trials", image["search"], trials_table(found, 30).to_markdown()]
    for name, heading in (("importance", "Importance"), ("space", "Interactions")):
        parts += [f"## {heading}", image[name]] if name in image else []
    facts = facts_table(found)
    parts += [f"## {facts.title}", facts.to_markdown(), "## How it was computed", *METHODS, *_notes(found)]
    parts += [f"Made by `{command}`."] if command else []
    return "\n\n".join(part.strip() for part in parts) + "\n"


def lede(found: Found) -> str:
    """What there is, in a sentence."""
    count = {
        state: sum(trial.state == state for trial in found.trials)
        for state in ("complete", "stopped", "failed", "running")
    }
    words = [f"{n} {state}" for state, n in count.items() if n]
    return f"{len(found.trials)} trials of {len(found.space)} keys: {', '.join(words)}. {found.measure}; intervals are 95 %."


def search(found: Found, width: float = WIDE) -> Figure:
    """Score by number of trial, and the held-out scores beside."""
    fig, (panel,) = _figure(width, 3.4, 1)
    for trial in _scored(found):
        assert trial.last is not None
        ended = trial.state == "complete"
        _bar(panel, trial.number, trial.last.score, DONE if ended else STOPPED, filled=ended)
    beyond = max((trial.number for trial in found.trials), default=0) + 2
    for i, (one, score) in enumerate(ranked(found.candidates)):
        _bar(panel, beyond + i, score, PALETTE[2] if one.name == BASELINE else PALETTE[1], filled=True, marker="D")
        panel.annotate(
            one.name, (beyond + i, score.high if score.high is not None else score.point), xytext=(0, 5),
            textcoords="offset points", rotation=90, ha="center", va="bottom", fontsize=7.5, color=INK,
        )  # fmt: skip
    if found.candidates:
        panel.axvline(beyond - 1, color=FAINT, linewidth=1.2)
        panel.margins(y=0.3)
    panel.set_xlabel("trial" + (", and held-out runs (diamonds)" if found.candidates else ""))
    panel.set_ylabel(found.measure)
    return fig


def importance(found: Found, width: float = WIDE) -> Figure:
    """A bar for each key, at each number of agent steps."""
    steps = list(found.importance)
    fig, (panel,) = _figure(width, 0.9 + 0.34 * len(found.space) * len(steps), 1)
    keys = sorted(found.space, key=lambda key: found.importance[steps[-1]].get(key, 0.0))
    height = 0.8 / len(steps)
    for i, step in enumerate(steps):
        at = np.arange(len(keys)) + height * (i - (len(steps) - 1) / 2)
        shares = [found.importance[step].get(key, 0.0) for key in keys]
        panel.barh(at, shares, height * 0.92, color=PALETTE[i], label=f"{step:,} agent steps")
    panel.set_yticks(range(len(keys)), [_short(key) for key in keys])
    panel.set_xlim(0, 1)
    panel.set_xlabel("share of importance")
    if len(steps) > 1:
        panel.legend(frameon=False, fontsize=8)
    return fig


def space(found: Found, width: float = WIDE) -> Figure:
    """All pairs of keys: on the diagonal score by key, below it a map of both."""
    keys, trials = list(found.space), _scored(found)
    points = np.array([trial.rungs[-1].score.point for trial in trials])
    shade = Normalize(float(points.min()), float(points.max()) if np.ptp(points) > 0 else float(points.min()) + 1.0)
    side = max(1.5, min(3.2, (width - 1.2) / len(keys)))
    fig, panels = _figure(width, 0.7 + side * len(keys), len(keys), len(keys))
    for row, down in enumerate(keys):
        for column, across in enumerate(keys):
            panel = panels[row * len(keys) + column]
            if column > row:
                panel.axis("off")
                continue
            x = _axis(panel.set_xscale, panel.set_xticks, found, trials, across)
            for i, trial in enumerate(trials):
                ended = trial.state == "complete"
                if row == column:
                    _bar(panel, x[i], trial.rungs[-1].score, DONE if ended else STOPPED, filled=ended)
            if row != column:
                y = _axis(panel.set_yscale, panel.set_yticks, found, trials, down)
                size = [46 if trial.state == "complete" else 18 for trial in trials]
                panel.scatter(x, y, s=size, c=points, cmap=COLOURS, norm=shade, edgecolors="white", linewidths=0.5)
            panel.set_xlabel(_short(across) if row == len(keys) - 1 else "")
            if column in (0, row):
                panel.set_ylabel(_short(down) if row != column else "score")
    if len(keys) > 1:
        fig.colorbar(ScalarMappable(shade, COLOURS), ax=list(panels), shrink=0.6, label=found.measure)
    return fig


def _axis(
    scale: Callable[[str], Any], ticks: Callable[..., Any], found: Found, trials: Sequence[Trial], key: str
) -> list[float]:
    """Where the trials lie along a key; words have a place each."""
    values = [trial.params[key] for trial in trials]
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        if key in found.logarithmic:
            scale("log")
        return [float(value) for value in values]
    words = sorted({str(value) for value in values})
    ticks(range(len(words)), words)
    return [float(words.index(str(value))) for value in values]


def _figure(width: float, height: float, rows: int, columns: int = 1) -> tuple[Figure, list[Axes]]:
    fig = Figure(figsize=(width, height), layout="constrained", facecolor="white", dpi=100)
    FigureCanvasAgg(fig)
    panels = list(fig.subplots(rows, columns, squeeze=False).ravel())
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color(SOFT)
        panel.tick_params(colors=INK, labelsize=8)
        panel.grid(color=FAINT, linewidth=0.6)
        panel.set_axisbelow(True)
    return fig, panels


def _bar(panel: Axes, x: float, score: Score, colour: str, *, filled: bool, marker: str = "o") -> None:
    if score.low is not None and score.high is not None:
        panel.plot([x, x], [score.low, score.high], color=colour, linewidth=1.6, alpha=0.55, zorder=2)
    face = colour if filled else "white"
    panel.plot([x], [score.point], marker, color=colour, markerfacecolor=face, markersize=5.5, zorder=3)


def _scored(found: Found) -> list[Trial]:
    return [trial for trial in found.trials if trial.rungs]


def _rank(trial: Trial) -> tuple[int, float, int]:
    last = trial.last
    return (-last.step, -last.score.point, trial.number) if last else (1, 0.0, trial.number)


def _notes(found: Found) -> list[str]:
    failed = [trial for trial in found.trials if trial.state == "failed"]
    notes = [f"{trial.name} failed: {trial.error}" for trial in failed[:10]]
    if not found.importance:
        notes.append("Importance is not given: fewer than 10 trials were scored.")
    if not found.normalised:
        notes.append("No scale is known for this task: scores are raw.")
    return notes


def _dense(table: Table) -> str:
    return f'<div class="dense">{table.to_html()}</div>'


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _short(key: str) -> str:
    return key.removeprefix("agent.")
