"""Hyper-parameters of MR.Q: Fujimoto et al. 2025 (arXiv:2501.16142), Table 3. One set serves all its benchmarks."""

from dataclasses import dataclass, field, replace

import torch

from rlplatform.checked import Checked
from rlplatform.techniques.pruning import PruningConfig
from rlplatform.techniques.redo import ReDoConfig
from rlplatform.techniques.sigreg import SigRegConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
DISCRETE_NOISE = 0.5  # what all three scales of noise are multiplied by where actions are discrete


@dataclass(frozen=True)
class Release:
    """Where the released code departs from what it means, switched on to reproduce it; docs/agents/mrq.md says what each does."""

    reward_scale: bool = (
        False  # G1: the first targets are bootstrapped with scale 1, and the scale has no floor but 1e-8
    )
    terminal_reward: bool = False  # G2: the reward of a step that terminates is left out of the n-step return
    first_actions: bool = False  # G3: of the first min_replay steps, a discrete action's number in place of each entry of its one-hot vector


@dataclass(frozen=True)
class Config(Checked):
    """Hyper-parameters. Steps are agent steps."""

    hidden: int = 512  # units of every hidden layer, and of the embeddings of states and of state-action pairs
    action_embedding: int = 256
    bins: int = 65  # of the reward's distribution, at symexp(-10), ..., symexp(10)
    tau: float = 10.0  # temperature of the Gumbel softmax, for discrete actions
    replay_ratio: float = 1.0  # updates per agent step: each one of value and policy, and on average one of the encoder
    batch: int = 256
    gamma: float = 0.99
    n: int = 3  # steps of the value's target
    horizon: int = 5  # steps of the encoder's unroll
    dynamics_weight: float = 1.0
    reward_weight: float = 0.1
    done_weight: float = 0.1
    target_period: int = (
        250  # updates between copies to the targets; and as many steps of the encoder, in one burst after each
    )
    encoder_learning_rate: float = 1e-4
    learning_rate: float = 3e-4  # of value and policy
    weight_decay: float = 1e-4  # decoupled, of all parameters
    grad_clip: float = 20.0  # largest norm of the value's gradient
    capacity: int = 1_000_000
    alpha: float = 0.4  # priority = max(|TD error|, 1)^alpha
    min_replay: int = 10_000  # agent steps with random actions; the first update follows the step after them
    noise: float = 0.2  # standard deviation, added to what the policy does; half of it where actions are discrete
    target_noise: float = 0.2  # likewise, in the target; cut at
    noise_clip: float = 0.3
    epsilon: float = 0.0  # share of uniformly random actions
    epsilon_eval: float = 0.0
    sigreg: SigRegConfig = field(default_factory=SigRegConfig)  # on both values' last hidden layer before its ELU
    pruning: PruningConfig = field(default_factory=PruningConfig)  # of encoder, value and policy, by the steps of each
    redo: ReDoConfig = field(default_factory=ReDoConfig)  # `every` counts gradient steps of value and policy
    l2_init: float = 0.0  # weight of the squared way from the initial weights
    spectral_norm: tuple[str, ...] = ()  # layers that are normalised: "value.first.linear3" is one before the last
    release: Release = field(default_factory=Release)
    dtype: str = "float32"  # of forward and backward passes; "bfloat16" keeps float32 weights for the optimisers

    def __post_init__(self) -> None:
        self._one_of(DTYPES, "dtype")
        self._at_least(1, "hidden", "action_embedding", "batch", "n", "horizon", "target_period")
        self._at_least(0, "min_replay")
        self._positive("tau", "encoder_learning_rate", "learning_rate", "grad_clip")
        self._not_negative("replay_ratio", "dynamics_weight", "reward_weight", "done_weight", "weight_decay", "l2_init")
        self._not_negative("noise", "target_noise", "noise_clip")
        self._share("gamma", "alpha", "epsilon", "epsilon_eval")
        self._expect("bins", self.bins >= 3 and self.bins % 2 == 1, "odd and >= 3, so that a reward of 0 is a bin")
        self._expect("capacity", self.capacity > self.min_replay, "more than min_replay, or learning would never start")

    @property
    def single_rewards(self) -> int:
        """Steps whose rewards value and policy need one by one: none, unless some are to be left out."""
        return self.n if self.release.terminal_reward else 0

    def for_timing(self) -> "Config":
        """The same updates with a burst of five for the encoder before every fifth: what five of them cost is five times the mean
        over a run's period, to which the copies to the targets add next to nothing."""
        return replace(self, target_period=5)
