"""Gradual magnitude pruning from its definition: plain loops, float64. Imports nothing of ours."""

import math


def sparsity(t, t0, t1, final):
    """Obando-Ceron et al. 2024, Eq. 1."""
    if t < t0:
        return 0.0
    if t > t1:
        return final
    return final * (1.0 - (1.0 - (t - t0) / (t1 - t0)) ** 3)


def erk(shapes, final):
    """Densities by bisection instead of by solving: density_l = min(1, eps * (sum of dims) / (product of dims)), the eps at which
    the layers together keep (1 - final) of all their weights. Returns sparsities."""
    size = [math.prod(shape) for shape in shapes]

    def density(eps):
        return [min(1.0, eps * sum(shape) / n) for shape, n in zip(shapes, size, strict=True)]

    low, high = 0.0, max(n / sum(shape) for shape, n in zip(shapes, size, strict=True))
    for _ in range(200):
        middle = (low + high) / 2
        kept = sum(d * n for d, n in zip(density(middle), size, strict=True))
        low, high = (middle, high) if kept < (1.0 - final) * sum(size) else (low, middle)
    return [1.0 - d for d in density(high)]


def keep(weights, final):
    """Indices that stay: one after the other the largest magnitude, of equal ones the first; at least one."""
    left, out = list(range(len(weights))), set()
    for _ in range(max(1, round(len(weights) * (1.0 - final)))):
        best = left[0]
        for i in left:
            if abs(weights[i]) > abs(weights[best]):
                best = i
        out.add(best)
        left.remove(best)
    return out
