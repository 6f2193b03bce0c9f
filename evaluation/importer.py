"""Published scores that may not be shipped, from the user's own copy: `import_references` writes them as tidy files into his folder
of references (`store.own_folder`), where every comparison finds them under the agent's name and a suffix.

MR.Q's result files are the example: CC BY-NC 4.0, so they stay with whoever downloaded them.
"""

import csv
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from rlplatform.evaluation.published import benchmark_of, sources, task_name
from rlplatform.evaluation.store import AGENT_STEPS, COLUMNS, EXTRA, benchmarks, own_folder
from rlplatform.evaluation.tidy import Record, read_scores

AGGREGATE = re.compile(r"^AGG\b")  # rows of a table that sum up the others


def import_references(
    path: Path,
    benchmark: str | None = None,
    *,
    suffix: str = "imported",
    reference: str = "not said",
    licence: str = "not said",
    unit: str = AGENT_STEPS,
) -> list[str]:
    """Import the scores in `path`, any form that `tidy.read_scores` takes: every run, or means with their intervals.

    Args:
        benchmark: for files without a column of that name.
        suffix: an agent is filed as <its name>_<suffix>, so that it stands beside what is shipped.
        reference: the paper, to be shown with every comparison.
        licence: of the file.
        unit: what its steps count, "agent steps" or "frames".

    Returns:
        "benchmark/agent" of each agent that can now be named.

    Raises:
        ValueError: the file is malformed, its benchmark is unknown, or a task is none of the benchmark's; nothing is written then.
        FileExistsError: something was imported under this name before.
    """
    if not re.fullmatch(r"[a-z0-9_]+", suffix):
        raise ValueError(f"a suffix is lower-case letters, digits and underscores, not {suffix!r}")
    if unit not in {AGENT_STEPS, "frames"}:
        raise ValueError(f"steps are agent steps or frames, not {unit!r}")
    rows: dict[tuple[str, str], list[list[object]]] = {}
    titles: dict[str, str] = {}
    runs: dict[tuple[str, str], int] = {}
    records = [record for record in read_scores(path) if not AGGREGATE.match(record.task)]
    means = {record.run is None for record in records}
    if len(means) > 1:
        raise ValueError(f"{path}: some rows name their run and some do not: runs and means are two files")
    for record in records:
        where = record.benchmark or benchmark or benchmark_of(record.task)
        if where not in benchmarks():
            raise ValueError(f"{path}: no benchmark {where!r} for {record.task}; known: {', '.join(benchmarks())}")
        title = record.agent or path.stem
        agent = f"{slug(title)}_{suffix}"
        titles[agent] = title
        rows.setdefault((where, agent), []).append(_row(record, where, agent, task_name(where, record.task)))
    for key, of in rows.items():
        runs[key] = 0 if True in means else _runs(of)
    taken = {(entry.benchmark, entry.agent) for entry in sources()} & set(rows)
    name = f"{slug(path.stem)}_{suffix}"
    if taken or (own_folder() / f"{name}.toml").exists():
        what = ", ".join(sorted("/".join(key) for key in taken)) or name
        raise FileExistsError(f"{what} is there already: give another suffix, or remove it from {own_folder()}")
    kind = "tables" if True in means else "runs"
    entries = "".join(
        f'[agents."{where}".{agent}]\ntitle = {json.dumps(titles[agent] + f" ({suffix})")}\n'
        f"reference = {json.dumps(reference)}\nsource = {json.dumps(f'imported from {path.name}')}\n"
        f"licence = {json.dumps(licence)}\nruns = {runs[where, agent]}\nunit = {json.dumps(unit)}\nprotocol = {{}}\n\n"
        for where, agent in rows
    )
    _write(own_folder(), name, kind, [row for of in rows.values() for row in of], entries)
    return [f"{where}/{agent}" for where, agent in rows]


def slug(name: str) -> str:
    """As agents are called in files: "MR.Q" is mrq, "TD-MPC2 (pixels)" is tdmpc2_pixels."""
    return re.sub(r"[^a-z0-9_]", "", re.sub(r"\s+", "_", name.strip().lower())) or "unnamed"


def _row(record: Record, benchmark: str, agent: str, task: str) -> list[object]:
    step = "" if record.step is None else record.step
    score: list[object] = [benchmark, task, agent, record.run if record.run is not None else "", step, record.score]
    return score + ["" if value is None else value for value in (record.low, record.high, record.std, record.runs)]


def _runs(rows: Sequence[Sequence[object]]) -> int:
    """The most runs that a task and step has."""
    counts: dict[tuple[object, object], int] = {}
    for row in rows:
        counts[row[1], row[4]] = counts.get((row[1], row[4]), 0) + 1
    return max(counts.values())


def _write(folder: Path, name: str, kind: str, rows: Sequence[Sequence[object]], entries: str) -> None:
    part = folder / f"{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with (part / "scores").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS + (EXTRA if kind == "tables" else []))
        writer.writerows(row if kind == "tables" else row[: len(COLUMNS)] for row in rows)
    (part / "sources").write_text(entries, encoding="utf-8")
    (part / "scores").replace(folder / f"{name}_{kind}.csv")
    (part / "sources").replace(folder / f"{name}.toml")
    part.rmdir()
