"""The client's end of a stream connection (TCP, Unix, TLS): the parts that never wait.

`AsyncStream` and `SyncStream` add the waiting, and have the same three operations, as have
`AsyncWebSocket` and `SyncWebSocket`, which stand on one of them:

* ``send(data, limit)`` sends all of `data`;
* ``receive(limit)`` returns what arrived, at least one byte;
* ``close()`` closes; idempotent.

Limits are seconds without progress; `None` waits for as long as it takes, which ends where TCP
keep-alive finds the peer gone. The operations raise:

* `ConnectionError` when the limit is over, its subclass `TlsError` when TLS fails;
* `ConnectionClosedError` when the peer has closed;
* `OSError` for whatever else breaks a connection.

A failed `send` loses nothing that arrived: `receive` still returns it.
"""

import contextlib
import socket
import ssl
from typing import ClassVar, Final

from hashserv.errors import ConnectionClosedError
from hashserv.transport.tls import TlsError, explain

RECEIVE_BYTES: Final = 256 * 1024
"""How much is taken from the kernel at once: more than its buffers usually hold, and more than a
record of TLS, so that nothing stays behind in there which no poll would tell of."""

CONNECT_PAUSE: Final = 0.01
"""Seconds before a Unix socket whose server has too many waiting is tried again: the kernel does
not tell when there is room."""


class StreamSocket:
    """A connected socket, and what arrived on it while it was being written to.

    Args:
        connection: The socket, or one that does TLS; this object closes it.
        place: Host and port, for words about TLS.
    """

    __slots__ = ("_arrived", "_place", "_socket", "_wants_room")

    chunks: ClassVar[bool] = True
    """Whether long messages are to be sent in chunks."""

    def __init__(self, connection: socket.socket, place: str = "") -> None:
        connection.settimeout(0)
        self._socket = connection
        self._place = place
        self._arrived: list[bytes] = []
        self._wants_room = False  # what blocked last can go on when there is room to write

    def push(self, data: bytes) -> None:
        """Send what the kernel takes at once, and forget the rest: the last words."""
        with contextlib.suppress(OSError, ConnectionClosedError):
            self._write(memoryview(data))

    def _shake_hands(self) -> bool:
        """Go on with the handshake of TLS and tell whether it is done.

        Raises:
            ConnectionError: The server closed the connection.
            TlsError: It failed.
        """
        if not isinstance(self._socket, ssl.SSLSocket):
            return True
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self._wants_room = False
        except ssl.SSLWantWriteError:
            self._wants_room = True
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError) as error:
            raise ConnectionError(
                f"{self._place} closed the connection during the handshake of TLS: look at the "
                "address and its port, and at the server's log"
            ) from error
        except ssl.SSLError as error:
            raise TlsError(explain(error, self._place)) from error
        else:
            return True
        return False

    def _write(self, data: memoryview) -> memoryview:
        """Send what the kernel takes at once and return the rest."""
        self._wants_room = True
        try:
            while data:  # TLS takes one record at a time
                data = data[self._socket.send(data) :]
        except ssl.SSLWantReadError:
            self._wants_room = False
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            raise ConnectionClosedError("Connection closed") from None
        except ssl.SSLError as error:
            raise TlsError(explain(error, self._place)) from error
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
            TlsError: The peer refused, which TLS 1.3 tells after the handshake.
        """
        self._wants_room = False
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        except ssl.SSLWantWriteError:
            self._wants_room = True
            return b""
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            data = b""
        except ssl.SSLError as error:
            raise TlsError(explain(error, self._place)) from error
        if not data:
            raise ConnectionClosedError("Connection closed")
        return data
