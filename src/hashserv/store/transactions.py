"""What is done inside one write transaction of the embedded engine.

Each function runs in the writer's thread, on the writer's connection, between BEGIN and COMMIT.
"""

import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

from hashserv.model import (
    Condition,
    Equivalent,
    Mapping,
    MappingKey,
    MarkedMapping,
    Outhash,
    Report,
)
from hashserv.store import statements
from hashserv.store.reporting import Known, OutputKey, resolve
from hashserv.store.schema import MAPPINGS, OUTHASHES, applies, is_indexed

SLICE_ROWS: Final = 1000
"""Rows that a long operation goes through in one transaction, before reports have their turn."""

_INSERT_ROWS: Final = 64
"""Rows in one INSERT, a power of two. What is left over goes in smaller powers of two, so that
few statements are kept prepared. One statement for many rows gives the interpreter lock up once."""

_SECOND: Final = 1_000_000
"""In microseconds."""


@dataclass
class Committed:
    """What a transaction did: its result, and what it changed of the mappings."""

    result: Any
    added: Sequence[Mapping] = field(default_factory=list)
    removed: bool = False


class Clock:
    """Gives each row its `created`: now, and later than any before it, so that age is clear."""

    def __init__(self) -> None:
        self._last = 0  # microseconds since 1970

    def times(self, count: int) -> list[str]:
        """Return `count` times in the text form of rows, each later than the one before."""
        first = max(time.time_ns() // 1000, self._last + 1)
        self._last = first + count - 1
        return [_text_of(at) for at in range(first, first + count)]


def _text_of(microseconds: int) -> str:
    seconds, rest = divmod(microseconds, _SECOND)
    return f"{_text_of_second(seconds)}.{rest:06}+00:00"


@lru_cache(maxsize=2)
def _text_of_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def store_reports(
    connection: sqlite3.Connection, reports: Sequence[Report], clock: Clock
) -> Committed:
    """Store a group of reports, in order; the result is the unihash that holds for each."""
    mark = current_mark(connection) or ""
    outcome = resolve(reports, clock.times(len(reports)), _known(connection, reports), mark)
    _insert(
        connection,
        OUTHASHES,
        [
            (report.method, report.taskhash, report.outhash, created, *report[4:10])
            for report, created in outcome.rows
        ],
    )
    _insert(connection, MAPPINGS, [(*mapping, mark) for mapping in outcome.mappings])
    _remark(connection, mark, outcome.reported_again)
    return Committed(outcome.unihashes, outcome.mappings)


def add_mappings(connection: sqlite3.Connection, mappings: Sequence[Mapping]) -> Committed:
    """Insert mappings where there are none; the result is the unihash that holds for each."""
    mark = current_mark(connection) or ""
    keys = [MappingKey(mapping.method, mapping.taskhash) for mapping in mappings]
    held = mappings_of(connection, keys)
    added: dict[MappingKey, Mapping] = {}
    for key, mapping in zip(keys, mappings, strict=True):
        if key not in held:
            added.setdefault(key, mapping)
    _insert(connection, MAPPINGS, [(*mapping, mark) for mapping in added.values()])
    _remark(connection, mark, [key for key, (_, marked) in held.items() if marked != mark])
    answers = [held[key][0] if key in held else added[key].unihash for key in keys]
    return Committed(answers, list(added.values()))


def copy(
    connection: sqlite3.Connection, found: Sequence[Equivalent | Outhash], clock: Clock
) -> Committed:
    """Insert what another server holds: outhash rows, and mappings, where there are none."""
    rows = [each.outhash if isinstance(each, Equivalent) else each for each in found]
    keys = [MappingKey(row.method, row.taskhash) for row in rows]
    known = {
        (keys[at], outhash)
        for at, outhash, _ in each_method(connection, statements.OUTHASHES_OF_TASKS, keys)
    }
    new = {
        (key, row.outhash): (row.method, row.taskhash, row.outhash, created, *row[5:])
        for key, row, created in zip(keys, rows, _times_of(rows, clock), strict=True)
        if (key, row.outhash) not in known
    }
    _insert(connection, OUTHASHES, list(new.values()))
    mappings = [
        Mapping(each.outhash.method, each.outhash.taskhash, each.unihash)
        for each in found
        if isinstance(each, Equivalent)
    ]
    return add_mappings(connection, mappings)


def insert_mappings(connection: sqlite3.Connection, rows: Sequence[MarkedMapping]) -> Committed:
    """Insert mappings with their marks where there are none; the result is how many."""
    count = _insert_new(connection, MAPPINGS, rows)
    return Committed(count, removed=count > 0)  # which ones went in is not known


def insert_outhashes(connection: sqlite3.Connection, rows: Sequence[Outhash]) -> Committed:
    """Insert outhash rows as they are where there are none; the result is how many."""
    return Committed(_insert_new(connection, OUTHASHES, rows))


def remove_indexed(
    connection: sqlite3.Connection, condition: Condition, tables: Sequence[str]
) -> Committed:
    """Remove rows that an indexed condition matches from some tables, a slice of each at most.

    The result is how many; fewer than `SLICE_ROWS` means that there are no more.
    """
    parameters = {**condition, "rows": SLICE_ROWS}
    counts = [
        connection.execute(statements.delete_matching(table, condition), parameters).rowcount
        for table in tables
    ]
    return Committed(counts, removed=MAPPINGS in tables)


def mark_indexed(
    connection: sqlite3.Connection, mark: str, conditions: Sequence[Condition]
) -> Committed:
    """Make a mark the current one, and mark what conditions match, a slice of rows at most.

    The result is, for as many conditions as there was room for, how many mappings each matched,
    or `None` where that needs a scan. A condition that there was no room for goes on next time.
    """
    if current_mark(connection) != mark:
        connection.execute(statements.SET_CURRENT_MARK, (mark,))
    counts: list[int | None] = []
    room = SLICE_ROWS
    for condition in conditions:
        if not applies(condition, MAPPINGS):
            counts.append(0)
        elif not is_indexed(condition, MAPPINGS):
            counts.append(None)
        else:
            parameters = {**condition, "new_mark": mark, "rows": room}
            statement = statements.mark_matching(condition)
            room -= connection.execute(statement, parameters).rowcount
            if room == 0:
                break
            statement = statements.count_matching(condition)
            counts.append(connection.execute(statement, condition).fetchone()[0])
    return Committed(counts)


def end_collection(connection: sqlite3.Connection, mark: str) -> Committed:
    """End the collection of a mark; the result is whether it was the current one."""
    if current_mark(connection) != mark:
        return Committed(result=False)
    connection.execute(statements.SET_CURRENT_MARK, (None,))
    return Committed(result=True)


def run_slice(
    connection: sqlite3.Connection,
    table: str,
    statement: str,
    parameters: Dictionary[str, Any],
    after: int,
) -> Committed:
    """Run a statement on the next slice of a table.

    The result is the slice's last id and how many rows changed, or `None` at the table's end.
    """
    bounds = {"after": after, "rows": SLICE_ROWS}
    end = connection.execute(statements.slice_end(table), bounds).fetchone()[0]
    if end is None:
        return Committed(None)
    parameters = {**parameters, "after": after, "end": end}
    count = connection.execute(statement, parameters).rowcount
    removed = count > 0 and table == MAPPINGS and statement.startswith("DELETE")
    return Committed((end, count), removed=removed)


def current_mark(connection: sqlite3.Connection) -> str | None:
    """Return the mark of the collection that is under way."""
    row = connection.execute(statements.CURRENT_MARK).fetchone()
    return None if row is None else row[0]


def mappings_of(
    connection: sqlite3.Connection, keys: Sequence[MappingKey]
) -> dict[MappingKey, tuple[str, str]]:
    """Return unihash and gc mark of each key that has a mapping."""
    rows = each_method(connection, statements.LOOKUP, keys)
    return {keys[at]: (unihash, mark) for at, unihash, mark in rows}


def each_method(
    connection: sqlite3.Connection, statement: str, keys: Sequence[tuple[str, str]]
) -> Iterator[tuple[Any, ...]]:
    """Run a statement for a batch of keys, once for each method among them.

    Args:
        connection: Where to run it.
        statement: Takes `:method`, and `:hashes` as a JSON array, and gives rows that begin with
            the index in that array.
        keys: Method and hash of each.

    Yields:
        The rows, each with the index in `keys` in the place of the first column.
    """
    by_method: defaultdict[str, list[int]] = defaultdict(list)
    for at, (method, _) in enumerate(keys):
        by_method[method].append(at)
    for method, places in by_method.items():
        hashes = as_json(keys[at][1] for at in places)
        for row in connection.execute(statement, {"method": method, "hashes": hashes}):
            yield (places[row[0]], *row[1:])


def as_json(texts: Iterable[str]) -> str:
    """Return texts as the JSON array that the statements take."""
    return msgspec.json.encode(list(texts)).decode()


def _known(connection: sqlite3.Connection, reports: Sequence[Report]) -> Known:
    """Ask for what bears on a group of reports."""
    keys = list(dict.fromkeys(report.key for report in reports))
    known = Known(mappings=mappings_of(connection, keys))
    for at, outhash, created in each_method(connection, statements.OUTHASHES_OF_TASKS, keys):
        known.outhashes.setdefault(keys[at], {})[outhash] = created or ""
    # The class of a report counts only where its task has no mapping yet.
    outputs: dict[OutputKey, None] = {
        (report.method, report.outhash): None
        for report in reports
        if report.key not in known.mappings
    }
    classes = list(outputs)
    for at, created, unihash in each_method(connection, statements.OLDEST_EQUIVALENTS, classes):
        known.oldest[classes[at]] = (created or "", unihash)
    return known


def _times_of(rows: Sequence[Outhash], clock: Clock) -> Iterator[str]:
    """Give the `created` of rows of another server; now, where that does not tell its zone."""
    for row, now in zip(rows, clock.times(len(rows)), strict=True):
        try:
            created = datetime.fromisoformat(row.created or "")
        except ValueError:
            yield now
        else:
            zoned = created.tzinfo is not None
            yield created.astimezone(UTC).isoformat(timespec="microseconds") if zoned else now


def _insert(connection: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    at = 0
    size = _INSERT_ROWS
    while at < len(rows):
        while size > len(rows) - at:
            size //= 2
        values = [value for row in rows[at : at + size] for value in row]
        connection.execute(statements.insert(table, size), values)
        at += size


def _insert_new(
    connection: sqlite3.Connection, table: str, rows: Sequence[MarkedMapping | Outhash]
) -> int:
    """Insert rows but for their ids where there are none; return how many.

    Nobody else needs the interpreter lock meanwhile, and so row by row is a quarter cheaper.
    """
    values = (row[1:] for row in rows)
    return max(0, connection.executemany(statements.insert_new(table), values).rowcount)


def _remark(connection: sqlite3.Connection, mark: str, keys: Sequence[MappingKey]) -> None:
    """Give mappings that are reported again the mark of the collection that is under way."""
    if mark:
        connection.executemany(statements.REMARK, [(mark, *key) for key in keys])
