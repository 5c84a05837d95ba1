"""A hash equivalence server for BitBake, and its clients.

What BitBake and build-system scripts import stands here (INTERFACES.md §1).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hashserv.errors import (
    ClientError,
    ConnectionClosedError,
    InvokeError,
    ServerError,
)
from hashserv.model import DEFAULT_ANON_PERMS, User, is_valid_unihash
from hashserv.version import __version__

if TYPE_CHECKING:
    import ssl

    from hashserv.client import AsyncClient, Client
    from hashserv.server.process import HashServer

__all__ = [
    "ClientError",
    "ConnectionClosedError",
    "InvokeError",
    "ServerError",
    "User",
    "__version__",
    "create_async_client",
    "create_client",
    "create_server",
    "is_valid_unihash",
]


def create_client(
    addr: str,
    username: str | None = None,
    password: str | None = None,
    *,
    tls: "ssl.SSLContext | None" = None,
) -> "Client":
    """Return a client that blocks. It connects on first use, to a Unix socket at once.

    Args:
        addr: Where the server is (PROTOCOL.md §2).
        username: Who to log in as.
        password: That user's token.
        tls: How to do TLS (``tls://``, ``wss://``), in place of what the environment says.

    Raises:
        AddressError: The address can't be understood.
        OSError: It is a Unix socket, and nobody listens there.
    """
    from hashserv.client import Client  # late: the server needs none of it

    return Client.open(addr, username, password, tls=tls)


async def create_async_client(
    addr: str,
    username: str | None = None,
    password: str | None = None,
    *,
    tls: "ssl.SSLContext | None" = None,
) -> "AsyncClient":
    """Return a client for an event loop. It connects on first use.

    Args:
        addr: Where the server is (PROTOCOL.md §2).
        username: Who to log in as.
        password: That user's token.
        tls: How to do TLS (``tls://``, ``wss://``), in place of what the environment says.

    Raises:
        AddressError: The address can't be understood.
    """
    from hashserv.client import AsyncClient  # late: the server needs none of it

    return await AsyncClient.open(addr, username, password, tls=tls)


def create_server(
    addr: str,
    dbname: str,
    *,
    sync: bool = True,
    upstream: str | None = None,
    read_only: bool = False,
    db_username: str | None = None,
    db_password: str | None = None,
    anon_perms: Iterable[str] | None = None,
    admin_username: str | None = None,
    admin_password: str | None = None,
    reuseport: bool = False,
) -> "HashServer":
    """Return a server. Start it with its `serve_as_process` or `serve_forever`.

    Args:
        addr: Where to listen (PROTOCOL.md §2).
        dbname: The SQLite file: a path, or a URL; or an SQL server's URL, of SQLAlchemy's form.
        sync: Whether acknowledged reports survive a loss of power.
        upstream: The address of a server to ask for what this one does not know.
        read_only: Whether clients may only read.
        db_username: Who to log in to an SQL server as, in the place of the URL's user.
        db_password: That user's password, in the place of the URL's.
        anon_perms: What clients without a login may do; `None` for the default.
        admin_username: A user who may do everything, created or reset at the start.
        admin_password: That user's token.
        reuseport: Whether other servers may listen on the same TCP port.

    Raises:
        AddressError: The address can't be understood.
        SettingsError: Two arguments contradict each other, or one is out of range.
    """
    from hashserv.server.process import HashServer  # late: clients need none of it
    from hashserv.server.settings import Settings
    from hashserv.store.opening import database_file

    settings = Settings(
        bind=(addr,),
        database=database_file(dbname),
        db_username=db_username,
        db_password=db_password,
        durable=sync,
        read_only=read_only,
        upstream=upstream or None,
        anon_perms=DEFAULT_ANON_PERMS if anon_perms is None else tuple(anon_perms),
        admin_username=admin_username,
        admin_password=admin_password,
        reuseport=reuseport,
    )
    return HashServer(settings)
