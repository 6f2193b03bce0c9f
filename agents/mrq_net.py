"""Networks and losses of MR.Q. Everything here is a function of (modules, batch, noise): nothing draws or waits.

Normalisation is layer norm without parameters throughout. Linear maps that the paper applies to a concatenation, or whose output
it cuts in two, are two maps here: what does not depend on the unrolled state is computed in one pass for all steps.
"""

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F  # its name everywhere
from torch import Tensor, nn

from rlplatform.agents.mrq_config import Config
from rlplatform.frame_conv import channels_last
from rlplatform.nets import uniform_
from rlplatform.streams import Stream
from rlplatform.techniques.redo import Into, Link, link
from rlplatform.types import Spec

LN_EPS = 1e-5
LARGEST_BIN = 10.0  # in symexp's argument: bins reach to 22,025.5
PREACTIVATION_WEIGHT = 1e-5  # of the policy's mean squared output before tanh or softmax
CHANNELS, KERNEL, STRIDES = 32, 3, (2, 2, 2, 1)  # of the four convolutions
LEAST_IMAGE = 31  # pixels along an axis, below which they leave nothing: smaller byte frames go to the linear encoder


class Linear(nn.Linear):
    """A linear layer with Xavier-uniform weights for ReLU (gain sqrt 2) and zero bias."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, beside: tuple[int, int] = (0, 0)) -> None:
        """`beside`: further inputs and outputs of the paper's layer, which lie in another of ours; they count for the bound."""
        super().__init__(inputs, outputs, bias=bias)
        self.fan = inputs + beside[0] + outputs + beside[1]

    def init_(self, stream: Stream) -> None:
        uniform_(self.weight.data, (2.0 * 6.0 / self.fan) ** 0.5, stream)
        if self.bias is not None:
            self.bias.data.zero_()


class Head(Linear):
    """A linear layer that stays in float32 and gives float32: what is read off it is a number, not a feature."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.float(), self.weight, self.bias)


class Conv(nn.Module):
    """3x3 convolution without padding; Xavier-uniform kernel with gain sqrt 2, zero bias."""

    def __init__(self, inputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(CHANNELS, inputs, KERNEL, KERNEL))
        self.bias = nn.Parameter(torch.empty(CHANNELS))

    def init_(self, stream: Stream) -> None:
        fan = KERNEL * KERNEL * (self.weight.shape[0] + self.weight.shape[1])
        uniform_(self.weight.data, (2.0 * 6.0 / fan) ** 0.5, stream)
        self.bias.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride)

    def on_bytes(self, x: Tensor) -> Tensor:
        """Of x / 255 - 1/2, for x from 0 to 255: the map is applied to kernel and bias, which are smaller than the images."""
        bias = self.bias - 0.5 * self.weight.sum((1, 2, 3))
        return F.conv2d(x, self.weight * (1.0 / 255.0), bias, self.stride)


class Part(nn.Module):
    """A module whose children all have `init_`."""

    def init_(self, stream: Stream) -> None:
        for child in self.children():
            child.init_(stream)  # type: ignore[operator]  # nn.Module hides what its attributes are


def norm_elu(x: Tensor) -> Tensor:
    """ELU of the layer norm of [..., units]."""
    return F.elu(F.layer_norm(x, x.shape[-1:], eps=LN_EPS), inplace=True)


def norm_relu(x: Tensor) -> Tensor:
    """ReLU of the layer norm of [..., units]."""
    return F.relu(F.layer_norm(x, x.shape[-1:], eps=LN_EPS), inplace=True)


def is_image(spec: Spec) -> bool:
    """Whether observations go through convolutions: bytes [height, width] or [channels, height, width], large enough.

    Raises:
        ValueError: for large byte frames of another form, which a linear encoder would swallow.
    """
    shape = spec.frame_shape
    large = [size >= LEAST_IMAGE for size in shape]
    if spec.frame_dtype != "uint8" or sum(large) < 2:
        return False
    if len(shape) > 3 or not all(large[-2:]):
        raise ValueError(f"images must be [height, width] or [channels, height, width], got {list(shape)}")
    return True


class VectorState(Part):
    """f for vectors and small byte frames: three linear layers, each with layer norm and ELU."""

    def __init__(self, spec: Spec, hidden: int) -> None:
        super().__init__()
        inputs = spec.stack
        for size in spec.frame_shape:
            inputs *= size
        self.bytes = spec.frame_dtype == "uint8"
        self.linear1, self.linear2, self.linear3 = (
            Linear(inputs, hidden),
            Linear(hidden, hidden),
            Linear(hidden, hidden),
        )

    def forward(self, obs: Tensor) -> Tensor:
        """[B, stack, *frame] of any dtype, bytes from 0 to 255 -> [B, hidden]."""
        x = obs.flatten(1).to(self.linear1.weight.dtype)
        if self.bytes:
            x = x / 255.0 - 0.5
        return norm_elu(self.linear3(norm_elu(self.linear2(norm_elu(self.linear1(x))))))


class PixelState(Part):
    """f for images: four convolutions with ELU, then one linear layer with layer norm and ELU."""

    def __init__(self, spec: Spec, hidden: int) -> None:
        super().__init__()
        channels = spec.stack * (spec.frame_shape[0] if len(spec.frame_shape) == 3 else 1)
        height, width = spec.frame_shape[-2:]
        for stride in STRIDES:
            height, width = (height - KERNEL) // stride + 1, (width - KERNEL) // stride + 1
        inputs = (channels, CHANNELS, CHANNELS, CHANNELS)
        self.conv1, self.conv2, self.conv3, self.conv4 = (Conv(i, s) for i, s in zip(inputs, STRIDES, strict=True))
        self.linear = Linear(CHANNELS * height * width, hidden)

    def forward(self, obs: Tensor) -> Tensor:
        """Numbers from 0 to 255 [B, stack, height, width] or [B, stack, channels, height, width] -> [B, hidden]."""
        x = channels_last(obs.flatten(1, -3), self.conv1.weight.dtype)
        x = F.elu(self.conv1.on_bytes(x), inplace=True)
        for conv in (self.conv2, self.conv3, self.conv4):
            x = F.elu(conv(x), inplace=True)
        return norm_elu(self.linear(x.permute(0, 2, 3, 1).flatten(1)))  # a view: the map is channels last


def state_encoder(config: Config, spec: Spec) -> VectorState | PixelState:
    """f, by what observations are."""
    return PixelState(spec, config.hidden) if is_image(spec) else VectorState(spec, config.hidden)


class Encoder(Part):
    """f: state -> zs; g: (zs, action) -> zsa; m: zsa -> next zs, reward logits, done."""

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__()
        h, e = config.hidden, config.action_embedding
        self.state = state_encoder(config, spec)
        self.action = Linear(action_size(spec), e)
        self.pair_state = Linear(h, h, bias=False, beside=(e, 0))  # g's first layer, applied to zs ...
        self.pair_action = Linear(e, h, beside=(h, 0))  # ... and to the embedded action
        self.pair2, self.pair3 = Linear(h, h), Linear(h, h)
        self.dynamics = Linear(h, h, beside=(0, 1 + config.bins))  # m, whose one matrix has h + 1 + bins outputs
        self.outcome = Head(h, 1 + config.bins, beside=(0, h))

    def embed(self, action: Tensor) -> Tensor:
        """The action's share of g's first layer, [..., hidden], of actions [..., A]."""
        x: Tensor = self.pair_action(F.elu(self.action(action.to(self.action.weight.dtype)), inplace=True))
        return x

    def hidden(self, zs: Tensor, embedded: Tensor) -> Tensor:
        """What g's last layer takes, [B, hidden], of zs [B, hidden] and what `embed` made of the action."""
        return norm_elu(self.pair2(norm_elu(torch.addmm(embedded, zs, self.pair_state.weight.T))))

    def pair(self, zs: Tensor, embedded: Tensor) -> Tensor:
        """zsa [B, hidden]."""
        zsa: Tensor = self.pair3(self.hidden(zs, embedded))
        return zsa

    def unroll(self, zs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions along the actions [H, B, A] taken from states zs [B, hidden]: of the next zs [H, B, hidden], in the
        dtype of the network, and [H, B, 1 + bins] float32: done, then the reward's logits.

        g's last layer and m, with nothing between them, are multiplied once instead of being applied to each step's batch:
        a tenth of the work less.
        """
        last, m, read = self.pair3, self.dynamics, self.outcome
        dynamics, dynamics_bias = m.weight @ last.weight, F.linear(last.bias, m.weight, m.bias)
        outcome, outcome_bias = read.weight @ last.weight.float(), F.linear(last.bias.float(), read.weight, read.bias)
        hidden, states = [], []
        for embedded in self.embed(action).unbind():  # selecting one by one would add up as many gradients of the whole
            hidden.append(self.hidden(zs, embedded))
            zs = F.linear(hidden[-1], dynamics, dynamics_bias)  # no norm, no activation, also where it goes on
            states.append(zs)
        said = F.linear(torch.cat(hidden).float(), outcome, outcome_bias)
        return torch.stack(states), said.unflatten(0, action.shape[:2])


class Actor(Part):
    """pi: zs -> what becomes the action by tanh or a softmax."""

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__()
        h = config.hidden
        self.linear1, self.linear2, self.linear3 = Linear(h, h), Linear(h, h), Head(h, action_size(spec))
        self.discrete, self.tau = spec.actions > 0, config.tau

    def forward(self, zs: Tensor) -> Tensor:
        """[B, A] float32, of zs [B, hidden]."""
        x: Tensor = self.linear3(norm_relu(self.linear2(norm_relu(self.linear1(zs)))))
        return x

    def action(self, pre: Tensor, gumbel: Tensor) -> Tensor:
        """Actions [B, A] in [-1, 1]; where they are discrete probabilities, soft, by Gumbel noise [B, A] (Jang et al. 2017,
        arXiv:1611.01144, Eq. 2). Otherwise `gumbel` is not looked at."""
        return torch.softmax((pre + gumbel) / self.tau, -1) if self.discrete else torch.tanh(pre)

    def realize(self, action: Tensor) -> Tensor:
        """What an environment would take instead of a noisy action [B, A]: cut at +-1, or the largest alone."""
        if self.discrete:
            return F.one_hot(action.argmax(-1), action.shape[-1]).to(action.dtype)
        return action.clamp(-1.0, 1.0)


class Value(Part):
    """One of the twins: zsa -> value, four linear layers."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear1, self.linear2, self.linear3 = (Linear(hidden, hidden) for _ in range(3))
        self.linear4 = Head(hidden, 1)

    def features(self, zsa: Tensor) -> Tensor:
        """The last hidden layer, normalised, before its ELU: [B, hidden], of zsa [B, hidden]."""
        x = self.linear3(norm_elu(self.linear2(norm_elu(self.linear1(zsa)))))
        return F.layer_norm(x, x.shape[-1:], eps=LN_EPS)

    def read(self, features: Tensor) -> Tensor:
        """[B] float32, of features [B, hidden], which are overwritten."""
        value: Tensor = self.linear4(F.elu(features, inplace=True))
        return value[:, 0]

    def forward(self, zsa: Tensor) -> Tensor:
        """[B] float32, of zsa [B, hidden]."""
        return self.read(self.features(zsa))


class Twins(Part):
    """Two value functions."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.first, self.second = Value(config.hidden), Value(config.hidden)

    def features(self, zsa: Tensor) -> tuple[Tensor, Tensor]:
        """Of either, as Value.features."""
        return self.first.features(zsa), self.second.features(zsa)

    def read(self, first: Tensor, second: Tensor) -> Tensor:
        """[2, B] float32, of the features of both, which are overwritten."""
        return torch.stack([self.first.read(first), self.second.read(second)])

    def forward(self, zsa: Tensor) -> Tensor:
        """[2, B] float32, of zsa [B, hidden]."""
        return torch.stack([self.first(zsa), self.second(zsa)])


class Net(Part):
    """All of them; the target networks are another one."""

    def __init__(self, config: Config, spec: Spec, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder, self.value, self.policy = Encoder(config, spec), Twins(config), Actor(config, spec)
        to_dtype(self, dtype)

    def links(self) -> list[Link]:
        """The hidden layers whose units can be recycled: all but the embeddings, which are what others are trained to predict."""
        states = [name for name, _ in self.encoder.state.named_children()]
        links = [link(f"encoder.state.{a}", f"encoder.state.{b}") for a, b in itertools.pairwise(states)]
        links.append(link("encoder.action", "encoder.pair_action"))
        pair = ("encoder.pair_state", "encoder.pair_action")  # g's first layer, whose input lies in two
        links.append(Link("encoder.pair_state", (Into("encoder.pair2"),), incoming=pair))
        links.append(link("encoder.pair2", "encoder.pair3"))
        for head in ("value.first", "value.second"):
            links += [link(f"{head}.linear{i}", f"{head}.linear{i + 1}") for i in (1, 2, 3)]
        return [*links, *(link(f"policy.linear{i}", f"policy.linear{i + 1}") for i in (1, 2))]


def to_dtype(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """`net` with its parameters in `dtype`, but for those of a Head."""
    net.to(dtype)
    for module in net.modules():
        if isinstance(module, Head):
            module.float()
    return net


def action_size(spec: Spec) -> int:
    """A: numbers in an action; discrete ones are one-hot."""
    return spec.actions or spec.action_shape[0]


def as_vectors(action: Tensor, spec: Spec) -> Tensor:
    """Actions as the networks take them, [..., A] float32."""
    return F.one_hot(action, spec.actions).float() if spec.actions else action


def actions_taken(action: Tensor, index: Tensor, spec: Spec, config: Config, streams: int) -> Tensor:
    """Actions as the networks take them, [h, B, A] float32, of [h, B] or [h, B, A] from a replay of that many streams: those of the items
    `index` [B], and of the h - 1 steps after each."""
    vectors = as_vectors(action, spec)
    if not (config.release.first_actions and spec.actions):
        return vectors
    step = index + streams * torch.arange(len(action), device=index.device)[:, None]  # of all streams
    return torch.where((step < config.min_replay)[..., None], action[..., None].float(), vectors)


def symexp_bins(count: int) -> Tensor:
    """[count] float32: symexp of equally spaced numbers, sign(x) (exp |x| - 1) (Hafner et al. 2023, arXiv:2301.04104)."""
    x = torch.linspace(-LARGEST_BIN, LARGEST_BIN, count, dtype=torch.float64)
    return (x.sign() * x.abs().expm1()).float()


def two_hot_cross_entropy(logits: Tensor, x: Tensor, bins: Tensor) -> Tensor:
    """Cross entropy of softmax(logits) to the distribution on the two bins around x whose mean is x: [...], of logits
    [..., bins] and x [...], which is cut at the outermost bins."""
    x = x.clamp(bins[0], bins[-1])
    above = torch.searchsorted(bins, x, right=True).clamp(max=len(bins) - 1)
    low, high = bins[above - 1], bins[above]
    share = (x - low) / (high - low)
    log_p = logits.log_softmax(-1)
    log_low, log_high = (log_p.gather(-1, i[..., None])[..., 0] for i in (above - 1, above))
    return -(log_low + share * (log_high - log_low))


class Unroll(NamedTuple):
    """What the encoder learns from: H steps of B subsequences."""

    obs: Tensor  # [(H + 1) B, stack, *frame]: s_t, ..., s_{t+H}, each [B]
    action: Tensor  # [H, B, A] float32
    reward: Tensor  # [H, B] float32, raw
    done: Tensor  # [H, B] float32: 1 where step terminated
    follows: (
        Tensor  # [H, B] float32: 1 where nothing ended up to and including this step, so that its next state is there
    )


class EncoderLoss(NamedTuple):
    """Of one batch; all but the total without gradient."""

    total: Tensor
    dynamics: Tensor
    reward: Tensor
    done: Tensor


def encoder_loss(
    online: Encoder, target: Encoder, x: Unroll, bins: Tensor, config: Config, *, terminates: Tensor | bool
) -> EncoderLoss:
    """Sum over the H steps of mean squared errors of the next state's embedding (the target encoder's) and of done, and of the
    reward's cross entropy; means over all of the batch, with 0 for what comes after an end. Fujimoto et al. 2025, Eq. 11-14.

    Args:
        terminates: whether any episode of this task ever terminated, 0 or 1; before that, done is not learned.
    """
    size = x.reward.shape[1]
    with torch.no_grad():
        later = target.state(x.obs[size:]).float().unflatten(0, (-1, size))
    states, outcome = online.unroll(online.state(x.obs[:size]), x.action)
    there = torch.cat([torch.ones_like(x.follows[:1]), x.follows[:-1]])  # the step was taken: nothing ended before it
    error = F.mse_loss(states.float(), later, reduction="none").mean(-1)
    dynamics = (x.follows * error).sum() / size
    reward = (there * two_hot_cross_entropy(outcome[..., 1:], x.reward, bins)).sum() / size
    done = (there * (outcome[..., 0] - x.done).square()).sum() / size * terminates
    total = config.dynamics_weight * dynamics + config.reward_weight * reward + config.done_weight * done
    return EncoderLoss(total, dynamics.detach(), reward.detach(), done.detach())


class Transitions(NamedTuple):
    """What value and policy learn from."""

    obs: Tensor  # [2 B, stack, *frame]: s_t, then the bootstrap states, 0 where there is none
    action: Tensor  # [B, A] float32
    n_return: Tensor  # [B] float32, of raw rewards
    discount: Tensor  # [B] float32: gamma^m, or 0 where the episode terminated within the m steps


def n_step_return(reward: Tensor, terminated: Tensor, config: Config) -> Tensor:
    """[B] float32, of rewards and terminations [B, n]: without the reward of a step that terminates, as the released code has it."""
    powers = config.gamma ** torch.arange(config.n, dtype=torch.float64, device=reward.device)
    return ((reward * ~terminated) * powers).sum(1).float()


class Noise(NamedTuple):
    """For one step of value and policy, [B, A] float32 each; Gumbel noise is 0 where actions are continuous."""

    target: Tensor  # normal, scaled and cut: added to the target policy's action
    target_gumbel: Tensor
    gumbel: Tensor


class Scale(NamedTuple):
    """Mean |reward|, scalars: of the replay at the last copy to the targets, and what the target values were learned with."""

    online: Tensor
    target: Tensor


class Embedded(NamedTuple):
    """Of the online encoder, without gradient: states, and the pairs with the actions taken."""

    zs: Tensor  # [B, hidden]
    zsa: Tensor  # [B, hidden]


@torch.no_grad()
def value_target(target: Net, x: Transitions, noise: Noise, scale: Scale) -> Tensor:
    """y = (n-step return + discount * scale' * min of the twins at the target policy's noisy action) / scale, [B]: Fujimoto et al.
    2025, Eq. 17-18."""
    zs = target.encoder.state(x.obs[len(x.action) :])
    action = target.policy.action(target.policy(zs), noise.target_gumbel) + noise.target
    zsa = target.encoder.pair(zs, target.encoder.embed(target.policy.realize(action)))
    least: Tensor = target.value(zsa).amin(0)
    return (x.n_return + x.discount * (scale.target * least)) / scale.online


@torch.no_grad()
def embed(online: Encoder, x: Transitions) -> Embedded:
    """Value and policy learn on embeddings that stand still."""
    zs = online.state(x.obs[: len(x.action)])
    return Embedded(zs, online.pair(zs, online.embed(x.action)))


def value_loss(q: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(mean Huber loss over twins and batch, largest |error| of the twins [B], mean value), of values q [2, B]; the last two without
    gradient."""
    error = q - y
    loss = F.huber_loss(q, y.expand_as(q))
    return loss, error.detach().abs().amax(0), q.detach().mean()


def policy_loss(policy: Actor, encoder: Encoder, value: Twins, zs: Tensor, gumbel: Tensor) -> Tensor:
    """-(mean of the twins at the policy's action) + 1e-5 * mean square of what comes before tanh or softmax. Its gradient is asked
    for with respect to the policy alone; it goes through value and encoder without stopping there."""
    pre = policy(zs)
    zsa = encoder.pair(zs, encoder.embed(policy.action(pre, gumbel)))
    loss: Tensor = PREACTIVATION_WEIGHT * pre.square().mean() - value(zsa).mean()
    return loss
