"""The rules of PROTOCOL.md §8 and §9, over lists and dictionaries.

Written to be obviously right, not fast, and from the protocol, not from the sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hashserv.model import (
    CollectionStatus,
    Condition,
    Equivalent,
    Mapping,
    MappingKey,
    Outhash,
    Report,
)


@dataclass
class Held:
    """A mapping: its unihash and its gc mark."""

    unihash: str
    mark: str

    def matches(self, key: MappingKey, condition: Condition) -> bool:
        columns = {**key._asdict(), "unihash": self.unihash, "gc_mark": self.mark}
        return _matches(columns, condition)


@dataclass
class Row:
    """An outhash row. `age` orders rows: the smaller, the older."""

    report: Report
    age: int

    @property
    def key(self) -> MappingKey:
        return self.report.key

    @property
    def columns(self) -> dict[str, str | None]:
        columns = self.report._asdict()
        del columns["unihash"], columns["known_as"]
        return columns

    def outhash(self) -> Outhash:
        report = self.report
        return Outhash(0, report.method, report.taskhash, report.outhash, None, *report[4:10])


@dataclass
class Model:
    """What a store must do; the methods are those of `Store`."""

    mappings: dict[MappingKey, Held] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    current: str | None = None
    now: int = 0
    aged: int = -1_000_000

    # Asking.

    def lookup(self, keys: Sequence[MappingKey]) -> list[str | None]:
        return [self.mappings[key].unihash if key in self.mappings else None for key in keys]

    def exists(self, unihashes: Sequence[str]) -> list[bool]:
        return [
            any(held.unihash == unihash for held in self.mappings.values()) for unihash in unihashes
        ]

    def task(self, key: MappingKey) -> Equivalent | None:
        return self._joined([row for row in self.rows if row.key == key])

    def equivalent(self, method: str, outhash: str) -> Equivalent | None:
        return self._joined(self._class(method, outhash))

    def outhash(self, method: str, outhash: str) -> Outhash | None:
        rows = self._class(method, outhash)
        return rows[0].outhash() if rows else None

    def collection(self) -> CollectionStatus:
        keep = sum(held.mark == (self.current or "") for held in self.mappings.values())
        return CollectionStatus(keep, len(self.mappings) - keep, self.current)

    def usage(self) -> dict[str, int]:
        config = 0 if self.current is None and not self._collected else 1
        return {
            "unihashes_v3": len(self.mappings),
            "outhashes_v2": len(self.rows),
            "users": 0,
            "config": config,
        }

    # Reporting (§8.1).

    def report(self, reports: Sequence[Report]) -> list[str]:
        return [self._report(report) for report in reports]

    def _report(self, report: Report) -> str:
        if not any(
            (row.key, row.report.outhash) == (report.key, report.outhash) for row in self.rows
        ):
            self.now += 1
            self.rows.append(Row(report, self.now))
        others = [
            row
            for row in self._class(report.method, report.outhash)
            if row.key != report.key and row.key in self.mappings
        ]
        proposed = report.known_as or report.unihash
        unihash = self.mappings[others[0].key].unihash if others else proposed
        return self._insert(report.key, unihash)

    def add_mappings(self, mappings: Sequence[Mapping]) -> list[str]:
        return [self._insert(MappingKey(m.method, m.taskhash), m.unihash) for m in mappings]

    def _insert(self, key: MappingKey, unihash: str) -> str:
        held = self.mappings.setdefault(key, Held(unihash, ""))
        if self.current is not None:
            held.mark = self.current
        return held.unihash

    # Removing and collecting (§5, §8.3, §9).

    def remove(self, condition: Condition) -> int:
        if not condition:
            return 0
        before = len(self.mappings) + len(self.rows)
        self.mappings = {
            key: held for key, held in self.mappings.items() if not held.matches(key, condition)
        }
        self.rows = [row for row in self.rows if not _matches(row.columns, condition)]
        return before - len(self.mappings) - len(self.rows)

    def mark(self, mark: str, conditions: Sequence[Condition]) -> list[int]:
        self.current = mark
        self._collected = True
        counts = []
        for condition in conditions:
            matching = [
                held
                for key, held in self.mappings.items()
                if condition and held.matches(key, condition)
            ]
            for held in matching:
                held.mark = mark
            counts.append(len(matching))
        return counts

    def sweep(self, mark: str) -> int | None:
        if mark != self.current:
            return None
        before = len(self.mappings)
        self.mappings = {key: held for key, held in self.mappings.items() if held.mark == mark}
        self.current = None
        return before - len(self.mappings)

    def clean_unused(self, max_age: float) -> int:
        """Rows are either new or, after `age`, older than any `max_age` that is asked for."""
        before = len(self.rows)
        self.rows = [
            row for row in self.rows if row.key in self.mappings or row.age > 0 or max_age > 1e9
        ]
        return before - len(self.rows)

    # What another process does.

    def insert_mapping(self, mapping: Mapping) -> None:
        """Insert a mapping without a mark, unless there is one."""
        self.mappings.setdefault(mapping_key(mapping), Held(mapping.unihash, ""))

    def delete_mappings(self, condition: Condition) -> None:
        """Delete mappings and leave their outhash rows."""
        self.mappings = {
            key: held for key, held in self.mappings.items() if not held.matches(key, condition)
        }

    def age(self, taskhash: str) -> None:
        """Make the rows of a taskhash look older than all others, those aged before excepted."""
        for row in self.rows:
            if row.report.taskhash == taskhash and row.age > 0:
                self.aged += 1
                row.age = self.aged

    # What is in the tables.

    def tables(self) -> tuple[dict[tuple[str, str], tuple[str, str]], list[tuple[str, ...]]]:
        mappings = {
            (key.method, key.taskhash): (held.unihash, held.mark)
            for key, held in self.mappings.items()
        }
        return mappings, [row.report[:3] for row in self._oldest_first()]

    _collected: bool = False

    def _oldest_first(self) -> list[Row]:
        return sorted(self.rows, key=lambda row: row.age)

    def _class(self, method: str, outhash: str) -> list[Row]:
        return [
            row
            for row in self._oldest_first()
            if (row.report.method, row.report.outhash) == (method, outhash)
        ]

    def _joined(self, rows: list[Row]) -> Equivalent | None:
        for row in sorted(rows, key=lambda row: row.age):
            if row.key in self.mappings:
                held = self.mappings[row.key]
                return Equivalent(row.outhash(), held.unihash, held.mark)
        return None


def mapping_key(mapping: Mapping) -> MappingKey:
    """Return what a mapping is found by."""
    return MappingKey(mapping.method, mapping.taskhash)


def _matches(columns: dict[str, str | None], condition: Condition) -> bool:
    """Tell whether columns include all of a condition and have its values; NULL equals nothing."""
    return all(
        name in columns and value is not None and columns[name] == value
        for name, value in condition.items()
    )
