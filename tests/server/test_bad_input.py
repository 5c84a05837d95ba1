"""What bad input gets: that connection closes, all others go on."""

import contextlib
import socket
import struct

import pytest

from tests.conftest import StartServer
from tests.peers import HELLO, METHOD, Peer, digest
from tests.servers import ServerProcess, wait_for

REFUSED = {
    "unknown command": (b'{"no-such-command": {}}\n', "Unknown command: 'no-such-command'"),
    "no command": (b"{}\n", "Unknown command: none"),
    "no JSON": (b"not json\n", "Could not decode the request"),
    "half JSON": (b'{"ping": \n', "Could not decode the request"),
    "an empty line": (b"\n", "Could not decode the request"),
    "no object": (b"[1]\n", "A request is an object with one command"),
    "a missing argument": (b'{"get": {"method": "m"}}\n', "missing required field `taskhash`"),
    "no arguments": (b'{"get": null}\n', "Invalid arguments of 'get'"),
    "a mistyped argument": (b'{"get": {"method": 3, "taskhash": "t"}}\n', "$.method"),
    "white space in a hash": (b'{"get": {"method": "m", "taskhash": "a b"}}\n', "$.taskhash"),
    "an empty hash": (b'{"get": {"method": "m", "taskhash": ""}}\n', "$.taskhash"),
    "NUL in a hash": (b'{"get": {"method": "m", "taskhash": "t\\u0000"}}\n', "NUL"),
    "half a character": (b'{"get": {"method": "m", "taskhash": "\\ud800"}}\n', "Could not decode"),
    "no UTF-8": (b'{"get": {"method": "\xff", "taskhash": "t"}}\n', "utf-8"),
    "deep nesting": (b'{"get": ' + b"[" * 20000 + b"\n", "Could not decode the request"),
    "a short unihash": (
        b'{"report-equiv": {"method": "m", "taskhash": "t", "unihash": "ab"}}\n',
        "Invalid unihash",
    ),
    "a condition that is none": (b'{"remove": {"where": "x"}}\n', "$.where"),
    "a number in a condition": (b'{"remove": {"where": {"PN": 3}}}\n', "$.where"),
    "an unknown column": (b'{"remove": {"where": {"typo": "x"}}}\n', "Unknown column typo"),
    "an unknown column to mark": (
        b'{"gc-mark": {"mark": "m", "where": {"typo": "x", "method": "m"}}}\n',
        "Unknown column typo",
    ),
    "a mistyped mark": (b'{"gc-mark": {"mark": 3, "where": {}}}\n', "$.mark"),
    "an empty mark": (b'{"gc-mark": {"mark": "", "where": {}}}\n', "$.mark"),
    "a wrong mark": (b'{"gc-sweep": {"mark": "no"}}\n', "'no' is not the current mark"),
    "an age that is none": (b'{"clean-unused": {"max_age_seconds": "x"}}\n', "max_age_seconds"),
    "a wrong line to mark": (b'{"gc-mark-stream": null}\n{"mark": "m"}\n', "missing key ''where''"),
}

BROKEN = {
    "another protocol": b"HTTP/1.1 200\n\n",
    "no version": b"OEHASHEQUIV\n\n",
    "a version to come": b"OEHASHEQUIV 2.0\n\n",
    "a version of before": b"OEHASHEQUIV 0.9\n\n",
    "a version that is none": b"OEHASHEQUIV one\n\n",
    "a header without a colon": b"OEHASHEQUIV 1.1\nheader\n\n",
    "a handshake in another encoding": b"OEHASHEQUIV 1.1\nx: \xff\n\n",
    "an endless handshake": b"OEHASHEQUIV 1.1\n" + b"x: y\n" * 10000,
    "one word to look up": HELLO + b'{"get-stream": null}\nword\n',
    "three words to look up": HELLO + b'{"get-stream": null}\na b c\n',
    "NUL to look up": HELLO + b'{"get-stream": null}\nm t\0\n',
    "no UTF-8 to look up": HELLO + b'{"get-stream": null}\nm \xff\n',
    "NUL that may exist": HELLO + b'{"exists-stream": null}\n\0\n',
    "a long line": HELLO + b"x" * 300_000,
    "a long line with an end": HELLO + b"x" * 300_000 + b"\n",
}


@pytest.fixture
def bystander(server: ServerProcess) -> Peer:
    peer = Peer(server.address)
    assert peer.report(digest(1), digest(2), digest(3)) == digest(3)
    return peer


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_words_then_closed(server: ServerProcess, bystander: Peer, case: str) -> None:
    data, words = REFUSED[case]
    with bystander, Peer(server.address) as peer:
        if data.startswith(b'{"gc-mark-stream"'):
            peer.stream("gc-mark-stream")
            data = data.partition(b"\n")[2]
        assert words in peer.refusal(data)
        assert bystander.lookup(digest(1)) == digest(3)


@pytest.mark.parametrize("case", BROKEN)
def test_broken_is_closed_with_one_line_in_the_log(start_server: StartServer, case: str) -> None:
    server = start_server()
    with Peer(server.address) as bystander, Peer(server.address, hello=b"") as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # closed half-way
            peer.send(BROKEN[case])
        replies = iter(peer.line, None)
        assert all(line == b'"ok"' for line in replies)
        assert bystander.ask("ping") == {"alive": True}
        lines = [line for line in server.log_text().splitlines() if "WARNING" in line]
        assert len(lines) == 1
        assert "closed: " in lines[0]


def test_what_came_before_the_bad_is_answered(server: ServerProcess) -> None:
    with Peer(server.address) as peer:
        report = '{"report": {"method": "m", "taskhash": "t%d", "outhash": "o", "unihash": "%s"}}\n'
        good = "".join(report % (number, digest(9)) for number in range(3))
        peer.send(good.encode() + (report % (4, "bad")).encode() + good.encode())
        assert all(digest(9).encode() in (line or b"") for line in peer.lines(3))
        assert b"Invalid unihash" in (peer.line() or b"")
        assert peer.closed()


def send_for_ever(peer: Peer, data: bytes) -> None:
    while True:
        peer.send(data)


def test_a_refused_peer_that_goes_on_is_closed_all_the_same(server: ServerProcess) -> None:
    with Peer(server.address) as peer:
        peer.send(b"not json\n")
        assert b"invoke-error" in (peer.line() or b"")
        assert peer.closed()  # the server says no more
        with pytest.raises(ConnectionError):  # and soon it does not listen either
            send_for_ever(peer, b'{"ping": {}}\n' * 1000)


def test_a_handshake_that_never_ends(start_server: StartServer) -> None:
    server = start_server("--handshake-timeout", "0.2")
    with Peer(server.address) as good, Peer(server.address, hello=b"OEHASHEQUIV 1.1\n") as peer:
        assert good.ask("ping") == {"alive": True}
        assert peer.closed()
        assert good.ask("ping") == {"alive": True}
        assert "did not finish its handshake within 0.2 s" in server.log_text()


def test_a_peer_that_never_reads(start_server: StartServer) -> None:
    server = start_server("--write-timeout", "0.5", "--cache-bytes", "0")
    with Peer(server.address) as good, Peer(server.address) as peer:
        peer.stream("get-stream")
        before = server.resident_bytes()
        lines = f"{METHOD} {digest(1)}\n".encode() * 500_000
        with pytest.raises(ConnectionError):  # the server stops listening to it, then closes
            peer.send(lines)
        assert server.resident_bytes() - before < 20 * 1024 * 1024
        assert good.ask("ping") == {"alive": True}
        wait_for(lambda: "left its replies unread" in server.log_text())


@pytest.mark.parametrize("server_bind", [None, "127.0.0.1:0"])
def test_peers_that_vanish(start_server: StartServer, server_bind: str | None) -> None:
    server = start_server(bind=server_bind)
    for number in range(20):
        peer = Peer(server.address)
        peer.send(b'{"get-stream": null}\n' + f"{METHOD} {digest(number)}\n".encode() * 5000)
        if server_bind:  # a reset rather than an end
            linger = struct.pack("ii", 1, 0)
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        peer.close()
    with Peer(server.address) as good:
        assert good.ask("ping") == {"alive": True}
    assert server.stop() == 0
    assert "Traceback" not in server.log_text()


def test_an_end_after_requests_is_answered(server: ServerProcess) -> None:
    with Peer(server.address) as peer:
        report = {"method": METHOD, "taskhash": "t", "outhash": "o", "unihash": digest(1)}
        peer.send(b'{"ping": {}}\n')
        assert peer.line() == b'{"alive":true}'
        peer.send(b'{"report": ' + str(report).replace("'", '"').encode() + b"}\n")
        peer.socket.shutdown(socket.SHUT_WR)
        assert digest(1).encode() in (peer.line() or b"")
        assert peer.closed()
