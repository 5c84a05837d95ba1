"""Group commit: one transaction at a time, for all who reported while the last one ran.

Work that arrives while a transaction runs waits for the next one. Reports are taken together, as
many as are waiting, up to a bound; any other work is a transaction of its own, so that a long
operation, cut into slices, takes turns with the reports.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from hashserv.errors import StoreError
from hashserv.model import Report
from hashserv.store.transactions import Committed, Work

GATHER_TURNS: Final = 8
"""Turns of the event loop without a new report, some 20 µs each, after which a transaction does
not wait for more of them."""

MAX_GROUP: Final = 512
"""Reports in one transaction; a larger batch of one caller still goes in whole."""


_FIRST_PURGE: Final = 1024
"""Waiting callers, from which on those that have gone away are looked for."""


class Pending:
    """Work that waits for its transaction: reports, or some other work."""

    __slots__ = ("done", "reports", "work")

    def __init__(
        self,
        done: asyncio.Future[Any],
        *,
        reports: Sequence[Report] = (),
        work: Work | None = None,
    ) -> None:
        self.done = done
        self.reports = reports
        self.work = work

    def fail(self, error: BaseException) -> None:
        """Let whoever waits have an error."""
        if not self.done.done():
            self.done.set_exception(error)

    def answer(self, result: Any) -> None:
        """Let whoever waits have the result."""
        if not self.done.done():
            self.done.set_result(result)


Group = list[Pending]
"""What is one transaction: some reports, or one other work."""


class GroupCommit(ABC):
    """Forms transactions of what arrives, and hands one after the other to an engine.

    Args:
        name: Names the database in errors.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Pending] = deque()
        self._purge_at = _FIRST_PURGE
        self._starting = False
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def busy(self) -> bool:
        """Whether a transaction runs, or has run and is not acknowledged yet."""
        return not self._idle.is_set()

    def report(self, reports: Sequence[Report]) -> asyncio.Future[list[str]]:
        """Store reports in the next transaction, together with those of others.

        Raises:
            StoreError: They are not stored.
        """
        return self._submit(Pending(self._loop.create_future(), reports=reports))

    def run(self, work: Work) -> asyncio.Future[Any]:
        """Run work in a transaction of its own and return its result.

        Raises:
            StoreError: It failed, and changed nothing.
        """
        return self._submit(Pending(self._loop.create_future(), work=work))

    async def close(self) -> None:
        """Finish what waits. Idempotent."""
        self._closing = True
        while self._waiting or self.busy:
            self._start()
            await self._idle.wait()

    @abstractmethod
    def _begin(self, group: Group) -> None:
        """Begin a transaction, which ends in a call of `_finish` in the event loop."""

    def _finish(self, group: Group, outcome: Committed | BaseException) -> None:
        """Acknowledge a transaction and start the next."""
        self._idle.set()
        acknowledge(group, outcome)
        if len(group) + len(self._waiting) > 1:
            self._starting = True
            waiting = len(self._waiting)
            self._gather(len(group) + waiting, waiting, GATHER_TURNS)

    def _submit(self, pending: Pending) -> asyncio.Future[Any]:
        if self._closing:
            raise StoreError(f"{self._name} is being closed")
        if len(self._waiting) >= self._purge_at:
            self._purge()
        self._waiting.append(pending)
        if not self.busy and not self._starting:
            # At the end of the turn, so that what came with it in this turn goes together.
            self._starting = True
            self._loop.call_soon(self._start)
        return pending.done

    def _purge(self) -> None:
        """Drop what nobody waits for any more, while a transaction takes long.

        So there are at most twice as many as wait.
        """
        self._waiting = deque(each for each in self._waiting if not each.done.cancelled())
        self._purge_at = max(_FIRST_PURGE, 2 * len(self._waiting))

    def _start(self) -> None:
        """Begin the next transaction, if there is one and none is running."""
        self._starting = False
        while self._waiting and not self.busy:
            group = self._take()
            if group:
                self._idle.clear()
                self._begin(group)

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

    def _take(self) -> Group:
        """Take the next transaction's work; who has gone away meanwhile is left out."""
        group = [self._waiting.popleft()]
        if group[0].work is None:
            size = len(group[0].reports)
            while self._waiting and self._waiting[0].work is None and size < MAX_GROUP:
                group.append(self._waiting.popleft())
                size += len(group[-1].reports)
        return [pending for pending in group if not pending.done.cancelled()]


def acknowledge(group: Group, outcome: Committed | BaseException) -> None:
    """Let all of a group have their part of the result, or the error."""
    if isinstance(outcome, BaseException):
        for pending in group:
            pending.fail(outcome)
        return
    if group[0].work is not None:
        group[0].answer(outcome.result)
        return
    at = 0
    for pending in group:
        pending.answer(outcome.result[at : at + len(pending.reports)])
        at += len(pending.reports)
