"""A run that is killed and resumed is the run that was never killed, bit for bit; clocks excepted."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlplatform import statefile

CATCH = [
    "der",
    "catch",
    "--seed",
    "3",
    "--steps",
    "1500",
    "log_every=100",
    "checkpoint_every=200",
    "eval.every=500",
    "eval.episodes=20",
]
PONG = [
    "der", "atari/Pong", "--seed", "1", "--steps", "260", "agent.min_replay=60", "agent.capacity=200", "agent.target_period=50",
    "agent.hidden=32", "log_every=50", "checkpoint_every=40", "eval.episodes=2", "protocol.episode_steps=120",
]  # fmt: skip


def command(arguments: list[str], folder: Path) -> list[str]:
    return [sys.executable, "-P", "-m", "rlplatform", "train", *arguments, "--run-dir", str(folder)]


def train_whole(arguments: list[str], folder: Path) -> float:
    """Run without interruption; the seconds that it took."""
    start = time.monotonic()
    subprocess.run(command(arguments, folder), check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return time.monotonic() - start


def train_killed(arguments: list[str], folder: Path, moments: list[float], kill: int = signal.SIGKILL) -> int:
    """Start the same command again and again, killing it after each of these seconds, then let it end. How many kills hit."""
    hit = 0
    for moment in moments:
        process = subprocess.Popen(command(arguments, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, kill)
            hit += 1
        code = process.wait()
        assert code in (0, -signal.SIGKILL, 75)
    train_whole(arguments, folder)
    return hit


def without_clocks(line: str) -> dict[str, Any]:
    return {
        name: value for name, value in json.loads(line).items() if not name.startswith("perf/") and name != "charts/SPS"
    }


def leaves(state: Any, prefix: str = "") -> dict[str, Any]:
    """Everything in a state by path, less what says how long things took."""
    if isinstance(state, dict):
        return {k: v for name, value in state.items() for k, v in leaves(value, f"{prefix}/{name}").items()}
    if isinstance(state, list):
        return {k: v for i, value in enumerate(state) for k, v in leaves(value, f"{prefix}/{i}").items()}
    return {prefix: state}


CLOCKS = (
    "/state/elapsed_s",
    "/state/seconds/",
    "/marks/",
    "/replay/segments",
)  # segments are cut where checkpoints fell


def assert_same_run(a: Path, b: Path) -> None:
    lines_a, lines_b = ((path / "metrics.jsonl").read_text().splitlines() for path in (a, b))
    assert [without_clocks(line) for line in lines_a] == [without_clocks(line) for line in lines_b]
    assert len(lines_a) > 3
    for name in ("evals.csv", "episodes.csv", "config.yaml", "protocol.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    newest = max((a / "checkpoints").glob("step_*")).name
    state_a, state_b = (leaves(statefile.read(path / "checkpoints" / newest)) for path in (a, b))
    kept = {key for key in state_a.keys() | state_b.keys() if not key.startswith(CLOCKS)}
    assert len(kept) > 30
    for key in sorted(kept):
        np.testing.assert_array_equal(np.asarray(state_a[key]), np.asarray(state_b[key]), err_msg=key)
    results = [json.loads((path / "result.json").read_text()) for path in (a, b)]
    for result in results:
        del result["elapsed_s"], result["seconds"]
    assert results[0] == results[1]


def moments_within(seconds: float, n: int, seed: int) -> list[float]:
    """Kill times: the start-up takes most of a short run, so spread them over all of it."""
    rng = random.Random(seed)
    return [rng.uniform(0.2, 1.0) * seconds for _ in range(n)]


@pytest.mark.parametrize("arguments", [CATCH, PONG], ids=["catch", "pong"])
def test_kill_and_resume(tmp_path: Path, arguments: list[str]) -> None:
    seconds = train_whole(arguments, tmp_path / "whole")
    assert train_killed(arguments, tmp_path / "killed", moments_within(seconds, 3, seed=0)) >= 1
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_stop_signal_writes_a_checkpoint_and_has_its_own_exit_code(tmp_path: Path) -> None:
    seconds = train_whole(CATCH, tmp_path / "whole")
    process = subprocess.Popen(
        command(CATCH, tmp_path / "stopped"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while (
        not (tmp_path / "stopped" / "metrics.jsonl").exists()
        or "1" not in (tmp_path / "stopped" / "metrics.jsonl").read_text()
    ):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=60 + 10 * seconds)
    assert process.returncode == 75
    assert "the same command goes on" in errors
    assert list((tmp_path / "stopped" / "checkpoints").glob("step_*"))
    train_whole(CATCH, tmp_path / "stopped")
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_finished_run_is_found_finished(tmp_path: Path) -> None:
    train_whole(CATCH, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    train_whole(CATCH, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [CATCH, PONG], ids=["catch", "pong"])
def test_twenty_kills_at_random_moments(tmp_path: Path, arguments: list[str]) -> None:
    seconds = train_whole(arguments, tmp_path / "whole")
    assert train_killed(arguments, tmp_path / "killed", moments_within(seconds, 20, seed=1)) >= 3
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
