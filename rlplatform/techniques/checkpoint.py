"""What agents keep in their checkpoints: parameters and moments by name, on the CPU; and the techniques' own, nothing for what is switched
off, so that checkpoints of runs without them are what they always were."""

from collections.abc import Mapping
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
            key: t.clone() if key == "step" else torch.empty_like(parameter.detach(), dtype=t.dtype).copy_(t)
            for key, t in entry.items()
        }


def switched_on(sigreg: SigReg, pruners: Mapping[str, Pruner]) -> dict[str, SigReg | Pruner]:
    """Those with a state worth keeping, by its name in a checkpoint; `pruners` have theirs already."""
    every: dict[str, SigReg | Pruner] = {**pruners, "sigreg": sigreg}
    return {name: technique for name, technique in every.items() if technique.on}


def state_of(redo: Recycler, initial: Initial | None, nets: Mapping[str, nn.Module]) -> State:
    """Entries for an agent's state_dict; `nets` are those that may be normalised, by name."""
    state: dict[str, Any] = {}
    if redo.config.every:
        state["redo"] = redo.state_dict()
    if initial is not None:
        state["initial"] = initial.state_dict()
    vectors = {name: spectral_norm.vectors(net) for name, net in nets.items()}
    if any(vectors.values()):
        state["spectral_norm"] = vectors
    return state


def load(state: State, redo: Recycler, initial: Initial | None, nets: Mapping[str, nn.Module]) -> None:
    """Take them from an agent's state, of the same configuration."""
    if redo.config.every:
        redo.load_state_dict(state["redo"])
    if initial is not None:
        initial.load_state_dict(state["initial"])
    for name, net in nets.items():
        spectral_norm.load_vectors(net, state.get("spectral_norm", {}).get(name, {}))
