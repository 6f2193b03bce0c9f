"""Replay against a slow model that stores whole transitions: every item, every index, through all that can happen."""

import copy
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reference.replay_model import ReplayModel
from replay_feed import EVENTS, Feed, assert_items, into_model
from rlplatform.replay import Replay
from rlplatform.streams import Stream
from rlplatform.types import Spec

SPECS = [
    Spec((3,), "uint8", 4, 5),
    Spec((2, 2), "float32", 3, 0, (2,)),
    Spec((), "int16", 1, 3),
    Spec((1,), "uint8", 2, 2),
]


class ReplayMachine(RuleBasedStateMachine):
    @initialize(
        spec=st.sampled_from(SPECS),
        streams=st.integers(1, 3),
        max_n=st.integers(1, 4),
        max_k=st.integers(0, 4),
        alpha=st.sampled_from([0.0, 0.5, 1.0]),
        spare=st.integers(0, 12),
        begins=st.booleans(),
        mapped=st.booleans(),
    )
    def build(self, spec, streams, max_n, max_k, alpha, spare, begins, mapped) -> None:
        per_stream = max(max_n, max_k) + spec.stack + 1 + spare
        self.spec, self.streams = spec, streams
        path = tempfile.gettempdir() if mapped else None
        self.make = lambda: Replay(spec, per_stream * streams, streams, max_n, max_k, alpha, Stream(1, "replay"), path)
        self.replay = self.make()
        self.model = ReplayModel(
            spec.frame_shape, spec.frame_dtype, spec.action_shape, spec.action_dtype, spec.stack, streams, per_stream,
            max_n, max_k, alpha,
        )  # fmt: skip
        self.feed = Feed(spec, streams)
        self.feed.ended = [begins] * streams  # else the stream is joined in the middle of an episode
        self.folder = Path(tempfile.mkdtemp())
        self.kept: tuple[dict, ReplayModel, Feed] | None = None  # a checkpoint to return to

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @rule(data=st.data(), steps=st.integers(1, 8))
    def add(self, data: st.DataObject, steps: int) -> None:
        first_env = data.draw(st.integers(0, self.streams - 1))
        envs = data.draw(st.integers(1, self.streams - first_env))
        row = st.lists(st.sampled_from(EVENTS), min_size=envs, max_size=envs)
        events = data.draw(st.lists(row, min_size=steps, max_size=steps))
        rollout = self.feed.rollout(events, first_env)
        self.replay.add(rollout)
        into_model(self.model, rollout)

    @rule(steps=st.integers(20, 40), every=st.integers(2, 9))
    def wrap_around(self, steps: int, every: int) -> None:
        """One long rollout, longer than the ring perhaps."""
        rollout = self.feed.rollout(
            [
                [["on", "limit", "on", "life"][t // every % 4] if t % every == 0 else "on"] * self.streams
                for t in range(steps)
            ]
        )
        self.replay.add(rollout)
        into_model(self.model, rollout)

    @precondition(lambda self: self.replay.can_sample)
    @rule(data=st.data(), batch=st.integers(1, 9), reuse=st.booleans())
    def sample(self, data: st.DataObject, batch: int, reuse: bool) -> None:
        n, k = data.draw(st.integers(1, self.model.max_n)), data.draw(st.integers(0, self.model.max_k))
        gamma = np.array(data.draw(st.lists(st.floats(0, 1), min_size=batch, max_size=batch)))
        out = self.replay.sample(batch, n, 0.5, k) if reuse else None
        twin = Stream(0, "twin")
        twin.load_state_dict(self.replay.stream.state_dict())
        drawn = self.replay.sample(batch, n, gamma, k, out=out)
        assert out is None or drawn is out
        assert_items(drawn, self.model, n, gamma, k)
        self.check_strata(drawn.index, twin.uniform(batch))
        assert self.replay.stream.state_dict() == twin.state_dict()

    def check_strata(self, index: np.ndarray, uniform: np.ndarray) -> None:
        """Item j is where the cumulative sum of priorities, in order of place, reaches (j + U_j) / B of the total."""
        items = sorted(
            self.model.eligible(), key=lambda i: (i % self.streams, i // self.streams % self.model.per_stream)
        )
        p = np.array([self.model.slots[i % self.streams][i // self.streams].priority for i in items])
        upper = np.cumsum(p)
        target = (np.arange(len(index)) + uniform) / len(index) * upper[-1]
        at = np.array([items.index(i) for i in index])
        slack = 1e-12 * upper[-1]  # the tree sums in another order; an edge is hit with probability 1e-12 a draw
        assert (p[at] > 0).all()
        assert (upper[at] - p[at] - slack <= target).all()
        assert (target <= upper[at] + slack).all()

    @rule(data=st.data(), single=st.booleans())
    def update_priority(self, data: st.DataObject, single: bool) -> None:
        """Of any steps that ever were: overwritten, not yet eligible, twice in one call."""
        known = [
            self.model.index(s, q)
            for s, slots in enumerate(self.model.slots)
            for q, slot in enumerate(slots)
            if slot.step
        ]
        if not known:
            return
        index = data.draw(st.lists(st.sampled_from(known[-60:]), min_size=1, max_size=8))
        values = st.sampled_from([0.0, 1e-3, 0.5, 1.0, 4.0, 100.0])
        priority = np.array([data.draw(values) for _ in index], np.float32 if single else np.float64)
        self.replay.update_priority(np.array(index, np.int64), priority)
        for i, p in zip(index, priority.astype(np.float64), strict=True):
            self.model.update_priority(i, p)

    @rule(move=st.booleans(), go_on=st.booleans(), keep=st.booleans())
    def save_and_load(self, move: bool, go_on: bool, keep: bool) -> None:
        """Into a new replay, which draws what the old one draws; with the old files or into another folder."""
        if move:
            self.folder, old = Path(tempfile.mkdtemp()), self.folder
            shutil.rmtree(old)
            self.kept = None
        state = self.replay.save(self.folder)
        assert all((self.folder / name).is_file() for name in Replay.segments(state))
        loaded = self.make()
        loaded.load(self.folder, copy.deepcopy(state))
        if self.replay.can_sample:
            old, new = (Replay.sample(r, 7, self.model.max_n, 0.9, self.model.max_k) for r in (self.replay, loaded))
            for a, b in zip(old, new, strict=True):
                np.testing.assert_array_equal(a, b)
        self.replay = self.replay if go_on else loaded
        if keep:
            self.kept = copy.deepcopy((dict(self.replay.save(self.folder)), self.model, self.feed))
        needed = Replay.segments(state) + (Replay.segments(self.kept[0]) if self.kept else [])
        for file in self.folder.iterdir():
            if file.name not in needed:
                file.unlink()

    @precondition(lambda self: self.kept is not None)
    @rule(anew=st.booleans())
    def return_to_checkpoint(self, anew: bool) -> None:
        """As a resumed run does: what came after the checkpoint never was."""
        state, self.model, self.feed = copy.deepcopy(self.kept)
        if anew:
            self.replay = self.make()
        self.replay.load(self.folder, state)

    @invariant()
    def same_items(self) -> None:
        """All eligible items, exhaustively, and nothing else."""
        if not hasattr(self, "replay"):
            return
        model, eligible = self.model, self.model.eligible()
        assert self.replay.eligible().tolist() == eligible
        assert len(self.replay) == len(model)
        assert self.replay.max_priority == model.max_priority
        # A few hundred doubles, summed in another order: 1e-13 is far above their rounding.
        assert self.replay.mean_abs_reward == pytest.approx(model.mean_abs_reward(), rel=1e-13)
        assert self.replay.can_sample == any(
            model.slots[i % self.streams][i // self.streams].priority > 0 for i in eligible
        )
        self.checks = getattr(self, "checks", 0) + 1
        n, k = 1 + self.checks % model.max_n, self.checks % (model.max_k + 1)
        gamma = np.full(len(eligible), 0.9)
        assert_items(self.replay.gather(np.array(eligible, np.int64), n, 0.9, k), model, n, gamma, k)


TestReplay = ReplayMachine.TestCase
TestReplay.settings = settings(
    max_examples=80, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
