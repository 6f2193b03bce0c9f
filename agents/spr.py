"""The Rainbow line of sample-efficient agents for Atari-100k: DER, DrQ(eps), SPR, SR-SPR and BBF.

One algorithm, whose members differ by their Config (agents/presets/*.yaml):

- DER, data-efficient Rainbow (van Hasselt, Hessel, Aslanides 2019, arXiv:1906.05243), in Dopamine's form: C51, double,
  dueling, noisy networks, n-step returns, prioritised replay;
- DrQ(eps) (Kostrikov et al. 2021, arXiv:2004.13649; Agarwal et al. 2021): double, dueling DQN on augmented images;
- SPR (Schwarzer et al. 2021, arXiv:2007.05929), in the JAX form of Nikishin et al. 2022: Rainbow that predicts its own future
  latents; with resets of the last layer (arXiv:2205.07802);
- SR-SPR (D'Oro et al. 2023): a slowly moving target that acts, replay ratios up to 16, shrink-and-perturb resets;
- BBF (Schwarzer et al. 2023, arXiv:2305.19452): wider, deeper, weight decay, n and gamma annealed after every reset.

Networks and losses: spr_net.py. Hyper-parameters and schedules: spr_config.py. Deviations from the authors' code:
docs/agents/der.md and docs/agents/spr.md.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rlplatform.agents import spr_release
from rlplatform.agents.spr_config import DTYPES, Config, epsilon_at, horizon_at
from rlplatform.agents.spr_net import Inputs, Net, importance_weights, losses, q_values, support_of
from rlplatform.replay import Batch, Replay
from rlplatform.streams import Stream
from rlplatform.techniques import augment, resets
from rlplatform.types import Array, Metrics, Rollout, Spec, State, Weights


class Policy:
    """Epsilon-greedy on the mean return, with noisy layers in training and their mean weights in evaluation."""

    def __init__(self, config: Config, spec: Spec, *, evaluation: bool) -> None:
        self._config, self._actions, self._evaluation = config, spec.actions, evaluation
        self._net = Net(config, spec, DTYPES[config.dtype], acting=True).requires_grad_(False)
        self._support = support_of(config)
        self._epsilon = 1.0

    def load(self, weights: Weights) -> None:
        """Take over the tensors of Agent.weights() without a copy: later changes in place are seen."""
        for name, parameter in self._net.named_parameters():
            parameter.data = weights["net"][name]
        self._epsilon = self._config.epsilon_eval if self._evaluation else weights["epsilon"]

    @torch.inference_mode()
    def act(self, obs: Array, stream: Stream) -> tuple[Array, Mapping[str, Array]]:
        """Actions [N] int64 for obs [N, stack, *frame]. One draw of noise serves the N environments."""
        explore = stream.uniform(len(obs)) < self._epsilon
        action = stream.integers(self._actions, len(obs))
        if not explore.all():
            noise = None if self._evaluation else self._net.noise(stream)
            greedy = q_values(self._net(torch.from_numpy(obs), noise), self._support).argmax(1).numpy()
            action = np.where(explore, action, greedy)
        return action, {}


class Agent:
    """Replay, networks and optimiser. `update` is one gradient step."""

    config_class: ClassVar[type[Config]] = Config

    def __init__(self, config: Config, spec: Spec, streams: int, seed: int) -> None:
        """A newly initialised agent.

        Args:
            streams: environments whose rollouts `observe` will see.
            seed: of the run; names the streams "init", "noise", "augment", "reset" and "replay".
        """
        if not spec.actions:
            raise ValueError("this agent needs discrete actions")
        self._pixels = spec.frame_dtype == "uint8" and len(spec.frame_shape) == 2
        if config.augment and not self._pixels:
            raise ValueError(
                f"augment needs uint8 frames [height, width], got {spec.frame_dtype} {list(spec.frame_shape)}"
            )
        self.config, self.spec, self._dtype = config, spec, DTYPES[config.dtype]
        self.replay = Replay(
            spec, config.capacity, streams, config.max_n, config.spr_steps + config.release.mask, config.alpha,
            Stream(seed, "replay"),
        )  # fmt: skip
        self._noise, self._augment = Stream(seed, "noise"), Stream(seed, "augment")
        self._reset_draws = Stream(seed, "reset")
        self.support = support_of(config)
        self.master = Net(config, spec, torch.float32)  # what the optimiser moves
        self.master.init_(Stream(seed, "init"))
        resets.check_names(self.master, config.reset)
        half = self._dtype != torch.float32
        self.online = Net(config, spec, self._dtype) if half else self.master  # what is evaluated
        self.target = Net(config, spec, self._dtype).requires_grad_(False)
        # A small step towards float32 weights would be lost between two neighbouring numbers of bfloat16.
        self.target_master = Net(config, spec, torch.float32).requires_grad_(False) if half else self.target
        for parameter in self.master.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self._adam = torch.optim.AdamW(
            [
                {"params": [p for p in self.master.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
                {"params": [p for p in self.master.parameters() if p.ndim == 1], "weight_decay": 0.0},
            ],
            config.learning_rate,
            eps=config.adam_eps,
            fused=True,
        )
        self._round(self.master, self.online)
        self._copy_to_target()
        self._resets = resets.Schedule(config.reset_period, config.reset.until)
        self._steps = 0  # agent steps observed
        self._cycle = 0  # gradient steps since the last reset
        self._next_copy = config.target_period  # agent step after whose updates the target is copied

    @property
    def ready(self) -> bool:
        return self._steps > self.config.min_replay and self.replay.can_sample

    def policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=False)

    def eval_policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=True)

    def weights(self) -> Weights:
        net = self.target if self.config.act_with_target else self.online
        acting = {
            name: p.data for name, p in net.named_parameters() if not name.startswith(("transition.", "predictor."))
        }
        return {"net": acting, "epsilon": epsilon_at(self._steps, self.config)}

    def observe(self, rollouts: list[Rollout]) -> None:
        # What is due by the steps seen so far, whose updates are done; an evaluation after them came before this.
        if self._resets.due(self._steps):
            self._reset()
        if not self.config.target_tau and self._steps >= self._next_copy:
            self._copy_to_target()
            self._next_copy = (self._steps // self.config.target_period + 1) * self.config.target_period
        for rollout in rollouts:
            self.replay.add(rollout._replace(reward=rollout.reward.clip(-1.0, 1.0)))
            self._steps += rollout.reward.size

    def update(self) -> Metrics:
        """One gradient step on one batch; its new priorities go back to the replay."""
        config = self.config
        n, gamma = horizon_at(self._cycle, config)
        batch = spr_release.sample(self.replay, config, n, gamma)
        noise, next_noise = self.online.noise(self._noise), self.online.noise(self._noise)
        out = losses(self.online, self.target, self.inputs(batch), noise, next_noise, self.support, config.spr_weight)
        self._step(out.total)
        self._cycle += 1
        self._write_priorities(batch.index, out.td.double().numpy() + 1e-10)
        metrics = {"losses/td_loss": out.td.mean(), "losses/q_values": out.q}
        if config.spr_steps:
            metrics["losses/spr_loss"] = out.spr
        if config.anneal:
            metrics |= {"charts/n": torch.tensor(n), "charts/gamma": torch.tensor(gamma)}
        if config.reset.every:
            metrics |= {"charts/resets": torch.tensor(self._resets.count), "charts/cycle": torch.tensor(self._cycle)}
        return metrics

    def inputs(self, batch: Batch) -> Inputs:
        """The batch as the networks take it, augmented."""
        images = [*batch.obs.swapaxes(0, 1), batch.next_obs]
        count = len(images) * len(batch.index)
        if self._pixels:
            draw = augment.draw(self._augment, count) if self.config.augment else augment.identity(count)
            obs = augment.apply(images, draw, self._dtype)
        else:
            obs = torch.from_numpy(np.concatenate(images))
        return Inputs(
            obs, torch.from_numpy(batch.action).T, torch.from_numpy(batch.n_return), torch.from_numpy(batch.discount),
            torch.from_numpy(batch.mask.astype(np.float32)).T, importance_weights(torch.from_numpy(batch.priority)).float(),
        )  # fmt: skip

    def _write_priorities(self, index: Array, td: Array) -> None:
        if self.config.release.priorities:
            index, td = index[:1], td.mean(keepdims=True)
        self.replay.update_priority(index, td)

    def _step(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()} after {self._steps} agent steps")
        self.online.zero_grad()
        torch.autograd.backward(loss)
        if self.online is not self.master:
            for to, grad in zip(_gradients(self.master), _gradients(self.online), strict=True):
                to.copy_(grad)
        self._adam.step()
        self._round(self.master, self.online)
        if self.config.target_tau:
            with torch.no_grad():
                torch._foreach_lerp_(_parameters(self.target_master), _parameters(self.master), self.config.target_tau)
            self._round(self.target_master, self.target)

    @torch.no_grad()
    def _round(self, master: Net, net: Net) -> None:
        """Round float32 weights to the dtype in which the networks are evaluated."""
        if net is not master:
            torch._foreach_copy_(_parameters(net), _parameters(master))

    @torch.no_grad()
    def _copy_to_target(self) -> None:
        torch._foreach_copy_(_parameters(self.target_master), _parameters(self.master))
        self._round(self.target_master, self.target)

    def _reset(self) -> None:
        """Both networks, each with another random draw, and the optimiser; n and gamma start anew. What was stored stays."""
        for net, rounded in ((self.master, self.online), (self.target_master, self.target)):
            fresh = Net(self.config, self.spec, torch.float32)
            fresh.init_(self._reset_draws)
            resets.apply_(net, fresh, self.config.reset)
            self._round(net, rounded)
        resets.clear_optimizer_(self._adam)
        self._cycle = 0

    def state_dict(self) -> State:
        """Copies, so that the agent may go on while they are written."""
        moments = self._adam.state  # by parameter; empty before the first step
        online = dict(self.master.named_parameters())
        return {
            "online": {name: p.detach().clone() for name, p in online.items()},
            "target": {name: p.detach().clone() for name, p in self.target_master.named_parameters()},
            "adam": {
                name: {key: t.clone() for key, t in moments[p].items()} for name, p in online.items() if p in moments
            },
            "noise": self._noise.state_dict(),
            "augment": self._augment.state_dict(),
            "reset_draws": self._reset_draws.state_dict(),
            "resets": self._resets.state_dict(),
            "steps": self._steps,
            "cycle": self._cycle,
            "next_copy": self._next_copy,
        }

    def load_state_dict(self, state: State) -> None:
        self.master.load_state_dict(state["online"])
        self.target_master.load_state_dict(state["target"])
        self._round(self.master, self.online)
        self._round(self.target_master, self.target)
        self._adam.state.clear()
        for name, parameter in self.master.named_parameters():
            if name in state["adam"]:
                self._adam.state[parameter] = {key: t.clone() for key, t in state["adam"][name].items()}
        self._noise.load_state_dict(state["noise"])
        self._augment.load_state_dict(state["augment"])
        self._reset_draws.load_state_dict(state["reset_draws"])
        self._resets.load_state_dict(state["resets"])
        self._steps, self._cycle, self._next_copy = int(state["steps"]), int(state["cycle"]), int(state["next_copy"])


def _parameters(net: Net) -> list[Tensor]:
    return list(net.parameters())


def _gradients(net: Net) -> list[Tensor]:
    return [p.grad for p in net.parameters() if p.grad is not None]
