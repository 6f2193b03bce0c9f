import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics, RecordVideo

from rlplatform.actor import FrameStack
from rlplatform.envs import AtariProtocol, make
from rlplatform.envs.gym import GymBatch, gym_id
from rlplatform.types import Step


@pytest.mark.parametrize(
    "name", ["rlplatform/Catch-v0", "rlplatform/Atari-Breakout-v0", "rlplatform/MinAtar-Seaquest-v0"]
)
def test_gymnasium_s_checker_is_content(name):
    check_env(gymnasium.make(name, render_mode="rgb_array").unwrapped)


def test_names():
    assert gym_id("atari/MsPacman") == "rlplatform/Atari-MsPacman-v0"
    assert gymnasium.spec("rlplatform/Atari-MsPacman-v0").kwargs == {"task": "atari/MsPacman"}


@pytest.mark.parametrize(("task", "steps"), [("catch", 40), ("atari/Breakout", 260)])
def test_the_vector_face_is_the_batch_stacked(task, steps):
    """Every number of the batch arrives; stacks are those of the actor; ended episodes show their true last stack."""
    protocol = AtariProtocol(life_loss_terminal=False) if task != "catch" else None
    face = gymnasium.make_vec(gym_id(task), num_envs=3)
    batch = make(task, 3, 11, protocol=protocol)
    stack = FrameStack(3, batch.spec)
    obs, infos = face.reset(seed=11)
    np.testing.assert_array_equal(obs, stack.push(batch.reset(), np.ones(3, bool)))
    assert infos == {}
    assert obs in face.observation_space
    assert face.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    face.action_space.seed(0)
    ended = 0
    for _ in range(steps):
        action = face.action_space.sample()
        before = stack.obs.copy()
        obs, reward, terminated, truncated, infos = face.step(action)
        step = batch.step(action)
        done = step.terminated | step.truncated
        np.testing.assert_array_equal(obs, stack.push(step.frame, done))
        np.testing.assert_array_equal(reward, step.reward)
        assert reward.dtype == np.float64
        np.testing.assert_array_equal(terminated, step.terminated)
        np.testing.assert_array_equal(truncated, step.truncated)
        assert ("final_obs" in infos) == done.any()
        if done.any():
            np.testing.assert_array_equal(infos["_final_obs"], done)
            np.testing.assert_array_equal(infos["final_info"]["restarted"], step.reset)
            for i, final in enumerate(infos["final_obs"]):
                assert (final is None) == (not done[i])
            for frame, i in zip(step.final_frame, step.final_env, strict=True):
                expected = np.concatenate([before[i, 1:], frame[None]])
                np.testing.assert_array_equal(infos["final_obs"][i], expected)
            ended += done.sum()
    assert ended >= 1
    face.close()


def test_a_lost_life_is_an_episode_s_end_where_the_protocol_says_so():
    face = gymnasium.make_vec("rlplatform/Atari-Breakout-v0", num_envs=1, protocol=AtariProtocol(noop_max=0))
    face.reset(seed=0)
    face.action_space.seed(1)
    lost = 0
    for _ in range(300):
        obs, _, terminated, _, infos = face.step(face.action_space.sample())
        if terminated[0] and not infos["final_info"]["restarted"][0]:
            lost += 1
            assert (obs[0, :3] == 0).all()  # the stack begins anew,
            np.testing.assert_array_equal(infos["final_obs"][0][3], obs[0, 3])  # the game goes on
            assert infos["final_obs"][0][:3].any()
    assert lost >= 2


def test_resets_by_seed_and_without():
    face = gymnasium.make_vec("rlplatform/Catch-v0", num_envs=20)
    first, _ = face.reset(seed=3)
    face.step(np.ones(20, np.int64))
    again, _ = face.reset(seed=3)
    onward, _ = face.reset()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, onward)
    assert not np.array_equal(first, face.reset(seed=4)[0])
    for options, seed, message in (({"reset_mask": np.ones(20, bool)}, 0, "reset_mask"), (None, [1, 2], "one seed")):
        with pytest.raises(ValueError, match=message):
            face.reset(seed=seed, options=options)


def test_statistics_are_whole_games_scores():
    face = RecordEpisodeStatistics(gymnasium.make_vec("rlplatform/Atari-Breakout-v0", num_envs=2))
    batch = make("atari/Breakout", 2, 0, protocol=AtariProtocol(life_loss_terminal=False))
    face.reset(seed=0), batch.reset()
    score, length, games = np.zeros(2), np.zeros(2), 0
    rng = np.random.default_rng(0)
    for _ in range(500):
        action = rng.integers(4, size=2)
        *_, infos = face.step(action)
        step = batch.step(action)
        score, length = score + step.reward, length + 1
        for i in step.final_env:
            assert (infos["episode"]["r"][i], infos["episode"]["l"][i]) == (score[i], length[i])
            games += 1
        score[step.reset], length[step.reset] = 0, 0
    assert games >= 2
    assert list(face.return_queue) != [0.0] * games


@pytest.mark.filterwarnings(
    "ignore:.*autoreset mode is same-step:UserWarning"
)  # it says that last frames are not filmed
def test_video_is_recorded(tmp_path):
    face = gymnasium.make_vec("rlplatform/Catch-v0", num_envs=4, render_mode="rgb_array")
    assert len(face.render.__self__.reset(seed=0)[0]) == 4
    film = RecordVideo(face, str(tmp_path / "film"), step_trigger=lambda step: step == 0, video_length=12)
    film.reset(seed=0)
    film.action_space.seed(0)
    for _ in range(15):
        film.step(film.action_space.sample())
    film.close()
    (video,) = (tmp_path / "film").glob("*.mp4")
    assert video.stat().st_size > 1000


def test_one_environment_plays_game_after_game():
    env = gymnasium.make("rlplatform/Catch-v0", seed=5).unwrapped
    batch = make("catch", 1, 5)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    frame = batch.reset()
    rng = np.random.default_rng(0)
    for _ in range(4):
        obs, _ = env.reset()
        np.testing.assert_array_equal(obs[0], frame[0])
        terminated = False
        while not terminated:
            action = int(rng.integers(3))
            obs, reward, terminated, truncated, _ = env.step(action)
            step = batch.step(np.array([action]))
            assert (reward, terminated, truncated) == (step.reward[0], step.terminated[0], False)
            np.testing.assert_array_equal(obs[0], step.final_frame[0] if terminated else step.frame[0])
        frame = step.frame
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(0)


class Count(gymnasium.Env):
    """Counts up from a seeded start; ends after 3 to 6 steps, odd ones by truncation. Actions 2..4 and their sum are paid."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(3, start=2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.length = 0, int(self.np_random.integers(3, 7))
        return np.array([self.at, self.length], np.float64), {}

    def step(self, action):
        self.at += 1
        over = self.at == self.length
        odd = self.length % 2 == 1
        return np.array([self.at, self.length], np.float64), float(action), over and not odd, over and odd, {}


def counts(n, mode):
    return lambda: SyncVectorEnv([Count] * n, autoreset_mode=mode)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("n", [1, 3])
def test_any_auto_reset_mode_comes_in_without_phantom_steps(mode, n):
    batch = GymBatch(counts(n, mode), seed=1)
    assert (batch.spec.actions, batch.spec.stack, batch.spec.frame_shape) == (3, 1, (2,))
    frame = batch.reset()
    at, ends, rng = np.zeros(n, int), 0, np.random.default_rng(0)
    length = frame[:, 1].copy()
    for _ in range(60):
        action = rng.integers(3, size=n)
        step = batch.step(action)
        at += 1
        over = at == length
        np.testing.assert_array_equal(step.reset, over)
        np.testing.assert_array_equal(step.terminated, over & (length % 2 == 0))
        np.testing.assert_array_equal(step.truncated, over & (length % 2 == 1))
        np.testing.assert_array_equal(step.reward, action + 2)
        np.testing.assert_array_equal(step.final_env, np.flatnonzero(over))
        np.testing.assert_array_equal(step.final_frame, np.stack([length, length], 1)[over])
        at[over] = 0
        length = np.where(over, step.frame[:, 1], length)
        np.testing.assert_array_equal(step.frame, np.stack([at, length], 1))
        ends += over.sum()
    assert ends > 8


def test_all_modes_give_the_same_run():
    runs = []
    for mode in AutoresetMode:
        batch, rng = GymBatch(counts(2, mode), seed=9), np.random.default_rng(3)
        batch.reset()
        runs.append([batch.step(rng.integers(3, size=2)) for _ in range(40)])
    for run in runs[1:]:
        for a, b in zip(runs[0], run, strict=True):
            for name, x, y in zip(Step._fields, a, b, strict=True):
                np.testing.assert_array_equal(x, y, err_msg=name)


def test_seeds_depend_on_the_environment_s_number_alone():
    many, part = (
        GymBatch(counts(5, AutoresetMode.SAME_STEP), 4),
        GymBatch(counts(2, AutoresetMode.SAME_STEP), 4, first_env=3),
    )
    np.testing.assert_array_equal(many.reset()[3:], part.reset())


def test_a_saved_gymnasium_batch_goes_on():
    def make_cartpole():
        return gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")

    batch, rng = GymBatch(make_cartpole, seed=0), np.random.default_rng(0)
    batch.reset()
    for _ in range(70):
        batch.step(rng.integers(2, size=2))
    state = batch.state_dict()
    other = GymBatch(make_cartpole, seed=0)
    other.load_state_dict(state)
    for _ in range(70):
        action = rng.integers(2, size=2)
        for x, y in zip(batch.step(action), other.step(action), strict=True):
            np.testing.assert_array_equal(x, y)
    with pytest.raises(ValueError, match="its seeds is"):
        GymBatch(make_cartpole, seed=1).load_state_dict(state)
    with pytest.raises(ValueError, match="not deterministic"):
        other.load_state_dict({**state, "actions": 1 - state["actions"]})
    other.step(np.array([0, 0]))  # still open


def test_continuous_actions_are_stretched_to_their_bounds():
    seen = []

    class Spy(gymnasium.vector.VectorWrapper):
        def step(self, actions):
            seen.append(np.array(actions))
            return super().step(actions)

    batch = GymBatch(lambda: Spy(gymnasium.make_vec("Pendulum-v1", num_envs=3, vectorization_mode="sync")), seed=0)
    assert (batch.spec.actions, batch.spec.action_shape, batch.spec.action_dtype) == (0, (1,), "float32")
    batch.reset()
    batch.step(np.array([[-1.0], [0.5], [1.0]], np.float32))
    np.testing.assert_array_equal(seen[0], [[-2.0], [1.0], [2.0]])
    with pytest.raises(ValueError, match=r"must lie in \[-1.0, 1.0\]"):
        batch.step(np.array([[-1.5], [np.nan], [1.0]], np.float32))


def test_what_cannot_be_adapted_is_refused():
    with pytest.raises(ValueError, match="observations must be a Box"):
        GymBatch(lambda: gymnasium.make_vec("FrozenLake-v1", num_envs=2, vectorization_mode="sync"), 0)
    batch = GymBatch(
        lambda: gymnasium.make_vec("CartPole-v1", num_envs=2), 0
    )  # its own vector form, which ignores masks
    batch.reset()
    play = (batch.step(np.array([0, 1])) for _ in range(100))
    with pytest.raises(RuntimeError, match="does not heed"):
        list(play)
    for action in (np.array([0, 2]), np.array([0.0, 1.0]), np.array([0])):
        with pytest.raises(ValueError, match="action"):
            batch.step(action)
    batch.close()
    with pytest.raises(ValueError, match="closed"):
        batch.reset()
