"""What of the statements is SQLite's own.

A batch of keys goes in as one JSON array, and the answers of look-ups come out as one: that gives
the interpreter lock up once, where each row would want it back. Traps of the planner are sprung
here for good (a test reads ``EXPLAIN QUERY PLAN`` of each): without ``CROSS JOIN`` it may scan the
table for each key, for a list of outhashes it takes the unique index by method alone unless told to
use ``outhash_lookup_v3``, and slices it may take by an index on method, and so go through the whole
table for each, but for ``NOT INDEXED``, which leaves the ids.
"""

from collections.abc import Mapping as Dictionary
from typing import Final

from hashserv.store.schema import BY_ENDING, COLUMNS, MAPPINGS, OUTHASHES, ending
from hashserv.store.statements import WITHOUT_MAPPING, Statements


class SqliteStatements(Statements):
    """The statements for files with the reference's indexes; see `Statements`."""

    join = "CROSS JOIN"
    by_outhash = "INDEXED BY outhash_lookup_v3"
    by_id = "NOT INDEXED"

    lookup = f"""
        SELECT k.key, m.unihash, m.gc_mark FROM json_each(:hashes) AS k
        CROSS JOIN {MAPPINGS} AS m ON m.method = :method AND m.taskhash = k.value
    """

    # Until 2023 `created` was local time without a zone; since then it is UTC with one.
    unused = f"""
        CASE WHEN created LIKE '%+__:__' THEN julianday(created) ELSE julianday(created, 'utc') END
        < julianday(:before) AND {WITHOUT_MAPPING}
    """

    def __init__(self) -> None:
        super().__init__()
        of_unihash = self.having(MAPPINGS, {"unihash": "k.value"}, alias="m")
        self.unihashes = f"SELECT json_group_object(key, unihash) FROM ({self.lookup})"
        self.exists = f"""
            SELECT json_group_array(k.key) FROM json_each(:hashes) AS k
            WHERE EXISTS (SELECT 1 FROM {MAPPINGS} AS m WHERE {of_unihash})
        """
        of_task = {"method": ":method", "taskhash": "k.value"}
        self.outhashes_of_tasks = f"""
            SELECT k.key, o.outhash, o.created FROM json_each(:hashes) AS k
            CROSS JOIN {OUTHASHES} AS o ON {self.having(OUTHASHES, of_task, alias="o")}
        """
        of_outhash = {"method": ":method", "outhash": "k.value"}
        self.oldest_equivalents = f"""
            SELECT c.key, o.created, m.unihash
            FROM (
                SELECT k.key AS key, (
                    SELECT o.id FROM {self.joined(self.by_outhash)}
                    WHERE {self.having(OUTHASHES, of_outhash, alias="o")}
                    ORDER BY o.created, o.id LIMIT 1
                ) AS oldest FROM json_each(:hashes) AS k
            ) AS c
            CROSS JOIN {OUTHASHES} AS o
            CROSS JOIN {MAPPINGS} AS m ON m.method = o.method AND m.taskhash = o.taskhash
            WHERE o.id = c.oldest
        """

    @staticmethod
    def insert(table: str, rows: int) -> str:
        """Return the statement that inserts so many rows, given as one flat list of values."""
        row = f"({', '.join('?' * len(COLUMNS[table]))})"
        return f"INSERT INTO {table} ({', '.join(COLUMNS[table])}) VALUES {', '.join([row] * rows)}"


class CompactStatements(SqliteStatements):
    """The statements for compact files (`schema.COMPACT`)."""

    by_outhash = "INDEXED BY hashserv_outhash"

    def __init__(self) -> None:
        super().__init__()
        end = ending("o.outhash")
        # The index puts endings in order, not outhashes: those are sorted only where an ending has
        # several unihashes, else millions of them would be kept in memory.
        self.split_outputs = f"""
            SELECT count(*) FROM (
                SELECT o.outhash FROM {self.joined(self.by_outhash)}
                WHERE {end} IN (
                    SELECT {end} FROM {self.joined(self.by_outhash)}
                    GROUP BY {end} HAVING min(m.unihash) != max(m.unihash)
                )
                GROUP BY o.method, o.outhash HAVING min(m.unihash) != max(m.unihash)
            ) AS s
        """

    def having(self, table: str, values: Dictionary[str, str], *, alias: str = "") -> str:
        """Return the predicate, with the endings that the indexes hold beside the whole values.

        The + leaves the planner no index but these: not one that the reference has added, by method
        alone; and it keeps it from replacing the column in `substr` by the value that it has to
        have, which no index holds (a scan).
        """
        of = alias and f"{alias}."
        found = [
            f"{ending(of + column)} = {ending(values[column])}"
            for column in BY_ENDING[table]
            if column in values
        ]
        if not found:
            return super().having(table, values, alias=alias)
        whole = [f'+{of}"{column}" = {value}' for column, value in values.items()]
        return " AND ".join((*found, *whole))


STATEMENTS: Final = SqliteStatements()

COMPACT_STATEMENTS: Final = CompactStatements()
