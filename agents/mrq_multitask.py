"""Multitask MR.Q: one model-free agent for many tasks at once, on latents learned by predicting dynamics and rewards (arXiv:2606.05555,
after Fujimoto et al. 2025, arXiv:2501.16142). docs/agents/mrq_multitask.md says where it departs from either.

Played on the `multitask-*` suites: environment i is task i mod K, and an observation says which task it is of and which actions
this has (rlplatform.envs.multitask). Losses are functions of (modules, batch, noise); nothing in them draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # its name everywhere
from torch import Tensor, nn

from rlplatform.actor import uniform_actions
from rlplatform.agents.mrq_net import Part, two_hot_cross_entropy
from rlplatform.checked import Checked
from rlplatform.nets import normal_
from rlplatform.optim import take_gradients
from rlplatform.replay import Batch, Replay
from rlplatform.streams import Stream
from rlplatform.techniques import checkpoint, sigreg
from rlplatform.techniques.pruning import Pruner, PruningConfig
from rlplatform.techniques.sigreg import SigReg, SigRegConfig
from rlplatform.types import Array, Metrics, Rollout, Spec, State, Weights

PARTS = ("encoder", "value", "policy")  # each with an optimiser of its own, in the order of their steps
INIT_STD = 0.02
GROUP = 8  # latents that SimNorm makes a distribution
LARGEST = 10.0  # of the outermost bins, in symlog
TASK_NORM = 16.0  # of a task's embedding: what the text embeddings have that it stands for
PREACTIVATION_WEIGHT = 1e-5


@dataclass(frozen=True)
class Config(Checked):
    """Hyper-parameters; the default size is B. Steps are agent steps of all environments together."""

    observation: int = 128  # numbers of a padded observation: protocol.observation
    task_embedding: int = 512
    encoder_hidden: int = 256
    encoder_layers: int = 2
    hidden: int = 512  # units of every other hidden layer
    latent: int = 512  # of the embeddings of states and of state-action pairs
    action_embedding: int = 256
    bins: int = 101  # of the distributions of rewards and values, equally spaced in symlog
    critics: int = 5
    replay_ratio: float = 0.075
    batch: int = 1024
    gamma: float = 0.99
    horizon: int = 5  # steps of the encoder's unroll, and of the return
    dynamics_weight: float = 1.0
    reward_weight: float = 0.1
    encoder_learning_rate: float = 9e-5
    learning_rate: float = 3e-4  # of values and policy
    weight_decay: float = 1e-4  # decoupled, of all parameters
    grad_clip: float = 20.0  # largest norm of the gradient of the encoder, and of that of the values
    tau: float = 0.01  # the targets' way to the networks per update; of the range of values, too
    capacity: int = 1_000_000
    min_replay: int = 15_000  # agent steps with random actions, before the first update
    noise: float = 0.2  # standard deviation, added to what the policy does
    target_noise: float = 0.2  # likewise, in the target; cut at
    noise_clip: float = 0.3
    sigreg: SigRegConfig = field(default_factory=SigRegConfig)  # on all values' last hidden layer before its Mish
    pruning: PruningConfig = field(default_factory=PruningConfig)  # of encoder, values and policy, each on its own

    def __post_init__(self) -> None:
        self._at_least(1, "observation", "task_embedding", "encoder_hidden", "encoder_layers", "hidden")
        self._at_least(1, "action_embedding", "batch", "horizon")
        self._at_least(2, "critics")
        self._at_least(0, "min_replay")
        self._positive("encoder_learning_rate", "learning_rate", "grad_clip")
        self._not_negative("replay_ratio", "dynamics_weight", "reward_weight", "weight_decay")
        self._not_negative("noise", "target_noise", "noise_clip")
        self._share("gamma", "tau")
        self._expect("latent", self.latent >= GROUP and self.latent % GROUP == 0, f"a multiple of {GROUP}")
        self._expect("bins", self.bins >= 3 and self.bins % 2 == 1, "odd and >= 3, so that 0 is a bin")
        self._expect("capacity", self.capacity > self.min_replay, "more than min_replay, or learning would never start")


# --- networks ---


class Linear(nn.Linear):
    """A linear layer with normal weights of standard deviation 0.02 and zero bias."""

    def init_(self, stream: Stream) -> None:
        normal_(self.weight.data, INIT_STD, stream)
        self.bias.data.zero_()


class Norm(nn.LayerNorm):
    """Layer norm with gain 1 and bias 0 at first."""

    def init_(self, _stream: Stream) -> None:
        self.reset_parameters()


class Layer(Part):
    """Linear, layer norm, Mish."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear, self.norm = Linear(inputs, outputs), Norm(outputs)

    def before(self, x: Tensor) -> Tensor:
        """Before its Mish."""
        h: Tensor = self.norm(self.linear(x))
        return h

    def forward(self, x: Tensor) -> Tensor:
        return F.mish(self.before(x))


def sim_norm(x: Tensor) -> Tensor:
    """[..., units], in groups of 8 that softmax makes distributions (Hansen et al. 2024, arXiv:2310.16828, Eq. 5, at temperature 1)."""
    return torch.softmax(x.unflatten(-1, (-1, GROUP)), -1).flatten(-2)


class Layers(Part):
    """Layers of given widths."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.depth = len(widths) - 1
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            self.add_module(f"layer{i}", Layer(inputs, outputs))

    def before(self, x: Tensor) -> Tensor:
        """What the last of them does before its Mish."""
        for i in range(self.depth - 1):
            x = getattr(self, f"layer{i}")(x)
        h: Tensor = getattr(self, f"layer{self.depth - 1}").before(x)
        return h

    def forward(self, x: Tensor) -> Tensor:
        for i in range(self.depth):
            x = getattr(self, f"layer{i}")(x)
        return x


class StateEncoder(Part):
    """f: observation beside the task's embedding -> zs."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        inputs, wide = config.observation + config.task_embedding, config.encoder_hidden
        self.layers = Layers(inputs, *[wide] * (config.encoder_layers - 1))
        self.last = Linear(wide if config.encoder_layers > 1 else inputs, config.latent)
        self.norm = Norm(config.latent)

    def forward(self, obs: Tensor, task: Tensor) -> Tensor:
        """[B, observation] and [B, task_embedding] -> [B, latent]."""
        return sim_norm(self.norm(self.last(self.layers(torch.cat([obs, task], 1)))))


class Encoder(Part):
    """f; g: (zs, action) -> zsa; m: zsa -> next zs, reward logits. The task is told to f alone."""

    def __init__(self, config: Config, actions: int) -> None:
        super().__init__()
        self.latent = config.latent
        self.state = StateEncoder(config)
        self.action = Linear(actions, config.action_embedding)
        self.hidden = Layers(config.latent + config.action_embedding, config.hidden, config.hidden)
        self.last = Linear(config.hidden, config.latent)
        self.model = Linear(config.latent, config.latent + config.bins)

    def pair(self, zs: Tensor, action: Tensor) -> Tensor:
        """zsa [B, latent], of zs [B, latent] and actions [B, A]."""
        zsa: Tensor = self.last(self.hidden(torch.cat([zs, F.elu(self.action(action))], 1)))
        return zsa

    def predict(self, zs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Next zs [B, latent] and the reward's logits [B, bins]."""
        said = self.model(self.pair(zs, action))
        return said[:, : self.latent], said[:, self.latent :]


class Actor(Part):
    """pi: zs beside the task's embedding -> what becomes the action by tanh."""

    def __init__(self, config: Config, actions: int) -> None:
        super().__init__()
        self.hidden = Layers(config.latent + config.task_embedding, config.hidden, config.hidden)
        self.last = Linear(config.hidden, actions)

    def forward(self, zs: Tensor, task: Tensor) -> Tensor:
        """[B, A]."""
        x: Tensor = self.last(self.hidden(torch.cat([zs, task], 1)))
        return x


class Critic(Part):
    """zsa -> logits of the return's distribution."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.hidden = Layers(config.latent, config.hidden, config.hidden)
        self.last = Linear(config.hidden, config.bins)

    def features(self, zsa: Tensor) -> Tensor:
        """The last hidden layer before its Mish, [B, hidden]."""
        return self.hidden.before(zsa)

    def read(self, features: Tensor) -> Tensor:
        """[B, bins], of features [B, hidden]."""
        x: Tensor = self.last(F.mish(features))
        return x

    def forward(self, zsa: Tensor) -> Tensor:
        """[B, bins]."""
        return self.read(self.features(zsa))


class Critics(Part):
    """An ensemble, of which any may be asked."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.count = config.critics
        for i in range(config.critics):
            self.add_module(f"critic{i}", Critic(config))

    def forward(self, zsa: Tensor, which: tuple[int, ...]) -> Tensor:
        """[len(which), B, bins], of zsa [B, latent]."""
        return torch.stack([getattr(self, f"critic{i}")(zsa) for i in which])

    def features(self, zsa: Tensor) -> list[Tensor]:
        """Of all critics, [B, hidden] each."""
        return [getattr(self, f"critic{i}").features(zsa) for i in range(self.count)]

    def read(self, features: list[Tensor]) -> Tensor:
        """[critics, B, bins] of the features of all."""
        return torch.stack([getattr(self, f"critic{i}").read(h) for i, h in enumerate(features)])


class Net(Part):
    """All of them; the target networks are another one."""

    def __init__(self, config: Config, actions: int) -> None:
        super().__init__()
        self.encoder, self.value, self.policy = Encoder(config, actions), Critics(config), Actor(config, actions)


# --- what is learned from ---


class Told(NamedTuple):
    """Observations as the networks take them."""

    obs: Tensor  # [B, observation]
    task: Tensor  # [B, task_embedding]
    mask: Tensor  # [B, A]: 1 where the task has this action


def tell(obs: Tensor, observation: int, embeddings: Tensor) -> Told:
    """Of [B, observation + A + K], as rlplatform.envs.multitask lays them out, with embeddings [K, task_embedding]."""
    end = obs.shape[1] - len(embeddings)
    return Told(obs[:, :observation], obs[:, end:] @ embeddings, obs[:, observation:end])


class Subsequence(NamedTuple):
    """H steps of B subsequences."""

    states: list[Told]  # H + 1 of them
    action: Tensor  # [H, B, A]
    reward: Tensor  # [H, B]
    follows: Tensor  # [H, B]: 1 where nothing ended up to and including this step
    n_return: Tensor  # [B]: discounted sum of the rewards up to H steps or an end
    discount: Tensor  # [B]: gamma^m of the bootstrap, 0 where the episode terminated
    bootstrap: Told  # [B]: where that is


class Noise(NamedTuple):
    """For one update."""

    target: Tensor  # [B, A]: normal, scaled and cut, added to the target policy's action
    judges: tuple[int, int]  # the target critics of which the lesser counts
    advisers: tuple[int, ...]  # the critics that the policy listens to


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|)."""
    return x.sign() * x.abs().log1p()


def symexp(x: Tensor) -> Tensor:
    """The inverse of symlog."""
    return x.sign() * x.abs().expm1()


def value_of(logits: Tensor, bins: Tensor) -> Tensor:
    """What a distribution stands for: the mean of its bins in symlog, and symexp of that. [...], of [..., bins]."""
    return symexp((logits.softmax(-1) * bins).sum(-1))


# --- losses ---


class EncoderLoss(NamedTuple):
    """Of one batch; all but the total without gradient."""

    total: Tensor
    dynamics: Tensor
    reward: Tensor


def encoder_loss(online: Encoder, target: Encoder, x: Subsequence, bins: Tensor, config: Config) -> EncoderLoss:
    """Sum over H steps of the mean squared error of the next state's embedding (the target encoder's) and of the reward's cross
    entropy; means over all of the batch, with 0 for what comes after an end."""
    zs = online.state(x.states[0].obs, x.states[0].task)
    dynamics = reward = torch.zeros(())
    there = torch.ones_like(x.follows[0])
    for t, told in enumerate(x.states[1:]):
        zs, logits = online.predict(zs, x.action[t])
        with torch.no_grad():
            later = target.state(told.obs, told.task)
        dynamics = dynamics + (x.follows[t] * (zs - later).square().mean(-1)).mean()
        reward = reward + (there * two_hot_cross_entropy(logits, symlog(x.reward[t]), bins)).mean()
        there = x.follows[t]
    total = config.dynamics_weight * dynamics + config.reward_weight * reward
    return EncoderLoss(total, dynamics.detach(), reward.detach())


@torch.no_grad()
def value_target(target: Net, x: Subsequence, noise: Noise, bins: Tensor) -> Tensor:
    """y = return + discount * the lesser of two target critics at the target policy's noisy action, [B]."""
    at = x.bootstrap
    zs = target.encoder.state(at.obs, at.task)
    action = (torch.tanh(target.policy(zs, at.task)) + noise.target).clamp(-1.0, 1.0) * at.mask
    least = value_of(target.value(target.encoder.pair(zs, action), noise.judges), bins).amin(0)
    return x.n_return + x.discount * least


def value_loss(logits: Tensor, y: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """(mean over critics and batch of the cross entropy to the two bins around symlog(y), the mean value without gradient), of
    logits [critics, B, bins]."""
    loss = two_hot_cross_entropy(logits, symlog(y).expand(logits.shape[:-1]), bins).mean()
    return loss, value_of(logits.detach(), bins).mean()


def policy_loss(net: Net, zs: Tensor, at: Told, noise: Noise, bins: Tensor, q_range: Tensor) -> tuple[Tensor, Tensor]:
    """(-(mean value at the policy's action) / range + 1e-5 * mean square of what comes before tanh, the values [B] without
    gradient). The gradient is asked for with respect to the policy alone."""
    pre = net.policy(zs, at.task)
    zsa = net.encoder.pair(zs, torch.tanh(pre) * at.mask)
    q = value_of(net.value(zsa, noise.advisers), bins).mean(0)
    return PREACTIVATION_WEIGHT * pre.square().mean() - (q / q_range).mean(), q.detach()


def spread(q: Tensor) -> Tensor:
    """From the 5th to the 95th percentile of values [B]."""
    low, high = torch.quantile(q, torch.tensor([0.05, 0.95])).unbind()
    return high - low


# --- the agent ---


class Policy:
    """The policy's action, with normal noise in training."""

    def __init__(self, config: Config, spec: Spec, *, evaluation: bool) -> None:
        net = Net(config, spec.action_shape[0]).requires_grad_(False)
        self._state, self._actor = net.encoder.state, net.policy
        self._config, self._spec, self._evaluation = config, spec, evaluation
        self._random, self._embeddings = True, torch.empty(0)

    def load(self, weights: Weights) -> None:
        """Take over the tensors of Agent.weights() without a copy: later changes in place are seen."""
        for part, module in (("state", self._state), ("policy", self._actor)):
            for name, parameter in module.named_parameters():
                parameter.data = weights[part][name]
        self._embeddings = weights["tasks"]
        self._random = weights["random"] and not self._evaluation

    @torch.inference_mode()
    def act(self, obs: Array, stream: Stream) -> tuple[Array, Mapping[str, Array]]:
        """Actions [N, A] float32 in [-1, 1], for obs [N, 1, observation + A + K]; 0 where the task has none."""
        at = tell(torch.from_numpy(obs).flatten(1), self._config.observation, self._embeddings)
        if self._random:
            action = torch.from_numpy(uniform_actions(self._spec, len(obs), stream))
        else:
            action = torch.tanh(self._actor(self._state(at.obs, at.task), at.task))
        if not (self._random or self._evaluation):
            action = action + torch.from_numpy(stream.normal(*action.shape)) * self._config.noise
        return (action.clamp(-1.0, 1.0) * at.mask).numpy(), {}


class Agent:
    """Replay, networks and optimisers. `update` is one gradient step of the encoder, then of the values, then of the policy."""

    config_class: ClassVar[type[Config]] = Config

    def __init__(self, config: Config, spec: Spec, streams: int, seed: int) -> None:
        """A newly initialised agent.

        Args:
            streams: environments whose rollouts `observe` will see; all tasks must be among them.
            seed: of the run; names the streams "init", "tasks", "noise", "sigreg" and "replay".

        Raises:
            ValueError: environments of another kind than those of the `multitask-*` suites, or fewer than tasks.
        """
        tasks = 0 if len(spec.action_shape) != 1 else spec.frame_shape[0] - config.observation - spec.action_shape[0]
        if spec.actions or spec.frame_dtype != "float32" or spec.stack != 1 or tasks < 1:
            raise ValueError(
                "this agent needs frames [observation + actions + tasks] of a multitask suite with observation = "
                f"{config.observation}, got {spec.frame_dtype} {list(spec.frame_shape)} and actions {list(spec.action_shape)}"
            )
        if streams % tasks:
            raise ValueError(
                f"{streams} environments do not share out among {tasks} tasks: choose envs * actors = {tasks} or a multiple"
            )
        self.config, self.spec, self._actions = config, spec, spec.action_shape[0]
        self.replay = Replay(
            spec, config.capacity, streams, config.horizon, config.horizon, 0.0, Stream(seed, "replay")
        )
        self._noise = Stream(seed, "noise")
        self.bins = torch.linspace(-LARGEST, LARGEST, config.bins)
        self.embeddings = torch.empty(tasks, config.task_embedding)
        normal_(self.embeddings, TASK_NORM / config.task_embedding**0.5, Stream(seed, "tasks"))
        self.net, self.target = Net(config, self._actions), Net(config, self._actions).requires_grad_(False)
        self.net.init_(Stream(seed, "init"))
        self.target.load_state_dict(self.net.state_dict())
        self._optimizers = {
            part: torch.optim.AdamW(
                getattr(self.net, part).parameters(),
                config.encoder_learning_rate if part == "encoder" else config.learning_rate,
                weight_decay=config.weight_decay,
                fused=True,
            )
            for part in PARTS
        }
        self.q_range = torch.ones(())  # of the policy's values, smoothed; never below 1
        self._sigreg = SigReg(config.sigreg, Stream(seed, "sigreg"))
        self._pruners = {part: Pruner(getattr(self.net, part), config.pruning) for part in PARTS}
        self._steps = 0  # agent steps observed
        self._batch: Batch | None = None  # memory that is sampled into again and again

    @property
    def ready(self) -> bool:
        return self._steps >= self.config.min_replay and self.replay.can_sample

    def policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=False)

    def eval_policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=True)

    def weights(self) -> Weights:
        return {
            "state": {name: p.data for name, p in self.net.encoder.state.named_parameters()},
            "policy": {name: p.data for name, p in self.net.policy.named_parameters()},
            "tasks": self.embeddings,
            "random": self._steps < self.config.min_replay,
        }

    def observe(self, rollouts: list[Rollout]) -> None:
        for rollout in rollouts:
            self.replay.add(rollout)
            self._steps += rollout.reward.size

    def update(self) -> Metrics:
        """One gradient step of each part on one batch; the targets follow a little."""
        config, net = self.config, self.net
        self._batch = self.replay.sample(config.batch, config.horizon, config.gamma, config.horizon, self._batch)
        x, noise = self.subsequence(self._batch), self._draw_noise()
        encoder = encoder_loss(net.encoder, self.target.encoder, x, self.bins, config)
        self._step("encoder", encoder.total)
        y, at = value_target(self.target, x, noise, self.bins), x.states[0]
        with torch.no_grad():
            zs = net.encoder.state(at.obs, at.task)
            zsa = net.encoder.pair(zs, x.action[0])
        features, metrics = net.value.features(zsa), dict[str, Any]()
        loss, q = value_loss(net.value.read(features), y, self.bins)
        total = loss
        if self._sigreg.on:
            parts = self._sigreg.parts(*features)
            total, metrics = total + self._sigreg.loss(parts), sigreg.metrics(parts)
        self._step("value", total)
        policy, values = policy_loss(net, zs, at, noise, self.bins, self.q_range)
        self._step("policy", policy)
        self.q_range = self.q_range.lerp(spread(values), config.tau).clamp(min=1.0)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.target.parameters()), list(net.parameters()), config.tau)
        for part, pruner in self._pruners.items():
            pruner.apply_(getattr(self.target, part))
            metrics |= pruner.metrics(part)
        return metrics | {
            "losses/value_loss": loss.detach(), "losses/policy_loss": policy.detach(), "losses/q_values": q,
            "losses/dynamics_loss": encoder.dynamics, "losses/reward_loss": encoder.reward, "charts/q_range": self.q_range,
        }  # fmt: skip

    def subsequence(self, batch: Batch) -> Subsequence:
        """A batch as the losses take it."""
        states = [self._tell(obs) for obs in batch.obs.swapaxes(0, 1)]
        return Subsequence(
            states,
            torch.from_numpy(batch.action).transpose(0, 1),
            torch.from_numpy(batch.reward).T,
            torch.from_numpy(batch.mask.astype(np.float32)).T,
            torch.from_numpy(batch.n_return),
            torch.from_numpy(batch.discount),
            self._tell(batch.next_obs),
        )

    def _tell(self, obs: Array) -> Told:
        return tell(torch.from_numpy(obs).flatten(1), self.config.observation, self.embeddings)

    def _draw_noise(self) -> Noise:
        config, count = self.config, self.config.critics
        normal = torch.from_numpy(self._noise.normal(config.batch, self._actions)) * config.target_noise
        first, second = (self._pair(count) for _ in range(2))
        return Noise(normal.clamp(-config.noise_clip, config.noise_clip), first, second if count > 2 else (0,))

    def _pair(self, count: int) -> tuple[int, int]:
        """Two different critics, all pairs equally likely."""
        first, gap = int(self._noise.integers(count, 1)[0]), int(self._noise.integers(count - 1, 1)[0])
        return first, (first + 1 + gap) % count

    def _step(self, part: str, loss: Tensor) -> None:
        """Gradient and optimiser step of one part alone, whatever else the loss went through."""
        parameters = list(getattr(self.net, part).parameters())
        take_gradients(part, loss, parameters, after=self._steps)
        if part != "policy":
            nn.utils.clip_grad_norm_(parameters, self.config.grad_clip)
        self._pruners[part].begin()
        self._optimizers[part].step()
        self._pruners[part].apply_(getattr(self.net, part))

    def state_dict(self) -> State:
        """Copies, so that the agent may go on while they are written."""
        online = dict(self.net.named_parameters())
        return {
            "online": {name: checkpoint.saved(p) for name, p in online.items()},
            "target": {name: checkpoint.saved(p) for name, p in self.target.named_parameters()},
            "adam": checkpoint.moments_of(online, *self._optimizers.values()),
            "tasks": self.embeddings.clone(),
            "noise": self._noise.state_dict(),
            "steps": self._steps,
            "q_range": self.q_range.clone(),
            **self._techniques().state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self.net.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        checkpoint.load_moments(state["adam"], dict(self.net.named_parameters()), *self._optimizers.values())
        self.embeddings = state["tasks"].clone()
        self._noise.load_state_dict(state["noise"])
        self._steps, self.q_range = int(state["steps"]), state["q_range"].clone()
        self._techniques().load_state_dict(state)

    def _techniques(self) -> checkpoint.Techniques:
        return checkpoint.Techniques(
            {}, self._sigreg, {f"pruning_{part}": pruner for part, pruner in self._pruners.items()}
        )
