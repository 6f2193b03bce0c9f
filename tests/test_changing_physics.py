"""Friction and gravity that change from phase to phase. The oracle is gymnasium.make with the same numbers written into its model."""

import dataclasses
import json
import math

import numpy as np
import pytest

from rlplatform.envs import ContinualDmcProtocol, ContinualGymProtocol, DmcProtocol, GymProtocol, make, suite_of
from rlplatform.evaluation.phases import phases_of
from rlplatform.evaluation.runs import Run
from rlplatform.streams import Stream
from simulated import actions, assert_same, equal, play

pytest.importorskip("mujoco", reason="MuJoCo is in the extra `dmc`")

import gymnasium

SEED = 3
PHYSICS = {"friction": (1.0, 0.1, 2.0), "gravity": (1.0, 1.5)}


def gym_protocol(**changes):
    return ContinualGymProtocol(**{"episode_steps": 25, "phase_steps": 40, **PHYSICS, **changes})


def dmc_protocol(**changes):
    return ContinualDmcProtocol(**{"episode_steps": 25, "phase_steps": 40, **PHYSICS, **changes})


@pytest.mark.filterwarnings("ignore:.*environment .*-v4 is out of date:DeprecationWarning")
@pytest.mark.parametrize("name", ["HalfCheetah", "Hopper"])
def test_each_phase_is_gymnasium_s_environment_with_that_physics(name):
    """Steps, starts, time limits, and the game cut short where a phase ends, to the bit."""
    batch = make(f"continual-gym/{name}", 1, SEED, first_env=2, protocol=gym_protocol())
    theirs = gymnasium.make(f"{name}-v4", max_episode_steps=25)
    inner = theirs.unwrapped
    inner.np_random = np.random.Generator(np.random.Philox(key=Stream(SEED, "env", 2).key))
    friction, gravity = inner.model.geom_friction.copy(), inner.model.opt.gravity.copy()

    def begin(phase):
        inner.model.geom_friction[:, 0] = (1.0, 0.1, 2.0)[phase % 3] * friction[:, 0]
        inner.model.opt.gravity[:] = (1.0, 1.5)[phase % 2] * gravity
        return theirs.reset()[0].astype(np.float32)

    np.testing.assert_array_equal(batch.reset()[0], begin(0))
    kinds = set()
    for t, action in enumerate(actions(batch, 210), start=1):
        step = batch.step(action)
        frame, reward, terminated, truncated, _ = theirs.step(action[0])
        ends = t % 40 == 0
        assert batch.phase == t // 40
        assert step.reward[0] == np.float32(reward)
        assert (step.terminated[0], step.truncated[0]) == (terminated, truncated or (ends and not terminated))
        if terminated or truncated or ends:
            kinds.add((terminated, truncated, ends))
            np.testing.assert_array_equal(step.final_frame[0], frame.astype(np.float32))
            frame = begin(t // 40)
        np.testing.assert_array_equal(step.frame[0], frame.astype(np.float32))
    assert (False, False, True) in kinds
    assert len(kinds) > 1


@pytest.mark.parametrize(
    ("changing", "plain", "protocol", "same"),
    [
        ("continual-gym/Walker2d", "gym/Walker2d", gym_protocol(phase_steps=60, gravity=(1.0,)), GymProtocol(episode_steps=25)),
        ("continual-dmc/walker-walk", "dmc/walker-walk", dmc_protocol(phase_steps=60, gravity=(1.0,)), DmcProtocol(episode_steps=25)),
    ],
)  # fmt: skip
def test_the_first_phase_is_the_plain_environment_and_the_second_is_not(changing, plain, protocol, same):
    ours, theirs = make(changing, 2, SEED, protocol=protocol), make(plain, 2, SEED, protocol=same)
    assert theirs.phase is None
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    for a, b in zip(play(ours, 59), play(theirs, 59), strict=True):
        assert_same(a, b)
    play(ours, 1), play(theirs, 1)
    assert ours.phase == 1
    differ = [a.frame.tobytes() != b.frame.tobytes() for a, b in zip(play(ours, 20), play(theirs, 20), strict=True)]
    assert differ[-1]


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("task", ["continual-gym/Hopper", "continual-gym/Ant", "continual-dmc/walker-run"])
def test_a_saved_environment_goes_on_bit_for_bit(task, drawn):
    """Through ends of phases, into environments of another seed, in another phase."""
    protocol = (gym_protocol if "gym" in task else dmc_protocol)(drawn=drawn, phase_steps=15)
    batch, other = make(task, 2, SEED, first_env=3, protocol=protocol), make(task, 2, SEED + 1, protocol=protocol)
    batch.reset(), other.reset()
    play(other, 37)
    for before in (11, 22):
        play(batch, before, seed=before)
        state = batch.state_dict()
        expected, phase = play(batch, 40, seed=100), batch.phase
        other.load_state_dict(state)
        assert equal(other.state_dict(), state)
        for ours, theirs in zip(play(other, 40, seed=100), expected, strict=True):
            assert_same(ours, theirs)
        assert other.phase == phase
        assert equal(other.state_dict(), batch.state_dict())


def test_a_game_that_terminates_on_the_last_step_of_a_phase_terminates():
    plain = make("gym/Hopper", 1, SEED, protocol=GymProtocol(episode_steps=500))
    plain.reset()
    falls = next(t for t, step in enumerate(play(plain, 400), start=1) if step.terminated[0])
    batch = make("continual-gym/Hopper", 1, SEED, protocol=gym_protocol(episode_steps=500, phase_steps=falls))
    batch.reset()
    last = play(batch, falls)[-1]
    assert (last.terminated[0], last.truncated[0], last.reset[0], batch.phase) == (True, False, True, 1)


def test_all_environments_are_truncated_together_whoever_begins_when():
    batch = make("continual-gym/Hopper", 3, SEED, protocol=gym_protocol(phase_steps=33, first_phase=7))
    batch.reset()
    assert batch.phase == 7
    for simulator in batch._simulators:
        np.testing.assert_array_equal(
            simulator.model.geom_friction[:, 0], 0.1 * simulator.as_loaded["geom_friction"][:, 0]
        )
        np.testing.assert_array_equal(simulator.model.opt.gravity, 1.5 * simulator.gravity)
    steps = play(batch, 66)
    for t in (32, 65):
        assert (steps[t].terminated | steps[t].truncated).all()
        assert len(steps[t].final_frame) == 3
    assert batch.phase == 9
    batch.reset()  # begins episodes, not phases
    assert batch.phase == 9


def factors(seed, phases, n=1, first_env=0):
    """Of friction and gravity in each of so many phases, read from the model."""
    protocol = ContinualGymProtocol(
        episode_steps=5, phase_steps=1, friction=(0.02, 2.0), gravity=(0.5, 1.0), drawn=True
    )
    batch = make("continual-gym/HalfCheetah", n, seed, first_env, protocol=protocol)
    clock, found = batch._phases, []
    model, loaded = batch._simulators[0].model, batch._simulators[0].as_loaded["geom_friction"]
    for phase in range(phases):
        clock.number = phase
        clock.enter(batch._simulators[0])
        ratio = model.geom_friction[:, 0] / loaded[:, 0]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)
        np.testing.assert_array_equal(model.geom_friction[:, 1:], loaded[:, 1:])
        found.append((ratio[0], model.opt.gravity[2] / -9.81))
    return np.array(found)


def test_drawn_physics_are_log_uniform_and_the_run_s_own():
    """The mean of log(friction) over 400 phases within 5 standard errors; the smallest and largest close to the ends."""
    found = factors(SEED, 401)
    np.testing.assert_allclose(found[0], 1.0, rtol=1e-12)
    for column, (low, high) in zip(found[1:].T, ((0.02, 2.0), (0.5, 1.0)), strict=True):
        assert low <= column.min() < column.max() <= high
        assert column.min() < low * (high / low) ** 0.05  # else 400 draws missed a twentieth: 1e-9
        assert column.max() > low * (high / low) ** 0.95
        logs, width = np.log(column), math.log(high / low)
        assert abs(logs.mean() - math.log(low * high) / 2) < 5 * width / math.sqrt(12 * 400)
        assert abs(logs.std() - width / math.sqrt(12)) < 0.1 * width
    assert abs(np.corrcoef(np.log(found[1:]).T)[0, 1]) < 5 / math.sqrt(400)
    np.testing.assert_array_equal(factors(SEED, 6, n=2, first_env=4), found[:6])
    assert not np.array_equal(factors(SEED + 1, 6), found[:6])


def test_states_that_cannot_be_are_refused_and_change_nothing():
    batch = make("continual-gym/Hopper", 1, SEED, protocol=gym_protocol())
    batch.reset()
    play(batch, 50)
    state, before = batch.state_dict(), batch.state_dict()
    for wrong, message in (
        ({"left": 41}, "phase 1 with 41 of its steps left"), ({"left": 0}, "with 0"), ({"phase": -1}, "phase -1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            batch.load_state_dict({**state, "phases": {**state["phases"], **wrong}})
    with pytest.raises(ValueError, match="it lacks 'phases'"):
        batch.load_state_dict({name: value for name, value in state.items() if name != "phases"})
    with pytest.raises(ValueError, match="its protocol is"):
        make("continual-gym/Hopper", 1, SEED, protocol=gym_protocol(gravity=(1.0,))).load_state_dict(state)
    assert equal(batch.state_dict(), before)
    play(batch, 30)  # to the first step of a phase, none of which is over
    assert batch.state_dict()["phases"] | {"key": 0} == {"phase": 2, "left": 40, "key": 0}
    batch.load_state_dict(batch.state_dict())


@pytest.mark.parametrize("kind", [ContinualGymProtocol, ContinualDmcProtocol])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"friction": ()}, "protocol.friction must be 1 to 8 factors"), ({"friction": (0.001,)}, "friction"),
        ({"gravity": (1.0, 101.0)}, "protocol.gravity"), ({"phase_steps": 0}, "phase_steps"), ({"first_phase": -1}, "first_phase"),
        ({"episode_steps": 0}, "episode_steps"), ({"friction": (float("nan"),)}, "friction"),
    ],
)  # fmt: skip
def test_protocols_out_of_range_are_refused(kind, wrong, message):
    with pytest.raises(ValueError, match=message):
        kind(**wrong)


def test_the_suites():
    for family, task, steps in (
        ("gym", "continual-gym/HalfCheetah", 1_800_000),
        ("dmc", "continual-dmc/walker-walk", 900_000),
    ):
        suite = suite_of(task)
        assert (suite.name, suite.steps) == (f"continual-{family}", steps)
        assert suite.protocol.phase_steps * 6 == steps
        assert (suite.protocol.friction, suite.protocol.cycle) == ((1.0, 0.1, 2.0), 3)
        slippery = suite.variants["slippery"]
        assert (slippery.friction, slippery.drawn, slippery.cycle) == ((0.02, 2.0), True, 0)
        plain = suite_of(f"{family}/" + task.partition("/")[2]).protocol
        assert all(
            getattr(suite.protocol, field.name) == getattr(plain, field.name) for field in dataclasses.fields(plain)
        )


def test_runs_are_cut_by_phase(tmp_path):
    config = {
        "preset": "sac",
        "task": "continual-gym/Hopper",
        "seed": 1,
        "steps": 300,
        "actors": 1,
        "envs": 1,
        "rollout": 1,
    }
    protocol = {**dataclasses.asdict(gym_protocol(phase_steps=100, gravity=(1.0,))), "evaluation": {}}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    (tmp_path / "protocol.json").write_text(json.dumps(protocol))
    for name in ("provenance.json", "result.json", "evals.csv"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "episodes.csv").write_text("step,env,score,length\n90,0,2.0,10\n100,0,9.0,40\n240,0,4.0,50\n")
    phases = phases_of(Run(tmp_path))
    assert [(phase.number, phase.games, phase.cut) for phase in phases] == [(0, 1, 1), (1, 0, 0), (2, 1, 0)]
