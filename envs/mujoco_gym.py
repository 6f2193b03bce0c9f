"""Gymnasium's MuJoCo environments with whole-state save and restore."""

from typing import Any, cast

import gymnasium
import mujoco  # type: ignore[import-untyped,import-not-found,unused-ignore]
import numpy as np
from gymnasium.envs.registration import load_env_creator

from rlplatform.envs.changing_physics import PhaseClock
from rlplatform.envs.painting import Painter
from rlplatform.envs.simulator import Outcome, Simulator, SimulatorBatch, stretch
from rlplatform.envs.suites import ChangingPhysics, GymProtocol, as_state, unknown
from rlplatform.streams import Stream
from rlplatform.types import Array, EnvBatch, Spec, State

ENVIRONMENTS = ("HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid")
TRACKING = 0  # the one camera that each of them has, which follows the body


def make_gym(task: str, n: int, seed: int, first_env: int, protocol: GymProtocol) -> EnvBatch:
    """N environments of "gym/<Environment>" or, by a protocol under which physics change, "continual-gym/<Environment>": Gymnasium's own, of the protocol's version, without its wrappers.

    Frames are observations as they are, in float32. A body that falls terminates where the environment says so; a step that is
    the last and terminates says both, as Gymnasium does.

    Raises:
        ValueError: no such environment.
    """
    name = check_name(task)
    streams = [Stream(seed, "env", first_env + i) for i in range(n)]
    simulators = [GymSimulator(f"{name}-{protocol.version}", protocol.episode_steps, stream) for stream in streams]
    first = simulators[0]
    spec = Spec(first.shape, "float32", stack=1, actions=0, action_shape=first.centre.shape)
    origin = {"gymnasium": gymnasium.__version__, "protocol": as_state(protocol)}
    phases = PhaseClock(protocol, seed) if isinstance(protocol, ChangingPhysics) else None
    return SimulatorBatch(task, simulators, spec, first_env, Painter(), TRACKING, origin, phases)


def check_name(task: str) -> str:
    """The environment's name, "Ant" of "gym/Ant". ValueError, with the nearest names, where there is no such environment."""
    name = task.rpartition("/")[2]
    if name not in ENVIRONMENTS:
        raise ValueError(unknown("MuJoCo environment of Gymnasium", name, ENVIRONMENTS))
    return name


_WARNINGS = mujoco.mjtWarning
_WILD = (_WARNINGS.mjWARN_BADQPOS, _WARNINGS.mjWARN_BADQVEL, _WARNINGS.mjWARN_BADQACC, _WARNINGS.mjWARN_BADCTRL)


class GymSimulator(Simulator):
    """One of them."""

    # The speed of Ant and Humanoid is the difference of such positions before and after a step.
    stale = ("xipos", "xpos")

    def __init__(self, name: str, episode_steps: int, stream: Stream) -> None:
        """`stream` keys the generator that starts are drawn from, numpy's Philox (4x64 bits, not the stream's own)."""
        entry_point = gymnasium.spec(name).entry_point
        assert isinstance(entry_point, str)
        self._env = cast(
            Any, load_env_creator(entry_point)()
        )  # make() would warn that v4 is old, and count time for itself
        self._env.np_random = np.random.Generator(np.random.Philox(key=stream.key))
        self._name, self._episode_steps = name, episode_steps
        self.shape: tuple[int, ...] = self._env.observation_space.shape
        self.centre, self._half = stretch(self._env.action_space.low, self._env.action_space.high)
        super().__init__(self._env.model, self._env.data)

    def begin(self) -> Array:
        self.steps = 0
        frame, _ = self._env.reset()
        return np.asarray(frame, np.float32)

    def step(self, action: Array) -> Outcome:
        force = (self.centre + self._half * action).astype(np.float32)  # Gymnasium's dtype of actions
        frame, reward, terminated, _, _ = self._env.step(force)
        # MuJoCo puts a simulation that has gone wild back to its start, and goes on; an episode begins with no warnings.
        if any(self.data.warning[kind].number for kind in _WILD):
            raise FloatingPointError(f"the simulation of {self._name} diverged")
        self.steps += 1
        over = self.steps >= self._episode_steps
        return Outcome(np.asarray(frame, np.float32), float(reward), bool(terminated), over)

    def random_state(self) -> State:
        return dict(self._env.np_random.bit_generator.state)

    def set_random_state(self, state: State) -> None:
        self._env.np_random.bit_generator.state = dict(state)
