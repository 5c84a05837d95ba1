"""What of the statements is SQLite's own.

A batch of keys goes in as one JSON array, which gives the interpreter lock up once. Traps of the
planner are sprung here for good (a test reads ``EXPLAIN QUERY PLAN`` of each): without ``CROSS
JOIN`` it may scan the table for each key, for a list of outhashes it takes the unique index by
method alone unless told to use ``outhash_lookup_v3``, and slices it may take by an index on method,
and so go through the whole table for each, but for ``NOT INDEXED``, which leaves the ids.
"""

from typing import Final

from hashserv.store.schema import COLUMNS, MAPPINGS, OUTHASHES
from hashserv.store.statements import WITHOUT_MAPPING, Statements


class SqliteStatements(Statements):
    """The statements of the embedded engine; see `Statements`."""

    join = "CROSS JOIN"
    by_outhash = "INDEXED BY outhash_lookup_v3"
    by_id = "NOT INDEXED"

    lookup = f"""
        SELECT k.key, m.unihash, m.gc_mark FROM json_each(:hashes) AS k
        CROSS JOIN {MAPPINGS} AS m ON m.method = :method AND m.taskhash = k.value
    """

    exists = f"""
        SELECT k.key FROM json_each(:hashes) AS k
        WHERE EXISTS (SELECT 1 FROM {MAPPINGS} AS m WHERE m.unihash = k.value)
    """

    outhashes_of_tasks = f"""
        SELECT k.key, o.outhash, o.created FROM json_each(:hashes) AS k
        CROSS JOIN {OUTHASHES} AS o ON o.method = :method AND o.taskhash = k.value
    """

    oldest_equivalents = f"""
        SELECT c.key, o.created, m.unihash
        FROM (
            SELECT k.key AS key, (
                SELECT o.id FROM {OUTHASHES} AS o INDEXED BY outhash_lookup_v3
                CROSS JOIN {MAPPINGS} AS m ON m.method = o.method AND m.taskhash = o.taskhash
                WHERE o.method = :method AND o.outhash = k.value
                ORDER BY o.created, o.id LIMIT 1
            ) AS oldest FROM json_each(:hashes) AS k
        ) AS c
        CROSS JOIN {OUTHASHES} AS o
        CROSS JOIN {MAPPINGS} AS m ON m.method = o.method AND m.taskhash = o.taskhash
        WHERE o.id = c.oldest
    """

    # Until 2023 `created` was local time without a zone; since then it is UTC with one.
    unused = f"""
        CASE WHEN created LIKE '%+__:__' THEN julianday(created) ELSE julianday(created, 'utc') END
        < julianday(:before) AND {WITHOUT_MAPPING}
    """

    @staticmethod
    def insert(table: str, rows: int) -> str:
        """Return the statement that inserts so many rows, given as one flat list of values."""
        row = f"({', '.join('?' * len(COLUMNS[table]))})"
        return f"INSERT INTO {table} ({', '.join(COLUMNS[table])}) VALUES {', '.join([row] * rows)}"


STATEMENTS: Final = SqliteStatements()
