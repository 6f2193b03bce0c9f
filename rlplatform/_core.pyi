# The face of the extension module. It knows dtypes and shapes; what the numbers mean is said by the modules that use it.
# tests/test_stubs.py holds it against the extension.

from typing import Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from rlplatform._kernels import *  # noqa: F403  all that is declared there is here, too

Array: TypeAlias = NDArray[Any]

class Build(TypedDict):
    compiler: str
    cuda: str

def build() -> Build: ...
def keep_freed_memory() -> bool: ...
def philox(key: int, counter: int, blocks: int) -> NDArray[np.uint32]: ...
def uniform(key: int, counter: int, n: int) -> NDArray[np.float64]: ...
def normal(key: int, counter: int, n: int) -> NDArray[np.float32]: ...
def gae(
    value: NDArray[np.float32], reward: NDArray[np.float32], discount: NDArray[np.float32], lambda_: float
) -> NDArray[np.float32]: ...
def n_step(
    value: NDArray[np.float32], reward: NDArray[np.float32], discount: NDArray[np.float32], n: int
) -> NDArray[np.float32]: ...
def vtrace(
    value: NDArray[np.float32],
    reward: NDArray[np.float32],
    discount: NDArray[np.float32],
    rho: NDArray[np.float32],
    rho_bar: float,
    c_bar: float,
    lambda_: float,
) -> NDArray[np.float32]: ...
def clipped_loss(
    log_prob: NDArray[np.float32],
    value: NDArray[np.float32],
    old_log_prob: NDArray[np.float32],
    old_value: NDArray[np.float32],
    advantage: NDArray[np.float32],
    target: NDArray[np.float32],
    clip: float,
    max_log_ratio: float,
    clip_value: bool,
    normalize_advantage: bool,
) -> tuple[float, float, NDArray[np.float32], NDArray[np.float32]]: ...
def categorical_loss(
    logits: NDArray[np.float32],
    action: NDArray[np.int64],
    value: NDArray[np.float32],
    old_log_prob: NDArray[np.float32],
    old_value: NDArray[np.float32],
    advantage: NDArray[np.float32],
    target: NDArray[np.float32],
    clip: float,
    max_log_ratio: float,
    clip_value: bool,
    normalize_advantage: bool,
    value_weight: float,
    entropy_weight: float,
) -> tuple[
    tuple[float, float, float, float],
    NDArray[np.float32],
    NDArray[np.float32],
    NDArray[np.float32],
    NDArray[np.float32],
]: ...
def bytes_set(frames: NDArray[np.uint8]) -> int: ...
def frame_conv(
    frames: NDArray[np.uint8],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    scale: float,
    relu: bool,
    out: NDArray[np.float32],
) -> None: ...
def frame_conv_gradients(
    frames: NDArray[np.uint8],
    weight: NDArray[np.float32],
    scale: float,
    out: NDArray[np.float32] | None,
    by_out: NDArray[np.float32],
    by_weight: NDArray[np.float32],
    by_bias: NDArray[np.float32],
) -> None: ...
def shift_images(image: Array, shift: NDArray[np.int64], intensity: NDArray[np.float32], out: Array) -> None: ...
def resample(
    key: int, counter: int, starts: NDArray[np.int64], draws: NDArray[np.int64], reps: int
) -> NDArray[np.float64]: ...
def stratum_sums(
    counts: NDArray[np.float64], starts: NDArray[np.int64], value: NDArray[np.float64]
) -> NDArray[np.float64]: ...
def trimmed_means(
    counts: NDArray[np.float64],
    weight: NDArray[np.float64],
    order: NDArray[np.int64],
    value: NDArray[np.float64],
    low: float,
    high: float,
) -> NDArray[np.float64]: ...

class AreaResize:
    def __init__(self, source: tuple[int, int], out: tuple[int, int]) -> None: ...
    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]: ...

class Screens:
    def __init__(self, source: tuple[int, int], out: tuple[int, int]) -> None: ...
    @property
    def incoming(self) -> NDArray[np.uint8]: ...
    def take(self, slot: int) -> bool: ...
    def learn(self, slot: int, gray: NDArray[np.uint8]) -> None: ...
    def frame(self, count: int, out: NDArray[np.uint8]) -> None: ...

class _Batch:  # what every EnvBatch<Env> has; there is no such class at run time
    def save(self) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint64], bool]: ...
    def load(
        self, env: NDArray[np.int64], key: NDArray[np.uint64], counter: NDArray[np.uint64], started: bool
    ) -> None: ...
    @property
    def n(self) -> int: ...
    @property
    def frame_size(self) -> int: ...
    @property
    def actions(self) -> int: ...

class CatchBatch(_Batch):
    def __init__(self, key: NDArray[np.uint64], threads: int, rows: int, columns: int) -> None: ...
    def reset(self) -> NDArray[np.uint8]: ...
    def step(
        self, action: NDArray[np.int64], frame_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array, Array, Array, Array, Array, Array]: ...

def minatar_batch(
    game: str, key: NDArray[np.uint64], threads: int, sticky: float, ramping: bool, episode_steps: int
) -> Any: ...
def continual_minatar_batch(
    games: list[str],
    key: NDArray[np.uint64],
    threads: int,
    sticky: float,
    ramping: bool,
    episode_steps: int,
    phase_steps: int,
    first_phase: int,
    permutation_key: int | None,
) -> Any: ...
def continual_control_batch(
    game: str,
    key: NDArray[np.uint64],
    threads: int,
    limit: int,
    phase_steps: int,
    first_phase: int,
    gravity: list[float],
    length: list[float],
    force: list[float],
    factor_key: int | None,
) -> Any: ...

class AcrobotBatch(_Batch):
    def __init__(self, key: NDArray[np.uint64], threads: int, limit: int) -> None: ...
    def reset(self) -> NDArray[np.float32]: ...
    def step(
        self, action: NDArray[np.int64], frame_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array, Array, Array, Array, Array, Array]: ...

class CartPoleBatch(_Batch):
    def __init__(self, key: NDArray[np.uint64], threads: int, limit: int) -> None: ...
    def reset(self) -> NDArray[np.float32]: ...
    def step(
        self, action: NDArray[np.int64], frame_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array, Array, Array, Array, Array, Array]: ...

class MountainCarBatch(_Batch):
    def __init__(self, key: NDArray[np.uint64], threads: int, limit: int) -> None: ...
    def reset(self) -> NDArray[np.float32]: ...
    def step(
        self, action: NDArray[np.int64], frame_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array, Array, Array, Array, Array, Array]: ...

class MountainCarContinuousBatch(_Batch):
    def __init__(self, key: NDArray[np.uint64], threads: int, limit: int) -> None: ...
    def reset(self) -> NDArray[np.float32]: ...
    def step(
        self, action: NDArray[np.float32], frame_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array, Array, Array, Array, Array, Array]: ...

class PendulumBatch(_Batch):
    def __init__(self, key: NDArray[np.uint64], threads: int, limit: int) -> None: ...
    def reset(self) -> NDArray[np.float32]: ...
    def step(
        self, action: NDArray[np.float32], frame_shape: tuple[int, ...] = ()
    ) -> tuple[Array, Array, Array, Array, Array, Array, Array]: ...

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
    def draw(self, batch: int, key: int, counter: int) -> NDArray[np.int64]: ...
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
    @property
    def mean_abs_reward(self) -> float: ...

def check_replay(
    frame_shape: list[int],
    action_shape: list[int],
    stack: int,
    streams: int,
    per_stream: int,
    max_n: int,
    max_k: int,
    alpha: float,
) -> None: ...
