"""Suites: tasks, budget, protocol and normalisation, as data in suites/*.yaml.

A protocol is everything about an environment that moves a score: two results may be compared where their protocols agree.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException


@dataclass(frozen=True)
class AtariProtocol:
    """How an Atari game is presented to an agent. docs/envs.md gives the source of each value."""

    frame_skip: int = 4  # emulator frames an agent step; rewards are summed, the last two screens maximised
    frame_size: int = 84  # height and width of a frame, reduced by area from 210 x 160 gray levels
    stack: int = 4  # frames an observation
    sticky: float = 0.0  # probability, at each emulator frame, that the previous action is repeated
    full_action_set: bool = False  # all 18 actions rather than those that the game reacts to
    life_loss_terminal: bool = True  # a life lost is `terminated`; the game itself goes on
    stop_skip_at_life_loss: bool = (
        True  # a life lost ends the agent step at once (where it is terminal; game over always does)
    )
    noop_min: int = 0  # a game begins with U{noop_min, ..., noop_max} no-ops, which no budget counts
    noop_max: int = 29
    noop_unit: str = "frame"  # of these: "frame" (one emulator frame) or "step" (frame_skip frames)
    episode_steps: int = 27_000  # agent steps after which a game is truncated

    def __post_init__(self) -> None:
        for name in ("frame_skip", "frame_size", "stack", "episode_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"protocol.{name} must be >= 1, got {getattr(self, name)}")
        if self.frame_size > 160:
            raise ValueError(f"protocol.frame_size must be <= 160, the width of the screen, got {self.frame_size}")
        if not 0 <= self.noop_min <= self.noop_max:
            raise ValueError(
                f"protocol.noop_min and noop_max must obey 0 <= min <= max, got {self.noop_min} and {self.noop_max}"
            )
        if not 0.0 <= self.sticky < 1.0:
            raise ValueError(f"protocol.sticky must lie in [0, 1), got {self.sticky}")
        if self.noop_unit not in ("frame", "step"):
            raise ValueError(f'protocol.noop_unit must be "frame" or "step", got {self.noop_unit!r}')


@dataclass(frozen=True)
class CatchProtocol:
    """The size of catch's board. A game takes rows - 1 steps."""

    rows: int = 10
    columns: int = 5

    def __post_init__(self) -> None:
        if not (2 <= self.rows <= 1024 and 1 <= self.columns <= 1024):
            raise ValueError(f"catch needs 2 to 1024 rows and 1 to 1024 columns, got {self.rows} and {self.columns}")


@dataclass(frozen=True)
class ControlProtocol:
    """Steps after which an episode of each classic-control game is truncated. The defaults are Gymnasium's."""

    acrobot_steps: int = 500
    cartpole_steps: int = 500
    mountain_car_steps: int = 200
    mountain_car_continuous_steps: int = 999
    pendulum_steps: int = 200

    def __post_init__(self) -> None:
        for field in dataclasses.fields(ControlProtocol):  # not those that a subclass adds
            if not 1 <= getattr(self, field.name) <= 10**9:
                raise ValueError(f"protocol.{field.name} must be in [1, 1e9], got {getattr(self, field.name)}")


@dataclass(frozen=True)
class DmcProtocol:
    """How a DeepMind Control task is presented to an agent. docs/envs.md gives the source of each value."""

    action_repeat: int = 2  # control steps an agent step; rewards are summed
    episode_steps: int = 500  # agent steps after which an episode is truncated; nothing else ends one
    pixels: bool = False  # a frame is a picture, uint8 [3, frame_size, frame_size], rather than the task's observation
    frame_size: int = 84
    stack: int = 1  # frames an observation

    def __post_init__(self) -> None:
        for name in ("action_repeat", "episode_steps", "frame_size", "stack"):
            if getattr(self, name) < 1:
                raise ValueError(f"protocol.{name} must be >= 1, got {getattr(self, name)}")
        if self.frame_size > 480:
            raise ValueError(f"protocol.frame_size must be <= 480, what MuJoCo draws into, got {self.frame_size}")


@dataclass(frozen=True)
class MultitaskProtocol:
    """Which tasks are played at once: environment i of a run plays task i mod K, by the protocol of that task's own suite."""

    tasks: tuple[str, ...]  # as make() takes them: vectors of float32, continuous actions
    observation: int = 128  # numbers of an observation, padded with zeros to as many
    actions: int = 16  # numbers of an action; those that a task lacks are dropped

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"protocol.tasks must name tasks, each once, got {list(self.tasks)}")
        for name in ("observation", "actions"):
            if getattr(self, name) < 1:
                raise ValueError(f"protocol.{name} must be >= 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class GymProtocol:
    """How one of Gymnasium's MuJoCo environments is played."""

    version: str = "v4"  # of the environment: "v4" or "v5", whose rewards and observations differ
    episode_steps: int = 1_000  # agent steps after which an episode is truncated

    def __post_init__(self) -> None:
        if self.version not in ("v4", "v5"):
            raise ValueError(f'protocol.version must be "v4" or "v5", got {self.version!r}')
        if self.episode_steps < 1:
            raise ValueError(f"protocol.episode_steps must be >= 1, got {self.episode_steps}")


@dataclass(frozen=True)
class MinAtarProtocol:
    """How a MinAtar game is played. The defaults are MinAtar's own."""

    sticky: float = 0.1  # probability, at each step, that the previous action is taken instead
    ramping: bool = True  # games grow harder with time or progress, where they can
    episode_steps: int = 0  # agent steps after which a game is truncated; 0: never

    def __post_init__(self) -> None:
        if not 0.0 <= self.sticky < 1.0:
            raise ValueError(f"protocol.sticky must lie in [0, 1), got {self.sticky}")
        if not 0 <= self.episode_steps < 2**31:
            raise ValueError(f"protocol.episode_steps must lie in [0, 2^31), got {self.episode_steps}")


@dataclass(frozen=True)
class PermutedProtocol(MinAtarProtocol):
    """A MinAtar game whose actions change places from phase to phase."""

    phase_steps: int = 150_000  # agent steps of each environment in a phase
    first_phase: int = 0  # the number of the phase in which new environments begin; in phase 0 nothing is permuted

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_phases(self.phase_steps, self.first_phase)

    @property
    def cycle(self) -> int:
        """After how many phases the same ones come again; 0: never."""
        return 0


@dataclass(frozen=True)
class ContinualMinAtarProtocol(PermutedProtocol):
    """MinAtar's games one after the other: one in each phase, then from the first again."""

    games: tuple[str, ...] = ("Breakout", "Asterix", "SpaceInvaders", "Freeway", "Seaquest")
    permuted: bool = False  # actions change places, too

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.games) <= 32:
            raise ValueError(f"protocol.games must name 1 to 32 games, got {len(self.games)}")

    @property
    def cycle(self) -> int:
        """After how many phases the same ones come again; 0: never."""
        return 0 if self.permuted else len(self.games)


@dataclass(frozen=True)
class ContinualControlProtocol(ControlProtocol):
    """Classic control with other dynamics in each phase: factors of gravity, of lengths and of what an action does. Phase p has the
    p-th of each list, which begins again at its end; with `drawn`, a uniform draw between the least and the greatest."""

    phase_steps: int = 20_000  # agent steps of each environment in a phase
    first_phase: int = 0  # the number of the phase in which new environments begin
    gravity: tuple[float, ...] = (1.0,)
    length: tuple[float, ...] = (1.0,)
    force: tuple[float, ...] = (1.0,)
    drawn: bool = False  # phases from 1 on; the same for all environments of a run

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_phases(self.phase_steps, self.first_phase)
        for name in ("gravity", "length", "force"):
            factors = getattr(self, name)
            if not 1 <= len(factors) <= 8 or not all(0.01 <= factor <= 100.0 for factor in factors):
                raise ValueError(f"protocol.{name} must be 1 to 8 factors in [0.01, 100], got {list(factors)}")

    @property
    def cycle(self) -> int:
        """After how many phases the same ones come again; 0: never."""
        return 0 if self.drawn else math.lcm(len(self.gravity), len(self.length), len(self.force))


@dataclass(frozen=True)
class ChangingPhysics:
    """MuJoCo with other physics in each phase: factors of the sliding friction of all bodies and of gravity. Phase p has the p-th of each
    list, which begins again at its end; with `drawn` phase 0 is as it is, and later ones draw each between the least and the greatest,
    uniformly on a logarithmic scale."""

    phase_steps: int = 300_000  # agent steps of each environment in a phase
    first_phase: int = 0  # the number of the phase in which new environments begin
    friction: tuple[float, ...] = (1.0,)
    gravity: tuple[float, ...] = (1.0,)
    drawn: bool = False  # the same for all environments of a run

    def __post_init__(self) -> None:
        _check_phases(self.phase_steps, self.first_phase)
        for name in ("friction", "gravity"):
            factors = getattr(self, name)
            if not 1 <= len(factors) <= 8 or not all(0.01 <= factor <= 100.0 for factor in factors):
                raise ValueError(f"protocol.{name} must be 1 to 8 factors in [0.01, 100], got {list(factors)}")

    @property
    def cycle(self) -> int:
        """After how many phases the same ones come again; 0: never."""
        return 0 if self.drawn else math.lcm(len(self.friction), len(self.gravity))


@dataclass(frozen=True)
class ContinualGymProtocol(ChangingPhysics, GymProtocol):
    """Gymnasium's MuJoCo environments with physics that change."""

    def __post_init__(self) -> None:
        ChangingPhysics.__post_init__(self)
        GymProtocol.__post_init__(self)


@dataclass(frozen=True)
class ContinualDmcProtocol(ChangingPhysics, DmcProtocol):
    """DeepMind Control with physics that change."""

    def __post_init__(self) -> None:
        ChangingPhysics.__post_init__(self)
        DmcProtocol.__post_init__(self)


def as_state(protocol: Any) -> dict[str, Any]:
    """A protocol as a state holds it: with lists for tuples."""
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(protocol).items()
    }


def _check_phases(phase_steps: int, first_phase: int) -> None:
    if not 1 <= phase_steps <= 2**40:
        raise ValueError(f"protocol.phase_steps must lie in [1, 2^40], got {phase_steps}")
    if not 0 <= first_phase <= 2**40:
        raise ValueError(f"protocol.first_phase must lie in [0, 2^40], got {first_phase}")


@dataclass(frozen=True)
class NoProtocol:
    """Of environments that leave nothing to choose."""


@dataclass(frozen=True)
class Suite:
    """A benchmark: what is played, how, for how long, and how scores are read."""

    name: str
    tasks: tuple[str, ...]  # as make() takes them
    steps: int  # budget of a run, in agent steps
    episodes: int = 100  # of the evaluation
    epsilon: float = 0.0  # of the evaluation's policy, where it is epsilon-greedy
    protocol: Any = NoProtocol()  # a frozen dataclass
    variants: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # other protocols of the same type, by name
    scores: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)  # task: (what is 0, what is 1)
    every: int = 0  # agent steps between evaluations; 0: only at the end
    benchmark: str | None = None  # whose published scores runs are compared with; None: nobody's

    def scale(self, task: str) -> tuple[float, float] | None:
        """The scores of a task that are 0 and 1 when normalised: random play and a human on Atari. None: not normalised."""
        return self.scores.get(task)

    def protocol_named(self, name: str) -> Any:
        """`name` in `variants`; "" is the suite's own protocol.

        Raises:
            ValueError: no such variant.
        """
        if name and name not in self.variants:
            raise ValueError(unknown(f"variant of {self.name}", name, self.variants))
        return self.variants[name] if name else self.protocol


def load_suite(name: str, protocol: type[Any], prefix: str = "") -> Suite:
    """Read suites/<name>.yaml. Tasks are `prefix` + each of `tasks` or, without these, each key of `scores`; `name` alone where
    there are neither. `scale` is the pair of every task that `scores` does not list.

    Raises:
        ValueError: unknown or missing keys, values of another type, or outside their range.
    """
    text = files(__package__).joinpath("suites", f"{name}.yaml").read_text()
    return parse_suite(text, protocol, prefix)


def parse_suite(text: str, protocol: type[Any], prefix: str = "") -> Suite:
    """`load_suite` on a text."""
    read = OmegaConf.to_container(OmegaConf.create(text))
    if not isinstance(read, dict):
        raise ValueError("a suite is a mapping")  # noqa: TRY004  # a file is wrong, not a type
    required = {"name", "steps", "evaluation", "protocol"}
    _check_keys("suite", read, required | {"variants", "scores", "scale", "tasks", "benchmark"}, required)
    _check_keys("evaluation", read["evaluation"], {"episodes", "epsilon", "every"}, {"episodes", "epsilon"})
    names = {field.name for field in dataclasses.fields(protocol)}
    _check_keys("protocol", read["protocol"], names, names)
    base = _build(protocol, read["protocol"])
    variants = {}
    for variant, changes in read.get("variants", {}).items():
        _check_keys(f"variants.{variant}", changes, names, set())
        variants[str(variant)] = _build(protocol, {**read["protocol"], **changes})
    scores = {prefix + str(task): (float(pair[0]), float(pair[1])) for task, pair in read.get("scores", {}).items()}
    tasks = tuple(prefix + str(task) for task in read.get("tasks", ())) or tuple(scores) or (str(read["name"]),)
    if extra := sorted(set(scores) - set(tasks)):
        raise ValueError(f"scores of {', '.join(extra)}, which tasks lacks")
    if "scale" in read:
        low, high = read["scale"]
        scores = dict.fromkeys(tasks, (float(low), float(high))) | scores
    return Suite(
        name=str(read["name"]), tasks=tasks, steps=int(read["steps"]),
        episodes=int(read["evaluation"]["episodes"]), epsilon=float(read["evaluation"]["epsilon"]),
        protocol=base, variants=variants, scores=scores, every=int(read["evaluation"].get("every", 0)),
        benchmark=None if "benchmark" not in read else str(read["benchmark"]),
    )  # fmt: skip


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not among the known ones, with the nearest of these."""
    lowered = {candidate.lower(): candidate for candidate in known}
    near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)]
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(sorted(lowered.values()))}"
    return f"unknown {what}: {name!r}{hint}"


def _check_keys(where: str, read: Mapping[Any, Any], known: set[str], required: set[str]) -> None:
    for key in read:
        if key not in known:
            raise ValueError(unknown(f"key of {where}", str(key), known))
    if missing := sorted(required - {str(key) for key in read}):
        raise ValueError(f"{where} lacks {', '.join(missing)}")


def _build(protocol: type[Any], values: Mapping[str, Any]) -> Any:
    """The dataclass from values whose types are checked against it."""
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(protocol), cast(dict[str, Any], dict(values))))
    except OmegaConfBaseException as error:
        raise ValueError(f"protocol.{error.full_key}: {str(error).splitlines()[0]}") from error
