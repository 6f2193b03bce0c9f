"""Checkpoints of the replay: what is written, what is refused, and that a refusal or a full disk changes nothing."""

import copy
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from replay_feed import SPEC, Feed, assert_same, everything, filled
from rlplatform import segments
from rlplatform.replay import Replay
from rlplatform.segments import SegmentError
from rlplatform.streams import Stream
from rlplatform.types import Spec, State


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def only_file(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_each_save_writes_only_what_came_since(tmp_path: Path) -> None:
    replay, feed = Replay(SPEC, 400, 2, 3), Feed(SPEC, 2)
    sizes = []
    for steps in (100, 5, 0):
        if steps:
            replay.add(feed.rollout([["on", "on"]] * steps))
        before = names(tmp_path)
        state = replay.save(tmp_path)
        sizes.append(sum((tmp_path / name).stat().st_size for name in names(tmp_path) - before))
        assert set(Replay.segments(state)) == names(tmp_path)
    slot_bytes = 3 + 8 + 4 + 1  # frame, action, reward, bits
    assert sizes[0] - sizes[1] == pytest.approx(2 * 95 * slot_bytes, abs=4)  # the headers differ in a digit or two
    assert sizes[2] == 0


def test_segments_that_are_all_overwritten_are_not_named_any_more(tmp_path: Path) -> None:
    replay, feed = Replay(SPEC, 20, 1, 3), Feed(SPEC, 1)
    named = []
    for _ in range(6):
        replay.add(feed.rollout([["on"]] * 8))
        named.append(Replay.segments(replay.save(tmp_path)))
    assert named[0] == named[1][:1] == named[2][:1]
    assert [len(n) for n in named] == [1, 2, 3, 3, 3, 3]  # 20 slots: two whole segments of 8, and a part of a third
    assert len(names(tmp_path)) == 6  # deleting is the caller's


def test_a_stream_that_stands_still_keeps_its_segment(tmp_path: Path) -> None:
    replay, feed = Replay(SPEC, 40, 2, 3), Feed(SPEC, 2)
    replay.add(feed.rollout([["on", "on"]] * 8))
    first = Replay.segments(replay.save(tmp_path))
    for _ in range(5):
        replay.add(feed.rollout([["on"]] * 9, first_env=1))
        state = replay.save(tmp_path)
    assert Replay.segments(state)[0] == first[0]
    loaded = Replay(SPEC, 40, 2, 3)
    loaded.load(tmp_path, state)
    assert_same(everything(loaded), everything(replay))


def test_saving_elsewhere_or_after_a_loss_writes_all_anew(tmp_path: Path) -> None:
    replay = filled()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    replay.save(tmp_path / "a")
    for folder in ("b", "b"):
        state = replay.save(tmp_path / folder)
        only_file(tmp_path / folder)  # and the second time nothing is left to write
        loaded = filled(steps=9)
        loaded.load(tmp_path / folder, state)
        assert_same(everything(loaded), everything(replay))
    only_file(tmp_path / "b").unlink()
    assert Replay.segments(replay.save(tmp_path / "b")) == [only_file(tmp_path / "b").name]


def test_a_large_segment_is_written_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = filled(steps=50)
    monkeypatch.setattr(segments, "_BLOCK_BYTES", 20)  # 6 frames of 3 bytes
    state = replay.save(tmp_path)
    monkeypatch.undo()  # a reader takes the size from the file
    loaded = filled(steps=2)
    loaded.load(tmp_path, state)
    assert_same(everything(loaded), everything(replay))


def test_a_loaded_replay_goes_on_saving_where_the_old_one_stopped(tmp_path: Path) -> None:
    replay = filled()
    state = replay.save(tmp_path)
    loaded = Replay(SPEC, 200, 2, 3, 2, 1.0, Stream(9, "other"))
    loaded.load(tmp_path, state)
    assert loaded.stream.state_dict() == replay.stream.state_dict()
    more = Feed(SPEC, 2).rollout([["on", "on"]])
    for r in (replay, loaded):
        r.add(more)
    after = loaded.save(tmp_path)
    assert after["segments"] == replay.save(tmp_path)["segments"]
    assert after["segments"][:1] == state["segments"]


@pytest.mark.parametrize("place", [0, 5, 8, 12, 15, 16, 30, 120, 0.3, 0.5, 0.9, -40, -32, -1])
def test_a_changed_byte_anywhere_is_refused_by_name(place: float, tmp_path: Path) -> None:
    state, loaded = filled().save(tmp_path), filled(steps=9)
    before, file = everything(loaded), only_file(tmp_path)
    content = bytearray(file.read_bytes())
    content[int(place * len(content)) if isinstance(place, float) else place] ^= 0x44
    file.write_bytes(content)
    with pytest.raises(SegmentError, match=file.name):
        loaded.load(tmp_path, state)
    assert_same(everything(loaded), before)


@pytest.mark.parametrize("keep", [0, 7, 15, 16, 100, 0.5, -33, -32, -1])
def test_a_truncated_file_is_refused_by_name(keep: float, tmp_path: Path) -> None:
    state, loaded = filled().save(tmp_path), filled(steps=9)
    before, file = everything(loaded), only_file(tmp_path)
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(SegmentError, match=file.name):
        loaded.load(tmp_path, state)
    assert_same(everything(loaded), before)


def test_a_file_that_is_longer_missing_or_another_is_refused_by_name(tmp_path: Path) -> None:
    replay = filled(steps=5)
    state = replay.save(tmp_path)
    first = only_file(tmp_path)
    replay.add(Feed(SPEC, 2).rollout([["on", "on"]] * 5))
    state = replay.save(tmp_path)
    (second,) = set(tmp_path.iterdir()) - {first}
    content = second.read_bytes()
    for wrong, message in (
        (content + b"\0", f"{second.name} is damaged"),
        (first.read_bytes(), f"{second.name} holds other slots than the checkpoint says"),
        (b"PK" + content[2:], f"{second.name} is not a replay segment"),
        (content[:8] + b"\2" + content[9:], f"{second.name} has format version 2; this program reads 1"),
    ):
        second.write_bytes(wrong)
        loaded = filled(steps=9)
        before = everything(loaded)
        with pytest.raises(SegmentError, match=message):
            loaded.load(tmp_path, state)
        assert_same(everything(loaded), before)
    second.unlink()
    with pytest.raises(SegmentError, match=f"{second.name} cannot be read"):
        filled(steps=9).load(tmp_path, state)


def test_a_whole_file_of_other_content_is_refused(tmp_path: Path) -> None:
    """Its own digest is right, but it is not the one that the manifest names."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = Replay(SPEC, 40, 1, 3), Replay(SPEC, 40, 1, 3)
    rollout = Feed(SPEC, 1).rollout([["on"]] * 9)
    one.add(rollout)
    other.add(rollout._replace(reward=rollout.reward + 1))
    state = one.save(tmp_path / "a")
    other.save(tmp_path / "b")
    only_file(tmp_path / "b").rename(only_file(tmp_path / "a"))
    with pytest.raises(SegmentError, match="its digest does not match"):
        Replay(SPEC, 40, 1, 3).load(tmp_path / "a", state)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"spec": Spec((4,), "uint8", 4, 5)}, "frame_shape .3. there, .4. here"),
        ({"spec": Spec((3,), "int8", 4, 5)}, "frame_dtype uint8 there, int8 here"),
        ({"spec": Spec((3,), "uint8", 2, 5)}, "stack 4 there, 2 here"),
        ({"spec": Spec((3,), "uint8", 4, 6)}, "actions 5 there, 6 here"),
        ({"capacity": 202}, "slots per stream 100 there, 101 here"),
        ({"capacity": 100, "streams": 1}, "streams 2 there, 1 here"),
        ({"max_n": 4}, "max_n 3 there, 4 here"),
        ({"max_k": 1}, "max_k 2 there, 1 here"),
        ({"alpha": 0.5}, "alpha 1.0 there, 0.5 here"),
    ],
)
def test_a_checkpoint_of_another_replay_is_refused(other: dict[str, Any], difference: str, tmp_path: Path) -> None:
    state = filled().save(tmp_path)
    loaded = Replay(**{"spec": SPEC, "capacity": 200, "streams": 2, "max_n": 3, "max_k": 2, "alpha": 1.0, **other})
    with pytest.raises(SegmentError, match=f"the checkpoint is of another replay: {difference}"):
        loaded.load(tmp_path, state)
    assert len(loaded) == 0


def damaged(state: State, **changes: Any) -> State:
    return {**copy.deepcopy(dict(state)), **changes}


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    replay = filled(steps=5)
    replay.save(tmp_path)
    replay.add(Feed(SPEC, 2).rollout([["on", "on"]] * 5))
    state = replay.save(tmp_path)
    first, second = state["segments"]
    negative = state["priority"].copy()
    negative[1, 3] = -1.0
    for wrong, message in (
        (damaged(state, format="rlplatform replay 2"), "is 'rlplatform replay 2', this program reads"),
        (damaged(state, identity=None), "is not of a replay"),
        (damaged(state, segments=[second]), "slots are missing before"),
        (damaged(state, segments=[first]), "do not reach the newest slots"),
        (damaged(state, counts=state["counts"] - 1), "do not reach the newest slots"),
        (damaged(state, counts=state["counts"][:1]), "not of 2 streams"),
        (damaged(state, priority=negative), "priorities must be in"),
        (damaged(state, max_priority=float("nan")), "priorities must be in"),
    ):
        loaded = filled(steps=9)
        before = everything(loaded)
        with pytest.raises(ValueError, match=message):
            loaded.load(tmp_path, wrong)
        assert_same(everything(loaded), before)


def test_a_full_disk_leaves_nothing_behind_and_the_last_checkpoint_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = filled(steps=9)
    state, at_save = replay.save(tmp_path), everything(replay)
    saved = names(tmp_path)
    replay.add(Feed(SPEC, 2).rollout([["on", "on"]] * 5))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replay.save(tmp_path)
    monkeypatch.undo()
    assert names(tmp_path) == saved
    loaded = Replay(SPEC, 200, 2, 3, 2, 1.0)
    loaded.load(tmp_path, state)
    assert_same(everything(loaded)[:-1], at_save[:-1])
    after = replay.save(tmp_path)  # with room again, as if nothing had been
    loaded.load(tmp_path, after)
    assert_same(everything(loaded)[:-1], everything(replay)[:-1])
