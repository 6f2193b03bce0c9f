"""A small function on a device, called from the host with arrays: how a policy acts."""

from collections.abc import Callable, Sequence

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
