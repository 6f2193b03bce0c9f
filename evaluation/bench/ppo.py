"""PPO end to end, acting and learning: agent steps a second beside Stable-Baselines3 and a single-file PPO in CleanRL's style.

    rlplatform bench ppo [--cases C ...] [--rounds N] [--turn S] [--threads T] [--out FILE]

Cases are native CartPole (32 environments, two tanh networks of 64-64), native MinAtar Breakout (64 environments, its paper's network)
and Atari Pong (8 environments, the Nature CNN; on EnvPool where it is installed). All three play the same batches of environments,
through faces that cost the peers as little as we could make them, and take the same number of minibatches of the same size
through the same networks.

  bare    passes through our network, forward to act and forward and backward to learn, and steps of the environments by actions drawn
          beforehand, and nothing else: the bound on `ours`
  ours    Learner, actor and environments as a run has them, with all that it logs
  single  ppo_single_file.py
  sb3     stable_baselines3.PPO (`pip install stable-baselines3`; left out where it is not installed)

Each is a process of its own that waits for its turn; turns follow each other in rounds whose order goes round, so that a busy machine is
busy for all. A figure is steps by wall time; a ratio is the median over rounds of quotients within one round. Seconds of CPU time
of the process are beside it, for a machine on which others work, too.
"""

import argparse
import importlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlplatform import _core
from rlplatform.actor import Actor, FrameStack
from rlplatform.agents import load_preset
from rlplatform.agents.ppo import Agent
from rlplatform.agents.ppo_config import Config
from rlplatform.config import merge
from rlplatform.envs import EXACT, make, suite_of
from rlplatform.envs.gym import VectorFace
from rlplatform.evaluation.bench.ppo_single_file import Args, make_turn
from rlplatform.learner import Learner
from rlplatform.loop import train
from rlplatform.provenance import provenance
from rlplatform.stacks import Observations
from rlplatform.streams import Stream
from rlplatform.types import Array, EnvBatch
from rlplatform.workers.local import LocalWorkers


@dataclass(frozen=True)
class Case:
    """A task, and how PPO learns it."""

    task: str
    envs: int
    steps: int  # of a round, each environment
    batch: int
    epochs: int

    @property
    def round(self) -> int:
        """Agent steps."""
        return self.envs * self.steps

    @property
    def backend(self) -> str:
        """What plays it."""
        pool = self.task.startswith("atari/") and importlib.util.find_spec("envpool") is not None
        return "envpool" if pool else EXACT

    @property
    def protocol(self) -> Any:
        """On Atari the one that every backend can play; else the suite's own."""
        suite = suite_of(self.task)
        return suite.protocol_named("parity") if self.task.startswith("atari/") else suite.protocol

    def options(self) -> dict[str, Any]:
        """Of the environments."""
        return {"backend": self.backend, "protocol": self.protocol}


CASES = {
    "cartpole": Case("control/CartPole", 32, 32, 256, 4),
    "minatar": Case("minatar/Breakout", 64, 32, 256, 3),
    "pong": Case("atari/Pong", 8, 128, 256, 4),
}
KINDS = ("ours", "bare", "single", "sb3")


def main() -> None:
    """Measure, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--turn", type=int, default=8_192, help="agent steps of a turn, at least; whole rounds of learning"
    )
    parser.add_argument("--threads", type=int, default=1, help="of matrix products")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ppo.json")
    parser.add_argument("--only", nargs=3, metavar=("CASE", "KIND", "THREADS"), help="be the one that takes turns")
    given = parser.parse_args()
    if given.only:
        take_turns(*given.only)
        return
    load = list(os.getloadavg())  # before we add to it
    kinds = [kind for kind in KINDS if kind != "sb3" or importlib.util.find_spec("stable_baselines3") is not None]
    rows = []
    for name in given.cases:
        rows.append(measure(name, kinds, given.rounds, given.turn, given.threads))
        if len(rows) == 1:
            print("  ".join(rows[0]))
        print("  ".join(f"{value!s:>{len(key)}}" for key, value in rows[-1].items()), flush=True)
    result: dict[str, Any] = {"rounds": given.rounds, "turn": given.turn, "rows": rows, **provenance(), "load": load}
    if "sb3" in kinds:
        result["stable_baselines3"] = str(importlib.import_module("stable_baselines3").__version__)
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


def measure(name: str, kinds: list[str], rounds: int, turn: int, threads: int) -> dict[str, Any]:
    """One row."""
    case = CASES[name]
    many = -(-turn // case.round)
    children = {kind: Child(name, kind, threads) for kind in kinds}
    wall: dict[str, list[float]] = {kind: [] for kind in kinds}
    cpu: dict[str, list[float]] = {kind: [] for kind in kinds}
    try:
        for k in range(rounds + 1):  # the first warms up and is not counted
            for i in range(len(kinds)):
                kind = kinds[(k + i) % len(kinds)]
                wall_s, cpu_s = children[kind].turn(many)
                wall[kind].append(wall_s)
                cpu[kind].append(cpu_s)
    finally:
        for child in children.values():
            child.close()
    steps = many * case.round
    row: dict[str, Any] = {"case": name, "backend": case.backend, "threads": threads}
    for kind in kinds:
        row[f"{kind}_steps_per_s"] = round(steps / statistics.median(wall[kind][1:]))
    for kind in kinds:
        row[f"{kind}_steps_per_cpu_s"] = round(steps / statistics.median(cpu[kind][1:]))
    for kind in kinds[1:]:
        for what, seconds in (("wall", wall), ("cpu", cpu)):
            quotients = [b / a for a, b in zip(seconds["ours"][1:], seconds[kind][1:], strict=True)]
            row[f"over_{kind}_{what}"] = round(statistics.median(quotients), 2)
            row[f"least_{kind}_{what}"] = round(min(quotients), 2)
    return row


class Child:
    """A process that plays and learns when told to."""

    def __init__(self, case: str, kind: str, threads: int) -> None:
        command = [sys.executable, "-P", "-m", "rlplatform.evaluation.bench.ppo", "--only", case, kind, str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603

    def turn(self, rounds: int) -> tuple[float, float]:
        """Seconds by the wall and of the CPU that so many rounds took.

        Raises:
            RuntimeError: the process is gone; what it said is on the terminal.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{rounds}\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError("a process that was to be timed has ended")
        wall, cpu = json.loads(answer)
        return wall, cpu

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def take_turns(name: str, kind: str, threads: str) -> None:
    """The child's side: a number of rounds a line, its seconds back."""
    torch.set_num_threads(int(threads))
    play = {"ours": ours, "bare": bare, "single": single, "sb3": sb3}[kind](CASES[name])
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        play(int(line))
        print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)


def agent_of(case: Case) -> tuple[Agent, EnvBatch]:
    """Our agent with the others' hyper-parameters, and its environments."""
    preset = load_preset("ppo", suite_of(case.task).name)
    as_the_others = {"batch": case.batch, "epochs": case.epochs, "clip_value": True}
    envs = make(case.task, case.envs, 0, **case.options())
    return Agent(merge(Config(), preset.config, as_the_others), envs.spec, case.envs, seed=0), envs


def bare(case: Case) -> Callable[[int], None]:
    """Its network on frames of a game played at random, as the agent stacks them, and its environments."""
    _core.keep_freed_memory()  # as a learner has it
    agent, envs = agent_of(case)
    spec = envs.spec
    actions = np.random.default_rng(0).integers(0, spec.actions, (case.steps, case.envs))
    envs.reset()
    played = [envs.step(action).frame.copy() for action in actions]
    frames = torch.from_numpy(np.concatenate(played)[-case.batch :])
    seen = Observations(frames, torch.arange(case.batch)[:, None].expand(-1, spec.stack))
    learned, acted = seen[:], seen[: case.envs]
    parameters = list(agent.net.parameters())

    def play(rounds: int) -> None:
        for _ in range(rounds):
            with torch.inference_mode():
                agent.net(acted)  # of the observations after the last step, for their values
                for action in actions:
                    agent.net(acted)
                    envs.step(action)
            for _ in range(case.epochs * case.round // case.batch):
                dist, value = agent.net(learned)
                torch.autograd.grad(dist.sum() + value.sum(), parameters)

    return play


def ours(case: Case) -> Callable[[int], None]:
    """What a run does between two evaluations, less its files."""
    agent, envs = agent_of(case)
    learner = Learner(agent, agent.config.replay_ratio)  # type: ignore[arg-type]  # a Fraction is a number
    workers = LocalWorkers([Actor(agent.policy(), envs, Stream(0, "actor"))], 0)

    def play(rounds: int) -> None:
        for _ in train(learner, workers, rounds, case.steps, 0):
            pass

    return play


def single(case: Case) -> Callable[[int], None]:
    """The single file."""
    envs = VectorFace(case.envs, task=case.task, **case.options())
    return make_turn(envs, Args(case.steps, case.batch, case.epochs))


def sb3(case: Case) -> Callable[[int], None]:
    """Stable-Baselines3, its own policies where it has such a network."""
    package: Any = importlib.import_module("stable_baselines3")
    batch = make(case.task, case.envs, 0, **case.options())
    envs = sb3_envs(batch)
    policy, options = "MlpPolicy", {}
    if case.task.startswith("atari"):
        policy = "CnnPolicy"
    elif case.task.startswith("minatar"):
        policy = "CnnPolicy"
        options = {
            "features_extractor_class": sb3_minatar(),
            "features_extractor_kwargs": {"features_dim": 128},
            "net_arch": [],
        }
    model = package.PPO(
        policy, envs, n_steps=case.steps, batch_size=case.batch, n_epochs=case.epochs, learning_rate=2.5e-4, clip_range=0.2,
        clip_range_vf=0.2, ent_coef=0.01, policy_kwargs=options, device="cpu", verbose=0,
    )  # fmt: skip

    def play(rounds: int) -> None:
        model.learn(rounds * case.round, log_interval=None, reset_num_timesteps=False)

    return play


def sb3_minatar() -> Any:
    """MinAtar's network as one of its features extractors."""
    base: Any = importlib.import_module("stable_baselines3.common.torch_layers").BaseFeaturesExtractor

    class MinAtar(base):  # type: ignore[misc]  # Any
        def __init__(self, observation_space: Any, features_dim: int) -> None:
            super().__init__(observation_space, features_dim)
            nn = torch.nn
            self.network = nn.Sequential(
                nn.Conv2d(observation_space.shape[0], 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, features_dim), nn.ReLU()
            )  # fmt: skip

        def forward(self, obs: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.network(obs)
            return out

    return MinAtar


def sb3_envs(batch: Any) -> Any:
    """An EnvBatch as one of its vector environments: observations stacked, ends and last observations in a dictionary for each."""
    spaces: Any = importlib.import_module("gymnasium.spaces")
    base: Any = importlib.import_module("stable_baselines3.common.vec_env").VecEnv
    spec, n = batch.spec, batch.n
    shape = (spec.stack, *spec.frame_shape) if spec.stack > 1 else spec.frame_shape
    low, high = (0, 255) if spec.frame_dtype == "uint8" else (-np.inf, np.inf)

    class Envs(base):  # type: ignore[misc]  # Any
        def __init__(self) -> None:
            super().__init__(n, spaces.Box(low, high, shape, np.dtype(spec.frame_dtype)), spaces.Discrete(spec.actions))
            self.stack = FrameStack(n, spec)

        def reset(self) -> Array:
            obs: Array = self.stack.push(batch.reset(), np.ones(n, bool)).reshape(n, *shape)
            return obs.copy()

        def step_async(self, actions: Array) -> None:
            self.actions = actions

        def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
            before, step = self.stack.obs, batch.step(self.actions)
            done = step.terminated | step.truncated
            infos: list[dict[str, Any]] = [{} for _ in range(n)]
            for frame, i in zip(step.final_frame, step.final_env, strict=True):
                last = np.concatenate([before[i, 1:], frame[None]]).reshape(shape)
                limit = bool(step.truncated[i] and not step.terminated[i])
                infos[i] = {"terminal_observation": last, "TimeLimit.truncated": limit}
            obs = self.stack.push(step.frame, done).reshape(n, *shape)
            for i in np.flatnonzero(done & ~step.reset):  # a life lost: the game goes on
                infos[i] = {"terminal_observation": obs[i].copy()}
            return obs.copy(), step.reward, done, infos

        def close(self) -> None:
            batch.close()

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [None] * n

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None: ...

        def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
            return [None] * n

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * n

    return Envs()


if __name__ == "__main__":
    main()
