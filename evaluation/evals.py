"""`evals.csv`: every game of every evaluation of a run, one a line. A line never changes once written; a run that is cut back
to a checkpoint drops the lines whose step lies behind it."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlplatform.evaluation.score import Scores

EVAL_COLUMNS = ("step", "episode", "env_seed", "score", "length", "truncated", "human_normalized")
HEADER = ",".join(EVAL_COLUMNS) + "\n"


class Evals(NamedTuple):
    """The file's columns, E rows in the order of the file."""

    step: NDArray[np.int64]  # agent steps of training behind the weights that played
    episode: NDArray[np.int64]  # number within its evaluation
    env_seed: NDArray[np.int64]  # with `episode`, names the environment
    score: NDArray[np.float64]  # raw
    length: NDArray[np.int64]  # agent steps
    truncated: NDArray[np.bool_]  # ended by the cap on steps
    human_normalized: NDArray[np.float64] | None  # None where the benchmark has no scale

    def at(self, step: int) -> "Evals":
        """The evaluation after this step."""
        rows = self.step == step
        scaled = None if self.human_normalized is None else self.human_normalized[rows]
        return Evals(
            self.step[rows], self.episode[rows], self.env_seed[rows], self.score[rows], self.length[rows],
            self.truncated[rows], scaled,
        )  # fmt: skip


def format_rows(scores: Scores, step: int) -> str:
    """The lines to append for the evaluation after agent step `step`, each with its newline. Floats read back exactly."""
    return "".join(
        f"{step},{e.episode},{scores.seed},{e.score},{e.length},{int(e.truncated)},"
        f"{'' if e.normalized is None else e.normalized}\n"
        for e in scores.episodes
    )


def read_evals(path: Path) -> Evals:
    """Read the file back. Refuses, by line, what `format_rows` cannot have written."""
    with path.open(newline="") as file:
        lines = list(csv.reader(file))
    if not lines or tuple(lines[0]) != EVAL_COLUMNS:
        found = ",".join(lines[0]) if lines else ""
        raise ValueError(f"{path}: the first line must be {HEADER.strip()!r}, got {found!r}")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            step, episode, env_seed, score, length, truncated, normalized = line
            flag = {"0": False, "1": True}[truncated]
            rows.append((int(step), int(episode), int(env_seed), float(score), int(length), flag, normalized))
        except (ValueError, KeyError):
            raise ValueError(f"{path}, line {number}: not an evaluation episode: {','.join(line)!r}") from None
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(EVAL_COLUMNS)
    blank = {text == "" for text in columns[6]}
    if len(blank) == 2:
        raise ValueError(f"{path}: human_normalized is given in some lines and missing in others")
    scale = None if blank == {True} else np.array([float(text) for text in columns[6]], np.float64)
    evals = Evals(
        np.array(columns[0], np.int64), np.array(columns[1], np.int64), np.array(columns[2], np.int64),
        np.array(columns[3], np.float64), np.array(columns[4], np.int64), np.array(columns[5], np.bool_), scale,
    )  # fmt: skip
    for name, values in (("score", evals.score), ("human_normalized", evals.human_normalized)):
        if values is not None and not np.isfinite(values).all():
            raise ValueError(f"{path}, line {2 + int(np.argmin(np.isfinite(values)))}: {name} is not finite")
    return evals
