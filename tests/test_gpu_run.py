"""evaluation/bench/gpu_run.sh with commands that stand in for the real ones: its budget, its order, what it keeps and says."""

import argparse
import csv
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rlplatform import cli

SCRIPT = Path(__file__).resolve().parents[1] / "evaluation" / "bench" / "gpu_run.sh"
TRAINING = """
import json, pathlib, signal, sys, time
if "train" not in sys.argv: sys.exit(0)
run = pathlib.Path(sys.argv[sys.argv.index("--run-dir") + 1]); run.mkdir(parents=True, exist_ok=True)
turns = run / "turns"; turns.write_text(turns.read_text() + "x" if turns.exists() else "x")
if "atari/Broken" in sys.argv: sys.exit("no such game, sorry")
def stop(*_): (run / "checkpoint").write_text("there"); sys.exit(75)
signal.signal(signal.SIGTERM, stop)
if "atari/Long" in sys.argv: time.sleep(60)
for name in ("result.json", "evals.csv", "metrics.jsonl"): (run / name).write_text(json.dumps(sys.argv[1:]))
(run / "checkpoints").mkdir(exist_ok=True); (run / "checkpoints" / "big").write_bytes(bytes(1000))
"""


def run(folder: Path, seconds: int, *given: str) -> tuple[subprocess.CompletedProcess[str], dict[str, list[str]]]:
    """The script's end, and stages.csv: stage -> notes."""
    commands = folder / "commands"
    commands.mkdir(exist_ok=True)
    (commands / "training.py").write_text(TRAINING)
    for name in ("rlplatform", "python"):
        (commands / name).write_text(f'#!/bin/bash\nexec python3 {commands}/training.py "$@"\n')
        (commands / name).chmod(0o755)
    done = subprocess.run(
        [SCRIPT, str(seconds), "--out", folder / "out", "--work", folder / "work", *given],
        env={**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"}, capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    notes: dict[str, list[str]] = {}
    stages = folder / "out" / "stages.csv"
    for row in csv.DictReader(stages.read_text().splitlines()):
        notes.setdefault(row["stage"], []).append(row["note"])
    return done, notes


def test_it_trains_collects_and_says_what_failed(tmp_path: Path) -> None:
    stages = "doctor tests bench train collect"
    given = (
        "--only",
        stages,
        "--tasks",
        "atari/Pong atari/Broken",
        "--seeds",
        "1 2",
        "--steps",
        "500",
        "--device",
        "cpu",
    )
    done, notes = run(tmp_path, 600, *given)
    assert done.returncode == 1, done.stdout
    assert [*notes] == [
        "doctor", "tests", "bench:learner", "bench:device_replay", "bench:device_envs", "bench:returns", "bench:bf16/float32",
        "bench:bf16/tf32", "bench:bf16/bfloat16", "train:c51/minatar_Breakout/1", "train:mrq/control_Pendulum/1",
        "train:bbf/atari_Pong/1", "train:bbf/atari_Broken/1", "train:bbf/atari_Pong/2", "train:bbf/atari_Broken/2", "collect",
    ]  # fmt: skip
    assert {notes[stage][0] for stage in notes if "Broken" not in stage} == {"done"}
    assert notes["train:bbf/atari_Broken/2"] == ["FAILED: no such game; sorry"]
    kept = tmp_path / "out" / "runs" / "bbf" / "atari_Pong" / "seed_2"
    assert sorted(path.name for path in kept.iterdir()) == ["evals.csv", "metrics.jsonl", "result.json"]
    command = (kept / "result.json").read_text()
    for part in (
        '"train", "bbf", "atari/Pong"',
        '"--seed", "2"',
        '"device=cpu"',
        '"agent.dtype=bfloat16"',
        '"--steps", "500"',
    ):
        assert part in command


def test_what_there_is_no_time_for_is_skipped_by_name_and_a_run_cut_short_goes_on(tmp_path: Path) -> None:
    given = ("--only", "tests train collect", "--tasks", "atari/Long atari/Pong")
    begin = time.monotonic()
    done, notes = run(tmp_path, 8, *given, "--reserve", "3", "--least", "4")
    assert time.monotonic() - begin < 30  # and not the minute that the run would like
    assert done.returncode == 0, done.stdout
    assert notes["train:bbf/atari_Long/1"] == ["cut short; call again to go on"]
    assert notes["train:bbf/atari_Pong/1"][0].startswith("skipped: needs 4 s and")
    assert (tmp_path / "work" / "runs" / "bbf" / "atari_Long" / "seed_1" / "checkpoint").exists()
    assert notes["tests"][0].startswith("skipped: needs 60 s")
    done, notes = run(tmp_path, 600, *given[:2], "--tasks", "atari/Pong")
    assert notes["train:bbf/atari_Pong/1"][-1] == "done"


def test_a_dry_run_says_what_would_run(tmp_path: Path) -> None:
    done, notes = run(tmp_path, 1000, "--dry-run", "--jobs", "2", "--presets", "der", "--wheels", "here")
    assert done.returncode == 0
    assert all(note.startswith("would run for at most") for (note,) in notes.values())
    assert "build" in notes
    assert notes["bench:learner"][0].endswith(f"--out {tmp_path}/out/results/learner_gpu.json")
    assert not (tmp_path / "work" / "runs").exists()
    done, notes = run(tmp_path, 30, "--dry-run")
    assert notes["build"][1] == "skipped: needs 60 s and -30 s are left"


class Understood(Exception):  # noqa: N818
    """A command line was read to its end."""


def test_every_command_is_one_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their arguments are read by the programs themselves, which then stop."""
    _, notes = run(tmp_path, 10_000, "--dry-run", "--steps", "5000")
    commands = [note.partition(" s: ")[2].split() for (note,) in notes.values()]
    trained: list[Any] = []
    parse = argparse.ArgumentParser.parse_args

    def parsed(parser: argparse.ArgumentParser, *given: Any) -> None:
        parse(parser, *given)
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(cli, "_run", lambda config, folder, *_: trained.append((config, folder)))
    benches = 0
    for command in commands:
        if command[:2] == ["rlplatform", "bench"]:
            monkeypatch.setattr(sys, "argv", command[2:])
            with pytest.raises(Understood):
                importlib.import_module(f"rlplatform.evaluation.bench.{command[2]}").main()
            benches += 1
        elif command[:2] == ["rlplatform", "train"]:
            done = CliRunner().invoke(cli.app, command[1:])
            assert done.exit_code == 0, done.output
    assert benches == 7
    assert [config.task for config, _ in trained] == [
        "minatar/Breakout",
        "control/Pendulum",
        "atari/Boxing",
        "atari/RoadRunner",
        "atari/CrazyClimber",
    ]
    assert {config.device for config, _ in trained} == {"cuda"}
    assert [config.backend for config, _ in trained] == ["device", "exact", "exact", "exact", "exact"]
    assert [config.steps for config, _ in trained] == [1_000_000, 20_000, 5_000, 5_000, 5_000]
    assert (trained[1][0].lag, trained[1][0].agent.hidden, trained[1][0].agent.batch) == (1, 512, 256)
    assert {config.agent.dtype for config, _ in trained[2:]} == {"bfloat16"}
    assert len({folder for _, folder in trained}) == 5
    assert commands[1] == ["rlplatform", "doctor"]
    tests = [Path(part) for part in commands[2] if part.endswith(".py")]
    assert len(tests) == 8
    assert all(path.is_file() for path in tests)


@pytest.mark.parametrize("given", [(), ("ten",), ("10", "--what"), ("10", "--out")])
def test_what_it_does_not_know_is_refused(tmp_path: Path, given: tuple[str, ...]) -> None:
    done = subprocess.run([SCRIPT, *given], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "evaluation/bench/gpu_run.sh SECONDS" in done.stderr
    assert not [*tmp_path.iterdir()]
