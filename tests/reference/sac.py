"""SAC from its definition, in float64 numpy: loops, no autograd. Imports nothing of ours. Networks are mappings name -> array."""

import math

import numpy as np


def linear(net, name, x):
    return x @ net[f"{name}.weight"].T + net[f"{name}.bias"]


def relu(x):
    return np.maximum(x, 0.0)


def distribution(net, obs):
    """Mean and standard deviation before tanh; the log of the latter from -10 to 2."""
    x = relu(linear(net, "linear2", relu(linear(net, "linear1", obs))))
    return linear(net, "mean", x), np.exp(-10.0 + 12.0 * 0.5 * (1.0 + np.tanh(linear(net, "log_std", x))))


def action_and_log_density(mean, std, normal):
    """The density of tanh(u) is that of u over the slope of tanh, one dimension at a time."""
    u = mean + std * normal
    log_density = np.zeros(len(u))
    for b in range(len(u)):
        for a in range(u.shape[1]):
            density = math.exp(-0.5 * normal[b, a] ** 2) / (math.sqrt(2.0 * math.pi) * std[b, a])
            log_density[b] += math.log(density / (1.0 - math.tanh(u[b, a]) ** 2))
    return np.tanh(u), log_density


def values(net, obs, action):
    """Both critics, [2, B]."""
    out = []
    for twin in ("first", "second"):
        x = np.concatenate([obs, action], 1)
        x = relu(linear(net, f"{twin}.linear2", relu(linear(net, f"{twin}.linear1", x))))
        out.append(linear(net, f"{twin}.linear3", x)[:, 0])
    return np.array(out)


def target(actor, target_critic, temperature, batch, normal):
    action, log_density = action_and_log_density(*distribution(actor, batch["next_obs"]), normal)
    q = values(target_critic, batch["next_obs"], action)
    soft = [min(q[:, b]) - temperature * log_density[b] for b in range(len(log_density))]
    return batch["reward"] + batch["discount"] * np.array(soft)


def critic_loss(critic, batch, y):
    q = values(critic, batch["obs"], batch["action"])
    return ((q[0] - y) ** 2).mean() + ((q[1] - y) ** 2).mean()


def actor_loss(actor, critic, temperature, batch, normal):
    """(loss, mean entropy)"""
    action, log_density = action_and_log_density(*distribution(actor, batch["obs"]), normal)
    q = values(critic, batch["obs"], action).min(0)
    return (temperature * log_density - q).mean(), -log_density.mean()


def temperature_loss(log_temperature, entropy, aim):
    return math.exp(log_temperature) * (entropy - aim)
