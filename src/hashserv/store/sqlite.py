"""The embedded engine: one SQLite file, with threads that read and one that writes."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from collections.abc import Mapping as Dictionary
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from hashserv.errors import StoreError
from hashserv.model import (
    CollectionStatus,
    Equivalent,
    MappingKey,
    MarkedMapping,
    Outhash,
    Report,
)
from hashserv.store import sqlite_file, statements, transactions
from hashserv.store.base import Freshness
from hashserv.store.checkpoint import DEFAULT_MAX_LOG, Checkpointer
from hashserv.store.readers import Readers
from hashserv.store.schema import MAPPINGS, OUTHASHES, TABLES
from hashserv.store.sqlite_statements import COMPACT_STATEMENTS, STATEMENTS, SqliteStatements
from hashserv.store.sqlite_transaction import SqliteTransaction
from hashserv.store.times import Clock
from hashserv.store.transactional import TransactionalStore
from hashserv.store.transactions import Committed, Transaction, Work
from hashserv.store.users import TransactionalUsers
from hashserv.store.wal_index import WalIndex
from hashserv.store.writer import Writer

DEFAULT_PAGE_CACHE: Final = 64 * 1024 * 1024
"""Bytes for database pages. Those of look-ups are few: the system caches the file anyway."""

COUNT_STEPS: Final = 10_000
"""Steps of SQLite's machine after which a count looks whether it is still wanted."""

_Result = TypeVar("_Result")


class SqliteStore(TransactionalStore):
    """A store in one SQLite file, which any release of the reference may have written.

    A batch of look-ups is answered in the event loop, or by threads where there are several
    (`Readers`). Writing is done by one thread, counting, which takes long, by another. Create it
    inside a running event loop.

    Args:
        path: The file; it is created if missing, and brought up to date.
        durable: Whether what was acknowledged survives a loss of power; it always survives a
            crash of the process.
        writable: Whether to open it for writing; without, every method that writes fails.
        max_log: Bytes of the write-ahead log from which on it is copied in a burst of reports, too.
        page_cache: Bytes of memory for database pages, most of them the writer's.

    Raises:
        StoreError: The file can't be used; the message says why and what to do.
    """

    def __init__(
        self,
        path: str,
        *,
        durable: bool = True,
        writable: bool = True,
        max_log: int = DEFAULT_MAX_LOG,
        page_cache: int = DEFAULT_PAGE_CACHE,
    ) -> None:
        self._path = path
        compact = sqlite_file.prepare(path, writable=writable)
        self._sql: SqliteStatements = COMPACT_STATEMENTS if compact else STATEMENTS
        super().__init__(self._sql, Clock())
        self._closed = False
        with self._explained():
            connect = partial(
                sqlite_file.connect,
                path,
                writable=writable,
                busy=sqlite_file.READ_BUSY_SECONDS,
                page_cache=page_cache // 16,
            )
            self._reader = connect()
            self._readers = Readers(self._reader, connect, self._sql)
            self._counting = sqlite_file.connect(
                path, writable=False, busy=sqlite_file.BUSY_SECONDS
            )
            # A count may take minutes, and nobody waits for it once the store is being closed.
            self._counting.set_progress_handler(lambda: self._closed, COUNT_STEPS)
            self._read_version = self._data_version()
            self._writer: Writer | None = None
            if writable:
                self._writer = self._open_writer(
                    durable=durable, max_log=max_log, page_cache=page_cache
                )
        self._wal_index = _wal_index(self._reader, path)
        self._unchanged: bytes | None = None  # the header, when answers of before held
        self._counter = ThreadPoolExecutor(1, "hashserv-counter")
        self.users = TransactionalUsers(self._read, self.transact, self._data_version)

    # Freshness. The header of the wal-index tells at once that nobody has committed anything. Where
    # somebody has, the writer's connection tells the commits of other processes from our own, but
    # only while it is not in use; meanwhile the reader's tells that there was a commit, not whose.

    def freshness(self) -> Freshness:
        if self._wal_index is None:
            return self._ask_freshness()
        header = self._wal_index.header()
        if header == self._unchanged:
            return Freshness.SAME
        freshness = self._ask_freshness()  # after the header was read: a commit between changes it
        self._unchanged = header if freshness is Freshness.SAME else None
        return freshness

    def _ask_freshness(self) -> Freshness:
        if self._closed:
            return Freshness.UNSURE
        if self._writer is not None and self._writer.busy:
            version = self._data_version()
            same = version is not None and version == self._read_version
            return Freshness.SAME if same else Freshness.UNSURE
        return Freshness.CHANGED if self._foreign_change() else Freshness.SAME

    def before_transaction(self) -> None:
        """Note which version readers see; the writer calls this."""
        self._read_version = self._data_version()
        if self._foreign_change():
            self.listener.mappings_removed()

    def after_transaction(self, committed: Committed | None) -> None:
        """Tell the listener what changed; the writer calls this."""
        foreign = self._foreign_change()
        if foreign or (committed is not None and committed.removed):
            self.listener.mappings_removed()
        # What another process did, it did after our commit: what we added may be gone again.
        if committed is not None and committed.added and not foreign:
            self.listener.mappings_added(committed.added)

    def _foreign_change(self) -> bool:
        if self._writer is not None:
            return self._writer.foreign_change()
        before, self._read_version = self._read_version, self._data_version()
        return self._read_version is None or before != self._read_version

    def _data_version(self) -> int | None:
        return sqlite_file.data_version(self._reader)

    # Looking up.

    async def lookup(self, keys: Sequence[MappingKey]) -> list[str | None]:
        if not keys:
            return []
        with self._explained():
            return await self._readers.lookup(keys)

    async def exists(self, unihashes: Sequence[str]) -> list[bool]:
        if not unihashes:
            return []
        with self._explained():
            return await self._readers.exists(unihashes)

    async def task(self, key: MappingKey) -> Equivalent | None:
        return self._equivalent(self._sql.task, key._asdict())

    async def equivalent(self, method: str, outhash: str) -> Equivalent | None:
        return self._equivalent(self._sql.equivalent, {"method": method, "outhash": outhash})

    async def outhash(self, method: str, outhash: str) -> Outhash | None:
        row = self._first(self._sql.outhash, {"method": method, "outhash": outhash})
        return None if row is None else Outhash(*row)

    async def collection(self) -> CollectionStatus:
        def count(transaction: Transaction) -> CollectionStatus:
            mark = transactions.current_mark(transaction)
            counted = transaction.rows(statements.COUNT_MARKED, {"mark": mark or ""})
            kept, total = counted[0]
            return CollectionStatus(kept or 0, total - (kept or 0), mark)

        return await self._count(count)

    async def split_outputs(self) -> int:
        return await self._count(
            lambda transaction: int(transaction.rows(self._sql.split_outputs)[0][0])
        )

    async def usage(self) -> Dictionary[str, int]:
        def count(transaction: Transaction) -> dict[str, int]:
            return {table: transaction.rows(statements.count(table))[0][0] for table in TABLES}

        return await self._count(count)

    def _equivalent(self, statement: str, parameters: Dictionary[str, str]) -> Equivalent | None:
        row = self._first(statement, parameters)
        return None if row is None else Equivalent(Outhash(*row[:-2]), *row[-2:])

    def _first(self, statement: str, parameters: Dictionary[str, str]) -> tuple[Any, ...] | None:
        with self._explained():
            row: tuple[Any, ...] | None = self._reader.execute(statement, parameters).fetchone()
        return row

    def _all(self, statement: str, parameters: Dictionary[str, Any]) -> list[tuple[Any, ...]]:
        with self._explained():
            return self._reader.execute(statement, parameters).fetchall()

    async def _read(
        self, statement: str, parameters: Dictionary[str, Any]
    ) -> list[tuple[Any, ...]]:
        return self._all(statement, parameters)

    async def _count(self, count: Callable[[Transaction], _Result]) -> _Result:
        loop = asyncio.get_running_loop()
        counting = SqliteTransaction(self._counting, self._sql, self._clock)
        with self._explained():
            return await loop.run_in_executor(self._counter, count, counting)

    # Going through whole tables.

    async def mappings_after(self, after: int, limit: int) -> list[MarkedMapping]:
        rows = self._all(statements.rows_after(MAPPINGS), {"after": after, "rows": limit})
        return list(map(MarkedMapping._make, rows))

    async def outhashes_after(self, after: int, limit: int) -> list[Outhash]:
        rows = self._all(statements.rows_after(OUTHASHES), {"after": after, "rows": limit})
        return list(map(Outhash._make, rows))

    # Writing.

    def transact(self, work: Work) -> Awaitable[Any]:
        return self._writing().run(work)

    def _report(self, reports: Sequence[Report]) -> Awaitable[list[str]]:
        return self._writing().report(reports)

    # Opening and closing.

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._writer is not None:
            await self._writer.close()
        await self._readers.close()
        self._reader.close()  # here, where it is used
        wal_index, self._wal_index = self._wal_index, None
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._close_others)
        if wal_index is not None:
            wal_index.close()

    def _close_others(self) -> None:
        """Close them, the writer's last: whoever closes last copies what is left of the log."""
        self._counter.shutdown()
        self._counting.close()
        if self._writer is not None:
            self._writer.connection.close()

    def _open_writer(self, *, durable: bool, max_log: int, page_cache: int) -> Writer:
        connection = sqlite_file.connect(
            self._path,
            writable=True,
            busy=0,
            page_cache=page_cache,
        )
        # NORMAL may lose the last commits with the power, but never damages the file as OFF may.
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # the checkpointer's work
        # A log that is written over syncs several times faster than one that grows.
        connection.execute(f"PRAGMA journal_size_limit = {max_log}")
        return Writer(
            connection,
            self._path,
            transaction=SqliteTransaction(connection, self._sql, self._clock),
            report=transactions.store_reports,
            observer=self,
            checkpointer=Checkpointer(
                sqlite_file.connect(self._path, writable=True, busy=sqlite_file.BUSY_SECONDS),
                max_log=max_log,
            ),
        )

    def _writing(self) -> Writer:
        if self._writer is None:
            raise StoreError(f"{self._path} is open for reading only")
        return self._writer

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        if self._closed:
            raise StoreError(f"{self._path} is being closed")
        try:
            yield
        except sqlite3.Error as error:
            raise sqlite_file.explain(error, self._path) from error


def _wal_index(reader: sqlite3.Connection, path: str) -> WalIndex | None:
    """Return the wal-index; `None` where commits don't go through one, or it can't be seen."""
    try:
        (mode,) = reader.execute("PRAGMA journal_mode").fetchone()
        return WalIndex(path) if mode == "wal" else None
    except (sqlite3.Error, OSError, ValueError):  # ValueError: it is empty
        return None
