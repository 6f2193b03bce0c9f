# What `_cuda` and `_core` both have, since the kernels' threads also run on the host: there is no such module at run time. Memory
# is torch's, by its addresses; the last two arguments name the queue: a device and a CUDA stream, which on the host mean nothing
# to environments and the order of threads to the others.

import numpy as np
from numpy.typing import NDArray

# --- environments: csrc/env_tiles.hpp ---

class EnvKind:
    @property
    def state_bytes(self) -> int: ...
    def fresh(self, n: int) -> NDArray[np.uint8]: ...
    def save(self, env: NDArray[np.uint8]) -> NDArray[np.int64]: ...
    def load(self, state: NDArray[np.int64]) -> NDArray[np.uint8]: ...
    def reset(self, env: int, stream: int, fault: int, n: int, frame: int, device: int, queue: int) -> None: ...
    def step(
        self,
        env: int,
        stream: int,
        fault: int,
        n: int,
        action: int,
        frame: int,
        reward: int,
        terminated: int,
        truncated: int,
        reset: int,
        final_frame: int,
        device: int,
        queue: int,
    ) -> None: ...

def catch_kind(rows: int, columns: int) -> EnvKind: ...
def control_kind(game: str, limit: int) -> EnvKind: ...
def minatar_kind(game: str, sticky: float, ramping: bool, episode_steps: int) -> EnvKind: ...

# --- the replay and random streams: csrc/cuda/ ---

class DeviceBatch:
    def __init__(
        self,
        batch: int,
        k: int,
        action: int,
        reward: int,
        terminated: int,
        mask: int,
        n_return: int,
        discount: int,
        index: int,
        priority: int,
        source: int,
    ) -> None: ...

class ReplayKernels:
    def __init__(
        self,
        frame_bytes: int,
        action_bytes: int,
        stack: int,
        streams: int,
        per_stream: int,
        max_n: int,
        max_k: int,
        alpha: float,
        actions: int,
        frame_float: int,
        frame: int,
        action: int,
        reward: int,
        bits: int,
        priority: int,
        eligible: int,
        claim: int,
        count: int,
        before: int,
        tree: int,
        base: int,
        scalars: int,
    ) -> None: ...
    def touched(self, steps: int) -> int: ...
    def add(
        self,
        steps: int,
        envs: int,
        first_env: int,
        frame: int,
        first: int,
        action: int,
        reward: int,
        terminated: int,
        truncated: int,
        finals: int,
        final_frame: int,
        final_at: int,
        seq: int,
        leaf: int,
        device: int,
        stream: int,
    ) -> None: ...
    def settle_all(self, leaf: int, device: int, stream: int) -> None: ...
    def sample(self, out: DeviceBatch, device: int, stream: int) -> None: ...
    def gather(self, index: int, out: DeviceBatch, device: int, stream: int) -> None: ...
    def update_priority(
        self, index: int, priority: int, single: bool, n: int, leaf: int, device: int, stream: int
    ) -> None: ...
    def stack(self, batch: DeviceBatch, obs: int, next_obs: int, device: int, stream: int) -> None: ...
    def shift_images(
        self,
        batch: DeviceBatch,
        height: int,
        width: int,
        shift: int,
        intensity: int,
        single: bool,
        out: int,
        device: int,
        stream: int,
    ) -> None: ...

def draw_normals(state: int, n: int, out: int, device: int, stream: int) -> None: ...
def draw_uniforms(state: int, n: int, out: int, device: int, stream: int) -> None: ...
def draw_augmentation(
    state: int,
    images: int,
    pad: int,
    scale: float,
    cut: float,
    shift: int,
    intensity: int,
    device: int,
    stream: int,
) -> None: ...
