"""Random shift and intensity against padding and cropping written out; the layout and rounding of what networks take."""

import numpy as np
import pytest
import torch

from reference import spr as oracle
from rlplatform import _core
from rlplatform.streams import Stream
from rlplatform.techniques import augment


def images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("shape", [(3, 4, 84, 84), (2, 3, 7, 9), (2, 1, 4, 4), (1, 4, 1, 5), (2, 5, 6, 4)])
def test_it_is_padding_by_repetition_and_cropping(shape):
    x = images(*shape)
    limit = min(4, *shape[2:])
    for seed in range(4):
        draw = augment.draw(Stream(seed, "augment"), shape[0])
        draw = draw._replace(shift=draw.shift.clip(-limit, limit))
        out = augment.apply([x], draw, torch.float32)
        assert out.shape == shape
        assert out.dtype == torch.float32
        expected = 255.0 * oracle.augmented(x, draw.shift, draw.intensity.astype(np.float64))
        np.testing.assert_allclose(out.numpy(), expected, rtol=2e-7)  # one product in float32


@pytest.mark.parametrize("shift", [(4, 4), (-4, -4), (3, -2), (0, 5), (-6, 0)])
def test_every_border_is_repeated(shift):
    x = images(1, 4, 6, 5)
    y, z = np.clip(np.arange(6) + shift[0], 0, 5), np.clip(np.arange(5) + shift[1], 0, 4)
    draw = augment.Draw(np.array([shift]), np.ones(1, np.float32))
    np.testing.assert_array_equal(augment.apply([x], draw, torch.float32).numpy(), x[:, :, y][:, :, :, z])


def test_without_augmentation_bytes_are_exact_in_both_dtypes_and_channels_come_last():
    x = images(5, 4, 12, 10)
    for dtype in (torch.float32, torch.bfloat16):
        out = augment.apply([x], augment.identity(5), dtype)
        assert out.dtype == dtype
        assert out.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_array_equal(out.float().numpy(), x)


def test_bfloat16_is_the_float32_product_rounded_once():
    x = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    for intensity in np.linspace(0.9, 1.1, 41, dtype=np.float32):
        draw = augment.Draw(np.zeros((1, 2), np.int64), np.array([intensity]))
        exact = augment.apply([x], draw, torch.float32)
        assert torch.equal(augment.apply([x], draw, torch.bfloat16), exact.bfloat16())


def test_several_arrays_are_one_batch_in_their_order_and_need_not_be_contiguous():
    x = images(3, 2, 4, 8, 8)  # [B, k, ...]: obs[:, k] lie apart
    out = augment.apply([x[:, 1], x[:, 0]], augment.identity(6), torch.float32).numpy()
    np.testing.assert_array_equal(out, np.concatenate([x[:, 1], x[:, 0]]))


def test_draws_are_uniform_shifts_and_cut_normals():
    n = 40_000
    draw = augment.draw(Stream(0, "augment"), n)
    assert draw.shift.shape == (n, 2)
    for axis in range(2):
        counts = np.bincount(draw.shift[:, axis] + 4, minlength=8)
        assert len(counts) == 8
        np.testing.assert_array_less(np.abs(counts - n / 8), 5 * (n * (1 / 8) * (7 / 8)) ** 0.5)
    both = np.bincount((draw.shift[:, 0] + 4) * 8 + draw.shift[:, 1] + 4, minlength=64)
    np.testing.assert_array_less(np.abs(both - n / 64), 5 * (n * (1 / 64) * (63 / 64)) ** 0.5)
    z = (draw.intensity.astype(np.float64) - 1.0) / 0.05
    np.testing.assert_allclose([z.min(), z.max()], [-2, 2], atol=1e-5)
    # A normal cut at 2: variance 0.92052, and 2.275 % of the mass on each edge.
    assert abs(z.mean()) < 5 * (0.92052 / n) ** 0.5
    for edge in (-2, 2):
        share = np.isclose(z, edge, atol=1e-5).mean()
        assert abs(share - 0.02275) < 5 * (0.02275 * 0.97725 / n) ** 0.5


def refused():
    x, shift, ones = images(2, 4, 6, 5), np.zeros((2, 2), np.int64), np.ones(2, np.float32)
    out = np.zeros((2, 6, 5, 4), np.float32)  # not empty: a signalling NaN among rubbish would warn when it is cast
    return [
        ((x.astype(np.float32), shift, ones, out), "image must be uint8"),
        ((x[0], shift, ones, out), "image must be uint8"),
        ((x[:, :, :, ::-1], shift, ones, out), "each must be contiguous"),
        ((x[:, :, ::2], shift, ones, out), "each must be contiguous"),
        ((x, shift[:1], ones, out), r"shift must be int64 \[B, 2\]"),
        ((x, shift, ones[:1], out), r"intensity must be float32 \[B\]"),
        ((x, shift, ones, out[:, :5]), "out must be"),
        ((x, shift, ones, out.astype(np.float64)), "contiguous float32"),
        ((x, shift, ones, np.empty((4, 6, 5, 4), np.float32)[::2]), "contiguous float32"),
        ((x, shift + np.array([0, 6]), ones, out), "larger than its image"),
        ((x, shift - np.array([7, 0]), ones, out), "larger than its image"),
        ((x, shift, ones * np.float32("nan"), out), "finite and >= 0"),
        ((x, shift, -ones, out), "finite and >= 0"),
    ]


@pytest.mark.parametrize("case", range(len(refused())))
def test_what_does_not_fit_is_refused_and_nothing_is_written(case):
    arguments, message = refused()[case]
    arguments[3][...] = 7
    with pytest.raises(ValueError, match=message):
        _core.shift_images(*arguments)
    assert (arguments[3] == 7).all()


def test_another_dtype_is_refused():
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        augment.apply([images(1, 4, 6, 5)], augment.identity(1), torch.float64)
