"""Scores of other people's making: CSV, tidy or wide, and JSON of rliable's form, read into records.

    tidy    a row a score: columns task (or game, env) and score (or mean, return), and any of benchmark, agent (algorithm,
            method), run (seed), step (steps, env_step), low and high (ci_low, ci_high), std, runs (n_runs)
    wide    a row a task, its first column task (or game, env), every other column a run; or a row a run, its first column run
            (or seed), every other column a task; a column agent may stand second
    JSON    {agent: [[score, ...], ...]}, runs x tasks, with the names of the columns as "tasks": [...]; or {agent: {task: [score,
            ...]}}

What cannot be read is refused with file, line and column. An empty cell of a wide file is a run that is missing; NaN and infinity
are refused.
"""

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

SYNONYMS = {
    "game": "task", "env": "task", "environment": "task", "env_id": "task", "mean": "score", "return": "score", "reward": "score",
    "algorithm": "agent", "algo": "agent", "method": "agent", "seed": "run", "steps": "step", "env_step": "step", "global_step": "step",
    "ci_low": "low", "ci_high": "high", "n_runs": "runs",
}  # fmt: skip
KNOWN = {"benchmark", "task", "agent", "run", "step", "score", "low", "high", "std", "runs"}
Refuse = Callable[[Sequence[str | int], str], NoReturn]
SILENT = {"source"}  # columns that say where a row comes from: kept out, not refused


class Record(NamedTuple):
    """One score, or one published mean."""

    task: str
    score: float
    agent: str | None = None
    benchmark: str | None = None
    run: str | None = None  # None: a mean over runs, or a number by order of appearance
    step: int | None = None
    low: float | None = None
    high: float | None = None
    std: float | None = None
    runs: int | None = None


def read_scores(path: Path) -> list[Record]:
    """The records of a .csv or a .json file, in its order; at least one.

    Raises:
        ValueError: what is wrong, with file, line and column.
    """
    if path.suffix == ".json":
        records = list(_json(path))
    elif path.suffix == ".csv":
        records = list(_csv(path))
    else:
        raise ValueError(f"{path}: scores are read from .csv and .json")
    if not records:
        raise ValueError(f"{path}: there is no score in it")
    return records


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")  # spreadsheets put a mark in front
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text: byte {error.start} is not UTF-8") from None


def _csv(path: Path) -> Iterator[Record]:
    reader = csv.reader(_text(path).splitlines(keepends=True), strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        rows.extend((reader.line_num, [cell.strip() for cell in row]) for row in reader if row)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
    if not rows:
        raise ValueError(f"{path}: it is empty")
    (line, header), body = rows[0], rows[1:]
    names = [SYNONYMS.get(name.lower(), name.lower()) for name in header]
    for at, name in enumerate(header):
        if header.index(name) != at or (names[at] in KNOWN and names.index(names[at]) != at):
            _refuse(path, line, at, f"the column {name!r} is there twice")
    for number, row in body:
        if len(row) != len(header):
            _refuse(
                path, number, min(len(row), len(header)), f"{len(row)} cells in the row, {len(header)} in the header"
            )
    if {"task", "score"} <= set(names):
        yield from _tidy(path, line, names, body)
    elif names[0] in {"task", "run"}:
        yield from _wide(path, line, header, names, body)
    else:
        raise ValueError(
            f"{path}, line {line}: neither a tidy header (columns task and score) nor a wide one (first column task or run): "
            f"{','.join(header)!r}"
        )


def _tidy(path: Path, line: int, names: Sequence[str], body: Sequence[tuple[int, list[str]]]) -> Iterator[Record]:
    for at, name in enumerate(names):
        if name not in KNOWN | SILENT:
            _refuse(path, line, at, f"unknown column {name!r}; known: {', '.join(sorted(KNOWN))}")
    seen: dict[tuple[str | None, ...], int] = {}
    place = {name: at for at, name in enumerate(names)}
    for number, row in body:
        cells = dict(zip(names, row, strict=True))
        if not cells["task"]:
            _refuse(path, number, place["task"], "the task is empty")
        numbers = {
            name: _float(path, number, place[name], cells[name])
            for name in ("score", "low", "high", "std")
            if cells.get(name) or name == "score"
        }
        whole = {name: _whole(path, number, place[name], cells[name]) for name in ("step", "runs") if cells.get(name)}
        words = {name: cells.get(name) or None for name in ("agent", "benchmark", "run")}
        cell = (words["benchmark"], words["agent"], cells["task"], cells.get("step"), words["run"])
        if words["run"] is not None and cell in seen:
            _refuse(path, number, place["run"], f"the same run as in line {seen[cell]}")
        seen[cell] = number
        yield Record(cells["task"], **numbers, **whole, **words)  # type: ignore[arg-type]  # by name, each of its kind


def _wide(
    path: Path, line: int, header: Sequence[str], names: Sequence[str], body: Sequence[tuple[int, list[str]]]
) -> Iterator[Record]:
    by_task = names[0] == "task"
    first = 2 if len(names) > 1 and names[1] == "agent" else 1
    if len(header) == first:
        _refuse(path, line, first, f"a wide file has a column for each {'run' if by_task else 'task'}, this has none")
    seen: dict[tuple[str, str | None], int] = {}
    for number, row in body:
        agent = row[1] or None if first == 2 else None
        if not row[0]:
            _refuse(path, number, 0, f"the {names[0]} is empty")
        if (row[0], agent) in seen:
            _refuse(path, number, 0, f"{row[0]!r} is there twice, first in line {seen[row[0], agent]}")
        seen[row[0], agent] = number
        for at, text in enumerate(row[first:], start=first):
            if text:
                task, run = (row[0], header[at]) if by_task else (header[at], row[0])
                yield Record(task, _float(path, number, at, text), agent, run=run)


def _json(path: Path) -> Iterator[Record]:
    text = _text(path)
    try:
        read = json.loads(text, object_pairs_hook=_no_twice)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None

    def refuse(where: Sequence[str | int], what: str) -> NoReturn:
        at = _place(text, where)
        line, column = text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1
        raise ValueError(f"{path}, line {line}, column {column}: {what}")

    if not isinstance(read, dict):
        refuse([], f"expected {{agent: runs x tasks}}, got {type(read).__name__}")
    names = read.pop("tasks", None)
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        refuse(["tasks"], "tasks must be a list of names")
    if names is not None and len(set(names)) < len(names):
        refuse(["tasks"], "a task is named twice")
    for agent, scores in read.items():
        if isinstance(scores, dict):
            yield from _by_task(agent, scores, refuse)
        else:
            yield from _matrix(agent, scores, names, refuse)


def _by_task(agent: str, scores: dict[str, Any], refuse: Refuse) -> Iterator[Record]:
    for task, runs in scores.items():
        if not isinstance(runs, list):
            refuse([agent, task], "expected a list of scores, one a run")
        for run, score in enumerate(runs):
            yield Record(task, _number(score, refuse, [agent, task, run]), agent, run=str(run))


def _matrix(agent: str, scores: Any, names: list[str] | None, refuse: Refuse) -> Iterator[Record]:
    if not isinstance(scores, list) or not all(isinstance(run, list) for run in scores):
        refuse([agent], "expected runs x tasks, a list of lists, or {task: scores}")
    if names is None:
        refuse([agent], 'a matrix needs the names of its columns, as "tasks": [...] beside the agents')
    for run, row in enumerate(scores):
        if len(row) != len(names):
            refuse([agent, run], f"{len(row)} scores in the run, {len(names)} tasks")
        for at, (task, score) in enumerate(zip(names, row, strict=True)):
            yield Record(task, _number(score, refuse, [agent, run, at]), agent, run=str(run))


def _number(value: Any, refuse: Refuse, where: Sequence[str | int]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        refuse(where, f"not a finite number: {value!r}")
    return float(value)


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return dict(pairs)


def _place(text: str, where: Sequence[str | int]) -> int:
    """Where in a JSON text the value lies that `where` leads to: keys of objects and indices of arrays."""
    decoder = json.JSONDecoder()
    at = _skip(text, 0)
    for step in where:
        at = _skip(text, at + 1)
        for index in range(10**9):
            name: str | int = index
            if text[at] == '"' and isinstance(step, str):
                name, at = decoder.raw_decode(text, at)
                at = _skip(text, _skip(text, at) + 1)  # past the colon
            if name == step:
                break
            _, at = decoder.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)  # past the comma
    return at


def _skip(text: str, at: int) -> int:
    space = re.compile(r"\s*").match(text, at)
    assert space is not None
    return space.end()


def _float(path: Path, line: int, at: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        _refuse(path, line, at, f"not a finite number: {text!r}")
    return value


def _whole(path: Path, line: int, at: int, text: str) -> int:
    value = _float(path, line, at, text)
    if value != int(value) or value < 0:
        _refuse(path, line, at, f"not a whole number: {text!r}")
    return int(value)


def _refuse(path: Path, line: int, at: int, what: str) -> NoReturn:
    raise ValueError(f"{path}, line {line}, column {at + 1}: {what}")
