"""The learner: an agent and its replay ratio; turns experience into weights. One version per round."""

from fractions import Fraction
from math import isfinite, prod
from typing import NamedTuple, Protocol

from rlplatform import _core
from rlplatform.types import Agent, Metrics, Rollout, State, Weights

LOOK_EVERY = 1_000  # gradient steps between two looks at losses that lie on a device, since looking waits for it


class Ended(NamedTuple):
    """A game that ended in training."""

    step: int  # agent steps of all environments up to and including its last
    env: int  # number among all environments of the run
    score: float  # sum of raw rewards
    length: int  # agent steps


class Inspector(Protocol):
    """Who looks into the agent while it learns, and changes nothing: rlplatform.inspection."""

    def observe(self, rollouts: list[Rollout], steps: int) -> None: ...
    def due(self, steps: int) -> bool: ...
    def before(self) -> None: ...
    def after(self, steps: int, updates: int) -> None: ...


class Learner:
    """How many gradient steps are due is arithmetic, not a lock: `floor(steps * updates_per_step)` in all.

    The process of a learner keeps what it frees, up to 2 GiB (csrc/heap.hpp)."""

    def __init__(self, agent: Agent, updates_per_step: float) -> None:
        """`updates_per_step`: gradient steps per agent step (the replay ratio); 0.1 means exactly one in ten."""
        if not (isfinite(updates_per_step) and updates_per_step >= 0):
            raise ValueError(f"updates_per_step must be finite and >= 0, got {updates_per_step}")
        _core.keep_freed_memory()  # what one gradient step frees the next one takes
        self.agent = agent
        self._ratio = Fraction(str(updates_per_step))
        self._credited = 0  # agent steps observed while the agent was ready: no burst after the start or a resume
        self.version = 0  # rounds learned
        self.steps = 0  # agent steps observed, all environments
        self.updates = 0  # gradient steps taken
        self.ended: list[Ended] = []  # the games that ended in the last round
        self.lag = 0  # versions by which the weights that made the last round's rollouts trailed behind
        self._unseen: Metrics = {}  # of the last gradient step, where nobody looked at them
        self.inspector: Inspector | None = None

    def learn(self, rollouts: list[Rollout]) -> Metrics:
        """Observe the rollouts, then take the gradient steps that are due. The last one's metrics, or none were due: {}."""
        if self.inspector is not None:
            self.inspector.observe(rollouts, self.steps)
        self.agent.observe(rollouts)
        seen = sum(prod(rollout.reward.shape) for rollout in rollouts)  # of arrays or tensors
        self.ended = _ended(rollouts, self.steps, seen)
        self.lag = max((self.version - rollout.version for rollout in rollouts), default=0)
        self.steps += seen
        if self.agent.ready:
            self._credited += seen
        metrics: Metrics = {}
        due = int(self._credited * self._ratio) - self.updates
        looking = self.inspector if due > 0 and self.inspector is not None and self.inspector.due(self.steps) else None
        before = self.updates
        if looking is not None:
            looking.before()
        while due > 0:
            steps = min(due, getattr(self.agent, "steps_per_launch", 1))
            metrics = self.agent.update() if steps == 1 else self.agent.updates(steps)  # type: ignore[attr-defined]  # types.py
            due -= steps
            self.updates += steps
            self._look(metrics, steps)
        if looking is not None:
            looking.after(self.steps, self.updates - before)
        self.version += 1
        return metrics

    def weights(self) -> Weights:
        return self.agent.weights()

    def state_dict(self) -> State:
        self._check_finite(self._unseen)  # nothing that is not finite is ever saved
        return {
            "agent": self.agent.state_dict(),
            "credited": self._credited,
            "version": self.version,
            "steps": self.steps,
            "updates": self.updates,
        }

    def load_state_dict(self, state: State) -> None:
        self.agent.load_state_dict(state["agent"])
        self._credited, self.version = state["credited"], state["version"]
        self.steps, self.updates = state["steps"], state["updates"]

    def _look(self, metrics: Metrics, steps: int) -> None:
        """Check the last of so many new gradient steps, or put it off: once a loss is not finite, all later ones are."""
        on_device = any(getattr(value, "is_cuda", False) for value in metrics.values())
        if on_device and self.updates // LOOK_EVERY == (self.updates - steps) // LOOK_EVERY:
            self._unseen = metrics
        else:
            self._unseen = {}
            self._check_finite(metrics)

    def _check_finite(self, metrics: Metrics) -> None:
        """A loss that is not finite ends the run before it can be saved: every later weight would be NaN."""
        for name, value in metrics.items():
            if name.startswith("losses/") and not isfinite(float(value)):
                raise FloatingPointError(f"{name} is {float(value)} at agent step {self.steps}, update {self.updates}")


def _ended(rollouts: list[Rollout], before: int, seen: int) -> list[Ended]:
    """Rollouts of one round run side by side: step t of all of them ends at before + (t + 1) * (environments in all)."""
    rows = []
    for rollout in rollouts:
        envs = seen // len(rollout.reward)
        for t, env, score, length in zip(*rollout.episodes, strict=True):
            rows.append(Ended(before + (int(t) + 1) * envs, int(env), float(score), int(length)))
    return sorted(rows)
