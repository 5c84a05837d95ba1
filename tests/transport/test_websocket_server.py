"""The server's end of a WebSocket: what a session sees of a peer, and a peer of a session."""

import asyncio
import contextlib
import itertools
import json
import os
import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any

import pytest
import websockets.sync.client
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection

from hashserv.address import WebSocketAddress
from hashserv.transport.tls import ServerTls
from hashserv.transport.websocket_server import WebSocketEnd, _client
from tests.certificates import Certificates
from tests.servers import wait_for
from tests.transport.loops import SECONDS, Echo, Serving
from tests.transport.streams import Open, receive_lines

MAX_MESSAGE = 100_000
MOST_UNREAD = 100_000_000
"""Many times what the kernel's buffers hold."""

UPGRADE = (
    b"GET /any/path HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Whole(Echo):
    """An `Echo` that only ever gets whole lines."""

    def data_received(self, data: bytes) -> None:
        assert data.endswith(b"\n")
        super().data_received(data)


def served(
    make: Callable[[], Echo] = Whole,
    loop: str = "asyncio",
    tls: ssl.SSLContext | None = None,
    **options: Any,
) -> Serving:
    """Serve WebSockets."""

    def wrap(echo: Echo) -> asyncio.BaseProtocol:
        return WebSocketEnd(
            echo, **{"max_message": MAX_MESSAGE, "message_timeout": SECONDS, **options}
        )

    return Serving(make, loop, tls, wrap)


@contextlib.contextmanager
def connected(serving: Serving, **options: Any) -> Iterator[ClientConnection]:
    """Connect with the library's own client."""
    options = {"compression": None, "max_size": None, **options}
    with websockets.sync.client.connect(f"ws://127.0.0.1:{serving.port}/x", **options) as client:
        yield client


@contextlib.contextmanager
def raw(serving: Serving, *, upgrade: bytes = UPGRADE) -> Iterator[socket.socket]:
    """Connect, and read the answer to a request by hand."""
    with socket.create_connection(("127.0.0.1", serving.port), SECONDS) as client:
        if upgrade:
            client.sendall(upgrade)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += client.recv(1)
            assert answer.startswith(b"HTTP/1.1 101 ")
        yield client


def text(data: bytes, *, opcode: Opcode = Opcode.TEXT, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def rest(client: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    data = b""
    while piece := client.recv(65536):
        data += piece
    return data


def test_frames_are_lines(loop: str) -> None:
    echo = Whole()
    with served(lambda: echo, loop) as serving:
        with connected(serving) as client:
            client.send("OEHASHEQUIV 1.1")
            client.send("")
            client.send('{"a":\n1}')
            client.send("\u00e4".encode())  # binary
            assert [client.recv() for _ in range(4)] == [
                "OEHASHEQUIV 1.1",
                "",
                '{"a": 1}',
                "\u00e4",
            ]
        assert echo.lost.wait(SECONDS)
    assert echo.heard == 'OEHASHEQUIV 1.1\n\n{"a": 1}\n\u00e4\n'.encode()
    assert echo.calls[0] == "made"
    assert echo.calls[-2:] == ["eof", "lost"]


def test_lines_that_come_together_are_given_together(loop: str) -> None:
    echo = Whole()
    with served(lambda: echo, loop) as serving, raw(serving) as client:
        client.sendall(b"".join(text(b"line %d" % number) for number in range(100)))
        answer = b""
        while b"line 99" not in answer:
            answer += client.recv(65536)
    assert answer == b"".join(
        Frame(Opcode.TEXT, b"line %d" % number).serialize(mask=False) for number in range(100)
    )
    assert echo.calls == ["made", "data", "eof", "lost"]


@pytest.mark.parametrize("compression", [True, False])
def test_many_long_lines(loop: str, compression: bool) -> None:
    lines = [str(number) * 7 for number in range(5000)] + ["x" * MAX_MESSAGE, "\u00e4" * 40_000]
    with (
        served(Whole, loop, compression=compression) as serving,
        connected(serving, compression="deflate") as client,
    ):
        assert [extension.name for extension in client.protocol.extensions] == (
            ["permessage-deflate"] if compression else []
        )
        for line in lines:
            client.send(line)
            assert client.recv() == line
        client.send(iter(["some ", "", "frag", "ments"]))
        assert client.recv() == "some fragments"


def test_the_clients_of_this_package(open_stream: Open, loop: str) -> None:
    with served(Whole, loop) as serving:
        stream = open_stream(WebSocketAddress(False, "127.0.0.1", serving.port, ""))
        lines = [b"%d" % number * 9 for number in range(20_000)]
        stream.send(b"\n".join([*lines, b""]))
        assert receive_lines(stream, len(lines)) == lines
        stream.close()


def test_over_tls(open_stream: Open, loop: str, certificates: Certificates) -> None:
    echo = Whole()
    tls = ServerTls(certificates.server()).context
    with served(lambda: echo, loop, tls) as serving:
        address = WebSocketAddress(True, "localhost", serving.port, "/")
        stream = open_stream(address, certificates.context())
        stream.send(b"a\n\n")
        assert receive_lines(stream, 2) == [b"a", b""]
        stream.close()
        assert echo.lost.wait(SECONDS)
        assert echo.transport.get_extra_info("peername")[0] == "127.0.0.1"
    assert echo.calls == ["made", "data", "eof", "lost"]
    assert echo.error is None, "it said goodbye"


def test_a_refusal_over_tls(loop: str, certificates: Certificates) -> None:
    echo = Whole()
    tls = ServerTls(certificates.server()).context
    with (
        served(lambda: echo, loop, tls) as serving,
        socket.create_connection(("127.0.0.1", serving.port), SECONDS) as plain,
        certificates.context().wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(UPGRADE.replace(b"\r\n\r\n", b"\r\nOrigin: https://x\r\n\r\n"))
        assert client.recv(65536).startswith(b"HTTP/1.1 403 ")
        client.close()
        assert echo.lost.wait(SECONDS)


def test_pings_are_answered(loop: str) -> None:
    with served(Whole, loop) as serving, connected(serving) as client:
        assert client.ping().wait(SECONDS)
        with raw(serving) as other:
            other.sendall(
                text(b"a", fin=False)
                + text(b"ping", opcode=Opcode.PING)
                + text(b"b", opcode=Opcode.CONT)
            )
            expected = b"\x8a\x04ping\x81\x02ab"
            answer = b""
            while len(answer) < len(expected):
                answer += other.recv(100)
            assert answer == expected


# Closing.


def test_the_session_closes(loop: str) -> None:
    echo = Whole()
    with served(lambda: echo, loop) as serving, connected(serving) as client:

        def end() -> None:
            echo.transport.write(b"first\nlast\n")
            echo.transport.close()
            assert echo.transport.is_closing()
            echo.transport.write(b"too late\n")
            echo.transport.close()

        serving.call(end)
        assert [client.recv(), client.recv()] == ["first", "last"]
        with pytest.raises(ConnectionClosedOK) as closed:
            client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
    assert echo.calls == ["made", "lost"]


def test_the_session_announces_its_end_and_listens_on(loop: str) -> None:
    echo = Whole(answers=False)
    with served(lambda: echo, loop) as serving, raw(serving) as client:

        def end() -> None:
            assert echo.transport.can_write_eof()
            echo.transport.write(b"why\n")
            echo.transport.write_eof()
            echo.transport.write_eof()
            echo.transport.write(b"too late\n")
            assert not echo.transport.is_closing()

        serving.call(end)
        expected = b"\x81\x03why\x88\x02\x03\xe8"
        assert client.recv(100) == expected
        client.sendall(text(b"still there"))
        wait_for(lambda: echo.heard == b"still there\n")
        client.sendall(text(b"\x03\xe8", opcode=Opcode.CLOSE))
        assert rest(client) == b""
    assert echo.calls == ["made", "data", "eof", "lost"]


@pytest.mark.parametrize("close", [True, False])
def test_a_session_that_writes_at_once_is_heard_after_the_upgrade(loop: str, close: bool) -> None:
    class Early(Whole):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.write(b"too many\nconnections\n")
            assert self.transport.get_write_buffer_size() > 0
            if close:
                self.transport.write_eof()

    with served(Early, loop) as serving, connected(serving) as client:
        assert [client.recv(), client.recv()] == ["too many", "connections"]
        if close:
            with pytest.raises(ConnectionClosedOK):
                client.recv()


def test_a_session_that_closes_before_the_upgrade(loop: str) -> None:
    echo = Whole()
    with served(lambda: echo, loop) as serving, raw(serving, upgrade=b"") as client:
        client.sendall(UPGRADE[:50])
        wait_for(lambda: echo.calls == ["made"])
        serving.call(echo.transport.close)
        assert rest(client) == b""
        assert echo.lost.wait(SECONDS)


def test_a_session_that_aborts(loop: str) -> None:
    echo = Whole()
    with served(lambda: echo, loop) as serving, raw(serving) as client:
        serving.call(echo.transport.abort)
        with contextlib.suppress(ConnectionResetError):
            assert rest(client) == b""
    assert echo.calls == ["made", "lost"]


@pytest.mark.parametrize("sent", [UPGRADE, UPGRADE[:50], b""])
def test_a_peer_that_only_closes_tcp(loop: str, sent: bytes) -> None:
    echo = Whole()
    with served(lambda: echo, loop) as serving, raw(serving, upgrade=b"") as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        rest(client)
        assert echo.lost.wait(SECONDS)
    assert echo.calls == ["made", "eof", "lost"]


def test_a_session_that_leaves_closing_to_its_transport(loop: str) -> None:
    class Short(Whole):
        def eof_received(self) -> bool:
            self.calls.append("eof")
            return False

    echo = Short()
    with served(lambda: echo, loop) as serving:
        with connected(serving) as client:
            client.send("a")
            assert client.recv() == "a"
        assert echo.lost.wait(SECONDS)
    assert echo.calls == ["made", "data", "eof", "lost"]


def test_a_peer_that_is_gone(loop: str) -> None:
    echo = Whole()
    with served(lambda: echo, loop) as serving:
        with raw(serving) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert echo.lost.wait(SECONDS)
    assert echo.calls.count("lost") == 1


# Wrong input.


@pytest.mark.parametrize("pieces", [1, 2, 3])
@pytest.mark.parametrize("compression", [True, False])
def test_a_message_that_is_too_long(loop: str, pieces: int, compression: bool) -> None:
    echo = Whole()
    length = MAX_MESSAGE + 3
    with (
        served(lambda: echo, loop, compression=compression) as serving,
        connected(serving, compression="deflate") as client,
    ):
        client.send("before")
        assert client.recv() == "before"
        size = length // pieces + 1
        with contextlib.suppress(ConnectionClosed):
            client.send("x" * length if pieces == 1 else iter(["x" * size] * pieces))
        refusal = json.loads(client.recv())
        assert refusal == {
            "invoke-error": {"message": f"The message is longer than {MAX_MESSAGE} bytes"}
        }
        with pytest.raises(ConnectionClosed) as closed:
            client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
        assert echo.lost.wait(SECONDS)
    assert echo.heard == b"before\n"
    assert echo.calls == ["made", "data", "eof", "lost"]


def test_a_peer_that_goes_on_sending_what_is_too_long_reads_why() -> None:
    echo = Whole()
    with served(lambda: echo) as serving, raw(serving) as client:
        client.sendall(text(b"x" * 8_000_000))
        client.shutdown(socket.SHUT_WR)
        assert b"The message is longer than" in rest(client)
        assert echo.lost.wait(SECONDS)
    assert echo.heard == b""


def test_a_frame_that_only_announces_its_length(loop: str) -> None:
    with served(Whole, loop) as serving, raw(serving) as client:
        client.sendall(b"\x81\xff" + struct.pack("!Q", 2**62))
        client.shutdown(socket.SHUT_WR)
        assert b"The message is longer than" in rest(client)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"426 "),
        (b"GET /metrics HTTP/1.0\r\n\r\n", b"505 "),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", b"405 "),
        (UPGRADE.replace(b"13", b"12"), b"400 "),
        (UPGRADE.replace(b"dGhl", b"####"), b"400 "),
        (UPGRADE.replace(b"\r\n\r\n", b"\r\nOrigin: https://evil.example\r\n\r\n"), b"403 "),
        (UPGRADE.replace(b"\r\n\r\n", b"\r\nOrigin: null\r\n\r\n"), b"403 "),
        (b"GET /" + b"x" * 10_000, b"414 "),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000, b"431 "),
        (b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 200 + b"\r\n", b"431 "),
        (b"OEHASHEQUIV 1.1\n\n", None),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", None),
        (os.urandom(20_000).replace(b"\n", b""), b"414 "),
        (b"\r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"\x00" * 9, b"426 "),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + text(b"\x03\xe8", opcode=Opcode.CLOSE), b"426 "),
        (b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n123456789", None),
    ],
    ids=itertools.count(),  # the masks of frames are random
)
def test_what_is_no_upgrade(loop: str, request_: bytes, status: bytes | None) -> None:
    echo = Whole()
    with served(lambda: echo, loop) as serving, raw(serving, upgrade=b"") as client:
        client.sendall(request_)
        client.shutdown(socket.SHUT_WR)
        answer = rest(client)
        assert echo.lost.wait(SECONDS)
    if status is None:
        assert answer == b""
    else:
        assert answer.startswith(b"HTTP/1.1 " + status)
    assert echo.calls == ["made", "eof", "lost"]
    assert echo.heard == b""


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (Frame(Opcode.TEXT, b"x").serialize(mask=False), 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\xc1\x80\0\0\0\0", 1002),
        (text(b"x", opcode=Opcode.CONT), 1002),
        (text(b"x", fin=False) + text(b"y"), 1002),
        (b"\x89\xfe\x00\x7e\0\0\0\0" + b"x" * 126, 1002),
        (text(b"\x00", opcode=Opcode.CLOSE), 1002),
        (text(b"\x03\xe8\xff", opcode=Opcode.CLOSE), 1007),
        (text(b"x\xffy"), 1007),
        (text(b"x" * 200 + b"\xc3"), 1007),
        (text(b"x" * 70_000 + b"\xc3"), 1007),
        (text(b"\xc3", fin=False) + text(b"x", opcode=Opcode.CONT), 1007),
    ],
    ids=itertools.count(),  # the masks of frames are random
)
def test_frames_that_break_the_protocol(loop: str, frames: bytes, code: int) -> None:
    echo = Whole()
    with served(lambda: echo, loop) as serving, raw(serving) as client:
        client.sendall(text(b"fine") + frames + text(b"unread"))
        client.shutdown(socket.SHUT_WR)
        answer = rest(client)
        assert echo.lost.wait(SECONDS)
    answer = answer.removeprefix(b"\x81\x04fine")
    assert answer.startswith(b"\x88")
    assert struct.unpack("!H", answer[2:4]) == (code,)
    assert echo.calls[-2:] == ["eof", "lost"]
    assert echo.heard == b"fine\n"


def test_frames_in_one_packet_with_the_upgrade() -> None:
    """No client should send them, and it must not upset a server."""
    frames = (text(b"a"), text(b"\x03\xe8", opcode=Opcode.CLOSE), b"\xff" * 9)
    for compression in (True, False):
        for frame in frames:
            with (
                served(Whole, compression=compression) as serving,
                raw(serving, upgrade=UPGRADE + frame) as client,
            ):
                client.shutdown(socket.SHUT_WR)
                rest(client)


def test_an_origin_is_refused_in_words() -> None:
    with (
        served() as serving,
        pytest.raises(InvalidStatus, match="403"),
        connected(serving, origin="https://evil.example"),
    ):
        pass


# Those who do not read.


def test_a_peer_that_does_not_read_is_not_read_either(loop: str) -> None:
    class Full(Whole):
        def pause_writing(self) -> None:
            self.calls.append("full")

        def resume_writing(self) -> None:
            self.calls.append("empty")

    echo = Full()
    with served(lambda: echo, loop) as serving, raw(serving) as client:
        client.settimeout(0)
        pings = text(b"x" * 125, opcode=Opcode.PING) * 1000
        sent = 0
        while select.select([], [client], [], 0.5)[1]:  # until both ends' buffers are full
            at = sent % len(pings)
            sent += client.send(pings[at:])
            assert sent < MOST_UNREAD, "it goes on reading"
        assert "full" in echo.calls
        assert echo.transport.get_write_buffer_size() < 1_000_000
        client.settimeout(SECONDS)
        answered = 0
        while answered < sent // 131 * 127:
            answered += len(client.recv(65536))
        wait_for(lambda: "empty" in echo.calls)
        client.sendall(pings[sent % len(pings) :] + text(b"still there"))
        wait_for(lambda: echo.heard == b"still there\n")


@pytest.mark.parametrize("compression", [True, False])
def test_a_session_that_pauses(loop: str, compression: bool) -> None:
    echo = Whole()
    with (
        served(lambda: echo, loop, compression=compression) as serving,
        connected(serving, compression="deflate") as client,
    ):
        serving.call(echo.transport.pause_reading)
        for number in range(1000):
            client.send(f"{number} " + "x" * 50)
        assert echo.heard == b""
        serving.call(echo.transport.resume_reading)
        for number in range(1000):
            assert client.recv() == f"{number} " + "x" * 50


def test_what_a_compressed_stream_becomes_is_bounded(loop: str) -> None:
    class Pausing(Whole):
        """Now and then takes one call's worth at a time, as a session that is busy."""

        most = 0

        def data_received(self, data: bytes) -> None:
            self.most = max(self.most, len(data))
            self.heard += data[:1]
            if len(self.heard) % 3:
                self.transport.pause_reading()
                asyncio.get_running_loop().call_soon(self.transport.resume_reading)

    echo = Pausing()
    with (
        served(lambda: echo, loop, compression=True) as serving,
        connected(serving, compression="deflate") as client,
    ):
        serving.call(echo.transport.pause_reading)
        for _ in range(1000):
            client.send("x" * MAX_MESSAGE)  # a hundred bytes each on the way
        serving.call(echo.transport.resume_reading)
        for _ in range(1000):  # more than is read at once
            client.send("x" * MAX_MESSAGE)
        assert client.ping().wait(SECONDS)
    assert echo.heard.strip(b"x") == b""
    assert 0 < echo.most < 100 * MAX_MESSAGE


# Proxies.


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        (("10.0.0.1", 7), ["1.2.3.4"], ("1.2.3.4", 7)),
        (("10.0.0.1", 7), ["6.6.6.6, 1.2.3.4, 10.9.9.9"], ("1.2.3.4", 7)),
        (("10.0.0.1", 7), ["6.6.6.6", "1.2.3.4,10.9.9.9"], ("1.2.3.4", 7)),
        (("10.0.0.1", 7), ["6.6.6.6, 1.2.3.4 ,  ::ffff:10.9.9.9"], ("1.2.3.4", 7)),
        (("10.0.0.1", 7), ["10.0.0.3, 10.0.0.2"], ("10.0.0.3", 7)),
        (("10.0.0.1", 7), ["2001:db8::1"], ("2001:db8::1", 7)),
        (("fd00::1", 7, 0, 0), ["1.2.3.4"], ("1.2.3.4", 7)),
        (("10.0.0.1", 7), [], None),
        (("10.0.0.1", 7), [""], None),
        (("10.0.0.1", 7), ["1.2.3.4, unknown"], None),
        (("10.0.0.1", 7), ["nonsense, 1.2.3.4"], ("1.2.3.4", 7)),
        (("192.0.2.1", 7), ["1.2.3.4"], None),
        (("fd01::1", 7, 0, 0), ["1.2.3.4"], None),
        ("", ["1.2.3.4"], None),
        (None, ["1.2.3.4"], None),
    ],
)
def test_who_the_client_is(peer: Any, headers: list[str], client: tuple[str, int] | None) -> None:
    trusted = [ip_network("10.0.0.0/8"), ip_network("fd00::/16")]
    found = Headers([("X-Forwarded-For", header) for header in headers])
    assert _client(peer, found, trusted) == client
    assert _client(peer, found, []) is None


@pytest.mark.parametrize(("network", "host"), [("127.0.0.0/8", "1.2.3.4"), ("10.0.0.0/8", None)])
def test_the_session_sees_the_client_behind_a_trusted_proxy(
    loop: str, network: str, host: str | None
) -> None:
    echo = Whole()
    with (
        served(lambda: echo, loop, trusted_proxies=[ip_network(network)]) as serving,
        connected(serving, additional_headers={"X-Forwarded-For": "1.2.3.4"}) as client,
    ):
        client.send("a")
        assert client.recv() == "a"
        peer = echo.transport.get_extra_info("peername")
        assert peer == (host or "127.0.0.1", client.local_address[1])
        assert echo.transport.get_extra_info("sockname")[1] == serving.port
        assert echo.transport.get_extra_info("nothing", "default") == "default"


# Any lines, any pieces.


class Collecting(asyncio.Transport):
    """A transport that collects what is written, for a protocol that is fed by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@settings(deadline=None, max_examples=200)
@given(
    lines=st.lists(st.text(max_size=75).map(str.encode), max_size=8),
    cuts=st.lists(st.integers(0, 3000)),
    compression=st.booleans(),
)
def test_any_lines_in_any_pieces(
    runner: asyncio.Runner, lines: list[bytes], cuts: list[int], compression: bool
) -> None:
    data = UPGRADE + b"".join(map(text, lines))
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    echo = Whole()
    transport = Collecting()

    async def feed() -> None:
        end = WebSocketEnd(echo, max_message=300, message_timeout=SECONDS, compression=compression)
        end.connection_made(transport)
        for start, stop in itertools.pairwise(edges):
            end.data_received(data[start:stop])
        async with asyncio.timeout(SECONDS):
            while echo.heard.count(b"\n") < len(lines):  # noqa: ASYNC110 - what is much has turns
                await asyncio.sleep(0)

    runner.run(feed())
    expected = [line.replace(b"\n", b" ") for line in lines]
    assert echo.heard == b"".join(line + b"\n" for line in expected)
    head, _, frames = transport.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert frames == b"".join(Frame(Opcode.TEXT, line).serialize(mask=False) for line in expected)
    assert not transport.closed


@pytest.mark.parametrize("unfinished", ["frame", "fragments"])
def test_a_message_that_is_not_finished_does_not_stay(unfinished: str, loop: str) -> None:
    begun = text(b"x" * 100, fin=unfinished == "frame")
    with served(loop=loop, message_timeout=0.1) as serving, raw(serving) as client:
        client.sendall(begun[:-50] if unfinished == "frame" else begun)
        with contextlib.suppress(ConnectionResetError):
            assert rest(client) == b""


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.PING, Opcode.PONG])
def test_much_is_read_in_turns(opcode: Opcode) -> None:
    echo = Whole()
    transport = Collecting()
    tiny = text(b"", opcode=opcode)

    async def flood() -> tuple[int, int]:
        end = WebSocketEnd(echo, max_message=MAX_MESSAGE, message_timeout=SECONDS)
        end.connection_made(transport)
        end.data_received(UPGRADE)
        end.data_received(tiny * 50_000)
        left = end._reader.unread
        async with asyncio.timeout(SECONDS):
            while end._reader.unread:  # noqa: ASYNC110
                await asyncio.sleep(0)
        return left, echo.heard.count(b"\n")

    left, heard = asyncio.run(flood())
    assert left > len(tiny) * 25_000, "others have to wait"
    assert heard == (50_000 if opcode is Opcode.TEXT else 0)
