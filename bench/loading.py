"""Fill the servers with the keys of the load generators, and ours' cache with all answers."""

import socket
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

from bench.generators import METHOD, Generators, Load
from bench.servers import Hashserv, Redis

_BATCH: Final = 1000
_PAGE_CACHE: Final = -1024 * 1024  # KiB: unique indexes of random hashes are written all over
_RECIPES: Final = 800  # as loadgen's reports

_INSERT_MAPPING: Final = (
    "INSERT INTO unihashes_v3 (method, taskhash, unihash, gc_mark) VALUES (?, ?, ?, '')"
)
_INSERT_OUTHASH: Final = (
    "INSERT INTO outhashes_v2 (method, taskhash, outhash, created, owner, PN, PV, PR, task)"
    " VALUES (?, ?, ?, ?, 'ci', ?, '1.0', 'r0', 'package')"
)


def fill_database(database: Path, count: int, generators: Generators) -> None:
    """Create ours' database and insert what `count` reports of loadgen would.

    Our server makes the tables; the rows go straight into the file, since a million reports,
    each durable, take minutes.
    """
    Hashserv(database, cache_bytes=0, generators=generators).stop()
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA cache_size = {_PAGE_CACHE}")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        # Triggers look at indexes, row by row.
        dropped = connection.execute(
            "SELECT type, name, sql FROM sqlite_master "
            "WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
        ).fetchall()
        for kind, name, _ in dropped:
            connection.execute(f"DROP {kind} {name}")
        _insert(connection, generators.rows(count))
        for *_, statement in dropped:
            connection.execute(statement)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _insert(connection: sqlite3.Connection, rows: Iterator[tuple[str, str, str]]) -> None:
    created = datetime.now(UTC).isoformat(timespec="microseconds")
    at = 0
    while batch := list(islice(rows, _BATCH)):
        connection.executemany(_INSERT_MAPPING, ((METHOD, row[0], row[2]) for row in batch))
        connection.executemany(
            _INSERT_OUTHASH,
            (
                (METHOD, taskhash, outhash, created, f"recipe-{number % _RECIPES}")
                for number, (taskhash, outhash, _) in enumerate(batch, at)
            ),
        )
        at += len(batch)


def fill_redis(server: Redis, count: int) -> None:
    """Store the unihash of each key, over one pipelined connection.

    Raises:
        RuntimeError: A reply was wrong.
    """
    if server.under(Load(mode="set", requests=count, depth=_BATCH, keys=count)).wrong:
        raise RuntimeError("Redis did not store every key")


def warm(server: Hashserv, rows: Iterable[tuple[str, str, str]]) -> int:
    """Ask for each key once, and return how many answers were wrong."""
    wrong = 0
    rows = iter(rows)
    with server.connect() as connection, connection.makefile("rb") as replies:
        begin_stream(connection, "get")
        while batch := list(islice(rows, _BATCH)):
            connection.sendall("".join(f"{METHOD} {row[0]}\n" for row in batch).encode())
            wrong += sum(replies.readline() != f"{row[2]}\n".encode() for row in batch)
    return wrong


def begin_stream(connection: socket.socket, kind: str) -> None:
    """Begin a stream mode (PROTOCOL.md §6).

    Raises:
        RuntimeError: The server does not.
    """
    connection.sendall(f'{{"{kind}-stream": null}}\n'.encode())
    reply = b""
    while not reply.endswith(b"\n"):
        piece = connection.recv(64)
        if not piece:
            raise RuntimeError("the server closed the connection")
        reply += piece
    if reply != b'"ok"\n':
        raise RuntimeError(f"the server does not stream: {reply!r}")
