"""Hyper-parameters of the SPR family, and what they say about a moment of a run."""

from dataclasses import dataclass, field
from math import exp, log

import torch

from rlplatform.checked import Checked
from rlplatform.nets import ENCODERS
from rlplatform.techniques.pruning import PruningConfig
from rlplatform.techniques.redo import ReDoConfig
from rlplatform.techniques.resets import ResetConfig
from rlplatform.techniques.sigreg import SigRegConfig

DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Release:
    """Where BBF's released code departs from its paper, switched on to reproduce it; docs/agents/bbf.md says what each does."""

    n_step: bool = False  # bootstrap from s_{t+n-1}, discounted by gamma^n
    priorities: bool = False  # only the first item of a batch gets a new priority: the batch's mean loss
    mask: bool = False  # SPR's mask is a step too strict, and absent in the first row


@dataclass(frozen=True)
class Config(Checked):
    """Hyper-parameters; the defaults are DER's. Steps are agent steps (4 emulator frames on Atari)."""

    encoder: str = (
        "nature"  # "nature" or "impala" for pixels [height, width], "minatar" [channels, h, w], "flatten" for tiny ones
    )
    width: int = 1  # of the Impala encoder: its channels are (16, 32, 32) * width
    hidden: int = 512  # units between the encoder and the head
    atoms: int = 51  # of the return distribution, on [-v_max, v_max]; 1: the mean alone, with the Huber loss
    v_max: float = 10.0
    sigma0: float = 0.1  # initial scale of the noisy layers; 0: ordinary layers
    renormalize: bool = False  # latents to [0, 1] by their own minimum and maximum
    spr_steps: int = 0  # K: latents predicted ahead; 0: no such loss
    spr_weight: float = 5.0
    augment: bool = False  # random shift and intensity of what is learned from
    replay_ratio: float = 1.0  # gradient steps per agent step
    batch: int = 32
    n: int = 10  # steps before the bootstrap; where annealed, at the start of a cycle
    gamma: float = 0.99  # likewise
    anneal: int = (
        0  # gradient steps in which n and gamma go to their final values, anew after every reset; 0: they stay
    )
    n_final: int = 3
    gamma_final: float = 0.997
    learning_rate: float = 1e-4
    adam_eps: float = 1.5e-4
    weight_decay: float = 0.0  # decoupled, of kernels; not of biases
    capacity: int = 200_000  # transitions kept: 7.2 KB each on Atari
    alpha: float = 0.5  # priority = (TD loss)^alpha; 0 draws uniformly
    min_replay: int = 1_600  # agent steps before the first gradient step, and of epsilon = 1
    target_tau: float = 0.0  # the target's way to the online network per gradient step; 0: it is copied, and that every
    target_period: int = 2_000  # ... so many agent steps
    act_with_target: bool = False
    epsilon: float = 0.01  # after min_replay + epsilon_decay agent steps
    epsilon_decay: int = 2_000  # agent steps of the linear way from 1 to `epsilon`
    epsilon_eval: float = 0.001
    reset: ResetConfig = field(default_factory=ResetConfig)  # `every` counts gradient steps
    sigreg: SigRegConfig = field(default_factory=SigRegConfig)  # on the hidden layer before its ReLU
    pruning: PruningConfig = field(default_factory=PruningConfig)
    redo: ReDoConfig = field(default_factory=ReDoConfig)
    l2_init: float = 0.0  # weight of the squared way from the initial weights
    spectral_norm: tuple[str, ...] = ()  # layers that are normalised: "projection" is the one before the last
    release: Release = field(default_factory=Release)
    dtype: str = (
        "float32"  # of forward and backward passes; "bfloat16" keeps float32 weights for the optimiser; "tf32" is
    )
    # float32 whose products a GPU takes in TF32, and a CPU exactly

    def __post_init__(self) -> None:
        self._one_of(ENCODERS, "encoder")
        self._one_of(DTYPES, "dtype")
        self._at_least(1, "width", "hidden", "atoms", "batch", "n", "n_final", "target_period", "epsilon_decay")
        self._at_least(0, "min_replay", "spr_steps", "anneal")
        self._positive("v_max", "learning_rate", "adam_eps")
        self._not_negative("sigma0", "spr_weight", "weight_decay", "replay_ratio", "l2_init")
        self._share("gamma", "gamma_final", "alpha", "target_tau", "epsilon", "epsilon_eval")
        self._expect("capacity", self.capacity > self.min_replay, "more than min_replay, or learning would never start")
        self._expect("spr_steps", not self.spr_steps or self.encoder != "flatten", "0 without a convolutional encoder")
        if self.anneal:  # gamma moves on a logarithmic scale of 1 - gamma
            self._expect("gamma", self.gamma < 1.0, "below 1 where it is annealed")
            self._expect("gamma_final", self.gamma_final < 1.0, "below 1 where gamma is annealed")
        if self.release.n_step:  # looks n - 1 steps ahead
            self._expect("n", self.n >= 2, ">= 2 with release.n_step")
            self._expect("n_final", not self.anneal or self.n_final >= 2, ">= 2 with release.n_step")
        self._expect("spr_steps", self.spr_steps > 0 or not self.release.mask, "> 0 with release.mask")

    @property
    def max_n(self) -> int:
        """The longest n that a run asks for."""
        return max(self.n, self.n_final) if self.anneal else self.n

    @property
    def reset_period(self) -> int:
        """Agent steps between resets: `reset.every` gradient steps, at least 1. 0: never."""
        if not self.reset.every or not self.replay_ratio:
            return 0
        return max(1, round(self.reset.every / self.replay_ratio))


def epsilon_at(step: int, config: Config) -> float:
    """1 until min_replay, then linear to config.epsilon over epsilon_decay steps."""
    done = min(max((step - config.min_replay) / config.epsilon_decay, 0.0), 1.0)
    return 1.0 + done * (config.epsilon - 1.0)


def horizon_at(updates: int, config: Config) -> tuple[int, float]:
    """(n, gamma) for the next gradient step, `updates` after the last reset: both n and 1 - gamma go from their first to their
    final value exponentially (Schwarzer et al. 2023, arXiv:2305.19452, section 4)."""
    if not config.anneal:
        return config.n, config.gamma
    rest = max(1.0 - updates / config.anneal, 0.0)

    def between(first: float, final: float) -> float:
        return exp(rest * log(first) + (1.0 - rest) * log(final))

    return round(between(config.n, config.n_final)), 1.0 - between(1.0 - config.gamma, 1.0 - config.gamma_final)
