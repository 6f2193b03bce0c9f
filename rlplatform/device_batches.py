"""The seam between a learner's step on a device and its replay, wherever that lives.

A step on a device is a function over fixed addresses that does not wait (graphs.py). A replay on the host cannot be asked
within; one on the device is part of it. Both are a Feed: what happens on the host stands in `before` and `after` a launch, what
happens on the device in `draw`, `observations` and `give`, within the step.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from rlplatform import device_augment
from rlplatform.device_augment import Augmentation
from rlplatform.device_replay import DeviceReplay
from rlplatform.replay import Batch
from rlplatform.staging import Download, Field, Upload
from rlplatform.types import Array, Spec

PRIORITY_EPS = 1e-10  # added to losses that become priorities: keeps an item that is learned perfectly drawable
MOST_STEPS = 16  # in one launch: beyond it launching costs nothing already, and capturing takes time


class Drawn(NamedTuple):
    """A batch on a device but for its observations; fields as in `replay.Batch`. h = max(k, 1)."""

    action: Tensor  # [B, h] int64 or [B, h, A] float32
    mask: Tensor  # [B, k] bool
    n_return: Tensor  # [B] float32
    discount: Tensor  # [B] float32
    priority: Tensor  # [B] float64


class Feed(Protocol):
    """Gives batches to a step on a device and takes their losses, which become priorities."""

    launch: int  # steps that one launch may hold

    def before(self) -> None:
        """On the host, ahead of every launch."""
        ...

    def draw(self) -> Drawn:
        """In the step: the next batch. Its tensors are the feed's own, valid until the next one."""
        ...

    def observations(self, augmentation: Augmentation | None) -> Tensor:
        """In the step: [(k + 2) B, stack, *frame], all first ones of the batch, all second ones, ..., the bootstrap states."""
        ...

    def give(self, td: Tensor) -> None:
        """In the step: the losses [B] of the batch that was drawn."""
        ...

    def after(self) -> None:
        """On the host, behind every launch."""
        ...

    def settle(self) -> None:
        """On the host: all that was given reaches the replay before anything that is asked of it from now on."""
        ...

    def forget(self) -> None:
        """On the host: nothing that was given before reaches the replay, which is about to be another one."""
        ...

    def check(self) -> None:
        """On the host, after `settle`: raise what the device has refused; waits for it."""
        ...


class ResidentFeed:
    """From a replay on the device: all of it is part of the step, and a launch may hold many."""

    launch = MOST_STEPS

    def __init__(
        self,
        replay: DeviceReplay,
        batch: int,
        k: int,
        horizon: Callable[[], tuple[Tensor, Tensor]],
        dtype: torch.dtype | None,
    ) -> None:
        """Batches of one size.

        Args:
            horizon: n and gamma of the next batch, [1] each on the device.
            dtype: of the networks, where observations are bytes [height, width]; None: observations are as they were stored.
        """
        self._replay, self._horizon = replay, horizon
        self._batch = replay.batch(batch, k)
        self._images = None if dtype is None else replay.images(self._batch, dtype)
        self._stacks = replay.stacks(self._batch) if dtype is None else None

    def before(self) -> None:
        pass

    def draw(self) -> Drawn:
        n, gamma = self._horizon()
        self._replay.n.copy_(n.squeeze(0))
        self._replay.gamma.copy_(gamma.squeeze(0))
        batch = self._replay.sample(self._batch)
        return Drawn(batch.action, batch.mask, batch.n_return, batch.discount, batch.priority)

    def observations(self, augmentation: Augmentation | None) -> Tensor:
        if self._images is not None:
            return self._replay.shift(self._batch, augmentation, self._images)
        assert self._stacks is not None
        return _in_order(*self._replay.stack(self._batch, self._stacks))

    def give(self, td: Tensor) -> None:
        self._replay.update_priority(self._batch.index, td.double() + PRIORITY_EPS)

    def after(self) -> None:
        pass

    def settle(self) -> None:
        pass  # the replay's own calls come later in the same stream

    def forget(self) -> None:
        pass

    def check(self) -> None:
        self._replay.check()


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
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """A feed of batches of one size.

        Args:
            draw: makes the next batch, in the arrays that it is given or in others.
            write: takes what `draw` drew, as index [B] int64 and losses [B] float32, in the same order.
            k: steps of the subsequence.
            dtype: of the networks.
        """
        h = max(k, 1)
        frame = getattr(torch, spec.frame_dtype)
        self._upload = Upload(
            {
                "action": Field((batch, h, *spec.action_shape), getattr(torch, spec.action_dtype)),
                "mask": Field((batch, k), torch.bool),
                "n_return": Field((batch,), torch.float32),
                "discount": Field((batch,), torch.float32),
                "priority": Field((batch,), torch.float64),
                "obs": Field((batch, k + 1, spec.stack, *spec.frame_shape), frame),
                "next_obs": Field((batch, spec.stack, *spec.frame_shape), frame),
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
        self._sent = tuple(arrays)
        self._td = Download(Field((batch,), torch.float32), device)
        self._draw, self._write, self._dtype = draw, write, dtype
        self._waiting: Array | None = None  # index of the batch whose losses are on their way

    def before(self) -> None:
        self.settle()
        self._upload.open()
        drawn = self._draw(self._out)
        for name in self._sent:
            theirs, ours = getattr(drawn, name), getattr(self._out, name)
            if theirs is not ours:
                np.copyto(ours, theirs, casting="no")
        self._waiting = drawn.index  # written again by the next draw alone, before which it is settled
        self._upload.send()

    def draw(self) -> Drawn:
        return Drawn(*(self._upload.device[name] for name in Drawn._fields))

    def observations(self, augmentation: Augmentation | None) -> Tensor:
        obs = _in_order(self._upload.device["obs"], self._upload.device["next_obs"])
        return obs if augmentation is None else device_augment.apply(obs, augmentation, self._dtype)

    def give(self, td: Tensor) -> None:
        self._td.device.copy_(td)

    def after(self) -> None:
        self._td.start()

    def settle(self) -> None:
        if self._waiting is not None:
            index, self._waiting = self._waiting, None
            self._write(index, self._td.wait())

    def forget(self) -> None:
        self._waiting = None

    def check(self) -> None:
        pass  # `write` has seen the losses


def _in_order(obs: Tensor, next_obs: Tensor) -> Tensor:
    """[B, k + 1, ...] and [B, ...] -> [(k + 2) B, ...]."""
    return torch.cat([obs.transpose(0, 1).flatten(0, 1), next_obs])
