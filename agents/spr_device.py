"""The update of spr.Agent as a GPU takes it: gradient steps captured as one CUDA graph, over a Feed (device_batches.py).

The gradient step itself is the agent's `learn`; here is what surrounds it: batches, augmentation, n and gamma, priorities and
metrics without a word to the host. On the CPU the same code runs as it stands, which is how it is tested.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rlplatform.agents.spr_config import Config, horizon_at
from rlplatform.agents.spr_net import Inputs, importance_weights
from rlplatform.device import products
from rlplatform.device_augment import augmentation, draw
from rlplatform.device_batches import Feed
from rlplatform.device_streams import DeviceStream
from rlplatform.graphs import Graphed
from rlplatform.techniques import sigreg


class Horizon:
    """horizon_at as tables on a device, read at a counter of gradient steps there: the very numbers of the host."""

    def __init__(self, config: Config, device: torch.device) -> None:
        rows = [horizon_at(cycle, config) for cycle in range(config.anneal + 1)]
        self._n = torch.tensor([n for n, _ in rows], dtype=torch.int64, device=device)
        self._gamma = torch.tensor([gamma for _, gamma in rows], dtype=torch.float64, device=device)
        self.cycle = torch.zeros(1, dtype=torch.int64, device=device)  # gradient steps since the last reset

    def now(self) -> tuple[Tensor, Tensor]:
        """n, int64, and gamma, float64, of the next gradient step: [1] each."""
        # index_select: an index without axes in brackets would be read back by the host.
        at = self.cycle.clamp(max=len(self._n) - 1)
        return self._n.index_select(0, at), self._gamma.index_select(0, at)


class DeviceUpdates:
    """Launches of one or more gradient steps."""

    def __init__(
        self,
        config: Config,
        learn: Callable[[Inputs], tuple[dict[str, Tensor], Tensor]],
        feed: Feed,
        stream: DeviceStream,
        horizon: Horizon,
        device: torch.device,
    ) -> None:
        """`learn` is one gradient step, as Agent.learn; `stream` is what augmentations are drawn from."""
        self.feed, self.horizon = feed, horizon
        self._config, self._learn, self._stream, self._device = config, learn, stream, device
        images = (config.spr_steps + 2) * config.batch
        self._augmentation = augmentation(images, device) if config.augment else None
        self._graphs: dict[int, Graphed] = {}  # by steps a launch
        names = ["losses/td_loss", "losses/q_values"]
        names += ["losses/spr_loss"] if config.spr_steps else []
        names += sigreg.METRICS if config.sigreg.weight else []
        self.metrics = {name: torch.zeros((), device=device) for name in names}  # of the last step

    def launch(self, steps: int) -> None:
        """So many gradient steps, at most feed.launch, enqueued as one."""
        self.feed.before()
        self._graph_of(steps)()
        self.feed.after()

    def _graph_of(self, steps: int) -> Graphed:
        if steps not in self._graphs:

            def launch() -> None:
                with products(tf32=self._config.dtype == "tf32"):
                    for _ in range(steps):
                        self.step()

            self._graphs[steps] = Graphed(launch, self._device)
        return self._graphs[steps]

    def step(self) -> None:
        """All of one gradient step that happens on the device."""
        metrics, td = self._learn(self.inputs())
        self.horizon.cycle.add_(1)
        self.feed.give(td)
        for name, value in self.metrics.items():
            value.copy_(metrics[name])

    def inputs(self) -> Inputs:
        """As Agent.inputs."""
        batch = self.feed.draw()
        if self._augmentation is not None:
            draw(self._stream, self._augmentation)
        return Inputs(
            self.feed.observations(self._augmentation), batch.action.T, batch.n_return, batch.discount, batch.mask.T.float(),
            importance_weights(batch.priority).float(),
        )  # fmt: skip
