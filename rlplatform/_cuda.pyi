# CUDA kernels; absent where nvcc was not found at build time. Addresses are of device memory, float32, row-major.

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

class Status(TypedDict):
    runtime: int
    driver: int
    devices: int
    message: str

def status() -> Status: ...
def gae(
    value: int, reward: int, discount: int, lambda_: float, T: int, B: int, advantage: int, device: int, stream: int
) -> None: ...
def n_step(
    value: int, reward: int, discount: int, n: int, T: int, B: int, result: int, device: int, stream: int
) -> None: ...
def vtrace(
    value: int,
    reward: int,
    discount: int,
    rho: int,
    rho_bar: float,
    c_bar: float,
    lambda_: float,
    T: int,
    B: int,
    target: int,
    device: int,
    stream: int,
) -> None: ...

# Environments in device memory; `queue` is a CUDA stream.
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
