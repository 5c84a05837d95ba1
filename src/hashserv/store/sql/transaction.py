"""A transaction of the SQL servers' engine, and running statements outside of one."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as Dictionary
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection, TextClause, bindparam, text

from hashserv.model import Report
from hashserv.store.reporting import Known
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
        if "created" in found.keys():  # noqa: SIM118 - of the result, which is no dictionary
            return [tuple(map(_plain, row)) for row in found]
        return list(map(tuple, found))

    def each(self, statement: str, keys: Sequence[tuple[str, str]]) -> Iterator[tuple[Any, ...]]:
        for method, places in self._by_method(keys):
            at_hash: defaultdict[str, list[int]] = defaultdict(list)
            for at in places:
                at_hash[keys[at][1]].append(at)
            parameters = {"method": method, "hashes": self.statements.hashes(list(at_hash))}
            for key, *rest in self.rows(statement, parameters):
                for at in at_hash[key]:
                    yield (at, *rest)

    def unihashes(self, keys: Sequence[tuple[str, str]]) -> list[str | None]:
        """Return the unihash of each key, or `None` where there is no mapping."""
        found: list[str | None] = [None] * len(keys)
        statement = self.statements.unihashes
        if statement is None:
            for at, unihash, _ in self.each(self.statements.lookup, keys):
                found[at] = unihash
            return found
        for method, places in self._by_method(keys):
            hashes = self.statements.hashes([keys[at][1] for at in places])
            ((answers,),) = self.rows(statement, {"method": method, "hashes": hashes})
            for at, unihash in zip(places, msgspec.json.decode(answers), strict=True):
                found[at] = unihash
        return found

    def _by_method(self, keys: Sequence[tuple[str, str]]) -> Iterable[tuple[str, Sequence[int]]]:
        """Return where each method's keys are, but for those that can't be there."""
        by_method: defaultdict[str, list[int]] = defaultdict(list)
        can_have = self.statements.can_have
        for at, (method, key) in enumerate(keys):
            if can_have(key):
                by_method[method].append(at)
        return [(method, places) for method, places in by_method.items() if can_have(method)]

    def bearing_on(self, reports: Sequence[Report]) -> tuple[str, Known]:
        """Return what `Transaction.bearing_on` does, in one round trip where that can be had."""
        statement = self.statements.bearing
        if statement is None:
            return super().bearing_on(reports)
        can_have = self.statements.can_have
        possible = [report for report in reports if all(map(can_have, report[:3]))]
        keys = [
            {"method": report.method, "taskhash": report.taskhash, "outhash": report.outhash}
            for report in possible
        ]
        ((mark, found),) = self.rows(statement, {"keys": msgspec.json.encode(keys).decode()})
        known = Known()
        for report, (held, outhashes, oldest) in zip(
            possible, msgspec.json.decode(found or "[]"), strict=True
        ):
            if held:
                known.mappings[report.key] = (held[0], held[1])
            if outhashes:
                known.outhashes[report.key] = dict(outhashes)
            if oldest:
                known.oldest[report.method, report.outhash] = (oldest[0], oldest[1])
        return mark or "", known

    def insert(self, tables: Dictionary[str, Sequence[tuple[Any, ...]]]) -> None:
        filled = {table: rows for table, rows in tables.items() if rows}
        for statement, parameters in self.statements.inserts(filled):
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
    return value.isoformat() if isinstance(value, datetime) else value
