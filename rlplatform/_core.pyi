"""The face of the extension module. It knows dtypes and shapes; what the numbers mean is said by the modules that use it."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

def philox(key: int, counter: int, blocks: int) -> NDArray[np.uint32]: ...
def uniform(key: int, counter: int, n: int) -> NDArray[np.float64]: ...
def normal(key: int, counter: int, n: int) -> NDArray[np.float32]: ...

class Replay:
    def __init__(
        self,
        frame_shape: list[int],
        frame_dtype: np.dtype[Any],
        action_shape: list[int],
        action_dtype: np.dtype[Any],
        actions: int,
        stack: int,
        streams: int,
        per_stream: int,
        max_n: int,
        max_k: int,
        alpha: float,
        folder: str,
    ) -> None: ...
    def add(
        self,
        frame: Array,
        first: Array,
        action: Array,
        reward: Array,
        terminated: Array,
        truncated: Array,
        final_frame: Array,
        final_at: Array,
        first_env: int,
    ) -> None: ...
    def sample(
        self, batch: int, n: int, gamma: float | Array, k: int, key: int, counter: int, out: tuple[Array, ...] | None
    ) -> tuple[Array, ...]: ...
    def gather(
        self, index: Array, n: int, gamma: float | Array, k: int, out: tuple[Array, ...] | None
    ) -> tuple[Array, ...]: ...
    def update_priority(self, index: Array, priority: Array) -> None: ...
    def eligible(self) -> NDArray[np.int64]: ...
    def counts(self) -> NDArray[np.int64]: ...
    def priorities(self) -> NDArray[np.float64]: ...
    def read_slots(self, stream: int, begin: int, end: int) -> tuple[Array, Array, Array, Array]: ...
    def write_slots(self, stream: int, begin: int, frame: Array, action: Array, reward: Array, bits: Array) -> None: ...
    def restore(self, counts: Array, priorities: Array, max_priority: float) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def can_sample(self) -> bool: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def max_priority(self) -> float: ...
