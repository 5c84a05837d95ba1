"""Look-ups in an SQLite file: one batch in the event loop, several at once in threads."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

import msgspec

from hashserv.errors import StoreError
from hashserv.model import MappingKey
from hashserv.store.questions import Questions
from hashserv.store.sqlite_statements import SqliteStatements
from hashserv.store.sqlite_transaction import as_json, by_method

THREADS: Final = 4
"""Threads that read at once. They wait for the disk more than for processors."""

TOGETHER: Final = 128
"""Keys that are looked up at once, of one caller or of several: it takes a millisecond or two."""

_Key = TypeVar("_Key")
_Answer = TypeVar("_Answer")
_DECODE_UNIHASHES: Final = msgspec.json.Decoder(dict[int, str]).decode
_DECODE_PLACES: Final = msgspec.json.Decoder(list[int]).decode


class Readers:
    """Look-ups of all sessions.

    A batch that is alone is looked up where it came in, in the event loop: a thread would have to
    wake up for it, and then the loop. Where several wait, threads take them. Each batch is one step
    of SQLite, which does not hold the interpreter lock meanwhile: the loop goes on, batches share
    the processors, and the disk has several things to look for.

    Args:
        connection: Read in the event loop; it stays the caller's to close.
        connect: Opens a connection for a thread.
        statements: Those for the indexes that the file has.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        connect: Callable[[], sqlite3.Connection],
        statements: SqliteStatements,
    ) -> None:
        self._connection = connection
        self._sql = statements
        # All at once: later there may be no descriptor or thread left, or another file.
        self._opened = [connect() for _ in range(THREADS)]
        self._unused = self._opened.copy()
        self._own = threading.local()
        self._threads = _started()
        self._unihashes = self._questions(self._find_unihashes)
        self._existences = self._questions(self._find_existing)

    async def lookup(self, keys: Sequence[MappingKey]) -> list[str | None]:
        """Return the unihash of each key, or `None`.

        Raises:
            sqlite3.Error: It can't be read.
        """
        return await self._unihashes.answers(keys)

    async def exists(self, unihashes: Sequence[str]) -> list[bool]:
        """Return whether there is a mapping to each unihash.

        Raises:
            sqlite3.Error: It can't be read.
        """
        return await self._existences.answers(unihashes)

    async def close(self) -> None:
        """Answer what was asked, and close the threads' connections; nothing may be asked then."""
        await self._unihashes.finish()
        await self._existences.finish()
        self._threads.shutdown()
        for connection in self._opened:
            connection.close()

    def _questions(
        self, find: Callable[[sqlite3.Connection, Sequence[_Key]], list[_Answer]]
    ) -> Questions[_Key, _Answer]:
        def find_in_thread(keys: Sequence[_Key]) -> list[_Answer]:
            connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
            if connection is None:
                connection = self._own.connection = self._unused.pop()
            return find(connection, keys)

        async def ask(keys: Sequence[_Key]) -> list[_Answer]:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, find_in_thread, keys)

        return Questions(
            ask, at_once=THREADS, together=TOGETHER, alone=partial(find, self._connection)
        )

    def _find_unihashes(
        self, connection: sqlite3.Connection, keys: Sequence[MappingKey]
    ) -> list[str | None]:
        found: list[str | None] = [None] * len(keys)
        for places, parameters in by_method(keys):
            (text,) = connection.execute(self._sql.unihashes, parameters).fetchone()
            for at, unihash in _DECODE_UNIHASHES(text).items():
                found[places[at]] = unihash
        return found

    def _find_existing(
        self, connection: sqlite3.Connection, unihashes: Sequence[str]
    ) -> list[bool]:
        found = [False] * len(unihashes)
        (text,) = connection.execute(self._sql.exists, {"hashes": as_json(unihashes)}).fetchone()
        for at in _DECODE_PLACES(text):
            found[at] = True
        return found


def _started() -> ThreadPoolExecutor:
    """Return the threads, all of which wait for work.

    Raises:
        StoreError: The system does not let this process have so many.
    """
    threads = ThreadPoolExecutor(THREADS, "hashserv-reader")
    together = threading.Barrier(THREADS)
    try:
        for _ in range(THREADS):
            threads.submit(together.wait)
    except RuntimeError as error:
        together.abort()
        raise StoreError(
            f"The system lets this process have no further threads ({error}): raise the limit of "
            "processes (ulimit -u), or of tasks of the service"
        ) from error
    return threads
