"""The client's end of a stream connection, for callers that block (see `stream`)."""

import select
import socket
import time
from typing import Self

from hashserv.address import Address, TcpAddress, UnixAddress
from hashserv.errors import AddressError
from hashserv.transport.listen import prepare_tcp
from hashserv.transport.stream import CONNECT_PAUSE, StreamSocket
from hashserv.transport.unix import connect_unix


class SyncStream(StreamSocket):
    """A connection to a server. `SyncStream.connect` makes one."""

    __slots__ = ("_readable", "_writable")

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(connection, select.POLLIN | select.POLLOUT)

    @classmethod
    def connect(cls, address: Address, limit: float | None) -> Self:
        """Connect to a server.

        Raises:
            AddressError: The address is of a kind that can't be connected to.
            OSError: Nobody listens there.
        """
        match address:
            case UnixAddress():
                return cls(_connect_unix(address, limit))
            case TcpAddress():
                return cls(_connect_tcp(address, limit))
            case _:
                raise AddressError(f"Connecting to {address} is not supported: use HOST:PORT")

    def send(self, data: bytes, limit: float | None) -> None:
        """Send all of `data`."""
        rest = self._write(memoryview(data))
        while rest:
            _wait(self._writable, limit, "to take a request")
            self._set_aside()
            rest = self._write(rest)

    def receive(self, limit: float | None) -> bytes:
        """Return what arrived, at least one byte."""
        data = self._take_aside()
        while not data:
            _wait(self._readable, limit, "for data")
            data = self._read()
        return data

    def close(self) -> None:
        """Close. Idempotent."""
        self._socket.close()


def _wait(poll: select.poll, limit: float | None, what: str) -> None:
    if not poll.poll(None if limit is None else limit * 1000):
        raise ConnectionError(f"Timed out waiting {what}")


def _connect_tcp(address: TcpAddress, limit: float | None) -> socket.socket:
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
