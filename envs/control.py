"""Classic control in C++ (csrc/envs): Gymnasium's rules, thousands of environments a step."""

from dataclasses import dataclass
from typing import Any

from rlplatform import _core
from rlplatform.envs.native import NativeBatch, env_keys
from rlplatform.envs.suites import ControlProtocol, unknown
from rlplatform.types import Array, Spec


@dataclass(frozen=True)
class Game:
    """One of them."""

    core: Any  # its bound rlp::EnvBatch, made of (keys, threads, limit)
    gymnasium: str  # the environment of Gymnasium whose rules it has
    limit: str  # the protocol's field of its time limit
    frame: int  # numbers in an observation
    actions: int  # discrete ones; 0: one number in [-1, 1]

    @property
    def spec(self) -> Spec:
        return Spec((self.frame,), "float32", stack=1, actions=self.actions, action_shape=() if self.actions else (1,))


GAMES = {
    "Acrobot": Game(_core.AcrobotBatch, "Acrobot-v1", "acrobot_steps", 6, 3),
    "CartPole": Game(_core.CartPoleBatch, "CartPole-v1", "cartpole_steps", 4, 2),
    "MountainCar": Game(_core.MountainCarBatch, "MountainCar-v0", "mountain_car_steps", 2, 3),
    "MountainCarContinuous": Game(
        _core.MountainCarContinuousBatch, "MountainCarContinuous-v0", "mountain_car_continuous_steps", 2, 0
    ),
    "Pendulum": Game(_core.PendulumBatch, "Pendulum-v1", "pendulum_steps", 3, 0),
}


class ControlBatch(NativeBatch):
    """A `NativeBatch` that is drawn from its observations."""

    @property
    def dynamics(self) -> tuple[float, float, float]:
        """Factors of gravity, lengths and forces, by which the game differs from Gymnasium's."""
        return 1.0, 1.0, 1.0

    def render(self, i: int = 0) -> Array:
        """Environment i as a picture, [height, width, 3] uint8: 240 x 320 for CartPole and the cars, 240 x 240 for the others."""
        from rlplatform.envs.control_pictures import picture

        self._open()
        if self._frame is None:
            raise ValueError("nothing to render before reset(), or between load_state_dict() and step()")
        return picture(self._name.partition("/")[2], self._frame[i], length=self.dynamics[1])


def make_control(
    task: str, n: int, seed: int, first_env: int, protocol: ControlProtocol, threads: int = 1
) -> ControlBatch:
    """The game of "control/<Game>": frames are Gymnasium's observations, float32 [4] for CartPole; the state behind them is float64.

    Actions are Gymnasium's, but for Pendulum: float32 [N, 1] in [-1, 1] there, which is stretched to torques in [-2, 2].
    Time limits truncate, and a step that is the last and terminates says both, as Gymnasium does.

    Raises:
        ValueError: no such game.
    """
    name = task.removeprefix("control/")
    if name not in GAMES:
        raise ValueError(unknown("game of classic control", name, GAMES))
    game = GAMES[name]
    limit: int = getattr(protocol, game.limit)
    core = game.core(env_keys(seed, first_env, n), threads, limit)
    return ControlBatch(core, task, game.spec, first_env, {"limit": limit})
