"""SIGReg and gradual pruning in every agent: off they leave no trace, on they do what they say, and a saved agent goes on."""

from typing import Any, NamedTuple

import pytest
import torch

from going_on import assert_goes_on
from rlplatform import config as configs
from rlplatform.actor import Actor
from rlplatform.agents import mrq, mrq_multitask, ppo, pqn, sac, spr
from rlplatform.agents.mrq_config import Config as MrqConfig
from rlplatform.agents.ppo_config import Config as PpoConfig
from rlplatform.agents.spr_config import Config as SprConfig
from rlplatform.envs import MultitaskProtocol, Suite, make, register
from rlplatform.envs.multitask import make_multitask
from rlplatform.learner import Learner
from rlplatform.streams import Stream
from rlplatform.techniques.sigreg import SigReg

SMALL = {"hidden": 16, "batch": 8, "capacity": 500, "min_replay": 20}
SPR = {**SMALL, "encoder": "flatten", "atoms": 5, "n": 3, "target_period": 7}
ROUND = {"encoder": "flatten", "hidden": 16, "layers": 2, "batch": 8, "epochs": 4}
RESET = {"every": 30, "until": 1_000, "fresh": ["head"], "shrink": 0.5, "perturb": 0.5}


class Kind(NamedTuple):
    agent: Any
    config: Any
    given: dict[str, Any]
    task: str = "catch"
    steps: int = 1  # of a round


KINDS = {
    "der": Kind(spr.Agent, SprConfig, {**SPR, "sigma0": 0.1}),
    "spr": Kind(spr.Agent, SprConfig, {**SPR, "encoder": "nature", "spr_steps": 2, "renormalize": True}),
    "bbf": Kind(
        spr.Agent, SprConfig, {**SPR, "sigma0": 0.0, "target_tau": 0.1, "act_with_target": True, "dtype": "bfloat16", "reset": RESET}
    ),
    "sac": Kind(sac.Agent, sac.Config, {**SMALL, "reset": {**RESET, "fresh": ["critic"]}}, "control/Pendulum"),
    "mrq": Kind(mrq.Agent, MrqConfig, {**SMALL, "action_embedding": 8, "target_period": 10}),
    "mrq_multitask": Kind(
        mrq_multitask.Agent, mrq_multitask.Config,
        {**SMALL, "observation": 3, "task_embedding": 6, "encoder_hidden": 8, "latent": 16, "action_embedding": 4, "bins": 21, "critics": 3, "horizon": 3, "replay_ratio": 1.0},
        "lonely/Pendulum",
    ),
    "ppo": Kind(ppo.Agent, PpoConfig, ROUND, steps=8),
    "ppo_apart": Kind(ppo.Agent, PpoConfig, {**ROUND, "shared": False}, "control/Pendulum", steps=8),
    "pqn": Kind(pqn.Agent, pqn.Config, ROUND, steps=8),
}  # fmt: skip
PRUNED = {"sparsity": 0.7, "begin": 5, "end": 40, "every": 6}


@pytest.fixture(scope="module", autouse=True)
def _a_suite_of_one_task():
    def factory(task, n, seed, first_env, protocol):
        return make_multitask(task, n, seed, first_env, protocol)

    protocol = MultitaskProtocol(("control/Pendulum",), observation=3, actions=1)
    register("lonely", factory, Suite("lonely", ("lonely/Pendulum",), 100, protocol=protocol))


def config_of(kind, **techniques):
    return configs.merge(KINDS[kind].config(), {**KINDS[kind].given, **techniques})


def played(kind, updates=60, n=1, **techniques):
    """(agent, the metrics of the last gradient step of each round), on n environments."""
    agent_class, _, _, task, steps = KINDS[kind]
    config, envs = config_of(kind, **techniques), make(task, n, 5)
    agent = agent_class(config, envs.spec, n, seed=5)
    actor, learner, seen = Actor(agent.policy(), envs, Stream(5, "actor")), Learner(agent, config.replay_ratio), []
    while learner.updates < updates:
        seen.append(learner.learn([actor.collect(agent.weights(), learner.version, steps)]))
    return agent, [metrics for metrics in seen if metrics]


def pruned(agent):
    """(pruner, network, its target or None) of each part."""
    if isinstance(agent, spr.Agent):
        return [(agent._pruner, agent.master, agent.target_master)]
    if isinstance(agent, sac.Agent):
        return [
            (agent._pruners["critic"], agent.net.critic, agent.target),
            (agent._pruners["actor"], agent.net.actor, None),
        ]
    if isinstance(agent, mrq_multitask.Agent):
        return [
            (agent._pruners[part], getattr(agent.net, part), getattr(agent.target, part))
            for part in mrq_multitask.PARTS
        ]
    if isinstance(agent, mrq.Agent):
        return [(agent._pruners[part], getattr(agent.master, part), getattr(agent.target, part)) for part in mrq.PARTS]
    return [(agent._pruner, agent.net, None)]


def assert_same_networks(one, other):
    for part in ("online", "target") if "target" in one else ("online",):
        for name, value in one[part].items():
            assert torch.equal(value, other[part][name]), name


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_nothing_changes_no_bit(kind):
    """Off; a weight that is 0 in float32, while directions are drawn, from a stream of their own; masks of ones."""
    plain, said = played(kind, 30)
    assert not {"sigreg", "pruning", "pruning_critic"} & plain.state_dict().keys()
    assert not any("sigreg" in name or "sparsity" in name for name in said[-1])
    vanishing, seen = played(kind, 30, sigreg={"weight": 1e-46})
    assert seen[-1]["losses/sigreg"] > 0
    assert_same_networks(plain.state_dict(), vanishing.state_dict())
    early, seen = played(kind, 30, pruning={"sparsity": 0.9, "begin": 100_000, "end": 200_000})
    assert {value for name, value in seen[-1].items() if name.endswith("sparsity")} == {0.0}
    assert_same_networks(plain.state_dict(), early.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_brings_features_nearer_to_a_gaussian(kind):
    """Beside a run whose weight is 0, after 100 gradient steps on 64 of the states of 16 environments: below 0.77 of it (SAC, whose
    features are of four numbers), 0.65 (PPO with two networks), 0.53 (PQN), 0.34 and less (all others), measured."""
    given = {"learning_rate": 3e-3, "batch": 64}
    if "replay_ratio" in config_of(kind).__dataclass_fields__:
        given |= {"replay_ratio": 0.25, "min_replay": 200}
    if kind in ("bbf", "sac"):
        given |= {"reset": {"every": 0}}
    after = {}
    for weight in (1e-46, 20.0):
        _, said = played(kind, 100, 16, sigreg={"weight": weight, "directions": 64}, **given)
        last = [float(metrics["losses/sigreg"]) for metrics in said[-8:]]
        after[weight] = sum(last) / len(last)
    assert after[20.0] < 0.88 * after[1e-46]


LEAST = {"mrq": -1.0, "mrq_multitask": -0.31}  # that ELU and Mish give; ReLU: 0


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_on_features_before_their_activation(kind, monkeypatch):
    seen = []
    kept = SigReg.parts
    monkeypatch.setattr(
        SigReg, "parts", lambda self, *features: seen.extend(h.clone() for h in features) or kept(self, *features)
    )
    played(kind, 20, sigreg={"weight": 0.1})
    assert len(seen) == 20 * {"sac": 2, "mrq": 2, "mrq_multitask": 3, "ppo_apart": 2}.get(kind, 1)
    assert all(h.shape == (8, 16) for h in seen)
    assert torch.stack(seen).min() < LEAST.get(kind, 0.0)
    assert torch.stack(seen).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_become_sparse_and_targets_with_them(kind):
    calm = (
        {"reset": {"every": 0}} if kind in ("bbf", "sac") else {}
    )  # a reset would hide a target that nobody else prunes
    agent, said = played(kind, 80, pruning=PRUNED, **calm)
    for pruner, net, target in pruned(agent):
        assert pruner.updates >= 80
        zero = total = 0
        for name, parameter in net.named_parameters():
            if parameter.ndim == 1 or "sigma" in name:
                continue
            mask = pruner.masks[name]
            assert (parameter[mask == 0] == 0).all(), name
            zero, total = zero + int((mask == 0).sum()), total + mask.numel()
        assert zero / total == pytest.approx(0.7, abs=1e-3 + len(pruner.masks) / total)
        assert float(pruner.sparsity) == pytest.approx(zero / total)
        for name, parameter in [] if target is None else target.named_parameters():
            if name in pruner.masks:
                assert (parameter[pruner.masks[name] == 0] == 0).all(), name
    logged = [value for name, value in said[-1].items() if name.endswith("sparsity")]
    assert len(logged) == len(pruned(agent))
    assert all(value == pytest.approx(0.7, abs=0.05) for value in logged)


def test_masks_survive_resets():
    """Fresh and perturbed weights come where weights are, and the schedule goes on by all gradient steps."""
    for kind in ("bbf", "sac"):
        agent, _ = played(kind, 80, pruning={**PRUNED, "end": 400})
        before = {
            id(pruner): {name: mask.clone() for name, mask in pruner.masks.items()} for pruner, _, _ in pruned(agent)
        }
        agent._reset()
        for pruner, net, target in pruned(agent):
            assert pruner.updates >= 80
            for each in (net, target) if target is not None else (net,):
                for name, parameter in each.named_parameters():
                    if name in pruner.masks:
                        assert torch.equal(pruner.masks[name], before[id(pruner)][name])
                        assert (parameter[pruner.masks[name] == 0] == 0).all()
            fresh = dict(net.named_parameters())
            assert any((mask == 0).any() and (fresh[name][mask != 0] != 0).all() for name, mask in pruner.masks.items())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "spr"])
def test_a_saved_agent_goes_on_bit_for_bit_with_both(tmp_path, kind):
    config = config_of(kind, sigreg={"weight": 0.1}, pruning={**PRUNED, "end": 200})
    agent_class, _, _, task, steps = KINDS[kind]
    rounds = (30, 20) if steps == 1 else (6, 4)
    state = assert_goes_on(
        tmp_path, agent_class, config, task, config.replay_ratio, ("sigreg",), rollout=(steps, 1), rounds=rounds
    )
    names = [name for name in state if name.startswith("pruning")]
    assert names
    assert all(
        (~mask).any() for name in names for mask in [torch.cat([m.flatten() for m in state[name]["masks"].values()])]
    )


@pytest.mark.parametrize("feed", ["staged", "resident"])
@pytest.mark.parametrize("kind", ["der", "bbf"])
def test_a_gpus_code_gives_the_same_bits(kind, feed):
    """Launches of many gradient steps, which end where masks fall due."""
    states = []
    for given in ("", feed):
        config, envs = config_of(kind, sigreg={"weight": 0.1}, pruning=PRUNED, replay_ratio=5.0), make("catch", 1, 5)
        agent = spr.Agent(config, envs.spec, 1, 5, feed=given)
        actor, learner = Actor(agent.policy(), envs, Stream(5, "actor")), Learner(agent, 5.0)
        for _ in range(36):
            metrics = learner.learn([actor.collect({**agent.weights(), "epsilon": 1.0}, learner.version, 1)])
        states.append((agent.state_dict(), {name: float(value) for name, value in metrics.items()}))
    assert states[0][1] == states[1][1]
    assert states[0][1]["pruning/sparsity"] > 0.6
    assert_same_networks(states[0][0], states[1][0])
    assert states[0][0]["sigreg"] == states[1][0]["sigreg"]
