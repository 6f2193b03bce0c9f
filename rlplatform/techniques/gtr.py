"""GTR, a Gaussian trust region: **our formulation** of the idea of Liu et al. 2026 (arXiv:2606.03382), of which only the abstract could
be read. No equation here is taken from the paper; docs/techniques/gtr.md derives them.

The policy pi is held near K anchors pi_0, ..., pi_{K-1}, its own recent snapshots, by a penalty on the divergence D_j(s) = KL(pi_j || pi).
Near an anchor sqrt(2 D) is the Fisher distance, so that exp(-D / sigma^2) is a Gaussian kernel in it, and

    psi(s) = sigma^2 (1 - sum_j w_j exp(-D_j(s) / sigma_j^2)),  w_j ~ decay^j,  sigma_j^2 = sigma^2 (1 + widen j)    ("welsch")

is bounded by sigma^2, pulls like D itself close by, and lets go of a policy that an advantage has carried away. In an agent's loss:

    distance = torch.stack([categorical_kl(anchor, log_prob) for anchor in anchors])  # [K, B]
    loss = loss + config.weight * gtr.penalty(distance, config).mean()
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import e, sqrt

import torch
from torch import Tensor

from rlplatform.checked import Checked
from rlplatform.types import State

FORMS = ("welsch", "kernel_kl", "kernel_kl_sg", "kl")
DISTANCES = ("exact", "sample")


@dataclass(frozen=True)
class TrustConfig(Checked):
    """The penalty that an agent's loss may have."""

    section = "trust."

    weight: float = 0.0  # beta; 0: none, and nothing is computed
    form: str = "welsch"  # psi as a function of the divergence: one of FORMS
    variance: float = 0.04  # sigma^2 in nats: the pull is greatest where D = sigma^2 / 2
    anchors: int = 4  # K; 1: the policy that acted alone
    decay: float = 0.5  # w_j / w_{j-1}: at most 0.5 leaves half of the weight, or more, to the policy that acted
    widen: float = 0.0  # sigma_j^2 = sigma^2 (1 + widen j)
    distance: str = "exact"  # "sample": half the squared difference of log-probabilities at the action taken

    def __post_init__(self) -> None:
        self._one_of(FORMS, "form")
        self._one_of(DISTANCES, "distance")
        self._at_least(1, "anchors")
        self._positive("variance")
        self._not_negative("weight", "widen")
        self._share("decay")


# --- divergences ---


def categorical_kl(old: Tensor, new: Tensor) -> Tensor:
    """KL(old || new) of distributions over A actions, from log-probabilities [..., A]: [...]. Exact, >= 0 up to rounding; 0 where
    `old` gives an action no chance, whatever `new` gives it."""
    prob = old.exp()
    return (prob * (torch.where(prob > 0, old, 0.0) - torch.where(prob > 0, new, 0.0))).sum(-1)


def gaussian_kl(old_mean: Tensor, old_log_std: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(old || new) of independent normals, summed over the last dimension: of [..., A] each, [...]. The sum over dimensions of
    log(s / s') + (s'^2 + (m' - m)^2) / (2 s^2) - 1/2, primes being the old one."""
    ratio = 2.0 * (old_log_std - log_std)
    return 0.5 * (torch.expm1(ratio) - ratio + ((old_mean - mean) * torch.exp(-log_std)).square()).sum(-1)


def sampled_distance(old_log_prob: Tensor, log_prob: Tensor) -> Tensor:
    """(log pi(a|s) - log pi_j(a|s))^2 / 2 at actions of the policy that acted: a stand-in for D_j that is never negative and defined
    for any anchor, where no closed form can be had. Elementwise."""
    return 0.5 * (log_prob - old_log_prob).square()


# --- the penalty ---


def anchor_weights(anchors: int, decay: float, like: Tensor) -> Tensor:
    """w_j proportional to decay^j, summing to 1, newest first: [anchors], of the dtype and device of `like`."""
    weight = decay ** torch.arange(anchors, dtype=torch.float64)  # 0^0 = 1: decay 0 leaves the newest alone
    return (weight / weight.sum()).to(like)


def kernel(distance: Tensor, config: TrustConfig) -> Tensor:
    """exp(-D_j / sigma_j^2): how near the policy is to each anchor, from 1 to 0. Of D [K, ...], newest anchor first."""
    return torch.exp(-distance / _variances(distance, config))


def penalty(distance: Tensor, config: TrustConfig) -> Tensor:
    """psi of each state, [B], in nats; to be averaged over the batch, never to be taken of an averaged divergence.

    Args:
        distance: D_j >= 0 of B states from K anchors, newest first: [K, B] with a gradient. Fewer than config.anchors at the
            beginning of a run: their weights sum to 1 all the same.

    The forms, for one anchor:
        welsch        sigma^2 (1 - exp(-D / sigma^2)): the gradient is D's times the kernel
        kernel_kl     D exp(-2 D / sigma^2): greatest where sqrt(2 D) = sigma, and repelling beyond
        kernel_kl_sg  D times the kernel without its gradient: the gradient of welsch, another value
        kl            D: the plain penalty, without bound
    """
    variance = _variances(distance, config)
    if config.form == "welsch":  # expm1: at sigma^2 >> D the difference from 1 is all there is
        psi = -config.variance * torch.expm1(-distance / variance)
    elif config.form == "kernel_kl":
        psi = distance * torch.exp(-2.0 * distance / variance)
    elif config.form == "kernel_kl_sg":
        psi = distance * torch.exp(-distance.detach() / variance)
    else:
        psi = distance
    return anchor_weights(len(distance), config.decay, distance) @ psi


def _variances(distance: Tensor, config: TrustConfig) -> Tensor:
    """sigma_j^2, to be laid beside D [K, ...]."""
    j = torch.arange(len(distance), dtype=distance.dtype, device=distance.device)
    return (config.variance * (1.0 + config.widen * j)).view(-1, *(1,) * (distance.ndim - 1))


def critical_advantage(config: TrustConfig) -> float:
    """The force beta sigma e^(-1/2) that one anchor's pull does not exceed (welsch): a policy that a surrogate drives harder than this
    leaves the anchor, whatever time it takes; below, it settles where the forces meet."""
    return config.weight * sqrt(config.variance / e)


# --- what is logged ---


@torch.no_grad()
def diagnostics(distance: Tensor, kl: Tensor, config: TrustConfig) -> dict[str, Tensor]:
    """Where a batch of states stands: scalars by the names under which agents log them.

    Args:
        distance: [K, B], what the penalty is of. kl: [B], the exact divergence from the newest anchor.
    """
    out = {
        "trust/kl_mean": kl.mean(),
        "trust/kl_p90": kl.quantile(0.9),
        "trust/beyond_peak": (distance[0] > 0.5 * config.variance).float().mean(),
        "trust/penalty": penalty(distance, config).mean(),
    }
    for j, near in enumerate(kernel(distance, config)):
        out[f"trust/kernel_{j}"] = near.mean()
    return out


def force_ratio(penalty: Tensor, surrogate: Tensor, parameters: list[Tensor]) -> Tensor:
    """|gradient of the penalty| / |gradient of the surrogate loss|, over all parameters: where it is far below 1 the trust region does
    not bind, and no form of it can matter. Keeps the graph; two backward passes."""
    norms = []
    for loss in (penalty, surrogate):
        grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        norms.append(torch.stack([g.square().sum() for g in grads if g is not None]).sum().sqrt())
    return norms[0] / norms[1].clamp(min=torch.finfo(norms[1].dtype).tiny)


# --- anchors ---


class Anchors:
    """The parameters of a policy's last snapshots, newest first."""

    def __init__(self, capacity: int) -> None:
        """`capacity`: snapshots kept."""
        self.capacity = capacity
        self.snapshots: list[dict[str, Tensor]] = []

    def push(self, parameters: Mapping[str, Tensor]) -> None:
        """Keep a copy as the newest, and forget the oldest where there are too many."""
        if self.capacity:
            copy = {name: p.detach().clone() for name, p in parameters.items()}
            self.snapshots = [copy, *self.snapshots[: self.capacity - 1]]

    def state_dict(self) -> State:
        return {"snapshots": [dict(snapshot) for snapshot in self.snapshots]}  # never changed in place

    def load_state_dict(self, state: State) -> None:
        self.snapshots = [dict(snapshot) for snapshot in state["snapshots"]]
