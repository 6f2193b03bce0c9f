"""Where a learner's tensors live: the CPU, or a GPU if this machine and this installation can learn there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from rlplatform.kernels import module

Module = TypeVar("Module", bound=nn.Module)

CPU = torch.device("cpu")


def require(name: str) -> torch.device:
    """The device called "cpu", "cuda" or "cuda:N", if learning can happen there.

    Raises:
        ValueError: another name, no such GPU, or an installation without CUDA kernels; in one sentence.
    """
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise ValueError(f'device must be "cpu", "cuda" or "cuda:N", got {name!r}')
    if kind == "cpu":
        return CPU
    if not torch.cuda.is_available():
        why = "torch sees no GPU" if torch.backends.cuda.is_built() else "torch was built without CUDA"
        raise ValueError(f"device={name} cannot be had here: {why}; `rlplatform doctor` says more")
    if int(number or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={name} cannot be had here: torch counts {torch.cuda.device_count()} from 0")
    try:
        module(torch.device("cuda"))
    except RuntimeError as error:
        raise ValueError(f"device={name} cannot be had here: {error}") from error
    return torch.device("cuda", int(number) if colon else torch.cuda.current_device())


def placed(net: Module, device: torch.device) -> Module:
    """`net`, moved to `device`; on a GPU with the kernels of its convolutions channels last, as cuDNN takes images there."""
    if device.type != "cuda":
        return net
    net.to(device=device)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # torch's stub lacks it


@contextmanager
def products(*, tf32: bool) -> Iterator[None]:
    """Within, what float32 products on a GPU are: exact float32, or TF32, whose factors have 10 bits of mantissa; and cuDNN
    times its algorithms at the first sight of a shape. A graph keeps what was true when it was captured. The settings are the
    process's own, so they are put back; on the CPU they say nothing. Threads take turns: Graphed enters them one at a time."""
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]  # made at run time
    before = matmul.fp32_precision, conv.fp32_precision, torch.backends.cudnn.benchmark
    matmul.fp32_precision = conv.fp32_precision = "tf32" if tf32 else "ieee"
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        matmul.fp32_precision, conv.fp32_precision, torch.backends.cudnn.benchmark = before
