"""Gradient steps of small networks, where what surrounds the arithmetic costs as much as the arithmetic, and of parts of networks."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def take_gradients(
    part: str, loss: Tensor, parameters: Sequence[Tensor], into: Sequence[Tensor] | None = None, *, after: int
) -> None:
    """The gradient of a scalar for these parameters alone, whatever else the loss went through, in their `grad`.

    Args:
        part: whose parameters they are, for messages.
        into: parameters of another dtype that are stepped instead: `grad` is theirs, in their dtype.
        after: agent steps, for messages.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    if not torch.isfinite(loss):
        raise FloatingPointError(f"the {part}'s loss is {loss.item()} after {after} agent steps")
    for parameter, grad in zip(into or parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = laid_as(parameter, grad)


@torch.no_grad()
def write_gradients(loss: Tensor, parameters: Sequence[Tensor], into: Sequence[Tensor]) -> None:
    """As `take_gradients`, within a graph: `grad` of `into` stays where it is, and nobody waits to see whether the loss is finite."""
    grads = torch.autograd.grad(loss, parameters)
    torch._foreach_copy_([p.grad for p in into if p.grad is not None], grads)  # element by element, whatever the layout


def laid_as(parameter: Tensor, grad: Tensor) -> Tensor:
    """A gradient in its parameter's dtype, and in memory as that is. A convolution hands out its kernel's with the channels last where its
    input has them so; fused optimisers run along memory and would step other weights by it."""
    if grad.dtype == parameter.dtype and grad.stride() == parameter.stride():
        return grad
    return torch.empty_like(parameter, requires_grad=False).copy_(grad)


def anneal_(optimizer: torch.optim.Optimizer, rate: float, steps: int, over: int) -> None:
    """Set the learning rate: `rate`, going linearly to 0 in `over` steps, of which `steps` are over; 0: it stays."""
    for group in optimizer.param_groups:
        group["lr"] = rate * max(1.0 - steps / over, 0.0) if over else rate


class ClippedAdam(torch.optim.Adam):
    """Adam (Kingma and Ba 2015, Algorithm 1), the gradient first cut to a norm over all parameters (Pascanu et al. 2013).

    `descend` is `zero_grad`, `backward`, `clip_grad_norm_` and `step` in one: gradients are taken as a list, and what cuts them is a
    divisor that torch's fused kernel takes anyway, and leaves them cut in `grad`. State and parameter groups are Adam's own.
    """

    def __init__(self, parameters: Any, learning_rate: float, eps: float) -> None:
        """As torch.optim.Adam, fused, with betas (0.9, 0.999)."""
        super().__init__(parameters, learning_rate, eps=eps, fused=True)

    def descend(self, loss: Tensor, max_norm: float, adjust: Callable[[], None] | None = None) -> Tensor:
        """One step down the gradient of a scalar.

        Args:
            max_norm: > 0. As clip_grad_norm_ does it: a gradient of norm g is multiplied by min(1, max_norm / (g + 1e-6)).
            adjust: called once parameters have their gradients, in `grad`; what it makes of them in place is what is cut.

        Returns:
            The norm of the gradient before it was cut.
        """
        (group,) = self.param_groups
        parameters = group["params"]
        grads = [laid_as(p, grad) for p, grad in zip(parameters, torch.autograd.grad(loss, parameters), strict=True)]
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad
        if adjust is not None:
            adjust()
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))  # noqa: SLF001  # what clip_grad_norm_ calls
        states = [self.state[p] or self._begin(p) for p in parameters]
        moments, squares = ([state[key] for state in states] for key in ("exp_avg", "exp_avg_sq"))
        beta1, beta2 = group["betas"]
        with torch.no_grad():
            step = states[0]["step"] + 1.0  # one count for all: no parameter is ever left out
            for state in states:
                state["step"] = step
            torch._fused_adam_(
                parameters, grads, moments, squares, [], [step] * len(states), lr=group["lr"], beta1=beta1, beta2=beta2, weight_decay=0.0,
                eps=group["eps"], amsgrad=False, maximize=False, grad_scale=((norm + 1e-6) / max_norm).clamp(min=1.0),
            )  # fmt: skip
        return norm

    def _begin(self, parameter: Tensor) -> dict[str, Tensor]:
        """The state of a parameter that was never stepped, as Adam would have it."""
        zero = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        self.state[parameter] = {"step": torch.zeros((), device=parameter.device), **zero}
        state: dict[str, Tensor] = self.state[parameter]
        return state
