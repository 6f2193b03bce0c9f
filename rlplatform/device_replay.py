"""The replay on a GPU: frames, priorities, draws and stacks never leave it. The face of csrc/cuda/replay_*.cuh.

What is drawn is what `rlplatform.replay.Replay` draws: the same items to the bit for one stream and equal priorities, the same
shifts for one augmentation stream, and a checkpoint of one is a checkpoint of the other. What differs is where things are:

- Outputs are made once (`batch`, `stacks`, `images`) and written again by every call, at fixed addresses.
- `n` and `gamma` are device scalars, as are the size, the largest priority and the streams' counters.
- `add` does not wait for the device. `sample`, `gather`, `stack`, `shift` and `update_priority` neither wait for it nor allocate,
  and run on torch's current stream: after a first call they can be captured into a CUDA graph, which then sees what `n` and
  `gamma` are when it runs.
- So they cannot raise for what only the device knows. The first thing that a kernel refuses is noted on the device; until
  `check` has raised it, what is added or updated has no effect. Call `check` wherever metrics are read.

With device="cpu" the same kernels' code runs on the host, thread by thread: for tests, and slower than `Replay`.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlplatform import _core, replay_files
from rlplatform.device_augment import Augmentation
from rlplatform.device_streams import signed
from rlplatform.device_view import HostView
from rlplatform.kernels import addresses, expect, expect_array, module, numbered, queue
from rlplatform.replay_files import ReplayFiles
from rlplatform.segments import Slots
from rlplatform.staging import Field, Upload
from rlplatform.streams import Stream
from rlplatform.types import Array, Rollout, Spec, State

_NO_FAULT = 2**63 - 1
_FINAL = 8  # kFinal of csrc/ring.hpp
_EMPTY = 10  # Fault::kEmpty
_REFUSED = {  # Fault of csrc/cuda/replay_memory.cuh
    1: "a reward is not finite",
    2: "the episode ended, and yet this step does not begin one",
    3: "truncated, but final_frame lacks the last frame",
    4: "a final frame of an episode that goes on",
    5: "final_at must hold (t, i) within the rollout, in ascending order, and unused rows behind them",
    6: "an action is out of range or not finite",
    7: "a frame is not finite",
    8: "a priority must be >= 0 and finite, and its power at most 1e300",
    9: "an index does not name a step in the replay",
    _EMPTY: "nothing to sample: no step is eligible yet, or all eligible priorities are 0",
    11: "an item is not eligible",
    12: "n must be in [1, max_n] and gamma in [0, 1]",
}
_OF_STEPS = {1, 2, 3, 4, 6, 7}  # known by step and stream; the others by row


class DeviceBatch(NamedTuple):
    """B items on the device, as in `replay.Batch` but for the observations: `stack` or `shift` makes those. h = max(k, 1)."""

    action: Tensor  # [B, h] int64 or [B, h, A] float32
    reward: Tensor  # [B, h] float32
    terminated: Tensor  # [B, h] bool
    mask: Tensor  # [B, k] bool
    n_return: Tensor  # [B] float32
    discount: Tensor  # [B] float32
    index: Tensor  # type: ignore[assignment]  # [B] int64; -1 where nothing could be drawn. Hides tuple.index
    priority: Tensor  # [B] float64
    source: Tensor  # [B, k + 2, 2] int64: where the k + 1 observations and the next one lie, for `stack` and `shift`

    @property
    def k(self) -> int:
        return self.mask.shape[1]


class Stacks(NamedTuple):
    """The observations of a batch as they were stored."""

    obs: Tensor  # [B, k + 1, stack, *frame]
    next_obs: Tensor  # [B, stack, *frame]


class DeviceReplay:
    """`replay.Replay` with its memory on a GPU. Calls run in the order of torch's current stream; keep to one."""

    def __init__(
        self,
        spec: Spec,
        capacity: int,
        streams: int,
        max_n: int,
        max_k: int = 0,
        alpha: float = 0.0,
        stream: Stream | None = None,
        device: torch.device | str = "cuda",
    ) -> None:
        """An empty replay; arguments as of `Replay`. `n` is max_n and `gamma` 1 until they are set.

        Raises:
            ValueError: for a size out of range, one too small to hold a single window, or another device than CUDA or CPU.
            RuntimeError: for a CUDA device in an installation without CUDA kernels.
        """
        self.spec, self.streams, self.max_n, self.max_k, self.alpha = spec, streams, max_n, max_k, float(alpha)
        self._per_stream = -(-capacity // max(streams, 1))
        _core.check_replay(
            list(spec.frame_shape),
            list(spec.action_shape),
            spec.stack,
            streams,
            self._per_stream,
            max_n,
            max_k,
            self.alpha,
        )
        self.device = numbered(device)
        self._files = ReplayFiles(spec, streams, self._per_stream, max_n, max_k, self.alpha)
        self._host_order = 0  # of the threads, where they run on the host: rlp::cuda::Order
        self._scratch: dict[tuple[str, int], Tensor] = {}
        self._view = HostView(streams)
        self._staged: dict[int, Upload] = {}  # for rollouts of one T and N, by their room for final frames
        self._staged_for = (0, 0)
        self._allocate()
        self._set_stream((Stream(0, "replay") if stream is None else stream).state_dict())

    def _allocate(self) -> None:
        spec, slots = self.spec, (self.streams, self._per_stream)
        base = 1 << (self.streams * self._per_stream - 1).bit_length()

        def zeros(dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self.device)

        self._frame = zeros(_dtype(spec.frame_dtype), *slots, *spec.frame_shape)
        self._action = zeros(_dtype(spec.action_dtype), *slots, *spec.action_shape)
        self._reward, self._bits = zeros(torch.float32, *slots), zeros(torch.uint8, *slots)
        self._priority, self._eligible = zeros(torch.float64, *slots), zeros(torch.uint8, *slots)
        self._claim, self._tree = zeros(torch.int32, *slots), zeros(torch.float64, 2 * base)
        self._count, self._before = zeros(torch.int64, self.streams), zeros(torch.int64, self.streams)
        self._scalars = zeros(torch.int64, 8)  # rlp::cuda::Scalars
        self._size, self.n, self._stream, self._fault = (self._scalars[i] for i in (0, 1, slice(2, 4), 4))
        self.gamma, self._max_priority = self._scalars.view(torch.float64)[6:8].unbind()
        self.set(self.max_n, 1.0)
        self._max_priority.fill_(1.0)
        self._fault.fill_(_NO_FAULT)
        floats = self._frame.element_size() if self._frame.is_floating_point() else 0
        self._kernels = module(self.device).ReplayKernels(
            _row_bytes(self._frame), _row_bytes(self._action), spec.stack, *slots, self.max_n, self.max_k, self.alpha,
            spec.actions, floats,
            *addresses(self._frame, self._action, self._reward, self._bits, self._priority, self._eligible),
            *addresses(self._claim, self._count, self._before, self._tree), base, self._scalars.data_ptr(),
        )  # fmt: skip

    # --- what the host may ask: these wait for the device, except the first two and, mostly, can_sample ---

    @property
    def capacity(self) -> int:
        """Slots over all streams."""
        return self._per_stream * self.streams

    @property
    def nbytes(self) -> int:
        """Device memory, the sum tree included; outputs and scratch are not."""
        held = (self._frame, self._action, self._reward, self._bits, self._priority, self._eligible, self._claim,
                self._tree, self._count, self._before, self._scalars)  # fmt: skip
        return sum(t.numel() * t.element_size() for t in held)

    def __len__(self) -> int:
        """Steps stored, eligible or not."""
        return int(self._size)

    @property
    def can_sample(self) -> bool:
        """Whether something can be drawn. Waits for the device until it can, and then no more: but for once after a cut, a load, a
        refusal, or new priorities, which might all be 0. Those that a captured graph gives are not seen here: were they all 0,
        `sample` would refuse."""
        self._view.can_sample = self._view.can_sample or bool(self._tree[1] > 0)
        return self._view.can_sample

    @property
    def max_priority(self) -> float:
        """Where new items enter: the largest priority**alpha ever recorded, 1 at first."""
        return float(self._max_priority)

    @property
    def mean_abs_reward(self) -> float:
        """Mean of |reward| over the steps stored, eligible or not; 0.0 where there are none. Summed in float64, in another order than
        `Replay` sums."""
        # What holds no step holds 0: slots that were never written, and those of final frames.
        return float(self._reward.abs().sum(dtype=torch.float64) / self._size.clamp(min=1))

    def eligible(self) -> Array:
        """Insertion numbers of all items that can be drawn, ascending, int64."""
        stream, place = np.nonzero(self._eligible.cpu().numpy())
        counts = self._count.cpu().numpy()[stream]
        newest = (counts - 1) % self._per_stream
        seq = counts - 1 - (newest - place) % self._per_stream
        return np.sort(seq * self.streams + stream)

    def check(self) -> None:
        """Raise what a kernel has refused since the last check, if anything; then go on.

        Raises:
            ValueError: what was wrong with the arguments of an earlier call.
            RuntimeError: `sample` had nothing to draw.
        """
        fault = int(self._fault)
        if fault == _NO_FAULT:
            return
        self._fault.fill_(_NO_FAULT)
        self._view.forget()  # what came after the refusal had no effect
        kind, stream, row = fault & 15, fault >> 4 & (1 << 27) - 1, fault >> 31
        where = f"step {row} of the rollout, stream {stream}" if kind in _OF_STEPS else f"row {row}"
        raise (RuntimeError if kind == _EMPTY else ValueError)(f"{_REFUSED[kind]} ({where})")

    # --- adding ---

    def add(self, rollout: Any) -> None:
        """Append T steps of N environments: a `Rollout`, or the same fields as tensors on this device; environment i is stream
        `rollout.first_env + i`. The device is not waited for.

        Arrays are looked at on the host and go up in one copy; what is wrong with them raises here. With tensors rows of
        `final_at` may be unused, (-1, -1) behind the others, and `check` raises what was wrong with the values. They go on where
        their streams' last rollout ended, as an actor's do (a cut in them is right, but may leave nothing to draw without
        `can_sample` knowing: then `sample` refuses).

        Raises:
            ValueError: for a wrong dtype or shape, a stream out of range; with arrays also as `Replay.add`.
        """
        on_host = isinstance(rollout.frame, np.ndarray)
        self._expect_rollout(rollout)
        sound = on_host and self._view.is_sound(rollout, self.spec.actions)
        steps = self._sent(rollout, spare=sound) if on_host else rollout
        (time, envs), finals = steps.first.shape, len(steps.final_at)
        slots = 1 << (time * envs + finals).bit_length()  # few sizes, however many games end
        self._kernels.add(
            time, envs, steps.first_env,
            *addresses(steps.frame, steps.first, steps.action, steps.reward, steps.terminated, steps.truncated),
            finals, *addresses(steps.final_frame, steps.final_at),
            *addresses(self._memory("seq", slots), self._memory("leaf", envs * self._kernels.touched(time))),
            *self._queue(),
        )  # fmt: skip
        if not on_host:
            self._view.forget_streams(rollout.first_env, envs)
            return
        if not sound:
            self.check()  # the device says what is wrong, or knows that nothing is
        self._view.added(rollout)

    def _sent(self, rollout: Rollout, *, spare: bool) -> SimpleNamespace:
        """The rollout on its way to the device. `spare`: with room for more final frames than it has, so that a run has few kinds
        of it."""
        (time, envs), finals = rollout.first.shape, len(rollout.final_at)
        room = 1 << (finals - 1).bit_length() if finals and spare else finals
        if self._staged_for != (time, envs):
            self._staged, self._staged_for = {}, (time, envs)
        if room not in self._staged:
            fields = {
                name: Field(shape, dtype) for name, (dtype, shape) in self._rollout_fields(time, envs, room).items()
            }
            self._staged[room] = Upload(fields, self.device)
        upload = self._staged[room]
        for name, tensor in upload.open().items():
            given, to = getattr(rollout, name), tensor.numpy()
            to[: len(given)] = given
        upload.open()["final_at"][finals:] = -1
        upload.send()
        return SimpleNamespace(**upload.device, first_env=rollout.first_env)

    def _expect_rollout(self, r: Any) -> None:
        if r.first.ndim != 2:
            raise ValueError(f"first must be bool [T, N], got {list(r.first.shape)}")
        time, envs = r.first.shape
        for name, (dtype, shape) in self._rollout_fields(time, envs, len(r.final_at)).items():
            given = getattr(r, name)
            if isinstance(given, np.ndarray):
                expect_array(name, given, dtype, shape)
            else:
                self._expect(name, given, dtype, shape)
        if not 0 <= r.first_env <= self.streams - envs:
            raise ValueError(
                f"streams {r.first_env} to {r.first_env + envs} are beyond the replay's {self.streams}, or before 0"
            )

    def _rollout_fields(self, time: int, envs: int, finals: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        grid, spec, frame = (time, envs), self.spec, self._frame.dtype
        return {
            "frame": (frame, (*grid, *spec.frame_shape)),
            "first": (torch.bool, grid),
            "action": (self._action.dtype, (*grid, *spec.action_shape)),
            "reward": (torch.float32, grid),
            "terminated": (torch.bool, grid),
            "truncated": (torch.bool, grid),
            "final_frame": (frame, (finals, *spec.frame_shape)),
            "final_at": (torch.int64, (finals, 2)),
        }

    # --- drawing ---

    def set(self, n: int, gamma: float) -> None:
        """What the next draws use. `n` and `gamma` may as well be written on the device, by `fill_` or a captured graph."""
        if not 1 <= n <= self.max_n:
            raise ValueError(f"n must be in [1, {self.max_n}], got {n}")
        if not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma must be in [0, 1], got {gamma}")
        self.n.fill_(n)
        self.gamma.fill_(gamma)

    def batch(self, size: int, k: int = 0) -> DeviceBatch:
        """Memory for batches of `size` items with subsequences of k steps, to be written by `sample` or `gather`."""
        if size < 1:
            raise ValueError(f"size must be >= 1, got {size}")
        if not 0 <= k <= self.max_k:
            raise ValueError(f"k must be in [0, {self.max_k}], got {k}")
        self._memory("priority", size)  # for update_priority, which may then be captured
        fields = self._batch_fields(size, k).values()
        return DeviceBatch(*(torch.zeros(shape, dtype=dtype, device=self.device) for dtype, *shape in fields))

    def sample(self, out: DeviceBatch) -> DeviceBatch:
        """Draw a batch in proportion to the priorities, one item from each of its equal strata, with replacement, into `out`.
        Where nothing can be drawn all is 0 and indices are -1, and `check` raises."""
        self._kernels.sample(self._native(out), *self._queue())
        return out

    def gather(self, index: Tensor, out: DeviceBatch) -> DeviceBatch:
        """The items with these insertion numbers, [B] int64, as `sample` would give them; 0 and -1 for one that is not
        eligible, and `check` raises."""
        self._expect("index", index, torch.int64, tuple(out.index.shape))
        self._kernels.gather(index.data_ptr(), self._native(out), *self._queue())
        return out

    def observations(self, index: Array) -> Tensor:
        """As `Replay.observations`, on the device; 0 for an item that is not eligible, and `check` raises."""
        drawn = self.gather(torch.from_numpy(index).to(self.device), self.batch(len(index)))
        return self.stack(drawn, self.stacks(drawn)).obs[:, 0]

    def stacks(self, batch: DeviceBatch) -> Stacks:
        """Memory for the observations of such batches as they were stored."""
        return Stacks(*(self._frame.new_empty(shape) for shape in self._stack_shapes(batch)))

    def stack(self, batch: DeviceBatch, out: Stacks) -> Stacks:
        """The observations of a batch that was just written; nothing may have been added in between."""
        obs, next_obs = self._stack_shapes(batch)
        self._expect("out.obs", out.obs, self._frame.dtype, obs)
        self._expect("out.next_obs", out.next_obs, self._frame.dtype, next_obs)
        self._kernels.stack(self._native(batch), *addresses(*out), *self._queue())
        return out

    def _stack_shapes(self, batch: DeviceBatch) -> tuple[tuple[int, ...], tuple[int, ...]]:
        size, observation = len(batch.index), (self.spec.stack, *self.spec.frame_shape)
        return (size, batch.k + 1, *observation), (size, *observation)

    def images(self, batch: DeviceBatch, dtype: torch.dtype) -> Tensor:
        """Memory for the observations of such batches as a network takes them: [(k + 2) * B, stack, height, width], channels
        last, float32 or bfloat16; observation j of item b is image j * B + b, the next observations come last."""
        if dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"dtype must be float32 or bfloat16, got {dtype}")
        return torch.empty(self._image_shape(batch), dtype=dtype, device=self.device).permute(0, 3, 1, 2)

    def shift(self, batch: DeviceBatch, draw: Augmentation | None, out: Tensor) -> Tensor:
        """The observations of a batch that was just written, shifted and multiplied as `techniques.augment.apply` does, to the
        bit for equal draws; with None only laid out for the network. `out` is from `images`."""
        images, height, width, stack = self._image_shape(batch)
        single = out.dtype == torch.float32
        dtype = torch.float32 if single else torch.bfloat16
        self._expect("out", out.permute(0, 2, 3, 1), dtype, (images, height, width, stack))
        drawn = (0, 0)
        if draw is not None:
            self._expect("draw.shift", draw.shift, torch.int64, (images, 2))
            self._expect("draw.intensity", draw.intensity, torch.float32, (images,))
            drawn = (draw.shift.data_ptr(), draw.intensity.data_ptr())
        self._kernels.shift_images(self._native(batch), height, width, *drawn, single, out.data_ptr(), *self._queue())
        return out

    def _image_shape(self, batch: DeviceBatch) -> tuple[int, int, int, int]:
        """As they lie in memory: images, height, width, stack."""
        shape = self.spec.frame_shape
        if self._frame.dtype != torch.uint8 or len(shape) != 2:
            raise ValueError(
                f"images are made of uint8 frames [height, width], not {self.spec.frame_dtype} {list(shape)}"
            )
        return (batch.k + 2) * len(batch.index), *shape, self.spec.stack

    # --- priorities ---

    def update_priority(self, index: Tensor, priority: Tensor) -> None:
        """Give items new priorities, as `Replay.update_priority`: late ones are ignored, of an item that comes twice the last
        stays. What it refuses, `check` raises; then the call has had no effect.

        Args:
            index: insertion numbers, [B] int64. priority: [B] float32 or float64.
        """
        single = priority.dtype == torch.float32
        self._expect("index", index, torch.int64, (index.numel(),))
        self._expect("priority", priority, torch.float32 if single else torch.float64, (index.numel(),))
        self._view.can_sample = False  # is not known; a graph's replays leave it
        leaf = self._memory("priority", index.numel())
        self._kernels.update_priority(
            *addresses(index, priority), single, index.numel(), leaf.data_ptr(), *self._queue()
        )

    # --- checkpoints: those of Replay ---

    def save(self, folder: Path | str) -> State:
        """As `Replay.save`, in the same format: what one wrote, the other loads.

        Raises:
            OSError: where the file cannot be written; nothing is left behind, and earlier checkpoints stay good.
        """
        counts = self._count.cpu().numpy()
        filled = min(int(counts.max()), self._per_stream)
        key, counter = self._stream.tolist()
        return {
            **self._files.save(Path(folder), counts, self._read_slots),
            "priority": self._priority[:, :filled].cpu().numpy().copy(),
            "max_priority": self.max_priority,
            "stream": {"key": key % 2**64, "counter": counter},
        }

    def load(self, folder: Path | str, state: State) -> None:
        """As `Replay.load`: the next draws, priorities and eligibility are the saved replay's. The memory stays where it is,
        so captured graphs stay good. Files are read twice: once to verify all, then into place.

        Raises:
            SegmentError: (a ValueError) as `Replay.load`; nothing has changed then.
        """
        checkpoint = self._files.open(Path(folder), state)
        priority = np.ascontiguousarray(state["priority"], np.float64)
        if not ((priority >= 0) & (priority <= 1e300)).all() or not 0 <= state["max_priority"] <= 1e300:
            raise ValueError("priorities must be in [0, 1e300]")
        for _ in self._files.blocks(checkpoint):
            pass  # verified
        for held in (self._bits, self._priority, self._eligible, self._tree, self._before):
            held.zero_()
        for i, first, slots in self._files.blocks(checkpoint):
            self._write_slots(i, first, slots)
        self._count.copy_(torch.from_numpy(checkpoint.counts))
        self._priority[:, : priority.shape[1]].copy_(torch.from_numpy(priority))
        self._max_priority.fill_(float(state["max_priority"]))
        in_use = torch.arange(self._per_stream, device=self.device) < self._count[:, None]
        self._size.copy_((in_use & (self._bits & _FINAL == 0)).sum())
        self._fault.fill_(_NO_FAULT)
        self._view.forget()
        self._set_stream(state["stream"])
        leaf = torch.empty(self.capacity, dtype=torch.int64, device=self.device)
        self._kernels.settle_all(leaf.data_ptr(), *self._queue())
        self._files.adopt(checkpoint)

    @staticmethod
    def segments(state: State) -> list[str]:
        """Names of the files that a manifest needs."""
        return replay_files.names(state)

    def _slots(self, stream: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self._frame[stream], self._action[stream], self._reward[stream], self._bits[stream]

    def _read_slots(self, stream: int, begin: int, end: int) -> Slots:
        place = torch.arange(begin, end, device=self.device) % self._per_stream
        frame, action, reward, bits = (field[place].cpu().numpy() for field in self._slots(stream))
        return frame, action, reward, bits

    def _write_slots(self, stream: int, begin: int, slots: Slots) -> None:
        place = torch.arange(begin, begin + len(slots[2]), device=self.device) % self._per_stream
        for field, value in zip(self._slots(stream), slots, strict=True):
            field[place] = torch.from_numpy(value).to(self.device)

    # --- towards the kernels ---

    def _set_stream(self, state: State) -> None:
        self._stream.copy_(torch.tensor([signed(int(state["key"])), int(state["counter"])]))

    def _queue(self) -> tuple[int, int]:
        return queue(self.device, self._host_order)

    def _expect(self, name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        expect(name, tensor, dtype, shape, self.device)

    def _memory(self, use: str, size: int) -> Tensor:
        """Scratch of int64, the same at every call of one size: a captured graph keeps its address."""
        if (use, size) not in self._scratch:
            self._scratch[use, size] = torch.empty(size, dtype=torch.int64, device=self.device)
        return self._scratch[use, size]

    def _native(self, batch: DeviceBatch) -> Any:
        """The batch as kernels take it, once it is found right."""
        size, k = len(batch.index), batch.k
        for name, (dtype, *shape) in self._batch_fields(size, k).items():
            self._expect(f"batch.{name}", getattr(batch, name), dtype, tuple(shape))
        return module(self.device).DeviceBatch(size, k, *addresses(*batch))

    def _batch_fields(self, size: int, k: int) -> dict[str, tuple[Any, ...]]:
        h, f32 = max(k, 1), torch.float32
        return {
            "action": (self._action.dtype, size, h, *self.spec.action_shape),
            "reward": (f32, size, h),
            "terminated": (torch.bool, size, h),
            "mask": (torch.bool, size, k),
            "n_return": (f32, size),
            "discount": (f32, size),
            "index": (torch.int64, size),
            "priority": (torch.float64, size),
            "source": (torch.int64, size, k + 2, 2),
        }


def _dtype(name: str) -> torch.dtype:
    """torch's, of a numpy name."""
    return torch.from_numpy(np.empty(0, name)).dtype


def _row_bytes(slots: Tensor) -> int:
    """Of one slot of [streams, per_stream, ...]."""
    return int(np.prod(slots.shape[2:], dtype=int)) * slots.element_size()
