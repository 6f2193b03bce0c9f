"""A convolution without padding of frames of bytes or numbers, its maps channels last, that skips what is 0 where much of a frame is."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # its name everywhere
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import has_torch_function

from rlplatform import _core

FEW = 8  # one byte in so many, or fewer, set: convolutions that visit all take as long where one in five is (MinAtar: up to one in 11)


def channels_last(x: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, C, H, W] of any dtype as `dtype`, the channels last in memory: bytes on the CPU in one pass, in 0.6 of the time of two."""
    if x.dtype == torch.uint8 and dtype == torch.float32 and x.device.type == "cpu" and x.is_contiguous() and x.numel():
        count, channels, height, width = x.shape
        out = torch.empty(count, height, width, channels)
        as_they_are = np.zeros((count, 2), np.int64), np.ones(count, np.float32)  # neither shifted nor scaled
        _core.shift_images(x.numpy(), *as_they_are, out.numpy())
        return out.permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last).to(dtype)


def frame_conv(
    x: Tensor, weight: Tensor, bias: Tensor, scale: float = 1.0, *, stride: int = 1, relu: bool = False
) -> Tensor:
    """The maps [B, H', W', O] of scale * x, [B, C, H, W] of any dtype, under kernels [O, C, k, k] and biases [O] of one dtype, without
    padding; with `relu` what is below 0 raised to it.

    Bytes on the CPU of which few are set go through our own pass (csrc/frame_conv.hpp), in float32: there a byte that is 0 adds 0 even
    to a weight that is not finite. All else is torch's.
    """
    if stride == 1 and x.dtype == torch.uint8 and x.device.type == "cpu" and weight.dtype == torch.float32:
        frames = x.contiguous()
        if _core.bytes_set(frames.numpy()) * FEW <= x.numel():
            # Who watches the calls (techniques.activations) is to see the activation as a call of its own.
            fused = relu and not has_torch_function((weight,))
            maps: Tensor = _Sparse.apply(frames, weight, bias, scale, fused)  # type: ignore[no-untyped-call]
            return _rectified(maps) if relu and not fused else maps
    # The kernels are scaled: they are smaller than x, and bytes are exact in bfloat16 while their multiples are not.
    scaled = weight if scale == 1.0 else weight * scale
    maps = F.conv2d(channels_last(x, weight.dtype), scaled, bias, stride).permute(0, 2, 3, 1)
    return _rectified(maps) if relu else maps


def _rectified(maps: Tensor) -> Tensor:
    """[B, H, W, O], by a call that has the units where they are in all others: [B, O, ...]."""
    return F.relu(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class _Sparse(torch.autograd.Function):
    """The pass over set bytes, and its gradients by the kernels and the biases."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, weight: Tensor, bias: Tensor, scale: float, relu: bool) -> Tensor:
        count, _, height, width = frames.shape
        outputs, _, size, _ = weight.shape
        out = torch.empty(count, height - size + 1, width - size + 1, outputs)
        weight, bias = weight.detach().contiguous(), bias.detach()
        _core.frame_conv(frames.numpy(), weight.numpy(), bias.numpy(), scale, relu, out.numpy())
        ctx.save_for_backward(frames, weight, *([out] if relu else []))
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_out: Tensor) -> tuple[None, Tensor, Tensor, None, None]:
        frames, weight, *out = (tensor.detach().numpy() for tensor in ctx.saved_tensors)
        by_weight, by_bias = torch.empty(weight.shape), torch.empty(len(weight))
        _core.frame_conv_gradients(
            frames,
            weight,
            ctx.scale,
            out[0] if out else None,
            by_out.contiguous().numpy(),
            by_weight.numpy(),
            by_bias.numpy(),
        )
        return None, by_weight, by_bias, None, None
