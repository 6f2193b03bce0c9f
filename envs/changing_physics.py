"""Friction and gravity that change from phase to phase, for environments on MuJoCo: the "slippery" protocol."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlplatform.envs.simulator import Simulator
from rlplatform.envs.suites import ChangingPhysics
from rlplatform.streams import Stream
from rlplatform.types import State


class PhaseClock:
    """Which phase all environments of a batch are in, by the steps that each has taken, and what the phase is like: a function of its
    number and, where factors are drawn, of a key that the run's environments share.

    Phase p is the steps [(p - first_phase) n, (p - first_phase + 1) n) of each environment, as in csrc/envs/phases.hpp.
    """

    def __init__(self, protocol: ChangingPhysics, seed: int) -> None:
        """`seed` of the run: names the stream "physics"."""
        self._protocol = protocol
        self._key = Stream(seed, "physics").key
        self.number, self._left = protocol.first_phase, protocol.phase_steps

    def tick(self) -> bool:
        """One step more of each environment; whether a phase ended with it, and the next has begun."""
        self._left -= 1
        if self._left:
            return False
        self.number, self._left = self.number + 1, self._protocol.phase_steps
        return True

    @property
    def factors(self) -> tuple[float, float]:
        """The phase's factors of friction and of gravity."""
        lists = self._protocol.friction, self._protocol.gravity
        if not self._protocol.drawn:
            return lists[0][self.number % len(lists[0])], lists[1][self.number % len(lists[1])]
        if self.number == 0:
            return 1.0, 1.0
        stream = Stream(0, "physics")
        stream.key, stream.counter = self._key, self.number  # two numbers take a block
        draws = stream.uniform(2)
        friction, gravity = (_between(min(of), max(of), float(u)) for of, u in zip(lists, draws, strict=True))
        return friction, gravity

    def enter(self, simulator: Simulator) -> None:
        """Give a simulator, between two episodes, the phase's physics."""
        friction, gravity = self.factors
        for name, sliding in (("geom_friction", 1), ("pair_friction", 2)):  # torsion and rolling stay
            getattr(simulator.model, name)[:, :sliding] = friction * simulator.as_loaded[name][:, :sliding]
        simulator.model.opt.gravity[:] = gravity * simulator.gravity

    def state_dict(self) -> State:
        return {"phase": self.number, "left": self._left, "key": self._key}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The environments go on under the same changes, whatever the seed of those into which they are loaded.

        Raises:
            ValueError: a phase, or a rest of one, that cannot be; nothing has changed.
            KeyError: one of them is missing.
        """
        number, left, key = (int(state[name]) for name in ("phase", "left", "key"))
        if number < 0 or not 1 <= left <= self._protocol.phase_steps:
            raise ValueError(f"damaged state: phase {number} with {left} of its steps left")
        self.number, self._left, self._key = number, left, key


def _between(low: float, high: float, u: float) -> float:
    """Uniform on a logarithmic scale, of u uniform in [0, 1)."""
    return float(low * np.exp(u * np.log(high / low)))
