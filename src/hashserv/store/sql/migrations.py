"""Bring the tables of an SQL server up to date; any number of servers may start at once."""

import logging

from sqlalchemy import Connection, inspect, text

from hashserv.errors import NotADatabase
from hashserv.store.schema import (
    FORMER_MAPPINGS,
    INDEXES,
    MAPPINGS,
    TABLES,
    create_tables,
    newer_tables,
)
from hashserv.store.sql.statements import (
    CREATE_STATE,
    FILL_STATE,
    STATE,
    SqlStatements,
)

logger = logging.getLogger("hashserv.store")

_CARRY_MAPPINGS = f"""
    INSERT INTO {MAPPINGS} (method, taskhash, unihash, gc_mark)
    SELECT f.method, f.taskhash, f.unihash, '' FROM {FORMER_MAPPINGS} AS f
    WHERE NOT EXISTS (
        SELECT 1 FROM {MAPPINGS} AS m WHERE m.method = f.method AND m.taskhash = f.taskhash
    ) ORDER BY f.id
"""


def migrate(connection: Connection, statements: SqlStatements, name: str) -> None:
    """Create what is missing, and carry over the mappings of 2023 and before.

    What the reference has beside it (indexes that repeat unique constraints) is left alone.

    Args:
        connection: In a transaction.
        statements: The engine's own.
        name: Names the database in errors.

    Raises:
        NotADatabase: The tables are of a later release.
        sqlalchemy.exc.SQLAlchemyError: Something failed.
    """
    if not _is_outdated(connection, name):
        return
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = 0"))  # large tables take their time
    connection.execute(text(statements.lock_migration))
    try:
        if _is_outdated(connection, name):  # another server may have been quicker
            _migrate(connection, statements, name)
    finally:
        if statements.unlock_migration is not None:
            connection.execute(text(statements.unlock_migration))


def _is_outdated(connection: Connection, name: str) -> bool:
    tables = set(inspect(connection).get_table_names())
    newer = newer_tables(tables)
    if newer:
        raise NotADatabase(
            f"{name} was written by a later release, its tables {', '.join(newer)} are not known "
            "here: update hashserv, or name another database"
        )
    return (
        not {*TABLES, STATE} <= tables
        or FORMER_MAPPINGS in tables
        or bool(_missing_indexes(connection))
        or connection.execute(text(f"SELECT count(*) FROM {STATE}")).scalar() == 0
    )


def _missing_indexes(connection: Connection) -> list[str]:
    """Return which of our indexes no index has in its first columns."""
    inspector = inspect(connection)
    missing = []
    for name, (table, columns) in INDEXES.items():
        led = [index["column_names"][: len(columns)] for index in inspector.get_indexes(table)]
        if list(columns) not in led:
            missing.append(name)
    return missing


def _migrate(connection: Connection, statements: SqlStatements, name: str) -> None:
    for statement in (*create_tables(statements.types), CREATE_STATE, FILL_STATE):
        connection.execute(text(statement))
    for index in _missing_indexes(connection):
        table, columns = INDEXES[index]
        connection.execute(text(f"CREATE INDEX {index} ON {table} ({', '.join(columns)})"))
    if FORMER_MAPPINGS in inspect(connection).get_table_names():
        carried = connection.execute(text(_CARRY_MAPPINGS)).rowcount
        connection.execute(text(f"DROP TABLE {FORMER_MAPPINGS}"))
        logger.warning(
            "%s: carried %d rows of %s (2021 to 2023) over to %s; servers of that time can't read "
            "them any more",
            name,
            carried,
            FORMER_MAPPINGS,
            MAPPINGS,
        )
