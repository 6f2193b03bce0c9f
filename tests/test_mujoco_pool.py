"""EnvPool's MuJoCo tasks, against the exact backend: equal spaces, equal distributions to 5 sigma."""

import numpy as np
import pytest

from rlplatform.envs import DmcProtocol, GymProtocol, make, suite_of

pytest.importorskip("envpool", reason="EnvPool is the extra `throughput`")
pytest.importorskip("dm_control", reason="DeepMind Control is the extra `dmc`")

TASKS = [*suite_of("dmc").tasks, "dmc10-resets/swimmer-swimmer15", *suite_of("gym").tasks]
LIMIT = 100  # agent steps of an episode here


def pooled(task, n, seed=0, **options):
    return make(task, n, seed, backend="envpool", threads=1, **options)


@pytest.mark.parametrize("task", TASKS)
def test_the_spaces_are_the_exact_backend_s(task):
    exact, fast = make(task, 1, 0), pooled(task, 1)
    assert fast.spec == exact.spec
    ours = exact._simulators[0]  # Gymnasium's bounds are the model's rounded to float32: 6e-8 of them
    np.testing.assert_allclose(fast._centre, ours.centre, rtol=1e-7)
    np.testing.assert_allclose(fast._half, ours._half, rtol=1e-7)
    frame = fast.reset()
    assert (frame.shape, frame.dtype) == ((1, *exact.spec.frame_shape), np.float32)


def episodes(batch, count, rng):
    """(first frames, returns, lengths, mean frames) of `count` episodes of random play; of each environment the same number."""
    n, done = batch.n, np.zeros(batch.n, int)
    frame = batch.reset()
    first, score, length, total = frame.copy(), np.zeros(n), np.zeros(n), np.zeros(frame.shape)
    out = []
    while (done < count // n).any():
        step = batch.step(rng.uniform(-1, 1, (n, *batch.spec.action_shape)).astype(np.float32))
        score, length, total = score + step.reward, length + 1, total + step.frame
        for i in step.final_env:
            if done[i] < count // n:
                out.append((first[i].copy(), score[i], length[i], (total[i] - step.frame[i]) / length[i]))
            done[i] += 1
            first[i], score[i], length[i], total[i] = step.frame[i], 0, 0, 0
    return [np.array(column, np.float64) for column in zip(*out, strict=True)]


def differ(a, b):
    """How many standard errors two samples' means are apart, by component; 0 where both are constant and equal."""
    error = np.sqrt(a.var(0, ddof=1) / len(a) + b.var(0, ddof=1) / len(b))
    gap = np.abs(a.mean(0) - b.mean(0))
    return np.max(np.where(error > 1e-9, gap / np.maximum(error, 1e-9), np.where(gap > 1e-6, np.inf, 0.0)))


COMPARED = ["dmc/cartpole-balance", "dmc/cheetah-run", "dmc/finger-spin", "dmc/reacher-easy", "dmc/hopper-stand", "gym/Hopper", "gym/HalfCheetah", "gym/Ant", "gym/Humanoid"]  # fmt: skip


@pytest.mark.parametrize("task", COMPARED)
def test_random_play_has_the_exact_backend_s_distribution(task):
    """Means of starts, returns, lengths and frames over 64 episodes each: 4 comparisons of at most 400 components, all within 5
    sigma (a true one beyond it: 2 in a thousand at worst)."""
    protocol = GymProtocol(episode_steps=LIMIT) if task.startswith("gym") else DmcProtocol(episode_steps=LIMIT)
    exact = episodes(make(task, 8, 0, protocol=protocol), 64, np.random.default_rng(0))
    fast = episodes(pooled(task, 8, 1, protocol=protocol), 64, np.random.default_rng(1))
    gaps = {name: differ(a, b) for name, a, b in zip(("start", "return", "length", "frame"), exact, fast, strict=True)}
    assert all(gap < 5.0 for gap in gaps.values()), gaps


def test_an_episode_ends_and_begins_as_on_the_exact_backend():
    batch = pooled("gym/Hopper", 3, protocol=GymProtocol(episode_steps=40))
    batch.reset()
    rng, steps, ends = np.random.default_rng(0), np.zeros(3, int), set()
    for _ in range(150):
        step = batch.step(rng.uniform(-1, 1, (3, 3)).astype(np.float32))
        steps += 1
        np.testing.assert_array_equal(step.truncated, steps >= 40)
        np.testing.assert_array_equal(step.reset, step.terminated | step.truncated)
        np.testing.assert_array_equal(step.final_env, np.flatnonzero(step.reset))
        assert len(step.final_frame) == len(step.final_env)
        for i, last in zip(step.final_env, step.final_frame, strict=True):
            ends.add("fell" if step.terminated[i] else "time")
            assert np.abs(step.frame[i][1:]).max() < 0.01  # a start: within Hopper's noise of it
            assert np.abs(last[1:]).max() > 0.01
        steps[step.reset] = 0
    assert ends == {"fell", "time"}


def test_an_environment_depends_on_its_seed_and_number_alone():
    together, alone = pooled("dmc/reacher-easy", 3, 5, first_env=4), pooled("dmc/reacher-easy", 1, 5, first_env=6)
    np.testing.assert_array_equal(together.reset()[2:], alone.reset())
    action = np.full((3, 2), 0.3, np.float32)
    for _ in range(5):
        step, one = together.step(action), alone.step(action[2:])
        np.testing.assert_array_equal(step.frame[2:], one.frame)
        np.testing.assert_array_equal(step.reward[2:], one.reward)
    assert len({row.tobytes() for row in step.frame}) == 3


def test_a_retired_environment_rests():
    batch, twin = (pooled("dmc/cartpole-swingup", 3, protocol=DmcProtocol(episode_steps=5)) for _ in range(2))
    batch.reset(), twin.reset()
    batch.retire(1)
    action = np.array([[0.1], [0.2], [0.3]], np.float32)
    for t in range(1, 8):
        step, whole = batch.step(action), twin.step(action)
        np.testing.assert_array_equal(step.frame[[0, 2]], whole.frame[[0, 2]])
        assert not step.frame[1].any()
        np.testing.assert_array_equal(step.final_env, [0, 2] if t == 5 else [])


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="EnvPool cannot play this protocol: protocol.pixels=True"):
        pooled("dmc-visual/walker-walk", 1)
    with pytest.raises(ValueError, match="unknown task of DeepMind Control: 'walker-wolk'"):
        pooled("dmc/walker-wolk", 1)
    with pytest.raises(ValueError, match="unknown MuJoCo environment of Gymnasium: 'Walker'"):
        pooled("gym/Walker", 1)
    with pytest.raises(ValueError, match="threads must be >= 1"):
        make("gym/Ant", 1, 0, backend="envpool", threads=0)
    batch = pooled("gym/Hopper", 2)
    with pytest.raises(ValueError, match=r"reset\(\) the environments"):
        batch.step(np.zeros((2, 3), np.float32))
    batch.reset()
    for action in (np.zeros((2, 3)), np.full((2, 3), np.nan, np.float32), np.full((2, 3), 1.1, np.float32)):
        with pytest.raises(ValueError, match="action"):
            batch.step(action)
    assert batch.state_dict() is None
    with pytest.raises(ValueError, match="cannot restore"):
        batch.load_state_dict({})
    batch.close()
    with pytest.raises(ValueError, match="closed"):
        batch.reset()
