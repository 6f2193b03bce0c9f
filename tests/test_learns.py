"""Agents reach the known optimum of catch, on every seed."""

from pathlib import Path

import pytest

import rlplatform


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_der_solves_catch(tmp_path: Path, seed: int) -> None:
    result = rlplatform.train("der", "catch", seed=seed, steps=6_000, run_dir=tmp_path)
    assert result["mean"] == 1.0  # every ball of 100 games is caught
    assert result["episodes"] == 100


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("preset", ["drq_eps", "spr", "sr_spr", "bbf"])
def test_the_spr_family_solves_catch(tmp_path: Path, preset: str, seed: int) -> None:
    """Resets included: they fall after 1,000 and 2,000 of the 3,000 agent steps."""
    result = rlplatform.train(preset, "catch", seed=seed, steps=3_000, run_dir=tmp_path)
    assert result["mean"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("preset", "steps"), [("sac", 8_000), ("mrq", 6_000)])
def test_continuous_control_swings_the_pendulum_up(tmp_path: Path, preset: str, steps: int, seed: int) -> None:
    """Random play has about -1,200; from an average start the way up alone costs about 150."""
    result = rlplatform.train(preset, "control/Pendulum", seed=seed, steps=steps, run_dir=tmp_path)
    assert result["mean"] > -200.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mrq_learns_to_catch(tmp_path: Path, seed: int) -> None:
    """Its actions stay draws from a softmax, so that a ball now and then is missed: 90 of 100 are caught, at random 20."""
    result = rlplatform.train("mrq", "catch", seed=seed, steps=12_000, run_dir=tmp_path)
    assert result["mean"] >= 0.8
