"""A client of bare bytes: one raw socket, no knowledge of commands."""

import socket
from contextlib import suppress
from typing import Final, Self

from tests.servers import START_SECONDS

HELLO: Final = b"OEHASHEQUIV 1.1\nneeds-headers: false\n\n"

MAX_PIECE: Final = 32767
"""Characters that a line may have before its line feed (PROTOCOL.md §3)."""

_CHUNK_START: Final = ('{"chunk-stream": null}', '{"chunk-stream":null}')


class Peer:
    """A connection to a server, closed at the end of a ``with``.

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send bytes. That the server has closed shows at the next read."""
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
        """Return the next reply, its chunks put together, or nothing at the end."""
        line = self.line()
        if line not in _CHUNK_START:
            return line
        pieces: list[str] = []
        while piece := self.line():
            pieces.append(piece)
        assert piece == "", "the server closed in the middle of a chunked message"
        return "".join(pieces)

    def ask(self, message: bytes) -> str | None:
        """Send a line and return the reply."""
        self.send(message + b"\n")
        return self.reply()

    def end(self) -> bytes:
        """Say that nothing more comes, and return what else the server has to say."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
            return self._received.read()
        except OSError:  # the server was first
            return b""

    def close(self) -> None:
        """Close the connection."""
        self._received.close()
        self._socket.close()
