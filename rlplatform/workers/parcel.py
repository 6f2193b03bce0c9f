"""Weights on their way to another process: flat arrays of bytes, which the receiver reads where they lie."""

import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from rlplatform.types import Array

ALIGNMENT = 64  # bytes, that of torch's own memory: a vectorised sum may depend on where its operands begin


class Parcel(NamedTuple):
    """A tensor."""

    content: Array  # [bytes] uint8
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # the order of its dimensions in memory may decide which kernel multiplies it


def pack(weights: Any) -> Any:
    """The same nested mappings with a Parcel for each tensor. No copy is made of what lies contiguous in main memory."""
    if isinstance(weights, torch.Tensor):
        flat = weights.detach().cpu().flatten()
        stride = weights.stride() if weights.is_contiguous() else torch.empty_like(weights, device="meta").stride()
        return Parcel(flat.view(torch.uint8).numpy(), str(weights.dtype), tuple(weights.shape), stride)
    if isinstance(weights, Mapping):
        return {name: pack(value) for name, value in weights.items()}
    return weights


def unpack(packed: Any) -> Any:
    """What `pack` was given. Tensors lie in the parcels' memory, and must not be written to, where that memory begins at a
    multiple of 64 bytes and they are contiguous; otherwise they are copies."""
    if isinstance(packed, Parcel):
        return _tensor(packed)
    if isinstance(packed, Mapping):
        return {name: unpack(value) for name, value in packed.items()}
    return packed


def size(tree: Any) -> int:
    """Bytes of all arrays, tensors, parcels and byte strings in nested mappings, sequences and tuples."""
    if isinstance(tree, np.ndarray | torch.Tensor):
        return int(tree.nbytes)
    if isinstance(tree, bytes):
        return len(tree)
    if isinstance(tree, Mapping):
        return sum(size(value) for value in tree.values())
    return sum(size(value) for value in tree) if isinstance(tree, list | tuple) else 0


def _tensor(parcel: Parcel) -> torch.Tensor:
    dtype = getattr(torch, parcel.dtype.removeprefix("torch."))
    if math.prod(parcel.shape) == 0:
        return torch.empty_strided(parcel.shape, parcel.stride, dtype=dtype)
    with warnings.catch_warnings():  # it is meant: what several processes read, none may write
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        flat = torch.from_numpy(parcel.content)
    if flat.data_ptr() % ALIGNMENT:
        flat = flat.clone()
    tensor = flat.view(dtype).reshape(parcel.shape)
    if tensor.stride() == parcel.stride:
        return tensor
    return torch.empty_strided(parcel.shape, parcel.stride, dtype=dtype).copy_(tensor)
