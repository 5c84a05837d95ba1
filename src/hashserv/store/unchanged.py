"""Read a database and leave it as it is, whatever era it is of."""

import logging
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hashserv.errors import StoreError
from hashserv.store import migrations, sqlite_file
from hashserv.store.base import Store
from hashserv.store.opening import Options, is_url, open_store
from hashserv.store.sqlite import SqliteStore


@asynccontextmanager
async def open_unchanged(database: str, options: Options) -> AsyncIterator[Store]:
    """Open a database for reading; nothing of it is changed, and nothing created.

    A file that can't be read as it is, for it is of another era, is copied aside, and the copy
    is brought up to date; that needs room for it in the directory for temporary files. A server
    may go on working with the database.

    Args:
        database: As for `open_store`.
        options: As for `open_store`, but for `writable`.

    Raises:
        SettingsError: There is no engine for it.
        StoreError: There is no such file, or it can't be used.
    """
    if is_url(database):
        async with _closing(await open_store(database, replace(options, writable=False))) as store:
            yield store
    elif is_readable(database):
        with _without_trace(database):
            reading = SqliteStore(database, writable=False, page_cache=options.page_cache)
            async with _closing(reading) as store:
                yield store
    else:
        async with open_aside(database) as store:
            yield store


@asynccontextmanager
async def open_aside(file: str | None) -> AsyncIterator[Store]:
    """Open a temporary database, for reading and writing; it is removed afterwards.

    Args:
        file: The SQLite file that it is a copy of; with `None` it is empty.

    Raises:
        StoreError: The file can't be used, or there is no room for a copy.
    """
    with TemporaryDirectory(prefix="hashserv-") as directory:
        aside = str(Path(directory) / "aside.db")
        if file is not None:
            with _explained(file):
                _copy_aside(file, aside)
        async with _closing(SqliteStore(aside, durable=False)) as store:
            yield store


def is_readable(file: str) -> bool:
    """Tell whether an SQLite file can be read as it is, without being brought up to date.

    Raises:
        StoreError: There is no such file, or it can't be used.
    """
    sqlite_file.check_place(file)
    if not Path(file).exists():
        raise StoreError(f"There is no file {file}: name a database that exists")
    if _needs_side_files(file):
        return False
    with (
        _explained(file),
        _without_trace(file),
        closing(_connect(file, writable=False)) as connection,
    ):
        return not migrations.inspect(connection, file) or migrations.is_readable(connection)


def _copy_aside(file: str, aside: str) -> None:
    if _needs_side_files(file):
        shutil.copyfile(file, aside)
    else:
        with (
            _without_trace(file),
            closing(_connect(file, writable=False)) as connection,
            closing(sqlite3.connect(aside)) as copied,
        ):
            connection.backup(copied)
    with closing(_connect(aside, writable=True)) as connection:
        migrations.inspect(connection, file)
        connection.execute("PRAGMA synchronous = OFF")
        migrations.migrate(connection, aside, level=logging.DEBUG)


def _connect(file: str, *, writable: bool) -> sqlite3.Connection:
    return sqlite_file.connect(file, writable=writable, busy=sqlite_file.BUSY_SECONDS)


def _needs_side_files(file: str) -> bool:
    """Tell whether SQLite would have to create files beside this one, where it may not.

    Nobody has such a file open: whoever writes to it has created them.
    """
    return not (
        os.access(Path(file).parent, os.W_OK)
        or Path(f"{file}-wal").exists()
        or sqlite_file.is_frozen(file)
    )


@contextmanager
def _without_trace(file: str) -> Iterator[None]:
    """Remove the empty log that SQLite leaves beside a file that was only read.

    Only SQLite knows whether another process uses the log by now: whoever could write, and is
    the last to close the file, removes it.
    """
    log = Path(f"{file}-wal")
    existed = log.exists()
    try:
        yield
    finally:
        if log.exists() and not existed and sqlite_file.is_writable(file):
            with suppress(sqlite3.Error), closing(_connect(file, writable=True)) as connection:
                connection.execute("PRAGMA schema_version")


@asynccontextmanager
async def _closing(store: Store) -> AsyncIterator[Store]:
    try:
        yield store
    finally:
        await store.close()


@contextmanager
def _explained(file: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise sqlite_file.explain(error, file) from error
    except OSError as error:
        raise StoreError(f"{file} can't be copied aside: {error.strerror}") from error
