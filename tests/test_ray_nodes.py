"""Actors on several nodes of a cluster, one of which is taken away."""

from collections.abc import Iterator
from typing import Any

import pytest

import ray_toys
from ray_cluster import TESTS, quiet, ray
from rlplatform.perf import Clock
from rlplatform.placement import Placement
from rlplatform.workers.local import LocalWorkers
from rlplatform.workers.ray import RayWorkers, Restart
from test_ray import assert_equal_rollouts, play

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one CPU each; the driver's is the first."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", TESTS)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with quiet():
        made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        made.second = made.add_node(**NODE)
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        try:
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


def test_a_node_that_dies_takes_nothing_with_it(cluster: Any) -> None:
    """Its actor, its rollouts and its copy of the weights go; another node comes, and the run is what it would have been."""
    actors, lag, rounds = 2, 1, 10
    restarts: list[Restart] = []
    workers = RayWorkers(
        ray_toys.make_linear, actors, lag, 1, Placement("auto", start_s=120.0), on_restart=restarts.append
    )

    def lose(k: int) -> None:
        if k == 4:
            assert len({seat.facts["node"] for seat in workers._seats if seat.facts}) == 2
            cluster.remove_node(cluster.second, allow_graceful=False)
            cluster.add_node(**NODE)

    with quiet():
        rollouts = play(workers, rounds, lag, steps=300, meanwhile=lose)
    workers.close()
    assert len(restarts) >= 1
    assert len({restart.actor for restart in restarts}) == 1
    here = LocalWorkers([ray_toys.make_linear(i, Clock()) for i in range(actors)], lag, 1)
    assert_equal_rollouts(rollouts, play(here, rounds, lag, steps=300))
    here.close()
