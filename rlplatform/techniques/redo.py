"""ReDo, recycling of dormant neurons: Sokar, Agarwal, Castro and Evci 2023 (arXiv:2302.12902), section 5.

Every so many gradient steps, units whose mean |activation| is at most tau of their layer's mean begin anew: what leads to them is
initialised afresh, what leads from them is set to 0, so that the network's output stays where they were 0, and the moments of both are
cleared. In an agent, between two rounds of learning:

    if self._redo.due():
        layers, _ = record(net, forward, self._redo.observations(self.replay))
        self._redo.recycle_(net, fresh, net.links(), layers, [self._adam])

`fresh` is a network like `net`, newly initialised from `self._redo.stream`. As in the authors' code a feature map is one unit, of a
residual block only the inner convolution is recycled, step counts of the optimiser stay; unlike there a unit's bias and the bias's
moments begin anew with its weights, and observations are drawn uniformly from what can be sampled.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rlplatform.checked import Checked
from rlplatform.streams import Stream
from rlplatform.techniques import plasticity
from rlplatform.types import Array, State


@dataclass(frozen=True)
class ReDoConfig(Checked):
    """When, and which units."""

    section = "redo."

    every: int = 0  # gradient steps between recyclings, 1,000 in the paper; 0: never
    tau: float = 0.1  # largest score of a unit that is recycled: 0.1 and 0.025 in the paper, 0: only dead ones
    batch: int = 256  # observations that scores are means over

    def __post_init__(self) -> None:
        self._at_least(0, "every")
        self._at_least(1, "batch")
        self._not_negative("tau")


class Into(NamedTuple):
    """A module that takes a layer's units."""

    module: str
    inputs: int = 0  # its first so many inputs are these units; 0: all


class Link(NamedTuple):
    """A hidden layer and its neighbours, by the names of modules."""

    layer: str  # as techniques.activations names it
    into: tuple[Into, ...]
    incoming: tuple[str, ...] = ()  # modules that lead to it; (): the layer's own


def link(layer: str, *into: str) -> Link:
    """The usual one: a layer whose units are all that some modules take."""
    return Link(layer, tuple(map(Into, into)))


class Recycler:
    """When it is due, what is drawn for it, and how many units there were."""

    def __init__(self, config: ReDoConfig, seed: int) -> None:
        """`seed` of the run: names the stream "redo"."""
        self.config, self.stream = config, Stream(seed, "redo")
        self.count = 0  # units recycled so far
        self._steps = 0  # gradient steps since the last time

    def tick(self, steps: int = 1) -> None:
        """So many gradient steps more."""
        self._steps += steps

    def due(self) -> bool:
        """Whether `every` gradient steps were taken since it last was; then they are counted anew."""
        due = 0 < self.config.every <= self._steps
        self._steps = 0 if due else self._steps
        return due

    def rows(self, count: int) -> Array:
        """[batch] int64, uniform over 0 to count - 1: of a round's observations, where there is no replay."""
        return self.stream.integers(count, self.config.batch)

    def draw(self, replay: Any) -> Array:
        """Insertion numbers [batch] int64 of items of a Replay or DeviceReplay, uniform over those that can be sampled."""
        eligible: Array = replay.eligible()
        return eligible[self.rows(len(eligible))]

    def observations(self, replay: Any) -> Tensor:
        """[batch, stack, *frame] from a Replay or DeviceReplay, as they were stored and where they are."""
        return torch.as_tensor(replay.observations(self.draw(replay)))

    def recycle_(
        self,
        net: nn.Module,
        fresh: nn.Module,
        links: Sequence[Link],
        layers: Mapping[str, Tensor],
        optimizers: Iterable[torch.optim.Optimizer],
    ) -> None:
        """Recycle what is dormant in `layers`, activations by name; see `recycle_`."""
        chosen = {of.layer: plasticity.dormant(layers[of.layer], self.config.tau) for of in links}
        recycle_(net, fresh, links, chosen, optimizers)
        self.count += sum(int(mask.sum()) for mask in chosen.values())

    def metrics(self) -> dict[str, Tensor]:
        """Units recycled so far, where it is switched on."""
        return {"charts/recycled": torch.tensor(self.count)} if self.config.every else {}

    def state_dict(self) -> State:
        return {"stream": self.stream.state_dict(), "count": self.count, "steps": self._steps}

    def load_state_dict(self, state: State) -> None:
        self.stream.load_state_dict(state["stream"])
        self.count, self._steps = int(state["count"]), int(state["steps"])


@torch.no_grad()
def recycle_(
    net: nn.Module,
    fresh: nn.Module,
    links: Sequence[Link],
    chosen: Mapping[str, Tensor],
    optimizers: Iterable[torch.optim.Optimizer],
) -> None:
    """Begin units anew, in place: rows of the modules that lead to them from `fresh`, columns of those they lead into 0, in that order
    for all layers, so that between two recycled units there is 0.

    Args:
        fresh: of the same form, newly initialised; it is only read.
        chosen: units by layer, [units] bool.
        optimizers: of the parameters of `net`; others' are left alone.
    """
    optimizers = list(optimizers)
    for layer, _, incoming in links:
        for name in incoming or (layer,):
            pairs = zip(net.get_submodule(name).parameters(), fresh.get_submodule(name).parameters(), strict=True)
            for parameter, new in pairs:
                mask = chosen[layer].to(parameter.device)
                parameter[mask] = new[mask]
                for moment in _moments(parameter, optimizers):
                    moment[mask] = 0.0
    for layer, into, _ in links:
        for name, inputs in into:
            for parameter in net.get_submodule(name).parameters():
                if parameter.ndim > 1:
                    for tensor in (parameter, *_moments(parameter, optimizers)):
                        _columns(tensor, inputs, chosen[layer].to(tensor.device))


def _columns(matrix: Tensor, inputs: int, mask: Tensor) -> None:
    """Set the columns of these units to 0. A feature map that was laid out flat has a column for each place, places first."""
    taken = matrix[:, : inputs or matrix.shape[1]]
    taken.unflatten(1, (-1, len(mask)))[:, :, mask] = 0.0


def _moments(parameter: Tensor, optimizers: list[torch.optim.Optimizer]) -> list[Tensor]:
    """Of one parameter, element by element: without the count of steps."""
    kept = [
        value
        for optimizer in optimizers
        if parameter in optimizer.state
        for value in optimizer.state[parameter].values()
    ]
    return [value for value in kept if isinstance(value, Tensor) and value.shape == parameter.shape]
