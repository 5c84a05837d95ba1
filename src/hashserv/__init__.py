"""A hash equivalence server for BitBake, and its clients.

What BitBake and build-system scripts import stands here (INTERFACES.md §1).
"""

from typing import TYPE_CHECKING

from hashserv.errors import ClientError, ConnectionClosedError, InvokeError, ServerError
from hashserv.model import User, is_valid_unihash
from hashserv.version import __version__

if TYPE_CHECKING:
    from hashserv.client import AsyncClient, Client

__all__ = [
    "ClientError",
    "ConnectionClosedError",
    "InvokeError",
    "ServerError",
    "User",
    "__version__",
    "create_async_client",
    "create_client",
    "is_valid_unihash",
]


def create_client(addr: str, username: str | None = None, password: str | None = None) -> "Client":
    """Return a client that blocks. It connects on first use, to a Unix socket at once.

    Args:
        addr: Where the server is (PROTOCOL.md §2).
        username: Who to log in as.
        password: That user's token.

    Raises:
        AddressError: The address can't be understood.
        OSError: It is a Unix socket, and nobody listens there.
    """
    from hashserv.client import Client  # late: the server needs none of it

    return Client.open(addr, username, password)


async def create_async_client(
    addr: str, username: str | None = None, password: str | None = None
) -> "AsyncClient":
    """Return a client for an event loop. It connects on first use.

    Args:
        addr: Where the server is (PROTOCOL.md §2).
        username: Who to log in as.
        password: That user's token.

    Raises:
        AddressError: The address can't be understood.
    """
    from hashserv.client import AsyncClient  # late: the server needs none of it

    return await AsyncClient.open(addr, username, password)
