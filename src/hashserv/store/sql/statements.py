"""What of the statements is the SQL servers' own.

PostgreSQL takes a batch as one JSON text, so that a batch of any size is the same prepared
statement. MySQL's planner does badly with a table made of JSON: it takes a list of values.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from hashserv.store.schema import COLUMNS, MAPPINGS, OUTHASHES, Types
from hashserv.store.statements import WITHOUT_MAPPING, Statements

STATE: Final = "hashserv_state"
"""A table of one row, beside the reference's: whoever writes locks it, so that the servers on one
database write one after the other, and counts in it what the others must know of."""

CREATE_STATE: Final = (
    f"CREATE TABLE IF NOT EXISTS {STATE} "
    "(id INTEGER PRIMARY KEY, removals BIGINT NOT NULL, users BIGINT NOT NULL)"
)
FILL_STATE: Final = (
    f"INSERT INTO {STATE} (id, removals, users) "
    f"SELECT 1, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM {STATE})"
)
READ_STATE: Final = f"SELECT removals, users FROM {STATE} WHERE id = 1"
LOCK: Final = f"{READ_STATE} FOR UPDATE"
ADVANCE: Final = (
    f"UPDATE {STATE} SET removals = removals + :removals, users = users + :users WHERE id = 1"
)


class SqlStatements(Statements, ABC):
    """The statements of the SQL servers; see `Statements`.

    Those about `hashes` give rows that begin with the hash.
    """

    among: str
    """Behind a column: whether it is one of `hashes`."""

    types: Types
    """The types of columns."""

    lock_migration: str
    """Waits until no other server creates tables."""

    unlock_migration: str | None = None
    """Lets others create tables, where the end of the transaction does not."""

    unihashes: str | None = None
    """The unihashes of all of `hashes`, in order, as one JSON array with nulls, where that can be
    had: it costs far less than a row for each."""

    before: str
    """The parameter of that name as a time."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = f"created < {self.before} AND {WITHOUT_MAPPING}"
        self.lookup = (
            f"SELECT m.taskhash, m.unihash, m.gc_mark FROM {MAPPINGS} AS m "
            f"WHERE m.method = :method AND m.taskhash {self.among}"
        )
        self.exists = f"SELECT DISTINCT m.unihash FROM {MAPPINGS} AS m WHERE m.unihash {self.among}"
        self.outhashes_of_tasks = (
            f"SELECT o.taskhash, o.outhash, o.created FROM {OUTHASHES} AS o "
            f"WHERE o.method = :method AND o.taskhash {self.among}"
        )
        self.oldest_equivalents = f"""
            SELECT outhash, created, unihash FROM (
                SELECT o.outhash, o.created, m.unihash,
                    row_number() OVER (PARTITION BY o.outhash ORDER BY o.created, o.id) AS age
                FROM {self.joined()} WHERE o.method = :method AND o.outhash {self.among}
            ) AS s WHERE age = 1
        """

    @abstractmethod
    def hashes(self, values: Sequence[str]) -> Any:
        """Return hashes as the parameter that statements take."""

    def can_have(self, text: str) -> bool:
        """Tell whether a column may hold a text; the server refuses to be asked for others."""
        del text
        return True

    @abstractmethod
    def insert(
        self, table: str, rows: Sequence[tuple[Any, ...]]
    ) -> tuple[str, Dictionary[str, Any] | list[dict[str, Any]]]:
        """Return the statement that inserts rows, and its parameters."""


class PostgresStatements(SqlStatements):
    """The statements for PostgreSQL, and for what speaks its language."""

    among = "= ANY (ARRAY(SELECT json_array_elements_text(CAST(:hashes AS json))))"
    before = "CAST(CAST(:before AS TEXT) AS TIMESTAMP)"
    types = Types(id="BIGSERIAL PRIMARY KEY", key="TEXT", time="TIMESTAMP WITHOUT TIME ZONE")
    lock_migration = "SELECT pg_advisory_xact_lock(7523094288)"

    def __init__(self) -> None:
        super().__init__()
        found = "SELECT m.unihash FROM {} AS m WHERE m.method = :method AND m.taskhash = k.hash"
        self.unihashes = (
            f"SELECT CAST(json_agg(({found.format(MAPPINGS)}) ORDER BY k.nr) AS text) FROM "
            "json_array_elements_text(CAST(:hashes AS json)) WITH ORDINALITY AS k(hash, nr)"
        )
        # As often as a unihash has mappings, one of them is enough.
        self.exists = (
            "SELECT k.hash FROM json_array_elements_text(CAST(:hashes AS json)) AS k(hash) "
            f"WHERE EXISTS (SELECT 1 FROM {MAPPINGS} AS m WHERE m.unihash = k.hash)"
        )

    def hashes(self, values: Sequence[str]) -> str:
        return msgspec.json.encode(values).decode()

    def can_have(self, text: str) -> bool:
        return "\0" not in text

    def insert(
        self, table: str, rows: Sequence[tuple[Any, ...]]
    ) -> tuple[str, Dictionary[str, Any] | list[dict[str, Any]]]:
        columns = COLUMNS[table]
        names = ", ".join(f'"{column}"' for column in columns)
        typed = ", ".join(
            f'"{column}" {"timestamp" if column == "created" else "text"}' for column in columns
        )
        statement = (
            f"INSERT INTO {table} ({names}) SELECT {names} "
            f"FROM json_to_recordset(CAST(:rows AS json)) AS r({typed})"
        )
        listed = [dict(zip(columns, row, strict=True)) for row in rows]
        return statement, {"rows": msgspec.json.encode(listed).decode()}


class MysqlStatements(SqlStatements):
    """The statements for MySQL and MariaDB, in sessions with ANSI_QUOTES.

    Args:
        collation: One that tells all texts apart.
    """

    among = "IN :hashes"
    before = "CAST(:before AS DATETIME(6))"
    lock_migration = "SELECT GET_LOCK('hashserv-tables', 600)"
    unlock_migration = "SELECT RELEASE_LOCK('hashserv-tables')"

    def __init__(self, collation: str) -> None:
        super().__init__()
        self.types = Types(
            id="BIGINT PRIMARY KEY AUTO_INCREMENT",
            key="VARCHAR(255)",  # three of them are as much as an index takes
            long="LONGTEXT",
            time="DATETIME(6)",
            table=f" ENGINE=InnoDB CHARACTER SET utf8mb4 COLLATE {collation}",
        )

    def hashes(self, values: Sequence[str]) -> list[str]:
        return list(values)

    def insert(
        self, table: str, rows: Sequence[tuple[Any, ...]]
    ) -> tuple[str, Dictionary[str, Any] | list[dict[str, Any]]]:
        columns = COLUMNS[table]
        names = ", ".join(f'"{column}"' for column in columns)
        values = ", ".join(f":{column}" for column in columns)
        statement = f"INSERT INTO {table} ({names}) VALUES ({values})"
        return statement, [dict(zip(columns, row, strict=True)) for row in rows]
