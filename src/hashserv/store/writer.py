"""The one writer of an SQLite file: group commit in a thread of its own.

Work that arrives while a transaction runs waits for the next one. Reports are taken together, as
many as are waiting, up to a bound; any other work is a transaction of its own, so that a long
operation, cut into slices, takes turns with the reports.
"""

import asyncio
import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

from hashserv.model import Report
from hashserv.store.checkpoint import Checkpointer, restart_log
from hashserv.store.sqlite_file import explain
from hashserv.store.transactions import Committed

MAX_GROUP: Final = 512
"""Reports in one transaction; a larger batch of one caller still goes in whole."""


class Observer(Protocol):
    """Who is told, in the event loop, before and after each transaction."""

    def before_transaction(self) -> None:
        """Take note that the writer is about to be busy."""

    def after_transaction(self, committed: Committed | None) -> None:
        """Take note of what was committed (`None`: nothing), before anybody is answered."""


class _Pending:
    """Work that waits for its transaction: reports, or some other work."""

    __slots__ = ("done", "reports", "work")

    def __init__(
        self,
        reports: Sequence[Report] = (),
        work: Callable[[sqlite3.Connection], Committed] | None = None,
    ) -> None:
        self.reports = reports
        self.work = work
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def answer(self, result: Any) -> None:
        if not self.done.done():
            self.done.set_result(result)


class Writer:
    """Run transactions on one connection, one after the other.

    Args:
        connection: Used by the writer alone from now on.
        path: Names the file in errors.
        report: Stores a group of reports; its result is a list, an item for each report.
        observer: Is told of each transaction.
        checkpointer: Keeps the log short; closed together with the writer.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: str,
        *,
        report: Callable[[sqlite3.Connection, Sequence[Report]], Committed],
        observer: Observer,
        checkpointer: Checkpointer,
    ) -> None:
        self._connection = connection
        self._path = path
        self._report = report
        self._observer = observer
        self._checkpointer = checkpointer
        self._thread = ThreadPoolExecutor(1, "hashserv-writer")
        self._waiting: deque[_Pending] = deque()
        self._arrived = asyncio.Event()
        self._version = self._data_version()
        self._changes = connection.total_changes
        self._closing = False
        self.busy = False
        """Whether a transaction runs, or has run and is not acknowledged yet."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="hashserv-writer")

    async def report(self, reports: Sequence[Report]) -> list[str]:
        """Store reports in the next transaction, together with those of others.

        Raises:
            StoreError: They are not stored.
        """
        unihashes: list[str] = await self._submit(_Pending(reports))
        return unihashes

    async def run(self, work: Callable[[sqlite3.Connection], Committed]) -> Any:
        """Run work in a transaction of its own and return its result.

        Raises:
            StoreError: It failed, and changed nothing.
        """
        return await self._submit(_Pending(work=work))

    def foreign_change(self) -> bool:
        """Tell whether another process changed the file since last asked; only while not busy.

        SQLite counts for a connection the commits of all others, so the writer's own commits,
        which are all of this process, do not count here.
        """
        version = self._data_version()
        changed = version != self._version
        self._version = version
        return changed

    async def close(self) -> None:
        """Finish what waits, then close the connection. Idempotent."""
        if self._closing:
            return
        self._closing = True
        self._arrived.set()
        await self._task
        loop = asyncio.get_running_loop()
        await self._checkpointer.close()
        await loop.run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()

    async def _submit(self, pending: _Pending) -> Any:
        if self._closing:
            raise RuntimeError("the writer is closed")
        self._waiting.append(pending)
        self._arrived.set()
        return await pending.done

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting or not self._closing:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            group = self._take()
            if not group:
                continue
            self.busy = True
            self._observer.before_transaction()
            committed: Committed | None = None
            try:
                committed = await loop.run_in_executor(self._thread, self._transact, group)
            except Exception as error:  # noqa: BLE001 - whoever waits gets it, whatever it is
                told = explain(error, self._path) if isinstance(error, sqlite3.Error) else error
                for pending in group:
                    pending.fail(told)
            self.busy = False
            self._checkpointer.wrote(self._rows_written())
            self._observer.after_transaction(committed)
            if committed is not None:
                _answer(group, committed.result)

    def _take(self) -> list[_Pending]:
        """Take the next transaction's work; who has gone away meanwhile is left out."""
        group = [self._waiting.popleft()]
        if group[0].work is None:
            size = len(group[0].reports)
            while self._waiting and self._waiting[0].work is None and size < MAX_GROUP:
                group.append(self._waiting.popleft())
                size += len(group[-1].reports)
        return [pending for pending in group if not pending.done.cancelled()]

    def _transact(self, group: list[_Pending]) -> Committed:
        """Run one transaction, in the writer's thread."""
        connection = self._connection
        if self._checkpointer.overdue:
            self._checkpointer.overdue = False
            restart_log(connection)
        connection.execute("BEGIN IMMEDIATE")
        try:
            if group[0].work is not None:
                committed = group[0].work(connection)
            else:
                reports = [report for pending in group for report in pending.reports]
                committed = self._report(connection, reports)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # the first error is the one that counts
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise
        return committed

    def _rows_written(self) -> int:
        before, self._changes = self._changes, self._connection.total_changes
        return self._changes - before

    def _data_version(self) -> int:
        version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return version


def _answer(group: Sequence[_Pending], result: Any) -> None:
    if group[0].work is not None:
        group[0].answer(result)
        return
    at = 0
    for pending in group:
        pending.answer(result[at : at + len(pending.reports)])
        at += len(pending.reports)
