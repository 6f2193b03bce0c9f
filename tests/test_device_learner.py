"""The learner's code for a GPU: run on the CPU, where it gives the bits of the ordinary learner; and on a GPU where one is at hand."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from gpu import needs_build, needs_gpu
from rlplatform.agents import load_preset
from rlplatform.agents.spr import Agent, Policy
from rlplatform.agents.spr_config import Config, horizon_at
from rlplatform.agents.spr_device import Horizon
from rlplatform.config import merge
from rlplatform.learner import Learner
from rlplatform.streams import Stream
from rlplatform.types import Rollout, Spec, empty_episodes

SPEC = Spec((14, 12), "uint8", 2, actions=3)
VECTOR = Spec((3,), "float32", 2, actions=3)
# Everything that a run changes happens within a dozen rounds: several resets (SR-SPR, BBF), the whole annealing (BBF), copies of the
# target (DER, SPR).
SMALL = {"hidden": 16, "capacity": 200, "min_replay": 12, "batch": 8, "target_period": 4, "width": 1}
PRESETS = ("der", "drq_eps", "spr", "sr_spr", "bbf", "bbf_release")


def config_of(name: str, dtype: str = "float32", **changes: Any) -> Config:
    config: Config = merge(Config(), load_preset(name).config, {**SMALL, "dtype": dtype, **changes})
    if config.atoms > 1:
        config = dataclasses.replace(config, atoms=5)
    return dataclasses.replace(
        config,
        n=4,
        n_final=2 if config.anneal else 4,
        anneal=min(config.anneal, 5),
        reset=dataclasses.replace(config.reset, every=10 if config.reset.every else 0),
    )


def rollouts(spec: Spec, count: int, seed: int = 0, steps: int = 4) -> list[Rollout]:
    """One environment's experience, cut into rollouts; every other one contains the end of a game."""
    rng = np.random.default_rng(seed)
    out = []
    ended = np.ones(1, bool)
    for number in range(count):
        ends = np.zeros((steps, 1), bool)
        ends[1, 0] = number % 2
        first = np.concatenate([ended[None], ends[:-1]])
        ended = ends[-1]
        frame = rng.integers(0, 256, (steps, 1, *spec.frame_shape)).astype(spec.frame_dtype)
        out.append(
            Rollout(
                frame, first, rng.integers(0, spec.actions, (steps, 1)), rng.normal(size=(steps, 1)).astype(np.float32), ends,
                np.zeros_like(ends), frame[ends], np.ascontiguousarray(np.argwhere(ends)), {}, empty_episodes(), 0, 0,
            )
        )  # fmt: skip
    return out


def run(agent: Any, played: list[Rollout], updates: int = 3) -> list[Any]:
    """Learn as a run does: what its actor, a policy that never explores, and its log see."""
    policy, stream, seen = agent.policy(), Stream(0, "actor"), []
    rng = np.random.default_rng(7)
    for rollout in played:
        agent.observe([rollout])
        policy.load({**agent.weights(), "epsilon": 0.0})
        obs = rng.integers(0, 256, (2, agent.spec.stack, *agent.spec.frame_shape)).astype(agent.spec.frame_dtype)
        seen.append(policy.act(obs, stream)[0].tolist())
        for _ in range(updates if agent.ready else 0):
            seen.append({name: float(value) for name, value in agent.update().items()})
    return seen


def leaves(state: Any, prefix: str = "") -> dict[str, Any]:
    """The tree flattened: path -> leaf."""
    if not isinstance(state, dict):
        return {prefix: state}
    return {path: leaf for key, value in state.items() for path, leaf in leaves(value, f"{prefix}/{key}").items()}


def assert_same_state(first: Any, second: Any) -> None:
    first, second = leaves(first), leaves(second)
    assert first.keys() == second.keys()
    for path, value in first.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == second[path].dtype
            assert value.stride() == second[path].stride()
            assert torch.equal(value, second[path]), path
        else:
            assert value == second[path], path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "tf32"])
@pytest.mark.parametrize("name", PRESETS)
def test_the_gpus_code_gives_the_bits_of_the_ordinary_learner(name: str, dtype: str) -> None:
    config, played = config_of(name, dtype), rollouts(SPEC, 14)
    host, device = Agent(config, SPEC, 1, seed=3), Agent(config, SPEC, 1, seed=3, graphed=True)
    seen = run(host, played)
    assert seen == run(device, played)
    assert_same_state(host.state_dict(), device.state_dict())
    np.testing.assert_array_equal(host.replay._core.priorities(), device.replay._core.priorities())
    assert host.replay.max_priority == device.replay.max_priority
    state = host.state_dict()
    assert state["resets"]["count"] >= (3 if config.reset.every else 0)
    assert sum(isinstance(entry, dict) for entry in seen) == 33
    assert (state["cycle"] < 33) == bool(config.reset.every)


@pytest.mark.parametrize(
    ("encoder", "spec"), [("flatten", VECTOR), ("minatar", Spec((4, 6, 6), "uint8", 1, actions=3))]
)
def test_other_observations_too(encoder: str, spec: Spec) -> None:
    config, played = config_of("c51", encoder=encoder, epsilon_decay=5), rollouts(spec, 10)
    host, device = Agent(config, spec, 1, seed=3), Agent(config, spec, 1, seed=3, graphed=True)
    assert run(host, played) == run(device, played)
    assert_same_state(host.state_dict(), device.state_dict())


@pytest.mark.parametrize("name", ["spr", "bbf"])
@pytest.mark.parametrize(("before", "after"), [(True, True), (False, True), (True, False)])
def test_a_run_moves_between_the_two_and_goes_on(name: str, before: bool, after: bool) -> None:
    """On one device to the bit; the checkpoint says nothing of where it was written."""
    config, played = config_of(name), rollouts(SPEC, 14)
    whole = Agent(config, SPEC, 1, seed=3)
    expected = run(whole, played[:9]) + run(whole, played[9:])
    first, second = Agent(config, SPEC, 1, seed=3, graphed=before), Agent(config, SPEC, 1, seed=99, graphed=after)
    seen = run(first, played[:9])
    run(second, rollouts(SPEC, 6, seed=5))  # has moments, a cycle and priorities to forget
    second.load_state_dict(first.state_dict())
    second.replay = first.replay
    assert seen + run(second, played[9:]) == expected
    assert_same_state(second.state_dict(), whole.state_dict())


def test_tensors_that_a_graph_knows_stay_where_they_are() -> None:
    """Through resets, copies, a checkpoint loaded, and one without moments."""
    agent: Any = Agent(config_of("bbf", "bfloat16"), SPEC, 1, seed=3, graphed=True)
    empty = agent.state_dict()
    run(agent, rollouts(SPEC, 6))

    def addresses() -> list[int]:
        nets = (agent.master, agent.online, agent.target, agent.target_master)
        moments = [t for state in agent._adam.state.values() for t in state.values()]
        launches, streams = agent._launches, (agent._noise.state, agent._augment.state)
        return [
            t.data_ptr()
            for t in (
                *(p for net in nets for p in net.parameters()), *(p.grad for p in agent.master.parameters()), *moments, *streams,
                launches.horizon.cycle, *launches.metrics.values(), *launches.feed.draw(), launches.feed._td.device,
            )
        ]  # fmt: skip

    before, state = addresses(), agent.state_dict()
    run(agent, rollouts(SPEC, 8, seed=1))
    assert agent._resets.count > 1
    agent.load_state_dict(state)
    agent.load_state_dict(empty)
    assert not any(t.any() for moments in agent._adam.state.values() for t in moments.values())
    agent.load_state_dict(state)
    assert addresses() == before


def test_a_step_touches_no_python_state() -> None:
    """What is captured runs once in Python and many times on the device: all that it changes is a tensor."""
    agent: Any = Agent(config_of("bbf"), SPEC, 1, seed=3, graphed=True)
    run(agent, rollouts(SPEC, 6))

    def python_state() -> dict[str, Any]:
        state = {
            name: value for name, value in leaves(agent.state_dict()).items() if not isinstance(value, torch.Tensor)
        }
        for name in ("/noise/counter", "/augment/counter"):  # read from the device
            state.pop(name)
        return state | {"replay": agent.replay.stream.state_dict(), "attributes": sorted(vars(agent))}

    before, weights = python_state(), agent.state_dict()["online"]
    agent._launches._step()
    assert python_state() == before
    assert any(not torch.equal(value, weights[name]) for name, value in agent.state_dict()["online"].items())


def test_priorities_on_their_way_arrive_before_anything_looks_at_the_replay() -> None:
    config = config_of("spr")
    agent: Any = Agent(config, SPEC, 1, seed=3, graphed=True)
    played = rollouts(SPEC, 6)
    run(agent, played[:5], updates=1)
    for look in (lambda: agent.observe([played[5]]), agent.state_dict, agent.update):
        if agent._launches.feed._waiting is None:
            agent.update()
        kept = agent.replay._core.priorities().copy()
        index = agent._launches.feed._waiting
        look()
        changed = agent.replay._core.priorities().reshape(-1)[index % 200] != kept.reshape(-1)[index % 200]
        assert changed.any()


def test_a_loss_that_is_not_finite_ends_the_run_before_the_next_step_and_before_a_checkpoint() -> None:
    for then in ("update", "state_dict"):
        agent: Any = Agent(config_of("spr"), SPEC, 1, seed=3, graphed=True)
        run(agent, rollouts(SPEC, 5))
        with torch.no_grad():
            agent.online.head.mu.fill_(torch.nan)
        agent.update()  # does not wait to see
        with pytest.raises(FloatingPointError, match="the loss is nan after 20 agent steps"):
            getattr(agent, then)()


@pytest.mark.parametrize("name", ["der", "bbf"])
def test_n_and_gamma_on_the_device_are_the_hosts(name: str) -> None:
    config = merge(Config(), load_preset(name).config)
    horizon = Horizon(config, torch.device("cpu"))
    for cycle in (0, 1, 426, 427, 5_000, 9_999, 10_000, 10_001, 2**40):
        horizon.cycle.fill_(cycle)
        n, gamma = horizon.now()
        assert (int(n), float(gamma)) == horizon_at(cycle, config)
        assert (n.shape, gamma.dtype) == ((1,), torch.float64)


# -- acting -------------------------------------------------------------------------------------------------------------


def test_a_policy_whose_weights_move_copies_them_and_one_whose_weights_stay_does_not() -> None:
    config = config_of("spr")
    agents = [Agent(config, SPEC, 1, seed=seed) for seed in range(3)]
    subject: Any = Policy(config, SPEC, evaluation=False, graphed=True)
    obs = np.random.default_rng(0).integers(0, 256, (40, 2, 14, 12)).astype(np.uint8)

    def acts(policy: Any, agent: Agent) -> list[int]:
        policy.load({**agent.weights(), "epsilon": 0.0})
        actions: list[int] = policy.act(obs, Stream(0, "actor"))[0].tolist()
        return actions

    expected = [acts(Policy(config, SPEC, evaluation=False), agent) for agent in agents]
    assert expected[0] != expected[1]
    live = dict(agents[0].weights()["net"])
    assert acts(subject, agents[0]) == expected[0]
    assert acts(subject, agents[0]) == expected[0]
    assert all(p.data_ptr() == live[name].data_ptr() for name, p in subject._net.named_parameters())
    assert acts(subject, agents[1]) == expected[1]
    at = [p.data_ptr() for p in subject._net.parameters()]
    assert acts(subject, agents[2]) == expected[2]
    assert [p.data_ptr() for p in subject._net.parameters()] == at
    assert (
        acts(Policy(config, SPEC, evaluation=False), agents[0]) == expected[0]
    )  # nothing was written into live weights
    assert acts(subject, agents[0]) == expected[0]


def test_each_number_of_environments_has_a_graph_of_its_own() -> None:
    agent = Agent(config_of("der"), SPEC, 1, seed=0, graphed=True)
    plain = Agent(config_of("der"), SPEC, 1, seed=0)
    for evaluation in (False, True):
        policies: list[Any] = [a.eval_policy() if evaluation else a.policy() for a in (agent, plain)]
        for n in (3, 1, 3, 5):
            obs = np.random.default_rng(n).integers(0, 256, (n, 2, 14, 12)).astype(np.uint8)
            for policy, a in zip(policies, (agent, plain), strict=True):
                policy.load({**a.weights(), "epsilon": 0.0})
            first, second = (policy.act(obs, Stream(n, "actor"))[0] for policy in policies)
            np.testing.assert_array_equal(first, second)
        assert sorted(policies[0]._calls) == [1, 3, 5]


# -- several steps in one launch ------------------------------------------------------------------------------------------


class Resident:
    """Stands in for a replay on the device: a Feed whose batches and priorities are part of the step. Within, it is the host's."""

    launch = 3

    def __init__(self, agent: Any) -> None:
        self.agent, self.launches, self.host = agent, [], agent._launches.feed
        self.horizon = agent._launches.horizon

    def before(self) -> None:
        self.launches.append(0)

    def draw(self) -> Any:
        self.launches[-1] += 1
        n, gamma = self.horizon.now()
        draw = self.agent.replay.sample
        self.host._draw = lambda out: draw(
            self.agent.config.batch, int(n), float(gamma), self.agent.config.spr_steps, out
        )
        self.host.before()
        return self.host.draw()

    def give(self, td: torch.Tensor) -> None:
        self.host.give(td)
        self.host.after()
        self.host.settle()

    def after(self) -> None:
        pass

    def settle(self) -> None:
        pass


@pytest.mark.parametrize("name", ["der", "spr", "sr_spr", "bbf"])
def test_several_steps_are_one_launch_where_the_replay_is_on_the_device(name: str) -> None:
    """The learner asks for 8 steps a round at a replay ratio of 2: launches of 3, 3 and 2, with n, gamma and priorities of each."""
    config, played = config_of(name, replay_ratio=2.0), rollouts(SPEC, 12)
    host, device = Agent(config, SPEC, 1, seed=3), Agent(config, SPEC, 1, seed=3, graphed=True)
    any_device: Any = device
    feed = any_device._launches.feed = Resident(device)
    assert (host.steps_per_launch, device.steps_per_launch) == (1, 3)
    learners = [Learner(agent, config.replay_ratio) for agent in (host, device)]
    for rollout in played:
        first, second = (learner.learn([rollout]) for learner in learners)
        assert {k: float(v) for k, v in first.items()} == {k: float(v) for k, v in second.items()}
    assert feed.launches == [3, 3, 2] * 9
    assert learners[0].state_dict().keys() == learners[1].state_dict().keys()
    assert_same_state(host.state_dict(), device.state_dict())
    assert int(any_device._launches.horizon.cycle) == device.state_dict()["cycle"]


# -- on a GPU -----------------------------------------------------------------------------------------------------------


@needs_build
@needs_gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", PRESETS)
def test_on_a_gpu_it_learns_what_the_cpu_learns(name: str, dtype: str) -> None:
    """The same draws (priorities differ by rounding, which can move one once in a while: three rounds are compared), the same
    losses to the rounding of the dtype, and the graph takes over from the eager steps without a jump."""
    config, played = config_of(name, dtype), rollouts(SPEC, 7)
    cpu, gpu = Agent(config, SPEC, 1, seed=3), Agent(config, SPEC, 1, seed=3, device="cuda")
    for rollout in played:
        for agent in (cpu, gpu):
            agent.observe([rollout])
        for _ in range(3 if cpu.ready else 0):
            first, second = ({key: float(value) for key, value in agent.update().items()} for agent in (cpu, gpu))
            for key, value in first.items():
                assert second[key] == pytest.approx(value, rel=2e-2 if dtype == "bfloat16" else 1e-3), key
    any_gpu: Any = gpu
    assert any_gpu._launches._graphs[1].captured
    assert cpu.state_dict()["noise"] == gpu.state_dict()["noise"]
    assert cpu.state_dict()["augment"] == gpu.state_dict()["augment"]
    assert cpu.replay.stream.state_dict() == gpu.replay.stream.state_dict()


@needs_build
@needs_gpu
@pytest.mark.parametrize("name", PRESETS)
def test_replays_are_the_eager_steps_to_the_bit(name: str) -> None:
    """cuDNN's choice of algorithm is the one that it timed, so both learners live in one process."""
    config, played = config_of(name), rollouts(SPEC, 12)
    graphs, eager = (Agent(config, SPEC, 1, seed=3, device="cuda") for _ in range(2))
    any_eager: Any = eager
    any_eager._launches._graph_of = lambda steps: any_eager._launches._step
    assert run(graphs, played) == run(eager, played)
    assert_same_state(graphs.state_dict(), eager.state_dict())


@needs_build
@needs_gpu
def test_a_step_on_a_gpu_waits_for_nothing() -> None:
    agent: Any = Agent(config_of("bbf"), SPEC, 1, seed=3, device="cuda")
    run(agent, rollouts(SPEC, 5))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        agent._launches._step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_build
@needs_gpu
def test_a_gpus_checkpoint_goes_on_on_the_cpu_and_back() -> None:
    config, played = config_of("bbf"), rollouts(SPEC, 12)
    gpu = Agent(config, SPEC, 1, seed=3, device="cuda")
    run(gpu, played[:6])
    state = gpu.state_dict()
    assert all(not leaf.is_cuda for leaf in leaves(state).values() if isinstance(leaf, torch.Tensor))
    cpu, back = Agent(config, SPEC, 1, seed=9), Agent(config, SPEC, 1, seed=8, device="cuda")
    for agent in (cpu, back):
        agent.load_state_dict(state)
        assert_same_state(agent.state_dict(), state)
    obs = np.random.default_rng(0).integers(0, 256, (64, 2, 14, 12)).astype(np.uint8)
    acted = []
    for agent in (cpu, gpu):
        policy = agent.eval_policy()
        policy.load(agent.weights())
        acted.append(policy.act(obs, Stream(0, "eval"))[0])
    assert (acted[0] == acted[1]).mean() > 0.9  # ties within rounding aside
