"""Arrays and tensors on their way to another process: few buffers, which the receiver reads where they lie.

Ray copies each buffer of an object into its store by itself, at some microseconds a buffer; those of a MiB or more with several
threads, whose start and end cost more than they gain until a buffer has several MiB. So what is small shares one buffer, and what
is middling goes in pieces that a single thread copies. `rlplatform bench ray --only transport` measures what that comes to.
"""

import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from pickle import PickleBuffer
from typing import Any, NamedTuple

import numpy as np
import torch

from rlplatform.types import Array

ALIGNMENT = 64  # bytes, that of torch's own memory: a vectorised sum may depend on where its operands begin
SMALL = 1 << 16  # bytes: below, a copy costs less than a buffer of its own
PIECE = (1 << 20) - ALIGNMENT  # bytes: the most that Ray copies without threads of its own
LARGE = (
    1 << 25
)  # bytes: from here on those threads pay. (Two busy cores: the 15 arrays of 35 MB of weights took 9 ms, cut so 5.5)


class Parcel(NamedTuple):
    """A nested structure whose arrays and tensors lie in buffers."""

    header: bytes  # pickled: the structure, with a _Slot for each array or tensor, and whether there are tensors
    small: PickleBuffer  # all that are small, each at a multiple of ALIGNMENT
    others: list[list[PickleBuffer]]  # each of the others in pieces, in order


class _Slot(NamedTuple):
    """An array or tensor."""

    buffer: int  # its number among the others; -1: it lies in the small one,
    begin: int  # ... this many bytes after its beginning
    size: int  # bytes
    dtype: np.dtype[Any] | str  # a string is torch's
    shape: tuple[int, ...]
    stride: tuple[
        int, ...
    ]  # a tensor's, in elements: the order of its dimensions may decide which kernel multiplies it


def pack(tree: Any) -> Parcel:
    """Nested mappings, named tuples, lists and tuples as a parcel. What is small is copied; the rest is not where it lies densely in
    main memory, and must not be written to before the parcel has been sent."""
    small: list[Array] = []
    others: list[list[PickleBuffer]] = []
    end, tensors = 0, False

    def put(flat: Array, dtype: Any, shape: tuple[int, ...], stride: tuple[int, ...]) -> _Slot:
        nonlocal end
        if flat.nbytes < SMALL:
            slot = _Slot(-1, end, flat.nbytes, dtype, shape, stride)
            small.append(flat)
            end += -(-flat.nbytes // ALIGNMENT) * ALIGNMENT
            return slot
        others.append([_buffer(piece) for piece in _cut(flat)])
        return _Slot(len(others) - 1, 0, flat.nbytes, dtype, shape, stride)

    def leaf(value: Any) -> Any:
        nonlocal tensors
        if isinstance(value, torch.Tensor):
            tensors = True
            dense = _dense(value.detach()).cpu()
            flat = dense.as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy()
            return put(flat, str(dense.dtype), tuple(dense.shape), dense.stride())
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            dense_array = np.asarray(value, order="C")
            return put(dense_array.reshape(-1).view(np.uint8), value.dtype, value.shape, ())
        return value

    slots = _mapped(tree, leaf)
    header = pickle.dumps((slots, tensors), protocol=5)
    gathered = np.zeros(end, np.uint8)
    begin = 0
    for flat in small:
        gathered[begin : begin + flat.nbytes] = flat
        begin += -(-flat.nbytes // ALIGNMENT) * ALIGNMENT
    return Parcel(header, _buffer(gathered), others)


def unpack(parcel: Parcel) -> Any:
    """What `pack` was given, and with the same strides. Arrays and tensors lie in the parcel's memory, and must not be written to; only
    what does not begin at a multiple of 64 bytes there, or lies in pieces apart, is copied."""
    header, small, others = parcel
    # Of this module's own making, from the other end of a connection over which Ray itself sends pickles.
    slots, any_tensors = pickle.loads(header)  # noqa: S301
    flats = [_aligned(_joined(pieces)) for pieces in others]
    flats.append(_aligned(_joined([small])))  # number -1
    tensors = _tensors(flats) if any_tensors else []

    def leaf(value: Any) -> Any:
        if not isinstance(value, _Slot):
            return value
        if not isinstance(value.dtype, str):
            flat = flats[value.buffer][value.begin : value.begin + value.size]
            return flat.view(value.dtype).reshape(value.shape)
        dtype = getattr(torch, value.dtype.removeprefix("torch."))
        if not value.size:
            return torch.empty_strided(value.shape, value.stride, dtype=dtype)
        whole = tensors[value.buffer][value.begin : value.begin + value.size].view(dtype)
        return whole.as_strided(value.shape, value.stride)

    return _mapped(slots, leaf)


def size(tree: Any) -> int:
    """Bytes of all arrays, tensors, buffers and byte strings in nested mappings, sequences and tuples."""
    if isinstance(tree, np.ndarray | torch.Tensor):
        return int(tree.nbytes)
    if isinstance(tree, bytes):
        return len(tree)
    if isinstance(tree, PickleBuffer):
        return memoryview(tree).nbytes
    if isinstance(tree, Mapping):
        return sum(size(value) for value in tree.values())
    return sum(size(value) for value in tree) if isinstance(tree, list | tuple) else 0


def _mapped(tree: Any, leaf: Callable[[Any], Any]) -> Any:
    """The same structure, with `leaf` of all that is none."""
    kind = type(tree)
    if kind is _Slot or kind is np.ndarray or kind is torch.Tensor:  # most are
        return leaf(tree)
    if isinstance(tree, Mapping):
        return {name: _mapped(value, leaf) for name, value in tree.items()}
    if kind is list or kind is tuple:
        return kind([_mapped(value, leaf) for value in tree])
    if isinstance(tree, tuple) and hasattr(kind, "_fields"):
        return kind(*[_mapped(value, leaf) for value in tree])
    return leaf(tree)


def _tensors(flats: Sequence[Array]) -> list[torch.Tensor]:
    """In the same memory."""
    with warnings.catch_warnings():  # it is meant: what several processes read, none may write
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return [torch.from_numpy(flat) for flat in flats]


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """It, or a copy without gaps and with its dimensions in the same order in memory."""
    if tensor.is_contiguous() or tensor.stride() == torch.empty_like(tensor, device="meta").stride():
        return tensor
    return tensor.clone()


def _buffer(array: Any) -> PickleBuffer:
    return PickleBuffer(
        array
    )  # which takes any buffer, though before Python 3.12 the types of numpy's do not say that they are


def _cut(flat: Array) -> list[Array]:
    if not PIECE < flat.nbytes < LARGE:
        return [flat]
    return [flat[begin : begin + PIECE] for begin in range(0, flat.nbytes, PIECE)]


class _Run:
    """Memory of several pieces, one right after the other, for numpy: it keeps them all alive."""

    def __init__(self, pieces: Sequence[Array]) -> None:
        self.pieces = pieces
        where, size = pieces[0].ctypes.data, sum(piece.nbytes for piece in pieces)
        self.__array_interface__ = {"data": (where, True), "shape": (size,), "typestr": "|u1", "version": 3}


def _joined(buffers: Sequence[Any]) -> Array:
    """[bytes] uint8. Ray lays the pieces of one array side by side, since each fills whole lines of ALIGNMENT bytes; wherever somebody
    does not, they are copied together."""
    pieces = [np.frombuffer(buffer, np.uint8) for buffer in buffers]
    if len(pieces) == 1:
        return pieces[0]
    where = pieces[0].ctypes.data
    for piece in pieces:
        if piece.ctypes.data != where:
            return np.concatenate(pieces)
        where += piece.nbytes
    return np.asarray(_Run(pieces))


def _aligned(flat: Array) -> Array:
    if not flat.nbytes or not flat.ctypes.data % ALIGNMENT:
        return flat
    copy: Array = torch.empty(flat.nbytes, dtype=torch.uint8).numpy()  # torch aligns what it allocates, numpy does not
    copy[:] = flat
    return copy
