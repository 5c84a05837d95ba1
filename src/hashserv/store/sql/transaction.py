"""A transaction of the SQL servers' engine, and running statements outside of one."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Dictionary
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, TextClause, bindparam, text

from hashserv.store.sql.statements import SqlStatements
from hashserv.store.times import Clock
from hashserv.store.transactions import Transaction


class SqlTransaction(Transaction):
    """Statements on one of SQLAlchemy's connections; see `Transaction`.

    Args:
        connection: Used while this object is.
        statements: The engine's own.
        clock: Gives rows their `created`.
    """

    def __init__(self, connection: Connection, statements: SqlStatements, clock: Clock) -> None:
        self._connection = connection
        self.statements: SqlStatements = statements
        self.clock = clock

    def run(self, statement: str, parameters: Dictionary[str, Any]) -> int:
        return self._connection.execute(_clause(statement), dict(parameters)).rowcount

    def rows(
        self, statement: str, parameters: Dictionary[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        found = self._connection.execute(_clause(statement), dict(parameters or {}))
        return [tuple(map(_plain, row)) for row in found]

    def each(self, statement: str, keys: Sequence[tuple[str, str]]) -> Iterator[tuple[Any, ...]]:
        by_method: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for at, (method, key) in enumerate(keys):
            by_method[method][key].append(at)
        for method, places in by_method.items():
            if not self.statements.can_have(method):
                continue
            parameters = {"method": method, "hashes": self.statements.hashes(list(places))}
            for key, *rest in self.rows(statement, parameters):
                for at in places[key]:
                    yield (at, *rest)

    def insert(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            statement, parameters = self.statements.insert(table, rows)
            self._connection.execute(_clause(statement), parameters)


@lru_cache(maxsize=256)
def _clause(statement: str) -> TextClause:
    """Return a statement as SQLAlchemy takes it, the same object each time."""
    clause = text(statement)
    if " IN :hashes" in statement:
        clause = clause.bindparams(bindparam("hashes", expanding=True))
    return clause


def _plain(value: Any) -> Any:
    """Return a column's value as the records have it: times as text."""
    if isinstance(value, datetime):
        return value.isoformat()
    return int(value) if type(value).__name__ == "Decimal" else value
