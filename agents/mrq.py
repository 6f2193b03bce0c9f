"""MR.Q, model-based representations for Q-learning: Fujimoto, D'Oro, Zhang, Tian and Rabbat 2025 (arXiv:2501.16142).

A model-free actor-critic on embeddings that are learned as a model is: zs of states and zsa of state-action pairs, from which the
next zs, the reward and the end of the episode must follow linearly, five steps ahead. Value and policy (TD3's twins and target
noise, a 3-step target, prioritised replay) see nothing but these embeddings, and rewards in units of their mean. One set of
hyper-parameters for vectors and pixels, for continuous actions and, by a Gumbel softmax, discrete ones.

Networks and losses: mrq_net.py. Hyper-parameters: mrq_config.py. Updates on a GPU: mrq_device.py. Deviations from the authors' code: docs/agents/mrq.md.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rlplatform.actor import uniform_actions
from rlplatform.agents import mrq_net
from rlplatform.agents.mrq_config import DISCRETE_NOISE, DTYPES, Config
from rlplatform.agents.mrq_device import Launches
from rlplatform.agents.mrq_net import Actor, Net, Noise, Scale, Transitions, Unroll
from rlplatform.device import CPU, placed, products, require
from rlplatform.device_call import Adopted, DeviceCall
from rlplatform.device_replay import DeviceReplay
from rlplatform.device_streams import DeviceStream
from rlplatform.optim import take_gradients, write_gradients
from rlplatform.replay import Batch, Replay
from rlplatform.staging import Field, field_of
from rlplatform.streams import Stream
from rlplatform.techniques import augment, checkpoint, l2_init, sigreg, spectral_norm
from rlplatform.techniques.activations import record
from rlplatform.techniques.plasticity import Probe
from rlplatform.techniques.pruning import Pruner
from rlplatform.techniques.redo import Recycler
from rlplatform.techniques.sigreg import SigReg
from rlplatform.types import Array, Metrics, Rollout, Spec, State, Weights

PARTS = ("encoder", "value", "policy")  # each with an optimiser of its own
LEAST_SCALE = 1e-3  # of rewards: below it they count as small, so that the first rare reward is no target of thousands
RELEASED_LEAST_SCALE = 1e-8


class Policy:
    """The policy's action and normal noise in training; in evaluation without the noise, where Gumbel's stays: a discrete
    action is then a draw from the softmax of the policy's output."""

    def __init__(
        self, config: Config, spec: Spec, *, evaluation: bool, device: torch.device = CPU, graphed: bool = False
    ) -> None:
        """`graphed`: act as on a GPU, on the CPU, too; for tests."""
        self._config, self._spec, self._evaluation = config, spec, evaluation
        self._device, self._graphed = device, graphed or device.type == "cuda"
        dtype = DTYPES[config.dtype]
        self._state = mrq_net.to_dtype(mrq_net.state_encoder(config, spec), dtype).requires_grad_(False)
        self._actor = Actor(config, spec)
        mrq_net.to_dtype(self._actor, dtype).requires_grad_(False)
        parts = {"state": placed(self._state, device), "policy": placed(self._actor, device)}
        named = {f"{part}.{name}": p for part, net in parts.items() for name, p in net.named_parameters()}
        self._weights = Adopted(named, device)
        self._calls: dict[int, DeviceCall] = {}  # both networks as graphs, by number of environments
        self._noise = config.noise * (DISCRETE_NOISE if spec.actions else 1.0)
        self._epsilon = 1.0

    def load(self, weights: Weights) -> None:
        """Take over the tensors of Agent.weights(); see `Adopted`."""
        given = {f"{part}.{name}": tensor for part in ("state", "policy") for name, tensor in weights[part].items()}
        self._weights.take(given, self._calls)
        self._epsilon = self._config.epsilon_eval if self._evaluation else weights["epsilon"]

    @torch.inference_mode()
    def act(self, obs: Array, stream: Stream) -> tuple[Array, Mapping[str, Array]]:
        """Actions for obs [N, stack, *frame]: [N] int64, or [N, A] float32 in [-1, 1]."""
        explore = stream.uniform(len(obs)) < self._epsilon
        action = uniform_actions(self._spec, len(obs), stream)
        if not explore.all():
            chosen = self._chosen(torch.from_numpy(obs), stream).numpy()
            action[~explore] = chosen[~explore]
        return action, {}

    def _chosen(self, obs: Tensor, stream: Stream) -> Tensor:
        pre = self._read(obs)
        gumbel = gumbel_noise(stream, *pre.shape) if self._spec.actions else torch.zeros(())
        action = self._actor.action(pre, gumbel)
        if not self._evaluation:
            action = action + torch.from_numpy(stream.normal(*action.shape)) * self._noise
        return action.argmax(-1) if self._spec.actions else action.clamp(-1.0, 1.0)

    def _read(self, obs: Tensor) -> Tensor:
        """What becomes the actions by tanh or a softmax, [N, A] float32 on the host."""
        if not self._graphed:
            return self._both(obs)
        if len(obs) not in self._calls:
            output = Field((len(obs), mrq_net.action_size(self._spec)), torch.float32)
            self._calls[len(obs)] = DeviceCall(self._both, [field_of(obs)], output, self._device)
        return torch.from_numpy(self._calls[len(obs)](obs))

    def _both(self, obs: Tensor) -> Tensor:
        with products(tf32=False):
            pre: Tensor = self._actor(self._state(obs))
        return pre


class Agent:
    """Replay, networks and optimisers. `update` is one gradient step of value and policy; the encoder's come in bursts, one for each
    of the updates that follow."""

    config_class: ClassVar[type[Config]] = Config

    def __init__(
        self, config: Config, spec: Spec, streams: int, seed: int, device: str = "cpu", *, feed: str = ""
    ) -> None:
        """A newly initialised agent.

        Args:
            streams: environments whose rollouts `observe` will see.
            seed: of the run; names the streams "init", "noise", "augment", "redo", "sigreg" and "replay".
            device: where it learns and acts: "cpu", "cuda" or "cuda:N".
            feed: "resident": learn as a GPU does, from a replay on the device, on the CPU, too; there to the bits of "", which on a GPU is
                "resident".
        """
        self.device = require(device)
        if feed not in ("", "resident"):
            raise ValueError(f'feed must be "" or "resident", got {feed!r}')
        self._graphed = feed == "resident" or self.device.type == "cuda"
        if not spec.actions and len(spec.action_shape) != 1:
            raise ValueError(f"this agent needs discrete actions or vectors, got actions {list(spec.action_shape)}")
        self.config, self.spec, self._dtype = config, spec, DTYPES[config.dtype]
        self._streams = streams
        self._pixels, self._actions = mrq_net.is_image(spec), mrq_net.action_size(spec)
        replay = partial(DeviceReplay, device=self.device) if self._graphed else Replay
        self.replay: Any = replay(
            spec,
            config.capacity,
            streams,
            config.n,
            max(config.horizon, config.n),
            config.alpha,
            Stream(seed, "replay"),
        )
        self._noise, self._augment = self._stream(seed, "noise"), self._stream(seed, "augment")
        self.bins = mrq_net.symexp_bins(config.bins).to(self.device)
        self._redo = Recycler(config.redo, seed)
        self.master = self._fresh(Stream(seed, "init"))  # what the optimisers move
        half = self._dtype != torch.float32
        self.online = self._net() if half else self.master  # what is evaluated
        self.target = self._net().requires_grad_(False)
        self._initial = l2_init.initial(self.master.named_parameters(), config.l2_init)
        spectral_norm.iterate_(self.master, spectral_norm.START)
        self._optimizers = {
            part: torch.optim.AdamW(
                getattr(self.master, part).parameters(),
                config.encoder_learning_rate if part == "encoder" else config.learning_rate,
                weight_decay=config.weight_decay,
                fused=True,
                capturable=self.device.type == "cuda",
            )
            for part in PARTS
        }
        for part in PARTS:
            self._round(part)
            # Its steps before the capture run eagerly on purpose; torch would warn of the first one.
            self._optimizers[part]._warned_capturable_if_run_uncaptured = True  # noqa: SLF001
        self._copy_to_target()
        self._sigreg = SigReg(config.sigreg, self._stream(seed, "sigreg"))
        self._pruners = {part: Pruner(getattr(self.master, part), config.pruning) for part in PARTS}
        self._steps = 0  # agent steps observed
        self._updates = 0  # of value and policy
        self._encoder_updates = 0
        # 1 once an episode was seen to terminate: before that nothing is learned about ends.
        self._terminates = torch.zeros((), device=self.device)
        self.scale = Scale(torch.ones((), device=self.device), torch.ones((), device=self.device))
        self._encoder_loss = torch.zeros(3, device=self.device)  # dynamics, reward, done: of the encoder's last step
        self._unroll_batch: Batch | None = None  # memory that is sampled into again and again
        self._batch: Batch | None = None
        self.launches = self._as_launches() if self._graphed else None

    def _as_launches(self) -> Launches:
        for parameter in self.master.parameters():
            parameter.grad = torch.zeros_like(parameter)
        names = ["losses/value_loss", "losses/policy_loss", "losses/q_values"]
        names += sigreg.METRICS if self.config.sigreg.weight else []
        return Launches(self.config, self.replay, self._augment, self.learn, self.learn_encoder, names)

    def _stream(self, seed: int, name: str) -> Any:
        """A Stream, or its twin that draws on the device."""
        return DeviceStream(Stream(seed, name), self.device) if self._graphed else Stream(seed, name)

    def _net(self) -> Net:
        net = Net(self.config, self.spec, self._dtype)
        spectral_norm.attach_(net, self.config.spectral_norm)
        return placed(net, self.device)

    def _fresh(self, stream: Stream) -> Net:
        """Newly initialised, in float32."""
        net = Net(self.config, self.spec, torch.float32)
        net.init_(stream)
        spectral_norm.attach_(net, self.config.spectral_norm)
        return placed(net, self.device)

    @property
    def ready(self) -> bool:
        return self._steps > self.config.min_replay and self.replay.can_sample

    def policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=False, device=self.device, graphed=self._graphed)

    def eval_policy(self) -> Policy:
        return Policy(self.config, self.spec, evaluation=True, device=self.device, graphed=self._graphed)

    def weights(self) -> Weights:
        return {
            "state": spectral_norm.acting(self.online.encoder.state),
            "policy": spectral_norm.acting(self.online.policy),
            "epsilon": 1.0 if self._steps < self.config.min_replay else self.config.epsilon,
        }

    def probe(self) -> Probe:
        """The policy without noise, by what becomes its action, and the lesser of the twins' values of it."""
        net, discrete = self.online, self.spec.actions > 0

        def forward(obs: Tensor) -> tuple[Tensor, Tensor]:
            zs = net.encoder.state(obs)
            pre = net.policy(zs)
            action = net.policy.action(pre, torch.zeros_like(pre))
            zsa = net.encoder.pair(zs, net.encoder.embed(action.detach()))
            return pre if discrete else action, net.value(zsa).amin(0)

        return Probe(net, forward, self.master, outputs=("policy.linear3",))

    def observe(self, rollouts: list[Rollout]) -> None:
        if self._redo.due():
            self._recycle()
        for rollout in rollouts:
            self.replay.add(rollout)
            self._steps += rollout.reward.size
            if rollout.terminated.any():
                self._terminates.fill_(1.0)

    def update(self) -> Metrics:
        """One gradient step of the value, then one of the policy, on one batch, whose new priorities go back to the replay.

        Before every `target_period`-th update, the first included, the targets become copies and the encoder takes as many
        gradient steps as updates will follow: so inputs and targets of value and policy stand still until the next copy.
        """
        config = self.config
        if self._updates % config.target_period == 0:
            self._begin_period()
        for part in ("value", "policy"):
            self._pruners[part].begin()
        if self.launches is not None:
            self.launches.update()
            said = self.launches.metrics
        else:
            self._batch = batch = self.replay.sample(
                config.batch, config.n, config.gamma, config.single_rewards, self._batch
            )
            said, priority = self.learn(self.transitions(batch))
            self.replay.update_priority(batch.index, priority.numpy())
        self._updates += 1
        self._redo.tick()
        dynamics, reward, done = self._encoder_loss
        metrics = {
            **said, "losses/dynamics_loss": dynamics, "losses/reward_loss": reward, "losses/done_loss": done,
            "charts/reward_scale": self.scale.online, "charts/encoder_updates": torch.tensor(self._encoder_updates),
        }  # fmt: skip
        for part, pruner in self._pruners.items():
            metrics |= pruner.metrics(part)
        return metrics | self._redo.metrics()

    def learn(self, x: Transitions) -> tuple[dict[str, Tensor], Tensor]:
        """What a gradient step does to value and policy: the metrics that this configuration has, and priorities [B]."""
        noise = self._draw_noise()
        y = mrq_net.value_target(self.target, x, noise, self.scale)
        at = mrq_net.embed(self.online.encoder, x)
        features = self.online.value.features(at.zsa)
        parts = self._sigreg.parts(*features) if self._sigreg.on else None
        value_loss, td, q = mrq_net.value_loss(self.online.value.read(*features), y)
        total, said = value_loss, dict[str, Tensor]()
        if parts is not None:
            total, said = total + self._sigreg.loss(parts), sigreg.metrics(parts)
        self._step("value", total)
        policy_loss = mrq_net.policy_loss(
            self.online.policy, self.online.encoder, self.online.value, at.zs, noise.gumbel
        )
        self._step("policy", policy_loss)
        said |= {
            "losses/value_loss": value_loss.detach(), "losses/policy_loss": policy_loss.detach(),
            "losses/q_values": q * self.scale.online,
        }  # fmt: skip
        return said, td.clamp(min=1.0)

    def encoder_update(self) -> None:
        """One gradient step of the encoder on one batch of subsequences, drawn as those of `update` are."""
        config = self.config
        self._pruners["encoder"].begin()
        if self.launches is not None:
            self.launches.encoder_update()
        else:
            batch = self.replay.sample(config.batch, 1, 0.0, config.horizon, self._unroll_batch)
            self._unroll_batch = batch
            self.learn_encoder(self.unroll(batch))
        self._encoder_updates += 1

    def learn_encoder(self, x: Unroll) -> None:
        """What a gradient step does to the encoder."""
        loss = mrq_net.encoder_loss(
            self.online.encoder, self.target.encoder, x, self.bins, self.config, terminates=self._terminates
        )
        self._step("encoder", loss.total)
        self._encoder_loss.copy_(torch.stack(loss[1:]))

    def unroll(self, batch: Batch) -> Unroll:
        """A batch as the encoder's loss takes it."""
        return Unroll(
            self._observations([*batch.obs.swapaxes(0, 1)]),
            self._actions_taken(batch),
            torch.from_numpy(batch.reward).T.contiguous(),
            torch.from_numpy(batch.terminated.astype(np.float32)).T,
            torch.from_numpy(batch.mask.astype(np.float32)).T,
        )

    def transitions(self, batch: Batch) -> Transitions:
        """A batch as the losses of value and policy take it."""
        n_return = torch.from_numpy(batch.n_return)
        if self.config.single_rewards:
            reward, terminated = torch.from_numpy(batch.reward), torch.from_numpy(batch.terminated)
            n_return = mrq_net.n_step_return(reward, terminated, self.config)
        return Transitions(
            self._observations([batch.obs[:, 0], batch.next_obs]),
            self._actions_taken(batch)[0],
            n_return,
            torch.from_numpy(batch.discount),
        )

    def _actions_taken(self, batch: Batch) -> Tensor:
        by_time, index = torch.from_numpy(batch.action).transpose(0, 1), torch.from_numpy(batch.index)
        return mrq_net.actions_taken(by_time, index, self.spec, self.config, self._streams)

    def _observations(self, parts: list[Array]) -> Tensor:
        """Behind each other; images are shifted at random, each stack by a draw of its own."""
        if not self._pixels:
            return torch.from_numpy(np.concatenate(parts))
        images = [part.reshape(len(part), -1, *part.shape[-2:]) for part in parts]
        return augment.apply(images, shifts(self._augment, len(images) * len(images[0])), self._dtype)

    def _draw_noise(self) -> Noise:
        shape, config = (self.config.batch, self._actions), self.config
        much = DISCRETE_NOISE if self.spec.actions else 1.0
        normal = torch.as_tensor(self._noise.normal(*shape)) * (much * config.target_noise)
        target = normal.clamp(-much * config.noise_clip, much * config.noise_clip)
        if not self.spec.actions:
            return Noise(target, torch.zeros(()), torch.zeros(()))
        return Noise(target, gumbel_noise(self._noise, *shape), gumbel_noise(self._noise, *shape))

    def _begin_period(self) -> None:
        self._copy_to_target()
        least = RELEASED_LEAST_SCALE if self.config.release.reward_scale else LEAST_SCALE
        scale = max(self.replay.mean_abs_reward, least)
        # The first targets were learned with no scale yet, so that they are in the units of what is learned now.
        first = self._updates == 0 and not self.config.release.reward_scale
        self.scale.target.copy_(self.scale.online)
        for of in self.scale if first else self.scale[:1]:
            of.fill_(scale)
        for _ in range(self.config.target_period):
            self.encoder_update()

    def _step(self, part: str, loss: Tensor) -> None:
        """Gradient and optimiser step of one part alone, whatever else the loss went through."""
        master, online = (list(getattr(net, part).parameters()) for net in (self.master, self.online))
        if self._graphed:  # a device is not waited for: see Learner, and DeviceReplay.check
            write_gradients(loss, online, master)
        else:
            take_gradients(part, loss, online, master, after=self._steps)
        if self._initial is not None:
            named = getattr(self.master, part).named_parameters()
            self._initial.pull_((f"{part}.{name}", p) for name, p in named)
        if part == "value":
            nn.utils.clip_grad_norm_(master, self.config.grad_clip)
        self._optimizers[part].step()
        self._pruners[part].apply_(getattr(self.master, part))
        self._round(part)
        if self.config.spectral_norm:
            spectral_norm.iterate_(getattr(self.online, part))

    @torch.no_grad()
    def _round(self, part: str) -> None:
        """Round float32 weights to the dtype in which the networks are evaluated."""
        if self.online is not self.master:
            master, online = (list(getattr(net, part).parameters()) for net in (self.master, self.online))
            torch._foreach_copy_(online, master)

    @torch.no_grad()
    def _copy_to_target(self) -> None:
        torch._foreach_copy_(list(self.target.parameters()), list(self.online.parameters()))
        spectral_norm.copy_(self.target, self.online)

    def _recycle(self) -> None:
        """Dormant units of the networks that learn; the targets take them over with the next copy."""
        probe = self.probe()
        layers, _ = record(self.online, probe.forward, self._redo.observations(self.replay), probe.outputs)
        fresh = self._fresh(self._redo.stream)
        self._redo.recycle_(self.master, fresh, self.master.links(), layers, self._optimizers.values())
        for part in PARTS:
            self._pruners[part].apply_(getattr(self.master, part))  # what was pruned stays so
            self._round(part)
        spectral_norm.iterate_(self.online, spectral_norm.START)

    def state_dict(self) -> State:
        """Copies on the CPU, so that the agent may go on while they are written, and on another device when they are read."""
        if self.launches is not None:
            self.replay.check()
        online = dict(self.master.named_parameters())
        return {
            "online": {name: checkpoint.saved(p) for name, p in online.items()},
            "target": {name: checkpoint.saved(p.float()) for name, p in self.target.named_parameters()},
            "adam": checkpoint.moments_of(online, *self._optimizers.values()),
            "noise": self._noise.state_dict(),
            "augment": self._augment.state_dict(),
            "steps": self._steps,
            "updates": self._updates,
            "encoder_updates": self._encoder_updates,
            "terminates": bool(self._terminates),
            "scale": {name: checkpoint.saved(of) for name, of in self.scale._asdict().items()},
            "encoder_loss": checkpoint.saved(self._encoder_loss),
            **self._techniques().state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self.master.load_state_dict(state["online"])
        self.target.load_state_dict(state["target"])
        for part in PARTS:
            self._round(part)
        checkpoint.load_moments(state["adam"], dict(self.master.named_parameters()), *self._optimizers.values())
        self._noise.load_state_dict(state["noise"])
        self._augment.load_state_dict(state["augment"])
        self._steps, self._updates = int(state["steps"]), int(state["updates"])
        self._encoder_updates = int(state["encoder_updates"])
        self._terminates.fill_(float(state["terminates"]))
        for name, of in self.scale._asdict().items():
            of.copy_(state["scale"][name])
        self._encoder_loss.copy_(state["encoder_loss"])
        self._techniques().load_state_dict(state)
        if self.launches is not None:
            self.launches.forget()  # moments are others

    def _techniques(self) -> checkpoint.Techniques:
        pruners = {f"pruning_{part}": pruner for part, pruner in self._pruners.items()}
        return checkpoint.Techniques(
            {"online": self.online, "target": self.target}, self._sigreg, pruners, self._redo, self._initial
        )


def gumbel_noise(stream: Stream | DeviceStream, *shape: int) -> Tensor:
    """Standard Gumbel draws, float32: -log E for E exponential, at least 2^-54 so that all are finite."""
    uniform = torch.as_tensor(stream.uniform(*shape))
    return -(-torch.log1p(-uniform)).clamp(min=2.0**-54).log().float()


def shifts(stream: Stream, images: int) -> augment.Draw:
    """DrQ's augmentation for `images` stacked observations: each by -4 to 4 pixels along either axis, and no change of
    intensity."""
    shift = stream.integers(2 * augment.PAD + 1, images, 2) - augment.PAD
    return augment.Draw(shift, np.ones(images, np.float32))
