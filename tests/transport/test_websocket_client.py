"""The client's end of a WebSocket, against the servers of `websockets` and of plain sockets."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import websockets.asyncio.server
import websockets.sync.server
from websockets.frames import Frame, Opcode
from websockets.sync.server import ServerConnection

from hashserv.address import WebSocketAddress
from hashserv.errors import ConnectionClosedError
from hashserv.transport.tls import ServerTls, TlsError
from hashserv.wire import framing
from tests.certificates import Certificates
from tests.transport.loops import SECONDS
from tests.transport.streams import Open, receive_lines

Handler = Callable[[ServerConnection], None]


def local(port: int, path: str = "/hashserv?a=b", *, secure: bool = False) -> WebSocketAddress:
    return WebSocketAddress(secure, "localhost" if secure else "127.0.0.1", port, path)


@contextlib.contextmanager
def serving(handler: Handler, **options: Any) -> Iterator[int]:
    """Serve WebSockets with the library's own server, and give its port."""
    options = {"close_timeout": 0.1, **options}  # for clients that are closed after the test
    with websockets.sync.server.serve(handler, "127.0.0.1", 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def answering(reply: bytes) -> Iterator[int]:
    """Serve one connection, with the same reply to any request; then close."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                received = b""
                while b"\r\n\r\n" not in received:
                    received += connection.recv(4096)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def echo(connection: ServerConnection) -> None:
    for message in connection:
        assert isinstance(message, str)
        connection.send(message)


def test_each_line_is_a_text_frame(open_stream: Open) -> None:
    heard: list[Any] = []

    def record(connection: ServerConnection) -> None:
        assert connection.request is not None
        heard.append(connection.request.path)
        assert "Origin" not in connection.request.headers
        heard.extend(connection)

    with serving(record) as port:
        stream = open_stream(local(port))
        assert not stream.stream.chunks
        stream.send('OEHASHEQUIV 1.1\n\n{"ping": {}}\n\u00e4\n'.encode())
        stream.send(b"")
        stream.send(b"last\n")
        stream.close()
        stream.close()
    assert heard == ["/hashserv?a=b", "OEHASHEQUIV 1.1", "", '{"ping": {}}', "\u00e4", "last"]


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_lines_come_back_in_order(open_stream: Open, compression: str | None) -> None:
    with serving(echo, compression=compression) as port:
        stream = open_stream(local(port))
        lines = [b"%d" % number * 9 for number in range(20_000)]
        stream.send(b"\n".join([*lines, b""]))  # more than the buffers hold: it must read, too
        assert receive_lines(stream, len(lines)) == lines


def test_over_tls(open_stream: Open, certificates: Certificates, others: Certificates) -> None:
    tls = ServerTls(certificates.server()).context
    with serving(echo, ssl=tls) as port:
        stream = open_stream(local(port, secure=True), certificates.context())
        stream.send(b"a\n\nb\n")
        assert receive_lines(stream, 3) == [b"a", b"", b"b"]
        with pytest.raises(TlsError, match="not trusted here"):
            open_stream(local(port, secure=True), others.context())


def test_the_asyncio_server_of_the_library(open_stream: Open) -> None:
    ready = threading.Event()
    ports: list[int] = []
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()

    async def answer(connection: websockets.asyncio.server.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def serve() -> None:
        async with websockets.asyncio.server.serve(answer, "127.0.0.1", 0) as server:
            ports.append(server.sockets[0].getsockname()[1])
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(SECONDS)
    stream = open_stream(local(ports[0]))
    stream.send(b"a\nb\n")
    assert receive_lines(stream, 2) == [b"a", b"b"]
    stream.close()
    loop.call_soon_threadsafe(ended.set)
    thread.join()
    loop.close()


def test_fragments_pings_line_feeds_and_binary_frames(open_stream: Open) -> None:
    def odd(connection: ServerConnection) -> None:
        connection.send(iter(["one", "", " li", "ne"]))
        connection.ping(b"are you there?")
        connection.send('{"a":\n "b"}\n')
        connection.send(b"binary \xff")
        connection.send("")
        pong = connection.ping()
        assert connection.recv() == "go on"
        connection.send("answered" if pong.wait(SECONDS) else "silent")

    with serving(odd) as port:
        stream = open_stream(local(port))
        assert receive_lines(stream, 4) == [b"one line", b'{"a":  "b"} ', b"binary \xff", b""]
        stream.send(b"go on\n")
        assert receive_lines(stream, 1) == [b"answered"]


def test_a_server_that_closes(open_stream: Open) -> None:
    def close(connection: ServerConnection) -> None:
        connection.send("why")
        connection.close(1013, "busy")

    with serving(close) as port:
        stream = open_stream(local(port))
        assert receive_lines(stream, 1) == [b"why"]
        for _ in range(2):
            with pytest.raises(ConnectionClosedError, match=r"1013 \(try again later\) busy"):
                stream.receive()
        with pytest.raises(ConnectionClosedError, match="1013"):
            stream.send(b"a\n")


def test_a_server_that_is_gone(open_stream: Open) -> None:
    def drop(connection: ServerConnection) -> None:
        connection.send("why")
        connection.socket.shutdown(socket.SHUT_RDWR)

    with serving(drop) as port:
        stream = open_stream(local(port))
        assert receive_lines(stream, 1) == [b"why"]
        with pytest.raises(ConnectionClosedError):
            stream.receive()


def test_no_reply_in_time(open_stream: Open) -> None:
    ended = threading.Event()

    def wait(_: ServerConnection) -> None:
        ended.wait(SECONDS)

    with serving(wait) as port:
        stream = open_stream(local(port))
        with pytest.raises(ConnectionError, match="Timed out waiting for data"):
            stream.receive(0.01)
        ended.set()


def test_a_reply_that_is_too_long(open_stream: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hashserv.transport.websocket.DEFAULT_MAX_MESSAGE", 1000)

    def long(connection: ServerConnection) -> None:
        connection.send("x" * 1000)
        connection.send(iter(["x" * 600, "x" * 401]))

    assert framing.DEFAULT_MAX_MESSAGE > 1000
    with serving(long) as port:
        stream = open_stream(local(port))
        assert receive_lines(stream, 1) == [b"x" * 1000]
        with pytest.raises(ConnectionClosedError, match=r"what it should not: .*exceeds limit"):
            stream.receive()


def test_frames_that_break_the_protocol(open_stream: Open) -> None:
    def masked(connection: ServerConnection) -> None:
        connection.socket.sendall(Frame(Opcode.TEXT, b"x").serialize(mask=True))

    with serving(masked) as port:
        stream = open_stream(local(port))
        with pytest.raises(ConnectionClosedError, match="incorrect masking"):
            stream.receive()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\nsad.",
            "HTTP 502 Bad Gateway: look",
        ),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\nuntil the end", "HTTP 502 Bad Gateway: look"),
        (b"HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n", "HTTP 404: look at the address"),
        (b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "HTTP 301 Moved"),
        (b"HTTP/1.0 503 Busy\r\n\r\n", "does not speak WebSocket: .*HTTP/1.0 503 Busy"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "does not speak WebSocket: missing Connection header"),
        (b"220 mail.example ESMTP\r\n", "does not speak WebSocket"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "does not speak WebSocket"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "does not speak WebSocket"),
        (b"", "does not speak WebSocket"),
    ],
)
def test_upgrades_that_are_refused(open_stream: Open, reply: bytes, words: str) -> None:
    with (
        answering(reply) as port,
        pytest.raises(ConnectionError, match=f"ws://127.0.0.1:{port}/hashserv.a=b .*{words}"),
    ):
        open_stream(local(port))


def test_an_upgrade_that_is_not_answered(open_stream: Open) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ConnectionError, match="Timed out waiting for data"),
    ):
        open_stream(local(silent.getsockname()[1]), None, 0.05)


def test_nobody_is_there(open_stream: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        open_stream(local(port))
