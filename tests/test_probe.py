"""The label-shuffle probe at a size of seconds: what it computes is seeded, and what it shows is there."""

import json

import numpy as np
import pytest

from rlplatform.evaluation import probe

SMALL = probe.Config(tasks=3, inputs=64, size=8, hidden=16, epochs=4, batch=16)


@pytest.mark.parametrize("method", probe.METHODS)
def test_a_method_is_the_baseline_and_one_technique(method):
    """The first task begins from the same network, labels and batches; a seed is a run."""
    config, base = probe.METHODS[method](SMALL), probe.METHODS["adam"](SMALL)
    found, again, other = probe.run(config, 1), probe.run(config, 1), probe.run(config, 2)
    assert found == again
    assert found["online_accuracy"] != other["online_accuracy"]
    assert all(len(values) == 3 for values in found.values())
    baseline = probe.run(base, 1)
    first = [values[0] for values in found.values()], [values[0] for values in baseline.values()]
    if method in ("adam", "fresh", "shrink_perturb"):
        assert first[0] == first[1]
    if method != "adam":
        changed = {name for name in vars(config) if getattr(config, name) != getattr(base, name)}
        assert changed == {{"shrink_perturb": "shrink"}.get(method, method)}
        assert found != baseline or method == "redo"  # no unit of a tiny network need be dormant so soon


def test_labels_are_new_in_every_task_and_inputs_stay(monkeypatch):
    """A network that cannot learn has the accuracy of its first guesses on each task's labels: by chance, and another one each time."""
    still = probe.run(probe.replace(SMALL, rate=1e-12, inputs=256, tasks=6), 0)["accuracy"]
    assert len(set(still)) > 3
    assert all(abs(accuracy - 0.1) < 5 * (0.1 * 0.9 / 256) ** 0.5 for accuracy in still)  # 5 sigma


def test_a_table_a_file_and_a_figure(tmp_path, monkeypatch, capsys):
    arguments = ["--methods", "adam", "redo", "--seeds", "2", "--tasks", "2", "--epochs", "1"]
    monkeypatch.setattr(
        "sys.argv", ["probe", *arguments, "--out", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png")]
    )
    probe.main()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 5
    result = json.loads((tmp_path / "out.json").read_text())
    assert [(row["method"], row["seed"]) for row in result["rows"]] == [
        ("adam", 0),
        ("adam", 1),
        ("redo", 0),
        ("redo", 1),
    ]
    assert result["methods"]["redo"]["redo"]["every"] == 100
    assert np.shape(result["rows"][0]["accuracy"]) == (2,)
    assert (tmp_path / "out.png").stat().st_size > 20_000
