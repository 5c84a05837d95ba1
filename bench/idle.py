"""What a connection costs while it waits, as those of a build do for hours."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from bench import machine
from bench.servers import Server

MOST_BYTES: Final = 10 * 1024
"""What a connection should cost at most."""

_SPARE_FILES: Final = 256  # for what the processes have open beside


@dataclass(frozen=True, kw_only=True)
class Idle:
    """Memory of idle connections past their handshake, and pings that went wrong."""

    connections: int
    bytes_each: float
    wrong: int

    @property
    def met(self) -> bool:
        """Whether the goal was reached."""
        return self.bytes_each <= MOST_BYTES


def measure(server: Server, connections: int) -> Idle:
    """Open connections, ping once on each, and see how the server has grown.

    Measure it on a server that did little before: it may reuse memory.

    Args:
        server: The server.
        connections: How many; fewer where the system does not allow as many open files.
    """
    connections = min(connections, machine.raise_file_limit() - _SPARE_FILES)
    with server.connect() as first:
        wrong = int(not server.ping(first))
    before = machine.own_bytes(server.pid)
    with ExitStack() as stack:
        for _ in range(connections):
            connection = stack.enter_context(server.connect())
            wrong += not server.ping(connection)
        grown = machine.own_bytes(server.pid) - before
    return Idle(connections=connections, bytes_each=grown / connections, wrong=wrong)
