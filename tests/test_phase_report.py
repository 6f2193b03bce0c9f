"""Agents side by side by phase: areas, overall scores in units of a baseline, what does not count, what is refused."""

import dataclasses
import math

import numpy as np
import pytest

from rlplatform.evaluation.phase_report import PhaseTable, gather, plot, ratio, to_markdown
from rlplatform.evaluation.phases import Phase
from test_phases import folder_of


def a_run(*areas, games=5, recovery=math.nan, last=100):
    """Whole phases of 100 steps with these areas, the last one of `last` steps."""
    lengths = [*[100] * (len(areas) - 1), last]
    return [
        Phase(k, 100 * k, 100 * k + n, games, n == 100, 0, area, area, area, recovery, np.full(4, area))
        for k, (area, n) in enumerate(zip(areas, lengths, strict=True))
    ]


def a_table(**agents):
    seeds = {agent: tuple(range(len(runs))) for agent, runs in agents.items()}
    return PhaseTable("continual-minatar", ("Breakout", "Asterix"), next(iter(agents)), agents, seeds)


def test_overall_scores_are_in_units_of_the_baseline_phase_by_phase():
    table = a_table(base=[a_run(1.0, 10.0), a_run(3.0, 30.0)], other=[a_run(4.0, 10.0), a_run(2.0, 60.0)])
    np.testing.assert_array_equal(table.overall("base")["all"], [0.5, 1.5])
    np.testing.assert_array_equal(table.overall("other")["all"], [(2.0 + 0.5) / 2, (1.0 + 3.0) / 2])
    np.testing.assert_array_equal(table.scores("other")["2"], [10.0, 60.0])


def test_the_table_has_every_phase_and_says_what_does_not_count(tmp_path):
    runs = [a_run(2.0, 5.0, 7.0, last=40, recovery=r) for r in (0.0, 20.0, math.inf)]
    runs = [[first, *(dataclasses.replace(phase, recovery=math.inf) for phase in rest)] for first, *rest in runs]
    quiet = [[run[0], dataclasses.replace(run[1], games=0, area=math.nan), run[2]] for run in runs]
    seeds = {"ppo": (0, 1, 2), "ppo_gtr": (0, 1, 2)}
    table = PhaseTable(
        "continual-minatar", ("Breakout", "Asterix", "Seaquest"), "ppo", {"ppo": runs, "ppo_gtr": quiet}, seeds
    )
    text = to_markdown(table, reps=200)
    assert "| 1 Breakout | 2.00 [2.00, 2.00] | 2.00 [2.00, 2.00] |" in text
    assert "| 2 Asterix | - | - |\n| 3 Seaquest | - | - |" in text
    assert "| all, ppo = 1 | 1 | 1.000 [1.000, 1.000] |" in text
    assert "| P(better than ppo) | - | 0.50 [0.50, 0.50] |" in text
    assert "| recovered, of phases with a loss | 1 of 2, median 20 steps |" in text  # only phases that count
    assert "Phases 2, 3 do not count" in text
    plot(table, tmp_path / "phases.png", reps=200)
    assert (tmp_path / "phases.png").stat().st_size > 10_000


def test_negative_areas_have_a_table_and_a_plot_but_no_ratio(tmp_path):
    table = a_table(base=[a_run(-900.0, -1_000.0)] * 3, other=[a_run(-300.0, -200.0)] * 3)
    text = to_markdown(table, reps=200)
    assert "| 2 Asterix | -1000.00 [-1000.00, -1000.00] | -200.00 [-200.00, -200.00] |" in text
    assert "| all, base" not in text
    assert "Overall leaves out phases 1, 2: a run of base has no positive area there." in text
    plot(table, tmp_path / "phases.png", reps=200)
    assert (tmp_path / "phases.png").exists()


def test_the_baseline_s_chance_is_in_the_interval_of_a_ratio():
    """Of the ratio of means 1.5 / 1, with baseline runs at 0.5, 1 and 1.5: extremes are 1.5 / 1.5 and 1.5 / 0.5."""
    found = ratio(a_table(base=[a_run(0.5), a_run(1.0), a_run(1.5)], other=[a_run(1.5)] * 3), "other")
    assert found.point == 1.5
    assert 1.0 <= found.low < 1.2
    assert 2.2 < found.high <= 3.0
    assert (found.runs, found.against) == ((3,), (3,))


def test_intervals_are_made_as_they_are_asked_for(tmp_path):
    table = a_table(base=[a_run(0.5), a_run(1.0), a_run(1.5)], other=[a_run(1.5), a_run(2.5), a_run(2.0)])
    wide, narrow = ratio(table, "other", reps=2_000), ratio(table, "other", reps=2_000, confidence=0.5)
    assert narrow.confidence == 0.5
    assert narrow.width < wide.width
    assert ratio(table, "other", reps=2_000, seed=1) != wide
    assert "[50 % interval]" in to_markdown(table, reps=200, confidence=0.5)
    few = a_table(base=[a_run(0.5), a_run(1.0)], other=[a_run(1.5)] * 3)
    with pytest.raises(ValueError, match="an interval needs 3 runs of every task"):
        ratio(few, "other")
    assert ratio(few, "other", few_seeds=True).point == 2.0
    many = a_table(**{f"agent_{k}": table.phases["base"] for k in range(9)})
    figure = plot(many, tmp_path / "many.png", reps=200)
    assert len(figure.axes[0].get_legend().get_texts()) == 9


def test_a_phase_counts_where_every_run_has_played_all_of_it(tmp_path):
    short, long = a_run(1.0, 2.0, last=40), a_run(1.0, 2.0)
    for runs in ([short, long], [long, short]):
        assert a_table(base=runs).counted == (0,)
    assert a_table(base=[long, long]).counted == (0, 1)
    one, other = runs_on_disk(tmp_path, ("ppo", 0), ("pqn", 0))
    other.config["envs"] = 4  # the same steps of each environment are phases of another length
    with pytest.raises(ValueError, match="not of one task, protocol and length of phases in agent steps"):
        gather([one, other])


def test_a_phase_in_which_the_baseline_scored_nothing_is_no_unit(tmp_path):
    """In one of its runs: a resample may have nothing else."""
    table = a_table(base=[a_run(0.0, 1.0), a_run(3.0, 1.0), a_run(3.0, 1.0)], other=[a_run(5.0, 2.0)] * 3)
    assert (table.counted, table.measured) == ((0, 1), (1,))
    assert ratio(table, "other", reps=200).point == 2.0
    np.testing.assert_array_equal(table.overall("other")["all"], [2.0] * 3)
    text = to_markdown(table, reps=200)
    assert "| 1 Breakout | 2.00 [" in text
    assert "Overall leaves out phases 1: a run of base has no positive area there." in text
    assert len(plot(table, tmp_path / "phases.png", reps=200).axes[0].get_xticks()) == 2
    nothing = a_table(base=[a_run(0.0, -1.0)] * 3)
    with pytest.raises(ValueError, match="base has a run without a positive area in every phase"):
        nothing.overall("base")


def runs_on_disk(tmp_path, *agents_and_seeds):
    found = []
    for agent, seed in agents_and_seeds:
        folder = tmp_path / f"{agent}_{seed}"
        folder.mkdir()
        protocol = {"phase_steps": 25, "games": ["Breakout", "Asterix"]}
        found.append(folder_of(folder, "continual-minatar", protocol, preset=agent, seed=seed))
    return found


def test_runs_are_grouped_by_agent_and_phases_named_by_game(tmp_path):
    table = gather(runs_on_disk(tmp_path, ("ppo", 0), ("ppo", 1), ("pqn", 0)), baseline="pqn")
    assert (table.baseline, table.seeds) == ("pqn", {"ppo": (0, 1), "pqn": (0,)})
    assert table.names == ("Breakout", "Asterix", "Breakout", "Asterix")
    assert table.counted == (0, 2)  # the second phase's one game was cut short by its end, the fourth is not whole
    np.testing.assert_array_equal(table.areas("ppo"), [[2.0, 4.0], [2.0, 4.0]])


def test_runs_that_cannot_be_compared_are_refused(tmp_path):
    runs = runs_on_disk(tmp_path, ("ppo", 0), ("pqn", 0))
    with pytest.raises(ValueError, match="no runs$"):
        gather([])
    runs[1].protocol["evaluation"] = {"episodes": 3}  # nothing of which is in a training curve
    gather(runs)
    with pytest.raises(ValueError, match="no runs of the baseline 'c51'; there are ppo, pqn"):
        gather(runs, "c51")
    with pytest.raises(ValueError, match="another run of ppo has seed 0, too"):
        gather([runs[0], runs[0]])
