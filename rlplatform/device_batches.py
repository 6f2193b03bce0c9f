"""The seam between a learner's step on a device and its replay, wherever that lives.

A step on a device is a function over fixed addresses that does not wait (graphs.py). A replay on the host cannot be asked
within; one on the device is part of it. Both are a Feed: what happens on the host stands in `before` and `after` a launch, what
happens on the device in `draw` and `give`, within the step.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from rlplatform.replay import Batch
from rlplatform.staging import Download, Field, Upload
from rlplatform.types import Array, Spec


class DeviceBatch(NamedTuple):
    """A Batch as tensors on a device; what an update does not ask for is left out."""

    obs: Tensor  # [B, k + 1, stack, *frame]
    action: Tensor  # [B, h] int64 or [B, h, A] float32
    mask: Tensor  # [B, k] bool
    n_return: Tensor  # [B] float32
    discount: Tensor  # [B] float32
    next_obs: Tensor  # [B, stack, *frame]
    priority: Tensor  # [B] float64


class Feed(Protocol):
    """Gives batches to a step on a device and takes their losses, which become priorities."""

    launch: int  # steps that one launch may hold

    def before(self) -> None:
        """On the host, ahead of every launch."""
        ...

    def draw(self) -> DeviceBatch:
        """In the step: the next batch. Its tensors are the feed's own, valid until the next one."""
        ...

    def give(self, td: Tensor) -> None:
        """In the step: the losses [B] of the batch that was drawn."""
        ...

    def after(self) -> None:
        """On the host, behind every launch."""
        ...

    def settle(self) -> None:
        """On the host: wait until all that was given has reached the replay. Due before anything else looks at it."""
        ...


class HostFeed:
    """From a replay on the host, through pinned memory.

    A batch is drawn when its launch is asked for; the priorities of the one before are written first, which waits for it:
    what is drawn depends on them. So each launch is one step, and a learner on a device draws what one on the host draws.
    """

    launch = 1

    def __init__(
        self,
        draw: Callable[[Batch], Batch],
        write: Callable[[Array, Array], None],
        spec: Spec,
        batch: int,
        k: int,
        device: torch.device,
    ) -> None:
        """A feed of batches of one size.

        Args:
            draw: makes the next batch, in the arrays that it is given or in others.
            write: takes what `draw` drew, as index [B] int64 and losses [B] float32, in the same order.
            k: steps of the subsequence.
        """
        h = max(k, 1)
        frame = getattr(torch, spec.frame_dtype)
        self._upload = Upload(
            {
                "obs": Field((batch, k + 1, spec.stack, *spec.frame_shape), frame),
                "next_obs": Field((batch, spec.stack, *spec.frame_shape), frame),
                "action": Field((batch, h, *spec.action_shape), getattr(torch, spec.action_dtype)),
                "mask": Field((batch, k), torch.bool),
                "n_return": Field((batch,), torch.float32),
                "discount": Field((batch,), torch.float32),
                "priority": Field((batch,), torch.float64),
            },
            device,
        )
        arrays = {name: tensor.numpy() for name, tensor in self._upload.open().items()}
        rest = {
            "reward": np.zeros((batch, h), np.float32),
            "terminated": np.zeros((batch, h), bool),
            "index": np.zeros(batch, np.int64),
        }
        self._out = Batch(**arrays, **rest)
        self._batch = DeviceBatch(**self._upload.device)
        self._td = Download(Field((batch,), torch.float32), device)
        self._draw, self._write = draw, write
        self._waiting: Array | None = None  # index of the batch whose losses are on their way

    def before(self) -> None:
        self.settle()
        self._upload.open()
        drawn = self._draw(self._out)
        for name in DeviceBatch._fields:
            theirs, ours = getattr(drawn, name), getattr(self._out, name)
            if theirs is not ours:
                np.copyto(ours, theirs, casting="no")
        self._waiting = drawn.index.copy()
        self._upload.send()

    def draw(self) -> DeviceBatch:
        return self._batch

    def give(self, td: Tensor) -> None:
        self._td.device.copy_(td)

    def after(self) -> None:
        self._td.start()

    def settle(self) -> None:
        if self._waiting is not None:
            index, self._waiting = self._waiting, None
            self._write(index, self._td.wait())
