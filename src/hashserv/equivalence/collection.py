"""Removing: by condition, by garbage collection, by age (PROTOCOL.md §5, §8.3)."""

import asyncio
from collections.abc import Sequence

from hashserv.errors import InvokeError
from hashserv.model import CollectionStatus, Condition
from hashserv.store.base import Store
from hashserv.store.schema import QUERY_COLUMNS, unknown_columns


class Collection:
    """What administrators remove from a store, and the one garbage collection.

    Args:
        store: Where to remove it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sweeps: dict[str, asyncio.Task[int | None]] = {}

    def query_columns(self) -> list[str]:
        """Return the columns that a condition may name."""
        return sorted({column for columns in QUERY_COLUMNS.values() for column in columns})

    async def remove(self, condition: Condition) -> int:
        """Remove what a condition matches, from each table that has all its columns.

        Raises:
            InvokeError: The condition names an unknown column.
        """
        check_condition(condition)
        return await self._store.remove(condition)

    async def mark(self, mark: str, conditions: Sequence[Condition]) -> list[int]:
        """Start or go on with a collection; mark what each condition matches, for keeping.

        Returns how many mappings each condition matched.

        Raises:
            InvokeError: A condition names an unknown column; nothing is marked.
        """
        for condition in conditions:
            check_condition(condition)
        return await self._store.mark(mark, conditions)

    async def status(self) -> CollectionStatus:
        """Count what the collection keeps and removes."""
        return await self._store.collection()

    async def sweep(self, mark: str) -> int:
        """Remove what the collection has not marked, end it, and return how many went.

        A sweep goes on when its client gives up: BitBake's does after 30 seconds, and asks
        again. Who asks for a sweep that is under way waits for it, and gets the same answer.

        Raises:
            InvokeError: The mark is not the current one.
        """
        sweep = self._sweeps.get(mark)
        if sweep is None:
            sweep = asyncio.get_running_loop().create_task(self._store.sweep(mark))
            self._sweeps[mark] = sweep
            sweep.add_done_callback(lambda _: self._sweeps.pop(mark))
        removed = await asyncio.shield(sweep)
        if removed is None:
            raise InvokeError(f"'{mark}' is not the current mark. Refusing to sweep")
        return removed

    async def clean_unused(self, max_age: float) -> int:
        """Remove outhash rows older than `max_age` seconds without a mapping; return how many.

        Nothing is older than a negative age.
        """
        return 0 if max_age < 0 else await self._store.clean_unused(max_age)

    async def close(self) -> None:
        """Stop sweeps that are under way; the collection goes on when it is swept again."""
        for sweep in list(self._sweeps.values()):
            sweep.cancel()
        await asyncio.gather(*self._sweeps.values(), return_exceptions=True)


def check_condition(condition: Condition) -> None:
    """Refuse a condition that names an unknown column.

    Raises:
        InvokeError: It does.
    """
    unknown = unknown_columns(condition)
    if unknown:
        named = ", ".join(name[:40] for name in unknown[:5])
        raise InvokeError(
            f"Unknown column {named} in the condition: get-db-query-columns lists those there are"
        )
