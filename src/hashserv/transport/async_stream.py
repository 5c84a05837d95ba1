"""The client's end of a stream connection, for callers in an event loop (see `stream`).

asyncio's own streams will not do: once a write has failed they withhold what arrived before, and
that is where the server says why it closed.
"""

import asyncio
import socket
import ssl
from typing import Self

from hashserv.address import StreamAddress, TcpAddress, TlsAddress, UnixAddress
from hashserv.transport.listen import prepare_tcp
from hashserv.transport.stream import CONNECT_PAUSE, StreamSocket
from hashserv.transport.tls import client_context, wrap
from hashserv.transport.unix import connect_unix


class AsyncStream(StreamSocket):
    """A connection to a server. `AsyncStream.connect` makes one. One task at a time may use it."""

    __slots__ = ()

    @classmethod
    async def connect(
        cls, address: StreamAddress, limit: float | None, context: ssl.SSLContext | None = None
    ) -> Self:
        """Connect to a server.

        Args:
            address: The server's.
            limit: Seconds that it may take.
            context: How to do TLS; `None` for what `client_context` returns.

        Raises:
            AddressError: What the environment says of TLS can't be used.
            TlsError: TLS with the server failed.
            OSError: Nobody listens there.
        """
        try:
            async with asyncio.timeout(limit):
                match address:
                    case UnixAddress():
                        return cls(await _connect_unix(address))
                    case TcpAddress():
                        return cls(await _connect_tcp(address))
                    case TlsAddress():
                        return await cls._connect_tls(address, context or client_context())
        except TimeoutError:
            raise ConnectionError(f"Timed out connecting to {address}") from None

    @classmethod
    async def _connect_tls(cls, address: TlsAddress, context: ssl.SSLContext) -> Self:
        connection = wrap(await _connect_tcp(address), address.host, context)
        stream = cls(connection, str(TcpAddress(*address)))
        try:
            while not stream._shake_hands():
                await stream._wait(None, "")
        except BaseException:
            await stream.close()
            raise
        return stream

    async def send(self, data: bytes, limit: float | None) -> None:
        """Send all of `data`."""
        await asyncio.sleep(0)  # a long batch need never wait, and others want their turn
        rest = self._write(memoryview(data))
        while rest:
            await self._wait(limit, "to take a request")
            self._set_aside()
            rest = self._write(rest)

    async def receive(self, limit: float | None) -> bytes:
        """Return what arrived, at least one byte."""
        await asyncio.sleep(0)
        data = self._take_aside() or self._read()
        while not data:
            await self._wait(limit, "for data")
            data = self._read()
        return data

    async def close(self) -> None:
        """Close. Idempotent."""
        self._socket.close()

    async def _wait(self, limit: float | None, what: str) -> None:
        """Wait until there is something to read, or room to write if that was wanted."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        writing = self._wants_room
        loop.add_reader(self._socket, wake)
        if writing:
            loop.add_writer(self._socket, wake)
        try:
            async with asyncio.timeout(limit):
                await ready
        except TimeoutError:
            raise ConnectionError(f"Timed out waiting {what}") from None
        finally:
            loop.remove_reader(self._socket)
            if writing:
                loop.remove_writer(self._socket)


async def _connect_tcp(address: TcpAddress | TlsAddress) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        address.host or None, address.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
    )
    failure: OSError = ConnectionError(f"{address.host} has no address")
    for family, kind, protocol, _, place in found:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(0)
            await loop.sock_connect(connection, place)
            prepare_tcp(connection)
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure


async def _connect_unix(address: UnixAddress) -> socket.socket:
    while True:
        try:
            return connect_unix(address.path, timeout=0)
        except BlockingIOError:
            await asyncio.sleep(CONNECT_PAUSE)
