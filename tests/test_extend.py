"""The example of docs/extend.md, run as a user would."""

import json
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs" / "extend.md"


def test_an_agent_of_ones_own_solves_catch_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "tabular.py").write_text(DOCS.read_text().split("```python\n")[1].split("```")[0])
    line = next(line for line in DOCS.read_text().splitlines() if line.startswith("rlplatform train"))
    command = [sys.executable, "-P", "-m", *line.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "catch" / "agent" / "catch" / "seed_0"
    assert json.loads((run / "result.json").read_text())["mean"] == 1.0  # the optimum: every ball is caught
    again = subprocess.run([sys.executable, "-P", "-m", "rlplatform", "evaluate", str(run), "--json"], cwd=tmp_path, capture_output=True, text=True, check=True)  # fmt: skip
    assert json.loads(again.stdout)["mean"] == 1.0
