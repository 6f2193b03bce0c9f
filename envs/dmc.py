"""DeepMind Control: dm_control's suite, stepped as its own loop steps it, with whole-state save and restore.

The task and the physics are dm_control's; the loop around them (dm_control.rl.control.Environment) is ours, since it can
neither be saved nor leave out the observations between two repeats of an action.
"""

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from rlplatform.envs.changing_physics import PhaseClock
from rlplatform.envs.painting import CHOICE, Painter, backend
from rlplatform.envs.simulator import Outcome, Simulator, SimulatorBatch, stretch
from rlplatform.envs.suites import ChangingPhysics, DmcProtocol, as_state, unknown
from rlplatform.streams import Stream
from rlplatform.types import Array, EnvBatch, Spec, State

CAMERAS = {"quadruped": 2}  # by domain, where it is not 0: from behind and above, as in DrQ-v2 and MR.Q


def make_dmc(task: str, n: int, seed: int, first_env: int, protocol: DmcProtocol) -> EnvBatch:
    """N environments of "<family>/<domain>-<task>", as in "dmc/cheetah-run"; "continual-dmc/..." is played by a protocol under which
    physics change.

    Frames are the task's observations side by side in dm_control's order, float32 [D]; by `protocol.pixels` pictures,
    uint8 [3, size, size]. Episodes are only ever truncated.

    Raises:
        ValueError: no such task (with the nearest names), one whose actions have no bounds, or nothing can draw pictures.
    """
    domain, name = split(task)
    camera, painter = CAMERAS.get(domain, 0), Painter()
    streams = [Stream(seed, "env", first_env + i) for i in range(n)]
    simulators = [DmcSimulator(domain, name, protocol, stream, painter, camera) for stream in streams]
    first = simulators[0]
    frame_shape = (3, protocol.frame_size, protocol.frame_size) if protocol.pixels else (first.size,)
    spec = Spec(
        frame_shape, "uint8" if protocol.pixels else "float32", protocol.stack, actions=0, action_shape=first.centre.shape,
        frames_per_step=protocol.action_repeat,
    )  # fmt: skip
    if protocol.pixels:
        backend()  # whatever is missing is said now
    origin = {"dm_control": importlib.metadata.version("dm-control"), "protocol": as_state(protocol)}
    phases = PhaseClock(protocol, seed) if isinstance(protocol, ChangingPhysics) else None
    return SimulatorBatch(task, simulators, spec, first_env, painter, camera, origin, phases)


def split(task: str) -> tuple[str, str]:
    """("ball_in_cup", "catch") of "dmc/ball_in_cup-catch".

    Raises:
        ValueError: dm_control's suite does not have it; the message offers the nearest names.
    """
    name = task.rpartition("/")[2]
    known = {f"{domain}-{of}": (domain, of) for domain, of in _suite().ALL_TASKS}
    if name not in known:
        raise ValueError(unknown("task of DeepMind Control", name, known))
    return known[name]


def observation_keys(domain: str, name: str) -> tuple[str, ...]:
    """The parts of a task's observation, in dm_control's order."""
    return tuple(_suite().load(domain, name).observation_spec())


class DmcSimulator(Simulator):
    """One task of dm_control's suite."""

    def __init__(
        self, domain: str, name: str, protocol: DmcProtocol, stream: Stream, painter: Painter, camera: int
    ) -> None:
        """`stream` keys the generator that the task draws starts from, numpy's Philox (4x64 bits, not the stream's own)."""
        self._random = np.random.RandomState(np.random.Philox(key=stream.key))
        env = _suite().load(domain, name, task_kwargs={"random": self._random})
        self._diverged = importlib.import_module("dm_control.rl.control").PhysicsError
        self._task, self._physics_, self._name = env.task, env.physics, f"{domain}-{name}"
        self._substeps = round(env.control_timestep() / env.physics.timestep())
        bounds = env.action_spec()
        try:
            self.centre, self._half = stretch(bounds.minimum, bounds.maximum)
        except ValueError as error:
            raise ValueError(f"{self._name} cannot be played: {error}") from error
        if self._name == "quadruped-escape":  # its episodes cannot even begin without dm_control's own renderer
            raise ValueError(
                f"{self._name} cannot be played: pictures of it would not show the terrain, new in each episode"
            )
        self.size = sum(int(np.prod(spec.shape)) for spec in env.observation_spec().values())
        self._protocol, self._painter, self._camera = protocol, painter, camera
        super().__init__(env.physics.model.ptr, env.physics.data.ptr)

    def begin(self) -> Array:
        with self._physics_.reset_context():
            self._task.initialize_episode(self._physics_)
        self.steps = 0
        return self._frame()

    def step(self, action: Array) -> Outcome:
        task, physics = self._task, self._physics_
        force = self.centre + self._half * action
        reward = 0.0
        try:
            for _ in range(self._protocol.action_repeat):
                task.before_step(force, physics)
                physics.step(self._substeps)
                task.after_step(physics)
                reward += float(task.get_reward(physics))
        except self._diverged as error:
            raise FloatingPointError(f"the simulation of {self._name} diverged: {error}") from error
        self.steps += 1
        return Outcome(self._frame(), reward, False, self.steps >= self._protocol.episode_steps)

    def notes(self) -> dict[str, Any]:
        # The dog's heights and weight, by which it is rewarded, are found out when its first episode begins.
        kept = {name: value for name, value in vars(self._task).items() if isinstance(value, float | np.ndarray)}
        return {name: value.copy() if isinstance(value, np.ndarray) else float(value) for name, value in kept.items()}

    def take_notes(self, notes: Mapping[str, Any]) -> None:
        vars(self._task).update(notes)

    def random_state(self) -> State:
        state: Any = self._random.get_state(legacy=False)
        return dict(state)

    def set_random_state(self, state: State) -> None:
        self._random.set_state(dict(state))

    def _frame(self) -> Array:
        if self._protocol.pixels:
            size = self._protocol.frame_size
            picture = self._painter.picture(self.model, self.data, self._camera, size, size)
            return np.ascontiguousarray(picture.transpose(2, 0, 1))
        parts = self._task.get_observation(self._physics_).values()
        return np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)


def _suite() -> Any:
    """dm_control.suite. Importing it loads a renderer: the one that works without a display, unless the user has named one."""
    if "dm_control.suite" in sys.modules:
        return sys.modules["dm_control.suite"]
    with _renderer_named():
        return importlib.import_module("dm_control.suite")


@contextmanager
def _renderer_named() -> Iterator[None]:
    if CHOICE in os.environ:
        yield
        return
    try:
        os.environ[CHOICE] = backend()
    except ValueError:
        os.environ[CHOICE] = "off"  # it is not needed before a picture is
    try:
        yield
    finally:
        del os.environ[CHOICE]
