"""States on disk: what goes in comes out, and damage anywhere is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rlplatform import statefile

STATE = {
    "none": None, "true": True, "int": 2**63 + 5, "float": 0.1, "inf": float("inf"), "text": "ä/b", "bytes": b"\x00\xff",
    "list": [1, [np.arange(3), "x"], {"a": b""}], "empty": {}, "empty array": np.zeros((0, 3), np.float32),
    "weights": {"a/b": torch.arange(6, dtype=torch.float32).reshape(2, 3).t(), "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)},
    "flags": np.array([True, False]), "scalar": np.array(3, np.uint64),
}  # fmt: skip


def equal(a: object, b: object) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b


def test_round_trip(tmp_path: Path) -> None:
    statefile.write(tmp_path, STATE)
    assert equal(statefile.read(tmp_path), STATE)


@pytest.mark.parametrize("name", ["state.json", "arrays.npz"])
def test_a_changed_byte_is_refused(tmp_path: Path, name: str) -> None:
    statefile.write(tmp_path, {"a": np.arange(4), "b": "text", "c": 1.5})
    good = (tmp_path / name).read_bytes()
    for at in range(len(good)):
        (tmp_path / name).write_bytes(good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1 :])
        with pytest.raises(statefile.StateError, match="damaged|is not an"):
            statefile.read(tmp_path)


@pytest.mark.parametrize("name", ["state.json", "arrays.npz"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    statefile.write(tmp_path, {"a": np.arange(4)})
    good = (tmp_path / name).read_bytes()
    for length in range(0, len(good), 7):
        (tmp_path / name).write_bytes(good[:length])
        with pytest.raises(statefile.StateError, match="damaged"):
            statefile.read(tmp_path)


def test_foreign_files_and_missing_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(statefile.StateError, match="incomplete"):
        statefile.read(tmp_path)
    statefile.write(tmp_path, {})
    (tmp_path / "state.json").write_text('{"format": "something else"}')
    with pytest.raises(statefile.StateError, match="is not an"):
        statefile.read(tmp_path)


@pytest.mark.parametrize("bad", [{"a": object()}, {1: 2}, {"@array": 1}, {"a": np.array([object()])}, {"a": {1, 2}}])
def test_what_a_state_may_not_hold_is_refused(tmp_path: Path, bad: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        statefile.write(tmp_path, bad)
