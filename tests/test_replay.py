"""Replay against a slow model that stores whole transitions: every item, every index, through all that can happen."""

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rlplatform.replay import Batch, Replay
from rlplatform.streams import Stream
from rlplatform.types import Rollout, Spec, empty_episodes
from tests.reference.replay_model import ReplayModel

EVENTS = ["on"] * 6 + ["life", "over", "limit", "both", "cut"]


class Feed:
    """Makes rollouts from lists of events, keeping each stream's episodes in order. No two frames are equal."""

    def __init__(self, spec: Spec, streams: int) -> None:
        self.spec, self.made = spec, 0
        self.ended = [True] * streams

    def frame(self) -> np.ndarray:
        self.made += 1
        flat = self.made + 1000 * np.arange(np.prod(self.spec.frame_shape, dtype=int))
        return (flat % 251 + 1).astype(self.spec.frame_dtype).reshape(self.spec.frame_shape)

    def action(self) -> np.ndarray:
        if self.spec.actions:
            return np.array(self.made % self.spec.actions, np.int64)
        return np.sin(self.made + np.arange(*self.spec.action_shape)).astype(np.float32)

    def rollout(self, events: list[list[str]], first_env: int = 0) -> Rollout:
        """`events[t][i]`: what step t of environment i comes to; "cut": a new episode begins before it, and it goes on."""
        steps, envs = len(events), len(events[0])
        frame, action, finals, final_at = [], [], [], []
        first, terminated, truncated = (np.zeros((steps, envs), bool) for _ in range(3))
        reward = np.zeros((steps, envs), np.float32)
        for t in range(steps):
            for i, event in enumerate(events[t]):
                frame.append(self.frame())
                action.append(self.action())
                reward[t, i] = np.float32(np.cos(1.7 * self.made))
                first[t, i] = self.ended[first_env + i] or event == "cut"
                terminated[t, i] = event in ("life", "over", "both")
                truncated[t, i] = event in ("limit", "both")
                self.ended[first_env + i] = bool(terminated[t, i] or truncated[t, i])
                if event in ("over", "limit", "both"):
                    finals.append(self.frame())
                    final_at.append((t, i))
        spec = self.spec
        return Rollout(
            np.reshape(frame, (steps, envs, *spec.frame_shape)), first,
            np.reshape(action, (steps, envs, *spec.action_shape)), reward, terminated, truncated,
            np.array(finals, spec.frame_dtype).reshape(-1, *spec.frame_shape), np.array(final_at, np.int64).reshape(-1, 2),
            {}, empty_episodes(), first_env, 0,
        )  # fmt: skip


def into_model(model: ReplayModel, rollout: Rollout) -> None:
    final = {tuple(at): f for at, f in zip(rollout.final_at.tolist(), rollout.final_frame, strict=True)}
    for t in range(rollout.frame.shape[0]):
        for i in range(rollout.frame.shape[1]):
            model.add_step(
                rollout.first_env + i, rollout.frame[t, i], bool(rollout.first[t, i]), rollout.action[t, i],
                float(rollout.reward[t, i]), bool(rollout.terminated[t, i]), bool(rollout.truncated[t, i]),
                final.get((t, i)),
            )  # fmt: skip


def assert_items(batch: Batch, model: ReplayModel, n: int, gamma: np.ndarray, k: int) -> None:
    """Every element of the batch. Returns and discounts are summed in double on both sides: only their rounding to
    float32 and the order of multiplications differ, so 2 ulp of float32 are allowed (measured: 1)."""
    for b, index in enumerate(batch.index.tolist()):
        item = model.item(index, n, gamma[b], k)
        for name in ("obs", "action", "reward", "terminated", "mask", "next_obs", "priority"):
            np.testing.assert_array_equal(getattr(batch, name)[b], getattr(item, name), err_msg=f"{name} of {index}")
        np.testing.assert_allclose(batch.n_return[b], item.n_return, rtol=2.4e-7, atol=1e-7)
        np.testing.assert_allclose(batch.discount[b], np.float32(item.discount), rtol=2.4e-7, atol=3e-45)  # 2 denormals


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
    )
    def build(self, spec: Spec, streams: int, max_n: int, max_k: int, alpha: float, spare: int, begins: bool) -> None:
        per_stream = max(max_n, max_k) + spec.stack + 1 + spare
        self.spec, self.streams = spec, streams
        self.make = lambda: Replay(spec, per_stream * streams, streams, max_n, max_k, alpha, Stream(1, "replay"))
        self.replay = self.make()
        self.model = ReplayModel(
            spec.frame_shape, spec.frame_dtype, spec.action_shape, spec.action_dtype, spec.stack, streams, per_stream,
            max_n, max_k, alpha,
        )  # fmt: skip
        self.feed = Feed(spec, streams)
        self.feed.ended = [begins] * streams  # else the stream is joined in the middle of an episode

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
        place = lambda i: (i % self.streams, i // self.streams % self.model.per_stream)
        items = sorted(self.model.eligible(), key=place)
        p = np.array([self.model.slots[i % self.streams][i // self.streams].priority for i in items])
        upper = np.cumsum(p)
        target = (np.arange(len(index)) + uniform) / len(index) * upper[-1]
        at = np.array([items.index(i) for i in index])
        slack = 1e-12 * upper[-1]  # the tree sums in another order; an edge is hit with probability 1e-12 a draw
        assert (p[at] > 0).all()
        assert (upper[at] - p[at] - slack <= target).all() and (target <= upper[at] + slack).all()

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

    @invariant()
    def same_items(self) -> None:
        """All eligible items, exhaustively, and nothing else."""
        if not hasattr(self, "replay"):
            return
        model, eligible = self.model, self.model.eligible()
        assert self.replay.eligible().tolist() == eligible
        assert len(self.replay) == len(model)
        assert self.replay.max_priority == model.max_priority
        assert self.replay.can_sample == any(
            model.slots[i % self.streams][i // self.streams].priority > 0 for i in eligible
        )
        for n, k in ((model.max_n, model.max_k), (1, 0)):
            gamma = np.full(len(eligible), 0.9)
            assert_items(self.replay.gather(np.array(eligible, np.int64), n, 0.9, k), model, n, gamma, k)


TestReplay = ReplayMachine.TestCase
TestReplay.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
