"""What a learner on a device is made of: graphs, streams, the way between host and device."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gpu import needs_build, needs_gpu
from rlplatform import device_augment, experiment, graphs
from rlplatform.agents.spr_config import Config
from rlplatform.device import products, require
from rlplatform.device_augment import Augmentation
from rlplatform.device_call import DeviceCall
from rlplatform.device_streams import DeviceStream
from rlplatform.graphs import Graphed
from rlplatform.learner import LOOK_EVERY, Learner
from rlplatform.runconfig import make_agent, resolve_config
from rlplatform.rundir import RunDir, RunDirError
from rlplatform.staging import Download, Field, Upload, field_of
from rlplatform.streams import Stream
from rlplatform.techniques import augment
from rlplatform.types import empty_episodes

CPU = torch.device("cpu")
DEVICES = ["cpu", pytest.param("cuda", marks=[needs_gpu, needs_build])]

# -- graphs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEVICES)
def test_every_call_is_one_execution_captured_or_not(name: str) -> None:
    device = torch.device(name)
    total, by = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))
    ran = []

    def step() -> None:
        total.add_(by)
        ran.append(1)

    graphed = Graphed(step, device)
    for call in range(1, 11):
        by.fill_(call)  # read when it runs
        graphed()
        assert int(total) == call * (call + 1) // 2
    assert graphed.captured == (name == "cuda")
    assert len(ran) == (graphs.WARM_UP + 1 if name == "cuda" else 10)
    graphed.forget()
    graphed()
    assert not graphed.captured
    assert int(total) == 65


@needs_gpu
def test_what_waits_for_the_device_is_refused_at_the_capture() -> None:
    """In a process of its own: torch's allocators may go on as if the failed capture were under way."""
    program = """if True:
        import torch
        from rlplatform.graphs import WARM_UP, Graphed
        x = torch.ones((), device="cuda")
        graphed, before = Graphed(lambda: x.mul_(float(x)), torch.device("cuda")), torch.cuda.current_stream()
        for _ in range(WARM_UP):
            graphed()
        try:
            graphed()
        except RuntimeError as error:
            assert torch.cuda.current_stream() == before
            print(error)
    """
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program], check=False, capture_output=True, text=True, timeout=120
    )
    assert "cannot be captured as a CUDA graph" in ran.stdout, ran.stderr


# -- random streams -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEVICES)
def test_a_stream_on_a_device_draws_what_a_stream_draws(name: str) -> None:
    for seed, counter in (
        (0, 0),
        (1, 2**32 - 3),
        (5, 2**63 - 2),
    ):  # keys of both signs; carries, and past the largest int64
        host = Stream(seed, "noise", 2)
        host.counter = counter
        device = DeviceStream(host, name)
        for shape in ((), (1,), (3,), (4,), (5, 7), (0, 3), (2, 2_049)):
            np.testing.assert_array_equal(host.uniform(*shape), device.uniform(*shape).cpu())
            normal = host.normal(*shape)
            # The CPU's own arithmetic; a GPU's log, cos and sin are off by 1e-6 at most at |x| <= 5.77.
            np.testing.assert_allclose(device.normal(*shape).cpu(), normal, rtol=0, atol=0 if name == "cpu" else 1e-6)
            np.testing.assert_array_equal(host.integers(8, *shape), device.integers(8, *shape).cpu())
        assert device.state_dict() == host.state_dict()
        other, at = DeviceStream(Stream(9, "x"), name), 0
        at = other.state.data_ptr()
        other.load_state_dict(device.state_dict())
        assert other.state.data_ptr() == at
        assert torch.equal(other.uniform(3), device.uniform(3))
    with pytest.raises(ValueError, match="bound must be in"):
        device.integers(0, 2)


# -- augmentation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", DEVICES)
def test_images_on_a_device_are_augmented_as_on_the_host(name: str, dtype: torch.dtype) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 10, 6), dtype=np.uint8)
    drawn = augment.draw(Stream(1, "augment"), 9)
    drawn.shift[0], drawn.shift[1] = (-4, 3), (3, -4)
    expected = augment.apply([images], drawn, dtype)
    given = Augmentation(*(torch.from_numpy(x).to(name) for x in drawn))
    ours = device_augment.apply(torch.from_numpy(images).to(name), given, dtype)
    assert ours.dtype == dtype
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(ours.cpu(), expected)


# -- the way between host and device ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEVICES)
def test_what_is_sent_arrives_whole_and_stays_where_it_is(name: str) -> None:
    device = torch.device(name)
    fields = {
        "bytes": Field((3, 5), torch.uint8), "none": Field((2, 0), torch.bool), "flag": Field((7,), torch.bool),
        "number": Field((), torch.float64), "half": Field((3,), torch.bfloat16), "long": Field((2, 2), torch.int64),
    }  # fmt: skip
    upload = Upload(fields, device)
    at = [t.data_ptr() for t in upload.device.values()]
    for turn in range(3):
        given = {key: torch.full(f.shape, turn + 1, dtype=f.dtype) for key, f in fields.items()}
        for key, tensor in upload.open().items():
            tensor.copy_(given[key])
        upload.send()
        for key, tensor in upload.device.items():
            assert tensor.dtype == fields[key].dtype
            assert torch.equal(tensor.cpu(), given[key]), key
            assert tensor.data_ptr() % 64 == 0 or not tensor.numel()
    assert [t.data_ptr() for t in upload.device.values()] == at


@pytest.mark.parametrize("name", DEVICES)
def test_a_call_from_the_host(name: str) -> None:
    device = torch.device(name)
    scale = torch.full((3,), 2.0, device=device)
    call = DeviceCall(
        lambda x, y: x * scale + y.to(torch.float32), [Field((3,), torch.float32), Field((3,), torch.uint8)],
        Field((3,), torch.float32), device,
    )  # fmt: skip
    for turn in range(6):
        x, y = torch.rand(3), torch.full((3,), turn, dtype=torch.uint8)
        scale.fill_(turn)
        np.testing.assert_array_equal(call(x, y), (x * turn + y).numpy())
    with pytest.raises(ValueError, match="shorter"):
        call(x)


def test_a_download_and_fields() -> None:
    download = Download(Field((2,), torch.float32), CPU)
    download.device.copy_(torch.tensor([1.0, 2.0]))
    assert download.wait().tolist() == [0, 0]
    download.start()
    assert download.wait().tolist() == [1, 2]
    assert (
        field_of(np.zeros((2, 1), bool)) == field_of(torch.zeros(2, 1, dtype=torch.bool)) == Field((2, 1), torch.bool)
    )


# -- devices ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["gpu", "cuda:", "cuda:x", "cpu:0", "mps", ""])
def test_a_device_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match='device must be "cpu", "cuda" or "cuda:N", got'):
        require(wrong)


def test_a_gpu_that_is_not_there_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device=cuda:1 cannot be had here: torch .*rlplatform doctor"):
        require("cuda:1")
    with pytest.raises(ValueError, match="device=cuda cannot be had here"):
        make_agent(resolve_config("der", "catch", device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="device=cuda:1 cannot be had here: torch counts 1 from 0"):
        require("cuda:1")
    assert require("cpu") == CPU


def test_an_agent_that_knows_no_devices_is_asked_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        config_class = Config

        def __init__(self, config: Any, spec: Any, streams: int, seed: int) -> None:
            self.made = (streams, seed)

    config = resolve_config("der", "catch", seed=4)
    monkeypatch.setattr("rlplatform.runconfig.resolve", lambda _name: Plain)
    made: Any = make_agent(config)
    assert made.made == (1, 4)
    monkeypatch.setattr("rlplatform.device.require", torch.device)
    with pytest.raises(ValueError, match="device=cuda: .* learns on the CPU alone"):
        make_agent(config, "cuda")


def test_a_run_on_a_device_that_cannot_be_had_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device=cuda cannot be had here"):
        experiment.run(resolve_config("der", "catch", device="cuda"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_may_go_on_on_another_device_and_with_no_other_difference(tmp_path: Path) -> None:
    def opened(text: str) -> str:
        RunDir(tmp_path / "run", {"config.yaml": text}, {}).close()
        return (tmp_path / "run" / "config.yaml").read_text()

    opened("steps: 5\n")  # of a version that knew no devices
    assert opened("steps: 5\ndevice: cpu\n") == "steps: 5\ndevice: cpu\n"
    assert opened("steps: 5\ndevice: cuda\n") == "steps: 5\ndevice: cuda\n"
    with pytest.raises(RunDirError, match="'steps: 5' there, 'steps: 6' asked"):
        opened("steps: 6\ndevice: cpu\n")
    assert (tmp_path / "run" / "config.yaml").read_text() == "steps: 5\ndevice: cuda\n"


def test_what_a_gpu_learned_is_evaluated_on_a_machine_without_one(tmp_path: Path) -> None:
    config = resolve_config("der", "catch", steps=210, eval={"episodes": 1}, agent={"hidden": 8})
    experiment.run(config, tmp_path / "run")
    file = tmp_path / "run" / "config.yaml"
    file.write_text(file.read_text().replace("device: cpu", "device: cuda"))
    read, policy, step = experiment.load_policy(tmp_path / "run")
    assert (read.device, step) == ("cuda", 210)
    assert policy.act(np.zeros((2, 1, 10, 5), np.uint8), Stream(0, "eval"))[0].shape == (2,)


def test_what_products_are_is_put_back() -> None:
    def now() -> tuple[str, str, bool]:
        backends = torch.backends
        return backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision, backends.cudnn.benchmark

    before = now()
    for tf32, expected in ((True, "tf32"), (False, "ieee")):
        with products(tf32=tf32):
            assert now() == (expected, expected, True)
        assert now() == before
    with pytest.raises(KeyError), products(tf32=True):
        raise KeyError
    assert now() == before


# -- losses that lie on a device ------------------------------------------------------------------------------------------


class OnDevice:
    """A number that notes when somebody waits for it."""

    is_cuda = True

    def __init__(self, value: float, looked: list[float]) -> None:
        self.value, self.looked = value, looked

    def __float__(self) -> float:
        self.looked.append(self.value)
        return self.value


def test_a_device_is_not_waited_for_after_every_step_but_now_and_then_and_before_a_checkpoint() -> None:
    looked: list[float] = []
    losses = iter([1.0, 2.0, 3.0, 4.0, float("nan")])
    agent = SimpleNamespace(
        ready=True, steps_per_launch=LOOK_EVERY // 2, observe=lambda _: None, state_dict=dict,
        updates=lambda _count: {"losses/td": OnDevice(next(losses), looked)},
    )  # fmt: skip
    learner = Learner(agent, LOOK_EVERY / 2)  # type: ignore[arg-type]
    one: Any = [SimpleNamespace(reward=np.zeros((1, 1)), episodes=empty_episodes(), version=0)]
    learner.learn(one)
    assert looked == []
    learner.learn(one)
    assert looked == [2.0]
    learner.learn(one)
    assert looked == [2.0]
    learner.state_dict()
    assert looked == [2.0, 3.0]
    learner.learn(one)
    assert looked == [2.0, 3.0, 4.0]
    learner.state_dict()
    assert looked == [2.0, 3.0, 4.0]  # seen already
    learner.learn(one)
    with pytest.raises(FloatingPointError, match="losses/td is nan at agent step 5, update 2500"):
        learner.state_dict()


def test_a_launch_that_jumps_over_the_moment_is_looked_at() -> None:
    looked: list[float] = []
    losses = iter([1.0, 2.0, 3.0, 4.0])
    agent = SimpleNamespace(
        ready=True, steps_per_launch=300, observe=lambda _: None, state_dict=dict,
        updates=lambda _count: {"losses/td": OnDevice(next(losses), looked)},
    )  # fmt: skip
    learner = Learner(agent, 300)  # type: ignore[arg-type]
    one: Any = [SimpleNamespace(reward=np.zeros((1, 1)), episodes=empty_episodes(), version=0)]
    for _ in range(4):
        learner.learn(one)
    assert learner.updates == 1_200
    assert looked == [4.0]
