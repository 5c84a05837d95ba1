"""The embedded engine: one SQLite file; reads in the event loop, writes in one thread."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as Dictionary
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from hashserv.errors import StoreError
from hashserv.model import (
    CollectionStatus,
    Condition,
    Equivalent,
    Mapping,
    MappingKey,
    MarkedMapping,
    Outhash,
    Report,
)
from hashserv.store import sqlite_file, statements, transactions
from hashserv.store.base import Freshness, Store
from hashserv.store.checkpoint import DEFAULT_MAX_LOG, Checkpointer
from hashserv.store.schema import MAPPINGS, OUTHASHES, TABLES, applies, is_indexed
from hashserv.store.sqlite_users import SqliteUsers
from hashserv.store.transactions import Clock, Committed
from hashserv.store.writer import Writer

DEFAULT_PAGE_CACHE: Final = 64 * 1024 * 1024
"""Bytes for database pages. Those of look-ups are few: the system caches the file anyway."""

COUNT_STEPS: Final = 10_000
"""Steps of SQLite's machine after which a count looks whether it is still wanted."""

_Result = TypeVar("_Result")


class SqliteStore(Store):
    """A store in one SQLite file, which any release of the reference may have written.

    Look-ups are answered in the event loop: a batch of a few hundred takes a millisecond or
    two. Writing is done by one thread, counting, which takes long, by another. Create it inside
    a running event loop.

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
        self._clock = Clock()
        self._closed = False
        sqlite_file.prepare(path, writable=writable)
        with self._explained():
            self._reader = sqlite_file.connect(
                path,
                writable=writable,
                busy=sqlite_file.READ_BUSY_SECONDS,
                page_cache=page_cache // 8,
            )
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
        self._counter = ThreadPoolExecutor(1, "hashserv-counter")
        self.users = SqliteUsers(
            self._all, lambda work: self._writing().run(work), self._data_version
        )

    # Freshness. The writer's connection tells the commits of other processes from our own, but
    # only while it is not in use; meanwhile the reader's tells that there was a commit, not whose.

    def freshness(self) -> Freshness:
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
        found: list[str | None] = [None] * len(keys)
        with self._explained():
            for at, unihash, _ in transactions.each_method(self._reader, statements.LOOKUP, keys):
                found[at] = unihash
        return found

    async def exists(self, unihashes: Sequence[str]) -> list[bool]:
        found = [False] * len(unihashes)
        parameters = {"hashes": transactions.as_json(unihashes)}
        with self._explained():
            for (at,) in self._reader.execute(statements.EXISTS, parameters):
                found[at] = True
        return found

    async def task(self, key: MappingKey) -> Equivalent | None:
        return self._equivalent(statements.TASK, key._asdict())

    async def equivalent(self, method: str, outhash: str) -> Equivalent | None:
        return self._equivalent(statements.EQUIVALENT, {"method": method, "outhash": outhash})

    async def outhash(self, method: str, outhash: str) -> Outhash | None:
        row = self._first(statements.OUTHASH, {"method": method, "outhash": outhash})
        return None if row is None else Outhash(*row)

    async def collection(self) -> CollectionStatus:
        def count(connection: sqlite3.Connection) -> CollectionStatus:
            mark = transactions.current_mark(connection)
            parameters = {"mark": mark or ""}
            kept, total = connection.execute(statements.COUNT_MARKED, parameters).fetchone()
            return CollectionStatus(kept or 0, total - (kept or 0), mark)

        return await self._count(count)

    async def usage(self) -> Dictionary[str, int]:
        def count(connection: sqlite3.Connection) -> dict[str, int]:
            return {
                table: connection.execute(statements.count(table)).fetchone()[0] for table in TABLES
            }

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

    async def _count(self, count: Callable[[sqlite3.Connection], _Result]) -> _Result:
        loop = asyncio.get_running_loop()
        with self._explained():
            return await loop.run_in_executor(self._counter, count, self._counting)

    # Going through whole tables.

    async def mappings_after(self, after: int, limit: int) -> list[MarkedMapping]:
        rows = self._all(statements.rows_after(MAPPINGS), {"after": after, "rows": limit})
        return list(map(MarkedMapping._make, rows))

    async def outhashes_after(self, after: int, limit: int) -> list[Outhash]:
        rows = self._all(statements.rows_after(OUTHASHES), {"after": after, "rows": limit})
        return list(map(Outhash._make, rows))

    async def insert_mappings(self, rows: Sequence[MarkedMapping]) -> int:
        inserted: int = await self._writing().run(partial(transactions.insert_mappings, rows=rows))
        return inserted

    async def insert_outhashes(self, rows: Sequence[Outhash]) -> int:
        inserted: int = await self._writing().run(partial(transactions.insert_outhashes, rows=rows))
        return inserted

    # Reporting.

    async def report(self, reports: Sequence[Report]) -> list[str]:
        return await self._writing().report(reports)

    async def add_mappings(self, mappings: Sequence[Mapping]) -> list[str]:
        work = partial(transactions.add_mappings, mappings=mappings)
        unihashes: list[str] = await self._writing().run(work)
        return unihashes

    async def copy(self, found: Sequence[Equivalent | Outhash]) -> None:
        await self._writing().run(partial(transactions.copy, found=found, clock=self._clock))

    # Removing and collecting.

    async def remove(self, condition: Condition) -> int:
        tables = [table for table in (MAPPINGS, OUTHASHES) if applies(condition, table)]
        indexed = [table for table in tables if is_indexed(condition, table)]
        work = partial(transactions.remove_indexed, condition=condition, tables=indexed)
        removed = 0
        counts: list[int] = [transactions.SLICE_ROWS]
        while indexed and max(counts) >= transactions.SLICE_ROWS:
            counts = await self._writing().run(work)
            removed += sum(counts)
        for table in tables:
            if table not in indexed:
                delete = statements.delete_slice(table, statements.matching(condition))
                removed += await self._in_slices(table, delete, condition)
        return removed

    async def mark(self, mark: str, conditions: Sequence[Condition]) -> list[int]:
        counts: list[int | None] = []
        begun = False
        while not begun or len(counts) < len(conditions):
            rest = conditions[len(counts) :]
            work = partial(transactions.mark_indexed, mark=mark, conditions=rest)
            counts += await self._writing().run(work)
            begun = True
        return [
            await self._in_slices(
                MAPPINGS,
                statements.mark_slice(statements.matching(condition)),
                {**condition, "new_mark": mark},
                only_during=mark,
            )
            if count is None
            else count
            for condition, count in zip(conditions, counts, strict=True)
        ]

    async def sweep(self, mark: str) -> int | None:
        delete = statements.delete_slice(MAPPINGS, statements.UNMARKED)
        removed = await self._in_slices(MAPPINGS, delete, {"mark": mark}, only_during=mark)
        ended: bool = await self._writing().run(partial(transactions.end_collection, mark=mark))
        return removed if ended else None

    async def clean_unused(self, max_age: float) -> int:
        delete = statements.delete_slice(OUTHASHES, statements.UNUSED)
        return await self._in_slices(OUTHASHES, delete, {"age": f"-{max_age:f} seconds"})

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

        def work(connection: sqlite3.Connection) -> Committed:
            if only_during is not None and transactions.current_mark(connection) != only_during:
                return Committed(None)
            return transactions.run_slice(connection, table, statement, parameters, after)

        changed = 0
        while (progress := await self._writing().run(work)) is not None:
            after, count = progress
            changed += count
        return changed

    # Opening and closing.

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._writer is not None:
            await self._writer.close()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._close_connections)

    def _close_connections(self) -> None:
        """Close them, the writer's last: whoever closes last copies what is left of the log."""
        self._counter.shutdown()
        self._counting.close()
        self._reader.close()
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
            report=partial(transactions.store_reports, clock=self._clock),
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
        try:
            yield
        except sqlite3.Error as error:
            raise sqlite_file.explain(error, self._path) from error
