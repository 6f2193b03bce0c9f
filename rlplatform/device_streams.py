"""Random streams whose draws are tensors, made on the device where they are used."""

from math import prod
from typing import Any

import torch
from torch import Tensor

from rlplatform import _core
from rlplatform.device import kernels, queue
from rlplatform.streams import Stream
from rlplatform.types import State

WORD = 2**64


class DeviceStream:
    """Stream on a device: the same key, the same blocks, tensors for arrays.

    Key and counter lie on the device at one address, and drawing moves the counter there, so that a captured graph draws
    anew at every launch. uniform() and integers() agree with Stream to the bit; normal() to 1e-6 on a GPU (the rounding of
    log, cos and sin at up to 5.77) and to the bit on the CPU. Nothing here waits for the device but the two state functions.
    """

    def __init__(self, seed: int, name: str, index: int = 0, *, device: torch.device) -> None:
        """As Stream(seed, name, index)."""
        self.state = torch.zeros(2, dtype=torch.int64, device=device)  # key and counter, as two's complement
        self.load_state_dict(Stream(seed, name, index).state_dict())

    def uniform(self, *shape: int) -> Tensor:
        """Independent draws from [0, 1), float64."""
        return self._draw("uniform", torch.float64, 2, shape)

    def normal(self, *shape: int) -> Tensor:
        """Independent standard normals, float32."""
        return self._draw("normal", torch.float32, 4, shape)

    def integers(self, bound: int, *shape: int) -> Tensor:
        """Independent draws from {0, ..., bound - 1}, int64, for bound <= 2^31."""
        if not 1 <= bound <= 2**31:
            raise ValueError(f"bound must be in [1, 2^31], got {bound}")
        return (self.uniform(*shape) * bound).long()

    def _draw(self, kind: str, dtype: torch.dtype, per_block: int, shape: tuple[int, ...]) -> Tensor:
        n = prod(shape)
        if self.state.is_cuda:
            out = torch.empty(n, dtype=dtype, device=self.state.device)
            getattr(kernels(), kind)(self.state.data_ptr(), n, out.data_ptr(), *queue(out))
        else:
            array: Any = getattr(_core, kind)(*self._words(), n)
            out = torch.from_numpy(array)
        self.state[1].add_(-(-n // per_block))  # behind the draw, in the order of the device's stream
        return out.reshape(shape)

    def _words(self) -> tuple[int, int]:
        key, counter = self.state.tolist()
        return key % WORD, counter % WORD

    def state_dict(self) -> State:
        """As Stream's."""
        key, counter = self._words()
        return {"key": key, "counter": counter}

    def load_state_dict(self, state: State) -> None:
        """In place: a graph that draws from here goes on from this state."""
        words = [(int(state[name]) + WORD // 2) % WORD - WORD // 2 for name in ("key", "counter")]
        self.state.copy_(torch.tensor(words, dtype=torch.int64))
