"""Several tasks in one batch: each environment is its task's own, behind one shape; saved and restored; what is refused."""

import numpy as np
import pytest

from rlplatform.envs import MultitaskProtocol, make, suite_of
from rlplatform.envs.multitask import make_multitask

PAIR = MultitaskProtocol(("control/Pendulum", "control/MountainCarContinuous"), observation=4, actions=2)


def batch(n, first_env=0, protocol=PAIR):
    return make_multitask("multitask-test", n, 7, first_env, protocol)


def test_environment_i_is_its_task_s_own():
    """Observations, rewards and true last frames, past the ends of episodes of both."""
    envs, rng = batch(3, first_env=1), np.random.default_rng(0)
    names = ["control/MountainCarContinuous", "control/Pendulum", "control/MountainCarContinuous"]
    own = [make(name, 1, 7, 1 + i) for i, name in enumerate(names)]
    frame, ended = envs.reset(), 0
    for i, env in enumerate(own):
        size = env.spec.frame_shape[0]
        np.testing.assert_array_equal(frame[i, :size], env.reset()[0])
        np.testing.assert_array_equal(frame[i, size:4], 0.0)
        np.testing.assert_array_equal(frame[i, 4:], [1, 0, 1, 0] if "Pendulum" in names[i] else [1, 0, 0, 1])
    for _ in range(1_010):
        action = rng.uniform(-1, 1, (3, 2)).astype(np.float32)
        step, finals = envs.step(action), []
        for i, env in enumerate(own):
            one, size = env.step(action[i : i + 1, :1]), env.spec.frame_shape[0]
            np.testing.assert_array_equal(step.frame[i, :size], one.frame[0])
            for name in ("reward", "terminated", "truncated", "reset"):
                assert getattr(step, name)[i] == getattr(one, name)[0]
            finals += [(i, f) for f in one.final_frame]
        assert step.final_env.tolist() == [i for i, _ in finals]
        assert step.final_frame.shape == (len(finals), 8)
        for row, (i, f) in zip(step.final_frame, finals, strict=True):
            np.testing.assert_array_equal(row[: len(f)], f)
            np.testing.assert_array_equal(row[4:], frame[i, 4:])
        ended += len(finals)
    assert ended >= 7  # the pendulum's five, and one of each car


def test_a_saved_batch_goes_on_bit_for_bit():
    one, other, rng = batch(2), batch(2), np.random.default_rng(1)
    one.reset()
    actions = rng.uniform(-1, 1, (450, 2, 2)).astype(np.float32)
    for action in actions[:250]:
        one.step(action)
    other.load_state_dict(one.state_dict())
    for action in actions[250:]:
        for a, b in zip(one.step(action), other.step(action), strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_an_action_says_where_the_task_has_none_is_dropped():
    one, other = batch(2), batch(2)
    one.reset(), other.reset()
    action = np.full((2, 2), 0.3, np.float32)
    loud = action.copy()
    loud[:, 1] = np.nan
    np.testing.assert_array_equal(one.step(action).frame, other.step(loud).frame)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (
            MultitaskProtocol(("control/CartPole",)),
            "control/CartPole has not vectors of float32 and continuous actions",
        ),
        (MultitaskProtocol(("minatar/Breakout",)), "minatar/Breakout has not vectors"),
        (MultitaskProtocol(("control/Pendulum",), observation=2), "3 numbers, more than protocol.observation = 2"),
        (MultitaskProtocol(("control/Pendulun",)), "did you mean Pendulum"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(protocol, message):
    with pytest.raises(ValueError, match=message):
        batch(1, protocol=protocol)


@pytest.mark.parametrize("tasks", [(), ("control/Pendulum", "control/Pendulum")])
def test_no_task_and_the_same_task_twice_are_refused(tasks):
    with pytest.raises(ValueError, match="must name tasks, each once"):
        MultitaskProtocol(tasks)


def test_wrong_actions_states_and_closed_batches_are_refused():
    envs = batch(2)
    envs.reset()
    for wrong in (np.zeros((2, 1), np.float32), np.zeros((2, 2))):
        with pytest.raises(ValueError, match=r"action must be float32 \[2, 2\]"):
            envs.step(wrong)
    with pytest.raises(ValueError, match="of other environments: its tasks"):
        envs.load_state_dict(batch(2, first_env=1).state_dict())
    with pytest.raises(ValueError, match="of other environments: its n"):
        envs.load_state_dict(batch(3).state_dict())
    damaged = batch(2).state_dict()
    damaged["members"] = damaged["members"][:1]
    with pytest.raises(ValueError, match="damaged state: it holds 1 environments, here are 2"):
        envs.load_state_dict(damaged)
    envs.close()
    with pytest.raises(ValueError, match="closed"):
        envs.step(np.zeros((2, 2), np.float32))


def test_a_refused_call_changes_nothing():
    envs, twin = batch(2), batch(2)
    envs.reset(), twin.reset()
    action = np.full((2, 2), 0.3, np.float32)
    bad, ahead = action.copy(), batch(2)
    bad[1, 0] = np.nan
    with pytest.raises(ValueError, match="of environment 1 of the batch"):
        envs.step(bad)
    ahead.reset(), ahead.step(action)
    damaged = ahead.state_dict()
    damaged["members"][1] = make("control/CartPole", 1, 0).state_dict()
    with pytest.raises(ValueError, match="of other environments"):
        envs.load_state_dict(damaged)
    np.testing.assert_array_equal(envs.step(action).frame, twin.step(action).frame)


@pytest.mark.parametrize("task", ["multitask-dmc6", "multitask-dmc21"])
def test_suites_of_deepmind_control_fit(task):
    pytest.importorskip("dm_control")
    count = int(task.removeprefix("multitask-dmc"))
    envs = make(task, count, 0)
    frame = envs.reset()
    assert envs.spec.frame_shape == (144 + count,)
    np.testing.assert_array_equal(frame[:, 144:], np.eye(count))
    assert (frame[:, 128:144].sum(1) >= 1).all()
    assert envs.spec.frames_per_step == 2
    assert suite_of(task).scale(task) == (0.0, 1_000.0)
    envs.close()
