"""PQN from its definition, in float64 numpy: loops, no autograd. Imports nothing of ours. Networks are mappings name -> array."""

import math

import numpy as np


def layer_norm(x, weight, bias):
    """Ba et al. 2016 over the last axis; the variance is that of all numbers, not an estimate."""
    out = np.zeros_like(x)
    for k in np.ndindex(x.shape[:-1]):
        row = x[k]
        out[k] = (row - row.mean()) / math.sqrt(((row - row.mean()) ** 2).mean() + 1e-6) * weight + bias
    return out


def convolution(x, weight, bias, stride):
    """Without padding: [B, height, width, inputs] -> [B, height', width', outputs]; weight [outputs, inputs, k, k]."""
    size = weight.shape[2]
    height, width = ((n - size) // stride + 1 for n in x.shape[1:3])
    out = np.zeros((len(x), height, width, len(weight)))
    for i in range(height):
        for j in range(width):
            patch = x[:, stride * i : stride * i + size, stride * j : stride * j + size]
            out[:, i, j] = np.einsum("bhwc,ochw->bo", patch, weight) + bias
    return out


def features(net, x, strides=()):
    """The last hidden layer before its ReLU. x: [B, inputs], or [B, height, width, channels] with convolutions."""
    for k, stride in enumerate(strides):
        name = f"convs.{k}"
        x = convolution(x, net[f"{name}.weight"], net[f"{name}.bias"], stride)
        x = np.maximum(layer_norm(x, net[f"{name}.norm.weight"], net[f"{name}.norm.bias"]), 0.0)
    x = x.reshape(len(x), -1)
    layers = sum(name.endswith("linear.weight") for name in net)
    for k in range(layers):
        name = f"hidden.{k}"
        x = np.maximum(x, 0.0) if k else x
        x = x @ net[f"{name}.linear.weight"].T + net[f"{name}.linear.bias"]
        x = layer_norm(x, net[f"{name}.norm.weight"], net[f"{name}.norm.bias"])
    return x


def values(net, x, strides=()):
    """Q of all actions, [B, actions]."""
    return np.maximum(features(net, x, strides), 0.0) @ net["head.weight"].T + net["head.bias"]


def q_lambda(value, reward, terminated, truncated, final_value, gamma, lambda_):
    """Returns of one environment's T steps as a mixture of n-step returns: (1 - lambda) sum_n lambda^(n-1) G^(n), where what is
    left of the weights goes to the longest return that there is.

    Args:
        value: T + 1 values of the states, the last of what follows step T - 1. final_value: by t, of the true state after a step
            that was truncated.
    """
    T = len(reward)
    out = []
    for t in range(T):
        n_step, total, discount = [], 0.0, 1.0
        for k in range(t, T):
            total += discount * reward[k]
            discount *= gamma
            if terminated[k]:
                n_step.append(total)
            elif truncated[k]:
                n_step.append(total + discount * final_value[k])
            else:
                n_step.append(total + discount * value[k + 1])
            if terminated[k] or truncated[k]:
                break
        n = len(n_step)
        mixed = sum((1.0 - lambda_) * lambda_**i * n_step[i] for i in range(n - 1))
        out.append(mixed + lambda_ ** (n - 1) * n_step[-1])
    return np.array(out)


def loss(net, x, action, target):
    """Half the mean squared error."""
    q = values(net, x)
    return 0.5 * np.mean([(q[b, a] - target[b]) ** 2 for b, a in enumerate(action)])


def clipped(grad, largest):
    """All gradients, scaled so that their norm is at most `largest`."""
    norm = math.sqrt(sum((g**2).sum() for g in grad.values()))
    return {name: g * min(1.0, largest / (norm + 1e-6)) for name, g in grad.items()}


def radam(value, grad, m, v, t, lr, eps=1e-8):
    """Liu et al. 2020 (arXiv:1908.03265), Algorithm 2, beta = (0.9, 0.999). Returns (value, m, v) after step t = 1, 2, ..."""
    m = 0.9 * m + 0.1 * grad
    v = 0.999 * v + 0.001 * grad**2
    m_hat, longest = m / (1 - 0.9**t), 2 / (1 - 0.999) - 1
    length = longest - 2 * t * 0.999**t / (1 - 0.999**t)
    if length <= 5:
        return value - lr * m_hat, m, v
    rectified = math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
    return value - lr * rectified * m_hat * math.sqrt(1 - 0.999**t) / (np.sqrt(v) + eps), m, v
