import json

import pytest

import parity


def test_the_page_is_of_the_data():
    data = json.loads((parity.DOCS / "parity.json").read_text())
    assert (parity.DOCS / "parity.md").read_text() == parity.page(data)
    assert len(data["rows"]) == 10
    for row in data["rows"]:
        assert row["steps"] >= 20_000
        assert row["games"] >= 2
        assert (row["rewards"], row["ends"]) == (0, 0), row["task"]
        # Acrobot's episodes are long and chaotic; one step of it is as near as any.
        assert row["frames"] <= (0.01 * row["steps"] if row["task"] == "control/Acrobot" else 0), row["task"]
        assert row.get("frame_error", 0.0) <= 1e-5
        assert row.get("step_error", 0.0) <= 1e-14


def test_a_short_comparison_finds_nothing():
    data = parity.compare(150, [5])
    assert [row["task"] for row in data["rows"]][:2] == ["minatar/Asterix", "minatar/Breakout"]
    assert all((row["frames"], row["rewards"], row["ends"]) == (0, 0, 0) for row in data["rows"])
    assert sum(row["games"] for row in data["rows"]) > 10


@pytest.mark.parametrize("game", ["Asterix", "Breakout"])
def test_other_draws_are_found(game):
    row = parity.minatar(game, 0, 400, oracle_seed=1)
    assert row["frames"] > 50
    assert row["ends"] > 2


def test_another_start_is_found(monkeypatch):
    """Gymnasium begun elsewhere: what the control side counts can differ from 0."""
    reset = parity.gymnasium.make("Pendulum-v1").unwrapped.__class__.step

    def wrong(self, u):
        self.state = self.state + 1e-6
        return reset(self, u)

    monkeypatch.setattr(parity.gymnasium.make("Pendulum-v1").unwrapped.__class__, "step", wrong)
    row = parity.control("Pendulum", 0, 300)
    assert row["frames"] > 100
    assert row["rewards"] > 100
    assert row["state_error"] > 1e-6
