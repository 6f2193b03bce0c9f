"""What ReDo, L2 Init and spectral normalisation keep in an agent's checkpoint: nothing for what is switched off, so that checkpoints of
runs without them are what they always were."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from rlplatform.techniques import spectral_norm
from rlplatform.techniques.l2_init import Initial
from rlplatform.techniques.redo import Recycler
from rlplatform.types import State


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
