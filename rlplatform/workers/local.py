"""Actors in this process."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from rlplatform.types import Rollout, State, Weights


class Collects(Protocol):
    """An `Actor`, or a `DeviceActor`, whose rollouts are `DeviceRollout`s."""

    def collect(self, weights: Weights, version: int, steps: int) -> Any: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> None: ...


class LocalWorkers:
    """Actors in this process: at lag 0 they work when waited for, with the learner's own weights and no copy; at lag > 0
    one thread collects with a snapshot of the weights while the learner learns."""

    def __init__(self, actors: Sequence[Collects], lag: int, threads: int | None = None) -> None:
        """`threads`: of the actors' matrix products; None: as many as this thread has now."""
        self._actors = actors
        self._threads = torch.get_num_threads() if threads is None else threads
        self._thread = ThreadPoolExecutor(1, "actors", torch.set_num_threads, (self._threads,)) if lag > 0 else None

    def start(self, weights: Weights, version: int, steps: int) -> Callable[[], list[Rollout]]:
        if self._thread is None:
            return partial(self._collect_here, weights, version, steps)
        future: Future[list[Rollout]] = self._thread.submit(self._collect, _snapshot(weights), version, steps)
        return future.result

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)

    def state_dict(self) -> State:
        """Of the actors between two rollouts: wait for those under way first (`loop.drain`)."""
        return {"actors": [actor.state_dict() for actor in self._actors]}

    def load_state_dict(self, state: State) -> None:
        for actor, saved in zip(self._actors, state["actors"], strict=True):
            actor.load_state_dict(saved)

    def _collect(self, weights: Weights, version: int, steps: int) -> list[Rollout]:
        return [actor.collect(weights, version, steps) for actor in self._actors]

    def _collect_here(self, weights: Weights, version: int, steps: int) -> list[Rollout]:
        """In the learner's thread, whose number of threads comes back afterwards."""
        before = torch.get_num_threads()
        if before == self._threads:
            return self._collect(weights, version, steps)
        torch.set_num_threads(self._threads)
        try:
            return self._collect(weights, version, steps)
        finally:
            torch.set_num_threads(before)


def _snapshot(weights: Any) -> Any:
    if isinstance(weights, torch.Tensor):
        return weights.detach().clone()
    if isinstance(weights, np.ndarray):
        return weights.copy()
    if isinstance(weights, Mapping):
        return {name: _snapshot(value) for name, value in weights.items()}
    return weights
