"""One face for both kinds of client streams, so that one suite serves both."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from hashserv.address import Address, WebSocketAddress
from hashserv.transport.async_stream import AsyncStream
from hashserv.transport.async_websocket import AsyncWebSocket
from hashserv.transport.sync_stream import SyncStream
from hashserv.transport.sync_websocket import SyncWebSocket
from tests.transport.loops import SECONDS

Open = Callable[..., Any]


class Blocking:
    """An asynchronous stream, whose coroutines are run to their end."""

    def __init__(
        self, address: Address, context: ssl.SSLContext | None, limit: float | None
    ) -> None:
        self.runner = asyncio.Runner()
        opening: Any
        if isinstance(address, WebSocketAddress):
            opening = AsyncWebSocket.connect(address, limit, context)
        else:
            opening = AsyncStream.connect(address, limit, context)
        try:
            self.stream = self.runner.run(opening)
        except BaseException:
            self.runner.close()
            raise

    def send(self, data: bytes, limit: float | None = SECONDS) -> None:
        self.runner.run(self.stream.send(data, limit))

    def receive(self, limit: float | None = SECONDS) -> bytes:
        data: bytes = self.runner.run(self.stream.receive(limit))
        return data

    def close(self) -> None:
        self.runner.run(self.stream.close())

    def dispose(self) -> None:
        self.close()
        self.runner.close()


class Plain:
    """A blocking stream."""

    def __init__(
        self, address: Address, context: ssl.SSLContext | None, limit: float | None
    ) -> None:
        self.stream: SyncStream | SyncWebSocket
        if isinstance(address, WebSocketAddress):
            self.stream = SyncWebSocket.connect(address, limit, context)
        else:
            self.stream = SyncStream.connect(address, limit, context)

    def send(self, data: bytes, limit: float | None = SECONDS) -> None:
        self.stream.send(data, limit)

    def receive(self, limit: float | None = SECONDS) -> bytes:
        return self.stream.receive(limit)

    def close(self) -> None:
        self.stream.close()

    dispose = close


def receive_lines(stream: Any, count: int) -> list[bytes]:
    """Return so many lines, without their line feeds, and see that no more came."""
    pieces: list[bytes] = []
    missing = count
    while missing > 0:
        pieces.append(stream.receive())
        missing -= pieces[-1].count(b"\n")
    lines = b"".join(pieces).split(b"\n")
    assert len(lines) == count + 1
    assert lines.pop() == b""
    return lines
