"""PPO, proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347), with the details of its authors' code that Huang et al.
2022 ("The 37 implementation details") list, and with a trust region that an option adds to the loss: a plain KL penalty, or GTR in our
formulation (rlplatform/techniques/gtr.py).

Rounds of T steps in N environments: `observe` makes advantages of them, and each `update` is one minibatch. Deviations:
docs/agents/ppo.md.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rlplatform.agents.ppo_config import Config
from rlplatform.agents.ppo_net import Losses, Minibatch, Net, distances, losses
from rlplatform.device import CPU
from rlplatform.onpolicy import Round, RunningMoments, join
from rlplatform.optim import ClippedAdam, anneal_
from rlplatform.returns import gae, reward_and_discount
from rlplatform.stacks import Observations, Stacks
from rlplatform.streams import Stream
from rlplatform.techniques import checkpoint, gtr, l2_init, sigreg, spectral_norm
from rlplatform.techniques.activations import record
from rlplatform.techniques.gtr import Anchors
from rlplatform.techniques.plasticity import Probe
from rlplatform.techniques.policy_path import PolicyPath, UpdateCosine
from rlplatform.techniques.pruning import Pruner
from rlplatform.techniques.redo import Recycler
from rlplatform.techniques.sigreg import SigReg
from rlplatform.types import Array, Metrics, Rollout, Spec, State, Weights

CUT = 10.0  # of normalised observations and scaled rewards
TINY = 1e-12
CHUNK = 1_024  # observations a forward pass where there is no gradient


def normalized_obs(obs: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(obs - mean) / std, cut at 10: [B, stack, *frame] float32."""
    return ((obs - mean) / std).clamp(-CUT, CUT)


class Policy:
    """Draws actions, and says from what: the distribution's parameters and the value beside them."""

    def __init__(self, config: Config, spec: Spec, *, evaluation: bool) -> None:
        self._config, self._evaluation, self._discrete = config, evaluation, spec.actions > 0
        self._net = Net(config, spec).requires_grad_(False)
        self._mean = self._std = torch.zeros(())

    def load(self, weights: Weights) -> None:
        """Take over the tensors of Agent.weights() without a copy: later changes in place are seen."""
        for name, parameter in self._net.named_parameters():
            parameter.data = weights["net"][name]
        if self._config.normalize_obs:
            self._mean, self._std = weights["mean"], weights["std"]

    def _see(self, obs: Array) -> Tensor:
        seen = torch.from_numpy(obs)
        return normalized_obs(seen, self._mean, self._std) if self._config.normalize_obs else seen

    @torch.inference_mode()
    def act(self, obs: Array, stream: Stream) -> tuple[Array, Mapping[str, Array]]:
        """Actions [N] int64 or [N, A] float32 in [-1, 1], for obs [N, stack, *frame]. A continuous draw is kept as it fell ("draw"),
        while the environment is given it clipped."""
        family = self._net.family
        if self._evaluation:
            dist = self._net.distribution(self._see(obs))
            action = family.mode(dist) if self._config.greedy_eval else family.draw(dist, stream)
            return action if self._discrete else action.clip(-1.0, 1.0), {}
        dist, value = self._net(self._see(obs))
        action, extra = family.draw(dist, stream), {"dist": dist.numpy(), "value": value.numpy()}
        return (action, extra) if self._discrete else (action.clip(-1.0, 1.0), {**extra, "draw": action})

    @torch.inference_mode()
    def close(self, obs: Array) -> Mapping[str, Array]:
        """The values [N] after a rollout's last step, from which its returns are bootstrapped."""
        return {"last_value": self._net.values(self._see(obs)).numpy()}


class Agent:
    """Networks, their optimiser, and the round that is being learned."""

    config_class: ClassVar[type[Config]] = Config
    replay = None

    def __init__(self, config: Config, spec: Spec, streams: int, seed: int) -> None:
        """A newly initialised agent.

        Args:
            streams: environments whose rollouts `observe` will see.
            seed: of the run; names the streams "init", "shuffle", "redo" and "sigreg".
        """
        if config.normalize_obs and spec.frame_dtype != "float32":
            raise ValueError(f"normalize_obs is for float32 observations, not for {spec.frame_dtype}")
        self.config, self.spec = config, spec
        self.net = self._fresh(Stream(seed, "init"))
        self._parameters = dict(self.net.named_parameters())
        # How much a continuous policy explores is no weight: only its loss moves it.
        self._pulled = {name: p for name, p in self._parameters.items() if name != "log_std"}
        self._initial = l2_init.initial(self._pulled.items(), config.l2_init)
        spectral_norm.iterate_(self.net, spectral_norm.START)
        self._redo = Recycler(config.redo, seed)
        self._adam = ClippedAdam(self._parameters.values(), config.learning_rate, config.adam_eps)
        self._shuffle = Stream(seed, "shuffle")
        self._frames = Stacks(spec, streams, CPU)
        self._obs_moments = RunningMoments(spec.stack, *spec.frame_shape)
        self._returns, self._return_moments = np.zeros(streams, np.float32), RunningMoments()
        # The policy that acted is the first anchor: a rollout says what it did, so that only older ones need their weights.
        self._older = Anchors(config.trust.anchors - 1 if config.trust.weight else 0)
        self._older_net = Net(config, spec).requires_grad_(False) if self._older.capacity else None
        self._path, self._cosine = PolicyPath(self.net.family.kl), UpdateCosine()
        self._sigreg = SigReg(config.sigreg, Stream(seed, "sigreg"))
        self._pruner = Pruner(self.net, config.pruning)
        self._steps = 0  # agent steps observed
        self._inputs: Observations | Tensor = torch.zeros(0)  # of the round, by index
        self._data: dict[str, Tensor] = {}  # likewise: the other fields of a Minibatch
        self._order, self._at, self._left = torch.zeros(0, dtype=torch.int64), 0, 0  # of the epoch; minibatches to come
        self._noted: dict[str, Tensor] = {}  # what is measured once a round
        self._metrics: Metrics = {}

    def _fresh(self, stream: Stream) -> Net:
        """Newly initialised."""
        net = Net(self.config, self.spec)
        net.init_(stream)
        spectral_norm.attach_(net, self.config.spectral_norm)
        return net

    @property
    def ready(self) -> bool:
        return bool(self._data)

    def policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=False)

    def eval_policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=True)

    def weights(self) -> Weights:
        weights: dict[str, Any] = {"net": spectral_norm.acting(self.net)}
        return weights | self._obs_scale() if self.config.normalize_obs else weights

    def probe(self) -> Probe:
        """Log-probabilities, or the policy's mode as the environment is given it, and the value."""

        def forward(obs: Tensor) -> tuple[Tensor, Tensor]:
            scaled = normalized_obs(obs, *self._obs_scale().values()) if self.config.normalize_obs else obs
            dist, value = self.net(scaled)
            return dist if self.spec.actions else dist.chunk(2, -1)[0].clamp(-1.0, 1.0), value

        return Probe(self.net, forward)

    # --- a round ---

    @torch.no_grad()
    def observe(self, rollouts: list[Rollout]) -> None:
        """Advantages, returns and anchors of one round.

        Raises:
            ValueError: its steps are no multiple of the minibatch.
        """
        given, config = join(rollouts), self.config
        size = given.reward.size
        config.check_run(size, lag=0)
        frames = given.frame, given.first, given.final_frame, given.final_at
        seen = self._frames.push(*(torch.from_numpy(array) for array in frames))
        self._inputs = self._see(seen, size)
        reward, discount = reward_and_discount(
            torch.from_numpy(self._reward(given)), torch.from_numpy(given.terminated), torch.from_numpy(given.truncated),
            torch.from_numpy(given.final_at), self._final_values(given), config.gamma,
        )  # fmt: skip
        value = torch.from_numpy(np.concatenate([given.extra["value"], given.extra["last_value"]]))
        advantage = gae(value, reward, discount, config.lambda_)
        dist: Tensor = torch.from_numpy(given.extra["dist"]).flatten(0, 1)
        action = torch.from_numpy(given.action if self.spec.actions else given.extra["draw"]).flatten(0, 1)
        before, target = value[:-1].flatten(), (advantage + value[:-1]).flatten()
        self._data = {
            "action": action, "log_prob": self.net.family.log_prob(dist, action), "value": before,
            "advantage": advantage.flatten(), "target": target,
            "anchors": torch.stack([dist, *self._older_policies(size)], 1),
        }  # fmt: skip
        self._note_path(size)
        self._noted["losses/explained_variance"] = 1.0 - (target - before).var() / target.var().clamp(min=TINY)
        self._older.push(spectral_norm.acting(self.net))
        anneal_(self._adam, config.learning_rate, self._steps, config.anneal)
        self._steps += size
        self._at, self._left = size, config.epochs * size // config.batch

    def update(self) -> Metrics:
        """One gradient step on the next minibatch; each epoch shuffles the round anew. Nothing, where max_kl ended the round."""
        if self._at == len(self._data["action"]):
            if self._too_far():
                self._recycle()
                return self._metrics
            self._order, self._at = torch.from_numpy(np.argsort(self._shuffle.uniform(self._at), kind="stable")), 0
        index = self._order[self._at : self._at + self.config.batch]
        self._at, self._left = self._at + len(index), self._left - 1
        x = Minibatch(self._inputs[index], **{name: rows[index] for name, rows in self._data.items()})
        out = losses(self.net, x, self.config)
        if self._left == 0 or (self.config.max_kl and self._at == len(self._order)):
            self._note_change(x, out)
        total, said = out.total, dict[str, Tensor]()
        if self._sigreg.on:
            parts = self._sigreg.parts(*out.hidden)
            total, said = total + self._sigreg.loss(parts), sigreg.metrics(parts)
        self._pruner.begin()
        norm = self._adam.descend(total, self.config.max_grad_norm, self._pull)
        self._pruner.apply_(self.net)
        if self.config.spectral_norm:
            spectral_norm.iterate_(self.net)
        self._redo.tick()
        if self._left == 0:
            self._recycle()
        self._metrics = {
            "losses/policy_loss": out.policy.detach(), "losses/value_loss": out.value.detach(),
            "losses/entropy": out.entropy.detach(), "losses/grad_norm": norm,
            "charts/learning_rate": self._adam.param_groups[0]["lr"], **self._noted, **said, **self._pruner.metrics(), **self._redo.metrics(),
        }  # fmt: skip
        return self._metrics

    def _pull(self) -> None:
        if self._initial is not None:
            self._initial.pull_(self._pulled.items())

    def _recycle(self) -> None:
        """Dormant units, if it is due, by what they do in the round that has just been learned: so that the policy acts as it is then,
        and no round is learned by another policy than acted."""
        if not self._redo.due():
            return
        index = torch.from_numpy(self._redo.rows(len(self._data["action"])))
        layers, _ = record(self.net, self.net, self._inputs[index])
        self._redo.recycle_(self.net, self._fresh(self._redo.stream), self.net.links(), layers, [self._adam])
        self._pruner.apply_(self.net)  # what was pruned stays so
        spectral_norm.iterate_(self.net, spectral_norm.START)

    def _too_far(self) -> bool:
        """Whether the last minibatch of the epoch that has just ended was beyond max_kl of the policy that acted."""
        begun = self._left < self.config.epochs * self._at // self.config.batch
        return begun and self.config.max_kl > 0.0 and bool(self._noted["trust/kl_mean"] > self.config.max_kl)

    def _see(self, seen: Observations, size: int) -> Observations | Tensor:
        """The round's observations as the policy saw them. Only then do the normalised ones change what the next round sees."""
        if not self.config.normalize_obs:
            return seen
        obs = seen[torch.arange(len(seen.rows))]
        scaled = normalized_obs(obs, *self._obs_scale().values())
        self._obs_moments.add(obs[:size].numpy())
        return scaled

    def _obs_scale(self) -> dict[str, Tensor]:
        """Mean and standard deviation, [stack, *frame] float32."""
        std = np.sqrt(self._obs_moments.variance + 1e-8)
        return {"mean": torch.from_numpy(self._obs_moments.mean).float(), "std": torch.from_numpy(std).float()}

    def _reward(self, given: Round) -> Array:
        """[T, N] float32, as it is learned from."""
        if self.config.reward != "scaled":
            return np.sign(given.reward) if self.config.reward == "sign" else given.reward
        returns = np.empty_like(given.reward)
        for t, (reward, first) in enumerate(zip(given.reward, given.first, strict=True)):
            self._returns = returns[t] = reward + self.config.gamma * np.where(first, np.float32(0.0), self._returns)
        self._return_moments.add(returns.flatten())
        scale = np.float32(np.sqrt(self._return_moments.variance + 1e-8))
        scaled: Array = (given.reward / scale).clip(-CUT, CUT)
        return scaled

    def _final_values(self, given: Round) -> Tensor:
        """V of the true final observations where a time limit cut an episode, [E]; 0 where nothing is bootstrapped."""
        t, i = given.final_at.T
        cut = torch.from_numpy(np.flatnonzero(given.truncated[t, i] & ~given.terminated[t, i]))
        out = torch.zeros(len(t))
        for rows in cut.split(CHUNK):
            out[rows] = self.net.values(self._inputs[given.reward.size + rows])
        return out

    def _older_policies(self, size: int) -> list[Tensor]:
        """What the older snapshots would have done in the round's states, [size, P] each."""
        out = []
        for snapshot in self._older.snapshots:
            assert self._older_net is not None
            for name, parameter in self._older_net.named_parameters():
                parameter.data = snapshot[name]
            chunks = torch.arange(size).split(CHUNK)
            out.append(torch.cat([self._older_net.distribution(self._inputs[index]) for index in chunks]))
        return out

    def _note_path(self, size: int) -> None:
        """How the last round's gradient steps moved the policy, on states of an earlier round: of this one, where a window ended."""
        if not self.config.probe:
            return
        self._cosine.note(self._parameters)
        path = self._path
        if path.states is not None:
            path.note(self.net.distribution(path.states))
        if path.states is None:
            path.begin(self._inputs[torch.arange(0, size, max(1, size // self.config.probe))[: self.config.probe]])
            assert path.states is not None
            path.note(self.net.distribution(path.states))
        for name, value in (("path_efficiency", path.efficiency), ("update_cosine", self._cosine.cosine)):
            if value is not None:
                self._noted[f"policy/{name}"] = value

    def _note_change(self, x: Minibatch, out: Losses) -> None:
        """How far the policy is, in this minibatch, from the one that acted and from older ones, and how hard these pull."""
        config, ratio = self.config, out.log_ratio.exp()
        self._noted["losses/approx_kl"] = (
            ratio - 1.0 - out.log_ratio
        ).mean()  # Schulman 2020: unbiased, never negative
        self._noted["losses/clipfrac"] = ((ratio - 1.0).abs() > config.clip).float().mean()
        kl = self.net.family.kl(x.anchors[:, 0], out.dist)
        self._noted |= gtr.diagnostics(distances(self.net, out.dist, x, config), kl, config.trust)
        if config.trust.weight:
            forces = config.trust.weight * out.penalty, out.policy
            self._noted["trust/force_ratio"] = gtr.force_ratio(*forces, list(self._parameters.values()))

    # --- state ---

    def state_dict(self) -> State:
        """Copies, so that the agent may go on while they are written. Between two rounds: none of their data is kept."""
        return {
            "online": {name: checkpoint.saved(p) for name, p in self._parameters.items()},
            "adam": checkpoint.moments_of(self._parameters, self._adam),
            **{name: part.state_dict() for name, part in self._parts().items()},
            "returns": self._returns.copy(),
            "steps": self._steps,
            **self._techniques().state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: State) -> None:
        self.net.load_state_dict(state["online"])
        checkpoint.load_moments(state["adam"], self._parameters, self._adam)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self._techniques().load_state_dict(state)
        self._returns = np.array(state["returns"])
        self._steps = int(state["steps"])
        self._data, self._noted = {}, {}

    def _parts(self) -> dict[str, Any]:
        """What has a state of its own."""
        return {
            "shuffle": self._shuffle, "frames": self._frames, "obs_moments": self._obs_moments,
            "return_moments": self._return_moments, "older": self._older, "path": self._path, "cosine": self._cosine,
        }  # fmt: skip

    def _techniques(self) -> checkpoint.Techniques:
        return checkpoint.Techniques(
            {"online": self.net}, self._sigreg, {"pruning": self._pruner}, self._redo, self._initial
        )
