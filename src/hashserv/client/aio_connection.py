"""One connection to a server: requests and stream modes on it (PROTOCOL.md §4-6)."""

import ssl
from typing import TYPE_CHECKING, Any, Self

from hashserv.address import Address, WebSocketAddress
from hashserv.client.batch import Window
from hashserv.errors import ConnectionClosedError, ProtocolError
from hashserv.transport.async_stream import AsyncStream
from hashserv.transport.tls import TlsError
from hashserv.wire.client import INCOMPLETE, STREAM_BEGUN, STREAM_END, STREAM_ENDED, ClientWire

if TYPE_CHECKING:
    from hashserv.transport.async_websocket import AsyncWebSocket


class AsyncConnection:
    """A connection that greeted its server; `AsyncConnection.open` makes one.

    After any exception it must be closed: nobody knows which replies are still to come.

    Args:
        stream: The stream below; this object closes it.
        limit: Seconds without progress that most operations may take; `None` for any.
    """

    __slots__ = ("_limit", "_mode", "_stream", "_wire", "in_flight")

    def __init__(self, stream: "AsyncStream | AsyncWebSocket", limit: float | None) -> None:
        self._stream = stream
        self._limit = limit
        self._wire = ClientWire()
        self._mode: str | None = None
        self.in_flight: object = None
        """Whose replies are to come: a `Window` with lines unanswered, or `None`."""

    @classmethod
    async def open(
        cls, address: Address, limit: float | None, context: ssl.SSLContext | None = None
    ) -> Self:
        """Connect and greet.

        Args:
            address: The server's.
            limit: Seconds without progress that most operations may take; `None` for any.
            context: How to do TLS; `None` for what the environment says.

        Raises:
            AddressError: What the environment says of TLS can't be used.
            OSError: Nobody listens there.
        """
        connection = cls(await open_stream(address, limit, context), limit)
        try:
            await connection._send(connection._wire.greeting({}))
        except BaseException:
            await connection.close()
            raise
        return connection

    async def request(
        self, command: str, arguments: object, *, max_chunk: int, limit: float | None
    ) -> Any:
        """Send a request and return its reply.

        Args:
            command: Its name.
            arguments: Its arguments.
            max_chunk: From `max_chunk - 1` characters on, it is sent in chunks.
            limit: Seconds that the reply may take; `None` for any.

        Raises:
            InvokeError: The server refused it.
            ProtocolError: The server sent what it should not.
            ConnectionClosedError: The server closed the connection.
            OSError: The connection broke, or the time is over.
        """
        await self._enter(None)
        self._wire.max_chunk = max_chunk if self._stream.chunks else None
        await self._send(self._wire.request(command, arguments))
        return await self._message(limit)

    async def advance(self, mode: str, window: Window[Any], limit: float | None) -> list[str]:
        """Go one step on with a batch: send a piece of it, or return replies that arrived.

        Args:
            mode: The stream mode.
            window: The batch; what of it is unanswered is asked again if this connection is new.
            limit: Seconds that replies may take; `None` for any.

        Raises:
            ClientError: A key can't be asked about.
            InvokeError: The server refused a line.
            ProtocolError: The server sent what it should not.
            ConnectionClosedError: The server closed the connection.
            OSError: The connection broke, or the time is over.
        """
        if self.in_flight is not window:
            await self._enter(mode)
            window.rewind()
            self.in_flight = window
        if lines := window.take_unsent():
            try:
                await self._send(lines)
            except (OSError, ConnectionClosedError):
                # What was answered before need not be asked again; the next step fails again.
                replies = self._wire.stream_lines(window.unanswered)
                if not replies:
                    raise
                window.answered(len(replies))
                return replies
        if window.wants_more:
            return []
        replies = await self._lines(window.unanswered, limit)
        window.answered(len(replies))
        if not window.unanswered:
            self.in_flight = None
        return replies

    async def close(self) -> None:
        """Close. Idempotent."""
        await self._stream.close()

    async def _enter(self, mode: str | None) -> None:
        """Change to a stream mode, or with `None` to messages, unless it is there already."""
        if self._mode == mode:
            return
        if self._mode is not None:
            await self._send(STREAM_END)
            (line,) = await self._lines(1, self._limit)
            if line != STREAM_ENDED:
                raise ProtocolError(f"the server ended {self._mode} with '{line[:80]}'")
            self._mode = None
        if mode is not None:
            await self._send(self._wire.request(mode, None))
            reply = await self._message(self._limit)
            if reply != STREAM_BEGUN:
                raise ProtocolError(f"the server began {mode} with '{str(reply)[:80]}'")
            self._mode = mode

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send(data, self._limit)
        except (OSError, ConnectionClosedError):
            # The server may have said why before it closed, in TLS's own way or in ours.
            try:
                while True:
                    self._wire.feed(await self._stream.receive(0))
            except TlsError:
                raise
            except (OSError, ConnectionClosedError):
                pass
            if self._mode is None:
                self._wire.check_refusal()
            raise

    async def _message(self, limit: float | None) -> Any:
        while (reply := self._wire.message()) is INCOMPLETE:
            self._wire.feed(await self._stream.receive(limit))
        return reply

    async def _lines(self, most: int, limit: float | None) -> list[str]:
        while not (lines := self._wire.stream_lines(most)):
            self._wire.feed(await self._stream.receive(limit))
        return lines


async def open_stream(
    address: Address, limit: float | None, context: ssl.SSLContext | None
) -> "AsyncStream | AsyncWebSocket":
    """Connect to a server, and say nothing yet.

    Args:
        address: The server's.
        limit: Seconds that each step may take; `None` for any.
        context: How to do TLS; `None` for what the environment says.

    Raises:
        AddressError: What the environment says of TLS can't be used.
        OSError: Nobody listens there.
    """
    if not isinstance(address, WebSocketAddress):
        return await AsyncStream.connect(address, limit, context)
    # Late: most connections need no WebSocket, whose library takes long to import.
    from hashserv.transport.async_websocket import AsyncWebSocket

    return await AsyncWebSocket.connect(address, limit, context)
