"""MR.Q's updates as a GPU takes them: run on the CPU, where they give the bits of the ordinary ones; and on a GPU where one is at hand."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpu import needs_build, needs_gpu, waiting_is_an_error
from rlplatform.agents.mrq import Agent
from rlplatform.agents.mrq_config import Config, Release
from rlplatform.device_replay import DeviceReplay
from rlplatform.learner import Learner
from rlplatform.streams import Stream
from rlplatform.techniques.pruning import PruningConfig
from rlplatform.techniques.redo import ReDoConfig
from rlplatform.techniques.sigreg import SigRegConfig
from rlplatform.types import Rollout, Spec, empty_episodes
from test_device_learner import assert_same_state, priorities

REACH = Spec((3,), "float32", 2, actions=0, action_shape=(2,))
SPECS = {
    "continuous": REACH,
    "discrete": dataclasses.replace(REACH, actions=3, action_shape=()),
    "gray": Spec((32, 33), "uint8", 2, actions=3),
    "colour": Spec((3, 32, 31), "uint8", 2, actions=0, action_shape=(2,)),
    "grid": Spec((4, 6, 6), "uint8", 1, actions=3),
}
# Three periods, and a replay that is full and overwritten.
TINY = Config(hidden=8, action_embedding=3, bins=5, batch=4, target_period=6, capacity=48, min_replay=12)
CASES = {
    "released": {"release": Release(reward_scale=True, terminal_reward=True, first_actions=True)},
    "bfloat16": {"dtype": "bfloat16"},
    "sigreg": {"sigreg": SigRegConfig(weight=0.5)},
    "pruning": {"pruning": PruningConfig(sparsity=0.8, begin=2, end=14, every=3)},
    "redo": {"redo": ReDoConfig(every=5, batch=8, tau=0.5)},
    "l2_init": {"l2_init": 0.1},
    "spectral_norm": {"spectral_norm": ("value.first.linear3", "encoder.pair2")},
}


def rollouts(spec: Spec, count: int, steps: int = 4) -> list[Rollout]:
    """One environment's experience, cut into rollouts; every other one contains an end, of which every other one is a truncation."""
    rng = np.random.default_rng(0)
    out, ended = [], np.ones(1, bool)
    for number in range(count):
        terminated, truncated = np.zeros((2, steps, 1), bool)
        (terminated if number % 4 == 1 else truncated)[1, 0] = number % 2
        ends = terminated | truncated
        first = np.concatenate([ended[None], ends[:-1]])
        ended = ends[-1]
        frame = (
            rng.integers(0, 256, (steps, 1, *spec.frame_shape)) / (1 if spec.frame_dtype == "uint8" else 100)
        ).astype(spec.frame_dtype)
        action = (
            rng.integers(0, spec.actions, (steps, 1)) if spec.actions
            else rng.uniform(-1, 1, (steps, 1, *spec.action_shape)).astype(np.float32)
        )  # fmt: skip
        out.append(
            Rollout(
                frame, first, action, rng.normal(size=(steps, 1)).astype(np.float32), terminated, truncated, frame[ends],
                np.ascontiguousarray(np.argwhere(ends)), {}, empty_episodes(), 0, 0,
            )
        )  # fmt: skip
    return out


def run(agent: Any, played: list[Rollout], updates: int = 2) -> list[Any]:
    """Learn as a run does: what its actor, a policy that acts on two environments, and its log see."""
    policy, stream, seen = agent.policy(), Stream(0, "actor"), []
    rng = np.random.default_rng(7)
    for rollout in played:
        agent.observe([rollout])
        policy.load({**agent.weights(), "epsilon": 0.0})
        obs = rng.integers(0, 100, (2, agent.spec.stack, *agent.spec.frame_shape)).astype(agent.spec.frame_dtype)
        seen.append(policy.act(obs, stream)[0].tolist())
        for _ in range(updates if agent.ready else 0):
            seen.append({name: float(value) for name, value in agent.update().items()})
    return seen


def both(config: Config, spec: Spec) -> tuple[Any, Any]:
    return Agent(config, spec, 1, seed=3), Agent(config, spec, 1, seed=3, feed="resident")


def assert_the_same(host: Any, device: Any, played: list[Rollout]) -> None:
    seen = run(host, played)
    assert seen == run(device, played)
    assert_same_state(host.state_dict(), device.state_dict())
    np.testing.assert_array_equal(priorities(host.replay), priorities(device.replay))
    assert host.replay.max_priority == device.replay.max_priority
    assert isinstance(device.replay, DeviceReplay)
    learned = [entry for entry in seen if isinstance(entry, dict)]
    assert len(learned) == 2 * (len(played) - 3)
    assert learned[-1]["charts/encoder_updates"] == math.ceil(len(learned) / 6) * 6
    assert 0.5 < learned[-1]["charts/reward_scale"] < 1.1  # E |normal| = 0.8


@pytest.mark.parametrize("name", SPECS)
def test_the_gpus_code_gives_the_bits_of_the_ordinary_updates(name: str) -> None:
    host, device = both(TINY, SPECS[name])
    assert_the_same(host, device, rollouts(SPECS[name], 14))
    assert len(host.replay) == len(device.replay) <= 48  # of 56: overwritten
    assert host.state_dict()["terminates"] is True


@pytest.mark.parametrize("case", CASES)
def test_with_every_technique(case: str) -> None:
    spec = SPECS["gray" if case == "bfloat16" else "continuous"]
    host, device = both(dataclasses.replace(TINY, **CASES[case]), spec)
    assert_the_same(host, device, rollouts(spec, 12))
    if case == "pruning":
        for part in ("encoder", "value", "policy"):
            weights = [p for p in getattr(host.master, part).parameters() if p.ndim > 1]
            assert sum(int((p == 0).sum()) for p in weights) > 0.5 * sum(p.numel() for p in weights), part


def test_nothing_is_learned_about_ends_before_there_was_one() -> None:
    """A fact that the host finds out and a captured step has to know."""
    spec, config = SPECS["continuous"], dataclasses.replace(TINY, target_period=2)
    host, device = both(config, spec)
    played = rollouts(spec, 12)
    no = np.zeros_like(played[0].terminated)
    endless = [r._replace(terminated=no, truncated=r.terminated | r.truncated) for r in played[:6]]
    seen = run(host, [*endless, *played[6:]])
    assert seen == run(device, [*endless, *played[6:]])
    done = [entry["losses/done_loss"] for entry in seen if isinstance(entry, dict)]
    assert done[:6] == [0.0] * 6
    assert done[-1] > 0.0


@pytest.mark.parametrize(("begins", "goes_on"), [("", "resident"), ("resident", "")])
def test_a_checkpoint_of_one_goes_on_as_the_other(tmp_path: Path, begins: str, goes_on: str) -> None:
    """Saved in the middle of a period."""
    spec, config = SPECS["continuous"], dataclasses.replace(TINY, pruning=CASES["pruning"]["pruning"])
    played = rollouts(spec, 14)
    whole, first, second = (Agent(config, spec, 1, seed=3, feed=feed) for feed in (begins, begins, goes_on))
    rest = run(whole, played)
    run(first, played[:8])
    assert first.state_dict()["updates"] % 6
    replay = first.replay.save(tmp_path)
    run(second, played[:5])  # what was learned before does not matter
    second.load_state_dict(first.state_dict())
    second.replay.load(tmp_path, replay)
    run_on, stream = [], Stream(0, "actor")
    for rollout in played[8:]:
        second.observe([rollout])
        run_on += [{name: float(value) for name, value in second.update().items()} for _ in range(2)]
    assert run_on == [entry for entry in rest if isinstance(entry, dict)][-12:]
    assert stream.counter == 0
    assert_same_state(whole.state_dict(), second.state_dict())


def test_a_loss_that_is_not_finite_ends_a_run_that_waits_for_nothing() -> None:
    spec = SPECS["continuous"]
    agent: Any = Agent(TINY, spec, 1, seed=3, feed="resident")
    learner = Learner(agent, 1.0)
    played = rollouts(spec, 6)
    for rollout in played[:5]:
        learner.learn([rollout])
    agent.state_dict()
    agent.master.value.first.linear4.weight.data[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="losses/value_loss is nan"):
        learner.learn([played[5]])
    with pytest.raises(ValueError, match="a priority must be >= 0 and finite"):
        agent.state_dict()  # and cannot be saved


def test_another_feed_is_refused() -> None:
    with pytest.raises(ValueError, match='feed must be "" or "resident"'):
        Agent(TINY, REACH, 1, seed=3, feed="staged")


# --- on a GPU ---


@needs_gpu
@needs_build
@pytest.mark.parametrize("name", SPECS)
def test_on_a_gpu_steps_wait_for_nothing_and_replays_are_eager_steps(name: str) -> None:
    """Beyond the capture, beside an agent whose steps are never captured."""
    spec = SPECS[name]
    captured, eager = (Agent(TINY, spec, 1, seed=3, device="cuda") for _ in range(2))
    for rollout in rollouts(spec, 5):
        captured.observe([rollout])
        eager.observe([rollout])
    for step in range(12):
        with waiting_is_an_error():
            captured.launches.update()
            captured.launches.encoder_update()
        eager.launches._update()
        eager.launches._encoder_update()
        for one, other in zip(captured.master.parameters(), eager.master.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0, msg=f"step {step}")
    assert captured.launches.update.captured
    assert captured.launches.encoder_update.captured


@needs_gpu
@needs_build
@pytest.mark.parametrize("name", SPECS)
def test_on_a_gpu_it_learns_what_the_cpu_learns(name: str) -> None:
    spec = SPECS[name]
    host, device = Agent(TINY, spec, 1, seed=3), Agent(TINY, spec, 1, seed=3, device="cuda")
    pairs = zip(run(host, rollouts(spec, 8)), run(device, rollouts(spec, 8)), strict=True)
    for one, other in [pair for pair in pairs if isinstance(pair[0], dict)][:4]:
        for key, value in one.items():
            assert other[key] == pytest.approx(value, rel=1e-3, abs=1e-4), key
