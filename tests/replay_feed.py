"""What the tests of the replay share: rollouts made from lists of events, and the comparison with the model."""

from typing import Any

import numpy as np

from reference.replay_model import ReplayModel
from rlplatform.replay import Batch, Replay
from rlplatform.streams import Stream
from rlplatform.types import Array, Rollout, Spec, empty_episodes

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
    """Every element of the batch. Returns and discounts are made in double on both sides, by multiplications in another
    order, so they may round to neighbouring float32 numbers (1.2e-7 apart, relatively): twice that is allowed."""
    for b, index in enumerate(batch.index.tolist()):
        item = model.item(index, n, gamma[b], k)
        for name in ("obs", "action", "reward", "terminated", "mask", "next_obs", "priority"):
            np.testing.assert_array_equal(getattr(batch, name)[b], getattr(item, name), err_msg=f"{name} of {index}")
        np.testing.assert_allclose(batch.n_return[b], item.n_return, rtol=2.4e-7, atol=1e-7)
        np.testing.assert_allclose(batch.discount[b], np.float32(item.discount), rtol=2.4e-7, atol=3e-45)  # 2 denormals


SPEC = Spec((3,), "uint8", 4, 5)


def filled(steps: int = 40, streams: int = 2, capacity: int = 200, alpha: float = 1.0, **more: Any) -> Replay:
    """`streams` episodes that go on and on."""
    replay = Replay(SPEC, capacity, streams, max_n=3, max_k=2, alpha=alpha, stream=Stream(3, "replay"), **more)
    replay.add(Feed(SPEC, streams).rollout([["on"] * streams] * steps))
    return replay


def everything(replay: Replay) -> list[Array]:
    """All that can be seen of a replay, without drawing from it."""
    items = replay.eligible()
    seen = replay.gather(items, replay.max_n, 0.9, replay.max_k)
    return [items, *seen, np.array([len(replay), replay.max_priority, replay.stream.counter])]


def assert_same(left: list[Array], right: list[Array]) -> None:
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)
