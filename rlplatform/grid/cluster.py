"""A Ray cluster as a place for cells: joined or refused within seconds, and asked for no more than it has.

It is joined from the root folder, since Ray puts the current one in front of its workers' paths: in a checkout, rlplatform/ would
hide what is installed. Runs and trials are told the folder, and look for modules there last.
"""

import signal
import socket
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path
from typing import Any

from rlplatform.grid.cells import Cell, Needs
from rlplatform.grid.pool import LostError, spawn
from rlplatform.placement import ClusterError
from rlplatform.ray_join import check_address, prepare

JOIN_S = 30.0  # for a trial connection: a new process, which imports Ray
STARTS = 3  # tries to start Ray here: it allows itself 30 s, which a machine with all cores busy may miss
STORE = 100 << 20  # bytes of the object store of a local start: nothing large goes through it
PROBE = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
except (RuntimeError, ConnectionError, ValueError) as error:
    sys.exit(str(error))
"""


def connect(address: str, needs: Needs, at_once: int = 1) -> str:
    """Join a cluster that can hold one run, or start Ray here; until `ray.shutdown()`.

    Args:
        address: "local" starts Ray on this machine, for this process; "auto" is the cluster of this machine or of RAY_ADDRESS;
            "HOST:PORT" names one.
        needs: of one run.
        at_once: runs that have to fit beside each other.

    Returns:
        What is there, in words.

    Raises:
        ClusterError: no Ray, no cluster, one of another version, an address that does not answer, or no node with what a run needs.
    """
    ray = _ray()
    if address == "local":
        _start(ray)
    else:
        found = check_address(address)
        _try_out(found)
        with chdir("/"):
            ray.init(address=found, log_to_driver=False, logging_level="warning")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    there = in_words(nodes)
    if not any(_places(node, needs) for node in nodes):
        ray.shutdown()
        raise ClusterError(f"a run asks for {needs} on one node; the cluster has {there}")
    places = sum(_places(node, needs) for node in nodes)
    if places < at_once:
        ray.shutdown()
        raise ClusterError(f"{at_once} runs of {needs} at a time do not fit; the cluster has {there}")
    return there


def in_words(nodes: list[dict[str, float]]) -> str:
    """What a cluster has: "2 nodes with 4 CPUs and 0 GPUs, 8 CPUs and 1 GPU"."""
    each = [Needs(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in nodes]
    listed = ", ".join(f"{one}" if one.gpus else f"{one} and no GPU" for one in each[:8])
    more = f" and {len(each) - 8} more" if len(each) > 8 else ""
    return f"{len(each)} node{'' if len(each) == 1 else 's'} with {listed}{more}"


class RayPool:
    """Cells as Ray actors, one each: Ray finds the node that has what the run needs, and the run is a process there.

    All nodes have to see the runs' folder by the same path, and have the same rlplatform installed.
    """

    def __init__(self, jobs: int | None = None, env: dict[str, str] | None = None) -> None:
        """At most `jobs` at a time; all that fit by default."""
        self.jobs, self.env = jobs, env
        self._given: list[RayJob] = []

    def room(self) -> bool:
        if self.jobs is None:
            return True
        self._given = [job for job in self._given if not job.ended]
        return len(self._given) < self.jobs

    def start(self, cell: Cell) -> "RayJob":
        job = RayJob(cell, self.env)
        self._given.append(job)
        return job

    def close(self) -> None:
        _ray().shutdown()


class RayJob:
    """One attempt at a cell, on some node."""

    def __init__(self, cell: Cell, env: dict[str, str] | None) -> None:
        ray = _ray()
        # Not a task: a task can only be cancelled, and then nobody hears what its process did; this one can be told to stop.
        remote = ray.remote(_Runner).options(
            num_cpus=cell.needs.cpus, num_gpus=cell.needs.gpus, max_restarts=0, max_concurrency=2, name=None
        )
        self._actor = remote.remote()
        self._began = self._actor.here.remote()
        self._exit: Any = self._actor.run.remote(cell.command, str(cell.folder.absolute()), env or {}, str(Path.cwd()))
        self._code: int | None = None
        self.ended = False

    @property
    def began(self) -> bool:
        ready, _ = _ray().wait([self._began], timeout=0)
        return bool(ready)

    def poll(self) -> int | None:
        """The exit code, or None. LostError where the node or the actor's process is gone."""
        ray = _ray()
        if self._code is None:
            ready, _ = ray.wait([self._exit], timeout=0)
            if ready:
                self.ended = True
                try:
                    self._code = int(ray.get(self._exit))
                except ray.exceptions.RayError as error:
                    raise LostError(f"its worker is gone ({type(error).__name__}: {_first_line(error)})") from error
                finally:
                    ray.kill(self._actor)  # gives its place back
        return self._code

    def stop(self) -> None:
        if self.began:
            self._actor.send.remote(int(signal.SIGTERM))
        else:
            self.kill()  # it never started

    def kill(self) -> None:
        if self.began:
            self._actor.send.remote(int(signal.SIGKILL))
        else:
            _ray().kill(self._actor)


class _Runner:
    """On the node: the run's process, and the signals for it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: int | None = None

    def here(self) -> str:
        return socket.gethostname()

    def run(self, command: tuple[str, ...], folder: str, env: dict[str, str], cwd: str) -> int:
        """The exit code of the run. In its own thread, which is the process's parent until that has ended."""
        where = cwd if Path(cwd).is_dir() else None  # modules of the user's own lie there
        self._process = spawn(command, Path(folder), env, where)
        if self._asked is not None:
            self._process.send_signal(self._asked)
        return self._process.wait()

    def send(self, number: int) -> None:
        self._asked = number
        if self._process is not None:
            self._process.send_signal(number)


def _ray() -> Any:
    prepare()
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ClusterError("this needs Ray: pip install 'rlplatform[cluster]'") from error
    return ray


def _start(ray: Any) -> None:
    """Start Ray on this machine, for this process: a new one, whatever else runs here."""
    for left in reversed(range(STARTS)):
        try:
            with chdir("/"):
                ray.init(
                    address="local", include_dashboard=False, object_store_memory=STORE, log_to_driver=False,
                    logging_level="warning",
                )  # fmt: skip
        except Exception as error:  # Ray has no class of its own for this
            ray.shutdown()
            if not left:
                raise ClusterError(f"Ray does not start on this machine: {_first_line(error)}") from error
        else:
            return


def _places(node: dict[str, float], needs: Needs) -> int:
    """How many runs a node holds at a time."""
    asked = {"CPU": needs.cpus, "GPU": needs.gpus}
    return min((int(node.get(name, 0.0) / n + 1e-9) for name, n in asked.items() if n), default=1 << 30)


def _try_out(address: str) -> None:
    """Join once in a process that can be given up: Ray waits for ever on a port that is not its own."""
    start = time.monotonic()
    try:
        done = subprocess.run(  # noqa: S603  our own text
            [sys.executable, "-c", PROBE, address], capture_output=True, text=True, timeout=JOIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        waited = time.monotonic() - start
        raise ClusterError(f"{address} answers, but not as a Ray cluster does: given up after {waited:.0f} s") from None
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        if any("ersion mismatch" in line for line in said):
            raise ClusterError(f"the cluster at {address} has another version. {_mismatch(said)}")
        missing = "no Ray cluster runs on this machine (`ray start --head` starts one)" if address == "auto" else None
        raise ClusterError(
            missing or f"the cluster at {address} cannot be joined: {said[-1] if said else 'no reason given'}"
        )


def _mismatch(said: list[str]) -> str:
    """Ray's words for two versions, in a line."""
    lines = [line.removeprefix("Version mismatch: ") for line in said]
    return " ".join(line for line in lines if line.startswith(("The cluster", "This process", "Ray:", "Python:")))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
