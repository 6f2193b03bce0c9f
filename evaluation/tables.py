"""The tables of a report, once, and their four faces: HTML, Markdown, LaTeX, and CSV at full precision."""

import csv
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlplatform.evaluation import protocols
from rlplatform.evaluation.analysis import FEWEST, Analysis, Estimate
from rlplatform.evaluation.runs import Run
from rlplatform.evaluation.stats import Interval

NONE = "\N{EM DASH}"
MARKS = {1: "\N{BLACK UP-POINTING SMALL TRIANGLE}", -1: "\N{BLACK DOWN-POINTING SMALL TRIANGLE}", 0: ""}
CSV_COLUMNS = ["table", "group", "against", "task", "measure", "value", "low", "high", "runs"]
TEX = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
       "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\\": r"\textbackslash{}", "−": "$-$", "±": r"$\pm$", "–": "--", "—": "---",
       "▴": r"$\blacktriangle$", "▾": r"$\blacktriangledown$", "ε": r"$\varepsilon$"}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, and what it is: "up", "down", "unlike" or "best" are shown as such."""

    text: str
    kind: str = ""
    group: int | None = None  # its colour stands beside the text
    mark: str = ""  # stands after the text


@dataclass(frozen=True)
class Table:
    """A table with its words."""

    name: str
    title: str
    header: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    left: int = 1  # columns of words, on the left
    tex: bool = True
    words: bool = False  # all cells are words

    def _words(self, column: int) -> bool:
        return self.words or column < self.left or self.header[column].kind == "text"

    def to_html(self) -> str:
        """A <table> that scrolls sideways by itself where it is too wide."""
        head = "".join(_html("th", cell, self._words(i)) for i, cell in enumerate(self.header))
        body = "".join(
            "<tr>" + "".join(_html("td", cell, self._words(i)) for i, cell in enumerate(row)) + "</tr>\n"
            for row in self.rows
        )
        note = f'<p class="note">{html.escape(self.note)}</p>' if self.note else ""
        return f'<div class="scroll" tabindex="0"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>{note}'

    def to_markdown(self) -> str:
        """A table of GitHub's."""
        align = ["---" if self._words(i) else "---:" for i in range(len(self.header))]
        lines = [
            [_markdown(cell) for cell in self.header],
            align,
            *([_markdown(cell) for cell in row] for row in self.rows),
        ]
        table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
        return table + ("\n" + self.note.replace("<", "&lt;") + "\n" if self.note else "")

    def to_tex(self) -> str:
        """A table in booktabs' manner."""
        columns = "l" * self.left + "r" * (len(self.header) - self.left)
        rows = "".join(" & ".join(_tex(cell) for cell in row) + " \\\\\n" for row in self.rows)
        head = " & ".join(_tex(cell) for cell in self.header)
        return (
            f"\\begin{{table}}\n\\centering\\small\n\\caption{{{escape_tex(self.title + '. ' + self.note)}}}\n\\label{{tab:{self.name}}}\n"
            f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head} \\\\\n\\midrule\n{rows}\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
        )


def tables(an: Analysis) -> list[Table]:
    """All tables of a report, in its order."""
    made = [aggregates(an), improvement(an), per_task(an), protocol(an), own_runs(an), origins(an)]
    return [table for table in made if table is not None]


def aggregates(an: Analysis) -> Table:
    """A row a group, a column a measure."""
    names = list(dict.fromkeys(name for of in an.aggregates.values() for name in of))
    header = [Cell("agent"), Cell("runs a task"), *(Cell(name) for name in names)]
    if an.normalised:
        header.append(Cell("tasks above 1"))
    best = {name: _best(an, name) for name in names}
    rows = []
    for i, group in enumerate(an.groups):
        of = an.aggregates[group.name]
        row = [Cell(group.title, group=i), Cell(group.seeds)]
        row += [Cell(estimate(of.get(name)), "best" if best[name] == group.name else "") for name in names]
        if an.normalised:
            means = [float(runs.mean()) for runs in an.scores[group.name].values()]
            row.append(Cell(f"{sum(mean > 1 for mean in means)} of {len(means)}"))
        rows.append(row)
    note = "In brackets: 95 % intervals of a bootstrap over runs, stratified by task. Tasks weigh the same. Bold: the best estimate."
    return Table("aggregates", f"Aggregates over {_tasks(an)}", header, rows, note)


def improvement(an: Analysis) -> Table | None:
    """P(row > column)."""
    shown = [(i, group) for i, group in enumerate(an.groups) if any(group.name in pair for pair in an.improvement)]
    if not shown:
        return None
    header = [Cell("P(row > column)"), *(Cell(group.title, group=j) for j, group in shown)]
    rows = [
        [
            Cell(a.title, group=i),
            *(Cell(NONE if a is b else estimate(an.improvement[a.name, b.name], 2)) for _, b in shown),
        ]
        for i, a in shown
    ]
    return Table("improvement", "Probability of improvement", header, rows, "Averaged over tasks, ties counted half.")


def per_task(an: Analysis) -> Table:
    """Raw scores, marked where the first group's differ."""
    header = [Cell("task"), *(Cell(group.title, group=i) for i, group in enumerate(an.groups))]
    rows = []
    for task in an.tasks:
        row = [Cell(task)]
        for group in an.groups:
            mark = an.marks[group.name][task] if group.name in an.marks else 0
            text = raw(an.per_task[group.name][task])
            row.append(Cell(text, {1: "up", -1: "down", 0: ""}[mark], mark=MARKS[mark]))
        rows.append(row)
    first = an.subject.title
    note = "Mean over runs, with its 95 % interval where there are 3 runs or more."
    if len(an.groups) > 1:
        note += (
            f" {MARKS[1]} {first} scores above this agent on the task, {MARKS[-1]} below: the 95 % interval of the difference leaves "
            f"out 0, or {first}, of fewer than {FEWEST} runs, lies outside the middle 95 % of many published ones. Of "
            f"{len(an.tasks)} tasks that happens to {0.05 * len(an.tasks):.1f} by chance alone."
        )
    return Table("tasks", "Scores by task, raw", header, rows, note)


def protocol(an: Analysis) -> Table:
    """The protocol card: a row a field, a column a group."""
    first = an.subject.protocol
    header = [Cell("protocol"), *(Cell(group.title, group=i) for i, group in enumerate(an.groups))]
    rows = []
    for name, title in protocols.FIELDS.items():
        if not any(name in group.protocol for group in an.groups):
            continue
        row = [Cell(title)]
        for group in an.groups:
            differs = name in protocols.unlike(first, group.protocol)
            text = protocols.in_words(name, group.protocol[name]) if name in group.protocol else "not stated"
            row.append(Cell(text, "unlike" if differs else "" if name in group.protocol else "faint"))
        rows.append(row)
    note = f"Marked: unlike {an.subject.title}." if len(an.groups) > 1 else ""
    return Table("protocol", "Protocol card", header, rows, note, tex=False, words=True)


def own_runs(an: Analysis) -> Table | None:
    """Every run of ours that has a folder: seed, score, what it took and what it ran on."""
    rows = [
        [
            Cell(group.title, group=i), Cell(run.game), Cell(str(run.seed)), Cell(_score(float(run.final.score.mean()))),
            Cell(f"{run.result['step']:,}"), Cell(f"{run.result['elapsed_s'] / 3600:.2f}"), Cell(cost(run)),
            Cell(machine(run), "text"), Cell(versions(run), "text"), Cell(commit(run), "text"),
        ]
        for i, group in enumerate(an.groups)
        for run in group.runs
    ]  # fmt: skip
    if not rows:
        return None
    names = ("agent", "task", "seed", "score", "agent steps", "wall-clock, h", "cost")
    words = [Cell(name, "text") for name in ("machine", "versions", "commit")]
    return Table(
        "runs", "Runs: seeds, cost, versions", [*(Cell(name) for name in names), *words], rows, left=2, tex=False
    )


def origins(an: Analysis) -> Table:
    """Where everything is from."""
    rows = [[Cell(group.title, group=i), Cell(group.origin)] for i, group in enumerate(an.groups)]
    return Table("sources", "Sources", [Cell("agent"), Cell("source, licence")], rows, tex=False, words=True)  # fmt: skip


def to_csv(an: Analysis) -> str:
    """Every number of the report, a row each, to full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for group in an.groups:
        for name, found in an.aggregates[group.name].items():
            writer.writerow(["aggregates", group.name, "", "", name, *_numbers(found), group.seeds])
    for (a, b), chance in an.improvement.items():
        writer.writerow(["improvement", a, b, "", "P(group > against)", *_numbers(chance), ""])
    if an.ranks is not None:
        for name, row in zip(an.ranks.algorithms, an.ranks.overall, strict=True):
            for rank, share in enumerate(row, start=1):
                writer.writerow(["ranks", name, "", "", f"P(rank {rank})", repr(float(share)), "", "", ""])
    for group in an.groups:
        for task in an.tasks:
            runs = "" if group.means else len(group.scores[task])
            writer.writerow(["tasks", group.name, "", task, "mean", *_numbers(an.per_task[group.name][task]), runs])
    for name, band in an.profiles.items():
        for tau, *point in zip(an.taus, band.point, band.low, band.high, strict=True):
            writer.writerow(
                ["profiles", name, "", "", f"share above {float(tau)!r}", *map(repr, map(float, point)), ""]
            )
    return out.getvalue()


def estimate(found: Estimate | Interval | None, digits: int = 3) -> str:
    """As "0.940 [0.876, 1.010]"; without an interval as "0.940"."""
    if found is None:
        return NONE
    if found.low is None or found.high is None:
        return f"{found.point:.{digits}f}"
    return f"{found.point:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def raw(found: Estimate) -> str:
    """A raw score, to the digits that its interval leaves meaningful."""
    if found.low is None or found.high is None:
        return _score(found.point)
    width = found.high - found.low
    digits = max(0, min(3, 1 - math.floor(math.log10(width)))) if width > 0 else 1
    return f"{found.point:,.{digits}f} [{found.low:,.{digits}f}, {found.high:,.{digits}f}]"


def cost(run: Run) -> str:
    """What a run took of a machine: GPU-hours, or hours of CPU threads."""
    hours, of = run.result["elapsed_s"] / 3600, run.provenance["machine"]
    if gpus := of.get("gpus"):
        return f"{hours * len(gpus):.2f} GPU-h"
    return f"{hours * (of.get('torch_threads') or 1):.2f} thread-h"


def machine(run: Run) -> str:
    """What a run ran on."""
    of = run.provenance["machine"]
    return ", ".join([*sorted(set(of.get("gpus") or [])), of.get("cpu") or "CPU not known"])


def versions(run: Run) -> str:
    """Of this package and of what a result may depend on."""
    facts = run.provenance
    listed = {"rlplatform": facts["rlplatform"], **facts["packages"]}
    return ", ".join(f"{name} {version}" for name, version in listed.items() if version is not None)


def commit(run: Run) -> str:
    """Of the code that made a run."""
    git = run.provenance["git"]
    return "installed" if git is None else git["commit"][:10] + (", with changes" if git["dirty"] else "")


def escape_tex(text: str) -> str:
    """Text for LaTeX: no character of it is a command."""
    return "".join(TEX.get(letter, letter) for letter in text)


def _tasks(an: Analysis) -> str:
    return f"{len(an.tasks)} tasks" if len(an.tasks) > 1 else an.tasks[0]


def _best(an: Analysis, measure: str) -> str | None:
    found = {name: of[measure].point for name, of in an.aggregates.items() if measure in of}
    if len(found) < 2:
        return None
    return (min if measure == "optimality gap" else max)(found, key=lambda name: found[name])


def _score(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _numbers(found: Estimate | Interval) -> list[str]:
    return ["" if value is None else repr(float(value)) for value in (found.point, found.low, found.high)]


def _html(tag: str, cell: Cell, words: bool) -> str:
    kinds = " ".join(kind for kind in (cell.kind, "" if words else "number") if kind)
    chip = f'<i class="chip g{cell.group}"></i>' if cell.group is not None else ""
    mark = f'<span class="mark">{cell.mark}</span>' if cell.mark else ""
    return f"<{tag}{f' class={chr(34)}{kinds}{chr(34)}' if kinds else ''}>{chip}{html.escape(cell.text)}{mark}</{tag}>"


def _markdown(cell: Cell) -> str:
    text = (
        f"{cell.text} {cell.mark}".strip()
        .replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("\n", " ")
    )
    return f"**{text}**" if cell.kind in {"best", "unlike"} else text


def _tex(cell: Cell) -> str:
    text = escape_tex(f"{cell.text} {cell.mark}".strip())
    return f"\\textbf{{{text}}}" if cell.kind == "best" else text
