"""Environments on MuJoCo: what DeepMind Control and Gymnasium's have in common, and the batch of them.

A simulation that is saved and restored has to go on bit for bit, and MuJoCo's own "integration state" is not all of it:
  - a task may write into the model when an episode begins (where the target is), or note numbers of its own;
  - positions of bodies that Gymnasium reads before a step are those of one physics step ago, not what follows from the state.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import mujoco  # type: ignore[import-untyped,import-not-found,unused-ignore]
import numpy as np

from rlplatform.envs.native import check_state, describe
from rlplatform.envs.painting import Painter
from rlplatform.types import Array, Spec, State, Step

STATE_VERSION = 1
INTEGRATION = mujoco.mjtState.mjSTATE_INTEGRATION
# Fields of a model that no episode writes and that take megabytes: meshes, textures, the trees over them, and names.
ASSETS = ("bvh_", "flex", "mesh_", "names", "oct_", "paths", "plugin_attr", "skin_", "tex_", "text_")
FILM = (240, 320)  # height and width of a picture of a film


class Outcome(NamedTuple):
    """What an agent step of one environment came to."""

    frame: Array  # [*frame]
    reward: float
    terminated: bool
    truncated: bool


class Simulator(ABC):
    """One environment: a MuJoCo model and its data, and a task around them. Subclasses begin, step and draw random numbers."""

    stale: tuple[str, ...] = ()  # fields of the data that `step` reads before the physics have moved

    def __init__(self, model: Any, data: Any) -> None:
        """Of mujoco.MjModel and MjData."""
        self.model, self.data = model, data
        self.steps = 0  # agent steps since the episode began
        self.as_loaded = {name: values.copy() for name, values in _fields(model)}  # the model's fields
        self.gravity = model.opt.gravity.copy()  # as it was loaded; no field, and in no state: phases set it

    @abstractmethod
    def begin(self) -> Array:
        """Begin an episode; its first frame."""

    @abstractmethod
    def step(self, action: Array) -> Outcome:
        """One agent step by an action [A] float32 in [-1, 1]."""

    def notes(self) -> dict[str, Any]:
        """Numbers that the task keeps in Python."""
        return {}

    def take_notes(self, notes: Mapping[str, Any]) -> None:  # noqa: B027  # most tasks note nothing
        """Set what `notes` gave."""

    @abstractmethod
    def random_state(self) -> State:
        """Of the generator that the task draws from."""

    @abstractmethod
    def set_random_state(self, state: State) -> None: ...

    def state_dict(self) -> State:
        return {
            "physics": self._physics(),
            "stale": {name: getattr(self.data, name).copy() for name in self.stale},
            "model": {name: values.copy() for name, values in self._written()},
            "notes": self.notes(),
            "random": self.random_state(),
            "steps": self.steps,
        }

    def check(self, state: State) -> None:
        """Raise ValueError unless `load` can take this state."""
        _check_array("physics", state["physics"], np.float64, (mujoco.mj_stateSize(self.model, INTEGRATION),))
        if missing := set(self.stale) ^ set(state["stale"]):
            raise ValueError(f"damaged state: {', '.join(sorted(missing))} of its stale fields")
        for name, values in state["stale"].items():
            _check_array(name, values, np.float64, getattr(self.data, name).shape)
        for name, values in state["model"].items():
            if name not in self.as_loaded:
                raise ValueError(f"damaged state: no episode writes the model's {name}")
            _check_array(name, values, self.as_loaded[name].dtype, self.as_loaded[name].shape)
        for part in ("notes", "random", "steps"):
            state[part]

    def load(self, state: State) -> None:
        """Go on where `state_dict` was called; `check` has passed."""
        for name, values in self._written():
            values[...] = self.as_loaded[name]
        for name, values in state["model"].items():
            getattr(self.model, name)[...] = values
        mujoco.mj_setState(self.model, self.data, np.array(state["physics"]), INTEGRATION)
        mujoco.mj_forward(self.model, self.data)  # all that follows from the state; leaves it as it is
        for name, values in state["stale"].items():
            getattr(self.data, name)[...] = values
        self.take_notes(state["notes"])
        self.set_random_state(state["random"])
        self.steps = int(state["steps"])

    def _physics(self) -> Array:
        out = np.empty(mujoco.mj_stateSize(self.model, INTEGRATION))
        mujoco.mj_getState(self.model, self.data, out, INTEGRATION)
        return out

    def _written(self) -> list[tuple[str, Array]]:
        """The model's fields that are not as they were loaded, as views into it."""
        return [(name, values) for name, values in _fields(self.model) if not _equal(values, self.as_loaded[name])]


class Phases(Protocol):
    """What changes while environments are played; envs.changing_physics has it."""

    number: int

    def tick(self) -> bool: ...
    def enter(self, simulator: Simulator) -> None: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> None: ...


class SimulatorBatch:
    """N simulators, stepped one after the other. Actions are float32 [N, A] in [-1, 1], which each stretches to the bounds
    of its actuators."""

    device = "cpu"

    def __init__(
        self,
        task: str,
        simulators: Sequence[Simulator],
        spec: Spec,
        first_env: int,
        painter: Painter,
        camera: int,
        origin: State,
        phases: Phases | None = None,
    ) -> None:
        """`camera` of `render`; `origin` is saved, and must be the same where a state is loaded. Where a phase of `phases` ends, all
        episodes are truncated (but for those that terminate on that very step), and begin anew in the next."""
        self.spec, self.n, self.first_env = spec, len(simulators), first_env
        self._simulators, self._painter, self._camera = list(simulators), painter, camera
        self._origin = {
            "env": task, "version": STATE_VERSION, "n": self.n, "mujoco": mujoco.__version__, **origin,
        }  # fmt: skip
        self._started = False
        self._phases = phases

    @property
    def phase(self) -> int | None:
        """The number of the phase in which the frames that were last returned are; None where nothing changes."""
        return None if self._phases is None else self._phases.number

    def reset(self) -> Array:
        if self._phases is not None:
            for simulator in self._open():
                self._phases.enter(simulator)
        frame = np.stack([simulator.begin() for simulator in self._open()])
        self._started = True
        return frame

    def step(self, action: Array) -> Step:
        simulators = self._open()
        if not self._started:
            raise ValueError("reset() the environments before the first step()")
        check_actions(action, self.n, self.spec)
        frame = np.empty((self.n, *self.spec.frame_shape), self.spec.frame_dtype)
        reward = np.empty(self.n, np.float32)
        terminated, truncated = np.zeros(self.n, bool), np.zeros(self.n, bool)
        final_frame = []
        phases = (
            self._phases if self._phases is not None and self._phases.tick() else None
        )  # those of which one ends now
        for i, simulator in enumerate(simulators):
            frame[i], reward[i], terminated[i], truncated[i] = simulator.step(action[i])
            if phases is not None:
                truncated[i] |= not terminated[i]
                phases.enter(simulator)
            if terminated[i] or truncated[i]:
                final_frame.append(frame[i].copy())
                frame[i] = simulator.begin()
        over = terminated | truncated
        final = np.array(final_frame, self.spec.frame_dtype).reshape(-1, *self.spec.frame_shape)
        return Step(frame, reward, terminated, truncated, over, final, np.flatnonzero(over))

    def render(self, i: int = 0, height: int = FILM[0], width: int = FILM[1]) -> Array:
        """Environment i as its camera sees it, [height, width, 3] uint8 RGB.

        Raises:
            ValueError: nothing here can draw; the message says what is missing.
        """
        simulator = self._open()[i]
        return self._painter.picture(simulator.model, simulator.data, self._camera, height, width)

    def state_dict(self) -> State:
        simulators = self._open()
        return {
            **self._origin, "simulators": [simulator.state_dict() for simulator in simulators], "started": self._started,
            **({} if self._phases is None else {"phases": self._phases.state_dict()}),
        }  # fmt: skip

    def load_state_dict(self, state: State) -> None:
        """Raises ValueError, and changes nothing, where `state` is of another task, number, protocol or version of what simulates."""
        simulators = self._open()
        check_state(state, self._origin)
        try:
            saved, started = list(state["simulators"]), bool(state["started"])
            if len(saved) != self.n:
                raise ValueError(f"the state holds {len(saved)} simulators, here are {self.n}")
            for simulator, one in zip(simulators, saved, strict=True):
                simulator.check(one)
            if self._phases is not None:
                self._phases.load_state_dict(state["phases"])
        except KeyError as error:
            raise ValueError(f"damaged state: it lacks {error}") from error
        for simulator, one in zip(simulators, saved, strict=True):
            if self._phases is not None:
                self._phases.enter(simulator)
            simulator.load(one)
        self._started = started

    def close(self) -> None:
        self._simulators = []
        self._painter.close()

    def _open(self) -> list[Simulator]:
        if not self._simulators:
            raise ValueError("these environments are closed")
        return self._simulators


def check_actions(action: Array, n: int, spec: Spec) -> None:
    """Raise ValueError unless `action` is float32 [n, A] in [-1, 1]."""
    found: Any = action  # whatever its annotation says
    shape = (n, *spec.action_shape)
    if not isinstance(found, np.ndarray) or found.dtype != np.float32 or found.shape != shape:
        raise ValueError(f"action must be float32 {list(shape)}, got {describe(found)}")
    within = np.abs(found) <= 1.0  # NaN is not
    if not within.all():
        i = int(np.flatnonzero(~within.all(1))[0])
        raise ValueError(f"action {found[i].tolist()} of environment {i} of the batch is not in [-1, 1]")


def stretch(low: Array, high: Array) -> tuple[Array, Array]:
    """(centre, half) with which centre + half * a takes [-1, 1] to [low, high], float64. ValueError where these are infinite."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not (np.abs([low, high]) < mujoco.mjMAXVAL).all():  # as dm_control writes "none", or infinite
        raise ValueError("its actions have no bounds, so [-1, 1] cannot be stretched to them")
    return (low + high) / 2, (high - low) / 2


def _fields(model: Any) -> list[tuple[str, Array]]:
    """Arrays of a model by name, as views into it, less ASSETS."""
    names = [name for name in dir(model) if not name.startswith(("_", *ASSETS))]
    return [(name, values) for name in names if isinstance(values := getattr(model, name), np.ndarray)]


def _equal(one: Array, other: Array) -> bool:
    return one.tobytes() == other.tobytes()


def _check_array(name: str, found: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(found, np.ndarray) or found.dtype != dtype or found.shape != shape:
        raise ValueError(f"damaged state: {name} must be {np.dtype(dtype)} {list(shape)}, got {describe(found)}")
