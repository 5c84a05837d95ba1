"""What of the statements is the SQL servers' own.

PostgreSQL takes a batch as one JSON text, so that a batch of any size is the same prepared
statement. MySQL's planner does badly with a table made of JSON: it takes a list of values.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Dictionary
from typing import Any, Final

import msgspec

from hashserv.store.schema import COLUMNS, MAPPINGS, OUTHASHES, Types
from hashserv.store.statements import CURRENT_MARK, WITHOUT_MAPPING, Statements

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

    bearing: str | None = None
    """All that bears on a group of reports, where one statement can ask for it: the current mark,
    and a JSON array that has for each of `keys`, in order, an array of three, each of which may be
    null: unihash and mark of its mapping, the outhashes of its task with their `created`, and
    `created` and unihash of the oldest equivalent."""

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
    def inserts(
        self, tables: Dictionary[str, Sequence[tuple[Any, ...]]]
    ) -> Iterable[tuple[str, Dictionary[str, Any] | list[dict[str, Any]]]]:
        """Return the statements that insert rows into tables, and their parameters."""


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
        held = f"FROM {MAPPINGS} AS m WHERE m.method = k.method AND m.taskhash = k.taskhash"
        rows = f"FROM {OUTHASHES} AS o WHERE o.method = k.method AND o.taskhash = k.taskhash"
        oldest = (
            f"FROM {self.joined()} WHERE o.method = k.method AND o.outhash = k.outhash "
            "ORDER BY o.created, o.id LIMIT 1"
        )
        # As text of one length, which compares as the times do.
        created = """to_char(o.created, 'YYYY-MM-DD"T"HH24:MI:SS.US')"""
        self.bearing = f"""
            SELECT ({CURRENT_MARK}), CAST(json_agg(json_build_array(
                (SELECT json_build_array(m.unihash, m.gc_mark) {held}),
                (SELECT json_agg(json_build_array(o.outhash, coalesce({created}, ''))) {rows}),
                (SELECT json_build_array(coalesce({created}, ''), m.unihash) {oldest})
            ) ORDER BY k.nr) AS text)
            FROM ROWS FROM (
                json_to_recordset(CAST(:keys AS json))
                AS (method text, taskhash text, outhash text)
            ) WITH ORDINALITY AS k(method, taskhash, outhash, nr)
        """
        # As often as a unihash has mappings, one of them is enough.
        self.exists = (
            "SELECT k.hash FROM json_array_elements_text(CAST(:hashes AS json)) AS k(hash) "
            f"WHERE EXISTS (SELECT 1 FROM {MAPPINGS} AS m WHERE m.unihash = k.hash)"
        )

    def hashes(self, values: Sequence[str]) -> str:
        return msgspec.json.encode(values).decode()

    def can_have(self, text: str) -> bool:
        return "\0" not in text

    def inserts(
        self, tables: Dictionary[str, Sequence[tuple[Any, ...]]]
    ) -> Iterable[tuple[str, Dictionary[str, Any] | list[dict[str, Any]]]]:
        if not tables:
            return []
        # One round trip for all: what WITH names is done, too.
        *others, last = map(_insert_json, tables)
        named = ", ".join(f"w{nr} AS ({each})" for nr, each in enumerate(others))
        parameters = {table: _as_objects(table, rows) for table, rows in tables.items()}
        return [(f"WITH {named} {last}" if named else last, parameters)]


def _insert_json(table: str) -> str:
    """Return the statement that inserts what the parameter of the table's name holds."""
    columns = COLUMNS[table]
    names = ", ".join(f'"{column}"' for column in columns)
    typed = ", ".join(
        f'"{column}" {"timestamp" if column == "created" else "text"}' for column in columns
    )
    return (
        f"INSERT INTO {table} ({names}) SELECT {names} "
        f"FROM json_to_recordset(CAST(:{table} AS json)) AS r({typed})"
    )


def _as_objects(table: str, rows: Sequence[tuple[Any, ...]]) -> str:
    listed = [dict(zip(COLUMNS[table], row, strict=True)) for row in rows]
    return msgspec.json.encode(listed).decode()


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

    def inserts(
        self, tables: Dictionary[str, Sequence[tuple[Any, ...]]]
    ) -> Iterable[tuple[str, Dictionary[str, Any] | list[dict[str, Any]]]]:
        for table, rows in tables.items():
            columns = COLUMNS[table]
            names = ", ".join(f'"{column}"' for column in columns)
            values = ", ".join(f":{column}" for column in columns)
            statement = f"INSERT INTO {table} ({names}) VALUES ({values})"
            yield statement, [dict(zip(columns, row, strict=True)) for row in rows]
