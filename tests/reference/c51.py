"""DER's update from its definition, in float64 numpy: loops, no autograd. Imports nothing of ours."""

import math

import numpy as np


def projection(prob, reward, discount, support):
    """Bellemare et al. 2017, Algorithm 1, one distribution and one atom at a time."""
    low, high = support[0], support[-1]
    gap = (high - low) / (len(support) - 1)
    out = np.zeros((len(prob), len(support)))
    for b in range(len(prob)):
        for j, z in enumerate(support):
            place = (min(max(reward[b] + discount[b] * z, low), high) - low) / gap
            place = min(max(place, 0.0), len(support) - 1.0)  # float64 rounding at the upper edge
            lower, upper = math.floor(place), math.ceil(place)
            if lower == upper:
                out[b, lower] += prob[b, j]
            else:
                out[b, lower] += prob[b, j] * (upper - place)
                out[b, upper] += prob[b, j] * (place - lower)
    return out


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def noisy_linear(x, mu, sigma, bias_mu, bias_sigma, normals):
    """Fortunato et al. 2018, Eq. 9-11: the noisy weights written out. `normals` = (of the inputs, of the outputs) or None."""
    e_in, e_out = (
        (np.sign(n) * np.sqrt(np.abs(n)) for n in normals) if normals else (np.zeros(mu.shape[1]), np.zeros(len(mu)))
    )
    y = np.zeros((len(x), len(mu)))
    for o in range(len(mu)):
        weight = np.array([mu[o, i] + sigma[o, i] * e_in[i] * e_out[o] for i in range(mu.shape[1])])
        y[:, o] = x @ weight + bias_mu[o] + bias_sigma[o] * e_out[o]
    return y


def logits(net, x, normals, atoms):
    """net: name -> array, of a network without an encoder; normals: of the two noisy layers. [B, actions, atoms]."""
    layer = {
        part: [net[f"{part}.{name}"] for name in ("mu", "sigma", "bias_mu", "bias_sigma")]
        for part in ("projection", "head")
    }
    hidden = np.maximum(noisy_linear(x, *layer["projection"], normals[0]), 0.0)
    out = noisy_linear(hidden, *layer["head"], normals[1]).reshape(len(x), -1, atoms)
    result = np.zeros((len(x), out.shape[1] - 1, atoms))
    for a in range(result.shape[1]):
        result[:, a] = out[:, 0] + out[:, 1 + a] - out[:, 1:].mean(1)
    return result


def double_dqn_target(online, target, batch, normals, support):
    """The online network chooses, the target network values. Returns ([B, atoms], chosen actions [B])."""
    atoms = len(support)
    best = (softmax(logits(online, batch["next_obs"], normals, atoms)) @ support).argmax(1)
    prob = softmax(logits(target, batch["next_obs"], normals, atoms))
    chosen = np.array([prob[b, a] for b, a in enumerate(best)])
    return projection(chosen, batch["n_return"], batch["discount"], support), best


def cross_entropy(net, batch, y, normals):
    """- sum_j y_j log p_j of the action taken, [B]."""
    prob = softmax(logits(net, batch["obs"], normals, y.shape[1]))
    return np.array([-(y[b] * np.log(prob[b, a])).sum() for b, a in enumerate(batch["action"])])


def importance_weights(priority):
    w = np.array([1.0 / math.sqrt(p) for p in priority])
    return w / w.max()


def gradient(f, net, step=1e-6):
    """Central differences of f(net) in every number of net."""
    out = {name: np.zeros_like(value) for name, value in net.items()}
    for name, value in net.items():
        for k in np.ndindex(value.shape):
            kept = value[k]
            value[k] = kept + step
            above = f(net)
            value[k] = kept - step
            out[name][k] = (above - f(net)) / (2 * step)
            value[k] = kept
    return out


def adam(value, grad, m, v, t, lr, eps):
    """Kingma and Ba 2015, Algorithm 1, beta = (0.9, 0.999). Returns the new (value, m, v) after step t = 1, 2, ..."""
    m = 0.9 * m + 0.1 * grad
    v = 0.999 * v + 0.001 * grad**2
    return value - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps), m, v
