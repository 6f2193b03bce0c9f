"""Handing torch's memory to kernels that do not link torch: addresses, the current stream, and the checks before them."""

from types import ModuleType

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
    """With its number: "cuda" is the current one, as a tensor made there will say."""
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


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


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
