# Made of sync_websocket.py by tools/generate_sync.py: change it there, then `make generate`.
"""The client's end of a WebSocket, for callers that block (see `stream`)."""

import contextlib
import ssl
from typing import ClassVar, Self

from hashserv.address import WebSocketAddress
from hashserv.errors import ConnectionClosedError
from hashserv.transport.sync_stream import SyncStream
from hashserv.transport.websocket import ClientWebSocket, below


class SyncWebSocket:
    """A WebSocket to a server. `SyncWebSocket.connect` makes one. One task at a time may use it.

    Args:
        stream: What carries it; this object closes it.
        websocket: Its state.
    """

    __slots__ = ("_stream", "websocket")

    chunks: ClassVar[bool] = False
    """Whether long messages are to be sent in chunks."""

    def __init__(self, stream: SyncStream, websocket: ClientWebSocket) -> None:
        self._stream = stream
        self.websocket = websocket
        """Its state, for who reads and writes the stream itself."""

    @classmethod
    def connect(
        cls, address: WebSocketAddress, limit: float | None, context: ssl.SSLContext | None = None
    ) -> Self:
        """Connect to a server.

        Args:
            address: The server's.
            limit: Seconds that each step may take.
            context: How to do TLS; `None` for what `client_context` returns.

        Raises:
            AddressError: What the environment says of TLS can't be used.
            OSError: Nobody listens there, or it refuses to become a WebSocket.
        """
        return cls.over(SyncStream.connect(below(address), limit, context), address, limit)

    @classmethod
    def over(cls, stream: SyncStream, address: WebSocketAddress, limit: float | None) -> Self:
        """Make a WebSocket of a connection, or close it.

        Args:
            stream: A connection to the server, on which nothing was sent yet.
            address: The server's.
            limit: Seconds that each step may take.

        Raises:
            OSError: The server refuses to become a WebSocket.
        """
        websocket = ClientWebSocket(address)
        try:
            stream.send(websocket.upgrade(), limit)
            while not websocket.upgraded:
                try:
                    websocket.feed(stream.receive(limit))
                except ConnectionClosedError:  # which may be the end of a refusal
                    websocket.end()
        except BaseException:
            stream.close()
            raise
        return cls(stream, websocket)

    def send(self, data: bytes, limit: float | None) -> None:
        """Send all of `data`, which is whole lines."""
        self._stream.send(self.websocket.encode(data), limit)

    def receive(self, limit: float | None) -> bytes:
        """Return the lines that arrived, at least one."""
        while not (lines := self.websocket.take()):
            self.websocket.feed(self._stream.receive(limit))
            if answer := self.websocket.answer():
                # What arrived before the connection broke is still to be returned.
                with contextlib.suppress(OSError, ConnectionClosedError):
                    self._stream.send(answer, limit)
        return lines

    def close(self) -> None:
        """Close. Idempotent."""
        self._stream.push(self.websocket.close())
        self._stream.close()
