"""A stratified bootstrap and what is computed from it, by the definitions: one number at a time, draws in lists."""

import itertools
import math
from fractions import Fraction

from reference.philox import block


def uniform(key, number):
    """Double `number` of a stream: 53 bits, two numbers a block."""
    words = block(key, number // 2)
    high, low = words[2 * (number % 2) : 2 * (number % 2) + 2]
    return ((high << 21) ^ (low >> 11)) / 2**53


def resample(scores, key, r, draws=None):
    """Resample r of {task: runs}: of each task as many runs as it has, or draws[task], with replacement."""
    draws = draws or {task: len(runs) for task, runs in scores.items()}
    number, out = r * sum(draws.values()), {}
    for task, runs in scores.items():
        out[task] = []
        for _ in range(draws[task]):
            out[task].append(runs[math.floor(uniform(key, number) * len(runs))])
            number += 1
    return out


def improvement_of_task(x, y):
    """P(X > Y) + P(X = Y) / 2 over all pairs of runs."""
    won = sum(Fraction(a > b) + Fraction(a == b, 2) for a in x for b in y)
    return float(won / (len(x) * len(y)))


def improvement(x, y):
    return math.fsum(improvement_of_task(x[task], y[task]) for task in x) / len(x)


def share_of_runs_above(scores, tau):
    return math.fsum(sum(run > tau for run in runs) / len(runs) for runs in scores.values()) / len(scores)


def share_of_tasks_above(scores, tau):
    return sum(math.fsum(runs) / len(runs) > tau for runs in scores.values()) / len(scores)


def rank_distribution(runs):
    """[[P(algorithm a has rank k)]] of one task: over every choice of one run each; those that tie share their ranks evenly."""
    n = len(runs)
    out = [[Fraction(0)] * n for _ in range(n)]
    choices = list(itertools.product(*runs))
    for choice in choices:
        for a, own in enumerate(choice):
            above, same = sum(other > own for other in choice), sum(other == own for other in choice)
            for k in range(above, above + same):
                out[a][k] += Fraction(1, same * len(choices))
    return [[float(p) for p in row] for row in out]


def area_under(curve, steps):
    """Mean height of a polyline."""
    pieces = zip(itertools.pairwise(curve), itertools.pairwise(steps), strict=True)
    return math.fsum((a + b) / 2 * (t - s) for (a, b), (s, t) in pieces) / (steps[-1] - steps[0])
