"""The command line: what it refuses, in one line, with exit code 1 and nothing written; what a dry run says."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from rlplatform.agents.spr_net import Net
from rlplatform.cli import EXIT_FAILED, app
from rlplatform.runconfig import resolve_config
from rlplatform.types import Spec


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "der", "catch", "--steps", "0"], "steps must be >= 1"),
        (["train", "der", "catch", "agent.batch=0"], "batch must be >= 1, got 0"),
        (["train", "der", "catch", "agent.gamma=2"], "gamma must be in"),
        (["train", "der", "catch", "agent.learning_rate=nan"], "got nan"),
        (["train", "der", "catch", "agent.learning_rate=-1"], "learning_rate must be positive"),
        (["train", "der", "catch", "agent.bacth=8"], "did you mean 'agent.batch'"),
        (["train", "der", "cacth"], "did you mean catch"),
        (["train", "der", "atari/Pnog"], "did you mean Pong"),
        (["train", "drr", "catch"], "did you mean der"),
        (["train", "der", "catch", "backend=envpool"], "unknown backend of catch: 'envpool'; known: exact"),
        (["train", "der", "atari/Pong", "backend=envpol"], "did you mean envpool"),
        (["train", "der", "atari/Pong", "backend=envpool"], "protocol.stop_skip_at_life_loss=True"),
        (["train", "no_such_module:Agent", "catch"], "No module named 'no_such_module'"),
        (["resume", "runs"], "is not a run"),
        (["evaluate", "runs"], "is not a run"),
        (["bench", "replya"], "did you mean 'replay'"),
        (["list", "agent"], "did you mean 'agents'"),
    ],
)
def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == EXIT_FAILED
    assert message in done.output
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_what_a_run_would_take_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", "bbf", "catch", "--dry-run", "agent.hidden=16"])
    assert result.exit_code == 0
    assert "hidden: 16" in result.output
    net = Net(
        resolve_config("bbf", "catch", ["agent.hidden=16"]).agent, Spec((10, 5), "uint8", 1, actions=3), torch.float32
    )
    learned = sum(p.numel() for p in net.parameters())
    extra = sum(p.numel() for part in (net.transition, net.predictor) for p in part.parameters())
    assert f"parameters that act: {learned - extra:,}, that are learned: {learned:,}" in result.output
    assert "run directory: runs/catch/bbf/catch/seed_0" in result.output
    assert list(tmp_path.iterdir()) == []
