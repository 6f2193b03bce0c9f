"""The checkpoints of a replay, wherever its memory is: which segment files hold which slots, and whether a manifest can be
trusted. `Replay` and `DeviceReplay` save and load through this, so that each reads what the other wrote."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlplatform import segments
from rlplatform.segments import Layout, Read, Segment, SegmentError, Slots
from rlplatform.types import Array, Spec, State

FORMAT = "rlplatform replay 1"


class Checkpoint(NamedTuple):
    """A manifest that was found to be whole and of this replay; its files are not read yet."""

    folder: Path
    counts: Array  # [streams] int64: slots ever pushed
    oldest: Array  # [streams] int64: the first slot that is still needed
    segments: list[Segment]


class ReplayFiles:
    """The segments of one replay's last save or load."""

    def __init__(self, spec: Spec, streams: int, per_stream: int, max_n: int, max_k: int, alpha: float) -> None:
        self._streams, self._per_stream = streams, per_stream
        slots: Mapping[str, Any] = {**asdict(spec), "streams": streams, "slots per stream": per_stream}
        self._layout = Layout(
            json.loads(json.dumps(slots)),  # as it will be read: lists for tuples
            spec.frame_shape, spec.frame_dtype, spec.action_shape, spec.action_dtype,
        )  # fmt: skip
        self._identity = {**self._layout.identity, "max_n": max_n, "max_k": max_k, "alpha": alpha}
        self._folder: Path | None = None
        self._segments: list[Segment] = []

    def save(self, folder: Path, counts: Array, read: Read) -> dict[str, Any]:
        """Write the slots that no segment in `folder` holds yet into a new one, and return the manifest's part about files.

        Raises:
            OSError: where the file cannot be written; nothing is left behind.
        """
        oldest = self._oldest(counts)
        kept = [s for s in self._segments if (np.array(s.end) > oldest).any()]
        if folder != self._folder or not all((folder / s.name).is_file() for s in kept):
            kept = []  # elsewhere, or somebody cleaned up: begin anew
        begin = np.maximum(oldest, kept[-1].end) if kept else oldest
        if (begin < counts).any():
            kept.append(segments.write(folder, self._layout, begin.tolist(), counts.tolist(), read))
        self._folder, self._segments = folder, kept
        return {
            "format": FORMAT,
            "identity": self._identity,
            "counts": counts,
            "segments": [s.as_state() for s in kept],
        }

    def open(self, folder: Path, state: State) -> Checkpoint:
        """The files that a manifest names.

        Raises:
            SegmentError: where the manifest is damaged or of another replay.
        """
        if state.get("format") != FORMAT:
            raise SegmentError(f"the replay's manifest is {state.get('format')!r}, this program reads {FORMAT!r}")
        segments.refuse_foreign("the checkpoint", state.get("identity"), self._identity)
        counts, kept = np.array(state["counts"], np.int64), [Segment(**s) for s in state["segments"]]
        checkpoint = Checkpoint(folder, counts, self._oldest(counts), kept)
        self._check_cover(checkpoint)
        return checkpoint

    def blocks(self, checkpoint: Checkpoint) -> Iterator[tuple[int, int, Slots]]:
        """(stream, seq of the first slot, slots) of all that is still needed. What was read must not be used before this is
        exhausted: a digest is known to be right only at the end of its file.

        Raises:
            SegmentError: where a file is missing, damaged, or not the one meant.
        """
        for segment in checkpoint.segments:
            for stream, first, slots in segments.blocks(checkpoint.folder, self._layout, segment):
                late = max(0, int(checkpoint.oldest[stream]) - first)
                frame, action, reward, bits = (field[late:] for field in slots)
                yield stream, first + late, (frame, action, reward, bits)

    def adopt(self, checkpoint: Checkpoint) -> None:
        """It was loaded: the next save adds to its files."""
        self._folder, self._segments = checkpoint.folder, checkpoint.segments

    def _oldest(self, counts: Array) -> Array:
        return np.maximum(0, counts - self._per_stream)

    def _check_cover(self, checkpoint: Checkpoint) -> None:
        """The segments follow each other, from the oldest slot that is needed to the newest."""
        kept, streams = checkpoint.segments, self._streams
        if len(checkpoint.counts) != streams or any(len(s.begin) != streams or len(s.end) != streams for s in kept):
            raise SegmentError(f"the checkpoint's manifest is damaged: it is not of {streams} streams")
        reached = checkpoint.oldest
        for s in kept:
            if (np.array(s.begin) > reached).any() or (np.array(s.end) < s.begin).any():
                raise SegmentError(f"the checkpoint's manifest is damaged: slots are missing before {s.name}")
            reached = np.maximum(reached, s.end)
        if (reached != checkpoint.counts).any():
            raise SegmentError("the checkpoint's manifest is damaged: its segments do not reach the newest slots")


def names(state: State) -> list[str]:
    """Names of the files that a replay's manifest needs."""
    return [s["name"] for s in state["segments"]]
