"""Returns and advantages over a rollout of T steps in B environments: n-step, GAE, V-trace.

All tensors are float32 and contiguous, on the CPU or all on one GPU; where they live decides which twin of the C++ kernel
runs, and both give the same bits. [T, B] is time by environment. `value` is [T + 1, B]: V(x_0), ..., V(x_T), the last row
being the bootstrap. `discount` is gamma, or 0 where nothing follows: nothing leaks backwards across such a step.
`reward_and_discount` makes both from a rollout. Results carry no gradient.

Errors: ValueError for a wrong dtype, shape, device or layout, naming the argument; RuntimeError for GPU tensors in an
installation that was built without CUDA kernels.
"""

from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlplatform import _core


def gae(value: Tensor, reward: Tensor, discount: Tensor, lambda_: float) -> Tensor:
    """Generalised advantage estimation: Schulman et al. 2016 (arXiv:1506.02438), Eq. 16, by its recursion.

    Returns:
        A_t = sum_k (product of discount lambda over t..t+k-1) delta_{t+k}, [T, B]. `gae + value[:-1]` is the lambda-return.

    Error: within 1e-5 of the O(T^2) sum in float64, for values of order 1 (tests/test_returns.py).
    """
    _check(reward, value=(value, 1), discount=(discount, 0))
    _check_lambda(lambda_)
    if reward.is_cuda:
        out = torch.empty_like(reward)
        _cuda().gae(*_at(value, reward, discount), lambda_, *reward.shape, *_at(out), *_queue(out))
        return out
    return torch.from_numpy(_core.gae(_array(value), _array(reward), _array(discount), lambda_))


def n_step(value: Tensor, reward: Tensor, discount: Tensor, n: int) -> Tensor:
    """n-step returns: Sutton and Barto 2018, Eq. 7.1, with m = min(n, T - t) steps near the rollout's end.

    Returns:
        r_t + discount_t r_{t+1} + ... + (product of discount over t..t+m-1) V(x_{t+m}), [T, B].
    """
    _check(reward, value=(value, 1), discount=(discount, 0))
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    if reward.is_cuda:
        out = torch.empty_like(reward)
        _cuda().n_step(*_at(value, reward, discount), n, *reward.shape, *_at(out), *_queue(out))
        return out
    return torch.from_numpy(_core.n_step(_array(value), _array(reward), _array(discount), n))


def vtrace(
    value: Tensor,
    reward: Tensor,
    discount: Tensor,
    rho: Tensor,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    lambda_: float = 1.0,
) -> Tensor:
    """V-trace targets: Espeholt et al. 2018 (arXiv:1802.01561), Eq. 1, by the recursion of its Remark 1.

    Args:
        value, reward, discount: as everywhere here; the reward unclipped.
        rho: pi(a_t | x_t) / mu(a_t | x_t), unclipped, [T, B].
        rho_bar, c_bar: bounds on rho in delta and in the trace, > 0; `math.inf` leaves rho as it is.
        lambda_: of Remark 2, in [0, 1].

    Returns:
        v_t, [T, B]; with rho = 1 and lambda_ = 1 the return of the T - t remaining steps. The advantage of the policy
        gradient is min(rho, rho_bar) (reward + discount v_{t+1} - value), with v_T = V(x_T).
    """
    _check(reward, value=(value, 1), discount=(discount, 0), rho=(rho, 0))
    _check_lambda(lambda_)
    if not (rho_bar > 0.0 and c_bar > 0.0):
        raise ValueError(f"rho_bar and c_bar must be > 0, got {rho_bar} and {c_bar}")
    if reward.is_cuda:
        out = torch.empty_like(reward)
        clip = (rho_bar, c_bar, lambda_)
        _cuda().vtrace(*_at(value, reward, discount, rho), *clip, *reward.shape, *_at(out), *_queue(out))
        return out
    arrays = (_array(value), _array(reward), _array(discount), _array(rho))
    return torch.from_numpy(_core.vtrace(*arrays, rho_bar, c_bar, lambda_))


def reward_and_discount(
    reward: Tensor, terminated: Tensor, truncated: Tensor, final_at: Tensor, final_value: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """What the recursions take, from a rollout whose games ended within it.

    A termination has the discount 0. A time limit has it, too, since the next row belongs to another game; what would have
    followed is worth V(true final state), so gamma times that is added to the reward (Pardo et al. 2018, Eq. 3).

    Args:
        reward: [T, B] float32. terminated, truncated: [T, B] bool; a step that is both has terminated.
        final_at: [E, 2] int64, the (t, b) of each true final state. final_value: [E] float32, its value.
        gamma: discount of one step.

    Returns:
        New tensors, reward and discount, [T, B] float32 each. On a GPU this waits for the device once.

    Raises:
        ValueError: a step was truncated, but final_at does not name its final state.
    """
    t, b = final_at.unbind(1)
    open_ended = truncated & ~terminated
    unknown = open_ended.clone()
    unknown[t, b] = False
    if unknown.any():
        raise ValueError(f"no final state for the truncated steps (t, b) = {unknown.nonzero().tolist()}")
    out = reward.clone()
    out[t, b] += torch.where(open_ended[t, b], gamma * final_value, 0.0)
    return out, gamma * (~(terminated | truncated)).to(torch.float32)


def _check(reward: Tensor, **others: tuple[Tensor, int]) -> None:
    """Refuse, by name, what is not [T + extra, B] float32, contiguous, on the device of the rewards."""
    if reward.device.type not in {"cpu", "cuda"}:
        raise ValueError(f"reward must be on the CPU or on a CUDA device, got {reward.device}")
    if reward.ndim != 2:
        raise ValueError(f"reward must be [T, B], got {list(reward.shape)}")
    T, B = reward.shape
    for name, (x, extra) in {"reward": (reward, 0), **others}.items():
        if x.dtype != torch.float32:
            raise ValueError(f"{name} must be float32, got {x.dtype}")
        if x.shape != (T + extra, B):
            raise ValueError(f"{name} must be {[T + extra, B]} beside reward {[T, B]}, got {list(x.shape)}")
        if x.device != reward.device:
            raise ValueError(f"{name} is on {x.device}, reward on {reward.device}")
        if not x.is_contiguous():
            raise ValueError(f"{name} must be contiguous: strides {x.stride()}")


def _check_lambda(lambda_: float) -> None:
    if not 0.0 <= lambda_ <= 1.0:
        raise ValueError(f"lambda_ must lie in [0, 1], got {lambda_}")


def _array(x: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = x.detach().numpy()
    return array


def _at(*tensors: Tensor) -> list[int]:
    return [x.data_ptr() for x in tensors]


def _queue(out: Tensor) -> tuple[int, int]:
    """Device number and address of torch's current stream there."""
    return out.get_device(), torch.cuda.current_stream(out.device).cuda_stream


def _cuda() -> ModuleType:
    try:
        from rlplatform import _cuda  # built only where nvcc was found, needed only here
    except ImportError as error:
        raise RuntimeError(
            f"the tensors are on a GPU, but this installation has no CUDA kernels ({_core.build()['cuda']}); "
            "install again with nvcc on PATH: pip install . -C cmake.define.RLP_CUDA=ON"
        ) from error
    return _cuda
