# CUDA kernels; absent where nvcc was not found at build time. Addresses are of device memory, float32, row-major.

from typing import TypedDict

from rlplatform._kernels import *  # noqa: F403  all that is declared there is here, too

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
