"""L2 Init, regenerative regularisation: Kumar, Marklund and Van Roy 2023 (arXiv:2308.11958).

The loss gets weight * |theta - theta_0|^2, with theta_0 what the network was initialised with: weights that the data do not hold fall
back to where learning once could begin. In an agent, between the gradient and whatever is done with it (clipping, the optimiser):

    if self._initial is not None:
        self._initial.pull_(parameters)

The gradient is added in closed form, 2 weight (theta - theta_0), which takes no autograd and no copy. theta_0 stays through resets.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from rlplatform.types import State


class Initial:
    """theta_0, by name, and how much it pulls."""

    def __init__(self, named: Iterable[tuple[str, Tensor]], weight: float) -> None:
        """`named`: a network's named_parameters(), newly initialised; they are copied."""
        self.weight = weight
        self._values = {name: p.detach().clone() for name, p in named}

    @torch.no_grad()
    def pull_(self, named: Iterable[tuple[str, Tensor]]) -> None:
        """Add the gradient of weight * |theta - theta_0|^2 to the gradients that these parameters, some of those or all, have. One
        without a gradient has not moved, and is left alone."""
        for name, p in named:
            if p.grad is not None:
                p.grad.add_(p - self._values[name], alpha=2.0 * self.weight)

    def state_dict(self) -> State:
        return {name: value.cpu().clone() for name, value in self._values.items()}

    def load_state_dict(self, state: State) -> None:
        """In place: a captured graph knows the addresses."""
        for name, value in self._values.items():
            value.copy_(state[name])


def initial(named: Iterable[tuple[str, Tensor]], weight: float) -> Initial | None:
    """None where the weight is 0, which costs nothing.

    Raises:
        ValueError: the weight is negative or not finite.
    """
    if not 0.0 <= weight < float("inf"):
        raise ValueError(f"l2_init must be finite and >= 0, got {weight}")
    return Initial(named, weight) if weight else None
