import csv
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from rlplatform.envs import suite_of
from rlplatform.evaluation import stats
from rlplatform.evaluation.published import (
    FOLDER,
    agent_tasks,
    benchmark_of,
    curve,
    percentile,
    published,
    published_mean,
    published_runs,
    run_count,
    source,
    sources,
    standing,
    task_name,
    tasks,
)
from rlplatform.evaluation.store import Mean, scales, shipped

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
    listed = {entry.agent: entry for entry in sources() if entry.benchmark == "atari100k"}
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
    ours = [entry for entry in sources() if entry.benchmark == "atari100k"]
    assert numbers == [(e.agent, task, run) for e in ours for task in tasks("atari100k") for run in range(e.runs)]
    assert {row["agent"] for row in golden()} == set(listed)


@pytest.mark.parametrize(
    ("benchmark", "agents", "tasks_of_mrq", "rows"),
    [("dmc-proprio", 13, 28, 882), ("dmc-visual", 8, 28, 238), ("gym", 5, 5, 25), ("atari", 5, 57, 281),
     ("mmbench-soup200", 4, None, 374), ("mmbench-singletask", 1, None, 1167)],
)  # fmt: skip
def test_every_table_is_complete(benchmark, agents, tasks_of_mrq, rows) -> None:
    listed = [entry for entry in sources() if entry.benchmark == benchmark]
    assert len(listed) == agents
    assert all(entry.title and entry.reference and entry.source and entry.licence for entry in listed)
    assert all(entry.runs == 0 for entry in listed)
    curves = [curve(benchmark, entry.agent, task) for entry in listed for task in agent_tasks(benchmark, entry.agent)]
    assert sum(map(len, curves)) == rows
    assert {key[1] for key in shipped().means if key[0] == benchmark} == {entry.agent for entry in listed}
    assert len([key for key in shipped().means if key[0] == benchmark]) == len(curves)  # each task is spelled our way
    for means in curves:
        steps = [mean.step for mean in means]
        assert steps == sorted(set(steps))
        # paper tables cut means to integers, so that an end of an interval may pass them by 1
        assert all(m.low <= m.score + 1 and m.score <= m.high + 1 for m in means if m.low is not None)
    if tasks_of_mrq is not None:
        assert len(agent_tasks(benchmark, "mrq")) == tasks_of_mrq


def test_run_counts_in_words() -> None:
    counts = {(entry.benchmark, entry.agent): run_count(entry) for entry in sources()}
    assert counts["atari100k", "der"] == "100 runs"
    assert counts["atari100k", "bbf_rr8"] == "means"
    assert counts["gym", "mrq"] == "means of 10 runs"
    assert counts["dmc-proprio", "dreamerv3_hansen2024"] == "means of 2-3 runs"
    assert counts["dmc-proprio", "sac_rr1_nikishin2022"] == "means of 10 runs"


def test_what_a_table_says_of_accuracy() -> None:
    assert curve("dmc-proprio", "mrq", "cup-catch") == (Mean(500_000, 981.0, 979.0, 984.0, None, None),)
    assert source("dmc-proprio", "mrq").mean_of == 10
    theirs = curve("dmc-proprio", "tdmpc2_hansen2024", "acrobot-swingup")
    assert [mean.step for mean in theirs][:2] == [100_000, 200_000]
    assert theirs[0].runs == 3
    assert source("dmc-proprio", "tdmpc2_hansen2024").unit == "frames"  # as the source counts
    resets = curve("dmc-visual", "drq_resets_nikishin2022", "hopper-stand")
    assert resets == (Mean(1_000_000, 893.4, None, None, 34.0, 10),)
    runs = published("atari100k", "der", "Pong")
    assert curve("atari100k", "der", "Pong") == (Mean(100_000, runs.mean(), None, None, runs.std(ddof=1), 100),)
    assert published_mean("dmc-proprio", "tdmpc2_hansen2024", "acrobot-swingup", step=100_000) == theirs[0].score


# Measures over tasks that the same paper states: means of its tables. Its entries are cut to integers, which lowers a mean by
# half a point of the raw score on average and by a whole one at most; Atari's games are too few points wide for that to be small.
PAPER = [
    (row["benchmark"], row["agent"], float(row["score"]))
    for row in csv.DictReader((FOLDER / "aggregates.csv").read_text().splitlines())
    if row["measure"] == "Mean" and row["benchmark"] != "atari"
]


@pytest.mark.parametrize(("benchmark", "agent", "stated"), PAPER, ids=lambda value: str(value))
def test_means_over_tasks_are_what_the_paper_states(benchmark, agent, stated) -> None:
    means = {task: [published_mean(benchmark, agent, task)] for task in agent_tasks(benchmark, agent)}
    if benchmark == "gym":  # stated to two decimals
        assert abs(stats.mean(stats.normalize(means, scales(benchmark))) - stated) < 0.006
    else:
        assert -0.6 < stated - stats.mean(means) < 1.6


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
        ("atari_bank_heist", "BankHeist"), ("Up and Down", "UpNDown"), ("JamesBond", "Jamesbond"), ("Kung-Fu Master", "KungFuMaster"), ("Ms. Pac-Man", "MsPacman"), ("Q*bert", "Qbert"),
        ("H.E.R.O.", "Hero"), ("PongDeterministic-v4", "Pong"), ("Pong-ram-v0", "Pong"),
    ],
)  # fmt: skip
def test_a_task_by_any_name(alias: str, task: str) -> None:
    assert task_name("atari100k", alias) == task


@pytest.mark.parametrize(
    ("benchmark", "alias", "task"),
    [
        ("dmc-proprio", "dmc_cup_catch", "ball_in_cup-catch"), ("dmc-visual", "cup-catch", "ball_in_cup-catch"),
        ("dmc-proprio", "finger-turn-easy", "finger-turn_easy"), ("gym", "HalfCheetah-v4", "HalfCheetah"),
        ("atari", "Montezuma's Revenge", "MontezumaRevenge"), ("atari", "ALE/Skiing-v5", "Skiing"),
    ],
)  # fmt: skip
def test_a_task_of_any_benchmark_by_any_name(benchmark: str, alias: str, task: str) -> None:
    assert task_name(benchmark, alias) == task


def test_every_alias_leads_to_a_task() -> None:
    families = tomllib.loads((FOLDER / "aliases.toml").read_text())
    for family, benchmark in (("atari", "atari"), ("dmc", "dmc-proprio"), ("gym", "gym")):
        for alias, task in families.pop(family).items():
            assert re.fullmatch("[a-z0-9]+", alias)
            assert task_name(benchmark, alias) == task
    assert not families


def test_scales() -> None:
    assert scales("atari100k") == scales("atari")
    assert len(scales("atari")) == 57
    assert {game: scales("atari")[game] for game in tasks("atari100k")} == SCALES
    assert scales("gym")["Ant"] == (-70.288, 3942.0)  # random play, TD3
    assert set(scales("gym")) == set(tasks("gym"))
    assert set(scales("dmc-visual").values()) == {(0.0, 1000.0)}
    assert set(scales("dmc-visual")) == set(tasks("dmc-visual"))


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
    with pytest.raises(ValueError, match="'der' on Pong has no runs at step 5; there are: 100000"):
        published("atari100k", "der", "Pong", step=5)
    with pytest.raises(ValueError, match="nothing was published of 'sac_rr1_nikishin2022' on dog-run"):
        published("dmc-proprio", "sac_rr1_nikishin2022", "dog-run")
    with pytest.raises(ValueError, match="no score at step 7; there are: 500000"):
        published_mean("dmc-proprio", "mrq", "dog-run", step=7)
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


def test_a_task_of_ours_is_compared_under_its_own_protocol():
    named = {
        "atari/Pong": "atari100k", "atari57-mrq/Pong": "atari", "dmc/walker-walk": "dmc-proprio", "dmc-visual/walker-walk": "dmc-visual",
        "dmc10-resets/walker-run": "dmc-proprio", "gym/Ant": "gym", "Pong": "atari100k", "walker-walk": "dmc-proprio", "catch": None,
    }  # fmt: skip
    assert {task: benchmark_of(task) for task in named} == named
    for task in ("atari57-mrq", "gym", "dmc", "dmc-visual", "dmc10-resets"):
        suite = suite_of(task)
        assert {task_name(suite.benchmark, one): scale for one, scale in suite.scores.items()} == {
            one.partition("/")[2]: scale for one, scale in suite.scores.items()
        }
        theirs = scales(suite.benchmark)
        assert {one.partition("/")[2]: scale for one, scale in suite.scores.items()}.items() <= theirs.items()
