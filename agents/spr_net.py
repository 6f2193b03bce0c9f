"""Networks and losses of the SPR family. Everything here is a function of (modules, batch, noise): nothing draws or waits."""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F  # its name everywhere
from torch import Tensor, nn

from rlplatform.agents.spr_config import Config
from rlplatform.device_streams import DeviceStream
from rlplatform.nets import Linear, Noise, NoisyLinear, Transition, encoder
from rlplatform.streams import Stream
from rlplatform.techniques.redo import Into, Link, link
from rlplatform.types import Spec

RENORMALIZE_EPS = 1e-5
COSINE_EPS = 1e-8  # below it a vector counts as having no direction


class NetNoise(NamedTuple):
    """One draw for every noisy layer; None for a layer that is not noisy."""

    projection: Noise | None
    head: Noise | None


def flattened(noise: NetNoise | None) -> tuple[Tensor, ...]:
    """The tensors of a noise: four, or none where no layer has any."""
    if noise is None or noise.projection is None or noise.head is None:
        return ()
    return (*noise.projection, *noise.head)


def unflattened(noise: tuple[Tensor, ...]) -> NetNoise | None:
    """What `flattened` was made of."""
    return NetNoise(Noise(*noise[:2]), Noise(*noise[2:])) if noise else None


class Net(nn.Module):
    """Encoder, one hidden layer, dueling head: the return distribution of every action. SPR shares the hidden layer as its
    projection, and adds the latent dynamics and a predictor."""

    def __init__(self, config: Config, spec: Spec, dtype: torch.dtype, *, acting: bool = False) -> None:
        """`acting`: without the parts that only learning needs."""
        super().__init__()
        self.encoder = encoder(config.encoder, spec, config.width)
        layer = partial(NoisyLinear, sigma0=config.sigma0) if config.sigma0 else Linear
        self.projection = layer(self.encoder.features, config.hidden)
        # Value and advantages in one layer: they see the same input and, as in Dopamine, the same input noise.
        self.head = layer(config.hidden, (1 + spec.actions) * config.atoms)
        if config.spr_steps and not acting:
            if self.encoder.map_shape is None:
                raise ValueError("spr_steps > 0 needs an encoder with a map of features")
            self.transition = Transition(self.encoder.map_shape, spec.actions)
            self.predictor = Linear(config.hidden, config.hidden)
        self.atoms, self.renormalize = config.atoms, config.renormalize
        self.to(dtype)

    def init_(self, stream: Stream) -> None:
        for part in self.children():
            part.init_(stream)  # type: ignore[operator]  # nn.Module hides what its attributes are

    def links(self) -> list[Link]:
        """The hidden layers whose units can be recycled."""
        encoder, links = (
            self.encoder,
            [link(f"encoder.{layer}", f"encoder.{into}") for layer, into in self.encoder.chain],
        )
        ahead = hasattr(self, "transition")
        if encoder.last is not None and encoder.map_shape is not None:
            into = (Into("projection"), *([Into("transition.conv1", encoder.map_shape[0])] if ahead else []))
            links.append(Link(f"encoder.{encoder.last}".rstrip("."), into))
        return [*links, link("projection", "head", *(["predictor"] if ahead else []))]

    def noise(self, stream: Stream | DeviceStream) -> NetNoise:
        return NetNoise(self.projection.noise(stream), self.head.noise(stream))

    def latent(self, obs: Tensor) -> Tensor:
        """[B, stack, *frame] -> [B, features]."""
        z: Tensor = self.encoder(obs)
        return renormalize(z) if self.renormalize else z

    def logits(self, latent: Tensor, noise: NetNoise | None) -> Tensor:
        """[B, actions, atoms] float32, of latents [B, features]; with 1 atom, the mean returns themselves."""
        return self.read(self.hidden(latent, noise), noise)

    def hidden(self, latent: Tensor, noise: NetNoise | None) -> Tensor:
        """The hidden layer before its ReLU, [B, hidden], of latents [B, features]."""
        x: Tensor = self.projection(latent, None if noise is None else noise.projection)
        return x

    def read(self, hidden: Tensor, noise: NetNoise | None) -> Tensor:
        """Logits as of `logits`, of what `hidden` gives."""
        head = None if noise is None else noise.head
        out = self.head(torch.relu(hidden), head).float().unflatten(1, (-1, self.atoms))
        value, advantage = out[:, :1], out[:, 1:]
        result: Tensor = (
            value + advantage - advantage.mean(1, keepdim=True)
        )  # Wang et al. 2016 (arXiv:1511.06581), Eq. 9
        return result

    def forward(self, obs: Tensor, noise: NetNoise | None) -> Tensor:
        """Logits of observations [B, stack, *frame]."""
        return self.logits(self.latent(obs), noise)

    def project(self, latent: Tensor) -> Tensor:
        """SPR's projection: the hidden layer before its ReLU, without noise. [B, hidden] float32."""
        y: Tensor = self.projection(latent, None)
        return y.float()

    def predict(self, latent: Tensor, action: Tensor) -> Tensor:
        """Predictions of the projections 1, ..., K steps ahead, [K, B, hidden] float32, from latents [B, features] and the
        actions taken [K, B]."""
        latents = []
        for a in action:
            latent = self.transition(latent, a)
            latent = renormalize(latent) if self.renormalize else latent
            latents.append(latent)
        y: Tensor = self.predictor(self.projection(torch.cat(latents), None)).float().unflatten(0, action.shape)
        return y


def renormalize(latent: Tensor) -> Tensor:
    """Each sample's features to [0, 1]: (z - min) / (max - min + 1e-5). [B, features]."""
    low, high = latent.amin(1, keepdim=True), latent.amax(1, keepdim=True)  # aminmax is 80 times slower on the CPU
    return (latent - low) / (high - low + RENORMALIZE_EPS)


def support_of(config: Config) -> Tensor:
    """The returns at which a distribution has mass, [atoms]; with 1 atom [1], so that logits are mean returns."""
    return torch.ones(1) if config.atoms == 1 else torch.linspace(-config.v_max, config.v_max, config.atoms)


def q_values(logits: Tensor, support: Tensor) -> Tensor:
    """Mean returns [B, actions] of the distributions with these logits [B, actions, atoms]."""
    q: Tensor = logits[..., 0] if len(support) == 1 else logits.softmax(-1) @ support
    return q


def of_actions(logits: Tensor, action: Tensor) -> Tensor:
    """[B, atoms]: the logits [B, actions, atoms] of one action [B] each."""
    return logits.gather(1, action[:, None, None].expand(-1, 1, logits.shape[2]))[:, 0]


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


def double_dqn_target(online: Tensor, target: Tensor, reward: Tensor, discount: Tensor, support: Tensor) -> Tensor:
    """Double DQN (van Hasselt et al. 2016) on distributions: the online network's logits [B, actions, atoms] at the bootstrap
    state choose, the target network's say what the choice is worth. [B, atoms]: probabilities, or with 1 atom the value."""
    chosen = of_actions(target, q_values(online, support).argmax(1))
    if len(support) == 1:
        return reward[:, None] + discount[:, None] * chosen
    return categorical_projection(chosen.softmax(-1), reward, discount, support)


def td_loss(chosen: Tensor, y: Tensor) -> Tensor:
    """[B]: the cross entropy between the target y and softmax(chosen), [B, atoms] both; with 1 atom the Huber loss."""
    if y.shape[1] == 1:
        return F.huber_loss(chosen[:, 0], y[:, 0], reduction="none")
    return -(y * chosen.log_softmax(-1)).sum(-1)


def spr_loss(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over K of |p / |p| - y / |y||^2 = 2 - 2 cos(p, y), each times its mask: Schwarzer et al. 2021 (arXiv:2007.05929), Eq. 4
    up to a constant. Masked terms stay in the mean. [B], of [K, B, hidden], [K, B, hidden] and [K, B]."""
    gap = F.normalize(prediction, dim=-1, eps=COSINE_EPS) - F.normalize(target, dim=-1, eps=COSINE_EPS)
    return (mask * gap.square().sum(-1)).mean(0)


def importance_weights(priority: Tensor) -> Tensor:
    """(1 / sqrt(p)) / max: beta = 0.5 throughout; the number of items and the sum of priorities cancel. [B]."""
    return (priority.min() / priority).sqrt()


class Inputs(NamedTuple):
    """A batch as the networks take it. M = (K + 2) B observations: s_t, ..., s_{t+K}, and the bootstrap state, each [B]."""

    obs: Tensor  # [M, stack, *frame]
    action: Tensor  # [max(K, 1), B] int64
    n_return: Tensor  # [B] float32
    discount: Tensor  # [B] float32
    mask: Tensor  # [K, B] float32: 1 where s_{t+k} belongs to the episode of s_t
    weight: Tensor  # [B] float32: importance weights


class Losses(NamedTuple):
    """Of one batch."""

    total: Tensor  # scalar
    td: Tensor  # [B], without gradient
    spr: Tensor  # scalar, without gradient
    q: Tensor  # scalar, without gradient: mean return of the actions taken
    hidden: Tensor  # [B, hidden]: the hidden layer of s_t before its ReLU


def losses(
    online: Net, target: Net, x: Inputs, noise: NetNoise, next_noise: NetNoise, support: Tensor, spr_weight: float
) -> Losses:
    """mean of weight * (TD loss + spr_weight * SPR loss). One noise for both networks at the bootstrap state, as in Dopamine."""
    size, k = len(x.weight), len(x.mask)
    latent = online.latent(x.obs[:size])
    hidden = online.hidden(latent, noise)
    logits = online.read(hidden, noise)
    with torch.no_grad():
        later = target.latent(x.obs[size:])  # s_{t+1}, ..., s_{t+K} and the bootstrap state: one pass
        y = double_dqn_target(
            online(x.obs[-size:], next_noise), target.logits(later[-size:], next_noise), x.n_return, x.discount, support
        )
    chosen = of_actions(logits, x.action[0])
    td = td_loss(chosen, y)
    spr = torch.zeros_like(td)
    if k:
        with torch.no_grad():
            ahead = target.project(later[: k * size]).unflatten(0, (k, size))
        spr = spr_loss(online.predict(latent, x.action), ahead, x.mask)
    total = (x.weight * (td + spr_weight * spr)).mean()
    q = q_values(chosen.detach(), support).mean()
    return Losses(total, td.detach(), spr.detach().mean(), q, hidden)
