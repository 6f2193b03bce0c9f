"""Prioritised replay of n-step transitions and subsequences: the typed face of csrc/replay.hpp.

Frames are stored once; observations are stacked when they are read. What is drawn is a function of what was added, of
the priorities and of the stream alone.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from rlplatform import _core, replay_files
from rlplatform.replay_files import ReplayFiles
from rlplatform.streams import Stream
from rlplatform.types import Array, Rollout, Spec, State


class Batch(NamedTuple):
    """B items: a subsequence of k steps from s_t, and the n-step transition from s_t. h = max(k, 1).

    With m = min(n, steps until the episode ends). After the end of the episode everything is 0.
    """

    obs: Array  # [B, k + 1, stack, *frame]: s_t, ..., s_{t+k}
    action: Array  # [B, h] int64 or [B, h, A] float32: a_t, ...
    reward: Array  # [B, h] float32, raw: r_t, ...
    terminated: Array  # [B, h] bool: nothing follows that step
    mask: Array  # [B, k] bool: obs[:, j + 1] belongs to the same episode, nothing ended in t, ..., t + j
    n_return: Array  # [B] float32: sum over j < m of gamma^j r_{t+j}
    discount: Array  # [B] float32: gamma^m, or 0 where the episode terminated within those m steps
    next_obs: Array  # [B, stack, *frame]: s_{t+m}, at a truncation with the true final frame; 0 where terminated
    index: Array  # type: ignore[assignment]  # [B] int64: insertion numbers, for update_priority; hides tuple.index
    priority: Array  # [B] float64: what the draw was in proportion to, priority**alpha


class Replay:
    """The newest `capacity` slots of experience of several streams of environment steps.

    A step becomes eligible for sampling once max(max_n, max_k) more steps of its stream follow or its episode has ended,
    whatever n and k a call asks for. A stream that is cut (a step with `first` where nothing ended before) leaves the
    steps whose window crosses the cut out for good.

    `add`, `sample` and `update_priority` may be called from different threads, but `sample` from one at a time: it
    advances the stream of random numbers. A call that raises has changed nothing.
    """

    def __init__(
        self,
        spec: Spec,
        capacity: int,
        streams: int,
        max_n: int,
        max_k: int = 0,
        alpha: float = 0.0,
        stream: Stream | None = None,
        path: Path | str | None = None,
    ) -> None:
        """An empty replay. `capacity` is in slots over all streams, rounded up to a multiple of `streams`; a truncated
        episode takes one slot more than it has steps.

        Args:
            max_n: longest n-step return that will be asked for.
            max_k: longest subsequence that will be asked for.
            alpha: exponent of the priorities; 0 draws uniformly.
            stream: what the draws are made from; Stream(0, "replay") if not given.
            path: a folder; the frames lie in an unnamed file there, instead of in memory. Not a checkpoint.

        Raises:
            ValueError: for a size out of range, or one too small to hold a single window.
            OSError: where there is no room for the frames.
        """
        self.spec, self.streams, self.max_n, self.max_k, self.alpha = spec, streams, max_n, max_k, float(alpha)
        self.stream = Stream(0, "replay") if stream is None else stream
        self._per_stream = -(-capacity // max(streams, 1))
        self._path = path
        self._core = self._empty()
        self._files = ReplayFiles(spec, streams, self._per_stream, max_n, max_k, self.alpha)

    @property
    def capacity(self) -> int:
        """Slots over all streams."""
        return self._per_stream * self.streams

    @property
    def can_sample(self) -> bool:
        return self._core.can_sample

    @property
    def nbytes(self) -> int:
        """All memory at full capacity, the sum tree included; frames in a file count, too."""
        return self._core.nbytes

    @property
    def max_priority(self) -> float:
        """Where new items enter: the largest priority**alpha ever recorded, 1 at first."""
        return self._core.max_priority

    @property
    def mean_abs_reward(self) -> float:
        """Mean of |reward| over the steps stored, eligible or not; 0.0 where there are none. Takes time in proportion to
        their number."""
        return self._core.mean_abs_reward

    def __len__(self) -> int:
        """Steps stored, eligible or not."""
        return self._core.size

    def add(self, rollout: Rollout) -> None:
        """Append T steps of N environments; environment i is stream `rollout.first_env + i`.

        Raises:
            ValueError: for a wrong dtype or shape, a stream out of range, an action out of range, a value that is not
                finite, a truncation whose last frame is not in `final_frame`, or an episode that goes on after its end.
        """
        self._core.add(
            rollout.frame, rollout.first, rollout.action, rollout.reward, rollout.terminated, rollout.truncated,
            rollout.final_frame, rollout.final_at, rollout.first_env,
        )  # fmt: skip

    def sample(self, batch: int, n: int, gamma: float | Array, k: int = 0, out: Batch | None = None) -> Batch:
        """Draw `batch` items in proportion to their priorities, one from each of `batch` equal strata, with replacement.

        Args:
            n: steps of the return, 1 <= n <= max_n.
            gamma: discount in [0, 1], one number or [batch].
            k: steps of the subsequence, 0 <= k <= max_k.
            out: a batch of the same batch size and k to write into; saves the page faults of fresh memory.

        Raises:
            ValueError: for an argument out of range, or an `out` that does not fit.
            RuntimeError: where no step is eligible yet.
        """
        arrays = self._core.sample(batch, n, _doubles(gamma), k, self.stream.key, self.stream.counter, out)
        self.stream.counter += -(-batch // 2)
        return Batch(*arrays) if out is None else out

    def draw(self, batch: int) -> Array:
        """The insertion numbers alone of the items that `sample` would draw now, [batch] int64: for what keeps its contents
        elsewhere and gathers them by `gather` or by itself.

        Raises:
            ValueError, RuntimeError: as `sample`.
        """
        index = self._core.draw(batch, self.stream.key, self.stream.counter)
        self.stream.counter += -(-batch // 2)
        return index

    def gather(self, index: Array, n: int, gamma: float | Array, k: int = 0, out: Batch | None = None) -> Batch:
        """The items with these insertion numbers, [B] int64, as `sample` would give them.

        Raises:
            ValueError: where one of them is not eligible, and as in `sample`.
        """
        arrays = self._core.gather(index, n, _doubles(gamma), k, out)
        return Batch(*arrays) if out is None else out

    def observations(self, index: Array) -> Array:
        """What was seen when these items, [B] int64, were stored: [B, stack, *frame].

        Raises:
            ValueError: where one of them is not eligible.
        """
        return self.gather(index, 1, 0.0).obs[:, 0]

    def update_priority(self, index: Array, priority: Array) -> None:
        """Give items new priorities; `priority**alpha` is what is stored.

        An item that has been overwritten is ignored, one that is not eligible yet keeps its priority until it is, and of
        an item that comes twice the last priority stays.

        Args:
            index: insertion numbers, [B] int64.
            priority: [B] float32 or float64, finite and >= 0.

        Raises:
            ValueError: for a wrong dtype or shape, a priority out of range, a number that was never given out.
        """
        self._core.update_priority(index, priority)

    def eligible(self) -> Array:
        """Insertion numbers of all items that can be drawn, ascending, int64. Takes time in proportion to capacity."""
        return self._core.eligible()

    def save(self, folder: Path | str) -> State:
        """Write the slots that no segment in `folder` holds yet into a new one there, and return the manifest: what
        `load` needs beside the files. Segments whose slots are all overwritten are no longer named in it; the caller
        deletes what no manifest of his names. No `add` may run meanwhile.

        Raises:
            OSError: where the file cannot be written; nothing is left behind, and earlier checkpoints stay good.
        """
        counts = self._core.counts()
        filled = min(int(counts.max()), self._per_stream)
        return {
            **self._files.save(Path(folder), counts, self._core.read_slots),
            "priority": self._core.priorities()[:, :filled].copy(),
            "max_priority": self.max_priority,
            "stream": dict(self.stream.state_dict()),
        }

    def load(self, folder: Path | str, state: State) -> None:
        """Become what was saved: the next draws, priorities and eligibility are the saved replay's, bit for bit. All
        is verified before anything changes.

        Raises:
            SegmentError: (a ValueError) where the manifest or a file is missing, damaged, or of a replay with another
                spec, capacity, number of streams, max_n, max_k or alpha.
        """
        checkpoint = self._files.open(Path(folder), state)
        priority = np.zeros((self.streams, self._per_stream))
        priority[:, : state["priority"].shape[1]] = state["priority"]
        stream = Stream(0, "replay")
        stream.load_state_dict(state["stream"])
        # What is written into a replay that never held a slot cannot be seen before restore().
        core = self._empty() if self._core.counts().any() else self._core
        for i, first, slots in self._files.blocks(checkpoint):
            core.write_slots(i, first, *slots)
        core.restore(checkpoint.counts, priority, state["max_priority"])
        self.stream.load_state_dict(stream.state_dict())
        self._core = core
        self._files.adopt(checkpoint)

    @staticmethod
    def segments(state: State) -> list[str]:
        """Names of the files that a manifest needs."""
        return replay_files.names(state)

    def _empty(self) -> _core.Replay:
        spec = self.spec
        return _core.Replay(
            list(spec.frame_shape), np.dtype(spec.frame_dtype), list(spec.action_shape), np.dtype(spec.action_dtype),
            spec.actions, spec.stack, self.streams, self._per_stream, self.max_n, self.max_k, self.alpha,
            "" if self._path is None else str(self._path),
        )  # fmt: skip


def _doubles(gamma: float | Array) -> float | Array:
    return np.asarray(gamma, np.float64) if isinstance(gamma, np.ndarray) else gamma
