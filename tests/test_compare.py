import math

import numpy as np
import pytest

from rlplatform.evaluation import stats
from rlplatform.evaluation.compare import MARGIN, Z, _variance, compare, to_json, to_text
from rlplatform.evaluation.groups import Group, published_group
from rlplatform.evaluation.published import percentile, published

TASKS = 5


def group(
    name: str, runs: int, centre: float = 1.0, seed: int = 0, tasks: int = TASKS, means: bool = False, **protocol
) -> Group:
    """Normal scores about `centre` with standard deviation 1."""
    rng = np.random.default_rng(seed)
    scores = {f"task {t}": centre + rng.normal(size=runs) for t in range(tasks)}
    return Group(name, name, None, scores, protocol, "made up", ours=True, means=means)


@pytest.mark.parametrize(
    ("centre", "runs", "word"),
    [(4.0, 20, "above"), (2.0, 20, "below"), (3.0, 300, "consistent with"), (3.0, 4, "too few seeds to tell")],
)
def test_the_verdict(centre, runs, word) -> None:
    found = compare(group("mine", runs, centre), group("theirs", 300, 3.0, seed=1), reps=500)
    assert found.word == word
    gap = stats.difference(found.ours.scores, found.theirs.scores, reps=500)
    assert (found.difference.point, found.difference.low, found.difference.high) == (gap.point, gap.low, gap.high)
    chance = stats.improvement(found.ours.scores, found.theirs.scores, reps=500)
    assert (found.improvement.point, found.improvement.low) == (chance.point, chance.low)
    assert found.margin == pytest.approx(MARGIN * stats.iqm(found.theirs.scores))
    sentence = {
        "above": "mine is above theirs",
        "below": "mine is below theirs",
        "consistent with": "mine is consistent with theirs",
    }
    assert found.verdict.startswith(sentence.get(word, "Too few seeds to tell mine from theirs"))
    assert (found.seeds is not None) == (word == "too few seeds to tell")


def test_the_margin_decides_what_is_consistent() -> None:
    mine, theirs = group("mine", 200), group("theirs", 200, seed=1)
    gap = compare(mine, theirs, reps=500).difference
    farther = max(-gap.low, gap.high)
    assert gap.low < 0 < gap.high
    assert compare(mine, theirs, farther * 1.001, reps=500).word == "consistent with"
    assert compare(mine, theirs, farther * 0.999, reps=500).word == "too few seeds to tell"
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="a margin is a positive number"):
            compare(mine, theirs, bad)


def test_how_many_seeds_would_tell() -> None:
    """The mean of the middle half of n normal scores has 1.195 times the variance of their mean (the asymptotic efficiency of a
    25 % trimmed mean is 0.837), so that n seeds of T tasks give an interval of +-Z sqrt(1.195 / (n T) + theirs)."""
    predicted = []
    for seed in range(5):
        mine = group("mine", 6, seed=seed)
        found = compare(mine, group("theirs", 600, seed=99), margin=0.2, reps=500)
        gap = abs(found.difference.point)
        if found.word != "too few seeds to tell":
            continue
        half = max(gap, 0.2 - gap)
        predicted.append(found.seeds * TASKS * (half**2 / Z**2 - 1.195 / (600 * TASKS)) / 1.195)  # 1 if it is right
    assert len(predicted) >= 4
    # 30 runs tell their standard deviation to 1 / sqrt(60), their variance to 26 %; the trimmed mean's to somewhat less
    assert abs(float(np.mean(predicted)) - 1.0) < 5 * 0.35 / math.sqrt(len(predicted))


def test_the_variance_of_few_seeds_is_not_the_bootstraps() -> None:
    """The mean of 20 tasks of 3 normal scores has the variance 1 / 60; a bootstrap sees 2 / 3 of it. One estimate of it scatters by
    sqrt(2 / 40), and the ends of 400 resamples by some 8 % of the interval."""
    found = [_variance(group("mine", 3, seed=s, tasks=20).scores, stats.mean, 400, 0) * 60 for s in range(60)]
    assert abs(float(np.mean(found)) - 1.0) < 5 * 0.28 / math.sqrt(60)


def test_with_that_many_seeds_it_is_told() -> None:
    """A true difference of 0.5: 3 seeds of 5 tasks know theirs to +-0.55, twice as many as are asked for tell it nearly surely."""
    theirs = group("theirs", 600, centre=1.0, seed=99)
    told, asked = 0, 0
    for seed in range(8):
        few = compare(group("mine", 3, 1.5, seed), theirs, margin=0.05, reps=300)
        if few.word == "too few seeds to tell":
            asked += 1
            told += (
                compare(group("mine", 2 * few.seeds, 1.5, seed + 100), theirs, margin=0.05, reps=300).word == "above"
            )
    assert asked >= 2
    assert told == asked


def test_fewer_than_three_seeds_have_no_interval_and_borrow_the_spread() -> None:
    found = compare(group("mine", 1, seed=2), group("theirs", 500, seed=1), margin=0.2, reps=1000)
    assert found.word == "too few seeds to tell"
    assert found.difference.low is None
    assert found.improvement.low is None
    assert found.seeds * TASKS * (0.2**2 / Z**2 - 1.195 / (500 * TASKS)) / 1.195 == pytest.approx(1, rel=0.2)
    assert "with 1 seed a task, too few for an interval; about" in found.verdict
    assert all(row.difference.low is None for row in found.rows)
    sure = compare(group("mine", 2, seed=2), group("theirs", 500, seed=1), margin=0.2, reps=200, few_seeds=True)
    assert sure.difference.low is not None
    assert (
        compare(group("mine", 1, seed=2), group("theirs", 500, seed=1), reps=200, few_seeds=True).difference.low is None
    )


def test_where_their_own_spread_hides_what_matters_no_number_would_do() -> None:
    found = compare(group("mine", 5), group("theirs", 5, seed=1), margin=0.01, reps=500)
    assert found.word == "too few seeds to tell"
    if found.seeds is None:
        assert (
            "no number of seeds of mine would: what would matter is ±0.010, and theirs alone is known to ±"
            in found.verdict
        )
    one = compare(group("mine", 1), group("theirs", 5, seed=1), margin=0.01, reps=500)
    assert one.seeds is None
    assert "no number of seeds of mine would" in one.verdict


def test_against_published_means_the_measure_is_the_mean() -> None:
    theirs = published_group("atari100k", "bbf_rr8")
    found = compare(published_group("atari100k", "bbf_rr2"), theirs, reps=500)
    assert (found.measure, found.improvement, found.word) == ("mean", None, "consistent with")
    assert found.theirs_at == pytest.approx(2.247, abs=0.0006)  # the published aggregates, to three decimals
    assert found.ours_at == pytest.approx(2.175, abs=0.0006)
    assert all(row.percentile is None for row in found.rows)
    assert "| | |\n" not in to_text(found)
    with pytest.raises(
        ValueError, match=r"of BBF \(replay ratio 8\) only means are known: a comparison needs runs of it"
    ):
        compare(theirs, published_group("atari100k", "spr"))
    one = compare(group("mine", 1), group("theirs", 1, seed=1, means=True), reps=500)
    assert one.seeds is None
    assert "cannot be said from their means alone" in one.verdict


def test_rows_are_raw_and_by_task() -> None:
    a, b = published_group("atari100k", "iris"), published_group("atari100k", "der")
    found = compare(a, b, reps=200)
    assert [row.task for row in found.rows] == sorted(a.scores)
    pong = next(row for row in found.rows if row.task == "Pong")
    ours, theirs = published("atari100k", "iris", "Pong"), published("atari100k", "der", "Pong")
    assert (pong.ours, pong.theirs, pong.runs) == (ours.mean(), theirs.mean(), (5, 100))
    assert pong.difference.point == ours.mean() - theirs.mean()
    assert pong.percentile == percentile(ours.mean(), theirs)
    above = sum((x > y) + 0.5 * (x == y) for x in ours for y in theirs) / (len(ours) * len(theirs))
    assert pong.improvement == pytest.approx(above, rel=1e-12)
    assert found.normalised
    assert found.ours_at - found.theirs_at == found.difference.point


def test_unlike_protocols_are_said() -> None:
    found = compare(
        group("mine", 5, sticky_actions=0.25, episodes=10), group("theirs", 50, seed=1, sticky_actions=0.0), reps=200
    )
    assert found.unlike == "Unlike protocols, mine against theirs: sticky actions: 0.25 against none."
    assert found.unstated == "Stated by one of mine and theirs alone, so not compared: how many episodes."
    text = to_text(found)
    assert f"> {found.unlike}\n" in text
    assert f"**{found.verdict}**" in text
    assert to_json(found)["unlike"] == found.unlike
    alike = compare(group("mine", 5, episodes=10), group("theirs", 50, seed=1, episodes=10), reps=200)
    assert (alike.unlike, alike.unstated) == ("", "")


def test_only_the_tasks_of_both_are_compared() -> None:
    found = compare(group("mine", 5, tasks=2), group("theirs", 9, seed=1), reps=200)
    assert found.tasks == ("task 0", "task 1")
    with pytest.raises(ValueError, match="there is no task that all of mine, other have scores of"):
        compare(group("mine", 5), Group("other", "other", None, {"x": np.ones(3)}, {}, "", ours=False))
