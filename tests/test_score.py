import numpy as np
import pytest
import torch

from rlplatform.evaluation.evals import EVAL_COLUMNS, HEADER, format_rows, read_evals
from rlplatform.evaluation.score import Episode, Scale, Scores, evaluate, evaluate_together, evaluation_seed
from rlplatform.streams import Stream
from toy_envs import Chance, Constant, Toy, ToyBatch


def expected(seed: int, i: int, action: int = 0) -> tuple[float, int, bool]:
    length, rewards = Toy.script(seed, i)
    return float(rewards[:length].sum() + action * length), length, i % 2 == 1


@pytest.mark.parametrize(("episodes", "lanes"), [(1, 1), (1, 8), (7, 3), (7, 7), (23, 4)])
def test_each_episode_is_the_whole_first_game_of_its_environment(episodes: int, lanes: int) -> None:
    scores = evaluate(Constant(2), Toy, episodes, seed=5, lanes=lanes)
    assert [e.episode for e in scores.episodes] == list(range(episodes))
    assert [(e.score, e.length, e.truncated) for e in scores.episodes] == [expected(5, i, 2) for i in range(episodes)]
    assert scores.lanes == min(episodes, lanes)
    assert scores.seed == 5
    np.testing.assert_array_equal(scores.score, [expected(5, i, 2)[0] for i in range(episodes)])


def test_chance_belongs_to_the_episode_not_to_the_batch() -> None:
    one_by_one = evaluate(Chance(), Toy, 12, seed=3, lanes=1)
    for episodes, lanes, threads in ((12, 5, 1), (12, 12, 2), (12, 5, 3)):
        assert evaluate(Chance(), Toy, episodes, seed=3, lanes=lanes, threads=threads).episodes == one_by_one.episodes
    assert evaluate(Chance(), Toy, 7, seed=3, lanes=5).episodes == one_by_one.episodes[:7]

    length, rewards = Toy.script(3, 4)  # and by definition: the actions of episode 4 are its own stream's
    stream = Stream(3, "eval", 4)
    actions = [int(stream.integers(4)) for _ in range(length)]
    assert one_by_one.episodes[4].score == float(rewards[:length].sum() + sum(actions))
    assert evaluate(Chance(), Toy, 12, seed=4, lanes=5).episodes != one_by_one.episodes


def test_a_networks_episodes_depend_on_the_lanes_but_not_on_how_many_are_played() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 257), torch.nn.ReLU(), torch.nn.Linear(257, 4))

    class Net(Constant):
        @torch.no_grad()
        def act(self, obs, _stream):
            value = net(torch.from_numpy(obs))
            self.seen.append(value.numpy())
            return value.argmax(1).numpy(), {}

    few, many = Net(), Net()
    assert evaluate(few, Toy, 5, seed=3, lanes=5).episodes == evaluate(many, Toy, 17, seed=3, lanes=5).episodes[:5]
    first = min(e.length for e in evaluate(Net(), Toy, 5, seed=3, lanes=5).episodes)
    np.testing.assert_array_equal(few.seen[:first], many.seen[:first])  # to the last bit
    for tick, (a, b) in enumerate(
        zip(few.seen, many.seen, strict=False)
    ):  # and after others ended, in rows that still play
        alive = [lane for lane in range(5) if tick < Toy.script(3, lane)[0]]
        np.testing.assert_array_equal(a[alive], b[alive])


def test_noise_common_to_the_batch_is_drawn_once_and_leaves_the_rows_alone() -> None:
    class Noisy(Chance):
        def __init__(self) -> None:
            super().__init__()
            self.noise = []

        def act(self, obs, stream):
            self.noise.append((stream.normal(6), stream.uniform(), stream.integers(9, 2, 4)))
            assert stream.normal(4, 2).shape == (4, 2)
            assert stream.uniform(4).shape == (4,)
            return super().act(obs, stream)

    noisy = Noisy()
    first = evaluate(noisy, Toy, 9, seed=3, lanes=4)
    common = Stream(3, "eval common")
    for normal, uniform, integers in noisy.noise:
        np.testing.assert_array_equal(normal, common.normal(6))
        np.testing.assert_array_equal(uniform, common.uniform())
        np.testing.assert_array_equal(integers, common.integers(9, 2, 4))
    assert evaluate(Noisy(), Toy, 9, seed=3, lanes=4).episodes == first.episodes


def test_the_policy_sees_fixed_shapes_and_stacks_cut_at_lives() -> None:
    policy = Constant()
    evaluate(policy, Toy, 7, seed=5, lanes=3)
    assert {obs.shape for obs in policy.seen} == {(3, 3, 3)}  # [lanes, stack, *frame] to the end
    lengths = [Toy.script(5, i)[0] for i in range(7)]
    for lane in range(3):
        played = [(i, t) for i in range(lane, 7, 3) for t in range(lengths[i])]
        for tick, obs in enumerate(policy.seen):
            if tick >= len(played):
                np.testing.assert_array_equal(obs[lane], 0)
                continue
            i, t = played[tick]
            want = np.zeros((3, 3))
            for back in range(min(t % 4, 2) + 1):  # a life is lost every 4 steps
                want[2 - back] = (i + 1, t - back, t // 4)
            np.testing.assert_array_equal(obs[lane], want, err_msg=f"lane {lane}, tick {tick}")
    assert len(policy.seen) == max(sum(lengths[lane::3]) for lane in range(3))


def test_environments_are_few_at_a_time_and_closed_always() -> None:
    log = []
    evaluate(Constant(), lambda **names: Toy(**names, log=log), 11, seed=5, lanes=4)
    alive = np.cumsum([1 if what == "open" else -1 for what, _ in log])
    assert (alive.max(), alive[-1]) == (4, 0)
    log.clear()
    with pytest.raises(FloatingPointError, match="reward of episode 0, step 1"):
        evaluate(Constant(), lambda **names: Toy(**names, log=log, bad_at=0), 11, seed=5, lanes=4)
    assert sorted(i for what, i in log if what == "close") == [0, 1, 2, 3]


def test_progress_is_told_in_order_of_ending() -> None:
    told = []
    scores = evaluate(Constant(), Toy, 7, seed=5, lanes=7, on_episode=told.append)
    assert sorted(told, key=lambda e: e.episode) == list(scores.episodes)
    assert [e.length for e in told] == sorted(e.length for e in told)


@pytest.mark.parametrize("episodes", [1, 5, 23])
def test_games_played_together_are_those_played_apart(episodes: int) -> None:
    for make_policy in (lambda: Constant(2), Chance):
        batch, a, b = ToyBatch(seed=5, n=episodes), make_policy(), make_policy()
        together = evaluate_together(a, batch, episodes, seed=5, scale=Scale(-20.0, 5.0))
        assert together == evaluate(b, Toy, episodes, seed=5, lanes=episodes, scale=Scale(-20.0, 5.0))
        np.testing.assert_array_equal(a.seen, b.seen)
        assert batch.closed
        # An environment whose game is over is not stepped again, so the others' are all the work that is done.
        assert batch.stepped == [Toy.script(5, i)[0] for i in range(episodes)]


def test_short_games_count_no_more_than_long_ones() -> None:
    """3 environments with games of 2, 5 and 20 steps play 10 episodes: 4, 3 and 3, whichever end first."""
    batch, policy = ToyBatch(seed=5, n=3, lengths=(2, 5, 20)), Constant()
    told: list = []
    scores = evaluate_together(policy, batch, 10, seed=5, on_episode=told.append)
    for lane, (length, games) in enumerate([(2, 4), (5, 3), (20, 3)]):
        for game in range(games):  # its first observation: the frame that the step before brought, with nothing older
            np.testing.assert_array_equal(
                policy.seen[game * length][lane], [[0] * 3, [0] * 3, [lane + 1, 0, 100 * game]]
            )
    assert scores.lanes == 3
    assert [e.episode for e in scores.episodes] == list(range(10))
    assert [e.length for e in scores.episodes] == [(2, 5, 20)[i % 3] for i in range(10)]
    assert batch.stepped == [4 * 2, 3 * 5, 3 * 20]
    assert sorted(told, key=lambda e: e.episode) == list(scores.episodes)
    assert [e.episode for e in told[:5]] == [0, 3, 1, 6, 9]


def test_a_batch_of_the_wrong_size_is_refused_and_closed() -> None:
    batch = ToyBatch(seed=5, n=4)
    with pytest.raises(ValueError, match="3 episodes need 1 to 3 environments, got 4"):
        evaluate_together(Constant(), batch, 3, seed=5)
    assert batch.closed
    assert batch.stepped == [0] * 4


def test_normalised_scores() -> None:
    scores = evaluate(Constant(1), Toy, 4, seed=5, scale=Scale(low=-20.0, high=5.0))
    for e in scores.episodes:
        assert e.normalized == (e.score + 20.0) / 25.0
    assert all(e.normalized is None for e in evaluate(Constant(), Toy, 2, seed=5).episodes)


@pytest.mark.parametrize("wrong", [{"episodes": 0}, {"lanes": 0}, {"threads": 0}])
def test_counts_must_be_positive(wrong: dict) -> None:
    with pytest.raises(ValueError, match=">= 1"):
        evaluate(Constant(), Toy, **({"episodes": 2} | wrong), seed=1)


def test_one_environment_a_batch() -> None:
    with pytest.raises(ValueError, match="one environment a batch, make_env gave 2"):
        evaluate(Constant(), lambda **names: Toy(**names, n=2), 2, seed=1)


def test_seeds_of_evaluations_differ_and_are_exact_in_float64() -> None:
    seeds = [evaluation_seed(run, step) for run in range(40) for step in range(0, 100_000, 2_000)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**53 for seed in seeds)
    assert max(seeds) > 2**51  # all the bits are used: the chance of failing is below 2^-2000


SCORES = Scores(7, 2, (Episode(0, 1 / 3, 10, False, 0.1 + 0.2), Episode(1, -21.0, 27000, True, -1e-17)))


def test_evals_csv_reads_back_exactly(tmp_path) -> None:
    path = tmp_path / "evals.csv"
    other = Scores(8, 1, (Episode(0, 4.0, 1, False, 2.0),))
    path.write_text(HEADER + format_rows(SCORES, 1000) + format_rows(other, 2000))
    evals = read_evals(path)
    assert evals._fields == EVAL_COLUMNS
    assert evals.step.tolist() == [1000, 1000, 2000]
    assert evals.episode.tolist() == [0, 1, 0]
    assert evals.env_seed.tolist() == [7, 7, 8]
    assert evals.score.tolist() == [1 / 3, -21.0, 4.0]
    assert evals.length.tolist() == [10, 27000, 1]
    assert evals.truncated.tolist() == [False, True, False]
    assert evals.human_normalized.tolist() == [0.1 + 0.2, -1e-17, 2.0]
    last = evals.at(2000)
    assert [column.tolist() for column in last] == [[2000], [0], [8], [4.0], [1], [False], [2.0]]


def test_evals_csv_without_a_scale_or_rows(tmp_path) -> None:
    path = tmp_path / "evals.csv"
    path.write_text(HEADER)
    assert len(read_evals(path).score) == 0
    path.write_text(HEADER + format_rows(Scores(1, 1, (Episode(0, 4.0, 1, False, None),)), 0))
    assert read_evals(path).human_normalized is None
    assert read_evals(path).at(0).human_normalized is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line must be"),
        ("step,score\n1,2\n", "the first line must be"),
        (HEADER + "1,0,7,2.0,3,0,0.5\n1,1,7,2.0,3,0\n", "line 3"),
        (HEADER + "1,0,7,2.0,3,yes,0.5\n", "line 2"),
        (HEADER + "1,0,7,2.0,3,0,0.5\n1,1,7,2.0,3,0,\n", "missing in others"),
        (HEADER + "1,0,7,2.0,3,0,0.5\n1,1,7,nan,3,0,0.5\n", "line 3: score is not finite"),
    ],
)
def test_a_damaged_evals_csv_is_refused_by_line(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "evals.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_evals(path)
