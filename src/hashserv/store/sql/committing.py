"""Group commit on an SQL server: one transaction of this process at a time."""

import asyncio
from collections.abc import Awaitable, Callable

from hashserv.errors import StoreError
from hashserv.store import transactions
from hashserv.store.group_commit import Group, GroupCommit
from hashserv.store.sql.problems import BadRow
from hashserv.store.transactions import Committed, Transaction, Work


class SqlCommitter(GroupCommit):
    """Runs transactions as tasks of the event loop.

    Args:
        name: Names the database in errors.
        transact: Runs work in a transaction and returns what was committed, once the listener was
            told.
    """

    def __init__(self, name: str, transact: Callable[[Work], Awaitable[Committed]]) -> None:
        super().__init__(name)
        self._transact = transact
        self._running: asyncio.Task[None] | None = None

    def _begin(self, group: Group) -> None:
        self._running = self._loop.create_task(self._run(group))

    async def _run(self, group: Group) -> None:
        outcome: Committed | BaseException
        try:
            outcome = await self._transact(_work_of(group))
        except BadRow as error:
            outcome = error
            if len(group) > 1:  # one report must not take others down with it
                await self._run_singly(group)
                return
        except Exception as error:  # noqa: BLE001 - whoever waits gets it, whatever it is
            outcome = error
        except asyncio.CancelledError:
            self._finish(group, StoreError(f"{self._name} is being closed"))
            raise
        self._finish(group, outcome)

    async def _run_singly(self, group: Group) -> None:
        for pending in group[:-1]:
            try:
                committed = await self._transact(_work_of([pending]))
            except StoreError as error:
                pending.fail(error)
            else:
                pending.answer(committed.result)
        await self._run(group[-1:])


def _work_of(group: Group) -> Work:
    work = group[0].work
    if work is not None:
        return work
    reports = [report for pending in group for report in pending.reports]

    def store(transaction: Transaction) -> Committed:
        return transactions.store_reports(transaction, reports)

    return store
