"""Environments of the C++ core: thousands of small games stepped on a thread pool."""

from typing import Any, cast

import numpy as np

from rlplatform import _core
from rlplatform.envs.suites import CatchProtocol
from rlplatform.streams import Stream
from rlplatform.types import Array, Spec, State, Step

STATE_VERSION = 1


class NativeBatch:
    """The face of a C++ `EnvBatch`: gives frames their shape, checks what comes in, names what it saves."""

    device = "cpu"

    def __init__(self, core: Any, name: str, spec: Spec, first_env: int, settings: State) -> None:
        """`core`: a bound rlp::EnvBatch. `settings` are saved, and must be the same where a state is loaded."""
        self.spec, self.n, self.first_env = spec, int(core.n), first_env
        self._core, self._name, self._settings = core, name, dict(settings)
        self._frame: Array | None = None

    def reset(self) -> Array:
        self._frame = self._shaped(self._open().reset())
        return self._frame

    def step(self, action: Array) -> Step:
        core = self._open()
        found: Any = action  # whatever its annotation says
        dtype, shape = self.spec.action_dtype, (self.n, *self.spec.action_shape)
        if not isinstance(found, np.ndarray) or found.dtype != dtype or found.shape != shape:
            raise ValueError(f"action must be {dtype} {list(shape)}, got {describe(found)}")
        frame, reward, terminated, truncated, reset, final_frame, final_env = core.step(np.ascontiguousarray(found))
        self._frame = self._shaped(frame)
        return Step(self._frame, reward, terminated, truncated, reset, self._shaped(final_frame), final_env)

    def render(self, i: int = 0) -> Array:
        """Environment i's frame as a picture, [height, width, 3] uint8: 16 x 16 pixels a cell."""
        self._open()
        if len(self.spec.frame_shape) != 2 or self.spec.frame_dtype != "uint8":
            raise ValueError(f"{self._name} has no picture: its frames are vectors")
        if self._frame is None:
            raise ValueError("nothing to render before reset(), or between load_state_dict() and step()")
        return np.repeat(np.kron(self._frame[i], np.ones((16, 16), np.uint8))[..., None], 3, axis=2)

    def state_dict(self) -> State:
        env, key, counter, started = self._open().save()
        return {
            "env": self._name, "version": STATE_VERSION, "settings": self._settings,
            "state": env, "key": key, "counter": counter, "started": started,
        }  # fmt: skip

    def load_state_dict(self, state: State) -> None:
        """Raises ValueError, and changes nothing, where `state` is of another environment, version, size or number."""
        core = self._open()
        check_state(state, {"env": self._name, "version": STATE_VERSION, "settings": self._settings})
        try:
            core.load(
                np.array(state["state"]), np.array(state["key"]), np.array(state["counter"]), bool(state["started"])
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"not a state of {self.n} environments of {self._name}: {error}") from error
        self._frame = None

    def close(self) -> None:
        self._core = None

    def _open(self) -> Any:
        if self._core is None:
            raise ValueError("these environments are closed")
        return self._core

    def _shaped(self, frame: Array) -> Array:
        return frame.reshape(-1, *self.spec.frame_shape)


def make_catch(task: str, n: int, seed: int, first_env: int, protocol: CatchProtocol, threads: int = 1) -> NativeBatch:
    """Catch: frames uint8 [rows, columns] with 255 at the ball and at the player; actions left, stay, right; reward +1 or
    -1 at the end of a game, which is always a termination."""
    core = _core.CatchBatch(env_keys(seed, first_env, n), threads, protocol.rows, protocol.columns)
    spec = Spec(frame_shape=(protocol.rows, protocol.columns), frame_dtype="uint8", stack=1, actions=3)
    return NativeBatch(core, task, spec, first_env, {"rows": protocol.rows, "columns": protocol.columns})


def env_keys(seed: int, first_env: int, n: int) -> Array:
    """Keys of the streams of environments first_env, ..., first_env + n - 1 of the run with this seed: [n] uint64."""
    return np.array([Stream(seed, "env", first_env + i).key for i in range(n)], np.uint64)


def check_state(state: State, expected: State) -> None:
    """Raise ValueError unless `state` holds each of the `expected` items: what a saved state says of its origin."""
    for key, wanted in expected.items():
        found = state.get(key)
        if isinstance(wanted, dict):
            found = dict(cast(State, found)) if found is not None else None
        if found != wanted:
            raise ValueError(f"the state is of other environments: its {key} is {found!r}, here it is {wanted!r}")


def describe(value: Any) -> str:
    """What was given instead, for a message."""
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
