"""The draws of `techniques.augment` made on the device, from a stream whose counter is there, so that a captured graph draws
anew each time it runs. csrc/cuda/augment.cuh has the kernels."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlplatform.kernels import addresses, expect, module, numbered, queue
from rlplatform.streams import Stream
from rlplatform.techniques.augment import CUT, INTENSITY, PAD
from rlplatform.types import State


class DeviceStream:
    """A `Stream` whose counter is on the device: kernels draw from it and move it on."""

    def __init__(self, stream: Stream, device: torch.device | str = "cuda") -> None:
        self.state = torch.empty(2, dtype=torch.int64, device=numbered(device))  # key, counter
        self.load_state_dict(stream.state_dict())

    def state_dict(self) -> State:
        """As of a `Stream`. Waits for the device."""
        key, counter = self.state.tolist()
        return {"key": key % 2**64, "counter": counter}

    def load_state_dict(self, state: State) -> None:
        self.state.copy_(torch.tensor([signed(int(state["key"])), int(state["counter"])]))


class Augmentation(NamedTuple):
    """`techniques.augment.Draw` on the device, for M images: made once, written again by each `draw`."""

    shift: Tensor  # [M, 2] int64 in {-4, ..., 3}
    intensity: Tensor  # [M] float32 in [0.9, 1.1]


def augmentation(images: int, device: torch.device | str = "cuda") -> Augmentation:
    """Memory for the draws of so many images."""
    device = numbered(device)
    return Augmentation(
        torch.zeros(images, 2, dtype=torch.int64, device=device), torch.ones(images, dtype=torch.float32, device=device)
    )


def draw(stream: DeviceStream, out: Augmentation) -> Augmentation:
    """What `techniques.augment.draw` draws from a stream in the same state: shifts to the bit, intensities to 1e-6, for the
    logarithm and the cosine of CUDA are not the CPU's. Neither waits nor allocates."""
    images, device = len(out.intensity), stream.state.device
    expect("out.shift", out.shift, torch.int64, (images, 2), device)
    expect("out.intensity", out.intensity, torch.float32, (images,), device)
    module(device).draw_augmentation(
        stream.state.data_ptr(), images, PAD, INTENSITY, CUT, *addresses(*out), *queue(device)
    )
    return out


def signed(key: int) -> int:
    """An unsigned number of 64 bits as the int64 of the same bits."""
    return key - 2**64 if key >= 2**63 else key
