"""The SPR family's networks and losses from their definitions, in float64 numpy: loops, no autograd. Imports nothing of ours.

Networks are mappings name -> array. A map of features is [B, C, H, W] here, and is written out in the order h, w, c.
"""

import math

import numpy as np

from reference import c51
from reference.conv import same_conv


def augmented(images, shift, intensity):
    """uint8 [M, C, H, W]: padded by repetition, cropped at the shift, times the intensity, in [0, 1]."""
    height, width = images.shape[2:]
    out = np.zeros(images.shape)
    for m, (down, right) in enumerate(shift):
        pad = 4
        padded = np.pad(images[m].astype(np.float64), ((0, 0), (pad, pad), (pad, pad)), mode="edge")
        out[m] = padded[:, pad + down : pad + down + height, pad + right : pad + right + width] * intensity[m] / 255.0
    return out


def max_pool(x, kernel, stride):
    """TensorFlow's "SAME": ceil(size / stride) outputs, what lies outside never wins."""
    batch, channels, height, width = x.shape
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    top = max((rows - 1) * stride + kernel - height, 0) // 2
    left = max((columns - 1) * stride + kernel - width, 0) // 2
    out = np.full((batch, channels, rows, columns), -np.inf)
    for r in range(rows):
        for c in range(columns):
            y, z = r * stride - top, c * stride - left
            window = x[:, :, max(y, 0) : max(y + kernel, 0), max(z, 0) : max(z + kernel, 0)]
            out[:, :, r, c] = window.max((2, 3))
    return out


def relu(x):
    return np.maximum(x, 0.0)


def impala(net, x):
    """Espeholt et al. 2018, Fig. 3, of images in [0, 1]: [B, features in the order h, w, c]."""

    def conv(name, x):
        return same_conv(x, net[f"{name}.weight"], net[f"{name}.bias"], 1)

    for stage in ("stage1", "stage2", "stage3"):
        x = max_pool(conv(f"{stage}.conv", x), 3, 2)
        for block in ("block1", "block2"):
            x = x + conv(f"{stage}.{block}.conv2", relu(conv(f"{stage}.{block}.conv1", relu(x))))
    return written_out(relu(x))


def written_out(x):
    return np.moveaxis(x, 1, 3).reshape(len(x), -1)


def renormalized(z):
    out = np.zeros(z.shape)
    for b, row in enumerate(z):
        out[b] = (row - row.min()) / (row.max() - row.min() + 1e-5)
    return out


def transition(net, latent, action, map_shape, actions):
    """Two convolutions of the latent map beside one plane an action, 1 in that of the action taken."""
    channels, height, width = map_shape
    x = np.moveaxis(latent.reshape(-1, height, width, channels), 3, 1)
    planes = np.zeros((len(x), actions, height, width))
    for b, a in enumerate(action):
        planes[b, a] = 1.0
    x = np.concatenate([x, planes], 1)
    for name in ("conv1", "conv2"):
        x = relu(same_conv(x, net[f"transition.{name}.weight"], net[f"transition.{name}.bias"], 1))
    return written_out(x)


def linear(net, name, x):
    return x @ net[f"{name}.weight"].T + net[f"{name}.bias"]


def logits(net, latent, atoms):
    """Dueling: V + A - mean A. [B, actions, atoms]."""
    out = linear(net, "head", relu(linear(net, "projection", latent))).reshape(len(latent), -1, atoms)
    return out[:, :1] + out[:, 1:] - out[:, 1:].mean(1, keepdims=True)


def unit(v):
    return v / math.sqrt((v**2).sum())


def spr(predictions, targets, mask):
    """Per sample: the mean over k of mask * |p / |p| - y / |y||^2; all are [K, B, ...]."""
    steps, batch = mask.shape
    out = np.zeros(batch)
    for b in range(batch):
        for k in range(steps):
            out[b] += mask[k, b] * ((unit(predictions[k, b]) - unit(targets[k, b])) ** 2).sum() / steps
    return out


def huber(difference):
    return np.array([0.5 * d * d if abs(d) <= 1.0 else abs(d) - 0.5 for d in difference])


def scalar_target(online_q, target_q, n_return, discount):
    """Double DQN, [B]: q are [B, actions] at the bootstrap state."""
    return np.array([r + g * t[o.argmax()] for o, t, r, g in zip(online_q, target_q, n_return, discount, strict=True)])


def sample_losses(online, target, batch, encode, support, map_shape, actions):
    """(TD loss, SPR loss), [B] each, without noise. `encode(net, images)` gives latents; batch["obs"] is [K + 2, B, ...]: s_t,
    ..., s_{t+K} and the bootstrap state. Gradients are those in `online`, with the target held fixed by whoever asks."""
    atoms = len(support)
    latent = encode(online, batch["obs"][0])
    y = batch["y"] if "y" in batch else td_target(online, target, batch, encode, support)
    prob = c51.softmax(logits(online, latent, atoms))
    td = np.array([-(y[b] * np.log(prob[b, a])).sum() for b, a in enumerate(batch["action"][0])])
    predictions, ahead = [], []
    for k, action in enumerate(batch["action"]):
        latent = renormalized(transition(online, latent, action, map_shape, actions))
        predictions.append(linear(online, "predictor", linear(online, "projection", latent)))
        ahead.append(linear(target, "projection", encode(target, batch["obs"][1 + k])))
    return td, spr(np.array(predictions), np.array(ahead), batch["mask"])


def td_target(online, target, batch, encode, support):
    atoms, last = len(support), batch["obs"][-1]
    best = (c51.softmax(logits(online, encode(online, last), atoms)) @ support).argmax(1)
    prob = c51.softmax(logits(target, encode(target, last), atoms))
    chosen = np.array([prob[b, a] for b, a in enumerate(best)])
    return c51.projection(chosen, batch["n_return"], batch["discount"], support)


def adamw(value, grad, m, v, t, lr, eps, decay):
    """Loshchilov and Hutter 2019, Algorithm 2: decay is decoupled from the gradient."""
    value = value - lr * decay * value
    return c51.adam(value, grad, m, v, t, lr, eps)
