"""The one writer of an SQLite file: group commit in a thread of its own.

Work that arrives while a transaction runs waits for the next one. Reports are taken together, as
many as are waiting, up to a bound; any other work is a transaction of its own, so that a long
operation, cut into slices, takes turns with the reports.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Final, Protocol

from hashserv.errors import StoreError
from hashserv.model import Report
from hashserv.store.checkpoint import Checkpointer, restart_log
from hashserv.store.sqlite_file import begin, data_version, explain
from hashserv.store.transactions import Committed

GATHER_TURNS: Final = 8
"""Turns of the event loop without a new report, some 20 µs each, after which a transaction does
not wait for more of them."""

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
        done: asyncio.Future[Any],
        *,
        reports: Sequence[Report] = (),
        work: Callable[[sqlite3.Connection], Committed] | None = None,
    ) -> None:
        self.done = done
        self.reports = reports
        self.work = work

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def answer(self, result: Any) -> None:
        if not self.done.done():
            self.done.set_result(result)


class Writer:
    """Run transactions on one connection, one after the other.

    Args:
        connection: Used by the writer alone from now on; whoever gave it closes it at the end.
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
        self.connection = connection
        self._path = path
        self._report = report
        self._observer = observer
        self._checkpointer = checkpointer
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Pending] = deque()
        self._starting = False
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._version = data_version(connection)
        self._changes = connection.total_changes
        self._groups: SimpleQueue[list[_Pending] | None] = SimpleQueue()
        # A thread and a queue, not an executor: that costs a report twice the hand-overs.
        self._thread = threading.Thread(target=self._work, name="hashserv-writer", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a transaction runs, or has run and is not acknowledged yet."""
        return not self._idle.is_set()

    def report(self, reports: Sequence[Report]) -> asyncio.Future[list[str]]:
        """Store reports in the next transaction, together with those of others.

        Raises:
            StoreError: They are not stored.
        """
        return self._submit(_Pending(self._loop.create_future(), reports=reports))

    def run(self, work: Callable[[sqlite3.Connection], Committed]) -> asyncio.Future[Any]:
        """Run work in a transaction of its own and return its result.

        Raises:
            StoreError: It failed, and changed nothing.
        """
        return self._submit(_Pending(self._loop.create_future(), work=work))

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
        self._closing = True
        while self._waiting or self.busy:
            self._start()
            await self._idle.wait()
        self._groups.put(None)
        await self._checkpointer.close()
        await self._loop.run_in_executor(None, self._thread.join)

    def _submit(self, pending: _Pending) -> asyncio.Future[Any]:
        if self._closing:
            raise StoreError(f"{self._path} is being closed")
        self._waiting.append(pending)
        if not self.busy and not self._starting:
            # At the end of the turn, so that what came with it in this turn goes together.
            self._starting = True
            self._loop.call_soon(self._start)
        return pending.done

    def _start(self) -> None:
        """Hand the next transaction to the thread, if there is one and none is running."""
        self._starting = False
        while self._waiting and not self.busy:
            group = self._take()
            if group:
                self._idle.clear()
                self._observer.before_transaction()
                self._groups.put(group)

    def _finish(self, group: list[_Pending], outcome: Committed | BaseException) -> None:
        """Acknowledge a transaction, in the event loop, and start the next."""
        self._idle.set()
        self._checkpointer.wrote(self._rows_written())
        if isinstance(outcome, Committed):
            self._observer.after_transaction(outcome)
            _answer(group, outcome.result)
        else:
            self._observer.after_transaction(None)
            told = explain(outcome, self._path) if isinstance(outcome, sqlite3.Error) else outcome
            for pending in group:
                pending.fail(told)
        if len(group) + len(self._waiting) > 1:
            self._starting = True
            waiting = len(self._waiting)
            self._gather(len(group) + waiting, waiting, GATHER_TURNS)

    def _gather(self, expected: int, seen: int, patience: int) -> None:
        """Start the next transaction when those just answered have reported again, or soon.

        Builds report one thing after the other: without this, half of them would always wait
        for the transaction of the other half, which takes nearly as long as one for all.
        """
        waiting = len(self._waiting)
        if waiting > seen:
            patience = GATHER_TURNS
        if waiting >= expected or not patience:
            self._start()
        else:
            self._loop.call_soon(self._gather, expected, waiting, patience - 1)

    def _work(self) -> None:
        """Run one transaction after the other, in the writer's thread."""
        while (group := self._groups.get()) is not None:
            outcome: Committed | BaseException
            try:
                outcome = self._transact(group)
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it, whatever it is
                outcome = error
            self._loop.call_soon_threadsafe(self._finish, group, outcome)

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
        connection = self.connection
        if self._checkpointer.overdue:
            self._checkpointer.overdue = False
            restart_log(connection)
        begin(connection)
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
        before, self._changes = self._changes, self.connection.total_changes
        return self._changes - before


def _answer(group: Sequence[_Pending], result: Any) -> None:
    if group[0].work is not None:
        group[0].answer(result)
        return
    at = 0
    for pending in group:
        pending.answer(result[at : at + len(pending.reports)])
        at += len(pending.reports)
