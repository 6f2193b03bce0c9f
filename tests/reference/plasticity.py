"""Measures of plasticity by their definitions, in plain loops over float64."""

import math

import numpy as np


def unit_scores(h):
    """Sokar et al. 2023, Definition 3.1, of [B, units, *map]: the mean of |h_i| over inputs and the map, over the layer's mean of it."""
    size = []
    for i in range(h.shape[1]):
        values = [abs(float(x)) for x in h[:, i].ravel()]
        size.append(sum(values) / len(values))
    mean = sum(size) / len(size)
    return [s / (mean + 1e-9) for s in size]


def effective_rank(z):
    """Roy and Vetterli 2007, Eq. 1-3."""
    s = np.linalg.svd(z, compute_uv=False)
    if s.sum() == 0:
        return 0.0
    entropy = 0.0
    for value in s / s.sum():
        if value > 0:
            entropy -= value * math.log(value)
    return math.exp(entropy)


def enough(s, delta):
    """The least k whose first k numbers sum to (1 - delta) of all, but for rounding."""
    for k in range(1, len(s) + 1):
        if math.fsum(s[:k]) >= (1 - delta) * math.fsum(s) * (1 - 1e-12):
            return k
    raise AssertionError


def srank(z, delta):
    """Kumar et al. 2021, section 3."""
    return enough(np.linalg.svd(z, compute_uv=False), delta)


def approximate_rank(z, delta):
    """Of the eigenvalues of z^T z, as PCA has them."""
    eigenvalues = np.linalg.eigvalsh(z.T @ z)[::-1].clip(0)
    return enough(eigenvalues, delta)


def feature_rank(z, epsilon):
    """Lyle et al. 2022, Definition 2."""
    return sum(1 for value in np.linalg.svd(z / math.sqrt(len(z)), compute_uv=False) if value > epsilon)


def cosines(g):
    k = len(g)
    out = np.zeros((k, k))
    for i in range(k):
        for j in range(k):
            a, b = math.sqrt(math.fsum(g[i] ** 2)), math.sqrt(math.fsum(g[j] ** 2))
            out[i, j] = math.fsum(g[i] * g[j]) / (a * b) if a * b > 0 else 0.0
    return out
