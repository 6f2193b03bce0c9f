# CUDA kernels; absent where nvcc was not found at build time. Addresses are of device memory, row-major; float32
# where nothing else is said.

from typing import TypedDict

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
def normal(state: int, n: int, out: int, device: int, stream: int) -> None: ...
def uniform(state: int, n: int, out: int, device: int, stream: int) -> None: ...
