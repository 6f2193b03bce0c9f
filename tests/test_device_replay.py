"""The device replay against the CPU replay: what it holds, draws, stacks and shifts, its priorities, checkpoints and refusals.

On the CPU its kernels' code runs thread by thread, so all but what only a GPU has is tested everywhere; tests/cpp has the same
comparison under the sanitizers.
"""

import copy
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from replay_feed import EVENTS, SPEC, Feed
from rlplatform.device_augment import DeviceStream, augmentation, draw
from rlplatform.device_replay import DeviceReplay
from rlplatform.replay import Batch, Replay
from rlplatform.segments import SegmentError
from rlplatform.streams import Stream
from rlplatform.techniques import augment
from rlplatform.types import Rollout, Spec

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device: listed in evaluation/bench/GPU.md"
)
needs_build = pytest.mark.skipif(
    importlib.util.find_spec("rlplatform._cuda") is None, reason="no CUDA kernels: nvcc was not found at build time"
)
on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[needs_gpu, needs_build])])

SPECS = [
    Spec((3,), "uint8", 4, 5),
    Spec((2, 2), "float32", 3, 0, (2,)),
    Spec((), "int16", 1, 3),
    Spec((4, 8), "uint8", 2, 2),  # 32 bytes: words of 16
]
IMAGES = Spec((12, 10), "uint8", 4, 5)
Pair = tuple[Replay, DeviceReplay]


def pair(
    device: str, spec: Spec = SPEC, capacity: int = 60, streams: int = 2, alpha: float = 0.5, order: int = 0
) -> Pair:
    """Two empty replays that should be the same; `order` is of the threads on the host."""
    sizes = (spec, capacity, streams, 3, 2, alpha)
    ours = DeviceReplay(*sizes, stream=Stream(3, "replay"), device=device)
    ours._host_order = order
    return Replay(*sizes, stream=Stream(3, "replay")), ours


def filled(device: str, steps: int = 40, **sizes: Any) -> Pair:
    cpu, ours = pair(device, **sizes)
    feed, rng = Feed(cpu.spec, cpu.streams), np.random.default_rng(0)
    rollout = feed.rollout(rng.choice(EVENTS, (steps, cpu.streams)).tolist())
    cpu.add(rollout)
    ours.add(rollout)
    return cpu, ours


def on(device: str, array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array)).to(device)


def sampled(ours: DeviceReplay, batch: int, n: int, gamma: float, k: int) -> dict[str, np.ndarray]:
    """As `Replay.sample` gives it."""
    ours.set(n, gamma)
    out = ours.batch(batch, k)
    stacks = ours.stack(ours.sample(out), ours.stacks(out))
    return {name: getattr(stacks if "obs" in name else out, name).cpu().numpy() for name in Batch._fields}


def assert_same(cpu: Replay, ours: DeviceReplay, batch: int = 7, n: int = 3, gamma: float = 0.9, k: int = 2) -> None:
    """All that can be seen, and a draw of each."""
    np.testing.assert_array_equal(ours.eligible(), cpu.eligible())
    assert len(ours) == len(cpu)
    assert ours.max_priority == cpu.max_priority
    assert ours.can_sample == cpu.can_sample
    if not cpu.can_sample:
        return
    expected = cpu.sample(batch, n, gamma, k)
    for name, got in sampled(ours, batch, n, gamma, k).items():
        want = getattr(expected, name)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want, err_msg=name)
    ours.check()


# --- what it holds and draws ---


@on_each_device
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("spec", SPECS, ids=lambda s: f"{s.frame_dtype}{list(s.frame_shape)}")
def test_it_is_the_cpu_replay(device: str, spec: Spec, order: int) -> None:
    """Through episodes' ends, cuts, wrap-around, rollouts of some streams, late, early and repeated priorities."""
    rng = np.random.default_rng(order)
    cpu, ours = pair(device, spec, capacity=45, streams=3, alpha=[0.0, 0.5, 1.0][order], order=order)
    feed, most = Feed(spec, 3), 0
    for turn in range(25):
        first_env = int(rng.integers(3))
        envs = int(rng.integers(1, 4 - first_env))
        steps = 40 if turn == 15 else int(rng.integers(0, 7))
        rollout = feed.rollout(rng.choice(EVENTS, (steps, envs)).tolist(), first_env) if steps else None
        if rollout:
            cpu.add(rollout)
            ours.add(rollout)
            most = max(most, len(cpu))
        assert_same(cpu, ours, int(rng.integers(1, 9)), int(rng.integers(1, 4)), rng.random(), int(rng.integers(0, 3)))
        items = cpu.eligible()
        if len(items):
            index = rng.choice(items, 6)
            priority = rng.exponential(size=6).astype(rng.choice(["float32", "float64"]))
            cpu.update_priority(index, priority)
            ours.update_priority(on(device, index), on(device, priority))
        assert_same(cpu, ours)
    assert most > 30


@on_each_device
@pytest.mark.parametrize("batch", [1, 2, 31, 32, 33, 255, 1023, 1024, 1025, 4096, 4097])
def test_batches_of_every_size(device: str, batch: int) -> None:
    cpu, ours = filled(device)
    index = np.resize(cpu.eligible(), batch)
    priority = np.random.default_rng(batch).exponential(size=batch)
    cpu.update_priority(index, priority)
    ours.update_priority(on(device, index), on(device, priority))
    assert_same(cpu, ours, batch)


@on_each_device
@pytest.mark.parametrize("streams", [1, 31, 32, 33, 300])
def test_rollouts_of_every_width(device: str, streams: int) -> None:
    cpu, ours = filled(device, steps=30, streams=streams, capacity=20 * streams)
    assert_same(cpu, ours, 64)


@on_each_device
def test_gathered_items_are_those_of_the_cpu(device: str) -> None:
    cpu, ours = filled(device)
    index = cpu.eligible()[::-1].copy()
    ours.set(2, 0.5)
    out = ours.gather(on(device, index), ours.batch(len(index), 1))
    expected = cpu.gather(index, 2, 0.5, 1)
    for name in ("action", "reward", "terminated", "mask", "n_return", "discount", "index", "priority"):
        np.testing.assert_array_equal(getattr(out, name).cpu().numpy(), getattr(expected, name))


@on_each_device
def test_n_and_gamma_are_read_where_they_lie(device: str) -> None:
    """A captured graph sees what was written to them since, as a schedule on the device does."""
    cpu, ours = filled(device)
    out = ours.batch(5)
    ours.n.fill_(2)
    ours.gamma.fill_(0.25)
    np.testing.assert_array_equal(ours.sample(out).discount.cpu().numpy(), cpu.sample(5, 2, 0.25).discount)
    ours.n.sub_(1)
    ours.gamma.mul_(2)
    np.testing.assert_array_equal(ours.sample(out).discount.cpu().numpy(), cpu.sample(5, 1, 0.5).discount)


@on_each_device
def test_nothing_that_a_graph_reads_ever_moves(device: str, tmp_path: Path) -> None:
    _, ours = filled(device)
    state = ours.save(tmp_path)
    held = [ours.n, ours.gamma, *(t for t in vars(ours).values() if isinstance(t, torch.Tensor))]
    before, kernels = [t.data_ptr() for t in held], ours._kernels
    assert len(held) > 15
    out = ours.batch(4, 1)
    priority = torch.ones(4, dtype=torch.float64, device=device)
    ours.update_priority(ours.sample(out).index, priority)
    leaf = ours._scratch["priority", 4].data_ptr()
    assert_same(*filled(device))
    ours.load(tmp_path, state)
    ours.update_priority(ours.sample(out).index, priority)
    assert [t.data_ptr() for t in held] == before
    assert [
        t.data_ptr() for t in [ours.n, ours.gamma, *(t for t in vars(ours).values() if isinstance(t, torch.Tensor))]
    ] == before
    assert ours._scratch["priority", 4].data_ptr() == leaf
    assert ours._kernels is kernels


# --- images ---


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shifted_images_are_those_of_augment(device: str, dtype: torch.dtype) -> None:
    _, ours = filled(device, spec=IMAGES)
    out = ours.batch(6, 2)
    stacks = ours.stack(ours.sample(out), ours.stacks(out))
    images = [*stacks.obs.cpu().numpy().swapaxes(0, 1), stacks.next_obs.cpu().numpy()]
    drawn = augment.draw(Stream(1, "augment"), 24)
    on_device = augmentation(24, device)
    on_device.shift.copy_(torch.from_numpy(drawn.shift))
    on_device.intensity.copy_(torch.from_numpy(drawn.intensity))
    memory = ours.images(out, dtype)
    assert memory.is_contiguous(memory_format=torch.channels_last)
    for draws, theirs in ((on_device, drawn), (None, augment.identity(24))):
        got, want = ours.shift(out, draws, memory), augment.apply(images, theirs, dtype)
        assert got is memory
        assert torch.equal(got.cpu(), want)


@on_each_device
@pytest.mark.parametrize("images", [1, 3, 4, 5, 224, 1025])
def test_draws_are_those_of_augment(device: str, images: int) -> None:
    """Shifts to the bit. Intensities: 1 ulp of the logarithm and 2 of the cosine move a normal by less than 5e-6 (its largest
    value is 5.8, and the root halves the logarithm's), a twentieth of which counts; on the host they are equal."""
    stream, twin, out = Stream(5, "augment"), Stream(5, "augment"), augmentation(images, device)
    on_device = DeviceStream(stream, device)
    for _ in range(3):
        expected, got = augment.draw(twin, images), draw(on_device, out)
        np.testing.assert_array_equal(got.shift.cpu().numpy(), expected.shift)
        np.testing.assert_allclose(
            got.intensity.cpu().numpy(), expected.intensity, rtol=0, atol=0 if device == "cpu" else 3e-7
        )
    assert on_device.state_dict() == twin.state_dict()
    again = DeviceStream(stream, device)
    again.load_state_dict(on_device.state_dict())
    np.testing.assert_array_equal(draw(again, out).shift.cpu().numpy(), augment.draw(twin, images).shift)


# --- priorities ---


@on_each_device
@pytest.mark.parametrize("order", [0, 1, 2])
def test_of_an_item_that_comes_twice_the_last_priority_stays(device: str, order: int) -> None:
    cpu, ours = filled(device, alpha=1.0, order=order)
    items = cpu.eligible()
    index, priority = items[[3, 1, 3, 3, 2, 1]], np.array([9.0, 8.0, 7.0, 0.5, 3.0, 0.25])
    cpu.update_priority(index, priority)
    ours.update_priority(on(device, index), on(device, priority))
    out = ours.gather(on(device, items[1:4]), ours.batch(3))
    assert out.priority.tolist() == [0.25, 3.0, 0.5]
    assert ours.max_priority == 9.0  # as on the CPU: it was recorded, though it did not stay
    assert_same(cpu, ours)


@on_each_device
def test_a_late_priority_of_an_overwritten_item_is_ignored(device: str) -> None:
    cpu, ours = filled(device, steps=60, capacity=40)
    late = np.arange(20, dtype=np.int64)
    assert cpu.eligible().min() > 19
    ours.update_priority(on(device, late), torch.full((20,), 50.0, device=device))
    ours.check()
    assert ours.max_priority == 1.0
    assert_same(cpu, ours)


@on_each_device
def test_powers_are_those_of_the_cpu(device: str) -> None:
    """To the bit for 0, 0.5 and 1; else to 3 ulp, 7e-16: glibc's pow is good to 1, CUDA's to 2."""
    for alpha, rtol in ((0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (0.6, 7e-16), (2.0, 7e-16)):
        cpu, ours = filled(device, alpha=alpha)
        items = cpu.eligible()
        priority = np.random.default_rng(1).exponential(size=len(items))
        cpu.update_priority(items, priority)
        ours.update_priority(on(device, items), on(device, priority))
        got = ours.gather(on(device, items), ours.batch(len(items))).priority.cpu().numpy()
        np.testing.assert_allclose(got, cpu.gather(items, 1, 1.0).priority, rtol=rtol, atol=0)
        np.testing.assert_allclose(got, priority**alpha, rtol=5e-16)


# --- checkpoints ---


@on_each_device
def test_each_loads_what_the_other_saved(device: str, tmp_path: Path) -> None:
    for begin, name in enumerate(("cpu", "ours")):
        folder = tmp_path / name
        folder.mkdir()
        cpu, ours = filled(device, steps=35 + begin)
        source = {"cpu": cpu, "ours": ours}[name]
        index = cpu.eligible()[2:9]
        cpu.update_priority(index, np.arange(7.0))
        ours.update_priority(on(device, index), on(device, np.arange(7.0)))
        cpu.sample(5, 1, 0.9)
        ours.sample(ours.batch(5))
        state = source.save(folder)
        assert all((folder / file).is_file() for file in DeviceReplay.segments(state))
        new_cpu, new = filled(device, steps=3)
        new_cpu.load(folder, copy.deepcopy(state))
        new.load(folder, copy.deepcopy(state))
        assert_same(new_cpu, new)
        assert_same(cpu, ours)  # saving changes nothing
        rollout = Feed(SPEC, 2).rollout([["on", "limit"]] * 9)
        for replay in (cpu, ours, new_cpu, new):
            replay.add(rollout)
        assert_same(new_cpu, new)
        np.testing.assert_array_equal(new.eligible(), cpu.eligible())


@on_each_device
def test_a_save_writes_only_what_came_since(device: str, tmp_path: Path) -> None:
    _, ours = pair(device, capacity=400)
    feed, sizes = Feed(SPEC, 2), []
    for steps in (100, 5, 0):
        if steps:
            ours.add(feed.rollout([["on", "on"]] * steps))
        before = {file.name for file in tmp_path.iterdir()}
        state = ours.save(tmp_path)
        sizes.append(sum(f.stat().st_size for f in tmp_path.iterdir() if f.name not in before))
    assert sizes[0] > 4 * sizes[1] > 0 == sizes[2]
    assert len(DeviceReplay.segments(state)) == 2


@on_each_device
def test_a_damaged_or_foreign_checkpoint_changes_nothing(device: str, tmp_path: Path) -> None:
    cpu, ours = filled(device)
    state = ours.save(tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    _, other = filled(device, steps=5)
    before = other.eligible()
    file.write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
    with pytest.raises(SegmentError, match="digest does not match"):
        other.load(tmp_path, state)
    file.write_bytes(whole)
    for change, message in (
        ({"format": "x"}, "manifest is 'x'"),
        ({"counts": np.array([50, 50])}, "do not reach the newest"),
        ({"priority": -np.ones((2, 5))}, r"priorities must be in \[0, 1e300\]"),
        ({"identity": {**state["identity"], "alpha": 0.25}}, "another replay: alpha 0.25 there, 0.5 here"),
    ):
        with pytest.raises(ValueError, match=message):
            other.load(tmp_path, {**state, **change})
    np.testing.assert_array_equal(other.eligible(), before)
    other.load(tmp_path, state)
    assert_same(cpu, other)


# --- without waiting ---


class Asked:
    """Counts what is asked of the device by way of a replay: its faults, and the root of its tree."""

    def __init__(self, replay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults, self.roots = 0, 0
        check, tree = replay.check, replay._tree

        def counted() -> None:
            self.faults += 1
            check()

        class Tree:
            def __getitem__(_, node: int) -> torch.Tensor:  # noqa: N805
                self.roots += 1
                return tree[node]

            data_ptr = tree.data_ptr

        monkeypatch.setattr(replay, "check", counted)
        monkeypatch.setattr(replay, "_tree", Tree())


def test_the_device_is_asked_only_for_what_the_host_cannot_know(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cpu, ours = pair("cpu")
    feed, asked, rng = Feed(SPEC, 2), Asked(ours, monkeypatch), np.random.default_rng(0)
    kinds = [event for event in EVENTS if event != "cut"]

    def played(*events: list[str], tensor: bool = False) -> tuple[int, int]:
        """How often the device was asked about faults and about the root."""
        rollout = feed.rollout([*events])
        cpu.add(rollout)
        asked.faults = asked.roots = 0
        ours.add(tensors(rollout, "cpu") if tensor else rollout)
        for _ in range(2):
            assert ours.can_sample == cpu.can_sample
        return asked.faults, asked.roots

    assert [played(["on", "on"]) for _ in range(4)] == [(0, 2), (0, 2), (0, 2), (0, 1)]  # until something can be drawn
    for turn in range(60):
        assert played(*rng.choice(kinds, (1 + turn % 3, 2)).tolist(), tensor=False) == (0, 0)
    assert played(["on", "cut"]) == (0, 1)  # which might have left nothing
    assert played(["on", "on"]) == (0, 0)
    assert played(["on", "over"], tensor=True) == (0, 0)
    assert played(["over", "on"]) == (1, 1)  # of how the tensors ended only the device knows
    assert played(["on", "on"]) == (0, 0)
    ours.update_priority(on("cpu", cpu.eligible()), torch.zeros(len(cpu.eligible())))
    cpu.update_priority(cpu.eligible(), np.zeros(len(cpu.eligible())))
    for _ in range(2):
        assert not ours.can_sample
    assert played(*[["on", "on"]] * 3) == (0, 1)  # windows close
    monkeypatch.undo()
    state = ours.save(tmp_path)
    ours.load(tmp_path, state)
    asked = Asked(ours, monkeypatch)
    assert played(["on", "on"]) == (1, 1)
    assert played(["on", "on"]) == (0, 0)
    monkeypatch.undo()
    assert_same(cpu, ours)


def test_what_came_after_a_refusal_is_not_believed() -> None:
    _, ours = pair("cpu")
    feed = Feed(SPEC, 2)
    ours.add(feed.rollout([["on", "on"]] * 4 + [["over", "over"]]))
    ours.update_priority(on("cpu", ours.eligible()[:1]), torch.full((1,), NAN))
    ours.add(feed.rollout([["on", "on"]]))  # has no effect
    with pytest.raises(ValueError, match="a priority must be"):
        ours.check()
    with pytest.raises(ValueError, match="the episode ended, and yet this step does not begin one"):
        ours.add(feed.rollout([["on", "on"]]))


def test_a_load_forgets_what_was_known(tmp_path: Path) -> None:
    _, empty = pair("cpu")
    _, ours = filled("cpu")
    assert ours.can_sample
    ours.load(tmp_path, empty.save(tmp_path))
    assert not ours.can_sample


def test_rollouts_of_one_form_go_up_by_the_same_memory() -> None:
    _, ours = pair("cpu")
    feed = Feed(SPEC, 2)
    ours.add(feed.rollout([["on", "over"]] * 3))
    (first,) = ours._staged.values()
    ours.add(feed.rollout([["over", "on"], ["on", "over"], ["on", "over"]]))
    assert ours._staged[4] is first  # three last frames, and room for four
    ours.add(feed.rollout([["on", "on"]] * 3))
    assert len(ours._staged) == 2
    ours.add(feed.rollout([["on", "on"]]))
    assert len(ours._staged) == 1


def test_memory_does_not_grow_with_the_ways_in_which_games_end() -> None:
    _, ours = pair("cpu", streams=40, capacity=800)
    feed = Feed(SPEC, 40)
    for ends in range(40):
        ours.add(tensors(feed.rollout([["over"] * ends + ["on"] * (40 - ends)]), "cpu"))
    assert len([size for use, size in ours._scratch if use == "seq"]) == 2


def test_a_cut_that_leaves_nothing_to_draw_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest stream there is, in which every step begins anew."""
    cpu, ours = pair("cpu", capacity=16)
    feed = Feed(SPEC, 2)
    for events in ([["on", "on"]] * 12, *([[["cut", "cut"]]] * 8), [["on", "on"]] * 3, [["on", "on"]]):
        rollout = feed.rollout(events)
        cpu.add(rollout)
        ours.add(rollout)
        assert ours.can_sample == cpu.can_sample
    assert cpu.can_sample


def test_in_the_smallest_stream_without_cuts_something_can_always_be_drawn() -> None:
    """What `HostView` takes for granted: at every step, however episodes end, once the window of one step was there."""
    for seed in range(30):
        rng, feed = np.random.default_rng(seed), Feed(SPEC, 1)
        replay = Replay(SPEC, 8, 1, 3, 2, 0.5)
        kinds = rng.choice(["on", "life", "over", "limit", "both"], 3).tolist()
        seen = [replay.add(feed.rollout([[rng.choice(kinds)]])) or replay.can_sample for _ in range(60)]
        assert any(seen)
        assert all(seen[seen.index(True) :])


# --- rollouts that are on the device ---


def tensors(rollout: Rollout, device: str, spare: int = 0) -> Any:
    """As a producer on the device hands it over: with `spare` rows of final frames that are not used."""
    fields = {name: on(device, getattr(rollout, name)) for name in Rollout._fields[:8]}
    last, at = fields["final_frame"], fields["final_at"]
    fields["final_frame"] = torch.cat([last, last.new_full((spare, *last.shape[1:]), 99)])
    fields["final_at"] = torch.cat([at, at.new_full((spare, 2), -1)])
    return rollout._replace(**fields)


@on_each_device
@pytest.mark.parametrize("spare", [0, 1, 5])
def test_tensors_are_added_as_arrays_are(device: str, spare: int) -> None:
    cpu, ours = pair(device)
    feed, rng = Feed(SPEC, 2), np.random.default_rng(4)
    for _ in range(6):
        rollout = feed.rollout(rng.choice(EVENTS, (9, 2)).tolist())
        cpu.add(rollout)
        ours.add(tensors(rollout, device, spare))
        assert_same(cpu, ours)


@on_each_device
def test_what_only_the_device_can_see_is_raised_by_check_and_nothing_happens_before(device: str) -> None:
    cpu, ours = filled(device)
    reward = np.zeros((3, 2), np.float32)
    reward[1, 1] = reward[2, 0] = np.nan
    good = Feed(SPEC, 2).rollout([["on", "on"]] * 3)
    ours.add(tensors(good._replace(reward=reward), device))
    ours.add(tensors(good, device))
    ours.update_priority(on(device, cpu.eligible()[:2]), torch.full((2,), 5.0, device=device))
    np.testing.assert_array_equal(ours.eligible(), cpu.eligible())
    assert len(ours) == len(cpu)
    assert ours.max_priority == 1.0
    with pytest.raises(ValueError, match=r"a reward is not finite \(step 1 of the rollout, stream 1\)"):
        ours.check()
    ours.check()
    assert_same(cpu, ours)
    for replay in (cpu, ours):
        replay.add(good)
    assert_same(cpu, ours)


# --- refusals ---


def broken(**changes: Any) -> Rollout:
    return Feed(SPEC, 2).rollout([["on", "limit"], ["over", "on"]])._replace(**changes)


NAN = float("nan")
ROLLOUTS = {
    r"frame must be uint8 \[2, 2, 3\].* got uint8 \[2, 2, 4\]": broken(frame=np.zeros((2, 2, 4), np.uint8)),
    "frame must be uint8 .* got float64": broken(frame=np.zeros((2, 2, 3))),
    r"first must be bool \[T, N\]": broken(first=np.zeros(2, bool)),
    "action must be int64": broken(action=np.zeros((2, 2), np.int32)),
    r"an action is out of range .* \(step 0 of the rollout, stream 0\)": broken(action=np.full((2, 2), 5)),
    r"an action is out of range .* \(step 1 of the rollout, stream 0\)": broken(action=np.array([[0, 0], [-1, -2]])),
    r"a reward is not finite \(step 0 of the rollout, stream 1\)": broken(
        reward=np.array([[0, NAN], [0, 0]], np.float32)
    ),
    r"a reward is not finite \(step 1 .* stream 0\)": broken(reward=np.array([[0, 0], [np.inf, 0]], np.float32)),
    "truncated must be bool": broken(truncated=np.zeros((2, 2), np.int8)),
    r"truncated, but final_frame lacks the last frame \(step 0 of the rollout, stream 1\)": broken(
        final_frame=np.zeros((1, 3), np.uint8), final_at=np.array([[1, 0]])
    ),
    "final_at must be int64": broken(final_at=np.zeros((2, 2))),
    r"final_frame must be uint8 \[2, 3\]": broken(final_frame=np.zeros((3, 3), np.uint8)),
    r"ascending order, and unused rows behind them \(row 2\)": broken(
        final_frame=np.zeros((3, 3), np.uint8), final_at=np.array([[0, 1], [1, 0], [0, 0]])
    ),
    r"ascending order, and unused rows behind them .row 2": broken(
        final_frame=np.zeros((3, 3), np.uint8), final_at=np.array([[0, 1], [-1, -1], [1, 0]])
    ),
    "lacks the last frame|ascending order": broken(final_at=np.array([[1, 0], [0, 1]])),
    r"a final frame of an episode that goes on \(step 1 of the rollout, stream 1\)": broken(
        final_frame=np.zeros((3, 3), np.uint8), final_at=np.array([[0, 1], [1, 0], [1, 1]])
    ),
    r"the episode ended, and yet .* \(step 1 of the rollout, stream 1\)": broken(
        first=np.array([[True, True], [False, False]])
    ),
    "streams 1 to 3 are beyond the replay's 2": broken(first_env=1),
    "or before 0": broken(first_env=-1),
}


@on_each_device
@pytest.mark.parametrize("message", ROLLOUTS)
def test_a_broken_rollout_is_refused(device: str, message: str) -> None:
    cpu, ours = pair(device)
    with pytest.raises(ValueError, match=message):
        ours.add(ROLLOUTS[message])
    assert len(ours) == 0
    for replay in (cpu, ours):
        replay.add(broken())
    assert_same(cpu, ours)


@on_each_device
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_that_are_not_finite_are_refused(device: str, dtype: str) -> None:
    spec = Spec((2,), dtype, 1, 0, (3,))
    ours = DeviceReplay(spec, 40, 1, 1, device=device)
    good = Feed(spec, 1).rollout([["over"], ["on"]])
    for field, what in (("frame", "a frame"), ("action", "an action"), ("final_frame", "a frame")):
        values = getattr(good, field).copy()
        values.reshape(-1)[-1] = np.inf
        for replay in (ours, DeviceReplay(spec, 40, 1, 1, device=device)):  # after a refusal, and as the first rollout
            with pytest.raises(ValueError, match=f"^{what} is .*not finite"):
                replay.add(good._replace(**{field: values}))
    assert len(ours) == 0
    ours.add(good)
    assert len(ours) == 2


@on_each_device
def test_sampling_nothing_is_noted(device: str) -> None:
    ours = DeviceReplay(SPEC, 40, 1, 3, device=device)
    out = ours.batch(4, 0)
    assert not ours.can_sample
    assert ours.sample(out).index.tolist() == [-1] * 4
    assert not out.discount.any()
    with pytest.raises(RuntimeError, match="nothing to sample"):
        ours.check()
    ours.add(Feed(SPEC, 1).rollout([["on"]] * 4))
    assert ours.can_sample
    assert ours.sample(out).index.tolist() == [0] * 4
    ours.check()


@on_each_device
def test_wrong_priorities_and_items_are_noted(device: str) -> None:
    cpu, ours = filled(device)
    good, size = int(cpu.eligible()[0]), len(cpu)
    for index, priority, message in (
        ([good, good], [1.0, NAN], r"a priority must be .* \(row 1\)"),
        ([good, good], [-1.0, 1.0], r"a priority must be .* \(row 0\)"),
        ([good], [np.inf], "a priority must be"),
        ([good, 500], [1.0, 1.0], r"an index does not name a step in the replay \(row 1\)"),
        ([-1], [1.0], "an index does not name"),
    ):
        ours.update_priority(on(device, np.array(index)), on(device, np.array(priority)))
        with pytest.raises(ValueError, match=message):
            ours.check()
    out = ours.gather(on(device, np.array([good, 500])), ours.batch(2))
    assert out.index.tolist() == [good, -1]
    with pytest.raises(ValueError, match=r"an item is not eligible \(row 1\)"):
        ours.check()
    ours.n.fill_(4)
    ours.sample(out)
    with pytest.raises(ValueError, match=r"n must be in \[1, max_n\] and gamma in \[0, 1\]"):
        ours.check()
    cpu.sample(2, 1, 0.9)
    assert len(ours) == size
    assert_same(cpu, ours)


@on_each_device
def test_memory_of_another_shape_is_refused(device: str) -> None:
    _, ours = filled(device, spec=IMAGES)
    out, other = ours.batch(4, 1), ours.batch(3, 1)
    for message, call in {
        "batch.reward must be float32": lambda: ours.sample(out._replace(reward=out.reward.double())),
        r"batch.action must be int64 \[4, 1\]": lambda: ours.sample(out._replace(action=other.action)),
        "not contiguous": lambda: ours.sample(
            out._replace(source=out.source.transpose(0, 1).contiguous().transpose(0, 1))
        ),
        r"out.obs must be uint8 \[4, 2, 4, 12, 10\]": lambda: ours.stack(out, ours.stacks(other)),
        r"out must be float32 \[12, 12, 10, 4\]": lambda: ours.shift(out, None, ours.images(other, torch.float32)),
        r"out must be float32 .*, not contiguous": lambda: ours.shift(
            out, None, ours.images(out, torch.float32).contiguous()
        ),
        r"draw.shift must be int64 \[12, 2\]": lambda: ours.shift(
            out, augmentation(9, device), ours.images(out, torch.bfloat16)
        ),
        "dtype must be float32 or bfloat16": lambda: ours.images(out, torch.float16),
        r"k must be in \[0, 2\], got 3": lambda: ours.batch(4, 3),
        "size must be >= 1, got 0": lambda: ours.batch(0),
        r"n must be in \[1, 3\], got 4": lambda: ours.set(4, 0.9),
        r"gamma must be in \[0, 1\], got nan": lambda: ours.set(1, NAN),
        r"index must be int64 \[4\]": lambda: ours.gather(out.index[:2], out),
        "priority must be float64": lambda: ours.update_priority(out.index, out.index),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match=r"images are made of uint8 frames \[height, width\], not uint8 \[3\]"):
        filled(device)[1].images(out, torch.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"capacity": 14}, "each stream needs at least 8 slots for this n, k and stack, got 7"),
        ({"streams": 0}, "streams must be >= 1"),
        ({"max_n": 0}, "max_n must be in"),
        ({"alpha": NAN}, "alpha must be finite and >= 0"),
        ({"capacity": 2**40}, "at most 2.27 slots"),
        ({"device": "meta"}, "device must be a CUDA device or the CPU, got meta"),
    ],
)
def test_a_replay_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeviceReplay(
            **{"spec": SPEC, "capacity": 40, "streams": 2, "max_n": 3, "max_k": 2, "device": "cpu", **arguments}
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said() -> None:
    with pytest.raises(RuntimeError, match="cuda was asked for, but torch sees no CUDA device"):
        DeviceReplay(SPEC, 40, 2, 3)


def test_an_atari_transition_takes_7200_bytes_at_most() -> None:
    replay = DeviceReplay(Spec((84, 84), "uint8", 4, 18), 10_000, 1, max_n=10, max_k=5, alpha=0.5, device="cpu")
    assert replay.nbytes / replay.capacity <= 7200


# --- what only a GPU has ---


@needs_gpu
@needs_build
def test_a_graph_of_it_all_draws_on_and_neither_waits_nor_allocates() -> None:
    """sample, augment, stack and new priorities, captured once: each replay is the CPU's next step."""
    cpu, ours = filled("cuda", spec=IMAGES)
    stream, twin = DeviceStream(Stream(2, "augment")), Stream(2, "augment")
    out = ours.batch(8, 2)
    stacks, images, draws = ours.stacks(out), ours.images(out, torch.float32), augmentation(32)

    def step() -> None:
        ours.sample(out)
        ours.stack(out, stacks)
        ours.shift(out, draw(stream, draws), images)
        ours.update_priority(out.index, out.n_return.abs() + out.priority)

    def compare(n: int) -> None:
        expected, drawn = cpu.sample(8, n, 0.9, 2), augment.draw(twin, 32)
        np.testing.assert_array_equal(out.index.cpu().numpy(), expected.index)
        np.testing.assert_array_equal(stacks.obs.cpu().numpy(), expected.obs)
        np.testing.assert_array_equal(draws.shift.cpu().numpy(), drawn.shift)
        cpu.update_priority(expected.index, np.abs(expected.n_return) + expected.priority)

    ours.set(3, 0.9)
    step()  # kernels are loaded when they are first launched, and that cannot be captured
    compare(3)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    before = torch.cuda.memory_allocated()
    for n in (3, 3, 1, 2):
        ours.set(n, 0.9)
        graph.replay()
        compare(n)
        assert torch.cuda.memory_allocated() == before
    ours.check()
    assert_same(cpu, ours)


@needs_gpu
@needs_build
def test_adding_waits_for_nothing() -> None:
    """Rollouts of arrays, with ends and without, and the question whether something can be drawn."""
    _, ours = filled("cuda")
    feed = Feed(SPEC, 2)
    events = [[["on", "on"]], [["limit", "on"]], [["on", "over"]]]
    for _ in range(2):  # all kinds of room are made, and the streams known
        for one in events:
            ours.add(feed.rollout(one))
    assert ours.can_sample
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for one in events:
            ours.add(feed.rollout(one))
            assert ours.can_sample
    finally:
        torch.cuda.set_sync_debug_mode("default")
    ours.check()


@needs_gpu
@needs_build
def test_it_runs_on_the_current_stream() -> None:
    cpu, ours = filled("cuda")
    out = ours.batch(16, 2)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    ours.set(3, 0.9)
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)  # 20 ms and more: the draw must come after it
        ours.sample(out)
        index = out.index.clone()
    assert not side.query()
    side.synchronize()
    np.testing.assert_array_equal(index.cpu().numpy(), cpu.sample(16, 3, 0.9, 2).index)
