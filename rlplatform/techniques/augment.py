"""Image augmentation for learning from pixels: random shift and intensity, as DrQ(eps), SPR and BBF apply them.

Draws are arguments, so that what is computed from them is a pure function; one draw per stacked observation, whose frames
move together.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlplatform import _core
from rlplatform.streams import Stream
from rlplatform.types import Array

PAD = 4  # pixels of padding by repetition of the border, cropped anew
OFFSETS = 2 * PAD  # offsets 0, ..., 7: the released JAX code's upper bound excludes 8
INTENSITY = 0.05  # an image times 1 + 0.05 * (a normal cut at 2)
CUT = 2.0


class Draw(NamedTuple):
    """For M stacked observations."""

    shift: Array  # [M, 2] int64 in {-4, ..., 3}: rows and columns; the pixel at (y, x) is read at (y, x) + shift
    intensity: Array  # [M] float32 in [0.9, 1.1]


def draw(stream: Stream, images: int) -> Draw:
    """The randomness of one call of `apply`."""
    shift = stream.integers(OFFSETS, images, 2) - PAD
    return Draw(shift, np.float32(1.0) + np.float32(INTENSITY) * stream.normal(images).clip(-CUT, CUT))


def identity(images: int) -> Draw:
    """No augmentation: `apply` only lays the images out for the network."""
    return Draw(np.zeros((images, 2), np.int64), np.ones(images, np.float32))


def apply(images: list[Array], draw: Draw, dtype: torch.dtype) -> Tensor:
    """Stacked observations as numbers from 0 to 255 times their intensity, shifted, the border repeated.

    Args:
        images: of uint8 [B, stack, height, width] each; each image contiguous, apart from the others as they like.
        draw: for the len(images) * B images in the order of the list.
        dtype: float32 or bfloat16; each product is rounded once, so that bytes times 1 are exact in both.

    Returns:
        [len(images) * B, stack, height, width], channels last in memory.

    Raises:
        ValueError: for another dtype, shape or layout.
    """
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"dtype must be float32 or bfloat16, got {dtype}")
    batch, stack, height, width = images[0].shape
    out = np.empty((len(images) * batch, height, width, stack), np.float32 if dtype == torch.float32 else np.uint16)
    for i, image in enumerate(images):
        rows = slice(i * batch, (i + 1) * batch)
        _core.shift_images(image, draw.shift[rows], draw.intensity[rows], out[rows])
    return torch.from_numpy(out).view(dtype).permute(0, 3, 1, 2)
