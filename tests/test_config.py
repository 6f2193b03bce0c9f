"""Merging, typing and refusals of the configuration."""

import dataclasses

import pytest

from rlplatform.config import ConfigError, flatten, merge, to_yaml


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    width: int = 4
    sizes: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = dataclasses.field(default_factory=Inner)
    name: str = "x"
    replay_ratio: float = 1.0


def test_later_layers_win_and_overrides_win_over_all() -> None:
    merged = merge(
        Outer(), {"inner": {"rate": 0.25, "width": 8}}, {"name": "y"}, overrides=["inner.width=16", "inner.width=32"]
    )
    assert merged == Outer(Inner(0.25, 32), "y")


def test_the_schema_is_left_alone_and_types_are_kept() -> None:
    schema = Outer()
    merged = merge(schema, overrides=["inner.rate=1"])
    assert schema == Outer()
    assert isinstance(merged.inner.rate, float)


def test_a_resolved_config_written_and_read_again_is_the_same() -> None:
    from omegaconf import OmegaConf

    config = merge(Outer(), overrides=["inner.rate=1e-4", "name='123'"])
    again = merge(Outer(), OmegaConf.to_container(OmegaConf.create(to_yaml(config))))  # type: ignore[arg-type]
    assert again == config
    assert to_yaml(again) == to_yaml(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("replay_ration=2", "did you mean 'replay_ratio'"),
        ("inner.widht=2", "did you mean 'inner.width'"),
        ("width=2", "unknown key 'width'.*did you mean"),
        ("inner.width=two", "inner.width"),
        ("inner.width=1.5", "inner.width"),
        ("inner.rate=nan", "inner.rate is NaN"),
        ("inner.rate", "key=value"),
        ("=3", "key=value"),
        ("inner=3", "inner"),
    ],
)
def test_refusals_name_the_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        merge(Outer(), overrides=[override])


def test_an_unknown_key_in_a_layer_is_refused_too() -> None:
    with pytest.raises(ConfigError, match=r"inner\.rat.*inner\.rate"):
        merge(Outer(), {"inner": {"rat": 1.0}})


def test_flatten_gives_dotted_leaves() -> None:
    assert flatten(Outer()) == {
        "inner.rate": 0.5, "inner.width": 4, "inner.sizes": (1, 2), "name": "x", "replay_ratio": 1.0,
    }  # fmt: skip
