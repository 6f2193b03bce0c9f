"""A run from its configuration: wires environments, agent, learner and workers, drives the loop, and keeps the books.

This is the composition root: with the command line it is the only place of the core that sees agents, environments and
evaluation. What a run computes depends on its configuration alone; kill it at any moment and the same call goes on.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlplatform import config as configs
from rlplatform.actor import Actor
from rlplatform.device_types import DeviceRollout, on_host
from rlplatform.envs import EXACT, ON_DEVICE, suite_of
from rlplatform.evaluation.evals import HEADER, format_rows
from rlplatform.evaluation.score import MakeEnv, Scale, Scores, evaluate, evaluate_together, evaluation_seed
from rlplatform.graphs import WARM_UP
from rlplatform.inspection import Inspection
from rlplatform.learner import Learner
from rlplatform.loop import UnderWay, drain
from rlplatform.loop import train as rounds_of
from rlplatform.perf import Clock
from rlplatform.placement import ClusterError, Placement
from rlplatform.provenance import provenance
from rlplatform.ray_join import prepare
from rlplatform.runconfig import (
    RunConfig,
    check_episodes,
    default_folder,
    make_actor,
    make_agent,
    make_device_actor,
    make_device_env,
    make_env,
    maker,
    read_config,
    require_device,
    require_probe,
    resolve_config,
    with_later_keys,
)
from rlplatform.rundir import RunDir, read_checkpoint
from rlplatform.streams import Stream
from rlplatform.types import Agent, Episodes, Metrics, Policy, Rollout, State, Weights
from rlplatform.workers.local import LocalWorkers

EPISODES_HEADER = "step,env,score,length\n"
RESTARTS_HEADER = "step,actor,rounds_repeated,why\n"


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for whoever shows it."""

    stage: str  # "train" or "evaluate"
    done: int  # agent steps, or episodes
    total: int
    updates: int
    metrics: Mapping[str, float]  # the newest line of metrics.jsonl; {} before the first


class Stopped(Exception):  # noqa: N818  # not an error: asked for from outside
    """The run was asked to stop, and is saved: the same call goes on."""


def run(
    config: RunConfig,
    folder: Path,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
    placement: Placement = Placement(),  # noqa: B008  # frozen
) -> Mapping[str, Any]:
    """Train and evaluate; begin, go on, or find finished what lies in `folder`.

    Args:
        placement: where the actors live. What is computed does not depend on it, and another may go on with the run.

    Returns:
        The content of result.json: the final evaluation's summary.

    Raises:
        Stopped: `should_stop` said so between two rounds (or two episodes of an evaluation); a checkpoint was written.
        ConfigError: a device or environments on one that cannot be had, or an agent that cannot be looked into; nothing was written.
        RunDirError: the folder holds another run or is damaged, or the disk is full.
        ClusterError: no such cluster, or an actor failed too often; the last checkpoint is good.
        FloatingPointError: NaN or infinity in a reward, a frame or a loss.
    """
    torch.set_num_threads(config.threads)
    if config.on_device and placement.ray:
        raise configs.ConfigError(f"backend={ON_DEVICE}: its environments are in the learner's process, not on Ray")
    if (
        not placement.learner_gpus
    ):  # else torch would settle on all GPUs of the machine before Ray has said which are ours
        require_device(config.device)
    require_probe(config)
    exact = _can_be_saved(config)
    with ExitStack() as open_:
        clock = Clock()
        elsewhere = None
        if placement.ray and not (folder / "result.json").exists():
            elsewhere = open_.enter_context(closing(_ray_workers(config, placement, clock)))
        require_device(config.device)
        facts = provenance(config.task) | {"backend": config.backend, "exact_resume": exact}
        files = {
            "config.yaml": configs.to_yaml(config),
            "protocol.json": json.dumps(
                dataclasses.asdict(config.protocol) | {"evaluation": dataclasses.asdict(config.eval)}, indent=2
            ),
            "provenance.json": json.dumps(facts | {"placement": dataclasses.asdict(placement)}, indent=2),
        }
        logs = {"evals.csv": HEADER, "episodes.csv": EPISODES_HEADER, "restarts.csv": RESTARTS_HEADER}
        # An agent that cannot play this task is refused before anything is written.
        agent = None if (folder / "result.json").exists() else make_agent(config)
        directory = open_.enter_context(closing(RunDir(folder, files, logs, with_later_keys)))
        if agent is not None:
            _Run(config, agent, directory, on_progress, should_stop, clock, elsewhere, exact).go()
        result: Mapping[str, Any] = json.loads((folder / "result.json").read_text())
        return result


def train(
    agent: str,
    /,  # or a field of that name could not be given
    task: str,
    seed: int = 0,
    steps: int | None = None,
    run_dir: Path | str | None = None,
    placement: Placement = Placement(),  # noqa: B008  # frozen
    **fields: Any,
) -> Mapping[str, Any]:
    """`rlplatform train` from Python: train, evaluate, and return the final evaluation's summary.

    Args:
        agent: a preset or "package.module:Class".
        placement: where the actors live, such as Placement(ray="auto").
        fields: of RunConfig, nested ones as mappings: `agent={"replay_ratio": 2}`, `eval={"episodes": 10}`.
    """
    own = agent if ":" in agent else None
    name = agent.rpartition(":")[2].lower()
    config = resolve_config(name, task, agent_class=own, seed=seed, steps=steps, **fields)
    return run(config, default_folder(config) if run_dir is None else Path(run_dir), placement=placement)


@dataclass(frozen=True)
class RunCost:
    """What a run will need on this machine."""

    steps: int  # agent steps of the run
    updates: float  # gradient steps of the run
    acting: int  # parameters of the policy
    learned: int  # parameters that the optimiser moves; 0: the agent does not say
    replay_bytes: int | None  # at full capacity; None: there is no replay
    step_s: float  # of an agent step, while actions are random
    update_s: float  # of a gradient step

    @property
    def hours(self) -> float:
        """Of the run, without its evaluation."""
        return (self.steps * self.step_s + self.updates * self.update_s) / 3600

    def lines(self) -> dict[str, str]:
        """In words."""
        return {
            "parameters that act": f"{self.acting:,}" + (f", that are learned: {self.learned:,}" if self.learned else ""),
            "replay memory at full capacity": "none" if self.replay_bytes is None else f"{self.replay_bytes / 2**30:.2f} GiB",
            "time of an agent step": f"{1e3 * self.step_s:.1f} ms (while actions are random), of an update {1e3 * self.update_s:.1f} ms",
            "time of the run on this machine": f"about {self.hours:.1f} hours and its evaluation",
        }  # fmt: skip


def estimate(config: RunConfig) -> RunCost:
    """What a run will need, by building its parts and timing a few steps. An agent whose updates differ has in its configuration
    a `for_timing`, a copy of which five in a row cost what five of a run do on average."""
    torch.set_num_threads(config.threads)
    if hasattr(config.agent, "for_timing"):
        config = dataclasses.replace(config, agent=config.agent.for_timing())
    agent = make_agent(config)
    replay, steps, updates = agent.replay, 0, 5
    actor: Any
    rollout = 10
    if config.on_device:
        actor, envs = make_device_actor(config, 0, Clock(), agent), config.envs
    else:
        envs = 1
        if replay is None:  # such an agent learns from whole rounds
            envs, rollout = config.actors * config.envs, config.rollout
        actor = Actor(agent.policy(), make_env(config, envs, config.seed, 0), Stream(config.seed, "estimate"))
    start = time.perf_counter()
    while steps < 50 * envs or (replay is not None and not replay.can_sample and steps < 1_000 * envs):
        agent.observe([actor.collect(agent.weights(), 0, rollout)])
        steps += rollout * envs
    step_s = (time.perf_counter() - start) / steps
    # The first ones allocate; a GPU captures a later one.
    for _ in range(updates if config.device == "cpu" else WARM_UP + 2):
        _finished(agent.update())
    start = time.perf_counter()
    for _ in range(updates):
        metrics = agent.update()
    _finished(metrics)
    update_s = (time.perf_counter() - start) / updates
    acting = sum(array.numel() for array in _tensors(agent.weights()))
    # By "online" value agents keep what their optimiser moves; another agent's line leaves this number out.
    learned = sum(array.numel() for array in _tensors(agent.state_dict().get("online", {})))
    room = None if replay is None else replay.nbytes
    updates_of_run = float(config.agent.replay_ratio) * max(0, config.steps - getattr(config.agent, "min_replay", 0))
    return RunCost(config.steps, updates_of_run, acting, learned, room, step_s, update_s)


def _finished(metrics: Metrics) -> None:
    """Wait for the device on which these lie."""
    for value in metrics.values():
        float(value)


def _can_be_saved(config: RunConfig) -> bool:
    """Whether the run's environments go on bit for bit after a resume. Makes one: a task, protocol or backend that cannot be
    had is refused here, before anything is written."""
    env: Any = (make_device_env if config.on_device else make_env)(config, 1, config.seed, 0)
    try:
        env.reset()
        return env.state_dict() is not None
    finally:
        env.close()


def _ray_workers(config: RunConfig, placement: Placement, clock: Clock) -> Any:
    """RayWorkers, which only somebody with Ray installed can have."""
    prepare()
    try:
        from rlplatform.workers.ray import RayWorkers
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "ray":
            raise
        raise ClusterError("actors on Ray need it: pip install 'rlplatform[cluster]'") from None
    threads = config.actor_threads or config.threads
    return RayWorkers(partial(make_actor, config), config.actors, config.lag, threads, placement, clock)


def _tensors(weights: Any) -> list[torch.Tensor]:
    if isinstance(weights, Mapping):
        return [tensor for value in weights.values() for tensor in _tensors(value)]
    return [weights] if isinstance(weights, torch.Tensor) else []


@dataclass(frozen=True)
class Loaded:
    """A run that was trained."""

    config: RunConfig
    step: int  # agent steps behind its newest checkpoint
    _policy: Policy

    def policy(self) -> Policy:
        """Its evaluation policy: `act(obs [N, stack, *frame], stream) -> (actions [N], {})`."""
        return self._policy


def load(run_dir: Path | str, device: str = "cpu") -> Loaded:
    """The newest checkpoint of a run, its policy on a device."""
    config, policy, step = load_policy(Path(run_dir), device)
    return Loaded(config, step, policy)


def load_policy(folder: Path, device: str = "cpu") -> tuple[RunConfig, Policy, int]:
    """The evaluation policy of the newest checkpoint in this run's folder, and the agent step it was saved at. The run may be
    under way: nothing is locked or changed. It acts on the CPU, wherever the run learned, unless another device is named."""
    config = read_config(folder)
    state = read_checkpoint(folder)
    agent = make_agent(config, device)
    agent.load_state_dict(state["learner"]["agent"])
    policy = agent.eval_policy()
    policy.load(agent.weights())
    return config, policy, int(state["learner"]["steps"])


def score_policy(
    config: RunConfig,
    policy: Policy,
    step: int,
    episodes: int,
    on_episode: Callable[[Any], None] | None = None,
    make: MakeEnv | None = None,
) -> Scores:
    """Evaluate a policy that was loaded, as the run's own evaluation after `step` does: on the exact backend (or with `make`)
    an environment an episode, on another one batch of `eval.lanes` environments."""
    check_episodes(config.protocol, episodes)
    found = suite_of(config.task).scale(config.task)
    scale = None if found is None else Scale(*found)
    seed = evaluation_seed(config.seed, step)
    if config.host_backend != EXACT and make is None:
        env: Any = make_env(config, min(config.eval.lanes, episodes), seed, 0)
        return evaluate_together(policy, env, episodes, seed, scale=scale, on_episode=on_episode)
    return evaluate(
        policy, make or maker(config), episodes, seed, lanes=config.eval.lanes, scale=scale, on_episode=on_episode
    )


def summary(scores: Scores, step: int) -> dict[str, Any]:
    """What one evaluation comes to."""
    raw = scores.score
    out: dict[str, Any] = {
        "step": step, "episodes": len(raw), "mean": float(raw.mean()), "median": float(np.median(raw)),
        "std": float(raw.std(ddof=1)) if len(raw) > 1 else 0.0, "min": float(raw.min()), "max": float(raw.max()),
        "mean_length": float(np.mean([episode.length for episode in scores.episodes])),
    }  # fmt: skip
    normalized = [episode.normalized for episode in scores.episodes if episode.normalized is not None]
    if normalized:
        out["human_normalized_mean"] = float(np.mean(normalized))
    return out


class _Run:
    """One run under way."""

    def __init__(
        self,
        config: RunConfig,
        agent: Agent,
        directory: RunDir,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
        clock: Clock,
        elsewhere: Any,  # RayWorkers; None: the actors live here
        exact: bool,
    ) -> None:
        self.config, self.directory = config, directory
        self.on_progress, self.should_stop = on_progress, should_stop
        self.agent = agent
        self.learner = Learner(self.agent, config.agent.replay_ratio)
        self.inspection: Inspection | None = None
        if config.plasticity.every:
            probed: Any = agent
            self.inspection = self.learner.inspector = Inspection(
                probed, config.plasticity, config.actors * config.envs
            )
        self.clock, self.exact = clock, exact
        make: Callable[..., Any] = make_device_actor if config.on_device else make_actor
        self.workers = elsewhere or LocalWorkers(
            [make(config, i, clock, self.agent) for i in range(config.actors)],
            config.lag,
            config.actor_threads or config.threads,
        )
        self.elsewhere = elsewhere
        if elsewhere is not None:
            elsewhere.on_restart = self._note_restart
        self.under_way: UnderWay = UnderWay()
        self.scores: list[float] = []  # of the games that ended since the last line of metrics
        self.lengths: list[int] = []
        self.line: dict[str, float] = {}  # the last one logged
        self.evaluated = 0  # agent step of the last evaluation
        self.games_cut = 0  # by resumes and restarts, where the environments could not be saved
        self.restarts = self.repeated_rounds = 0  # of actors
        self.machines: list[str] = []  # kinds of CPU on which they lived at the end, where that was not here
        self.elapsed_s = 0.0  # before this process took over
        self.losses: Metrics = {}  # of the last update
        if self.agent.replay is not None:
            self.clock.watch(self.agent.replay, "sample", "sample")
        for name in ("update", "updates"):  # on a GPU the time to launch them: act() waits until they are done
            if hasattr(self.agent, name):
                self.clock.watch(self.agent, name, "update")
        self.clock.watch(self.agent, "observe", "observe")
        if self.inspection is not None:
            for name in ("observe", "before", "after"):
                self.clock.watch(self.inspection, name, "inspect")
        self.started = time.monotonic()
        self._mark = (
            self.started,
            0,
            0,
            0.0,
        )  # time, agent steps, updates, seconds waited at the last line, for the rates

    def start(self, weights: Weights, version: int, steps: int) -> Callable[[], list[Rollout]]:
        """The workers' own, whose waits are timed."""
        return self.clock.timed(self.workers.start(weights, version, steps), "wait")

    def go(self) -> None:
        try:
            self._learn()
        except ClusterError as error:
            if not self.should_stop():
                raise
            # A preemption takes the actors' processes along with this one: what is under way can no longer be saved.
            raise Stopped(
                f"stopped without a last checkpoint ({error}); the same command goes on from the one before"
            ) from error
        self.machines = [] if self.elsewhere is None else self.elsewhere.machines
        self.workers.close()
        self._finish()

    def _learn(self) -> None:
        config, learner = self.config, self.learner
        state = self.directory.load(self.agent.replay)
        if state is not None:
            self.load_state_dict(state)
        self._mark = (time.monotonic(), learner.steps, learner.updates, self.clock.seconds.get("wait", 0.0))
        self._evaluate_if_due()  # a stop during an evaluation leaves it to be done
        rounds = config.rounds - learner.version
        before = learner.steps
        for metrics in rounds_of(learner, self, rounds, config.rollout, config.lag, self.under_way):
            self.losses = metrics or self.losses
            self._note_episodes()
            self._note_plasticity()
            if _crossed(before, learner.steps, config.log_every):
                self._log()
            before_eval, before = before, learner.steps
            self._evaluate_if_due()
            if _crossed(before_eval, learner.steps, config.checkpoint_every) or learner.version == config.rounds:
                self._save()
            if self.should_stop():
                self._stop()
            self.on_progress(Progress("train", learner.steps, config.steps, learner.updates, self.line))

    def state_dict(self) -> State:
        """Of everything but the replay; waits for the rollouts under way and keeps them as data."""
        pending = [[_rollout_state(rollout) for rollout in rollouts] for rollouts in drain(self.under_way)]
        return {
            "learner": self.learner.state_dict(),
            "workers": self.workers.state_dict(),
            "under_way": pending,
            "scores": self.scores,
            "lengths": self.lengths,
            "losses": {name: float(value) for name, value in self.losses.items()},
            "evaluated": self.evaluated,
            "games_cut": self.games_cut,
            "restarts": self.restarts,
            "repeated_rounds": self.repeated_rounds,
            "elapsed_s": self._elapsed(),
            "seconds": dict(self.clock.seconds),
            **({} if self.inspection is None else {"plasticity": self.inspection.state_dict()}),
        }

    def load_state_dict(self, state: State) -> None:
        self.learner.load_state_dict(state["learner"])
        self.workers.load_state_dict(state["workers"])
        self.under_way.extend(
            _returning([_rollout(rollout) for rollout in rollouts]) for rollouts in state["under_way"]
        )
        self.scores, self.lengths = list(state["scores"]), list(state["lengths"])
        self.losses, self.evaluated = state["losses"], state["evaluated"]
        unsaved = sum(actor["envs"] is None for actor in state["workers"]["actors"])
        self.games_cut = state["games_cut"] + unsaved * self.config.envs
        self.restarts, self.repeated_rounds = state.get("restarts", 0), state.get("repeated_rounds", 0)
        self.elapsed_s = state["elapsed_s"]
        if self.inspection is not None:
            self.inspection.load_state_dict(state["plasticity"])
        self.clock.seconds.update(state["seconds"])

    def _note_episodes(self) -> None:
        for game in self.learner.ended:
            self.directory.append("episodes.csv", f"{game.step},{game.env},{game.score!r},{game.length}\n")
            self.scores.append(game.score)
            self.lengths.append(game.length)

    def _note_plasticity(self) -> None:
        if self.inspection is not None and self.inspection.found:
            self.directory.log(self.learner.steps, self.inspection.found)
            self.inspection.found = {}

    def _note_restart(self, restart: Any) -> None:
        """An actor died or hung, and another does its rounds again; where games cannot be saved, new ones."""
        self.restarts += 1
        self.repeated_rounds += restart.rounds
        self.games_cut += 0 if self.exact else self.config.envs
        why = json.dumps(restart.why.replace('"', "'"))
        self.directory.append("restarts.csv", f"{self.learner.steps},{restart.actor},{restart.rounds},{why}\n")

    def _log(self) -> None:
        learner, now = self.learner, time.monotonic()
        then, steps, updates, waited = self._mark
        line: dict[str, float] = {name: float(value) for name, value in self.losses.items()}
        if self.scores:
            line["charts/episodic_return"] = float(np.mean(self.scores))
            line["charts/episodic_length"] = float(np.mean(self.lengths))
        line["charts/episodes"] = len(self.scores)
        line["charts/updates"] = learner.updates
        line["charts/frames"] = learner.steps * self.frames_per_step
        if self.agent.replay is not None:
            line["replay/size"] = len(self.agent.replay)
            line["replay/ratio"] = learner.updates / learner.steps
        line["actors/lag"] = learner.lag
        if self.elsewhere is not None:
            line["actors/restarts"], line["actors/repeated_rounds"] = self.restarts, self.repeated_rounds
        line["perf/wait_share"] = (self.clock.seconds["wait"] - waited) / (now - then)
        line["charts/SPS"] = line["perf/steps_per_s"] = (learner.steps - steps) / (now - then)
        line["perf/updates_per_s"] = (learner.updates - updates) / (now - then)
        line |= {f"perf/{name}_s": seconds for name, seconds in self.clock.seconds.items()}
        line["perf/elapsed_s"], line["perf/unix_time"] = self._elapsed(), time.time()
        self.directory.log(learner.steps, line)
        self.line, self.scores, self.lengths = line, [], []
        self._mark = (now, learner.steps, learner.updates, self.clock.seconds["wait"])

    def _evaluate_if_due(self) -> None:
        step, every = self.learner.steps, self.config.eval.every
        if every and step < self.config.steps and _crossed(self.evaluated, step, every):
            scores = self._evaluate()
            self.directory.append("evals.csv", format_rows(scores, step))
            result = summary(scores, step)
            line = {"eval/episodic_return": result["mean"], "eval/episodic_return_median": result["median"]}
            if "human_normalized_mean" in result:
                line["eval/human_normalized_score"] = result["human_normalized_mean"]
            self.directory.log(step, line)
            self.evaluated = step

    def _evaluate(self) -> Scores:
        policy = self.agent.eval_policy()
        policy.load(self.agent.weights())
        done = 0

        def on_episode(_: Any) -> None:
            nonlocal done
            done += 1
            if self.should_stop():
                self._stop()
            self.on_progress(Progress("evaluate", done, self.config.eval.episodes, self.learner.updates, self.line))

        start = time.perf_counter()
        scores = score_policy(self.config, policy, self.learner.steps, self.config.eval.episodes, on_episode)
        self.clock.seconds["evaluate"] = self.clock.seconds.get("evaluate", 0.0) + time.perf_counter() - start
        return scores

    def _finish(self) -> None:
        """The final evaluation; the checkpoint at the last step is there already, so a kill repeats only this."""
        step = self.learner.steps
        scores = self._evaluate()
        self.directory.append("evals.csv", format_rows(scores, step))
        result = summary(scores, step)
        result |= {"task": self.config.task, "preset": self.config.preset, "seed": self.config.seed}
        result |= {"updates": self.learner.updates, "games_cut": self.games_cut, "elapsed_s": self._elapsed()}
        if self.restarts or self.elsewhere is not None:
            result["actors"] = {"restarts": self.restarts, "repeated_rounds": self.repeated_rounds}
            result["actors"] |= {"cpus": self.machines}
        result["seconds"] = {name: round(seconds, 3) for name, seconds in self.clock.seconds.items()}
        self.directory.finish(result)

    def _save(self) -> None:
        self.directory.save(self.learner.steps, self.state_dict(), self.agent.replay)

    def _stop(self) -> None:
        self._save()
        raise Stopped(f"stopped at agent step {self.learner.steps}; the same command goes on from there")

    def _elapsed(self) -> float:
        return self.elapsed_s + time.monotonic() - self.started

    @property
    def frames_per_step(self) -> int:
        return int(self.agent.spec.frames_per_step)


def _crossed(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, now]."""
    return now // every > before // every


def _rollout_state(rollout: Rollout | DeviceRollout) -> State:
    """As arrays, which any replay takes."""
    rollout = on_host(rollout) if isinstance(rollout, DeviceRollout) else rollout
    return rollout._asdict() | {"episodes": rollout.episodes._asdict()}


def _rollout(state: State) -> Rollout:
    return Rollout(**{**state, "episodes": Episodes(**state["episodes"])})


def _returning(rollouts: list[Rollout]) -> Callable[[], list[Rollout]]:
    return lambda: rollouts
