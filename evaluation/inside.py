"""What goes on inside a run: score, losses, schedules and resets over the same agent steps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from rlplatform.evaluation.plots import FAINT, INK, OTHERS, OURS, THEIRS, TITLES, draw_evaluations, draw_training, save
from rlplatform.evaluation.runs import Run

# A row of the figure: its name, and the metrics it shows with their labels. A row without any of its metrics is left out.
ROWS: tuple[tuple[str, dict[str, str]], ...] = (
    ("loss", {"losses/td_loss": "TD", "losses/spr_loss": "self-prediction"}),
    ("value", {"losses/q_values": "mean return predicted"}),
    ("n", {"charts/n": "n"}),
    ("gamma", {"charts/gamma": "gamma"}),
    ("units", {"plasticity/dormant": "dormant", "plasticity/dead": "dead"}),
    ("rank", {"plasticity/srank": "srank", "plasticity/effective_rank": "effective"}),
    ("churn", {"plasticity/policy_churn": "policy churn", "plasticity/policy_shift": "policy shift"}),
)
COLOURS = (INK, THEIRS)


def resets_of(run: Run) -> NDArray[np.float64]:
    """The agent steps of the first line of metrics after each reset."""
    count = run.series("charts/resets")
    return count[1:, 0][np.diff(count[:, 1]) > 0]


def inside(runs: Sequence[Run], path: Path) -> Figure:
    """A column a run: on top the score as in `plots.curve`, below it losses and schedules; dashed lines are resets.

    Args:
        runs: finished or not; what ended early is said in the column's title.
        path: where to write it, .png or .svg.
    """
    rows = [
        (name, labels) for name, labels in ROWS if any(len(run.series(metric)) for run in runs for metric in labels)
    ]
    height = TITLES + 2.6 + 1.15 * len(rows)
    layout = ConstrainedLayoutEngine(rect=(0.0, 0.0, 1.0, 1.0 - TITLES / height))
    fig = Figure(figsize=(max(8.6, 5.2 * len(runs)), height), layout=layout, facecolor="white", dpi=160)
    FigureCanvasAgg(fig)
    grid = fig.subplots(
        1 + len(rows), len(runs), squeeze=False, sharex="col", gridspec_kw={"height_ratios": [2.4] + [1.0] * len(rows)}
    )
    for column, run in zip(grid.T, runs, strict=True):
        _score(column[0], run)
        for panel, (name, labels) in zip(column[1:], rows, strict=True):
            if _metrics(panel, run, labels):
                panel.set_ylabel(name, color=INK)
            else:
                panel.text(
                    0.5,
                    0.5,
                    f"no {name}",
                    transform=panel.transAxes,
                    ha="center",
                    va="center",
                    color=OTHERS,
                    fontsize=9,
                )
                panel.set_yticks([])
        column[-1].set_xlabel("agent steps")
        for panel in column:
            _frame(panel, run)
    inch = 1.0 / height
    presets = ", ".join(dict.fromkeys(run.preset.upper().replace("_", "-") for run in runs))
    left = 0.12 / fig.get_figwidth()
    fig.text(left, 1.0 - 0.1 * inch, f"{presets}: inside a run", fontsize=15, fontweight="bold", color=INK, va="top")
    legend = "Dots: training games; line: mean of 20; diamonds: evaluations; dashed: resets."
    fig.text(left, 1.0 - 0.45 * inch, legend, fontsize=8.5, color="#555555", va="top")
    save(fig, path)
    return fig


def _score(panel: Axes, run: Run) -> None:
    draw_training(panel, run, "charts/episodic_return")
    draw_evaluations(panel, run)
    reached = "" if run.finished else f", stopped at {int(run.metrics[-1]['step']):,}"
    panel.set_title(
        f"{run.preset} on {run.game}, seed {run.seed}: {run.config['steps']:,} steps{reached}",
        loc="left",
        fontsize=10,
        color=INK,
    )
    panel.set_ylabel("score of a game", color=INK)


def _metrics(panel: Axes, run: Run, labels: dict[str, str]) -> bool:
    """Draw the metrics that the run has; whether there was any."""
    shown = {label: series for metric, label in labels.items() if len(series := run.series(metric))}
    for colour, (label, series) in zip(COLOURS, shown.items(), strict=False):
        panel.plot(series[:, 0], series[:, 1], color=colour, linewidth=1.2)
        if len(shown) > 1:  # named where it ends, in its colour
            at = (series[-1, 0], series[-1, 1])
            panel.annotate(label, at, xytext=(4, 0), textcoords="offset points", fontsize=8, color=colour, va="center")
    return bool(shown)


def _frame(panel: Axes, run: Run) -> None:
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color(OTHERS)
    panel.tick_params(colors=INK, labelsize=9)
    panel.grid(axis="both", color=FAINT, linewidth=0.6)
    panel.set_axisbelow(True)
    panel.set_xlim(0, run.config["steps"])
    panel.xaxis.set_major_formatter(lambda step, _: f"{step / 1000:g}k" if step else "0")
    for step in resets_of(run):
        panel.axvline(step, color=OURS, linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
