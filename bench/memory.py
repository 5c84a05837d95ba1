"""What memory the server takes: for a connection that waits, and for a mapping that it caches."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from bench import loading, machine
from bench.generators import Generators
from bench.servers import Hashserv, Server

_SPARE_FILES: Final = 256  # for what the processes have open beside


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a server took for many of a kind, and how many of its replies were wrong."""

    count: int
    bytes_each: float
    wrong: int


def of_connections(server: Server, connections: int) -> Memory:
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
    return Memory(count=connections, bytes_each=grown / connections, wrong=wrong)


def of_mappings(server: Hashserv, generators: Generators, mappings: int) -> Memory:
    """Ask for every mapping, so that the cache has all, and see how the server has grown.

    Whatever else it needs for that counts as well, such as SQLite's pages.

    Args:
        server: The server, just started, whose cache has room for all.
        generators: Tell what is in its database.
        mappings: How many keys that is.
    """
    with server.connect() as connection:
        wrong = int(not server.ping(connection))
    before = machine.own_bytes(server.pid)
    wrong += loading.warm(server, generators.rows(mappings))
    grown = machine.own_bytes(server.pid) - before
    return Memory(count=mappings, bytes_each=grown / mappings, wrong=wrong)
