"""Runs on Ray by the command line: killed and resumed here and there, and clusters that are not as they should be."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ray_cluster import TESTS, own_ray, ray
from rlplatform import experiment
from rlplatform.cli import EXIT_STOPPED, app
from rlplatform.placement import ClusterError, Placement
from rlplatform.runconfig import resolve_config
from test_same_run import assert_same_run, command, reached

SLOWLY = [
    "c51", "slowcatch", "--seed", "4", "--steps", "960", "--import", "ray_toys", "actors=2", "envs=2", "rollout=4", "lag=1",
    "agent.hidden=16", "agent.batch=8", "agent.min_replay=40", "log_every=64", "checkpoint_every=128", "eval.episodes=2",
]  # fmt: skip
CATCH = ["c51", "catch", "--steps", "60", "agent.hidden=8", "agent.min_replay=20", "eval.episodes=1"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with own_ray(cpus=2) as address:
        yield address


def begin(arguments: list[str], folder: Path, *more: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*command(arguments, folder), *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd,
        stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": TESTS},
    )  # fmt: skip


def end(process: subprocess.Popen[str], code: int) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == code, output
    return output


def until(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    while reached(folder) < step:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)


def test_a_learner_that_is_killed_goes_on_anywhere(tmp_path: Path, address: str) -> None:
    """Begun on Ray, killed; on in one process, terminated; on on Ray, terminated; and to the end: the run that was never stopped."""
    there, killed = ("--ray-address", address), tmp_path / "killed"
    end(begin(SLOWLY, tmp_path / "whole"), 0)
    process = begin(SLOWLY, killed, *there)
    until(killed, 300, process)
    process.kill()
    end(process, -signal.SIGKILL)
    for where in ((), there):
        process = begin(SLOWLY, killed, *where)
        until(killed, reached(killed) + 100, process)
        process.terminate()
        assert "the same command goes on" in end(process, EXIT_STOPPED)
    end(begin(SLOWLY, killed, *there), 0)
    assert_same_run(tmp_path / "whole", killed)


def test_a_checkout_does_not_hide_what_is_installed(tmp_path: Path, address: str) -> None:
    """Ray would put the current folder first; modules of one's own are found in it all the same."""
    (tmp_path / "rlplatform").mkdir()
    (tmp_path / "rlplatform" / "__init__.py").write_text("raise ImportError('the checkout')")
    (tmp_path / "mine.py").write_text("from rlplatform.agents.spr import Agent as Own\n__all__ = ['Own']\n")
    arguments = ["mine", "catch", "--agent", "mine:Own", "--steps", "30", "agent.encoder=flatten", "eval.episodes=1"]
    end(begin(arguments, tmp_path / "run", "--ray-address", address, cwd=tmp_path), 0)


DEATH = """
import os, signal, sys, time
from pathlib import Path
from rlplatform import experiment
from rlplatform.placement import Placement
from rlplatform.runconfig import resolve_config

made, make = [], experiment._ray_workers
experiment._ray_workers = lambda *given: made.append(make(*given)) or made[0]

def kill_once(now):
    if made[0].pids and not made[1:]:
        made.append("killed")
        os.kill(made[0].pids[0], signal.SIGKILL)
        time.sleep(2.0)  # for the raylet to say so

config = resolve_config("c51", "catch", ["agent.hidden=8", "agent.min_replay=20", "eval.episodes=1"], steps=60)
experiment.run(config, Path(sys.argv[2]), kill_once, placement=Placement(sys.argv[1]))
"""


def test_a_death_is_in_the_record_and_not_on_standard_output(tmp_path: Path, address: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEATH, address, str(tmp_path)], capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    (line,) = (tmp_path / "restarts.csv").read_text().splitlines()[1:]
    assert "The actor died unexpectedly before finishing this task. SYSTEM_ERROR Worker exit detail: " in line
    assert "(pid: " in line


def test_several_actors_on_native_games_and_what_they_log(tmp_path: Path, address: str) -> None:
    """The documented command, cut short: DQN-like training on batches in C++, from several processes."""
    arguments = [
        "c51", "minatar/Breakout", "--steps", "768", "actors=2", "envs=8", "rollout=8", "lag=1", "agent.replay_ratio=0.0625",
        "agent.min_replay=256", "log_every=128", "checkpoint_every=1024", "eval.episodes=2",
    ]  # fmt: skip
    end(begin(arguments, tmp_path, "--ray-address", address), 0)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["actors/lag"] for line in lines] == [0, 1, 1, 1, 1, 1]
    assert lines[-1]["actors/restarts"] == lines[-1]["actors/repeated_rounds"] == 0
    assert lines[-1]["charts/updates"] > 20
    for name in ("perf/steps_per_s", "perf/env_s", "perf/act_s", "perf/collect_s", "perf/wait_s"):
        assert lines[-1][name] > 0.0, name
    placement = json.loads((tmp_path / "provenance.json").read_text())["placement"]
    assert placement["ray"] == address


def test_another_version_of_ray_is_refused(tmp_path: Path, address: str) -> None:
    key = {"key": "CLUSTER_METADATA", "namespace": "cluster"}
    true = ray.experimental.internal_kv._internal_kv_get(**key)
    false = json.dumps({**json.loads(true), "ray_version": "2.0.0"}).encode()
    ray.experimental.internal_kv._internal_kv_put(value=false, overwrite=True, **key)
    try:
        output = end(begin(CATCH, tmp_path / "run", "--ray-address", address), 1)
    finally:
        ray.experimental.internal_kv._internal_kv_put(value=true, overwrite=True, **key)
    assert "Version mismatch" in output
    assert "Ray: 2.0.0" in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


def refused(folder: Path, *arguments: str) -> str:
    """The message of a command that fails within seconds and writes nothing."""
    start = time.monotonic()
    result = CliRunner().invoke(app, ["train", *CATCH, "--run-dir", str(folder / "run"), *arguments])
    assert result.exit_code == 1, result.output
    assert time.monotonic() - start < 15.0
    assert not (folder / "run").exists()
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "no Ray answers at 127.0.0.1:1: "),
        ("no-such-host.invalid:6379", "no Ray answers at no-such-host.invalid:6379"),
        ("cluster", "'cluster' is not an address: give local, auto or HOST:PORT"),
        ("ray://head:10001", "not through Ray's client; give HOST:PORT"),
    ],
)
def test_an_address_without_a_cluster(
    tmp_path: Path, address: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # as it is where no test has started one
    assert message in refused(tmp_path, "--ray-address", address)


@pytest.mark.parametrize(
    ("says", "message"), [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers at"), (b"", "timed out")]
)
def test_a_port_that_is_not_rays(tmp_path: Path, says: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr("rlplatform.ray_join.PROBE_S", 0.5)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(says)
                over.wait(5.0)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            assert message in refused(tmp_path, "--ray-address", f"127.0.0.1:{server.getsockname()[1]}")
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--actor-cpus", "-1"), "actor_cpus must be finite and >= 0, got -1.0"),
        (("--learner-gpus", "1.5"), "learner_gpus must be a whole number or below 1, got 1.5"),
        (("--actor-deadline", "0"), "deadline_s must be positive and finite, got 0.0"),
        (("--actor-deadline", "nan"), "deadline_s must be positive and finite, got nan"),
    ],
)
def test_a_placement_that_cannot_be(tmp_path: Path, option: tuple[str, str], message: str) -> None:
    assert message in refused(tmp_path, *option)


def test_without_ray_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rlplatform.workers.ray", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'rlplatform[cluster]'" in refused(tmp_path, "--ray-address", "local")


def test_where_a_run_was_begun_is_no_part_of_what_it_is(tmp_path: Path) -> None:
    """A finished run is found finished without a cluster, too."""
    config = resolve_config("c51", "catch", ["agent.hidden=8", "agent.min_replay=20", "eval.episodes=1"], steps=60)
    first = experiment.run(config, tmp_path)
    assert experiment.run(config, tmp_path, placement=Placement("no-such-host.invalid:1")) == first


def test_the_learners_gpus_are_reserved_before_torch_looks_for_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It settles on what CUDA_VISIBLE_DEVICES names at its first look."""
    config = resolve_config("c51", "catch", ["agent.hidden=8", "agent.min_replay=20", "eval.episodes=1"], steps=60)
    order: list[str] = []

    class ClosedError(Exception): ...

    def look(device: str) -> None:
        order.append("look")
        if len(order) > 1:
            raise ClosedError

    class Workers:
        def close(self) -> None: ...

    monkeypatch.setattr(experiment, "_ray_workers", lambda *_: order.append("reserve") or Workers())
    monkeypatch.setattr(experiment, "require_device", look)
    with pytest.raises(ClosedError):
        experiment.run(config, tmp_path / "run", placement=Placement("auto", learner_gpus=0.5))
    assert order == ["reserve", "look"]
    assert not (tmp_path / "run").exists()


def test_a_cluster_that_goes_down_with_the_learner_is_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preemption may end the actors' processes first: what is on the disk is good, and the exit code says so."""
    config = resolve_config("c51", "catch", ["agent.hidden=8", "agent.min_replay=20", "eval.episodes=1"], steps=60)

    class Gone:
        def start(self, *_: object) -> object:
            raise ClusterError("the node is gone")

        def close(self) -> None: ...

    monkeypatch.setattr(experiment, "_ray_workers", lambda *_: Gone())
    there = Placement("auto")
    with pytest.raises(experiment.Stopped, match=r"the node is gone.*goes on from the one before"):
        experiment.run(config, tmp_path / "asked", should_stop=lambda: True, placement=there)
    with pytest.raises(ClusterError):
        experiment.run(config, tmp_path / "unasked", placement=there)
