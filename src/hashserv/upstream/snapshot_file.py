"""The file that holds a copy of an upstream's mappings, masked as they came (`wire.snapshot`).

It can be made again at any time, and so may be removed at any time. A loss of power may undo what
was added last, a crash does not; how far the copy is stands in the same transaction as its rows.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from hashserv.errors import DatabaseCorrupt, NotADatabase, StoreError
from hashserv.model import MappingKey
from hashserv.store import sqlite_file
from hashserv.wire.snapshot import (
    BEGINNING,
    KEY_BYTES,
    MASKED_BYTES,
    ROW_BYTES,
    Position,
    digests,
    unmask,
)

logger = logging.getLogger("hashserv.upstream")

PAGE_CACHE: Final = 16 * 1024 * 1024
"""Bytes of memory for pages of the file, of which a batch changes most."""

PAGE_BYTES: Final = 8192
"""Of a page of the file. With SQLite's 4,096 a batch writes more pages, and takes longer."""

LOG_PAGES: Final = 2000
"""Pages of the write-ahead log from which on it is copied into the file, 16 MiB."""

_APPLICATION: Final = 0x68736E70
"""By which SQLite's header, and the ``file`` command, tell whose file it is: "hsnp"."""

_LAYOUT: Final = 1

_MAGIC: Final = b"SQLite format 3\0"
_APPLICATION_AT: Final = 68

_CREATE: Final = (
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {_LAYOUT}",
    "CREATE TABLE mappings (key BLOB PRIMARY KEY, masked BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE source (upstream TEXT, id INTEGER, key TEXT, mappings INTEGER)",
)

# Whole batches are one statement: each one more would wait for the interpreter's lock. In the
# order of their keys, rows that share a page are written together.
ADD: Final = f"""
    WITH RECURSIVE n(i) AS (VALUES(0) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :count)
    INSERT OR REPLACE INTO mappings
    SELECT substr(:rows, i * {ROW_BYTES} + 1, {KEY_BYTES}) AS key,
        substr(:rows, i * {ROW_BYTES} + {KEY_BYTES} + 1, {MASKED_BYTES})
    FROM n ORDER BY key
"""

LOOKUP: Final = f"""
    WITH RECURSIVE n(i) AS (VALUES(0) UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :count)
    SELECT n.i, m.masked FROM n
    CROSS JOIN mappings AS m ON m.key = substr(:keys, n.i * {KEY_BYTES} + 1, {KEY_BYTES})
    WHERE length(m.masked) = {MASKED_BYTES}
"""

_SAVE: Final = "UPDATE source SET id = ?, key = ?, mappings = ?"


class UselessFileError(StoreError):
    """The file is ours, but of no use any more; the message says why."""


class SnapshotFile:
    """A copy of one upstream's mappings: looked up in the event loop, added to in a thread.

    A damaged file, or one of another upstream, is begun anew.

    Args:
        path: The file; it is created if missing.
        upstream: The upstream's address.

    Raises:
        StoreError: The file is another program's, or can't be used; the message says why and
            what to do.
    """

    def __init__(self, path: str, upstream: str) -> None:
        self._path = path
        self._upstream = upstream
        self._thread = ThreadPoolExecutor(1, "hashserv-snapshot")
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self.position = BEGINNING
        """How far the copy is."""
        self.mappings = 0
        """How many rows were copied. One that the upstream has replaced counts twice."""
        self.failure: StoreError | None = None
        """Why it is of no use until `mend` is called."""
        _check_place(path)
        try:
            self._open()
        except UselessFileError as error:
            logger.warning("The snapshot is begun anew: %s", error)
            self._renew()

    def lookup(self, keys: Sequence[MappingKey]) -> list[str | None]:
        """Return the unihash of each key, or `None` where the copy has none."""
        found: list[str | None] = [None] * len(keys)
        if self._reader is None or not keys:
            return found
        marks = digests(keys)
        parameters = {"keys": b"".join(each[:KEY_BYTES] for each in marks), "count": len(keys)}
        try:
            for at, masked in self._reader.execute(LOOKUP, parameters).fetchall():
                found[at] = unmask(marks[at], masked)
        except sqlite3.Error as error:
            self._fail(error)
        return found

    async def add(self, rows: bytes, position: Position) -> None:
        """Add rows, and with them how far the copy is now.

        One caller at a time.

        Raises:
            StoreError: They can't be written. Call `mend` before anything else is added.
        """
        mappings = self.mappings + len(rows) // ROW_BYTES
        await self._in_thread(self._add, rows, position, mappings)
        self.position = position
        self.mappings = mappings

    async def mend(self) -> None:
        """Open the file again after a failure, without its rows where it is damaged.

        Raises:
            StoreError: It can't be opened.
        """
        self._close_reader()
        if isinstance(self.failure, UselessFileError):
            logger.warning("The snapshot is begun anew: %s", self.failure)
            await self._in_thread(self._renew)
        else:
            await self._in_thread(self._reopen)

    async def start_anew(self) -> None:
        """Forget all rows.

        Raises:
            StoreError: The file can't be replaced.
        """
        self._close_reader()
        await self._in_thread(self._renew)

    async def close(self) -> None:
        """Finish what is being written, and close. Idempotent."""
        self._close_reader()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._thread.shutdown)
        self._close_writer()

    async def _in_thread(self, work: Callable[..., None], *arguments: object) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, work, *arguments)
        except sqlite3.Error as error:
            raise self._fail(error) from error
        except OSError as error:
            self.failure = StoreError(f"{self._path} can't be replaced: {error.strerror}")
            raise self.failure from error
        except StoreError as error:
            self.failure = error
            raise

    def _fail(self, error: sqlite3.Error) -> StoreError:
        """Take note of an error, and return it in words."""
        self.failure = _explain(error, self._path)
        if isinstance(self.failure, UselessFileError):
            self._close_reader()
        return self.failure

    def _add(self, rows: bytes, position: Position, mappings: int) -> None:
        writer = self._writer
        if writer is None:
            raise StoreError(f"{self._path} is not open")
        writer.execute("BEGIN IMMEDIATE")
        try:
            writer.execute(ADD, {"rows": rows, "count": len(rows) // ROW_BYTES})
            writer.execute(_SAVE, (*position, mappings))
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise

    # Opening.

    def _open(self) -> None:
        try:
            self._writer = sqlite_file.connect(
                self._path,
                writable=True,
                busy=sqlite_file.BUSY_SECONDS,
                page_cache=PAGE_CACHE,
            )
            self._read_source(self._writer)
            self._reader = sqlite_file.connect(
                self._path, writable=False, busy=sqlite_file.READ_BUSY_SECONDS
            )
        except sqlite3.Error as error:
            raise _explain(error, self._path) from error
        self.failure = None

    def _read_source(self, writer: sqlite3.Connection) -> None:
        """Read how far the copy is, and bring the file in order.

        Raises:
            UselessFileError: It is of another release, or of another upstream.
        """
        layout = writer.execute("PRAGMA user_version").fetchone()[0]
        if layout == 0 and not writer.execute("SELECT 1 FROM sqlite_schema").fetchone():
            writer.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            writer.execute("BEGIN IMMEDIATE")
            for statement in _CREATE:
                writer.execute(statement)
            writer.execute("INSERT INTO source VALUES (?, ?, ?, 0)", (self._upstream, *BEGINNING))
            writer.execute("COMMIT")
        elif layout != _LAYOUT:
            raise UselessFileError(f"{self._path} is of another release")
        source = writer.execute("SELECT upstream, id, key, mappings FROM source").fetchone()
        if source is None or source[0] != self._upstream:
            raise UselessFileError(f"{self._path} is of another upstream than {self._upstream}")
        writer.execute("PRAGMA journal_mode = WAL")
        # Loses the last commits with the power, but does not damage the file.
        writer.execute("PRAGMA synchronous = NORMAL")
        writer.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        self.position = Position(*source[1:3])
        self.mappings = source[3]

    def _reopen(self) -> None:
        self._close_writer()
        self._open()

    def _renew(self) -> None:
        self._close_writer()
        self.position = BEGINNING
        self.mappings = 0
        for suffix in ("", "-wal", "-shm"):  # in this order: a log without its file counts nothing
            Path(self._path + suffix).unlink(missing_ok=True)
        self._open()

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


def _explain(error: sqlite3.Error, path: str) -> StoreError:
    explained = sqlite_file.explain(error, path)
    # Our statements are right, so where one is not, the tables are wrong.
    wrong_tables = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    if wrong_tables or isinstance(explained, DatabaseCorrupt | NotADatabase):
        return UselessFileError(f"{path} is damaged: {error}")
    return explained


def _check_place(path: str) -> None:
    """Refuse what is another program's file.

    Raises:
        StoreError: It is, or it can't be read, or there is no place for one.
    """
    place = Path(path)
    if not place.absolute().parent.is_dir():
        raise StoreError(f"The directory {place.parent} of the snapshot does not exist: create it")
    try:
        with place.open("rb") as file:
            head = file.read(_APPLICATION_AT + 4)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"The snapshot {path} can't be read: {error.strerror}") from error
    whose = head[_APPLICATION_AT:]
    if head and not (head.startswith(_MAGIC) and whose == _APPLICATION.to_bytes(4, "big")):
        raise StoreError(
            f"{path} is no snapshot, but some other program's file: name another file for the "
            "snapshot"
        )
