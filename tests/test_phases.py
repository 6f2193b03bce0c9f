import json
import math

import numpy as np
import pytest

from rlplatform.evaluation.phases import by_phase, phases_of
from rlplatform.evaluation.runs import Run, collect


def rows(*pairs, env=0, length=1):
    """Episodes [E, 4] from (step, score)."""
    return np.array([(step, env, score, length) for step, score in pairs], np.float64).reshape(-1, 4)


def test_returns_areas_and_recovery_by_hand():
    """Two phases of 100 agent steps in four parts of 25: [10, 20, 20 (none: as before), 40] and [5, 5 (none), 20, 40]."""
    episodes = rows((10, 8), (24, 12), (30, 20), (90, 40), (100, 999), (110, 5), (155, 20), (180, 40), (200, 999))
    first, second = by_phase(episodes, envs=1, phase_steps=100, steps=200, bins=4)
    np.testing.assert_array_equal(first.curve, [10, 20, 20, 40])
    np.testing.assert_array_equal(second.curve, [5, 5, 20, 40])
    assert (first.number, first.start, first.stop, first.games, first.cut) == (0, 0, 100, 4, 1)
    assert (second.number, second.start, second.stop, second.games, second.cut) == (1, 100, 200, 3, 1)
    assert first.score == (8 + 12 + 20 + 40) / 4
    assert second.score == (5 + 20 + 40) / 3
    assert (first.area, second.area) == (22.5, 17.5)
    assert (first.level, second.level) == (40, 40)  # the last fifth of four parts is one of them
    assert math.isnan(first.recovery)  # nothing came before
    assert second.recovery == 100  # 5 + 0.9 * 35 = 36.5, reached in the fourth part
    assert by_phase(episodes, envs=1, phase_steps=100, steps=200, bins=4, fraction=0.4)[1].recovery == 75  # 19
    assert by_phase(episodes, envs=1, phase_steps=100, steps=200, bins=4, fraction=15 / 35)[1].recovery == 75  # just
    assert by_phase(episodes, envs=1, phase_steps=100, steps=200, bins=4, fraction=0.43)[1].recovery == 100


def test_the_level_is_the_mean_of_the_last_fifth():
    episodes = rows(*((10 * k + 5, k) for k in range(20)))
    (phase,) = by_phase(episodes, envs=1, phase_steps=200, steps=200)
    np.testing.assert_array_equal(phase.curve, np.arange(20))
    assert phase.level == (16 + 17 + 18 + 19) / 4
    assert phase.area == 9.5


def test_a_phase_is_steps_of_each_environment():
    """Four environments, phases of 25 steps each: the game that ends with all of them at their 25th is the first phase's last."""
    episodes = rows((96, 1), (100, 2), (104, 3))
    first, second = by_phase(episodes, envs=4, phase_steps=25, steps=200, bins=25, first_phase=7)
    assert (first.number, second.number) == (7, 8)
    assert (first.games, first.cut, first.score) == (1, 1, 1)
    assert (second.games, second.cut, second.score) == (1, 0, 3)
    # Its last step is the 24th of 25, so part 23; with one part a step all that comes later takes its mean.
    np.testing.assert_array_equal(first.curve, np.ones(25))
    two = by_phase(rows((4, 1), (96, 5)), envs=4, phase_steps=25, steps=100, bins=25)[0]
    np.testing.assert_array_equal(two.curve, [1] * 23 + [5, 5])


def test_what_was_lost_is_measured_against_the_same_phase_before():
    """Games A, B, A, B: in the third phase it is A's level that counts, not B's."""
    episodes = rows((50, 10), (99, 10), (150, 100), (199, 100), (210, 4), (260, 10), (310, 100), (399, 50))
    phases = by_phase(episodes, envs=1, phase_steps=100, steps=400, bins=2, cycle=2)
    assert [math.isnan(phase.recovery) for phase in phases] == [True, True, False, False]
    assert phases[2].recovery == 100  # 4 -> 10, at 260
    assert phases[3].recovery == 0  # it began where it had been
    assert by_phase(episodes, envs=1, phase_steps=100, steps=400, bins=2)[2].recovery == math.inf  # against B's 100


def test_negative_scores_recover_too():
    episodes = rows((30, -100), (80, -100), (130, -500), (160, -150), (190, -130))
    assert by_phase(episodes, envs=1, phase_steps=100, steps=200, bins=10)[1].recovery == 90  # -140 was due
    assert by_phase(episodes, envs=1, phase_steps=100, steps=200, bins=10, fraction=0.95)[1].recovery == math.inf
    assert by_phase(episodes, envs=1, phase_steps=100, steps=200, bins=10, fraction=0.87)[1].recovery == 60
    assert by_phase(rows((80, -100), (120, -90)), envs=1, phase_steps=100, steps=200)[1].recovery == 0


def test_phases_without_games_and_unfinished_ones():
    phases = by_phase(rows((250, 3)), envs=1, phase_steps=100, steps=260, bins=10)
    assert [(phase.start, phase.stop, phase.games) for phase in phases] == [(0, 100, 0), (100, 200, 0), (200, 260, 1)]
    assert all(math.isnan(value) for value in (phases[0].score, phases[0].area, phases[0].level, phases[1].recovery))
    np.testing.assert_array_equal(phases[2].curve, [3] * 6)  # the six parts that there were
    assert math.isnan(phases[2].recovery)
    assert by_phase(rows(), envs=1, phase_steps=100, steps=0) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"envs": 0}, "envs must be >= 1"),
        ({"phase_steps": 0}, "phase_steps must be >= 1"),
        ({"bins": 0}, "bins must be >= 1"),
        ({"steps": -1}, "must be >= 0"),
        ({"cycle": -1}, "must be >= 0"),
        ({"fraction": 0.0}, r"fraction must lie in \(0, 1\]"),
        ({"fraction": math.nan}, r"fraction must lie in \(0, 1\]"),
        ({"envs": 3}, "multiple of 3 environments"),
        ({"steps": 99}, "at most at step 99"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        by_phase(rows((100, 1)), **{"envs": 1, "phase_steps": 10, "steps": 100, **change})


def folder_of(tmp_path, task, protocol, **config):
    defaults = {"preset": "c51", "task": task, "seed": 1, "steps": 395, "actors": 2, "envs": 2, "rollout": 1}
    (tmp_path / "config.yaml").write_text(json.dumps(defaults | config))
    (tmp_path / "protocol.json").write_text(json.dumps(protocol | {"evaluation": {}}))
    for name in ("provenance.json", "result.json", "evals.csv"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "episodes.csv").write_text(
        "step,env,score,length\n40,0,2.0,10\n200,1,9.0,40\n240,0,4.0,50\n396,3,1.0,9\n"
    )
    return Run(tmp_path)


def test_a_run_is_cut_by_its_own_protocol(tmp_path):
    from rlplatform.envs import ContinualMinAtarProtocol

    protocol = {"games": ["Breakout"], "permuted": False, "phase_steps": 50, "first_phase": 3, "sticky": 0.1, "ramping": True,
                "episode_steps": 0}  # fmt: skip
    assert set(protocol) == set(ContinualMinAtarProtocol.__dataclass_fields__)
    first, second = phases_of(folder_of(tmp_path, "continual-minatar", protocol), bins=2)
    assert (first.number, first.stop, first.games, first.cut, first.score) == (3, 200, 1, 1, 2)
    assert (second.number, second.stop, second.games, second.score) == (4, 396, 2, 2.5)  # 99 rounds of 4 steps
    assert second.recovery == 0


def test_what_does_not_change_has_no_phases(tmp_path):
    with pytest.raises(ValueError, match="minatar/Breakout has no phases"):
        phases_of(folder_of(tmp_path, "minatar/Breakout", {}))


def test_a_collected_run_keeps_games_of_every_phase(tmp_path):
    """One of long games has few: they would be lost among the others'."""
    (tmp_path / "run").mkdir()
    run = folder_of(tmp_path / "run", "continual-minatar", {"phase_steps": 500}, steps=3_999)
    games = [(step, 1.0) for step in range(1, 2_000)] + [(2_000 + 700 * k, 5.0) for k in range(3)]
    rows = "".join(f"{step},0,{score},1\n" for step, score in games)
    (run.folder / "episodes.csv").write_text("step,env,score,length\n" + rows)
    (run.folder / "metrics.jsonl").write_text("")
    kept = Run(collect(run.folder, tmp_path / "kept")).episodes
    assert (kept[:, 2] == 5.0).sum() == 3
    assert len(kept) == 503
    assert (kept[0, 0], kept[499, 0]) == (1, 1_999)
