"""The tables, as the reference has them (PROTOCOL.md §8), and what of its indexes is used.

Files and schemas stay readable by the reference: no column more, no column less. Of its indexes
those are left out that repeat a unique constraint: ``taskhash_lookup_v4`` and ``config_lookup``.
"""

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

CREATE_TABLES: Final = (
    f"""CREATE TABLE IF NOT EXISTS {MAPPINGS} (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        method TEXT NOT NULL,
        taskhash TEXT NOT NULL,
        unihash TEXT NOT NULL,
        gc_mark TEXT NOT NULL,
        UNIQUE(method, taskhash)
    )""",
    f"""CREATE TABLE IF NOT EXISTS {OUTHASHES} (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        method TEXT NOT NULL,
        taskhash TEXT NOT NULL,
        outhash TEXT NOT NULL,
        created DATETIME,
        owner TEXT,
        PN TEXT,
        PV TEXT,
        PR TEXT,
        task TEXT,
        outhash_siginfo TEXT,
        UNIQUE(method, taskhash, outhash)
    )""",
    f"""CREATE TABLE IF NOT EXISTS {USERS} (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        username TEXT NOT NULL,
        token TEXT NOT NULL,
        permissions TEXT NOT NULL,
        UNIQUE(username)
    )""",
    f"""CREATE TABLE IF NOT EXISTS {CONFIG} (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        value TEXT,
        UNIQUE(name)
    )""",
)

CREATE_INDEXES: Final = {
    "unihash_lookup_v1": f"CREATE INDEX IF NOT EXISTS unihash_lookup_v1 ON {MAPPINGS} (unihash)",
    "outhash_lookup_v3": (
        f"CREATE INDEX IF NOT EXISTS outhash_lookup_v3 ON {OUTHASHES} (method, outhash)"
    ),
}

UNUSED_INDEXES: Final = (
    *("taskhash_lookup", "taskhash_lookup_v2", "taskhash_lookup_v3", "taskhash_lookup_v4"),
    *("outhash_lookup", "outhash_lookup_v2", "config_lookup"),
)
"""Indexes of all eras that the unique constraints or newer indexes make superfluous."""

_INDEXED: Final = {
    MAPPINGS: ({"unihash"}, {"method", "taskhash"}),
    OUTHASHES: ({"method", "taskhash"}, {"method", "outhash"}),
}


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
