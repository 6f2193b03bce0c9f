"""What the command line refuses: one line, exit code 1, nothing written."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlplatform.cli import EXIT_FAILED, app


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
