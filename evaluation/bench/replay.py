"""The replay beside others and beside memcpy, on the same Atari frames: time and memory of a transition.

    rlplatform bench replay [--capacity N] [--rounds R] [--only NAME ...] [--out FILE]

Each library works in a process of its own, so that its memory is its own, and every timing of it is paired with two copies
of as many bytes, made within the same millisecond, so that a busy machine is busy for both:
  gather      the frames of as many random stacks, from where they lie among 100,000: numpy.take, one memcpy a frame
  contiguous  one memcpy, from one random place among them
Both read memory that no cache holds, as a replay does; but never more than 706 MB of it: at a larger capacity the replay's
own is colder. Times are medians, ratios medians of pairs, on one thread unless the name says two. SB3 keeps no priorities;
Tianshou and cpprb, as set up here, give one-step transitions, where ours and SB3 add up ten rewards. Tianshou and cpprb keep
each frame once.
"""

import argparse
import importlib
import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlplatform.envs import make
from rlplatform.provenance import provenance
from rlplatform.replay import Replay
from rlplatform.streams import Stream
from rlplatform.types import Array, Rollout, Spec, empty_episodes

BATCH, N, K, GAMMA, STACK = 32, 10, 5, 0.99, 4  # of DER, and K of SPR
RECORDED = 3_000  # steps of Pong, appended again and again
BOUND_FRAMES = 100_000  # that the copies are taken from: 706 MB
CALL = 100  # steps in a rollout, where whole rollouts are appended


class Library(Protocol):
    """One replay under test."""

    def __init__(self, recording: Rollout, stacks: Array) -> None: ...  # the steps, as the library takes them
    def build(self, capacity: int) -> None: ...  # the memory that is measured
    def append(self, t: int) -> None: ...  # step t of the recording; append_many(t), where there is one, takes CALL
    def sample(self) -> None: ...
    def update(self, priority: Array) -> None: ...  # of what was sampled last


class Ours:
    """rlplatform.replay.Replay."""

    def __init__(self, recording: Rollout, stacks: Array) -> None:
        self.steps = [cut(recording, t, t + 1) for t in range(RECORDED)]
        self.rollouts = [cut(recording, t, t + CALL) for t in range(0, RECORDED, CALL)]

    def build(self, capacity: int) -> None:
        spec = Spec((84, 84), "uint8", STACK, 6)
        self.replay = Replay(spec, capacity, 1, N, K, alpha=0.5, stream=Stream(0, "replay"))

    def warm(self) -> None:
        """Batches to write into."""
        self.batch, self.sequence = self.replay.sample(BATCH, N, GAMMA), self.replay.sample(BATCH, N, GAMMA, K)

    def append(self, t: int) -> None:
        self.replay.add(self.steps[t])

    def append_many(self, start: int) -> None:
        self.replay.add(self.rollouts[start // CALL])

    def sample(self) -> None:
        self.replay.sample(BATCH, N, GAMMA, out=self.batch)

    def update(self, priority: Array) -> None:
        self.replay.update_priority(self.batch.index, priority)


class Sb3:
    """stable_baselines3's NStepReplayBuffer, of whole stacks."""

    def __init__(self, recording: Rollout, stacks: Array) -> None:
        self.spaces = importlib.import_module("gymnasium.spaces")
        self.buffers = importlib.import_module("stable_baselines3.common.buffers")
        self.recording, self.stacks, self.infos = recording, stacks, [{"TimeLimit.truncated": False}]

    def build(self, capacity: int) -> None:
        observation, action = self.spaces.Box(0, 255, (STACK, 84, 84), np.uint8), self.spaces.Discrete(6)
        self.buffer = self.buffers.NStepReplayBuffer(capacity, observation, action, "cpu", n_steps=N, gamma=GAMMA)

    def append(self, t: int) -> None:
        r = self.recording
        done = r.terminated[t]
        self.buffer.add(self.stacks[t : t + 1], self.stacks[t + 1 : t + 2], r.action[t], r.reward[t], done, self.infos)

    def sample(self) -> None:
        self.buffer.sample(BATCH)


class Tianshou:
    """Tianshou's PrioritizedReplayBuffer, frames stored once."""

    def __init__(self, recording: Rollout, stacks: Array) -> None:
        self.data = importlib.import_module("tianshou.data")
        self.steps = [
            self.data.Batch(
                obs=stacks[t], act=int(recording.action[t, 0]), rew=float(recording.reward[t, 0]),
                terminated=bool(recording.terminated[t, 0]), truncated=False, obs_next=stacks[t + 1], info={},
            )
            for t in range(RECORDED)
        ]  # fmt: skip

    def build(self, capacity: int) -> None:
        self.buffer = self.data.PrioritizedReplayBuffer(
            capacity, 0.5, 0.5, stack_num=STACK, ignore_obs_next=True, save_only_last_obs=True
        )

    def append(self, t: int) -> None:
        self.buffer.add(self.steps[t])

    def sample(self) -> None:
        _, self.index = self.buffer.sample(BATCH)

    def update(self, priority: Array) -> None:
        self.buffer.update_weight(self.index, priority)


class Cpprb:
    """cpprb's PrioritizedReplayBuffer, frames stored once."""

    def __init__(self, recording: Rollout, stacks: Array) -> None:
        self.cpprb = importlib.import_module("cpprb")
        self.recording, self.last = (
            recording,
            np.ascontiguousarray(np.moveaxis(stacks, 1, -1)),
        )  # frames along the last axis

    def build(self, capacity: int) -> None:
        fields = {
            "obs": {"shape": (84, 84, STACK), "dtype": np.uint8},
            "act": {"dtype": np.int64},
            "rew": {},
            "done": {},
        }
        self.buffer = self.cpprb.PrioritizedReplayBuffer(
            capacity, fields, next_of="obs", stack_compress="obs", alpha=0.5
        )

    def append(self, t: int) -> None:
        r = self.recording
        done = bool(r.terminated[t, 0])
        self.buffer.add(obs=self.last[t], act=r.action[t, 0], rew=r.reward[t, 0], next_obs=self.last[t + 1], done=done)
        if done:
            self.buffer.on_episode_end()

    def append_many(self, start: int) -> None:
        r, at, after = self.recording, slice(start, start + CALL), slice(start + 1, start + CALL + 1)
        steps = {"obs": self.last[at], "act": r.action[at, 0], "rew": r.reward[at, 0], "done": r.terminated[at, 0]}
        self.buffer.add(next_obs=self.last[after], **steps)  # across an episode's end: time and memory are the same

    def sample(self) -> None:
        self.index = self.buffer.sample(BATCH)["indexes"]

    def update(self, priority: Array) -> None:
        self.buffer.update_priorities(self.index, priority)


LIBRARIES: dict[str, tuple[str, Callable[[Rollout, Array], Any]]] = {  # name: (package, class)
    "rlplatform": ("rlplatform", Ours),
    "tianshou": ("tianshou", Tianshou),
    "cpprb": ("cpprb", Cpprb),
    "sb3": ("stable_baselines3", Sb3),
}


class Bound:
    """Copies of as many bytes as a batch holds, from memory as large as a replay of 100,000 steps."""

    def __init__(self) -> None:
        store = mmap.mmap(-1, BOUND_FRAMES * 84 * 84)
        store.madvise(mmap.MADV_HUGEPAGE)
        self.frames = np.frombuffer(store, np.uint8).reshape(BOUND_FRAMES, 84 * 84)
        for start in range(0, BOUND_FRAMES, 1000):
            self.frames[start : start + 1000] = start % 251
        self.random = np.random.default_rng(0)
        self.targets: dict[int, Array] = {}

    def of(self, offsets: list[int]) -> tuple[Callable[[], object], Callable[[], object]]:
        """(gather, contiguous) copies of the stacks that begin `offsets` frames after BATCH random ones."""
        items = self.random.integers(0, BOUND_FRAMES - 2_000, BATCH)
        rows = (items[:, None, None] + np.array(offsets)[:, None] + np.arange(STACK)).reshape(-1)
        # Each copy writes memory of its own, as the replay does: what one has just written must not be warm for another.
        if len(rows) not in self.targets:
            self.targets[len(rows)] = np.ones((2, len(rows), 84 * 84), np.uint8)
        gathered, copied = self.targets[len(rows)]
        source = self.frames[items[0] : items[0] + len(rows)]
        return lambda: np.take(self.frames, rows, 0, gathered, "clip"), lambda: np.copyto(copied, source)


def main() -> None:
    """Measure each library in a process, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capacity", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=300, help="timings of each kind")
    parser.add_argument("--only", nargs="+", choices=LIBRARIES, default=list(LIBRARIES))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "replay.json")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        json.dump(measure(given.only[0], load(given.child), given.capacity, given.rounds), sys.stdout)
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "pong.npz"
        record(recording)
        for name in given.only:
            package = LIBRARIES[name][0]
            try:
                row: dict[str, Any] = {"library": name, "version": version(package.replace("_", "-"))}
            except PackageNotFoundError:
                print(f"{name}: not measured, {package} is not installed")
                continue
            command = [sys.executable, "-P", "-m", "rlplatform.evaluation.bench.replay", "--only", name]
            command += ["--child", str(recording), "--capacity", str(given.capacity), "--rounds", str(given.rounds)]
            one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=one_thread)  # noqa: S603
            rows.append(row | json.loads(run.stdout))
    conditions = {
        "capacity": given.capacity,
        "batch": BATCH,
        "n": N,
        "k": K,
        "rounds": given.rounds,
        "niceness": os.nice(0),
    }
    result = {**conditions, "rows": rows, **provenance(), "load": list(os.getloadavg())}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    names = list(dict.fromkeys(key for row in rows for key in row))
    for key in names:
        print(f"{key:<34}" + "".join(f"{_text(row.get(key)):>14}" for row in rows))


def record(path: Path) -> None:
    """Play Pong at random; write the steps."""
    env, stream = make("atari/Pong", 1, 0), Stream(0, "actions")
    frames, actions, rewards, ends = [env.reset()], [], [], []
    for _ in range(RECORDED):
        actions.append(stream.integers(6, 1))
        step = env.step(actions[-1])
        frames.append(step.frame)
        rewards.append(step.reward)
        ends.append(step.terminated | step.truncated)
    env.close()
    np.savez(path, frame=np.stack(frames), action=np.stack(actions), reward=np.stack(rewards), ended=np.stack(ends))


def load(path: Path) -> tuple[Rollout, Array]:
    """The recording as one rollout, and its observations [steps + 1, STACK, 84, 84]."""
    with np.load(path) as arrays:
        frame, action, reward, ended = (arrays[name] for name in ("frame", "action", "reward", "ended"))
    first = np.concatenate([[[True]], ended[:-1]])
    none = np.zeros((0, 84, 84), np.uint8), np.zeros((0, 2), np.int64)
    recording = Rollout(
        frame[:-1], first, action, reward, ended, np.zeros_like(ended), *none, {}, empty_episodes(), 0, 0
    )  # fmt: skip
    padded = np.concatenate([np.zeros((STACK - 1, 84, 84), np.uint8), frame[:, 0]])
    # Not zeroed at an episode's first, which makes no difference to time or memory.
    stacks = np.lib.stride_tricks.sliding_window_view(padded, STACK, 0)
    return recording, np.ascontiguousarray(np.moveaxis(stacks, -1, 1))


def cut(recording: Rollout, start: int, end: int) -> Rollout:
    """Steps start <= t < end of a recording without final frames."""
    at, r = slice(start, end), recording
    return r._replace(
        frame=r.frame[at], first=r.first[at], action=r.action[at], reward=r.reward[at], terminated=r.terminated[at],
        truncated=r.truncated[at],
    )  # fmt: skip


def measure(name: str, recorded: tuple[Rollout, Array], capacity: int, rounds: int) -> dict[str, Any]:
    """All numbers of one library."""
    library = LIBRARIES[name][1](*recorded)
    before = resident()
    library.build(capacity)
    for start in range(0, capacity, CALL):
        _append_call(library, start % RECORDED)
    row: dict[str, Any] = {"bytes a transition": (resident() - before) / capacity}
    bound = Bound()
    row |= _appends(library, rounds)
    if isinstance(library, Ours):
        library.warm()
    for _ in range(
        2 * rounds
    ):  # a virtual machine's host hands memory out at its first use, and again at the first reading
        library.sample()
    two_stacks = [0, N]
    row |= _paired("sample", library.sample, bound, two_stacks, rounds)
    if hasattr(library, "update"):
        priorities = np.random.default_rng(1).exponential(size=(rounds, BATCH))
        times = []
        for priority in priorities:
            library.sample()
            times.append(seconds(partial(library.update, priority)))
        row["update of 32, us"] = 1e6 * float(np.median(times))
        row["update, us an item"] = row["update of 32, us"] / BATCH
    if isinstance(library, Ours):
        replay, sequence = library.replay, library.sequence
        fresh = partial(replay.sample, BATCH, N, GAMMA)
        row |= _paired("sample into new arrays", fresh, bound, two_stacks, rounds)
        spr = partial(replay.sample, BATCH, N, GAMMA, K, out=sequence)
        row |= _paired("SPR subsequence", spr, bound, [*range(K + 1), N], rounds)
        row |= _two_threads(replay, bound, rounds)
    return row


def _append_call(library: Any, start: int) -> None:
    """CALL steps, in one call where the library takes them."""
    if hasattr(library, "append_many"):
        library.append_many(start)
    else:
        for t in range(start, start + CALL):
            library.append(t)


def _appends(library: Any, rounds: int) -> dict[str, float]:
    """Microseconds a transition, step by step and, where the library takes them, in rollouts."""

    def one_by_one(start: int) -> None:
        for t in range(start, start + CALL):
            library.append(t)

    single = [seconds(partial(one_by_one, start)) for start in range(0, RECORDED, CALL)]
    row = {"append, us": 1e6 * float(np.median(single)) / CALL}
    if hasattr(library, "append_many"):
        starts = [CALL * (i % (RECORDED // CALL)) for i in range(rounds)]
        times = [seconds(partial(library.append_many, start)) for start in starts]
        row[f"append {CALL} at once, us"] = 1e6 * float(np.median(times)) / CALL
    return row


def _paired(what: str, call: Callable[[], object], bound: Bound, offsets: list[int], rounds: int) -> dict[str, float]:
    """Median time of `call`, and the median of its ratios to the two copies made beside it."""
    times = []
    for _ in range(rounds):
        gather, contiguous = bound.of(offsets)
        times.append([seconds(call), seconds(gather), seconds(contiguous)])
    t = np.array(times)
    return {
        f"{what}, us": 1e6 * float(np.median(t[:, 0])),
        f"{what} / gather": float(np.median(t[:, 0] / t[:, 1])),
        f"{what} / contiguous": float(np.median(t[:, 0] / t[:, 2])),
    }


def _two_threads(replay: Replay, bound: Bound, rounds: int) -> dict[str, float]:
    """Two threads that read at once, each into its own batch: time a batch over that of one thread alone; 0.5 is ideal.
    The same of the copies, since two cores share their memory's bandwidth."""
    items = replay.eligible()
    batches = [replay.sample(BATCH, N, GAMMA) for _ in range(2)]
    drawn = np.sort(np.random.default_rng(2).choice(items, (2, rounds, BATCH)))

    def read(thread: int) -> None:
        for index in drawn[thread]:
            replay.gather(index, N, GAMMA, out=batches[thread])

    targets = [np.zeros((2 * BATCH * STACK, 84 * 84), np.uint8) for _ in range(2)]
    begins = np.random.default_rng(3).integers(0, BOUND_FRAMES - 2_000, (2, rounds))

    def copy(thread: int) -> None:
        for begin in begins[thread]:
            np.copyto(targets[thread], bound.frames[begin : begin + len(targets[thread])])

    row = {}
    for name, work in (("sample", read), ("contiguous", copy)):
        ratios = [seconds(partial(_together, work)) / 2 / seconds(partial(work, 0)) for _ in range(9)]
        row[f"{name}, two threads / one"] = float(np.median(ratios))
    return row


def _together(work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def seconds(call: Callable[[], object]) -> float:
    """How long one call took."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def _text(value: Any) -> str:
    return (
        ""
        if value is None
        else value
        if isinstance(value, str)
        else f"{value:,.3g}"
        if value < 100
        else f"{value:,.0f}"
    )


if __name__ == "__main__":
    main()
