"""Grids: what is planned and refused, how cells are driven, and real ones of small runs, killed and gone on with."""

import fcntl
import io
import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from rlplatform.cli import EXIT_FAILED, app
from rlplatform.cli_grid import grid_table, shown
from rlplatform.experiment import RunCost, Stopped, run
from rlplatform.grid import EXIT_STOPPED
from rlplatform.grid.cells import LOG, Cell, Needs, check, held, standing, tail
from rlplatform.grid.drive import Entry, State, drive, failures, seconds_left, survey
from rlplatform.grid.pool import LocalPool, LostError
from rlplatform.reproduce import command_of, parse_seeds, plan
from rlplatform.rundir import RunDirError

SMALL = ["eval.episodes=3", "log_every=50", "checkpoint_every=100", "agent.hidden=16", "agent.replay_ratio=0.25"]
LONG = 2_000  # agent steps: seconds, of which a kill hits the first
LIMIT = 600.0  # seconds after which a test gives up waiting


def grid_of(tmp_path, seeds="2", steps=300, overrides=(), **more):
    return plan("catch", "c51", seeds=seeds, steps=steps, out=tmp_path, overrides=[*SMALL, *overrides], **more)


# What is planned, and what is refused


def test_a_grid_is_every_task_with_every_seed():
    grid = plan("control", "c51", tasks=["CartPole", "control/Acrobot"], seeds="3-4")
    assert [(cell.config.task, cell.config.seed) for cell in grid.cells] == [
        ("control/CartPole", 3), ("control/Acrobot", 3), ("control/CartPole", 4), ("control/Acrobot", 4),
    ]  # fmt: skip
    assert str(grid.cells[0].folder) == "runs/control/c51/CartPole/seed_3"
    assert len(plan("atari100k", "der", seeds="5").cells) == 26 * 5


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", [0, 1, 2]), ("7-9", [7, 8, 9]), ("4,2", [4, 2]), ("1,5-6,5", [1, 5, 6]), ("3-3", [3])],
)
def test_seeds_in_words(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["0", "", "a", "-1", "5-3", "1,,2", "1.5"])
def test_seeds_that_are_none(text):
    with pytest.raises(ValueError, match="seeds"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["atari10k", "der"], "did you mean 'atari100k'"),
        (["atari100k", "derr"], "did you mean der"),
        (["atari100k", "der", "--tasks", "Pong,Brekout"], "did you mean 'Breakout'"),
        (["atari100k", "der", "--tasks", "Tetris"], "it has: Alien"),
        (["catch", "c51", "agent.bacth=1"], "did you mean 'agent.batch'"),
        (["catch", "c51", "--seeds", "some"], "seeds are a number of them"),
        (["catch", "c51", "--gpus", "99"], "a run asks for 1 CPU and 99 GPUs; this machine has"),
    ],
)
def test_refusals(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["reproduce", *arguments])
    assert done.exit_code == EXIT_FAILED
    assert message in done.output
    assert not list(tmp_path.iterdir())


def test_a_folder_with_a_run_of_another_configuration_is_refused_before_anything_runs(tmp_path):
    first = grid_of(tmp_path).cells[1]
    first.folder.mkdir(parents=True)
    from rlplatform.config import to_yaml

    (first.folder / "config.yaml").write_text(to_yaml(first.config))
    grid_of(tmp_path)
    with pytest.raises(RunDirError, match="seed_1 holds a run of another configuration .*batch: 32.*batch: 16"):
        grid_of(tmp_path, overrides=["agent.batch=16"])


def test_a_run_that_was_begun_before_a_key_had_come_goes_on(tmp_path):
    """An older config.yaml lacks it; the run had the default, and may not go on with anything else."""
    cell = grid_of(tmp_path, seeds="1", steps=120).cells[0]
    with pytest.raises(Stopped):
        run(cell.config, cell.folder, should_stop=lambda: True)
    config, protocol = cell.folder / "config.yaml", cell.folder / "protocol.json"
    later = {"actor_threads: 0\n", "device: cpu\n", "  lanes: 16\n"}
    lines = config.read_text().splitlines(keepends=True)
    assert later <= set(lines)
    config.write_text("".join(line for line in lines if line not in later))
    evaluation = json.loads(protocol.read_text())
    del evaluation["evaluation"]["lanes"]
    protocol.write_text(json.dumps(evaluation, indent=2))
    before = config.read_bytes()
    check(cell)
    other = replace(cell, config=replace(cell.config, actor_threads=2))
    with pytest.raises(RunDirError, match="'actor_threads: 0' there, 'actor_threads: 2' asked"):
        check(other)
    with pytest.raises(RunDirError, match="another config.yaml .*'actor_threads: 0' there, 'actor_threads: 2' asked"):
        run(other.config, cell.folder)
    assert run(cell.config, cell.folder)["step"] == 120
    assert config.read_bytes() == before


def test_what_a_run_needs():
    assert plan("catch", "c51", overrides=["threads=2", "actors=3"]).cells[0].needs == Needs(6.0, 0.0)
    assert plan("catch", "c51", cpus=0.5, gpus=0.25).cells[0].needs == Needs(0.5, 0.25)
    assert str(Needs(2, 0.5)) == "2 CPUs and 0.5 GPUs"


def test_the_command_of_a_run_can_be_typed_by_hand(tmp_path):
    grid = grid_of(tmp_path, own_agent="rlplatform.agents.spr:Agent", imports=["json"])
    assert grid.cells[1].command == (
        "train", "c51", "catch", "--seed", "1", "--run-dir", str(grid.cells[1].folder), "--steps", "300",
        "--agent", "rlplatform.agents.spr:Agent", "--import", "json", *SMALL,
    )  # fmt: skip
    assert "--steps" not in command_of(grid.cells[0].config, grid.cells[0].folder, (), None, None)


def test_what_a_run_costs():
    found = RunCost(36_000, 144_000.0, 1_000, 1_234, 3 * 2**29, step_s=0.0025, update_s=0.01)
    assert found.hours == pytest.approx(36_000 * (0.0025 + 4 * 0.01) / 3600)
    assert list(found.lines().values()) == [
        "1,000, that are learned: 1,234",
        "1.50 GiB",
        "2.5 ms (while actions are random), of an update 10.0 ms",
        "about 0.4 hours and its evaluation",
    ]


def test_a_dry_run_says_what_is_there_and_what_it_costs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(
        app, ["reproduce", "catch", "c51", "--seeds", "3", "--dry-run", "--jobs", "2", "agent.hidden=16"]
    )
    assert done.exit_code == 0, done.output
    assert "0 of 3 done" in done.output
    assert "a run: 90,000 agent steps, 1 CPU" in done.output
    assert "3.0 runs to go: about " in done.output
    assert "with 2 at a time" in done.output
    assert not list(tmp_path.iterdir())


# Where a run stands, by its folder


def test_standing_by_the_folder_alone(tmp_path):
    cell = grid_of(tmp_path).cells[0]
    assert standing(cell).step == 0
    (cell.folder / "checkpoints" / "step_0000000200").mkdir(parents=True)
    (cell.folder / "metrics.jsonl").write_text(
        '{"step": 50, "charts/SPS": 10.0}\n{"step": 100, "charts/SPS": 20.0}\n{"step": 120, "eval/x": 1}\n{"step": 150, "ch'
    )
    now = standing(cell)
    assert (now.step, now.saved, now.per_s, now.result) == (200, 200, 20.0, None)
    (cell.folder / "metrics.jsonl").write_text("x" * 100_000 + '\n{"step": 250, "charts/SPS": 5.0}\n')
    assert (standing(cell).step, standing(cell).per_s) == (250, 5.0)
    (cell.folder / "result.json").write_text('{"step": 300, "mean": 1.0}')
    assert standing(cell).result == {"step": 300, "mean": 1.0}
    (cell.folder / "result.json").write_text('{"step": 30')
    with pytest.raises(RunDirError, match=r"result.json is damaged"):
        standing(cell)
    assert survey([cell])[0].state is State.FAILED


def test_held_is_a_lock_and_not_a_file(tmp_path):
    assert not held(tmp_path)
    (tmp_path / "lock").touch()
    assert not held(tmp_path)
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert held(tmp_path)
    assert not held(tmp_path)


def test_the_log_of_the_last_attempt_alone(tmp_path):
    assert "no log" in tail(tmp_path)
    (tmp_path / LOG).write_text("== then: rlplatform train\nold\n\n== now: rlplatform train\na\nb\nc\n")
    assert tail(tmp_path) == "a\nb\nc"
    assert tail(tmp_path, lines=2) == "b\nc"


# Driving: a pool of which each job does what the test says


class Script:
    """Cells end with the codes given by seed, in turn; None: not before it is stopped. A number of steps is saved first."""

    def __init__(self, codes, room=2):
        self.codes, self.places, self.started, self.most = codes, room, [], 0
        self.jobs = []

    def room(self):
        self.jobs = [job for job in self.jobs if job.code is None]
        return len(self.jobs) < self.places

    def start(self, cell):
        seed = cell.config.seed
        self.started.append(seed)
        self.jobs.append(Played(cell, self.codes[seed].pop(0)))
        self.most = max(self.most, len(self.jobs))
        return self.jobs[-1]

    def close(self):
        pass


class Played:
    began = True

    def __init__(self, cell, code):
        self.cell, self.plan, self.code, self.turns, self.killed = cell, code, None, 0, False

    def poll(self):
        self.turns += 1
        if self.code is None and self.plan is not None and self.turns > 1:
            self._end(self.plan)
        if self.code == "lost":
            raise LostError("its node is gone")
        return self.code

    def _end(self, code):
        folder = self.cell.folder
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(code, tuple):  # saved so far, and ends with
            (folder / "checkpoints" / f"step_{code[0]:010d}").mkdir(parents=True)
            code = code[1]
        if code in (0, "late"):
            (folder / "result.json").write_text(json.dumps({"step": 300, "mean": 1.0, "elapsed_s": 10.0}))
        self.code = {"nothing": 0, "late": -11}.get(code, code)

    def stop(self):
        self._end((100, EXIT_STOPPED))

    def kill(self):
        self.killed, self.code = True, -9


def driven(tmp_path, codes, room=2, **how):
    cells = grid_of(tmp_path, seeds=str(len(codes))).cells
    pool = Script(dict(enumerate(map(list, codes))), room)
    how = {"turn_s": 0.0, "again_s": 0.0, "grace_s": 0.05, **how}
    events = []
    return (
        drive(survey(cells), pool, on_event=lambda e: events.append((e.cell.config.seed, e.state)), **how),
        pool,
        events,
    )


def test_all_cells_run_as_many_at_a_time_as_there_is_room(tmp_path):
    outcome, pool, events = driven(tmp_path, [[0]] * 5, room=3)
    assert [entry.state for entry in outcome.entries] == [State.DONE] * 5
    assert not outcome.stopped
    assert pool.started == [0, 1, 2, 3, 4]
    assert pool.most == 3
    assert sorted(events) == [(seed, State.DONE) for seed in range(5)]
    again, pool, _ = driven(tmp_path, [[0]] * 5)
    assert pool.started == []  # finished ones are recognised
    assert len(again.of(State.DONE)) == 5


def test_a_failing_cell_is_tried_again_so_many_times_and_then_listed(tmp_path):
    outcome, pool, events = driven(tmp_path, [[1, -9, 1, 0], [0], [1, 0]], retries=2)
    assert [entry.state for entry in outcome.entries] == [State.FAILED, State.DONE, State.DONE]
    assert pool.started.count(0) == 3
    assert pool.started.count(2) == 2
    assert events.count((0, State.WAITING)) == 2
    assert events.count((0, State.FAILED)) == 1
    said = failures(outcome.entries)
    assert said.startswith("catch seed 0: exit code 1 at agent step 0 after 3 attempts.")
    assert "seed 2" not in said


def test_a_worker_that_is_gone_is_a_failure(tmp_path):
    outcome, _, _ = driven(tmp_path, [["lost", 0], ["lost", "lost"]], retries=1)
    assert [entry.state for entry in outcome.entries] == [State.DONE, State.FAILED]
    assert outcome.entries[1].note == "its node is gone"


def test_a_run_that_ends_well_without_a_result_here_is_a_failure(tmp_path):
    outcome, _, _ = driven(tmp_path, [["nothing"]], retries=0)
    assert "do all nodes share this folder" in outcome.entries[0].note


def test_a_run_whose_process_dies_after_its_result_is_done(tmp_path):
    outcome, pool, _ = driven(tmp_path, [["late"]])
    assert outcome.entries[0].state is State.DONE
    assert pool.started == [0]


def test_a_preempted_run_goes_on_while_it_gets_further(tmp_path):
    outcome, pool, _ = driven(tmp_path, [[(50, 75), (100, 75), (150, 75), 0]], retries=0)
    assert outcome.entries[0].state is State.DONE
    assert pool.started == [0] * 4
    stuck, _, _ = driven(tmp_path / "stuck", [[(50, 75), 75, 75]], retries=1)
    assert stuck.entries[0].state is State.FAILED  # twice without getting further


def test_a_stop_lets_all_save_and_starts_no_more(tmp_path):
    asked = iter([0, 0, 1])
    outcome, pool, _ = driven(tmp_path, [[None]] * 4, should_stop=lambda: next(asked, 1))
    assert outcome.stopped
    assert pool.started == [0, 1]
    assert [entry.state for entry in outcome.entries] == [State.WAITING] * 4
    assert [entry.standing.saved for entry in outcome.entries] == [100, 100, 0, 0]


def test_a_stop_when_all_is_done_is_none(tmp_path):
    outcome, _, _ = driven(tmp_path, [[0]])
    assert not drive(outcome.entries, Script({}), should_stop=lambda: 1).stopped


def test_a_second_stop_kills(tmp_path, monkeypatch):
    monkeypatch.setattr(Played, "stop", lambda job: None)  # it does not listen
    asked = iter([0, 0, 1, 1, *[2] * 50])  # and no more: a driver that goes on for ever fails here
    outcome, pool, _ = driven(tmp_path, [[None]], should_stop=lambda: next(asked))
    assert outcome.stopped
    assert pool.jobs[0].killed
    assert (outcome.entries[0].state, outcome.entries[0].failures) == (State.WAITING, 0)


def test_a_cell_that_another_process_holds_is_left_to_it_and_reported(tmp_path):
    cells = grid_of(tmp_path, seeds="3").cells
    cells[1].folder.mkdir(parents=True)
    with (cells[1].folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome, pool, events = driven(tmp_path, [[0], [0], [0]])
        assert [entry.state for entry in outcome.entries] == [State.DONE, State.HELD, State.DONE]
        assert pool.started == [0, 2]
        assert (1, State.HELD) in events
    outcome, pool, _ = driven(tmp_path, [[0], [0], [0]])
    assert pool.started == [1]


def test_a_held_cell_is_taken_up_when_it_is_free(tmp_path):
    cell = grid_of(tmp_path, seeds="1").cells[0]
    cell.folder.mkdir(parents=True)
    lock = (cell.folder / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    turns = []

    def turn(entries):
        turns.append(entries[0].state)
        if len(turns) == 5:
            lock.close()

    outcome, pool, _ = driven(tmp_path, [[0]], on_turn=turn, grace_s=30.0)
    assert turns[4] is State.HELD
    assert outcome.entries[0].state is State.DONE
    assert pool.started == [0]


def test_a_job_that_waits_for_a_place_is_queued(tmp_path, monkeypatch):
    monkeypatch.setattr("rlplatform.grid.drive.LOOK_S", 0.0)
    monkeypatch.setattr(Played, "began", property(lambda job: job.turns > 2))
    monkeypatch.setattr(
        Played,
        "poll",
        lambda job, poll=Played.poll: poll(job) if job.turns > 3 else setattr(job, "turns", job.turns + 1),
    )
    states = []
    driven(tmp_path, [[0]], on_turn=lambda entries: states.append(entries[0].state))
    assert list(dict.fromkeys(states)) == [State.QUEUED, State.RUNNING, State.DONE]


@pytest.mark.parametrize("kind", ["here", "on Ray"])
def test_no_more_runs_at_a_time_than_jobs(tmp_path, monkeypatch, kind):
    """And one more as soon as one has ended."""
    if kind == "on Ray":
        pytest.importorskip("ray")
    from rlplatform.grid import cluster, pool

    class Started:
        ended = False

        def __init__(self, *_):
            pass

        def poll(self):
            return 0 if self.ended else None

    monkeypatch.setattr(pool, "spawn", lambda *_: Started())
    monkeypatch.setattr(cluster, "RayJob", Started)
    runs = LocalPool(2) if kind == "here" else cluster.RayPool(2)
    cell = grid_of(tmp_path, seeds="1").cells[0]
    jobs = []
    for _ in range(2):
        assert runs.room()
        jobs.append(runs.start(cell))
    assert not runs.room()
    (jobs[1].process if kind == "here" else jobs[1]).ended = True
    assert runs.room()


def test_what_is_left(tmp_path):
    cells = grid_of(tmp_path, seeds="4", steps=1000).cells
    entries = survey(cells)
    assert seconds_left(entries) is None
    entries[0].state, entries[0].standing = State.RUNNING, replace(entries[0].standing, step=400, per_s=10.0)
    assert seconds_left(entries) == pytest.approx(60 + 3 * 100)
    entries[1].state = State.DONE
    entries[1].standing = replace(entries[1].standing, result={"elapsed_s": 80.0})
    entries[2].standing = replace(entries[2].standing, step=500)  # half done before, by another driver
    assert seconds_left(entries) == pytest.approx(60 + 40 + 80)
    for nobody in (State.FAILED, State.HELD):
        entries[3].state = nobody
        assert seconds_left(entries) == pytest.approx(60 + 40)


def test_the_table_on_a_terminal_and_the_lines_elsewhere(tmp_path, monkeypatch):
    entries = survey(grid_of(tmp_path, seeds="4", steps=1000, gpus=0.5).cells)
    entries[0].state, entries[0].standing = (
        State.DONE,
        replace(entries[0].standing, step=1000, result={"mean": 12.34567, "elapsed_s": 61}),
    )
    entries[1].state, entries[1].standing = State.RUNNING, replace(entries[1].standing, step=420, per_s=10.0)
    entries[2].state = State.FAILED
    entries[3].state = State.HELD
    words = ("c51 on catch", "seed 0", "seed 3", "✓ 12.35", "42%", "✗ failed", "held")
    count = "1 of 4 done, 1 running, 0 waiting, 1 failed, 1 held, about 0:58 left (0.0 GPU-hours)"
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120, highlight=False)
    with shown(terminal, "catch", "c51") as (turn, event):
        turn(entries)
        event(entries[0])
    assert all(word in terminal.file.getvalue() for word in (*words, count))
    monkeypatch.setattr("rlplatform.cli_grid.PLAIN_EVERY_S", 0.0)
    plain = Console(file=io.StringIO(), force_terminal=False, highlight=False)
    with shown(plain, "catch", "c51") as (turn, event):
        turn(entries)
        event(entries[0])
    assert plain.file.getvalue().splitlines() == [
        f"{count}: catch seed 1 42%",
        "catch seed 0: done in 1:01, mean 12.35",
    ]
    many = survey(grid_of(tmp_path, seeds="20").cells)
    wide = Console(file=io.StringIO(), width=120)
    wide.print(grid_table("catch", "c51", many))
    assert "seed 19" not in wide.file.getvalue()
    assert "of" in wide.file.getvalue()


# Real runs


def weights(folder):
    return np.load(max((folder / "checkpoints").glob("step_*")) / "arrays.npz")


def equal(one, other):
    a, b = weights(one), weights(other)
    return sorted(a) == sorted(b) and all(np.array_equal(a[name], b[name]) for name in a)


def command(*arguments):
    return [sys.executable, "-m", "rlplatform", "reproduce", *arguments]


def test_a_whole_grid_reports_at_its_end_and_is_recognised(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["reproduce", "catch", "c51", "--seeds", "2", "--steps", "250", "--jobs", "2", *SMALL]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "2 of 2 done" in done.output
    root = tmp_path / "runs/catch/c51"
    assert "2 runs" in (root / "report/report.md").read_text()
    before = (root / "catch/seed_0/result.json").stat().st_mtime_ns
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0, again.output
    assert "catch seed" not in again.output
    assert (root / "catch/seed_0/result.json").stat().st_mtime_ns == before
    other = CliRunner().invoke(app, [*arguments, "agent.batch=16"])
    assert other.exit_code == EXIT_FAILED
    assert "holds a run of another configuration" in other.output


MINE = """
from rlplatform.envs import Suite, make, register

def mine(task, n, seed, first_env, protocol, **_):
    return make("catch", n, seed, first_env)

register("mine", mine, Suite(name="ours", tasks=("mine",), steps=60))
"""


def test_a_suite_of_ones_own_from_a_folder_that_looks_like_the_package(tmp_path):
    """Modules in the current folder are found, and a checkout there does not hide what is installed."""
    (tmp_path / "rlplatform").mkdir()
    (tmp_path / "rlplatform" / "__init__.py").write_text("raise ImportError('the checkout')")
    (tmp_path / "mine.py").write_text(MINE)
    driver = [sys.executable, "-P", *command("ours", "c51", "--import", "mine", "--seeds", "1", *SMALL)[1:]]
    done = subprocess.run(driver, capture_output=True, text=True, check=False, timeout=LIMIT, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "runs/ours/c51/mine/seed_0/result.json").read_text())["step"] == 60
    (tmp_path / "mine.yaml").write_text(
        "agent: c51\nsuite: ours\nimports: [mine]\nspace: {agent.n: {type: int, low: 1, high: 5}}\n"
    )
    driver[4:] = ["sweep", "mine.yaml", "--dry-run"]
    done = subprocess.run(driver, capture_output=True, text=True, check=False, timeout=LIMIT, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 trials of 1 keys" in done.stdout


def test_a_cell_that_crashes_hurts_no_other_and_is_listed_with_its_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The second cell's checkpoint is damaged: its run says so and ends with 1, every time.
    broken = tmp_path / "runs/catch/c51/catch/seed_1/checkpoints/step_0000000100"
    broken.mkdir(parents=True)
    (broken / "state.json").write_text("{")
    done = CliRunner().invoke(
        app, ["reproduce", "catch", "c51", "--seeds", "2", "--steps", "250", "--retries", "1", "--jobs", "2", *SMALL]
    )
    assert done.exit_code == EXIT_FAILED
    assert "catch seed 0: done" in done.output
    assert "catch seed 1: failed (exit code 1 at agent step 100); it is tried again" in done.output
    assert "after 2 attempts" in done.output
    assert "to go on from the checkpoint before it, remove that folder" in done.output  # the end of its log
    assert (tmp_path / "runs/catch/c51/report/report.md").is_file()


def wait_for(holds, seconds=LIMIT):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Two runs that nobody has disturbed."""
    cells = grid_of(tmp_path_factory.mktemp("straight"), steps=LONG).cells
    assert len(drive(survey(cells), LocalPool(2)).of(State.DONE)) == 2
    return [cell.folder for cell in cells]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_begun_again_it_comes_to_the_same_weights(tmp_path, straight, number):
    """The driver is killed while its runs are under way; SIGTERM leaves code 75 and checkpoints."""
    arguments = ["catch", "c51", "--seeds", "2", "--steps", str(LONG), "--jobs", "2", "--out", str(tmp_path), *SMALL]
    folders = [tmp_path / f"catch/c51/catch/seed_{seed}" for seed in range(2)]
    driver = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(
            lambda: (
                all(list((folder / "checkpoints").glob("step_*")) for folder in folders) or driver.poll() is not None
            )
        )
        assert driver.poll() is None
        driver.send_signal(number)
        said, _ = driver.communicate(timeout=LIMIT)
    finally:
        driver.kill()
    assert driver.returncode == (EXIT_STOPPED if number == signal.SIGTERM else -signal.SIGKILL), said
    if number == signal.SIGTERM:
        assert "stopped, and saved" in said
        assert not any(held(folder) for folder in folders)
    assert not all((folder / "result.json").exists() for folder in folders)
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 done" in done.stdout
    assert all(equal(one, other) for one, other in zip(straight, folders, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_run_ends_with_its_driver(tmp_path):
    """A driver that is killed leaves no runs behind, and theirs are saved."""
    cell = grid_of(tmp_path, seeds="1", steps=90_000).cells[0]
    code = (
        "import sys, time; from pathlib import Path; from rlplatform.grid.pool import spawn\n"
        "print(spawn(tuple(sys.argv[2:]), Path(sys.argv[1])).pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(cell.folder), *cell.command], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_for(lambda: standing(cell).step > 0)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not held(cell.folder))
    wait_for(lambda: not Path(f"/proc/{child}").exists())
    assert "the same command goes on from there" in tail(cell.folder)
    assert not (cell.folder / "result.json").exists()
    check(Cell(cell.config, cell.folder, cell.command))
    assert Entry(cell).share == 0.0


# On Ray


def test_addresses_that_cannot_be_joined_are_refused_within_seconds(monkeypatch):
    pytest.importorskip("ray")
    from rlplatform.grid import cluster

    def refused(address):
        with pytest.raises(cluster.ClusterError) as error:
            cluster.connect(address, Needs())
        return str(error.value)

    start = time.monotonic()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        assert f"no Ray answers at 127.0.0.1:{nobody.getsockname()[1]}: " in refused(
            f"127.0.0.1:{nobody.getsockname()[1]}"
        )
    assert "give local, auto or HOST:PORT" in refused("somewhere")
    assert "give local, auto or HOST:PORT" in refused("host:port")
    assert "not a client's server" in refused("ray://127.0.0.1:10001")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert "no Ray answers at 127.0.0.1:1: " in refused("auto")
    assert time.monotonic() - start < 30
    monkeypatch.setattr("rlplatform.ray_join.PROBE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        there = f"127.0.0.1:{silent.getsockname()[1]}"
        assert f"no Ray answers at {there}: timed out" in refused(there)
        monkeypatch.setattr(cluster, "check_address", lambda address: address)  # as if it had greeted as gRPC does
        monkeypatch.setattr(cluster, "JOIN_S", 0.5)
        assert "answers, but not as a Ray cluster does" in refused(there)


def test_a_cluster_of_another_version_is_said_with_both():
    ray = pytest.importorskip("ray")
    from ray._private.utils import check_version_info

    from rlplatform.grid.cluster import _mismatch

    with pytest.raises(RuntimeError) as error:
        check_version_info({"ray_version": "1.2.3", "python_version": "3.7.1"}, "10.0.0.1")
    said = _mismatch([line.strip() for line in str(error.value).splitlines()])
    assert said.startswith("The cluster was started with: Ray: 1.2.3 Python: 3.7.1 This process on 10.0.0.1")
    assert f"Ray: {ray.__version__}" in said


def test_what_a_cluster_has_in_words():
    from rlplatform.grid.cluster import _places, in_words

    nodes = [{"CPU": 4.0, "GPU": 1.0, "memory": 3.0}, {"CPU": 1.0}]
    assert in_words(nodes) == "2 nodes with 4 CPUs and 1 GPU, 1 CPU and no GPU"
    assert [_places(node, Needs(1, 0.3)) for node in nodes] == [3, 0]
    assert [_places(node, Needs(0.5)) for node in nodes] == [8, 2]
    assert [_places(node, Needs(5)) for node in nodes] == [0, 0]


def test_a_grid_on_ray_is_stopped_saved_and_ended(tmp_path, straight):
    """SIGTERM to the driver reaches the runs on their nodes; the same command, without Ray this time, comes to the same weights."""
    pytest.importorskip("ray")
    arguments = ["catch", "c51", "--seeds", "2", "--steps", str(LONG), "--out", str(tmp_path), *SMALL]
    on_ray = ["--ray-address", "local", "--cpus", "0.5"]
    folders = [tmp_path / f"catch/c51/catch/seed_{seed}" for seed in range(2)]
    too_much = subprocess.run(
        command(*arguments, "--ray-address", "local", "--gpus", "64"), capture_output=True, text=True, check=False, timeout=LIMIT
    )  # fmt: skip
    assert too_much.returncode == EXIT_FAILED
    assert "a run asks for 1 CPU and 64 GPUs on one node; the cluster has 1 node with" in too_much.stderr
    driver = subprocess.Popen(command(*arguments, *on_ray), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(lambda: all(list((f / "checkpoints").glob("step_*")) for f in folders) or driver.poll() is not None)
        driver.send_signal(signal.SIGTERM)
        said, _ = driver.communicate(timeout=LIMIT)
    finally:
        driver.kill()
    assert driver.returncode == EXIT_STOPPED, said
    assert "stopped, and saved" in said
    assert not any(held(folder) for folder in folders)
    assert all("the same command goes on from there" in tail(folder) for folder in folders)
    done = subprocess.run(
        command(*arguments, "--jobs", "2"), capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(equal(one, other) for one, other in zip(straight, folders, strict=True))
