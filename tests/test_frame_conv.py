"""Convolutions that skip what is 0: the definition in float64, both ways through, and what is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # its name everywhere
from torch import Tensor, nn

from rlplatform import _core
from rlplatform import frame_conv as module
from rlplatform.agents import pqn_net
from rlplatform.frame_conv import channels_last, frame_conv
from rlplatform.nets import MinAtarCNN
from rlplatform.streams import Stream
from rlplatform.techniques.activations import record
from rlplatform.types import Spec


def frames(one_in: int, *shape: int) -> Tensor:
    rng = np.random.default_rng(one_in)
    return torch.from_numpy(np.where(rng.random(shape) * one_in < 1.0, rng.integers(1, 256, shape), 0).astype(np.uint8))


def layer(outputs: int, channels: int, size: int) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(outputs)
    made = (
        torch.from_numpy(rng.standard_normal(shape, np.float32))
        for shape in ((outputs, channels, size, size), (outputs,))
    )
    weight, bias = (parameter.requires_grad_() for parameter in made)
    return weight, bias


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of how many frames each of our own passes was."""
    seen: list[int] = []
    inner = _core.frame_conv

    def spy(given: np.ndarray, *rest: object) -> None:
        seen.append(len(given))
        inner(given, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(_core, "frame_conv", spy)
    return seen


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("one_in", [1, 20])
def test_both_ways_by_definition(relu, one_in, passes):
    x, (weight, bias) = frames(one_in, 5, 4, 10, 9), layer(16, 4, 3)
    upon = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 8, 7, 16)).astype(np.float32))
    out = frame_conv(x, weight, bias, 1.0 / 255.0, relu=relu)
    by_weight, by_bias = torch.autograd.grad((out * upon).sum(), [weight, bias])
    assert passes == ([5] if one_in == 20 else [])  # dense frames are torch's

    windows = np.lib.stride_tricks.sliding_window_view(
        x.double().numpy() / 255.0, (3, 3), (2, 3)
    )  # [B, C, H', W', 3, 3]
    exact = np.einsum("bcyxij,ocij->byxo", windows, weight.detach().double().numpy()) + bias.detach().double().numpy()
    slope = upon.double().numpy() * (exact > 0.0 if relu else 1.0)
    np.testing.assert_allclose(out.detach().numpy(), exact.clip(0.0) if relu else exact, rtol=0, atol=1e-5)
    np.testing.assert_allclose(by_weight.numpy(), np.einsum("bcyxij,byxo->ocij", windows, slope), rtol=0, atol=1e-4)
    np.testing.assert_allclose(by_bias.numpy(), slope.sum((0, 1, 2)), rtol=0, atol=1e-4)


def test_layouts_and_dtypes(passes):
    """Frames and weights that do not lie in order in memory; and what only torch takes: other numbers, strides."""
    x, (weight, bias) = frames(20, 3, 9, 8, 4).permute(0, 3, 1, 2), layer(6, 4, 3)
    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    exact = F.conv2d(x.double(), weight.double() * 0.5, bias.double()).permute(0, 2, 3, 1)
    out = frame_conv(x, weight, bias, 0.5)
    (by_weight,) = torch.autograd.grad(out.square().sum(), [weight])
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        by_weight.double(), torch.autograd.grad(exact.square().sum(), [weight])[0].double(), rtol=1e-5, atol=1.0
    )
    assert passes == [3]
    torch.testing.assert_close(frame_conv(x.float(), weight, bias, 0.5).double(), exact, rtol=1e-5, atol=1e-4)
    wide = frame_conv(x, weight.bfloat16(), bias.bfloat16(), 0.5)
    assert wide.dtype == torch.bfloat16
    torch.testing.assert_close(wide.double(), exact, rtol=2e-2, atol=2.0)
    torch.testing.assert_close(
        frame_conv(x, weight, bias, 0.5, stride=2).double(), exact[:, ::2, ::2], rtol=1e-5, atol=1e-4
    )
    assert passes == [3]
    with torch.inference_mode():
        torch.testing.assert_close(frame_conv(x, weight, bias, 0.5), out.detach())
    assert frame_conv(x[:0], weight, bias).shape == (0, 7, 6, 6)
    assert passes == [3, 3, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_go_last_and_numbers_stay(channels, dtype):
    x = frames(1, 3, channels, 5, 4)
    for given in (x, x.float(), x.permute(0, 1, 3, 2), x[:0], x[::2]):
        out = channels_last(given, dtype)
        assert out.dtype == dtype
        assert torch.equal(out.float(), given.float())
        assert out.is_contiguous(memory_format=torch.channels_last)


def test_as_many_set_bytes_as_torch_would_rather_have(passes):
    x, (weight, bias) = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), layer(1, 1, 3)
    x.view(-1)[: 32 // module.FEW] = 7
    frame_conv(x, weight, bias)
    assert passes == [2]
    x[1, 0, 3, 3] = 1
    frame_conv(x, weight, bias)
    assert passes == [2]


def test_a_weight_that_is_no_number_reaches_the_maps():
    x, (weight, bias) = frames(20, 3, 4, 8, 8), layer(6, 4, 3)
    weight.data[2] = torch.nan
    out = frame_conv(x, weight, bias, relu=True)
    assert bool(out[..., 2].isnan().any())
    assert bool(out[..., [0, 1, 3, 4, 5]].isfinite().all())


@pytest.mark.parametrize("one_in", [1, 20])
def test_who_watches_sees_the_layer_and_its_units(one_in, passes):
    net = MinAtarCNN(1, (4, 8, 7))
    net.init_(Stream(0, "init"))
    x = frames(one_in, 3, 1, 4, 8, 7)
    layers, out = record(nn.ModuleDict({"encoder": net}), net, x)
    assert len(passes) == (one_in == 20)
    assert {name: tuple(h.shape) for name, h in layers.items()} == {"encoder": (3, 16, 6, 5)}
    assert torch.equal(layers["encoder"].permute(0, 2, 3, 1).flatten(1), out)
    assert torch.equal(net(x), out)
    pqn = pqn_net.Net("minatar", 1, 8, 1, Spec((4, 8, 7), "uint8", 1, 3))
    pqn.init_(Stream(0, "init"))
    layers, _ = record(pqn, pqn, x)
    assert {name: tuple(h.shape) for name, h in layers.items()} == {"convs.0": (3, 16, 6, 5), "hidden.0.linear": (3, 8)}


def test_shapes_that_do_not_fit_are_refused():
    x, weight, bias = frames(20, 2, 4, 8, 8).numpy(), np.zeros((6, 4, 3, 3), np.float32), np.zeros(6, np.float32)
    out, by_bias = np.zeros((2, 6, 6, 6), np.float32), np.zeros(6, np.float32)
    for given, message in (
        ((x[0], weight, bias, 1.0, False, out), "frames must be"),
        ((x, weight[:, :3].copy(), bias, 1.0, False, out), "weight must be"),
        ((x[:, :, :2].copy(), weight, bias, 1.0, False, out), "weight must be"),
        ((x, weight[..., :2].copy(), bias, 1.0, False, out), "weight must be"),
        ((x, weight, bias[:5], 1.0, False, out), "bias must be"),
        ((x, weight, bias, 1.0, False, out[:1]), "out must be"),
        ((x, weight, bias, 1.0, False, out[:, :5].copy()), "out must be"),
        ((x, weight, bias, 1.0, False, np.zeros((2, 6, 6, 5), np.float32)), "out must be"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.frame_conv(*given)
    for given, message in (
        ((x, weight, 1.0, out[:1], out, weight.copy(), by_bias), "out must be"),
        ((x, weight, 1.0, None, out[:1], weight.copy(), by_bias), "by_out must be"),
        ((x, weight, 1.0, None, out, weight[:5].copy(), by_bias), "by_weight must be"),
        ((x, weight, 1.0, None, out, weight.copy(), by_bias[:5]), "by_bias must be"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.frame_conv_gradients(*given)
    with pytest.raises(TypeError):
        _core.frame_conv(x, weight.astype(np.float64), bias, 1.0, False, out)  # type: ignore[arg-type]
