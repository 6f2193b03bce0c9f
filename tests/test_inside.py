"""The figure of a run from inside shows what its files say."""

import json

import numpy as np
import pytest

from rlplatform.evaluation.inside import inside, resets_of
from rlplatform.evaluation.runs import Run
from run_files import make_run


def with_metrics(folder, lines):
    make_run(folder, preset="bbf")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def bbf_lines(steps=(500, 1_000, 1_500, 2_000, 2_500), resets=(0, 0, 1, 1, 2)):
    return [
        {"step": step, "losses/td_loss": 3.0 - step / 1_000, "losses/spr_loss": 0.1, "charts/n": 10 - k, "charts/resets": reset}
        for k, (step, reset) in enumerate(zip(steps, resets, strict=True))
    ]  # fmt: skip


def test_resets_are_where_their_count_rises(tmp_path):
    run = Run(with_metrics(tmp_path / "run", bbf_lines()))
    np.testing.assert_array_equal(resets_of(run), [1_500, 2_500])
    assert len(resets_of(Run(make_run(tmp_path / "other")))) == 0


def test_rows_are_the_metrics_that_there_are(tmp_path):
    folder = with_metrics(tmp_path / "run", bbf_lines())
    other = make_run(tmp_path / "other")
    figure = inside([Run(folder), Run(other)], tmp_path / "inside.png")
    assert (tmp_path / "inside.png").stat().st_size > 10_000
    panels = figure.axes
    assert len(panels) == 6  # score, loss and n, of two runs: no value, no gamma
    loss, n = panels[2], panels[4]
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), [500, 1_000, 1_500, 2_000, 2_500])
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [2.5, 2.0, 1.5, 1.0, 0.5])
    np.testing.assert_array_equal(n.lines[0].get_ydata(), [10, 9, 8, 7, 6])
    assert [line.get_xdata()[0] for line in n.lines[1:]] == [1_500, 2_500]  # the resets
    assert [text.get_text() for text in panels[5].texts] == ["no n"]


def test_a_run_cut_short_says_so(tmp_path):
    folder = with_metrics(tmp_path / "run", bbf_lines())
    (folder / "result.json").unlink()
    figure = inside([Run(folder, cut_short=True)], tmp_path / "inside.svg")
    assert figure.axes[0].get_title(loc="left").endswith("stopped at 2,500")
    with pytest.raises(ValueError, match="not finished"):
        Run(folder)
