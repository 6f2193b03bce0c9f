"""Random streams whose draws are tensors, made on the device where they are used."""

from math import prod

import torch
from torch import Tensor

from rlplatform.kernels import module, numbered, queue
from rlplatform.streams import Stream
from rlplatform.types import State


class DeviceStream:
    """A `Stream` whose key and counter are on the device: kernels draw from it and move it on, so that a captured graph draws
    anew each time it runs.

    The same key, the same blocks, tensors for arrays: uniform() and integers() agree with Stream to the bit, normal() to 1e-6
    on a GPU (the rounding of log, cos and sin at up to 5.77) and to the bit on the CPU. Drawing does not wait for the device.
    """

    def __init__(self, stream: Stream, device: torch.device | str = "cuda") -> None:
        """Goes on where `stream` stands, which stays there."""
        self.state = torch.empty(2, dtype=torch.int64, device=numbered(device))  # key, counter
        self.load_state_dict(stream.state_dict())

    def uniform(self, *shape: int) -> Tensor:
        """Independent draws from [0, 1), float64."""
        out = torch.empty(prod(shape), dtype=torch.float64, device=self.state.device)
        module(out.device).draw_uniforms(self.state.data_ptr(), len(out), out.data_ptr(), *queue(out.device))
        return out.reshape(shape)

    def normal(self, *shape: int) -> Tensor:
        """Independent standard normals, float32."""
        out = torch.empty(prod(shape), dtype=torch.float32, device=self.state.device)
        module(out.device).draw_normals(self.state.data_ptr(), len(out), out.data_ptr(), *queue(out.device))
        return out.reshape(shape)

    def integers(self, bound: int, *shape: int) -> Tensor:
        """Independent draws from {0, ..., bound - 1}, int64, for bound <= 2^31."""
        if not 1 <= bound <= 2**31:
            raise ValueError(f"bound must be in [1, 2^31], got {bound}")
        return (self.uniform(*shape) * bound).long()

    def state_dict(self) -> State:
        """As of a `Stream`. Waits for the device."""
        key, counter = self.state.tolist()
        return {"key": key % 2**64, "counter": counter % 2**64}

    def load_state_dict(self, state: State) -> None:
        """In place: a graph that draws from here goes on from this state."""
        self.state.copy_(torch.tensor([signed(int(state["key"])), signed(int(state["counter"]))]))


def signed(number: int) -> int:
    """An unsigned number of 64 bits as the int64 of the same bits."""
    return number - 2**64 if number >= 2**63 else number
