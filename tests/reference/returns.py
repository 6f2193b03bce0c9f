"""Returns by definition: sums over all pairs of steps, in float64. Arrays are value [T + 1, B], the others [T, B]."""

import numpy as np


def gae(value, reward, discount, lambda_):
    """Schulman et al. 2016, Eq. 16: A_t = sum_s (prod_{t <= i < s} discount_i lambda) delta_s."""
    value, reward, discount = (np.asarray(x, np.float64) for x in (value, reward, discount))
    T = len(reward)
    delta = reward + discount * value[1:] - value[:-1]
    out = np.zeros_like(reward)
    for t in range(T):
        for s in range(t, T):
            out[t] += np.prod(discount[t:s] * lambda_, axis=0) * delta[s]
    return out


def n_step(value, reward, discount, n):
    """Sutton and Barto 2018, Eq. 7.1, cut to the T - t steps that there are."""
    value, reward, discount = (np.asarray(x, np.float64) for x in (value, reward, discount))
    T = len(reward)
    out = np.zeros_like(reward)
    for t in range(T):
        end = min(t + n, T)
        for s in range(t, end):
            out[t] += np.prod(discount[t:s], axis=0) * reward[s]
        out[t] += np.prod(discount[t:end], axis=0) * value[end]
    return out


def vtrace(value, reward, discount, rho, rho_bar, c_bar, lambda_):
    """Espeholt et al. 2018, Eq. 1: v_t = V(x_t) + sum_s (prod_{t <= i < s} discount_i c_i) delta_s."""
    value, reward, discount, rho = (np.asarray(x, np.float64) for x in (value, reward, discount, rho))
    T = len(reward)
    delta = np.minimum(rho, rho_bar) * (reward + discount * value[1:] - value[:-1])
    c = lambda_ * np.minimum(rho, c_bar)
    out = value[:-1].copy()
    for t in range(T):
        for s in range(t, T):
            out[t] += np.prod(discount[t:s] * c[t:s], axis=0) * delta[s]
    return out
