"""GTR's divergences and penalties from their definitions in float64: one state, one anchor, one action at a time. Imports nothing of
ours."""

import math

import numpy as np


def categorical_kl(p, q):
    """Sum over actions of p log(p / q)."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0.0)


def gaussian_kl(old_mean, old_std, mean, std):
    """Sum over dimensions of log(s / s') + (s'^2 + (m' - m)^2) / (2 s^2) - 1/2."""
    total = 0.0
    for m0, s0, m1, s1 in zip(old_mean, old_std, mean, std, strict=True):
        total += math.log(s1 / s0) + (s0**2 + (m0 - m1) ** 2) / (2.0 * s1**2) - 0.5
    return total


def gaussian_kl_by_integral(old_mean, old_std, mean, std):
    """One dimension, by the trapezoidal rule over 12 standard deviations."""
    x = np.linspace(old_mean - 12 * old_std, old_mean + 12 * old_std, 200_001)

    def log_density(m, s):
        return -0.5 * ((x - m) / s) ** 2 - math.log(s * math.sqrt(2 * math.pi))

    p = np.exp(log_density(old_mean, old_std))
    return np.trapezoid(p * (log_density(old_mean, old_std) - log_density(mean, std)), x)


def anchor_weights(anchors, decay):
    raw = [decay**j for j in range(anchors)]
    return [w / sum(raw) for w in raw]


def penalty(distance, form, variance, decay, widen):
    """psi of each state, of distance [K, B]."""
    out = np.zeros(distance.shape[1])
    weights = anchor_weights(len(distance), decay)
    for b in range(distance.shape[1]):
        for j, w in enumerate(weights):
            d, v = distance[j, b], variance * (1.0 + widen * j)
            if form == "welsch":
                out[b] += w * variance * (1.0 - math.exp(-d / v))
            elif form == "kernel_kl":
                out[b] += w * d * math.exp(-2.0 * d / v)
            elif form == "kernel_kl_sg":
                out[b] += w * d * math.exp(-d / v)
            else:
                out[b] += w * d
    return out


def slope(distance, form, variance):
    """d psi / d D of one anchor, as a loss would follow it."""
    if form == "kernel_kl":
        return np.exp(-2.0 * distance / variance) * (1.0 - 2.0 * distance / variance)
    return np.ones_like(distance) if form == "kl" else np.exp(-distance / variance)


def lambert_w0(x):
    """The principal branch, w e^w = x for -1/e <= x < 0, by bisection on [-1, 0]."""
    low, high = -1.0, 0.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if middle * math.exp(middle) < x else (low, middle)
    return 0.5 * (low + high)
