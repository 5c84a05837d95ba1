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

    __slots__ = ("_transport", "account", "login")

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.login: str | None = None
        """Who it has logged in as."""
        self.account: Account | None = None
        """Who it acts as: the user it has logged in as, or has become."""

    def __str__(self) -> str:
        """Name the peer, for logs; behind a proxy it is known once its request is here."""
        place = self._transport.get_extra_info("peername")
        if isinstance(place, tuple):
            host, port = place[:2]
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return self._local()

    @property
    def origin(self) -> str:
        """What all connections of one client have in common, to count its failed logins by."""
        place = self._transport.get_extra_info("peername")
        if not isinstance(place, tuple):
            return self._local()
        address = ip_address(place[0].partition("%")[0])
        if isinstance(address, IPv6Address):
            return str(int(address) >> (128 - _NETWORK_BITS))
        return str(address)

    def _local(self) -> str:
        connection = self._transport.get_extra_info("socket")
        if connection is None or not hasattr(socket, "SO_PEERCRED"):
            return "unix client"
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(packed)
        return f"unix client of uid {uid}"
