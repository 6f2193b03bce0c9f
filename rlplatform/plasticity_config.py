"""What a run measures of its networks' plasticity: a configuration, read without torch."""

from dataclasses import dataclass

from rlplatform.config import ConfigError


@dataclass(frozen=True)
class PlasticityConfig:
    """What is measured of the networks while they learn, which changes nothing of what they learn; see rlplatform.inspection."""

    every: int = 0  # agent steps between looks; 0: never
    observations: int = 256  # that it is measured on, the newest; no rank exceeds their number
    tau: float = 0.1  # a unit is dormant at or below this share of its layer's mean |activation|
    gradients: int = 16  # observations whose gradients are compared, in memory 4 bytes a parameter each; 0: none

    def __post_init__(self) -> None:
        if self.every < 0 or self.observations < 2:
            raise ConfigError("plasticity.every must be >= 0 and plasticity.observations >= 2")
        if not 0.0 <= self.tau < 1.0:
            raise ConfigError(f"plasticity.tau must lie in [0, 1), got {self.tau}")
        if self.gradients == 1 or not 0 <= self.gradients <= self.observations:
            raise ConfigError("plasticity.gradients must be 0, or from 2 to plasticity.observations")
