"""The way between host and device: pinned memory on one side, its twin on the other, both at fixed addresses.

Copies are enqueued and not waited for; an event says when the host may touch its side again. On the CPU both sides are
ordinary memory and a copy is done when it returns, so that the same code runs there.
"""

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlplatform.types import Array

_ALIGN = 256  # bytes: of a field's beginning, as torch's allocator aligns


class Field(NamedTuple):
    """What a tensor is like."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class Upload:
    """Named tensors that the host fills and the device reads; one copy carries all of them."""

    def __init__(self, fields: Mapping[str, Field], device: torch.device) -> None:
        at, ends = 0, {}
        for name, field in fields.items():
            ends[name] = at, at + prod(field.shape) * field.dtype.itemsize
            at = -(-ends[name][1] // _ALIGN) * _ALIGN
        self._host = torch.zeros(at, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._device = torch.zeros(at, dtype=torch.uint8, device=device)
        self._read = _Mark(device)  # the last copy has read the host's side

        def views(memory: Tensor) -> dict[str, Tensor]:
            return {
                name: memory[slice(*ends[name])].view(field.dtype).view(field.shape) for name, field in fields.items()
            }

        self._fields, self.device = views(self._host), views(self._device)

    def open(self) -> dict[str, Tensor]:
        """The host's side, to be written; waits until the device has read what was sent before. Always the same tensors."""
        self._read.wait()
        return self._fields

    def send(self) -> None:
        """Enqueue the copy to `self.device`, behind whatever still reads there."""
        self._device.copy_(self._host, non_blocking=True)
        self._read.set()


class Download:
    """A tensor that the device fills, `self.device`, and the host reads."""

    def __init__(self, field: Field, device: torch.device) -> None:
        self._host = torch.zeros(field.shape, dtype=field.dtype, pin_memory=device.type == "cuda")
        self.device = torch.zeros(field.shape, dtype=field.dtype, device=device)
        self._there = _Mark(device)

    def start(self) -> None:
        """Enqueue the copy, behind whatever still writes to `self.device`."""
        self._host.copy_(self.device, non_blocking=True)
        self._there.set()

    def wait(self) -> Array:
        """What the last copy brought; overwritten by the next one."""
        self._there.wait()
        array: Array = self._host.numpy()
        return array


class _Mark:
    """A place in the current stream of a device, to be waited for by the host; nothing on the CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._event = torch.cuda.Event() if device.type == "cuda" else None

    def set(self) -> None:
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(self._device))

    def wait(self) -> None:
        if self._event is not None:
            self._event.synchronize()  # at once where set() was never called


def field_of(array: Array | Tensor) -> Field:
    """What this array is like."""
    if isinstance(array, Tensor):
        return Field(tuple(array.shape), array.dtype)
    return Field(array.shape, torch.from_numpy(np.empty(0, array.dtype)).dtype)
