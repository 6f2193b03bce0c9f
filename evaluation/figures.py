"""The figures of a report, drawn from an `Analysis` alone, wide for a page and narrow for a telephone.

Colours are Okabe and Ito's and shapes differ besides, so that groups are told apart in any eyes and in print. Lines are labelled
where they end; numbers that a reader will want stand beside their marks.
"""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from rlplatform.evaluation import plasticity
from rlplatform.evaluation.analysis import LINEAR, Analysis, Estimate
from rlplatform.evaluation.groups import Group
from rlplatform.evaluation.stats import Floats

LONGEST = 28  # letters of a name in a figure
WIDE, NARROW = 10.4, 4.2  # inches: 1,040 px of a page at 100 px an inch, and a telephone
PALETTE = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
MARKERS = ("D", "o", "s", "^", "v", "P", "X", "h")
INK, SOFT, FAINT, STRIPE = "#1F2328", "#57606A", "#E3E6EA", "#F6F7F9"
MINUS = "\N{MINUS SIGN}"
LEVELS = (-1.0, 0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
DIVERGING = LinearSegmentedColormap.from_list("chance", [PALETTE[1], "#FFFFFF", PALETTE[0]])
Draw = Callable[[Analysis, float], Figure]
Measured = Mapping[str, Mapping[str, tuple[Floats, Floats]]]  # as plasticity.lines gives it


def figures(an: Analysis) -> dict[str, tuple[str, Draw]]:
    """What can be drawn of this analysis: name -> (what it shows, how to draw it at a width in inches)."""
    drawn: dict[str, tuple[str, Draw]] = {"aggregates": ("Aggregates over tasks with 95 % intervals", aggregates)}
    if an.profiles:
        drawn["profiles"] = ("Performance profiles with 95 % bands", profiles)
    if an.improvement:
        drawn["improvement"] = ("Probability that a run of the row scores above a run of the column", improvement)
    if an.ranks is not None and len(an.ranks.algorithms) > 2:  # of two, P(improvement) says it all
        drawn["ranks"] = ("Probability of each rank on a task", ranks)
    if len(an.tasks) > 1:
        drawn["tasks"] = ("Scores of every task with 95 % intervals", tasks)
    if an.curves and len(an.tasks) > 1:
        drawn["curves"] = ("Learning curves with 95 % bands", curves)
    if any(group.curves for group in an.groups):
        drawn["task_curves"] = ("Learning curves of every task", task_curves)
    if measured := plasticity.lines(an.groups, an.tasks):
        drawn["plasticity"] = ("Plasticity of the networks over training", partial(plasticity_curves, measured))
    return drawn


def aggregates(an: Analysis, width: float = WIDE) -> Figure:
    """A panel a measure, a row a group: the estimate in figures, and its interval as a bar."""
    names = list(dict.fromkeys(name for of in an.aggregates.values() for name in of))
    narrow = width < WIDE
    rows = len(an.groups)
    shape = (len(names), 1) if narrow else (1, len(names))
    height = shape[0] * (0.62 + 0.4 * rows) + 0.1
    fig = _figure(width, height)
    panels = fig.subplots(*shape, squeeze=False, sharey=True).ravel()
    for panel, name in zip(panels, names, strict=True):
        _plain(panel, grid="x")
        panel.set_title(name, loc="left", fontsize=10, fontweight="bold", color=INK)
        if name == "optimality gap":
            panel.set_title("lower is better", loc="right", fontsize=7.5, color=SOFT)
        for y, group in enumerate(an.groups):
            found = an.aggregates[group.name].get(name)
            if found is None:
                continue
            _estimate(panel, found, y, an, group, size=46, linewidth=6, alpha=0.35)
            panel.annotate(
                _number(found.point), (found.point, y), xytext=(0, 7), textcoords="offset points", ha="center", va="bottom",
                fontsize=8.5, fontweight="bold", color=_dark(_colour(an, group)),
            )  # fmt: skip
        panel.set_ylim(rows - 0.45, -0.72)
        panel.set_yticks(range(rows), [_label(group) for group in an.groups], fontsize=9)
        panel.tick_params(axis="y", length=0)
        panel.margins(x=0.13)
        panel.xaxis.set_major_locator(MaxNLocator(4))
        _colour_labels(panel, an)
    return fig


def profiles(an: Analysis, width: float = WIDE) -> Figure:
    """The share of runs above each score, with bands; each line is labelled where it ends."""
    narrow = width < WIDE
    fig = _figure(width, 3.7 if narrow else 4.4)
    panel = fig.subplots()
    _plain(panel)
    ends: list[tuple[Group, float]] = []
    for group in an.groups:
        if group.name not in an.profiles:
            continue
        band, colour = an.profiles[group.name], _colour(an, group)
        panel.fill_between(an.taus, band.low, band.high, color=colour, alpha=0.2, linewidth=0)
        panel.plot(an.taus, band.point, color=colour, linewidth=2.0)
        ends.append((group, float(band.point[-1] + 1e-3 * band.point.mean())))  # the mean decides between equal ends
    if an.normalised:
        _stretched(panel, an.taus[0], an.taus[-1])
    panel.set_xlim(an.taus[0], an.taus[-1])
    panel.set_ylim(0, 1.01)
    panel.set_xlabel(_score_words(an) + " \N{GREEK SMALL LETTER TAU}")
    panel.set_ylabel("share of runs above \N{GREEK SMALL LETTER TAU}")
    if narrow:
        _key(panel, an, [group for group, _ in ends])
    else:
        _end_labels(panel, an, ends)
    return fig


def improvement(an: Analysis, width: float = WIDE) -> Figure:
    """P(row > column), ties counted half, as a matrix with its intervals."""
    names = [group for group in an.groups if any(group.name in pair for pair in an.improvement)]
    n = len(names)
    narrow = width < WIDE
    cell = (width - 1.1) / n if narrow else min(1.15, (width - 2.4) / n)
    fig = _figure(width, cell * n * (0.8 if narrow else 0.62) + 1.0)
    panel = fig.subplots()
    chances = np.array([[an.improvement[a.name, b.name].point if a is not b else np.nan for b in names] for a in names])
    panel.imshow(chances, cmap=DIVERGING, vmin=0.0, vmax=1.0, aspect="auto")
    big, small = (9, 6.2) if narrow and n > 3 else (11, 8)
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            if a is b:
                panel.add_patch(_square(i))
                continue
            p = an.improvement[a.name, b.name]
            ink = "white" if abs(p.point - 0.5) > 0.33 else INK
            panel.text(
                j, i - 0.1, f"{p.point:.2f}", ha="center", va="center", fontsize=big, fontweight="bold", color=ink
            )
            panel.text(j, i + 0.24, f"[{p.low:.2f}, {p.high:.2f}]", ha="center", va="center", fontsize=small, color=ink)
    panel.xaxis.tick_top()
    panel.set_xticks(
        range(n), [_label(group, 10 if narrow else 21) for group in names], fontsize=8 if narrow else 9, color=INK
    )
    panel.set_yticks(
        range(n), [_label(group, 10 if narrow else 21) for group in names], fontsize=8 if narrow else 9, color=INK
    )
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    panel.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    panel.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    panel.grid(which="minor", color="white", linewidth=2.5)
    panel.tick_params(which="minor", length=0)
    return fig


def ranks(an: Analysis, width: float = WIDE) -> Figure:
    """A bar a group, best mean rank on top, parted by how likely each rank is: the darker, the better."""
    assert an.ranks is not None
    share, expected = an.ranks.overall, an.ranks.expected
    shown = [next(group for group in an.groups if group.name == name) for name in an.ranks.algorithms]
    order = np.argsort(expected, kind="stable")
    n = len(shown)
    narrow = width < WIDE
    fig = _figure(width, 0.75 + 0.42 * n)
    panel = fig.subplots()
    _plain(panel, grid="x")
    panel.grid(visible=False)
    for y, i in enumerate(order):
        colour, left = np.array(to_rgb(_colour(an, shown[i]))), 0.0
        for rank in range(n):
            strength = 1.0 - 0.85 * rank / (n - 1)
            tint = 1.0 - strength * (1.0 - colour)
            panel.barh(y, share[i, rank], left=left, height=0.74, color=tuple(tint), edgecolor="white", linewidth=1.2)
            if share[i, rank] > (0.12 if narrow else 0.05):
                ink = "white" if tint @ (0.299, 0.587, 0.114) < 0.55 else INK
                words = f"{_ordinal(rank + 1)}\n{share[i, rank]:.0%}"
                panel.text(left + share[i, rank] / 2, y, words, ha="center", va="center", fontsize=7.5, color=ink)
            left += share[i, rank]
        panel.text(1.01, y, f"{expected[i]:.2f}", ha="left", va="center", fontsize=9, fontweight="bold", color=INK)
    panel.text(1.01, -0.62, "mean rank", ha="left", va="center", fontsize=7.5, color=SOFT)
    panel.set_xlim(0, 1.12 if not narrow else 1.22)
    panel.set_ylim(n - 0.5, -0.8)
    panel.set_xticks([0, 0.25, 0.5, 0.75, 1.0], ["0", "25 %", "50 %", "75 %", "100 %"])
    panel.set_yticks(range(n), [_label(shown[i], 14 if narrow else 24) for i in order], fontsize=9)
    panel.tick_params(axis="y", length=0)
    for label, i in zip(panel.get_yticklabels(), order, strict=True):
        label.set(color=_dark(_colour(an, shown[i])), fontweight="bold")
    return fig


def _ordinal(rank: int) -> str:
    ending = "th" if 10 <= rank % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(rank % 10, "th")
    return f"{rank}{ending}"


def tasks(an: Analysis, width: float = WIDE) -> Figure:
    """A row a task, in order of the first group's score, and in it a mark a group with its interval."""
    order = sorted(an.tasks, key=lambda task: -float(np.mean(an.scores[an.subject.name][task])))
    n = len(an.groups)
    fig = _figure(width, 0.9 + len(order) * (0.12 + 0.06 * n))
    panel = fig.subplots()
    _plain(panel, grid="x")
    for y, task in enumerate(order):
        if y % 2 == 0:
            panel.axhspan(y - 0.5, y + 0.5, color=STRIPE, linewidth=0, zorder=0)
        for k, group in enumerate(an.groups):
            at = y + (k - (n - 1) / 2) * 0.72 / n
            _estimate(panel, _scaled(an, group, task), at, an, group, size=20, linewidth=1.8, alpha=0.8)
    panel.set_ylim(len(order) - 0.5, -0.5)
    panel.set_yticks(range(len(order)), [_short(task) for task in order], fontsize=8.5, color=INK)
    panel.tick_params(axis="y", length=0)
    panel.set_xlabel(_score_words(an) + " (mean over runs)")
    if an.normalised:
        low, high = panel.dataLim.intervalx
        _stretched(panel, min(0.0, float(low)), float(high))
        for level in (0.0, 1.0):
            panel.axvline(level, color=SOFT, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
    _key(panel, an, list(an.groups), above=True)
    return fig


def curves(an: Analysis, width: float = WIDE) -> Figure:
    """The IQM over tasks along training; at the right edge where the published ones ended."""
    narrow = width < WIDE
    fig = _figure(width, 3.7 if narrow else 4.2)
    panel = fig.subplots()
    _plain(panel)
    ends: list[tuple[Group, float]] = []
    last = max(float(steps[-1]) for steps, _ in an.curves.values())
    for group in an.groups:
        colour = _colour(an, group)
        if group.name in an.curves:
            steps, band = an.curves[group.name]
            if min(len(runs) for runs in an.scores[group.name].values()) > 1:
                panel.fill_between(steps, band.low, band.high, color=colour, alpha=0.2, linewidth=0)
            panel.plot(steps, band.point, color=colour, linewidth=2.0)
        final = an.aggregates[group.name].get("IQM")
        if final is not None:
            at = max(last, float(group.protocol["steps"]) if isinstance(group.protocol.get("steps"), int) else last)
            _vertical(panel, final, at, an, group)
            ends.append((group, final.point))
    _step_axis(panel)
    panel.set_ylabel("IQM, " + _score_words(an))
    if narrow:
        _key(panel, an, [group for group, _ in ends], above=True)
    else:
        _end_labels(panel, an, ends)
    return fig


def task_curves(an: Analysis, width: float = WIDE) -> Figure:
    """A panel a task: every run a thin line, their mean a thick one; at the right edge the means of groups without a curve."""
    shown = [task for task in an.tasks if any(task in group.curves for group in an.groups)]
    columns = min(len(shown), 2 if width < WIDE else 4)
    rows = -(-len(shown) // columns)
    fig = _figure(width, 0.5 + rows * (3.0 if len(shown) == 1 else 1.75))
    panels = fig.subplots(rows, columns, squeeze=False).ravel()
    for panel, task in zip(panels, shown, strict=False):
        _plain(panel)
        panel.set_title(_short(task), loc="left", fontsize=9.5, fontweight="bold", color=INK)
        for group in an.groups:
            colour = _colour(an, group)
            if task in group.curves:
                made = group.curves[task]
                for run in made.scores if len(made.scores) > 1 else []:
                    panel.plot(made.steps, run, color=colour, linewidth=0.6, alpha=0.35)
                panel.plot(made.steps, made.scores.mean(axis=0), color=colour, linewidth=1.8)
            else:
                level = an.per_task[group.name][task].point
                panel.plot([0.96, 1.0], [level, level], color=colour, linewidth=3, transform=panel.get_yaxis_transform(), clip_on=False)  # fmt: skip
                panel.update_datalim([(0.0, level)], updatex=False)
        _step_axis(panel, label=False)
        panel.margins(y=0.08)
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    _key(panels[0], an, list(an.groups), above=True, of_all=True)
    fig.supxlabel("agent steps", fontsize=9, color=SOFT)
    return fig


def plasticity_curves(found: Measured, an: Analysis, width: float = WIDE) -> Figure:
    """A panel a measure of those that `plasticity.lines` found: every run that logged it a thin line, whatever its task, their mean a
    thick one."""
    columns = min(len(found), 2 if width < WIDE else 4)
    rows = -(-len(found) // columns)
    fig = _figure(width, 0.5 + 1.75 * rows)
    panels = fig.subplots(rows, columns, squeeze=False).ravel()
    for panel, (measure, by_group) in zip(panels, found.items(), strict=False):
        _plain(panel)
        panel.set_title(plasticity.MEASURES[measure], loc="left", fontsize=9.5, fontweight="bold", color=INK)
        for group in an.groups:
            if group.name in by_group:
                steps, values = by_group[group.name]
                for run in values if len(values) > 1 else []:
                    panel.plot(steps, run, color=_colour(an, group), linewidth=0.6, alpha=0.35)
                panel.plot(steps, values.mean(axis=0), color=_colour(an, group), linewidth=1.8)
        _step_axis(panel, label=False)
        panel.margins(y=0.08)
    for panel in panels[len(found) :]:
        panel.set_visible(False)
    shown = {name for by_group in found.values() for name in by_group}
    _key(panels[0], an, [group for group in an.groups if group.name in shown], above=True, of_all=True)
    fig.supxlabel("agent steps", fontsize=9, color=SOFT)
    return fig


def _scaled(an: Analysis, group: Group, task: str) -> Estimate:
    """A task's estimate in the unit of the scores that are drawn: the raw one, scaled as the runs are."""
    raw = an.per_task[group.name][task]
    low, high = an.ends.get(task, (0.0, 1.0))

    def scaled(value: float) -> float:
        return (value - low) / (high - low)

    if raw.low is None or raw.high is None:
        return Estimate(scaled(raw.point))
    return Estimate(scaled(raw.point), scaled(raw.low), scaled(raw.high))


def _estimate(
    panel: Axes, found: Estimate, y: float, an: Analysis, group: Group, size: float, linewidth: float, alpha: float
) -> None:
    colour = _colour(an, group)
    if found.low is not None and found.high is not None:
        panel.plot([found.low, found.high], [y, y], color=colour, linewidth=linewidth, alpha=alpha, solid_capstyle="butt", zorder=2)  # fmt: skip
    panel.scatter([found.point], [y], s=size, marker=_marker(an, group), color=colour, edgecolors="white", linewidths=0.7, zorder=3)  # fmt: skip


def _vertical(panel: Axes, found: Estimate, x: float, an: Analysis, group: Group) -> None:
    colour = _colour(an, group)
    if found.low is not None and found.high is not None:
        panel.plot([x, x], [found.low, found.high], color=colour, linewidth=5, alpha=0.4, solid_capstyle="butt", clip_on=False)  # fmt: skip
    panel.scatter([x], [found.point], s=40, marker=_marker(an, group), color=colour, edgecolors="white", linewidths=0.7, zorder=5, clip_on=False)  # fmt: skip


def _end_labels(panel: Axes, an: Analysis, ends: Sequence[tuple[Group, float]]) -> None:
    """Names beside the ends of lines, pushed apart, each with a hair to its line."""
    low, high = panel.get_ylim()
    placed = spread([value for _, value in ends], (high - low) * 0.075, low, high)
    for (group, value), y in zip(ends, placed, strict=True):
        panel.annotate(
            _title(group), (1.0, value), xytext=(1.045, y), xycoords=panel.get_yaxis_transform(),
            textcoords=panel.get_yaxis_transform(), va="center", fontsize=9.5, fontweight="bold", color=_dark(_colour(an, group)),
            arrowprops={"arrowstyle": "-", "color": _colour(an, group), "linewidth": 0.9, "shrinkA": 2, "shrinkB": 0, "relpos": (0.0, 0.5)},
            annotation_clip=False,
        )  # fmt: skip


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near the values, in their order, at least `gap` apart and within [low, high] as far as they fit."""
    order = np.argsort(values, kind="stable")
    placed = np.array(values, np.float64)[order]
    placed = np.clip(placed, low + gap / 2, None)
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    if len(placed) and placed[-1] > high - gap / 2:
        placed[-1] = high - gap / 2
        for i in range(len(placed) - 2, -1, -1):
            placed[i] = min(placed[i], placed[i + 1] - gap)
    out = np.empty(len(placed))
    out[order] = placed
    return out.tolist()


def _key(panel: Axes, an: Analysis, groups: Sequence[Group], *, above: bool = False, of_all: bool = False) -> None:
    """Names beside their marks, above the panel or in its upper right corner; `of_all`: above all panels of the figure."""
    from matplotlib.lines import Line2D

    style: dict[str, Any] = {"linewidth": 2, "markersize": 6, "markeredgecolor": "white"}
    marks = [Line2D([], [], color=_colour(an, g), marker=_marker(an, g), label=_title(g), **style) for g in groups]
    figure = panel.get_figure(root=True)
    assert figure is not None
    place: dict[str, Any] = {"loc": "upper right"}
    if above:
        letters = max(len(str(mark.get_label())) for mark in marks)
        fit = int(figure.get_size_inches()[0] * 72 / (5.0 * letters + 45))  # points: a letter, and a mark with its room
        place = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "ncols": min(len(groups), max(1, fit)), "columnspacing": 1.2}  # fmt: skip
    if of_all:  # one that belonged to a panel would make its column as wide as itself
        place = {"loc": "outside upper left", "ncols": place["ncols"], "columnspacing": 1.2}
    key = (figure if of_all else panel).legend(handles=marks, frameon=not above, framealpha=0.85, edgecolor="none", fontsize=8.5, handlelength=1.5, labelcolor=INK, borderaxespad=0.2, **place)  # fmt: skip
    key.set_zorder(10)


def _stretched(panel: Axes, low: float, high: float) -> None:
    """An axis on which a doubling is as wide at 10 as at 1, and which goes through 0."""
    panel.set_xscale("asinh", linear_width=LINEAR)
    ends = np.arcsinh(np.array([low, high]) / LINEAR)
    room = 0.03 * (ends[1] - ends[0])
    left, right = LINEAR * np.sinh([ends[0] - room, ends[1] + room])
    panel.set_xlim(float(left), float(right))
    panel.xaxis.set_major_locator(FixedLocator([level for level in LEVELS if left <= level <= right]))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", MINUS)))


def _step_axis(panel: Axes, *, label: bool = True) -> None:
    panel.xaxis.set_major_locator(MaxNLocator(5 if label else 3))
    panel.xaxis.set_major_formatter(
        FuncFormatter(lambda step, _: f"{step / 1e6:g}M" if step >= 1e6 else f"{step / 1000:g}k" if step else "0")
    )
    panel.set_xlim(left=0)
    if label:
        panel.set_xlabel("agent steps")


def _figure(width: float, height: float) -> Figure:
    fig = Figure(figsize=(width, height), layout="constrained", facecolor="white", dpi=160)
    FigureCanvasAgg(fig)
    return fig


def _plain(panel: Axes, grid: str = "both") -> None:
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color("#B8BEC6")
    panel.tick_params(colors=SOFT, labelsize=8.5, length=3, color="#B8BEC6")
    panel.grid(axis=grid, color=FAINT, linewidth=0.7)  # type: ignore[arg-type]  # one of "x" and "both"
    panel.set_axisbelow(True)
    panel.xaxis.label.set(color=SOFT, fontsize=9)
    panel.yaxis.label.set(color=SOFT, fontsize=9)


def _square(i: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((i - 0.5, i - 0.5), 1, 1, facecolor=FAINT, edgecolor="none")


def _colour_labels(panel: Axes, an: Analysis) -> None:
    for label, group in zip(panel.get_yticklabels(), an.groups, strict=False):
        label.set(color=_dark(_colour(an, group)), fontweight="bold")


def _colour(an: Analysis, group: Group) -> str:
    return PALETTE[an.groups.index(group) % len(PALETTE)]


def _marker(an: Analysis, group: Group) -> str:
    i = an.groups.index(group)
    return MARKERS[(i + i // len(PALETTE)) % len(MARKERS)]  # where colours come round again, another shape


def _dark(colour: str) -> tuple[float, float, float]:
    """For words: dark enough to be read on white."""
    red, green, blue = (0.72 * part for part in to_rgb(colour))
    return red, green, blue


def _short(name: str) -> str:
    """A name as it is drawn: not too long, and no part of it a formula."""
    name = name if len(name) <= LONGEST else name[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return name.replace("$", r"\$")


def _title(group: Group) -> str:
    """Its title as it is drawn; where that is too long, its name, fields of the configuration by their last parts."""
    return _short(group.title if len(group.title) <= LONGEST else re.sub(r"(\w+\.)+(?=\w+=)", "", group.name))


def _label(group: Group, wrap: int = 24) -> str:
    """Name and number of runs, on lines of about `wrap` letters."""
    name = "\n".join(textwrap.wrap(_title(group), wrap))
    return f"{name}\n{group.seeds if group.means else _runs(group)}"


def _runs(group: Group) -> str:
    return "1 run" if group.seeds == "1" else f"{group.seeds} runs"


def _score_words(an: Analysis) -> str:
    if not an.normalised:
        return "score"
    return "human-normalised score" if (an.subject.benchmark or "").startswith("atari") else "normalised score"


def _number(value: float) -> str:
    digits = 3 if abs(value) < 10 else 1
    return f"{value:,.{digits}f}".replace("-", MINUS)


def captions(an: Analysis) -> Mapping[str, str]:
    """What a reader needs beside each figure to read it."""
    scale = ""
    if an.normalised and (an.subject.benchmark or "").startswith("atari"):
        scale = " Dashed: random play (0) and human (1)."
    return {
        "aggregates": "Diamonds and other marks: estimates; bars: 95 % intervals of a stratified bootstrap over runs. Tasks weigh the same.",
        "ranks": "One run of each agent is drawn on a task and they are ranked; averaged over tasks and all draws, exactly.",
        "profiles": "A line higher everywhere is a better agent. Bands: 95 %, pointwise.",
        "improvement": "Averaged over tasks, ties counted half. Above 0.5 the row is the better one.",
        "tasks": f"Mean over runs with its 95 % interval, each by itself.{scale}",
        "curves": "Marks at the right edge: the final evaluation, with its interval.",
        "task_curves": "Thin: runs; thick: their mean. Ticks at the right edge: means after training of agents without a curve.",
        "plasticity": "Thin: runs of all tasks; thick: their mean. Measured on each run's newest observations; docs/techniques/plasticity.md defines them.",
    }
