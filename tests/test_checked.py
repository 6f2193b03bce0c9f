"""Checks of configurations: the bounds themselves, and what is said of a value beyond."""

from dataclasses import dataclass, replace

import pytest

from rlplatform.checked import Checked


@dataclass(frozen=True)
class Config(Checked):
    section = "part."
    kind: str = "a"
    count: int = 2
    rate: float = 1.0
    weight: float = 0.0
    share: float = 0.5

    def __post_init__(self) -> None:
        self._one_of(("a", "b"), "kind")
        self._at_least(2, "count")
        self._positive("rate")
        self._not_negative("weight")
        self._share("share")


INF, NAN = float("inf"), float("nan")


def test_values_at_the_bounds_are_taken():
    for good in ({"kind": "b"}, {"rate": 1e-300}, {"weight": 1e300}, {"share": 0.0}, {"share": 1.0}):
        ((name, value),) = good.items()
        assert getattr(replace(Config(), **good), name) == value


@pytest.mark.parametrize(
    ("name", "values", "what"),
    [
        ("kind", ["c"], "one of a, b"),
        ("count", [1, -1], ">= 2"),
        ("rate", [0.0, -1.0, INF, NAN], "positive and finite"),
        ("weight", [-1e-9, INF, NAN], "finite and >= 0"),
        ("share", [-1e-9, 1.0 + 1e-9, INF, NAN], r"in \[0, 1\]"),
    ],
)
def test_a_value_beyond_is_named_with_its_field(name, values, what):
    for value in values:
        with pytest.raises(ValueError, match=rf"^part\.{name} must be {what}, got "):
            replace(Config(), **{name: value})
