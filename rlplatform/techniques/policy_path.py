"""How a policy moves: whether successive changes go one way. Diagnostics alone; nothing that is learned depends on them.

Path efficiency over a window of W changes, on a set of states that stays while the window lasts: the way from where it began to
where it ended, by the ways between: d(pi_0, pi_W) / sum_i d(pi_i, pi_{i+1}), with d = sqrt(2 KL), the local Fisher distance, averaged
over the states. 1: straight on; a random walk has about W^(-1/2); 0: back where it was.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from rlplatform.types import State

WINDOW = 20  # changes of the policy

Divergence = Callable[[Tensor, Tensor], Tensor]  # of the parameters of two distributions [B, P]: [B]


class PolicyPath:
    """Notes one policy after the other, as distributions at its probe states. A new set of states is taken where a window begins."""

    def __init__(self, divergence: Divergence) -> None:
        """`divergence`: KL(old || new) of each state."""
        self._divergence = divergence
        self.states: Tensor | None = None  # what the policy shall be asked about; None: `begin` first
        self._start = self._last = torch.zeros(0)
        self._length, self._count = torch.zeros(()), 0
        self.efficiency: Tensor | None = None  # of the last whole window

    def begin(self, states: Tensor) -> None:
        """A new window, on these states [B, ...]."""
        self.states, self._count = states.clone(), 0
        self._length = torch.zeros(())

    def note(self, policy: Tensor) -> None:
        """The next policy, by its distributions at `states`, [B, P]. After the window's last one `states` is None."""
        if self._count == 0:
            self._start = policy
        else:
            self._length = self._length + self._distance(self._last, policy)
        self._last, self._count = policy, self._count + 1
        if self._count > WINDOW:
            least = torch.finfo(policy.dtype).tiny  # a policy that stands still goes nowhere straight
            self.efficiency = self._distance(self._start, policy) / self._length.clamp(min=least)
            self.states = None

    def _distance(self, old: Tensor, new: Tensor) -> Tensor:
        return (2.0 * self._divergence(old, new).clamp(min=0.0)).sqrt().mean()

    def state_dict(self) -> State:
        return {
            "states": self.states, "start": self._start, "last": self._last, "length": self._length, "count": self._count,
            "efficiency": self.efficiency,
        }  # fmt: skip

    def load_state_dict(self, state: State) -> None:
        self.states, self.efficiency = state["states"], state["efficiency"]
        self._start, self._last, self._length = state["start"], state["last"], state["length"]
        self._count = int(state["count"])


class UpdateCosine:
    """The cosine of the angle between successive changes of all parameters."""

    def __init__(self) -> None:
        self._before: Tensor | None = None  # the parameters when they were last noted, flat
        self._change: Tensor | None = None  # between the last two times
        self.cosine: Tensor | None = None

    def note(self, parameters: Mapping[str, Tensor]) -> None:
        """The parameters after another change."""
        now = torch.cat([p.detach().flatten() for p in parameters.values()])
        if self._before is not None:
            change = now - self._before
            if self._change is not None:
                self.cosine = torch.nn.functional.cosine_similarity(change, self._change, dim=0)
            self._change = change
        self._before = now

    def state_dict(self) -> State:
        return {"before": self._before, "change": self._change, "cosine": self.cosine}

    def load_state_dict(self, state: State) -> None:
        self._before, self._change, self.cosine = state["before"], state["change"], state["cosine"]
