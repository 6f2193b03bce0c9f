"""The agents, one algorithm a file, and the presets: an agent's hyper-parameters by suite, as data."""

if __name__ != "rlplatform.agents":
    raise ImportError("import rlplatform.agents, not agents: pyproject.toml mounts the folder there")

import difflib
import importlib
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from omegaconf import OmegaConf

AGENTS = {  # by the name of its file; imported when asked for
    "mrq": "rlplatform.agents.mrq:Agent",
    "mrq_multitask": "rlplatform.agents.mrq_multitask:Agent",
    "ppo": "rlplatform.agents.ppo:Agent",
    "pqn": "rlplatform.agents.pqn:Agent",
    "sac": "rlplatform.agents.sac:Agent",
    "spr": "rlplatform.agents.spr:Agent",
}


@dataclass(frozen=True)
class Preset:
    """What `rlplatform train NAME` means."""

    agent: str  # "module:Class", for resolve()
    config: dict[str, Any]  # where the agent's Config departs from its defaults
    variant: str = ""  # of the suite's protocol; "": the suite's own
    run: dict[str, Any] = field(default_factory=dict)  # where the run departs from RunConfig's defaults: envs, rollout


def presets() -> list[str]:
    """Names of all presets, sorted."""
    return sorted(path.name.removesuffix(".yaml") for path in files(__name__).joinpath("presets").iterdir())


def load_preset(name: str, suite: str = "atari100k") -> Preset:
    """The preset `name` for the tasks of `suite` ("atari100k", "catch", ...).

    A file says what holds for all suites (`config`), and by suite what differs (`suites`) and which variant of its protocol is
    played (`variants`). An agent that learns in rounds of so many steps also says so: `run`, and by suite `suite_runs`. Where a
    file names a `base`, another preset, it says only how it departs from that one, suite by suite.

    Raises:
        ValueError: no such preset.
    """
    if name not in presets():
        raise ValueError(_unknown("preset", name, presets()))
    text = files(__name__).joinpath("presets", f"{name}.yaml").read_text()
    read: Any = OmegaConf.to_container(OmegaConf.create(text))
    base = load_preset(read["base"], suite) if "base" in read else Preset(str(read["agent"]), {})
    config = _merged(base.config, read.get("config", {}), read.get("suites", {}).get(suite, {}))
    run = _merged(base.run, read.get("run", {}), read.get("suite_runs", {}).get(suite, {}))
    return Preset(base.agent, config, str(read.get("variants", {}).get(suite, base.variant)), run)


def _merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings merged key by key; later ones win, and lists are replaced whole."""
    out: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            nested = isinstance(value, dict) and isinstance(out.get(key), dict)
            out[key] = _merged(out[key], value) if nested else value
    return out


def resolve(name: str) -> Any:
    """The agent class called `name`: one of AGENTS or "package.module:Class". Its `config_class` is its Config.

    Raises:
        ValueError: no such agent, or the class has no `config_class`.
    """
    path = AGENTS.get(name, name)
    module, colon, attribute = path.partition(":")
    if not colon:
        raise ValueError(_unknown("agent", name, [*AGENTS, "package.module:Class"]))
    agent = getattr(importlib.import_module(module), attribute, None)
    if agent is None or not hasattr(agent, "config_class"):
        raise ValueError(f"{path} is not an agent: it needs the class {attribute} with a `config_class`")
    return agent


def _unknown(what: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    return f"no {what} {name!r}; {hint}"
