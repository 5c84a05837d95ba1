"""From a database's URL to SQLAlchemy's engine: drivers, logins, time-outs, several hosts."""

import os
import socket
from typing import Any, Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from hashserv.errors import SettingsError

CONNECT_SECONDS: Final = 3
"""How long a connection may take to come about, for each host."""

LOCK_SECONDS: Final = 5
"""How long a transaction waits for those of other servers: less than it may take in all, so that
the SQL server is not left with transactions that wait for nobody."""

_DEFAULT_DRIVERS: Final = {
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "mysql": "mysql+aiomysql",
    "mariadb": "mariadb+aiomysql",
}

_EXTRAS: Final = {
    "asyncpg": "postgresql",
    "psycopg": "postgresql",
    "aiomysql": "mysql",
    "asyncmy": "mysql",
}
"""The extra of this package that each driver is in."""


def parse_url(database: str, username: str | None, password: str | None) -> URL:
    """Return a database's URL with a driver, and the login in it.

    Args:
        database: As it was given.
        username: In the place of the URL's, if any.
        password: In the place of the URL's, if any.

    Raises:
        SettingsError: It can't be understood, or there is no engine for it.
    """
    try:
        url = make_url(database)
    except (ArgumentError, ValueError):
        raise SettingsError(
            "The database's URL can't be understood: write it as "
            "postgresql+asyncpg://USER@HOST/NAME"
        ) from None
    url = url.set(drivername=_DEFAULT_DRIVERS.get(url.drivername, url.drivername))
    if url.get_backend_name() not in ("postgresql", "mysql", "mariadb") or (
        url.get_driver_name() not in _EXTRAS
    ):
        raise SettingsError(
            f"There is no engine for {url.drivername}://: use postgresql+asyncpg, "
            "postgresql+psycopg, mysql+aiomysql or mysql+asyncmy, or an SQLite file"
        )
    if username is not None:
        url = url.set(username=username)
    if password is not None:
        url = url.set(password=password)
    return url


def connect_engine(url: URL, *, durable: bool, connections: int) -> AsyncEngine:
    """Return an engine for a URL; it connects on first use.

    Args:
        url: Of `parse_url`.
        durable: Whether commits wait for the disk.
        connections: How many there may be at most.

    Raises:
        SettingsError: The driver is not installed.
    """
    driver = url.get_driver_name()
    try:
        return create_async_engine(
            url,
            connect_args=_arguments(url, durable=durable),
            isolation_level="READ COMMITTED",
            pool_size=connections,
            max_overflow=0,
            pool_timeout=CONNECT_SECONDS,
            pool_use_lifo=True,
            hide_parameters=True,
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise SettingsError(
            f"The database's URL needs {driver}, which is not installed: "
            f"pip install 'hashserv[{_EXTRAS[driver]}]'"
        ) from error


def _arguments(url: URL, *, durable: bool) -> dict[str, Any]:
    """Return what the driver is told beside the URL."""
    driver = url.get_driver_name()
    if url.get_backend_name() != "postgresql":
        return {
            "connect_timeout": CONNECT_SECONDS,
            "charset": "utf8mb4",
            "init_command": "SET SESSION sql_mode = "
            "'STRICT_ALL_TABLES,ANSI_QUOTES,NO_ENGINE_SUBSTITUTION', "
            f"innodb_lock_wait_timeout = {LOCK_SECONDS}",
        }
    settings = {"application_name": "hashserv", "jit": "off", "lock_timeout": f"{LOCK_SECONDS}s"}
    if not durable:
        settings["synchronous_commit"] = "off"
    arguments: dict[str, Any] = {"server_settings": settings, "async_creator_fn": _connect_asyncpg}
    if driver == "psycopg":
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        arguments = {"connect_timeout": CONNECT_SECONDS, "options": options}
    if _count_hosts(url) > 1 and "target_session_attrs" not in url.query:
        arguments["target_session_attrs"] = "primary"  # a standby could not take reports
    return arguments


def longest_connecting(url: URL) -> float:
    """Return for how many seconds connecting may go on, all hosts of a URL tried in turn."""
    return CONNECT_SECONDS * (_count_hosts(url) + 1)


def cut(connection: Any) -> None:
    """Close a driver's connection at once, without a word to the server.

    Args:
        connection: The driver's own object. What waits for the server there fails.
    """
    if hasattr(connection, "terminate"):  # asyncpg
        connection.terminate()
    elif hasattr(connection, "fileno"):  # psycopg, whose close() does not wake up who waits
        with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
    else:
        connection.close()


def _count_hosts(url: URL) -> int:
    hosts = url.query.get("host", ())
    return sum(len(each.split(",")) for each in ([hosts] if isinstance(hosts, str) else hosts))


async def _connect_asyncpg(
    *, host: str | list[str] | None = None, port: int | list[int] | None = None, **arguments: Any
) -> Any:
    """Connect to the first host that will do; asyncpg's own time-out is for all of them together.

    Raises:
        ConnectionError: None does; it says why.
        asyncpg.PostgresError: One refused us.
    """
    import asyncpg  # late: it may not be installed

    if not isinstance(host, list) or not isinstance(port, list):
        return await asyncpg.connect(host=host, port=port, timeout=CONNECT_SECONDS, **arguments)
    reasons = []
    for each_host, each_port in zip(host, port, strict=True):
        try:
            return await asyncpg.connect(
                host=each_host, port=each_port, timeout=CONNECT_SECONDS, **arguments
            )
        except (
            OSError,  # TimeoutError is one
            asyncpg.CannotConnectNowError,
            asyncpg.TargetServerAttributeNotMatched,
        ) as error:
            reasons.append(f"{each_host}:{each_port}: {error or type(error).__name__}")
    raise ConnectionError("; ".join(reasons))
