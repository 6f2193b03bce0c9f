"""The Rainbow line of sample-efficient agents for Atari-100k: DER, DrQ(eps), SPR, SR-SPR and BBF.

One algorithm, whose members differ by their Config (agents/presets/*.yaml):

- DER, data-efficient Rainbow (van Hasselt, Hessel, Aslanides 2019, arXiv:1906.05243), in Dopamine's form: C51, double,
  dueling, noisy networks, n-step returns, prioritised replay;
- DrQ(eps) (Kostrikov et al. 2021, arXiv:2004.13649; Agarwal et al. 2021): double, dueling DQN on augmented images;
- SPR (Schwarzer et al. 2021, arXiv:2007.05929), in the JAX form of Nikishin et al. 2022: Rainbow that predicts its own future
  latents; with resets of the last layer (arXiv:2205.07802);
- SR-SPR (D'Oro et al. 2023): a slowly moving target that acts, replay ratios up to 16, shrink-and-perturb resets;
- BBF (Schwarzer et al. 2023, arXiv:2305.19452): wider, deeper, weight decay, n and gamma annealed after every reset.

Networks and losses: spr_net.py. Acting: spr_policy.py. Hyper-parameters and schedules: spr_config.py. Updates on a GPU: spr_device.py.
Deviations from the authors' code: docs/agents/der.md and docs/agents/spr.md.
"""

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rlplatform.agents import spr_release
from rlplatform.agents.spr_config import DTYPES, Config, Release, epsilon_at, horizon_at
from rlplatform.agents.spr_device import DeviceUpdates, Horizon
from rlplatform.agents.spr_net import Inputs, Net, importance_weights, losses, q_values, support_of
from rlplatform.agents.spr_policy import DevicePolicy, Policy
from rlplatform.device import placed, require
from rlplatform.device_batches import PRIORITY_EPS, Feed, HostFeed, ResidentFeed
from rlplatform.device_replay import DeviceReplay
from rlplatform.device_streams import DeviceStream
from rlplatform.replay import Batch, Replay
from rlplatform.streams import Stream
from rlplatform.techniques import augment, checkpoint, l2_init, resets, sigreg, spectral_norm
from rlplatform.techniques.activations import record
from rlplatform.techniques.plasticity import Probe
from rlplatform.techniques.pruning import Pruner
from rlplatform.techniques.redo import Recycler
from rlplatform.techniques.sigreg import SigReg
from rlplatform.types import Array, Metrics, Spec, State, Weights


class Agent:
    """Replay, networks and optimiser. `update` is one gradient step."""

    config_class: ClassVar[type[Config]] = Config

    def __init__(
        self, config: Config, spec: Spec, streams: int, seed: int, device: str = "cpu", *, feed: str = ""
    ) -> None:
        """A newly initialised agent.

        Args:
            streams: environments whose rollouts `observe` will see.
            seed: of the run; names the streams "init", "noise", "augment", "reset", "redo", "sigreg" and "replay".
            device: where it learns and acts: "cpu", "cuda" or "cuda:N".
            feed: how a GPU learns, on the CPU, too, to the same bits: from a replay that is "resident" on the device, as
                environments there ask for, or "staged" from the host. "": on the CPU neither; on a GPU resident, but for what
                `release` asks.
        """
        self.device = require(device)
        if feed == "resident" and config.release != Release():
            raise ValueError("release: those batches are made on the host, and cannot come from a replay on the device")
        if not spec.actions:
            raise ValueError("this agent needs discrete actions")
        self._pixels = spec.frame_dtype == "uint8" and len(spec.frame_shape) == 2
        if config.augment and not self._pixels:
            raise ValueError(
                f"augment needs uint8 frames [height, width], got {spec.frame_dtype} {list(spec.frame_shape)}"
            )
        self.config, self.spec, self._dtype = config, spec, DTYPES[config.dtype]
        if not feed and self.device.type == "cuda":
            feed = "resident" if config.release == Release() else "staged"
        self._graphed = bool(feed)
        replay = partial(DeviceReplay, device=self.device) if feed == "resident" else Replay
        self.replay: Any = replay(
            spec, config.capacity, streams, config.max_n, config.spr_steps + config.release.mask, config.alpha,
            Stream(seed, "replay"),
        )  # fmt: skip
        self._noise, self._augment = self._stream(seed, "noise"), self._stream(seed, "augment")
        self._reset_draws, self._redo = Stream(seed, "reset"), Recycler(config.redo, seed)
        self.support = support_of(config).to(self.device)
        self.master = self._fresh(Stream(seed, "init"))  # what the optimiser moves
        resets.check_names(self.master, config.reset)
        half = self._dtype != torch.float32
        self.online = self._net(self._dtype) if half else self.master  # what is evaluated
        self.target = self._net(self._dtype).requires_grad_(False)
        # A small step towards float32 weights would be lost between two neighbouring numbers of bfloat16.
        self.target_master = self._net(torch.float32).requires_grad_(False) if half else self.target
        self._initial = l2_init.initial(self.master.named_parameters(), config.l2_init)
        spectral_norm.iterate_(self.master, spectral_norm.START)
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
            capturable=self.device.type == "cuda",
        )
        # Its steps before the capture run eagerly on purpose; torch would warn of the first one.
        self._adam._warned_capturable_if_run_uncaptured = True  # noqa: SLF001
        self._round(self.master, self.online)
        self._copy_to_target()
        self._resets = resets.Schedule(config.reset_period, config.reset.until)
        self._sigreg = SigReg(config.sigreg, self._stream(seed, "sigreg"))
        self._pruner = Pruner(self.master, config.pruning)
        self._steps = 0  # agent steps observed
        self._cycle = 0  # gradient steps since the last reset
        self._next_copy = config.target_period  # agent step after whose updates the target is copied
        self.launches = self._as_launches() if self._graphed else None

    def _stream(self, seed: int, name: str) -> Any:
        """A Stream, or its twin that draws on the device."""
        return DeviceStream(Stream(seed, name), self.device) if self._graphed else Stream(seed, name)

    def _net(self, dtype: torch.dtype) -> Net:
        net = Net(self.config, self.spec, dtype)
        spectral_norm.attach_(net, self.config.spectral_norm)
        return placed(net, self.device)

    def _fresh(self, stream: Stream) -> Net:
        """A newly initialised network in float32."""
        net = Net(self.config, self.spec, torch.float32)
        net.init_(stream)
        spectral_norm.attach_(net, self.config.spectral_norm)
        return placed(net, self.device)

    def _as_launches(self) -> DeviceUpdates:
        config, device = self.config, self.device
        horizon = Horizon(config, device)
        feed: Feed
        if isinstance(self.replay, DeviceReplay):
            dtype = self._dtype if self._pixels else None
            feed = ResidentFeed(self.replay, config.batch, config.spr_steps, horizon.now, dtype)
        else:
            feed = HostFeed(
                self._sample, self._write_priorities, self.spec, config.batch, config.spr_steps, self._dtype, device
            )
        return DeviceUpdates(config, self.learn, feed, self._augment, horizon, device)

    @property
    def ready(self) -> bool:
        return self._steps > self.config.min_replay and self.replay.can_sample

    def policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=False, device=self.device, graphed=self._graphed)

    def device_policy(self) -> DevicePolicy:
        """For an actor whose environments are on the agent's device; its stream is a DeviceStream."""
        return DevicePolicy(self.config, self.spec, self.device)

    def eval_policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=True, device=self.device, graphed=self._graphed)

    def weights(self) -> Weights:
        net = self.target if self.config.act_with_target else self.online
        acting = spectral_norm.acting(net).items()
        needed = {name: p for name, p in acting if not name.startswith(("transition.", "predictor."))}
        return {"net": needed, "epsilon": epsilon_at(self._steps, self.config)}

    def probe(self) -> Probe:
        """Of the network that learns, without noise: its values of the actions and the largest of them."""

        def forward(obs: Tensor) -> tuple[Tensor, Tensor]:
            q = q_values(self.online(obs, None), self.support)
            return q, q.amax(1)

        return Probe(self.online, forward, self.master)

    def observe(self, rollouts: list[Any]) -> None:
        """`Rollout`s; with the "resident" feed `DeviceRollout`s, too."""
        if self.launches is not None:
            self.launches.feed.settle()
        # What is due by the steps seen so far, whose updates are done; an evaluation after them came before this.
        if self._resets.due(self._steps):
            self._reset()
        if self._redo.due():
            self._recycle()
        if not self.config.target_tau and self._steps >= self._next_copy:
            self._copy_to_target()
            self._next_copy = (self._steps // self.config.target_period + 1) * self.config.target_period
        for rollout in rollouts:
            self.replay.add(rollout._replace(reward=rollout.reward.clip(-1.0, 1.0)))
            self._steps += prod(rollout.reward.shape)  # of arrays or tensors

    def update(self) -> Metrics:
        """One gradient step on one batch; its new priorities go back to the replay."""
        if self.launches is not None:
            return self._launched(1)
        self._pruner.begin()
        batch = self._sample()
        of_losses, td = self.learn(self.inputs(batch))
        self._cycle += 1
        self._redo.tick()
        self._write_priorities(batch.index, td.numpy())
        return self._metrics(of_losses)

    @property
    def steps_per_launch(self) -> int:
        """How many gradient steps `updates` can make at the price of one launch."""
        return 1 if self.launches is None else self.launches.feed.launch

    def updates(self, count: int) -> Metrics:
        """`count` gradient steps on a device: enqueued, not waited for. The metrics are the last one's, and live: a later step
        overwrites them."""
        return self._launched(count)

    def _launched(self, count: int) -> Metrics:
        assert self.launches is not None
        while count:
            steps = min(count, self.steps_per_launch, self._pruner.ahead)
            self._pruner.begin(steps)
            self.launches.launch(steps)
            self._cycle += steps
            self._redo.tick(steps)
            count -= steps
        return self._metrics(self.launches.metrics)

    def learn(self, x: Inputs) -> tuple[dict[str, Tensor], Tensor]:
        """What a gradient step does to the networks: the metrics that this configuration has, and the TD losses [B]."""
        noise, next_noise = self.online.noise(self._noise), self.online.noise(self._noise)
        out = losses(self.online, self.target, x, noise, next_noise, self.support, self.config.spr_weight)
        total, said = out.total, {"losses/td_loss": out.td.mean(), "losses/q_values": out.q}
        if self.config.spr_steps:
            said["losses/spr_loss"] = out.spr
        if self._sigreg.on:
            parts = self._sigreg.parts(out.hidden)
            total = total + self._sigreg.loss(parts)
            said |= sigreg.metrics(parts)
        self._step(total)
        return said, out.td

    def _metrics(self, of_losses: Metrics) -> Metrics:
        """Of the last gradient step."""
        config, metrics = self.config, {**of_losses, **self._pruner.metrics()}
        if config.anneal:
            n, gamma = horizon_at(self._cycle - 1, config)
            metrics |= {"charts/n": torch.tensor(n), "charts/gamma": torch.tensor(gamma)}
        if config.reset.every:
            metrics |= {"charts/resets": torch.tensor(self._resets.count), "charts/cycle": torch.tensor(self._cycle)}
        return metrics | self._redo.metrics()

    def _sample(self, out: Batch | None = None) -> Batch:
        n, gamma = horizon_at(self._cycle, self.config)
        return spr_release.sample(self.replay, self.config, n, gamma, out)

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
        """`td` [B] float32: the TD losses of these items."""
        if not np.isfinite(td).all():  # of a step on a device, which did not wait to see
            raise FloatingPointError(f"the loss is {td.mean()} after {self._steps} agent steps")
        td = td.astype(np.float64) + PRIORITY_EPS
        if self.config.release.priorities:
            index, td = index[:1], td.mean(keepdims=True)
        self.replay.update_priority(index, td)

    def _step(self, loss: Tensor) -> None:
        if not self._graphed and not torch.isfinite(loss):  # a device is not waited for: see _write_priorities
            raise FloatingPointError(f"the loss is {loss.item()} after {self._steps} agent steps")
        self.online.zero_grad()
        torch.autograd.backward(loss)
        if self.online is not self.master:
            torch._foreach_copy_(_gradients(self.master), _gradients(self.online))
        if self._initial is not None:
            self._initial.pull_(self.master.named_parameters())
        self._adam.step()
        self._pruner.apply_(self.master)
        self._round(self.master, self.online)
        if self.config.target_tau:
            with torch.no_grad():
                torch._foreach_lerp_(_parameters(self.target_master), _parameters(self.master), self.config.target_tau)
            self._pruner.apply_(self.target_master)
            self._round(self.target_master, self.target)
        if self.config.spectral_norm:
            spectral_norm.iterate_(self.online)
            spectral_norm.iterate_(self.target)

    @torch.no_grad()
    def _round(self, master: Net, net: Net) -> None:
        """Round float32 weights to the dtype in which the networks are evaluated."""
        if net is not master:
            torch._foreach_copy_(_parameters(net), _parameters(master))

    @torch.no_grad()
    def _copy_to_target(self) -> None:
        torch._foreach_copy_(_parameters(self.target_master), _parameters(self.master))
        self._round(self.target_master, self.target)
        spectral_norm.copy_(self.target, self.online)

    def _reset(self) -> None:
        """Both networks, each with another random draw, and the optimiser; n and gamma start anew. What was stored stays."""
        for net, rounded in ((self.master, self.online), (self.target_master, self.target)):
            resets.apply_(net, self._fresh(self._reset_draws), self.config.reset)
            self._pruner.apply_(net)  # what was pruned stays so
            self._round(net, rounded)
            spectral_norm.iterate_(rounded, spectral_norm.START)
        resets.clear_optimizer_(self._adam)
        self._begin_cycle(0)

    def _recycle(self) -> None:
        """Dormant units of the network that learns; the target takes them over as it takes over all else."""
        obs = self._redo.observations(self.replay).to(self.device)
        layers, _ = record(self.online, lambda x: self.online(x, None), obs)
        self._redo.recycle_(self.master, self._fresh(self._redo.stream), self.master.links(), layers, [self._adam])
        self._pruner.apply_(self.master)  # what was pruned stays so
        self._round(self.master, self.online)
        spectral_norm.iterate_(self.online, spectral_norm.START)

    def _begin_cycle(self, cycle: int) -> None:
        self._cycle = cycle
        if self.launches is not None:
            self.launches.horizon.cycle.fill_(cycle)

    def state_dict(self) -> State:
        """Copies on the CPU, so that the agent may go on while they are written, and on another device when they are read."""
        if self.launches is not None:
            self.launches.feed.settle()
            self.launches.feed.check()
        online = dict(self.master.named_parameters())
        return {
            "online": {name: checkpoint.saved(p) for name, p in online.items()},
            "target": {name: checkpoint.saved(p) for name, p in self.target_master.named_parameters()},
            "adam": checkpoint.moments_of(online, self._adam),
            "noise": self._noise.state_dict(),
            "augment": self._augment.state_dict(),
            "reset_draws": self._reset_draws.state_dict(),
            "resets": self._resets.state_dict(),
            "steps": self._steps,
            "cycle": self._cycle,
            "next_copy": self._next_copy,
            **self._techniques().state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        if self.launches is not None:
            self.launches.feed.forget()
        self.master.load_state_dict(state["online"])
        self.target_master.load_state_dict(state["target"])
        self._round(self.master, self.online)
        self._round(self.target_master, self.target)
        for name, parameter in self.master.named_parameters():
            self._load_moments(parameter, state["adam"].get(name, {}))
        self._noise.load_state_dict(state["noise"])
        self._augment.load_state_dict(state["augment"])
        self._reset_draws.load_state_dict(state["reset_draws"])
        self._resets.load_state_dict(state["resets"])
        self._steps, self._next_copy = int(state["steps"]), int(state["next_copy"])
        self._begin_cycle(int(state["cycle"]))
        self._techniques().load_state_dict(state)

    def _techniques(self) -> checkpoint.Techniques:
        nets = {"online": self.online, "target": self.target}
        return checkpoint.Techniques(nets, self._sigreg, {"pruning": self._pruner}, self._redo, self._initial)

    def _load_moments(self, parameter: Tensor, saved: Mapping[str, Tensor]) -> None:
        """In place where there are moments: a graph knows their addresses. None were saved before the first step."""
        moments = self._adam.state[parameter]
        if not moments:
            for key, value in saved.items():
                like = parameter.detach() if value.shape == parameter.shape else value
                moments[key] = torch.empty_like(like, dtype=value.dtype, device=self.device)
        for key, moment in moments.items():
            moment.copy_(saved[key]) if saved else moment.zero_()


def _parameters(net: Net) -> list[Tensor]:
    return list(net.parameters())


def _gradients(net: Net) -> list[Tensor]:
    return [p.grad for p in net.parameters() if p.grad is not None]
