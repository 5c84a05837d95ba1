"""What keeps a client connected: it connects, logs in, repeats and resumes (PROTOCOL.md §10)."""

import logging
import os
import ssl
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Final, Self

from hashserv.address import Address, TcpAddress, UnixAddress, WebSocketAddress, parse_address
from hashserv.client.accounts import introduction
from hashserv.client.aio_connection import AsyncConnection
from hashserv.client.batch import Window
from hashserv.errors import AddressError, ClientError, ConnectionClosedError, ProtocolError
from hashserv.transport.tls import TlsError
from hashserv.wire.framing import DEFAULT_MAX_CHUNK

logger = logging.getLogger("hashserv.client")

DEFAULT_TIMEOUT: Final = 30.0
"""Seconds that a reply may take."""

REPEATS: Final = 3
"""How often a call is repeated without progress before it fails (PROTOCOL.md §10)."""

CONNECT_UNIX_AT_ONCE: Final[bool] = False
"""Whether `connect_unix` connects, so that BitBake learns early of a server that isn't there."""

_BROKEN: Final = (OSError, ConnectionClosedError, ProtocolError)


class AsyncCaller:
    """Makes calls on a connection that it opens when needed, and opens again when it breaks.

    Args:
        username: Who to log in as, once connected.
        password: That user's token.
        tls: How to do TLS, in place of what the environment says.
    """

    def __init__(
        self,
        username: str | None = None,
        password: str | None = None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.username = username
        self.password = password
        self.max_chunk = DEFAULT_MAX_CHUNK
        self.timeout: float | None = DEFAULT_TIMEOUT
        self._address: Address | None = None
        self._connection: AsyncConnection | None = None
        self._became: str | None = None
        self._introduced = False
        """Whether the server knows on this connection who the client is."""
        self._tls = tls

    @classmethod
    async def open(
        cls,
        address: str,
        username: str | None = None,
        password: str | None = None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """Return a client for an address as people write it (PROTOCOL.md §2).

        Raises:
            AddressError: It can't be understood.
            OSError: A Unix socket that is connected to at once, and nobody listens there.
        """
        client = cls(username, password, tls=tls)
        parsed = parse_address(address)
        if isinstance(parsed, UnixAddress):
            await client.connect_unix(parsed.path)
        else:
            client._address = parsed
        return client

    # Connecting.

    async def connect_tcp(self, host: str, port: int) -> None:
        """Use a TCP server from now on."""
        await self.disconnect()
        self._address = TcpAddress(host, port)

    async def connect_unix(self, path: str) -> None:
        """Use a server at a Unix socket from now on; the path may be relative, and long.

        Raises:
            OSError: The client connects at once, and nobody listens there.
        """
        await self.disconnect()
        self._address = _lasting(path)
        if CONNECT_UNIX_AT_ONCE:
            await self._connected(introduced=False)  # the first call does that, and may repeat it

    async def connect_websocket(self, uri: str) -> None:
        """Use a WebSocket server from now on, at a ``ws://`` or ``wss://`` URI.

        Raises:
            AddressError: It is no such URI.
        """
        address = parse_address(uri)
        if not isinstance(address, WebSocketAddress):
            raise AddressError(f"'{uri}' is no WebSocket: write ws://HOST:PORT or wss://HOST:PORT")
        await self.disconnect()
        self._address = address

    async def disconnect(self) -> None:
        """Close the connection; the next call makes a new one. Idempotent."""
        connection, self._connection = self._connection, None
        self._introduced = False
        if connection is not None:
            await connection.close()

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        await self.disconnect()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # What all calls have in common.

    async def _invoke(
        self, command: str, arguments: object, *, patient: bool = False, introduced: bool = True
    ) -> dict[str, Any]:
        """Send a request, as often as it takes, and return its reply; `get` may find nothing."""
        failures = 0
        while True:
            try:
                connection = await self._connected(introduced=introduced)
                reply: dict[str, Any] = await connection.request(
                    command,
                    arguments,
                    max_chunk=self.max_chunk,
                    limit=None if patient else self._limit,
                )
                return reply
            except _BROKEN as error:
                failures += 1
                await self._recover(error, failures)
            except BaseException:  # a reply may still come, to nobody
                await self.disconnect()
                raise

    async def _stream(
        self, mode: str, window: Window[Any], *, patient: bool = False
    ) -> AsyncIterator[list[str]]:
        """Ask what a window holds, on as many connections as it takes, and yield the replies."""
        failures = 0
        while window.fill():  # an error of the caller's own iterator is not the connection's
            try:
                connection = await self._connected(window)
                replies = await connection.advance(mode, window, None if patient else self._limit)
            except _BROKEN as error:
                failures += 1
                await self._recover(error, failures)
            except BaseException:
                await self.disconnect()
                raise
            else:
                if replies:
                    failures = 0
                    yield replies

    async def _connected(
        self, window: Window[Any] | None = None, *, introduced: bool = True
    ) -> AsyncConnection:
        """Return a connection on which no replies are to come but those of `window`.

        Raises:
            InvokeError: The login was refused.
        """
        connection = self._connection
        if connection is not None and connection.in_flight not in (None, window):
            # Someone left a batch before its end, or will go on with it after this call.
            await self.disconnect()
        if self._connection is None:
            if self._address is None:
                raise ClientError("connect_tcp or connect_unix comes first")
            self._connection = await AsyncConnection.open(self._address, self._limit, self._tls)
        if introduced and not self._introduced:
            await self._introduce(self._connection)
            self._introduced = True
        return self._connection

    async def _introduce(self, connection: AsyncConnection) -> None:
        """Log in on a new connection, and become who this client was on the one before."""
        for command, arguments in introduction(self.username, self.password, self._became):
            await connection.request(
                command, arguments, max_chunk=self.max_chunk, limit=self._limit
            )

    async def _recover(self, error: Exception, failures: int) -> None:
        """Leave a broken connection.

        Raises:
            ConnectionError: It broke too often, or for a reason that stays: a certificate's.
        """
        await self.disconnect()
        if isinstance(error, TlsError):
            raise error
        logger.warning("Error talking to server: %s", error)
        if failures > REPEATS:
            if isinstance(error, ConnectionError):
                raise error
            raise ConnectionError(str(error)) from error

    @property
    def _limit(self) -> float | None:
        return None if self.timeout is None or self.timeout < 0 else self.timeout


def _lasting(path: str) -> UnixAddress:
    """Return the address of a socket file that means the same after a change of directory."""
    return UnixAddress(os.path.abspath(path))
