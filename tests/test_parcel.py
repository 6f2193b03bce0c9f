"""Parcels: the bits, types and strides that were packed, in few buffers, read where they lie."""

import gc
import pickle
import weakref
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from rlplatform.workers import parcel
from rlplatform.workers.parcel import LARGE, PIECE, SMALL, Parcel, pack, size, unpack


class Pair(NamedTuple):
    left: Any
    right: Any


def sent(packed: Parcel, offset: int = 0, gap: int = 0) -> Parcel:
    """As another process has it: each buffer read-only in one stretch of memory, `offset` bytes after a multiple of 64, and `gap` more
    between any two."""
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(packed, protocol=5, buffer_callback=buffers.append)
    raws = [np.frombuffer(buffer, np.uint8) for buffer in buffers]
    memory = np.zeros(sum(-(-raw.nbytes // 64) * 64 + gap for raw in raws) + 128, np.uint8)
    at, there = -memory.ctypes.data % 64 + offset, []
    for raw in raws:
        memory[at : at + raw.nbytes] = raw
        view = memory[at : at + raw.nbytes]
        view.flags.writeable = False
        there.append(view)
        at += -(-raw.nbytes // 64) * 64 + gap
    return pickle.loads(text, buffers=there)  # noqa: S301


def owner(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("scale", [1, 40, 400], ids=["small", "whole", "in pieces"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_a_parcel_gives_back_the_bits(dtype: torch.dtype, scale: int) -> None:
    drawn = torch.randn(5 * scale, 16, 9, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    weights = {
        "plain": drawn, "number": drawn[0, 0, 0, 0], "empty": drawn[:0], "cut": drawn[:, 1], "last": drawn.to(memory_format=torch.channels_last),
        "turned": drawn.permute(3, 1, 0, 2), "same": drawn[:1].expand(3, -1, -1, -1), "parameter": torch.nn.Parameter(drawn.float()),
    }  # fmt: skip
    for offset, gap in ((0, 0), (8, 0), (0, 64)):
        again = unpack(sent(pack(weights), offset, gap))
        assert list(again) == list(weights)
        for name, value in weights.items():
            assert type(again[name]) is torch.Tensor
            assert again[name].dtype == value.dtype
            assert torch.equal(again[name], value)
            assert again[name].stride() == value.clone().stride()
            assert not again[name].numel() or owner(again[name]) % 64 == 0


def test_a_parcel_keeps_what_holds_the_arrays() -> None:
    tree = Pair(
        {"of": [np.arange(6).reshape(2, 3).T, 0.5], "no": None},
        (np.array(3.0), np.zeros((0, 2), np.uint8), "word", b"bytes"),
    )
    again = unpack(sent(pack(tree)))
    assert isinstance(again, Pair)
    np.testing.assert_array_equal(again.left["of"][0], tree.left["of"][0])
    assert (again.left["of"][1], again.left["no"], again.right[2:]) == (0.5, None, ("word", b"bytes"))
    assert again.right[0].shape == ()
    assert again.right[0] == 3.0
    assert again.right[1].shape == (0, 2)
    assert again.right[1].dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        again.left["of"][0][0, 0] = 1
    words = np.array(["a", None], object)
    assert unpack(sent(pack({"words": words})))["words"].tolist() == ["a", None]
    assert unpack(sent(pack({}))) == {}


def test_a_parcel_has_few_buffers_and_copies_only_what_is_small() -> None:
    weights = {f"bias {i}": torch.full((10 + i,), i) for i in range(20)}
    weights |= {
        "whole": torch.zeros(SMALL, dtype=torch.uint8),
        "pieces": torch.zeros(2 * PIECE + 64, dtype=torch.uint8),
    }
    weights["large"] = torch.zeros(LARGE, dtype=torch.uint8)
    packed = pack(weights)
    assert [[memoryview(piece).nbytes for piece in one] for one in packed.others] == [
        [SMALL],
        [PIECE, PIECE, 64],
        [LARGE],
    ]
    begins = [np.frombuffer(one[0], np.uint8).ctypes.data for one in packed.others]
    assert begins == [weights[name].data_ptr() for name in ("whole", "pieces", "large")]
    assert memoryview(packed.small).nbytes == 64 * sum(-(-8 * (10 + i) // 64) for i in range(20))
    assert size(packed) == len(packed.header) + sum(map(size, packed.others)) + memoryview(packed.small).nbytes
    assert size(weights) == sum(tensor.nbytes for tensor in weights.values())
    assert size({"a": [np.zeros(3)], "b": (b"four", torch.zeros(2), None, 1)}) == 24 + 4 + 8


def test_a_parcel_is_read_where_it_lies_if_it_lies_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that follow each other are read as the array that they were; those apart, or misplaced ones, are copied."""
    weights = {"small": torch.arange(100), "whole": torch.arange(SMALL), "pieces": torch.arange(PIECE // 4)}
    joins: list[bool] = []
    concatenate = np.concatenate
    monkeypatch.setattr(parcel.np, "concatenate", lambda pieces: joins.append(True) or concatenate(pieces))
    for offset, gap, copied in ((0, 0, False), (8, 0, True), (0, 64, True)):
        there = sent(pack(weights), offset, gap)
        begins = {
            np.frombuffer(buffer, np.uint8).ctypes.data for one in (*there.others, [there.small]) for buffer in one
        }
        joins.clear()
        again = unpack(there)
        assert bool(joins) is (gap > 0)
        shared = [again[name].data_ptr() in begins for name in weights]
        assert shared == [not copied] * 3 if offset else [True, True, not copied]
        memory = weakref.ref(there.others[1][0].base)
        pieces = again["pieces"]
        del again, there  # what is read where it lies keeps the memory, and nothing else does
        gc.collect()
        assert (memory() is None) is copied
        assert torch.equal(pieces, weights["pieces"])
