"""Looking into agents while they learn: what is looked at, that it changes nothing, and that a resumed run sees the same."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from rlplatform import statefile
from rlplatform.agents import sac
from rlplatform.config import ConfigError
from rlplatform.evaluation import figures
from rlplatform.evaluation.analysis import analyse
from rlplatform.evaluation.bench import plasticity as bench
from rlplatform.evaluation.document import write_report
from rlplatform.evaluation.groups import gather
from rlplatform.evaluation.plasticity import MEASURES
from rlplatform.experiment import Stopped, run
from rlplatform.inspection import Inspection
from rlplatform.learner import Learner
from rlplatform.plasticity_config import PlasticityConfig
from rlplatform.runconfig import require_probe, resolve_config
from rlplatform.techniques import plasticity
from rlplatform.techniques.plasticity import Probe
from rlplatform.types import Rollout, Spec, empty_episodes
from run_files import make_run
from test_same_run import assert_same_run

SPEC = Spec((2,), "float32", stack=2, actions=3)


def rollout(frame, first, first_env=0):
    """[T, N, 2] frames; only what an inspection reads."""
    t, n = first.shape
    zero = np.zeros((t, n), bool)
    none = np.zeros((0, 2))
    return Rollout(frame, first, np.zeros((t, n), np.int64), np.zeros((t, n), np.float32), zero, zero, none, none, {}, empty_episodes(), first_env, 0)  # fmt: skip


class Toy:
    """Its two layers are known by heart; a gradient step moves the head's bias."""

    spec = SPEC
    ready = True
    replay = None

    def __init__(self):
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 3))
        with torch.no_grad():
            self.net[1].weight.copy_(torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.001])))
            self.net[3].weight.zero_()
            self.net[3].bias.copy_(torch.tensor([0.0, 0.1, 0.0]))
        self.steps = 0

    def probe(self):
        def forward(obs):
            q = self.net(obs)
            return q, q[:, 0]

        return Probe(self.net, forward)

    def observe(self, rollouts):
        pass

    def update(self):
        self.steps += 1
        for p in self.net.parameters():
            p.grad = torch.full_like(p, 0.5)
        with torch.no_grad():
            self.net[3].bias[0] += 1.0
        return {}


def some(t=8, n=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 1.0, (t, n, 2)).astype(np.float32), rng.random((t, n)) < 0.3


def stacked(frame, first):
    """[T, N, stack, 2], by the definition: the frame before, 0 where the episode began."""
    older = np.concatenate([np.zeros_like(frame[:1]), frame[:-1]])
    older[first] = 0
    return np.stack([older, frame], 2)


def test_observations_are_every_so_manieth_of_those_acted_on():
    """Two actors of three and two environments; 12 observations for 48 steps, so every fourth, the newest 12."""
    (one, first), (two, second) = some(40, 3), some(40, 2, seed=1)
    first[0], second[0] = True, True
    inspection = Inspection(Toy(), PlasticityConfig(every=48, observations=12, gradients=2), envs=5)
    for t in range(0, 40, 4):  # ten rounds of 4 steps
        rows = slice(t, t + 4)
        inspection.observe([rollout(one[rows], first[rows]), rollout(two[rows], second[rows], 3)], steps=5 * t)
    everything = np.concatenate([stacked(one, first), stacked(two, second)], 1).reshape(200, 2, 2)  # in order of steps
    kept = everything[0::4]  # of 50, the last 12: numbers 38 to 49, at their number modulo 12
    expected = np.stack([kept[38:][(i - 38) % 12] for i in range(12)])
    np.testing.assert_array_equal(inspection._observations(), expected)


def test_a_restored_one_stacks_on_what_came_before():
    frame, first = some(12, 3)
    first[0] = True
    first[6:8] = False  # the stack goes on from frames of before
    config = PlasticityConfig(every=1, observations=36, gradients=0)
    whole, begun, restored = (Inspection(Toy(), config, envs=3) for _ in range(3))
    whole.observe([rollout(frame, first)], 0)
    begun.observe([rollout(frame[:7], first[:7])], 0)
    restored.load_state_dict(begun.state_dict())
    restored.observe([rollout(frame[7:], first[7:])], 21)
    np.testing.assert_array_equal(restored._observations(), whole._observations())
    np.testing.assert_array_equal(whole._observations(), stacked(frame, first).reshape(36, 2, 2))


def test_what_is_logged_is_what_the_measures_say():
    agent = Toy()
    learner = Learner(agent, 0.5)
    inspection = learner.inspector = Inspection(agent, PlasticityConfig(every=10, observations=20, gradients=4), envs=2)
    frame, first = some(8, 2)
    learner.learn([rollout(frame, first)])  # 16 steps: 8 gradient steps, which move the greedy action from 1 to 0
    found, obs = inspection.found, inspection._observations()
    assert len(obs) == found["plasticity/observations"] == 16
    hidden = torch.relu(obs.flatten(1) * torch.tensor([1.0, 1.0, 0.0, 0.001]))
    values = plasticity.singular_values(hidden)
    assert found["plasticity/updates"] == agent.steps == 8
    assert found["plasticity/dormant"] == found["plasticity/dormant/1"] == 0.5
    assert found["plasticity/dead"] == 0.25
    assert found["plasticity/policy_churn"] == 1.0
    assert found["plasticity/srank"] == plasticity.srank(values)
    assert found["plasticity/approximate_rank"] == plasticity.approximate_rank(values)
    assert found["plasticity/feature_rank"] == plasticity.feature_rank(values, 16)
    assert found["plasticity/effective_rank"] == pytest.approx(plasticity.effective_rank(values), rel=1e-9)
    assert found["plasticity/feature_norm"] == pytest.approx(float(hidden.norm(dim=1).mean()), rel=1e-6)
    assert found["plasticity/gradient_norm"] == pytest.approx(0.5 * (16 + 12 + 3) ** 0.5)
    assert found["plasticity/weight_norm"] == pytest.approx((2 + 1e-6 + 64 + 0.01) ** 0.5, rel=1e-6)
    # Of q[:, 0] by its own row (hidden) and bias (1); nothing reaches the hidden layer through a head of zeros.
    rows = torch.cat([hidden[:4], torch.ones(4, 1)], 1)
    expected = plasticity.collinearity(plasticity.gradient_covariance(rows))
    assert found["plasticity/gradient_collinearity"] == pytest.approx(expected, rel=1e-6)


def test_it_looks_at_the_first_gradient_steps_and_then_every_so_many():
    agent = Toy()
    learner = Learner(agent, 0.25)
    inspection = learner.inspector = Inspection(agent, PlasticityConfig(every=10, observations=4, gradients=0), envs=1)
    looks = []
    for _ in range(18):
        learner.learn([rollout(*some(2, 1))])  # a gradient step every second round
        if inspection.found:
            assert "plasticity/gradient_collinearity" not in inspection.found
            assert inspection.found["plasticity/updates"] == 1
            looks.append(learner.steps)
            inspection.found = {}
    assert looks == [4, 12, 20, 32]  # 4: the first one; at 10 and 30 nothing was learned


def test_continuous_actions_shift():
    class Continuous(Toy):
        spec = Spec((2,), "float32", stack=2, actions=0, action_shape=(3,))

    agent = Continuous()
    learner = Learner(agent, 1.0)
    inspection = learner.inspector = Inspection(agent, PlasticityConfig(every=1, observations=4, gradients=0), envs=1)
    learner.learn([rollout(*some(2, 1))])
    assert inspection.found["plasticity/policy_shift"] == pytest.approx(2.0 / 3**0.5)  # two steps of 1 in one of three
    assert "plasticity/policy_churn" not in inspection.found


SIZES = {
    "c51": ["agent.min_replay=30"],
    "spr": ["agent.min_replay=30", "agent.encoder=flatten", "agent.spr_steps=0", "agent.augment=false", "agent.hidden=16", "agent.dtype=bfloat16"],
    "mrq": ["agent.min_replay=30", "agent.batch=16", "agent.target_period=10", "agent.hidden=16"],
    "sac": ["agent.min_replay=30", "agent.batch=16", "agent.hidden=16"],
    "ppo": ["envs=2", "rollout=5", "agent.batch=5", "agent.hidden=16", "agent.epochs=2"],
    "pqn": ["envs=2", "rollout=5", "agent.batch=5", "agent.hidden=16"],
}  # fmt: skip


CONTINUOUS = ("sac", "ppo")


def trained(folder, preset, *overrides):
    task = "control/Pendulum" if preset in CONTINUOUS else "catch"
    shown = ["log_every=30", "eval.episodes=2", *SIZES[preset], *overrides]
    run(resolve_config(preset, task, shown, seed=4, steps=90), folder)
    state = statefile.read(max((folder / "checkpoints").glob("step_*")))["state"]
    return state, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def leaves(state, prefix=""):
    if isinstance(state, dict):
        return {k: v for name, value in state.items() for k, v in leaves(value, f"{prefix}/{name}").items()}
    return {prefix: state}


@pytest.mark.parametrize("preset", SIZES)
def test_a_run_is_the_same_run_with_it(tmp_path, preset):
    off, _ = trained(tmp_path / "off", preset)
    on, lines = trained(tmp_path / "on", preset, "plasticity.every=20", "plasticity.observations=16")
    ours, theirs = leaves(off["learner"]), leaves(on["learner"])
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(theirs[name]), err_msg=name)
    assert "plasticity" not in off
    looks = [line for line in lines if "plasticity/dormant" in line]
    # At the first gradient step, that of step 10 where there is no replay to fill, otherwise after 20; then at 40, 60 and 80.
    assert len(looks) == (5 if preset in ("ppo", "pqn") else 4)
    wanted = set(MEASURES) - {"plasticity/policy_churn" if preset in CONTINUOUS else "plasticity/policy_shift"}
    assert wanted <= set(looks[-1])
    assert all(np.isfinite(list(line.values())).all() for line in looks)
    assert looks[-1]["plasticity/gradient_norm"] > 0
    seconds = json.loads((tmp_path / "on" / "result.json").read_text())["seconds"]
    assert 0.0 < seconds["inspect"] < seconds["update"] + 60.0


def test_a_stopped_run_sees_the_same(tmp_path):
    shown = [
        "log_every=20", "eval.episodes=2", "agent.min_replay=20", "agent.hidden=8", "actors=2", "plasticity.every=10",
        "plasticity.observations=12", "plasticity.gradients=2",
    ]  # fmt: skip
    config = resolve_config("der", "catch", shown, seed=3, steps=80)
    run(config, tmp_path / "whole")
    for rounds in (12, 9):  # each call to a saved end, then on from there
        asked = iter([False] * rounds)
        with pytest.raises(Stopped):
            run(config, tmp_path / "stopped", should_stop=lambda asked=asked: next(asked, True))
    run(config, tmp_path / "stopped")
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    assert (tmp_path / "whole" / "metrics.jsonl").read_text().count("plasticity/srank") == 7


def test_an_agent_that_cannot_be_looked_into_is_refused():
    config = resolve_config("toy", "catch", agent_class="test_inspection:Blind", plasticity={"every": 5})
    with pytest.raises(ConfigError, match=r"test_inspection:Blind has no probe\(\)"):
        require_probe(config)
    require_probe(resolve_config("toy", "catch", agent_class="test_inspection:Blind"))


class Blind:
    config_class = sac.Config


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"every": -1}, "plasticity.every"), ({"observations": 1}, "observations >= 2"), ({"tau": 1.0}, "tau must lie"),
        ({"tau": float("nan")}, "tau must lie"), ({"gradients": 1}, "gradients"), ({"gradients": 300}, "gradients"),
    ],
)  # fmt: skip
def test_a_configuration_out_of_range_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        PlasticityConfig(**wrong)


def test_torch_is_not_needed_to_read_a_configuration():
    code = "import sys, rlplatform.runconfig; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_the_bench_gives_a_look_s_share_of_learning():
    row = bench.measure("c51=minatar/Breakout", every=1_000, rounds=1)
    assert row["parameters"] > 100_000
    base = 1_000 * row["replay_ratio"] * row["update_ms"]
    assert row["share"] == pytest.approx((row["look_ms"] + row["keep_us"]) / base)
    assert row["look_ms"] > 0 < row["keep_us"]


@pytest.fixture
def logged(tmp_path):
    """Three runs that logged two measures, one that logged none, one that logged once."""
    for seed in (1, 2, 3, 4, 5):
        folder = make_run(tmp_path / "runs" / f"seed_{seed}", seed=seed, mean=-15.0 + seed)
        with (folder / "metrics.jsonl").open("a") as file:
            for step in range(0, 100_001, 1_000) if seed < 4 else [0] if seed == 5 else []:
                file.write(
                    json.dumps({"step": step, "plasticity/dormant": step / 1e5 * seed, "plasticity/srank": 10.0}) + "\n"
                )
    return tmp_path / "runs"


@pytest.mark.parametrize("width", [figures.WIDE, figures.NARROW])
def test_a_report_shows_what_runs_logged(logged, width):
    an = analyse(gather([logged], ["spr"]), reps=50)
    shows, draw = figures.figures(an)["plasticity"]
    assert shows == "Plasticity of the networks over training"
    fig = draw(an, width)
    dormant, srank = (panel for panel in fig.axes if panel.get_visible())
    assert (dormant.get_title(loc="left"), srank.get_title(loc="left")) == ("dormant units", "srank")
    *runs, mean = dormant.lines
    assert len(runs) == 3
    for seed, line in enumerate(runs, start=1):
        np.testing.assert_allclose(line.get_ydata(), seed * line.get_xdata() / 1e5, rtol=1e-12)
    np.testing.assert_allclose(mean.get_ydata(), 2 * mean.get_xdata() / 1e5, rtol=1e-12)
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["der (ours)"]


def test_the_page_has_it_and_other_pages_do_not(logged, tmp_path):
    write_report(analyse(gather([logged]), reps=50), tmp_path / "out")
    assert (tmp_path / "out" / "figures" / "plasticity.png").stat().st_size > 5_000
    assert 'id="plasticity"' in (tmp_path / "out" / "report.html").read_text()
    make_run(tmp_path / "bare" / "one", seed=1)
    make_run(tmp_path / "bare" / "two", seed=2)
    assert "plasticity" not in figures.figures(analyse(gather([tmp_path / "bare"]), reps=50))
