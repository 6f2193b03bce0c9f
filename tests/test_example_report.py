"""The report under docs/ is what the references give: its tables are computed anew, and are those of the golden file."""

import csv
import html
import re
from pathlib import Path

import pytest

from rlplatform.evaluation import stats
from rlplatform.evaluation.published import published_mean, published_runs, tasks
from rlplatform.evaluation.store import scales

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "docs" / "example_report"
AGENTS = ["bbf_rr2", "diamond", "iris", "spr", "der"]
COLUMNS = {
    "IQM": "iqm_over_runs",
    "median": "median_hns",
    "mean": "mean_hns",
    "optimality gap": "optimality_gap_over_runs",
}
ROWS = list(csv.DictReader((EXAMPLE / "tables.csv").read_text().splitlines()))
GOLDEN = {
    row["agent"]: row
    for row in csv.DictReader((ROOT / "tests" / "golden" / "atari100k_aggregates.csv").read_text().splitlines())
}


def scores(agent: str) -> dict:
    return stats.normalize(published_runs("atari100k", agent), scales("atari100k"))


@pytest.mark.parametrize("agent", AGENTS)
def test_aggregates_are_computed_anew(agent) -> None:
    listed = {row["measure"]: row for row in ROWS if row["table"] == "aggregates" and row["group"] == agent}
    assert set(listed) == set(COLUMNS)
    of = scores(agent)
    for name, measure in (
        ("IQM", stats.iqm),
        ("median", stats.median),
        ("mean", stats.mean),
        ("optimality gap", stats.optimality_gap),
    ):
        assert float(listed[name]["value"]) == pytest.approx(measure(of), rel=1e-12)
        assert abs(float(listed[name]["value"]) - float(GOLDEN[agent][COLUMNS[name]])) < 0.00051  # three decimals
    assert {row["runs"] for row in listed.values()} == {GOLDEN[agent]["n_runs"]}


@pytest.mark.parametrize("agent", ["bbf_rr2", "diamond", "iris"])
def test_intervals_are_computed_anew_up_to_the_bootstrap(agent) -> None:
    row = next(row for row in ROWS if (row["table"], row["group"], row["measure"]) == ("aggregates", agent, "IQM"))
    again = stats.interval(scores(agent), stats.iqm, reps=4_000, seed=1)
    # an end of 4,000 resamples has an error of sqrt(0.025 * 0.975 / 4000) / 0.0584 = 0.042 standard deviations
    sd = (again.high - again.low) / 3.92
    assert abs(float(row["low"]) - again.low) < 5 * 0.05 * sd
    assert abs(float(row["high"]) - again.high) < 5 * 0.05 * sd


def test_every_task_is_there_with_its_mean() -> None:
    listed = {(row["group"], row["task"]): float(row["value"]) for row in ROWS if row["table"] == "tasks"}
    assert len(listed) == len(AGENTS) * 26
    for agent in AGENTS:
        for task in tasks("atari100k"):
            assert listed[agent, task] == pytest.approx(published_mean("atari100k", agent, task), rel=1e-12)


def test_the_pages_show_these_numbers() -> None:
    page, text = html.unescape((EXAMPLE / "report.html").read_text()), (EXAMPLE / "report.md").read_text()
    for row in ROWS:
        if row["table"] == "aggregates":
            shown = f"{float(row['value']):.3f} [{float(row['low']):.3f}, {float(row['high']):.3f}]"
            assert shown in page
            assert shown in text
    above = {agent: GOLDEN[agent]["n_superhuman"] for agent in AGENTS}
    found = re.findall(r"\| (\d+) of 26 \|", text)
    assert found == [above[agent] for agent in AGENTS]


def test_the_command_that_made_it_is_documented_and_it_is_small() -> None:
    command = "rlplatform report --against bbf_rr2,diamond,iris,spr,der --out docs/example_report"
    assert command in (EXAMPLE / "report.html").read_text()
    assert command in (ROOT / "docs" / "evaluation.md").read_text()
    assert sum(path.stat().st_size for path in EXAMPLE.rglob("*") if path.is_file()) < 3_000_000
