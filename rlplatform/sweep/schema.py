"""sweep.yaml: what is searched and how, as frozen dataclasses, checked against the schema of a run before anything starts."""

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from rlplatform import config as configs
from rlplatform.config import ConfigError, suggestion
from rlplatform.reproduce import find_suite, find_tasks
from rlplatform.runconfig import RunConfig, resolve_config

KINDS = ("float", "log", "int", "choice")
TAKEN = {  # keys that the sweep itself sets
    "preset": "the sweep's agent", "task": "the sweep's tasks", "seed": "the sweep's seeds", "agent_class": "the sweep's agent",
    "steps": "the sweep's steps", "eval.every": "the sweep's rungs", "imports": "the sweep's imports",
}  # fmt: skip
MAY_GROW = ("trials", "parallel", "cpus", "gpus", "retries")  # what may change between two calls of one sweep


@dataclass(frozen=True)
class Param:
    """One dimension of the space."""

    type: str  # "float", "log" (a float, uniform in its logarithm), "int" or "choice"
    low: float = math.nan  # of all but "choice"; both ends can be drawn
    high: float = math.nan
    choices: tuple[Any, ...] = ()

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that a check has to try: if these can be had, all can."""
        if self.type == "choice":
            return self.choices
        return (int(self.low), int(self.high)) if self.type == "int" else (self.low, self.high)


@dataclass(frozen=True)
class Rungs:
    """Where trials are compared, and all but the best 1 / factor of those that got there are stopped (ASHA, Li et al. 2020,
    arXiv:1810.05934)."""

    first: int = 0  # agent steps; 0: no trial is stopped
    factor: int = 3

    def steps(self, last: int) -> list[int]:
        """first, first * factor, ..., and `last`."""
        out = [self.first] if self.first else []
        while out and out[-1] * self.factor < last:
            out.append(out[-1] * self.factor)
        return [*out, last]


@dataclass(frozen=True)
class Confirm:
    """How the winner is found: the best configurations again, on seeds that the search has not seen."""

    top: int = 3  # configurations; 0: no winner is named
    seeds: int = 5  # of each task, after those of the search
    baseline: bool = True  # the preset as it is runs, too


@dataclass(frozen=True)
class Sweep:
    """A sweep.yaml."""

    name: str  # of its folder
    agent: str  # a preset, or package.module:Class
    suite: str
    space: dict[str, Param] = field(default_factory=dict)  # by dotted key
    tasks: tuple[str, ...] = ()  # of the suite; all by default
    steps: int = 0  # agent steps of a run; 0: the suite's budget
    seeds: int = 3  # of a trial's runs on each task: 0, 1, ...
    overrides: tuple[str, ...] = ()  # "key.sub=value" of every run
    imports: tuple[str, ...] = ()  # modules to import first
    scale: dict[str, tuple[float, float]] = field(default_factory=dict)  # task: the scores that are 0 and 1
    trials: int = 20
    seed: int = 0  # of the sampler
    startup: int = 10  # trials drawn at random before the sampler (TPE) has its say
    rungs: Rungs = field(default_factory=Rungs)
    confirm: Confirm = field(default_factory=Confirm)
    parallel: int = 1  # runs of a trial at a time
    cpus: float = 0.0  # of a run; 0: threads x actors
    gpus: float = 0.0  # of a run
    retries: int = 2  # of a trial, or of a run on held-out seeds, that failed

    def __post_init__(self) -> None:
        for name in ("seeds", "trials", "parallel"):
            _expect(name, getattr(self, name) >= 1, ">= 1", getattr(self, name))
        for name in ("steps", "retries", "startup", "cpus", "gpus", "seed"):
            _expect(name, getattr(self, name) >= 0, ">= 0", getattr(self, name))
        _expect("rungs.first", self.rungs.first >= 0, ">= 0", self.rungs.first)
        _expect("rungs.factor", self.rungs.factor >= 2, ">= 2", self.rungs.factor)
        _expect("confirm.top", self.confirm.top >= 0, ">= 0", self.confirm.top)
        _expect("confirm.seeds", self.confirm.seeds >= 1, ">= 1", self.confirm.seeds)
        good = bool(self.name) and not set(self.name) & set("/\\") and self.name not in (".", "..")
        _expect("name", good, "the name of a folder", self.name)

    @property
    def preset(self) -> str:
        """The name of the runs' agent."""
        return self.agent.rpartition(":")[2].lower()

    @property
    def milestones(self) -> list[int]:
        """Agent steps at which trials are scored; the last is the end of a run."""
        return self.rungs.steps(self.steps)


def read_sweep(path: Path) -> Sweep:
    """A sweep.yaml, checked: its keys, the space against the schema of a run, tasks against the suite. `tasks` and `steps` come
    out resolved.

    Raises:
        ConfigError: with the file's name, the key and the nearest known one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        read = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception as error:  # whatever YAML's parser has to say
        raise ConfigError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(read, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(read).__name__}")
    try:
        return check(parse({str(key): value for key, value in read.items()}, path.stem))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse(read: Mapping[str, Any], name: str) -> Sweep:
    """The dataclass of what was read; keys and types only. `name` is the sweep's where it gives none."""
    rest = {"name": name, **read}
    known = [f.name for f in fields(Sweep)]
    for key in rest:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}{suggestion(key, known)}")
    missing = [key for key in ("agent", "suite", "space") if not rest.get(key)]
    if missing:
        raise ConfigError(f"no value for {', '.join(missing)}")
    space, scale = rest.pop("space"), rest.pop("scale", None) or {}
    if not isinstance(space, Mapping):
        raise ConfigError("space: expected dotted keys, each with a type and its bounds")
    if not isinstance(scale, Mapping):
        raise ConfigError(f"scale: expected task: [score that is 0, score that is 1], got {scale!r}")
    sweep = configs.merge(Sweep(name="sweep", agent="?", suite="?"), rest)
    return replace(
        sweep,
        space={str(key): _param(str(key), value) for key, value in _dotted(space).items()},
        scale={str(task): _ends(str(task), pair) for task, pair in scale.items()},
    )


def check(sweep: Sweep) -> Sweep:
    """The sweep with tasks and steps resolved, if every corner of its space is a configuration.

    Raises:
        ValueError: an unknown suite, agent, task or key (with the nearest), a type or a value that the key does not take, rungs beyond
            the end, tasks whose scores cannot be averaged since they have no scale.
    """
    for module in sweep.imports:
        importlib.import_module(module)
    suite = find_suite(sweep.suite)
    tasks = tuple(find_tasks(suite, sweep.tasks))
    sweep = replace(sweep, tasks=tasks, steps=sweep.steps or suite.steps)
    if sweep.rungs.first and sweep.rungs.first >= sweep.steps:
        raise ConfigError(f"rungs.first is {sweep.rungs.first}, but a run ends at {sweep.steps}")
    base = configure(sweep, tasks[0], 0, {})
    known = configs.flatten(base)
    for key, param in sweep.space.items():
        if key in TAKEN:
            raise ConfigError(f"space: {key} is set by {TAKEN[key]}")
        if key not in known:
            inside = ", ".join(name for name in known if name.startswith(key + "."))
            near = suggestion(key, list(known)) or suggestion(key, [name.rpartition(".")[2] for name in known])
            raise ConfigError(f"space: a run has no field {key!r}{f'; inside it are {inside}' if inside else near}")
        _check_type(key, param, known[key])
        for value in param.ends:
            try:
                configure(sweep, tasks[0], 0, {key: value})
            except ValueError as error:
                raise ConfigError(f"space: {key} = {value!r} is refused: {error}") from error
    names = [task.rpartition("/")[2] for task in tasks]
    for task in sweep.scale:
        if task not in names:
            raise ConfigError(f"scale: {task!r} is not among the tasks{suggestion(task, names)}")
    unscaled = [name for name, task in zip(names, tasks, strict=True) if scale_of(sweep, task) is None]
    if unscaled and len(tasks) > 1:
        raise ConfigError(
            f"scores of several tasks are averaged on a scale, and {', '.join(unscaled)} have none: give one, as in "
            f"`scale: {{{unscaled[0]}: [0, 500]}}`"
        )
    return sweep


def configure(sweep: Sweep, task: str, seed: int, params: Mapping[str, Any], *, confirm: bool = False) -> RunConfig:
    """The configuration of one run. Searched ones are evaluated at every rung, those that confirm at their end alone."""
    own = sweep.agent if ":" in sweep.agent else None
    return resolve_config(
        sweep.preset, task, overrides_of(sweep, params, confirm=confirm), own, seed=seed, steps=sweep.steps or None,
        imports=sweep.imports,
    )  # fmt: skip


def overrides_of(sweep: Sweep, params: Mapping[str, Any], *, confirm: bool = False) -> list[str]:
    """What departs from the preset, as the command line takes it."""
    rungs = [] if confirm or not sweep.rungs.first else [f"eval.every={sweep.rungs.first}"]
    return [*sweep.overrides, *rungs, *(f"{key}={_yaml(value)}" for key, value in params.items())]


def scale_of(sweep: Sweep, task: str) -> tuple[float, float] | None:
    """The scores of a task that are 0 and 1: the sweep's, or the suite's; None: scores are raw."""
    return sweep.scale.get(task.rpartition("/")[2]) or find_suite(sweep.suite).scale(task)


def identity(sweep: Sweep) -> str:
    """What may not change between two calls that go on with one sweep, as text."""
    kept = {f.name: getattr(sweep, f.name) for f in fields(Sweep) if f.name not in MAY_GROW}
    kept["space"] = {key: _plain(param) for key, param in sweep.space.items()}
    kept["scale"] = {task: list(ends) for task, ends in sweep.scale.items()}
    kept["rungs"], kept["confirm"] = vars(sweep.rungs), vars(sweep.confirm)
    return OmegaConf.to_yaml(OmegaConf.create({k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}))


def _dotted(space: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones; a mapping with a "type" is a parameter."""
    out: dict[str, Any] = {}
    for key, value in space.items():
        nested = (
            isinstance(value, Mapping) and "type" not in value and all(isinstance(v, Mapping) for v in value.values())
        )
        out |= _dotted(value, f"{prefix}{key}.") if nested and value else {f"{prefix}{key}": value}
    return out


def _param(key: str, read: Any) -> Param:
    if not isinstance(read, Mapping):
        raise ConfigError(f"space: {key}: expected a type and its bounds, as in {{type: log, low: 1e-4, high: 1e-2}}")
    known = [f.name for f in fields(Param)]
    for name in read:
        if name not in known:
            raise ConfigError(f"space: {key}: unknown key {name!r}{suggestion(str(name), known)}")
    kind = read.get("type")
    if kind not in KINDS:
        raise ConfigError(
            f"space: {key}: type is one of {', '.join(KINDS)}, got {kind!r}{suggestion(str(kind), KINDS)}"
        )
    if kind == "choice":
        choices = read.get("choices")
        if not isinstance(choices, list) or len(choices) < 2 or "low" in read or "high" in read:
            raise ConfigError(f"space: {key}: a choice takes `choices`, a list of two or more, and no bounds")
        return Param("choice", choices=tuple(choices))
    low, high = (_number(key, name, read.get(name)) for name in ("low", "high"))
    if "choices" in read or not low < high:
        raise ConfigError(f"space: {key}: takes low < high and no choices, got {low:g} and {high:g}")
    if kind == "log" and low <= 0:
        raise ConfigError(f"space: {key}: low must be > 0 on a logarithmic scale, got {low:g}")
    if kind == "int" and (low != int(low) or high != int(high)):
        raise ConfigError(f"space: {key}: bounds of an int are whole, got {low:g} and {high:g}")
    return Param(str(kind), low, high)


def _number(key: str, name: str, value: Any) -> float:
    try:
        number = float(value)  # YAML 1.1 reads 1e-4 as text
    except (TypeError, ValueError):
        raise ConfigError(f"space: {key}: {name} must be a number, got {value!r}") from None
    if not math.isfinite(number):
        raise ConfigError(f"space: {key}: {name} must be finite, got {value!r}")
    return number


def _ends(task: str, pair: Any) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in pair)
    except (TypeError, ValueError):
        raise ConfigError(f"scale: {task}: expected [score that is 0, score that is 1], got {pair!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low != high):
        raise ConfigError(f"scale: {task}: two unlike finite scores, got {pair!r}")
    return low, high


def _check_type(key: str, param: Param, value: Any) -> None:
    """What a field holds decides what may be drawn for it."""
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    if param.type != "choice" and not numeric:
        raise ConfigError(f"space: {key} is {value!r}: only a choice can be made of it")
    if param.type in ("float", "log") and isinstance(value, int):
        raise ConfigError(f"space: {key} is a whole number ({value}): its type is int, or choice")


def _expect(name: str, holds: bool, what: str, got: Any) -> None:
    if not holds:
        raise ConfigError(f"{name} must be {what}, got {got!r}")


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, (int, float)) else str(value)


def _plain(param: Param) -> dict[str, Any]:
    if param.type == "choice":
        return {"type": param.type, "choices": list(param.choices)}
    return {"type": param.type, "low": param.low, "high": param.high}
