"""Random streams: every consumer owns one, and a stream is two integers.

A stream is named by (seed, name, index): `Stream(7, "env", 3)` is what environment 3 of the run with seed 7 draws, on any
number of threads and in any process. Its whole state is a 64-bit Philox key and a 64-bit counter of blocks. Nothing in
this project draws from a global generator.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from rlplatform import _core
from rlplatform.types import State


class Stream:
    """A Philox4x32-10 stream (Salmon et al. 2011), keyed by what it is for."""

    def __init__(self, seed: int, name: str, index: int = 0) -> None:
        """The stream of consumer `index` of kind `name` in the run with `seed`. Different names never collide by design:
        the key is 64 bits of a cryptographic hash of all three."""
        digest = hashlib.blake2b(f"{seed}/{name}/{index}".encode(), digest_size=8).digest()
        self.key = int.from_bytes(digest, "little")
        self.counter = 0

    def uniform(self, *shape: int) -> NDArray[np.float64]:
        """Independent draws from [0, 1), 53 bits each."""
        n = int(np.prod(shape))
        out = _core.uniform(self.key, self.counter, n)
        self.counter += -(-n // 2)
        return out.reshape(shape)

    def normal(self, *shape: int) -> NDArray[np.float32]:
        """Independent standard normals, float32 (Box and Muller; |x| <= 5.77)."""
        n = int(np.prod(shape))
        out = _core.normal(self.key, self.counter, n)
        self.counter += -(-n // 4)
        return out.reshape(shape)

    def integers(self, bound: int, *shape: int) -> NDArray[np.int64]:
        """Independent draws from {0, ..., bound - 1}, for bound <= 2^31 (the bias is below bound / 2^53)."""
        if not 1 <= bound <= 2**31:
            raise ValueError(f"bound must be in [1, 2^31], got {bound}")
        return (self.uniform(*shape) * bound).astype(np.int64)

    def state_dict(self) -> State:
        return {"key": self.key, "counter": self.counter}

    def load_state_dict(self, state: State) -> None:
        self.key, self.counter = int(state["key"]), int(state["counter"])
