"""Runs whose environments are tensors: on the CPU they are the runs on arrays, bit for bit, from the first action to the score."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from gpu import needs_build, needs_gpu
from rlplatform import cli
from rlplatform.agents.spr import Agent
from rlplatform.agents.spr_policy import DevicePolicy, Policy
from rlplatform.config import ConfigError
from rlplatform.device import CPU
from rlplatform.device_streams import DeviceStream
from rlplatform.envs import ON_DEVICE
from rlplatform.experiment import Stopped, estimate, run
from rlplatform.placement import Placement
from rlplatform.runconfig import RunConfig, resolve_config
from rlplatform.rundir import read_checkpoint
from rlplatform.streams import Stream
from rlplatform.types import Spec
from test_device_learner import config_of
from test_same_run import assert_same_run

DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[needs_gpu, needs_build])])
SPEC = Spec((8, 7), "uint8", 2, actions=3)

# -- acting ---------------------------------------------------------------------------------------------------------------


def observations(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 2, 8, 7)).astype(np.uint8)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["der", "c51", "bbf"])
def test_actions_and_draws_on_tensors_are_those_on_arrays(name: str, epsilon: float) -> None:
    """With noisy layers and without; where some explore, where none do, and where all do, so that no noise is drawn."""
    config = config_of(name, encoder="flatten" if name == "c51" else config_of(name).encoder)
    weights = Agent(config, SPEC, 1, seed=3).weights()
    host, device = Policy(config, SPEC, evaluation=False), DevicePolicy(config, SPEC, CPU)
    stream = Stream(5, "actor")
    twin = DeviceStream(stream, CPU)
    for n in (1, 2, 1, 7):  # at n = 2 all explore now and then
        for turn in range(6):
            obs = observations(n, turn)
            for policy in (host, device):
                policy.load({**weights, "epsilon": epsilon})
            expected, found = host.act(obs, stream)[0], device.act(torch.from_numpy(obs), twin)[0]
            assert found.dtype == torch.int64
            np.testing.assert_array_equal(found, expected)
            assert twin.state_dict() == stream.state_dict()


@DEVICES
def test_an_action_is_the_callers_and_nothing_waits(device: str) -> None:
    config = config_of("der")
    policy: Any = DevicePolicy(config, SPEC, torch.device(device))
    policy.load(Agent(config, SPEC, 1, seed=3).weights())
    stream, obs = DeviceStream(Stream(5, "actor"), device), torch.from_numpy(observations(3, 0)).to(device)
    kept = [policy.act(obs, stream)[0] for _ in range(5)]
    copies = [action.clone() for action in kept]
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        policy.act(obs, stream)
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))
    assert len({action.data_ptr() for action in kept}) == 5
    assert len(policy._calls) == 1
    other = DeviceStream(Stream(6, "actor"), device)  # another stream is not drawn from by the first one's graph
    before = stream.state_dict()
    policy.act(obs, other)
    assert stream.state_dict() == before
    assert len(policy._calls) == 2


@DEVICES
def test_weights_that_move_are_copied_and_those_that_stay_are_seen(device: str) -> None:
    config = config_of("spr")
    agents = [Agent(config, SPEC, 1, seed=seed) for seed in range(3)]
    policy = DevicePolicy(config, SPEC, torch.device(device))
    obs = observations(40, 0)

    def acts(policy: Any, agent: Agent, on: str) -> list[int]:
        policy.load({**agent.weights(), "epsilon": 0.0})
        stream, there = Stream(0, "actor"), torch.from_numpy(obs).to(device)
        found = policy.act(obs, stream)[0] if on == "host" else policy.act(there, twin)[0]
        actions: list[int] = found.tolist()
        return actions

    twin = DeviceStream(Stream(0, "actor"), device)
    at = twin.state_dict()
    for agent in (agents[0], agents[1], agents[2], agents[0]):
        twin.load_state_dict(at)
        ours, theirs = acts(policy, agent, "device"), acts(Policy(config, SPEC, evaluation=False), agent, "host")
        assert np.mean(np.array(ours) == theirs) >= (1.0 if device == "cpu" else 0.9)  # ties within rounding aside


# -- whole runs -------------------------------------------------------------------------------------------------------------


def small(backend: str, task: str = "catch", **fields: Any) -> RunConfig:
    agent = {"hidden": 16, "min_replay": 60, "capacity": 400, "target_period": 50, "epsilon_decay": 300, "batch": 8}
    given = {"steps": 420, "envs": 3, "log_every": 100, "checkpoint_every": 200, "seed": 2, **fields}
    return resolve_config(
        "c51", task, backend=backend, agent=agent, eval={"episodes": 3, "lanes": 2, "every": 210}, **given
    )


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        ("catch", {}),
        ("catch", {"rollout": 2, "lag": 1, "actors": 2}),  # acts with snapshots, whose addresses change
        ("minatar/Breakout", {}),
        ("control/CartPole", {"rollout": 4}),
    ],
)
def test_a_run_on_tensors_is_the_run_on_arrays(task: str, fields: dict[str, Any], tmp_path: Path) -> None:
    for backend in ("exact", ON_DEVICE):
        result = run(small(backend, task, **fields), tmp_path / backend)
    assert_same_run(tmp_path / ON_DEVICE, tmp_path / "exact", differ=("config.yaml",))
    assert result["updates"] > 70
    assert len((tmp_path / "exact" / "episodes.csv").read_text().splitlines()) > 10


def test_a_run_that_was_stopped_goes_on_with_what_was_under_way(tmp_path: Path) -> None:
    config = small(ON_DEVICE, lag=1)
    run(config, tmp_path / "whole")
    turns = iter(range(10_000))
    with pytest.raises(Stopped):
        run(config, tmp_path / "cut", should_stop=lambda: next(turns) == 50)
    (kept,) = read_checkpoint(tmp_path / "cut")["under_way"][0]
    assert isinstance(kept["frame"], np.ndarray)  # a tensor would be on no device in particular when it is read
    assert isinstance(kept["final_at"], np.ndarray)
    run(config, tmp_path / "cut")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_it_is_estimated_as_it_would_run() -> None:
    found = estimate(small(ON_DEVICE))
    assert found.replay_bytes is not None
    assert found.replay_bytes > 400 * 50
    assert found.step_s > 0
    assert found.update_s > 0


# -- what cannot be had is refused before anything is written -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "task", "fields", "message"),
    [
        ("der", "atari/Pong", {}, "plays on the CPU alone; on a device there are catch, control, minatar"),
        ("sac", "control/Pendulum", {}, "agents.sac:Agent acts on environments on the host alone"),
        ("c51", "catch", {"agent": {"release": {"n_step": True}}}, "those batches are made on the host"),
        ("c51", "catch", {"device": "cuda:77"}, "device=cuda:77 cannot be had here"),
    ],
)
def test_what_has_no_form_on_a_device_is_refused(
    preset: str, task: str, fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        run(resolve_config(preset, task, backend=ON_DEVICE, **fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ray_has_no_such_environments(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="in the learner's process, not on Ray"):
        run(small(ON_DEVICE), tmp_path / "run", placement=Placement(ray="local"))
    assert not (tmp_path / "run").exists()


# -- evaluation on a device ---------------------------------------------------------------------------------------------------


def test_evaluate_takes_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(ON_DEVICE)
    run(dataclasses.replace(config, steps=90), tmp_path / "run")
    made: list[Any] = []
    load = cli.load_policy
    monkeypatch.setattr(cli, "load_policy", lambda folder, device: made.append(device) or load(folder, device))
    command = ["evaluate", str(tmp_path / "run"), "--episodes", "2", "--json"]
    asked = [CliRunner().invoke(cli.app, [*command, *device]) for device in ((), ("--device", "cpu"))]
    assert [one.exit_code for one in asked] == [0, 0], asked[0].output
    assert asked[0].output == asked[1].output
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused = CliRunner().invoke(cli.app, [*command, "--device", "cuda"])
    assert refused.exit_code != 0
    assert "device=cuda cannot be had here" in refused.output
    assert made == ["cpu", "cpu", "cuda"]


@needs_gpu
@needs_build
def test_a_gpus_run_is_scored_alike_on_both(tmp_path: Path) -> None:
    """A learned policy catches nearly every ball, wherever it acts; the run's own evaluation acted on the GPU."""
    fields = {"steps": 4_000, "envs": 8, "agent": {"min_replay": 200, "capacity": 4_000}}
    result = run(
        resolve_config("c51", "catch", backend=ON_DEVICE, device="cuda", eval={"episodes": 50}, **fields),
        tmp_path / "run",
    )
    scores = [result["mean"]]
    for device in ("cpu", "cuda"):
        command = ["evaluate", str(tmp_path / "run"), "--episodes", "50", "--device", device, "--json"]
        said = CliRunner().invoke(cli.app, command)
        assert said.exit_code == 0, said.output
        scores.append(float(said.output.split('"mean": ')[1].split(",")[0]))
    assert min(scores) > 0.9  # of at most 1, which the same run on the CPU reaches
