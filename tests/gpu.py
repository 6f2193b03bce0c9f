"""What a test needs that runs on a GPU alone."""

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device: listed in evaluation/bench/GPU.md"
)
needs_build = pytest.mark.skipif(
    importlib.util.find_spec("rlplatform._cuda") is None, reason="no CUDA kernels: nvcc was not found at build time"
)


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """Within, whatever waits for the GPU raises. Nothing where there is none."""
    if not torch.cuda.is_available():
        yield
        return
    torch.cuda.synchronize()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
