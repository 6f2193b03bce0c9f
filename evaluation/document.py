"""A report on disk: `write_report` puts report.html, report.md, tables.csv, tables.tex and the figures into a folder."""

import html
import importlib.metadata
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from rlplatform.evaluation import figures, tables
from rlplatform.evaluation.analysis import Analysis
from rlplatform.evaluation.compare import Comparison, compare
from rlplatform.evaluation.page import Section, page, paragraphs, picture

SHOWN = {"aggregates": "aggregates", "profiles": None, "improvement": "improvement", "ranks": None, "tasks": "tasks", "curves": None, "task_curves": None, "plasticity": None}  # fmt: skip
METHODS = (
    "IQM: mean of the middle half of all runs; median and mean are over tasks, of each task's mean over runs; optimality gap: how far "
    "scores fall short of 1 on average. Intervals are 95 % percentile intervals of a bootstrap that draws runs with replacement within "
    "each task (Agarwal et al. 2021, arXiv:2108.13264), seeded, on whatever number of runs a task has."
)


def write_report(
    an: Analysis,
    out: Path,
    *,
    command: str = "",
    margin: float | None = None,
    reps: int = 10_000,
    few_seeds: bool = False,
) -> list[Path]:
    """Write everything and return the files' paths, report.html first.

    Args:
        out: a folder, made if it is not there; the report's own files in it are replaced.
        command: what made it, to be shown.
        margin: the difference that matters to the verdicts, see `compare`; reps and few_seeds are likewise for them.
    """
    drawn = [
        (name, shows, draw(an, figures.WIDE), draw(an, figures.NARROW))
        for name, (shows, draw) in figures.figures(an).items()
    ]
    verdicts = [
        compare(an.subject, group, margin, reps=reps, few_seeds=few_seeds)
        for group in an.groups[1:]
        if not an.subject.means
    ]
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, str] = {}
    captions = figures.captions(an)
    files: list[Path] = []
    for name, shows, wide, narrow in drawn:
        svg = to_svg(wide)
        (folder / f"{name}.svg").write_bytes(svg)
        (folder / f"{name}.png").write_bytes(to_png(wide))
        files += [folder / f"{name}.svg", folder / f"{name}.png"]
        pictures[name] = picture(svg, to_svg(narrow), shows, captions[name])
    texts = {
        "report.html": to_html(an, verdicts, pictures, command),
        "report.md": to_markdown(an, verdicts, [(name, shows) for name, shows, *_ in drawn], command),
        "tables.csv": tables.to_csv(an),
        "tables.tex": "% \\usepackage{booktabs, amssymb}\n\n"
        + "\n".join(table.to_tex() for table in tables.tables(an) if table.tex),
    }
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8")
    return [out / name for name in texts] + files


def title(an: Analysis) -> str:
    """As a heading."""
    first, *others = (group.title for group in an.groups)
    where = an.title if len(an.tasks) > 1 else f"{an.tasks[0]} ({an.title})"
    if not others:
        return f"{first} on {where}"
    named = ", ".join(others[:-1]) + (" and " if len(others) > 1 else "") + others[-1]
    return f"{first} against {named} on {where}"


def lede(an: Analysis) -> str:
    """What is compared, in a sentence."""
    runs = sum(len(of) for group in an.groups if not group.means for of in (group.scores[task] for task in an.tasks))
    of = f"{len(an.tasks)} tasks" if len(an.tasks) > 1 else "one task"
    return f"{runs:,} runs of {len(an.groups)} agent{'s' if len(an.groups) > 1 else ''} on {of}; intervals are 95 %."


def to_html(an: Analysis, verdicts: Sequence[Comparison], pictures: dict[str, str], command: str) -> str:
    """The page."""
    made = {table.name: table for table in tables.tables(an)}
    sections = []
    warnings = "".join(f"<p>{_strong(sentence)}</p>" for sentence in an.unlike)
    warning = f'<div class="warn" role="note">{warnings}</div>' if warnings else ""
    if verdicts:
        items = "".join(f"<li>{html.escape(found.verdict)}</li>" for found in verdicts)
        sections.append(Section("verdicts", "In words", f'<ul class="verdicts">{items}</ul>{warning}'))
    headings = {
        "aggregates": "Aggregates", "profiles": "Performance profiles", "improvement": "Probability of improvement", "ranks": "Ranks",
        "tasks": "Tasks",
        "curves": "Learning curves", "task_curves": "Learning curves by task",
        "plasticity": "Plasticity",
    }  # fmt: skip
    for name, heading in headings.items():
        table = made.get(SHOWN[name] or "")
        body = pictures.get(name, "") + (f'<div class="dense">{table.to_html()}</div>' if table else "")
        if body:
            sections.append(Section(name, heading, body))
    for name in ("protocol", "runs", "sources"):
        if name in made:
            words = '<div class="words">' + made[name].to_html() + "</div>"
            words += f'<div class="note">{paragraphs(an.unstated)}</div>' if name == "protocol" else ""
            sections.append(Section(name, made[name].title, words))
    sections.append(Section("methods", "How it was computed", paragraphs([METHODS, *an.notes])))
    return page(title(an), lede(an), _facts(an), sections, _footer(command))


def to_markdown(an: Analysis, verdicts: Sequence[Comparison], drawn: Sequence[tuple[str, str]], command: str) -> str:
    """The same, for a repository; its pictures are the files in figures/."""
    parts = [_plain(f"# {title(an)}"), lede(an)]
    if verdicts:
        parts.append("".join(f"- {_plain(found.verdict)}\n" for found in verdicts))
    parts += [f"> {_plain(sentence)}" for sentence in an.unlike]
    images = {name: f"![{shows}](figures/{name}.png)" for name, shows in drawn}
    made = {table.name: table for table in tables.tables(an)}
    for name, table in SHOWN.items():
        if name in images:
            parts.append(f"## {dict(drawn)[name]}\n\n{images[name]}")
        elif table in made:
            parts.append(f"## {made[table].title}")
        if table in made:
            parts.append(made[table].to_markdown())
    for name in ("protocol", "runs", "sources"):
        if name in made:
            parts += [f"## {made[name].title}", made[name].to_markdown()]
            parts += map(_plain, an.unstated) if name == "protocol" else ()
    parts.append("## How it was computed\n\n" + "\n\n".join([METHODS, *map(_plain, an.notes)]))
    if command:
        parts.append(f"Made by `{command}`.")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def to_svg(fig: Figure) -> bytes:
    """The figure with its letters as shapes, the same bytes every time."""
    out = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "rlplatform", "svg.fonttype": "path"}):
        fig.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return b"".join(line.rstrip() + b"\n" for line in out.getvalue().splitlines())


def to_png(fig: Figure) -> bytes:
    """The figure at its own resolution."""
    out = io.BytesIO()
    fig.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _facts(an: Analysis) -> str:
    measure = "IQM" if any("IQM" in of for of in an.aggregates.values()) else "mean"
    items = []
    for i, group in enumerate(an.groups[:6]):
        found = an.aggregates[group.name].get(measure)
        if found is None:
            continue
        interval = f"[{found.low:.3f}, {found.high:.3f}]" if found.low is not None else "no interval"
        chip = f'<i class="chip g{i}"></i>'
        items.append(
            f'<li><span class="who">{chip}{html.escape(group.title)}</span><b>{found.point:.3f}</b>{measure} {interval}</li>'
        )
    return f'<ul class="facts">{"".join(items)}</ul>'


def _footer(command: str) -> str:
    version = importlib.metadata.version("rlplatform")
    made = f"<p>Made by <code>{html.escape(command)}</code></p>" if command else ""
    return (
        f"{made}<p>rlplatform {version}. Numbers at full precision: tables.csv; for papers: tables.tex, figures/.</p>"
    )


def _strong(sentence: str) -> str:
    text = html.escape(sentence)
    return text.replace("Unlike protocols", "<b>Unlike protocols</b>", 1)


def _plain(text: str) -> str:
    """Words for Markdown, of which no part is a tag."""
    return text.replace("<", "&lt;")
