"""The C++ environments as batches of tensors: on a GPU one kernel a step, whose frames go where the caller's tensors lie.

csrc/env_tiles.hpp is the text of that kernel. On the CPU the same text runs as a loop, so that everything built upon it can
be tried and tested without a GPU; for speed there, `make` has a thread pool.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlplatform import _core
from rlplatform.device_types import DeviceStep, empty_step
from rlplatform.envs.native import STATE_VERSION, NativeBatch, check_state, describe, env_keys
from rlplatform.types import Array, State

# By family: what makes an EnvKind of the module for this device, from the game's name and the settings of the CPU's batch.
KINDS: Mapping[str, Callable[[Any, str, State], Any]] = {
    "catch": lambda module, game, settings: module.catch_kind(**settings),
    "control": lambda module, game, settings: module.control_kind(game, **settings),
    "minatar": lambda module, game, settings: module.minatar_kind(game, **settings),
}


class DeviceBatch:
    """N environments whose states and streams lie on a device, beside a `NativeBatch` bit for bit: for games that compute in
    integers (catch, MinAtar) and CartPole; the other classic-control games differ by the last bit of a sine or cosine.

    `step` enqueues one kernel on torch's current stream and returns at once. With `out` it allocates nothing, so that it can be
    captured into a CUDA graph. States are a `NativeBatch`'s and cross between the two.
    """

    def __init__(self, twin: NativeBatch, seed: int, n: int, first_env: int, device: str) -> None:
        """`twin`: one environment of the same task on the CPU, which has checked the protocol and gives spec and settings."""
        self.spec, self.n, self.first_env = twin.spec, n, first_env
        module, self.device = _where(device)
        said = twin.state_dict()
        self._name, self._settings = said["env"], said["settings"]
        family, _, game = self._name.partition("/")
        self._kind: Any = KINDS[family](module, game, self._settings)
        self._fault = self._there(np.array([n, 0], np.int64))
        self._env = self._there(self._kind.fresh(n))  # [N, bytes of an environment]
        self._stream = self._there(_streams(env_keys(seed, first_env, n), np.zeros(n, np.uint64)))
        self._started = False

    def reset(self, out: Tensor | None = None) -> Tensor:
        """Start all games; the first frames, [N, *frame], in `out` where it is given. Enqueues."""
        kind = self._open()
        room = empty_step(self.spec, self.device, self.n).frame if out is None else out
        _check_tensor("out", room, self._frame_like())
        kind.reset(*self._memory(), room.data_ptr(), *self._queue())
        self._started = True
        return room

    def step(self, action: Tensor, out: DeviceStep | None = None) -> DeviceStep:
        """Enqueue one step of all environments, into `out` where it is given.

        An action that is none (another number, NaN) is found on the device: its environment stands still, its reward is NaN, and
        the next `check` raises.

        Raises:
            ValueError: dtype, shape, device or layout of a tensor, or environments that are closed or were never reset.
        """
        kind = self._open()
        if not self._started:
            raise ValueError("reset() the environments before the first step()")
        shape = (self.n, *self.spec.action_shape)
        _check_tensor("action", action, (shape, getattr(torch, self.spec.action_dtype), self.device))
        room = empty_step(self.spec, self.device, self.n) if out is None else out
        if out is not None:
            flags = ((self.n,), torch.bool, self.device)
            likes = [
                self._frame_like(),
                ((self.n,), torch.float32, self.device),
                flags,
                flags,
                flags,
                self._frame_like(),
            ]
            for name, tensor, like in zip(DeviceStep._fields, room, likes, strict=True):
                _check_tensor(f"out.{name}", tensor, like)
        results = [tensor.data_ptr() for tensor in room]
        kind.step(*self._memory(), action.data_ptr(), *results, *self._queue())
        return room

    def check(self) -> None:
        """Wait for the device. Raises ValueError where actions since the last check were none: their environments did not step."""
        self._open()
        env, count = self._fault.tolist()
        if count:
            self._fault.copy_(torch.tensor([self.n, 0]))
            allowed = f"[0, {self.spec.actions})" if self.spec.actions else "[-1, 1]"
            raise ValueError(
                f"{count} action(s) not in {allowed}, the first environment of the batch among theirs: {env}"
            )

    def state_dict(self) -> State:
        """A `NativeBatch`'s. Waits for the device."""
        memory = self._open().save(self._env.cpu().numpy())
        stream = self._stream.cpu().numpy().view(np.uint64)
        return {
            "env": self._name, "version": STATE_VERSION, "settings": self._settings,
            "state": memory, "key": stream[:, 0].copy(), "counter": stream[:, 1].copy(), "started": self._started,
        }  # fmt: skip

    def load_state_dict(self, state: State) -> None:
        """Raises ValueError, and changes nothing, where `state` is of another environment, version, size or number."""
        kind = self._open()
        check_state(state, {"env": self._name, "version": STATE_VERSION, "settings": self._settings})
        key, counter = (np.array(state[name]) for name in ("key", "counter"))
        for name, found in (("key", key), ("counter", counter)):
            if found.dtype != np.uint64 or found.shape != (self.n,):
                raise ValueError(f"not a state of {self.n} environments of {self._name}: {name} is {describe(found)}")
        try:
            memory = kind.load(np.array(state["state"]))
        except (TypeError, ValueError) as error:
            raise ValueError(f"not a state of {self.n} environments of {self._name}: {error}") from error
        if len(memory) != self.n:
            raise ValueError(f"not a state of {self.n} environments of {self._name}, but of {len(memory)}")
        self._env.copy_(torch.from_numpy(memory))  # in place: a captured graph has these addresses
        self._stream.copy_(torch.from_numpy(_streams(key, counter)))
        self._started = bool(state["started"])

    def close(self) -> None:
        self._kind = None
        self._env = self._stream = torch.empty(0)

    def _open(self) -> Any:
        if self._kind is None:
            raise ValueError("these environments are closed")
        return self._kind

    def _there(self, array: Any) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _memory(self) -> tuple[int, int, int, int]:
        return self._env.data_ptr(), self._stream.data_ptr(), self._fault.data_ptr(), self.n

    def _queue(self) -> tuple[int, int]:
        """Device number and address of torch's current stream there; the CPU has neither."""
        if not self._env.is_cuda:
            return -1, 0
        return self._env.get_device(), torch.cuda.current_stream(self._env.device).cuda_stream

    def _frame_like(self) -> tuple[tuple[int, ...], torch.dtype, str]:
        return (self.n, *self.spec.frame_shape), getattr(torch, self.spec.frame_dtype), self.device


def make_on_device(twin: Any, seed: int, n: int, first_env: int, device: str) -> DeviceBatch:
    """N environments on `device` of the task that `twin` plays on the CPU.

    Raises:
        ValueError: the task has no form for a device, or the device is neither "cpu" nor "cuda".
        RuntimeError: a GPU is named, and this installation has no CUDA kernels, or torch finds no such GPU.
    """
    if not isinstance(twin, NativeBatch) or twin.state_dict()["env"].partition("/")[0] not in KINDS:
        raise ValueError(f"a {type(twin).__name__} plays on the CPU alone; on a device there are {', '.join(KINDS)}")
    return DeviceBatch(twin, seed, n, first_env, device)


def _where(device: str) -> tuple[Any, str]:
    """The extension that runs there, and the device by its full name: "cuda" is the current one, from now on."""
    kind = device.partition(":")[0]
    if kind not in {"cpu", "cuda"}:
        raise ValueError(f"environments run on cpu or cuda, not on {device!r}")
    if kind == "cpu":
        return _core, "cpu"
    try:
        from rlplatform import _cuda  # built only where nvcc was found, needed only here
    except ImportError as error:
        raise RuntimeError(
            f"environments on {device} need CUDA kernels, which this installation does not have "
            f"({_core.build()['cuda']}); install again with nvcc on PATH: pip install . -C cmake.define.RLP_CUDA=ON"
        ) from error
    if not torch.cuda.is_available():
        raise RuntimeError(f"environments on {device}: torch finds no CUDA device; `rlplatform doctor` says why")
    return _cuda, str(torch.empty(0, device=device).device)


def _streams(key: Array, counter: Array) -> Array:
    """The memory of rlp::Stream, [N, 2]: torch has too little of uint64."""
    return np.stack([key, counter], 1).view(np.int64)


def _check_tensor(name: str, found: Any, like: tuple[tuple[int, ...], torch.dtype, str]) -> None:
    shape, dtype, device = like
    if not isinstance(found, Tensor):
        raise ValueError(f"{name} must be a tensor on {device}, got {type(found).__name__}")  # noqa: TRY004
    if found.dtype != dtype or found.shape != shape or str(found.device) != device:
        raise ValueError(
            f"{name} must be {dtype} {list(shape)} on {device}, got {found.dtype} {list(found.shape)} on {found.device}"
        )
    if not found.is_contiguous():
        raise ValueError(f"{name} must be contiguous: strides {found.stride()}")
