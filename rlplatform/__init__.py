"""rlplatform: actors, replay and learners for reinforcement-learning research, exact to the bit.

    import rlplatform
    result = rlplatform.train("der", "atari/Pong", seed=1)           # what `rlplatform train` does
    policy = rlplatform.load("runs/atari100k/der/Pong/seed_1").policy()

Importing the package loads neither torch nor ray; both come with what needs them.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlplatform.experiment import load, train

__version__ = version("rlplatform")
__all__ = ["__version__", "load", "train"]


def __getattr__(name: str) -> Any:
    if name in ("train", "load"):
        from rlplatform import experiment

        return getattr(experiment, name)
    raise AttributeError(f"module 'rlplatform' has no attribute {name!r}")
