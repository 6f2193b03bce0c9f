import dataclasses
import importlib.util
import json
import types

import numpy as np
import pytest
from typer.testing import CliRunner

from rlplatform.cli import EXIT_FAILED, app
from rlplatform.envs import make, pool, suite_of
from rlplatform.envs.pool import refuse
from rlplatform.evaluation.score import evaluate, evaluate_together
from rlplatform.experiment import Stopped, load_policy, run, score_policy
from rlplatform.runconfig import resolve_config
from toy_envs import Constant

ALL = [task.removeprefix("atari/") for task in suite_of("atari").tasks]
PARITY = suite_of("atari").protocol_named("parity")
CHANCE = dataclasses.replace(PARITY, noop_max=30)  # the widest that both backends can play: equal in distribution
RUN = [
    "backend=envpool", "protocol.noop_min=1", "protocol.noop_max=1", "protocol.stop_skip_at_life_loss=false",
    "protocol.episode_steps=20", "agent.min_replay=40", "agent.capacity=200", "agent.target_period=50", "agent.hidden=32",
    "agent.replay_ratio=0.1", "log_every=50", "checkpoint_every=50", "envs=2", "eval.episodes=3", "eval.lanes=2",
]  # fmt: skip

needs_envpool = pytest.mark.skipif(
    importlib.util.find_spec("envpool") is None,
    reason="envpool is not installed: pip install 'rlplatform[throughput]' brings it, with 270 MB of assets",
)


def both(game, n, protocol, **options):
    """The exact batch and EnvPool's, of the same seed."""
    return (
        make(f"atari/{game}", n, 5, 2, protocol),
        make(f"atari/{game}", n, 5, 2, protocol, backend="envpool", **options),
    )


class Watched:
    """Keeps how many frames each agent step of an exact emulator took."""

    def __init__(self, emulator):
        self.frames, self._emulator, self._advance = 0, emulator, emulator._advance
        emulator._advance = self.advance

    def advance(self, actions):
        before = self._emulator.ale.getFrameNumber()
        out = self._advance(actions)
        self.frames = self._emulator.ale.getFrameNumber() - before
        return out


def assert_same_games(game, steps, protocol=PARITY, n=2, seed=0):
    """Random play on both backends: every frame, reward and flag is equal, and first frames of games. So is the last frame of a
    game, unless the game was over before EnvPool took a picture: then it is the frame before. Counts of what was seen."""
    ours, theirs = both(game, n, protocol)
    assert ours.spec == theirs.spec
    assert (theirs.n, theirs.first_env, theirs.device) == (n, 2, "cpu")
    watched = [Watched(emulator) for emulator in ours._emulators]
    before = ours.reset()
    np.testing.assert_array_equal(before, theirs.reset())
    rng, seen = np.random.default_rng(seed), dict.fromkeys(("terminated", "truncated", "reset", "stale", "reward"), 0)
    for t in range(steps):
        action = rng.integers(ours.spec.actions, size=n)
        a, b = ours.step(action), theirs.step(action)
        for name in ("frame", "reward", "terminated", "truncated", "reset", "final_env"):
            x, y = getattr(a, name), getattr(b, name)
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y, err_msg=f"{name} of step {t}")
        assert a.final_frame.shape == b.final_frame.shape
        for env, x, y in zip(a.final_env, a.final_frame, b.final_frame, strict=True):
            if watched[env].frames <= protocol.frame_skip - 2:
                seen["stale"] += 1
                np.testing.assert_array_equal(before[env], y)
            else:
                np.testing.assert_array_equal(x, y)
        for name in ("terminated", "truncated", "reset"):
            seen[name] += int(getattr(a, name).sum())
        seen["reward"] += int((a.reward > 1).sum())
        before = a.frame
    ours.close()
    theirs.close()
    return seen


class Script:
    """Stands in for EnvPool: environment i does what its rows say, (reward, lives, is the game over) a step; a game begins with 3
    lives. A frame is (i, how many games, how many steps of this one)."""

    single_action_space = types.SimpleNamespace(n=4)

    def __init__(self, *rows):
        self.rows, self.told = [list(row) for row in rows], []
        self.games, self.steps = np.zeros(len(rows), int), np.zeros(len(rows), int)

    def answer(self, ids, lives, over):
        frames = np.stack([ids, self.games[ids], self.steps[ids]], 1).astype(np.uint8)
        info = {"env_id": ids.copy(), "lives": np.array(lives, np.int32), "terminated": np.array(over, np.int32)}
        return frames[:, None, None, :].repeat(3, 2), info | {"elapsed_step": self.steps[ids].astype(np.int32)}

    def reset(self, ids):
        self.games[ids] += 1
        self.steps[ids] = 0
        return self.answer(ids, [3] * len(ids), [0] * len(ids))

    def step(self, action, ids):
        assert action.dtype == ids.dtype == np.int32
        self.told.append(dict(zip(ids.tolist(), action.tolist(), strict=True)))
        self.steps[ids] += 1
        reward, lives, over = zip(*[self.rows[i].pop(0) for i in ids], strict=True)
        obs, info = self.answer(ids, lives, over)
        nothing = np.zeros(len(ids), bool)  # how EnvPool sums up an end is not looked at
        return obs, np.array(reward, np.float32), nothing, nothing, info


def scripted(monkeypatch, *rows, **changes):
    script = Script(*rows)
    monkeypatch.setattr(pool, "open_pool", lambda *args: script)
    batch = make(
        "atari/Pong", len(rows), 0, protocol=dataclasses.replace(PARITY, frame_size=3, **changes), backend="envpool"
    )
    assert batch.reset()[:, 0].tolist() == [[i, 1, 0] for i in range(len(rows))]
    return script, batch


def test_lives_and_ends_of_a_scripted_game(monkeypatch):
    """By step: a life lost, one won, one lost, the game over, a life lost at once in the next game; then the cap of 3 steps, which
    comes first as a life is lost (a termination), then alone (a truncation)."""
    rows = [
        (1.5, 2, 0),
        (0, 3, 0),
        (-2, 2, 0),
        (0, 0, 1),
        (4, 2, 0),
        (0, 2, 0),
        (0, 1, 0),
        (0, 3, 0),
        (0, 3, 0),
        (7, 3, 0),
    ]
    script, batch = scripted(monkeypatch, rows, episode_steps=3)
    steps = [batch.step(np.array([k % 4])) for k in range(2)]
    script.steps[0] -= 2  # the first game lasts longer than the cap would let it
    steps += [batch.step(np.array([k % 4])) for k in range(2, 10)]
    assert [told[0] for told in script.told] == [k % 4 for k in range(10)]
    assert [float(step.reward[0]) for step in steps] == [1.5, 0, -2, 0, 4, 0, 0, 0, 0, 7]
    assert [bool(step.terminated[0]) for step in steps] == [k in (0, 2, 3, 4, 6) for k in range(10)]
    assert [bool(step.truncated[0]) for step in steps] == [k == 9 for k in range(10)]
    assert [bool(step.reset[0]) for step in steps] == [k in (3, 6, 9) for k in range(10)]
    assert [step.final_frame[:, 0].tolist() for step in steps if step.reset[0]] == [
        [[0, 1, 2]],
        [[0, 2, 3]],
        [[0, 3, 3]],
    ]
    assert [step.frame[0, 0].tolist() for step in steps if step.reset[0]] == [[0, game, 0] for game in (2, 3, 4)]


def test_lives_are_nothing_where_they_do_not_terminate(monkeypatch):
    _, batch = scripted(monkeypatch, [(0, 2, 0), (0, 1, 0), (0, 0, 1)], life_loss_terminal=False)
    assert [bool(batch.step(np.zeros(1, np.int64)).terminated[0]) for _ in range(3)] == [False, False, True]


def test_rows_belong_to_their_environments(monkeypatch):
    """Three environments: games of 0 end at step 2, of 2 at steps 1 and 3; 1 is retired after step 1."""
    on, over = (1, 3, 0), (5, 0, 1)
    script, batch = scripted(monkeypatch, [on, over, on], [on, on, on], [over, on, over])
    one = batch.step(np.array([0, 1, 2]))
    batch.retire(1)
    two, three = batch.step(np.array([3, 3, 1])), batch.step(np.array([2, 0, 0]))
    assert script.told == [{0: 0, 1: 1, 2: 2}, {0: 3, 2: 1}, {0: 2, 2: 0}]
    assert one.final_env.tolist() == [2]
    assert one.final_frame[:, 0].tolist() == [[2, 1, 1]]
    assert one.frame[:, 0].tolist() == [[0, 1, 1], [1, 1, 1], [2, 2, 0]]
    assert two.final_env.tolist() == [0]
    assert two.reward.tolist() == [5, 0, 1]
    assert two.reset.tolist() == [True, False, False]
    assert two.frame[:, 0].tolist() == [[0, 2, 0], [0, 0, 0], [2, 2, 1]]
    assert three.final_env.dtype == np.int64
    assert three.final_env.tolist() == [2]
    assert three.final_frame[:, 0].tolist() == [[2, 2, 2]]
    assert three.frame[:, 0].tolist() == [[0, 2, 1], [0, 0, 0], [2, 3, 0]]


@needs_envpool
def test_the_same_games_under_parity():
    seen = assert_same_games("Breakout", 400)
    assert seen["reset"] > 0
    assert seen["terminated"] > 3 * seen["reset"]  # lives
    assert seen["stale"] > 0


@needs_envpool
@pytest.mark.parametrize(
    ("game", "changes"),
    [
        ("Qbert", {"episode_steps": 37}),
        ("Breakout", {"life_loss_terminal": False, "stop_skip_at_life_loss": True}),  # nothing to stop at
        ("Seaquest", {"frame_skip": 1, "frame_size": 160}),
        ("Asterix", {"frame_skip": 3, "frame_size": 50, "full_action_set": True, "stack": 2}),
    ],
)
def test_the_same_games_under_other_protocols_without_chance(game, changes):
    seen = assert_same_games(game, 250, dataclasses.replace(PARITY, **changes))
    assert seen["truncated"] == (12 if game == "Qbert" else 0)
    if game == "Breakout":
        assert seen["terminated"] == seen["reset"] > 0
    if game == "Asterix":
        assert seen["reward"] > 0


@needs_envpool
@pytest.mark.slow
@pytest.mark.parametrize("game", ALL)
def test_every_game_is_the_same_under_parity(game):
    """1,500 agent steps in two emulators, and 300 more of games cut short, so that every game also ends."""
    seen = assert_same_games(game, 1500, seed=ALL.index(game))
    assert seen["truncated"] == 0
    seen = assert_same_games(game, 300, dataclasses.replace(PARITY, episode_steps=70), seed=ALL.index(game))
    assert seen["reset"] >= 8


@needs_envpool
def test_noops_are_uniform():
    """EnvPool's own generator: which of the 4 possible first frames a game begins with, over 200 games."""
    top, envs, games = 4, 10, 20
    known = {}
    for k in range(1, top + 1):
        start = make("atari/Boxing", 1, 0, protocol=dataclasses.replace(PARITY, noop_min=k, noop_max=k)).reset()
        known[start.tobytes()] = k - 1
    assert len(known) == top
    batch = make("atari/Boxing", envs, 0, protocol=dataclasses.replace(PARITY, noop_max=top), backend="envpool")
    counts = np.zeros((envs, top))
    for _ in range(games):
        for i, frame in enumerate(batch.reset()):
            counts[i, known[frame.tobytes()]] += 1
    batch.close()
    total, p = envs * games, 1 / top
    np.testing.assert_array_less(np.abs(counts.sum(0) - total * p), 5 * np.sqrt(total * p * (1 - p)))  # 5 sigma
    assert len({tuple(row) for row in counts}) > 1  # environments draw apart


def scores_of_random_play(batch, games, seed):
    """Scores of the first `games / n` games of each environment."""
    rng, each = np.random.default_rng(seed), games // batch.n
    batch.reset()
    score, out = np.zeros(batch.n), [[] for _ in range(batch.n)]
    while min(map(len, out)) < each:
        step = batch.step(rng.integers(batch.spec.actions, size=batch.n))
        score += step.reward
        for i in step.final_env:
            out[i].append(score[i])
            score[i] = 0.0
    batch.close()
    return np.concatenate([games[:each] for games in out])


def assert_same_mean(a, b):
    error = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    assert error > 0
    assert abs(a.mean() - b.mean()) < 5 * error


@needs_envpool
@pytest.mark.slow
@pytest.mark.parametrize("game", ["Breakout", "Qbert", "Asterix"])
def test_scores_of_random_play_have_the_same_mean_where_games_begin_by_chance(game):
    ours, theirs = both(game, 20, CHANCE)
    a, b = scores_of_random_play(ours, 200, seed=1), scores_of_random_play(theirs, 200, seed=2)
    assert_same_mean(a, b)


@needs_envpool
def test_what_an_environment_draws_depends_on_its_number_alone():
    crowd = make("atari/Asterix", 4, 7, protocol=CHANCE, backend="envpool", threads=2)
    part = make("atari/Asterix", 2, 7, 2, CHANCE, backend="envpool", threads=1)
    other = make("atari/Asterix", 4, 8, 0, CHANCE, backend="envpool")
    first = crowd.reset()
    np.testing.assert_array_equal(first[2:], part.reset())
    assert len({frame.tobytes() for frame in first}) > 1
    assert not np.array_equal(first, other.reset())
    rng, ended = np.random.default_rng(0), 0
    for _ in range(300):
        action = rng.integers(9, size=4)
        a, b = crowd.step(action), part.step(action[2:].copy())
        for name in ("frame", "reward", "terminated", "reset"):
            np.testing.assert_array_equal(getattr(a, name)[2:], getattr(b, name), err_msg=name)
        ended += b.reset.sum()
    assert ended > 0


@needs_envpool
def test_a_retired_environment_is_left_alone_and_the_others_do_not_notice():
    whole, part = (make("atari/Breakout", 3, 0, protocol=PARITY, backend="envpool") for _ in range(2))
    whole.reset(), part.reset()
    rng, ended = np.random.default_rng(0), 0
    part.retire(1)
    for t in range(300):
        if t == 100:
            part.retire(0)
        out = [1] if t < 100 else [0, 1]
        action = rng.integers(4, size=3)
        a, b = whole.step(action), part.step(action)
        for name in ("frame", "reward", "terminated", "truncated", "reset"):
            x, y = getattr(a, name), getattr(b, name)
            np.testing.assert_array_equal(np.delete(x, out, 0), np.delete(y, out, 0), err_msg=name)
            assert not y[out].any()
        kept = ~np.isin(a.final_env, out)
        np.testing.assert_array_equal(a.final_env[kept], b.final_env)
        np.testing.assert_array_equal(a.final_frame[kept], b.final_frame)
        ended += kept.sum()
    assert ended > 0


class Rows(Constant):
    """Each row's action from its own frames, and now and then from its own stream."""

    def act(self, obs, stream):
        chance = stream.uniform(len(obs)) < 0.2
        drawn = stream.integers(4, len(obs))
        return np.where(chance, drawn, obs.reshape(len(obs), -1).sum(1, dtype=np.int64) % 4), {}


@needs_envpool
def test_an_evaluation_is_that_of_the_exact_backend():
    """Games without chance at their start: also where an environment plays several."""

    def single(*, seed, first_env):
        return make("atari/Breakout", 1, seed, first_env, PARITY)

    env = make("atari/Breakout", 3, 9, protocol=PARITY, backend="envpool")
    together = evaluate_together(Rows(), env, 7, 9)
    assert together == evaluate(Rows(), single, 7, 9, lanes=3)
    assert len({episode.length for episode in together.episodes}) > 4


@needs_envpool
def test_a_run_records_that_it_resumes_inexactly_and_goes_on(tmp_path):
    config = resolve_config("der", "atari/Breakout", RUN, steps=160)
    reached = []
    with pytest.raises(Stopped):
        run(config, tmp_path, lambda now: reached.append(now.done), lambda: len(reached) >= 50)
    at = reached[-1] // 2 + 2  # agent steps of each environment: the round that was stopped, and the one under way
    result = run(config, tmp_path)
    assert result["step"] == 160
    assert result["games_cut"] == 2
    assert result["episodes"] == 3
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    assert (provenance["backend"], provenance["exact_resume"]) == ("envpool", False)
    lines = [line.split(",") for line in (tmp_path / "episodes.csv").read_text().splitlines()[1:]]
    ends = [20, 40, at + 20]  # games are capped at 20 steps, and those under way at `at` were cut there
    assert 40 < at < 60
    assert [(int(step), int(env)) for step, env, *_ in lines] == [(2 * end, env) for end in ends for env in (0, 1)]
    assert {int(length) for *_, length in lines} == {20}
    _, policy, step = load_policy(tmp_path)
    assert step == 160
    exact = dataclasses.replace(config, backend="exact")
    scores = [score_policy(one, policy, step, 3).episodes for one in (config, exact)]
    assert scores[0] == scores[1]
    told = CliRunner().invoke(app, ["evaluate", str(tmp_path), "--backend", "exact", "--lanes", "3", "--json"])
    assert json.loads(told.output)["episodes"] == 3
    refused = CliRunner().invoke(app, ["evaluate", str(tmp_path), "--video", str(tmp_path / "film.gif")])
    assert refused.exit_code == EXIT_FAILED
    assert "PoolBatch has no render()" in refused.output


@needs_envpool
def test_wrong_calls_are_refused():
    batch = make("atari/Pong", 2, 0, protocol=PARITY, backend="envpool")
    with pytest.raises(ValueError, match="reset\\(\\) the environments before the first step"):
        batch.step(np.zeros(2, np.int64))
    batch.reset()
    for wrong in (np.zeros(2, np.int32), np.zeros(3, np.int64), [0, 0]):
        with pytest.raises(ValueError, match="action must be int64 \\[2\\], got"):
            batch.step(wrong)
    for low in (-1, 6):
        with pytest.raises(ValueError, match=f"action {low} of environment 1 of the batch is not in \\[0, 6\\)"):
            batch.step(np.array([0, low]))
    assert batch.state_dict() is None
    with pytest.raises(ValueError, match="cannot restore"):
        batch.load_state_dict({})
    batch.close()
    batch.close()
    with pytest.raises(ValueError, match="closed"):
        batch.step(np.zeros(2, np.int64))
    for game, message in (
        ("AirRaid", "EnvPool reads \\(210, 160\\) pixels of every screen, and that of AirRaid has \\(250, 160\\)"),
        ("Combat", "Combat needs two players"),
        ("Brakout", "did you mean Breakout"),
    ):
        with pytest.raises(ValueError, match=message):
            make(f"atari/{game}", 1, 0, protocol=PARITY, backend="envpool")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stop_skip_at_life_loss": True}, "protocol.stop_skip_at_life_loss=True .*it can with False"),
        ({"noop_min": 0}, "protocol.noop_min=0 .*it can with 1"),
        ({"noop_min": 2, "noop_max": 9}, "protocol.noop_min=2 "),
        ({"noop_unit": "step"}, 'protocol.noop_unit=step .*it can with "frame"'),
        ({"sticky": 0.25}, "protocol.sticky=0.25 .*it can without"),
    ],
)
def test_a_protocol_that_envpool_cannot_express_is_refused_by_name(changes, message):
    refuse(PARITY)
    refuse(CHANCE)
    with pytest.raises(ValueError, match=message) as caught:
        refuse(dataclasses.replace(PARITY, **changes))
    assert str(caught.value).count("protocol.") == 1


def test_all_that_stands_in_the_way_is_named_at_once():
    with pytest.raises(ValueError, match="stop_skip_at_life_loss=True.*noop_min=0.*noop_unit=step") as caught:
        make("atari/Pong", 1, 0, protocol="bbf", backend="envpool")
    assert "sticky" not in str(caught.value)
    assert "the variant parity" in str(caught.value)


def test_without_envpool_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install 'rlplatform\\[throughput\\]'"):
        make("atari/Pong", 1, 0, protocol="parity", backend="envpool")


@pytest.mark.parametrize("wrong", [{"n": 0}, {"threads": 0}])
def test_counts_must_be_positive(wrong):
    with pytest.raises(ValueError, match=">= 1, got 0"):
        make("atari/Pong", **({"n": 1} | wrong), seed=0, protocol="parity", backend="envpool")
