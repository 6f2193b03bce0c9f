"""A small function on a device, called from the host with arrays: how a policy acts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlplatform.graphs import Graphed
from rlplatform.staging import Download, Field, Upload
from rlplatform.types import Array


class DeviceCall:
    """`call(*inputs)` is f(*inputs) computed on a device, for inputs and a result on the host.

    The inputs go up in one copy, the function is one graph, the result comes down in one copy, and the host waits once.
    """

    def __init__(self, f: Callable[..., Tensor], inputs: Sequence[Field], output: Field, device: torch.device) -> None:
        """`f` takes tensors like `inputs`, gives one like `output`, and is as Graphed asks of a step."""
        self._upload = Upload({str(i): field for i, field in enumerate(inputs)}, device)
        self._output = Download(output, device)
        self._f = f
        self._graph = Graphed(self._step, device)

    def __call__(self, *inputs: Tensor) -> Array:
        """The result; overwritten by the next call."""
        for to, given in zip(self._upload.open().values(), inputs, strict=True):
            to.copy_(given)
        self._upload.send()
        self._graph()
        self._output.start()
        return self._output.wait()

    def _step(self) -> None:
        self._output.device.copy_(self._f(*self._upload.device.values()))


class Adopted:
    """A policy's parameters, which are the tensors of Agent.weights() without a copy, as long as no graph keeps others' addresses."""

    def __init__(self, parameters: Mapping[str, Tensor], device: torch.device) -> None:
        self._parameters, self._device = dict(parameters), device
        self._owns = False  # whether `take` copies

    @torch.no_grad()
    def take(self, given: Mapping[str, Tensor], calls: dict[Any, Any]) -> None:
        """Take over tensors by name: later changes in place are seen. `calls`, the graphs that read the parameters, keep addresses: where
        others come than the captured ones, graphs are forgotten and values are copied from then on."""
        if self._owns:
            for name, parameter in self._parameters.items():
                parameter.copy_(given[name])
        elif not calls:
            for name, parameter in self._parameters.items():
                parameter.data = given[name].to(self._device)
        elif any(p.data_ptr() != given[name].data_ptr() for name, p in self._parameters.items()):
            for name, parameter in self._parameters.items():
                parameter.data = given[name].to(self._device, copy=True)
            calls.clear()
            self._owns = True
