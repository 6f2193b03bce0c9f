"""Actors as Ray processes, on this machine or on many: the same rollouts, bit for bit, as those of actors in this process.

The weights of a version are put into the object store once and read by all actors where they lie; rollouts are read from it
without a copy. What an actor does is a function of its state, the weights and the version, and this side keeps each actor's last
state and what was asked of it since: an actor that died or hangs is replaced by one that begins at that state and does the same
again. The only module of the core that imports ray.
"""

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import ceil, floor
from pathlib import Path
from typing import Any, NamedTuple

import ray
import torch
from ray import cloudpickle
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rlplatform.actor import Actor
from rlplatform.perf import Clock
from rlplatform.placement import ClusterError, Placement
from rlplatform.provenance import machine, packages
from rlplatform.ray_join import check_address, prepare
from rlplatform.types import Rollout, State, Weights
from rlplatform.workers.parcel import Parcel, pack, size, unpack

MakeActor = Callable[
    [int, Clock], Actor
]  # actor i, whose clock is watched; pickled, so that it can be called elsewhere
STATE_SHARE = 0.05  # of what travels: states are asked for so seldom that they stay below it,
KEPT_ROUNDS = 64  # ... but not less often than every so many rounds, which a restart repeats,
KEPT_BYTES = 2**26  # ... nor so seldom that the weights of those rounds fill more than this
LOG_BYTES = 4_000  # of an actor's log in an error
CANNOT_BE_MADE = "creation task"  # in Ray's account of an actor whose __init__ has raised an error
EXIT = "Worker exit type: "  # in Ray's account of an actor that died; how it ended follows
SAME_EVERYWHERE = ("numpy", "torch", "ale-py", "gymnasium", "dm-control", "mujoco", "envpool")


class Restart(NamedTuple):
    """An actor was replaced."""

    actor: int
    rounds: int  # that were asked for again
    why: str


class _Note(NamedTuple):
    """What comes beside a rollout."""

    state: bytes | None  # after it, where it was asked for, pickled
    exact: bool  # whether the games are part of the state
    seconds: Mapping[str, float]  # spent by the actor on this round, by name


class _Host:
    """One actor in a process of its own."""

    def __init__(self, paths: list[str], make: bytes, i: int, threads: int, state: bytes | None) -> None:
        """`make`: a MakeActor, pickled, since unpickling may import what only `paths`, the learner's, lead to."""
        import faulthandler

        sys.path.extend(path for path in paths if path not in sys.path)
        faulthandler.register(signal.SIGUSR1, all_threads=True)  # where it hangs, for its log
        torch.set_num_threads(threads)
        self._clock = Clock()
        self._actor = cloudpickle.loads(make)(i, self._clock)
        if state is not None:
            self._actor.load_state_dict(_loaded(state))

    def facts(self) -> Mapping[str, Any]:
        """What the learner's side has to know of this process."""
        error = Path("/proc/self/fd/2")
        return {
            "pid": os.getpid(),
            "node": ray.get_runtime_context().get_node_id(),
            "log": str(error.readlink()) if error.exists() else None,
            "threads": torch.get_num_threads(),
            "versions": _versions(),
            "cpu": machine()["cpu"],
        }

    def work(self, sent: Parcel | None, asked: tuple[int, bool]) -> tuple[Parcel | None, _Note]:
        """A round of so many steps by the weights and the version that were sent, and whether to tell the state after it; one of 0
        steps does nothing else. Two arguments, since Ray packs each by itself."""
        steps, saves = asked
        before, start = dict(self._clock.seconds), time.perf_counter()
        rollout = None if sent is None else pack(self._actor.collect(*unpack(sent), steps))
        state = self._actor.state_dict() if saves else None
        seconds = {name: total - before[name] for name, total in self._clock.seconds.items()}
        seconds["collect"] = time.perf_counter() - start
        exact = state is not None and state["envs"] is not None
        return rollout, _Note(None if state is None else _kept(state), exact, seconds)


@dataclass
class _Round:
    sent: Any  # reference to the parcel of (weights, version); None in a round of 0 steps
    steps: int
    saves: bool
    answer: Any = None  # reference to (parcel of the rollout, note): one object, since each has its price


@dataclass
class _Seat:
    """One actor as this side knows it."""

    i: int
    state: bytes | None = None  # after all rounds but `rounds`, pickled; None: as it was made
    rounds: dict[int, _Round] = field(default_factory=dict)  # asked for since, by number, in order
    handle: Any = None  # of its process
    facts_ref: Any = None
    facts: Mapping[str, Any] | None = None  # None until it has started
    failures: int = 0  # in succession


class RayWorkers:
    """Workers whose actors are Ray actors, at most lag + 1 rounds under way. They are started by the first round that is asked
    for; a cluster that cannot be had is refused at once."""

    def __init__(
        self,
        make: MakeActor,
        actors: int,
        lag: int,
        threads: int,
        placement: Placement,
        clock: Clock | None = None,
        on_restart: Callable[[Restart], None] = lambda restart: None,
    ) -> None:
        """Connect to the cluster, and hold the learner's share of GPUs.

        Args:
            make: makes actor i in its process; has to be importable there.
            threads: of an actor's matrix products.
            clock: gains what the actors spend, summed over them: "env", "act", "collect".

        Raises:
            ClusterError: no such cluster, another version of Ray, or less than is asked for.
        """
        self.placement, self.on_restart = placement, on_restart
        self._make, self._lag, self._threads = cloudpickle.dumps(make), lag, threads
        self._paths = [os.path.abspath(path) for path in sys.path]  # noqa: PTH100  # resolving links would change names
        self._clock = Clock() if clock is None else clock
        self._seats = [_Seat(i) for i in range(actors)]
        self._begun = False
        self._number = 0  # of the next round
        self._under_way = 0  # rounds that were asked for and not handed over
        self._saved = -KEPT_ROUNDS  # the last round whose state was asked for
        self._every = 1  # rounds between two of those,
        self._most = 1  # ... at the most
        self._sent: tuple[int, Any] | None = None  # newest version, and the reference to its weights
        self._owner = _connect(placement)
        host = ray.remote(_Host)
        self._host = host.options(num_cpus=placement.actor_cpus, max_restarts=0, max_task_retries=0)
        self._learner: Any = None
        try:
            _check_resources(placement, actors)
            if placement.learner_gpus:
                self._learner = _reserve_gpus(placement)
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> list[int]:
        """Process numbers of the actors that have started, each on its machine."""
        return [seat.facts["pid"] for seat in self._seats if seat.facts is not None]

    @property
    def machines(self) -> list[str]:
        """The kinds of CPU on which actors live."""
        return sorted({str(seat.facts["cpu"]) for seat in self._seats if seat.facts is not None})

    def start(self, weights: Weights, version: int, steps: int) -> Callable[[], list[Rollout]]:
        if self._under_way > self._lag:
            raise RuntimeError(
                f"{self._under_way} rounds are under way; with lag {self._lag} there is no room for more"
            )
        self._begin()
        if self._sent is None or self._sent[0] != version:
            self._sent = None  # first: what nobody needs any more makes room
            self._sent = version, self._put(weights, version)
        number, self._number = self._number, self._number + 1
        saves = number - self._saved >= self._every
        if saves:
            self._saved = number
        for seat in self._seats:
            self._ask(seat, number, _Round(self._sent[1], steps, saves))
        self._under_way += 1
        return partial(self._wait, number)

    def state_dict(self) -> State:
        """Of the actors between two rollouts: wait for those under way first (`loop.drain`)."""
        if self._under_way:
            raise RuntimeError(f"{self._under_way} rounds are under way: wait for them before asking for the state")
        behind = [seat for seat in self._seats if seat.rounds or seat.state is None]
        if behind:
            self._begin()
            number, self._number = self._number, self._number + 1
            self._saved = number
            for seat in behind:
                self._ask(seat, number, _Round(None, 0, saves=True))
            until = time.monotonic() + self.placement.deadline_s
            for seat in behind:
                self._result(seat, number, until)
        states = [seat.state for seat in self._seats]
        return {"actors": [None if state is None else _loaded(state) for state in states]}

    def load_state_dict(self, state: State) -> None:
        self._dismiss()
        self._sent, self._under_way, self._saved = None, 0, self._number - KEPT_ROUNDS
        for seat, saved in zip(self._seats, state["actors"], strict=True):
            seat.state = _kept(saved)
            seat.rounds.clear()

    def close(self) -> None:
        self._dismiss()
        self._sent = None
        if self._learner is not None:
            ray.kill(self._learner)
            self._learner = None
        if self._owner:
            with _signals_kept():
                ray.shutdown()
            self._owner = False

    def _begin(self) -> None:
        """Start the actors, where they were not."""
        if self._begun:
            return
        self._begun = True
        for seat in self._seats:
            self._create(seat)
        started = [seat.facts_ref for seat in self._seats]
        _, missing = ray.wait(started, num_returns=len(started), timeout=self.placement.start_s)
        if missing:
            raise ClusterError(
                f"{len(missing)} of {len(started)} actors did not start within {self.placement.start_s:g} s; "
                f"{_free(self.placement)}"
            )
        for seat in self._seats:
            try:
                self._learn_facts(seat)
            except RayError as error:
                if CANNOT_BE_MADE in str(error):  # else it was killed: whoever waits for it has it replaced
                    raise ClusterError(f"actor {seat.i} could not be made: {_in_a_line(error)}") from error

    def _create(self, seat: _Seat) -> None:
        seat.handle = self._host.remote(self._paths, self._make, seat.i, self._threads, seat.state)
        seat.facts, seat.facts_ref = None, seat.handle.facts.remote()
        for round_ in seat.rounds.values():
            self._send(seat, round_)

    def _ask(self, seat: _Seat, number: int, round_: _Round) -> None:
        seat.rounds[number] = round_
        self._send(seat, round_)

    def _send(self, seat: _Seat, round_: _Round) -> None:
        round_.answer = seat.handle.work.remote(round_.sent, (round_.steps, round_.saves))

    def _wait(self, number: int) -> list[Rollout]:
        until = time.monotonic() + self.placement.deadline_s
        rollouts = [self._result(seat, number, until) for seat in self._seats]
        self._under_way -= 1
        return [rollout for rollout in rollouts if rollout is not None]

    def _result(self, seat: _Seat, number: int, until: float) -> Rollout | None:
        """Its answer to round `number`; until then it is replaced as often as need be."""
        while True:
            try:
                packed, note = ray.get(seat.rounds[number].answer, timeout=max(1.0, until - time.monotonic()))
                if seat.facts is None:
                    self._learn_facts(seat)
                break
            except GetTimeoutError:
                until = self._replace(seat, f"no answer within {self.placement.deadline_s:g} s", hangs=True)
            except RayTaskError as error:  # a bug or a NaN: it would come again
                if isinstance(error.cause, RayError) or not isinstance(error.cause, Exception):
                    until = self._replace(seat, _in_a_line(error))
                else:
                    raise error.cause from error
            except RayError as error:
                until = self._replace(seat, _in_a_line(error))
        seat.failures = 0
        for name, seconds in note.seconds.items():
            self._clock.seconds[name] = self._clock.seconds.get(name, 0.0) + seconds
        if note.state is not None:
            seat.state = note.state
            for old in [old for old in seat.rounds if old <= number]:
                del seat.rounds[old]
            self._choose_interval(note, packed)
        return None if packed is None else unpack(packed)

    def _choose_interval(self, note: _Note, packed: Parcel | None) -> None:
        """How often to ask for states. Each costs its bytes; each round without one is a round more to be repeated, and weights
        to be kept until then."""
        if not note.exact:  # repeating would begin another game in the middle of what was handed over
            self._every = 1
        elif packed is not None:
            self._every = min(max(1, ceil(size(note.state) / (STATE_SHARE * size(packed)))), self._most)

    def _put(self, weights: Weights, version: int) -> Any:
        """The reference to both in the object store."""
        parcel = pack((weights, version))
        self._most = max(1, min(KEPT_ROUNDS, KEPT_BYTES // size(parcel)))
        try:
            return ray.put(parcel)
        except RayError as error:
            raise ClusterError(f"the weights do not get into Ray's object store: {_in_a_line(error)}") from error

    def _replace(self, seat: _Seat, why: str, *, hangs: bool = False) -> float:
        """Kill the actor and begin another at its last state. Returns the time until which the wait goes on."""
        seat.failures += 1
        if seat.failures > self.placement.retries:
            words = self._last_words(seat, hangs)
            raise ClusterError(
                f"actor {seat.i} failed {seat.failures} times in succession in the same round, the last time with: {why}"
                f"{words}\n{_free(self.placement)}"
            )
        ray.kill(seat.handle)
        self._create(seat)
        self.on_restart(Restart(seat.i, len(seat.rounds), why))
        return time.monotonic() + self.placement.start_s + self.placement.deadline_s * len(seat.rounds)

    def _learn_facts(self, seat: _Seat) -> None:
        seat.facts = ray.get(seat.facts_ref)
        assert seat.facts is not None
        ours, theirs = _versions(), seat.facts["versions"]
        other = [
            f"{name} {theirs.get(name)} instead of {ours[name]}" for name in ours if theirs.get(name) != ours[name]
        ]
        if other:
            raise ClusterError(
                f"actor {seat.i} runs {', '.join(other)}: install the same on every node, or results would depend on the place"
            )

    def _last_words(self, seat: _Seat, hangs: bool) -> str:
        """The end of an actor's log, with its stack if it hangs; "" if that cannot be had."""
        try:
            if seat.facts is None:
                seat.facts = ray.get(seat.facts_ref, timeout=1.0)
        except RayError:  # it never started
            return ""
        if seat.facts is None or seat.facts["log"] is None:
            return ""
        pid = seat.facts["pid"] if hangs else None
        if seat.facts["node"] == ray.get_runtime_context().get_node_id():
            text = _end_of_log(seat.facts["log"], pid)
        else:
            there = NodeAffinitySchedulingStrategy(seat.facts["node"], soft=False)
            read = ray.remote(_end_of_log).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            try:
                text = ray.get(read.remote(seat.facts["log"], pid), timeout=10.0)
            except RayError:
                return "\nits log is gone with its node"
        return f"\nthe end of its log, {seat.facts['log']}:\n{text}"

    def _dismiss(self) -> None:
        for seat in self._seats:
            if (
                seat.handle is not None and ray.is_initialized()
            ):  # where somebody has shut it down, kill() would start one
                ray.kill(seat.handle)
            seat.handle = seat.facts_ref = None
        self._begun = False


class _Learner:
    """Holds the learner's GPUs, while the learner itself is the process that drives."""

    def gpus(self) -> list[str]:
        return [str(gpu) for gpu in ray.get_gpu_ids()]


def _connect(placement: Placement) -> bool:
    """Whether the connection is ours to close: inside a Ray task, or where somebody has called ray.init, it is theirs."""
    if ray.is_initialized():
        return False
    prepare()
    own = placement.ray == "local"
    if not own:
        check_address(placement.ray)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if own:
        options |= {"include_dashboard": False}
        if placement.object_store_mib:
            options["object_store_memory"] = placement.object_store_mib * 2**20
    # Ray puts the current folder in front of its workers' paths: in a checkout, rlplatform/ would hide what is installed.
    with _signals_kept(), chdir("/"):
        try:
            ray.init(address=placement.ray, **options)
        except (RuntimeError, ConnectionError, ValueError, RayError) as error:
            ray.shutdown()
            raise ClusterError(f"cannot use the Ray at {placement.ray!r}: {error}") from error
    return True


def _check_resources(placement: Placement, actors: int) -> None:
    """What the whole cluster could never give is refused at once; what others hold now is waited for."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    here = ray.get_runtime_context().get_node_id()
    gpus = sum(node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"] and node["NodeID"] == here)
    each = placement.actor_cpus
    room = actors if not each else sum(floor(node.get("CPU", 0.0) / each + 1e-9) for node in nodes)
    if room < actors:
        cpus = " + ".join(f"{node.get('CPU', 0.0):g}" for node in nodes)
        raise ClusterError(
            f"{actors} actors of {each:g} CPUs were asked for; the cluster's {len(nodes)} nodes have {cpus} CPUs, "
            f"room for {room} (--actor-cpus sets what each takes)"
        )
    if placement.learner_gpus > gpus + 1e-9:
        total = sum(node.get("GPU", 0.0) for node in nodes)
        raise ClusterError(
            f"{placement.learner_gpus:g} GPUs were asked for the learner; this node has {gpus:g}, the cluster {total:g}"
        )


def _reserve_gpus(placement: Placement) -> Any:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "num_gpus": placement.learner_gpus, "scheduling_strategy": here}
    learner = ray.remote(_Learner).options(**options).remote()
    try:
        gpus = ray.get(learner.gpus.remote(), timeout=placement.start_s)
    except GetTimeoutError:
        ray.kill(learner)
        raise ClusterError(
            f"{placement.learner_gpus:g} GPUs for the learner were not free within {placement.start_s:g} s; {_free(placement)}"
        ) from None
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return learner


def _kept(state: State) -> bytes:
    """A state on its way to where it may never be looked at: in one piece, and apart from the rollout, whose memory it would hold."""
    return pickle.dumps(state, protocol=5)


def _loaded(state: bytes) -> State:
    """By whoever needs it; Ray itself sends pickles over the same connection."""
    return pickle.loads(state)  # type: ignore[no-any-return]  # noqa: S301


def _free(placement: Placement) -> str:
    total, free = ray.cluster_resources(), ray.available_resources()
    rows = [f"{free.get(name, 0.0):g} of {total.get(name, 0.0):g} {name}s" for name in ("CPU", "GPU")]
    return f"free in the cluster: {', '.join(rows)}; an actor takes {placement.actor_cpus:g} CPUs"


def _versions() -> dict[str, str | None]:
    """What rounding and games depend on."""
    from importlib.metadata import version

    found = packages()
    return {"rlplatform": version("rlplatform")} | {name: found[name] for name in SAME_EVERYWHERE}


def _end_of_log(path: str, hanging: int | None) -> str:
    """The end of a file of this machine; before that, the process `hanging` is told to write its stack there."""
    try:
        if hanging is not None:
            os.kill(hanging, signal.SIGUSR1)
            time.sleep(0.5)
        return Path(path).read_bytes()[-LOG_BYTES:].decode(errors="replace").strip()
    except OSError as error:
        return str(error)


def _in_a_line(error: BaseException) -> str:
    """An error of Ray's: of a traceback from elsewhere the last line, of an explanation the first, and how a process ended."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, RayTaskError) or CANNOT_BE_MADE in lines[0]:
        return lines[-1]
    where = [line for line in lines if line.startswith(("pid:", "ip:"))]
    how = [line.partition(EXIT)[2].partition("Some common causes")[0].strip() for line in lines if EXIT in line]
    return " ".join([lines[0], *how, *([f"({', '.join(where)})"] if where else [])])


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts its own handler of SIGTERM in the place of ours, which writes a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
