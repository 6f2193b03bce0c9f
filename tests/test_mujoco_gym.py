"""Gymnasium's MuJoCo environments. The oracle is gymnasium.make, drawing from the same generator."""

import dataclasses

import numpy as np
import pytest

from rlplatform.envs import GymProtocol, make, suite_of
from rlplatform.streams import Stream
from simulated import actions, assert_same, equal, play

pytest.importorskip("mujoco", reason="MuJoCo is in the extra `dmc`")

import gymnasium

SEED = 3
NAMES = [task.partition("/")[2] for task in suite_of("gym").tasks]
VERSIONS = ["v4", "v5"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_saved_environment_goes_on_bit_for_bit(name, version):
    """Through falls and time limits, into a new environment and into a used one."""
    protocol = GymProtocol(version, episode_steps=40)
    batch = make(f"gym/{name}", 2, SEED, first_env=3, protocol=protocol)
    other = make(f"gym/{name}", 2, SEED + 1, protocol=protocol)
    batch.reset()
    for before in (11, 7):
        play(batch, before, seed=before)
        state = batch.state_dict()
        expected = play(batch, 40, seed=100)
        assert sum(step.reset.sum() for step in expected) >= 2
        other.load_state_dict(state)
        assert equal(other.state_dict(), state)
        for ours, theirs in zip(play(other, 40, seed=100), expected, strict=True):
            assert_same(ours, theirs)
        assert equal(other.state_dict(), batch.state_dict())


@pytest.mark.filterwarnings("ignore:.*environment .*-v4 is out of date:DeprecationWarning")  # which is the point of v4
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_steps_are_gymnasium_s(name, version):
    protocol = GymProtocol(version, episode_steps=60)
    batch = make(f"gym/{name}", 1, SEED, first_env=2, protocol=protocol)
    theirs = gymnasium.make(f"{name}-{version}", max_episode_steps=60)
    theirs.unwrapped.np_random = np.random.Generator(np.random.Philox(key=Stream(SEED, "env", 2).key))
    low, high = theirs.action_space.low.astype(np.float64), theirs.action_space.high
    np.testing.assert_array_equal(batch.reset()[0], theirs.reset()[0].astype(np.float32))
    ends = set()
    for action in actions(batch, 130):
        step = batch.step(action)
        foreign = ((low + high) / 2 + (high - low) / 2 * action[0]).astype(np.float32)
        frame, reward, terminated, truncated, _ = theirs.step(foreign)
        assert step.reward[0] == np.float32(reward)
        assert (step.terminated[0], step.truncated[0]) == (terminated, truncated)
        assert step.reset[0] == (terminated or truncated)
        if step.reset[0]:
            ends.add("fell" if terminated else "time")
            np.testing.assert_array_equal(step.final_frame[0], frame.astype(np.float32))
            frame, _ = theirs.reset()
        np.testing.assert_array_equal(step.frame[0], frame.astype(np.float32))
    assert ("fell" in ends) == (name in ("Hopper", "Walker2d", "Humanoid"))
    assert "time" in ends or name in ("Hopper", "Humanoid")


def test_the_suite_is_that_of_the_paper():
    """App. B.3 of MR.Q: 1M steps, every 5k, 10 episodes, version 4; normalised between random play and TD3."""
    suite = suite_of("gym/Ant")
    assert (suite.name, suite.steps, suite.episodes, suite.every) == ("gym5", 1_000_000, 10, 5_000)
    assert (suite.protocol, suite.variants) == (GymProtocol(), {"v5": GymProtocol("v5")})
    assert NAMES == ["HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid"]
    assert suite.scale("gym/HalfCheetah") == (-289.415, 10574.0)
    random, td3 = np.array([suite.scores[task] for task in suite.tasks]).sum(0)
    np.testing.assert_allclose([random, td3], [-217.698, 26853.0], rtol=1e-12)  # sums of decimals in float64
    shapes = {name: make(f"gym/{name}", 1, 0).spec for name in NAMES}
    assert {name: (spec.frame_shape, spec.action_shape) for name, spec in shapes.items()} == {
        "HalfCheetah": ((17,), (6,)), "Hopper": ((11,), (3,)), "Walker2d": ((17,), (6,)), "Ant": ((27,), (8,)), "Humanoid": ((376,), (17,)),
    }  # fmt: skip
    assert make("gym/Ant", 1, 0, protocol="v5").spec.frame_shape == (105,)


def test_an_environment_depends_on_its_seed_and_number_alone():
    together, alone = make("gym/Hopper", 3, SEED, first_env=4), make("gym/Hopper", 1, SEED, first_env=6)
    frame = together.reset()
    assert len({row.tobytes() for row in frame}) == 3
    np.testing.assert_array_equal(frame[2:], alone.reset())
    for action in actions(together, 60):
        step, one = together.step(action), alone.step(action[2:])
        np.testing.assert_array_equal(step.frame[2:], one.frame)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make("gym/Walker", 1, 0), "unknown MuJoCo environment of Gymnasium: 'Walker'; did you mean Walker2d"),
        (lambda: GymProtocol("v3"), 'protocol.version must be "v4" or "v5", got \'v3\''),
        (lambda: GymProtocol(episode_steps=0), "protocol.episode_steps must be >= 1"),
    ],
)
def test_what_cannot_be_made_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_state_of_another_version_is_refused():
    batch = make("gym/Hopper", 1, 0)
    state = make("gym/Hopper", 1, 0, protocol="v5").state_dict()
    with pytest.raises(ValueError, match="its protocol is"):
        batch.load_state_dict(state)
    state = {**batch.state_dict(), "gymnasium": "0.29.1"}
    with pytest.raises(ValueError, match=r"its gymnasium is '0.29.1'"):
        batch.load_state_dict(state)
    assert dataclasses.asdict(GymProtocol()) == batch.state_dict()["protocol"]
