"""Open an SQLite file, and say in plain words what is wrong when that fails."""

import os
import sqlite3
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

from hashserv.errors import (
    DatabaseCorrupt,
    DatabaseFull,
    DatabaseLocked,
    DatabaseReadOnly,
    NotADatabase,
    StoreError,
)
from hashserv.store import migrations

BUSY_SECONDS: Final = 5.0
"""How long opening and counting wait for another process to let go of the file."""

WRITE_BUSY_SECONDS: Final = 20.0
"""How long reports wait for another process: clients wait for 30 s, and an error stops a build."""

WRITE_BUSY_PAUSE: Final = 0.001
"""How long they wait until they try again: short beside a transaction, long beside a try."""

READ_BUSY_SECONDS: Final = 1.0
"""How long a reader waits, in the event loop or in a thread; in WAL mode it only ever does while
another process recovers the file after a crash."""

MAP_BYTES: Final = 2**40
"""How much of a file is read as mapped memory, which costs half as much as calls that copy pages:
address space, not memory. SQLite itself may allow less, commonly 2 GiB."""

LEAST_PAGE_CACHE: Final = 2 * 1024 * 1024
"""Bytes for database pages of a connection that goes through them once."""


def connect(
    path: str, *, writable: bool, busy: float, page_cache: int = LEAST_PAGE_CACHE
) -> sqlite3.Connection:
    """Open a connection to a file, in autocommit mode.

    Args:
        path: The file, which is created if `writable` and missing.
        writable: Whether to open it for writing.
        busy: Seconds to wait for a lock.
        page_cache: Bytes of memory for database pages.

    Raises:
        sqlite3.Error: It can't be opened.
    """
    mode = "rwc" if writable else "ro"
    if not writable and is_frozen(path):
        mode += "&immutable=1"  # else SQLite needs to create a file beside it
    connection = sqlite3.connect(
        f"file:{quote(str(Path(path).absolute()))}?mode={mode}",
        uri=True,
        timeout=busy,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute(f"PRAGMA cache_size = -{page_cache // 1024}")
    connection.execute(f"PRAGMA mmap_size = {MAP_BYTES}")
    # Else each INSERT of many rows keeps what it would undo in a temporary file.
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def begin(connection: sqlite3.Connection) -> None:
    """Begin a transaction that writes, on a connection that was told to wait for no lock.

    SQLite itself waits in steps of up to 100 ms, and so hardly ever gets a lock that another
    busy server holds most of the time.

    Raises:
        sqlite3.Error: Another process kept the file locked all the while.
    """
    end = time.monotonic() + WRITE_BUSY_SECONDS
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
        else:
            return
        time.sleep(WRITE_BUSY_PAUSE)


def data_version(connection: sqlite3.Connection) -> int | None:
    """Return a number that changes when another connection commits; `None` if it can't be had."""
    try:
        version: int = connection.execute("PRAGMA data_version").fetchone()[0]
    except sqlite3.Error:
        return None
    return version


def prepare(path: str, *, writable: bool) -> bool:
    """Check a file, and bring it to WAL mode and today's tables where that is needed.

    What can't be used is left as it was. Returns whether the file is compact (`schema.COMPACT`).

    Raises:
        StoreError: The file can't be used; the message says why and what to do.
    """
    check_place(path)
    existed = Path(path).exists()
    try:
        connection = connect(path, writable=writable, busy=BUSY_SECONDS)
        try:
            outdated = migrations.inspect(connection, path)
            if outdated and not writable and not migrations.is_readable(connection):
                raise DatabaseReadOnly(
                    f"{path} was written by an older server and must be brought up to date: "
                    "start once without --read-only, with permission to write the file"
                )
            if outdated and writable:
                migrations.migrate(connection, path)
            if writable:
                _use_wal(connection, path)  # last: it can't be taken back without a trace
            return migrations.is_compact(connection)
        finally:
            connection.close()
    except sqlite3.Error as error:
        _remove_if_new(path, existed=existed)
        raise explain(error, path) from error


def is_writable(path: str) -> bool:
    """Tell whether a file, or the place where it would be, may be written."""
    place = Path(path)
    return os.access(place.parent, os.W_OK) and (not place.exists() or os.access(place, os.W_OK))


def is_frozen(path: str) -> bool:
    """Tell whether a file can't change, whoever wants to: it is on read-only media."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:  # there is no such file, which opening it will tell
        return False


def explain(error: sqlite3.Error, path: str) -> StoreError:
    """Return an SQLite error as one of ours, in words that name the cause and the cure."""
    code = getattr(error, "sqlite_errorcode", None) or 0
    match code & 0xFF:  # the upper bits say more than is needed here
        case sqlite3.SQLITE_NOTADB:
            return NotADatabase(f"{path} is not an SQLite database: name another file")
        case sqlite3.SQLITE_CORRUPT:
            return DatabaseCorrupt(
                f"{path} is damaged ({error}): restore it from a backup, or save what can be "
                f"saved with: sqlite3 {path} .recover"
            )
        case sqlite3.SQLITE_FULL:
            return DatabaseFull(f"No space left for {path}: free some on its disk")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return DatabaseReadOnly(
                f"{path} can't be written: check the permissions of the file and its directory"
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DatabaseLocked(
                f"{path} is locked by another process: stop it, or wait until it is done"
            )
        case sqlite3.SQLITE_CANTOPEN:
            return DatabaseReadOnly(
                f"{path} can't be opened: check the permissions of the file and its directory"
            )
    return StoreError(f"{path}: {error}")


def check_place(path: str) -> None:
    """Check that a file is, or could be, where a path says.

    Raises:
        StoreError: It can't be there.
    """
    place = Path(path)
    if place.is_dir():
        raise StoreError(f"{path} is a directory: name a file in it")
    if not place.parent.is_dir():
        raise StoreError(f"The directory {place.parent} of the database does not exist: create it")


def _use_wal(connection: sqlite3.Connection, path: str) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreError(
            f"{path} can't be put into WAL mode: its file system lacks the locks or shared memory "
            "for that (NFS does); keep the database on a local disk"
        )


def _remove_if_new(path: str, *, existed: bool) -> None:
    """Leave nothing behind where there was nothing."""
    place = Path(path)
    if not existed and place.exists() and place.stat().st_size == 0:
        place.unlink()
