"""Agents reach the known optimum of catch, on every seed."""

from pathlib import Path

import pytest

import rlplatform


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_der_solves_catch(tmp_path: Path, seed: int) -> None:
    result = rlplatform.train("der", "catch", seed=seed, steps=6_000, run_dir=tmp_path)
    assert result["mean"] == 1.0  # every ball of 100 games is caught
    assert result["episodes"] == 100
