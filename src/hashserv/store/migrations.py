"""Bring a database file of any era to today's tables, in one transaction, losing nothing."""

import logging
import sqlite3
from typing import Final

from hashserv.errors import NotADatabase
from hashserv.store.schema import (
    COLUMNS,
    COMPACT,
    CREATE_INDEXES,
    FORMER_MAPPINGS,
    FORMER_TASKS,
    MAPPINGS,
    OUTHASHES,
    SQLITE_TYPES,
    TABLES,
    UNUSED_INDEXES,
    create_tables,
)

logger = logging.getLogger("hashserv.store")

_OUTHASH_COLUMNS: Final = ", ".join(("id", *COLUMNS[OUTHASHES]))

_OTHER_COLUMNS: Final = ", ".join(COLUMNS[OUTHASHES])

# Rows keep their ids where these are free; what is there already stays as it is.
_CARRY_TASKS: Final = f"""
    INSERT OR IGNORE INTO {OUTHASHES} ({_OUTHASH_COLUMNS})
    SELECT {_OUTHASH_COLUMNS} FROM {FORMER_TASKS};

    INSERT OR IGNORE INTO {OUTHASHES} ({_OTHER_COLUMNS})
    SELECT {_OTHER_COLUMNS} FROM {FORMER_TASKS} ORDER BY id;

    INSERT OR IGNORE INTO {MAPPINGS} (method, taskhash, unihash, gc_mark)
    SELECT method, taskhash, unihash, '' FROM (
        SELECT *, row_number() OVER (PARTITION BY method, taskhash ORDER BY created, id) AS age
        FROM {FORMER_TASKS}
    ) WHERE age = 1 ORDER BY id;

    DROP TABLE {FORMER_TASKS}
""".split(";")

_CARRY_MAPPINGS: Final = f"""
    INSERT OR IGNORE INTO {MAPPINGS} (id, method, taskhash, unihash, gc_mark)
    SELECT id, method, taskhash, unihash, '' FROM {FORMER_MAPPINGS};

    INSERT OR IGNORE INTO {MAPPINGS} (method, taskhash, unihash, gc_mark)
    SELECT method, taskhash, unihash, '' FROM {FORMER_MAPPINGS} ORDER BY id;

    DROP TABLE {FORMER_MAPPINGS}
""".split(";")


def inspect(connection: sqlite3.Connection, path: str) -> bool:
    """Tell whether a file needs `migrate`; nothing is written.

    Raises:
        NotADatabase: The file holds the tables of some other program.
        sqlite3.Error: The file can't be read as a database.
    """
    tables = _names(connection, "table")
    # Many a program has tables named users or config.
    if tables and not tables & {MAPPINGS, OUTHASHES, FORMER_MAPPINGS, FORMER_TASKS}:
        raise NotADatabase(
            f"{path} holds the tables of another program ({', '.join(sorted(tables)[:4])}), "
            "not of a hash equivalence server: name another file"
        )
    superfluous = _names(connection, "index") & set(UNUSED_INDEXES)
    return bool(superfluous) or not is_readable(connection)


def is_readable(connection: sqlite3.Connection) -> bool:
    """Tell whether a file can be read as it is: more indexes than today's do no harm."""
    tables = _names(connection, "table")
    return (
        set(TABLES) <= tables
        and set(COMPACT if is_compact(connection) else CREATE_INDEXES)
        <= _names(connection, "index") | _names(connection, "trigger")
        and not tables & {FORMER_MAPPINGS, FORMER_TASKS}
    )


def is_compact(connection: sqlite3.Connection) -> bool:
    """Tell whether a file is compact: its outhash rows have no unique constraint.

    The reference adds its indexes to such a file, and can't add a constraint.
    """
    unique = f"SELECT 1 FROM pragma_index_list('{OUTHASHES}') WHERE origin = 'u'"
    return OUTHASHES in _names(connection, "table") and not connection.execute(unique).fetchone()


def migrate(connection: sqlite3.Connection, path: str, *, level: int = logging.WARNING) -> None:
    """Create what is missing, carry over what is in tables of other eras, say what was done.

    Args:
        connection: In autocommit mode.
        path: Names the file in the log.
        level: How serious that is: less where the file is only a copy.

    Raises:
        sqlite3.Error: Something failed; the file is as it was.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = _migrate(connection, path, level)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    for line in done:
        logger.log(level, "%s: %s", path, line)


def _migrate(connection: sqlite3.Connection, path: str, level: int) -> list[str]:
    tables = _names(connection, "table")
    done = []
    # Indexes of tables that are to be dropped go first: their names may be needed again.
    unused = [name for name in UNUSED_INDEXES if name in _names(connection, "index")]
    for name in unused:
        connection.execute(f"DROP INDEX {name}")
    compact = not tables or is_compact(connection)
    created = COMPACT if compact else CREATE_INDEXES
    for statement in (*create_tables(SQLITE_TYPES, compact=compact), *created.values()):
        connection.execute(statement)
    for table, statements, era in (
        (FORMER_MAPPINGS, _CARRY_MAPPINGS, "2021 to 2023"),
        (FORMER_TASKS, _CARRY_TASKS, "2019 to 2021"),
    ):
        if table not in tables:
            continue
        rows = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        logger.log(level, "%s: carrying %d rows of %s over, please wait", path, rows, table)
        for statement in statements:
            connection.execute(statement)
        done.append(
            f"carried {rows} rows of {table} ({era}) over to {MAPPINGS} and {OUTHASHES}; "
            "servers of that time can't read them any more"
        )
    if unused:
        done.append(
            f"dropped the superfluous {'indexes' if unused[1:] else 'index'} {', '.join(unused)}"
        )
    return done


def _names(connection: sqlite3.Connection, kind: str) -> set[str]:
    rows = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = ? AND name NOT LIKE 'sqlite~_%' ESCAPE '~'",
        (kind,),
    )
    return {name for (name,) in rows}
