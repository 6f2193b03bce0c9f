"""The Rainbow line of sample-efficient agents for Atari-100k, from DER on.

Implemented: DER, data-efficient Rainbow (van Hasselt, Hessel, Aslanides 2019, arXiv:1906.05243), in the form whose scores
are quoted since 2021, that of Dopamine's `labs/atari_100k`: C51, double, dueling, noisy networks, n-step returns and
prioritised replay, one gradient step per agent step. Checked against: the 100 published runs a game of Agarwal et al. 2021.

Deviations from that code; docs/agents/der.md has them all, with what each is checked by:
- a window that reaches a time limit is kept, and bootstraps from the true last frame (Dopamine never samples it);
- the replay holds 200,000 transitions, not 1,000,000: a run of 100,000 steps never fills either;
- a run stops at its last step (Dopamine finishes the game under way at the end of every 10,000 steps).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rlplatform.nets import Flatten, NatureCNN, Noise, NoisyLinear
from rlplatform.replay import Replay
from rlplatform.streams import Stream
from rlplatform.types import Array, Metrics, Rollout, Spec, State, Weights

ENCODERS: dict[str, type[NatureCNN | Flatten]] = {"nature": NatureCNN, "flatten": Flatten}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Config:
    """Hyper-parameters; the defaults are DER's. Steps are agent steps (4 emulator frames on Atari)."""

    encoder: str = "nature"  # "nature" for pixels [height, width], "flatten" for tiny frames
    hidden: int = 512  # units between the encoder and the head
    atoms: int = 51  # of the return distribution, on [-v_max, v_max]
    v_max: float = 10.0
    sigma0: float = 0.1  # initial scale of the noisy layers
    replay_ratio: float = 1.0  # gradient steps per agent step
    batch: int = 32
    n: int = 10  # steps before the bootstrap
    gamma: float = 0.99
    learning_rate: float = 1e-4
    adam_eps: float = 1.5e-4
    capacity: int = 200_000  # transitions kept: 7.2 KB each on Atari
    alpha: float = 0.5  # priority = (cross entropy)^alpha
    min_replay: int = 1_600  # agent steps before the first gradient step, and of epsilon = 1
    target_period: int = 2_000  # agent steps between copies to the target network
    epsilon: float = 0.01  # after min_replay + epsilon_decay agent steps
    epsilon_decay: int = 2_000  # agent steps of the linear way from 1 to `epsilon`
    epsilon_eval: float = 0.001
    dtype: str = "float32"  # of forward and backward passes; "bfloat16" keeps float32 weights for the optimiser

    def __post_init__(self) -> None:
        for name, value, known in (("encoder", self.encoder, ENCODERS), ("dtype", self.dtype, DTYPES)):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        for name in ("hidden", "batch", "n", "target_period", "epsilon_decay"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("v_max", "learning_rate", "adam_eps"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name in ("gamma", "alpha", "epsilon", "epsilon_eval"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.atoms < 2 or self.min_replay < 0 or not 0.0 <= self.replay_ratio < float("inf"):
            raise ValueError("atoms must be >= 2, min_replay >= 0, replay_ratio finite and >= 0")
        if self.capacity <= self.min_replay:
            raise ValueError(f"capacity {self.capacity} <= min_replay {self.min_replay}: learning would never start")


class NetNoise(NamedTuple):
    """One draw for every noisy layer."""

    projection: Noise
    head: Noise


class Net(nn.Module):
    """Encoder, one hidden layer, dueling head: the return distribution of every action."""

    def __init__(self, config: Config, spec: Spec, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder = ENCODERS[config.encoder](spec.stack, spec.frame_shape)
        self.projection = NoisyLinear(self.encoder.features, config.hidden, config.sigma0)
        # Value and advantages in one layer: they see the same input and, as in Dopamine, the same input noise.
        self.head = NoisyLinear(config.hidden, (1 + spec.actions) * config.atoms, config.sigma0)
        self.atoms = config.atoms
        self.to(dtype)

    def init_(self, stream: Stream) -> None:
        self.encoder.init_(stream)
        self.projection.init_(stream)
        self.head.init_(stream)

    def noise(self, stream: Stream) -> NetNoise:
        return NetNoise(self.projection.noise(stream), self.head.noise(stream))

    def forward(self, obs: Tensor, noise: NetNoise | None) -> Tensor:
        """Logits [B, actions, atoms], float32, for obs [B, stack, *frame]."""
        projection, head = noise if noise is not None else (None, None)
        hidden = torch.relu(self.projection(self.encoder(obs), projection))
        out = self.head(hidden, head).float().unflatten(1, (-1, self.atoms))
        value, advantage = out[:, :1], out[:, 1:]
        logits: Tensor = (
            value + advantage - advantage.mean(1, keepdim=True)
        )  # Wang et al. 2016 (arXiv:1511.06581), Eq. 9
        return logits


def q_values(logits: Tensor, support: Tensor) -> Tensor:
    """Mean returns [B, actions] of the distributions with these logits [B, actions, atoms]."""
    return logits.softmax(-1) @ support


def categorical_projection(prob: Tensor, reward: Tensor, discount: Tensor, support: Tensor) -> Tensor:
    """The distribution of reward + discount * Z on the support of Z: Bellemare et al. 2017 (arXiv:1707.06887), Eq. 7.

    Args:
        prob: probabilities of Z at the support, [B, atoms].
        reward: n-step return without its bootstrap, [B].
        discount: gamma^m, or 0 where the episode terminated within the m steps, [B].
        support: equally spaced and ascending, [atoms].

    Returns:
        Probabilities, [B, atoms]. Mass that leaves the support lands on its edge; the rest keeps its mean.

    Error: float32 agrees with the definition in float64 to 2e-6 absolute at 51 atoms (tests/test_spr.py).
    """
    z = (reward[:, None] + discount[:, None] * support).clamp(support[0], support[-1])  # where each atom lands
    distance = (z[:, :, None] - support).abs() / (support[1] - support[0])
    return (prob[:, :, None] * (1.0 - distance).clamp(min=0.0)).sum(1)


@torch.no_grad()
def target_distribution(
    nets: tuple[Net, Net], next_obs: Tensor, reward: Tensor, discount: Tensor, noise: NetNoise | None, support: Tensor
) -> Tensor:
    """Double DQN (van Hasselt et al. 2016) on distributions: the online network chooses at the bootstrap state, the target
    network says what the choice is worth. One noise for both, as in Dopamine. [B, atoms]."""
    online, target = nets
    best = q_values(online(next_obs, noise), support).argmax(1)
    prob = target(next_obs, noise)[torch.arange(len(best)), best].softmax(-1)
    return categorical_projection(prob, reward, discount, support)


def importance_weights(priority: Tensor) -> Tensor:
    """(1 / sqrt(p)) / max: beta = 0.5 throughout; the number of items and the sum of priorities cancel. [B]."""
    return (priority.min() / priority).sqrt()


def epsilon_at(step: int, config: Config) -> float:
    """1 until min_replay, then linear to config.epsilon over epsilon_decay steps."""
    done = min(max((step - config.min_replay) / config.epsilon_decay, 0.0), 1.0)
    return 1.0 + done * (config.epsilon - 1.0)


class Policy:
    """Epsilon-greedy on the mean return, with noisy layers in training and their mean weights in evaluation."""

    def __init__(self, config: Config, spec: Spec, *, evaluation: bool) -> None:
        self._config, self._actions, self._evaluation = config, spec.actions, evaluation
        self._net = Net(config, spec, DTYPES[config.dtype]).requires_grad_(False)
        self._support = support_of(config)
        self._epsilon = 1.0

    def load(self, weights: Weights) -> None:
        """Take over the tensors of Agent.weights() without a copy: later changes in place are seen."""
        for name, parameter in self._net.named_parameters():
            parameter.data = weights["net"][name]
        self._epsilon = self._config.epsilon_eval if self._evaluation else weights["epsilon"]

    @torch.inference_mode()
    def act(self, obs: Array, stream: Stream) -> tuple[Array, Mapping[str, Array]]:
        """Actions [N] int64 for obs [N, stack, *frame]. One draw of noise serves the N environments."""
        explore = stream.uniform(len(obs)) < self._epsilon
        action = stream.integers(self._actions, len(obs))
        if not explore.all():
            noise = None if self._evaluation else self._net.noise(stream)
            greedy = q_values(self._net(torch.from_numpy(obs), noise), self._support).argmax(1).numpy()
            action = np.where(explore, action, greedy)
        return action, {}


def support_of(config: Config) -> Tensor:
    """The returns at which a distribution has mass, [atoms]."""
    return torch.linspace(-config.v_max, config.v_max, config.atoms)


class Agent:
    """Replay, networks and optimiser. `update` is one gradient step."""

    config_class: ClassVar[type[Config]] = Config

    def __init__(self, config: Config, spec: Spec, streams: int, seed: int) -> None:
        """A newly initialised agent.

        Args:
            streams: environments whose rollouts `observe` will see.
            seed: of the run; names the streams "init", "noise" and "replay".
        """
        if not spec.actions:
            raise ValueError("this agent needs discrete actions")
        self.config, self.spec = config, spec
        draws = Stream(seed, "replay")
        self.replay = Replay(spec, config.capacity, streams, config.n, alpha=config.alpha, stream=draws)
        self._noise = Stream(seed, "noise")
        self.support = support_of(config)
        dtype = DTYPES[config.dtype]
        self.master = Net(config, spec, torch.float32)  # what Adam moves
        self.master.init_(Stream(seed, "init"))
        self.online = self.master if dtype == torch.float32 else Net(config, spec, dtype)  # what is evaluated
        self.target = Net(config, spec, dtype).requires_grad_(False)
        for parameter in self.master.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self._adam = torch.optim.Adam(self.master.parameters(), config.learning_rate, eps=config.adam_eps, fused=True)
        self._round()
        self._copy_to_target()
        self._steps = 0  # agent steps observed
        self._next_copy = config.target_period  # agent step after whose updates the target is copied

    @property
    def ready(self) -> bool:
        return self._steps > self.config.min_replay and self.replay.can_sample

    def policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=False)

    def eval_policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=True)

    def weights(self) -> Weights:
        net = {name: p.data for name, p in self.online.named_parameters()}
        return {"net": net, "epsilon": epsilon_at(self._steps, self.config)}

    def observe(self, rollouts: list[Rollout]) -> None:
        if self._steps >= self._next_copy:  # the updates of the steps seen so far are done
            self._copy_to_target()
            self._next_copy = (self._steps // self.config.target_period + 1) * self.config.target_period
        for rollout in rollouts:
            self.replay.add(rollout._replace(reward=rollout.reward.clip(-1.0, 1.0)))
            self._steps += rollout.reward.size

    def update(self) -> Metrics:
        """One gradient step on one batch; its new priorities go back to the replay."""
        config = self.config
        batch = self.replay.sample(config.batch, config.n, config.gamma)
        noise, next_noise = self.online.noise(self._noise), self.online.noise(self._noise)
        y = target_distribution(
            (self.online, self.target), torch.from_numpy(batch.next_obs), torch.from_numpy(batch.n_return),
            torch.from_numpy(batch.discount), next_noise, self.support,
        )  # fmt: skip
        logits = self.online(torch.from_numpy(batch.obs[:, 0]), noise)
        action = torch.from_numpy(batch.action[:, 0])
        chosen = logits[torch.arange(len(action)), action].log_softmax(-1)
        td = -(y * chosen).sum(-1)  # cross entropy, [B]
        weight = importance_weights(torch.from_numpy(batch.priority)).float()
        self._step((weight * td).mean())
        self.replay.update_priority(batch.index, td.detach().double().numpy() + 1e-10)
        with torch.no_grad():
            q = (chosen.exp() @ self.support).mean()
        return {"losses/td_loss": td.detach().mean(), "losses/q_values": q}

    def _step(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} after {self._steps} agent steps")
        self.online.zero_grad()
        torch.autograd.backward(loss)
        if self.online is not self.master:
            for to, grad in zip(_gradients(self.master), _gradients(self.online), strict=True):
                to.copy_(grad)
        self._adam.step()
        self._round()

    @torch.no_grad()
    def _round(self) -> None:
        """Round the float32 weights to the dtype in which the networks are evaluated."""
        if self.online is not self.master:
            for master, online in zip(self.master.parameters(), self.online.parameters(), strict=True):
                online.copy_(master)

    def _copy_to_target(self) -> None:
        self.target.load_state_dict(self.online.state_dict())

    def state_dict(self) -> State:
        """Copies, so that the agent may go on while they are written."""
        moments = self._adam.state  # by parameter; empty before the first step
        online = dict(self.master.named_parameters())
        return {
            "online": {name: p.detach().clone() for name, p in online.items()},
            "target": {name: p.detach().clone() for name, p in self.target.named_parameters()},
            "adam": {
                name: {key: t.clone() for key, t in moments[p].items()} for name, p in online.items() if p in moments
            },
            "noise": self._noise.state_dict(),
            "steps": self._steps,
            "next_copy": self._next_copy,
        }

    def load_state_dict(self, state: State) -> None:
        self.master.load_state_dict(state["online"])
        self._round()
        self.target.load_state_dict(state["target"])
        self._adam.state.clear()
        for name, parameter in self.master.named_parameters():
            if name in state["adam"]:
                self._adam.state[parameter] = {key: t.clone() for key, t in state["adam"][name].items()}
        self._noise.load_state_dict(state["noise"])
        self._steps, self._next_copy = int(state["steps"]), int(state["next_copy"])


def _gradients(net: Net) -> list[Tensor]:
    return [p.grad for p in net.parameters() if p.grad is not None]
