"""`--track`: a run's metrics.jsonl, followed into Weights & Biases.

The folder stays the record; this copies its lines as they come. `wandb.json` beside them keeps wandb's id of the run and how many
lines it has been sent, so that a run that was killed and goes on is one run there, and lines that are written again after a resume
(the same as before, but for clocks) are not sent twice. Without network: WANDB_MODE=offline, and `wandb sync` later.
"""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rlplatform.config import ConfigError

STEP = "global_step"  # agent steps, under CleanRL's name


class Tracker:
    """Follows one run; a context manager around it."""

    def __init__(self, folder: Path, config: Mapping[str, Any], name: str, project: str = "rlplatform") -> None:
        """Begin or go on with the run in wandb. ConfigError without the extra.

        Args:
            folder: the run's, made if it is not there.
            config: to be shown there, nested mappings.
            name: of the run.
        """
        try:
            wandb: Any = importlib.import_module("wandb")
        except ModuleNotFoundError:
            raise ConfigError("--track needs wandb: pip install 'rlplatform[wandb]'") from None
        self._folder, self._note = folder, folder / "wandb.json"
        there = json.loads(self._note.read_text()) if self._note.exists() else {"lines": 0}
        folder.mkdir(parents=True, exist_ok=True)
        self._sent = int(there["lines"])
        self._run: Any = wandb.init(
            project=project, name=name, id=there.get("id"), resume="allow", config=dict(config), dir=str(folder),
        )  # fmt: skip
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)
        self._write()

    def follow(self) -> None:
        """Send the lines that are new."""
        path = self._folder / "metrics.jsonl"
        lines = (
            path.read_text().split("\n")[:-1] if path.exists() else []
        )  # the last piece is a line under way, or nothing
        new = lines[self._sent :]
        for text in new:
            line = json.loads(text)
            self._run.log({STEP: line.pop("step"), **line})
        if new:
            self._sent = len(lines)
            self._write()

    def finish(self, result: Mapping[str, Any]) -> None:
        """The rest, and the summary of the final evaluation."""
        self.follow()
        self._run.summary.update({f"final/{key}": value for key, value in result.items()})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run.finish(exit_code=0 if kind is None else 1)

    def _write(self) -> None:
        part = self._note.with_name("wandb.json.part")
        part.write_text(json.dumps({"id": self._run.id, "lines": self._sent}))
        part.replace(self._note)
