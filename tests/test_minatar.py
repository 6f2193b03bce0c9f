import gymnasium
import numpy as np
import pytest

from reference.minatar import NAMES, Oracle
from rlplatform.envs import MinAtarProtocol, make, suite_of
from rlplatform.envs.gym import gym_id
from rlplatform.envs.minatar import ACTIONS, CHANNELS, palette
from rlplatform.streams import Stream
from rlplatform.types import Step

GAMES = sorted(NAMES)
NONE, LEFT, UP, RIGHT, DOWN, FIRE = range(6)


def same(a, b):
    for name, ours, theirs in zip(Step._fields, a, b, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def play(game, policy, steps, protocol=None, seed=0, poke=None):
    """Our game and the package's, fed the same draws and actions: every frame, reward and end equal. `poke` changes both
    states at the beginning of each game. Gives the score of each game, the unfinished last one too."""
    protocol = protocol or MinAtarProtocol()
    batch = make(f"minatar/{game}", 1, seed, protocol=protocol)
    oracle = Oracle(game, Stream(seed, "env", 0).key, protocol.sticky, protocol.ramping)
    first = batch.reset()
    np.testing.assert_array_equal(first[0], oracle.frame())
    if poke:
        poke(batch, oracle)
    rng, scores = np.random.default_rng(seed), [0.0]
    for t in range(steps):
        action = policy(oracle.game, rng, t)
        step = batch.step(np.array([action]))
        reward, over, last, frame = oracle.step(action)
        assert (step.reward[0], step.terminated[0], step.reset[0], step.truncated[0]) == (reward, over, over, False)
        np.testing.assert_array_equal(step.frame[0], frame)
        scores[-1] += reward
        if over:
            np.testing.assert_array_equal(step.final_frame[0], last)
            scores.append(0.0)
            if poke:
                poke(batch, oracle)
    assert batch.state_dict()["counter"][0] == oracle.draws.counter
    return scores


def at_random(game, rng, t):
    return rng.integers(6)


@pytest.mark.parametrize("game", GAMES)
def test_random_play_is_minatar_s(game):
    scores = play(game, at_random, 4_000, seed=1)
    assert len(scores) >= (2 if game == "Freeway" else 20)
    assert sum(scores) >= (0 if game == "Freeway" else 3)


@pytest.mark.parametrize("sticky", [0.0, 0.6])
def test_sticky_actions_are_minatar_s(sticky):
    scores = play("Seaquest", at_random, 1_500, MinAtarProtocol(sticky=sticky), seed=2)  # compares every step
    assert len(scores) >= 5  # games ended and began anew on the way


def follow_the_ball(game, rng, t):
    """Under the ball, or beside it where it will be a step later."""
    ahead = game.ball_x + (1 if game.ball_dir in (1, 2) else -1) if rng.random() < 0.3 else game.ball_x
    return LEFT if ahead < game.pos else RIGHT if ahead > game.pos else NONE


def test_breakout_through_walls_of_bricks():
    assert max(play("Breakout", follow_the_ball, 6_000, seed=3)) > 30  # a wall has 30 bricks: another was put up


def cross(game, rng, t):
    return UP if rng.random() < 0.9 else rng.integers(6)


def test_freeway_across_the_road():
    scores = play("Freeway", cross, 6_000, seed=4)
    assert len(scores) == 3  # of 2,501 steps each
    assert min(scores[:2]) >= 10


def dodge(game, rng, t):
    """Gold where it is near; a row that nothing is about to reach."""
    safe = []
    for action, (dx, dy) in enumerate([(0, 0), (-1, 0), (0, -1), (1, 0), (0, 1)]):
        x, y = min(9, max(0, game.player_x + dx)), min(8, max(1, game.player_y + dy))
        near = game.entities[y - 1]
        if near is None or near[3] or abs(near[0] - x) > 1:
            safe.append(action)
    return rng.choice(safe) if safe else rng.integers(6)


def hasten(batch, oracle):
    """A game that grows harder after three steps, not after a hundred. See Asterix::save for the place."""
    state = batch.state_dict()
    state["state"][0, 2 + 4] = oracle.game.ramp_timer = 3
    batch.load_state_dict(state)


def test_asterix_grows_harder():
    levels = []

    def policy(game, rng, t):
        levels.append(game.ramp_index)
        return dodge(game, rng, t)

    scores = play("Asterix", policy, 8_000, seed=5, poke=hasten)
    assert sum(scores) > 50
    assert max(levels) >= 4
    assert len(scores) > 10


def test_asterix_at_its_hardest():
    """Each game begins at a level of its own."""
    level = [0]

    def poke(batch, oracle):
        level[0] = (level[0] + 1) % 10
        state = batch.state_dict()
        state["state"][0, 2 + 5] = oracle.game.ramp_index = level[0]
        oracle.game.spawn_speed, oracle.game.move_speed = 10 - level[0], max(1, 5 - level[0] // 2)
        state["state"][0, 2 + 4] = oracle.game.ramp_timer = 5
        batch.load_state_dict(state)

    assert len(play("Asterix", at_random, 4_000, seed=6, poke=poke)) > 20


def shoot(game, rng, t):
    """Out of the way of bullets first, then towards where the nearest column of aliens will be."""
    ways = [(NONE, game.pos), (LEFT, max(0, game.pos - 1)), (RIGHT, min(9, game.pos + 1))]
    safe = [way for way in ways if not game.e_bullet_map[6:, way[1]].any()]
    if not safe:
        return rng.choice([LEFT, RIGHT])
    if game.shot_timer == 0 and safe[0][0] == NONE:
        return FIRE
    ahead = np.flatnonzero(game.alien_map.any(0)) + game.alien_dir
    target = ahead[np.abs(ahead - game.pos).argmin()]
    return min(safe, key=lambda way: abs(way[1] - target))[0]


@pytest.mark.parametrize(("ramping", "fastest"), [(True, 6), (False, 7)])
def test_space_invaders_through_waves(ramping, fastest):
    """From the last level but one. See SpaceInvaders::save for the place."""
    intervals = set()

    def poke(batch, oracle):
        state = batch.state_dict()
        state["state"][0, 2 + 1] = oracle.game.enemy_move_interval = 7
        batch.load_state_dict(state)

    def policy(game, rng, t):
        intervals.add(game.enemy_move_interval)
        return shoot(game, rng, t)

    scores = play("SpaceInvaders", policy, 12_000, MinAtarProtocol(ramping=ramping), seed=7, poke=poke)
    assert max(scores) > 48  # two waves of 24, and a third begun
    assert len(scores) > 10
    assert min(intervals) == fastest


def low_aliens(batch, oracle):
    """Aliens far down, and bullets, in both. See SpaceInvaders::save for the places."""
    state, game = batch.state_dict(), oracle.game
    row, rng = state["state"][0], np.random.default_rng(state["key"][0])
    game.alien_map[:] = 0
    game.alien_map[5:] = rng.random((5, 10)) < 0.2
    game.alien_map[5, 5] = 1  # there is always one
    game.alien_map[9, 3:8] = 0  # not yet at the cannon
    game.f_bullet_map = (rng.random((10, 10)) < 0.05).astype(float)
    game.e_bullet_map = (rng.random((10, 10)) < 0.05).astype(float)
    game.alien_dir, game.alien_move_timer = int(rng.choice([-1, 1])), int(rng.integers(3))
    row[7], row[4] = game.alien_dir > 0, game.alien_move_timer
    bits = 1 << np.arange(10)
    for k, cells in enumerate((game.alien_map, game.f_bullet_map, game.e_bullet_map)):
        row[8 + 10 * k : 18 + 10 * k] = cells.astype(int) @ bits
    batch.load_state_dict(state)


def test_space_invaders_at_the_bottom():
    """Who is reached where, and what the last frame of a lost game shows."""
    games = [len(play("SpaceInvaders", at_random, 12, seed=k, poke=low_aliens)) for k in range(150)]
    assert sum(games) > 300


def six_aboard(batch, oracle):
    """See Seaquest::save for the place."""
    state = batch.state_dict()
    state["state"][0, 2 + 5] = oracle.game.diver_count = 6
    batch.load_state_dict(state)


def bob(game, rng, t):
    """Up and down at the surface, which makes the game harder each time; now and then a dive, with shots."""
    if t % 400 > 150:
        return rng.choice([LEFT, RIGHT, FIRE, FIRE, UP, DOWN])
    return UP if game.sub_y > 0 else DOWN


@pytest.mark.parametrize("ramping", [True, False])
def test_seaquest_at_its_hardest(ramping):
    """Six divers are paid out at the first surfacing; those after it cost nothing (-1 aboard), so that bobbing climbs all levels."""
    levels, crowd, aboard = set(), [0], set()

    def policy(game, rng, t):
        levels.add(game.ramp_index)
        aboard.add(game.diver_count)
        crowd.append(len(game.e_fish) + len(game.e_subs))
        return bob(game, rng, t)

    scores = play("Seaquest", policy, 8_000, MinAtarProtocol(ramping=ramping), seed=9, poke=six_aboard)
    assert max(scores) >= 10  # a full tank pays 10
    assert min(aboard) < -10
    assert max(levels) == (19 if ramping else 0)
    assert len(scores) > 2
    if ramping:
        assert max(crowd) > 15


def crowd(batch, oracle):
    """A sea of few cells and many swimmers, no two alike, and bullets among them, in both. See Seaquest::save for the places."""
    state, game = batch.state_dict(), oracle.game
    row, rng = state["state"][0], np.random.default_rng(state["key"][0])
    game.sub_x, game.sub_y, game.surface, game.shot_timer = int(rng.integers(1, 9)), int(rng.integers(2, 4)), False, 5
    row[2], row[3], row[8], row[5] = game.sub_x, game.sub_y, 0, 5
    at = 12
    for name, room, most in [
        ("f_bullets", 4, 4),
        ("divers", 4, 3),
        ("e_bullets", 64, 6),
        ("e_fish", 64, 12),
        ("e_subs", 64, 12),
    ]:
        swims, shoots = name in {"divers", "e_fish", "e_subs"}, name == "e_subs"
        codes = {
            int(rng.integers(2, 8) + 10 * rng.integers(2, 4) + 100 * rng.integers(2))
            + swims * 200 * int(rng.integers(6))
            + shoots * 1200 * int(rng.integers(11))
            for _ in range(rng.integers(most + 1))
        }
        if (
            name == "f_bullets"
        ):  # as in play, none right behind another: there, too, MinAtar would take one for the other
            codes = {code // 10: code for code in codes}.values()
        codes = rng.permutation(sorted(codes)).tolist()
        row[at] = len(codes)
        row[at + 1 : at + 1 + len(codes)] = codes
        parts = [[c % 10, c // 10 % 10, c // 100 % 2 == 1, c // 200 % 6, c // 1200] for c in codes]
        setattr(game, name, [part[: 3 + swims + shoots] for part in parts])
        at += 1 + room
    batch.load_state_dict(state)


def test_seaquest_in_a_crowd():
    """Who is hit where several are in one cell, and who still shoots. Without ramping, or two swimmers might become alike, which
    in MinAtar's lists makes one of them move twice."""
    scores = [sum(play("Seaquest", at_random, 10, MinAtarProtocol(ramping=False), k, crowd)) for k in range(250)]
    assert sum(scores) > 250


def rescue(game, rng, t):
    """To the nearest diver while there is room and air, then up."""
    if rng.random() < 0.25:
        return rng.choice([FIRE, LEFT, RIGHT])
    if game.divers and game.diver_count < 2 and game.oxygen > 60:
        x, y = min(game.divers, key=lambda d: abs(d[0] - game.sub_x) + abs(d[1] - game.sub_y))[:2]
        if y != game.sub_y:
            return UP if y < game.sub_y else DOWN
        return LEFT if x < game.sub_x else RIGHT
    return UP if game.diver_count and game.sub_y else FIRE


def test_seaquest_with_divers():
    rescued = []

    def policy(game, rng, t):
        rescued.append(game.diver_count)
        return rescue(game, rng, t)

    assert sum(play("Seaquest", policy, 8_000, seed=10)) > 5
    assert max(rescued) >= 2
    assert (np.diff(rescued) == -1).any()


@pytest.mark.parametrize("game", GAMES)
def test_threads_and_company_do_not_matter(game):
    task = f"minatar/{game}"
    alone, crowd, part, other = (
        make(task, 9, 5),
        make(task, 9, 5, threads=3),
        make(task, 3, 5, first_env=4),
        make(task, 9, 6),
    )
    frame = alone.reset()
    np.testing.assert_array_equal(frame, crowd.reset())
    np.testing.assert_array_equal(frame[4:7], part.reset())
    other.reset()
    rng, differs = np.random.default_rng(1), False
    for _ in range(200):
        action = rng.integers(6, size=9)
        a, b, c = alone.step(action), crowd.step(action), part.step(action[4:7].copy())
        same(a, b)
        for ours, theirs in zip(a[:5], c[:5], strict=True):
            np.testing.assert_array_equal(ours[4:7], theirs)
        differs = differs or not np.array_equal(a.frame, other.step(action).frame)
    assert differs


@pytest.mark.parametrize("game", GAMES)
def test_a_restored_batch_goes_on(game):
    batch, rng = make(f"minatar/{game}", 5, 0), np.random.default_rng(2)
    batch.reset()
    for pause in (1, 30, 200):
        for _ in range(pause):
            batch.step(rng.integers(6, size=5))
        other = make(f"minatar/{game}", 5, 99)
        other.load_state_dict(batch.state_dict())
        for _ in range(150):
            action = rng.integers(6, size=5)
            same(batch.step(action), other.step(action))
        for name, value in batch.state_dict().items():
            np.testing.assert_array_equal(value, other.state_dict()[name], err_msg=name)


@pytest.mark.parametrize("game", GAMES)
def test_a_state_that_no_game_has_is_refused_and_changes_nothing(game):
    """Any of its integers out of every range."""
    batch, untouched = make(f"minatar/{game}", 2, 3), make(f"minatar/{game}", 2, 3)
    batch.reset(), untouched.reset()
    state = batch.state_dict()
    for k in range(state["state"].shape[1]):
        for value in (-(2**40), 2**40, -(2**31), 2**32 + 1):
            wrong = state["state"].copy()
            wrong[1, k] = value
            with pytest.raises(ValueError, match="environment 1 of the batch has no such state"):
                batch.load_state_dict({**state, "state": wrong})
    for change, message in [
        ({"env": "minatar/Pong"}, "its env is 'minatar/Pong'"),
        ({"version": 2}, "its version is 2, here it is 1"),
        (
            {"settings": {"sticky": 0.25, "ramping": True, "episode_steps": 0}},
            "its settings is .*0.25.*here it is .*0.1",
        ),
        ({"state": state["state"][:, :-1].copy()}, "env must have shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            batch.load_state_dict({**state, **change})
    for _ in range(60):
        same(batch.step(np.array([1, 2])), untouched.step(np.array([1, 2])))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.array([0, 6]), r"action 6 of environment 1 of the batch is not in \[0, 6\)"),
        (np.array([-1, 0]), "action -1 of environment 0"),
        (np.array([0, 1], np.int32), r"action must be int64 \[2\], got int32 \[2\]"),
        (np.array([0, 1, 2]), r"got int64 \[3\]"),
        ([0, 1], "got list"),
    ],
)
def test_a_bad_action_is_refused_and_changes_nothing(action, message):
    batch, untouched = make("minatar/Asterix", 2, 0), make("minatar/Asterix", 2, 0)
    batch.reset(), untouched.reset()
    with pytest.raises(ValueError, match=message):
        batch.step(action)
    for _ in range(60):
        same(batch.step(np.array([2, 0])), untouched.step(np.array([2, 0])))


def test_closed_and_unborn_environments_say_so():
    batch = make("minatar/Freeway", 1, 0)
    with pytest.raises(ValueError, match=r"reset\(\) the environments before the first step\(\)"):
        batch.step(np.array([0]))
    with pytest.raises(ValueError, match="nothing to render"):
        batch.render()
    batch.close()
    for call in (batch.reset, batch.state_dict, batch.render, lambda: batch.step(np.array([0]))):
        with pytest.raises(ValueError, match="closed"):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make("minatar/Breakdown", 1, 0), "unknown MinAtar game: 'Breakdown'; did you mean Breakout"),
        (lambda: make("minatar", 1, 0), "unknown MinAtar game: ''"),
        (lambda: MinAtarProtocol(sticky=1.0), r"protocol.sticky must lie in \[0, 1\)"),
        (lambda: MinAtarProtocol(sticky=float("nan")), r"protocol.sticky must lie in \[0, 1\)"),
        (lambda: MinAtarProtocol(episode_steps=-1), "protocol.episode_steps must lie in"),
        (lambda: make("minatar/Freeway", 1, 0, threads=0), r"threads must be in \[1, 1024\]"),
    ],
)
def test_what_cannot_be_made_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_limit_truncates():
    """Freeway never ends before its 2,501st step; a limit of 40 cuts it at every 40th, and a game that ends then is no truncation."""
    batch = make("minatar/Freeway", 2, 0, protocol=MinAtarProtocol(episode_steps=40))
    batch.reset()
    for t in range(1, 130):
        step = batch.step(np.array([0, 2]))
        assert step.truncated.tolist() == step.reset.tolist() == [t % 40 == 0] * 2
        assert not step.terminated.any()
    half = make("minatar/Freeway", 2, 1, protocol=MinAtarProtocol(episode_steps=40))
    half.load_state_dict(batch.state_dict())
    assert [half.step(np.array([0, 0])).truncated[0] for _ in range(40)].index(True) == 40 - 129 % 40 - 1
    both = make("minatar/Freeway", 1, 0, protocol=MinAtarProtocol(episode_steps=2_501))
    both.reset()
    ends = [both.step(np.array([0])) for _ in range(2_501)]
    assert ends[-1].terminated[0]
    assert not any(end.truncated[0] for end in ends)


def test_the_suite_is_minatar_s():
    suite = suite_of("minatar/Breakout")
    assert suite.tasks == tuple(f"minatar/{game}" for game in GAMES)
    assert (suite.name, suite.steps, suite.episodes, suite.epsilon) == ("minatar", 5_000_000, 100, 0.0)
    assert suite.protocol == MinAtarProtocol()
    assert suite.variants == {"capped": MinAtarProtocol(episode_steps=5_000)}
    for game in GAMES:
        spec = make(f"minatar/{game}", 1, 0).spec
        assert (spec.frame_shape, spec.stack, spec.actions) == ((len(CHANNELS[game]), 10, 10), 1, len(ACTIONS))
        assert len(CHANNELS[game]) == Oracle(game, 0).minatar.n_channels


def test_a_picture_shows_the_first_channel_of_each_cell():
    batch = make("minatar/SpaceInvaders", 2, 0)
    frame = batch.reset()
    picture = batch.render(1)
    assert (picture.shape, picture.dtype) == ((160, 160, 3), np.uint8)
    colour = palette(6)
    for y in range(10):
        for x in range(10):
            lit = np.flatnonzero(frame[1][:, y, x])
            cell = picture[16 * y : 16 * y + 16, 16 * x : 16 * x + 16].reshape(-1, 3)
            np.testing.assert_array_equal(cell, np.tile(colour[lit[0]] if lit.size else [0, 0, 0], (256, 1)))
    assert len({tuple(row) for row in colour} | {(0, 0, 0)}) == 7


@pytest.mark.parametrize("game", GAMES)
def test_gymnasium_knows_it(game):
    assert gym_id(f"minatar/{game}") == f"rlplatform/MinAtar-{game}-v0"
    envs = gymnasium.make_vec(f"rlplatform/MinAtar-{game}-v0", num_envs=3, render_mode="rgb_array")
    obs, _ = envs.reset(seed=7)
    batch = make(f"minatar/{game}", 3, 7)
    np.testing.assert_array_equal(obs[:, 0], batch.reset())
    assert envs.single_action_space.n == 6
    rng = np.random.default_rng(0)
    for _ in range(40):
        action = rng.integers(6, size=3)
        obs, reward, *_ = envs.step(action)
        step = batch.step(action)
        np.testing.assert_array_equal(obs[:, 0], step.frame)
        np.testing.assert_array_equal(reward, step.reward)
    np.testing.assert_array_equal(envs.render()[2], batch.render(2))
    envs.close()
