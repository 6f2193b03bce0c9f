"""Handing torch's memory to kernels that do not link torch: addresses, the current stream, and the checks before them."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from rlplatform import _core


def module(device: torch.device) -> ModuleType:
    """The extension whose kernels run on this device: `_cuda`, or `_core`, where the same code runs on the host.

    Raises:
        ValueError: for another kind of device.
        RuntimeError: for a GPU, where this installation has no CUDA kernels.
    """
    if device.type == "cpu":
        return _core
    if device.type != "cuda":
        raise ValueError(f"device must be a CUDA device or the CPU, got {device}")
    try:
        from rlplatform import _cuda
    except ImportError as error:
        raise RuntimeError(
            f"{device} was asked for, but this installation has no CUDA kernels ({_core.build()['cuda']}); install again with "
            "nvcc on PATH: pip install . -C cmake.define.RLP_CUDA=ON"
        ) from error
    return _cuda


def numbered(device: torch.device | str) -> torch.device:
    """With its number: "cuda" is the current one, as a tensor made there will say.

    Raises:
        RuntimeError: for a GPU, where torch sees none.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise RuntimeError(f"{device} was asked for, but torch sees no CUDA device")
    return torch.device("cuda", torch.cuda.current_device()) if device.index is None else device


def addresses(*tensors: Tensor) -> list[int]:
    """Where their memory begins."""
    return [t.data_ptr() for t in tensors]


def queue(device: torch.device, host_order: int = 0) -> tuple[int, int]:
    """The last two arguments of every kernel: the device's number and torch's current stream there; on the host the order in
    which threads are walked, by rlp::cuda::Order."""
    if device.type == "cpu":
        return 0, host_order
    return device.index, torch.cuda.current_stream(device).cuda_stream


def expect(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device) -> None:
    """Refuse a tensor that is not exactly this, and contiguous.

    Raises:
        ValueError: naming it and what it is.
    """
    if tensor.dtype != dtype or tensor.shape != shape or tensor.device != device or not tensor.is_contiguous():
        order = "" if tensor.is_contiguous() else ", not contiguous"
        raise ValueError(
            f"{name} must be {_plain(dtype)} {list(shape)}, contiguous, on {device}; got {_plain(tensor.dtype)} "
            f"{list(tensor.shape)} on {tensor.device}{order}"
        )


def expect_array(name: str, array: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Refuse an array that is not exactly this; it need not be contiguous.

    Raises:
        ValueError: naming it and what it is.
    """
    if str(array.dtype) != _plain(dtype) or array.shape != shape:
        raise ValueError(f"{name} must be {_plain(dtype)} {list(shape)}; got {array.dtype} {list(array.shape)}")


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
