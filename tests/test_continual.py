"""Environments that change: each phase against the environment that it is."""

import dataclasses

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from reference import control as reference
from reference.philox import block
from rlplatform.envs import (
    ContinualControlProtocol,
    ContinualMinAtarProtocol,
    MinAtarProtocol,
    PermutedProtocol,
    make,
    suite_of,
)
from rlplatform.envs.control import GAMES
from rlplatform.envs.gym import gym_id
from rlplatform.envs.minatar import CHANNELS, coloured
from rlplatform.streams import Stream
from rlplatform.types import Step

ORDER = ("SpaceInvaders", "Freeway", "Asterix", "Breakout", "Seaquest", "Breakout")  # one of them twice
CLOCK = 3  # integers of a state before the game's: phase, steps left of it, key


def same(a, b):
    for name, ours, theirs in zip(Step._fields, a, b, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def alone_from(game, counter, seed, protocol):
    """The game by itself, begun where a stream's counter stands after the draws of its beginning."""
    plain = MinAtarProtocol(protocol.sticky, protocol.ramping, protocol.episode_steps)
    batch = make(f"minatar/{game}", 1, seed, protocol=plain)
    batch.reset()
    draws = batch.state_dict()["counter"]
    batch.load_state_dict({**batch.state_dict(), "counter": counter - draws})
    return batch, batch.reset()


def play_phases(task, protocol, phases, game_of, seed=0):
    """Every step of a changing environment beside the game that its phase is: frames, rewards, ends and last frames equal. Gives how many
    games were truncated where a phase ended, and how many terminated on the way."""
    batch, rng = make(task, 1, seed, protocol=protocol), np.random.default_rng(seed)
    frame, cut, terminated = batch.reset(), 0, 0
    for p in range(protocol.first_phase, protocol.first_phase + phases):
        assert batch.phase == p
        game, meaning = game_of(p), batch.meaning.copy()
        assert batch.game == game
        channels = len(CHANNELS[game])
        plain, first = alone_from(game, batch.state_dict()["counter"], seed, protocol)
        for t in range(protocol.phase_steps):
            np.testing.assert_array_equal(frame[:, :channels], first)
            assert not frame[:, channels:].any()
            if t % 50 == 0:
                np.testing.assert_array_equal(batch.render(), coloured(first[0]))
            action = rng.integers(6, size=1)
            step, theirs = batch.step(action), plain.step(meaning[action])
            frame, first = step.frame, theirs.frame
            last = t == protocol.phase_steps - 1
            assert step.reward == theirs.reward
            assert step.terminated == theirs.terminated
            assert step.truncated == (theirs.truncated | (last and not theirs.terminated[0]))
            assert step.reset == (theirs.reset | last)
            if step.reset[0]:
                ended = theirs.final_frame if theirs.reset[0] else theirs.frame
                np.testing.assert_array_equal(step.final_frame[:, :channels], ended)
                assert not step.final_frame[:, channels:].any()
            cut += int(last and step.truncated[0])
            terminated += int(step.terminated[0])
    return cut, terminated


@pytest.mark.parametrize("phase_steps", [1, 97])
def test_a_phase_of_games_in_turn_is_that_game(phase_steps):
    protocol = ContinualMinAtarProtocol(games=ORDER, phase_steps=phase_steps, first_phase=2)
    phases = 26 if phase_steps == 1 else 13
    cut, terminated = play_phases("continual-minatar", protocol, phases, lambda p: ORDER[p % 6], seed=3)
    assert cut >= phases - 3  # a few terminate on the very step
    assert terminated >= (0 if phase_steps == 1 else 10)


@pytest.mark.parametrize("game", sorted(CHANNELS))
def test_a_permuted_game_is_that_game_with_other_actions(game):
    protocol = PermutedProtocol(phase_steps=113, sticky=0.2, episode_steps=40)
    cut, _ = play_phases(f"continual-permuted/{game}", protocol, 6, lambda _: game, seed=4)
    assert cut >= 4


@pytest.mark.parametrize(
    ("plain", "changing", "protocol"),
    [
        ("minatar/Breakout", "continual-permuted/Breakout", PermutedProtocol),
        ("control/CartPole", "continual-control/CartPole", ContinualControlProtocol),
    ],
)
def test_a_game_that_terminates_on_the_last_step_of_a_phase_is_not_truncated(plain, changing, protocol):
    """Left alone, or pushed one way, a first game is over after about as many steps always: a phase is cut there."""
    batch = make(plain, 50, 0)
    batch.reset()
    lengths = np.zeros(50, int)
    for t in range(1, 40):
        lengths[(lengths == 0) & batch.step(np.zeros(50, np.int64)).terminated] = t
    n = int(np.bincount(lengths).argmax())
    batch = make(changing, 50, 0, protocol=protocol(phase_steps=n))
    batch.reset()
    for _ in range(n):
        step = batch.step(np.zeros(50, np.int64))
    np.testing.assert_array_equal(step.terminated, lengths == n)
    np.testing.assert_array_equal(step.truncated, lengths != n)
    assert step.reset.all()
    assert step.terminated.any()


def order_by_definition(key, phase):
    """Fisher and Yates: from the last place down, each swapped with one of those up to it."""
    order = list(range(6))
    for draw, k in enumerate(range(5, 0, -1)):
        high, low = block(key, 5 * phase + draw)[:2]
        other = ((high << 32 | low) * (k + 1)) >> 64
        order[k], order[other] = order[other], order[k]
    return order if phase else list(range(6))


def orders(seed, phases, n=1, first_env=0):
    batch = make("continual-permuted/Freeway", n, seed, first_env, protocol=PermutedProtocol(phase_steps=1))
    batch.reset()
    found = [batch.meaning]
    for _ in range(phases - 1):
        batch.step(np.zeros(n, np.int64))
        found.append(batch.meaning)
    return np.array(found)


def test_orders_are_the_run_s():
    found, key = orders(5, 40), Stream(5, "permutation").key
    np.testing.assert_array_equal(found, [order_by_definition(key, phase) for phase in range(40)])
    np.testing.assert_array_equal(found[0], np.arange(6))
    np.testing.assert_array_equal(found, orders(5, 40, n=3, first_env=4))
    assert (found != orders(6, 40)).any(1).sum() > 30


def test_orders_are_uniform():
    n = 12_000
    found = orders(0, n + 1)[1:]
    p = 1 / 6
    for place in range(6):
        counts = np.bincount(found[:, place], minlength=6)
        np.testing.assert_array_less(np.abs(counts - n * p), 5 * np.sqrt(n * p * (1 - p)))  # 5 sigma
    kinds = np.unique(found @ 6 ** np.arange(6))
    assert len(kinds) == 720  # all of them: one is missing with probability 720 exp(-12000 / 720) = 4e-5


CHANGES = {  # of each game: lists of factors, with all that it has
    "Acrobot": {"gravity": (1.0, 0.5, 2.0), "length": (1.0, 1.5), "force": (1.0, 1.0, 3.0)},
    "CartPole": {"gravity": (1.0, 0.5, 2.0), "length": (1.0, 1.5), "force": (1.0, 1.0, 0.3)},
    "MountainCar": {"gravity": (1.0, 0.5, 1.5), "force": (1.0, 2.0)},
    "MountainCarContinuous": {"gravity": (1.0, 0.5, 1.5), "force": (1.0, 2.0)},
    "Pendulum": {"gravity": (1.0, 0.5, 2.0), "length": (1.0, 1.5), "force": (1.0, 1.0, 0.3)},
}
# How far one step may be from the float64 definition. Measured in the play below: 4.5e-16, 5.6e-17, 1.2e-16; 3.1e-8, where Gymnasium's
# rules round to float32; 1.2e-8, where torques are float32. Ten times that is allowed.
STEP_ERROR = {
    "Acrobot": 4.5e-15,
    "CartPole": 5.6e-16,
    "MountainCar": 1.2e-15,
    "MountainCarContinuous": 3.1e-7,
    "Pendulum": 1.2e-7,
}


def numbers(batch):
    return np.ascontiguousarray(batch.state_dict()["state"][:, CLOCK + 1 :]).view(np.float64)


def next_state(game, state, action, gravity, length, force):
    if game == "Acrobot":
        return reference.acrobot(state, (action - 1) * force, 9.8 * gravity, length)
    if game == "CartPole":
        return reference.cartpole(state, (10 if action else -10) * force, 9.8 * gravity, length)
    if game == "MountainCar":
        return reference.mountain_car(state, (action - 1) * 0.001 * force, 0.0025 * gravity)
    if game == "MountainCarContinuous":
        return reference.mountain_car(state, float(action[0]) * 0.0015 * force, 0.0025 * gravity)
    return reference.pendulum(state, 2 * force * float(action[0]), 10 * gravity, length)


def random_actions(game, rng, n):
    if GAMES[game].actions:
        return rng.integers(GAMES[game].actions, size=n)
    return rng.uniform(-1, 1, (n, 1)).astype(np.float32)


@pytest.mark.parametrize("game", GAMES)
def test_dynamics_are_those_of_the_phase(game):
    """Every step of 8 environments through 8 phases, from the definition; a step under other factors would be seen."""
    protocol = ContinualControlProtocol(phase_steps=60, **CHANGES[game])
    batch, rng = make(f"continual-control/{game}", 8, 1, protocol=protocol), np.random.default_rng(0)
    batch.reset()
    worst, nearest = 0.0, np.inf
    for p in range(8):
        lists = protocol.gravity, protocol.length, protocol.force
        factors = tuple(factors[p % len(factors)] for factors in lists)
        assert (batch.phase, batch.dynamics) == (p, factors)
        for _ in range(60):
            before, action = numbers(batch), random_actions(game, rng, 8)
            step = batch.step(action)
            after = numbers(batch)
            goes_on = ~step.reset
            expected = np.array([next_state(game, s, a, *factors) for s, a in zip(before, action, strict=True)])
            worst = max([worst, *np.abs(after - expected)[goes_on].max(1)])
            if factors != (1.0, 1.0, 1.0) and goes_on.any():
                plain = np.array([next_state(game, s, a, 1, 1, 1) for s, a in zip(before, action, strict=True)])
                nearest = min(nearest, np.abs(after - plain)[goes_on].max())
        assert step.reset.all()  # a phase ended
        assert (step.truncated | step.terminated).all()
    assert worst <= STEP_ERROR[game], worst
    assert nearest > 10 * STEP_ERROR[game]


@pytest.mark.parametrize("game", GAMES)
def test_without_changes_it_is_the_game_itself(game):
    changing = make(f"continual-control/{game}", 4, 2, protocol=ContinualControlProtocol(phase_steps=10**6))
    plain, rng = make(f"control/{game}", 4, 2), np.random.default_rng(0)
    np.testing.assert_array_equal(changing.reset(), plain.reset())
    for _ in range(300):
        action = random_actions(game, rng, 4)
        same(changing.step(action), plain.step(action))


def drawn_dynamics(seed, phases, **options):
    protocol = ContinualControlProtocol(
        phase_steps=1, gravity=(1.0, 0.5, 2.0), length=(1.0, 1.25), force=(0.75,), drawn=True
    )
    batch = make("continual-control/CartPole", 2, seed, protocol=protocol, **options)
    batch.reset()
    found = [batch.dynamics]
    for _ in range(phases - 1):
        batch.step(np.zeros(2, np.int64))
        found.append(batch.dynamics)
    return np.array(found)


def test_drawn_dynamics_are_the_run_s_and_uniform():
    n = 3_000
    found = drawn_dynamics(7, n)
    np.testing.assert_array_equal(found[0], [1.0, 1.0, 0.75])
    np.testing.assert_array_equal(found[:50], drawn_dynamics(7, 50, first_env=6, threads=2))
    assert (found[1:50, 0] != drawn_dynamics(8, 50)[1:, 0]).all()
    key = Stream(7, "dynamics").key
    for phase in (1, 2, 49):
        first, second = block(key, 2 * phase), block(key, 2 * phase + 1)
        u = [((w[k] << 21) ^ (w[k + 1] >> 11)) / 2**53 for w, k in ((first, 0), (first, 2), (second, 0))]
        np.testing.assert_array_equal(found[phase], [0.5 + 1.5 * u[0], 1.0 + 0.25 * u[1], 0.75 + 0.0 * u[2]])
    for column, low, high in ((found[1:, 0], 0.5, 2.0), (found[1:, 1], 1.0, 1.25)):
        unit = (column - low) / (high - low)
        counts, p = np.histogram(unit, 10, (0, 1))[0], 0.1
        assert counts.sum() == n - 1
        np.testing.assert_array_less(np.abs(counts - n * p), 5 * np.sqrt(n * p * (1 - p)))  # 5 sigma
    assert abs(np.corrcoef(found[1:, 0], found[1:, 1])[0, 1]) < 5 / np.sqrt(n)
    assert (found[:, 2] == 0.75).all()


TASKS = [
    ("continual-minatar", ContinualMinAtarProtocol(phase_steps=23, episode_steps=15)),
    ("continual-minatar", ContinualMinAtarProtocol(phase_steps=11, permuted=True)),
    ("continual-permuted/Asterix", PermutedProtocol(phase_steps=17)),
    ("continual-control/CartPole", ContinualControlProtocol(phase_steps=13, gravity=(1.0, 2.0), drawn=True)),
    ("continual-control/Pendulum", ContinualControlProtocol(phase_steps=29, length=(1.0, 2.0, 0.5))),
]


def actions_of(batch, rng):
    spec = batch.spec
    if spec.actions:
        return rng.integers(spec.actions, size=batch.n)
    return rng.uniform(-1, 1, (batch.n, 1)).astype(np.float32)


@pytest.mark.parametrize(("task", "protocol"), TASKS)
def test_threads_company_and_a_restart_do_not_matter(task, protocol):
    """A state goes into environments of another seed, which go on in the same phase, with the same orders and draws."""

    def new(n, seed, first_env=0, **options):
        return make(task, n, seed, first_env, protocol=protocol, **options)

    alone, crowd, part = new(9, 5), new(9, 5, threads=3), new(3, 5, 4)
    frame = alone.reset()
    np.testing.assert_array_equal(frame, crowd.reset())
    np.testing.assert_array_equal(frame[4:7], part.reset())
    rng = np.random.default_rng(1)
    for t in range(150):
        if t % 40 == 7 or t % protocol.phase_steps == 0:
            other = new(9, 6)  # in the first phase still, and not begun
            other.load_state_dict(alone.state_dict())
        action = actions_of(alone, rng)
        a, b, c = alone.step(action), crowd.step(action), part.step(action[4:7].copy())
        same(a, b)
        same(a, other.step(action))
        for ours, theirs in zip(a[:5], c[:5], strict=True):
            np.testing.assert_array_equal(ours[4:7], theirs)
        assert alone.phase == other.phase == (t + 1) // protocol.phase_steps
    for name, value in alone.state_dict().items():
        np.testing.assert_array_equal(value, other.state_dict()[name], err_msg=name)


@pytest.mark.parametrize(("task", "protocol"), TASKS)
def test_a_state_that_no_game_has_is_refused_and_changes_nothing(task, protocol):
    batch, untouched = make(task, 2, 3, protocol=protocol), make(task, 2, 3, protocol=protocol)
    batch.reset(), untouched.reset()
    state = batch.state_dict()
    drawn = state["state"][0, 2] != 0
    wrong = [(0, -1), (0, 2**40 + 1), (1, 0), (1, protocol.phase_steps + 1), (3, -1), *([] if drawn else [(2, 1)])]
    for k, value in wrong:
        changed = state["state"].copy()
        changed[:, k] = value
        with pytest.raises(ValueError, match="environment 0 of the batch has no such state"):
            batch.load_state_dict({**state, "state": changed})
    apart = state["state"].copy()
    apart[1, 1] -= 1
    with pytest.raises(ValueError, match="they are in different phases"):
        batch.load_state_dict({**state, "state": apart})
    other = dataclasses.replace(protocol, phase_steps=protocol.phase_steps + 1)
    with pytest.raises(ValueError, match="its settings is"):
        batch.load_state_dict(make(task, 2, 3, protocol=other).state_dict())
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = actions_of(batch, rng)
        same(batch.step(action), untouched.step(action))


def test_integers_behind_a_game_s_are_zeros():
    """Breakout's state has 13 integers, and room for Seaquest's."""
    protocol = ContinualMinAtarProtocol(games=("Breakout", "Seaquest"))
    batch = make("continual-minatar", 1, 0, protocol=protocol)
    batch.reset()
    state = batch.state_dict()
    assert (state["state"][0, CLOCK + 13 :] == 0).all()
    for k in (CLOCK + 13, state["state"].shape[1] - 1):
        changed = state["state"].copy()
        changed[0, k] = 1
        with pytest.raises(ValueError, match="has no such state"):
            batch.load_state_dict({**state, "state": changed})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ContinualMinAtarProtocol(phase_steps=0), r"protocol.phase_steps must lie in \[1, 2\^40\], got 0"),
        (lambda: PermutedProtocol(first_phase=-1), r"protocol.first_phase must lie in \[0, 2\^40\], got -1"),
        (lambda: PermutedProtocol(sticky=1.0), "protocol.sticky must lie in"),
        (lambda: ContinualMinAtarProtocol(games=()), "must name 1 to 32 games, got 0"),
        (lambda: ContinualControlProtocol(gravity=()), "protocol.gravity must be 1 to 8 factors"),
        (lambda: ContinualControlProtocol(force=(1.0, 0.0)), r"protocol.force must be 1 to 8 factors in \[0.01, 100\]"),
        (lambda: ContinualControlProtocol(length=(float("nan"),)), "protocol.length must be 1 to 8 factors"),
        (lambda: ContinualControlProtocol(cartpole_steps=0), r"protocol.cartpole_steps must be in \[1, 1e9\]"),
        (
            lambda: make("continual-minatar", 1, 0, protocol=ContinualMinAtarProtocol(games=("Breakdown",))),
            "unknown MinAtar game: 'Breakdown'; did you mean Breakout",
        ),
        (lambda: make("continual-minatar/Breakout", 1, 0), "its games are protocol.games"),
        (lambda: make("continual-permuted/Pong", 1, 0), "unknown MinAtar game: 'Pong'"),
        (lambda: make("continual-control/Pole", 1, 0), "unknown game of classic control: 'Pole'"),
        (
            lambda: make("continual-control/MountainCar", 1, 0, protocol="length"),
            r"MountainCar has no length: protocol.length must be \[1.0\]",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_suites():
    minatar, permuted, control = map(suite_of, ("continual-minatar", "continual-permuted", "continual-control"))
    assert minatar.tasks == ("continual-minatar",)
    assert permuted.tasks == tuple(f"continual-permuted/{game}" for game in sorted(CHANNELS))
    assert control.tasks == tuple(f"continual-control/{game}" for game in sorted(GAMES))
    assert set(minatar.protocol.games) == set(CHANNELS)
    assert minatar.protocol.cycle == 5
    assert minatar.steps == 10 * minatar.protocol.phase_steps  # each game twice
    assert permuted.steps == 10 * permuted.protocol.phase_steps
    assert control.steps == 6 * control.protocol.phase_steps
    assert (control.protocol.cycle, permuted.protocol.cycle) == (3, 0)
    assert {name: protocol.cycle for name, protocol in control.variants.items()} == {
        "gravity": 3, "length": 3, "force": 3, "drawn": 0,
    }  # fmt: skip
    assert minatar.variants["permuted"].cycle == 0
    assert make("continual-minatar", 1, 0).spec.frame_shape == (10, 10, 10)
    assert make("continual-permuted/Breakout", 1, 0).spec.frame_shape == (4, 10, 10)


@pytest.mark.parametrize("game", ["MountainCar", "MountainCarContinuous", "Acrobot"])
@pytest.mark.parametrize("variant", ["", "gravity", "force"])
def test_every_phase_can_be_won(game, variant):
    """By a player who pumps energy; a phase that nobody can win would say nothing."""
    suite = suite_of(f"continual-control/{game}")
    protocol = dataclasses.replace(suite.protocol_named(variant), phase_steps=2_000)
    batch = make(f"continual-control/{game}", 4, 0, protocol=protocol)
    frame = batch.reset()
    for _ in range(3):
        won = 0
        for _ in range(2_000):
            push = np.where(frame[:, 4 if game == "Acrobot" else 1] * (-1 if game == "Acrobot" else 1) >= 0, 1, -1)
            if game == "Acrobot":
                push = np.where(frame[:, 5] > 0, 1, -1)
            action = push[:, None].astype(np.float32) if GAMES[game].actions == 0 else push + 1
            step = batch.step(action)
            frame, won = step.frame, won + step.terminated.sum()
        assert won >= 4


@pytest.mark.filterwarnings("ignore:.*Box observation space .* value is:UserWarning")  # frames have no declared bounds
@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("continual-minatar", "rlplatform/ContinualMinAtar-v0"),
        ("continual-permuted/Breakout", "rlplatform/PermutedMinAtar-Breakout-v0"),
        ("continual-control/CartPole", "rlplatform/ContinualControl-CartPole-v0"),
    ],
)
def test_gymnasium_makes_them(task, name):
    assert gym_id(task) == name
    protocol = dataclasses.replace(suite_of(task).protocol, phase_steps=20)
    envs = gymnasium.make_vec(name, num_envs=3, protocol=protocol, render_mode="rgb_array")
    obs, infos = envs.reset(seed=7)
    batch, rng = make(task, 3, 7, protocol=protocol), np.random.default_rng(0)
    np.testing.assert_array_equal(obs[:, 0], batch.reset())
    assert infos["phase"].tolist() == [0] * 3
    for t in range(1, 60):
        action = rng.integers(batch.spec.actions, size=3)
        obs, reward, _, truncated, infos = envs.step(action)
        step = batch.step(action)
        np.testing.assert_array_equal(obs[:, 0], step.frame)
        np.testing.assert_array_equal(reward, step.reward)
        np.testing.assert_array_equal(truncated, step.truncated)
        assert infos["phase"].tolist() == [t // 20] * 3
    np.testing.assert_array_equal(envs.render()[2], batch.render(2))
    envs.close()
    check_env(gymnasium.make(name).unwrapped)
