"""Configuration: frozen dataclasses are the schema, YAML and `key.sub=value` the data, OmegaConf the merger.

Unknown keys, wrong types, missing values and NaN are refused before anything runs; an unknown key with a suggestion.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says which key and what was expected."""


def merge(schema: T, *layers: Mapping[str, Any], overrides: Sequence[str] = ()) -> T:
    """`schema` (an instance of a dataclass, defaults included) with the layers and then the overrides laid over it.

    Args:
        layers: nested mappings, as read from YAML; later ones win.
        overrides: "key.sub=value" each, the value in YAML's notation; later ones win.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a value of another type, NaN, a malformed override.
    """
    known = sorted(_keys(schema))
    values: list[Mapping[str, Any]] = [*layers]
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"{override!r} is not of the form key=value")
        _check_known(key, known)
        values.append(cast(dict[str, Any], OmegaConf.to_container(OmegaConf.from_dotlist([override]))))
    for layer in layers:
        for key in _leaves(layer):
            _check_known(key, known)
    merged = OmegaConf.structured(schema)
    for value in values:
        try:
            merged = OmegaConf.merge(merged, value)
        except OmegaConfBaseException as error:
            where = error.full_key or ", ".join(_leaves(value))
            raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from error
    assert isinstance(merged, DictConfig)
    missing = sorted(OmegaConf.missing_keys(merged))
    if missing:
        raise ConfigError(f"no value for {', '.join(missing)}")
    result = cast(T, OmegaConf.to_object(merged))
    for key, value in flatten(result).items():
        if isinstance(value, float) and math.isnan(value):
            raise ConfigError(f"{key} is NaN")
    return result


def to_yaml(config: Any) -> str:
    """A resolved configuration as YAML; equal configurations give equal text."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested dataclass by dotted key."""
    out: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            out |= flatten(value, f"{prefix}{field.name}.")
        else:
            out[prefix + field.name] = value
    return out


def suggestion(word: str, known: Sequence[str]) -> str:
    """What to append to the refusal of an unknown word: the nearest known one in brackets, or nothing."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _check_known(key: str, known: Sequence[str]) -> None:
    if key not in known and not any(name.startswith(key + ".") for name in known):
        near = suggestion(key, known) or suggestion(key, [name.rpartition(".")[2] for name in known])
        raise ConfigError(f"unknown key {key!r}{near}")


def _keys(schema: Any) -> list[str]:
    return list(flatten(schema))


def _leaves(layer: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in layer.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
