"""A run that is killed and resumed is the run that was never killed, bit for bit; clocks excepted."""

import json
import random
import re
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
    "der", "catch", "--seed", "3", "--steps", "800",
    "log_every=100", "checkpoint_every=200", "eval.every=500", "eval.episodes=20",
]  # fmt: skip
OVERLAPPED = [*CATCH, "actors=2", "envs=2", "rollout=3", "lag=2", "agent.replay_ratio=0.3"]  # 12 steps a round
BBF = [  # resets after 60 and 120 agent steps, n and gamma on their way, a moving target in bfloat16
    "bbf", "catch", "--seed", "2", "--steps", "180", "agent.min_replay=50", "agent.reset.every=120", "agent.reset.until=180",
    "agent.anneal=50", "agent.hidden=16", "agent.dtype=bfloat16", "log_every=20", "checkpoint_every=40", "eval.episodes=5",
]  # fmt: skip
PQN = [  # rounds of 64 steps, SIGReg, and masks from the first round to the last
    "pqn", "catch", "--seed", "4", "--steps", "1280", "envs=4", "rollout=16", "agent.hidden=16", "agent.anneal=2000",
    "agent.sigreg.weight=0.1", "agent.pruning.sparsity=0.8", "agent.pruning.begin=2", "agent.pruning.end=38", "agent.pruning.every=3",
    "log_every=100", "checkpoint_every=300", "eval.episodes=5",
]  # fmt: skip
PPO = [  # rounds of 16 steps, four anchors, games cut at 40 steps
    "ppo_gtr", "control/CartPole", "--seed", "4", "--steps", "1600", "actors=2", "envs=2", "rollout=4", "lag=1", "agent.batch=8",
    "agent.probe=8", "agent.anneal=2_000", "protocol.cartpole_steps=40", "log_every=100", "checkpoint_every=200",
    "eval.every=500", "eval.episodes=5",
]  # fmt: skip
PONG = [
    "der", "atari/Pong", "--seed", "1", "--steps", "260", "agent.min_replay=60", "agent.capacity=200", "agent.target_period=50",
    "agent.hidden=32", "log_every=50", "checkpoint_every=40", "eval.episodes=2", "protocol.episode_steps=120",
]  # fmt: skip


def command(arguments: list[str], folder: Path) -> list[str]:
    return [sys.executable, "-P", "-m", "rlplatform", "train", *arguments, "--run-dir", str(folder)]


def train_whole(arguments: list[str], folder: Path) -> None:
    subprocess.run(command(arguments, folder), check=True, capture_output=True, stdin=subprocess.DEVNULL)


def reached(folder: Path) -> int:
    """The newest agent step that the run's logs tell of; -1 before it has any."""
    steps = [-1]
    for name in ("metrics.jsonl", "episodes.csv"):
        path = folder / name
        lines = path.read_text().splitlines() if path.exists() else []
        steps += [int(found[0]) for line in lines[-1:] if (found := re.findall(r"\d+", line))]
    return max(steps)


def train_killed(arguments: list[str], folder: Path, kills: int, seed: int) -> None:
    """Start the same command again and again; kill it (nothing can be caught) when its logs reach a random step, or a random
    while later, so that some kills fall into checkpoints and evaluations. Then let it end."""
    rng = random.Random(seed)
    steps = int(arguments[arguments.index("--steps") + 1])
    for _ in range(kills):
        target = min(reached(folder) + rng.randint(1, steps // 2), steps)
        process = subprocess.Popen(command(arguments, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while reached(folder) < target and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.choice([0.0, 0.02 * rng.random(), 0.5 * rng.random()]))
        process.kill()  # does nothing if it has just ended
        assert process.wait() in (0, -signal.SIGKILL)
    train_whole(arguments, folder)


FATES = ("actors/restarts", "actors/repeated_rounds")  # what happened to the actors, which changes nothing else


def without_clocks(line: str) -> dict[str, Any]:
    return {
        name: value
        for name, value in json.loads(line).items()
        if not name.startswith("perf/") and name not in ("charts/SPS", *FATES)
    }


def leaves(state: Any, prefix: str = "") -> dict[str, Any]:
    """Everything in a state by path."""
    if isinstance(state, dict):
        return {k: v for name, value in state.items() for k, v in leaves(value, f"{prefix}/{name}").items()}
    if isinstance(state, list):
        return {k: v for i, value in enumerate(state) for k, v in leaves(value, f"{prefix}/{i}").items()}
    return {prefix: state}


CLOCKS = (
    "/state/elapsed_s",
    "/state/seconds/",
    "/marks/",
    "/replay/segments",  # cut where checkpoints fell
    "/state/restarts",
    "/state/repeated_rounds",
)


def assert_same_run(a: Path, b: Path, differ: tuple[str, ...] = ()) -> None:
    """Everything that two runs left, but for clocks and the files that `differ` names."""
    lines_a, lines_b = ((path / "metrics.jsonl").read_text().splitlines() for path in (a, b))
    assert [without_clocks(line) for line in lines_a] == [without_clocks(line) for line in lines_b]
    assert len(lines_a) > 3
    for name in {"evals.csv", "episodes.csv", "config.yaml", "protocol.json"}.difference(differ):
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
        result.pop("actors", None)
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "arguments",
    [CATCH, OVERLAPPED, BBF, pytest.param(PPO, marks=pytest.mark.slow), PQN, PONG],
    ids=["catch", "overlapped", "bbf", "ppo", "pqn", "pong"],
)
def test_kill_and_resume(tmp_path: Path, arguments: list[str]) -> None:
    train_whole(arguments, tmp_path / "whole")
    train_killed(arguments, tmp_path / "killed", kills=3, seed=0)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_stop_signal_writes_a_checkpoint_and_has_its_own_exit_code(tmp_path: Path) -> None:
    train_whole(CATCH, tmp_path / "whole")
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
    _, errors = process.communicate(timeout=120)
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
    train_whole(arguments, tmp_path / "whole")
    train_killed(arguments, tmp_path / "killed", kills=20, seed=1)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
