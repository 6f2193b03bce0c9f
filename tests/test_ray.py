"""Actors in Ray processes against the same actors in this one: equal to the last bit, whatever happens to the processes."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch

import ray_toys
from ray_cluster import own_ray
from rlplatform import experiment
from rlplatform.experiment import run
from rlplatform.loop import UnderWay, drain
from rlplatform.perf import Clock
from rlplatform.placement import ClusterError, Placement
from rlplatform.provenance import machine
from rlplatform.runconfig import resolve_config
from rlplatform.types import Rollout
from rlplatform.workers import ray as ray_workers
from rlplatform.workers.local import LocalWorkers
from rlplatform.workers.ray import RayWorkers, Restart
from test_same_run import assert_same_run, leaves

HERE = Placement("auto", actor_cpus=0.25, start_s=180.0)  # four processes import torch on a machine that may be busy
TINY = ["agent.hidden=16", "agent.batch=8", "log_every=40", "checkpoint_every=60", "eval.episodes=2"]


@pytest.fixture(scope="module", autouse=True)
def address() -> Iterator[str]:
    with own_ray(cpus=2, gpus=1) as address:
        yield address


def assert_equal_rollouts(a: list[Rollout], b: list[Rollout]) -> None:
    assert len(a) == len(b) > 0
    for one, other in zip(a, b, strict=True):
        left, right = leaves(one._asdict()), leaves(other._asdict())
        assert left.keys() == right.keys()
        for key in left:
            np.testing.assert_array_equal(np.asarray(left[key]), np.asarray(right[key]), err_msg=key)


def kill(pid: int) -> None:
    """Returns when the process is gone: a signal is delivered some time later, and an actor may answer a whole round until then."""
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 60.0
    with suppress(ProcessLookupError):  # the raylet has collected its status
        while True:
            os.kill(pid, 0)
            assert time.monotonic() < end, f"process {pid} outlived SIGKILL by a minute"
            time.sleep(0.001)


def play(
    workers: Any, rounds: int, lag: int, steps: int = 9, first: int = 0, meanwhile: Callable[[int], None] | None = None
) -> list[Rollout]:
    """Rounds `first`, ..., by the weights of round k - lag. `meanwhile(k)` is called while round k is under way."""
    out: list[Rollout] = []
    under_way: UnderWay = UnderWay()
    for k in range(first, first + rounds):
        version = max(0, k - lag)
        under_way.append(workers.start(ray_toys.weights_of(version), version, steps))
        if meanwhile is not None:
            meanwhile(k)
        if len(under_way) > lag:
            out += under_way.popleft()()
    for rollouts in drain(under_way):
        out += rollouts
    return out


def local(actors: int, lag: int, rounds: int, kind: Any = ray_toys.Wrapped, **options: Any) -> list[Rollout]:
    workers = LocalWorkers([ray_toys.make_linear(i, Clock(), kind, **options) for i in range(actors)], lag, 1)
    try:
        return play(workers, rounds, lag)
    finally:
        workers.close()


class Remote:
    """RayWorkers that note their restarts, closed at the end."""

    def __init__(self, actors: int, lag: int, kind: Any = ray_toys.Wrapped, threads: int = 1, placement: Placement = HERE, **options: Any) -> None:  # fmt: skip
        self.restarts: list[Restart] = []
        make = partial(ray_toys.make_linear, kind=kind, **options)
        self.workers = RayWorkers(make, actors, lag, threads, placement, on_restart=self.restarts.append)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.workers.close()


@pytest.mark.parametrize(("actors", "lag"), [(1, 0), (3, 1), (2, 2)])
def test_rollouts_are_those_of_local_workers(actors: int, lag: int, monkeypatch: pytest.MonkeyPatch) -> None:
    puts, put = [], ray_workers.ray.put
    monkeypatch.setattr(ray_workers.ray, "put", lambda value: puts.append(1) or put(value))
    with Remote(actors, lag) as remote:
        rollouts = play(remote.workers, 8, lag)
        assert remote.restarts == []
    assert len(puts) == 8 - lag  # once a version, whatever the number of actors
    assert_equal_rollouts(rollouts, local(actors, lag, 8))
    assert [rollout.version for rollout in rollouts[::actors]] == [max(0, k - lag) for k in range(8)]
    assert all((rollout.extra["threads"] == 1).all() and (rollout.extra["at"] == 0).all() for rollout in rollouts)


def test_the_actors_number_of_threads_is_set_in_both_places() -> None:
    before = torch.get_num_threads()
    with Remote(1, 0, threads=3) as remote:
        rollouts = play(remote.workers, 1, 0)
    for lag in (0, 1):
        here = LocalWorkers([ray_toys.make_linear(0, Clock())], lag, 3)
        rollouts += play(here, 2, lag)
        here.close()
    assert all((rollout.extra["threads"] == 3).all() for rollout in rollouts)
    assert torch.get_num_threads() == before


def test_rollouts_are_read_without_a_copy_and_the_queue_is_bounded() -> None:
    with Remote(1, 1) as remote:
        waits = [remote.workers.start(ray_toys.weights_of(0), 0, 300) for _ in range(2)]
        with pytest.raises(RuntimeError, match="2 rounds are under way; with lag 1"):
            remote.workers.start(ray_toys.weights_of(0), 0, 300)
        with pytest.raises(RuntimeError, match="wait for them"):
            remote.workers.state_dict()
        rollouts = [rollout for wait in waits for rollout in wait()]
        assert not rollouts[0].frame.flags.writeable  # it lies in the object store
        assert not rollouts[0].frame.flags.owndata


def test_a_state_goes_from_here_to_there_and_back() -> None:
    whole = local(2, 0, 9)
    here = LocalWorkers([ray_toys.make_linear(i, Clock()) for i in range(2)], 0, 1)
    parts = play(here, 3, 0)
    with Remote(2, 0) as remote:
        remote.workers.load_state_dict(here.state_dict())
        parts += play(remote.workers, 3, 0, first=3)
        state, asked = remote.workers.state_dict(), remote.workers._number
        remote.workers.state_dict()
        assert remote.workers._number == asked  # nothing happened since: nobody is asked again
        remote.workers.load_state_dict(here.state_dict())  # back to round 3, in the midst of others
        assert_equal_rollouts(play(remote.workers, 2, 0, first=3), parts[6:10])
    here.load_state_dict(state)
    parts += play(here, 3, 0, first=6)
    assert_equal_rollouts(parts, whole)


@pytest.mark.parametrize("every", [1, 4])
def test_actors_killed_within_a_round_change_nothing(every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether their state is asked for every round, or so seldom that rounds handed over are repeated, too."""
    monkeypatch.setattr(ray_workers, "STATE_SHARE", 1e9 if every == 1 else 1e-9)
    monkeypatch.setattr(ray_workers, "KEPT_ROUNDS", every)
    actors, lag, rounds, kills = 2, 2, 16, {3: 1, 4: 0, 13: 0}
    placement = replace(HERE, retries=1)  # in succession: an actor may fail again after a round that went well
    with Remote(actors, lag, ray_toys.Slow, placement=placement) as remote:

        def kill_some(k: int) -> None:
            if k in kills:
                time.sleep(0.01)
                kill(remote.workers.pids[kills[k]])

        rollouts = play(remote.workers, rounds, lag, meanwhile=kill_some)
        state = remote.workers.state_dict()
    assert [restart.actor for restart in remote.restarts] == list(kills.values())
    most = max(restart.rounds for restart in remote.restarts)
    assert most <= lag + 1 if every == 1 else lag + 1 < most <= lag + every
    alone = LocalWorkers([ray_toys.make_linear(i, Clock(), ray_toys.Slow) for i in range(actors)], lag, 1)
    assert_equal_rollouts(rollouts, play(alone, rounds, lag))
    alone.close()
    ours, expected = leaves(state), leaves(alone.state_dict())
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(np.asarray(ours[key]), np.asarray(value), err_msg=key)


@pytest.mark.parametrize("dies", [True, False], ids=["dies", "hangs"])
def test_an_actor_that_dies_or_hangs_is_replaced_and_repeats_its_round(tmp_path: Path, dies: bool) -> None:
    placement = Placement("auto", actor_cpus=0.25, deadline_s=3.0)
    with Remote(1, 1, ray_toys.Once, placement=placement, flag=tmp_path / "flag", dies=dies) as remote:
        rollouts = play(remote.workers, 6, 1)
        (restart,) = remote.restarts
    assert restart.rounds in (1, 2)
    assert ("no answer within 3 s" in restart.why) is not dies
    (tmp_path / "flag").touch()
    assert_equal_rollouts(rollouts, local(1, 1, 6, ray_toys.Once, flag=tmp_path / "flag", dies=dies))


def test_what_always_hangs_ends_the_run_with_its_stack() -> None:
    placement = Placement("auto", deadline_s=2.0, start_s=20.0, retries=1)
    with (
        Remote(1, 0, ray_toys.Once, placement=placement, flag=None, dies=False) as remote,
        pytest.raises(
            ClusterError, match=r"(?s)actor 0 failed 2 times.*no answer within 2 s.*stand_still.*free in the"
        ),
    ):
        play(remote.workers, 6, 0)
    assert len(remote.restarts) == 1


def test_a_bug_is_not_tried_again() -> None:
    with (
        Remote(1, 0, ray_toys.Poisoned) as remote,
        pytest.raises(FloatingPointError, match=r"environment\(s\) \[0, 1\]"),
    ):
        play(remote.workers, 6, 0)
    assert remote.restarts == []


def test_an_actor_that_cannot_be_made_says_why() -> None:
    workers = RayWorkers(ray_toys.make_broken, 1, 0, 1, HERE)
    with pytest.raises(ClusterError, match="actor 0 could not be made: ValueError: no such game"):
        workers.start(ray_toys.weights_of(0), 0, 1)
    workers.close()


def test_an_actor_that_is_killed_while_it_starts_is_replaced(tmp_path: Path) -> None:
    restarts: list[Restart] = []
    make = partial(ray_toys.make_late, flag=tmp_path / "flag")
    workers = RayWorkers(make, 1, 1, 1, HERE, on_restart=restarts.append)
    rollouts = play(workers, 3, 1)
    workers.close()
    assert [(restart.actor, restart.rounds) for restart in restarts] == [(0, 2)]
    assert_equal_rollouts(rollouts, local(1, 1, 3))


def test_another_version_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "_versions", lambda: {"torch": "1.0"})
    with Remote(1, 0) as remote, pytest.raises(ClusterError, match=r"actor 0 runs torch .* instead of 1\.0"):
        remote.workers.start(ray_toys.weights_of(0), 0, 1)


def test_games_that_cannot_be_saved_begin_anew_where_the_actor_died() -> None:
    with Remote(1, 0, ray_toys.Forgetful) as remote:
        rounds = [play(remote.workers, 1, 0, steps=4, first=k)[0] for k in range(2)]
        kill(remote.workers.pids[0])
        rounds.append(play(remote.workers, 1, 0, steps=4, first=2)[0])
    assert [restart.rounds for restart in remote.restarts] == [1]  # no round that was handed over is repeated
    assert rounds[0].first[0].all()
    assert not rounds[1].first[0].any()
    assert rounds[2].first[0].all()


def config_of(task: str, actors: int, lag: int, *more: str, steps: int = 160, preset: str = "c51") -> Any:
    common = [*TINY, "envs=2", "rollout=3", f"actors={actors}", f"lag={lag}"]
    return resolve_config(preset, task, [*common, *more], seed=5, steps=steps, imports=("ray_toys",))


def assert_local_and_ray_agree(folder: Path, config: Any) -> None:
    run(config, folder / "here")
    run(config, folder / "there", placement=HERE)
    assert_same_run(folder / "here", folder / "there")


GRID = [(actors, lag) for lag in (0, 1, 2) for actors in (1, 2, 3, 4)]
QUICK = {(4, 1)}


@pytest.mark.parametrize(
    ("actors", "lag"), [pytest.param(*cell, marks=[] if cell in QUICK else pytest.mark.slow) for cell in GRID]
)
def test_a_run_on_catch_is_the_local_run(tmp_path: Path, actors: int, lag: int) -> None:
    assert_local_and_ray_agree(tmp_path, config_of("catch", actors, lag, "agent.min_replay=30"))


@pytest.mark.parametrize(
    ("task", "actors", "lag", "more"),
    [
        ("minatar/Breakout", 2, 1, ["agent.min_replay=40", "agent.epsilon_decay=50"]),
        ("control/CartPole", 2, 2, ["agent.min_replay=40", "agent.epsilon_decay=50"]),
        ("atari/Pong", 2, 1, ["agent.min_replay=40", "agent.capacity=400", "protocol.episode_steps=40"]),
    ],
)
def test_a_run_on_real_games_is_the_local_run(
    tmp_path: Path, task: str, actors: int, lag: int, more: list[str]
) -> None:
    assert_local_and_ray_agree(
        tmp_path, config_of(task, actors, lag, *more, preset="der" if "atari" in task else "c51")
    )


def test_a_run_of_ppo_is_the_local_run(tmp_path: Path) -> None:
    """Its rollouts carry distributions and values, and what was said at their close."""
    assert_local_and_ray_agree(
        tmp_path, config_of("minatar/Breakout", 2, 1, "rollout=4", "agent.probe=8", preset="ppo_gtr_single")
    )


def test_a_run_whose_games_cannot_be_saved_says_what_a_death_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("forgetfulcatch", 1, 0, "agent.min_replay=30", "rollout=10")
    made: list[RayWorkers] = []
    make = experiment._ray_workers
    monkeypatch.setattr(experiment, "_ray_workers", lambda *given: made.append(make(*given)) or made[0])
    killed = []

    def kill_once(progress: experiment.Progress) -> None:
        if progress.done >= 80 and not killed:
            killed.append(progress.done)
            kill(made[0].pids[0])

    result = run(config, tmp_path, kill_once, placement=HERE)
    assert killed == [80]
    assert result["games_cut"] == 2
    assert result["actors"] == {"restarts": 1, "repeated_rounds": 1, "cpus": [machine()["cpu"]]}
    (line,) = (tmp_path / "restarts.csv").read_text().splitlines()[1:]
    # The round under way when it died is lost, or the next one, where it had played that to its end already.
    assert line.startswith(("80,0,1,", "100,0,1,"))
    assert json.loads((tmp_path / "provenance.json").read_text())["exact_resume"] is False
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["actors/restarts"], last["actors/repeated_rounds"], last["actors/lag"]) == (1, 1, 0)
    assert 0.0 < last["perf/wait_share"] < 1.0


def test_more_than_the_cluster_has_is_refused_at_once() -> None:
    begin = time.monotonic()
    with pytest.raises(
        ClusterError, match="3 actors of 1 CPUs were asked for; the cluster's 1 nodes have 2 CPUs, room for 2"
    ):
        Remote(3, 0, placement=Placement("auto"))
    with pytest.raises(ClusterError, match=r"2 actors of 1.5 CPUs .* room for 1"):
        Remote(2, 0, placement=Placement("auto", actor_cpus=1.5))
    with pytest.raises(ClusterError, match="2 GPUs were asked for the learner; this node has 1, the cluster 1"):
        Remote(1, 0, placement=Placement("auto", learner_gpus=2.0))
    assert time.monotonic() - begin < 10.0


def test_learners_share_a_gpu_by_fractions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    half = Placement("auto", learner_gpus=0.5)
    one, two = Remote(1, 0, placement=half), Remote(1, 0, placement=half)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    with pytest.raises(ClusterError, match=r"0.5 GPUs for the learner were not free within 1 s; .* 0 of 1 GPUs"):
        Remote(1, 0, placement=Placement("auto", learner_gpus=0.5, start_s=1.0))
    one.workers.close()
    Remote(1, 0, placement=half).workers.close()
    two.workers.close()


def test_what_others_hold_is_waited_for_but_not_for_ever() -> None:
    with Remote(1, 0, placement=Placement("auto", actor_cpus=2.0)) as all_of_it:
        play(all_of_it.workers, 1, 0)
        with (
            Remote(1, 0, placement=Placement("auto", start_s=1.0)) as waiting,
            pytest.raises(ClusterError, match="1 of 1 actors did not start within 1 s; .* 0 of 2 CPUs"),
        ):
            play(waiting.workers, 1, 0)
