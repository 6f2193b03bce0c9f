"""SIGReg from its definition, in float64 numpy: loops over directions and points. Imports nothing of ours."""

import cmath
import math

import numpy as np


def gap(h, direction, t):
    """(real, imaginary) of phi_B(t) - exp(-t^2 / 2) for the projections of the rows of h on one direction."""
    phi = sum(cmath.exp(1j * t * float(row @ direction)) for row in h) / len(h)
    return (phi - math.exp(-0.5 * t * t)).real, phi.imag


def rl(h, direction):
    """Squares of both parts, means over linspace(-5, 5, 8) and over the columns of `direction` [D, K]."""
    gaps = np.array([[gap(h, a, t) for t in np.linspace(-5.0, 5.0, 8)] for a in direction.T])
    return (gaps[..., 0] ** 2).mean(), (gaps[..., 1] ** 2).mean()


def lejepa(h, direction, knots=33):
    """B times the integral of the squares with the window exp(-t^2 / 2) over [-3, 3], trapezoidal; means over directions."""
    points = np.linspace(-3.0, 3.0, knots)
    parts = np.zeros(2)
    for a in direction.T:
        value = np.array([np.square(gap(h, a, t)) * math.exp(-0.5 * t * t) for t in points])
        parts += len(h) * ((value[1:] + value[:-1]) / 2 * np.diff(points)[:, None]).sum(0)
    return tuple(parts / direction.shape[1])


def expected_rl(std):
    """Where projections are N(0, std^2), for infinitely many of them: mean over t of (exp(-std^2 t^2 / 2) - exp(-t^2 / 2))^2."""
    return np.mean([(math.exp(-0.5 * (std * t) ** 2) - math.exp(-0.5 * t * t)) ** 2 for t in np.linspace(-5.0, 5.0, 8)])


def floor_rl():
    """B times the expectation where they are N(0, 1), B of them: the variance of exp(i t s) is 1 - exp(-t^2)."""
    return np.mean([1.0 - math.exp(-t * t) for t in np.linspace(-5.0, 5.0, 8)])
