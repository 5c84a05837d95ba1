"""From a database's URL to SQLAlchemy's engine: drivers, logins, time-outs, several hosts."""

from typing import Any, Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from hashserv.errors import SettingsError

CONNECT_SECONDS: Final = 5
"""How long a connection may take to come about, for each host."""

POOL_SECONDS: Final = 10.0
"""How long a request waits for a connection that others use."""

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
            pool_timeout=POOL_SECONDS,
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
    commit = "on" if durable else "off"
    arguments: dict[str, Any]
    if driver == "asyncpg":
        settings = {"application_name": "hashserv", "jit": "off"}
        if not durable:
            settings["synchronous_commit"] = commit
        arguments = {"timeout": CONNECT_SECONDS, "server_settings": settings}
    elif driver == "psycopg":
        options = f"-c jit=off{'' if durable else f' -c synchronous_commit={commit}'}"
        arguments = {
            "connect_timeout": CONNECT_SECONDS,
            "application_name": "hashserv",
            "options": options,
        }
    else:
        return {
            "connect_timeout": CONNECT_SECONDS,
            "charset": "utf8mb4",
            "init_command": "SET SESSION sql_mode = "
            "'STRICT_ALL_TABLES,ANSI_QUOTES,NO_ENGINE_SUBSTITUTION'",
        }
    hosts = url.query.get("host")
    several = isinstance(hosts, tuple) or (isinstance(hosts, str) and "," in hosts)
    if several and "target_session_attrs" not in url.query:
        arguments["target_session_attrs"] = "primary"  # a standby could not take reports
    return arguments
