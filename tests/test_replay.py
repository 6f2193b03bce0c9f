"""What the replay draws, how it takes priorities, and what it refuses. Its items are compared in test_replay_model.py."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replay_feed import SPEC, Feed, assert_same, everything, filled
from rlplatform.replay import Replay
from rlplatform.types import Rollout, Spec

# --- what is drawn ---


def test_draws_follow_the_priorities() -> None:
    """Batches of one are independent draws: each item's count is binomial, within 5 sigma."""
    replay = filled(steps=9, streams=1)
    items = replay.eligible()
    p = np.array([0.0, 1.0, 2.0, 5.0, 0.5, 8.0])
    replay.update_priority(items, p)
    draws = 20_000
    drawn = np.concatenate([replay.sample(1, 1, 0.9).index for _ in range(draws)])
    counts = np.array([(drawn == i).sum() for i in items])
    expected = draws * p / p.sum()
    assert counts[0] == 0
    assert counts.sum() == draws
    np.testing.assert_array_less(np.abs(counts - expected), 5 * np.sqrt(expected * (1 - p / p.sum())) + 1e-9)


def test_draws_are_stratified() -> None:
    """An item of share p has ceil(B p) + 1 strata at most, and floor(B p) - 1 wholly to itself."""
    replay = filled(steps=30, streams=3)
    items = replay.eligible()
    p = np.random.default_rng(0).exponential(size=len(items))
    replay.update_priority(items, p)
    share = 64 * p / p.sum()
    for _ in range(300):
        drawn = replay.sample(64, 1, 0.9).index
        counts = np.array([(drawn == i).sum() for i in items])
        assert (counts >= np.floor(share) - 1).all()
        assert (counts <= np.ceil(share) + 1).all()


def test_a_uniform_batch_as_large_as_the_replay_is_every_item_once() -> None:
    replay = filled(steps=67, streams=1, alpha=0.0)
    items = replay.eligible()
    assert len(items) == 64
    replay.update_priority(items, np.random.default_rng(0).exponential(size=64))
    np.testing.assert_array_equal(np.sort(replay.sample(64, 3, 0.9, 2).index), items)


def test_what_is_drawn_does_not_depend_on_n_k_or_gamma() -> None:
    one, other = filled(), filled()
    for n, k, gamma in ((1, 0, 0.0), (3, 2, 1.0), (2, 1, 0.5)):
        np.testing.assert_array_equal(one.sample(16, n, gamma, k).index, other.sample(16, 3, 0.99, 2).index)


def test_indices_alone_are_those_of_a_sample() -> None:
    one, other = filled(), filled()
    for batch in (1, 7, 256):
        np.testing.assert_array_equal(one.draw(batch), other.sample(batch, 3, 0.99, 2).index)
        assert one.stream.counter == other.stream.counter
    with pytest.raises(ValueError, match="batch must be >= 1, got 0"):
        one.draw(0)


def test_what_is_drawn_does_not_depend_on_how_rollouts_are_cut() -> None:
    rollout = Feed(SPEC, 4).rollout([["on", "life", "limit", "over"][t % 4 : t % 4 + 1] * 4 for t in range(50)])
    whole, rows, columns = (Replay(SPEC, 80, 4, 3, 2) for _ in range(3))
    whole.add(rollout)
    for t in range(50):
        rows.add(part(rollout, slice(t, t + 1), slice(0, 4)))
    for i in (2, 0, 3, 1):
        columns.add(part(rollout, slice(0, 50), slice(i, i + 1)))
    assert_same(everything(whole), everything(rows))
    assert_same(everything(whole), everything(columns))


def part(rollout: Rollout, steps: slice, envs: slice) -> Rollout:
    """The steps and environments of a rollout that two slices name."""
    t, i = rollout.final_at.T
    inside = (steps.start <= t) & (t < steps.stop) & (envs.start <= i) & (i < envs.stop)
    grid = [np.ascontiguousarray(field[steps, envs]) for field in rollout[:6]]
    finals = rollout.final_frame[inside], rollout.final_at[inside] - [steps.start, envs.start]
    return Rollout(*grid, *finals, {}, rollout.episodes, rollout.first_env + envs.start, 0)


def test_a_step_waits_for_the_longer_of_n_and_k() -> None:
    for max_n, max_k in ((1, 4), (4, 1), (4, 4)):
        replay = Replay(SPEC, 40, 1, max_n, max_k)
        replay.add(Feed(SPEC, 1).rollout([["on"]] * 7))
        assert replay.eligible().tolist() == [0, 1, 2]
        assert replay.gather(np.array([2]), max_n, 1.0, max_k).mask.all()


# --- priorities ---


def test_new_items_enter_at_the_largest_priority_ever_recorded() -> None:
    replay = filled(alpha=0.5, streams=1)
    assert replay.max_priority == 1.0
    replay.update_priority(np.array([0]), np.array([9.0]))
    replay.update_priority(np.array([0]), np.array([0.25]))
    assert replay.max_priority == 3.0
    replay.add(Feed(SPEC, 1).rollout([["on"]] * 4)._replace(first=np.zeros((4, 1), bool)))
    np.testing.assert_array_equal(replay.gather(np.array([0, 1, 40]), 1, 0.9).priority, [0.5, 1.0, 3.0])


def test_the_mean_reward_is_of_what_is_stored_now() -> None:
    """Before anything came, in a stream that is not full, behind a time limit whose last frame takes a slot, overwritten."""
    replay = Replay(SPEC, 20, 2, 1)
    assert replay.mean_abs_reward == 0.0
    rollout = Feed(SPEC, 1).rollout([["on"], ["limit"], ["on"]])
    replay.add(rollout._replace(reward=np.array([[-1.0], [3.0], [0.5]], np.float32), first_env=1))
    assert replay.mean_abs_reward == 1.5
    later = Feed(SPEC, 1).rollout([["on"]] * 10)._replace(first_env=1)
    replay.add(later._replace(reward=np.arange(-9, 1, dtype=np.float32)[:, None]))
    assert replay.mean_abs_reward == 4.5


def test_a_late_priority_of_an_overwritten_item_is_ignored() -> None:
    replay = filled(steps=30, streams=2, capacity=40)  # 20 slots a stream: seq 0 to 9 are gone
    before = everything(replay)
    replay.update_priority(np.arange(20), np.full(20, 50.0))
    assert_same(everything(replay), before)
    replay.update_priority(np.array([19, 26, 5]), np.array([7.0, 2.0, 9.0]))
    assert replay.max_priority == 2.0
    assert replay.gather(np.array([26]), 1, 0.9).priority == 2.0


def test_a_priority_given_before_an_item_is_eligible_is_kept_until_it_is() -> None:
    replay = filled(steps=10, streams=1)
    assert 9 not in replay.eligible()
    replay.update_priority(np.array([9]), np.array([0.5]))
    replay.add(Feed(SPEC, 1).rollout([["on"]] * 3)._replace(first=np.zeros((3, 1), bool)))
    assert replay.gather(np.array([9]), 1, 0.9).priority == 0.5


# --- refusals: with a message, and without any change ---


def broken(**changes: Any) -> Rollout:
    good = Feed(SPEC, 2).rollout([["on", "limit"], ["over", "on"]])
    return good._replace(**changes)


NAN, GRID = float("nan"), np.zeros((2, 2), bool)
ROLLOUTS = {
    "frame must be uint8 \\[2, 2, 3\\]": broken(frame=np.zeros((2, 2, 4), np.uint8)),
    "frame must be uint8 .* got float64": broken(frame=np.zeros((2, 2, 3))),
    "first must be bool \\[T, N\\]": broken(first=np.zeros(2, bool)),
    "first must be bool": broken(first=np.zeros((2, 2), np.uint8)),
    "not contiguous": broken(frame=np.zeros((2, 2, 6), np.uint8)[:, :, ::2]),
    "action must be int64": broken(action=np.zeros((2, 2), np.int32)),
    "action holds 5, there are 5": broken(action=np.full((2, 2), 5)),
    "action holds -1": broken(action=np.full((2, 2), -1)),
    "reward must be float32": broken(reward=np.zeros((2, 2))),
    "the reward is -?nan .step 0 of the rollout, stream 1": broken(reward=np.array([[0, NAN], [0, 0]], np.float32)),
    "the reward is inf .step 1": broken(reward=np.array([[0, 0], [np.inf, 0]], np.float32)),
    "terminated must be bool": broken(terminated=np.zeros((2, 3), bool)),
    "truncated must be bool": broken(truncated=np.zeros((2, 2), np.int8)),
    "truncated, but final_frame lacks the last frame .step 0 of the rollout, stream 1": broken(
        final_frame=np.zeros((1, 3), np.uint8), final_at=np.array([[1, 0]])
    ),
    "final_at must be int64": broken(final_at=np.zeros((2, 2))),
    "final_at must be int64 .2, 2.": broken(final_at=np.zeros((2, 3), np.int64)),
    "final_frame must be uint8 .2, 3.": broken(final_frame=np.zeros((3, 3), np.uint8)),
    "ascending": broken(final_frame=np.zeros((3, 3), np.uint8), final_at=np.array([[0, 1], [1, 0], [0, 0]])),
    "a final frame of an episode that goes on": broken(
        final_frame=np.zeros((3, 3), np.uint8), final_at=np.array([[0, 1], [1, 0], [1, 1]])
    ),
    "the episode ended, and yet": broken(first=GRID),
    "beyond the replay's 2": broken(first_env=1),
    "first_env must be >= 0": broken(first_env=-1),
}


@pytest.mark.parametrize("message", ROLLOUTS)
def test_a_broken_rollout_is_refused(message: str) -> None:
    replay = filled()
    before = everything(replay)
    with pytest.raises(ValueError, match=message):
        replay.add(ROLLOUTS[message])
    assert_same(everything(replay), before)


def test_an_episode_that_goes_on_after_its_end_is_refused_across_rollouts() -> None:
    for event in ("life", "limit"):
        replay = Replay(SPEC, 40, 1, 3)
        replay.add(Feed(SPEC, 1).rollout([["on"], [event]]))
        with pytest.raises(ValueError, match="the episode ended, and yet"):
            replay.add(Feed(SPEC, 1).rollout([["on"]])._replace(first=np.zeros((1, 1), bool)))
        assert len(replay) == 2


def test_values_that_are_not_finite_are_refused() -> None:
    spec = Spec((2,), "float32", 1, 0, (3,))
    replay = Replay(spec, 40, 1, 1)
    good = Feed(spec, 1).rollout([["over"], ["on"]])
    for field in ("frame", "action", "final_frame"):
        values = getattr(good, field).copy()
        values.reshape(-1)[-1] = np.inf
        with pytest.raises(ValueError, match=f"^{field} holds inf"):
            replay.add(good._replace(**{field: values}))
    assert len(replay) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0}, "batch must be >= 1"),
        ({"n": 0}, r"n must be in \[1, 3\], got 0"),
        ({"n": 4}, r"n must be in \[1, 3\], got 4"),
        ({"k": 3}, r"k must be in \[0, 2\], got 3"),
        ({"k": -1}, r"k must be in \[0, 2\], got -1"),
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\]"),
        ({"gamma": NAN}, r"gamma must be in \[0, 1\]"),
        ({"gamma": np.full(3, 0.9)}, r"gamma must be float64 \[4\]"),
        ({"gamma": np.array([0.9, 0.9, -0.1, 0.9])}, r"gamma must be in \[0, 1\]"),
    ],
)
def test_a_query_out_of_range_is_refused(arguments: dict[str, Any], message: str) -> None:
    replay = filled()
    before = everything(replay)
    with pytest.raises(ValueError, match=message):
        replay.sample(**{"batch": 4, "n": 1, "gamma": 0.9, **arguments})
    assert_same(everything(replay), before)


def test_sampling_before_enough_data_is_refused() -> None:
    replay = filled(steps=3, streams=1)
    assert not replay.can_sample
    with pytest.raises(RuntimeError, match="once 3 more follow it, or its episode ended"):
        replay.sample(1, 1, 0.9)
    with pytest.raises(RuntimeError, match="once 3 more follow it"):
        replay.draw(1)
    assert replay.stream.counter == 0
    replay.add(Feed(SPEC, 1).rollout([["on"]])._replace(first=np.zeros((1, 1), bool)))
    assert replay.sample(2, 1, 0.9).index.tolist() == [0, 0]
    replay.update_priority(np.array([0]), np.array([0.0]))
    with pytest.raises(RuntimeError, match="all eligible priorities are 0"):
        replay.sample(1, 1, 0.9)


@pytest.mark.parametrize(
    ("index", "priority", "message"),
    [
        ([3, 4], [1.0, NAN], "priority 1 is -?nan"),
        ([3, 4], [-1.0, 1.0], "priority 0 is -1"),
        ([3, 4], [1.0, np.inf], "priority 1 is inf"),
        ([3, 4], [1.0, 1e301], "at most 1e300"),
        ([3, 80], [1.0, 1.0], "index 80 does not name a step"),
        ([-1, 4], [1.0, 1.0], "index -1 does not name a step"),
        ([3], [1.0, 1.0], r"priority must be float64 \[1\]"),
    ],
)
def test_a_wrong_priority_is_refused(index: list[int], priority: list[float], message: str) -> None:
    replay = filled()
    before = everything(replay)
    with pytest.raises(ValueError, match=message):
        replay.update_priority(np.array(index), np.array(priority))
    assert_same(everything(replay), before)


def test_priorities_of_a_wrong_kind_are_refused() -> None:
    replay = filled()
    with pytest.raises(ValueError, match="priority must be float64"):
        replay.update_priority(np.array([3]), np.array([1]))
    with pytest.raises(ValueError, match="index must be int64"):
        replay.update_priority(np.array([3], np.int32), np.array([1.0]))


def test_only_eligible_items_can_be_gathered() -> None:
    replay = Replay(SPEC, 40, 1, 3, 2)
    replay.add(Feed(SPEC, 1).rollout([["on"], ["limit"], *[["on"]] * 4]))
    assert replay.eligible().tolist() == [0, 1, 3]
    for index in (2, 4, 7, -1):  # the lone final frame; too young; never was
        with pytest.raises(ValueError, match=f"item {index} is not eligible"):
            replay.gather(np.array([0, index]), 1, 0.9)
    with pytest.raises(ValueError, match="index 2 does not name a step"):
        replay.update_priority(np.array([2]), np.array([1.0]))


def test_a_batch_that_does_not_fit_is_refused() -> None:
    replay = filled()
    batch, before = replay.sample(4, 1, 0.9, 1), everything(replay)
    read_only = batch.obs.copy()
    read_only.flags.writeable = False
    for out, message in (
        (batch._replace(reward=batch.reward.astype(np.float64)), "out.reward must be float32"),
        (batch._replace(obs=batch.obs[:, :1]), r"out.obs must be uint8 \[4, 2, 4, 3\]"),
        (batch._replace(obs=read_only), "out.obs is read-only"),
    ):
        with pytest.raises(ValueError, match=message):
            replay.sample(4, 1, 0.9, 1, out=out)
    with pytest.raises(ValueError, match=r"must be uint8 \[5, 2, 4, 3\]"):
        replay.sample(5, 1, 0.9, 1, out=batch)
    assert_same(everything(replay), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 14}, "each stream needs at least 8 slots for this n, k and stack, got 7"),
        ({"streams": 0}, "streams must be >= 1"),
        ({"max_n": 0}, "max_n must be in"),
        ({"max_k": -1}, "max_k must be in"),
        ({"alpha": -0.5}, "alpha must be finite and >= 0"),
        ({"alpha": NAN}, "alpha must be finite and >= 0"),
        ({"capacity": 2**40}, "at most 2.27 slots"),
        ({"spec": Spec((0,), "uint8", 4, 5)}, "frame_shape must be positive"),
        ({"spec": Spec((3,), "uint8", 0, 5)}, "stack must be >= 1"),
    ],
)
def test_a_replay_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Replay(**{"spec": SPEC, "capacity": 40, "streams": 2, "max_n": 3, "max_k": 2, **arguments})


def test_the_smallest_replay_works_for_ever() -> None:
    replay, feed = Replay(SPEC, 16, 2, 3, 2), Feed(SPEC, 2)
    for _ in range(40):
        replay.add(feed.rollout([["on", "on"]]))
    assert replay.eligible().tolist() == [70, 71, 72, 73]


# --- memory ---


def test_an_atari_transition_takes_7200_bytes_at_most() -> None:
    replay = Replay(Spec((84, 84), "uint8", 4, 18), 100_000, 1, max_n=10, max_k=5, alpha=0.5)
    assert replay.nbytes / replay.capacity <= 7200


def test_a_file_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot make the replay's file in"):
        Replay(SPEC, 100, 1, 3, path=tmp_path / "missing")


def test_a_mapped_replay_is_the_same_and_leaves_no_file(tmp_path: Path) -> None:
    assert_same(everything(filled(path=tmp_path)), everything(filled()))
    assert list(tmp_path.iterdir()) == []
