"""The updates of mrq.Agent as a GPU takes them: its two kinds of gradient steps as CUDA graphs, over a replay on the device.

The steps themselves are the agent's `learn` and `learn_encoder`; here is what surrounds them: batches, shifts of pictures, priorities and
metrics without a word to the host. On the CPU the same code runs as it stands, which is how it is tested.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rlplatform import device_augment
from rlplatform.agents.mrq_config import DTYPES, Config
from rlplatform.agents.mrq_net import Transitions, Unroll, actions_taken, is_image, n_step_return
from rlplatform.device import products
from rlplatform.device_replay import DeviceBatch, DeviceReplay, Stacks
from rlplatform.device_streams import DeviceStream
from rlplatform.graphs import Graphed
from rlplatform.techniques import augment


class Batches:
    """What one kind of step draws from a replay on the device: the same memory again and again."""

    def __init__(
        self, replay: DeviceReplay, config: Config, n: int, gamma: float, k: int, seen: int, shifts: DeviceStream
    ) -> None:
        """Batches of one size.

        Args:
            n, gamma, k: as of `Replay.sample`.
            seen: how many of the k + 1 observations the step looks at, the first ones, before the bootstrap states if it does at these.
            shifts: what pictures are shifted by.
        """  # fmt: skip
        self._replay, self._config, self._n, self._gamma, self._shifts = replay, config, n, gamma, shifts
        self._batch: DeviceBatch = replay.batch(config.batch, k)
        self._stacks: Stacks = replay.stacks(self._batch)
        self._seen = seen

    def draw(self) -> DeviceBatch:
        """The next one."""
        self._replay.n.fill_(self._n)
        self._replay.gamma.fill_(self._gamma)
        return self._replay.sample(self._batch)

    def observations(self, *, bootstrap: bool) -> Tensor:
        """Of the batch that was just drawn, [M, stack, *frame], as mrq.Agent gives them: all first ones, all second ones, ...; then, if asked
        for, the bootstrap states. Pictures are shifted, and of the networks' dtype."""
        obs, next_obs = self._replay.stack(self._batch, self._stacks)
        parts = [*obs[:, : self._seen].unbind(1), *([next_obs] if bootstrap else [])]
        behind = torch.cat(parts)
        if not is_image(self._replay.spec):
            return behind
        pictures = behind.flatten(1, -3)
        shift = self._shifts.integers(2 * augment.PAD + 1, len(pictures), 2) - augment.PAD
        draw = device_augment.Augmentation(shift, torch.ones(len(pictures), device=shift.device))
        return device_augment.apply(pictures, draw, DTYPES[self._config.dtype])


class Launches:
    """One gradient step of the encoder, or of value and policy, enqueued as one."""

    def __init__(
        self,
        config: Config,
        replay: DeviceReplay,
        shifts: DeviceStream,
        learn: Callable[[Transitions], tuple[dict[str, Tensor], Tensor]],
        learn_encoder: Callable[[Unroll], None],
        metrics: list[str],
    ) -> None:
        """`learn` and `learn_encoder` are the steps, as those of Agent; `metrics` is what the former says."""
        self._config, self._replay, self._learn, self._learn_encoder = config, replay, learn, learn_encoder
        self._k = config.single_rewards
        self._transitions = Batches(replay, config, config.n, config.gamma, self._k, 1, shifts)
        self._subsequences = Batches(replay, config, 1, 0.0, config.horizon, config.horizon + 1, shifts)
        self.metrics = {
            name: torch.zeros((), device=replay.device) for name in metrics
        }  # of the last step of value and policy
        self.update = Graphed(self._update, replay.device)
        self.encoder_update = Graphed(self._encoder_update, replay.device)

    def forget(self) -> None:
        """What the steps read has moved: capture them anew."""
        self.update.forget()
        self.encoder_update.forget()

    def _update(self) -> None:
        batch = self._transitions.draw()
        x = Transitions(
            self._transitions.observations(bootstrap=True), self._actions_taken(batch)[0],
            n_step_return(batch.reward, batch.terminated, self._config) if self._k else batch.n_return, batch.discount,
        )  # fmt: skip
        with products(tf32=False):
            said, priority = self._learn(x)
        self._replay.update_priority(batch.index, priority)
        for name, value in self.metrics.items():
            value.copy_(said[name])

    def _actions_taken(self, batch: DeviceBatch) -> Tensor:
        replay = self._replay
        return actions_taken(batch.action.transpose(0, 1), batch.index, replay.spec, self._config, replay.streams)

    def _encoder_update(self) -> None:
        batch = self._subsequences.draw()
        obs = self._subsequences.observations(bootstrap=False)
        with products(tf32=False):
            self._learn_encoder(
                Unroll(
                    obs,
                    self._actions_taken(batch),
                    batch.reward.T.contiguous(),
                    batch.terminated.T.float(),
                    batch.mask.T.float(),
                )
            )
