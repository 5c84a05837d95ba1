"""What all engines make of transactions: reporting, removing, collecting."""

from abc import abstractmethod
from collections.abc import Awaitable, Sequence
from collections.abc import Mapping as Dictionary
from functools import partial
from typing import Any

from hashserv.model import Condition, Equivalent, Mapping, MarkedMapping, Outhash, Report
from hashserv.store import statements, transactions
from hashserv.store.base import Store
from hashserv.store.schema import MAPPINGS, OUTHASHES, applies, is_indexed
from hashserv.store.statements import Statements
from hashserv.store.times import Clock
from hashserv.store.transactions import Committed, Transaction, Work


class TransactionalStore(Store):
    """A store that has one transaction after the other.

    Args:
        engine_statements: The engine's own statements.
        clock: Gives rows their `created`.
    """

    def __init__(self, engine_statements: Statements, clock: Clock) -> None:
        self._statements = engine_statements
        self._clock = clock

    @abstractmethod
    def transact(self, work: Work) -> Awaitable[Any]:
        """Run work in a transaction of its own and return its result.

        Raises:
            StoreError: It failed, and changed nothing.
        """

    @abstractmethod
    def _report(self, reports: Sequence[Report]) -> Awaitable[list[str]]:
        """Store reports, together with those of others."""

    # Filling in.

    async def report(self, reports: Sequence[Report]) -> list[str]:
        return await self._report(reports)

    async def add_mappings(self, mappings: Sequence[Mapping]) -> list[str]:
        work = partial(transactions.add_mappings, mappings=mappings)
        unihashes: list[str] = await self.transact(work)
        return unihashes

    async def copy(self, found: Sequence[Equivalent | Outhash]) -> None:
        await self.transact(partial(transactions.copy, found=found))

    async def insert_mappings(self, rows: Sequence[MarkedMapping]) -> int:
        inserted: int = await self.transact(partial(transactions.insert_mappings, rows=rows))
        return inserted

    async def insert_outhashes(self, rows: Sequence[Outhash]) -> int:
        inserted: int = await self.transact(partial(transactions.insert_outhashes, rows=rows))
        return inserted

    # Removing and collecting.

    async def remove(self, condition: Condition) -> int:
        tables = [table for table in (MAPPINGS, OUTHASHES) if applies(condition, table)]
        indexed = [table for table in tables if is_indexed(condition, table)]
        work = partial(transactions.remove_indexed, condition=condition, tables=indexed)
        removed = 0
        counts: list[int] = [transactions.SLICE_ROWS]
        while indexed and max(counts) >= transactions.SLICE_ROWS:
            counts = await self.transact(work)
            removed += sum(counts)
        for table in tables:
            if table not in indexed:
                delete = self._statements.delete_slice(table, statements.matching(condition))
                removed += await self._in_slices(table, delete, condition)
        return removed

    async def mark(self, mark: str, conditions: Sequence[Condition]) -> list[int]:
        counts: list[int] = []
        begun = False
        while not begun or len(counts) < len(conditions):
            rest = conditions[len(counts) :]
            if begun and transactions.needs_scan(rest[0]):
                # In its turn: what others marked before it may no longer match.
                counts.append(await self._mark_in_slices(mark, rest[0]))
            else:
                work = partial(transactions.mark_indexed, mark=mark, conditions=rest)
                counts += await self.transact(work)
                begun = True
        return counts

    async def _mark_in_slices(self, mark: str, condition: Condition) -> int:
        statement = self._statements.mark_slice(statements.matching(condition))
        parameters = {**condition, "new_mark": mark}
        return await self._in_slices(MAPPINGS, statement, parameters, only_during=mark)

    async def sweep(self, mark: str) -> int | None:
        delete = self._statements.delete_slice(MAPPINGS, statements.UNMARKED)
        removed = await self._in_slices(MAPPINGS, delete, {"mark": mark}, only_during=mark)
        ended: bool = await self.transact(partial(transactions.end_collection, mark=mark))
        return removed if ended else None

    async def clean_unused(self, max_age: float) -> int:
        if not max_age >= 0:
            return 0
        delete = self._statements.delete_slice(OUTHASHES, self._statements.unused)
        return await self._in_slices(OUTHASHES, delete, {"before": self._clock.ago(max_age)})

    async def _in_slices(
        self,
        table: str,
        statement: str,
        parameters: Dictionary[str, Any],
        *,
        only_during: str | None = None,
    ) -> int:
        """Run a statement over a whole table and return how many rows it changed.

        Each slice is a transaction of its own, so that reports never wait for the whole.

        Args:
            table: Whose rows it is about.
            statement: Marks or deletes in one slice.
            parameters: Its parameters.
            only_during: Stop when the collection of this mark is not, or no more, under way.
        """
        after = 0

        def work(transaction: Transaction) -> Committed:
            if only_during is not None and transactions.current_mark(transaction) != only_during:
                return Committed(None)
            return transactions.run_slice(transaction, table, statement, parameters, after)

        changed = 0
        while (progress := await self.transact(work)) is not None:
            after, count = progress
            changed += count
        return changed
