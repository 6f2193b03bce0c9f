"""DeepMind Control and Gymnasium's MuJoCo on EnvPool: the throughput backend. Its threads simulate without Python's global lock, on
a MuJoCo of its own and from starts of its own; it cannot be saved, and it is compared with the exact backend by distribution.
"""

from typing import Any

import numpy as np

from rlplatform.envs.dmc import observation_keys, split
from rlplatform.envs.mujoco_gym import check_name
from rlplatform.envs.pool import Pool, env_seeds, package, threads_for
from rlplatform.envs.simulator import check_actions, stretch
from rlplatform.envs.suites import DmcProtocol, GymProtocol
from rlplatform.types import Array, EnvBatch, Spec, Step


def make_pool(
    task: str, n: int, seed: int, first_env: int, protocol: DmcProtocol | GymProtocol, threads: int | None = None
) -> EnvBatch:
    """N environments of one task on EnvPool's threads: as many of these as there are cores, at most n, if not given.

    Environment i is seeded by the stream (seed, "env", first_env + i), 31 bits of its key: what it does depends neither on
    the others nor on threads.

    Raises:
        ValueError: no such task, frames of pixels, threads < 1, or EnvPool is not installed.
    """
    threads = threads_for(n, threads)
    keys: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    if isinstance(protocol, DmcProtocol):
        if protocol.pixels:
            raise ValueError(
                "EnvPool cannot play this protocol: protocol.pixels=True (it draws other pictures; it can with False)"
            )
        domain, of = split(task)
        keys = observation_keys(domain, of)
        name, repeat = f"{_camel(f'{domain}_{of}')}-v1", protocol.action_repeat
    else:
        name, repeat = f"{check_name(task)}-{protocol.version}", 1
        options["post_constraint"] = (
            True  # or the contact forces that Humanoid-v4 shows are 0, which in Gymnasium they are not
        )
    pool = package().make(
        name, env_type="gymnasium", num_envs=n, num_threads=threads, seed=env_seeds(seed, first_env, n),
        max_episode_steps=repeat * protocol.episode_steps + 1,  # time is counted here
        **options,
    )  # fmt: skip
    return MujocoPoolBatch(pool, n, first_env, keys, repeat, protocol)


class MujocoPoolBatch(Pool):
    """By the contract of SimulatorBatch, but for its state: there is none."""

    def __init__(
        self, pool: Any, n: int, first_env: int, keys: tuple[str, ...], repeat: int, protocol: DmcProtocol | GymProtocol
    ) -> None:
        """`keys`: the parts of an observation, in order, of those that EnvPool has (for some tasks more); () where it has no parts."""
        self._keys, self._repeat, self._limit = keys, repeat, protocol.episode_steps
        self._terminates = isinstance(protocol, GymProtocol)
        space = pool.action_space
        self._centre, self._half = stretch(space.low, space.high)
        shapes = pool.observation_space.spaces if keys else {"": pool.observation_space}
        size = sum(int(np.prod(shapes[key].shape)) for key in keys or ("",))
        stack = protocol.stack if isinstance(protocol, DmcProtocol) else 1
        spec = Spec((size,), "float32", stack, actions=0, action_shape=space.shape, frames_per_step=repeat)
        super().__init__(n, first_env, spec, pool)
        self._steps: Array = np.zeros(
            0, np.int64
        )  # [N], agent steps since the episode began; none before the first reset

    def reset(self) -> Array:
        obs, _ = self._opened().reset(self._playing)
        self._steps = np.zeros(self.n, np.int64)
        return self._spread(self._frames(obs))

    def step(self, action: Array) -> Step:
        pool, playing = self._opened(), self._playing
        if not self._steps.size:
            raise ValueError("reset() the environments before the first step()")
        check_actions(action, self.n, self.spec)
        force = (self._centre + self._half * action)[playing]
        reward = np.zeros(len(playing), np.float32)
        for _ in range(self._repeat):
            obs, part, fell, _, info = pool.step(force, playing)
            reward += part
        assert np.array_equal(info["env_id"], playing)
        self._steps[playing] += 1
        terminated = fell.astype(bool) & self._terminates
        truncated = self._steps[playing] >= self._limit
        over = terminated | truncated
        frame, ended = self._spread(self._frames(obs)), playing[over]
        final_frame = frame[ended]
        if ended.size:  # at once: the step that EnvPool would spend on it is never seen
            obs, _ = pool.reset(ended)
            frame[ended] = self._frames(obs)
            self._steps[ended] = 0
        return Step(
            frame, self._spread(reward), self._spread(terminated), self._spread(truncated), self._spread(over),
            final_frame, ended.astype(np.int64),
        )  # fmt: skip

    def _frames(self, obs: Any) -> Array:
        if not self._keys:
            return np.asarray(obs, np.float32)
        parts = [obs[key].reshape(len(obs[key]), -1) for key in self._keys]
        return np.concatenate(parts, axis=1).astype(np.float32)


def _camel(name: str) -> str:
    """ball_in_cup_catch -> BallInCupCatch: EnvPool's names."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))
