"""Parts of networks: no algorithm. Every module is made with empty parameters and filled by `init_(stream)`.

Nothing here draws a random number by itself: initial values come from the Stream that `init_` is given, and the noise of a
noisy layer is an argument of its forward pass. So a forward pass is a pure function of (parameters, input, noise).
"""

from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # its name everywhere
from torch import Tensor, nn

from rlplatform.device_streams import DeviceStream
from rlplatform.frame_conv import channels_last, frame_conv
from rlplatform.streams import Stream
from rlplatform.types import Spec


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """(before, after) along one axis of `size`, as TensorFlow and Flax pad for "SAME": ceil(size / stride) outputs, the odd
    pixel after. PyTorch has no such mode for strided convolutions."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def uniform_(parameter: Tensor, bound: float, stream: Stream) -> None:
    """Fill in place with draws from U(-bound, bound)."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy((2.0 * stream.uniform(*parameter.shape) - 1.0) * bound))


def normal_(parameter: Tensor, std: float, stream: Stream) -> None:
    """Fill in place with draws from N(0, std^2)."""
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(stream.normal(*parameter.shape)) * std)


def xavier_(weight: Tensor, stream: Stream) -> None:
    """Glorot and Bengio 2010, uniform, for a kernel [out, in, *field]: the bound is sqrt(6 / (fan_in + fan_out))."""
    field = weight[0, 0].numel()
    uniform_(weight, (6.0 / (field * (weight.shape[0] + weight.shape[1]))) ** 0.5, stream)


class Encoder(Protocol):
    """What turns observations into features: [B, stack, *frame] -> [B, features], in the order h, w, c where there is a map."""

    features: int
    map_shape: tuple[int, int, int] | None  # (channels, height, width) of the features; None where they are no map
    chain: tuple[tuple[str, str], ...]  # layers whose units one other layer alone takes, and that layer
    last: (
        str | None
    )  # the layer whose units are the features, "" for the encoder itself; None where they are a sum, or there is none

    def init_(self, stream: Stream) -> None: ...
    def __call__(self, obs: Tensor) -> Tensor: ...


class SameConv(nn.Module):
    """2-D convolution with "SAME" padding for inputs of one known size; Xavier-uniform kernel, zero bias."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, size: tuple[int, int], *, padded: bool = True
    ) -> None:
        """A layer from `inputs` to `outputs` channels, for inputs of `size` (height, width). `self.size`: of its output, which without
        padding is that of the kernel's whole steps inside."""
        super().__init__()
        self.stride = stride
        top, bottom = same_padding(size[0], kernel, stride)
        left, right = same_padding(size[1], kernel, stride)
        symmetric = top == bottom and left == right
        self.inner = (top, left) if symmetric else (0, 0)  # the convolution's own zeros: no copy of the input
        self.outer = None if symmetric else (left, right, top, bottom)
        self.size = (-(-size[0] // stride), -(-size[1] // stride))
        if not padded:
            self.inner, self.outer = (0, 0), None
            self.size = ((size[0] - kernel) // stride + 1, (size[1] - kernel) // stride + 1)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs))

    def init_(self, stream: Stream) -> None:
        xavier_(self.weight.data, stream)
        self.bias.data.zero_()

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """[B, inputs, *size] -> [B, outputs, *self.size], of scale * x (applied to the kernel: it is smaller, and bytes
        are exact in bfloat16 while their multiples are not)."""
        if self.outer is not None:
            x = F.pad(x, self.outer)
        weight = self.weight if scale == 1.0 else self.weight * scale
        return F.conv2d(x, weight, self.bias, self.stride, self.inner)


def flat(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H * W * C], in this order: a view where x is channels last."""
    return x.permute(0, 2, 3, 1).flatten(1)


def frame_size(name: str, frame: tuple[int, ...]) -> tuple[int, int]:
    """(height, width). ValueError where a frame has another number of axes than two."""
    if len(frame) != 2:
        raise ValueError(f"{name} takes frames [height, width], got {list(frame)}")
    return frame[0], frame[1]


class NatureCNN(nn.Module):
    """Mnih et al. 2015: 32 8x8/4, 64 4x4/2, 64 3x3/1, each with ReLU; with "SAME" padding, as Dopamine has it, or without, as the
    paper."""

    def __init__(self, stack: int, frame: tuple[int, ...], *, padded: bool = True) -> None:
        super().__init__()
        self.conv1 = SameConv(stack, 32, 8, 4, frame_size("the Nature CNN", frame), padded=padded)
        self.conv2 = SameConv(32, 64, 4, 2, self.conv1.size, padded=padded)
        self.conv3 = SameConv(64, 64, 3, 1, self.conv2.size, padded=padded)
        self.map_shape: tuple[int, int, int] | None = (64, *self.conv3.size)
        self.features = 64 * self.conv3.size[0] * self.conv3.size[1]
        self.chain: tuple[tuple[str, str], ...] = (("conv1", "conv2"), ("conv2", "conv3"))
        self.last: str | None = "conv3"

    def init_(self, stream: Stream) -> None:
        for conv in (self.conv1, self.conv2, self.conv3):
            conv.init_(stream)

    def forward(self, obs: Tensor) -> Tensor:
        """Numbers from 0 to 255 [B, stack, height, width] of any dtype -> [B, features], of the pixels scaled to [0, 1]."""
        x = channels_last(obs, self.conv1.weight.dtype)
        x = F.relu(self.conv1(x, scale=1.0 / 255.0))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        return flat(x)


class MinAtarCNN(nn.Module):
    """The network of MinAtar's paper (Young and Tian 2019, arXiv:1903.03176): 16 3x3 filters without padding, and ReLU. Frames
    are [channels, height, width], bytes; those of a stack lie behind each other as channels."""

    def __init__(self, stack: int, frame: tuple[int, ...]) -> None:
        super().__init__()
        if len(frame) != 3 or min(frame[1:]) < 3:
            raise ValueError(
                f"the MinAtar CNN takes frames [channels, height, width] of at least 3 x 3, got {list(frame)}"
            )
        channels, height, width = frame
        self.map_shape: tuple[int, int, int] | None = (16, height - 2, width - 2)
        self.features = 16 * (height - 2) * (width - 2)
        self.chain: tuple[tuple[str, str], ...] = ()
        self.last: str | None = ""
        self.weight = nn.Parameter(torch.empty(16, stack * channels, 3, 3))
        self.bias = nn.Parameter(torch.empty(16))

    def init_(self, stream: Stream) -> None:
        xavier_(self.weight.data, stream)
        self.bias.data.zero_()

    def forward(self, obs: Tensor) -> Tensor:
        """[B, stack, channels, height, width], 0 to 255 of any dtype -> [B, features]."""
        return frame_conv(obs.flatten(1, 2), self.weight, self.bias, 1.0 / 255.0, relu=True).flatten(1)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3x3 convolutions of as many channels, without normalisation."""

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.conv1 = SameConv(channels, channels, 3, 1, size)
        self.conv2 = SameConv(channels, channels, 3, 1, size)

    def init_(self, stream: Stream) -> None:
        self.conv1.init_(stream)
        self.conv2.init_(stream)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        return x + residual


class ImpalaStage(nn.Module):
    """3x3 convolution, 3x3/2 maximum with "SAME" padding, two residual blocks. `self.size`: of the output."""

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.conv = SameConv(inputs, outputs, 3, 1, size)
        (top, bottom), (left, right) = same_padding(size[0], 3, 2), same_padding(size[1], 3, 2)
        self.pool_padding = (left, right, top, bottom)
        self.size = (-(-size[0] // 2), -(-size[1] // 2))
        self.block1 = ResidualBlock(outputs, self.size)
        self.block2 = ResidualBlock(outputs, self.size)

    def init_(self, stream: Stream) -> None:
        for part in (self.conv, self.block1, self.block2):
            part.init_(stream)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        x = F.pad(self.conv(x, scale), self.pool_padding, value=-torch.inf)
        y: Tensor = self.block2(self.block1(F.max_pool2d(x, 3, 2)))
        return y


class ImpalaCNN(nn.Module):
    """The 15-layer residual network of Espeholt et al. 2018 (arXiv:1802.01561, Fig. 3) with its channels times `width`, as
    BBF has it with width 4: stages of (16, 32, 32) * width, no normalisation, ReLU at the end."""

    def __init__(self, stack: int, frame: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.stage1 = ImpalaStage(stack, 16 * width, frame_size("the Impala CNN", frame))
        self.stage2 = ImpalaStage(16 * width, 32 * width, self.stage1.size)
        self.stage3 = ImpalaStage(32 * width, 32 * width, self.stage2.size)
        self.map_shape: tuple[int, int, int] | None = (32 * width, *self.stage3.size)
        self.features = 32 * width * self.stage3.size[0] * self.stage3.size[1]
        blocks = [f"stage{i}.block{j}" for i in (1, 2, 3) for j in (1, 2)]
        self.chain: tuple[tuple[str, str], ...] = tuple((f"{block}.conv1", f"{block}.conv2") for block in blocks)
        self.last: str | None = None

    def init_(self, stream: Stream) -> None:
        for stage in (self.stage1, self.stage2, self.stage3):
            stage.init_(stream)

    def forward(self, obs: Tensor) -> Tensor:
        """Numbers from 0 to 255 [B, stack, height, width] of any dtype -> [B, features], of the pixels scaled to [0, 1]."""
        x = channels_last(obs, self.stage1.conv.weight.dtype)
        return flat(F.relu(self.stage3(self.stage2(self.stage1(x, scale=1.0 / 255.0)))))


class Flatten(nn.Module):
    """No encoder at all, for observations of a few dozen numbers: [B, stack, *frame] -> [B, features], divided by `scale`."""

    def __init__(self, stack: int, frame: tuple[int, ...], scale: float) -> None:
        """`scale`: 255 for bytes, whatever dtype they come in; 1 for numbers that are in units of their own."""
        super().__init__()
        self.scale = scale
        self.features = stack * int(np.prod(frame))
        self.map_shape: tuple[int, int, int] | None = None
        self.chain: tuple[tuple[str, str], ...] = ()
        self.last: str | None = None
        self.like: Tensor  # empty; carries the module's dtype
        self.register_buffer("like", torch.empty(0), persistent=False)

    def init_(self, stream: Stream) -> None:
        pass

    def forward(self, obs: Tensor) -> Tensor:
        x = obs.to(self.like.dtype).flatten(1)
        return x if self.scale == 1.0 else x / self.scale


ENCODERS = ("nature", "nature_valid", "impala", "minatar", "flatten")


def encoder(name: str, spec: Spec, width: int = 1) -> Encoder:
    """The encoder called `name`, one of ENCODERS, for the observations of `spec`. `width`: of the Impala CNN."""
    if name == "impala":
        return ImpalaCNN(spec.stack, spec.frame_shape, width)
    if name.startswith("nature"):  # "nature_valid": without padding
        return NatureCNN(spec.stack, spec.frame_shape, padded=name == "nature")
    if name == "minatar":
        return MinAtarCNN(spec.stack, spec.frame_shape)
    return Flatten(spec.stack, spec.frame_shape, 255.0 if spec.frame_dtype == "uint8" else 1.0)


class Transition(nn.Module):
    """Latent dynamics of SPR (Schwarzer et al. 2021, arXiv:2007.05929, appendix): the action as constant planes beside the
    latent map, then two 3x3 convolutions with ReLU. Channels stay."""

    def __init__(self, map_shape: tuple[int, int, int], actions: int) -> None:
        super().__init__()
        channels, *size = map_shape
        self.map_shape, self.actions = map_shape, actions
        self.conv1 = SameConv(channels + actions, channels, 3, 1, (size[0], size[1]))
        self.conv2 = SameConv(channels, channels, 3, 1, (size[0], size[1]))

    def init_(self, stream: Stream) -> None:
        self.conv1.init_(stream)
        self.conv2.init_(stream)

    def forward(self, latent: Tensor, action: Tensor) -> Tensor:
        """The latent after `action` [B] int64, as `latent` [B, features] is before it: in the order h, w, c."""
        channels, height, width = self.map_shape
        one_hot = action[:, None] == torch.arange(self.actions, device=action.device)
        planes = one_hot.to(latent.dtype)[:, None, None].expand(-1, height, width, -1)
        x = torch.cat([latent.unflatten(1, (height, width, channels)), planes], 3).permute(0, 3, 1, 2)
        return flat(F.relu(self.conv2(F.relu(self.conv1(x)))))


class Linear(nn.Linear):
    """A linear layer with Xavier-uniform weights and zero biases, that takes and ignores the noise of a NoisyLinear."""

    def init_(self, stream: Stream) -> None:
        xavier_(self.weight.data, stream)
        self.bias.data.zero_()

    def noise(self, _stream: Stream | DeviceStream) -> None:
        """There is none."""

    def forward(self, x: Tensor, noise: None = None) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Noise(NamedTuple):
    """One draw of factorised noise for one layer: f(x) = sign(x) sqrt|x| of standard normals."""

    inputs: Tensor  # [inputs]
    outputs: Tensor  # [outputs]


class NoisyLinear(nn.Module):
    """Linear layer whose weights are mu + sigma * (f(e_out) f(e_in)^T): Fortunato et al. 2018 (arXiv:1706.10295), Eq. 9-11.

    mu starts as U(-1, 1) / sqrt(fan_in), sigma as sigma0 / sqrt(fan_in), weights and biases alike.
    """

    pruned_with: ClassVar[dict[str, str]] = {"sigma": "mu"}  # a weight that is 0 has no noise: techniques/pruning.py

    def __init__(self, inputs: int, outputs: int, sigma0: float) -> None:
        super().__init__()
        self.sigma0 = sigma0
        self.mu = nn.Parameter(torch.empty(outputs, inputs))
        self.sigma = nn.Parameter(torch.empty(outputs, inputs))
        self.bias_mu = nn.Parameter(torch.empty(outputs))
        self.bias_sigma = nn.Parameter(torch.empty(outputs))

    def init_(self, stream: Stream) -> None:
        bound = self.mu.shape[1] ** -0.5
        uniform_(self.mu.data, bound, stream)
        uniform_(self.bias_mu.data, bound, stream)
        self.sigma.data.fill_(self.sigma0 * bound)
        self.bias_sigma.data.fill_(self.sigma0 * bound)

    def noise(self, stream: Stream | DeviceStream) -> Noise:
        """Draw the noise of one forward pass, in the layer's dtype, where the stream draws."""
        outputs, inputs = self.mu.shape
        x = torch.as_tensor(stream.normal(inputs + outputs))
        # By way of float64, so that the root is the nearest float32 everywhere: torch's own on the CPU is off by a bit.
        e = x.abs().double().sqrt().float().copysign(x).to(self.mu.dtype)
        return Noise(e[:inputs], e[inputs:])

    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:
        """[B, inputs] -> [B, outputs]; the noise, shared by the batch, or the mean weights where it is None.

        The noise is rank one, so it scales inputs and outputs: (sigma * e_out e_in^T) x = e_out * (sigma (e_in * x)), and no
        noisy copy of the weights is ever made.
        """
        y = F.linear(x, self.mu, self.bias_mu)
        if noise is None:
            return y
        return torch.addcmul(y, noise.outputs, F.linear(x * noise.inputs, self.sigma, self.bias_sigma))


def orthogonal_(weight: Tensor, gain: float, stream: Stream) -> None:
    """Fill a matrix in place with `gain` times orthonormal rows or columns, whichever are fewer, uniformly distributed (Saxe et al.
    2014, arXiv:1312.6120): the Q of a matrix of normals, its signs made unique."""
    rows, columns = weight.shape
    normal = torch.from_numpy(stream.normal(max(rows, columns), min(rows, columns))).double()
    q, r = torch.linalg.qr(normal)
    q = q * r.diagonal().sign()
    with torch.no_grad():
        weight.copy_(gain * (q if rows >= columns else q.T))
