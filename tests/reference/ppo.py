"""PPO's loss from its definition in float64 numpy: one transition at a time, no autograd. Imports nothing of ours."""

import math

import numpy as np

from reference import gtr


def hidden(net, part, obs, activation):
    """The trunk called `part`: [B, inputs] -> [B, hidden]."""
    x, k = obs, 0
    while f"{part}.layers.{k}.weight" in net:
        x = x @ net[f"{part}.layers.{k}.weight"].T + net[f"{part}.layers.{k}.bias"]
        x = np.tanh(x) if activation == "tanh" else np.maximum(x, 0.0)
        k += 1
    return x


def forward(net, obs, activation):
    """(probabilities or (means, standard deviations), values [B])."""
    of_policy = hidden(net, "trunk", obs, activation)
    of_value = hidden(net, "critic", obs, activation) if "critic.layers.0.weight" in net else of_policy
    out = of_policy @ net["policy.weight"].T + net["policy.bias"]
    value = (of_value @ net["value.weight"].T + net["value.bias"])[:, 0]
    if "log_std" in net:
        return (out, np.tile(np.exp(net["log_std"]), (len(out), 1))), value
    e = np.exp(out - out.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True), value


def log_prob(dist, action):
    if not isinstance(dist, tuple):
        return np.log(dist[np.arange(len(action)), action])
    mean, std = dist
    density = np.exp(-0.5 * ((action - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    return np.log(density).sum(1)


def entropy(dist):
    if not isinstance(dist, tuple):
        return -(dist * np.log(dist)).sum(1)
    return (0.5 * np.log(2 * math.pi * math.e * dist[1] ** 2)).sum(1)


def loss(net, batch, config):
    """Of a minibatch: obs, action, log_prob, value, advantage, target; anchors: a list of distributions, newest first."""
    dist, value = forward(net, batch["obs"], config.activation)
    now = log_prob(dist, batch["action"])
    advantage = batch["advantage"]
    advantage = (advantage - advantage.mean()) / (advantage.std(ddof=1) + 1e-8)
    surrogate = squared = 0.0
    for b, a in enumerate(advantage):
        log_ratio = now[b] - batch["log_prob"][b]
        if config.surrogate == "clip":
            ratio = math.exp(log_ratio)
            surrogate += min(ratio * a, min(max(ratio, 1 - config.clip), 1 + config.clip) * a)
        else:
            surrogate += math.exp(min(max(log_ratio, -2.0), 2.0)) * a
        error = (value[b] - batch["target"][b]) ** 2
        if config.clip_value:
            near = batch["value"][b] + min(max(value[b] - batch["value"][b], -config.clip), config.clip)
            error = max(error, (near - batch["target"][b]) ** 2)
        squared += 0.5 * error
    size = len(advantage)
    total = -surrogate / size + config.value_weight * squared / size - config.entropy_weight * entropy(dist).mean()
    trust = config.trust
    if trust.weight:
        distance = np.array([distances(anchor, dist, batch["action"], trust.distance) for anchor in batch["anchors"]])
        psi = gtr.penalty(distance, trust.form, trust.variance, trust.decay, trust.widen)
        total += trust.weight * psi.mean()
    return total


def distances(anchor, dist, action, kind):
    """From one anchor, [B]."""
    if kind == "sample":
        return 0.5 * (log_prob(dist, action) - log_prob(anchor, action)) ** 2
    if isinstance(dist, tuple):
        return np.array([gtr.gaussian_kl(*row) for row in zip(*anchor, *dist, strict=True)])
    return np.array([gtr.categorical_kl(p, q) for p, q in zip(anchor, dist, strict=True)])
