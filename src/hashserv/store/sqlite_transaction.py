"""A transaction of the embedded engine."""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as Dictionary
from typing import Any, Final

import msgspec

from hashserv.store.sqlite_statements import SqliteStatements
from hashserv.store.times import Clock
from hashserv.store.transactions import Transaction

_INSERT_ROWS: Final = 64
"""Rows in one INSERT, a power of two. What is left over goes in smaller powers of two, so that
few statements are kept prepared. One statement for many rows gives the interpreter lock up once."""


class SqliteTransaction(Transaction):
    """The transaction that is under way on a connection; see `Transaction`.

    Args:
        connection: Used by one thread at a time.
        statements: Those for the indexes that the file has.
        clock: Gives rows their `created`.
    """

    def __init__(
        self, connection: sqlite3.Connection, statements: SqliteStatements, clock: Clock
    ) -> None:
        self._connection = connection
        self.statements: SqliteStatements = statements
        self.clock = clock

    def run(self, statement: str, parameters: Dictionary[str, Any]) -> int:
        return self._connection.execute(statement, parameters).rowcount

    def rows(
        self, statement: str, parameters: Dictionary[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, parameters or {}).fetchall()

    def each(self, statement: str, keys: Sequence[tuple[str, str]]) -> Iterator[tuple[Any, ...]]:
        for places, parameters in by_method(keys):
            for row in self._connection.execute(statement, parameters):
                yield (places[row[0]], *row[1:])

    def insert(self, tables: Dictionary[str, Sequence[tuple[Any, ...]]]) -> None:
        for table, rows in tables.items():
            self._insert(table, rows)

    def _insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        at = 0
        size = _INSERT_ROWS
        while at < len(rows):
            while size > len(rows) - at:
                size //= 2
            values = [value for row in rows[at : at + size] for value in row]
            self._connection.execute(self.statements.insert(table, size), values)
            at += size


def by_method(keys: Sequence[tuple[str, str]]) -> Iterator[tuple[list[int], dict[str, str]]]:
    """Yield for each method where in a batch its keys are, and the parameters of a statement.

    Args:
        keys: Method and hash of each.
    """
    methods: defaultdict[str, list[int]] = defaultdict(list)
    for at, (method, _) in enumerate(keys):
        methods[method].append(at)
    for method, places in methods.items():
        yield places, {"method": method, "hashes": as_json(keys[at][1] for at in places)}


def as_json(texts: Iterable[str]) -> str:
    """Return texts as the JSON array that the statements take."""
    return msgspec.json.encode(list(texts)).decode()
