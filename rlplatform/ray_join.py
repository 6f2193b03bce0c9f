"""Before Ray is imported and joined: what has to hold by then. Imports no Ray itself."""

import os
import socket

from rlplatform.placement import ClusterError

PROBE_S = 3.0  # for the port of a cluster to answer
SAID_ELSEWHERE = (
    "A worker died or was killed while executing a task"  # of a raylet, at length; our records name each death
)
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(
    [0, 0, 0, 4, 0, 0, 0, 0, 0]
)  # of a client of gRPC: RFC 9113, section 3.4


def prepare() -> None:
    """Settings that Ray reads from the environment when it is imported: nothing of ours calls home, and what a raylet has to say of a
    process that died does not land on the standard output of whoever drives."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    theirs = os.environ.get("RAY_DEDUP_LOGS_SKIP_REGEX", "")
    if SAID_ELSEWHERE not in theirs:
        os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = f"{theirs}|{SAID_ELSEWHERE}" if theirs else SAID_ELSEWHERE


def check_address(address: str) -> str:
    """Knock at a cluster's port: ray.init waits long for one that is not there, and for ever on a port that is not Ray's.

    Args:
        address: "auto" (RAY_ADDRESS, or this machine's own, at which nobody has to knock), or "HOST:PORT".

    Returns:
        The address to join.

    Raises:
        ClusterError: it is none, nobody answers within seconds, or something that is no Ray.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "") or "auto"
        if address == "auto":
            return address  # Ray looks for one on this machine, and says at once if there is none
    if "://" in address:
        raise ClusterError(
            f"{address}: not through Ray's client; give HOST:PORT of the cluster itself (6379 by default), not a client's server"
        )
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ClusterError(f"{address!r} is not an address: give local, auto or HOST:PORT")
    encrypted = (
        os.environ.get("RAY_USE_TLS", "0") == "1"
    )  # then the knock would have to be, too: only that the port is open
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PROBE_S) as connection:
            if encrypted:
                return address
            connection.settimeout(PROBE_S)
            connection.sendall(HELLO)
            frame = connection.recv(9)
    except OSError as error:
        raise ClusterError(f"no Ray answers at {address}: {error}; there, `ray status` says whether it runs") from error
    if len(frame) < 4 or frame[3] != 4:  # a gRPC server greets with SETTINGS
        raise ClusterError(f"what answers at {address} is no Ray")
    return address
