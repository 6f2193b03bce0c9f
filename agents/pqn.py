"""PQN, parallelised Q-network: Gallici et al. 2024 (arXiv:2407.04811), in the form of their purejaxql.

Q(lambda) on what many environments have just done, without replay and without target network: layer norm is what keeps it stable.
A round of learning is a rollout of T steps in N environments. Its lambda-returns are computed once, from the values that the acting
network gave to the states it met; then each step is learned from `epochs` times, in batches drawn at random.

The network: pqn_net.py. Deviations from the authors' code: docs/agents/pqn.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rlplatform import returns
from rlplatform.agents.pqn_net import ENCODERS, Net
from rlplatform.checked import Checked
from rlplatform.device import CPU, placed, require
from rlplatform.device_streams import DeviceStream
from rlplatform.optim import anneal_
from rlplatform.stacks import Stacks
from rlplatform.streams import Stream
from rlplatform.techniques import checkpoint, l2_init, sigreg, spectral_norm
from rlplatform.techniques.activations import record
from rlplatform.techniques.plasticity import Probe
from rlplatform.techniques.pruning import Pruner, PruningConfig
from rlplatform.techniques.redo import Recycler, ReDoConfig
from rlplatform.techniques.sigreg import SigReg, SigRegConfig
from rlplatform.types import Array, Metrics, Spec, State, Weights


@dataclass(frozen=True)
class Config(Checked):
    """Hyper-parameters; the defaults are those of the authors' MinAtar runs. Steps are agent steps of all environments."""

    encoder: str = "minatar"  # or "nature" for pixels [height, width], "flatten" for vectors and tiny pictures
    width: int = 1  # the convolutions' channels are (16) or (32, 64, 64) * width
    hidden: int = 128  # units of each layer between the encoder and the head
    layers: int = 1
    batch: int = 128  # steps that a gradient step learns from
    epochs: int = 2  # gradient steps that each step goes into
    gamma: float = 0.99
    lambda_: float = 0.65
    learning_rate: float = 5e-4
    anneal: int = 0  # steps in which the learning rate falls linearly to 0; 0: it stays
    grad_clip: float = 10.0  # largest norm of the gradient
    clip_rewards: bool = False  # to [-1, 1], for learning only
    reward_scale: float = 1.0  # rewards are multiplied by it, for learning only: values are in its unit
    epsilon: float = 0.05  # share of random actions in the end
    epsilon_decay: int = 1_000_000  # steps of the linear way there from 1
    epsilon_eval: float = 0.0
    sigreg: SigRegConfig = field(default_factory=SigRegConfig)  # on the last hidden layer before its ReLU
    pruning: PruningConfig = field(default_factory=PruningConfig)
    redo: ReDoConfig = field(default_factory=ReDoConfig)
    l2_init: float = 0.0  # weight of the squared way from the initial weights
    spectral_norm: tuple[str, ...] = ()  # layers that are normalised: "hidden.0.linear" is one behind the encoder

    def __post_init__(self) -> None:
        self._one_of(ENCODERS, "encoder")
        self._at_least(1, "width", "hidden", "layers", "batch", "epochs", "epsilon_decay")
        self._expect("width", self.width == 1 or self.encoder != "flatten", "1 without convolutions")
        self._at_least(0, "anneal")
        self._positive("learning_rate", "grad_clip", "reward_scale")
        self._not_negative("l2_init")
        self._share("gamma", "lambda_", "epsilon", "epsilon_eval")

    @property
    def replay_ratio(self) -> Fraction:
        """Gradient steps per agent step, exactly."""
        return Fraction(self.epochs, self.batch)


def epsilon_at(step: int, config: Config) -> float:
    """From 1 linearly to config.epsilon over epsilon_decay steps."""
    return 1.0 + min(step / config.epsilon_decay, 1.0) * (config.epsilon - 1.0)


class Steps(NamedTuple):
    """What is learned from: B steps, or all of a round."""

    obs: Tensor  # [B, stack, *frame]
    action: Tensor  # [B] int64
    target: Tensor  # [B] float32: lambda-returns


def lambda_returns(value: Tensor, reward: Tensor, discount: Tensor, lambda_: float) -> Tensor:
    """Peng's Q(lambda) (Peng and Williams 1994), as in Gallici et al. 2024, Eq. 12: G_t = r_t + discount_t ((1 - lambda) V_{t+1} +
    lambda G_{t+1}), and G_T = V_T. [T, N].

    Args:
        value: V_t = max_a Q(s_t, a), [T + 1, N]. reward, discount: as `returns.reward_and_discount` makes them, [T, N].
    """
    return returns.gae(value, reward, discount, lambda_) + value[:-1]


class Policy:
    """Epsilon-greedy. In training it also says what the best action is worth, of each state and of those after the last step."""

    def __init__(self, config: Config, spec: Spec, *, evaluation: bool, device: torch.device = CPU) -> None:
        self._config, self._actions, self._evaluation = config, spec.actions, evaluation
        self.net = placed(network(config, spec), device).requires_grad_(False)
        self.device = device
        self.epsilon = 1.0

    def load(self, weights: Weights) -> None:
        """Take over the tensors of Agent.weights() without a copy: later changes in place are seen."""
        for name, parameter in self.net.named_parameters():
            parameter.data = weights["net"][name].to(self.device)
        self.epsilon = self._config.epsilon_eval if self._evaluation else weights["epsilon"]

    @torch.inference_mode()
    def act(self, obs: Array, stream: Stream) -> tuple[Array, Mapping[str, Array]]:
        """Actions [N] int64 for obs [N, stack, *frame]; in training with their "value" [N] float32, the largest of each state."""
        explore = stream.uniform(len(obs)) < self.epsilon
        action = stream.integers(self._actions, len(obs))
        if self._evaluation and explore.all():
            return action, {}
        value, best = self.net(torch.from_numpy(obs).to(self.device)).max(1)
        action = np.where(explore, action, best.cpu().numpy())
        return action, {} if self._evaluation else {"value": value.cpu().numpy()}

    @torch.inference_mode()
    def close(self, obs: Array) -> Mapping[str, Array]:
        """The value of the observations after the last step, for the returns."""
        return {"last_value": self.net(torch.from_numpy(obs).to(self.device)).amax(1).cpu().numpy()}


class DevicePolicy:
    """The training policy where environments live on a device: the same actions and values as tensors, and no wait."""

    def __init__(self, config: Config, spec: Spec, device: torch.device) -> None:
        self._policy, self._actions = Policy(config, spec, evaluation=False, device=device), spec.actions

    def load(self, weights: Weights) -> None:
        self._policy.load(weights)

    @torch.no_grad()
    def act(self, obs: Tensor, stream: DeviceStream) -> tuple[Tensor, Mapping[str, Tensor]]:
        """As Policy.act."""
        explore = stream.uniform(len(obs)) < self._policy.epsilon
        action = stream.integers(self._actions, len(obs))
        value, best = self._policy.net(obs).max(1)
        return torch.where(explore, action, best), {"value": value}

    @torch.no_grad()
    def close(self, obs: Tensor) -> Mapping[str, Tensor]:
        """As Policy.close."""
        return {"last_value": self._policy.net(obs).amax(1)}


def network(config: Config, spec: Spec) -> Net:
    """With empty parameters."""
    return Net(config.encoder, config.width, config.hidden, config.layers, spec)


class Agent:
    """Network and optimiser. `observe` begins a round of learning, `update` is one gradient step of it."""

    config_class: ClassVar[type[Config]] = Config
    replay: Any = None

    def __init__(
        self, config: Config, spec: Spec, streams: int, seed: int, device: str = "cpu", *, feed: str = ""
    ) -> None:
        """A newly initialised agent.

        Args:
            streams: environments whose rollouts `observe` will see.
            seed: of the run; names the streams "init", "order", "redo" and "sigreg".
            device: where it learns and acts: "cpu", "cuda" or "cuda:N".
            feed: "resident", where environments are on the device; it is the same to this agent.
        """
        if not spec.actions:
            raise ValueError("this agent needs discrete actions")
        self.config, self.spec, self.device = config, spec, require(device)
        self.net = self._fresh(Stream(seed, "init"))
        self._initial = l2_init.initial(self.net.named_parameters(), config.l2_init)
        spectral_norm.iterate_(self.net, spectral_norm.START)
        self._redo = Recycler(config.redo, seed)
        self._parameters = list(self.net.parameters())
        self._optimizer = torch.optim.RAdam(self._parameters, config.learning_rate, foreach=True)
        self._sigreg = SigReg(config.sigreg, self._stream(seed, "sigreg"))
        self._pruner = Pruner(self.net, config.pruning)
        self._order = self._stream(seed, "order")
        self._stacks = Stacks(spec, streams, self.device)
        self._round: Steps | None = None
        self._drawn = torch.empty(
            0, dtype=torch.int64, device=self.device
        )  # of a permutation of the round, not yet used
        self._steps = 0  # agent steps observed

    def _fresh(self, stream: Stream) -> Net:
        """Newly initialised, on the agent's device."""
        net = network(self.config, self.spec)
        net.init_(stream)
        placed(net, self.device)
        spectral_norm.attach_(net, self.config.spectral_norm)
        return net

    def _stream(self, seed: int, name: str) -> Any:
        """A Stream, or its twin that draws on the device."""
        stream = Stream(seed, name)
        return DeviceStream(stream, self.device) if self.device.type == "cuda" else stream

    @property
    def ready(self) -> bool:
        return self._round is not None

    def policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=False, device=self.device)

    def device_policy(self) -> DevicePolicy:
        """For a DeviceActor, on the agent's device."""
        return DevicePolicy(self.config, self.spec, self.device)

    def eval_policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=True, device=self.device)

    def weights(self) -> Weights:
        return {"net": spectral_norm.acting(self.net), "epsilon": epsilon_at(self._steps, self.config)}

    def probe(self) -> Probe:
        """Its values of the actions and the largest of them."""

        def forward(obs: Tensor) -> tuple[Tensor, Tensor]:
            q = self.net(obs)
            return q, q.amax(1)

        return Probe(self.net, forward)

    def observe(self, rollouts: list[Any]) -> None:
        """Begin a round with these `Rollout`s or `DeviceRollout`s, each with what this agent's policy said."""
        parts = [self._learnable(rollout) for rollout in rollouts]
        self._round = Steps(*(torch.cat(field) for field in zip(*parts, strict=True)))
        self._drawn = self._drawn[:0]
        if self._redo.due():
            self._recycle()
        # By the steps before this round: the first one learns at the full rate, the last one still learns.
        anneal_(self._optimizer, self.config.learning_rate, self._steps, self.config.anneal)
        self._steps += len(self._round.action)

    def _recycle(self) -> None:
        """Dormant units, by what they do in the round that begins; its returns are of the values that were said when it was played."""
        assert self._round is not None
        index = torch.as_tensor(self._redo.rows(len(self._round.action)), device=self.device)
        layers, _ = record(self.net, self.net, self._round.obs[index])
        self._redo.recycle_(self.net, self._fresh(self._redo.stream), self.net.links(), layers, [self._optimizer])
        self._pruner.apply_(self.net)  # what was pruned stays so
        spectral_norm.iterate_(self.net, spectral_norm.START)

    @torch.no_grad()
    def _learnable(self, rollout: Any) -> Steps:
        """A rollout's steps, one environment's after another's at each time, with their lambda-returns."""
        x = {name: torch.as_tensor(getattr(rollout, name), device=self.device) for name in FIELDS}
        said = {name: torch.as_tensor(rollout.extra[name], device=self.device) for name in ("value", "last_value")}
        size, frames = x["reward"].numel(), (x["frame"], x["first"], x["final_frame"], x["final_at"])
        seen = self._stacks.push(*frames, first_env=rollout.first_env)
        final_value = x["reward"].new_empty(0)
        if len(x["final_at"]):
            final_value = self.net(seen[size:]).amax(1)
        reward = x["reward"].clamp(-1.0, 1.0) if self.config.clip_rewards else x["reward"]
        reward = reward * self.config.reward_scale
        reward, discount = returns.reward_and_discount(
            reward, x["terminated"], x["truncated"], x["final_at"], final_value, self.config.gamma
        )
        value = torch.cat([said["value"], said["last_value"][None]])
        target = lambda_returns(value, reward, discount, self.config.lambda_)
        return Steps(seen[:size], x["action"].flatten(), target.flatten())

    def update(self) -> Metrics:
        """One gradient step on the next batch of the round: pieces of one random order of its steps after another."""
        x = self._draw()
        self._pruner.begin()
        features = self.net.features(x.obs)
        q = self.net.read(features).gather(1, x.action[:, None])[:, 0]
        td = 0.5 * (q - x.target).square().mean()
        loss, metrics = td, dict[str, Any]({"losses/td_loss": td.detach(), "losses/q_values": q.detach().mean()})
        if self._sigreg.on:
            parts = self._sigreg.parts(features)
            loss = loss + self._sigreg.loss(parts)
            metrics |= sigreg.metrics(parts)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        if self._initial is not None:
            self._initial.pull_(self.net.named_parameters())
        norm = nn.utils.clip_grad_norm_(self._parameters, self.config.grad_clip)
        self._optimizer.step()
        self._pruner.apply_(self.net)
        if self.config.spectral_norm:
            spectral_norm.iterate_(self.net)
        self._redo.tick()
        metrics |= {"charts/epsilon": epsilon_at(self._steps, self.config), "charts/gradient_norm": norm}
        return {**metrics, **self._pruner.metrics(), **self._redo.metrics()}

    def _draw(self) -> Steps:
        assert self._round is not None, "update before the first observe"
        batch, steps = self.config.batch, len(self._round.action)
        while len(self._drawn) < batch:
            order = torch.as_tensor(self._order.uniform(steps), device=self.device).argsort()
            self._drawn = torch.cat([self._drawn, order])
        at, self._drawn = self._drawn[:batch], self._drawn[batch:]
        return Steps(*(field[at] for field in self._round))

    def state_dict(self) -> State:
        """Copies on the CPU, so that the agent may go on while they are written. The round under way is no part of it: between two
        rounds all of its gradient steps are done."""
        online = dict(self.net.named_parameters())
        return {
            "online": {name: checkpoint.saved(p) for name, p in online.items()},
            "adam": checkpoint.moments_of(online, self._optimizer),
            "order": self._order.state_dict(),
            "stacks": self._stacks.state_dict(),
            "steps": self._steps,
            **self._techniques().state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self.net.load_state_dict(state["online"])
        checkpoint.load_moments(state["adam"], dict(self.net.named_parameters()), self._optimizer)
        self._order.load_state_dict(state["order"])
        self._stacks.load_state_dict(state["stacks"])
        self._steps = int(state["steps"])
        self._round, self._drawn = None, self._drawn[:0]
        self._techniques().load_state_dict(state)

    def _techniques(self) -> checkpoint.Techniques:
        return checkpoint.Techniques(
            {"online": self.net}, self._sigreg, {"pruning": self._pruner}, self._redo, self._initial
        )


FIELDS = ("frame", "first", "action", "reward", "terminated", "truncated", "final_frame", "final_at")  # of a rollout
