"""The client's end of a WebSocket, for callers in an event loop (see `stream`)."""

import contextlib
import ssl
from typing import ClassVar, Self

from hashserv.address import WebSocketAddress
from hashserv.errors import ConnectionClosedError
from hashserv.transport.async_stream import AsyncStream
from hashserv.transport.websocket import ClientWebSocket, below


class AsyncWebSocket:
    """A WebSocket to a server. `AsyncWebSocket.connect` makes one. One task at a time may use it.

    Args:
        stream: What carries it; this object closes it.
        websocket: Its state.
    """

    __slots__ = ("_stream", "websocket")

    chunks: ClassVar[bool] = False
    """Whether long messages are to be sent in chunks."""

    def __init__(self, stream: AsyncStream, websocket: ClientWebSocket) -> None:
        self._stream = stream
        self.websocket = websocket
        """Its state, for who reads and writes the stream itself."""

    @classmethod
    async def connect(
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
        return await cls.over(
            await AsyncStream.connect(below(address), limit, context), address, limit
        )

    @classmethod
    async def over(
        cls, stream: AsyncStream, address: WebSocketAddress, limit: float | None
    ) -> Self:
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
            await stream.send(websocket.upgrade(), limit)
            while not websocket.upgraded:
                try:
                    websocket.feed(await stream.receive(limit))
                except ConnectionClosedError:  # which may be the end of a refusal
                    websocket.end()
        except BaseException:
            await stream.close()
            raise
        return cls(stream, websocket)

    async def send(self, data: bytes, limit: float | None) -> None:
        """Send all of `data`, which is whole lines."""
        await self._stream.send(self.websocket.encode(data), limit)

    async def receive(self, limit: float | None) -> bytes:
        """Return the lines that arrived, at least one."""
        while not (lines := self.websocket.take()):
            self.websocket.feed(await self._stream.receive(limit))
            if answer := self.websocket.answer():
                # What arrived before the connection broke is still to be returned.
                with contextlib.suppress(OSError, ConnectionClosedError):
                    await self._stream.send(answer, limit)
        return lines

    async def close(self) -> None:
        """Close. Idempotent."""
        self._stream.push(self.websocket.close())
        await self._stream.close()
