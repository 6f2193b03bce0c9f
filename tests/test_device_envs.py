"""Environments as tensors beside the CPU's batch: the loop that runs a GPU's threads here, and the GPU where there is one."""

import importlib.util

import numpy as np
import pytest
import torch

from rlplatform import _core
from rlplatform.device_types import DeviceStep, empty_step
from rlplatform.envs import CatchProtocol, ControlProtocol, MinAtarProtocol, make, make_on_device
from rlplatform.types import Step

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device: listed in evaluation/bench/GPU.md"
)
needs_build = pytest.mark.skipif(
    importlib.util.find_spec("rlplatform._cuda") is None, reason="no CUDA kernels: nvcc was not found at build time"
)
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[needs_gpu, needs_build])])

TILE = 32  # tile_size of csrc/env_tiles.hpp
EDGES = [1, TILE - 1, TILE, TILE + 1, 2 * TILE, 257]
MINATAR = [f"minatar/{game}" for game in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")]
SAME_BITS = ["catch", "control/CartPole", *MINATAR]  # on every machine: no sine, no logarithm
WAVES = ["control/Acrobot", "control/MountainCar", "control/MountainCarContinuous", "control/Pendulum"]
CAPPED = {  # games that end soon, whatever one does
    "catch": CatchProtocol(7, 5),
    "minatar": MinAtarProtocol(sticky=0.25, ramping=True, episode_steps=23),
    "control": ControlProtocol(
        acrobot_steps=19, cartpole_steps=23, mountain_car_steps=17, mountain_car_continuous_steps=13, pendulum_steps=11
    ),
}


def pair(task, n, device, seed=3, first_env=5, protocol="capped"):
    if protocol == "capped":
        protocol = CAPPED[task.partition("/")[0]]
    return (
        make(task, n, seed, first_env, protocol=protocol),
        make_on_device(task, n, seed, first_env, protocol=protocol, device=device),
    )


def chosen(rng, batch):
    """Random actions as the CPU takes them, and the same on the device."""
    if batch.spec.actions:
        return rng.integers(batch.spec.actions, size=batch.n)
    return rng.uniform(-1, 1, size=(batch.n, *batch.spec.action_shape)).astype(np.float32)


def there(action, batch):
    return torch.from_numpy(action).to(batch.device)


def host(step: DeviceStep) -> Step:
    """The CPU's form of a step: last frames of those games alone that ended."""
    frame, reward, terminated, truncated, reset, final_frame = (x.cpu().numpy() for x in step)
    return Step(frame, reward, terminated, truncated, reset, final_frame[reset], np.flatnonzero(reset))


def assert_same(ours, theirs):
    for name, x, y in zip(Step._fields, ours, theirs, strict=True):
        assert x.dtype == y.dtype, name
        np.testing.assert_array_equal(x, y, err_msg=name)


def same_state(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def both(cpu, device, rng, steps):
    """Play on in both; how many games ended."""
    ended = 0
    for _ in range(steps):
        action = chosen(rng, cpu)
        expected = cpu.step(action)
        assert_same(host(device.step(there(action, device))), expected)
        ended += len(expected.final_env)
    device.check()
    return ended


@DEVICES
@pytest.mark.parametrize("n", EDGES)
@pytest.mark.parametrize("task", SAME_BITS)
def test_plays_as_the_cpu_does_to_the_bit(task, n, device):
    cpu, ours = pair(task, n, device)
    assert (ours.spec, ours.n, ours.first_env) == (cpu.spec, n, 5)
    assert ours.device.startswith(device)
    np.testing.assert_array_equal(ours.reset().cpu(), cpu.reset())
    assert both(cpu, ours, np.random.default_rng(0), 60) >= 2 * n
    same_state(ours.state_dict(), cpu.state_dict())


@DEVICES
@pytest.mark.parametrize("task", SAME_BITS)
def test_long_play_by_the_suites_own_protocol(task, device):
    cpu, ours = pair(task, 40, device, protocol=None)
    np.testing.assert_array_equal(ours.reset().cpu(), cpu.reset())
    ended = both(cpu, ours, np.random.default_rng(1), 2600 if task == "minatar/Freeway" else 500)
    assert ended >= 40  # Freeway's 2,501 steps, too
    same_state(ours.state_dict(), cpu.state_dict())


@pytest.mark.parametrize("task", WAVES)
def test_sines_and_cosines_on_the_cpu_are_the_cpu_s(task):
    """What differs on a GPU is its mathematical library alone: the loop over its threads' code has the CPU's bits."""
    cpu, ours = pair(task, 33, "cpu")
    np.testing.assert_array_equal(ours.reset(), cpu.reset())
    assert both(cpu, ours, np.random.default_rng(0), 60) >= 2 * 33


@needs_gpu
@needs_build
@pytest.mark.parametrize("task", WAVES)
def test_sines_and_cosines_on_the_gpu(task):
    """One step from equal states, again and again: CUDA's double sine and cosine are within 2 units in the last place of the
    true ones, the CPU's within 1. The step multiplies that by less than 100; the frame is then a float32, one unit of which is 1.2e-7."""
    cpu, ours = pair(task, 257, "cuda", protocol=None)
    np.testing.assert_allclose(ours.reset().cpu(), cpu.reset(), rtol=1.3e-7, atol=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(100):
        ours.load_state_dict(cpu.state_dict())
        action = chosen(rng, cpu)
        expected, found = cpu.step(action), host(ours.step(there(action, ours)))
        np.testing.assert_allclose(found.frame, expected.frame, rtol=1.3e-7, atol=1e-12)
        np.testing.assert_allclose(found.reward, expected.reward, rtol=1.3e-7, atol=1e-12)
        np.testing.assert_array_equal(found.reset, expected.reset)


@DEVICES
@pytest.mark.parametrize("task", SAME_BITS)
def test_states_cross_between_the_two(task, device):
    rng = np.random.default_rng(2)
    cpu, ours = pair(task, 35, device)
    cpu.reset()
    for _ in range(15):
        cpu.step(chosen(rng, cpu))
    memory = ours._memory()
    ours.load_state_dict(cpu.state_dict())
    assert ours._memory() == memory  # a captured graph goes on with it
    both(cpu, ours, rng, 40)
    back, _ = pair(task, 35, device, seed=99)
    back.load_state_dict(ours.state_dict())
    both(back, ours, rng, 40)


@DEVICES
@pytest.mark.parametrize("task", ["catch", "minatar/Breakout", "control/CartPole"])
def test_results_go_where_they_are_told(task, device):
    """A row of a larger tensor at any alignment; nothing beside it is written, nor the last frame of a game that goes on."""
    cpu, ours = pair(task, 35, device)
    dtype = getattr(torch, ours.spec.frame_dtype)
    cells = 35 * int(np.prod(ours.spec.frame_shape))
    rng = np.random.default_rng(4)
    for before in (0, 1, 3, 4, 8, 16):
        room = torch.full((3, 2 * before + cells), 7, dtype=dtype, device=device)
        first, frame, final = (row[before : before + cells].view(35, *ours.spec.frame_shape) for row in room)
        assert ours.reset(first) is first
        np.testing.assert_array_equal(first.cpu(), cpu.reset())
        for _ in range(10):
            action = chosen(rng, cpu)
            out = empty_step(ours.spec, device, 35)._replace(frame=frame, final_frame=final)
            expected = cpu.step(action)
            kept = final.clone()
            assert ours.step(there(action, ours), out) is out
            assert_same(host(out), expected)
            np.testing.assert_array_equal(final.cpu()[~expected.reset], kept.cpu()[~expected.reset])
        assert (room[:, :before] == 7).all()
        assert (room[:, before + cells :] == 7).all()


@DEVICES
def test_frames_too_large_for_a_tile(device):
    for rows, columns in ((32, 48), (40, 40)):  # the largest that fits, and one that is drawn in place
        cpu, ours = pair("catch", 33, device, protocol=CatchProtocol(rows, columns))
        np.testing.assert_array_equal(ours.reset().cpu(), cpu.reset())
        assert both(cpu, ours, np.random.default_rng(0), 2 * rows) >= 66


WRONG = {"catch": [-1, 3, 2**40], "minatar/Seaquest": [-1, 6], "control/Pendulum": [1.001, -1.001, np.nan, np.inf]}


@DEVICES
@pytest.mark.parametrize("task", WRONG)
def test_what_is_no_action_is_found_when_the_device_is_waited_for(task, device):
    cpu, ours = pair(task, 70, device)
    cpu.reset(), ours.reset()
    action = chosen(np.random.default_rng(0), cpu)
    expected = cpu.step(action)
    before = ours.state_dict()
    for wrong in WRONG[task]:
        ours.load_state_dict(before)
        bad = action.copy()
        bad[[33, 69]] = wrong
        found = host(ours.step(there(bad, ours)))
        with pytest.raises(
            ValueError, match=r"^2 action\(s\) not in \[.*first environment of the batch among theirs: 33$"
        ):
            ours.check()
        ours.check()  # said once
        stood = np.isin(np.arange(70), [33, 69])
        np.testing.assert_array_equal(np.isnan(found.reward), stood)
        np.testing.assert_array_equal(found.reward[~stood], expected.reward[~stood])
        np.testing.assert_array_equal(found.frame[~stood], expected.frame[~stood])
        assert not found.reset[stood].any()
        after = ours.state_dict()
        np.testing.assert_array_equal(after["state"][stood], before["state"][stood])
        np.testing.assert_array_equal(after["counter"][stood], before["counter"][stood])
        np.testing.assert_array_equal(after["state"][~stood], cpu.state_dict()["state"][~stood])


ZEROS = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (ZEROS.numpy(), "action must be a tensor on cpu, got ndarray"),
        (ZEROS.int(), r"action must be torch.int64 \[4\] on cpu, got torch.int32 \[4\] on cpu"),
        (ZEROS[:3], r"got torch.int64 \[3\]"),
        (ZEROS.to("meta"), "on meta"),
        (torch.zeros(8, dtype=torch.int64)[::2], "action must be contiguous"),
    ],
)
def test_a_wrong_tensor_is_refused(action, message):
    batch = make_on_device("catch", 4, 0, device="cpu")
    with pytest.raises(ValueError, match=r"reset\(\) the environments before the first step\(\)"):
        batch.step(ZEROS)
    batch.reset()
    before = batch.state_dict()
    with pytest.raises(ValueError, match=message):
        batch.step(action)
    same_state(batch.state_dict(), before)


@pytest.mark.parametrize("field", DeviceStep._fields)
def test_wrong_room_is_refused_by_name(field):
    batch = make_on_device("catch", 4, 0, device="cpu")
    batch.reset()
    good = empty_step(batch.spec, "cpu", 4)
    before = batch.state_dict()
    for bad in (getattr(good, field)[:3], getattr(good, field).double(), good.frame.transpose(1, 2)):
        with pytest.raises(ValueError, match=f"out.{field} must be"):
            batch.step(ZEROS, good._replace(**{field: bad}))
    with pytest.raises(ValueError, match="out must be"):
        batch.reset(good.frame[:3])
    same_state(batch.state_dict(), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env": "minatar/Breakout"}, "its env is 'minatar/Breakout', here it is 'catch'"),
        ({"version": 2}, "its version is 2"),
        ({"settings": {"rows": 9, "columns": 5}}, "its settings is"),
        ({"state": np.zeros((2, 4), np.int64)}, "shape"),
        ({"state": np.zeros((3, 3), np.int64)}, "of 2 environments of catch, but of 3"),
        ({"state": np.zeros((2, 3), np.int32)}, "not a state of 2 environments of catch"),
        ({"state": np.array([[0, 0, 0], [9, 0, 0]])}, "environment 1 of the batch has no such state"),
        ({"counter": np.zeros(3, np.uint64)}, r"counter is uint64 \[3\]"),
        ({"counter": np.zeros(2, np.int64)}, r"counter is int64 \[2\]"),
        ({"key": np.zeros((2, 1), np.uint64)}, r"key is uint64 \[2, 1\]"),
    ],
)
def test_a_foreign_state_is_refused_and_changes_nothing(change, message):
    batch = make_on_device("catch", 2, 0, device="cpu")
    batch.reset()
    before = batch.state_dict()
    with pytest.raises(ValueError, match=message):
        batch.load_state_dict({**before, **change})
    same_state(batch.state_dict(), before)


def test_closed_environments_say_so():
    batch = make_on_device("catch", 4, 0, device="cpu")
    state = batch.state_dict()
    batch.close(), batch.close()
    for call in (
        batch.reset,
        batch.check,
        batch.state_dict,
        lambda: batch.step(ZEROS),
        lambda: batch.load_state_dict(state),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_what_has_no_form_on_a_device_is_refused_by_name():
    with pytest.raises(
        ValueError, match="AtariBatch plays on the CPU alone; on a device there are catch, control, minatar"
    ):
        make_on_device("atari/Pong", 2, 0, device="cpu")
    with pytest.raises(ValueError, match="cpu or cuda, not on 'tpu'"):
        make_on_device("catch", 2, 0, device="tpu")
    with pytest.raises(ValueError, match="n must be >= 1"):
        make_on_device("catch", 0, 0, device="cpu")
    with pytest.raises(ValueError, match="played by a MinAtarProtocol"):
        make_on_device("minatar/Breakout", 2, 0, protocol=CatchProtocol(4, 4), device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_default_device_is_refused():
    with pytest.raises(RuntimeError, match="environments on cuda"):
        make_on_device("catch", 2, 0)


@needs_build
@pytest.mark.parametrize("task", [*SAME_BITS, *WAVES])
def test_the_gpu_module_lays_states_out_as_the_cpu_s_does(task):
    """Saving and loading are the host's work in both extensions, so this needs no device."""
    from rlplatform import _cuda
    from rlplatform.envs.device import KINDS

    cpu, _ = pair(task, 40, "cpu")
    rng = np.random.default_rng(0)
    cpu.reset()
    for _ in range(30):
        cpu.step(chosen(rng, cpu))
    saved = np.array(cpu.state_dict()["state"])
    family, _, game = task.partition("/")
    kinds = [KINDS[family](module, game, cpu.state_dict()["settings"]) for module in (_core, _cuda)]
    assert kinds[0].state_bytes == kinds[1].state_bytes
    for kind in kinds:
        assert kind.fresh(3).shape == (3, kind.state_bytes)
        np.testing.assert_array_equal(kind.save(kind.load(saved)), saved)
        with pytest.raises(ValueError, match=r"state must have shape \[N, |env must have shape \[N, "):
            kind.load(saved[:, :-1].copy())
        with pytest.raises(ValueError, match=r"env must have shape \[N, "):
            kind.save(kind.fresh(2)[:, :-1].copy())


@needs_gpu
@needs_build
@pytest.mark.parametrize("task", SAME_BITS)
def test_a_step_is_captured_into_a_graph_and_replayed(task):
    cpu, ours = pair(task, 100, "cuda")
    np.testing.assert_array_equal(ours.reset().cpu(), cpu.reset())
    rng = np.random.default_rng(5)
    action, out = there(chosen(rng, cpu), ours), empty_step(ours.spec, ours.device, 100)
    state = ours.state_dict()
    ours.step(action, out)  # CUDA loads a kernel at its first launch, which a capture may not do
    ours.load_state_dict(state)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ours.step(action, out)
    same_state(ours.state_dict(), state)  # captured, not run
    for _ in range(60):
        now = chosen(rng, cpu)
        action.copy_(there(now, ours))
        graph.replay()
        assert_same(host(out), cpu.step(now))
    ours.check()


@needs_gpu
@needs_build
def test_steps_run_on_the_current_stream():
    cpu, ours = pair("minatar/Breakout", 4096, "cuda")
    rng, side = np.random.default_rng(6), torch.cuda.Stream()
    action = chosen(rng, cpu)
    cpu.reset()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        ours.reset()
        torch.cuda._sleep(20_000_000)  # what runs on another stream is now ahead of what this one has yet to do
        wished = torch.zeros_like(there(action, ours))
        wished.copy_(there(action, ours))
        out = ours.step(wished)
    side.synchronize()
    assert_same(host(out), cpu.step(action))


def test_the_bench_compares_and_counts():
    from rlplatform.evaluation.bench import device_envs

    device_envs.compare("minatar/Breakout", "cpu", n=33)
    row = device_envs.measure("minatar/Breakout", 33, 2, "cpu", lambda play: play() or 0.5, lambda play: play)
    assert row["bytes"] == 407
    assert row["graph_per_s"] == round(33 * device_envs.STEPS / 0.5)
    assert row["share"] == 1.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_bench_says_that_there_is_no_gpu(monkeypatch):
    from rlplatform.evaluation.bench import device_envs

    monkeypatch.setattr("sys.argv", ["device_envs"])
    with pytest.raises(SystemExit, match="measures a GPU, and torch finds none"):
        device_envs.main()
