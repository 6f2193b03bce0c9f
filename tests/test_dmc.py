"""DeepMind Control. The oracle is dm_control's own environment, drawing from the same generator."""

import dataclasses
import threading

import gymnasium
import numpy as np
import pytest
from PIL import Image

from rlplatform import envs, statefile
from rlplatform.envs import DmcProtocol, make, suite_of
from rlplatform.envs.gym import gym_id
from rlplatform.evaluation import video
from rlplatform.streams import Stream
from simulated import actions, assert_same, equal, play

pytest.importorskip("dm_control", reason="DeepMind Control is the extra `dmc`")

from rlplatform.envs import dmc, painting, simulator

SEED = 5
TASKS = [task.partition("/")[2] for task in suite_of("dmc").tasks]
ALL = [*TASKS, "swimmer-swimmer15"]  # the one of dmc10-resets that dmc28 has not
SHORT = DmcProtocol(episode_steps=30)


def bare(task, env=0):
    """dm_control's own environment, drawing what environment `env` of the run draws."""
    domain, name = dmc.split(task)
    random = np.random.RandomState(np.random.Philox(key=Stream(SEED, "env", env).key))
    return dmc._suite().load(domain, name, task_kwargs={"random": random})


def flat(time_step):
    return np.concatenate([np.ravel(part) for part in time_step.observation.values()]).astype(np.float32)


@pytest.mark.parametrize("task", ALL)
def test_a_saved_environment_goes_on_bit_for_bit(task):
    """Saved within two episodes, restored into a new environment and into a used one, and through the next episode's start."""
    batch = make(f"dmc/{task}", 1, SEED, first_env=3, protocol=SHORT)
    other = make(f"dmc/{task}", 1, SEED + 1, protocol=SHORT)
    batch.reset()
    for before in (17, 13):
        play(batch, before, seed=before)
        state = batch.state_dict()
        expected = play(batch, 25, seed=100)
        assert sum(step.reset.sum() for step in expected) == 1
        other.load_state_dict(state)
        assert equal(other.state_dict(), state)
        for ours, theirs in zip(play(other, 25, seed=100), expected, strict=True):
            assert_same(ours, theirs)
        # float64: a frame in float32 hides what a solver that began elsewhere found in the last bits
        assert equal(other.state_dict(), batch.state_dict())


@pytest.mark.parametrize("task", ALL)
def test_steps_are_those_of_dm_control(task):
    batch, theirs = make(f"dmc/{task}", 1, SEED, first_env=1, protocol=SHORT), bare(task, env=1)
    model, bounds = theirs.physics.model.ptr, theirs.action_spec()
    assets = {name: getattr(model, name).tobytes() for name in dir(model) if name.startswith(simulator.ASSETS)
              and isinstance(getattr(model, name), np.ndarray)}  # fmt: skip
    np.testing.assert_array_equal(batch.reset()[0], flat(theirs.reset()))
    assert (batch.spec.frame_dtype, batch.spec.stack, batch.spec.frames_per_step) == ("float32", 1, 2)
    for t, action in enumerate(actions(batch, 33), 1):
        centre, half = (bounds.minimum + bounds.maximum) / 2, (bounds.maximum - bounds.minimum) / 2
        reward = 0.0
        for _ in range(2):
            last = theirs.step(centre + half * action[0])
            reward += last.reward
        step, over = batch.step(action), t == 30
        assert step.reward[0] == np.float32(reward)
        assert (step.terminated[0], step.truncated[0], step.reset[0]) == (False, over, over)
        np.testing.assert_array_equal(step.final_env, [0] if over else [])
        if over:
            np.testing.assert_array_equal(step.final_frame[0], flat(last))
            last = theirs.reset()
        np.testing.assert_array_equal(step.frame[0], flat(last))
    assert {name: getattr(model, name).tobytes() for name in assets} == assets  # what is not compared is not written


def test_what_an_episode_writes_is_found():
    """Into the model, by task: where dm_control's sources say that it does."""
    written = {
        "reacher-easy": {"geom_pos"}, "reacher-hard": {"geom_pos", "geom_size"}, "fish-swim": {"geom_pos"}, "walker-walk": set(),
        "finger-spin": {"dof_damping", "site_rgba"}, "finger-turn_easy": {"site_pos", "site_size"}, "swimmer-swimmer15": {"geom_pos", "light_pos"},
    }  # fmt: skip
    for task, expected in written.items():
        batch = make(f"dmc/{task}", 1, SEED)
        before = batch.state_dict()
        assert before["simulators"][0]["model"] == {}
        batch.reset()
        assert set(batch.state_dict()["simulators"][0]["model"]) == expected
        batch.load_state_dict(before)
        assert equal(batch.state_dict(), before)


def test_a_state_survives_the_disk(tmp_path):
    batch, other = (make("dmc/finger-turn_hard", 2, seed, protocol=SHORT) for seed in (0, 1))
    batch.reset()
    play(batch, 8)
    statefile.write(tmp_path, batch.state_dict())
    other.load_state_dict(statefile.read(tmp_path))
    for ours, theirs in zip(play(other, 30), play(batch, 30), strict=True):
        assert_same(ours, theirs)


def test_an_environment_depends_on_its_seed_and_number_alone():
    together = make("dmc/reacher-hard", 3, SEED, first_env=4, protocol=SHORT)
    alone = [make("dmc/reacher-hard", 1, SEED, first_env=4 + i, protocol=SHORT) for i in range(3)]
    frame = together.reset()
    np.testing.assert_array_equal(frame, np.concatenate([one.reset() for one in alone]))
    assert len({row.tobytes() for row in frame}) == 3
    for action in actions(together, 35):
        step, apart = together.step(action), [one.step(action[i : i + 1]) for i, one in enumerate(alone)]
        for name in ("frame", "reward", "truncated", "final_frame"):
            np.testing.assert_array_equal(getattr(step, name), np.concatenate([getattr(one, name) for one in apart]))
        np.testing.assert_array_equal(step.final_env, np.flatnonzero(step.reset))


def test_time_runs_out_after_dm_control_s_thousand_steps():
    protocol = suite_of("dmc").protocol
    assert protocol.action_repeat * protocol.episode_steps == 1000
    for task in ("pendulum-swingup", "cartpole-swingup"):
        theirs, control = bare(task), 0
        theirs.reset()
        while not theirs.step([0.0]).last():
            control += 1
        assert control == 999
    batch = make("dmc/pendulum-swingup", 1, SEED)
    batch.reset()
    for t in range(1, 502):
        step = batch.step(np.zeros((1, 1), np.float32))
        assert step.truncated[0] == (t == 500)
        assert not step.terminated[0]


def test_actions_are_stretched_to_the_actuators():
    """The quadruped's are asymmetric; -1 and 1 are their bounds exactly."""
    env = bare("quadruped-walk")
    bounds = env.action_spec()
    assert bounds.maximum.max() > 1.0
    centre, half = simulator.stretch(bounds.minimum, bounds.maximum)
    np.testing.assert_array_equal(centre - half, bounds.minimum)
    np.testing.assert_array_equal(centre + half, bounds.maximum)
    batch = make("dmc/quadruped-walk", 1, SEED)
    batch.reset()
    batch.step(np.ones((1, 12), np.float32))
    np.testing.assert_array_equal(batch._simulators[0].data.ctrl, bounds.maximum)
    with pytest.raises(ValueError, match="no bounds"):
        simulator.stretch([-np.inf], [1.0])


def test_the_suites_are_those_of_the_papers():
    """MR.Q's Table 3 and App. B.3; the released code of the primacy-bias paper."""
    suite = suite_of("dmc/walker-walk")
    assert (suite.name, suite.steps, suite.episodes, suite.every, len(suite.tasks)) == ("dmc28", 500_000, 10, 5_000, 28)
    assert suite.protocol == DmcProtocol()
    visual = suite_of("dmc-visual/walker-walk")
    assert (visual.name, visual.steps, visual.episodes, visual.every) == ("dmc28-visual", 500_000, 10, 5_000)
    assert visual.protocol == DmcProtocol(pixels=True, stack=3)
    assert [task.partition("/")[2] for task in visual.tasks] == TASKS
    resets = suite_of("dmc10-resets/cheetah-run")
    assert (resets.name, resets.steps, resets.episodes, resets.every, len(resets.tasks)) == ("dmc10-resets", 2_000_000, 10, 5_000, 10)  # fmt: skip
    assert resets.protocol == DmcProtocol(action_repeat=1, episode_steps=1_000)
    for one in (suite, visual, resets):
        assert {one.scale(task) for task in one.tasks} == {(0.0, 1000.0)}
        for task in one.tasks:
            dmc.split(task)


def test_every_task_is_dm_control_s():
    assert len({task.partition("-")[0] for task in TASKS}) == 13
    assert make("dmc10-resets/swimmer-swimmer15", 1, 0).spec.frames_per_step == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make("dmc/walker-wolk", 1, 0), "unknown task of DeepMind Control: 'walker-wolk'; did you mean walker-walk"),
        (lambda: make("dmc/lqr-lqr_2_1", 1, 0), "lqr-lqr_2_1 cannot be played: its actions have no bounds"),
        (lambda: make("dmc/walker-walk", 1, 0, protocol="pixels"), "unknown variant of dmc28"),
        (lambda: DmcProtocol(action_repeat=0), "protocol.action_repeat must be >= 1, got 0"),
        (lambda: DmcProtocol(frame_size=481), "protocol.frame_size must be <= 480"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_wrong_action_is_refused_and_changes_nothing():
    batch, twin = (make("dmc/cartpole-swingup", 2, 0) for _ in range(2))
    with pytest.raises(ValueError, match=r"reset\(\) the environments"):
        batch.step(np.zeros((2, 1), np.float32))
    batch.reset(), twin.reset()
    for action, message in (
        (np.zeros((2, 1)), r"must be float32 \[2, 1\], got float64"),
        (np.zeros((2,), np.float32), r"got float32 \[2\]"),
        ([[0.0], [0.0]], "got list"),
        (np.array([[0.0], [1.01]], np.float32), r"of environment 1 of the batch is not in \[-1, 1\]"),
        (np.array([[np.nan], [0.0]], np.float32), r"action \[nan\] of environment 0"),
    ):
        with pytest.raises(ValueError, match=message):
            batch.step(action)
    for ours, theirs in zip(play(batch, 5), play(twin, 5), strict=True):
        assert_same(ours, theirs)
    batch.close()
    for call in (batch.reset, batch.state_dict, lambda: batch.step(np.zeros((2, 1), np.float32))):
        with pytest.raises(ValueError, match="closed"):
            call()


def damaged(state, **changes):
    """The state with the last simulator's parts changed; those that are None are missing."""
    *others, last = state["simulators"]
    changed = {key: value for key, value in {**last, **changes}.items() if value is not None}
    return {**state, "simulators": [*others, changed]}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: {**s, "env": "dmc/walker-run"}, "its env is"),
        (lambda s: {**s, "mujoco": "2.0"}, "its mujoco is '2.0'"),
        (lambda s: {**s, "dm_control": "1.0"}, "its dm_control is '1.0'"),
        (lambda s: {**s, "protocol": {**s["protocol"], "action_repeat": 1}}, "its protocol is"),
        (lambda s: {**s, "simulators": s["simulators"][:1]}, "holds 1 simulators, here are 2"),
        (lambda s: {key: value for key, value in s.items() if key != "started"}, "lacks 'started'"),
        (lambda s: damaged(s, physics=np.zeros(3)), "physics must be float64"),
        (lambda s: damaged(s, physics=s["simulators"][0]["physics"].astype(np.float32)), "got float32"),
        (lambda s: damaged(s, steps=None), "lacks 'steps'"),
        (lambda s: damaged(s, random=None), "lacks 'random'"),
        (lambda s: damaged(s, model={"mesh_vert": np.zeros(3)}), "no episode writes the model's mesh_vert"),
        (lambda s: damaged(s, model={"geom_pos": np.zeros(3)}), "geom_pos must be float64"),
        (lambda s: damaged(s, stale={"xpos": np.zeros(3)}), "xpos of its stale fields"),
    ],
)
def test_a_foreign_or_damaged_state_is_refused_and_changes_nothing(damage, message):
    batch, twin = (make("dmc/reacher-easy", 2, 0, protocol=SHORT) for _ in range(2))
    source = make("dmc/reacher-easy", 2, 9, protocol=SHORT)
    batch.reset(), twin.reset(), source.reset()
    with pytest.raises(ValueError, match=message):
        batch.load_state_dict(damage(source.state_dict()))
    for ours, theirs in zip(play(batch, 31), play(twin, 31), strict=True):
        assert_same(ours, theirs)


def test_a_simulation_that_diverges_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log where it stands
    batch = make("dmc/cheetah-run", 1, 0)
    batch.reset()
    batch._simulators[0].data.qvel[0] = 1e30
    with pytest.raises(FloatingPointError, match="the simulation of cheetah-run diverged: .*mjWARN"):
        play(batch, 5)


@pytest.mark.parametrize("steps", [0, 3])
def test_so_is_one_of_gymnasium_s(monkeypatch, tmp_path, steps):
    """MuJoCo puts it back to its start without a word, in its first step, too."""
    monkeypatch.chdir(tmp_path)
    batch = make("gym/HalfCheetah", 1, 0)
    batch.reset()
    play(batch, steps)
    batch._simulators[0].data.qvel[0] = 1e30
    with pytest.raises(FloatingPointError, match="the simulation of HalfCheetah.* diverged"):
        play(batch, 1)


def test_a_terrain_that_changes_is_refused():
    with pytest.raises(ValueError, match="quadruped-escape cannot be played: pictures of it"):
        make("dmc/quadruped-escape", 1, 0)


def test_without_the_packages_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(envs.importlib.util, "find_spec", lambda name: None)
    extra = r": pip install 'rlplatform\[dmc\]'$"
    with pytest.raises(ValueError, match="^DeepMind Control needs dm-control and mujoco" + extra):
        make("dmc/walker-walk", 1, 0)
    with pytest.raises(ValueError, match="^MuJoCo in Gymnasium needs mujoco" + extra):
        make("gym/Ant", 1, 0)


# -- Pictures ---------------------------------------------------------------------------------------------------------


def drawn():
    try:
        return painting.backend()
    except ValueError as error:
        return pytest.skip(str(error))


@pytest.mark.parametrize(("task", "camera"), [("walker-walk", 0), ("quadruped-walk", 2), ("reacher-easy", 0)])
def test_frames_of_pixels_are_dm_control_s_pictures(task, camera):
    drawn()
    batch, theirs = make(f"dmc-visual/{task}", 1, SEED), bare(task)
    assert (batch.spec.frame_shape, batch.spec.frame_dtype, batch.spec.stack) == ((3, 84, 84), "uint8", 3)
    frame = batch.reset()[0]
    theirs.reset()
    for action in actions(batch, 4):
        picture = theirs.physics.render(84, 84, camera_id=camera)
        assert picture.std() > 5  # something is seen
        np.testing.assert_array_equal(frame, picture.transpose(2, 0, 1))
        bounds = theirs.action_spec()
        centre, half = simulator.stretch(bounds.minimum, bounds.maximum)
        theirs.step(centre + half * action[0]), theirs.step(centre + half * action[0])
        frame = batch.step(action).frame[0]


def test_pixels_go_on_bit_for_bit():
    """The target of the reacher, which is seen, is in no physical state."""
    drawn()
    protocol = dataclasses.replace(suite_of("dmc-visual").protocol, episode_steps=5)
    batch, other = (make("dmc-visual/reacher-hard", 2, seed, protocol=protocol) for seed in (0, 1))
    batch.reset(), other.reset()
    play(batch, 3)
    other.load_state_dict(batch.state_dict())
    for ours, theirs in zip(play(other, 6), play(batch, 6), strict=True):
        assert_same(ours, theirs)


def test_any_thread_may_draw():
    drawn()
    batch, pictures = make("dmc/cheetah-run", 1, 0), []
    batch.reset()
    pictures.append(batch.render())
    for _ in range(2):
        thread = threading.Thread(target=lambda: pictures.append(batch.render()))
        thread.start()
        thread.join()
    assert [picture.shape for picture in pictures] == [(240, 320, 3)] * 3
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])
    with pytest.raises(ValueError, match="at most 480 pixels high and 640 wide, got 481 x 10"):
        batch.render(0, 481, 10)


@pytest.mark.parametrize(
    ("named", "egl", "osmesa", "expected"),
    [
        ("", "", "", "egl"),
        ("", "no", "", "osmesa"),
        ("osmesa", "", "", "osmesa"),
        ("EGL", "", "no", "egl"),
        ("", "libEGL.so.1 is not installed", "libOSMesa is not installed", r"\(egl: libEGL.so.1 is not installed; osmesa: libOSMesa is not installed\). Debian's"),
        ("egl", "gone", "", r"\(egl: gone\)"),
        ("glfw", "", "", r"\$MUJOCO_GL has to be egl, osmesa or unset, got 'glfw'"),
    ],
)  # fmt: skip
def test_what_draws_is_what_works(monkeypatch, named, egl, osmesa, expected):
    monkeypatch.setenv("MUJOCO_GL", named)
    monkeypatch.setattr(painting, "missing_for_egl", lambda: egl)
    monkeypatch.setattr(painting, "missing_for_osmesa", lambda: osmesa)
    choose = painting.backend.__wrapped__
    if expected in ("egl", "osmesa"):
        assert choose() == expected
    else:
        with pytest.raises(ValueError, match=expected):
            choose()


def test_an_episode_is_filmed(tmp_path):
    drawn()
    protocol = dataclasses.replace(SHORT, episode_steps=4)

    def play_one(make_env):
        env = make_env(seed=0, first_env=0)
        env.reset()
        play(env, 4)
        env.close()

    with video.filming(lambda *, seed, first_env: make("dmc/fish-swim", 1, seed, first_env, protocol), tmp_path / "a.gif") as filmed:  # fmt: skip
        play_one(filmed)
    with Image.open(tmp_path / "a.gif") as film:
        assert (film.n_frames, film.size) == (4, (320, 240))  # the first picture, and one a step but for the last


def test_gymnasium_knows_the_tasks():
    vector = gymnasium.make_vec(gym_id("dmc/walker-walk"), num_envs=2, protocol=SHORT)
    assert gym_id("dmc/walker-walk") == "rlplatform/DMC-Walker-walk-v0"
    assert vector.observation_space.shape == (2, 1, 24)
    vector.reset(seed=1)
    for t in range(1, 31):
        obs, _, _, truncated, infos = vector.step(vector.action_space.sample())
        assert truncated.all() == (t == 30)
    assert obs.shape == (2, 1, 24)
    assert obs.dtype == np.float32
    assert (infos["final_obs"][0] != obs[0]).any()
    vector.close()
