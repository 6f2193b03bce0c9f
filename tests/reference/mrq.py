"""MR.Q's networks and losses from their definitions, in float64 numpy: loops, no autograd. Imports nothing of ours.

Networks are mappings name -> array. What our code keeps as two matrices is put together first: g's first layer sees the states'
embedding beside the action's, and m is one matrix whose output is cut into done, the next embedding and the reward's logits.
"""

import math

import numpy as np


def part(net, prefix):
    return {name.removeprefix(prefix): value for name, value in net.items() if name.startswith(prefix)}


def linear(net, name, x):
    return x @ net[f"{name}.weight"].T + net[f"{name}.bias"]


def norm(x):
    """Ba et al. 2016, without gain and bias; the variance is that of the row itself."""
    middle = x.mean(-1, keepdims=True)
    return (x - middle) / np.sqrt(((x - middle) ** 2).mean(-1, keepdims=True) + 1e-5)


def elu(x):
    return np.where(x > 0, x, np.exp(np.minimum(x, 0.0)) - 1.0)


def relu(x):
    return np.maximum(x, 0.0)


def vector_state(net, x):
    """Numbers [B, inputs]: three layers, each normalised, then ELU."""
    for name in ("linear1", "linear2", "linear3"):
        x = elu(norm(linear(net, name, x)))
    return x


def valid_conv(x, weight, bias, stride):
    """No padding: [B, C, H, W]."""
    kernel = weight.shape[2]
    rows, columns = ((size - kernel) // stride + 1 for size in x.shape[2:])
    out = np.zeros((len(x), len(weight), rows, columns))
    for r in range(rows):
        for c in range(columns):
            window = x[:, :, r * stride : r * stride + kernel, c * stride : c * stride + kernel]
            out[:, :, r, c] = np.einsum("bihw,oihw->bo", window, weight) + bias
    return out


def pixel_state(net, images):
    """Images [B, C, H, W] from 0 to 255; the map is written out in the order h, w, c."""
    x = images / 255.0 - 0.5
    for name, stride in (("conv1", 2), ("conv2", 2), ("conv3", 2), ("conv4", 1)):
        x = elu(valid_conv(x, net[f"{name}.weight"], net[f"{name}.bias"], stride))
    x = np.moveaxis(x, 1, 3).reshape(len(x), -1)
    return elu(norm(linear(net, "linear", x)))


def pair(net, zs, action):
    """zsa = g(zs, a): the action embedded by one layer with ELU, then three layers, the last one bare."""
    za = elu(linear(net, "action", action))
    first = np.concatenate([net["pair_state.weight"], net["pair_action.weight"]], 1)
    x = np.concatenate([zs, za], 1) @ first.T + net["pair_action.bias"]
    x = elu(norm(x))
    x = elu(norm(linear(net, "pair2", x)))
    return linear(net, "pair3", x)


def model(net, zsa):
    """m: (done [B], next zs [B, Z], reward logits [B, bins]) from one linear map."""
    matrix = np.concatenate([net["outcome.weight"][:1], net["dynamics.weight"], net["outcome.weight"][1:]])
    bias = np.concatenate([net["outcome.bias"][:1], net["dynamics.bias"], net["outcome.bias"][1:]])
    y = zsa @ matrix.T + bias
    size = len(net["dynamics.bias"])
    return y[:, 0], y[:, 1 : 1 + size], y[:, 1 + size :]


def preactivation(net, zs):
    x = relu(norm(linear(net, "linear1", zs)))
    x = relu(norm(linear(net, "linear2", x)))
    return linear(net, "linear3", x)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def value(net, zsa):
    """Both twins, [2, B]."""
    out = []
    for twin in ("first", "second"):
        x = zsa
        for name in ("linear1", "linear2", "linear3"):
            x = elu(norm(linear(net, f"{twin}.{name}", x)))
        out.append(linear(net, f"{twin}.linear4", x)[:, 0])
    return np.array(out)


def bins(count):
    return np.array([math.copysign(math.exp(abs(x)) - 1.0, x) for x in np.linspace(-10.0, 10.0, count)])


def two_hot(x, edges):
    """The distribution on the two bins around x whose mean is x, in the rewards' own units."""
    x = min(max(x, edges[0]), edges[-1])
    out = np.zeros(len(edges))
    for k in range(len(edges) - 1):
        low, high = edges[k], edges[k + 1]
        if low <= x < high or (x == high and k == len(edges) - 2):
            out[k], out[k + 1] = (high - x) / (high - low), (x - low) / (high - low)
    return out


def encoder_loss(net, later, batch, encode, edges, weights, terminates=True):
    """(total, dynamics, reward, done). `later` [H, B, Z]: the target encoder's states after each step. batch: obs0 [B, ...],
    action [H, B, A], reward [H, B], terminated [H, B], and ended [H, B]: terminated or cut by a time limit at that step."""
    steps, size = batch["reward"].shape
    zs = encode(net, batch["obs0"])
    alive = np.ones(size)  # nothing ended before this step
    dynamics = reward = done = 0.0
    for i in range(steps):
        said_done, zs, logits = model(net, pair(net, zs, batch["action"][i]))
        for b in range(size):
            goes_on = alive[b] * (1.0 - batch["ended"][i, b])  # and so there is a next state to predict
            dynamics += goes_on * ((zs[b] - later[i, b]) ** 2).mean() / size
            entropy = -(two_hot(batch["reward"][i, b], edges) * np.log(softmax(logits[b]))).sum()
            reward += alive[b] * entropy / size
            if terminates:
                done += alive[b] * (said_done[b] - batch["terminated"][i, b]) ** 2 / size
            alive[b] = goes_on
    return weights[0] * dynamics + weights[1] * reward + weights[2] * done, dynamics, reward, done


def act(pre, gumbel, tau, discrete):
    return softmax((pre + gumbel) / tau) if discrete else np.tanh(pre)


def realign(action, discrete):
    if not discrete:
        return np.clip(action, -1.0, 1.0)
    return np.eye(action.shape[1])[action.argmax(1)]


def value_target(target, batch, noise, gumbel, tau, discrete, scale, target_scale, encode):
    """[B]: batch holds next_obs, n_return and discount; noise [B, A] is cut already."""
    encoder, policy = part(target, "encoder."), part(target, "policy.")
    zs = encode(encoder, batch["next_obs"])
    action = realign(act(preactivation(policy, zs), gumbel, tau, discrete) + noise, discrete)
    q = value(part(target, "value."), pair(encoder, zs, action))
    y = [
        r + d * target_scale * min(q[:, b])
        for b, (r, d) in enumerate(zip(batch["n_return"], batch["discount"], strict=True))
    ]
    return np.array(y) / scale


def huber(x):
    return 0.5 * x * x if abs(x) <= 1.0 else abs(x) - 0.5


def value_loss(net, zsa, y):
    """Mean over twins and batch; and the larger |error| of the two, [B]."""
    q = value(net, zsa)
    errors = q - y
    return np.mean([huber(e) for e in errors.flatten()]), np.abs(errors).max(0)


def policy_loss(net, encoder, critic, zs, gumbel, tau, discrete, weight=1e-5):
    pre = preactivation(net, zs)
    q = value(critic, pair(encoder, zs, act(pre, gumbel, tau, discrete)))
    return -q.mean() + weight * (pre**2).mean()


def clipped(grad, largest):
    """All gradients times largest / norm where the norm of all together is larger."""
    length = math.sqrt(sum((g**2).sum() for g in grad.values()))
    return {name: g * min(1.0, largest / (length + 1e-6)) for name, g in grad.items()}
