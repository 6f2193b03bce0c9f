"""What agents keep in their checkpoints: parameters and moments by name, on the CPU, and what techniques have, of those that are on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rlplatform.techniques import spectral_norm
from rlplatform.techniques.l2_init import Initial
from rlplatform.techniques.pruning import Pruner
from rlplatform.techniques.redo import Recycler
from rlplatform.techniques.sigreg import SigReg
from rlplatform.types import State


def saved(tensor: Tensor) -> Tensor:
    """A copy on the CPU, so that the agent may go on while it is written."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def moments_of(parameters: Mapping[str, Tensor], *optimizers: Optimizer) -> dict[str, dict[str, Tensor]]:
    """Copies of what optimisers keep for each of these parameters, by name; nothing for one that was never stepped."""
    moments = {key: value for optimizer in optimizers for key, value in optimizer.state.items()}
    return {name: {key: saved(t) for key, t in moments[p].items()} for name, p in parameters.items() if p in moments}


def load_moments(
    moments: Mapping[str, Mapping[str, Tensor]], parameters: Mapping[str, Tensor], *optimizers: Optimizer
) -> None:
    """Put what `moments_of` copied in the place of all that these optimisers keep, laid out as the parameters are."""
    keeper = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for optimizer in optimizers:
        optimizer.state.clear()
    for name, entry in moments.items():
        parameter = parameters[name]
        keeper[parameter].state[parameter] = {
            key: t.to(parameter.device, copy=True)
            if key == "step"
            else torch.empty_like(parameter.detach(), dtype=t.dtype).copy_(t)
            for key, t in entry.items()
        }


@dataclass(frozen=True)
class Techniques:
    """What an agent has of them, on or off."""

    nets: Mapping[str, nn.Module]  # those that may be normalised, by name
    sigreg: SigReg
    pruners: Mapping[str, Pruner]  # by their names in the state
    redo: Recycler | None = None
    initial: Initial | None = None

    def state_dict(self) -> State:
        """Entries for an agent's state_dict; nothing for one that is switched off."""
        state: dict[str, Any] = {name: part.state_dict() for name, part in self._parts().items()}
        vectors = {name: spectral_norm.vectors(net) for name, net in self.nets.items()}
        if any(vectors.values()):
            state["spectral_norm"] = vectors
        return state

    def load_state_dict(self, state: State) -> None:
        """Take them from the state of an agent of the same configuration."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        for name, net in self.nets.items():
            spectral_norm.load_vectors(net, state.get("spectral_norm", {}).get(name, {}))

    def _parts(self) -> dict[str, Any]:
        """What is switched on and has a state."""
        parts: dict[str, Any] = {name: pruner for name, pruner in self.pruners.items() if pruner.on}
        if self.sigreg.on:
            parts["sigreg"] = self.sigreg
        if self.redo is not None and self.redo.config.every:
            parts["redo"] = self.redo
        if self.initial is not None:
            parts["initial"] = self.initial
        return parts
