"""The one writer of an SQLite file: group commit in a thread of its own."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Protocol

from hashserv.model import Report
from hashserv.store.checkpoint import Checkpointer, restart_log
from hashserv.store.group_commit import Group, GroupCommit
from hashserv.store.sqlite_file import begin, data_version, explain
from hashserv.store.transactions import Committed, Transaction


class Observer(Protocol):
    """Who is told, in the event loop, before and after each transaction."""

    def before_transaction(self) -> None:
        """Take note that the writer is about to be busy."""

    def after_transaction(self, committed: Committed | None) -> None:
        """Take note of what was committed (`None`: nothing), before anybody is answered."""


class Writer(GroupCommit):
    """Run transactions on one connection, one after the other.

    Args:
        connection: Used by the writer alone from now on; whoever gave it closes it at the end.
        path: Names the file in errors.
        transaction: What work is given: the transaction that is under way on the connection.
        report: Stores a group of reports; its result is a list, an item for each report.
        observer: Is told of each transaction.
        checkpointer: Keeps the log short; closed together with the writer.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        *,
        transaction: Transaction,
        report: Callable[[Transaction, Sequence[Report]], Committed],
        observer: Observer,
        checkpointer: Checkpointer,
    ) -> None:
        super().__init__(path)
        self.connection = connection
        self._path = path
        self._transaction = transaction
        self._report = report
        self._observer = observer
        self._checkpointer = checkpointer
        self._version = data_version(connection)
        self._changes = connection.total_changes
        self._groups: SimpleQueue[Group | None] = SimpleQueue()
        # A thread and a queue, not an executor: that costs a report twice the hand-overs.
        self._thread = threading.Thread(target=self._work, name="hashserv-writer", daemon=True)
        self._thread.start()

    def foreign_change(self) -> bool:
        """Tell whether another process changed the file since last asked; only while not busy.

        SQLite counts for a connection the commits of all others, so the writer's own commits,
        which are all of this process, do not count here.
        """
        version = data_version(self.connection)
        changed = version is None or version != self._version
        self._version = version
        return changed

    async def close(self) -> None:
        """Finish what waits, then leave the connection to be closed. Idempotent."""
        if self._closing:
            return
        await super().close()
        self._groups.put(None)
        await self._checkpointer.close()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def _begin(self, group: Group) -> None:
        self._observer.before_transaction()
        self._groups.put(group)

    def _finish(self, group: Group, outcome: Committed | BaseException) -> None:
        # The observer may ask for foreign changes again from here on.
        self._idle.set()
        self._checkpointer.wrote(self._rows_written())
        self._observer.after_transaction(outcome if isinstance(outcome, Committed) else None)
        if isinstance(outcome, sqlite3.Error):
            outcome = explain(outcome, self._path)
        super()._finish(group, outcome)

    def _work(self) -> None:
        """Run one transaction after the other, in the writer's thread."""
        while (group := self._groups.get()) is not None:
            outcome: Committed | BaseException
            try:
                outcome = self._transact(group)
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it, whatever it is
                outcome = error
            self._loop.call_soon_threadsafe(self._finish, group, outcome)

    def _transact(self, group: Group) -> Committed:
        connection = self.connection
        if self._checkpointer.overdue:
            self._checkpointer.overdue = False
            restart_log(connection)
        begin(connection)
        try:
            if group[0].work is not None:
                committed = group[0].work(self._transaction)
            else:
                reports = [report for pending in group for report in pending.reports]
                committed = self._report(self._transaction, reports)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # the first error is the one that counts
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise
        return committed

    def _rows_written(self) -> int:
        before, self._changes = self._changes, self.connection.total_changes
        return self._changes - before
