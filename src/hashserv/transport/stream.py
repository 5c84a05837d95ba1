"""The client's end of a stream connection (TCP, Unix): the parts that never wait.

`AsyncStream` and `SyncStream` add the waiting, and have the same three operations; whatever else
carries bytes to a server one day has them too:

* ``send(data, limit)`` sends all of `data`;
* ``receive(limit)`` returns what arrived, at least one byte;
* ``close()`` closes; idempotent.

Limits are seconds without progress; `None` waits for as long as it takes, which ends where TCP
keep-alive finds the peer gone. The operations raise:

* `ConnectionError` when the limit is over;
* `ConnectionClosedError` when the peer has closed;
* `OSError` for whatever else breaks a connection.

A failed `send` loses nothing that arrived: `receive` still returns it.
"""

import socket
from typing import Final

from hashserv.errors import ConnectionClosedError

RECEIVE_BYTES: Final = 256 * 1024
"""How much is taken from the kernel at once: more than its buffers usually hold."""

CONNECT_PAUSE: Final = 0.01
"""Seconds before a Unix socket whose server has too many waiting is tried again: the kernel does
not tell when there is room."""


class StreamSocket:
    """A connected socket, and what arrived on it while it was being written to.

    Args:
        connection: The socket; this object closes it.
    """

    __slots__ = ("_arrived", "_socket")

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        self._socket = connection
        self._arrived: list[bytes] = []

    def _write(self, data: memoryview) -> memoryview:
        """Send what the kernel takes at once and return the rest."""
        try:
            return data[self._socket.send(data) :]
        except BlockingIOError:
            return data

    def _set_aside(self) -> None:
        """Take in what arrived while there is something to send.

        A server that can't get rid of its replies stops to read requests: both would wait.

        Raises:
            ConnectionClosedError: The peer has closed.
        """
        data = self._read()
        if data:
            self._arrived.append(data)

    def _take_aside(self) -> bytes:
        """Return what was set aside, or nothing."""
        data = b"".join(self._arrived)
        self._arrived.clear()
        return data

    def _read(self) -> bytes:
        """Return what has arrived, or nothing.

        Raises:
            ConnectionClosedError: The peer has closed.
        """
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            raise ConnectionClosedError("Connection closed")
        return data
