"""Asking an upstream in a test: filled servers, answers, and waiting for a state."""

import asyncio
import contextlib
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
import uvloop

from hashserv.address import parse_address
from hashserv.model import MappingKey
from hashserv.upstream.remote import RemoteUpstream
from tests.peers import METHOD, Peer, digest
from tests.servers import START_SECONDS

_Result = TypeVar("_Result")

KNOWN = 1000
"""How many tasks `fill` reports: those of the numbers below."""


def run(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine as the server would: in uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


@contextlib.asynccontextmanager
async def asking(address: str, **settings: Any) -> AsyncIterator[RemoteUpstream]:
    """An upstream, closed at the end."""
    upstream = RemoteUpstream(parse_address(address), **settings)
    try:
        yield upstream
    finally:
        await upstream.close()


def keys(*numbers: int) -> list[MappingKey]:
    return [MappingKey(METHOD, digest(number)) for number in numbers]


def unihash(number: int) -> str:
    """Return the unihash of a task, once its server is filled."""
    return digest(10**9 + number)


def answers(*numbers: int) -> list[str | None]:
    """Return what a filled server answers."""
    return [unihash(number) if number < KNOWN else None for number in numbers]


def fill(address: str) -> None:
    """Report `KNOWN` tasks to a server."""
    with Peer(address) as peer:
        for number in range(KNOWN):
            report = {
                "method": METHOD,
                "taskhash": digest(number),
                "outhash": digest(10**6 + number),
                "unihash": unihash(number),
            }
            peer.send(json.dumps({"report": report}).encode() + b"\n")
        assert None not in peer.lines(KNOWN)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until a callable says yes."""
    async with asyncio.timeout(START_SECONDS):
        while not condition():  # noqa: ASYNC110 - many things are waited for
            await asyncio.sleep(0.005)


def logged(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    """Return the lines that the upstream logged, of a level and those above it."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "hashserv.upstream" and record.levelno >= level
    ]


@contextlib.contextmanager
def scripted(script: Callable[[bytes], bytes | None]) -> Iterator[str]:
    """A server that answers each line by a function; `None` closes the connection."""
    listening = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as received:
            for line in received:
                reply = script(line)
                if reply is None:
                    return
                connection.sendall(reply)

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connections.append(connection)
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        accepting.join()
        listening.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def good(line: bytes) -> bytes | None:
    """Answer as a server of 2020 to 2023 would: no headers, and it knows no unihash."""
    if line.startswith(b'{"get-stream"'):
        return b'"ok"\n'
    if line == b"END\n":
        return b"ok\n"
    return b"" if line.startswith(b"OEHASHEQUIV") or b":" in line or line == b"\n" else b"\n"
