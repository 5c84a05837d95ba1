"""The client's end of a stream connection, for callers that block (see `stream`)."""

import select
import socket
import ssl
import time
from typing import Self

from hashserv.address import StreamAddress, TcpAddress, TlsAddress, UnixAddress
from hashserv.transport.listen import prepare_tcp
from hashserv.transport.stream import CONNECT_PAUSE, StreamSocket
from hashserv.transport.tls import client_context, wrap
from hashserv.transport.unix import connect_unix


class SyncStream(StreamSocket):
    """A connection to a server. `SyncStream.connect` makes one."""

    __slots__ = ("_readable", "_writable")

    def __init__(self, connection: socket.socket, place: str = "") -> None:
        super().__init__(connection, place)
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(connection, select.POLLIN | select.POLLOUT)

    @classmethod
    def connect(
        cls, address: StreamAddress, limit: float | None, context: ssl.SSLContext | None = None
    ) -> Self:
        """Connect to a server.

        Args:
            address: The server's.
            limit: Seconds that each step may take.
            context: How to do TLS; `None` for what `client_context` returns.

        Raises:
            AddressError: What the environment says of TLS can't be used.
            TlsError: TLS with the server failed.
            OSError: Nobody listens there.
        """
        match address:
            case UnixAddress():
                return cls(_connect_unix(address, limit))
            case TcpAddress():
                return cls(_connect_tcp(address, limit))
            case TlsAddress():
                return cls._connect_tls(address, limit, context or client_context())

    @classmethod
    def _connect_tls(
        cls, address: TlsAddress, limit: float | None, context: ssl.SSLContext
    ) -> Self:
        connection = wrap(_connect_tcp(address, limit), address.host, context)
        stream = cls(connection, str(TcpAddress(*address)))
        try:
            while not stream._shake_hands():
                stream._wait(limit, "for the handshake of TLS")
        except BaseException:
            stream.close()
            raise
        return stream

    def send(self, data: bytes, limit: float | None) -> None:
        """Send all of `data`."""
        rest = self._write(memoryview(data))
        while rest:
            self._wait(limit, "to take a request")
            self._set_aside()
            rest = self._write(rest)

    def receive(self, limit: float | None) -> bytes:
        """Return what arrived, at least one byte."""
        data = self._take_aside()
        if not data and self._place:  # TLS knows of an end that the kernel does not tell again
            data = self._read()
        while not data:
            self._wait(limit, "for data")
            data = self._read()
        return data

    def close(self) -> None:
        """Close. Idempotent."""
        self._socket.close()

    def _wait(self, limit: float | None, what: str) -> None:
        """Wait until there is something to read, or room to write if that was wanted."""
        poll = self._writable if self._wants_room else self._readable
        if not poll.poll(None if limit is None else limit * 1000):
            raise ConnectionError(f"Timed out waiting {what}")


def _connect_tcp(address: TcpAddress | TlsAddress, limit: float | None) -> socket.socket:
    try:
        connection = socket.create_connection((address.host or None, address.port), limit)
    except TimeoutError:
        raise ConnectionError(f"Timed out connecting to {address}") from None
    prepare_tcp(connection)
    return connection


def _connect_unix(address: UnixAddress, limit: float | None) -> socket.socket:
    start = time.monotonic()
    while True:
        try:
            return connect_unix(address.path, timeout=0)
        except BlockingIOError:
            if limit is not None and time.monotonic() - start > limit:
                raise ConnectionError(f"Timed out connecting to {address}") from None
            time.sleep(CONNECT_PAUSE)
