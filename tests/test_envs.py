import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from rlplatform import envs
from rlplatform.envs import AtariProtocol, CatchProtocol, Suite, make, register, suite_of, suites, tasks
from rlplatform.envs.native import make_catch
from rlplatform.envs.suites import parse_suite

YAML = """
name: mini
steps: 10
evaluation: {episodes: 3, epsilon: 0.5}
protocol: {rows: 4, columns: 3}
variants: {wide: {columns: 9}}
scores: {a: [0, 1.5], b: [-1, 2]}
"""


@pytest.fixture
def registry():
    before = dict(envs._ENTRIES)
    yield
    envs._ENTRIES.clear()
    envs._ENTRIES.update(before)


def test_atari100k_is_the_published_protocol():
    suite = suite_of("atari/Pong")
    assert suite.name == "atari100k"
    assert (suite.steps, suite.episodes, suite.epsilon, len(suite.tasks)) == (100_000, 100, 0.001, 26)
    assert suite.protocol == AtariProtocol()  # the dataclass's defaults are the suite's, and the file says all of them
    assert suite.variants == {
        "bbf": AtariProtocol(noop_unit="step"),
        "parity": AtariProtocol(noop_min=1, noop_max=1, stop_skip_at_life_loss=False),
    }
    p = suite.protocol
    assert (p.frame_skip, p.frame_size, p.stack, p.sticky, p.full_action_set) == (4, 84, 4, 0.0, False)
    assert (p.life_loss_terminal, p.stop_skip_at_life_loss) == (True, True)
    assert (p.noop_min, p.noop_max, p.noop_unit, p.episode_steps) == (0, 29, "frame", 27_000)


def test_normalisation_is_the_published_one():
    """Three rows of the table in Mnih et al. 2015, and of all rows that random < human."""
    suite = suite_of("atari")
    assert suite.scale("atari/Pong") == (-20.7, 14.6)
    assert suite.scale("atari/PrivateEye") == (24.9, 69571.3)
    assert suite.scale("atari/CrazyClimber") == (10780.5, 35829.4)
    assert suite.scale("atari/Venture") is None
    assert all(random < human for random, human in suite.scores.values())
    # Sums of the two columns, so that no digit can slip: 26 games.
    random, human = np.array([suite.scores[task] for task in suite.tasks]).sum(0)
    np.testing.assert_allclose([random, human], [19161.6, 319192.1], rtol=1e-12)  # sums of decimals in float64


def test_every_task_can_be_made():
    assert tasks() == [task for suite in suites() for task in suite.tasks]
    for task in ("catch", "atari/Alien", "atari/UpNDown", "control/Pendulum"):
        assert task in tasks()
        batch = make(task, 2, 0)
        frame = batch.reset()
        assert frame.shape == (2, *batch.spec.frame_shape)
        assert frame.dtype == batch.spec.frame_dtype
        assert (batch.n, batch.first_env, batch.device) == (2, 0, "cpu")


def test_a_variant_is_named_and_a_protocol_replaced():
    assert make("atari/Pong", 1, 0, protocol="bbf").protocol.noop_unit == "step"
    assert make("catch", 1, 0, protocol=CatchProtocol(4, 7)).spec.frame_shape == (4, 7)
    assert make("atari/Pong", 1, 0, protocol=AtariProtocol(frame_size=64, stack=1)).spec.frame_shape == (64, 64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make("cach", 1, 0), "unknown task: 'cach'; did you mean catch"),
        (lambda: make("atari", 1, 0), "unknown Atari game: 'atari'"),
        (lambda: make("zzz", 1, 0), "unknown task: 'zzz'; known: atari/Alien, "),
        (lambda: make("catch", 0, 0), "n must be >= 1"),
        (lambda: make("catch", 1, 0, first_env=-1), "first_env must be >= 0"),
        (lambda: make("catch", 1, 0, protocol="bbf"), "unknown variant of catch: 'bbf'"),
        (
            lambda: make("catch", 1, 0, protocol=AtariProtocol()),
            "catch is played by a CatchProtocol, got a AtariProtocol",
        ),
        (lambda: make("catch", 1, 0, threads=0), r"threads must be in \[1, 1024\]"),
        (lambda: AtariProtocol(sticky=1.0), r"protocol.sticky must lie in \[0, 1\)"),
        (lambda: AtariProtocol(sticky=float("nan")), r"protocol.sticky must lie in \[0, 1\)"),
        (lambda: AtariProtocol(frame_skip=0), "protocol.frame_skip must be >= 1"),
        (lambda: AtariProtocol(frame_size=161), "protocol.frame_size must be <= 160"),
        (lambda: AtariProtocol(noop_max=-1), "protocol.noop_min and noop_max must obey 0 <= min <= max, got 0 and -1"),
        (lambda: AtariProtocol(noop_min=-1), "got -1 and 29"),
        (lambda: AtariProtocol(noop_min=5, noop_max=4), "got 5 and 4"),
        (lambda: AtariProtocol(noop_unit="frames"), 'must be "frame" or "step", got \'frames\''),
        (lambda: CatchProtocol(1, 5), "catch needs 2 to 1024 rows"),
    ],
)
def test_what_cannot_be_made_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_suite_is_read_from_text():
    suite = parse_suite(YAML, CatchProtocol, "x/")
    assert suite == Suite(
        "mini", ("x/a", "x/b"), 10, 3, 0.5, CatchProtocol(4, 3), {"wide": CatchProtocol(4, 9)},
        {"x/a": (0.0, 1.5), "x/b": (-1.0, 2.0)},
    )  # fmt: skip


def test_tasks_without_scores_are_listed():
    assert parse_suite(YAML + "tasks: [b, c, a]\n", CatchProtocol, "x/").tasks == ("x/b", "x/c", "x/a")
    with pytest.raises(ValueError, match="scores of x/b, which tasks lacks"):
        parse_suite(YAML + "tasks: [a]\n", CatchProtocol, "x/")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rows: 4", "row: 4", "unknown key of protocol: 'row'; did you mean rows"),
        ("rows: 4, ", "", "protocol lacks rows"),
        ("rows: 4", "rows: many", "protocol.rows: Value 'many'"),
        ("rows: 4", "rows: 1", "catch needs 2 to 1024 rows"),
        ("columns: 9", "colums: 9", "unknown key of variants.wide: 'colums'; did you mean columns"),
        ("steps: 10", "step: 10", "unknown key of suite: 'step'; did you mean steps"),
        ("steps: 10", "", "suite lacks steps"),
        ("epsilon", "eps", "unknown key of evaluation: 'eps'"),
    ],
)
def test_a_suite_with_a_mistake_is_refused(old, new, message):
    assert old in YAML
    with pytest.raises(ValueError, match=message):
        parse_suite(YAML.replace(old, new), CatchProtocol)


def test_an_environment_of_ones_own(registry):
    @dataclasses.dataclass(frozen=True)
    class Tall:
        rows: int = 12

    def factory(task, n, seed, first_env, protocol, threads=1):
        return make_catch(task, n, seed, first_env, CatchProtocol(protocol.rows, 3), threads)

    register("tall", factory, Suite("tall", ("tall/one",), 500, protocol=Tall()))
    assert make("tall/one", 3, 0, threads=2).spec.frame_shape == (12, 3)
    assert make("tall/one", 3, 0, protocol=Tall(6)).reset().shape == (3, 6, 3)
    assert suite_of("tall/one").steps == 500
    assert "tall/one" in tasks()
    for taken in ("tall", "atari"):
        with pytest.raises(ValueError, match="taken"):
            register(taken, factory)
    with pytest.raises(ValueError, match="no slash"):
        register("tall/two", factory)


def test_environments_are_imported_when_made():
    code = "import sys, rlplatform.envs as e; e.make('catch', 1, 0); print([m for m in ('ale_py', 'gymnasium', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
