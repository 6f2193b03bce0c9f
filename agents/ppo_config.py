"""Hyper-parameters of PPO, and what they say about a moment of a run."""

from dataclasses import dataclass, field
from fractions import Fraction
from math import inf

from rlplatform.checked import Checked
from rlplatform.nets import ENCODERS
from rlplatform.techniques.gtr import TrustConfig
from rlplatform.techniques.pruning import PruningConfig
from rlplatform.techniques.redo import ReDoConfig
from rlplatform.techniques.sigreg import SigRegConfig

ACTIVATIONS = ("relu", "tanh")
SURROGATES = ("clip", "none")
REWARDS = ("raw", "sign", "scaled")


@dataclass(frozen=True)
class Config(Checked):
    """Hyper-parameters; the defaults are those of the published Atari runs. Steps are agent steps of all environments."""

    encoder: str = "nature_valid"  # of pixels; or another of rlplatform.nets.ENCODERS: "minatar", "flatten", ...
    width: int = 1  # of the Impala encoder
    hidden: int = 512  # units of a hidden layer behind the encoder
    layers: int = 1  # of such
    activation: str = "relu"  # of them, or "tanh"
    shared: bool = True  # policy and value have one network but for their heads
    log_std: float = 0.0  # at first, of continuous actions: a parameter of its own, the same in all states
    batch: int = 256  # transitions a gradient step; a round of steps * environments is a multiple of it
    epochs: int = 4  # gradient steps a transition takes part in
    gamma: float = 0.99
    lambda_: float = 0.95  # of generalised advantage estimation
    learning_rate: float = 2.5e-4
    anneal: int = 0  # steps in which it goes linearly to 0, round by round; 0: it stays
    adam_eps: float = 1e-5
    surrogate: str = "clip"  # "none": ratio * advantage, which only the trust region holds
    clip: float = 0.1  # of the ratio of probabilities; where values are clipped, of their change
    clip_value: bool = True
    normalize_advantage: bool = True  # in each minibatch
    entropy_weight: float = 0.01
    value_weight: float = 0.5
    max_grad_norm: float = 0.5
    max_kl: float = (
        0.0  # an epoch that ends with a mean KL(policy that acted || policy) above it is a round's last; 0: none is
    )
    reward: str = (
        "raw"  # "sign": -1, 0, 1; "scaled": divided by the standard deviation of the running return, cut at 10
    )
    normalize_obs: bool = False  # by their running mean and standard deviation, cut at 10
    greedy_eval: bool = (
        False  # evaluation takes the most likely action, or the mean; otherwise it draws as training does
    )
    trust: TrustConfig = field(default_factory=TrustConfig)
    sigreg: SigRegConfig = field(default_factory=SigRegConfig)  # on the last hidden layers before their activation
    pruning: PruningConfig = field(default_factory=PruningConfig)
    redo: ReDoConfig = field(default_factory=ReDoConfig)
    l2_init: float = 0.0  # weight of the squared way from the initial weights
    spectral_norm: tuple[str, ...] = ()  # layers that are normalised: "trunk.layers.0" is the first behind the encoder
    probe: int = 256  # states on which the way of the policy is measured; 0: it is not

    def __post_init__(self) -> None:
        self._one_of(ENCODERS, "encoder")
        self._one_of(ACTIVATIONS, "activation")
        self._one_of(SURROGATES, "surrogate")
        self._one_of(REWARDS, "reward")
        self._at_least(1, "width", "hidden", "layers", "batch", "epochs")
        self._at_least(0, "anneal", "probe")
        self._positive("learning_rate", "adam_eps", "clip", "max_grad_norm")
        self._not_negative("entropy_weight", "value_weight", "max_kl", "l2_init")
        self._share("gamma", "lambda_")
        self._expect("log_std", -inf < self.log_std < inf, "finite")
        self._expect("batch", self.batch >= 2 or not self.normalize_advantage, ">= 2 where advantages are normalised")
        # A bounded penalty does not stop a policy that has left its anchors.
        self._expect(
            "max_kl", self.surrogate == "clip" or self.max_kl > 0.0, "> 0 (such as 0.5) where nothing is clipped"
        )

    def check_run(self, round_steps: int, lag: int) -> None:
        """Refuse a run that this cannot learn from.

        Args:
            round_steps: agent steps of a round, all environments. lag: rounds by which the acting weights trail behind.

        Raises:
            ValueError: the round is no multiple of the minibatch, or policies of the past are asked for that acted at another time.
        """
        if round_steps % self.batch:
            raise ValueError(
                f"a round of {round_steps} steps (actors * envs * rollout) is no multiple of batch={self.batch}, "
                "the transitions of a gradient step"
            )
        if lag and self.normalize_obs:
            raise ValueError(
                "lag > 0 with agent.normalize_obs: what is learned from would be scaled by later moments than what was acted on"
            )
        if lag and self.trust.weight and self.trust.anchors > 1:
            raise ValueError(
                "lag > 0 with agent.trust.anchors > 1: the older anchors would be newer than the policy that acted"
            )

    @property
    def replay_ratio(self) -> Fraction:
        """Gradient steps per agent step, exactly: each transition is in `epochs` minibatches of `batch`."""
        return Fraction(self.epochs, self.batch)
