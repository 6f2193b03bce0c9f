"""SIGReg, sketched isotropic Gaussian regularisation: features are pushed towards N(0, I) along random directions.

The statistic is that of Epps and Pulley between the empirical characteristic function of a projection and that of N(0, 1). Two forms:

- "rl", of Saheb Pasand et al. 2026 (arXiv:2602.19373; github.com/asahebpa/IsoGaussian-DRL): eight points, equal weights;
- "lejepa", of Balestriero and LeCun 2025 (arXiv:2511.08544; github.com/rbalestr-lab/lejepa): B times an integral with a Gaussian window.

In an agent, where h [B, D] are the features before the last activation:

    self.sigreg = SigReg(config.sigreg, Stream(seed, "sigreg"))
    ...
    loss = loss + self.sigreg.loss(h)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlplatform.checked import Checked
from rlplatform.types import State

NORM_EPS = 1e-12  # added to the length of a direction, as the released code does
RL_POINTS, RL_T_MAX = 8, 5.0  # linspace(-5, 5, 8)
LEJEPA_POINTS, LEJEPA_T_MAX = 17, 3.0  # of the half axis t >= 0: the integrand is even


@dataclass(frozen=True)
class SigRegConfig(Checked):
    """How strongly, and in which form."""

    section = "sigreg."

    weight: float = 0.0  # of the term in the loss (lambda); 0: off, and nothing is drawn
    form: str = "rl"  # or "lejepa"
    directions: int = 16  # drawn anew at every gradient step; LeJEPA has 256 or more

    def __post_init__(self) -> None:
        self._not_negative("weight")
        self._one_of(FORMS, "form")
        self._at_least(1, "directions")


class Parts(NamedTuple):
    """Scalars. The statistic is their sum."""

    real: Tensor  # tails and scale: the cosines
    imaginary: Tensor  # mean and symmetry: the sines


def unit(normal: Tensor) -> Tensor:
    """Directions [D, K] of standard normals [D, K]: uniform on the sphere, in float32."""
    direction: Tensor = normal / (normal.norm(dim=0) + NORM_EPS)
    return direction


def rl(h: Tensor, direction: Tensor) -> Parts:
    """Mean over eight t in linspace(-5, 5) and over directions of (mean cos - exp(-t^2 / 2))^2, and of (mean sin)^2.

    Its expectation is 0.8474 / B where h is standard normal, at most about 0.9; without a factor B and a window.

    Args:
        h: features, [B, D]; float32 is used for cos and sin whatever their dtype.
        direction: unit vectors, [D, K].

    Error: float32 within 2e-7 of the definition in float64, for h of order 1 (tests/test_sigreg.py).
    """
    # The points lie symmetrically, and both squares are even in t: half of them have the mean of all.
    t = torch.linspace(-RL_T_MAX, RL_T_MAX, RL_POINTS, device=h.device, dtype=direction.dtype)[RL_POINTS // 2 :]
    real, imaginary = _gaps(h, direction, t)
    return Parts(real.mean(), imaginary.mean())


def lejepa(h: Tensor, direction: Tensor) -> Parts:
    """B times the integral over t in [-3, 3] of |phi_B(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2), by the trapezoidal rule; mean over
    directions. Arguments as of `rl`.

    Its expectation is about 1.06 where h is standard normal, whatever B.
    """
    # At t = 0 both squares are 0.
    t = torch.linspace(0.0, LEJEPA_T_MAX, LEJEPA_POINTS, device=h.device, dtype=direction.dtype)[1:]
    weight = torch.full_like(t, 2.0 * LEJEPA_T_MAX / (LEJEPA_POINTS - 1))  # both half axes
    weight[-1] *= 0.5
    weight = weight * torch.exp(-0.5 * t**2)
    real, imaginary = _gaps(h, direction, t)
    return Parts(len(h) * (real @ weight).mean(), len(h) * (imaginary @ weight).mean())


def _gaps(h: Tensor, direction: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Squares of the real and of the imaginary difference of characteristic functions, [K, points] each."""
    angle = (h.to(direction.dtype) @ direction)[..., None] * t  # [B, K, points]
    return (angle.cos().mean(0) - torch.exp(-0.5 * t**2)).square(), angle.sin().mean(0).square()


FORMS: dict[str, Callable[[Tensor, Tensor], Parts]] = {"rl": rl, "lejepa": lejepa}


class SigReg:
    """The term of a loss, and the stream that its directions come from: no other consumer's draws move."""

    def __init__(self, config: SigRegConfig, stream: Any) -> None:
        """`stream`: a Stream, or a DeviceStream where features live on a GPU."""
        self.config, self._stream = config, stream

    @property
    def on(self) -> bool:
        return self.config.weight > 0.0

    def parts(self, *features: Tensor) -> Parts:
        """Mean over several layers or networks [B, D] each, whose sizes may differ; each has directions of its own."""
        form, count = FORMS[self.config.form], self.config.directions
        each = [
            form(h, unit(torch.as_tensor(self._stream.normal(h.shape[1], count), device=h.device))) for h in features
        ]
        return Parts(*(torch.stack(part).mean() for part in zip(*each, strict=True)))

    def loss(self, parts: Parts) -> Tensor:
        """What is added to the agent's loss."""
        return self.config.weight * (parts.real + parts.imaginary)

    def state_dict(self) -> State:
        return {"stream": self._stream.state_dict()}

    def load_state_dict(self, state: State) -> None:
        self._stream.load_state_dict(state["stream"])


METRICS = ("losses/sigreg", "losses/sigreg_real", "losses/sigreg_imaginary")


def metrics(parts: Parts) -> dict[str, Tensor]:
    """METRICS, which an agent logs: without the weight, and apart from the agent's own losses."""
    real, imaginary = parts.real.detach(), parts.imaginary.detach()
    return dict(zip(METRICS, (real + imaginary, real, imaginary), strict=True))
