"""How the SPR family acts: on arrays, for environments on the host, and on tensors, for those on a device.

Both are epsilon-greedy on the mean return, with one draw of noise for all environments where layers are noisy.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlplatform.agents.spr_config import DTYPES, Config
from rlplatform.agents.spr_net import Net, NetNoise, flattened, q_values, support_of, unflattened
from rlplatform.device import CPU, placed, products
from rlplatform.device_call import Adopted, DeviceCall
from rlplatform.device_streams import DeviceStream
from rlplatform.graphs import Graphed
from rlplatform.staging import Field, field_of
from rlplatform.streams import Stream
from rlplatform.types import Array, Spec, Weights


class _Acting:
    """The network that acts, and whose weights it has."""

    def __init__(self, config: Config, spec: Spec, device: torch.device) -> None:
        self._config, self._actions, self._device = config, spec.actions, device
        self._net = placed(Net(config, spec, DTYPES[config.dtype], acting=True), device).requires_grad_(False)
        self._support = support_of(config).to(device)
        self._calls: dict[Any, Any] = {}  # the network as graphs, which know the weights by their addresses
        self._weights = Adopted(dict(self._net.named_parameters()), device)

    def load(self, weights: Weights) -> None:
        """Take over the tensors of Agent.weights(); see `Adopted`."""
        self._weights.take(weights["net"], self._calls)

    def _best(self, obs: Tensor, *noise: Tensor) -> Tensor:
        """[N] int64, of obs [N, stack, *frame]."""
        with products(tf32=self._config.dtype == "tf32"):
            return q_values(self._net(obs, unflattened(noise)), self._support).argmax(1)


class Policy(_Acting):
    """Acts on arrays; in evaluation with the mean weights of noisy layers."""

    def __init__(
        self, config: Config, spec: Spec, *, evaluation: bool, device: torch.device = CPU, graphed: bool = False
    ) -> None:
        """`graphed`: act as on a GPU, on the CPU, too; for tests."""
        super().__init__(config, spec, device)
        self._evaluation, self._graphed = evaluation, graphed or device.type == "cuda"
        self._epsilon = 1.0

    def load(self, weights: Weights) -> None:
        super().load(weights)
        self._epsilon = self._config.epsilon_eval if self._evaluation else weights["epsilon"]

    @torch.inference_mode()
    def act(self, obs: Array, stream: Stream) -> tuple[Array, Mapping[str, Array]]:
        """Actions [N] int64 for obs [N, stack, *frame]."""
        explore = stream.uniform(len(obs)) < self._epsilon
        action = stream.integers(self._actions, len(obs))
        if not explore.all():
            noise = None if self._evaluation else self._net.noise(stream)
            action = np.where(explore, action, self._greedy(torch.from_numpy(obs), noise))
        return action, {}

    def _greedy(self, obs: Tensor, noise: NetNoise | None) -> Array:
        """[N] int64."""
        if not self._graphed:
            best: Array = self._best(obs, *flattened(noise)).numpy()
            return best
        inputs = (obs, *flattened(noise))
        if len(obs) not in self._calls:  # by number of environments
            output = Field((len(obs),), torch.int64)
            self._calls[len(obs)] = DeviceCall(self._best, [field_of(x) for x in inputs], output, self._device)
        result: Array = self._calls[len(obs)](*inputs)
        return result


class _Call(NamedTuple):
    """One action of N environments, as a graph."""

    obs: Tensor  # read by it
    action: Tensor  # written by it
    run: Graphed


class DevicePolicy(_Acting):
    """What `Policy` does in training, on tensors, without a word to the host: for one stream and equal networks its actions and
    the stream's next state are `Policy`'s to the bit (on a GPU but for the rounding of noise and network)."""

    def __init__(self, config: Config, spec: Spec, device: torch.device) -> None:
        super().__init__(config, spec, device)
        self._epsilon = torch.ones((), dtype=torch.float64, device=device)  # read by the graph when it runs

    def load(self, weights: Weights) -> None:
        super().load(weights)
        self._epsilon.fill_(weights["epsilon"])

    @torch.inference_mode()
    def act(self, obs: Tensor, stream: DeviceStream) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Actions [N] int64, the caller's own, for obs [N, stack, *frame]. Enqueues one graph, and waits for nothing."""
        key = len(obs), stream.state.data_ptr()
        if key not in self._calls:
            self._calls[key] = self._captured(torch.empty_like(obs), stream)
        call: _Call = self._calls[key]
        call.obs.copy_(obs)
        call.run()
        return call.action.clone(), {}

    def _captured(self, obs: Tensor, stream: DeviceStream) -> _Call:
        n = len(obs)
        out = torch.empty(n, dtype=torch.int64, device=self._device)

        def act() -> None:
            explore = stream.uniform(n) < self._epsilon
            action = stream.integers(self._actions, n)
            before = stream.state.clone()
            best = self._best(obs, *flattened(self._net.noise(stream)))
            # Where all explore, Policy draws no noise: whether they do is known here alone, so the draw is taken back.
            stream.state.copy_(torch.where(explore.all(), before, stream.state))
            out.copy_(torch.where(explore, action, best))

        return _Call(obs, out, Graphed(act, self._device))
