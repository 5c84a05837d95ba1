"""Fill the servers with the keys of the load generators, and ours' cache with all answers.

``python -m bench.loading DATABASE COUNT`` makes a database of ours.
"""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

from bench.generators import METHOD, Generators, Load
from bench.servers import Hashserv, Redis

_BATCH: Final = 1000
_STAGED: Final = 1000 * _BATCH  # rows that are in both the staging table and the generator's pipe
_PAGE_CACHE: Final = 256 << 20
_PAGE_CACHE_EACH: Final = 400  # more for each key: unique indexes of hashes are written all over
_RECIPES: Final = 800  # as loadgen's reports

_INSERT_MAPPINGS: Final = """
    INSERT INTO unihashes_v3 (method, taskhash, unihash, gc_mark)
    SELECT ?, taskhash, unihash, '' FROM staged ORDER BY number"""
_INSERT_OUTHASHES: Final = """
    INSERT INTO outhashes_v2 (method, taskhash, outhash, created, owner, PN, PV, PR, task)
    SELECT ?, taskhash, outhash, ?, 'ci', 'recipe-' || (number % ?), '1.0', 'r0', 'package'
    FROM staged ORDER BY number"""


def fill_database(database: Path, count: int) -> None:
    """Create ours' database and insert what `count` reports of loadgen would.

    A process of its own does it, so that its memory is missing to nothing that is measured.

    Raises:
        subprocess.CalledProcessError: It can't; it told why on stderr.
    """
    command = [sys.executable, "-m", "bench.loading", str(database), str(count)]
    subprocess.run(command, check=True)


def copy_database(database: Path, target: Path) -> None:
    """Copy a database that no server has open."""
    shutil.copyfile(database, target)
    write_back(target)


def write_back(file: Path) -> None:
    """Wait until a file is on the disk, so that nothing that is measured next waits for that."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _fill(database: Path, count: int, generators: Generators) -> None:
    """Do it: our server makes the tables, and the rows go straight into the file.

    A million reports, each durable, take minutes. Whatever indexes and triggers there are, they
    come after the rows; those of constraints can't, and are as full as reports in this order
    would leave them.
    """
    Hashserv(database, cache_bytes=0, generators=generators).stop()
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")  # no log, which would be copied after;
        connection.execute("PRAGMA journal_mode = OFF")  # the server sets it up again
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA threads = 2")
        page_cache = _PAGE_CACHE + count * _PAGE_CACHE_EACH
        connection.execute(f"PRAGMA cache_size = -{page_cache // 1024}")
        connection.execute("BEGIN")
        dropped = connection.execute(
            "SELECT type, name, sql FROM sqlite_master"
            " WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
            " ORDER BY type = 'index', name"
        ).fetchall()
        for kind, name, _ in dropped:  # triggers first: they may look things up
            connection.execute(f"DROP {kind} {name}")
        _insert(connection, generators.rows(count))
        for _, _, statement in reversed(dropped):
            connection.execute(statement)
        connection.execute("COMMIT")
    write_back(database)


def _insert(connection: sqlite3.Connection, rows: Iterator[tuple[str, str, str]]) -> None:
    created = datetime.now(UTC).isoformat(timespec="microseconds")
    connection.execute(
        "CREATE TEMP TABLE staged (number INTEGER PRIMARY KEY, taskhash, outhash, unihash)"
    )
    numbered = enumerate(rows)
    while True:
        connection.executemany(
            "INSERT INTO staged VALUES (?, ?, ?, ?)",
            ((number, *row) for number, row in islice(numbered, _STAGED)),
        )
        if not connection.execute("SELECT EXISTS (SELECT * FROM staged)").fetchone()[0]:
            return
        connection.execute(_INSERT_MAPPINGS, (METHOD,))
        connection.execute(_INSERT_OUTHASHES, (METHOD, created, _RECIPES))
        connection.execute("DELETE FROM staged")


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


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as programs:
        _fill(Path(sys.argv[1]), int(sys.argv[2]), Generators(Path(programs)))
