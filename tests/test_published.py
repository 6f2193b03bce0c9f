import csv
from pathlib import Path

import numpy as np
import pytest

from rlplatform.envs import suite_of
from rlplatform.evaluation import stats
from rlplatform.evaluation.published import (
    FOLDER,
    percentile,
    published,
    published_mean,
    published_runs,
    source,
    sources,
    standing,
    task_name,
    tasks,
)

GOLDEN = Path(__file__).parent / "golden" / "atari100k_aggregates.csv"  # computed from the sources by other code
SCALES = {
    game: (published_mean("atari100k", "random", game), published_mean("atari100k", "human", game))
    for game in tasks("atari100k")
}


def golden():
    with GOLDEN.open() as file:
        return list(csv.DictReader(file))


def test_every_file_is_complete_and_every_agent_has_its_source() -> None:
    assert len(tasks("atari100k")) == 26
    listed = {entry.agent: entry for entry in sources()}
    with (FOLDER / "atari100k_runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 26 * sum(entry.runs for entry in listed.values()) == 15_990
    with (FOLDER / "atari100k_tables.csv").open() as file:
        means = list(csv.DictReader(file))
    assert len(means) == 26 * sum(entry.runs == 0 for entry in listed.values()) == 338
    assert {row["agent"] for row in rows} == {agent for agent, entry in listed.items() if entry.runs}
    assert {row["agent"] for row in means} == {agent for agent, entry in listed.items() if not entry.runs}
    for entry in listed.values():
        assert entry.title
        assert entry.source
        assert entry.licence
        assert entry.reference
        if entry.runs:
            for task in tasks("atari100k"):
                assert published("atari100k", entry.agent, task).shape == (entry.runs,)
    assert all(row["step"] == "100000" for row in rows)
    numbers = [(row["agent"], row["task"], int(row["run"])) for row in rows]
    assert numbers == [(e.agent, task, run) for e in sources() for task in tasks("atari100k") for run in range(e.runs)]
    assert {row["agent"] for row in golden()} == set(listed)


@pytest.mark.parametrize("row", golden(), ids=lambda row: row["agent"])
def test_aggregates_recomputed_from_what_is_shipped(row) -> None:
    agent = row["agent"]
    means = {task: [published_mean("atari100k", agent, task)] for task in tasks("atari100k")}
    scores = stats.normalize(means, SCALES)
    half = 0.00051  # the golden file has three decimals
    assert stats.mean(scores) == pytest.approx(float(row["mean_hns"]), abs=half)
    assert stats.median(scores) == pytest.approx(float(row["median_hns"]), abs=half)
    assert stats.iqm(scores) == pytest.approx(float(row["iqm_of_game_means"]), abs=half)
    assert sum(runs[0] > 1.0 for runs in scores.values()) == int(row["n_superhuman"])
    runs = source("atari100k", agent).runs
    assert str(runs or "") == row["n_runs"]
    if runs:
        every = stats.normalize(published_runs("atari100k", agent), SCALES)
        assert stats.iqm(every) == pytest.approx(float(row["iqm_over_runs"]), abs=half)
        assert stats.optimality_gap(every) == pytest.approx(float(row["optimality_gap_over_runs"]), abs=half)


@pytest.mark.parametrize(
    ("alias", "task"),
    [
        ("atari/BankHeist", "BankHeist"), ("bank_heist", "BankHeist"), ("bankheist", "BankHeist"), ("Bank Heist", "BankHeist"),
        ("BankHeistNoFrameskip-v4", "BankHeist"), ("ALE/BankHeist-v5", "BankHeist"), ("UpNDown", "UpNDown"), ("Up'n Down", "UpNDown"),
        ("JamesBond", "Jamesbond"), ("Kung-Fu Master", "KungFuMaster"), ("Ms. Pac-Man", "MsPacman"), ("Q*bert", "Qbert"),
        ("H.E.R.O.", "Hero"), ("PongDeterministic-v4", "Pong"), ("Pong-ram-v0", "Pong"),
    ],
)  # fmt: skip
def test_a_task_by_any_name(alias: str, task: str) -> None:
    assert task_name("atari100k", alias) == task


def test_the_suite_normalises_by_the_same_numbers() -> None:
    assert {task.removeprefix("atari/"): scale for task, scale in suite_of("atari/Pong").scores.items()} == SCALES


def test_names_of_all_tasks_are_distinct_whatever_the_spelling() -> None:
    for task in tasks("atari100k"):
        assert task_name("atari100k", task) == task_name("atari100k", task.upper()) == task


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"no published scores of 'rainbow'.*der"):
        published("atari100k", "rainbow", "Pong")
    with pytest.raises(ValueError, match="no task 'Skiing'"):
        published("atari100k", "der", "Skiing")
    with pytest.raises(ValueError, match="of 'bbf_rr8' only means were published"):
        published("atari100k", "bbf_rr8", "Pong")
    with pytest.raises(ValueError, match="there are: none"):
        source("dmc", "der")
    with pytest.raises(ValueError, match="read-only"):
        published("atari100k", "der", "Pong")[0] = 21


def test_percentile_counts_ties_half() -> None:
    runs = np.array([1.0, 2.0, 2.0, 3.0])
    assert [percentile(score, runs) for score in (0.0, 1.0, 1.5, 2.0, 3.0, 4.0)] == [0.0, 12.5, 25.0, 50.0, 87.5, 100.0]


def test_standing() -> None:
    runs = np.arange(100.0)
    episodes = np.array([40.0, 60.0] * 50)  # a resample's mean has the standard deviation 1
    got = standing(episodes, runs)
    assert got.score.point == 50.0
    # 1.96 either way; the mean moves in steps of 0.2, and 50,000 draws put the quantile within 0.06
    assert abs(got.score.low - 48.04) < 0.2
    assert abs(got.score.high - 51.96) < 0.2
    ends = percentile(got.score.low, runs), percentile(got.score.high, runs)
    assert (got.percentile, got.percentile_low, got.percentile_high) == (50.5, *ends)
    assert 48.0 <= ends[0] < 50.5 < ends[1] <= 53.0
    assert got.runs is runs
