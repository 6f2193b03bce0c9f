"""A finished run's folder, with numbers that a test can predict."""

import json
from pathlib import Path

import numpy as np

from rlplatform.evaluation.evals import HEADER, format_rows
from rlplatform.evaluation.score import Episode, Scores

CONFIG = """preset: {preset}
task: {task}
agent:
  replay_ratio: 1.0
  epsilon_eval: 0.001
protocol:
  sticky: 0.0
agent_class: rlplatform.agents.spr:Agent
seed: {seed}
steps: 100000
"""
PROTOCOL = {
    "frame_skip": 4, "sticky": 0.0, "noop_max": 29, "noop_unit": "frame", "episode_steps": 27000, "life_loss_terminal": True,
    "evaluation": {"episodes": 100, "every": 50000, "lanes": 16},
}  # fmt: skip
PROVENANCE = {
    "started": "2026-01-02T03:04:05+00:00", "rlplatform": "0.1.0", "git": {"commit": "0123456789" * 4, "dirty": False},
    "packages": {"numpy": "2.4.0", "torch": "2.13.0", "ale-py": "0.12.1", "ray": None},
    "machine": {"cpu": "Some CPU", "usable_cores": 2, "torch_threads": 1, "gpus": [], "memory_gib": 8.0},
}  # fmt: skip


def scores_of(mean: float, seed: int, episodes: int = 100) -> np.ndarray:
    """Symmetric about `mean`, so that this is their mean and median."""
    half = 1.0 + np.random.default_rng(seed).exponential(2.0, episodes // 2)
    return np.concatenate([mean - half, mean + half])


def make_run(
    folder: Path, task: str = "atari/Pong", preset: str = "der", seed: int = 1, mean: float = -15.0, lines: int = 100,
    games: int = 300, scale: tuple[float, float] | None = (-20.7, 14.6),
) -> Path:  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG.format(preset=preset, task=task, seed=seed))
    (folder / "protocol.json").write_text(json.dumps(PROTOCOL))
    (folder / "provenance.json").write_text(json.dumps(PROVENANCE))
    text = HEADER
    for step, middle in ((50_000, mean - 3.0), (100_000, mean)):
        played = tuple(
            Episode(
                i, float(s), 1000 + i, i == 7, None if scale is None else (float(s) - scale[0]) / (scale[1] - scale[0])
            )
            for i, s in enumerate(scores_of(middle, seed))
        )
        text += format_rows(Scores(99, 16, played), step)
    (folder / "evals.csv").write_text(text)
    rng = np.random.default_rng(seed)
    ends = np.linspace(300, 100_000, games).astype(int)
    rise = mean - 6 * np.exp(-ends / 25_000) + rng.normal(size=games)
    rows = "".join(f"{step},0,{float(score)!r},900\n" for step, score in zip(ends, rise, strict=True))
    (folder / "episodes.csv").write_text("step,env,score,length\n" + rows)
    with (folder / "metrics.jsonl").open("w") as file:
        for k in range(1, lines + 1):
            step = 100_000 * k // lines
            file.write(json.dumps({"step": step, "charts/episodic_return": float(k), "losses/td": 1 / k}) + "\n")
            if k in (lines // 2, lines):
                file.write(json.dumps({"step": step, "eval/episodic_return": mean}) + "\n")
    result = {
        "step": 100_000, "episodes": 100, "mean": mean, "task": task, "preset": preset, "seed": seed, "updates": 98_400,
        "elapsed_s": 5000.0,
        "seconds": {"env": 250.0, "act": 400.0, "observe": 50.0, "sample": 100.0, "update": 3600.0, "evaluate": 300.0},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))
    return folder
