"""Who is at the other end of a connection: where it comes from, and who it is logged in as."""

import asyncio
import socket
import struct
from ipaddress import IPv6Address, ip_address
from typing import Final

from hashserv.equivalence.accounts import Account

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid
_NETWORK_BITS: Final = 64
"""What one customer of a provider has of IPv6 addresses, at least."""


class Peer:
    """The other end of a connection.

    Args:
        transport: The connection.
    """

    __slots__ = ("_place", "_transport", "account", "login")

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.login: Account | None = None
        """Who it has logged in as."""
        self.account: Account | None = None
        """Who it acts as: the user it has logged in as, or has become."""
        self.locate()

    def locate(self) -> None:
        """Take note of where it is, which a transport tells only as long as it is open.

        Behind a proxy that is another place once the peer has said its first words.
        """
        place = self._transport.get_extra_info("peername")
        self._place: tuple[str, int] | str = (
            (place[0], place[1]) if isinstance(place, tuple) else _local(self._transport)
        )

    def __str__(self) -> str:
        """Name the peer, for logs."""
        if isinstance(self._place, str):
            return self._place
        host, port = self._place
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def origin(self) -> str:
        """What all connections of one client have in common, to count its failed logins by."""
        if isinstance(self._place, str):
            return self._place
        address = ip_address(self._place[0].partition("%")[0])
        if isinstance(address, IPv6Address):
            return str(int(address) >> (128 - _NETWORK_BITS))
        return str(address)


def _local(transport: asyncio.BaseTransport) -> str:
    connection = transport.get_extra_info("socket")
    if connection is None or not hasattr(socket, "SO_PEERCRED"):
        return "unix client"
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(packed)
    return f"unix client of uid {uid}"
