"""Open a database, whichever engine it is for."""

from dataclasses import dataclass, field
from typing import Final

from hashserv.errors import SettingsError
from hashserv.store import sqlite_file
from hashserv.store.base import Store
from hashserv.store.checkpoint import DEFAULT_MAX_LOG
from hashserv.store.sqlite import DEFAULT_PAGE_CACHE, SqliteStore

_URL: Final = "://"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to open a database. What an engine has no use for, it leaves alone."""

    durable: bool = True
    """Whether what was acknowledged survives a loss of power."""

    writable: bool = True
    """Whether it is needed for writing. A file that could be written is brought up to date also
    without; methods that write fail then all the same where it can't be written."""

    username: str | None = None
    """Who to log in as, if the database wants a login and its URL names none."""

    password: str | None = field(default=None, repr=False)
    """That user's password."""

    max_log: int = DEFAULT_MAX_LOG
    """Bytes of SQLite's write-ahead log; see `SqliteStore`."""

    page_cache: int = DEFAULT_PAGE_CACHE
    """Bytes of memory for SQLite's pages; see `SqliteStore`."""


def is_url(database: str) -> bool:
    """Tell whether a database is named by a URL, not by a file's path."""
    return _URL in database


async def open_store(database: str, options: Options) -> Store:
    """Open a database, bringing its tables up to date.

    Args:
        database: An SQLite file, which is created if missing.
        options: How.

    Raises:
        SettingsError: There is no engine for it.
        StoreError: It can't be used; the message says why and what to do.
    """
    if is_url(database):
        raise SettingsError(
            f"The database '{database}' is a URL: name an SQLite file, other engines are not "
            "supported yet"
        )
    return SqliteStore(
        database,
        durable=options.durable,
        writable=options.writable or sqlite_file.is_writable(database),
        max_log=options.max_log,
        page_cache=options.page_cache,
    )
