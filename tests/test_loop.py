"""The loop's order of acting and learning, and that a run may be cut at any round, for every lag."""

from collections.abc import Callable
from typing import Any

import pytest

from rlplatform.loop import UnderWay, drain, train


class Recorder:
    """Stands for learner and workers: a rollout is (round it was asked for in, version of its weights)."""

    def __init__(self) -> None:
        self.version = 0
        self.asked = 0
        self.learned: list[tuple[int, int]] = []

    def weights(self) -> dict[str, int]:
        return {"version": self.version}

    def start(self, weights: dict[str, int], version: int, steps: int) -> Callable[[], Any]:
        assert weights["version"] == version
        rollout = [(self.asked, version)]
        self.asked += 1
        return lambda: rollout

    def learn(self, rollouts: Any) -> dict[str, int]:
        self.learned += rollouts
        self.version += 1
        return {"version": self.version}


def run(recorder: Any, rounds: int, lag: int, under_way: UnderWay | None = None) -> None:
    for _ in train(recorder, recorder, rounds, 1, lag, under_way):
        pass


@pytest.mark.parametrize("lag", [0, 1, 2, 5])
@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_rollout_k_is_made_by_the_weights_after_round_k_minus_lag_minus_1(lag: int, rounds: int) -> None:
    recorder = Recorder()
    run(recorder, rounds, lag)
    assert recorder.learned == [(k, max(0, k - lag)) for k in range(rounds)]
    assert recorder.asked == rounds  # none is asked for that nobody learns from


@pytest.mark.parametrize("lag", [0, 1, 2])
@pytest.mark.parametrize("cut", range(1, 8))
def test_a_cut_run_with_its_drained_rollouts_goes_on_as_if_uncut(lag: int, cut: int) -> None:
    whole = Recorder()
    run(whole, 8, lag)
    part, under_way = Recorder(), UnderWay()
    rounds = train(part, part, 8, 1, lag, under_way)  # type: ignore[arg-type]
    for _ in range(cut):
        next(rounds)
    pending = drain(under_way)
    rest = Recorder()
    rest.version, rest.asked, rest.learned = part.version, part.asked, list(part.learned)
    again: UnderWay = UnderWay(lambda rollout=rollout: rollout for rollout in pending)  # type: ignore[misc]
    run(rest, 8 - cut, lag, again)
    assert rest.learned == whole.learned


def test_draining_changes_nothing_for_a_run_that_goes_on() -> None:
    whole, drained, under_way = Recorder(), Recorder(), UnderWay()
    run(whole, 6, 2)
    for _ in train(drained, drained, 6, 1, 2, under_way):  # type: ignore[arg-type]
        drain(under_way)
    assert drained.learned == whole.learned
