"""Open a database, whichever engine it is for."""

import contextlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hashserv.errors import SettingsError, StoreError
from hashserv.store import sqlite_file
from hashserv.store.base import Store
from hashserv.store.checkpoint import DEFAULT_MAX_LOG
from hashserv.store.sqlite import DEFAULT_PAGE_CACHE, SqliteStore

DEFAULT_CONNECTIONS: Final = 6

LEAST_CONNECTIONS: Final = 4
"""One to write, one to watch what other servers do, one to count, one to look up."""

DEFAULT_PATIENCE: Final = 20.0
"""Seconds: clients wait for 30, and an error stops a build."""

_URL: Final = "://"

_FILE_URL: Final = re.compile(r"sqlite(?:\+\w+)?:///(?P<path>[^?]*)(?:\?.*)?")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to open a database. What an engine has no use for, it leaves alone."""

    durable: bool = True
    """Whether what was acknowledged survives a loss of power."""

    writable: bool = True
    """Whether it is needed for writing. A file that could be written is brought up to date also
    without; methods that write fail then all the same where it can't be written."""

    username: str | None = None
    """Who to log in to an SQL server as, in the place of the URL's user."""

    password: str | None = field(default=None, repr=False)
    """That user's password."""

    replica: str | None = None
    """The URL of a read replica of an SQL server, which is asked for mappings first."""

    connections: int = DEFAULT_CONNECTIONS
    """Connections to an SQL server, at most."""

    patience: float = DEFAULT_PATIENCE
    """Seconds for which requests wait for an SQL server that can't be reached."""

    max_log: int = DEFAULT_MAX_LOG
    """Bytes of SQLite's write-ahead log; see `SqliteStore`."""

    page_cache: int = DEFAULT_PAGE_CACHE
    """Bytes of memory for SQLite's pages; see `SqliteStore`."""


def database_file(name: str) -> str:
    """Return the file that a database's name means: SQLAlchemy's URLs of SQLite files are it, too.

    Args:
        name: A path, or ``sqlite:///relative/path`` or ``sqlite+aiosqlite:////absolute/path``. URLs
            of other engines are returned as they are.

    Raises:
        SettingsError: It is a database in memory.
    """
    url = _FILE_URL.fullmatch(name)
    path = url["path"] if url else name
    if path in ("", ":memory:"):
        raise SettingsError(f"The database '{name}' would end with the server: name a file")
    return path


def is_url(database: str) -> bool:
    """Tell whether a database is named by a URL, not by a file's path."""
    return _URL in database


def put_log_away(database: str) -> None:
    """Have what is left of a file's write-ahead log copied and removed, when nobody serves from it.

    Whoever closes a file last does so; of several that close at the same moment none is the last.

    Args:
        database: As of `open_store`; nothing is done where there is no such log.
    """
    if is_url(database):
        return
    file = Path(database).resolve()  # SQLite follows links, too
    if not (file.exists() and file.with_name(f"{file.name}-wal").exists()):
        return
    with contextlib.suppress(StoreError):  # whoever opens the file next is told
        sqlite_file.prepare(str(file), writable=True)


async def open_store(database: str, options: Options) -> Store:
    """Open a database, bringing its tables up to date.

    Args:
        database: An SQLite file, which is created if missing, or an SQL server's URL, of
            SQLAlchemy's form: ``postgresql+asyncpg://USER@HOST/NAME``.
        options: How.

    Raises:
        SettingsError: There is no engine for it.
        StoreError: It can't be used; the message says why and what to do.
    """
    if is_url(database):
        try:
            from hashserv.store.sql.connecting import parse_url  # late: files need none of it
            from hashserv.store.sql.store import SqlStore
        except ModuleNotFoundError as error:
            raise SettingsError(
                "A database's URL needs SQLAlchemy and a driver, which are not installed: "
                "pip install 'hashserv[postgresql]', or 'hashserv[mysql]'"
            ) from error
        return await SqlStore.open(
            parse_url(database, options.username, options.password),
            replica=None
            if options.replica is None
            else parse_url(options.replica, options.username, options.password),
            durable=options.durable,
            writable=options.writable,
            connections=options.connections,
            patience=options.patience,
        )
    return SqliteStore(
        database,
        durable=options.durable,
        writable=options.writable or sqlite_file.is_writable(database),
        max_log=options.max_log,
        page_cache=options.page_cache,
    )
