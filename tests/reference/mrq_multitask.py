"""Multitask MR.Q's losses in float64 numpy, from the definitions. Parameters are a dict of arrays by name."""

import numpy as np


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def linear(p, name, x):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def norm(p, name, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * p[f"{name}.weight"] + p[f"{name}.bias"]


def layers(p, name, x):
    """Linear, norm and Mish, x tanh(log(1 + e^x)), as often as there are parameters for it."""
    i = 0
    while f"{name}.layer{i}.linear.weight" in p:
        x = norm(p, f"{name}.layer{i}.norm", linear(p, f"{name}.layer{i}.linear", x))
        x, i = x * np.tanh(np.log1p(np.exp(x))), i + 1
    return x


def state(p, obs, task):
    x = layers(p, "encoder.state.layers", np.concatenate([obs, task], 1))
    x = norm(p, "encoder.state.norm", linear(p, "encoder.state.last", x))
    return softmax(x.reshape(len(x), -1, 8)).reshape(len(x), -1)


def pair(p, zs, action):
    za = linear(p, "encoder.action", action)
    za = np.where(za > 0, za, np.expm1(np.minimum(za, 0.0)))
    return linear(p, "encoder.last", layers(p, "encoder.hidden", np.concatenate([zs, za], 1)))


def actor(p, zs, task):
    return linear(p, "policy.last", layers(p, "policy.hidden", np.concatenate([zs, task], 1)))


def critic(p, i, zsa):
    return linear(p, f"value.critic{i}.last", layers(p, f"value.critic{i}.hidden", zsa))


def symlog(x):
    return np.sign(x) * np.log(1.0 + np.abs(x))


def expectation(logits):
    x = softmax(logits) @ np.linspace(-10.0, 10.0, logits.shape[-1])
    return np.sign(x) * (np.exp(np.abs(x)) - 1.0)


def cross_entropy(logits, x):
    """To the two neighbours of symlog(x) among the bins, weighted so that their mean is symlog(x)."""
    bins = np.linspace(-10.0, 10.0, logits.shape[-1])
    out = np.empty(len(x))
    for i, y in enumerate(np.clip(symlog(x), -10.0, 10.0)):
        low = min(int(np.flatnonzero(bins <= y)[-1]), len(bins) - 2)
        share = (y - bins[low]) / (bins[low + 1] - bins[low])
        log_p = np.log(softmax(logits[i]))
        out[i] = -((1.0 - share) * log_p[low] + share * log_p[low + 1])
    return out


def encoder_loss(p, target, states, tasks, action, reward, follows):
    """(dynamics, reward) of states [H + 1, B, *], tasks alike, action [H, B, A], reward and follows [H, B]."""
    zs, dynamics, paid = state(p, states[0], tasks[0]), 0.0, 0.0
    for t in range(len(action)):
        said = linear(p, "encoder.model", pair(p, zs, action[t]))
        zs, logits = said[:, : zs.shape[1]], said[:, zs.shape[1] :]
        there = follows[t - 1] if t else np.ones_like(reward[0])
        dynamics += (follows[t] * ((zs - state(target, states[t + 1], tasks[t + 1])) ** 2).mean(1)).mean()
        paid += (there * cross_entropy(logits, reward[t])).mean()
    return dynamics, paid


def value_target(target, n_return, discount, obs, task, mask, noise, judges):
    zs = state(target, obs, task)
    action = np.clip(np.tanh(actor(target, zs, task)) + noise, -1.0, 1.0) * mask
    zsa = pair(target, zs, action)
    return n_return + discount * np.min([expectation(critic(target, i, zsa)) for i in judges], 0)


def value_loss(p, obs, task, action, y, critics):
    zsa = pair(p, state(p, obs, task), action)
    return np.mean([cross_entropy(critic(p, i, zsa), y) for i in range(critics)])


def policy_loss(p, obs, task, mask, advisers, q_range):
    zs = state(p, obs, task)
    pre = actor(p, zs, task)
    zsa = pair(p, zs, np.tanh(pre) * mask)
    q = np.mean([expectation(critic(p, i, zsa)) for i in advisers], 0)
    return 1e-5 * (pre**2).mean() - (q / q_range).mean()
