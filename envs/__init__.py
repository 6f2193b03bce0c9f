"""Environments by name: `make("atari/Pong", n=1, seed=0)`. `register` adds one's own."""

if __name__ != "rlplatform.envs":
    raise ImportError("import rlplatform.envs, not envs: pyproject.toml mounts the folder there")

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rlplatform.envs.suites import (
    AtariProtocol,
    CatchProtocol,
    ContinualControlProtocol,
    ContinualDmcProtocol,
    ContinualGymProtocol,
    ContinualMinAtarProtocol,
    ControlProtocol,
    DmcProtocol,
    GymProtocol,
    MinAtarProtocol,
    MultitaskProtocol,
    PermutedProtocol,
    Suite,
    load_suite,
    unknown,
)
from rlplatform.types import EnvBatch

if TYPE_CHECKING:
    from rlplatform.device_types import DeviceEnvBatch

__all__ = [
    "AtariProtocol",
    "CatchProtocol",
    "ContinualControlProtocol",
    "ContinualDmcProtocol",
    "ContinualGymProtocol",
    "ContinualMinAtarProtocol",
    "ControlProtocol",
    "DmcProtocol",
    "GymProtocol",
    "MinAtarProtocol",
    "MultitaskProtocol",
    "PermutedProtocol",
    "Suite",
    "make",
    "make_on_device",
    "register",
    "suite_of",
    "suites",
    "tasks",
]

Factory = Callable[..., EnvBatch]  # (task, n, seed, first_env, protocol, **options)
EXACT = "exact"  # the backend that every task has: it draws from our streams and can be saved
ON_DEVICE = "device"  # a run's backend, not one of `make`: its environments are those of `make_on_device`


@dataclass(frozen=True)
class _Entry:
    factory: Factory
    suite: Suite
    backends: Mapping[str, Factory] = field(default_factory=dict)  # other than the exact one, by name


def make(
    task: str, n: int, seed: int, first_env: int = 0, protocol: Any = None, backend: str = EXACT, **options: Any
) -> EnvBatch:
    """N environments of one task, environment i drawing from the stream (seed, "env", first_env + i).

    Args:
        task: "<family>/<name>" as `tasks` lists them ("atari/Pong", "dmc/walker-walk"; "catch" alone), or what `register` added.
            The family says by which suite it is played: "atari57-mrq/Pong" is the same game under another protocol.
        n: how many, >= 1.
        seed: of the run.
        first_env: number of the first of them among all environments of the run.
        protocol: replaces the suite's; a string names one of the suite's variants.
        backend: "exact", which saves and restores to the bit, or "envpool" (Atari, MuJoCo), which does not and is threaded.
        options: go to the factory (for the games of the C++ core: threads, 1 by default; "envpool": threads, the cores by
            default).

    Raises:
        ValueError: no such task (with the nearest names), a protocol of another suite, a backend that this task does not
            have, or a protocol that it cannot express.
    """
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    if first_env < 0:
        raise ValueError(f"first_env must be >= 0, got {first_env}")
    entry = _find(task)
    if protocol is None or isinstance(protocol, str):
        protocol = entry.suite.protocol_named(protocol or "")
    if type(protocol) is not type(entry.suite.protocol):
        raise ValueError(
            f"{task} is played by a {type(entry.suite.protocol).__name__}, got a {type(protocol).__name__}"
        )
    factories = {EXACT: entry.factory, **entry.backends}
    if backend not in factories:
        raise ValueError(unknown(f"backend of {task}", backend, factories))
    return factories[backend](task, n, seed, first_env, protocol, **options)


def make_on_device(
    task: str, n: int, seed: int, first_env: int = 0, protocol: Any = None, device: str = "cuda"
) -> "DeviceEnvBatch":
    """N environments of one task as tensors on a device, each the environment of that number that `make` gives, with its states.

    Args:
        task, n, seed, first_env, protocol: as for `make`.
        device: as torch names it, "cuda" or "cuda:1"; "cpu" runs the same code as a loop, to try and test what needs a GPU.

    Raises:
        ValueError: as for `make`, and for a task that has no form on a device: all but catch, control and minatar.
        RuntimeError: no GPU, or no CUDA kernels in this installation.
    """
    if n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    twin = make(task, 1, seed, first_env, protocol)
    try:
        from rlplatform.envs import device as on_device

        return on_device.make_on_device(twin, seed, n, first_env, device)
    finally:
        twin.close()


def register(name: str, factory: Factory, suite: Suite | None = None) -> None:
    """Make `name` known to `make`, and to the command line through it.

    Args:
        name: a task, or a family: "mine" is asked for "mine" and for every "mine/<something>".
        factory: called as factory(task, n, seed, first_env, protocol, **options); gives an EnvBatch.
        suite: budget, protocol and normalisation; without one: 100,000 steps, no protocol, no normalisation.

    Raises:
        ValueError: the name is taken or has a slash.
    """
    if name in _ENTRIES or "/" in name or not name:
        raise ValueError(
            f"{name!r} is taken" if name in _ENTRIES else f"{name!r}: a name is not empty and has no slash"
        )
    _ENTRIES[name] = _Entry(factory, suite or Suite(name=name, tasks=(name,), steps=100_000))


def suite_of(task: str) -> Suite:
    """The suite by whose protocol a task is played.

    Raises:
        ValueError: no such task.
    """
    return _find(task).suite


def suites() -> list[Suite]:
    """All suites, those added by `register` last."""
    return [entry.suite for entry in _ENTRIES.values()]


def tasks() -> list[str]:
    """All tasks of all suites. More can be made: every game of ale-py, as "atari/<Game>", and every bounded task of dm_control,
    as "dmc/<domain>-<task>"."""
    return [task for suite in suites() for task in suite.tasks]


def _find(task: str) -> _Entry:
    family = task.partition("/")[0]
    if family not in _ENTRIES:
        raise ValueError(unknown("task", task, tasks()))
    return _ENTRIES[family]


def _catch(*args: Any, **options: Any) -> EnvBatch:
    from rlplatform.envs.native import make_catch

    return make_catch(*args, **options)


def _control(*args: Any, **options: Any) -> EnvBatch:
    from rlplatform.envs.control import make_control

    return make_control(*args, **options)


def _atari(*args: Any, **options: Any) -> EnvBatch:
    from rlplatform.envs.atari import AtariBatch

    return AtariBatch(*args, **options)


def _minatar(*args: Any, **options: Any) -> EnvBatch:
    from rlplatform.envs.minatar import make_minatar

    return make_minatar(*args, **options)


def _continual_minatar(*args: Any, **options: Any) -> EnvBatch:
    from rlplatform.envs.continual import make_continual_minatar

    return make_continual_minatar(*args, **options)


def _continual_permuted(*args: Any, **options: Any) -> EnvBatch:
    from rlplatform.envs.continual import make_permuted

    return make_permuted(*args, **options)


def _continual_control(*args: Any, **options: Any) -> EnvBatch:
    from rlplatform.envs.continual import make_continual_control

    return make_continual_control(*args, **options)


def _dmc(*args: Any, **options: Any) -> EnvBatch:
    _require("DeepMind Control", "dm_control", "mujoco")
    from rlplatform.envs.dmc import make_dmc

    return make_dmc(*args, **options)


def _gym(*args: Any, **options: Any) -> EnvBatch:
    _require("MuJoCo in Gymnasium", "mujoco")
    from rlplatform.envs.mujoco_gym import make_gym

    return make_gym(*args, **options)


def _multitask(*args: Any, **options: Any) -> EnvBatch:
    from rlplatform.envs.multitask import make_multitask

    return make_multitask(*args, **options)


def _mujoco_pool(*args: Any, **options: Any) -> EnvBatch:
    _require("MuJoCo on EnvPool", "dm_control", "mujoco")
    from rlplatform.envs.mujoco_pool import make_pool

    return make_pool(*args, **options)


def _envpool(*args: Any, **options: Any) -> EnvBatch:
    from rlplatform.envs.pool import PoolBatch

    return PoolBatch(*args, **options)


def _require(what: str, *modules: str) -> None:
    """Raise ValueError where a package that these tasks need is not installed."""
    missing = [module.replace("_", "-") for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ValueError(f"{what} needs {' and '.join(missing)}: pip install 'rlplatform[dmc]'")


_POOL = {"envpool": _mujoco_pool}
_ENTRIES: dict[str, _Entry] = {
    "catch": _Entry(_catch, load_suite("catch", CatchProtocol)),
    "minatar": _Entry(_minatar, load_suite("minatar", MinAtarProtocol, prefix="minatar/")),
    "atari": _Entry(_atari, load_suite("atari100k", AtariProtocol, prefix="atari/"), {"envpool": _envpool}),
    "control": _Entry(_control, load_suite("control", ControlProtocol, prefix="control/")),
    "continual-minatar": _Entry(_continual_minatar, load_suite("continual-minatar", ContinualMinAtarProtocol)),
    "continual-permuted": _Entry(
        _continual_permuted, load_suite("continual-permuted", PermutedProtocol, prefix="continual-permuted/")
    ),
    "continual-control": _Entry(
        _continual_control, load_suite("continual-control", ContinualControlProtocol, prefix="continual-control/")
    ),
    "dmc": _Entry(_dmc, load_suite("dmc28", DmcProtocol, prefix="dmc/"), _POOL),
    "dmc-visual": _Entry(_dmc, load_suite("dmc28-visual", DmcProtocol, prefix="dmc-visual/"), _POOL),
    "dmc10-resets": _Entry(_dmc, load_suite("dmc10-resets", DmcProtocol, prefix="dmc10-resets/"), _POOL),
    "continual-gym": _Entry(_gym, load_suite("continual-gym", ContinualGymProtocol, prefix="continual-gym/")),
    "continual-dmc": _Entry(_dmc, load_suite("continual-dmc", ContinualDmcProtocol, prefix="continual-dmc/")),
    "gym": _Entry(_gym, load_suite("gym5", GymProtocol, prefix="gym/"), _POOL),
    "multitask-dmc6": _Entry(_multitask, load_suite("multitask-dmc6", MultitaskProtocol)),
    "multitask-dmc21": _Entry(_multitask, load_suite("multitask-dmc21", MultitaskProtocol)),
    "atari57-mrq": _Entry(
        _atari, load_suite("atari57-mrq", AtariProtocol, prefix="atari57-mrq/"), {"envpool": _envpool}
    ),
}
