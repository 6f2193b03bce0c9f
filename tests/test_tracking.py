import json
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from rlplatform import cli
from rlplatform.config import ConfigError
from rlplatform.tracking import Tracker


class FakeRun:
    """What the tracker uses of a wandb run, and what it was told."""

    def __init__(self, **given) -> None:
        self.given, self.id = given, given["id"] or "abc"
        self.lines, self.summary, self.ended, self.axes = [], {}, None, []

    def define_metric(self, name, **kind) -> None:
        self.axes.append((name, kind))

    def log(self, line) -> None:
        self.lines.append(line)

    def finish(self, exit_code) -> None:
        self.ended = exit_code


@pytest.fixture
def runs(monkeypatch):
    made = []

    def init(**given):
        made.append(FakeRun(**given))
        return made[-1]

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return made


def append(folder, *steps, end="\n") -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("\n".join(json.dumps({"step": step, "losses/td": step / 2}) for step in steps) + end)


def test_lines_are_sent_once_and_whole(tmp_path, runs) -> None:
    with Tracker(tmp_path, {"agent": {"n": 3}}, "der catch 0", "mine") as tracker:
        tracker.follow()  # nothing is there yet
        append(tmp_path, 10, 20)
        tracker.follow()
        tracker.follow()
        append(tmp_path, 30, end="")  # under way
        tracker.follow()
        assert [line["global_step"] for line in runs[0].lines] == [10, 20]
        append(tmp_path, end="\n")
        tracker.finish({"mean": 0.5})
    run = runs[0]
    assert run.lines == [{"global_step": step, "losses/td": step / 2} for step in (10, 20, 30)]
    assert run.summary == {"final/mean": 0.5}
    assert run.ended == 0
    assert run.axes == [("global_step", {}), ("*", {"step_metric": "global_step"})]
    assert {key: run.given[key] for key in ("project", "name", "config", "resume")} == {
        "project": "mine", "name": "der catch 0", "config": {"agent": {"n": 3}}, "resume": "allow",
    }  # fmt: skip


def test_a_resumed_run_goes_on_under_its_id_and_repeats_nothing(tmp_path, runs) -> None:
    append(tmp_path, 10, 20, 30)
    killed = Tracker(tmp_path, {}, "x")
    killed.follow()
    killed.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert runs[0].ended == 1
    (tmp_path / "metrics.jsonl").write_text("")  # cut back to the checkpoint at 10
    append(tmp_path, 10)
    with Tracker(tmp_path, {}, "x") as tracker:
        tracker.follow()
        append(tmp_path, 20, 30, 40)
        tracker.follow()
    assert runs[0].given["id"] is None
    assert runs[1].given["id"] == "abc"
    assert [line["global_step"] for line in runs[1].lines] == [40]


def test_without_the_extra_it_says_how_to_get_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"--track needs wandb: pip install 'rlplatform\[wandb\]'"):
        Tracker(tmp_path / "run", {}, "x")
    assert not (tmp_path / "run").exists()


def test_from_the_command_line(tmp_path, runs) -> None:
    command = ["train", "der", "catch", "--steps", "300", "--run-dir", str(tmp_path), "--track", "--project", "p", "log_every=100", "eval.episodes=5"]  # fmt: skip
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    logged = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["global_step"] for line in runs[0].lines] == logged == [100, 200, 300]
    assert runs[0].given["config"]["preset"] == "der"
    assert runs[0].summary["final/episodes"] == 5
    assert runs[0].given["project"] == "p"
