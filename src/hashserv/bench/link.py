"""A connection of a load: the transports' own, but with callbacks in the place of waiting.

A reply then costs one turn of the event loop, which is what a load generator is measured by.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from hashserv.address import Address, WebSocketAddress
from hashserv.client.accounts import introduction
from hashserv.client.aio_connection import AsyncConnection
from hashserv.errors import ConnectionClosedError
from hashserv.transport.async_stream import AsyncStream
from hashserv.wire.framing import DEFAULT_MAX_CHUNK
from hashserv.wire.handshake import NEEDS_HEADERS, encode_greeting

if TYPE_CHECKING:
    import socket

    from hashserv.transport.async_websocket import AsyncWebSocket
    from hashserv.transport.websocket import ClientWebSocket


class Target(NamedTuple):
    """The server to measure, and who to be there.

    Args:
        address: The server's.
        username: Who to log in as; `None` for nobody.
        password: That user's token.
        become: The user to act as then, or `None`.
    """

    address: Address
    username: str | None = None
    password: str | None = None
    become: str | None = None


class Port(AsyncStream):
    """A stream that calls back when there is something to read, and never waits to write."""

    __slots__ = ("_rest",)

    def __init__(self, connection: "socket.socket", place: str = "") -> None:
        super().__init__(connection, place)
        self._rest = bytearray()  # bounded by what the load has in flight

    def attach(self, readable: Callable[[], object]) -> None:
        """Call `readable` from now on, whenever there is something to `take`."""
        asyncio.get_running_loop().add_reader(self._socket, readable)

    def detach(self) -> None:
        """Call nobody any more. Idempotent."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        loop.remove_writer(self._socket)

    def take(self) -> bytes:
        """Return what has arrived, or nothing.

        Raises:
            ConnectionClosedError: The server has closed.
            OSError: The connection broke.
        """
        return self._read()

    def put(self, data: bytes) -> None:
        """Send all of `data`, what there is no room for as soon as there is."""
        if self._rest:
            self._rest += data
            return
        self._rest += self._sent(data)
        if self._rest:
            asyncio.get_running_loop().add_writer(self._socket, self._go_on)

    def _go_on(self) -> None:
        self._rest = bytearray(self._sent(self._rest))
        if not self._rest:
            asyncio.get_running_loop().remove_writer(self._socket)

    def _sent(self, data: bytes | bytearray) -> memoryview | bytes:
        """Send what there is room for and return the rest."""
        try:
            return self._write(memoryview(data))
        except (OSError, ConnectionClosedError):
            return b""  # `take` tells of it, once it has returned what the server said before


class Link:
    """A connection that greeted its server and logged in; `Link.open` makes one.

    Args:
        port: What calls back.
        stream: The same to wait for; this object closes it.
        websocket: What the port carries, if that is no bare lines.
    """

    __slots__ = ("_messages", "_port", "_websocket", "mode")

    def __init__(
        self,
        port: Port,
        stream: "AsyncStream | AsyncWebSocket",
        websocket: "ClientWebSocket | None",
    ) -> None:
        self._port = port
        self._messages = AsyncConnection(stream, None)
        self._websocket = websocket
        self.mode: str | None = None
        """The stream mode that the last request belongs into (PROTOCOL.md §6)."""

    @classmethod
    async def open(cls, target: Target, limit: float) -> Self:
        """Connect and log in.

        Args:
            target: The server, and who to be there.
            limit: Seconds that each step may take.

        Raises:
            AddressError: What the environment says of TLS can't be used.
            InvokeError: The server refused the login.
            ClientError: A login has no password.
            OSError: Nobody listens there, or the connection broke.
            ConnectionClosedError: The server closed it.
        """
        port, stream, websocket = await _connect(target.address, limit)
        link = cls(port, stream, websocket)
        try:
            await stream.send(encode_greeting({NEEDS_HEADERS: "false"}), limit)
            for command, arguments in introduction(target.username, target.password, target.become):
                await link.request(command, arguments, limit)
        except BaseException:
            await link.close()
            raise
        return link

    async def request(self, command: str, arguments: object, limit: float | None) -> Any:
        """Send a request before any load, and return its reply.

        Args:
            command: Its name.
            arguments: Its arguments.
            limit: Seconds that the reply may take; `None` for any.

        Raises:
            InvokeError: The server refused it.
            ProtocolError: The server sent what it should not.
            OSError: The connection broke, or the time is over.
            ConnectionClosedError: The server closed it.
        """
        return await self._messages.request(
            command, arguments, max_chunk=DEFAULT_MAX_CHUNK, limit=limit
        )

    def attach(self, readable: Callable[[], object]) -> None:
        """Call `readable` from now on, whenever there is something to `take`."""
        self._port.attach(readable)

    def detach(self) -> None:
        """Call nobody any more. Idempotent."""
        self._port.detach()

    def take(self) -> bytes:
        """Return what has arrived, or nothing: bytes of a stream, whole lines of a WebSocket.

        Raises:
            ConnectionClosedError: The server has closed.
            OSError: The connection broke.
        """
        data = self._port.take()
        if self._websocket is None or not data:
            return data
        self._websocket.feed(data)
        if answer := self._websocket.answer():
            self._port.put(answer)
        return self._websocket.take()

    def put(self, lines: bytes) -> None:
        """Send whole lines.

        Raises:
            ConnectionClosedError: The server has closed.
        """
        self._port.put(lines if self._websocket is None else self._websocket.encode(lines))

    async def close(self) -> None:
        """Close. Idempotent."""
        await self._messages.close()


async def _connect(
    address: Address, limit: float
) -> "tuple[Port, AsyncStream | AsyncWebSocket, ClientWebSocket | None]":
    """Return a connection, as something to call back and as something to wait for."""
    if not isinstance(address, WebSocketAddress):
        port = await Port.connect(address, limit)
        return port, port, None
    # Late: most connections need no WebSocket, whose library takes long to import.
    from hashserv.transport.async_websocket import AsyncWebSocket
    from hashserv.transport.websocket import below

    port = await Port.connect(below(address), limit)
    stream = await AsyncWebSocket.over(port, address, limit)
    return port, stream, stream.websocket
