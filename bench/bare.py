"""What SQLite alone manages: ``python -m bench.bare DATABASE``, a file that `bench.loading` filled.

Look-ups: one statement for each batch of keys, half of them unknown, as the server asks it; on one
connection, while the server has threads.
Reports: two INSERTs and a COMMIT for each group of made-up tasks, as durable as the server's; and
the same by the server's own rule, which looks up before what is known. Neither has connections,
replies and checkpoints. It is what the server could reach at most with these tables. The file is
changed.
"""

import argparse
import json
import os
import random
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Final

from bench.generators import METHOD
from hashserv.model import Report
from hashserv.store.sqlite_statements import COMPACT_STATEMENTS
from hashserv.store.sqlite_transaction import SqliteTransaction
from hashserv.store.times import Clock
from hashserv.store.transactions import store_reports

GROUPS: Final = {1: 400, 32: 200, 512: 40}
"""Reports in a transaction, and how many transactions there are."""

BATCH: Final = 128
"""Keys that are looked up at once, as the server does."""

_LOOK_UPS: Final = 200_000
_CLOCK: Final = Clock()
_ROUNDS: Final = 3
_LOG_ROWS: Final = 8192  # written before, so that the log is one that is written over

_OUTHASH: Final = (
    "INSERT INTO outhashes_v2 (method, taskhash, outhash, created, owner, PN, PV, PR, task) "
    f"VALUES ('{METHOD}', ?, ?, '2026-01-01T00:00:00.000000+00:00', "
    "'ci', 'recipe-1', '1.0', 'r0', 'package')"
)
_MAPPING: Final = (
    f"INSERT INTO unihashes_v3 (method, taskhash, unihash, gc_mark) VALUES ('{METHOD}', ?, ?, '')"
)


def look_ups(database: Path) -> float:
    """Return how many look-ups a second were answered, the median once all had been made before.

    Args:
        database: The file.
    """
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA cache_size = -8192")
        connection.execute("PRAGMA mmap_size = 1099511627776")
        (last,) = connection.execute("SELECT max(id) FROM unihashes_v3").fetchone()
        asked = [os.urandom(32).hex() for _ in range(_LOOK_UPS // 2)]
        for number in random.sample(range(1, last + 1), _LOOK_UPS // 2):
            row = connection.execute("SELECT taskhash FROM unihashes_v3 WHERE id = ?", (number,))
            asked += row.fetchone()
        random.shuffle(asked)
        rates = []
        for _ in range(1 + _ROUNDS):
            start = time.perf_counter()
            found = 0
            for at in range(0, len(asked), BATCH):
                keys = {"method": METHOD, "hashes": json.dumps(asked[at : at + BATCH])}
                (answers,) = connection.execute(COMPACT_STATEMENTS.unihashes, keys).fetchone()
                found += len(json.loads(answers))
            rates.append(len(asked) / (time.perf_counter() - start))
            if found != _LOOK_UPS // 2:
                raise RuntimeError(f"{found} mappings were found of {_LOOK_UPS // 2}")
        return median(rates[1:])


def reports(database: Path) -> Iterator[tuple[int, float, float]]:
    """Yield the size of each group, and how many reports a second were stored: the median.

    Inserted without a look, and by the server's rule.

    Args:
        database: The file.
    """
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        for pragma in (
            *("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 0"),
            *("cache_size = -65536", "mmap_size = 1099511627776"),
        ):
            connection.execute(f"PRAGMA {pragma}")
        _insert(connection, _LOG_ROWS)
        for size in GROUPS:
            yield size, _rate(connection, _insert, size), _rate(connection, _store, size)


def _rate(
    connection: sqlite3.Connection, store: Callable[[sqlite3.Connection, int], None], size: int
) -> float:
    rates = []
    for _ in range(_ROUNDS):
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        start = time.perf_counter()
        for _ in range(GROUPS[size]):
            store(connection, size)
        rates.append(size * GROUPS[size] / (time.perf_counter() - start))
    return median(rates)


def _insert(connection: sqlite3.Connection, count: int) -> None:
    hashes = [(_hash(), _hash()) for _ in range(count)]
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_OUTHASH, hashes)
    connection.executemany(_MAPPING, hashes)
    connection.execute("COMMIT")


def _store(connection: sqlite3.Connection, count: int) -> None:
    task = ("ci", "recipe-1", "1.0", "r0", "package")
    group = [Report(METHOD, _hash(), _hash(), _hash(), *task) for _ in range(count)]
    connection.execute("BEGIN IMMEDIATE")
    store_reports(SqliteTransaction(connection, COMPACT_STATEMENTS, _CLOCK), group)
    connection.execute("COMMIT")


def _hash() -> str:
    return os.urandom(32).hex()


def main() -> int:
    """Measure the file that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m bench.bare", description=__doc__)
    parser.add_argument("database", type=Path, metavar="DATABASE")
    database = parser.parse_args().database
    print(f"batches of {BATCH}: {look_ups(database):9,.0f} look-ups a second", flush=True)
    for size, inserted, stored in reports(database):
        print(
            f"groups of {size:3}: {inserted:9,.0f} reports a second, by the rule {stored:9,.0f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
