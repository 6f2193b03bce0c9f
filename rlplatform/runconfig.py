"""The configuration of a run, and the parts that it names: dataclass defaults, under the suite's protocol, under the preset,
under what the user gives."""

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from rlplatform import config as configs
from rlplatform.actor import Actor
from rlplatform.agents import load_preset, resolve
from rlplatform.envs import EXACT, ON_DEVICE, make, make_on_device, suite_of
from rlplatform.evaluation.score import LANES, MakeEnv
from rlplatform.perf import Clock
from rlplatform.plasticity_config import PlasticityConfig
from rlplatform.streams import Stream
from rlplatform.types import Agent, EnvBatch

if TYPE_CHECKING:
    from rlplatform.device_actor import DeviceActor
    from rlplatform.device_types import DeviceEnvBatch


@dataclass(frozen=True)
class EvalConfig:
    """How the learned policy is scored."""

    episodes: int = 100
    every: int = 0  # agent steps between evaluations; 0: only at the end
    lanes: int = LANES  # games under way at a time: fixed, since a matrix product rounds by its batch


@dataclass(frozen=True)
class RunConfig:
    """Everything that a result depends on. Where the actors live is no part of it: that is a Placement."""

    preset: str
    task: str
    agent: Any  # the agent's own Config
    protocol: Any  # the suite's protocol for its environments
    agent_class: str
    # What plays the environments: "exact"; "envpool" (Atari, MuJoCo), which is threaded and not resumed exactly; "device" (catch,
    # MinAtar, classic control), where they are tensors on `device`, as is all that the agent sees of them.
    backend: str = EXACT
    seed: int = 0
    steps: int = 100_000  # agent steps of all environments; a run ends at the first round that reaches it
    actors: int = 1
    envs: int = 1  # environments an actor
    rollout: int = 1  # agent steps an environment between two rounds of learning
    lag: int = 0  # rounds by which the acting weights trail behind
    threads: int = 1  # of matrix products: their rounding depends on it
    actor_threads: int = 0  # likewise, of those that choose actions in training; 0: as many as `threads`
    device: str = "cpu"  # where the agent learns and acts: "cpu", "cuda" or "cuda:N"
    log_every: int = 1_000  # agent steps
    checkpoint_every: int = 10_000  # agent steps
    imports: tuple[str, ...] = ()  # modules to import first: they register environments of one's own
    eval: EvalConfig = field(default_factory=EvalConfig)
    plasticity: PlasticityConfig = field(default_factory=PlasticityConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "actors", "envs", "rollout", "threads", "log_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise configs.ConfigError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.lag < 0 or self.actor_threads < 0 or self.eval.every < 0:
            raise configs.ConfigError("lag, actor_threads and eval.every must be >= 0")
        if self.eval.episodes < 1 or self.eval.lanes < 1:
            raise configs.ConfigError("eval.episodes and eval.lanes must be >= 1")
        check_episodes(self.protocol, self.eval.episodes)

    @property
    def on_device(self) -> bool:
        """Whether the environments of training are tensors. An evaluation's never are: it plays their twins on the host, which
        are equal to the bit where `make_on_device` says so."""
        return self.backend == ON_DEVICE

    @property
    def host_backend(self) -> str:
        """What plays environments whose frames are arrays."""
        return EXACT if self.on_device else self.backend

    @property
    def rounds(self) -> int:
        return -(-self.steps // self.steps_per_round)

    @property
    def steps_per_round(self) -> int:
        return self.actors * self.envs * self.rollout


def check_episodes(protocol: Any, episodes: int) -> None:
    """Raise ConfigError where an evaluation of so many episodes would count some tasks of a multitask protocol more than others."""
    tasks = len(getattr(protocol, "tasks", ())) or 1
    if episodes % tasks:
        raise configs.ConfigError(
            f"{episodes} episodes do not share out among {tasks} tasks: choose a multiple of {tasks}"
        )


def resolve_config(
    preset: str, task: str, overrides: Sequence[str] = (), agent_class: str | None = None, **given: Any
) -> RunConfig:
    """The configuration of a run: dataclass defaults, under the suite's protocol, under the preset, under what is given. Where the
    agent's has a method `check_run(round_steps, lag)`, which raises ValueError, it may refuse the run.

    Args:
        preset: a name in agents/presets, or with `agent` any name for the run's folder.
        overrides: "key.sub=value" each.
        agent_class: "package.module:Class" of an agent of one's own, instead of the preset's.
        given: fields of RunConfig such as seed and steps; those that are None are left to the layers below.
    """
    chosen = None
    if agent_class is None:
        chosen = load_preset(preset, suite_of(task).name)
        agent_class = chosen.agent
    agent_config = resolve(agent_class).config_class()  # importing an agent of one's own may register its environments
    suite = suite_of(task)
    protocol = suite.protocol if chosen is None else suite.protocol_named(chosen.variant)
    schema = RunConfig(
        preset=preset, task=task, agent=agent_config, agent_class=agent_class, protocol=protocol,
        steps=suite.steps, eval=EvalConfig(episodes=suite.episodes, every=suite.every),
    )  # fmt: skip
    layers = [{**chosen.run, "agent": chosen.config}] if chosen is not None else []
    layers.append({name: value for name, value in given.items() if value is not None})
    config = configs.merge(schema, *layers, overrides=overrides)
    if hasattr(config.agent, "check_run"):
        try:
            config.agent.check_run(config.steps_per_round, config.lag)
        except ValueError as error:
            raise configs.ConfigError(str(error)) from error
    return config


def read_config(folder: Path) -> RunConfig:
    """The configuration of the run in this folder. Imports the modules that it names."""
    return _parsed((folder / "config.yaml").read_text())


def with_later_keys(text: str) -> str:
    """An older config.yaml with the keys that have come since, at their defaults: what that run had before they could be set. As it is
    where it holds keys that are gone; whoever compares it finds them."""
    try:
        return configs.to_yaml(_parsed(text))
    except (configs.ConfigError, KeyError, TypeError):
        return text


def _parsed(text: str) -> RunConfig:
    read: Any = OmegaConf.to_container(OmegaConf.create(text))
    for module in read["imports"]:
        importlib.import_module(module)
    schema = RunConfig(
        preset=read["preset"], task=read["task"], agent=resolve(read["agent_class"]).config_class(),
        agent_class=read["agent_class"], protocol=suite_of(read["task"]).protocol,
    )  # fmt: skip
    return configs.merge(schema, read)


def default_folder(config: RunConfig, root: Path = Path("runs")) -> Path:
    """runs/<suite>/<preset>/<task>/seed_<n>."""
    return root / suite_of(config.task).name / config.preset / config.task.rpartition("/")[2] / f"seed_{config.seed}"


def make_env(config: RunConfig, n: int, seed: int, first_env: int) -> EnvBatch:
    """Environments of the run's task, by its protocol, on its backend; on the host, where that is "device"."""
    return make(config.task, n, seed, first_env, protocol=config.protocol, backend=config.host_backend)


def make_device_env(config: RunConfig, n: int, seed: int, first_env: int) -> "DeviceEnvBatch":
    """Environments of the run's task, by its protocol, as tensors on its device.

    Raises:
        ValueError: the task has no form on a device.
    """
    return make_on_device(config.task, n, seed, first_env, config.protocol, config.device)


def make_agent(config: RunConfig, device: str | None = None) -> Agent:
    """The agent of a run, newly initialised from its seed; on `device`, if given, instead of the run's own, and then for host
    environments.

    Raises:
        ConfigError: the device cannot be had, or the agent's class knows no devices or no environments there.
    """
    resident = config.on_device and device is None
    device = config.device if device is None else device
    agent_class = resolve(config.agent_class)
    elsewhere = {"feed": "resident"} if resident else {}
    if resident and not hasattr(agent_class, "device_policy"):
        raise configs.ConfigError(f"backend={ON_DEVICE}: {config.agent_class} acts on environments on the host alone")
    if device != "cpu":
        elsewhere["device"] = device
        require_device(device)
        if "device" not in inspect.signature(agent_class).parameters:
            raise configs.ConfigError(f"device={device}: {config.agent_class} learns on the CPU alone")
    env = make(config.task, 1, config.seed, 0, config.protocol)  # for its spec: the same on every backend
    try:
        agent: Agent = agent_class(config.agent, env.spec, config.actors * config.envs, config.seed, **elsewhere)
    finally:
        env.close()
    return agent


def make_actor(config: RunConfig, i: int, clock: Clock, agent: Agent | None = None) -> Actor:
    """Actor i of a run, in this process, its time on the clock as "env" and "act". In a process that has no agent one is made,
    for its policy. Imports the modules that the run names."""
    for module in config.imports:
        importlib.import_module(module)
    envs = make_env(config, config.envs, config.seed, i * config.envs)
    policy = (make_agent(config, "cpu") if agent is None else agent).policy()
    clock.watch(envs, "step", "env")
    clock.watch(policy, "act", "act")
    return Actor(policy, envs, Stream(config.seed, "actor", i))


def make_device_actor(config: RunConfig, i: int, clock: Clock, agent: Any) -> "DeviceActor":
    """As `make_actor`, with environments and actions on the run's device: there the times are those of launching."""
    from rlplatform.device_actor import DeviceActor  # as below
    from rlplatform.device_streams import DeviceStream

    envs = make_device_env(config, config.envs, config.seed, i * config.envs)
    policy = agent.device_policy()
    clock.watch(envs, "step", "env")
    clock.watch(policy, "act", "act")
    return DeviceActor(policy, envs, DeviceStream(Stream(config.seed, "actor", i), config.device))


def require_device(device: str) -> None:
    """Refuse, in one sentence, a device on which this machine cannot learn.

    Raises:
        ConfigError: such a one.
    """
    from rlplatform.device import require  # imports torch: whoever only reads configurations does not wait for it

    try:
        require(device)
    except ValueError as error:
        raise configs.ConfigError(str(error)) from error


def require_probe(config: RunConfig) -> None:
    """Refuse to measure an agent that does not say how.

    Raises:
        ConfigError: `plasticity.every` is set, and the agent's class has no `probe`.
    """
    if config.plasticity.every and not hasattr(resolve(config.agent_class), "probe"):
        raise configs.ConfigError(f"plasticity.every: {config.agent_class} has no probe() by which to look into it")


def maker(config: RunConfig) -> MakeEnv:
    """Makes the single environments that an evaluation plays."""
    return lambda *, seed, first_env: make_env(config, 1, seed, first_env)
