"""Figures from the files of runs, never from memory; matplotlib without its global state.

Colours are Okabe and Ito's, told apart by colour-blind eyes: ours vermilion, published ones blue and gray.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rlplatform.evaluation import stats
from rlplatform.evaluation.published import REPS, Standing, benchmark_of, counterpart, published, source, standing
from rlplatform.evaluation.report import benchmark_title, in_words, protocol_line
from rlplatform.evaluation.runs import Run

OURS, THEIRS, OTHERS, INK, FAINT = "#D55E00", "#0072B2", "#7F7F7F", "#222222", "#DDDDDD"
MINUS = "\N{MINUS SIGN}"
TITLES = 0.84  # inches at the top, for title and protocol
Floats = NDArray[np.float64]


def against_published(runs: Sequence[Run], path: Path, agents: Sequence[str] = ()) -> Figure:
    """Our runs among the published ones, a panel a game: each dot is one published run (its mean score after training), each
    diamond one of ours, with the 95 % interval of its evaluation.

    Args:
        runs: of one preset, on tasks with published runs; seeds of a task share its panel.
        path: where to write it, .png or .svg.
        agents: published agents to show besides the preset's own counterpart, which comes first.
    """
    games, benchmark = _games(runs)
    own = counterpart(benchmark, runs[0].preset)
    rows = list(dict.fromkeys([*([own] if own else []), *agents]))
    if not rows:
        raise ValueError(f"no runs of an agent like {runs[0].preset!r} were published: name agents to compare with")
    most = max(len(ours) for ours in games.values())
    fig, panels = new_figure(len(games), height=1.7 + 0.9 * len(rows) + 0.4 * most)
    for panel, (game, ours) in zip(panels, games.items(), strict=True):
        theirs = {agent: published(benchmark, agent, game) for agent in rows}
        span = float(np.ptp(np.concatenate([*theirs.values(), *(run.final.score.mean(keepdims=True) for run in ours)])))
        labels = [f"{runs[0].preset.upper()}, ours"]
        for y, (agent, scores) in enumerate(theirs.items(), start=1):
            _swarm(panel, scores, y, THEIRS if agent == own else OTHERS, span)
            labels.append(f"{source(benchmark, agent).title}\n{len(scores)} runs")
        among = source(benchmark, rows[0]).title
        for k, run in enumerate(ours):
            _ours(panel, run, standing(run.final.score, theirs[rows[0]]), 0.4 * (k - len(ours) + 1), among)
        panel.set_title(game, loc="left", fontsize=13, fontweight="bold", color=INK)
        panel.set_xlabel(f"score, mean of {_episodes(ours)} episodes")
        panel.set_ylim(len(rows) + 0.5, -0.1 - 0.4 * most)
        panel.set_yticks(range(len(labels)), labels if panel is panels[0] else [""] * len(labels))
        panel.tick_params(axis="y", length=0)
        panel.get_yticklabels()[0].set(color=OURS, fontweight="bold")
    _titles(
        fig,
        f"{runs[0].preset.upper()} on {benchmark_title(benchmark)}: our runs among the published ones",
        runs,
        "Bars: middle half; ticks: median.",
    )
    save(fig, path)
    return fig


def curve(runs: Sequence[Run], path: Path, agent: str | None = None, metric: str = "charts/episodic_return") -> Figure:
    """Training curves, a panel a game, and beside each the published scores after training.

    A dot is a training game; the line is the mean of the last 20 (where a run kept no episodes: `metric` of its metrics.jsonl).
    A diamond is an evaluation with the 95 % interval of its mean. Runs on tasks that nobody published have no strip beside.

    Args:
        runs: of one preset; seeds of a task share its panel.
        path: where to write it, .png or .svg.
        agent: whose published runs to show, the preset's counterpart by default.
    """
    games: dict[str, list[Run]] = {}
    for run in runs:
        games.setdefault(run.game, []).append(run)
    fig, panels = new_figure(len(games), height=4.6)
    for panel, (game, ours) in zip(panels, games.items(), strict=True):
        for run in ours:
            draw_training(panel, run, metric)
            draw_evaluations(panel, run)
        panel.set_title(game, loc="left", fontsize=13, fontweight="bold", color=INK)
        panel.set_xlabel("agent steps")
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.xaxis.set_major_formatter(lambda step, _: f"{step / 1000:g}k" if step else "0")
        panel.set_xlim(left=0)
        benchmark = benchmark_of(ours[0].task)
        whose = agent or (counterpart(benchmark, ours[0].preset) if benchmark else None)
        if benchmark and whose:
            _beside(panel, published(benchmark, whose, game), source(benchmark, whose).title, ours)
    panels[0].set_ylabel("score of a game")
    _titles(
        fig,
        f"{runs[0].preset.upper()}: training and evaluation",
        runs,
        "Dots: training games; line: mean of 20; diamonds: evaluations.",
    )
    save(fig, path)
    return fig


def _games(runs: Sequence[Run]) -> tuple[dict[str, list[Run]], str]:
    if len({run.preset for run in runs}) != 1:
        raise ValueError(f"one figure shows the runs of one preset, got {sorted({run.preset for run in runs})}")
    games: dict[str, list[Run]] = {}
    benchmarks = set()
    for run in runs:
        benchmark = benchmark_of(run.task)
        if benchmark is None:
            raise ValueError(f"nothing was published on {run.task}: there is nothing to compare {run.folder} with")
        benchmarks.add(benchmark)
        games.setdefault(run.game, []).append(run)
    if len(benchmarks) != 1:
        raise ValueError(f"one figure shows one benchmark, got {sorted(benchmarks)}")
    return games, benchmarks.pop()


def new_figure(panels: int, height: float) -> tuple[Figure, list[Axes]]:
    """`panels` beside each other, with room for the titles above."""
    layout = ConstrainedLayoutEngine(rect=(0.0, 0.0, 1.0, 1.0 - TITLES / height))
    fig = Figure(figsize=(max(8.6, 1.6 + 4.6 * panels), height), layout=layout, facecolor="white", dpi=160)
    FigureCanvasAgg(fig)
    axes = list(fig.subplots(1, panels, squeeze=False)[0])
    for panel in axes:
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.spines["bottom"].set_color(OTHERS)
        panel.tick_params(colors=INK, labelsize=9)
        panel.grid(axis="both", color=FAINT, linewidth=0.6)
        panel.set_axisbelow(True)
    return fig, axes


def _titles(fig: Figure, title: str, runs: Sequence[Run], legend: str) -> None:
    seeds = ", ".join(str(seed) for seed in sorted({run.seed for run in runs}))
    lines = {protocol_line(run) for run in runs}
    protocol = lines.pop() if len(lines) == 1 else "several protocols: see each run's protocol.json"
    plural = "seeds" if "," in seeds else "seed"
    titles(fig, title, f"{protocol}.\nOurs: {plural} {seeds}. {legend}")


def titles(fig: Figure, title: str, small: str) -> None:
    """A title and a smaller text, in the room that `new_figure` leaves above its panels."""
    inch = 1.0 / fig.get_figheight()
    at: dict[str, Any] = {"x": 0.12 / fig.get_figwidth(), "ha": "left", "va": "top"}
    fig.text(y=1.0 - 0.1 * inch, s=title, fontsize=15, fontweight="bold", color=INK, **at)
    fig.text(
        y=1.0 - 0.42 * inch,
        s=small,
        fontsize=8.5,
        linespacing=1.4,
        color="#555555",
        **at,
    )


def _swarm(panel: Axes, scores: Floats, y: float, colour: str, span: float) -> None:
    """Each run a dot, those of about the same score stacked around y; the middle half as a bar, the median as a tick."""
    place = _stacked(scores, span / 75)
    offset = (place + 1) // 2 * np.where(place % 2, 1, -1)  # 0, 1, -1, 2, -2, ...
    step = min(0.075, 0.38 / max(1.0, np.abs(offset).max()))
    quarter, middle, three = np.quantile(scores, [0.25, 0.5, 0.75])
    panel.plot([quarter, three], [y, y], color=colour, linewidth=9, alpha=0.18, solid_capstyle="butt", zorder=1)
    panel.scatter(scores, y + step * offset, s=15, color=colour, alpha=0.75, linewidths=0, zorder=2)
    panel.plot([middle, middle], [y - 0.3, y + 0.3], color=INK, linewidth=1.6, zorder=3)


def _stacked(scores: Floats, width: float) -> NDArray[np.int64]:
    """How many of the runs in the same bin, of this width, come before each."""
    bins = np.floor((scores - scores.min()) / max(width, 1e-12)).astype(int)
    place = np.zeros(len(scores), np.int64)
    for b in np.unique(bins):
        members = np.flatnonzero(bins == b)
        place[members[np.argsort(scores[members], kind="stable")]] = np.arange(len(members))
    return place


def _ours(panel: Axes, run: Run, place: Standing, y: float, among: str) -> None:
    score = place.score
    panel.axvline(score.point, color=OURS, linewidth=1.0, alpha=0.5, zorder=0)
    panel.plot([score.low, score.high], [y, y], color=OURS, linewidth=2.6, solid_capstyle="butt", zorder=4)
    panel.scatter([score.point], [y], marker="D", s=44, color=OURS, edgecolors="white", linewidths=0.8, zorder=5)
    left, right = panel.get_xlim()
    words = in_words(score).replace("-", MINUS)
    on_the_right = score.point < (left + right) / 2  # where there is room for words
    panel.annotate(
        f"seed {run.seed}: {words}\npercentile {place.percentile:.0f} of {among}",
        (score.high if on_the_right else score.low, y), xytext=(9 if on_the_right else -9, 0), textcoords="offset points",
        ha="left" if on_the_right else "right", va="center", fontsize=8.5, color=OURS, linespacing=1.25, zorder=6,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0},
    )  # fmt: skip


def draw_training(panel: Axes, run: Run, metric: str) -> None:
    """Training games as dots, and the mean of the last 20 as a line; without episodes, `metric` of metrics.jsonl."""
    games = run.episodes
    if len(games):
        panel.scatter(games[:, 0], games[:, 2], s=7, color=OTHERS, alpha=0.35, linewidths=0, zorder=1)
        window = min(20, len(games))
        smooth = np.convolve(games[:, 2], np.full(window, 1 / window), "valid")
        panel.plot(games[window - 1 :, 0], smooth, color=INK, linewidth=1.5, zorder=2)
    else:
        line = run.series(metric)
        panel.plot(line[:, 0], line[:, 1], color=INK, linewidth=1.5, zorder=2)


def draw_evaluations(panel: Axes, run: Run) -> None:
    """A diamond an evaluation, with the 95 % interval of its mean."""
    for step in np.unique(run.evals.step):
        episodes = {"episodes": run.evals.at(int(step)).score}
        score = stats.interval(episodes, stats.mean, reps=REPS, few_seeds=True)
        panel.plot([step, step], [score.low, score.high], color=OURS, linewidth=2.2, zorder=4, clip_on=False)
        panel.scatter(
            [step],
            [score.point],
            marker="D",
            s=46,
            color=OURS,
            edgecolors="white",
            linewidths=0.8,
            zorder=5,
            clip_on=False,
        )


def _beside(panel: Axes, scores: Floats, title: str, ours: Sequence[Run]) -> None:
    strip = panel.inset_axes((1.03, 0.0, 0.16, 1.0), sharey=panel)
    strip.axis("off")
    low, high = panel.get_ylim()
    offset = _stacked(scores, (max(high, scores.max()) - min(low, scores.min())) / 75)
    strip.scatter(offset, scores, s=10, color=THEIRS, alpha=0.7, linewidths=0)
    strip.set_xlim(-1, max(6.0, offset.max() + 1))
    strip.set_title(f"{title}\n{len(scores)} runs", fontsize=8.5, color=THEIRS, loc="left")
    for run in ours:
        strip.axhline(float(run.final.score.mean()), color=OURS, linewidth=1.0, alpha=0.7)


def _episodes(ours: Sequence[Run]) -> str:
    return " or ".join(str(n) for n in sorted({len(run.final.score) for run in ours}))


def save(fig: Figure, path: Path) -> None:
    """Write a .png or .svg that depends on the figure alone. ValueError for another suffix."""
    metadata: dict[str, Any] = {".png": {"Software": None}, ".svg": {"Date": None}}.get(path.suffix, {})
    if not metadata:
        raise ValueError(f"a figure is a .png or an .svg, not {path.name!r}")
    fig.savefig(path, metadata=metadata)
