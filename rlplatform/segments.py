"""Segment files: the slots that a replay took in between two checkpoints. Written once, never changed.

    magic      8 bytes, b"RLPSLOTS"
    version    uint32, little endian as all that follows
    length     uint32, of the header
    header     JSON: "identity" (what the replay is like), "begin" and "end" (slot numbers by stream), "rows"
    blocks     stream by stream, `rows` slots at a time: frames, actions, rewards (float32), bits (uint8; csrc/ring.hpp)
    digest     32 bytes, BLAKE2b of all before it

A file's name holds its digest, so that a name never stands for two contents. Nothing is pickled.
"""

import hashlib
import io
import itertools
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlplatform.types import Array

MAGIC = b"RLPSLOTS"
VERSION = 1
DIGEST_BYTES = 32
_PREFIX = struct.Struct("<8sII")
_BLOCK_BYTES = 1 << 24  # of frames at a time: what saving takes beside the replay itself

Slots = tuple[Array, Array, Array, Array]  # frame [n, *frame], action [n, *action], reward [n] float32, bits [n] uint8
Read = Callable[[int, int, int], Slots]  # (stream, begin, end) -> their slots


class SegmentError(ValueError):
    """A segment that is missing, damaged, or of another replay; or a manifest that is. The message names it."""


@dataclass(frozen=True)
class Segment:
    """One file and what is in it: slots begin[s] <= seq < end[s] of each stream s."""

    name: str
    begin: list[int]
    end: list[int]
    digest: str  # hexadecimal

    def as_state(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Layout:
    """What the slots of a replay look like, and everything else that must be equal for its files to be read."""

    identity: Mapping[str, Any]  # JSON values
    frame_shape: tuple[int, ...]
    frame_dtype: str
    action_shape: tuple[int, ...]
    action_dtype: str

    def empty(self, n: int) -> Slots:
        frame = np.empty((n, *self.frame_shape), self.frame_dtype)
        action = np.empty((n, *self.action_shape), self.action_dtype)
        return frame, action, np.empty(n, np.float32), np.empty(n, np.uint8)

    @property
    def rows(self) -> int:
        """Slots in a block."""
        return max(1, _BLOCK_BYTES // max(1, self.empty(1)[0].nbytes))


def write(folder: Path, layout: Layout, begin: list[int], end: list[int], read: Read) -> Segment:
    """Write one segment, durable when this returns. On an error nothing is left behind.

    Raises:
        OSError: where the file cannot be written.
    """
    part = folder / "segment.part"
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    try:
        with part.open("wb") as file:
            header = {"identity": dict(layout.identity), "begin": begin, "end": end, "rows": layout.rows}
            text = json.dumps(header).encode()
            head: tuple[bytes | memoryview, ...] = (_PREFIX.pack(MAGIC, VERSION, len(text)), text)
            for piece in itertools.chain(head, _pieces(begin, end, layout.rows, read)):
                digest.update(piece)
                file.write(piece)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        name = f"{sum(end):012d}-{digest.hexdigest()[:16]}.slots"
        part.rename(folder / name)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    return Segment(name, begin, end, digest.hexdigest())


def blocks(folder: Path, layout: Layout, segment: Segment) -> Iterator[tuple[int, int, Slots]]:
    """(stream, seq of the first slot, slots) of each block of a file. The digest is known to be right only once this is
    exhausted: what was read must not be used before.

    Raises:
        SegmentError: where the file is missing, damaged, or not the one meant.
    """
    path = folder / segment.name
    try:
        file = path.open("rb")
    except OSError as error:
        raise SegmentError(f"{path} cannot be read: {error.strerror}") from error
    with file:
        reader = _Reader(file, path)
        magic, version, length = _PREFIX.unpack(reader.take(_PREFIX.size))
        if magic != MAGIC:
            raise SegmentError(f"{path} is not a replay segment")
        if version != VERSION:
            raise SegmentError(f"{path} has format version {version}; this program reads {VERSION}")
        header = _parse(path, reader.take(length))
        refuse_foreign(str(path), header.get("identity"), layout.identity)
        if [header.get("begin"), header.get("end")] != [segment.begin, segment.end]:
            raise SegmentError(f"{path} holds other slots than the checkpoint says")
        for stream, first, n in _spans(segment.begin, segment.end, _positive(path, header.get("rows"))):
            slots = layout.empty(n)
            for field in slots:
                reader.fill(field)
            yield stream, first, slots
        reader.finish(segment.digest)


def refuse_foreign(what: str, found: Any, expected: Mapping[str, Any]) -> None:
    """Raise SegmentError, naming the first difference, unless `found` says the same as `expected`."""
    if not isinstance(found, Mapping):
        raise SegmentError(f"{what} is not of a replay")
    for key in expected:
        if key not in found or found[key] != expected[key]:
            raise SegmentError(f"{what} is of another replay: {key} {found.get(key)} there, {expected[key]} here")


def sync_folder(folder: Path) -> None:
    """Force a folder's entries (new names, renames) to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _spans(begin: list[int], end: list[int], rows: int) -> Iterator[tuple[int, int, int]]:
    """(stream, first, n) of each block."""
    for stream, (low, high) in enumerate(zip(begin, end, strict=True)):
        for first in range(low, high, rows):
            yield stream, first, min(rows, high - first)


def _pieces(begin: list[int], end: list[int], rows: int, read: Read) -> Iterator[memoryview]:
    for stream, first, n in _spans(begin, end, rows):
        for field in read(stream, first, first + n):
            yield field.reshape(-1).view(np.uint8).data


class _Reader:
    """Reads a file and digests what it reads."""

    def __init__(self, file: io.BufferedReader, path: Path) -> None:
        self._file, self._path = file, path
        self._size = os.fstat(file.fileno()).st_size
        self._digest = hashlib.blake2b(digest_size=DIGEST_BYTES)

    def take(self, n: int) -> bytes:
        taken = self._file.read(min(n, self._size))  # a damaged length may ask for any amount of memory
        if len(taken) != n:
            raise SegmentError(f"{self._path} is truncated")
        self._digest.update(taken)
        return taken

    def fill(self, field: Array) -> None:
        view = field.reshape(-1).view(np.uint8).data
        if self._file.readinto(view) != len(view):
            raise SegmentError(f"{self._path} is truncated")
        self._digest.update(view)

    def finish(self, expected: str) -> None:
        found = self._digest.digest()
        if self._file.read(DIGEST_BYTES) != found or self._file.read(1) or found.hex() != expected:
            raise SegmentError(f"{self._path} is damaged: its digest does not match")


def _parse(path: Path, text: bytes) -> Mapping[str, Any]:
    try:
        header = json.loads(text)
    except ValueError as error:
        raise SegmentError(f"{path} is damaged: its header cannot be read") from error
    if not isinstance(header, dict):
        raise SegmentError(f"{path} is damaged: its header is not a table")
    return header


def _positive(path: Path, rows: Any) -> int:
    if not isinstance(rows, int) or rows < 1:
        raise SegmentError(f"{path} is damaged: {rows} slots in a block")
    return rows
