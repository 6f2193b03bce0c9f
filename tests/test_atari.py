import dataclasses

import numpy as np
import pytest

from reference.atari import Game
from rlplatform.envs import AtariProtocol, make, suite_of
from rlplatform.envs.atari import AtariBatch, games
from rlplatform.streams import Stream
from rlplatform.types import Step

ALL = [task.removeprefix("atari/") for task in suite_of("atari").tasks]
PLAIN = AtariProtocol(noop_max=0)


def same(a, b):
    for name, ours, theirs in zip(Step._fields, a, b, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def play(batch, steps, seed):
    """The Steps of random play."""
    rng = np.random.default_rng(seed)
    return [batch.step(rng.integers(batch.spec.actions, size=batch.n)) for _ in range(steps)]


@pytest.mark.parametrize(
    ("game", "rom", "changes"),
    [
        ("Breakout", "breakout", {}),
        ("Breakout", "breakout", {"noop_unit": "step"}),
        ("Breakout", "breakout", {"stop_skip_at_life_loss": False}),
        ("Breakout", "breakout", {"life_loss_terminal": False}),
        ("Qbert", "qbert", {"sticky": 0.25, "episode_steps": 137}),
        ("KungFuMaster", "kung_fu_master", {"full_action_set": True, "frame_size": 64}),
        ("Pong", "pong", {"frame_skip": 1, "noop_min": 2, "noop_max": 3}),
        ("BankHeist", "bank_heist", {"frame_skip": 2, "sticky": 0.5}),
        ("MsPacman", "ms_pacman", {"frame_skip": 5}),
    ],
)
def test_steps_are_those_of_the_protocol(game, rom, changes):
    protocol = dataclasses.replace(suite_of("atari").protocol, **changes)
    batch = make(f"atari/{game}", 2, 8, first_env=3, protocol=protocol)
    references = [Game(rom, protocol, Stream(8, "env", 3 + i)) for i in range(2)]
    rng, seen = np.random.default_rng(0), {"terminated": 0, "truncated": 0, "reset": 0}
    np.testing.assert_array_equal(batch.reset(), [game.begin() for game in references])
    assert batch.spec.actions == len(references[0].actions)
    for _ in range(500):
        action = rng.integers(batch.spec.actions, size=2)
        step = batch.step(action)
        finals = []
        for i, reference in enumerate(references):
            frame, reward, terminated, truncated, over = reference.step(int(action[i]))
            assert (reward, terminated, truncated, over) == (
                step.reward[i], step.terminated[i], step.truncated[i], step.reset[i],
            )  # fmt: skip
            if over:
                finals.append(frame)
                frame = reference.begin()
            np.testing.assert_array_equal(step.frame[i], frame)
        np.testing.assert_array_equal(step.final_frame, np.reshape(finals, (-1, *batch.spec.frame_shape)))
        np.testing.assert_array_equal(step.final_env, np.flatnonzero(step.reset))
        for name in seen:
            seen[name] += getattr(step, name).sum()
    if game in ("Breakout", "Qbert"):
        assert seen["terminated"] > 0
        assert seen["reset"] > 0
        assert (seen["truncated"] > 0) == ("episode_steps" in changes)


def test_a_lost_life_terminates_and_the_game_goes_on():
    batch, rng = make("atari/Breakout", 1, 0), np.random.default_rng(0)
    ale = batch._emulators[0].ale
    batch.reset()
    lives, lost, restarts = ale.lives(), 0, 0
    assert lives == 5
    while restarts < 2:
        step = batch.step(rng.integers(4, size=1))
        if step.reset[0]:
            assert step.terminated[0]
            assert step.final_frame.shape == (1, 84, 84)
            assert lives == 1
            assert ale.lives() == 5
            restarts += 1
        elif step.terminated[0]:
            assert ale.lives() == lives - 1
            assert step.final_frame.shape == (0, 84, 84)
            lost += 1
        lives = ale.lives()
    assert lost == 8


def test_the_agent_step_ends_where_a_life_is_lost():
    """Frames an agent step took: fewer than 4 at most lives lost, 4 everywhere else; never fewer with the stop off."""
    for stop in (True, False):
        batch = make("atari/Breakout", 1, 0, protocol=dataclasses.replace(PLAIN, stop_skip_at_life_loss=stop))
        ale, rng = batch._emulators[0].ale, np.random.default_rng(1)
        batch.reset()
        short = lost = 0
        for _ in range(1500):
            before = ale.getEpisodeFrameNumber()
            step = batch.step(rng.integers(4, size=1))
            took = ale.getEpisodeFrameNumber() - before
            if step.reset[0]:
                continue
            lost += step.terminated[0]
            short += took < 4
            assert took == 4 or (stop and step.terminated[0])
        assert lost > 20
        assert (short > 5) == stop


def test_time_runs_out_as_a_truncation_with_the_true_last_frame():
    protocol = dataclasses.replace(PLAIN, episode_steps=50)
    capped, free = make("atari/Pong", 1, 0, protocol=protocol), make("atari/Pong", 1, 0, protocol=PLAIN)
    capped.reset(), free.reset()
    ours, theirs = play(capped, 120, 0), play(free, 50, 0)
    for t, step in enumerate(ours, 1):
        assert step.truncated[0] == step.reset[0] == (t % 50 == 0)
        assert not step.terminated[0]
    np.testing.assert_array_equal(ours[49].final_frame, theirs[49].frame)
    np.testing.assert_array_equal(ours[49].frame, make("atari/Pong", 1, 0, protocol=PLAIN).reset())
    for a, b in zip(ours[:49], theirs, strict=False):
        same(a, b)


def test_a_life_lost_on_the_last_step_is_a_termination():
    batch = make("atari/Breakout", 1, 0, protocol=PLAIN)
    batch.reset()
    at = next(t for t, step in enumerate(play(batch, 500, 3), 1) if step.terminated[0])
    capped = make("atari/Breakout", 1, 0, protocol=dataclasses.replace(PLAIN, episode_steps=at))
    capped.reset()
    last = play(capped, at, 3)[-1]
    assert (last.terminated[0], last.truncated[0], last.reset[0]) == (True, False, True)


class CountingConsole:
    """Stands in for ALE where only the frames that were run matter."""

    frames = 0

    def reset_game(self):
        self.frames = 0

    def act(self, action):
        assert action == 0
        self.frames += 1
        return 0

    def lives(self):
        return 3

    def game_over(self):
        return False

    def getScreen(self, out):  # noqa: N802  # ALE's name
        out[:] = 0


@pytest.mark.parametrize(("unit", "frames", "least"), [("frame", 1, 0), ("step", 4, 0), ("frame", 1, 1)])
def test_noops_are_uniform(unit, frames, least):
    batch = make("atari/Pong", 1, 0, protocol=AtariProtocol(noop_unit=unit, noop_min=least, noop_max=29 + least))
    batch.reset()
    batch._emulators[0].ale = console = CountingConsole()
    counts, n = np.zeros(30), 6000
    for _ in range(n):
        batch.reset()
        noops, rest = divmod(console.frames, frames)
        assert rest == 0
        assert noops >= least
        counts[noops - least] += 1
    p = 1 / 30
    np.testing.assert_array_less(np.abs(counts - n * p), 5 * np.sqrt(n * p * (1 - p)))  # 5 sigma


def test_a_game_over_during_noops_gives_a_plain_start():
    """Pong against a player who never moves is over after some 3,000 frames."""
    protocol = AtariProtocol(noop_unit="step", noop_max=10**9)
    assert Stream(0, "env", 0).integers(10**9 + 1, 1)[0] > 10**6
    batch = make("atari/Pong", 1, 0, protocol=protocol)
    np.testing.assert_array_equal(batch.reset(), make("atari/Pong", 1, 0, protocol=PLAIN).reset())
    assert batch._emulators[0].ale.getEpisodeFrameNumber() == 0


def test_sticky_frames_repeat_the_frame_before():
    p, n = 0.25, 4000
    batch = make("atari/Pong", 1, 0, protocol=AtariProtocol(sticky=p))
    emulator = batch._emulators[0]
    batch.reset()
    rng, sticks = np.random.default_rng(0), 0
    for t in range(n):
        action = 2 + t % 2 if t % 3 else int(rng.integers(2, 4))
        before = emulator._last
        chosen = emulator._chosen(action)
        for k, one in enumerate(chosen):
            assert one in (action, before if k == 0 else chosen[k - 1])
        if before != action:
            sticks += chosen[0] != action
        emulator._last = chosen[-1]
    trials = n * 2 / 3  # about; the bound below allows for the rest
    assert abs(sticks / trials - p) < 5 * np.sqrt(p * (1 - p) / trials) + 0.05


def test_what_an_environment_draws_depends_on_its_number_alone():
    crowd, part = make("atari/Breakout", 4, 7), make("atari/Breakout", 2, 7, first_env=2)
    first = crowd.reset()
    np.testing.assert_array_equal(first[2:], part.reset())
    noops = [[emulator.ale.getEpisodeFrameNumber() for emulator in one._emulators] for one in (crowd, part)]
    assert noops[0][2:] == noops[1]
    assert len(set(noops[0])) > 1
    rng = np.random.default_rng(0)
    for _ in range(300):
        action = rng.integers(4, size=4)
        a, b = crowd.step(action), part.step(action[2:].copy())
        np.testing.assert_array_equal(a.frame[2:], b.frame)
        np.testing.assert_array_equal(a.reward[2:], b.reward)
        np.testing.assert_array_equal(a.reset[2:], b.reset)
    other = make("atari/Breakout", 4, 8)
    other.reset()
    assert noops[0] != [emulator.ale.getEpisodeFrameNumber() for emulator in other._emulators]


def assert_goes_on(game, seed, before, after, protocol=None, fresh=True):
    """Save after `before` steps; another batch, new or in the middle of a game, goes on like the first for `after`. The games that
    ended meanwhile."""
    batch = make(f"atari/{game}", 1, seed, protocol=protocol)
    batch.reset()
    play(batch, before, seed)
    other = make(f"atari/{game}", 1, seed + 1, protocol=protocol)
    if not fresh:
        other.reset()
        play(other, 17, seed)
    other.load_state_dict(batch.state_dict())
    ours, theirs = play(batch, after, seed + 2), play(other, after, seed + 2)
    assert len(ours) == after
    assert len({step.frame.tobytes() for step in ours}) > after // 20, "a still picture proves nothing"
    for a, b in zip(ours, theirs, strict=True):
        same(a, b)
    a, b = batch._emulators[0].state_dict(), other._emulators[0].state_dict()
    assert a.keys() == b.keys()
    assert {k: a[k] for k in ("lives", "steps", "last", "stream")} == {
        k: b[k] for k in ("lives", "steps", "last", "stream")
    }
    return sum(step.reset[0] for step in ours)


@pytest.mark.parametrize("game", ["Qbert", "Breakout", "KungFuMaster", "Freeway"])
def test_a_restored_game_goes_on_bit_for_bit(game):
    assert_goes_on(game, seed=0, before=int(np.random.default_rng(len(game)).integers(1, 400)), after=250)


def test_a_restored_game_goes_on_in_a_used_emulator_with_sticky_actions():
    sticky = AtariProtocol(sticky=0.25, episode_steps=90)
    assert assert_goes_on("Qbert", seed=5, before=131, after=250, protocol=sticky, fresh=False) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("game", ALL)
def test_every_game_goes_on_bit_for_bit(game):
    """3 points a game, new and used emulators; where games are short, through their ends."""
    rng = np.random.default_rng(ALL.index(game))
    for k in range(3):
        assert_goes_on(game, seed=k, before=int(rng.integers(1, 1200)), after=300, fresh=k % 2 == 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env": "atari/Breakout"}, "its env is 'atari/Breakout', here it is 'atari/Pong'"),
        ({"version": 0}, "its version is 0"),
        ({"ale": "0.1"}, "its ale is '0.1'"),
        ({"rom": "00"}, "its rom is '00'"),
        ({"n": 2}, "its n is 2, here it is 1"),
        ({"emulators": []}, "holds 0 emulators, here are 1"),
    ],
)
def test_a_foreign_state_is_refused_and_changes_nothing(change, message):
    batch, untouched = make("atari/Pong", 1, 0), make("atari/Pong", 1, 0)
    batch.reset(), untouched.reset()
    state = batch.state_dict()
    play(batch, 5, 0), play(untouched, 5, 0)
    with pytest.raises(ValueError, match=message):
        batch.load_state_dict({**state, **change})
    same(play(batch, 20, 1)[-1], play(untouched, 20, 1)[-1])


def test_a_damaged_state_is_refused_and_changes_nothing():
    batch, untouched = make("atari/Pong", 2, 0), make("atari/Pong", 2, 0)
    batch.reset(), untouched.reset()
    state = batch.state_dict()
    play(batch, 5, 0), play(untouched, 5, 0)
    good, bad = state["emulators"]
    for ale in (b"", bad["ale"][:-1], bad["ale"][:-1] + b"!"):
        with pytest.raises(ValueError, match="damaged emulator state"):
            batch.load_state_dict({**state, "emulators": [good, {**bad, "ale": ale}]})
    for key in ("lives", "stream"):
        lacking = {name: value for name, value in bad.items() if name != key}
        with pytest.raises(ValueError, match=f"damaged state: it lacks '{key}'"):
            batch.load_state_dict({**state, "emulators": [good, lacking]})
    same(play(batch, 20, 1)[-1], play(untouched, 20, 1)[-1])


def test_game_names():
    assert len(ALL) == 26
    assert set(ALL) <= set(games())
    for game in ("Combat", "Joust", "MazeCraze", "Warlords"):  # the emulator would end the process
        assert game not in games()
        with pytest.raises(ValueError, match=f"{game} needs two players"):
            make(f"atari/{game}", 1, 0)
    with pytest.raises(ValueError, match="unknown Atari game: 'Break'; did you mean Breakout"):
        make("atari/Break", 1, 0)
    with pytest.raises(ValueError, match="did you mean MsPacman"):
        make("atari/ms_pacman", 1, 0)
    assert make("atari/Venture", 1, 0).spec.actions > 1  # not of the suite, but a game


def test_render_is_the_screen():
    batch = make("atari/Pong", 1, 0)
    batch.reset()
    assert batch.render().shape == (210, 160, 3)
    assert len(np.unique(batch.render().reshape(-1, 3), axis=0)) > 2


def test_nothing_is_said(capfd):
    AtariBatch("atari/Pong", 1, 0).reset()
    out, err = capfd.readouterr()
    assert out == err == ""


def test_a_game_by_the_protocol_of_mr_q():
    """Sticky frames, no life losses, no no-ops, whole games; under the same name of the game as Atari-100k's."""
    suite, game = suite_of("atari57-mrq/Breakout"), Stream(1, "env", 0)
    assert (suite.name, suite.steps, suite.episodes) == ("atari57-mrq", 2_500_000, 10)
    assert (suite.every, suite.epsilon) == (100_000, 0.001)
    assert suite.protocol == AtariProtocol(
        sticky=0.25, life_loss_terminal=False, stop_skip_at_life_loss=False, noop_max=0
    )
    assert len(suite.tasks) == 57
    assert {task.partition("/")[2] for task in suite.tasks} <= set(games())
    for task, scale in suite_of("atari").scores.items():
        assert suite.scale(task.replace("atari/", "atari57-mrq/")) == scale
    random, human = np.array([suite.scores[task] for task in suite.tasks]).sum(0)
    np.testing.assert_allclose([random, human], [50864.9, 606494.2], rtol=1e-12)  # sums of decimals in float64
    batch, reference = make("atari57-mrq/Breakout", 1, 1), Game("breakout", suite.protocol, game)
    np.testing.assert_array_equal(batch.reset()[0], reference.begin())
    rng, resets = np.random.default_rng(0), 0
    while resets < 1:
        action = rng.integers(4, size=1)
        step = batch.step(action)
        frame, reward, terminated, truncated, over = reference.step(int(action[0]))
        assert (step.reward[0], step.terminated[0], step.truncated[0]) == (reward, terminated, truncated)
        assert terminated == over == step.reset[0]
        resets += over
        np.testing.assert_array_equal(step.frame[0], reference.begin() if over else frame)
