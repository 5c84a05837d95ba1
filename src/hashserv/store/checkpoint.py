"""Copying the write-ahead log into the database file, when it is least in the way.

Left to itself, SQLite copies in the commit that fills the log: that commit, and all reports behind
it, wait until a thousand scattered pages are on the disk. Reports come in bursts, so here the log
may grow through a burst, where a page that changes often is still written once, and a thread of
its own copies it in the lull after. A burst too long for that is copied while it lasts.
"""

import asyncio
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

logger = logging.getLogger("hashserv.store")

LULL_SECONDS: Final = 1.0
"""Silence of the writer after which the log is copied."""

RETRY_SECONDS: Final = 5.0
"""How long to leave a log alone that can't be copied, since somebody reads what it was before."""

DEFAULT_MAX_LOG: Final = 256 * 1024 * 1024
"""Bytes of the log from which on it is copied in the middle of a burst, too."""

_PAGE_BYTES: Final = 4096
_PAGES_A_COMMIT: Final = 3
_PAGES_A_ROW: Final = 2.5
"""What the log grows by, about: a new row changes a page in each of two indexes, and those of a
commit share the ends of the tables."""

READERS_MILLISECONDS: Final = 1000
"""How long the writer waits for those who read, so that it can start the log anew: longer than a
batch of look-ups takes on a slow disk."""

_SHORT_REST: Final = 2000
"""Pages that the writer itself may copy, to start the log anew, without anybody noticing."""


class _Log(NamedTuple):
    """What a copying found: pages in the log, and how many of them are not in the file yet."""

    pages: int
    rest: int


class Checkpointer:
    """Keeps the log of one file short.

    Args:
        connection: Used by the checkpointer alone from now on.
        max_log: Bytes from which on the log is copied while the writer goes on. Should that not
            be fast enough, the writer waits for it at twice the size. While somebody reads for
            longer than `READERS_MILLISECONDS`, the log can't be started anew and grows.
    """

    def __init__(self, connection: sqlite3.Connection, *, max_log: int = DEFAULT_MAX_LOG) -> None:
        self._connection = connection
        self._max_pages = max_log // _PAGE_BYTES
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "hashserv-checkpoint")
        self._running: asyncio.Future[None] | None = None
        self._lull: asyncio.TimerHandle | None = None
        self._last_write = 0.0
        self._not_before = 0.0
        self._pages = 0.0
        self.overdue = False
        """Whether the writer should call `restart_log` before its next transaction."""

    def wrote(self, rows: int) -> None:
        """Take note of a commit, in the event loop."""
        if not rows:
            return
        self._last_write = self._loop.time()
        self._pages += _PAGES_A_COMMIT + rows * _PAGES_A_ROW
        if self._pages > self._max_pages and self._last_write >= self._not_before:
            self._start()
        elif self._lull is None:
            self._lull = self._loop.call_later(LULL_SECONDS, self._check_lull)

    async def close(self) -> None:
        """Finish a copying that is under way, and close the connection."""
        if self._lull is not None:
            self._lull.cancel()
        if self._running is not None:
            await self._running
        self._thread.shutdown()
        self._connection.close()

    def _check_lull(self) -> None:
        end = self._last_write + LULL_SECONDS
        if self._loop.time() < end:
            self._lull = self._loop.call_at(end, self._check_lull)
        else:
            self._lull = None
            self._start()

    def _start(self) -> None:
        if self._running is None or self._running.done():
            self._running = self._loop.create_task(self._keep_short())

    async def _keep_short(self) -> None:
        """Copy, again if much was written meanwhile, until the writer can start the log anew."""
        before: _Log | None = None
        while (log := await self._loop.run_in_executor(self._thread, self._copy)) is not None:
            self._pages = log.rest
            if log.pages <= self._max_pages:
                return
            if log.rest <= _SHORT_REST or log.pages > 2 * self._max_pages:
                self.overdue = True
                break
            if before is not None and log.rest >= before.rest:
                break  # somebody reads what the log held before
            before = log
        self._not_before = self._loop.time() + RETRY_SECONDS

    def _copy(self) -> _Log | None:
        """Copy what can be copied now, in the checkpointer's thread."""
        row = _checkpoint(self._connection, "PASSIVE")
        if row is None or row[1] < 0:
            return None
        return _Log(row[1], row[1] - row[2])


def restart_log(connection: sqlite3.Connection) -> None:
    """Copy what is left of the log and start it anew, for the writer, between transactions.

    Our own readers overlap, and so there might always be one that needs the log; but who begins now
    does not, and so there is none as soon as those that have begun are done. Other programs may
    read for minutes: while one does, the reports of all workers wait for a try in vain each time.
    """
    connection.execute(f"PRAGMA busy_timeout = {READERS_MILLISECONDS}")
    _checkpoint(connection, "RESTART")
    connection.execute("PRAGMA busy_timeout = 0")


def _checkpoint(connection: sqlite3.Connection, mode: str) -> tuple[int, int, int] | None:
    """Return whether it was hindered, pages in the log, pages copied; `None` after an error."""
    try:
        row: tuple[int, int, int] = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    except sqlite3.Error as error:  # nothing is lost: the log still has it all
        logger.warning("Copying the write-ahead log failed, it will be tried again: %s", error)
        return None
    return row
