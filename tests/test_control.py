"""Classic control against Gymnasium itself, started from the same states and given the same actions."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rlplatform.envs import ControlProtocol, make, suite_of
from rlplatform.envs.control import GAMES
from rlplatform.envs.gym import gym_id
from rlplatform.types import Step

# How far a float64 state may be from Gymnasium's within an episode. Measured in the play below: Acrobot, which is chaotic, 3.0e-11;
# CartPole, whose sine and cosine are Taylor's, 4.5e-16; the others 0, and 10 times that is allowed; 1e-12 where it was 0, for a NumPy
# whose sine is not libm's.
STATE_ERROR = {
    "Acrobot": 3e-10,
    "CartPole": 4.5e-15,
    "MountainCar": 1e-12,
    "MountainCarContinuous": 0.0,
    "Pendulum": 1e-12,
}


def same(a, b):
    for name, ours, theirs in zip(Step._fields, a, b, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def numbers(batch):
    """The float64 states of all environments, [N, ...]: the saved integers after the first, which counts steps."""
    return np.ascontiguousarray(batch.state_dict()["state"][:, 1:]).view(np.float64)


def skilled(game, frame):
    """Actions that get somewhere, so that every way an episode can end is seen: [N]."""
    if game == "CartPole":
        return (frame[:, 2] + 0.3 * frame[:, 3] + 0.05 * frame[:, 1] + 0.02 * frame[:, 0] > 0).astype(np.int64)
    if game == "Acrobot":
        return np.where(frame[:, 5] > 0, 2, 0)  # the torque's power is the torque times this velocity
    if game == "Pendulum":
        return np.sign(frame[:, 2])
    return np.where(frame[:, 1] >= 0, 1.0, -1.0) if GAMES[game].actions == 0 else np.where(frame[:, 1] >= 0, 2, 0)


def draw_actions(game, rng, frame):
    """Random ones for the first half of the environments; skilled ones, now and then disturbed, for the second."""
    n, count = len(frame), GAMES[game].actions
    chance = rng.integers(count, size=n) if count else rng.uniform(-1, 1, n)
    action = np.where((np.arange(n) < n // 2) | (rng.random(n) < 0.05), chance, skilled(game, frame))
    return action.astype(np.int64) if count else action.astype(np.float32)[:, None]


def theirs_from(game, state):
    env = gymnasium.make(GAMES[game].gymnasium, disable_env_checker=True)
    env.reset(seed=0)
    env.unwrapped.state = state.astype(np.float32) if game == "Acrobot" else state.copy()
    return env


@pytest.mark.parametrize("game", GAMES)
def test_episodes_are_gymnasium_s(game):
    """1,200 steps in 8 environments: frames, rewards and ends of whole episodes, and the states behind them."""
    n, count, scale = 8, GAMES[game].actions, np.float32(2 if game == "Pendulum" else 1)
    batch, rng = make(f"control/{game}", n, 3), np.random.default_rng(0)
    frame = batch.reset()
    envs, worst, ends = [theirs_from(game, state) for state in numbers(batch)], 0.0, {True: 0, False: 0}
    for _ in range(1200):
        action = draw_actions(game, rng, frame)
        step = batch.step(action)
        frame, last, state = step.frame, step.frame.copy(), numbers(batch)
        last[step.final_env] = step.final_frame
        np.testing.assert_array_equal(step.final_env, np.flatnonzero(step.terminated | step.truncated))
        np.testing.assert_array_equal(step.reset, step.terminated | step.truncated)
        for i, env in enumerate(envs):
            obs, reward, terminated, truncated, _ = env.step(int(action[i]) if count else action[i] * scale)
            assert obs.dtype == last.dtype == np.float32
            # One rounding to float32 of states that are so close.
            np.testing.assert_allclose(last[i], obs, rtol=1.2e-7, atol=2 * STATE_ERROR[game])
            np.testing.assert_allclose(step.reward[i], reward, rtol=1.2e-7, atol=1e-12)
            assert (step.terminated[i], step.truncated[i]) == (terminated, truncated)
            if terminated or truncated:
                ends[terminated] += 1
                envs[i] = theirs_from(game, state[i])
            else:
                theirs = np.asarray(env.unwrapped.state, np.float64)
                assert np.isfinite(theirs).all()
                worst = max(worst, np.abs(theirs - state[i]).max())
    assert worst <= STATE_ERROR[game]
    assert ends[False] >= 2
    assert (ends[True] >= 2) == (game != "Pendulum")


def test_the_last_step_may_terminate_too():
    """Fallen on the step of the limit: Gymnasium says both, and so do we."""
    protocol = ControlProtocol(cartpole_steps=9)
    batch = make("control/CartPole", 200, 0, protocol=protocol)
    batch.reset()
    both = 0
    for _ in range(9):
        step = batch.step(np.ones(200, np.int64))
        both += (step.terminated & step.truncated).sum()
    assert both >= 1
    assert (step.truncated | (batch.state_dict()["state"][:, 0] > 0)).all()


START = {  # bounds of each number of a state
    "Acrobot": [(-0.1, 0.1)] * 4,
    "CartPole": [(-0.05, 0.05)] * 4,
    "MountainCar": [(-0.6, -0.4)],
    "MountainCarContinuous": [(-0.6, -0.4)],
    "Pendulum": [(-np.pi, np.pi), (-1.0, 1.0)],
}


@pytest.mark.parametrize("game", GAMES)
def test_starts_are_uniform(game):
    n, bins = 20_000, 10
    batch = make(f"control/{game}", n, 0)
    batch.reset()
    state = numbers(batch)
    scaled = []
    for column, (low, high) in zip(state.T, START[game], strict=False):
        unit = (column - low) / (high - low)
        assert unit.min() >= 0
        assert unit.max() <= 1 + 1e-7  # Acrobot's are rounded to float32
        counts, p = np.histogram(unit, bins, (0, 1 + 1e-6))[0], 1 / bins
        np.testing.assert_array_less(np.abs(counts - n * p), 5 * np.sqrt(n * p * (1 - p)))  # 5 sigma
        scaled.append(unit)
    assert (state[:, len(scaled) :] == 0).all()  # cars start at rest
    off_diagonal = np.corrcoef(scaled) - np.eye(len(scaled)) if len(scaled) > 1 else np.zeros(1)
    np.testing.assert_array_less(np.abs(off_diagonal), 5 / np.sqrt(n))  # 5 sigma of a correlation
    if game == "Acrobot":
        np.testing.assert_array_equal(state, state.astype(np.float32))


@pytest.mark.parametrize("game", GAMES)
def test_threads_company_and_a_restart_do_not_matter(game):
    def new(n, seed, first_env=0, **options):
        return make(f"control/{game}", n, seed, first_env, **options)

    alone, crowd, part, other_seed = new(9, 5), new(9, 5, threads=3), new(3, 5, 4), new(9, 6)
    frame = alone.reset()
    np.testing.assert_array_equal(frame, crowd.reset())
    np.testing.assert_array_equal(frame[4:7], part.reset())
    assert not np.array_equal(frame, other_seed.reset())
    rng, ended = np.random.default_rng(1), 0
    for t in range(230):
        if t % 60 == 5:
            other_seed.load_state_dict(alone.state_dict())
        action = draw_actions(game, rng, frame)
        a, b, c = alone.step(action), crowd.step(action), part.step(action[4:7].copy())
        same(a, b)
        if t >= 5:
            same(a, other_seed.step(action))
        np.testing.assert_array_equal(a.frame[4:7], c.frame)
        np.testing.assert_array_equal(a.reward[4:7], c.reward)
        frame, ended = a.frame, ended + a.reset.sum()
    assert ended >= 1 or game in ("Acrobot", "MountainCarContinuous")


@pytest.mark.parametrize(
    ("task", "action", "message"),
    [
        ("CartPole", np.array([0, 2]), r"action 2 of environment 1 of the batch is not in \[0, 2\)"),
        ("CartPole", np.array([-1, 0]), "action -1 of environment 0"),
        ("CartPole", np.array([0.0, 1.0], np.float32), r"action must be int64 \[2\], got float32 \[2\]"),
        ("CartPole", np.array([[0], [1]]), r"got int64 \[2, 1\]"),
        (
            "Pendulum",
            np.array([[0], [1.5]], np.float32),
            r"action 1.5 of environment 1 of the batch is not in \[-1, 1\]",
        ),
        ("Pendulum", np.array([[-1.25], [0]], np.float32), "action -1.25 of environment 0"),
        ("Pendulum", np.array([[0], [np.nan]], np.float32), "action nan of environment 1"),
        ("MountainCarContinuous", np.array([[np.inf], [0]], np.float32), "action inf of environment 0"),
        ("Pendulum", np.array([[0.0], [1.0]]), r"action must be float32 \[2, 1\], got float64 \[2, 1\]"),
        ("Pendulum", np.array([0.0, 1.0], np.float32), r"got float32 \[2\]"),
        ("Pendulum", np.zeros((3, 1), np.float32), r"got float32 \[3, 1\]"),
        ("Pendulum", [[0.0], [1.0]], "got list"),
    ],
)
def test_a_bad_action_is_refused_and_changes_nothing(task, action, message):
    batch, untouched = make(f"control/{task}", 2, 0), make(f"control/{task}", 2, 0)
    batch.reset(), untouched.reset()
    with pytest.raises(ValueError, match=message):
        batch.step(action)
    good = np.array([1, 0]) if task == "CartPole" else np.array([[1.0], [-0.5]], np.float32)
    for _ in range(9):
        same(batch.step(good), untouched.step(good))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env": "control/Acrobot"}, "its env is 'control/Acrobot', here it is 'control/CartPole'"),
        ({"version": 2}, "its version is 2, here it is 1"),
        ({"settings": {"limit": 200}}, "its settings is .*200.*here it is .*500"),
        ({"state": np.zeros((3, 5), np.int64)}, r"env must have shape \[2, 5\]"),
        ({"state": np.array([[0] * 5, [500] + [0] * 4])}, "environment 1 of the batch has no such state"),
        ({"key": np.zeros(3, np.uint64)}, r"key must have shape \[2\]"),
    ],
)
def test_a_foreign_state_is_refused_and_changes_nothing(change, message):
    batch, untouched = make("control/CartPole", 2, 0), make("control/CartPole", 2, 0)
    batch.reset(), untouched.reset()
    with pytest.raises(ValueError, match=message):
        batch.load_state_dict({**batch.state_dict(), **change})
    for _ in range(12):
        same(batch.step(np.array([0, 1])), untouched.step(np.array([0, 1])))


def test_closed_and_unborn_environments_say_so():
    batch = make("control/Pendulum", 1, 0)
    with pytest.raises(ValueError, match=r"reset\(\) the environments before the first step\(\)"):
        batch.step(np.zeros((1, 1), np.float32))
    batch.reset()
    state = batch.state_dict()
    batch.close()
    for call in (batch.reset, batch.state_dict, lambda: batch.step(np.zeros((1, 1), np.float32))):
        with pytest.raises(ValueError, match="closed"):
            call()
    with pytest.raises(ValueError, match="closed"):
        batch.load_state_dict(state)


def test_the_suite():
    suite = suite_of("control/CartPole")
    assert suite.tasks == tuple(f"control/{game}" for game in GAMES)
    assert suite.protocol == ControlProtocol()
    assert suite.scale("control/CartPole") is None
    for game, entry in GAMES.items():  # the limits are Gymnasium's
        assert getattr(suite.protocol, entry.limit) == gymnasium.spec(entry.gymnasium).max_episode_steps, game
    assert suite.variants["v0"].cartpole_steps == gymnasium.spec("CartPole-v0").max_episode_steps
    with pytest.raises(ValueError, match="unknown game of classic control: 'Cartpol'; did you mean CartPole"):
        make("control/Cartpol", 1, 0)
    with pytest.raises(ValueError, match=r"protocol.cartpole_steps must be in \[1, 1e9\], got 0"):
        ControlProtocol(cartpole_steps=0)


@pytest.mark.filterwarnings("ignore:.*Box observation space .* value is:UserWarning")  # frames have no declared bounds
@pytest.mark.parametrize("game", GAMES)
def test_gymnasium_makes_them(game):
    name = gym_id(f"control/{game}")
    assert name == f"rlplatform/{GAMES[game].gymnasium}"
    face, batch = gymnasium.make_vec(name, num_envs=3), make(f"control/{game}", 3, 11)
    obs, _ = face.reset(seed=11)
    frame = batch.reset()
    np.testing.assert_array_equal(obs[:, 0], frame)
    rng = np.random.default_rng(0)
    for _ in range(250):
        action = draw_actions(game, rng, frame)
        obs, reward, terminated, truncated, infos = face.step(action)
        step = batch.step(action)
        frame = step.frame
        np.testing.assert_array_equal(obs[:, 0], frame)
        np.testing.assert_array_equal(reward, step.reward)
        np.testing.assert_array_equal(terminated, step.terminated)
        np.testing.assert_array_equal(truncated, step.truncated)
        for final, i in zip(step.final_frame, step.final_env, strict=True):
            np.testing.assert_array_equal(infos["final_obs"][i][0], final)
    check_env(gymnasium.make(name).unwrapped)
