"""Every SQL statement that the engines share, once; what differs, each engine's class adds.

Parameters are named (``:name``). A batch of keys is one parameter, `hashes`, so that a batch of
any size is one prepared statement.
"""

from collections.abc import Iterable
from collections.abc import Mapping as Dictionary
from typing import Final

from hashserv.model import Condition
from hashserv.store.schema import COLUMNS, CONFIG, MAPPINGS, OUTHASHES, USERS

OUTHASH_COLUMNS: Final = ", ".join(f'o."{column}"' for column in ("id", *COLUMNS[OUTHASHES]))

CURRENT_MARK: Final = f"SELECT value FROM {CONFIG} WHERE name = 'gc-mark'"

SET_CURRENT_MARK: Final = f"UPDATE {CONFIG} SET value = :mark WHERE name = 'gc-mark'"
ADD_CURRENT_MARK: Final = f"INSERT INTO {CONFIG} (name, value) VALUES ('gc-mark', :mark)"

REMARK: Final = (
    f"UPDATE {MAPPINGS} SET gc_mark = :mark WHERE method = :method AND taskhash = :taskhash"
)

COUNT_MARKED: Final = (
    f"SELECT sum(CASE WHEN gc_mark = :mark THEN 1 ELSE 0 END), count(*) FROM {MAPPINGS}"
)

UNMARKED: Final = "gc_mark != :mark"

WITHOUT_MAPPING: Final = f"""NOT EXISTS (
    SELECT 1 FROM {MAPPINGS} AS m
    WHERE m.method = {OUTHASHES}.method AND m.taskhash = {OUTHASHES}.taskhash
)"""

_USER: Final = f"SELECT username, token, permissions FROM {USERS}"
FIND_USER: Final = f"{_USER} WHERE username = :username"
ALL_USERS: Final = f"{_USER} ORDER BY id"
ADD_USER: Final = (
    f"INSERT INTO {USERS} (username, token, permissions) "
    "SELECT :username, :token, :permissions "
    f"WHERE NOT EXISTS (SELECT 1 FROM {USERS} WHERE username = :username)"
)
SET_PERMISSIONS: Final = f"UPDATE {USERS} SET permissions = :permissions WHERE username = :username"
SET_TOKEN: Final = (
    f"UPDATE {USERS} SET token = :token "
    "WHERE username = :username AND token = coalesce(:instead_of, token)"
)
REMOVE_USER: Final = f"DELETE FROM {USERS} WHERE username = :username"


def count(table: str) -> str:
    """Return the statement that counts a table's rows."""
    return f"SELECT count(*) FROM {table}"


def rows_after(table: str) -> str:
    """Return the statement that reads the next rows of a table, in the order of their ids."""
    columns = ", ".join(f'"{column}"' for column in ("id", *COLUMNS[table]))
    return f"SELECT {columns} FROM {table} WHERE id > :after ORDER BY id LIMIT :rows"


def matching(condition: Condition) -> str:
    """Return the predicate of a condition; its values are parameters of the columns' names."""
    return " AND ".join(f'"{column}" = :{column}' for column in condition)


def slice_end(table: str) -> str:
    """Return the statement that finds the last id of the next slice of a table."""
    next_ids = f"SELECT id FROM {table} WHERE id > :after ORDER BY id LIMIT :rows"
    return f"SELECT max(id) FROM ({next_ids}) AS s"


class Statements:
    """The statements of one engine that are not the same for all.

    Those about `hashes` give rows that begin with what `Transaction.each` makes the place of the
    key of.
    """

    join = "JOIN"
    """How outhash rows are joined to their mappings."""

    by_outhash = ""
    """Goes behind the table of outhash rows where its index of outhashes is to be gone by."""

    by_id = ""
    """Goes behind a table's name where its ids are to be gone by."""

    lookup: str
    """Unihash and gc mark of each of `hashes`, which are taskhashes of `method`."""

    exists: str
    """Which of `hashes` is the unihash of some mapping."""

    outhashes_of_tasks: str
    """Outhash and `created` of all rows of `hashes`, which are taskhashes of `method`."""

    oldest_equivalents: str
    """`created` and unihash of the oldest row that has a mapping, for each of `hashes`, which are
    outhashes of `method`."""

    unused: str
    """The predicate of outhash rows from before `before` that have no mapping."""

    def __init__(self) -> None:
        rows = f"SELECT {OUTHASH_COLUMNS}"
        oldest = "ORDER BY o.created, o.id LIMIT 1"
        of_task = f"WHERE {self.having(OUTHASHES, _named(('method', 'taskhash')), alias='o')}"
        of_outhash = f"WHERE {self.having(OUTHASHES, _named(('method', 'outhash')), alias='o')}"
        joined = f"{rows}, m.unihash, m.gc_mark FROM {self.joined()}"
        self.task = f"{joined} {of_task} {oldest}"
        """The oldest row of a taskhash that has a mapping."""
        self.equivalent = f"{joined} {of_outhash} {oldest}"
        """The oldest row of an outhash that has a mapping."""
        self.outhash = f"{rows} FROM {OUTHASHES} AS o {of_outhash} {oldest}"
        """The oldest row of an outhash."""
        self.split_outputs = f"""
            SELECT count(*) FROM (
                SELECT o.outhash FROM {self.joined(self.by_outhash)}
                GROUP BY o.method, o.outhash HAVING min(m.unihash) != max(m.unihash)
            ) AS s
        """
        """How many outhashes, by method, have more than one unihash."""

    @classmethod
    def joined(cls, by: str = "") -> str:
        """Return outhash rows as `o`, gone by an index, joined to their mappings as `m`."""
        return (
            f"{OUTHASHES} AS o {by} {cls.join} {MAPPINGS} AS m "
            "ON m.method = o.method AND m.taskhash = o.taskhash"
        )

    def having(self, table: str, values: Dictionary[str, str], *, alias: str = "") -> str:
        """Return the predicate of rows that have some values, which an index leads to.

        Args:
            table: Whose rows.
            values: An expression for each column.
            alias: What the table is called.
        """
        del table
        of = alias and f"{alias}."
        return " AND ".join(f'{of}"{column}" = {value}' for column, value in values.items())

    def mark_matching(self, condition: Condition) -> str:
        """Return the statement that marks some mappings that an indexed condition matches."""
        unmarked = f"{self.having(MAPPINGS, _named(condition))} AND gc_mark != :new_mark"
        some = _some(MAPPINGS, unmarked)
        return f"UPDATE {MAPPINGS} SET gc_mark = :new_mark WHERE id IN ({some})"

    def count_matching(self, condition: Condition) -> str:
        """Return the statement that counts the mappings that an indexed condition matches."""
        return f"SELECT count(*) FROM {MAPPINGS} WHERE {self.having(MAPPINGS, _named(condition))}"

    def delete_matching(self, table: str, condition: Condition) -> str:
        """Return the statement that deletes some rows that an indexed condition matches."""
        some = _some(table, self.having(table, _named(condition)))
        return f"DELETE FROM {table} WHERE id IN ({some})"

    def mark_slice(self, predicate: str) -> str:
        """Return the statement that marks what a predicate matches in a slice of the mappings."""
        return f"UPDATE {MAPPINGS} {self.by_id} SET gc_mark = :new_mark {_in_slice(predicate)}"

    def delete_slice(self, table: str, predicate: str) -> str:
        """Return the statement that deletes what a predicate matches in a slice of a table."""
        return f"DELETE FROM {table} {self.by_id} {_in_slice(predicate)}"


def _in_slice(predicate: str) -> str:
    return f"WHERE id > :after AND id <= :end AND {predicate}"


def _some(table: str, predicate: str) -> str:
    # A derived table: MySQL takes no LIMIT, and not the table that changes, right within IN.
    return f"SELECT id FROM (SELECT id FROM {table} WHERE {predicate} LIMIT :rows) AS s"


def _named(columns: Iterable[str]) -> dict[str, str]:
    """Return the parameters of the columns' names as their values."""
    return {column: f":{column}" for column in columns}
