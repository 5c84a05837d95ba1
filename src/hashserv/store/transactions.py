"""What is done inside one write transaction, whatever the engine.

Each function runs between BEGIN and COMMIT, where nothing else of this process writes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass, field
from typing import Any, Final

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
from hashserv.store.statements import Statements
from hashserv.store.times import Clock

SLICE_ROWS: Final = 1000
"""Rows that a long operation goes through in one transaction, before reports have their turn."""


@dataclass
class Committed:
    """What a transaction did: its result, and what it changed of the mappings."""

    result: Any
    added: Sequence[Mapping] = field(default_factory=list)
    removed: bool = False
    users: bool = False
    """Whether users were changed."""


class Transaction(ABC):
    """A transaction of some engine that has begun."""

    statements: Statements
    """The engine's own statements."""

    clock: Clock
    """Gives rows their `created`."""

    @abstractmethod
    def run(self, statement: str, parameters: Dictionary[str, Any]) -> int:
        """Run a statement that changes rows; return how many."""

    @abstractmethod
    def rows(
        self, statement: str, parameters: Dictionary[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run a statement that reads; return its rows."""

    @abstractmethod
    def each(self, statement: str, keys: Sequence[tuple[str, str]]) -> Iterable[tuple[Any, ...]]:
        """Run a statement for a batch of keys, once for each method among them.

        Args:
            statement: Takes `:method` and `:hashes`; see `Statements`.
            keys: Method and hash of each.

        Returns rows that begin with the index in `keys`.
        """

    @abstractmethod
    def insert(self, tables: Dictionary[str, Sequence[tuple[Any, ...]]]) -> None:
        """Insert rows of all columns but the id.

        Args:
            tables: The values for each table, in the order of `schema.COLUMNS`.
        """

    def bearing_on(self, reports: Sequence[Report]) -> tuple[str, Known]:
        """Return the current mark, or empty, and what else bears on a group of reports."""
        return current_mark(self) or "", _known(self, reports)


Work = Callable[[Transaction], Committed]
"""What is done in a transaction."""


def store_reports(transaction: Transaction, reports: Sequence[Report]) -> Committed:
    """Store a group of reports, in order; the result is the unihash that holds for each."""
    mark, known = transaction.bearing_on(reports)
    outcome = resolve(reports, transaction.clock.times(len(reports)), known, mark)
    transaction.insert(
        {
            OUTHASHES: [
                (report.method, report.taskhash, report.outhash, created, *report[4:10])
                for report, created in outcome.rows
            ],
            MAPPINGS: [(*mapping, mark) for mapping in outcome.mappings],
        }
    )
    _remark(transaction, mark, outcome.reported_again)
    return Committed(outcome.unihashes, outcome.mappings)


def add_mappings(transaction: Transaction, mappings: Sequence[Mapping]) -> Committed:
    """Insert mappings where there are none; the result is the unihash that holds for each."""
    mark = current_mark(transaction) or ""
    keys = [MappingKey(mapping.method, mapping.taskhash) for mapping in mappings]
    held = mappings_of(transaction, keys)
    added: dict[MappingKey, Mapping] = {}
    for key, mapping in zip(keys, mappings, strict=True):
        if key not in held:
            added.setdefault(key, mapping)
    transaction.insert({MAPPINGS: [(*mapping, mark) for mapping in added.values()]})
    _remark(transaction, mark, [key for key, (_, marked) in held.items() if marked != mark])
    answers = [held[key][0] if key in held else added[key].unihash for key in keys]
    return Committed(answers, list(added.values()))


def copy(transaction: Transaction, found: Sequence[Equivalent | Outhash]) -> Committed:
    """Insert what another server holds: outhash rows, and mappings, where there are none."""
    rows = [each.outhash if isinstance(each, Equivalent) else each for each in found]
    now = transaction.clock.times(len(rows))
    respelled = transaction.clock.respelled
    _insert_new_outhashes(
        transaction,
        # Where a row does not tell the zone of its time, it is now.
        [
            row._replace(created=respelled(row.created) or time)
            for row, time in zip(rows, now, strict=True)
        ],
    )
    mappings = [
        Mapping(each.outhash.method, each.outhash.taskhash, each.unihash)
        for each in found
        if isinstance(each, Equivalent)
    ]
    return add_mappings(transaction, mappings)


def insert_mappings(transaction: Transaction, rows: Sequence[MarkedMapping]) -> Committed:
    """Insert mappings with their marks where there are none; the result is how many."""
    held = mappings_of(transaction, [MappingKey(row.method, row.taskhash) for row in rows])
    new = {
        key: row[1:] for row in rows if (key := MappingKey(row.method, row.taskhash)) not in held
    }
    transaction.insert({MAPPINGS: list(new.values())})
    return Committed(len(new), [Mapping(*row[:3]) for row in new.values()])


def insert_outhashes(transaction: Transaction, rows: Sequence[Outhash]) -> Committed:
    """Insert outhash rows as they are where there are none; the result is how many."""
    kept = transaction.clock.kept
    rows = [row._replace(created=kept(row.created)) for row in rows]
    return Committed(_insert_new_outhashes(transaction, rows))


def remove_indexed(
    transaction: Transaction, condition: Condition, tables: Sequence[str]
) -> Committed:
    """Remove rows that an indexed condition matches from some tables, a slice of each at most.

    The result is how many; fewer than `SLICE_ROWS` means that there are no more.
    """
    parameters = {**condition, "rows": SLICE_ROWS}
    counts = [
        transaction.run(transaction.statements.delete_matching(table, condition), parameters)
        for table in tables
    ]
    return Committed(counts, removed=MAPPINGS in tables)


def mark_indexed(transaction: Transaction, mark: str, conditions: Sequence[Condition]) -> Committed:
    """Make a mark the current one, and mark what conditions match, a slice of rows at most.

    The result is how many mappings each matched, up to the first condition that needs a scan, or
    that there was no room for: the latter goes on next time.
    """
    if current_mark(transaction) != mark:
        set_current_mark(transaction, mark)
    counts: list[int] = []
    room = SLICE_ROWS
    for condition in conditions:
        if needs_scan(condition):
            break
        if not applies(condition, MAPPINGS):
            counts.append(0)
            continue
        parameters = {**condition, "new_mark": mark, "rows": room}
        room -= transaction.run(transaction.statements.mark_matching(condition), parameters)
        if room == 0:
            break
        statement = transaction.statements.count_matching(condition)
        counts.append(transaction.rows(statement, condition)[0][0])
    return Committed(counts)


def needs_scan(condition: Condition) -> bool:
    """Tell whether what a condition matches is marked, and counted, by going through the table.

    What names a mark does too: once marked, mappings no longer match, and can't be counted.
    """
    indexed = is_indexed(condition, MAPPINGS) and "gc_mark" not in condition
    return applies(condition, MAPPINGS) and not indexed


def end_collection(transaction: Transaction, mark: str) -> Committed:
    """End the collection of a mark; the result is whether it was the current one."""
    if current_mark(transaction) != mark:
        return Committed(result=False)
    set_current_mark(transaction, None)
    return Committed(result=True)


def run_slice(
    transaction: Transaction,
    table: str,
    statement: str,
    parameters: Dictionary[str, Any],
    after: int,
) -> Committed:
    """Run a statement on the next slice of a table.

    The result is the slice's last id and how many rows changed, or `None` at the table's end.
    """
    bounds = {"after": after, "rows": SLICE_ROWS}
    end = transaction.rows(statements.slice_end(table), bounds)[0][0]
    if end is None:
        return Committed(None)
    parameters = {**parameters, "after": after, "end": end}
    count = transaction.run(statement, parameters)
    removed = count > 0 and table == MAPPINGS and statement.startswith("DELETE")
    return Committed((end, count), removed=removed)


def change_users(
    transaction: Transaction, statement: str, parameters: Dictionary[str, Any]
) -> Committed:
    """Change a user; the result is whether there was one to change."""
    changed = transaction.run(statement, parameters) == 1
    return Committed(changed, users=changed)


def current_mark(transaction: Transaction) -> str | None:
    """Return the mark of the collection that is under way."""
    rows = transaction.rows(statements.CURRENT_MARK)
    return rows[0][0] if rows else None


def set_current_mark(transaction: Transaction, mark: str | None) -> None:
    """Set the mark of the collection that is under way, or that none is."""
    parameters = {"mark": mark}
    if not transaction.run(statements.SET_CURRENT_MARK, parameters):
        transaction.run(statements.ADD_CURRENT_MARK, parameters)


def mappings_of(
    transaction: Transaction, keys: Sequence[MappingKey]
) -> dict[MappingKey, tuple[str, str]]:
    """Return unihash and gc mark of each key that has a mapping."""
    rows = transaction.each(transaction.statements.lookup, keys)
    return {keys[at]: (unihash, mark) for at, unihash, mark in rows}


def _known(transaction: Transaction, reports: Sequence[Report]) -> Known:
    """Ask for what bears on a group of reports."""
    keys = list(dict.fromkeys(report.key for report in reports))
    known = Known(mappings=mappings_of(transaction, keys))
    for at, outhash, created in transaction.each(transaction.statements.outhashes_of_tasks, keys):
        known.outhashes.setdefault(keys[at], {})[outhash] = created or ""
    # The class of a report counts only where its task has no mapping yet.
    outputs: dict[OutputKey, None] = {
        (report.method, report.outhash): None
        for report in reports
        if report.key not in known.mappings
    }
    classes = list(outputs)
    for at, created, unihash in transaction.each(
        transaction.statements.oldest_equivalents, classes
    ):
        known.oldest[classes[at]] = (created or "", unihash)
    return known


def _insert_new_outhashes(transaction: Transaction, rows: Sequence[Outhash]) -> int:
    """Insert outhash rows where there are none, and return how many."""
    keys = [MappingKey(row.method, row.taskhash) for row in rows]
    known = {
        (*keys[at], outhash)
        for at, outhash, _ in transaction.each(transaction.statements.outhashes_of_tasks, keys)
    }
    new = {row[1:4]: row[1:] for row in rows if row[1:4] not in known}
    transaction.insert({OUTHASHES: list(new.values())})
    return len(new)


def _remark(transaction: Transaction, mark: str, keys: Sequence[MappingKey]) -> None:
    """Give mappings that are reported again the mark of the collection that is under way."""
    if mark:
        for key in keys:
            transaction.run(statements.REMARK, {"mark": mark, **key._asdict()})
