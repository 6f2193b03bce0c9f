"""What the hidden units of a network do on a batch, whoever wrote the network: no hooks, no names to give.

A `Recorder` watches the calls that a forward pass makes. The output of an activation function belongs to the layer whose matrix or
kernel was used last before it, so that `relu(norm(self.hidden(x)))` is what "hidden" does, be it written with modules or functions.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import torch
import torch.nn.functional as F  # its name everywhere
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Out = TypeVar("Out")
ACTIVATIONS = frozenset((
    F.relu, F.elu, F.leaky_relu, F.gelu, F.silu, F.selu, F.tanh, F.softplus, F.mish, F.relu_, F.elu_, torch.relu, torch.relu_,
    torch.tanh, torch.tanh_, Tensor.relu, Tensor.relu_, Tensor.tanh, Tensor.tanh_,
))  # fmt: skip


class Recorder(TorchFunctionMode):
    """The activations of a network's layers, by the layer's name, in the order in which they were computed."""

    def __init__(self, net: nn.Module, outputs: Collection[str] = ()) -> None:
        """`outputs`: layers that are no hidden ones, such as a policy's last before its tanh."""
        super().__init__()
        self.layers: dict[
            str, Tensor
        ] = {}  # [B, units, ...], without gradient; a layer that is used twice has "name#2", too
        self._outputs = frozenset(outputs)
        self._owners = {
            p.untyped_storage().data_ptr(): layer_of(name)
            for name, p in net.named_parameters()
            if p.ndim > 1 and p.numel()
        }
        self._layer = ""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor):  # by memory: a transposed matrix is that matrix
                self._layer = self._owners.get(value.untyped_storage().data_ptr(), self._layer)
        out = func(*args, **kwargs)
        if func in ACTIVATIONS and self._layer and self._layer not in self._outputs:
            name, times = self._layer, 1
            while name in self.layers:
                times += 1
                name = f"{self._layer}#{times}"
            self.layers[name] = out.detach()
        return out


def layer_of(parameter: str) -> str:
    """The module that owns a parameter of this name; for one under a parametrisation, the module that is parametrised."""
    return parameter.rpartition(".")[0].partition(".parametrizations.")[0]


@torch.no_grad()
def record(
    net: nn.Module, forward: Callable[[Tensor], Out], obs: Tensor, outputs: Collection[str] = ()
) -> tuple[dict[str, Tensor], Out]:
    """What the layers of `net` do while `forward(obs)` runs, name -> [B, units, ...], and what that returns.

    Raises:
        ValueError: nothing was recorded: the pass uses other weights than those of `net`, or no activation function.
    """
    with Recorder(net, outputs) as recorder:
        out = forward(obs)
    if not recorder.layers:
        raise ValueError(f"no activation of {type(net).__name__} was seen: does the pass use its parameters?")
    return recorder.layers, out
