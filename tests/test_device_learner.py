"""The learner's code for a GPU: run on the CPU, where it gives the bits of the ordinary learner; and on a GPU where one is at hand."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpu import needs_build, needs_gpu
from rlplatform.agents import load_preset
from rlplatform.agents.spr import Agent
from rlplatform.agents.spr_config import Config, horizon_at
from rlplatform.agents.spr_device import Horizon
from rlplatform.agents.spr_policy import Policy
from rlplatform.config import merge
from rlplatform.device import products
from rlplatform.device_replay import DeviceReplay
from rlplatform.evaluation.bench import bf16, learner_gpu
from rlplatform.learner import Learner
from rlplatform.streams import Stream
from rlplatform.types import Rollout, Spec, empty_episodes

SPEC = Spec((8, 7), "uint8", 2, actions=3)
VECTOR = Spec((3,), "float32", 2, actions=3)
# Everything that a run changes happens within a dozen rounds: several resets (SR-SPR, BBF), the whole annealing (BBF), copies of the
# target (DER, SPR).
SMALL = {"hidden": 8, "capacity": 50, "min_replay": 12, "batch": 4, "target_period": 4, "width": 1}
PRESETS = ("der", "drq_eps", "spr", "sr_spr", "bbf", "bbf_release")
FEEDS = ("staged", "resident")


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


def priorities(replay: Any) -> Any:
    return replay._priority.numpy() if isinstance(replay, DeviceReplay) else replay._core.priorities()


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "float32") for name in PRESETS] + [("der", "bfloat16"), ("bbf", "bfloat16"), ("sr_spr", "tf32")],
)
def test_the_gpus_code_gives_the_bits_of_the_ordinary_learner(name: str, dtype: str, feed: str) -> None:
    if (name, feed) == ("bbf_release", "resident"):
        with pytest.raises(ValueError, match="those batches are made on the host"):
            Agent(config_of(name), SPEC, 1, seed=3, feed=feed)
        return
    config, played = config_of(name, dtype), rollouts(SPEC, 14)
    host, device = Agent(config, SPEC, 1, seed=3), Agent(config, SPEC, 1, seed=3, feed=feed)
    seen = run(host, played)
    assert seen == run(device, played)
    assert_same_state(host.state_dict(), device.state_dict())
    np.testing.assert_array_equal(priorities(host.replay), priorities(device.replay))
    assert host.replay.max_priority == device.replay.max_priority
    assert len(host.replay) == len(device.replay) == 50  # of 56: full, and overwritten
    state = host.state_dict()
    assert state["resets"]["count"] >= (3 if config.reset.every else 0)
    assert sum(isinstance(entry, dict) for entry in seen) == 33
    assert (state["cycle"] < 33) == bool(config.reset.every)


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize(
    ("encoder", "spec"), [("flatten", VECTOR), ("minatar", Spec((4, 6, 6), "uint8", 1, actions=3))]
)
def test_other_observations_too(encoder: str, spec: Spec, feed: str) -> None:
    config, played = config_of("c51", encoder=encoder, epsilon_decay=5), rollouts(spec, 10)
    host, device = Agent(config, spec, 1, seed=3), Agent(config, spec, 1, seed=3, feed=feed)
    assert run(host, played) == run(device, played)
    assert_same_state(host.state_dict(), device.state_dict())


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("spr", "staged", "staged"),
        ("bbf", "resident", "resident"),
        ("bbf", "", "resident"),
        ("spr", "resident", ""),
        ("bbf", "staged", ""),
    ],
)
def test_a_run_moves_between_them_and_goes_on(name: str, before: str, after: str, tmp_path: Path) -> None:
    """On one device to the bit; the checkpoint says nothing of where it was written."""
    config, played = config_of(name), rollouts(SPEC, 14)
    whole = Agent(config, SPEC, 1, seed=3)
    expected = run(whole, played[:9]) + run(whole, played[9:])
    first, second = Agent(config, SPEC, 1, seed=3, feed=before), Agent(config, SPEC, 1, seed=99, feed=after)
    seen = run(first, played[:9])
    run(second, rollouts(SPEC, 6, seed=5))  # has moments, a cycle and priorities to forget
    second.load_state_dict(first.state_dict())
    second.replay.load(tmp_path, first.replay.save(tmp_path))
    assert seen + run(second, played[9:]) == expected
    assert_same_state(second.state_dict(), whole.state_dict())


@pytest.mark.parametrize("feed", FEEDS)
def test_tensors_that_a_graph_knows_stay_where_they_are(feed: str) -> None:
    """Through resets, copies, a checkpoint loaded, and one without moments."""
    agent: Any = Agent(config_of("bbf", "bfloat16"), SPEC, 1, seed=3, feed=feed)
    empty = agent.state_dict()
    run(agent, rollouts(SPEC, 6))

    def addresses() -> list[int]:
        nets = (agent.master, agent.online, agent.target, agent.target_master)
        moments = [t for state in agent._adam.state.values() for t in state.values()]
        launches, streams = agent.launches, (agent._noise.state, agent._augment.state)
        return [
            t.data_ptr()
            for t in (
                *(p for net in nets for p in net.parameters()), *(p.grad for p in agent.master.parameters()), *moments, *streams,
                launches.horizon.cycle, *launches.metrics.values(), *launches.feed.draw(), *launches._augmentation,
                launches.feed._td.device if feed == "staged" else launches.feed._images,
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


def test_a_loaded_agent_has_its_networks_in_bfloat16_too() -> None:
    """What is saved is in float32; what acts and learns is its rounding."""
    config = config_of("bbf", "bfloat16")
    saved = Agent(config, SPEC, 1, seed=3)
    run(saved, rollouts(SPEC, 5), updates=1)
    loaded = Agent(config, SPEC, 1, seed=9)
    loaded.load_state_dict(saved.state_dict())
    for ours, theirs in ((loaded.online, saved.online), (loaded.target, saved.target)):
        for (name, p), expected in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.equal(p, expected), name


def of_python(thing: Any, depth: int = 0) -> Any:
    """What lies beneath, tensors and functions left out."""
    if isinstance(thing, (int, float, str, bool, type(None))):
        return thing
    if isinstance(thing, (list, tuple)):
        return [of_python(item, depth) for item in thing]
    if isinstance(thing, dict):
        return {str(key): of_python(item, depth) for key, item in thing.items() if not isinstance(key, torch.Tensor)}
    ours = type(thing).__module__.startswith("rlplatform") and depth < 4 and hasattr(thing, "__dict__")
    return {name: of_python(item, depth + 1) for name, item in vars(thing).items()} if ours else 0


def test_a_step_touches_no_python_state() -> None:
    """What is captured runs once in Python and many times on the device: all that it changes is a tensor."""
    agent: Any = Agent(config_of("bbf"), SPEC, 1, seed=3, feed="resident")
    run(agent, rollouts(SPEC, 6))
    before, weights = of_python(agent), agent.state_dict()["online"]
    assert before["_cycle"] != 0
    assert before["launches"]["feed"]["_replay"] != 0
    agent.launches.step()
    assert of_python(agent) == before
    assert any(not torch.equal(value, weights[name]) for name, value in agent.state_dict()["online"].items())


def test_priorities_on_their_way_arrive_before_anything_looks_at_the_replay() -> None:
    config = config_of("spr")
    agent: Any = Agent(config, SPEC, 1, seed=3, feed="staged")
    played = rollouts(SPEC, 6)
    run(agent, played[:5], updates=1)
    for look in (lambda: agent.observe([played[5]]), agent.state_dict, agent.update):
        if agent.launches.feed._waiting is None:
            agent.update()
        kept = agent.replay._core.priorities().copy()
        index = agent.launches.feed._waiting
        look()
        changed = agent.replay._core.priorities().reshape(-1)[index % 50] != kept.reshape(-1)[index % 50]
        assert changed.any()


def test_a_loss_that_is_not_finite_ends_the_run_before_the_next_step_and_before_a_checkpoint() -> None:
    for then in ("update", "state_dict"):
        agent: Any = Agent(config_of("spr"), SPEC, 1, seed=3, feed="staged")
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


@pytest.mark.parametrize("name", ["der", "spr"])
def test_precisions_are_compared_by_what_the_learner_does(name: str) -> None:
    """`rlplatform bench bf16` on a GPU takes a learner that is given its batches: the ordinary one's losses and gradients, from the
    state and the batch of any other."""
    agent = Agent(config_of(name), SPEC, 1, seed=3)
    run(agent, rollouts(SPEC, 6))
    batch, other = (agent.replay.sample(4, 2, 0.9, agent.config.spr_steps) for _ in range(2))
    first, second = bf16.gradient(agent, "float32", batch), bf16.gradient(agent, "float32", batch, feed="staged")
    assert torch.equal(first.td, second.td)
    assert first.spr == second.spr
    assert first.grad.keys() == second.grad.keys()
    assert all(torch.equal(grad, second.grad[part]) for part, grad in first.grad.items())
    assert sum(float(grad.norm()) for grad in first.grad.values()) > 0.01
    row = bf16.compare(agent, batch, other, "bfloat16")
    assert 0.9 < row["cosine"] < 1.0
    assert 0.0 < row["td_error"] < 0.1
    assert bf16.compare(agent, batch, other, "tf32")["cosine"] == pytest.approx(
        1.0, abs=1e-12
    )  # a CPU takes it exactly


# -- acting -------------------------------------------------------------------------------------------------------------


def test_a_policy_whose_weights_move_copies_them_and_one_whose_weights_stay_does_not() -> None:
    config = config_of("spr")
    agents = [Agent(config, SPEC, 1, seed=seed) for seed in range(3)]
    subject: Any = Policy(config, SPEC, evaluation=False, graphed=True)
    obs = np.random.default_rng(0).integers(0, 256, (40, 2, 8, 7)).astype(np.uint8)

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
    for agent, actions in zip(agents, expected, strict=True):  # nothing was written into live weights
        assert acts(Policy(config, SPEC, evaluation=False), agent) == actions
    assert acts(subject, agents[0]) == expected[0]


def test_each_number_of_environments_has_a_graph_of_its_own() -> None:
    agent = Agent(config_of("der"), SPEC, 1, seed=0, feed="staged")
    plain = Agent(config_of("der"), SPEC, 1, seed=0)
    for evaluation in (False, True):
        policies: list[Any] = [a.eval_policy() if evaluation else a.policy() for a in (agent, plain)]
        for n in (3, 1, 3, 5):
            obs = np.random.default_rng(n).integers(0, 256, (n, 2, 8, 7)).astype(np.uint8)
            for policy, a in zip(policies, (agent, plain), strict=True):
                policy.load({**a.weights(), "epsilon": 0.0})
            first, second = (policy.act(obs, Stream(n, "actor"))[0] for policy in policies)
            np.testing.assert_array_equal(first, second)
        assert sorted(policies[0]._calls) == [1, 3, 5]


# -- several steps in one launch ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["der", "bbf"])
def test_several_steps_are_one_launch_where_the_replay_is_on_the_device(name: str) -> None:
    """The learner asks for 8 steps a round at a replay ratio of 2: launches of 3, 3 and 2, with n, gamma and priorities of each."""
    config, played = config_of(name, replay_ratio=2.0), rollouts(SPEC, 12)
    host, device = Agent(config, SPEC, 1, seed=3), Agent(config, SPEC, 1, seed=3, feed="resident")
    any_device: Any = device
    assert (host.steps_per_launch, device.steps_per_launch) == (1, 16)
    any_device.launches.feed.launch, launches, launch = 3, [], any_device.launches.launch
    any_device.launches.launch = lambda steps: (launches.append(steps), launch(steps))
    learners = [Learner(agent, config.replay_ratio) for agent in (host, device)]
    for rollout in played:
        first, second = (learner.learn([rollout]) for learner in learners)
        assert {k: float(v) for k, v in first.items()} == {k: float(v) for k, v in second.items()}
    assert launches == [3, 3, 2] * 9
    assert_same_state(host.state_dict(), device.state_dict())
    np.testing.assert_array_equal(priorities(host.replay), priorities(device.replay))
    assert int(any_device.launches.horizon.cycle) == device.state_dict()["cycle"]
    assert set(any_device.launches._graphs) == {2, 3}


def test_a_loss_that_is_not_finite_is_not_saved_where_the_replay_is_on_the_device() -> None:
    agent: Any = Agent(config_of("spr"), SPEC, 1, seed=3, feed="resident")
    run(agent, rollouts(SPEC, 5))
    with torch.no_grad():
        agent.online.head.mu.fill_(torch.nan)
    agent.update()
    with pytest.raises(ValueError, match="a priority must be"):
        agent.state_dict()


# -- on a GPU -----------------------------------------------------------------------------------------------------------


@needs_build
@needs_gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", PRESETS)
def test_on_a_gpu_it_learns_what_the_cpu_learns(name: str, dtype: str) -> None:
    """The same draws, the same losses to the rounding of the dtype over nine steps of which the last six are the graph's. (Over
    many more, a priority's rounding would one day move a draw.)"""
    config, played = config_of(name, dtype), rollouts(SPEC, 6)
    cpu, gpu = Agent(config, SPEC, 1, seed=3), Agent(config, SPEC, 1, seed=3, device="cuda")
    close = 2e-2 if dtype == "bfloat16" else 1e-3
    for rollout in played:
        for agent in (cpu, gpu):
            agent.observe([rollout])
        for _ in range(3 if cpu.ready else 0):
            first, second = ({key: float(value) for key, value in agent.update().items()} for agent in (cpu, gpu))
            for key, value in first.items():
                assert second[key] == pytest.approx(value, rel=close, abs=close), key
    any_gpu: Any = gpu
    assert any_gpu.launches._graphs[1].captured
    assert isinstance(gpu.replay, DeviceReplay) == (name != "bbf_release")
    assert cpu.state_dict()["noise"] == gpu.state_dict()["noise"]
    assert cpu.state_dict()["augment"] == gpu.state_dict()["augment"]


@needs_build
@needs_gpu
@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize(
    "name", ["der", "drq_eps", "spr", "sr_spr"]
)  # the maximum's gradient of Impala adds in any order
def test_replays_are_the_eager_steps_to_the_bit(name: str, feed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    config, played = config_of(name), rollouts(SPEC, 12)
    graphs, eager = (Agent(config, SPEC, 1, seed=3, device="cuda", feed=feed) for _ in range(2))
    launches: Any = eager.launches

    def step() -> None:
        with products(tf32=False):
            launches.step()

    launches._graph_of = lambda _steps: step
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
        agent.launches.step()  # raises where anything waits
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(value).all() for value in agent.launches.metrics.values())


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
    obs = np.random.default_rng(0).integers(0, 256, (64, 2, 8, 7)).astype(np.uint8)
    acted = []
    for agent in (cpu, gpu):
        policy = agent.eval_policy()
        policy.load(agent.weights())
        acted.append(policy.act(obs, Stream(0, "eval"))[0])
    assert (acted[0] == acted[1]).mean() > 0.9  # ties within rounding aside


# -- the benchmark ------------------------------------------------------------------------------------------------------


def test_the_bench_measures_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, where a graph is a plain call: every column is there and holds together. Nothing is asked of the times."""
    monkeypatch.setattr(learner_gpu, "STORED", 300)
    monkeypatch.setattr(learner_gpu, "WINDOW_S", 0.0)
    row = learner_gpu.measure(
        "der", "float32", "cpu", 3, 1, side=32, hidden=8, batch=2, replay_ratio=2.0, min_replay=20
    )
    assert row["steps_per_s"] == pytest.approx(1e3 / row["step_ms"])
    assert row["tflop_per_s"] == pytest.approx(row["tflop"] * row["steps_per_s"])
    assert row["bare_share"] == pytest.approx(row["bare_ms"] / row["step_ms"])
    # Products and sums of the three convolutions for an image; forward for 6 images, backward for 2, whose pixels need none. The
    # dense layers of 8 units are 1 % of that.
    conv1, conv2, conv3 = 21 * 21 * 32 * 4 * 64, 11 * 11 * 64 * 32 * 16, 11 * 11 * 64 * 64 * 9
    convolutions = 2e-12 * (6 * (conv1 + conv2 + conv3) + 2 * (conv1 + 2 * conv2 + 2 * conv3))
    assert convolutions < row["tflop"] < 1.03 * convolutions
    assert (row["target_ms"], row["published_ms"]) == (None, None)
    rows = [{**row, "preset": "bbf", "round_ms": ms, "gaps": 0.25} for ms in (5.0, 4.6, 6.5)]
    text = learner_gpu.beside(rows).splitlines()
    assert text[0] == "bbf float32: 5.00 ms a step with acting, to reach 6.0 ms: reached"
    assert text[1] == "bbf float32: 5.00 ms a step with acting, to reach 4.6 ms: not reached"
    assert text[2] == "bbf float32: 9.2 times the published 46.0 ms"
    assert text[3] == "bbf float32: 25 % of a step is gaps between kernels"
    assert [line.rpartition(": ")[2] for line in text[4:6] + text[8:10]] == [
        "reached",
        "reached",
        "not reached",
        "not reached",
    ]
