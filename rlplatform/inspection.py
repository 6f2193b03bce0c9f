"""Plasticity of any agent, logged in a run: `plasticity.every=1000` on the command line.

An agent takes part by one method, `probe()`, which says how its networks are evaluated. Everything else is here: observations from the
rollouts that pass by, and the measures of `techniques.plasticity` on them. Nothing is drawn from any stream and no weight, gradient,
buffer or optimiser is written to, so that a run computes the same with it and without. docs/techniques/plasticity.md has its cost.
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rlplatform.actor import FrameStack
from rlplatform.plasticity_config import PlasticityConfig
from rlplatform.techniques import plasticity
from rlplatform.techniques.activations import record
from rlplatform.techniques.plasticity import Probe
from rlplatform.types import Array, Rollout, Spec, State


class Probed(Protocol):
    """An agent that can be looked into."""

    spec: Spec

    def probe(self) -> Probe: ...


class Inspection:
    """Looks into an agent every so many agent steps, at the next gradient step."""

    def __init__(self, agent: Probed, config: PlasticityConfig, envs: int) -> None:
        """`envs` of the run, all actors together."""
        self._agent, self._config, self._envs = agent, config, envs
        spec = agent.spec
        self._stride = max(1, config.every // config.observations)  # so that those kept are of the last `every` steps
        self._obs: Array = np.zeros((config.observations, spec.stack, *spec.frame_shape), spec.frame_dtype)
        self._kept = 0  # observations ever kept; the newest are there
        self._stacks: dict[int, FrameStack] = {}  # by a rollout's first environment
        self._looked = -1  # agent steps at the last look; -1: there was none
        self._before: Tensor | None = None
        self.found: dict[str, float] = {}  # by the newest look; whoever logs it clears it

    def observe(self, rollouts: list[Rollout], steps: int) -> None:
        """Keep every so-manieth observation of these, which begin after `steps` agent steps of the run."""
        for rollout in rollouts:
            frames, firsts = (_on_host(x) for x in (rollout.frame, rollout.first))
            count = frames.shape[1]
            if rollout.first_env not in self._stacks:
                self._stacks[rollout.first_env] = FrameStack(count, self._agent.spec)
            stack = self._stacks[rollout.first_env]
            for t, (frame, first) in enumerate(zip(frames, firsts, strict=True)):
                obs = stack.push(frame, first)
                number = steps + t * self._envs + rollout.first_env
                for i in range(-number % self._stride, count, self._stride):
                    self._obs[(number + i) // self._stride % len(self._obs)] = obs[i]
                    self._kept += 1

    def due(self, steps: int) -> bool:
        """Whether to look at the gradient steps that come now; the first ones are always looked at."""
        every = self._config.every
        return self._kept > 1 and steps // every > self._looked // every

    def before(self) -> None:
        """Note the policy, before the gradient steps."""
        self._before = self._decisions()

    def after(self, steps: int, updates: int) -> None:
        """Measure, after so many gradient steps since `before`."""
        assert self._before is not None
        config, probe, obs = self._config, self._agent.probe(), self._observations()
        learned = probe.net if probe.learned is None else probe.learned
        layers, (after, _) = record(probe.net, probe.forward, obs, probe.outputs)
        features = [*layers.values()][-1].flatten(1)
        values = plasticity.singular_values(features)
        dormant = {name: plasticity.dormant(h, config.tau) for name, h in layers.items()}
        name, change = ("churn", plasticity.churn) if self._agent.spec.actions else ("shift", plasticity.shift)
        self.found = {
            "plasticity/dormant": plasticity.share(dormant.values()),
            "plasticity/dead": plasticity.share(map(plasticity.dead, layers.values())),
            "plasticity/effective_rank": plasticity.effective_rank(values),
            "plasticity/srank": plasticity.srank(values),
            "plasticity/feature_rank": plasticity.feature_rank(values, len(obs)),
            "plasticity/approximate_rank": plasticity.approximate_rank(values),
            "plasticity/feature_norm": plasticity.feature_norm(features),
            "plasticity/weight_norm": plasticity.norm(learned.parameters()),
            "plasticity/gradient_norm": plasticity.norm(p.grad for p in learned.parameters() if p.grad is not None),
            f"plasticity/policy_{name}": change(self._before, after),
            "plasticity/updates": updates,  # that churn or shift is over
            "plasticity/observations": len(obs),
            **{f"plasticity/dormant/{layer}": plasticity.share([mask]) for layer, mask in dormant.items()},
        }  # fmt: skip
        if config.gradients:
            gradients = plasticity.sample_gradients(probe.net, lambda x: probe.forward(x)[1], obs[: config.gradients])
            collinearity = plasticity.collinearity(plasticity.gradient_covariance(gradients))
            self.found["plasticity/gradient_collinearity"] = collinearity
        self._looked, self._before = steps, None

    @torch.no_grad()
    def _decisions(self) -> Tensor:
        return self._agent.probe().forward(self._observations())[0]

    def _observations(self) -> Tensor:
        """[at most config.observations, stack, *frame], where the agent's networks are."""
        device = next(self._agent.probe().net.parameters()).device
        return torch.from_numpy(self._obs[: self._kept]).to(device)

    def state_dict(self) -> State:
        return {
            "obs": self._obs[: self._kept].copy(),
            "kept": self._kept,
            "stacks": {str(first): stack.obs.copy() for first, stack in self._stacks.items()},
            "looked": self._looked,
        }

    def load_state_dict(self, state: State) -> None:
        self._obs[: len(state["obs"])] = state["obs"]
        self._kept, self._looked = int(state["kept"]), int(state["looked"])
        for first, obs in state["stacks"].items():
            self._stacks[int(first)] = FrameStack(len(obs), self._agent.spec)
            self._stacks[int(first)].obs[:] = obs


def _on_host(x: Array | Tensor) -> Array:
    """Of a rollout, wherever it was made."""
    array: Array = torch.as_tensor(x).cpu().numpy()
    return array
