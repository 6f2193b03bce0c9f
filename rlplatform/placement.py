"""Where a run's actors live, and what they may take of a cluster. No part of a run's identity: the same run goes on anywhere."""

from dataclasses import dataclass
from math import inf

from rlplatform.config import ConfigError


class ClusterError(RuntimeError):
    """A cluster that cannot be used as asked, or that failed too often; the message says what is there."""


@dataclass(frozen=True)
class Placement:
    """In this process, or as Ray actors; resources are Ray's logical ones, which count and do not confine."""

    ray: str = ""  # "": in this process; "local": a Ray of this run's own; "auto", "HOST:PORT": a cluster that is there
    actor_cpus: float = 1.0  # of each actor
    learner_gpus: float = (
        0.0  # of the learner, on the machine that the command runs on; 0.25: four learners share a GPU
    )
    deadline_s: float = 600.0  # a round that takes an actor longer than this is one that hangs
    start_s: float = 60.0  # for actors to be placed and started
    retries: int = 3  # times that an actor may fail in succession before the run gives up
    object_store_mib: int = 0  # of Ray "local"; 0: as Ray chooses

    def __post_init__(self) -> None:
        for name in ("deadline_s", "start_s"):
            if not 0.0 < getattr(self, name) < inf:
                raise ConfigError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name in ("actor_cpus", "learner_gpus"):
            if not 0.0 <= getattr(self, name) < inf:
                raise ConfigError(f"{name} must be finite and >= 0, got {getattr(self, name)}")
        if self.learner_gpus > 1 and self.learner_gpus != int(self.learner_gpus):
            raise ConfigError(f"learner_gpus must be a whole number or below 1, got {self.learner_gpus}")
        if self.retries < 0 or self.object_store_mib < 0:
            raise ConfigError("retries and object_store_mib must be >= 0")
