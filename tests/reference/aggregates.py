"""Aggregates of {task: runs} by their definitions, one number at a time."""

import itertools
import math
from fractions import Fraction


def mean(scores):
    return math.fsum(math.fsum(runs) / len(runs) for runs in scores.values()) / len(scores)


def median(scores):
    means = sorted(math.fsum(runs) / len(runs) for runs in scores.values())
    half = len(means) // 2
    return means[half] if len(means) % 2 else (means[half - 1] + means[half]) / 2


def optimality_gap(scores, target=1.0):
    return mean({task: [max(target - score, 0.0) for score in runs] for task, runs in scores.items()})


def iqm(scores):
    """Mean of what is left when floor(N / 4) of N runs' worth of weight is taken off each end. Weights in exact fractions:
    each task 1 / T, shared by its runs."""
    runs = [(score, Fraction(1, len(scores) * len(task))) for task in scores.values() for score in task]
    n = len(runs)
    cut = Fraction(n // 4, n)
    runs.sort(key=lambda run: run[0])
    for _ in range(2):  # off the bottom, then off the top
        left = cut
        while left > 0:
            score, weight = runs[0]
            taken = min(left, weight)
            left -= taken
            runs[0] = (score, weight - taken)
            if weight == taken:
                runs.pop(0)
        runs.reverse()
    total = sum(weight for _, weight in runs)
    return math.fsum(score * float(weight / total) for score, weight in runs)


def all_resamples(scores):
    """Every stratified resample, each as likely as the others. Small data only."""
    per_task = [list(itertools.product(runs, repeat=len(runs))) for runs in scores.values()]
    for choice in itertools.product(*per_task):
        yield dict(zip(scores, choice, strict=True))
