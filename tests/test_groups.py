import json
from pathlib import Path

import numpy as np
import pytest

from rlplatform.evaluation import figures
from rlplatform.evaluation.groups import WINDOW, common_tasks, gather, published_group, read_groups
from rlplatform.evaluation.published import published
from run_files import make_run, scores_of


def test_runs_of_a_folder_are_one_group_with_a_row_a_run(tmp_path) -> None:
    for seed, mean in ((2, -18.0), (1, -15.0)):
        make_run(tmp_path / f"p{seed}", seed=seed, mean=mean)
    make_run(tmp_path / "b1", task="atari/Boxing", mean=4.0)
    (group,) = read_groups([tmp_path])
    assert (group.name, group.benchmark, group.ours, group.means, group.seeds) == (
        "der",
        "atari100k",
        True,
        False,
        "1-2",
    )
    assert {task: runs.tolist() for task, runs in group.scores.items()} == {
        "Boxing": [scores_of(4.0, 1).mean()], "Pong": [scores_of(-15.0, 1).mean(), scores_of(-18.0, 2).mean()],
    }  # fmt: skip
    assert [(run.game, run.seed) for run in group.runs] == [("Boxing", 1), ("Pong", 1), ("Pong", 2)]
    assert group.protocol["episodes"] == 100
    assert group.origin == f"3 runs under {tmp_path}"


def test_runs_of_unlike_protocols_or_configurations_are_never_one_group(tmp_path) -> None:
    for seed in (1, 2):
        make_run(tmp_path / f"plain{seed}", seed=seed)
    sticky = make_run(tmp_path / "sticky", seed=3)
    said = json.loads((sticky / "protocol.json").read_text())
    (sticky / "protocol.json").write_text(json.dumps(said | {"sticky": 0.25}))
    fast = make_run(tmp_path / "fast", seed=4)
    (fast / "config.yaml").write_text(
        (fast / "config.yaml").read_text().replace("replay_ratio: 1.0", "replay_ratio: 2.0")
    )
    short = make_run(tmp_path / "short", seed=5)
    result = json.loads((short / "result.json").read_text())
    (short / "result.json").write_text(json.dumps(result | {"step": 50_000}))
    groups = read_groups([tmp_path])
    seeds = {group.name: [run.seed for run in group.runs] for group in groups}
    assert sorted(seeds.values()) == [[1, 2], [3], [4], [5]]
    names = {tuple(of): name for name, of in seeds.items()}
    assert "sticky_actions=0.25" in names[3,]
    assert "replay_ratio=2.0" in names[4,]
    assert "steps=50000" in names[5,]
    assert len(names) == len(set(names.values()))


def test_one_seed_twice_is_refused(tmp_path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b")
    with pytest.raises(ValueError, match=r"seed 1 of der on Pong is there more than once: .*a, .*b"):
        read_groups([tmp_path])
    make_run(tmp_path / "other" / "c")
    first, second = read_groups([tmp_path / "a", tmp_path / "other"])  # two arguments are two groups
    assert (first.name, second.name) == ("der 1", "der 2")


def test_folders_of_unlike_configurations_are_named_by_what_is_unlike(tmp_path) -> None:
    """Fields in the configuration's order, the first that tell all agents apart, without those that follow; in one folder or in several."""
    pruned = "  width: 3\n  pruning:\n    sparsity: 0.9\n    begin: 5\n"
    unlike = {"a": "", "b": "  width: 3\n", "c": pruned}
    for name, fields in unlike.items():
        config = make_run(tmp_path / "all" / name) / "config.yaml"
        config.write_text(config.read_text().replace("agent:\n", "agent:\n" + fields))
    names = ["der", "der (width=3)", "der (width=3, pruning.sparsity=0.9)"]
    assert [group.name for group in read_groups([tmp_path / "all"])] == names
    assert [group.name for group in read_groups([tmp_path / "all" / name for name in unlike])] == names
    drawn = [
        figures._title(group) for group in read_groups([tmp_path / "all"])
    ]  # too long for a figure: the fields' last parts
    assert drawn == ["der (ours)", "der (width=3) (ours)", "der (width=3, sparsity=0.9)"]
    (again, *_), (alone,) = read_groups([tmp_path / "all" / "a"] * 2), read_groups([tmp_path / "all" / "c"])
    assert (again.name, alone.name) == ("der 1", "der")


def test_a_task_of_no_benchmark_is_raw(tmp_path) -> None:
    make_run(tmp_path / "catch", task="catch", scale=None)
    (group,) = read_groups([tmp_path])
    assert (group.benchmark, list(group.scores)) == (None, ["catch"])


def test_training_curves_share_a_grid(tmp_path) -> None:
    for seed in (1, 2):
        make_run(tmp_path / f"{seed}", seed=seed)
    (group,) = read_groups([tmp_path])
    curve = group.curves["Pong"]
    assert curve.what == f"training games, mean of the last {WINDOW}"
    assert curve.scores.shape == (2, len(curve.steps))
    for run, got in zip(group.runs, curve.scores, strict=True):
        ended = run.episodes
        for k in (0, 17, -1):
            seen = ended[ended[:, 0] <= curve.steps[k], 2]
            assert got[k] == pytest.approx(seen[-WINDOW:].mean(), rel=1e-12)
    (group.runs[0].folder / "episodes.csv").unlink()
    assert "Pong" not in read_groups([tmp_path])[0].curves


def test_scores_of_a_file(tmp_path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("task,1,2,3\nPongNoFrameskip-v4,1,2,3\nboxing,4,5,\n")
    (group,) = read_groups([path])
    assert (group.name, group.benchmark, group.seeds) == ("mine", "atari100k", "2-3")
    assert {task: runs.tolist() for task, runs in group.scores.items()} == {"Pong": [1, 2, 3], "Boxing": [4, 5]}
    assert (group.protocol, group.origin) == ({}, "the file mine.csv")


def test_curves_of_a_file_end_in_its_scores(tmp_path) -> None:
    rows = [f"Ant-v4,sac,{seed},{step},{step * seed}" for seed in (1, 2) for step in (1000, 2000, 3000)]
    (tmp_path / "c.csv").write_text("\n".join(["task,agent,seed,step,score", *rows]))
    (group,) = read_groups([tmp_path / "c.csv"])
    assert (group.benchmark, group.protocol) == ("gym", {"steps": 3000})
    assert group.scores["Ant"].tolist() == [3000, 6000]
    assert group.curves["Ant"].scores.tolist() == [[1000, 2000, 3000], [2000, 4000, 6000]]
    (tmp_path / "c.csv").write_text("\n".join(["task,agent,seed,step,score", *rows[:-1]]))
    with pytest.raises(ValueError, match=r"c.csv: runs of sac end at unlike steps \(2,000, 3,000\)"):
        read_groups([tmp_path / "c.csv"])


def test_a_table_of_means_is_no_run(tmp_path) -> None:
    (tmp_path / "m.csv").write_text("task,agent,mean,ci_low,ci_high\nPong,x,1,0,2\nBoxing,x,3,2,4\n")
    (group,) = read_groups([tmp_path / "m.csv"])
    assert (group.means, group.seeds) == (True, "means")
    (tmp_path / "m.csv").write_text("task,agent,mean,ci_low,ci_high\nPong,x,1,0,2\nPong,x,3,2,4\n")
    with pytest.raises(ValueError, match="x has several rows a task"):
        read_groups([tmp_path / "m.csv"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "task,agent,benchmark,score\nPong,x,atari100k,1\nAnt,x,gym,1\n",
            "x has scores of several benchmarks",
        ),
        ("a.csv", "task,benchmark,score\nPong,chess,1\n", "no benchmark 'chess'; known: atari100k"),
        ("a.csv", "task,1\nPong,1\nSkiing,2\n", "atari100k has no task 'Skiing'"),
        ("a.csv", "task,1\nPong,1\nBoxing,two\n", "a.csv, line 3, column 2: not a finite number: 'two'"),
    ],
)
def test_files_that_are_refused(tmp_path, name, text, message) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_groups([tmp_path / name])


def test_paths_that_hold_nothing(tmp_path) -> None:
    with pytest.raises(ValueError, match="there is no finished run under it"):
        read_groups([tmp_path])
    with pytest.raises(FileNotFoundError, match="neither a folder of runs nor a file of scores"):
        read_groups([Path("nowhere")])
    with pytest.raises(ValueError, match="nothing to report"):
        gather([], [])


def test_published_agents_as_groups() -> None:
    der = published_group("atari100k", "der")
    np.testing.assert_array_equal(der.scores["Pong"], published("atari100k", "der", "Pong"))
    assert (der.seeds, der.ours, der.curves) == ("100", False, {})
    assert "MIT" in der.origin
    tdmpc2 = published_group("dmc-proprio", "tdmpc2_hansen2024")
    assert tdmpc2.means
    assert tdmpc2.curves["walker-run"].steps[:2].tolist() == [50_000, 100_000]  # agent steps: the source counts frames
    assert tdmpc2.scores["walker-run"].tolist() == [tdmpc2.curves["walker-run"].scores[0, -1]]


def test_gather_keeps_names_apart_and_the_first_first(tmp_path) -> None:
    make_run(tmp_path / "a")
    groups = gather([tmp_path], ["spr", "der", "spr"])
    assert [group.name for group in groups] == ["der (ours)", "spr", "der"]
    assert common_tasks(groups) == ["Pong"]
    make_run(tmp_path / "catch" / "a", task="catch", scale=None)
    with pytest.raises(ValueError, match="nothing was published on catch"):
        gather([tmp_path / "catch"], ["der"])
    with pytest.raises(ValueError, match="no benchmark 'chess'"):
        gather([], ["der"], "chess")
    with pytest.raises(ValueError, match="one report is about one benchmark, got der: atari100k, mrq: gym"):
        common_tasks([published_group("atari100k", "der"), published_group("gym", "mrq")])
    assert [group.benchmark for group in gather([], ["mrq"], "gym")] == ["gym"]


def test_a_preset_names_the_published_agent_that_it_re_implements() -> None:
    assert [group.name for group in gather([], ["bbf", "der", "spr", "bbf_rr2"])] == ["bbf_rr2", "der", "spr"]
    with pytest.raises(ValueError, match="no published scores of 'bfb'"):
        gather([], ["bfb"])
