"""Measures of what a network can still learn: dormant and dead units, ranks of its features, norms, churn, gradient covariance.

Each is a function of tensors, computed in float64. Names differ between papers, so each names its own:

    dormant ratio     Sokar et al. 2023 (arXiv:2302.12902), Definition 3.1: units whose share of the layer's mean |activation| is <= tau
    dead units        those that are 0 on every input: dormant at tau = 0
    effective rank    Roy and Vetterli 2007: exp of the entropy of the normalised singular values
    srank             Kumar et al. 2021 (arXiv:2010.14498): the fewest singular values that sum to 1 - delta of all
    feature rank      Lyle et al. 2022 (arXiv:2204.09560): singular values of features / sqrt(B) above epsilon
    approximate rank  Yang et al. 2020 (arXiv:1909.12255): the fewest squared singular values that sum to 1 - delta of all (PCA's)
    policy churn      Schaul et al. 2022 (arXiv:2206.00730): share of inputs whose greedy action a learning step has changed
    gradient covariance  Lyle et al. 2023 (arXiv:2303.01486): cosines between the gradients of single inputs

With B inputs no rank exceeds B: ranks are comparable at one B alone. rlplatform.inspection measures them all in a run.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

DELTA = 0.01  # of srank and approximate rank, in both papers
EPSILON = 0.01  # of the feature rank, in its paper
_TINY = 1e-9  # what the authors' code adds to a layer's mean activation


@dataclass(frozen=True)
class Probe:
    """How an agent's networks are looked at: what its `probe()` returns, and all that it needs to say."""

    net: nn.Module  # whose layers are measured, as `forward` evaluates them
    # [B, stack, *frame] -> what decides the action, [B, actions] values or logits or [B, A] continuous actions, and one value [B].
    # Ranks and norms of features are those of the last hidden layer before the value.
    forward: Callable[[Tensor], tuple[Tensor, Tensor]]
    learned: nn.Module | None = None  # whose weights and gradients the optimiser sees, where that is another copy
    outputs: Collection[str] = ()  # layers with an activation function that are no hidden ones


def unit_scores(h: Tensor) -> Tensor:
    """Each unit's mean |activation| over that of its layer's mean unit, [units] float64: 1 on average, or 0 in a layer that is 0.

    Args:
        h: activations, [B, units] or, where a unit is a feature map, [B, units, ...]: the mean is over the map, too.
    """
    size = h.double().abs().flatten(2).mean(2) if h.ndim > 2 else h.double().abs()
    mean = size.mean(0)
    return mean / (mean.mean() + _TINY)


def dormant(h: Tensor, tau: float) -> Tensor:
    """Which units are tau-dormant, [units] bool: those with a score of tau or less."""
    return unit_scores(h) <= tau


def dead(h: Tensor) -> Tensor:
    """Which units are 0 on every input (a feature map: everywhere), [units] bool."""
    return (h == 0).transpose(0, 1).flatten(1).all(1)


def share(masks: Iterable[Tensor]) -> float:
    """Units of all layers together for which their mask says True: a layer counts by its units."""
    chosen = torch.cat([mask.flatten() for mask in masks])
    return float(chosen.double().mean())


def singular_values(features: Tensor) -> Tensor:
    """Of features [B, D], not centred; [min(B, D)] float64, descending."""
    values: Tensor = torch.linalg.svdvals(features.double())
    return values


def effective_rank(values: Tensor) -> float:
    """exp(-sum p log p) with p the singular values over their sum; 0 where all are 0."""
    if not values.sum() > 0.0:
        return 0.0
    p = values / values.sum()
    return float(torch.special.entr(p).sum().exp())


def srank(values: Tensor, delta: float = DELTA) -> int:
    """The least k such that the k largest singular values make up 1 - delta of the sum; 0 where all are 0."""
    return _enough(values, delta)


def approximate_rank(values: Tensor, delta: float = DELTA) -> int:
    """As srank, of squared singular values: directions that hold 1 - delta of the second moment."""
    return _enough(values.square(), delta)


def feature_rank(values: Tensor, inputs: int, epsilon: float = EPSILON) -> int:
    """How many singular values of features / sqrt(inputs) exceed epsilon. Unlike the others it depends on the features' scale."""
    return int((values / inputs**0.5 > epsilon).sum())


def _enough(values: Tensor, delta: float) -> int:
    total = values.sum()
    if not total > 0.0:
        return 0
    # A sum that falls short by rounding alone is enough.
    return int((values.cumsum(0) < (1.0 - delta) * total * (1.0 - 1e-12)).sum()) + 1


def feature_norm(features: Tensor) -> float:
    """Mean Euclidean norm of the rows of [B, D]."""
    return float(features.double().norm(dim=1).mean())


def norm(tensors: Iterable[Tensor]) -> float:
    """Euclidean norm of all of them as one vector: of weights or of gradients."""
    return float(sum((t.detach().double().square().sum().cpu() for t in tensors), torch.zeros(())).sqrt())


def churn(before: Tensor, after: Tensor) -> float:
    """Share of inputs whose greedy action differs, of values or logits [B, actions] before and after."""
    return float((before.argmax(1) != after.argmax(1)).double().mean())


def shift(before: Tensor, after: Tensor) -> float:
    """Root mean square change of continuous actions [B, A]: what churn is where no two actions are the same."""
    return float((after.double() - before.double()).square().mean().sqrt())


def gradient_covariance(gradients: Tensor) -> Tensor:
    """Cosines between the gradients of single inputs, [k, k] float64, of gradients [k, P]. A gradient of 0 is at right angles to all,
    itself included."""
    gram = (gradients @ gradients.T).double()
    size = gram.diagonal().clamp(min=0.0).sqrt()
    scale = size[:, None] * size
    return torch.where(scale > 0.0, gram / scale.clamp(min=torch.finfo(torch.float64).tiny), 0.0)


def collinearity(covariance: Tensor) -> float:
    """Mean |cosine| of two different inputs, in [0, 1], of [k, k] with k >= 2: near 1 where all inputs move the network alike."""
    k = len(covariance)
    off = covariance.abs().sum() - covariance.diagonal().abs().sum()
    return float(off / (k * (k - 1)))


def sample_gradients(net: nn.Module, value: Callable[[Tensor], Tensor], obs: Tensor) -> Tensor:
    """Gradients of value(obs[i : i + 1]) with respect to all parameters of `net`, [k, P] float32, one input at a time. Nobody's `.grad`
    is touched; parameters without influence count as 0.

    Args:
        value: [1] of [1, ...].
        obs: [k, ...].
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    out = torch.empty(len(obs), sum(p.numel() for p in parameters), device=obs.device)
    for row, x in zip(out, obs.split(1), strict=True):
        with torch.enable_grad():
            grads = torch.autograd.grad(value(x).sum(), parameters, allow_unused=True)
        for part, grad in zip(row.split([p.numel() for p in parameters]), grads, strict=True):
            part.zero_() if grad is None else part.copy_(grad.flatten())
    return out
