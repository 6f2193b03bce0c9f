import numpy as np
import pytest

from reference.catch import Catch
from rlplatform.envs import CatchProtocol, make
from rlplatform.streams import Stream
from rlplatform.types import Step


def same(a, b):
    for name, ours, theirs in zip(Step._fields, a, b, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def drawn_column(stream, columns):
    """What `rlp::Stream::below` draws: 64 bits of a block, times the bound, over 2^64, in whole numbers."""
    from rlplatform import _core

    high, low = (int(word) for word in _core.philox(stream.key, stream.counter, 1)[0, :2])
    stream.counter += 1
    return ((high << 32 | low) * columns) >> 64


@pytest.mark.parametrize(("rows", "columns"), [(10, 5), (2, 1), (4, 8), (13, 2)])
def test_games_are_those_of_the_definition(rows, columns):
    n, seed, first_env = 6, 3, 4
    batch = make("catch", n, seed, first_env, protocol=CatchProtocol(rows, columns))
    streams = [Stream(seed, "env", first_env + i) for i in range(n)]
    games = [Catch(rows, columns, drawn_column(stream, columns)) for stream in streams]
    np.testing.assert_array_equal(batch.reset(), [game.board() for game in games])
    rng, ended, paid = np.random.default_rng(0), 0, set()
    for _ in range(5 * rows):
        action = rng.integers(3, size=n)
        step = batch.step(action)
        finals = []
        for i, game in enumerate(games):
            reward, over = game.step(int(action[i]))
            assert step.reward[i] == reward
            assert step.terminated[i] == step.reset[i] == over
            assert not step.truncated[i]
            if over:
                finals.append(game.board())
                games[i] = Catch(rows, columns, drawn_column(streams[i], columns))
                ended += 1
                paid.add(reward)
            np.testing.assert_array_equal(step.frame[i], games[i].board())
        np.testing.assert_array_equal(step.final_frame, np.reshape(finals, (-1, rows, columns)))
        np.testing.assert_array_equal(step.final_env, np.flatnonzero(step.reset))
        assert step.final_frame.dtype == np.uint8
        assert step.final_env.dtype == np.int64
    assert ended >= 5 * n
    assert paid == ({1.0} if columns == 1 else {-1.0, 1.0})


def test_a_game_takes_nine_steps():
    batch = make("catch", 1, 0)
    batch.reset()
    ends = [bool(batch.step(np.array([1])).terminated[0]) for _ in range(27)]
    assert [t for t, end in enumerate(ends, 1) if end] == [9, 18, 27]


def test_columns_are_uniform():
    batch = make("catch", 20_000, 0)
    counts = batch.reset()[:, 0].astype(bool).sum(0)
    p = 1 / 5
    assert counts.sum() == 20_000
    np.testing.assert_array_less(np.abs(counts - 20_000 * p), 5 * np.sqrt(20_000 * p * (1 - p)))  # 5 sigma


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_threads_and_company_do_not_matter(threads):
    alone = make("catch", 9, 5)
    crowd = make("catch", 9, 5, threads=threads)
    part = make("catch", 3, 5, first_env=4)
    other_seed = make("catch", 9, 6)
    frame = alone.reset()
    np.testing.assert_array_equal(frame, crowd.reset())
    np.testing.assert_array_equal(frame[4:7], part.reset())
    assert not np.array_equal(frame, other_seed.reset())
    rng = np.random.default_rng(1)
    for _ in range(40):
        action = rng.integers(3, size=9)
        a, b, c = alone.step(action), crowd.step(action), part.step(action[4:7].copy())
        same(a, b)
        np.testing.assert_array_equal(a.frame[4:7], c.frame)
        np.testing.assert_array_equal(a.reward[4:7], c.reward)


def test_a_restored_batch_goes_on():
    batch, rng = make("catch", 7, 0), np.random.default_rng(2)
    batch.reset()
    for _ in range(14):
        batch.step(rng.integers(3, size=7))
    other = make("catch", 7, 99)
    other.load_state_dict(batch.state_dict())
    for _ in range(40):
        action = rng.integers(3, size=7)
        same(batch.step(action), other.step(action))


def test_a_state_from_before_the_first_reset_restores_that():
    other = make("catch", 2, 1)
    other.reset()
    other.load_state_dict(make("catch", 2, 0).state_dict())
    with pytest.raises(ValueError, match=r"reset\(\) the environments before"):
        other.step(np.array([0, 0]))
    np.testing.assert_array_equal(other.reset(), make("catch", 2, 0).reset())


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.array([0, 3]), r"action 3 of environment 1 of the batch is not in \[0, 3\)"),
        (np.array([-1, 0]), r"action -1 of environment 0"),
        (np.array([0, 1], np.int32), r"action must be int64 \[2\], got int32 \[2\]"),
        (np.array([0.0, 1.0]), r"got float64 \[2\]"),
        (np.array([0, 1, 2]), r"got int64 \[3\]"),
        (np.array([[0], [1]]), r"got int64 \[2, 1\]"),
        ([0, 1], "got list"),
    ],
)
@pytest.mark.parametrize("task", ["catch", "atari/Pong"])
def test_a_bad_action_is_refused_and_changes_nothing(task, action, message):
    batch, untouched = make(task, 2, 0), make(task, 2, 0)
    batch.reset(), untouched.reset()
    if action is not None and np.shape(action) == (2,) and np.max(action) == 3 and task != "catch":
        action = np.array([0, 6])
        message = r"action 6 of environment 1 of the batch is not in \[0, 6\)"
    with pytest.raises(ValueError, match=message):
        batch.step(action)
    good = np.array([2, 0])
    for _ in range(9):
        same(batch.step(good), untouched.step(good))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env": "cartpole"}, "its env is 'cartpole', here it is 'catch'"),
        ({"version": 2}, "its version is 2, here it is 1"),
        ({"settings": {"rows": 9, "columns": 5}}, "its settings is .*9.*here it is .*10"),
        ({"state": np.zeros((3, 3), np.int64)}, r"env must have shape \[2, 3\]"),
        ({"state": np.zeros((2, 3), np.int32)}, "not a state of 2 environments of catch"),
        ({"state": np.array([[0, 0, 0], [9, 0, 0]])}, "environment 1 of the batch has no such state"),
        ({"counter": np.zeros(3, np.uint64)}, r"counter must have shape \[2\]"),
        ({"key": np.zeros((2, 1), np.uint64)}, r"key must have shape \[2\]"),
    ],
)
def test_a_foreign_state_is_refused_and_changes_nothing(change, message):
    batch, untouched = make("catch", 2, 0), make("catch", 2, 0)
    batch.reset(), untouched.reset()
    with pytest.raises(ValueError, match=message):
        batch.load_state_dict({**batch.state_dict(), **change})
    for _ in range(12):
        same(batch.step(np.array([0, 1])), untouched.step(np.array([0, 1])))


@pytest.mark.parametrize("task", ["catch", "atari/Pong"])
def test_closed_and_unborn_environments_say_so(task):
    batch = make(task, 1, 0)
    with pytest.raises(ValueError, match=r"reset\(\) the environments before the first step\(\)"):
        batch.step(np.array([0]))
    state = batch.state_dict()
    batch.close()
    batch.close()
    for call in (batch.reset, batch.state_dict, batch.render, lambda: batch.step(np.array([0]))):
        with pytest.raises(ValueError, match="closed"):
            call()
    with pytest.raises(ValueError, match="closed"):
        batch.load_state_dict(state)


def test_what_a_step_gave_is_the_callers():
    batch = make("catch", 2, 0)
    batch.reset()
    first = batch.step(np.array([0, 2]))
    kept = first.frame.copy()
    batch.step(np.array([0, 2]))
    np.testing.assert_array_equal(first.frame, kept)


def test_render_is_the_board_enlarged():
    batch = make("catch", 2, 0)
    frame = batch.reset()
    picture = batch.render(1)
    assert picture.shape == (160, 80, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[8::16, 8::16, 2], frame[1])
    assert picture[:16, :16].std() == 0
