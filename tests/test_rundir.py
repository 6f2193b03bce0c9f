"""A run's folder: what is kept, cut back, refused and cleaned."""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlplatform import rundir, statefile
from rlplatform.rundir import KEEP_CHECKPOINTS, RunDir, RunDirError, read_checkpoint

FILES = {"config.yaml": "seed: 1\nsteps: 10\n", "protocol.json": "{}", "provenance.json": '{"host": 1}'}
LOGS = {"evals.csv": "step,score\n"}


def opened(path: Path, files: dict[str, str] | None = None) -> RunDir:
    return RunDir(path, FILES if files is None else files, LOGS)


def test_logs_are_cut_back_to_the_last_checkpoint(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.log(1, {"a": 1.0})
    run.append("evals.csv", "1,5.0\n")
    run.save(1, {"x": 1}, None)
    run.log(2, {"a": 2.0})
    run.append("evals.csv", "2,6.0\n")
    run.close()
    again = opened(tmp_path)
    assert again.load(None) == {"x": 1}
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "a": 1.0}\n'
    assert (tmp_path / "evals.csv").read_text() == "step,score\n1,5.0\n"
    again.close()


def test_a_run_without_a_checkpoint_begins_anew(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.log(1, {"a": 1.0})
    run.close()
    again = opened(tmp_path)
    assert again.load(None) is None
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert (tmp_path / "evals.csv").read_text() == "step,score\n"
    again.close()


def test_a_finished_run_is_not_cut_back(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.save(1, {"x": 1}, None)
    run.append("evals.csv", "1,5.0\n")
    run.finish({"mean": 5.0})
    run.close()
    again = opened(tmp_path)
    assert again.finished
    assert (tmp_path / "evals.csv").read_text() == "step,score\n1,5.0\n"
    again.close()


def test_tensorboard_is_written_anew_from_the_lines_that_were_kept(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = opened(tmp_path)
    run.log(1, {"a": 1.0})
    run.save(1, {}, None)
    run.log(2, {"a": 2.0})
    run.close()
    again = opened(tmp_path)
    again.log(2, {"a": 3.0})
    again.close()
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("a")] == [(1, 1.0), (2, 3.0)]


def test_another_configuration_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.log(1, {"a": 1.0})
    run.save(1, {}, None)
    run.close()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunDirError, match="'seed: 1' there, 'seed: 2' asked"):
        opened(tmp_path, {**FILES, "config.yaml": "seed: 2\nsteps: 10\n"})
    with pytest.raises(RunDirError, match="nothing there, 'longer: 1' asked"):
        opened(tmp_path, {**FILES, "config.yaml": FILES["config.yaml"] + "longer: 1\n"})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    opened(tmp_path, {**FILES, "provenance.json": '{"host": 2}'}).close()  # another machine may go on
    assert (tmp_path / "provenance.json").read_text() == FILES["provenance.json"]


def test_two_processes_cannot_share_a_run(tmp_path: Path) -> None:
    run = opened(tmp_path)
    code = (
        f"from pathlib import Path; from rlplatform.rundir import RunDir; RunDir(Path({str(tmp_path)!r}), {{}}, {{}})"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "in use by another process" in done.stderr
    run.close()


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    run = opened(tmp_path)
    for step in range(1, 6):
        run.save(step, {"step": step}, None)
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("step_*"))
    assert names == [f"step_{step:010d}" for step in range(6 - KEEP_CHECKPOINTS, 6)]
    run.close()


def test_what_a_kill_leaves_half_done_is_ignored_and_cleaned(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.save(1, {"x": 1}, None)
    run.close()
    half = tmp_path / "checkpoints" / ".step_0000000002.part"
    half.mkdir()
    (half / "state.json").write_text('{"format"')
    (tmp_path / "result.json.part").write_text("{")
    again = opened(tmp_path)
    assert again.load(None) == {"x": 1}
    assert not half.exists()
    assert not again.finished
    again.close()


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.save(1, {"x": 1}, None)
    run.close()
    file = tmp_path / "checkpoints" / "step_0000000001" / "state.json"
    file.write_text(file.read_text().replace('"x', '"y'))
    with pytest.raises(RunDirError, match="state.json is damaged.*remove that folder"):
        opened(tmp_path)


def test_logs_shorter_than_the_checkpoint_says_are_refused(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.log(1, {"a": 1.0})
    run.save(1, {}, None)
    run.close()
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(RunDirError, match="metrics.jsonl is damaged: 0 bytes"):
        opened(tmp_path)


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from rlplatform.rundir import RunDir, RunDirError
run = RunDir(Path(sys.argv[1]), {}, {})
run.save(1, {"x": np.zeros(10)}, None)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))  # a disk that takes no file of 100 kB
try:
    run.save(2, {"x": np.zeros(100_000)}, None)
except RunDirError as error:
    print(error)
    print(sorted(path.name for path in (Path(sys.argv[1]) / "checkpoints").iterdir()))
"""


def test_a_full_disk_names_the_last_good_checkpoint_and_leaves_it(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-P", "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "the disk is full" in done.stdout
    assert "the last good checkpoint is step_0000000001" in done.stdout
    assert "['replay', 'step_0000000001']" in done.stdout
    assert statefile.read(tmp_path / "checkpoints" / "step_0000000001")["step"] == 1


def test_result_json_is_the_mark_of_a_finished_run(tmp_path: Path) -> None:
    run = opened(tmp_path)
    assert not run.finished
    run.finish({"mean": 1.5})
    assert run.finished
    assert json.loads((tmp_path / "result.json").read_text()) == {"mean": 1.5}
    run.close()


def test_a_checkpoint_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    run = opened(tmp_path)
    with pytest.raises(RunDirError, match="no checkpoint yet"):
        read_checkpoint(tmp_path)
    run.save(1, {"x": 1}, None)
    run.log(2, {"a": 2.0})
    assert read_checkpoint(tmp_path) == {"x": 1}
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 2, "a": 2.0}\n'
    run.close()


def test_a_lock_that_is_held_for_a_moment_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By somebody who only asks whether the run is under way, and is done at the second look."""
    pauses = []
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 2:
                fcntl.flock(held, fcntl.LOCK_UN)

        monkeypatch.setattr(rundir.time, "sleep", pause)
        run = RunDir(tmp_path, {}, {})
        assert pauses == [rundir.LOCK_PAUSE_S] * 2
        with pytest.raises(BlockingIOError):  # it is the run's now
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        run.close()
