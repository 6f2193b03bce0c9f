"""Work that is launched as one: a CUDA graph on a GPU, a plain call on the CPU.

A step of learning is hundreds of kernels of a few microseconds each; launched one by one, the CPU is the bottleneck. Captured
once as a graph, they are launched as one.
"""

import gc
import threading
from collections.abc import Callable

import torch

WARM_UP = 3  # calls: the first makes what the optimiser keeps, times cuDNN's algorithms and loads kernels
# Of one process: an actor's thread warms up and captures, too, and nothing of that may happen within another's capture: neither
# waiting for its stream, nor cuDNN timing its algorithms, nor a change of the settings that its products are made by.
_alone = threading.RLock()
_sides: dict[int, torch.cuda.Stream] = {}


class Graphed:
    """A function over fixed addresses, called as `graphed()`; each call is one execution of it, on any device.

    On a GPU the first WARM_UP calls run it eagerly on a side stream; the next one captures it (which executes nothing) and
    every call from then on replays the graph. So the function:

    - takes nothing, returns nothing: it reads and writes tensors that live elsewhere and stay where they are;
    - waits for nothing: no .item(), no shape that depends on data, no copy from or to memory that is not pinned;
    - changes no Python state: counters that it advances are device scalars. What it does in Python happens WARM_UP + 1 times;
    - keeps nothing that it allocates: that memory belongs to the graph and is written anew at every replay.
    """

    def __init__(self, step: Callable[[], None], device: torch.device) -> None:
        self._step, self._device = step, device
        self._graph: torch.cuda.CUDAGraph | None = None
        self._calls = 0  # so far, until the capture

    @property
    def captured(self) -> bool:
        return self._graph is not None

    def __call__(self) -> None:
        """Execute once: enqueued on the current stream of the device, not waited for.

        Raises:
            RuntimeError: the function does what cannot be captured.
        """
        if self._device.type != "cuda":
            self._step()
        elif self._graph is not None:
            self._graph.replay()
        elif self._calls < WARM_UP:
            self._run_aside()
            self._calls += 1
        else:
            self._capture()

    def forget(self) -> None:
        """Warm up and capture anew at the next calls: an address, a shape or a Python value that the function reads has
        changed. Waits for the device, which may be replaying the old graph."""
        if self._graph is not None:
            with _alone:
                torch.cuda.synchronize(self._device)
        self._graph, self._calls = None, 0

    def _run_aside(self) -> None:
        """On the stream of the capture, so that what libraries keep by stream (workspaces, autograd's accumulators) is there
        when it comes."""
        with _alone:
            side, current = _side(self._device), torch.cuda.current_stream(self._device)
            side.wait_stream(current)
            with torch.cuda.stream(side):
                self._step()
            current.wait_stream(side)

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        with _alone, torch.cuda.device(self._device):
            current = torch.cuda.current_stream(self._device)
            collecting = gc.isenabled()
            gc.collect()  # now, rather than within: freeing another graph's memory is no part of this one
            gc.disable()
            try:
                # Only this thread's calls are held to the rules: at lag > 0 an actor's thread acts meanwhile.
                with torch.cuda.graph(graph, stream=_side(self._device), capture_error_mode="thread_local"):
                    self._step()
            except Exception as error:
                torch.cuda.set_stream(current)  # a capture that fails at its end leaves the side stream the current one
                raise RuntimeError(
                    f"{getattr(self._step, '__qualname__', self._step)} cannot be captured as a CUDA graph: it waits for the device, "
                    f"allocates outside torch, or uses what was not there after {WARM_UP} calls: {error}"
                ) from error
            finally:
                if collecting:
                    gc.enable()
        self._graph = graph
        graph.replay()


def _side(device: torch.device) -> torch.cuda.Stream:
    number = torch.cuda.current_device() if device.index is None else device.index
    if number not in _sides:
        _sides[number] = torch.cuda.Stream(number)
    return _sides[number]
