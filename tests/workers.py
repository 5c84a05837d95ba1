"""The worker processes of a server, and connections to one of them or another."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.peers import Peer
from tests.servers import ServerProcess


def workers_of(server: ServerProcess) -> list[int]:
    """Return the processes that serve, the oldest first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent, started = fields[0], int(fields[1]), int(fields[19])
        if parent == server.process.pid and state != "Z":
            found.append((started, int(stat.parent.name)))
    return [pid for _, pid in sorted(found)]


@contextmanager
def only(server: ServerProcess, worker: int) -> Iterator[None]:
    """Stop all workers but one, so that this one accepts what connects."""
    others = [pid for pid in workers_of(server) if pid != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def peer_of(server: ServerProcess, worker: int) -> Peer:
    """Connect to one of the workers."""
    with only(server, worker):
        peer = Peer(server.address)
        assert peer.ask("ping", {}) == {"alive": True}
    return peer


def peers(server: ServerProcess) -> list[Peer]:
    """Connect to each of the workers."""
    return [peer_of(server, worker) for worker in workers_of(server)]


def gone(pid: int) -> bool:
    """Tell whether a process has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"
