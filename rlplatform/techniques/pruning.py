"""Gradual magnitude pruning: Obando-Ceron, Courville and Castro 2024 (arXiv:2402.12479), after Zhu and Gupta 2017 (arXiv:1710.01878).

Weights of small magnitude are set to 0 for good while the network learns: none at first, then ever more by a cubic schedule that
counts gradient updates. In an agent, around each gradient step on `net`:

    self.pruner.begin()                # the masks of this step, by the weights as they stand
    ... the gradient of all weights, the optimiser's step ...
    self.pruner.apply_(self.net)       # what is pruned is 0
    ... the target moves ...; self.pruner.apply_(self.target)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from rlplatform.checked import Checked
from rlplatform.types import Metrics, State

DISTRIBUTIONS = ("erk", "uniform")
NEVER = 2**62  # updates


@dataclass(frozen=True)
class PruningConfig(Checked):
    """How many weights, when, and in which layers. The paper: from 20 % to 80 % of training, 0.95."""

    section = "pruning."

    sparsity: float = 0.0  # share of the weights that are 0 in the end; 0: off
    begin: int = 0  # gradient updates before the first mask
    end: int = 0  # after so many updates the sparsity is final
    every: int = 1_000  # updates between two masks
    distribution: str = "erk"  # over layers: Erdos-Renyi-kernel, or "uniform"

    def __post_init__(self) -> None:
        self._expect("sparsity", 0.0 <= self.sparsity < 1.0, "in [0, 1)")
        self._one_of(DISTRIBUTIONS, "distribution")
        self._at_least(1, "every")
        self._at_least(0, "begin")
        self._expect("end", not self.sparsity or self.end > self.begin, f"more than begin={self.begin}")


def progress(update: int, config: PruningConfig) -> float:
    """The share of the final sparsity that is due after so many updates: 1 - (1 - (t - t0) / (t1 - t0))^3, Eq. 1."""
    done = min(max((update - config.begin) / (config.end - config.begin), 0.0), 1.0)
    return 1.0 - (1.0 - done) ** 3


def layer_sparsities(shapes: Mapping[str, tuple[int, ...]], sparsity: float, distribution: str) -> dict[str, float]:
    """The final sparsity of each layer, such that `sparsity` of all their weights are 0.

    "erk" (Evci et al. 2020, arXiv:1911.11134): a layer's density is in proportion to the sum of its dimensions over their product, at
    most 1. Layers that would pass 1 stay dense, and the others are solved for anew.
    """
    if distribution == "uniform":
        return dict.fromkeys(shapes, sparsity)
    size = {name: prod(shape) for name, shape in shapes.items()}
    raw = {name: sum(shape) / size[name] for name, shape in shapes.items()}
    dense: set[str] = set()
    keep = (1.0 - sparsity) * sum(size.values())
    while len(dense) < len(shapes):
        scale = (keep - sum(size[name] for name in dense)) / sum(raw[n] * size[n] for n in shapes if n not in dense)
        over = {name for name in shapes if name not in dense and scale * raw[name] >= 1.0}
        if not over:
            return {name: 0.0 if name in dense else 1.0 - scale * raw[name] for name in shapes}
        dense |= over
    return dict.fromkeys(shapes, 0.0)


def magnitude_mask(weight: Tensor, sparsity: float, before: Tensor | None = None) -> Tensor:
    """True at the round(n (1 - sparsity)) weights of largest magnitude, at least one; of equal ones the first stay. What the mask
    `before` has at 0 comes after all others, a weight of 0 that ReDo made, too. A bool tensor."""
    keep = max(1, round(weight.numel() * (1.0 - sparsity)))
    size = weight.detach().abs()
    if before is not None:
        size = size.masked_fill(before == 0, -1.0)
    order = size.flatten().sort(descending=True, stable=True).indices
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[order[:keep]] = True
    return mask.view(weight.shape)


class Pruner:
    """Masks of the kernels of a network: of all its parameters with more than one axis, the output layer's included; of no bias and
    no norm. A module may name parameters that share another's mask, as `pruned_with = {"sigma": "mu"}`.

    A mask only ever loses weights. Masks stay where they are in memory.
    """

    def __init__(self, net: nn.Module, config: PruningConfig) -> None:
        """`net`: what the optimiser moves; it is read at `begin`."""
        self.config, self._net = config, net
        self.updates = 0  # gradient steps begun
        self.sparsity = 0.0  # of all masks together
        self.masks: dict[str, Tensor] = {}  # by parameter; 1 stays, 0 is pruned; in the dtype of the parameter
        if not self.on:
            return
        self._shared = {
            f"{path}.{follower}".lstrip("."): f"{path}.{leader}".lstrip(".")
            for path, module in net.named_modules()
            for follower, leader in getattr(module, "pruned_with", {}).items()
        }
        kernels = {name: p for name, p in net.named_parameters() if p.ndim > 1 and name not in self._shared}
        self.masks = {name: torch.ones_like(p, requires_grad=False) for name, p in kernels.items()}
        shapes = {name: tuple(p.shape) for name, p in kernels.items()}
        self.final = layer_sparsities(shapes, config.sparsity, config.distribution)

    @property
    def on(self) -> bool:
        return self.config.sparsity > 0.0

    @property
    def ahead(self) -> int:
        """How many gradient steps one `begin` may stand for, so that no masks fall due among them: at least 1."""
        config, t = self.config, self.updates
        if not self.on or t >= config.end:
            return NEVER
        if t < config.begin:
            return config.begin - t
        return min(config.every - (t - config.begin) % config.every, config.end - t)

    def begin(self, steps: int = 1) -> None:
        """So many gradient steps follow: masks anew, if they are due before the first of them."""
        if not self.on:
            return
        if self._due(self.updates):
            share, parameters = progress(self.updates, self.config), dict(self._net.named_parameters())
            for name, mask in self.masks.items():
                mask.copy_(magnitude_mask(parameters[name], share * self.final[name], mask))
            self._measure()
        self.updates += steps

    def _due(self, update: int) -> bool:
        config = self.config
        in_time = config.begin <= update <= config.end
        return in_time and ((update - config.begin) % config.every == 0 or update == config.end)

    @torch.no_grad()
    def apply_(self, net: nn.Module) -> None:
        """Set to 0 what is pruned, in a network with the parameters of the one given at first, or some of them."""
        if not self.on:
            return
        weights: list[Tensor] = []
        masks: list[Tensor] = []
        for name, parameter in net.named_parameters():
            mask = self.masks.get(self._shared.get(name, name))
            if mask is not None:
                weights.append(parameter)
                masks.append(mask)
        torch._foreach_mul_(weights, masks)

    def metrics(self, part: str = "") -> Metrics:
        """The share of the kernels' weights that the masks set to 0, under the name of the `part` of an agent that this prunes."""
        return {f"pruning/{part}_sparsity" if part else "pruning/sparsity": self.sparsity} if self.on else {}

    def _measure(self) -> None:
        total = sum(mask.numel() for mask in self.masks.values())
        self.sparsity = 1.0 - sum(float(mask.sum(dtype=torch.float64)) for mask in self.masks.values()) / total

    def state_dict(self) -> State:
        masks = {name: mask.bool().cpu() for name, mask in self.masks.items()}
        return {"updates": self.updates, "masks": masks}

    def load_state_dict(self, state: State) -> None:
        self.updates = int(state["updates"])
        for name, mask in self.masks.items():
            mask.copy_(state["masks"][name])
        if self.on:
            self._measure()
