"""Random streams: the published answers, an independent Philox, and distributions within 5 sigma."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.philox import block, philox4x32
from rlplatform import _core
from rlplatform.streams import Stream

WORDS64 = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "answer"),  # Random123's kat_vectors for philox4x32, 10 rounds
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_reference_gives_the_published_answers(counter, key, answer):
    assert philox4x32(key, counter) == answer


def test_our_philox_gives_the_published_answer():
    assert _core.philox(0, 0, 1).tolist() == [[0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]]


@given(key=WORDS64, counter=st.integers(0, 2**64 - 3))
def test_our_philox_is_the_reference(key, counter):
    assert _core.philox(key, counter, 3).tolist() == [list(block(key, counter + b)) for b in range(3)]


def test_the_counter_carries_into_its_upper_word_and_wraps():
    start = 2**64 - 1
    assert _core.philox(7, 2**32 - 1, 2).tolist() == [list(block(7, 2**32 - 1)), list(block(7, 2**32))]
    assert _core.philox(7, start, 2).tolist() == [list(block(7, start)), list(block(7, 0))]


@given(key=WORDS64, counter=st.integers(0, 2**64 - 9), n=st.integers(0, 9))
def test_uniforms_are_the_upper_53_bits(key, counter, n):
    words = [w for b in range(-(-n // 2)) for w in block(key, counter + b)]
    expected = [((words[2 * i] << 32 | words[2 * i + 1]) >> 11) / 2**53 for i in range(n)]
    assert _core.uniform(key, counter, n).tolist() == expected


def test_normals_are_box_and_muller():
    """float32 against float64 at 4,000 draws: measured error 1.2e-6, so 1.2e-5 is allowed."""
    words = np.array([block(11, b) for b in range(1000)], np.float64)
    unit = (np.floor(words / 256) + 1) / 2**24
    radius, angle = np.sqrt(-2 * np.log(unit[:, 0::2])), 2 * np.pi * unit[:, 1::2]
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).reshape(-1)
    np.testing.assert_allclose(_core.normal(11, 0, 4000), expected, rtol=0, atol=1.2e-5)
    np.testing.assert_array_equal(_core.normal(11, 0, 3998), _core.normal(11, 0, 4000)[:3998])


@pytest.mark.parametrize("negative", ["philox", "uniform", "normal"])
def test_a_negative_number_of_draws_is_refused(negative):
    with pytest.raises(ValueError, match="must be >= 0"):
        getattr(_core, negative)(0, 0, -1)


def kolmogorov(sample: np.ndarray, cdf: np.ndarray) -> float:
    """sqrt(n) times the largest distance of the empirical distribution from `cdf`, given at the sorted sample."""
    n = len(sample)
    return np.sqrt(n) * max((np.arange(1, n + 1) / n - cdf).max(), (cdf - np.arange(n) / n).max())


KS_5_SIGMA = 2.75  # exceeded with probability 2 exp(-2 * 2.75^2) = 5.4e-7, that of 5 sigma


def test_uniforms_are_uniform():
    n = 200_000
    u = Stream(1, "test").uniform(n)
    assert (u >= 0).all()
    assert (u < 1).all()
    assert kolmogorov(u, np.sort(u)) < KS_5_SIGMA
    pairs = (u[:-1] - 0.5) * (u[1:] - 0.5)  # mean 0, variance 1 / 144 where neighbours are independent
    assert abs(pairs.mean()) < 5 * np.sqrt(1 / 144 / len(pairs))


def test_normals_are_normal():
    n = 100_000
    x = Stream(2, "test").normal(n).astype(np.float64)
    assert abs(x).max() <= 5.78
    cdf = np.array([0.5 * (1 + math.erf(v / np.sqrt(2))) for v in np.sort(x)])
    assert kolmogorov(x, cdf) < KS_5_SIGMA
    assert abs(x.mean()) < 5 / np.sqrt(n)
    assert abs(x.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((x[::2] * x[1::2]).mean()) < 5 / np.sqrt(n / 2)  # the two halves of a pair


@pytest.mark.parametrize("bound", [1, 2, 3, 7, 18])
def test_integers_are_uniform(bound):
    n = 50_000
    counts = np.bincount(Stream(3, "test", bound).integers(bound, n), minlength=bound)
    assert len(counts) == bound
    p = 1 / bound
    np.testing.assert_array_less(np.abs(counts - n * p), 5 * np.sqrt(n * p * (1 - p)) + 1e-9)


def test_integers_reach_the_largest_bound_and_no_further():
    draws = Stream(4, "test").integers(2**31, 100_000)
    assert draws.min() >= 0
    assert 2**31 - 2**31 // 5_000 < draws.max() < 2**31  # missed by chance once in e^20
    for bound in (0, -1, 2**31 + 1):
        with pytest.raises(ValueError, match="bound must be in"):
            Stream(4, "test").integers(bound, 3)


def test_shapes_and_what_a_draw_costs():
    stream = Stream(5, "test")
    for draw, shape, blocks in (
        (stream.uniform, (3, 5), 8), (stream.uniform, (), 1), (stream.uniform, (0, 4), 0),
        (stream.normal, (3, 5), 4), (stream.normal, (4,), 1), (stream.normal, (2, 2, 2), 2),
    ):  # fmt: skip
        before = stream.counter
        assert draw(*shape).shape == shape
        assert stream.counter - before == blocks


def test_a_stream_goes_on_from_its_state():
    stream, other = Stream(6, "test", 2), Stream(0, "other")
    stream.uniform(17)
    other.load_state_dict(stream.state_dict())
    np.testing.assert_array_equal(stream.normal(9), other.normal(9))
    np.testing.assert_array_equal(stream.uniform(9), other.uniform(9))
    assert stream.state_dict() == other.state_dict()


def test_a_stream_is_a_function_of_its_name():
    named = [(seed, name, index) for seed in range(20) for name in ("env", "replay", "env/1") for index in range(20)]
    keys = {Stream(*n).key for n in named}
    assert len(keys) == len(named)
    assert Stream(1, "env", 3).key == Stream(1, "env", 3).key
    assert max(keys) > 2**63  # all 64 bits are used


def test_streams_of_neighbouring_names_are_independent():
    """Correlations of 40 streams, 1,000 draws each: every one of the 780 within 5 sigma of 0."""
    draws = np.stack([Stream(7, "env", i).uniform(1000) for i in range(40)])
    correlation = np.corrcoef(draws)[np.triu_indices(40, 1)]
    assert abs(correlation).max() < 5 / np.sqrt(1000)
