"""The draws of `techniques.augment` made on the device, from a stream whose counter is there, so that a captured graph draws
anew each time it runs. csrc/cuda/augment.cuh has the kernels."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlplatform.device_streams import DeviceStream
from rlplatform.kernels import addresses, expect, module, numbered, queue
from rlplatform.techniques.augment import CUT, INTENSITY, PAD


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


def apply(images: Tensor, draw: Augmentation, dtype: torch.dtype) -> Tensor:
    """`techniques.augment.apply` for images that are on the device already, equal to the bit for an equal draw; a replay that
    is there fuses this with its gather (`DeviceReplay.shift`). Neither waits nor looks at the range of the shifts.

    Args:
        images: uint8 [M, stack, height, width].

    Returns:
        [M, stack, height, width] of `dtype`, channels last in memory.
    """
    count, _, height, width = images.shape
    device = images.device
    rows = (torch.arange(height, device=device) + draw.shift[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=device) + draw.shift[:, 1:]).clamp(0, width - 1)
    number = torch.arange(count, device=device)[:, None, None]
    shifted = images.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]]
    return (shifted * draw.intensity[:, None, None, None]).to(dtype).permute(0, 3, 1, 2)
