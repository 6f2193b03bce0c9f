import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from PIL import Image

from rlplatform.evaluation import plots, runs
from rlplatform.evaluation.published import benchmark_of, counterpart, percentile, published
from rlplatform.evaluation.report import in_words, protocol_line, results, summarise
from rlplatform.evaluation.runs import Run, collect, find
from rlplatform.evaluation.stats import Interval
from run_files import make_run, scores_of


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(make_run(tmp_path / "run"))


def test_a_run_is_read_from_its_files(run) -> None:
    assert (run.preset, run.task, run.game, run.seed) == ("der", "atari/Pong", "Pong", 1)
    assert run.evals.step.tolist() == [50_000] * 100 + [100_000] * 100
    np.testing.assert_array_equal(run.final.score, scores_of(-15.0, 1))
    assert run.episodes.shape == (300, 4)
    assert run.episodes[-1, [0, 1, 3]].tolist() == [100_000, 0, 900]
    assert run.series("charts/episodic_return").tolist() == [[1000.0 * k, k] for k in range(1, 101)]
    assert run.series("eval/episodic_return").tolist() == [[50_000, -15.0], [100_000, -15.0]]
    assert run.series("nothing").shape == (0, 2)


def read_all(folder: Path) -> None:
    run = Run(folder)
    _ = run.protocol, run.metrics, run.episodes, run.final


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("result.json", None, "is no finished run: it is not finished"),
        ("evals.csv", None, "is no finished run: evals.csv is missing"),
        ("protocol.json", "{\n'a'", "protocol.json, line 2: "),
        ("protocol.json", "[]", "protocol.json: expected an object, got list"),
        ("metrics.jsonl", '{"step": 1}\n{"step": 2, "a"', "metrics.jsonl, line 2: not a line of metrics"),
        ("metrics.jsonl", '{"steps": 1}\n', "metrics.jsonl, line 1: not a line of metrics"),
        ("metrics.jsonl", "3\n", "metrics.jsonl, line 1: not a line of metrics"),
        ("episodes.csv", "step,score\n", "the first line must be 'step,env,score,length'"),
        ("episodes.csv", "step,env,score,length\n1,0,2.0,3\n1,0,2.0\n", "episodes.csv, line 3: not a training episode"),
        ("episodes.csv", "step,env,score,length\n1,0,x,3\n", "episodes.csv, line 2: not a training episode"),
        ("evals.csv", "step,episode,env_seed,score,length,truncated,human_normalized\n", "evals.csv holds no episode"),
    ],
)
def test_damaged_files_are_refused_by_name_and_line(run, file, text, message) -> None:
    (run.folder / file).unlink()
    if text is not None:
        (run.folder / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_all(run.folder)


def test_a_run_without_training_episodes_has_none(run) -> None:
    (run.folder / "episodes.csv").unlink()
    assert run.episodes.shape == (0, 4)


def test_collect_keeps_what_counts_and_thins_the_logs(tmp_path) -> None:
    folder = make_run(tmp_path / "run", lines=4000, games=1201)
    (folder / "checkpoints").mkdir()
    out = collect(folder, tmp_path / "results" / "seed_1")
    names = {*runs.WHOLE, "metrics.jsonl", "episodes.csv", "collected.json"}
    assert {path.name for path in out.iterdir()} == names
    for name in runs.WHOLE:
        assert (out / name).read_bytes() == (folder / name).read_bytes()
    kept, whole = Run(out), Run(folder)
    for metric, there in (("charts/episodic_return", runs.KEEP), ("eval/episodic_return", 2)):
        got, full = kept.series(metric), whole.series(metric)
        assert len(got) == there
        assert set(map(tuple, got)) <= set(map(tuple, full))
        np.testing.assert_array_equal(got[[0, -1]], full[[0, -1]])
        assert np.all(np.diff(got[:, 0]) > 0)
    gaps = np.diff(kept.series("charts/episodic_return")[:, 1])
    assert set(gaps) <= {8.0, 9.0}  # 4000 lines at 500 places: every 8.01 lines
    assert len(kept.episodes) == runs.KEEP
    np.testing.assert_array_equal(kept.episodes[[0, -1]], whole.episodes[[0, -1]])
    assert json.loads((out / "collected.json").read_text()) == {
        "metrics.jsonl": {"lines": 4002, "kept": runs.KEEP + 2}, "episodes.csv": {"lines": 1202, "kept": runs.KEEP + 1},
    }  # fmt: skip
    assert [found.folder for found in find(tmp_path / "results")] == [out]
    assert results(tmp_path / "results").splitlines()[2:] == results(folder).splitlines()[2:]


def test_collect_refuses_what_is_there_and_what_is_not_finished(tmp_path) -> None:
    folder = make_run(tmp_path / "run")
    collect(folder, tmp_path / "out")
    with pytest.raises(FileExistsError, match="remove it to collect"):
        collect(folder, tmp_path / "out")
    (folder / "result.json").unlink()
    with pytest.raises(ValueError, match="not finished"):
        collect(folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_run_cut_short_is_a_curve_and_no_result(tmp_path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "result.json").unlink()
    out = collect(folder, tmp_path / "results" / "seed_1", cut_short=True)
    assert find(tmp_path / "results") == []
    [found] = find(tmp_path / "results", cut_short=True)
    assert found.folder == out
    assert not found.finished
    with pytest.raises(ValueError, match="not finished"):
        Run(out)


def test_a_short_log_is_kept_whole(run, tmp_path) -> None:
    out = collect(run.folder, tmp_path / "out")
    for name in ("metrics.jsonl", "episodes.csv"):
        assert (out / name).read_text() == (run.folder / name).read_text()


def test_the_counterpart_of_a_preset() -> None:
    pairs = {"der": "der", "bbf": "bbf_rr2", "spr": "spr", "drq_eps": "drq_eps", "sr_spr": None, "d": None, "ppo": None}
    assert {preset: counterpart("atari100k", preset) for preset in pairs} == pairs
    assert benchmark_of("atari/Pong") == "atari100k"
    assert benchmark_of("catch") is None
    assert benchmark_of("minatar/Breakout") is None  # another game than Atari's of that name
    assert benchmark_of("Breakout") == "atari100k"


def test_numbers_are_said_to_two_digits_of_their_interval() -> None:
    for interval, words in (
        ((12.345, 11.0, 13.6), "12.3 [11.0, 13.6]"),
        ((1234.5, 1100.0, 1400.0), "1,234 [1,100, 1,400]"),
        ((-0.01234, -0.0134, -0.0112), "-0.0123 [-0.0134, -0.0112]"),
        ((9.0, 9.0, 9.0), "9.00 [9.00, 9.00]"),
    ):
        assert in_words(Interval(*interval, 0.95)) == words


def test_protocol_in_words(run) -> None:
    words = "100,000 agent steps of 4 frames, then 100 whole games at epsilon 0.001, no sticky actions, 0-29 no-op frames, cap 27,000 steps"
    assert protocol_line(run) == words
    sticky = run.protocol | {"sticky": 0.25, "noop_unit": "step"}
    (run.folder / "protocol.json").write_text(json.dumps(sticky))
    assert "sticky actions 0.25, 0-29 no-op agent steps" in protocol_line(Run(run.folder))
    (run.folder / "protocol.json").write_text(json.dumps(run.protocol | {"noop_min": 1, "noop_max": 30}))
    assert "1-30 no-op frames" in protocol_line(Run(run.folder))


def test_a_run_that_could_not_be_saved_exactly_says_so(run) -> None:
    assert "games cut short" not in summarise(run.folder)
    for exact in (True, False):
        facts = run.provenance | {"backend": "envpool", "exact_resume": exact}
        (run.folder / "provenance.json").write_text(json.dumps(facts))
        (run.folder / "result.json").write_text(json.dumps(run.result | {"games_cut": 3}))
        told = "- backend envpool, which cannot be saved: 3 games cut short by resumes" in summarise(run.folder)
        assert told == (not exact)


def test_summary_of_a_run(run) -> None:
    text = summarise(run.folder, against=["spr"])
    score = scores_of(-15.0, 1)
    theirs = published("atari100k", "der", "Pong")
    assert text.startswith("# der on atari/Pong, seed 1\n")
    assert f"{(score.mean() + 20.7) / 35.3:.3f}" == "0.161"
    assert "| 0.161 |" in text
    assert "| median | -15.00 | 0.161 |" in text
    assert "| IQM | -15.00 | 0.161 |" in text
    assert f"| standard deviation | {score.std(ddof=1):.2f} |" in text
    assert "100 games of 1,050 agent steps on average, 1 of them ended by the cap" in text
    assert f"| DER (Dopamine) | 100 | {theirs.mean():.2f} | -20.63, 18.7 | {percentile(-15.0, theirs):.1f} [" in text
    assert "| SPR | 100 |" in text
    assert "Within the middle 95 % of the 100 published runs of DER (Dopamine)" in text
    assert "| learning | 3,500.0 | 70.0% |" in text  # an update's time less the sampling in it
    assert "| the rest | 400.0 | 8.0% |" in text
    assert "commit 0123456789\n" in text
    assert "numpy 2.4.0, torch 2.13.0, ale-py 0.12.1\n" in text
    assert "Unlike budgets" not in text


@pytest.mark.parametrize(
    ("mean", "verdict"), [(-40.0, "Below all 100"), (30.0, "Above all 100"), (15.0, "Outside the middle 95 %")]
)
def test_a_run_far_from_the_published_ones_is_said_to_be(tmp_path, mean, verdict) -> None:
    assert f"{verdict} of the 100 published runs" in (text := summarise(make_run(tmp_path / "run", mean=mean))) or (
        f"{verdict} published runs" in text
    )


def test_another_budget_is_said(run) -> None:
    result = run.result | {"step": 50_000}
    (run.folder / "result.json").write_text(json.dumps(result))
    assert "**Unlike budgets**: theirs is 100,000 agent steps, this run had 50,000." in summarise(run.folder)


def test_a_task_that_nobody_published_is_summarised_alone(tmp_path) -> None:
    folder = make_run(tmp_path / "run", task="catch", scale=None)
    text = summarise(folder)
    assert "published" not in text
    assert "| mean [95 % interval] |" in text
    row = results(folder).splitlines()[2]
    assert "| none |  |" in row
    with pytest.raises(ValueError, match="nothing was published on catch: it cannot be compared with der, spr"):
        summarise(folder, against=["der", "spr"])


def test_a_table_of_results(tmp_path) -> None:
    make_run(tmp_path / "b", seed=2, mean=-18.0)
    make_run(tmp_path / "c", seed=1)
    make_run(tmp_path / "z", task="atari/Boxing", mean=4.0, scale=(0.1, 12.1))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in results(tmp_path).splitlines()]
    assert len({len(row) for row in rows}) == 1
    assert [row[:4] for row in rows[2:]] == [
        ["der", "atari/Boxing", "1", "100,000"], ["der", "atari/Pong", "1", "100,000"], ["der", "atari/Pong", "2", "100,000"],
    ]  # fmt: skip
    assert [row[5:7] for row in rows[2:]] == [["4.0", "0.325"], ["-15.0", "0.161"], ["-18.0", "0.076"]]
    assert [row[8] for row in rows[2:]] == [f"{percentile(m, published('atari100k', 'der', g)):.0f}" for m, g in ((4.0, "Boxing"), (-15.0, "Pong"), (-18.0, "Pong"))]  # fmt: skip
    assert {row[9] for row in rows[2:]} == {"1.39"}


def test_a_table_names_agents_by_what_sets_them_apart(tmp_path) -> None:
    make_run(tmp_path / "a")
    other = make_run(tmp_path / "b")
    config = other / "config.yaml"
    config.write_text(config.read_text().replace("agent:\n", "agent:\n  width: 3\n"))
    assert [row.split("|")[1].strip() for row in results(tmp_path).splitlines()[2:]] == ["der", "der (width=3)"]


def dots(panel, colour: str) -> list[np.ndarray]:
    """Scatters of this colour in a panel, each [points, 2]."""
    wanted = to_rgba(colour)[:3]
    return [np.asarray(c.get_offsets()) for c in panel.collections if tuple(c.get_facecolor()[0][:3]) == wanted]


def test_the_comparison_shows_every_published_run_and_ours(tmp_path) -> None:
    ours = [Run(make_run(tmp_path / f"{s}", seed=s, mean=m)) for s, m in ((1, -15.0), (2, -18.0))]
    ours.append(Run(make_run(tmp_path / "boxing", task="atari/Boxing", mean=4.0)))
    fig = plots.against_published(ours, tmp_path / "figure.png", agents=["spr", "der"])
    pong, boxing = fig.axes
    assert [panel.get_title(loc="left") for panel in fig.axes] == ["Pong", "Boxing"]
    for panel, game in ((pong, "Pong"), (boxing, "Boxing")):
        for colour, agent, row in ((plots.THEIRS, "der", 1), (plots.OTHERS, "spr", 2)):
            (points,) = dots(panel, colour)
            np.testing.assert_array_equal(points[:, 0], published("atari100k", agent, game))
            assert np.abs(points[:, 1] - row).max() <= 0.4
            assert len(set(map(tuple, points))) == 100  # equal scores beside each other
    assert [label.get_text() for label in pong.get_yticklabels()] == [
        "DER, ours",
        "DER (Dopamine)\n100 runs",
        "SPR\n100 runs",
    ]
    np.testing.assert_allclose(np.concatenate(dots(pong, plots.OURS))[:, 0], [-15.0, -18.0], rtol=1e-12)
    words = [text.get_text() for text in pong.texts]
    place = percentile(float(scores_of(-15.0, 1).mean()), published("atari100k", "der", "Pong"))
    assert words[0].startswith("seed 1: \N{MINUS SIGN}15.0 [")
    assert words[0].endswith(f"percentile {place:.0f} of DER (Dopamine)")
    title, subtitle = (text.get_text() for text in fig.texts)
    assert title == "DER on Atari-100k: our runs among the published ones"
    assert subtitle == protocol_line(ours[0]) + ".\nOurs: seeds 1, 2. Bars: middle half; ticks: median."
    pixels = np.array(Image.open(tmp_path / "figure.png").convert("RGB"))
    assert (np.abs(pixels.astype(int) - [0xD5, 0x5E, 0x00]).sum(axis=2) < 30).sum() > 500  # ours was drawn


def test_all_words_lie_within_the_figure(tmp_path) -> None:
    for game, q in (("Pong", 0.0), ("Pong", 1.0), ("UpNDown", 1.0), ("RoadRunner", 0.5)):
        mean = float(np.quantile(published("atari100k", "der", game), q))
        run = Run(make_run(tmp_path / f"{game}{q}", task=f"atari/{game}", mean=mean, games=5, lines=4))
        fig = plots.against_published([run], tmp_path / f"{game}.png", agents=["spr"])
        width, height = fig.canvas.get_width_height()
        for text in [*fig.texts, *fig.axes[0].texts, *fig.axes[0].get_yticklabels(), fig.axes[0].title]:
            box = text.get_window_extent()
            assert box.x0 >= 0, (game, text)
            assert box.y0 >= 0, (game, text)
            assert box.x1 <= width, (game, text)
            assert box.y1 <= height, (game, text)


def test_the_curve_shows_training_evaluations_and_the_published_runs(tmp_path) -> None:
    ours = Run(make_run(tmp_path / "run"))
    fig = plots.curve([ours], tmp_path / "curve.svg")
    panel = fig.axes[0]
    (games,) = dots(panel, plots.OTHERS)
    np.testing.assert_array_equal(games, ours.episodes[:, [0, 2]])
    smooth = panel.lines[0].get_xydata()
    assert len(smooth) == 281
    np.testing.assert_allclose(smooth[0], [ours.episodes[19, 0], ours.episodes[:20, 2].mean()])
    np.testing.assert_allclose(smooth[-1], [100_000, ours.episodes[-20:, 2].mean()])
    np.testing.assert_allclose(np.concatenate(dots(panel, plots.OURS)), [[50_000, -18.0], [100_000, -15.0]])
    (strip,) = panel.child_axes
    (theirs,) = dots(strip, plots.THEIRS)
    np.testing.assert_array_equal(theirs[:, 1], published("atari100k", "der", "Pong"))
    assert "<svg" in (tmp_path / "curve.svg").read_text()


def test_the_curve_of_a_run_that_kept_no_episodes_or_has_no_counterpart(tmp_path) -> None:
    folder = make_run(tmp_path / "run", task="catch", scale=None)
    (folder / "episodes.csv").unlink()
    panel = plots.curve([Run(folder)], tmp_path / "curve.png").axes[0]
    np.testing.assert_array_equal(panel.lines[0].get_xydata(), Run(folder).series("charts/episodic_return"))
    assert panel.child_axes == []


def test_what_cannot_be_drawn_is_refused(tmp_path) -> None:
    der, ppo = Run(make_run(tmp_path / "1")), Run(make_run(tmp_path / "2", preset="ppo"))
    catch = Run(make_run(tmp_path / "3", task="catch", scale=None))
    for ours, name, message in (
        ([der, ppo], "a.png", r"the runs of one preset, got \['der', 'ppo'\]"),
        ([ppo], "a.png", "no runs of an agent like 'ppo' were published"),
        ([catch], "a.png", "nothing was published on catch"),
        ([der], "a.jpg", "a figure is a .png or an .svg, not 'a.jpg'"),
    ):
        with pytest.raises(ValueError, match=message):
            plots.against_published(ours, tmp_path / name)
    assert not list(Path(tmp_path).glob("a.*"))
    assert len(plots.against_published([ppo], tmp_path / "b.png", agents=["der"]).axes) == 1
