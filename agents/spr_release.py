"""The batches that BBF's released code learns from, where they differ from the paper's; see Release in spr_config.py."""

import numpy as np

from rlplatform.agents.spr_config import Config, Release
from rlplatform.replay import Batch, Replay


def sample(replay: Replay, config: Config, n: int, gamma: float, out: Batch | None = None) -> Batch:
    """`replay.sample` with the departures that config.release names; where it names none, into `out` if that is given."""
    k, release = config.spr_steps, config.release
    if out is not None and release == Release():
        return replay.sample(config.batch, n, gamma, k, out)
    batch = replay.sample(config.batch, n, gamma, k + 1 if release.mask else k)
    if release.n_step:
        # Rewards of n steps, the state n - 1 steps ahead, gamma^n: the last reward counts twice.
        short = replay.gather(batch.index, n - 1, gamma)
        batch = batch._replace(next_obs=short.next_obs, discount=(gamma * short.discount).astype(np.float32))
    if release.mask:
        batch = _mask(replay, batch, k)
    return batch


def _mask(replay: Replay, batch: Batch, k: int) -> Batch:
    """The mask of step j also asks that nothing ends in t + j itself; row 0 has none, and sees what the replay holds after an
    end: the next episode. Where that is not in the replay yet, the row stays masked."""
    obs, mask = batch.obs[:, : k + 1].copy(), batch.mask[:, 1:].copy()
    for j in range(1, k + 1):
        if not batch.mask[0, j - 1]:
            try:
                next_episode = replay.gather(batch.index[:1] + j * replay.streams, 1, 1.0)
            except ValueError:  # not eligible
                continue
            obs[0, j] = next_episode.obs[0, 0]
        mask[0, j - 1] = True
    return batch._replace(
        obs=obs, mask=mask, action=batch.action[:, :k], reward=batch.reward[:, :k], terminated=batch.terminated[:, :k]
    )
