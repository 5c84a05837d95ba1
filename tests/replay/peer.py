"""Clients of bare bytes, which know nothing of commands: over a stream, or over a WebSocket."""

import socket
import ssl
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Final, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.servers import START_SECONDS

HELLO: Final = b"OEHASHEQUIV 1.1\nneeds-headers: false\n\n"

MAX_PIECE: Final = 32767
"""Characters that a line may have before its line feed (PROTOCOL.md §3)."""

_CHUNK_START: Final = ('{"chunk-stream": null}', '{"chunk-stream":null}')


class Peer(ABC):
    """A connection to a server, closed at the end of a ``with``."""

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Send bytes as a stream carries them; that the server has closed shows when reading."""

    @abstractmethod
    def reply(self) -> str | None:
        """Return the next reply, its chunks put together, or nothing at the end."""

    @abstractmethod
    def end(self) -> bytes:
        """Say that nothing more comes, and return what else the server has to say."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""

    def ask(self, message: bytes) -> str | None:
        """Send a line and return the reply."""
        self.send(message + b"\n")
        return self.reply()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def dial(address: str, hello: bytes = HELLO, *, tls: ssl.SSLContext | None = None) -> Peer:
    """Connect to a server.

    Args:
        address: As the server reports it.
        hello: What to send at once.
        tls: Whom to trust, for an address that needs it.
    """
    if address.startswith(("ws://", "wss://")):
        return WebSocketPeer(address, hello, tls)
    return StreamPeer(address, hello)


class StreamPeer(Peer):
    """A connection over a Unix or TCP socket.

    Args:
        address: As the server reports it.
        hello: What to send at once.
        max_piece: Characters that no line of the server may exceed.
    """

    def __init__(self, address: str, hello: bytes = HELLO, *, max_piece: int = MAX_PIECE) -> None:
        self._max_piece = max_piece
        if address.startswith("unix://"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(START_SECONDS)
            self._socket.connect(address.removeprefix("unix://"))
        else:
            host, _, port = address.rpartition(":")
            self._socket = socket.create_connection((host, int(port)), START_SECONDS)
        self._received = self._socket.makefile("rb")
        self.send(hello)

    def send(self, data: bytes) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def line(self) -> str | None:
        """Return the next line, or nothing if the server has closed the connection."""
        try:
            line = self._received.readline()
        except ConnectionResetError:
            return None
        if not line:
            return None
        assert line.endswith(b"\n"), f"the server closed in the middle of {line!r}"
        text = line.decode().removesuffix("\n")
        assert len(text) <= self._max_piece, f"a line of {len(text)} characters"
        return text

    def reply(self) -> str | None:
        line = self.line()
        if line not in _CHUNK_START:
            return line
        pieces: list[str] = []
        while piece := self.line():
            pieces.append(piece)
        assert piece == "", "the server closed in the middle of a chunked message"
        return "".join(pieces)

    def end(self) -> bytes:
        try:
            self._socket.shutdown(socket.SHUT_WR)
            return self._received.read()
        except OSError:  # the server was first
            return b""

    def close(self) -> None:
        self._received.close()
        self._socket.close()


class WebSocketPeer(Peer):
    """A connection over a WebSocket: each line a frame, each message one, however long.

    Args:
        uri: The server.
        hello: What to send at once.
        tls: Whom to trust, for ``wss://``.
    """

    def __init__(self, uri: str, hello: bytes, tls: ssl.SSLContext | None) -> None:
        self._open = connect(
            uri, ssl=tls, compression=None, max_size=None, ping_interval=None, proxy=None
        )
        self._connection = self._open.__enter__()
        self._unfinished = b""
        self._chunks: list[bytes] | None = None
        self.send(hello)

    def send(self, data: bytes) -> None:
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        with suppress(ConnectionClosed):
            for line in lines:
                self._send_line(line)

    def _send_line(self, line: bytes) -> None:
        if self._chunks is not None and line.rstrip(b"\r"):
            self._chunks.append(line.rstrip(b"\r"))
        elif self._chunks is not None:
            self._connection.send(b"".join(self._chunks), text=True)
            self._chunks = None
        elif line.decode(errors="replace") in _CHUNK_START:
            self._chunks = []
        else:
            self._connection.send(line, text=True)

    def reply(self) -> str | None:
        try:
            text = self._connection.recv(START_SECONDS, decode=True)
        except ConnectionClosed:
            return None
        assert isinstance(text, str)
        assert text not in _CHUNK_START, "there are no chunks over a WebSocket"
        return text

    def end(self) -> bytes:
        self._connection.close()
        return b"".join(str(text).encode() for text in self._connection)

    def close(self) -> None:
        self._connection.close()
