"""One Ray of our own for a test module."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
TESTS = str(Path(__file__).parent)


@contextmanager
def quiet() -> Iterator[None]:
    """Ray starts its processes without waiting for them later, and leaves sockets to the collector."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "subprocess .* is still running", ResourceWarning)
        warnings.filterwarnings("ignore", "unclosed", ResourceWarning)
        warnings.filterwarnings("ignore", "Tip: In future versions of Ray", FutureWarning)
        yield


@contextmanager
def own_ray(cpus: int = 2, gpus: int = 0) -> Iterator[str]:
    """A Ray on this machine with so many logical CPUs, whose workers find the modules beside this one. Yields its address."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = TESTS
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        with quiet():
            ray.init(
                address="local", num_cpus=cpus, num_gpus=gpus, object_store_memory=150 * 2**20, include_dashboard=False,
                log_to_driver=False, logging_level="ERROR",
            )  # fmt: skip
        yield ray.get_runtime_context().gcs_address
    finally:
        with quiet():
            ray.shutdown()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
