"""Modules against float64 definitions; noise by its statistics."""

import numpy as np
import pytest
import torch

from reference import c51
from reference import conv as reference
from rlplatform.nets import Flatten, MinAtarCNN, NatureCNN, NoisyLinear, SameConv, encoder, same_padding
from rlplatform.streams import Stream
from rlplatform.types import Spec


def filled(module, seed=0):
    module.init_(Stream(seed, "init"))
    return module


def doubles(*tensors):
    return [t.detach().numpy().astype(np.float64) for t in tensors]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (84, 8, 4, (2, 2)),
        (21, 4, 2, (1, 2)),
        (11, 3, 1, (1, 1)),
        (84, 3, 2, (0, 1)),
        (21, 3, 2, (1, 1)),
        (4, 1, 2, (0, 0)),
    ],
)
def test_same_padding_is_that_of_flax(size, kernel, stride, expected):
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [((12, 9), 8, 4), ((7, 10), 4, 2), ((5, 5), 3, 1), ((6, 3), 2, 3)]
)
def test_same_conv_by_definition(size, kernel, stride):
    rng = np.random.default_rng(1)
    layer = filled(SameConv(3, 5, kernel, stride, size))
    layer.bias.data.copy_(torch.from_numpy(rng.normal(size=5)))
    x = rng.normal(size=(2, 3, *size))
    ours = layer(torch.from_numpy(x).float())
    assert ours.shape[2:] == layer.size
    weight, bias = doubles(layer.weight, layer.bias)
    # float32 against float64: error 3.1e-7 measured
    np.testing.assert_allclose(
        ours.detach().numpy(),
        reference.same_conv(x, weight, bias, stride),
        rtol=1e-5,
        atol=1e-5,
    )


def test_nature_cnn_by_definition_at_full_size():
    rng = np.random.default_rng(2)
    net = filled(NatureCNN(4, (84, 84)))
    for layer in (net.conv1, net.conv2, net.conv3):
        layer.bias.data.copy_(torch.from_numpy(rng.normal(size=len(layer.bias))))
    obs = rng.integers(0, 256, (2, 4, 84, 84), dtype=np.uint8)
    layers = [(*doubles(c.weight, c.bias), c.stride) for c in (net.conv1, net.conv2, net.conv3)]
    ours = net(torch.from_numpy(obs)).detach().numpy()
    assert ours.shape == (2, net.features) == (2, 7744)
    np.testing.assert_allclose(ours, reference.nature(obs, layers), rtol=1e-5, atol=1e-5)  # error 1.5e-6 measured


def test_nature_cnn_without_padding_by_definition():
    """A padded convolution's inner values, at the strides of the paper: 84 -> 20 -> 9 -> 7."""
    net = filled(NatureCNN(4, (84, 84), padded=False))
    obs = np.random.default_rng(2).integers(0, 256, (2, 4, 84, 84), dtype=np.uint8)
    x = torch.from_numpy(obs).double() / 255.0
    for layer in (net.conv1, net.conv2, net.conv3):
        patches = x.unfold(2, layer.weight.shape[2], layer.stride).unfold(3, layer.weight.shape[3], layer.stride)
        x = torch.einsum("bcyxij,ocij->boyx", patches, layer.weight.double()) + layer.bias.double()[:, None, None]
        x = x.clamp(min=0.0)
        assert layer.size == x.shape[2:]
    assert net.features == 3136
    expected = x.permute(0, 2, 3, 1).flatten(1).detach().numpy()
    np.testing.assert_allclose(net(torch.from_numpy(obs)).detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    assert encoder("nature_valid", Spec((84, 84), "uint8", 4, 6)).features == 3136
    assert encoder("nature", Spec((84, 84), "uint8", 4, 6)).features == 7744


def test_nature_cnn_takes_any_height_and_width_and_says_what_it_cannot_take():
    net = filled(NatureCNN(1, (10, 5)))
    assert net(torch.zeros(3, 1, 10, 5, dtype=torch.uint8)).shape == (3, net.features) == (3, 64 * 2 * 1)
    with pytest.raises(ValueError, match="height, width"):
        NatureCNN(4, (84, 84, 3))


def test_flatten_keeps_every_number_and_scales_bytes():
    frames = torch.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert torch.equal(Flatten(3, (4,), 1.0)(frames.float()), torch.arange(24.0).reshape(2, 12))
    assert torch.equal(
        Flatten(3, (4,), 255.0)((frames * 11).byte()), torch.arange(0.0, 264.0, 11.0).reshape(2, 12) / 255.0
    )


def test_initial_values_come_from_the_stream_alone():
    torch.manual_seed(0)
    first, other = filled(NatureCNN(4, (84, 84))), filled(NatureCNN(4, (84, 84)), seed=1)
    torch.manual_seed(1)
    again = filled(NatureCNN(4, (84, 84)))
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.ndim == 1 or not torch.equal(a, c)


def test_xavier_bound_and_zero_bias():
    layer = filled(SameConv(32, 64, 4, 2, (21, 21)))
    bound = (6 / (16 * (32 + 64))) ** 0.5
    weight = layer.weight.detach().double()
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.999 * bound  # 32,768 draws: missing the outer 0.1 % has probability e^-33
    n = weight.numel()
    assert abs(weight.mean()) < 5 * bound / (3 * n) ** 0.5
    assert abs((weight**2).mean() - bound**2 / 3) < 5 * bound**2 * (4 / 45 / n) ** 0.5
    assert not layer.bias.any()


def test_noisy_linear_starts_as_dopamine_does():
    layer = filled(NoisyLinear(100, 300, 0.1))
    for mu in (layer.mu, layer.bias_mu):
        assert 0.09 < mu.abs().max() <= 0.1  # U(-1, 1) / sqrt(100)
        assert abs(mu.mean()) < 5 * 0.1 / (3 * mu.numel()) ** 0.5
    for sigma in (layer.sigma, layer.bias_sigma):
        assert torch.equal(sigma, torch.full_like(sigma, 0.1 * 0.1))


def noisy(n_in=7, n_out=5):
    layer = filled(NoisyLinear(n_in, n_out, 0.5))
    rng = np.random.default_rng(0)
    layer.sigma.data.copy_(torch.from_numpy(rng.normal(size=layer.sigma.shape)))
    layer.bias_sigma.data.copy_(torch.from_numpy(rng.normal(size=n_out)))
    return layer


def test_noisy_linear_is_the_written_out_noisy_weight():
    layer = noisy()
    x = np.random.default_rng(3).normal(size=(4, 7))
    normals = Stream(0, "noise").normal(12).astype(np.float64)
    mu, sigma, bias_mu, bias_sigma = doubles(layer.mu, layer.sigma, layer.bias_mu, layer.bias_sigma)
    ours = layer(torch.from_numpy(x).float(), layer.noise(Stream(0, "noise")))
    expected = c51.noisy_linear(x, mu, sigma, bias_mu, bias_sigma, (normals[:7], normals[7:]))
    np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=1e-5, atol=1e-5)  # error 5.3e-7 measured
    mean = c51.noisy_linear(x, mu, sigma, bias_mu, bias_sigma, None)
    np.testing.assert_allclose(layer(torch.from_numpy(x).float(), None).detach().numpy(), mean, rtol=1e-5, atol=1e-5)


def test_noise_has_the_moments_of_the_factorised_draw():
    """For e = f(x) f(y) with f = sign sqrt||: E e = 0, E e^2 = E|x| E|y| = 2 / pi, E e^4 = 1."""
    layer, stream = noisy(40, 50), Stream(5, "noise")
    draws = [layer.noise(stream) for _ in range(200)]
    e_in, e_out = (torch.stack(part).double() for part in zip(*draws, strict=True))
    for e in (e_in, e_out):
        n = e.numel()
        assert abs(e.mean()) < 5 * ((2 / np.pi) ** 0.5 / n) ** 0.5
        assert abs((e**2).mean() - (2 / np.pi) ** 0.5) < 5 * ((1 - 2 / np.pi) / n) ** 0.5
    # inputs and outputs are independent: one product a draw
    product = e_in[:, 0] * e_out[:, 0]
    assert abs(product.mean()) < 5 * (2 / np.pi / len(product)) ** 0.5
    assert abs((product**2).mean() - 2 / np.pi) < 5 * ((1 - (2 / np.pi) ** 2) / len(product)) ** 0.5
    assert stream.counter == 200 * -(-90 // 4)  # and nothing else was drawn


def test_the_minatar_network_by_definition():
    net = MinAtarCNN(2, (3, 10, 9))
    net.init_(Stream(0, "init"))
    x = np.random.default_rng(0).integers(0, 256, (4, 2, 3, 10, 9)).astype(np.uint8)
    weight = net.weight.detach().double().numpy()
    expected = np.zeros((4, 16, 8, 7))
    for r in range(8):
        for c in range(7):
            window = x.reshape(4, 6, 10, 9)[:, :, r : r + 3, c : c + 3] / 255.0
            expected[:, :, r, c] = np.maximum(np.einsum("bcij,ocij->bo", window, weight), 0.0)
    ours = net(torch.from_numpy(x)).detach().numpy()
    assert net.map_shape == (16, 8, 7)
    np.testing.assert_allclose(
        ours, np.moveaxis(expected, 1, 3).reshape(4, -1), rtol=0, atol=2e-6
    )  # float32: 2e-7 measured
    for frame in ((10, 10), (3, 2, 9)):
        with pytest.raises(ValueError, match="at least 3 x 3"):
            MinAtarCNN(1, frame)
