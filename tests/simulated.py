"""What the tests of environments on MuJoCo share: random play, and comparison to the bit."""

from collections.abc import Mapping

import numpy as np

from rlplatform.types import Step


def assert_same(a, b):
    """Two steps agree in dtypes and numbers."""
    for name, ours, theirs in zip(Step._fields, a, b, strict=True):
        assert ours.dtype == theirs.dtype, name
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def equal(a, b):
    """Whether two states are, to the bit."""
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a.tobytes() == b.tobytes() if isinstance(a, np.ndarray) else a == b


def actions(batch, steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (steps, batch.n, *batch.spec.action_shape)).astype(np.float32)


def play(batch, steps, seed=0):
    return [batch.step(action) for action in actions(batch, steps, seed)]
