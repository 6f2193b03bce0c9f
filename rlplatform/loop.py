"""The main loop, which the local and the distributed run share."""

from collections import deque
from collections.abc import Callable, Iterator

from rlplatform.learner import Learner
from rlplatform.types import Metrics, Rollout, Workers

UnderWay = deque[Callable[[], list[Rollout]]]  # rollouts that were asked for, oldest first


def train(
    learner: Learner, workers: Workers, rounds: int, steps: int, lag: int, under_way: UnderWay | None = None
) -> Iterator[Metrics]:
    """Rollout k is made by the weights after round k - lag - 1, wherever the actors live.

    lag = 0: act, learn, act, learn. lag = 1: the actors collect round k + 1 while the learner learns round k. Since the
    lag is declared, no race decides a result. Logging, evaluation and checkpoints are what the caller does between two
    rounds.

    Args:
        rounds: how many to learn from now on.
        steps: agent steps of each environment in a rollout.
        under_way: rollouts asked for earlier (when a run goes on); the caller may look at it between two rounds.
    """
    under_way = deque() if under_way is None else under_way
    asked = len(under_way)
    while asked < min(lag + 1, rounds):
        under_way.append(workers.start(learner.weights(), learner.version, steps))
        asked += 1
    for _ in range(rounds):
        metrics = learner.learn(under_way.popleft()())
        if asked < rounds:
            under_way.append(workers.start(learner.weights(), learner.version, steps))
            asked += 1
        yield metrics


def drain(under_way: UnderWay) -> list[list[Rollout]]:
    """Wait for what is under way and keep it as data, so that saving and going on are the same act."""
    rollouts = [wait() for wait in under_way]
    under_way.clear()
    under_way.extend(_there(rollout) for rollout in rollouts)
    return rollouts


def _there(rollouts: list[Rollout]) -> Callable[[], list[Rollout]]:
    return lambda: rollouts
