# Made of sync_caller.py by tools/generate_sync.py: change it there, then `make generate`.
"""What keeps a client connected: it connects, logs in, repeats and resumes (PROTOCOL.md §10)."""

import logging
import os
import ssl
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

from hashserv.address import Address, TcpAddress, UnixAddress, WebSocketAddress, parse_address
from hashserv.client.accounts import introduction
from hashserv.client.batch import Window
from hashserv.client.sync_connection import Connection
from hashserv.errors import AddressError, ClientError, ConnectionClosedError, ProtocolError
from hashserv.transport.tls import TlsError
from hashserv.wire.framing import DEFAULT_MAX_CHUNK

logger = logging.getLogger("hashserv.client")

DEFAULT_TIMEOUT: Final = 30.0
"""Seconds that a reply may take."""

REPEATS: Final = 3
"""How often a call is repeated without progress before it fails (PROTOCOL.md §10)."""

CONNECT_UNIX_AT_ONCE: Final[bool] = True
"""Whether `connect_unix` connects, so that BitBake learns early of a server that isn't there."""

_BROKEN: Final = (OSError, ConnectionClosedError, ProtocolError)


class Caller:
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
        self._connection: Connection | None = None
        self._became: str | None = None
        self._introduced = False
        """Whether the server knows on this connection who the client is."""
        self._tls = tls

    @classmethod
    def open(
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
            client.connect_unix(parsed.path)
        else:
            client._address = parsed
        return client

    # Connecting.

    def connect_tcp(self, host: str, port: int) -> None:
        """Use a TCP server from now on."""
        self.disconnect()
        self._address = TcpAddress(host, port)

    def connect_unix(self, path: str) -> None:
        """Use a server at a Unix socket from now on; the path may be relative, and long.

        Raises:
            OSError: The client connects at once, and nobody listens there.
        """
        self.disconnect()
        self._address = _lasting(path)
        if CONNECT_UNIX_AT_ONCE:
            self._connected(introduced=False)  # the first call does that, and may repeat it

    def connect_websocket(self, uri: str) -> None:
        """Use a WebSocket server from now on, at a ``ws://`` or ``wss://`` URI.

        Raises:
            AddressError: It is no such URI.
        """
        address = parse_address(uri)
        if not isinstance(address, WebSocketAddress):
            raise AddressError(f"'{uri}' is no WebSocket: write ws://HOST:PORT or wss://HOST:PORT")
        self.disconnect()
        self._address = address

    def disconnect(self) -> None:
        """Close the connection; the next call makes a new one. Idempotent."""
        connection, self._connection = self._connection, None
        self._introduced = False
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # What all calls have in common.

    def _invoke(
        self, command: str, arguments: object, *, patient: bool = False, introduced: bool = True
    ) -> dict[str, Any]:
        """Send a request, as often as it takes, and return its reply; `get` may find nothing."""
        failures = 0
        while True:
            try:
                connection = self._connected(introduced=introduced)
                reply: dict[str, Any] = connection.request(
                    command,
                    arguments,
                    max_chunk=self.max_chunk,
                    limit=None if patient else self._limit,
                )
                return reply
            except _BROKEN as error:
                failures += 1
                self._recover(error, failures)
            except BaseException:  # a reply may still come, to nobody
                self.disconnect()
                raise

    def _stream(
        self, mode: str, window: Window[Any], *, patient: bool = False
    ) -> Iterator[list[str]]:
        """Ask what a window holds, on as many connections as it takes, and yield the replies."""
        failures = 0
        while window.fill():  # an error of the caller's own iterator is not the connection's
            try:
                connection = self._connected(window)
                replies = connection.advance(mode, window, None if patient else self._limit)
            except _BROKEN as error:
                failures += 1
                self._recover(error, failures)
            except BaseException:
                self.disconnect()
                raise
            else:
                if replies:
                    failures = 0
                    yield replies

    def _connected(
        self, window: Window[Any] | None = None, *, introduced: bool = True
    ) -> Connection:
        """Return a connection on which no replies are to come but those of `window`.

        Raises:
            InvokeError: The login was refused.
        """
        connection = self._connection
        if connection is not None and connection.in_flight not in (None, window):
            # Someone left a batch before its end, or will go on with it after this call.
            self.disconnect()
        if self._connection is None:
            if self._address is None:
                raise ClientError("connect_tcp or connect_unix comes first")
            self._connection = Connection.open(self._address, self._limit, self._tls)
        if introduced and not self._introduced:
            self._introduce(self._connection)
            self._introduced = True
        return self._connection

    def _introduce(self, connection: Connection) -> None:
        """Log in on a new connection, and become who this client was on the one before."""
        for command, arguments in introduction(self.username, self.password, self._became):
            connection.request(command, arguments, max_chunk=self.max_chunk, limit=self._limit)

    def _recover(self, error: Exception, failures: int) -> None:
        """Leave a broken connection.

        Raises:
            ConnectionError: It broke too often, or for a reason that stays: a certificate's.
        """
        self.disconnect()
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
