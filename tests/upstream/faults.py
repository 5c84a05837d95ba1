"""A proxy between a server and its upstream that does to the line what real lines and servers do.

The fault can be changed while it runs, and counts for connections that are there, too.
"""

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from hashserv.address import TcpAddress, UnixAddress, WebSocketAddress, parse_address

PIECE = 16384
"""Bytes forwarded at once."""

Rewrite = Callable[[bytes], bytes]

_ANSWERED = re.compile(rb'((?:"ok"|[0-9a-f]{64})\n)((?:[0-9a-f]{64})?\n)')
"""A reply to a look-up, after what shows that it is one."""

_QUESTION = re.compile(rb"^[^ :{]+ [0-9a-f]+$", re.MULTILINE)


def garbage(data: bytes) -> bytes:
    """Replace all that a server sends by what no server would send."""
    return bytes((byte * 7 + 129) % 256 for byte in data) + b"\n"


def extra_line(data: bytes) -> bytes:
    """Answer one question of a stream of look-ups twice."""
    return _ANSWERED.sub(rb"\1\2\2", data, count=1)


def missing_line(data: bytes) -> bytes:
    """Leave out one reply to a stream of look-ups."""
    return _ANSWERED.sub(rb"\1", data, count=1)


def wrong_unihash(data: bytes) -> bytes:
    """Answer one look-up with what is no unihash."""
    return _ANSWERED.sub(rb"\1WRONG\n", data, count=1)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong; by default nothing. Bytes are counted from when the fault begins.

    Args:
        latency: Seconds that each direction takes longer.
        bandwidth: Bytes a second in each direction.
        stall_after: After so many bytes of the server's nothing more arrives, as if the line had
            gone dead: nothing is closed.
        reset_after: After so many bytes of the server's the connection is reset.
        rewrite: What is done to the server's bytes.
        refuse: Whether nobody listens; connections that are there are reset.
        close_at_once: Whether new connections are closed when the first bytes arrive; those that
            are there as well.
    """

    latency: float = 0.0
    bandwidth: float | None = None
    stall_after: int | None = None
    reset_after: int | None = None
    rewrite: Rewrite | None = None
    refuse: bool = False
    close_at_once: bool = False


NO_FAULT = Fault()

FAULTS: dict[str, Fault] = {
    "stall": Fault(stall_after=0),
    "stall in a reply": Fault(stall_after=2000),
    "reset": Fault(reset_after=0),
    "reset in a reply": Fault(reset_after=2000),
    "garbage": Fault(rewrite=garbage),
    "extra line": Fault(rewrite=extra_line),
    "missing line": Fault(rewrite=missing_line),
    "wrong unihash": Fault(rewrite=wrong_unihash),
    "refused": Fault(refuse=True),
    "closed in the handshake": Fault(close_at_once=True),
}
"""The ways in which an upstream can fail; those of lines need a stream, not a WebSocket."""


@dataclass(eq=False)
class _Link:
    """One connection, through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    passed: int = 0
    """Bytes of the server's since the fault began."""

    asked: bytearray = field(default_factory=bytearray)
    """What the client sent."""

    def reset(self) -> None:
        """Cut both connections, without a farewell."""
        with contextlib.suppress(OSError):  # it may be closed
            self.client.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self.client.transport.abort()
        self.server.transport.abort()


class FaultyProxy:
    """Forward connections to a server, in a thread of its own, with a fault or none.

    `address` is where it listens, `connections` how many it has accepted, `asked` what clients
    sent.

    Args:
        server: The server's address: TCP, Unix, or ws://.
        fault: What is wrong at first.
    """

    def __init__(self, server: str, fault: Fault = NO_FAULT) -> None:
        self._server = parse_address(server)
        self._fault = fault
        self._changed = asyncio.Event()
        self._links: set[_Link] = set()
        # Holds the port while nobody listens on it.
        self._holder = _bound(0)
        self._port: int = self._holder.getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"
        self.connections = 0
        self.asked = bytearray()
        self._conversations: list[bytearray] = []  # apart: pieces of them end within lines
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.set(fault)

    def set(self, fault: Fault) -> None:
        """Change the fault; done when this returns."""
        asyncio.run_coroutine_threadsafe(self._set(fault), self._loop).result(30)

    def cut(self) -> None:
        """Reset the connections that are there."""

        async def cutting() -> None:
            self._cut()

        asyncio.run_coroutine_threadsafe(cutting(), self._loop).result(30)

    def questions(self) -> int:
        """Return how many lines of streams were sent that look up a taskhash."""
        return sum(len(_QUESTION.findall(asked)) for asked in self._conversations)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._holder.close()

    async def _set(self, fault: Fault) -> None:
        self._fault = fault
        for link in self._links:
            link.passed = 0
        self._changed.set()  # who waits in a fault looks at the new one
        self._changed = asyncio.Event()
        if fault.refuse or fault.close_at_once:
            self._cut()
        if fault.refuse and self._listening is not None:
            self._listening.close()
            self._listening = None
        elif not fault.refuse and self._listening is None:
            self._listening = await asyncio.start_server(self._start, sock=_bound(self._port))

    def _cut(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _close(self) -> None:
        if self._listening is not None:
            self._listening.close()
        await _turns()  # what asyncio is just accepting
        self._cut()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _turns()  # what it is just closing

    def _start(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio complains loudly of its own ones that are cancelled.
        task = self._loop.create_task(self._accept(from_client, to_client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(
        self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        if self._fault.close_at_once:
            with contextlib.suppress(OSError):
                await from_client.read(1)
            to_client.transport.abort()
            return
        try:
            from_server, to_server = await self._connect()
        except OSError:  # as a forwarding host does whose server is down
            to_client.transport.abort()
            return
        link = _Link(to_client, to_server)
        self._links.add(link)
        self._conversations.append(link.asked)
        try:
            await asyncio.gather(
                self._pump(from_client, to_server, link, self._take_request),
                self._pump(from_server, to_client, link, self._take_reply),
            )
        except OSError:
            pass
        finally:
            self._links.discard(link)
            to_client.transport.abort()
            to_server.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        match self._server:
            case UnixAddress(path):
                return await asyncio.open_unix_connection(path)
            case TcpAddress(host, port) | WebSocketAddress(host=host, port=port):
                return await asyncio.open_connection(host, port)
            case address:
                raise AssertionError(address)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        link: _Link,
        take: Callable[[_Link, bytes], AsyncIterator[bytes]],
    ) -> None:
        """Forward one direction; what is read is due later, by the latency of then."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def send() -> None:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(due - self._loop.time())
                async for piece in take(link, data):
                    sink.write(piece)
                    await sink.drain()
                    if bandwidth := self._fault.bandwidth:
                        await asyncio.sleep(len(piece) / bandwidth)
                if not data:
                    if sink.can_write_eof():
                        sink.write_eof()
                    return

        sending = asyncio.create_task(send())
        try:
            while data := await source.read(PIECE):
                queue.put_nowait((self._loop.time() + self._fault.latency, data))
            queue.put_nowait((self._loop.time() + self._fault.latency, b""))
            await sending
        finally:
            sending.cancel()

    async def _take_request(self, link: _Link, data: bytes) -> AsyncIterator[bytes]:
        link.asked += data
        self.asked += data
        yield data

    async def _take_reply(self, link: _Link, data: bytes) -> AsyncIterator[bytes]:
        """Yield what of a piece arrives, when it does."""
        while data:
            fault = self._fault
            limit = fault.reset_after if fault.stall_after is None else fault.stall_after
            room = len(data) if limit is None else min(limit - link.passed, len(data))
            link.passed += room
            if room:
                yield fault.rewrite(data[:room]) if fault.rewrite else data[:room]
            data = data[room:]
            if data and fault.reset_after is not None:
                link.reset()
                raise ConnectionResetError
            if data and fault is self._fault:
                await self._changed.wait()


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound
