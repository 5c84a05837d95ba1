"""Whole tables of a store, batch by batch: to read, and to pour into another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple

from hashserv.store import schema
from hashserv.store.base import Store

BATCH_ROWS: Final = 20_000
"""Rows that are read, and written in one transaction. Their hashes are all over the indexes: the
more rows in a transaction, the fewer times each page is written. They take some 20 MB."""

_TURNS: Final = 2
"""Turns of the event loop after which a write that was begun has left the loop."""

Rows = Sequence[Any]
"""Rows as one of the tables has them, with an `id`."""

Progress = Callable[[int], object]
"""Who is told how many rows further the work is."""


class Table(NamedTuple):
    """How the rows of one table are read and inserted."""

    name: str
    """What its rows are called, for people."""

    stored_as: str
    """What the database calls it."""

    after: Callable[[Store, int, int], Awaitable[Rows]]
    insert: Callable[[Store, Rows], Awaitable[int]]


MAPPINGS: Final = Table(
    "mappings",
    schema.MAPPINGS,
    lambda store, after, limit: store.mappings_after(after, limit),
    lambda store, rows: store.insert_mappings(rows),
)
OUTHASHES: Final = Table(
    "outhash rows",
    schema.OUTHASHES,
    lambda store, after, limit: store.outhashes_after(after, limit),
    lambda store, rows: store.insert_outhashes(rows),
)


async def batches(
    table: Table, store: Store, *, after: int = 0, most: int | None = None
) -> AsyncIterator[Rows]:
    """Yield a table's rows in the order of their ids, `most` at most, those `after` an id."""
    while most is None or most > 0:
        rows = (await table.after(store, after, BATCH_ROWS))[:most]
        if not rows:
            return
        yield rows
        after = rows[-1].id
        most = None if most is None else most - len(rows)


async def pour(table: Table, rows: AsyncIterator[Rows], target: Store, progress: Progress) -> int:
    """Insert rows where there are none, reading the next batch while the last is written.

    Args:
        table: Whose rows they are.
        rows: Batches of them.
        target: Where to insert them.
        progress: Is told of each batch that is written.

    Returns how many were inserted.

    Raises:
        StoreError: They can't be read or inserted; batches before may be in the target.
    """
    inserted = 0
    batch = await anext(rows, None)
    while batch:
        writing = asyncio.create_task(_insert(table, target, batch))
        try:
            for _ in range(_TURNS):  # an embedded engine reads in the loop: let the write begin
                await asyncio.sleep(0)
            following = await anext(rows, None)
        finally:
            inserted += await writing
        progress(len(batch))
        batch = following
    return inserted


async def _insert(table: Table, target: Store, rows: Rows) -> int:
    return await table.insert(target, rows)
