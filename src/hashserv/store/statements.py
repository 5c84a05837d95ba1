"""Every SQL statement of the embedded engine, once.

A batch of keys goes in as one JSON array, so that a batch of any size is one prepared statement
and one release of the interpreter lock. Two traps of SQLite's planner are sprung here for good
(a test reads ``EXPLAIN QUERY PLAN`` of each): without ``CROSS JOIN`` it may scan the table for
each key, and for a list of outhashes it takes the unique index by method alone, unless told to
use ``outhash_lookup_v3``.
"""

from typing import Final

from hashserv.model import Condition
from hashserv.store.schema import COLUMNS, CONFIG, MAPPINGS, OUTHASHES, USERS

_OUTHASH_COLUMNS: Final = ", ".join(f"o.{column}" for column in ("id", *COLUMNS[OUTHASHES]))
_JOINED: Final = (
    f"{OUTHASHES} AS o CROSS JOIN {MAPPINGS} AS m "
    "ON m.method = o.method AND m.taskhash = o.taskhash"
)

LOOKUP: Final = f"""
    SELECT k.key, m.unihash, m.gc_mark FROM json_each(:hashes) AS k
    CROSS JOIN {MAPPINGS} AS m ON m.method = :method AND m.taskhash = k.value
"""

EXISTS: Final = f"""
    SELECT k.key FROM json_each(:hashes) AS k
    WHERE EXISTS (SELECT 1 FROM {MAPPINGS} AS m WHERE m.unihash = k.value)
"""

TASK: Final = f"""
    SELECT {_OUTHASH_COLUMNS}, m.unihash, m.gc_mark FROM {_JOINED}
    WHERE o.method = :method AND o.taskhash = :taskhash
    ORDER BY o.created, o.id LIMIT 1
"""

EQUIVALENT: Final = f"""
    SELECT {_OUTHASH_COLUMNS}, m.unihash, m.gc_mark FROM {_JOINED}
    WHERE o.method = :method AND o.outhash = :outhash
    ORDER BY o.created, o.id LIMIT 1
"""

OUTHASH: Final = f"""
    SELECT {_OUTHASH_COLUMNS} FROM {OUTHASHES} AS o
    WHERE o.method = :method AND o.outhash = :outhash
    ORDER BY o.created, o.id LIMIT 1
"""

OUTHASHES_OF_TASKS: Final = f"""
    SELECT k.key, o.outhash, o.created FROM json_each(:hashes) AS k
    CROSS JOIN {OUTHASHES} AS o ON o.method = :method AND o.taskhash = k.value
"""

OLDEST_EQUIVALENTS: Final = f"""
    SELECT c.key, o.created, m.unihash
    FROM (
        SELECT k.key AS key, (
            SELECT o.id FROM {OUTHASHES} AS o INDEXED BY outhash_lookup_v3
            CROSS JOIN {MAPPINGS} AS m ON m.method = o.method AND m.taskhash = o.taskhash
            WHERE o.method = :method AND o.outhash = k.value
            ORDER BY o.created, o.id LIMIT 1
        ) AS oldest FROM json_each(:hashes) AS k
    ) AS c
    CROSS JOIN {_JOINED} WHERE o.id = c.oldest
"""

REMARK: Final = f"UPDATE {MAPPINGS} SET gc_mark = ? WHERE method = ? AND taskhash = ?"

CURRENT_MARK: Final = f"SELECT value FROM {CONFIG} WHERE name = 'gc-mark'"
SET_CURRENT_MARK: Final = (
    f"INSERT INTO {CONFIG} (name, value) VALUES ('gc-mark', ?) "
    "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)

COUNT_MARKED: Final = f"SELECT sum(gc_mark = :mark), count(*) FROM {MAPPINGS}"

SPLIT_OUTPUTS: Final = f"""
    SELECT count(*) FROM (
        SELECT 1 FROM {OUTHASHES} AS o INDEXED BY outhash_lookup_v3
        CROSS JOIN {MAPPINGS} AS m ON m.method = o.method AND m.taskhash = o.taskhash
        GROUP BY o.method, o.outhash HAVING min(m.unihash) != max(m.unihash)
    ) AS split
"""

UNMARKED: Final = "gc_mark != :mark"
UNUSED: Final = f"""
    CASE WHEN created LIKE '%+__:__' THEN julianday(created) ELSE julianday(created, 'utc') END
    < julianday('now', :age)
    AND NOT EXISTS (
        SELECT 1 FROM {MAPPINGS} AS m
        WHERE m.method = {OUTHASHES}.method AND m.taskhash = {OUTHASHES}.taskhash
    )
"""
"""Until 2023 `created` was local time without a zone; since then it is UTC with one."""

_USER: Final = f"SELECT username, token, permissions FROM {USERS}"
FIND_USER: Final = f"{_USER} WHERE username = :username"
ALL_USERS: Final = f"{_USER} ORDER BY id"
ADD_USER: Final = (
    f"INSERT INTO {USERS} (username, token, permissions) "
    "VALUES (:username, :token, :permissions) ON CONFLICT (username) DO NOTHING"
)
SET_PERMISSIONS: Final = f"UPDATE {USERS} SET permissions = :permissions WHERE username = :username"
SET_TOKEN: Final = (
    f"UPDATE {USERS} SET token = :token "
    "WHERE username = :username AND token = coalesce(:instead_of, token)"
)
REMOVE_USER: Final = f"DELETE FROM {USERS} WHERE username = :username"


def insert(table: str, rows: int) -> str:
    """Return the statement that inserts so many rows, given as one flat list of values."""
    row = f"({', '.join('?' * len(COLUMNS[table]))})"
    return f"INSERT INTO {table} ({', '.join(COLUMNS[table])}) VALUES {', '.join([row] * rows)}"


def insert_new(table: str) -> str:
    """Return the statement that inserts a row, if it is not there already."""
    return f"{insert(table, 1)} ON CONFLICT DO NOTHING"


def rows_after(table: str) -> str:
    """Return the statement that reads the next rows of a table, in the order of their ids."""
    columns = ", ".join(("id", *COLUMNS[table]))
    return f"SELECT {columns} FROM {table} WHERE id > :after ORDER BY id LIMIT :rows"


def count(table: str) -> str:
    """Return the statement that counts a table's rows."""
    return f"SELECT count(*) FROM {table}"


def matching(condition: Condition) -> str:
    """Return the predicate of a condition; its values are parameters of the columns' names."""
    return " AND ".join(f'"{column}" = :{column}' for column in condition)


def mark_matching(condition: Condition) -> str:
    """Return the statement that marks some mappings that an indexed condition matches."""
    some = (
        f"SELECT id FROM {MAPPINGS} WHERE {matching(condition)} "
        "AND gc_mark != :new_mark LIMIT :rows"
    )
    return f"UPDATE {MAPPINGS} SET gc_mark = :new_mark WHERE id IN ({some})"


def count_matching(condition: Condition) -> str:
    """Return the statement that counts the mappings that an indexed condition matches."""
    return f"SELECT count(*) FROM {MAPPINGS} WHERE {matching(condition)}"


def delete_matching(table: str, condition: Condition) -> str:
    """Return the statement that deletes some rows that an indexed condition matches."""
    some = f"SELECT id FROM {table} WHERE {matching(condition)} LIMIT :rows"
    return f"DELETE FROM {table} WHERE id IN ({some})"


def mark_slice(predicate: str) -> str:
    """Return the statement that marks what a predicate matches in a slice of the mappings."""
    return f"UPDATE {MAPPINGS} NOT INDEXED SET gc_mark = :new_mark {_in_slice(predicate)}"


def delete_slice(table: str, predicate: str) -> str:
    """Return the statement that deletes what a predicate matches in a slice of a table."""
    return f"DELETE FROM {table} NOT INDEXED {_in_slice(predicate)}"


def slice_end(table: str) -> str:
    """Return the statement that finds the last id of the next slice of a table."""
    next_ids = f"SELECT id FROM {table} WHERE id > :after ORDER BY id LIMIT :rows"
    return f"SELECT max(id) FROM ({next_ids})"


def _in_slice(predicate: str) -> str:
    # NOT INDEXED leaves the ids; else the planner may take an index by method, and so go
    # through the whole table for each slice.
    return f"WHERE id > :after AND id <= :end AND {predicate}"
