import importlib.util
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import returns as reference
from rlplatform import _core, returns

BLOCK = 64  # kReturnsBlock of csrc/cuda/returns.cuh
CPU_BLOCK = 512  # kColumns of csrc/returns.hpp
EDGES = [0, 1, 2, 31, 32, 33, BLOCK - 1, BLOCK, BLOCK + 1]

# float32 against the float64 definition, inputs of order 1 and results up to 20: the largest error of three seeds is 3.2e-6
# at T = 65 and 3.6e-6 at T = 1000 (gae). Ten times that; absolute, since the sums cancel.
TOLERANCE = {"rtol": 0.0, "atol": 3.2e-5}

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device: listed in evaluation/bench/GPU.md"
)
needs_build = pytest.mark.skipif(
    importlib.util.find_spec("rlplatform._cuda") is None, reason="no CUDA kernels: nvcc was not found at build time"
)


def batch(T, B, seed=0, ends=0.1):
    """value, reward, discount, rho as float32 tensors; a tenth of the steps end an episode."""
    rng = np.random.default_rng(seed)
    value = rng.normal(size=(T + 1, B))
    reward = rng.normal(size=(T, B))
    discount = np.where(rng.random((T, B)) < ends, 0.0, 0.99)
    rho = np.exp(rng.normal(size=(T, B)))
    return [torch.from_numpy(x.astype(np.float32)) for x in (value, reward, discount, rho)]


CASES = {
    "gae": (lambda v, r, d, p: returns.gae(v, r, d, 0.95), lambda v, r, d, p: reference.gae(v, r, d, np.float32(0.95))),
    "gae_1": (lambda v, r, d, p: returns.gae(v, r, d, 1.0), lambda v, r, d, p: reference.gae(v, r, d, 1.0)),
    "n_step_1": (lambda v, r, d, p: returns.n_step(v, r, d, 1), lambda v, r, d, p: reference.n_step(v, r, d, 1)),
    "n_step": (lambda v, r, d, p: returns.n_step(v, r, d, 5), lambda v, r, d, p: reference.n_step(v, r, d, 5)),
    "n_step_all": (
        lambda v, r, d, p: returns.n_step(v, r, d, 10**6),
        lambda v, r, d, p: reference.n_step(v, r, d, 10**6),
    ),
    "vtrace": (
        lambda v, r, d, p: returns.vtrace(v, r, d, p),
        lambda v, r, d, p: reference.vtrace(v, r, d, p, 1.0, 1.0, 1.0),
    ),
    "vtrace_loose": (
        lambda v, r, d, p: returns.vtrace(v, r, d, p, rho_bar=1.5, c_bar=0.75, lambda_=0.5),
        lambda v, r, d, p: reference.vtrace(v, r, d, p, 1.5, 0.75, 0.5),
    ),
}
ALL = pytest.mark.parametrize("case", CASES)


@ALL
@pytest.mark.parametrize("T", [0, 1, 2, 5, 33, 65])
@pytest.mark.parametrize("B", [1, 33])
def test_equals_the_definition(case, T, B):
    ours, definition = CASES[case]
    data = batch(T, B)
    result = ours(*data)
    assert result.shape == (T, B)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), definition(*(x.numpy() for x in data)), **TOLERANCE)


@ALL
@pytest.mark.parametrize("B", [*EDGES, CPU_BLOCK - 1, CPU_BLOCK, CPU_BLOCK + 1, 2 * CPU_BLOCK + 3])
def test_columns_do_not_know_their_neighbours(case, B):
    data = batch(7, B, seed=2)
    together = CASES[case][0](*data)
    alone = [CASES[case][0](*(x[:, b : b + 1].contiguous() for x in data)) for b in range(B)]
    assert together.shape == (7, B)
    np.testing.assert_array_equal(together.numpy(), torch.cat([together[:, :0], *alone], dim=1).numpy())


@ALL
def test_nothing_leaks_across_an_end(case):
    value, reward, discount, rho = batch(10, 3, seed=1, ends=0.0)
    discount[4] = 0.0
    before = CASES[case][0](value, reward, discount, rho)
    later_value, later_reward = value.clone(), reward.clone()
    later_value[5:] += 100.0
    later_reward[5:] += 100.0
    after = CASES[case][0](later_value, later_reward, discount, rho)
    np.testing.assert_array_equal(before[:5], after[:5])  # exactly: what lies behind is multiplied by 0
    assert (before[5:] != after[5:]).all()  # and the change was felt where it should be


def test_a_time_limit_bootstraps_from_the_true_final_state():
    gamma, T, B = 0.9, 6, 2
    value, reward, _, rho = batch(T, B, seed=3)
    terminated, truncated = torch.zeros(T, B, dtype=torch.bool), torch.zeros(T, B, dtype=torch.bool)
    truncated[2, 0] = True
    terminated[3, 1] = True
    truncated[4, 1] = terminated[4, 1] = True  # both: it has terminated
    final_at, final_value = torch.tensor([[2, 0], [3, 1], [4, 1]]), torch.tensor([5.0, 7.0, 9.0])
    kept = reward.clone()
    folded, discount = returns.reward_and_discount(reward, terminated, truncated, final_at, final_value, gamma)
    np.testing.assert_array_equal(reward, kept)

    # column 0: the game up to the limit, alone, with V(final) as its bootstrap
    alone_value = torch.cat([value[:3, :1], torch.tensor([[5.0]])])
    constant = torch.full((3, 1), gamma)
    for ours in (
        lambda v, r, d, p: returns.gae(v, r, d, 0.8),
        lambda v, r, d, p: returns.n_step(v, r, d, 2),
        lambda v, r, d, p: returns.vtrace(v, r, d, p),
    ):
        whole = ours(value, folded, discount, rho)[:3, :1]
        alone = ours(alone_value, reward[:3, :1].contiguous(), constant, rho[:3, :1].contiguous())
        np.testing.assert_allclose(whole, alone, rtol=1e-6, atol=1e-6)  # one product is rounded earlier
    expected = kept.clone()
    expected[2, 0] += torch.tensor(gamma) * 5.0  # and nothing at the two terminations
    np.testing.assert_array_equal(folded, expected)
    ends = torch.full((T, B), gamma)
    ends[2, 0] = ends[3, 1] = ends[4, 1] = 0.0
    np.testing.assert_array_equal(discount, ends)


def test_a_truncation_without_its_final_state_is_refused():
    no, yes = torch.zeros(2, 1, dtype=torch.bool), torch.tensor([[False], [True]])
    nowhere = torch.zeros(0, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"\[\[1, 0\]\]"):
        returns.reward_and_discount(torch.zeros(2, 1), no, yes, nowhere, torch.zeros(0), 0.9)
    returns.reward_and_discount(torch.zeros(2, 1), yes, yes, nowhere, torch.zeros(0), 0.9)  # it has terminated


def test_known_values():
    """Two steps by hand: delta = [1 + 0.5 * 2 - 1, 2 + 0.5 * 4 - 2] = [1, 2]."""
    value, reward = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[1.0], [2.0]])
    discount, half = torch.tensor([[0.5], [0.5]]), torch.tensor([[0.5], [2.0]])
    assert returns.gae(value, reward, discount, 0.5).tolist() == [[1.5], [2.0]]
    assert returns.n_step(value, reward, discount, 1).tolist() == [[2.0], [4.0]]
    assert returns.n_step(value, reward, discount, 2).tolist() == [[3.0], [4.0]]
    assert returns.vtrace(value, reward, discount, half).tolist() == [[2.0], [4.0]]  # 1 + 0.5 + 0.5 * 0.5 * 2
    assert returns.vtrace(value, reward, discount, half, math.inf, math.inf).tolist() == [[2.5], [6.0]]


def test_on_policy_vtrace_is_gae():
    value, reward, discount, _ = batch(20, 4, seed=4)
    target = returns.vtrace(value, reward, discount, torch.ones(20, 4), lambda_=0.9)
    # equal up to the rounding of one sum
    np.testing.assert_allclose(target, returns.gae(value, reward, discount, 0.9) + value[:-1], rtol=1e-6, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 45), st.integers(0, 2**31))
def test_n_step_equals_the_definition_for_any_size(T, B, n, seed):
    value, reward, discount, _ = batch(T, B, seed)
    expected = reference.n_step(value.numpy(), reward.numpy(), discount.numpy(), n)
    np.testing.assert_allclose(returns.n_step(value, reward, discount, n), expected, **TOLERANCE)


def test_nan_is_passed_on_not_clipped():
    value, reward, discount, rho = batch(4, 2, ends=0.0)
    rho[2, 0] = math.nan
    seen = returns.vtrace(value, reward, discount, rho).isnan()
    np.testing.assert_array_equal(seen, [[True, False], [True, False], [True, False], [False, False]])


def test_results_carry_no_gradient_and_do_not_touch_the_inputs():
    data = batch(5, 3)
    data[0].requires_grad_()
    kept = [x.detach().clone() for x in data]
    for ours, _ in CASES.values():
        assert not ours(*data).requires_grad
    for x, y in zip(data, kept, strict=True):
        np.testing.assert_array_equal(x.detach(), y)


T, B = 4, 3
BAD = {
    "value must be float32, got torch.float64": {"value": torch.zeros(T + 1, B, dtype=torch.float64)},
    r"value must be \[5, 3\] beside reward \[4, 3\], got \[4, 3\]": {"value": torch.zeros(T, B)},
    r"discount must be \[4, 3\] beside reward \[4, 3\], got \[4, 2\]": {"discount": torch.zeros(T, B - 1)},
    r"reward must be \[T, B\], got \[4\]": {"reward": torch.zeros(T)},
    "discount must be contiguous": {"discount": torch.zeros(B, T).T},
    "value is on meta": {"value": torch.zeros(T + 1, B, device="meta")},
    "reward must be on the CPU or on a CUDA device, got meta": {"reward": torch.zeros(T, B, device="meta")},
}


@pytest.mark.parametrize("message", BAD)
@pytest.mark.parametrize("name", ["gae", "n_step", "vtrace"])
def test_refuses_by_name(message, name):
    good = {"value": torch.zeros(T + 1, B), "reward": torch.zeros(T, B), "discount": torch.zeros(T, B)}
    last = {"gae": {"lambda_": 0.9}, "n_step": {"n": 2}, "vtrace": {"rho": torch.ones(T, B)}}[name]
    getattr(returns, name)(**good, **last)
    with pytest.raises(ValueError, match=message):
        getattr(returns, name)(**(good | BAD[message]), **last)


def test_refuses_parameters_out_of_range():
    value, reward, discount, rho = batch(T, B)
    for lambda_ in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="lambda_"):
            returns.gae(value, reward, discount, lambda_)
        with pytest.raises(ValueError, match="lambda_"):
            returns.vtrace(value, reward, discount, rho, lambda_=lambda_)
    with pytest.raises(ValueError, match="n must be >= 1, got 0"):
        returns.n_step(value, reward, discount, 0)
    for bound in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="rho_bar and c_bar"):
            returns.vtrace(value, reward, discount, rho, rho_bar=bound)
        with pytest.raises(ValueError, match="rho_bar and c_bar"):
            returns.vtrace(value, reward, discount, rho, c_bar=bound)


def test_the_extension_checks_for_itself():
    """It is handed addresses: a wrong shape that came so far must not be read."""
    value, reward = np.zeros((T + 1, B), np.float32), np.zeros((T, B), np.float32)
    for bad in (reward, value[:, :2].copy(), np.zeros(B, np.float32)):
        for call in (
            lambda bad=bad: _core.gae(bad, reward, reward, 0.5),
            lambda bad=bad: _core.n_step(bad, reward, reward, 1),
            lambda bad=bad: _core.vtrace(bad, reward, reward, reward, 1.0, 1.0, 1.0),
        ):
            with pytest.raises(ValueError, match="value must be"):
                call()
    for bad in (value.astype(np.float64), value.astype(np.int16), np.asfortranarray(value)):
        with pytest.raises(TypeError):
            _core.gae(bad, reward, reward, 0.5)
    with pytest.raises(ValueError, match="discount must be"):
        _core.gae(value, reward, value, 0.5)
    with pytest.raises(ValueError, match="rho must be"):
        _core.vtrace(value, reward, reward, value, 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="n must be"):
        _core.n_step(value, reward, reward, 0)
    for lambda_ in (-1.0, 2.0, math.nan):
        with pytest.raises(ValueError, match="lambda_"):
            _core.gae(value, reward, reward, lambda_)


@needs_build
def test_the_cuda_module_loads_without_a_device():
    from rlplatform import _cuda

    status = _cuda.status()
    assert status["runtime"] >= 12000
    assert (status["devices"] == 0) == bool(status["message"])


@needs_build
@needs_gpu
@ALL
@pytest.mark.parametrize("B", EDGES)
@pytest.mark.parametrize("T", [0, 1, 33])
def test_gpu_equals_cpu_to_the_bit(case, T, B):
    data = batch(T, B, seed=5)
    on_gpu = CASES[case][0](*(x.cuda() for x in data))
    assert on_gpu.is_cuda
    np.testing.assert_array_equal(on_gpu.cpu(), CASES[case][0](*data))


@needs_build
@needs_gpu
@ALL
def test_gpu_runs_on_the_current_stream_and_in_a_graph(case):
    data = [x.cuda() for x in batch(33, 100, seed=6)]
    expected = CASES[case][0](*data)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = CASES[case][0](*data)
    data[1].add_(1.0)
    graph.replay()
    torch.cuda.synchronize()
    np.testing.assert_array_equal(captured.cpu(), CASES[case][0](*data).cpu())
    assert not torch.equal(captured, expected)
