"""PPO's networks, distributions over actions, and loss. Everything here is a function of (modules, batch): nothing draws or waits."""

from itertools import pairwise
from math import log, pi
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F  # its name everywhere
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlplatform import _core
from rlplatform.agents.ppo_config import Config
from rlplatform.nets import encoder, orthogonal_
from rlplatform.streams import Stream
from rlplatform.techniques import gtr
from rlplatform.techniques.redo import Link, link
from rlplatform.types import Array, Spec

MAX_LOG_RATIO = 2.0  # where nothing clips: ratios beyond e^2 and e^-2 count as these

# --- distributions over actions ---


class Family(Protocol):
    """Distributions by their parameters [..., P]: what a network gives for B states, what a rollout keeps of each step."""

    inputs: int  # what a linear layer gives for a state

    def of(self, out: Tensor, log_std: Tensor | None) -> Tensor: ...  # [B, inputs] -> [B, P]
    def log_prob(self, dist: Tensor, action: Tensor) -> Tensor: ...  # [B, P], [B] or [B, A] -> [B]
    def entropy(self, dist: Tensor) -> Tensor: ...  # [B, P] -> [B]
    def kl(self, old: Tensor, new: Tensor) -> Tensor: ...  # KL(old || new): [..., P] both -> [...]
    def draw(self, dist: Tensor, stream: Stream) -> Array: ...  # actions, [B] or [B, A]
    def mode(self, dist: Tensor) -> Array: ...


class Categorical:
    """One of A actions; the parameters are log-probabilities, [..., A]."""

    def __init__(self, actions: int) -> None:
        self.inputs = actions

    def of(self, out: Tensor, log_std: Tensor | None) -> Tensor:
        return out.log_softmax(-1)

    def log_prob(self, dist: Tensor, action: Tensor) -> Tensor:
        return dist.gather(-1, action[..., None])[..., 0]

    def entropy(self, dist: Tensor) -> Tensor:
        return -(dist.exp() * dist).sum(-1)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        return gtr.categorical_kl(old, new)

    def draw(self, dist: Tensor, stream: Stream) -> Array:
        """One uniform number a state: the first action whose cumulative probability exceeds it."""
        cumulated = dist.exp().cumsum(-1).numpy()
        action: Array = (cumulated <= stream.uniform(len(cumulated), 1) * cumulated[:, -1:]).sum(-1)
        return action

    def mode(self, dist: Tensor) -> Array:
        action: Array = dist.argmax(-1).numpy()
        return action


class Gaussian:
    """Independent normals; the parameters are means, then logs of standard deviations, [..., 2 A]."""

    def __init__(self, actions: int) -> None:
        self.inputs = actions

    def of(self, out: Tensor, log_std: Tensor | None) -> Tensor:
        assert log_std is not None
        return torch.cat([out, log_std.expand_as(out)], -1)

    def log_prob(self, dist: Tensor, action: Tensor) -> Tensor:
        mean, log_std = dist.chunk(2, -1)
        z = (action - mean) * torch.exp(-log_std)
        return -(0.5 * z.square() + log_std + 0.5 * log(2.0 * pi)).sum(-1)

    def entropy(self, dist: Tensor) -> Tensor:
        return (dist.chunk(2, -1)[1] + 0.5 * (1.0 + log(2.0 * pi))).sum(-1)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        return gtr.gaussian_kl(*old.chunk(2, -1), *new.chunk(2, -1))

    def draw(self, dist: Tensor, stream: Stream) -> Array:
        mean, log_std = dist.chunk(2, -1)
        action: Array = (mean + log_std.exp() * torch.from_numpy(stream.normal(*mean.shape))).numpy()
        return action

    def mode(self, dist: Tensor) -> Array:
        action: Array = dist.chunk(2, -1)[0].numpy()
        return action


def family(spec: Spec) -> Family:
    """The distributions over the actions of `spec`."""
    return Categorical(spec.actions) if spec.actions else Gaussian(spec.action_shape[0])


# --- networks ---


class Trunk(nn.Module):
    """An encoder and hidden layers: [B, stack, *frame] -> [B, hidden]."""

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__()
        self.encoder = encoder(config.encoder, spec, config.width)
        sizes = [self.encoder.features, *[config.hidden] * config.layers]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.activation = torch.tanh if config.activation == "tanh" else F.relu

    def links(self, name: str, *heads: str) -> list[Link]:
        """The hidden layers whose units can be recycled, of a trunk called `name` that these heads read."""
        layers = [f"{name}.layers.{i}" for i in range(len(self.layers))]
        links = [link(f"{name}.encoder.{layer}", f"{name}.encoder.{into}") for layer, into in self.encoder.chain]
        if self.encoder.last is not None:
            links.append(link(f"{name}.encoder.{self.encoder.last}".rstrip("."), layers[0]))
        return [*links, *(link(a, b) for a, b in pairwise(layers)), link(layers[-1], *heads)]

    def last(self, obs: Tensor) -> Tensor:
        """The last layer before its activation."""
        *hidden, last = self.layers  # a slice of a ModuleList would be a module of its own, made anew in every pass
        x = self.encoder(obs)
        for layer in hidden:
            x = self.activation(layer(x))
        h: Tensor = last(x)
        return h

    def forward(self, obs: Tensor) -> Tensor:
        return self.activation(self.last(obs))


class Net(nn.Module):
    """Policy and value. `features` is the last hidden layer of the policy, with `shared` of both."""

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__()
        self.family = family(spec)
        self.trunk = Trunk(config, spec)
        self.critic = None if config.shared else Trunk(config, spec)
        self.policy = nn.Linear(config.hidden, self.family.inputs)
        self.value = nn.Linear(config.hidden, 1)
        self.initial_log_std = config.log_std
        self.log_std = None if spec.actions else nn.Parameter(torch.empty(self.family.inputs))

    def init_(self, stream: Stream) -> None:
        """Orthogonal weights, of gain sqrt 2, of the policy's head 0.01, of the value's 1; biases 0."""
        gains = {"policy.weight": 0.01, "value.weight": 1.0}
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                orthogonal_(parameter.data.flatten(1), gains.get(name, 2.0**0.5), stream)
            else:
                parameter.data.fill_(self.initial_log_std if name == "log_std" else 0.0)

    def links(self) -> list[Link]:
        """The hidden layers whose units can be recycled."""
        if self.critic is None:
            return self.trunk.links("trunk", "policy", "value")
        return [*self.trunk.links("trunk", "policy"), *self.critic.links("critic", "value")]

    def features(self, obs: Tensor) -> Tensor:
        """[B, stack, *frame] -> [B, hidden]."""
        x: Tensor = self.trunk(obs)
        return x

    def distribution(self, obs: Tensor) -> Tensor:
        """Parameters of the distribution over actions, [B, P]: all that acting needs."""
        return self.family.of(self.policy(self.features(obs)), self.log_std)

    def values(self, obs: Tensor) -> Tensor:
        """[B]."""
        x: Tensor = self.value((self.trunk if self.critic is None else self.critic)(obs))
        return x[:, 0]

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """`distribution` and `values`, the shared part once."""
        dist, value, _ = self.seen(obs)
        return dist, value

    def seen(self, obs: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """As `forward`, and the last hidden layers [B, hidden] before their activation: the policy's, and a value's of its own."""
        out, value, hidden = self.outputs(obs)
        return self.family.of(out, self.log_std), value, hidden

    def outputs(self, obs: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """As `seen`, with what the distribution is made of [B, family.inputs] in its place."""
        h = self.trunk.last(obs)
        x = self.trunk.activation(h)
        out: Tensor = self.policy(x)
        if self.critic is None:
            value: Tensor = self.value(x)
            return out, value[:, 0], (h,)
        other = self.critic.last(obs)
        value = self.value(self.critic.activation(other))
        return out, value[:, 0], (h, other)


# --- the loss ---


class Minibatch(NamedTuple):
    """Transitions as the loss takes them. `anchors`, newest first, begin with the policy that acted."""

    obs: Tensor  # [B, stack, *frame]
    action: Tensor  # [B] int64 or [B, A] float32, not clipped
    log_prob: Tensor  # [B] float32, of the action when it was taken
    value: Tensor  # [B] float32, when it was taken
    advantage: Tensor  # [B] float32
    target: Tensor  # [B] float32: the lambda-return
    anchors: Tensor  # [B, K, P] float32: distributions


class Losses(NamedTuple):
    """Of one minibatch; scalars but for the last three."""

    total: Tensor
    policy: Tensor  # minus the surrogate
    value: Tensor  # not weighted
    entropy: Tensor
    penalty: Tensor  # not weighted; 0 where trust.weight is
    log_ratio: Tensor  # [B], of the action's probability now to what it was; without gradient
    dist: Tensor  # [B, P], the policy now; without gradient
    hidden: tuple[Tensor, ...]  # [B, hidden] each, as of Net.seen


def losses(net: Net, x: Minibatch, config: Config) -> Losses:
    """PPO's loss: -surrogate + value_weight * (value loss) - entropy_weight * entropy, and trust.weight * penalty where that is not 0.

    Schulman et al. 2017 (arXiv:1707.06347), Eq. 7 and 9; the value loss clipped as in the authors' code, half of the squared error.
    """
    out, value, hidden = net.outputs(x.obs)
    if not value.is_cuda and isinstance(net.family, Categorical) and not config.trust.weight:
        total, policy, of_value, entropy, dist, log_prob = CategoricalLoss.apply(out, value, x, config)  # type: ignore[no-untyped-call]
        return Losses(total, policy, of_value, entropy, torch.zeros(()), log_prob - x.log_prob, dist, hidden)
    dist = net.family.of(out, net.log_std)
    log_prob = net.family.log_prob(dist, x.action)
    if value.is_cuda:
        policy, of_value = policy_loss(log_prob, x, config), value_loss(value, x, config)
    else:
        policy, of_value = ClippedLoss.apply(log_prob, value, x, config)  # type: ignore[no-untyped-call]
    entropy = net.family.entropy(dist).mean()
    total = policy + config.value_weight * of_value - config.entropy_weight * entropy
    penalty = torch.zeros(())
    if config.trust.weight:
        penalty = gtr.penalty(distances(net, dist, x, config), config.trust).mean()
        total = total + config.trust.weight * penalty
    return Losses(total, policy, of_value, entropy, penalty, log_prob.detach() - x.log_prob, dist.detach(), hidden)


def distances(net: Net, dist: Tensor, x: Minibatch, config: Config) -> Tensor:
    """Of the policy `dist` from each anchor, [K, B]: the divergence, or what stands in for it at the action taken."""
    anchors = x.anchors.transpose(0, 1)
    if config.trust.distance == "exact":
        return net.family.kl(anchors, dist)
    action = x.action.expand(len(anchors), *x.action.shape)
    return gtr.sampled_distance(net.family.log_prob(anchors, action), net.family.log_prob(dist, x.action))


def normalized(advantage: Tensor) -> Tensor:
    """To mean 0 and standard deviation 1 (that of a sample), [B]."""
    std, mean = torch.std_mean(advantage)
    return (advantage - mean) / (std + 1e-8)


def policy_loss(log_prob: Tensor, x: Minibatch, config: Config) -> Tensor:
    """Mean of -min(r A, clip(r, 1 - eps, 1 + eps) A); without clipping of -r A, log r within +-2."""
    log_ratio = log_prob - x.log_prob
    advantage = normalized(x.advantage) if config.normalize_advantage else x.advantage
    if config.surrogate == "none":
        return -(log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() * advantage).mean()
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - config.clip, 1.0 + config.clip)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()


def value_loss(value: Tensor, x: Minibatch, config: Config) -> Tensor:
    """Half of the mean squared error; where clipped, of the worse of V and of V kept within eps of what it was."""
    error = (value - x.target).square()
    if config.clip_value:
        near = x.value + (value - x.value).clamp(-config.clip, config.clip)
        error = torch.maximum(error, (near - x.target).square())
    return 0.5 * error.mean()


class ClippedLoss(torch.autograd.Function):
    """`policy_loss` and `value_loss` of log_prob and value, [B] float32 on the CPU, in one pass of C++ that makes their gradients, too."""

    @staticmethod
    def forward(ctx: Any, log_prob: Tensor, value: Tensor, x: Minibatch, config: Config) -> tuple[Tensor, Tensor]:
        policy, of_value, *ctx.gradients = _core.clipped_loss(log_prob.numpy(), value.numpy(), *_in_one_pass(x, config))
        return torch.tensor(policy), torch.tensor(of_value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_policy: Tensor, of_value: Tensor) -> tuple[Tensor, Tensor, None, None]:
        by_log_prob, by_value = map(torch.from_numpy, ctx.gradients)
        return of_policy * by_log_prob, of_value * by_value, None, None


class CategoricalLoss(torch.autograd.Function):
    """The whole loss on the CPU where actions are discrete and there is no trust region: (total, policy, value, entropy, distributions
    [B, A], log-probabilities [B] of the actions taken), of logits [B, A] and value [B], float32; only the first has a gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor, x: Minibatch, config: Config) -> tuple[Tensor, ...]:
        weights = config.value_weight, config.entropy_weight
        given: Any = logits.numpy(), x.action.numpy(), value.numpy(), *_in_one_pass(x, config), *weights
        losses, *arrays = _core.categorical_loss(*given)
        dist, log_prob, *ctx.gradients = map(torch.from_numpy, arrays)
        total, *parts = torch.tensor(losses).unbind()
        ctx.mark_non_differentiable(*parts, dist, log_prob)
        return total, *parts, dist, log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None, None]:
        by_logits, by_value = ctx.gradients
        return of_total * by_logits, of_total * by_value, None, None


def _in_one_pass(x: Minibatch, config: Config) -> tuple[Any, ...]:
    """What both passes of C++ take of a minibatch and of the configuration."""
    columns = x.log_prob.numpy(), x.value.numpy(), x.advantage.numpy(), x.target.numpy()
    cap = 0.0 if config.surrogate == "clip" else MAX_LOG_RATIO
    return *columns, config.clip, cap, config.clip_value, config.normalize_advantage
