"""The tables, as the reference has them (PROTOCOL.md §8), and what of its indexes is used.

Files and schemas stay readable by the reference: no column more, no column less. Of its indexes
those are left out that repeat a unique constraint: ``taskhash_lookup_v4`` and ``config_lookup``.

A new SQLite file is *compact*: its indexes hold the endings of hashes, and a trigger stands in for
the unique constraint of outhash rows. Files that exist keep the indexes of the reference.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from hashserv.model import Condition

MAPPINGS: Final = "unihashes_v3"
OUTHASHES: Final = "outhashes_v2"
USERS: Final = "users"
CONFIG: Final = "config"

TABLES: Final = (MAPPINGS, OUTHASHES, USERS, CONFIG)

FORMER_MAPPINGS: Final = "unihashes_v2"
"""2021 to 2023: the mappings, without gc_mark."""

FORMER_TASKS: Final = "tasks_v2"
"""2019 to 2021: rows and mappings in one; a taskhash's oldest row holds its unihash."""

COLUMNS: Final = {
    MAPPINGS: ("method", "taskhash", "unihash", "gc_mark"),
    OUTHASHES: (
        *("method", "taskhash", "outhash", "created"),
        *("owner", "PN", "PV", "PR", "task", "outhash_siginfo"),
    ),
}

QUERY_COLUMNS: Final = {
    table: tuple(column for column in columns if column != "created")
    for table, columns in COLUMNS.items()
}
"""The text columns of each table, which a condition may name."""


@dataclass(frozen=True, kw_only=True)
class Types:
    """What an engine calls the types of columns."""

    id: str
    key: str
    """Text that is part of a unique constraint or an index."""

    text: str = "TEXT"
    long: str = "TEXT"
    """Text that may be megabytes."""

    time: str
    table: str = ""
    """Goes behind a table's columns."""


def create_tables(types: Types, *, compact: bool = False) -> tuple[str, ...]:
    """Return the statements that create the tables where they are missing.

    Args:
        types: Those of the engine.
        compact: Whether `COMPACT` follows, which keeps outhash rows unique.
    """
    unique = "" if compact else ",\n        UNIQUE(method, taskhash, outhash)"
    return (
        f"""CREATE TABLE IF NOT EXISTS {MAPPINGS} (
        id {types.id},
        method {types.key} NOT NULL,
        taskhash {types.key} NOT NULL,
        unihash {types.key} NOT NULL,
        gc_mark {types.text} NOT NULL,
        UNIQUE(method, taskhash)
    ){types.table}""",
        f"""CREATE TABLE IF NOT EXISTS {OUTHASHES} (
        id {types.id},
        method {types.key} NOT NULL,
        taskhash {types.key} NOT NULL,
        outhash {types.key} NOT NULL,
        created {types.time},
        owner {types.text},
        "PN" {types.text},
        "PV" {types.text},
        "PR" {types.text},
        task {types.text},
        outhash_siginfo {types.long}{unique}
    ){types.table}""",
        f"""CREATE TABLE IF NOT EXISTS {USERS} (
        id {types.id},
        username {types.key} NOT NULL,
        token {types.text} NOT NULL,
        permissions {types.text} NOT NULL,
        UNIQUE(username)
    ){types.table}""",
        f"""CREATE TABLE IF NOT EXISTS {CONFIG} (
        id {types.id},
        name {types.key} NOT NULL,
        value {types.text},
        UNIQUE(name)
    ){types.table}""",
    )


SQLITE_TYPES: Final = Types(id="INTEGER PRIMARY KEY AUTOINCREMENT", key="TEXT", time="DATETIME")

INDEXES: Final = {
    "unihash_lookup_v1": (MAPPINGS, ("unihash",)),
    "outhash_lookup_v3": (OUTHASHES, ("method", "outhash")),
}
"""Table and columns of each index beside the unique constraints."""

CREATE_INDEXES: Final = {
    name: f"CREATE INDEX IF NOT EXISTS {name} ON {table} ({', '.join(columns)})"
    for name, (table, columns) in INDEXES.items()
}

ENDING: Final = 12
"""Characters of a hash that a compact file's indexes hold: 48 bits, so that of ten million random
hashes hardly two end alike; nor do numbers with leading zeros, as one makes them up for a test.
Whoever means hashes to end alike manages that with more characters as well."""

BY_ENDING: Final = {MAPPINGS: ("unihash",), OUTHASHES: ("outhash", "taskhash")}
"""The columns of each table whose endings a compact file has an index of."""


def ending(text: str) -> str:
    """Return what an index of a compact file holds of a text.

    `substr` is as old as SQLite: a function that some version lacks would make files unreadable.
    """
    return f"substr({text}, -{ENDING})"


_KNOWN: Final = " AND ".join(
    (
        f"{ending('taskhash')} = {ending('new.taskhash')}",
        # The + keeps the planner from putting new.taskhash, which no index holds, into `substr`,
        # and from an index of the reference's on method and outhash: classes may be large.
        *(f"+{column} = new.{column}" for column in ("method", "taskhash", "outhash")),
    )
)

COMPACT: Final = {
    **{
        f"hashserv_{column}": (
            f"CREATE INDEX IF NOT EXISTS hashserv_{column} ON {table} ({ending(column)})"
        )
        for table, columns in BY_ENDING.items()
        for column in columns
    },
    "hashserv_unique": f"""CREATE TRIGGER IF NOT EXISTS hashserv_unique
        BEFORE INSERT ON {OUTHASHES} WHEN EXISTS (SELECT 1 FROM {OUTHASHES} WHERE {_KNOWN})
        BEGIN SELECT RAISE(IGNORE); END""",
}
"""What a compact file has in the place of `CREATE_INDEXES` and of a unique constraint, by name. The
trigger ignores known outhash rows whoever inserts them, the reference included."""

UNUSED_INDEXES: Final = (
    *("taskhash_lookup", "taskhash_lookup_v2", "taskhash_lookup_v3", "taskhash_lookup_v4"),
    *("outhash_lookup", "outhash_lookup_v2", "config_lookup"),
)
"""Indexes of all eras that the unique constraints or newer indexes make superfluous."""

_INDEXED: Final = {
    MAPPINGS: ({"unihash"}, {"method", "taskhash"}),
    OUTHASHES: ({"method", "taskhash"}, {"method", "outhash"}),
}


def newer_tables(names: Iterable[str]) -> list[str]:
    """Return those of some names that a later release would give to these tables."""
    known = {"unihashes": 3, "outhashes": 2}
    found = []
    for name in names:
        stem, _, version = name.rpartition("_v")
        if version.isdecimal() and int(version) > known.get(stem, sys.maxsize):
            found.append(name)
    return sorted(found)


def applies(condition: Condition, table: str) -> bool:
    """Tell whether a table has every column of a condition, and the condition is not empty."""
    return bool(condition) and condition.keys() <= set(QUERY_COLUMNS[table])


def is_indexed(condition: Condition, table: str) -> bool:
    """Tell whether an index leads to what a condition matches, so that no scan is needed."""
    return any(columns <= condition.keys() for columns in _INDEXED[table])


def unknown_columns(condition: Condition) -> list[str]:
    """Return the names in a condition that are columns of no table."""
    known = {column for columns in QUERY_COLUMNS.values() for column in columns}
    return sorted(condition.keys() - known)
