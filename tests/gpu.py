"""What a test needs that runs on a GPU alone."""

import importlib.util

import pytest
import torch

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device: listed in evaluation/bench/GPU.md"
)
needs_build = pytest.mark.skipif(
    importlib.util.find_spec("rlplatform._cuda") is None, reason="no CUDA kernels: nvcc was not found at build time"
)
