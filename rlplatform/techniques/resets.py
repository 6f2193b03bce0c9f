"""Periodic resets against the primacy bias: Nikishin et al. 2022 (arXiv:2205.07802), with shrink-and-perturb (Ash and
Adams 2020, arXiv:1910.08475) for the modules that shall not forget all, as SR-SPR and BBF do it (D'Oro et al. 2023; Schwarzer et
al. 2023, arXiv:2305.19452).

In an agent, between two rounds of learning; `fresh` is a network like `net`, newly initialised, another one for each:

    if self.resets.due(steps):
        resets.apply_(net, fresh, config.reset)
        resets.apply_(target, another, config.reset)
        resets.clear_optimizer_(self.adam)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlplatform.checked import Checked
from rlplatform.types import State


@dataclass(frozen=True)
class ResetConfig(Checked):
    """What becomes of the modules, and when. The primacy-bias paper's variant for SPR is `fresh = (last layer,)` alone."""

    section = "reset."

    every: int = 0  # between resets, in the agent's unit (its Config says which); 0: never
    until: int = 100_000  # agent steps: no reset that another period could not follow before this
    fresh: tuple[str, ...] = ()  # names of the modules that start anew, as in nn.Module.get_submodule
    shrink: float = 1.0  # all others: theta <- shrink * theta + perturb * (a fresh initialisation)
    perturb: float = 0.0

    def __post_init__(self) -> None:
        self._at_least(0, "every", "until")
        self._share("shrink", "perturb")
        if self.every and not self.fresh and self.shrink == 1.0 and self.perturb == 0.0:
            raise ValueError(
                "reset.every is set, but nothing would be reset: name modules in reset.fresh, or set reset.shrink and reset.perturb"
            )


class Schedule:
    """Resets after more than `period`, 2 `period`, ... agent steps, the last one no later than `until` less a period."""

    def __init__(self, period: int, until: int) -> None:
        """`period` in agent steps; 0: no resets.

        Raises:
            ValueError: resets are asked for, and `until` leaves room for none.
        """
        if period and until < 2 * period:
            raise ValueError(
                f"resets every {period:,} agent steps never come with reset.until = {until:,}: another period must be able to "
                "follow each; set reset.until to the steps of the run"
            )
        self.period, self.until = period, until
        self.count = 0  # resets so far

    def due(self, steps: int) -> bool:
        """Whether a reset has fallen due after so many agent steps; if so, it is counted as done. A round that jumps over
        several is one reset."""
        if self.period == 0:
            return False
        passed = min((steps - 1) // self.period, self.until // self.period - 1)
        due = passed > self.count
        self.count = max(self.count, passed)
        return due

    def state_dict(self) -> State:
        return {"count": self.count}

    def load_state_dict(self, state: State) -> None:
        self.count = int(state["count"])


def check_names(net: nn.Module, config: ResetConfig) -> None:
    """Refuse names that are no modules of `net`.

    Raises:
        ValueError: with the names that there are.
    """
    known = [name for name, _ in net.named_modules() if name]
    if wrong := [name for name in config.fresh if name not in known]:
        raise ValueError(f"reset.fresh: no module {', '.join(wrong)}; there are {', '.join(known)}")


@torch.no_grad()
def apply_(net: nn.Module, fresh: nn.Module, config: ResetConfig) -> None:
    """Reset `net` in place. `fresh` is of the same form, newly initialised; it is only read."""
    for (name, parameter), (_, new) in zip(net.named_parameters(), fresh.named_parameters(), strict=True):
        if any(name == module or name.startswith(module + ".") for module in config.fresh):
            parameter.copy_(new)
        else:
            parameter.mul_(config.shrink).add_(new, alpha=config.perturb)


@torch.no_grad()
def clear_optimizer_(optimizer: torch.optim.Optimizer) -> None:
    """Moments and step counts of all parameters back to 0, in place: the optimiser goes on as one that is new."""
    for value in _tensors(optimizer):
        value.zero_()


def _tensors(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for moments in optimizer.state.values():
        for name, value in moments.items():
            if not isinstance(value, Tensor):
                raise TypeError(f"the optimiser's state {name!r} is no tensor: {value!r}")
            yield value
