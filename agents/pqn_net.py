"""The network of PQN: layer norm after every layer but the last. A function of (parameters, observations): nothing draws."""

from itertools import pairwise
from math import prod

import torch
import torch.nn.functional as F  # its name everywhere
from torch import Tensor, nn

from rlplatform.frame_conv import frame_conv
from rlplatform.nets import flat, orthogonal_
from rlplatform.streams import Stream
from rlplatform.techniques.redo import Into, Link
from rlplatform.types import Spec

LN_EPS = 1e-6  # of the authors' library
GAIN = 2.0**0.5  # of the orthogonal matrices before a ReLU
HEAD_GAIN = 0.01  # all values are about 0 at first
ENCODERS = {  # by name: channels, kernel and stride of each convolution, none of them padded
    "nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1)),
    "minatar": ((16, 3, 1),),
    "flatten": (),
}


class NormConv(nn.Module):
    """A convolution without padding, and layer norm over the channels of each place; orthogonal kernels, zero biases."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.norm = nn.LayerNorm(outputs, LN_EPS)

    def init_(self, stream: Stream) -> None:
        orthogonal_(self.weight.data.view(len(self.weight), -1), GAIN, stream)
        self.bias.data.zero_()

    def forward(self, x: Tensor, scale: float) -> Tensor:
        """[B, outputs, height, width] of scale * x, for x [B, inputs, height, width] of any dtype; in memory channels last."""
        y: Tensor = self.norm(frame_conv(x, self.weight, self.bias, scale, stride=self.stride))
        return y.permute(0, 3, 1, 2)


class NormLinear(nn.Module):
    """A linear layer, and layer norm; an orthogonal matrix, zero biases."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.LayerNorm(outputs, LN_EPS)

    def init_(self, stream: Stream) -> None:
        orthogonal_(self.linear.weight.data, GAIN, stream)
        self.linear.bias.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.linear(x))
        return y


class Net(nn.Module):
    """Values of all actions: convolutions, hidden layers, each with layer norm and ReLU, and a linear head."""

    def __init__(self, encoder: str, width: int, hidden: int, layers: int, spec: Spec) -> None:
        """`encoder`: of ENCODERS; `width` multiplies its channels; then `layers` >= 1 layers of `hidden` units.

        Raises:
            ValueError: frames that the encoder cannot take.
        """
        super().__init__()
        shape = spec.frame_shape
        axes = {"nature": 2, "minatar": 3, "flatten": len(shape)}[encoder]
        if len(shape) != axes:
            raise ValueError(f"encoder {encoder} takes frames of {axes} axes, got {list(shape)}")
        self.scale = 1.0 / 255.0 if spec.frame_dtype == "uint8" else 1.0
        self.convs = nn.ModuleList()
        inputs, size = spec.stack * prod(shape), shape[-2:]
        channels = spec.stack * prod(shape[:-2])
        for outputs, kernel, stride in ENCODERS[encoder]:
            size = tuple((s - kernel) // stride + 1 for s in size)
            if min(size) < 1:
                raise ValueError(f"encoder {encoder}: nothing is left of frames {list(shape)}")
            self.convs.append(NormConv(channels, outputs * width, kernel, stride))
            channels, inputs = outputs * width, outputs * width * prod(size)
        self.hidden = nn.ModuleList(NormLinear(inputs if i == 0 else hidden, hidden) for i in range(layers))
        self.head = nn.Linear(hidden, spec.actions)

    def init_(self, stream: Stream) -> None:
        for layer in (*self.convs, *self.hidden):
            layer.init_(stream)
        orthogonal_(self.head.weight.data, HEAD_GAIN, stream)
        self.head.bias.data.zero_()

    def links(self) -> list[Link]:
        """The layers whose units can be recycled: all but the head, each with its layer norm."""
        convs, hidden = ([f"{name}.{i}" for i in range(len(getattr(self, name)))] for name in ("convs", "hidden"))
        matrices = [*convs, *(f"{layer}.linear" for layer in hidden)]
        own = [*((conv,) for conv in convs), *((f"{layer}.linear", f"{layer}.norm") for layer in hidden)]
        pairs = zip(pairwise([*matrices, "head"]), own, strict=True)
        return [Link(layer, (Into(into),), incoming) for (layer, into), incoming in pairs]

    def features(self, obs: Tensor) -> Tensor:
        """The last hidden layer before its ReLU, [B, hidden], of observations [B, stack, *frame] of any dtype."""
        if self.convs:
            x, scale = obs.flatten(1, -3), self.scale
            for conv in self.convs:
                x, scale = F.relu(conv(x, scale)), 1.0
            x = flat(x)
        else:
            x = obs.to(self.head.weight.dtype).flatten(1) * self.scale
        for layer in self.hidden[:-1]:
            x = F.relu(layer(x))
        h: Tensor = self.hidden[-1](x)
        return h

    def read(self, features: Tensor) -> Tensor:
        """Values [B, actions] of features [B, hidden]."""
        q: Tensor = self.head(F.relu(features))
        return q

    def forward(self, obs: Tensor) -> Tensor:
        """Values [B, actions] of observations [B, stack, *frame]."""
        return self.read(self.features(obs))
