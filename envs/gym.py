"""Gymnasium's face: our batches as its environments, and its vector environments as our batches.

Importing this module registers "rlplatform/Catch-v0", "rlplatform/Atari-<Game>-v0", "rlplatform/MinAtar-<Game>-v0",
"rlplatform/DMC-Walker-walk-v0" and all other tasks, and classic control under the names that it has in Gymnasium
("rlplatform/CartPole-v1").

Episodes here are whole games: where a suite's protocol lets a life lost terminate, these faces switch that off, so that
wrappers that sum rewards report scores. `protocol=` brings it back.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any, SupportsFloat, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from rlplatform.actor import FrameStack
from rlplatform.envs import make, suite_of, tasks
from rlplatform.envs.control import GAMES
from rlplatform.envs.native import check_state, describe
from rlplatform.streams import Stream
from rlplatform.types import Array, EnvBatch, Spec, State, Step

STATE_VERSION = 1
_SPELLINGS = {  # families whose name is more than a capital and the rest
    "minatar": "MinAtar",
    "continual-minatar": "ContinualMinAtar",
    "continual-permuted": "PermutedMinAtar",
    "continual-control": "ContinualControl",
    "continual-gym": "ContinualGym",
    "continual-dmc": "ContinualDMC",
    "dmc": "DMC",
    "dmc-visual": "DMC-visual",
    "dmc10-resets": "DMC10-resets",
    "multitask-dmc6": "Multitask-DMC6",
    "multitask-dmc21": "Multitask-DMC21",
}


class VectorFace(VectorEnv[Array, Array, Array]):
    """An EnvBatch as a `gymnasium.vector.VectorEnv` with same-step auto-reset.

    Observations are stacked, [N, stack, *frame]. Where an episode ended, `infos["final_obs"]` has its last observation,
    under the mask `infos["_final_obs"]`, and `infos["final_info"]["restarted"]` says whether the game itself began anew
    (it did not where a life lost terminates). `infos["phase"]` is the phase of environments that change.

    Args:
        num_envs: N.
        task: what `rlplatform.envs.make` takes.
        seed: used until `reset` brings another.
        render_mode: "rgb_array" or None.
        options: to `make`, such as protocol.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(
        self, num_envs: int = 1, *, task: str, seed: int = 0, render_mode: str | None = None, **options: Any
    ) -> None:
        self._make, self._batch = _maker(task, num_envs, seed, options)
        spec = self._batch.spec
        self.num_envs, self.render_mode = num_envs, _known_mode(render_mode)
        self.metadata = {**self.metadata, "render_fps": max(1, 60 // spec.frames_per_step)}
        self.single_observation_space, self.single_action_space = _spaces(spec)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self._stack = FrameStack(num_envs, spec)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin all games. A seed replaces the environments' streams; without one they go on.

        Raises:
            ValueError: a list of seeds (environment i draws from (seed, i)) or a reset mask: neither is offered.
        """
        if options and "reset_mask" in options:
            raise ValueError("reset_mask is not offered: environments reset themselves, in the same step")
        if isinstance(seed, list):
            raise ValueError("give one seed: environment i draws from the stream (seed, i)")  # noqa: TRY004  # not offered
        if seed is not None:
            self._batch.close()
            self._batch = self._make(seed)
        frame = self._batch.reset()
        return self._stack.push(frame, np.ones(self.num_envs, bool)).copy(), self._phase()

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        step = self._batch.step(_native_action(actions, self._batch))
        done = step.terminated | step.truncated
        infos = self._phase() | (self._final_infos(step, done) if done.any() else {})
        obs = self._stack.push(step.frame, done).copy()
        return obs, step.reward.astype(np.float64), step.terminated, step.truncated, infos

    def render(self) -> tuple[Array, ...] | None:
        return tuple(_render(self._batch, i) for i in range(self.num_envs)) if self.render_mode else None

    def close_extras(self, **kwargs: Any) -> None:
        self._batch.close()

    def _phase(self) -> dict[str, Any]:
        """What a changing environment adds to its infos."""
        phase = getattr(self._batch, "phase", None)
        return {} if phase is None else {"phase": np.full(self.num_envs, phase), "_phase": np.ones(self.num_envs, bool)}

    def _final_infos(self, step: Step, done: Array) -> dict[str, Any]:
        last = step.frame.copy()
        last[step.final_env] = step.final_frame
        final = np.concatenate([self._stack.obs[:, 1:], last[:, None]], axis=1)
        final_obs = np.full(self.num_envs, None, object)
        for i in np.flatnonzero(done):
            final_obs[i] = final[i]
        final_info = {"restarted": step.reset.copy(), "_restarted": done.copy()}
        return {"final_obs": final_obs, "_final_obs": done.copy(), "final_info": final_info, "_final_info": done.copy()}


class Face(gymnasium.Env[Array, Any]):
    """One environment of an EnvBatch as a `gymnasium.Env`: no auto-reset, `reset` begins the next game.

    Takes the arguments of VectorFace, less num_envs.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # Gymnasium's own form

    def __init__(self, *, task: str, seed: int = 0, render_mode: str | None = None, **options: Any) -> None:
        self._make, self._batch = _maker(task, 1, seed, options)
        self.render_mode = _known_mode(render_mode)
        self.metadata = {**self.metadata, "render_fps": max(1, 60 // self._batch.spec.frames_per_step)}
        self.observation_space, self.action_space = _spaces(self._batch.spec)
        self._stack = FrameStack(1, self._batch.spec)
        self._next: Array | None = None  # the first frame of the next game, where the last has ended
        self._playing = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin a game; with a seed, the first game of the environment so seeded."""
        super().reset(seed=seed)
        if seed is not None:
            self._batch.close()
            self._batch, self._next = self._make(seed), None
        frame = self._batch.reset() if self._next is None else self._next
        self._next, self._playing = None, True
        return self._stack.push(frame, np.ones(1, bool))[0].copy(), {}

    def step(self, action: Any) -> tuple[Array, SupportsFloat, bool, bool, dict[str, Any]]:
        """Raises gymnasium.error.ResetNeeded after the end of an episode."""
        if not self._playing:
            raise gymnasium.error.ResetNeeded("reset() begins an episode; the last one, if there was one, is over")
        step = self._batch.step(_native_action(np.asarray(action)[None], self._batch))
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        if terminated or truncated:
            self._next, self._playing = step.frame, False
        frame = step.final_frame if step.reset[0] else step.frame
        obs = self._stack.push(frame, np.zeros(1, bool))[0].copy()
        return obs, float(step.reward[0]), terminated, truncated, {}

    def render(self) -> Any:
        return _render(self._batch, 0) if self.render_mode else None

    def close(self) -> None:
        self._batch.close()


class GymBatch:
    """A `gymnasium.vector.VectorEnv` as an EnvBatch, whatever its auto-reset mode.

    Same-step environments are taken as they are. Others are reset by mask as soon as an episode ends, so that the step
    which Gymnasium spends on a reset never appears; one environment alone may also be stepped over it.

    Gymnasium cannot save environments, so a state is the actions since the seed, and loading plays them again: exact where
    the environment is deterministic, which a digest of all frames and rewards checks.

    Args:
        make_vector: makes the vector environment; called again by load_state_dict. Box observations; Discrete actions, or
            Box ones, to whose bounds [-1, 1] is stretched.
        seed, first_env: environment i is seeded by the stream (seed, "env", first_env + i), 31 bits of its key. A vector
            environment that is not made of single ones takes one seed only, and is given the first.
    """

    device = "cpu"

    def __init__(self, make_vector: Callable[[], VectorEnv[Any, Any, Any]], seed: int, first_env: int = 0) -> None:
        self._make_vector, self.first_env = make_vector, first_env
        self._vector: VectorEnv[Any, Any, Any] | None = make_vector()
        self.n = self._vector.num_envs
        self.spec, self._low, self._high = _spec_of(self._vector)
        self._seeds = [Stream(seed, "env", first_env + i).key >> 33 for i in range(self.n)]
        self._mode = self._vector.metadata.get("autoreset_mode")
        if not isinstance(self._mode, AutoresetMode):
            raise ValueError(  # noqa: TRY004  # its metadata are wrong, not its type
                f"{self._vector} does not say its auto-reset mode: metadata['autoreset_mode'] is {self._mode!r}"
            )
        self._actions: list[Array] = []
        self._resets: list[int] = []  # how many actions had been taken at each reset()
        self._digest = hashlib.blake2b(digest_size=16)

    def reset(self) -> Array:
        vector, seed = self._open(), None
        if not self._resets:
            seed = list(self._seeds) if isinstance(vector.unwrapped, SyncVectorEnv | AsyncVectorEnv) else self._seeds[0]
        frame, _ = vector.reset(seed=cast(Any, seed))  # not every VectorEnv's annotation allows a list
        self._resets.append(len(self._actions))
        frame = self._as_frame(frame)
        self._digest.update(frame.tobytes())
        return frame

    def step(self, action: Array) -> Step:
        vector = self._open()
        if not self._resets:
            raise ValueError("reset() the environments before the first step()")
        self._check(action)
        obs, reward, terminated, truncated, infos = vector.step(self._foreign(action))
        self._actions.append(action.copy())
        done = np.asarray(terminated | truncated, bool)
        final_env = np.flatnonzero(done)
        last = self._as_frame(obs)
        frame = last
        if final_env.size and self._mode is AutoresetMode.SAME_STEP:
            last = frame.copy()
            for i in final_env:
                last[i] = infos["final_obs"][i]
        elif final_env.size:
            frame = self._restarted(last, done)
        step = Step(
            frame, np.asarray(reward, np.float32), np.array(terminated, bool), np.array(truncated, bool), done,
            last[final_env].copy(), final_env,
        )  # fmt: skip
        for part in step:
            self._digest.update(np.ascontiguousarray(part).tobytes())
        return step

    def render(self, i: int = 0) -> Array:
        """Environment i as a picture, [height, width, 3] uint8, where the vector environment renders to rgb_array."""
        pictures = self._open().render()
        if pictures is None:
            raise ValueError("make the vector environment with render_mode='rgb_array' to render it")
        return np.asarray(pictures[i])

    def state_dict(self) -> State:
        self._open()
        return {
            **self._origin(),
            "actions": np.array(self._actions, self.spec.action_dtype).reshape(-1, self.n, *self.spec.action_shape),
            "resets": np.array(self._resets, np.int64),
            "digest": self._digest.hexdigest(),
        }

    def load_state_dict(self, state: State) -> None:
        """Play a saved state's actions again, in new environments.

        Raises:
            ValueError: the state is of other environments, or these are not deterministic. Nothing has changed then.
        """
        self._open()
        check_state(state, self._origin())
        again = GymBatch(self._make_vector, 0, self.first_env)
        again._seeds = self._seeds
        resets = set(np.asarray(state["resets"]).tolist())
        try:
            for t, action in enumerate(np.asarray(state["actions"])):
                if t in resets:
                    again.reset()
                again.step(action)
            if len(state["actions"]) in resets:
                again.reset()
        except ValueError as error:
            again.close()
            raise ValueError(f"the saved actions do not fit these environments: {error}") from error
        if again._digest.hexdigest() != state["digest"]:
            again.close()
            raise ValueError("these environments are not deterministic: the same actions led elsewhere")
        self.close()
        self._vector, self._digest = again._vector, again._digest
        self._actions, self._resets = again._actions, again._resets

    def close(self) -> None:
        if self._vector is not None:
            self._vector.close()
        self._vector = None

    def _open(self) -> VectorEnv[Any, Any, Any]:
        if self._vector is None:
            raise ValueError("these environments are closed")
        return self._vector

    def _origin(self) -> State:
        return {
            "env": "gymnasium",
            "version": STATE_VERSION,
            "seeds": self._seeds,
            "spec": dataclasses.asdict(self.spec),
        }

    def _as_frame(self, obs: Any) -> Array:
        frame: Array = np.array(obs, self.spec.frame_dtype)
        return frame

    def _check(self, action: Array) -> None:
        found: Any = action  # whatever its annotation says
        shape = (self.n, *self.spec.action_shape)
        if not isinstance(found, np.ndarray) or found.dtype != self.spec.action_dtype or found.shape != shape:
            raise ValueError(f"action must be {self.spec.action_dtype} {list(shape)}, got {describe(found)}")
        low, high = (0, self.spec.actions - 1) if self.spec.actions else (-1.0, 1.0)
        if not bool(((found >= low) & (found <= high)).all()):
            raise ValueError(f"actions must lie in [{low}, {high}]")

    def _foreign(self, action: Array) -> Array:
        foreign: Array
        if self.spec.actions:
            foreign = action + self._low
        else:
            foreign = (self._low + (action.astype(np.float64) + 1.0) * 0.5 * (self._high - self._low)).astype(
                np.float32
            )
        return foreign

    def _restarted(self, last: Array, done: Array) -> Array:
        """First frames of the games that were over, the others' unchanged."""
        vector = self._open()
        if self.n == 1 and self._mode is AutoresetMode.NEXT_STEP:
            frame, *_ = vector.step(self._foreign(np.zeros_like(self._actions[-1])))  # the action is ignored
            return self._as_frame(frame)
        frame, _ = vector.reset(options={"reset_mask": done})
        frame = self._as_frame(frame)
        if not np.array_equal(frame[~done], last[~done], equal_nan=frame.dtype.kind == "f"):
            raise RuntimeError(
                f"{vector} does not heed options['reset_mask']: use its same-step mode, or one environment"
            )
        return frame


def gym_id(task: str) -> str:
    """The name under which Gymnasium knows a task: "atari/Pong" is "rlplatform/Atari-Pong-v0", "control/CartPole" is
    "rlplatform/CartPole-v1", whose rules are those of its own "CartPole-v1"."""
    family, _, game = task.partition("/")
    if family == "control" and game in GAMES:
        return f"rlplatform/{GAMES[game].gymnasium}"
    parts = (_SPELLINGS.get(part, part[:1].upper() + part[1:]) for part in task.split("/"))
    return "rlplatform/" + "-".join(parts) + "-v0"


def register_task(task: str) -> str:
    """Register a task (of `rlplatform.envs.register`, say) with Gymnasium; returns its name there."""
    name = gym_id(task)
    gymnasium.register(
        name,
        entry_point="rlplatform.envs.gym:Face",
        vector_entry_point="rlplatform.envs.gym:VectorFace",
        kwargs={"task": task},
        order_enforce=False,  # the faces check this themselves
    )
    return name


def _maker(task: str, n: int, seed: int, options: dict[str, Any]) -> tuple[Callable[[int], EnvBatch], EnvBatch]:
    protocol = options.pop("protocol", None)
    if protocol is None:
        protocol = suite_of(task).protocol
        if hasattr(protocol, "life_loss_terminal"):
            protocol = dataclasses.replace(protocol, life_loss_terminal=False)

    def make_batch(seed: int) -> EnvBatch:
        return make(task, n, int(seed), protocol=protocol, **options)

    return make_batch, make_batch(seed)


def _spaces(spec: Spec) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    dtype = np.dtype(spec.frame_dtype)
    low, high = (0, 255) if dtype == np.uint8 else (-np.inf, np.inf)
    observation = spaces.Box(low, high, (spec.stack, *spec.frame_shape), dtype.type)
    if spec.actions:
        return observation, spaces.Discrete(spec.actions)
    return observation, spaces.Box(-1.0, 1.0, spec.action_shape, np.float32)


def _native_action(action: Any, batch: EnvBatch) -> Array:
    """An action from Gymnasium's space, in the dtype that a batch demands."""
    return np.asarray(action).astype(batch.spec.action_dtype, casting="same_kind")


def _render(batch: Any, i: int) -> Array:
    picture: Array = batch.render(i)
    return picture


def _known_mode(render_mode: str | None) -> str | None:
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f'render_mode must be "rgb_array" or None, got {render_mode!r}')
    return render_mode


def _spec_of(vector: VectorEnv[Any, Any, Any]) -> tuple[Spec, Any, Any]:
    """Spec of a vector environment's frames and actions, and the bounds of the latter."""
    observation, action = vector.single_observation_space, vector.single_action_space
    if not isinstance(observation, spaces.Box) or observation.shape == ():
        raise ValueError(f"observations must be a Box, got {observation}: flatten them first")
    dtype = "uint8" if observation.dtype == np.uint8 else "float32"
    if isinstance(action, spaces.Discrete):
        spec = Spec(frame_shape=observation.shape, frame_dtype=dtype, stack=1, actions=int(action.n))
        return spec, int(action.start), None
    if isinstance(action, spaces.Box) and action.is_bounded():
        spec = Spec(observation.shape, dtype, stack=1, actions=0, action_shape=action.shape)
        return spec, action.low.astype(np.float64), action.high.astype(np.float64)
    raise ValueError(f"actions must be Discrete or a bounded Box, got {action}")


for _task in tasks():
    register_task(_task)
