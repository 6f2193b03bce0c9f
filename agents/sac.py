"""SAC, soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905), as the primacy-bias paper has it (Nikishin et al. 2022,
arXiv:2205.07802): many updates per step, and the whole learner made anew every 200,000 steps while the replay stays.

Vectors in, continuous actions out. Losses are functions of (modules, batch, noise); deviations: docs/agents/sac.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, log
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # its name everywhere
from torch import Tensor, nn

from rlplatform.actor import uniform_actions
from rlplatform.checked import Checked
from rlplatform.nets import orthogonal_
from rlplatform.optim import take_gradients
from rlplatform.replay import Batch, Replay
from rlplatform.streams import Stream
from rlplatform.techniques import checkpoint, l2_init, resets, sigreg, spectral_norm
from rlplatform.techniques.activations import record
from rlplatform.techniques.plasticity import Probe
from rlplatform.techniques.pruning import Pruner, PruningConfig
from rlplatform.techniques.redo import Link, Recycler, ReDoConfig, link
from rlplatform.techniques.resets import ResetConfig
from rlplatform.techniques.sigreg import SigReg, SigRegConfig
from rlplatform.types import Array, Metrics, Rollout, Spec, State, Weights

PARTS = ("critic", "actor", "temperature")  # each with an optimiser of its own, in the order of their steps
LOG_STD = (-10.0, 2.0)  # range of the log of the policy's standard deviation


@dataclass(frozen=True)
class Config(Checked):
    """Hyper-parameters, those of the primacy-bias paper's runs on DeepMind Control. Steps are agent steps."""

    hidden: int = 256  # units of each of two hidden layers
    replay_ratio: float = 1.0  # gradient steps per agent step
    batch: int = 256
    gamma: float = 0.99
    learning_rate: float = 3e-4  # of critics, actor and temperature
    tau: float = 0.005  # the target's way to the critics per gradient step
    temperature: float = 1.0  # at first
    entropy: float = -0.5  # that the temperature aims at, per action dimension
    capacity: int = 1_000_000
    min_replay: int = 10_000  # agent steps with random actions, before the first gradient step
    reset: ResetConfig = field(default_factory=lambda: ResetConfig(until=2_000_000))  # `every` counts agent steps
    sigreg: SigRegConfig = field(default_factory=SigRegConfig)  # on both critics' last hidden layer before its ReLU
    pruning: PruningConfig = field(default_factory=PruningConfig)  # of actor and critics, each on its own
    redo: ReDoConfig = field(default_factory=ReDoConfig)
    l2_init: float = 0.0  # weight of the squared way from the initial weights of critics and actor
    spectral_norm: tuple[str, ...] = ()  # layers that are normalised: "critic.first.linear2" is one before the last

    def __post_init__(self) -> None:
        self._at_least(1, "hidden", "batch", "min_replay")
        self._positive("learning_rate", "temperature")
        self._not_negative("replay_ratio", "l2_init")
        self._share("gamma", "tau")
        self._expect("entropy", -inf < self.entropy < inf, "finite")
        self._expect("capacity", self.capacity > self.min_replay, "more than min_replay, or learning would never start")


# --- networks ---


class Linear(nn.Linear):
    """A linear layer with orthogonal weights and zero bias."""

    def init_(self, stream: Stream, gain: float = 2.0**0.5) -> None:
        orthogonal_(self.weight.data, gain, stream)
        self.bias.data.zero_()


class Actor(nn.Module):
    """A normal distribution before tanh: [B, inputs] -> mean and log of the standard deviation, [B, A] each."""

    def __init__(self, inputs: int, actions: int, hidden: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = Linear(inputs, hidden), Linear(hidden, hidden)
        self.mean, self.log_std = Linear(hidden, actions), Linear(hidden, actions)

    def init_(self, stream: Stream) -> None:
        for layer in (self.linear1, self.linear2, self.mean):
            layer.init_(stream)
        self.log_std.init_(stream, gain=1.0)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.linear2(F.relu(self.linear1(obs))))
        low, high = LOG_STD
        return self.mean(x), low + 0.5 * (high - low) * (1.0 + torch.tanh(self.log_std(x)))


class Critic(nn.Module):
    """Values of [B, inputs + A], observations beside actions: [B]."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.linear1, self.linear2, self.linear3 = Linear(inputs, hidden), Linear(hidden, hidden), Linear(hidden, 1)

    def init_(self, stream: Stream) -> None:
        for layer in (self.linear1, self.linear2, self.linear3):
            layer.init_(stream)

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer before its ReLU, [B, hidden]."""
        h: Tensor = self.linear2(F.relu(self.linear1(x)))
        return h

    def read(self, features: Tensor) -> Tensor:
        """Values [B] of features [B, hidden]."""
        value: Tensor = self.linear3(F.relu(features))
        return value[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.features(x))


class Twins(nn.Module):
    """Two critics, [2, B]."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = Critic(inputs, hidden), Critic(inputs, hidden)

    def init_(self, stream: Stream) -> None:
        self.first.init_(stream)
        self.second.init_(stream)

    def features(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Of either critic."""
        x = torch.cat([obs, action], 1)
        return self.first.features(x), self.second.features(x)

    def read(self, first: Tensor, second: Tensor) -> Tensor:
        """Values [2, B] of both critics' features."""
        return torch.stack([self.first.read(first), self.second.read(second)])

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        x = torch.cat([obs, action], 1)
        return torch.stack([self.first(x), self.second(x)])


class Temperature(nn.Module):
    """The weight of the entropy, by its logarithm."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.initial = initial
        self.log = nn.Parameter(torch.empty(()))

    def init_(self, _stream: Stream) -> None:
        self.log.data.fill_(log(self.initial))

    def forward(self) -> Tensor:
        return self.log.exp()


class Net(nn.Module):
    """Actor, critics and temperature."""

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__()
        inputs, actions = spec.stack * int(np.prod(spec.frame_shape)), spec.action_shape[0]
        self.actor = Actor(inputs, actions, config.hidden)
        self.critic = Twins(inputs + actions, config.hidden)
        self.temperature = Temperature(config.temperature)

    def init_(self, stream: Stream) -> None:
        self.actor.init_(stream)
        self.critic.init_(stream)
        self.temperature.init_(stream)

    def links(self) -> list[Link]:
        """The hidden layers whose units can be recycled."""
        links = [link("actor.linear1", "actor.linear2"), link("actor.linear2", "actor.mean", "actor.log_std")]
        for critic in ("critic.first", "critic.second"):
            links += [link(f"{critic}.linear{i}", f"{critic}.linear{i + 1}") for i in (1, 2)]
        return links


# --- losses ---


def sample_action(mean: Tensor, log_std: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
    """tanh(mean + std * normal), [B, A], and the log of its density, [B]: Haarnoja et al. 2018, appendix C. The log of tanh's
    slope is written so that it does not underflow: 2 (log 2 - u - softplus(-2 u))."""
    u = mean + log_std.exp() * normal
    log_normal = -0.5 * normal.square() - log_std - 0.5 * log(2.0 * torch.pi)
    log_slope = 2.0 * (log(2.0) - u - F.softplus(-2.0 * u))
    return torch.tanh(u), (log_normal - log_slope).sum(1)


class Transitions(NamedTuple):
    """A batch as the losses take it."""

    obs: Tensor  # [B, inputs] float32
    action: Tensor  # [B, A] float32
    reward: Tensor  # [B] float32
    discount: Tensor  # [B] float32: gamma, or 0 where the episode terminated; a time limit is no termination
    next_obs: Tensor  # [B, inputs] float32


@torch.no_grad()
def soft_target(net: Net, target: Twins, x: Transitions, normal: Tensor) -> Tensor:
    """y = r + discount * (least of the target critics - temperature * log pi) at an action of the policy now, [B]."""
    mean, log_std = net.actor(x.next_obs)
    action, log_prob = sample_action(mean, log_std, normal)
    least = target(x.next_obs, action).amin(0)
    result: Tensor = x.reward + x.discount * (least - net.temperature() * log_prob)
    return result


def critic_loss(q: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(the sum of both critics' mean squared errors, the mean value without gradient), of values q [2, B]."""
    return (q - y).square().mean(1).sum(), q.detach().mean()


def actor_loss(net: Net, obs: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
    """(mean of temperature * log pi - least of the critics, mean entropy without gradient). Its gradient is asked for with respect
    to the actor alone."""
    mean, log_std = net.actor(obs)
    action, log_prob = sample_action(mean, log_std, normal)
    loss = (net.temperature().detach() * log_prob - net.critic(obs, action).amin(0)).mean()
    return loss, -log_prob.detach().mean()


def temperature_loss(temperature: Temperature, entropy: Tensor, aim: float) -> Tensor:
    """temperature * (entropy - aim): falls where there is more entropy than is aimed at."""
    loss: Tensor = temperature() * (entropy - aim)
    return loss


# --- the agent ---


class Policy:
    """A draw from the policy in training, its mode in evaluation."""

    def __init__(self, config: Config, spec: Spec, *, evaluation: bool) -> None:
        self._spec, self._evaluation = spec, evaluation
        self._actor = Net(config, spec).actor.requires_grad_(False)
        self._random = True

    def load(self, weights: Weights) -> None:
        """Take over the tensors of Agent.weights() without a copy: later changes in place are seen."""
        for name, parameter in self._actor.named_parameters():
            parameter.data = weights["actor"][name]
        self._random = weights["random"] and not self._evaluation

    @torch.inference_mode()
    def act(self, obs: Array, stream: Stream) -> tuple[Array, Mapping[str, Array]]:
        """Actions [N, A] float32 in [-1, 1], for obs [N, stack, *frame]."""
        shape = (len(obs), *self._spec.action_shape)
        if self._random:
            return uniform_actions(self._spec, len(obs), stream), {}
        mean, log_std = self._actor(torch.from_numpy(obs).flatten(1))
        if self._evaluation:
            return torch.tanh(mean).numpy(), {}
        action, _ = sample_action(mean, log_std, torch.from_numpy(stream.normal(*shape)))
        return action.numpy(), {}


class Agent:
    """Replay, networks and optimisers. `update` is one gradient step of critics, actor and temperature."""

    config_class: ClassVar[type[Config]] = Config

    def __init__(self, config: Config, spec: Spec, streams: int, seed: int) -> None:
        """A newly initialised agent.

        Args:
            streams: environments whose rollouts `observe` will see.
            seed: of the run; names the streams "init", "noise", "reset", "redo", "sigreg" and "replay".
        """
        if spec.actions or len(spec.action_shape) != 1 or spec.frame_dtype != "float32":
            raise ValueError(
                "this agent needs float32 observations and actions that are vectors, got "
                f"{spec.frame_dtype} {list(spec.frame_shape)} and {spec.actions or list(spec.action_shape)} actions"
            )
        self.config, self.spec = config, spec
        self.replay = Replay(spec, config.capacity, streams, max_n=1, stream=Stream(seed, "replay"))
        self._noise, self._reset_draws = Stream(seed, "noise"), Stream(seed, "reset")
        self._redo = Recycler(config.redo, seed)
        self.net, self.target = self._fresh(Stream(seed, "init")), self._made().critic.requires_grad_(False)
        self._initial = l2_init.initial(self.net.named_parameters(), config.l2_init)
        spectral_norm.iterate_(self.net, spectral_norm.START)
        self.target.load_state_dict(self.net.critic.state_dict())
        spectral_norm.copy_(self.target, self.net.critic)
        resets.check_names(self.net, config.reset)
        self._optimizers = {
            part: torch.optim.Adam(getattr(self.net, part).parameters(), config.learning_rate, fused=True)
            for part in PARTS
        }
        self._aim = config.entropy * spec.action_shape[0]
        self._resets = resets.Schedule(config.reset.every, config.reset.until)
        self._sigreg = SigReg(config.sigreg, Stream(seed, "sigreg"))
        self._pruners = {part: Pruner(getattr(self.net, part), config.pruning) for part in ("critic", "actor")}
        self._steps = 0  # agent steps observed

    def _made(self) -> Net:
        net = Net(self.config, self.spec)
        spectral_norm.attach_(net, self.config.spectral_norm)
        return net

    def _fresh(self, stream: Stream) -> Net:
        """Newly initialised."""
        net = Net(self.config, self.spec)
        net.init_(stream)
        spectral_norm.attach_(net, self.config.spectral_norm)
        return net

    @property
    def ready(self) -> bool:
        return self._steps >= self.config.min_replay and self.replay.can_sample

    def policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=False)

    def eval_policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=True)

    def weights(self) -> Weights:
        return {"actor": spectral_norm.acting(self.net.actor), "random": self._steps < self.config.min_replay}

    def probe(self) -> Probe:
        """The policy's mode, and the lesser of the critics' values of it."""

        def forward(obs: Tensor) -> tuple[Tensor, Tensor]:
            x = obs.flatten(1)
            action = torch.tanh(self.net.actor(x)[0])
            return action, self.net.critic(x, action.detach()).amin(0)

        return Probe(self.net, forward, outputs=("actor.log_std",))

    def observe(self, rollouts: list[Rollout]) -> None:
        # After `every` steps, their updates and an evaluation: with the first step that follows.
        if self._resets.due(self._steps + 1):
            self._reset()
        if self._redo.due():
            self._recycle()
        for rollout in rollouts:
            self.replay.add(rollout)
            self._steps += rollout.reward.size

    def update(self) -> Metrics:
        """One gradient step of the critics, then of their target, of the actor with the new critics, and of the temperature."""
        net, x = self.net, transitions(self.replay.sample(self.config.batch, 1, self.config.gamma))
        next_normal, normal = (torch.from_numpy(self._noise.normal(*x.action.shape)) for _ in range(2))
        y = soft_target(net, self.target, x, next_normal)
        features = net.critic.features(x.obs, x.action)
        of_critic, q = critic_loss(net.critic.read(*features), y)
        total, metrics = of_critic, dict[str, Tensor]()
        if self._sigreg.on:
            parts = self._sigreg.parts(*features)
            total, metrics = total + self._sigreg.loss(parts), sigreg.metrics(parts)
        self._step("critic", total)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.target.parameters()), list(net.critic.parameters()), self.config.tau)
        self._pruners["critic"].apply_(self.target)
        if self.config.spectral_norm:
            spectral_norm.iterate_(self.target)
        of_actor, entropy = actor_loss(net, x.obs, normal)
        self._step("actor", of_actor)
        of_temperature = temperature_loss(net.temperature, entropy, self._aim)
        self._step("temperature", of_temperature)
        self._redo.tick()
        metrics |= {
            "losses/critic_loss": of_critic.detach(), "losses/actor_loss": of_actor.detach(), "losses/q_values": q,
            "losses/temperature_loss": of_temperature.detach(), "charts/entropy": entropy,
            "charts/temperature": net.temperature().detach(),
        }  # fmt: skip
        if self.config.reset.every:
            metrics["charts/resets"] = torch.tensor(self._resets.count)
        pruned = {k: v for part, pruner in self._pruners.items() for k, v in pruner.metrics(part).items()}
        return {**metrics, **pruned, **self._redo.metrics()}

    def _step(self, part: str, loss: Tensor) -> None:
        """Gradient and optimiser step of one part alone, whatever else the loss went through."""
        module = getattr(self.net, part)
        take_gradients(part, loss, list(module.parameters()), after=self._steps)
        if self._initial is not None and part != "temperature":
            self._initial.pull_((f"{part}.{name}", p) for name, p in module.named_parameters())
        pruner = self._pruners.get(part)
        if pruner is not None:
            pruner.begin()
        self._optimizers[part].step()
        if pruner is not None:
            pruner.apply_(module)
        if self.config.spectral_norm:
            spectral_norm.iterate_(module)

    def _reset(self) -> None:
        """The modules that the configuration names, the target critics as the critics, and all optimisers. What was stored stays."""
        fresh = self._fresh(self._reset_draws)
        resets.apply_(self.net, fresh, self.config.reset)
        # Under the name that the critics have in `net`.
        target, new = (nn.ModuleDict({"critic": critic}) for critic in (self.target, fresh.critic))
        resets.apply_(target, new, self.config.reset)
        for part, pruner in self._pruners.items():  # what was pruned stays so
            pruner.apply_(getattr(self.net, part))
        self._pruners["critic"].apply_(self.target)
        for optimizer in self._optimizers.values():
            resets.clear_optimizer_(optimizer)
        for net in (self.net, self.target):
            spectral_norm.iterate_(net, spectral_norm.START)

    def _recycle(self) -> None:
        """Dormant units of actor and critics; the target critics follow as they follow all else."""
        probe = self.probe()
        layers, _ = record(self.net, probe.forward, self._redo.observations(self.replay), probe.outputs)
        fresh = self._fresh(self._redo.stream)
        self._redo.recycle_(self.net, fresh, self.net.links(), layers, self._optimizers.values())
        for part, pruner in self._pruners.items():  # what was pruned stays so
            pruner.apply_(getattr(self.net, part))
        spectral_norm.iterate_(self.net, spectral_norm.START)

    def state_dict(self) -> State:
        """Copies, so that the agent may go on while they are written."""
        online = dict(self.net.named_parameters())
        return {
            "online": {name: checkpoint.saved(p) for name, p in online.items()},
            "target": {name: checkpoint.saved(p) for name, p in self.target.named_parameters()},
            "adam": checkpoint.moments_of(online, *self._optimizers.values()),
            "noise": self._noise.state_dict(),
            "reset_draws": self._reset_draws.state_dict(),
            "resets": self._resets.state_dict(),
            "steps": self._steps,
            **self._techniques().state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self.net.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        checkpoint.load_moments(state["adam"], dict(self.net.named_parameters()), *self._optimizers.values())
        self._noise.load_state_dict(state["noise"])
        self._reset_draws.load_state_dict(state["reset_draws"])
        self._resets.load_state_dict(state["resets"])
        self._steps = int(state["steps"])
        self._techniques().load_state_dict(state)

    def _techniques(self) -> checkpoint.Techniques:
        pruners = {f"pruning_{part}": pruner for part, pruner in self._pruners.items()}
        return checkpoint.Techniques(
            {"online": self.net, "target": self.target}, self._sigreg, pruners, self._redo, self._initial
        )


def transitions(batch: Batch) -> Transitions:
    """A batch of the replay as the losses take it."""
    f = torch.from_numpy
    return Transitions(
        f(batch.obs[:, 0]).flatten(1),
        f(batch.action[:, 0]),
        f(batch.n_return),
        f(batch.discount),
        f(batch.next_obs).flatten(1),
    )
