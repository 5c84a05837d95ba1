"""The handshake, on the server's side, and what the client sends of it."""

import pytest

from hashserv.errors import ProtocolError
from hashserv.wire.handshake import (
    MAX_HANDSHAKE,
    Greeting,
    Handshake,
    encode_greeting,
    encode_headers,
)


def greet(*lines: bytes) -> Greeting | None:
    handshake = Handshake()
    greeting = None
    for line in lines:
        assert greeting is None, "nothing comes after the empty line"
        greeting = handshake.add(line)
    return greeting


@pytest.mark.parametrize(
    ("lines", "greeting"),
    [
        ([b"OEHASHEQUIV 1.0", b""], Greeting((1, 0), {})),
        ([b"OEHASHEQUIV 1.1", b""], Greeting((1, 1), {})),
        ([b"OEHASHEQUIV 1.1  \r", b"\r"], Greeting((1, 1), {})),
        ([b"OEHASHEQUIV 1.1", b"Name : a: b ", b""], Greeting((1, 1), {"name": "a: b"})),
        ([b"OEHASHEQUIV 1.1", b"a:", b"A: 2", b""], Greeting((1, 1), {"a": "2"})),
        ([b"OEHASHEQUIV 1.1", "n: é".encode(), b""], Greeting((1, 1), {"n": "é"})),
        ([b"OEHASHEQUIV 1.1", b"a: b"], None),
    ],
)
def test_a_handshake_is_understood(lines: list[bytes], greeting: Greeting | None) -> None:
    assert greet(*lines) == greeting


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([b""], "unknown protocol '', expected OEHASHEQUIV"),
        ([b"oehashequiv 1.1"], "unknown protocol 'oehashequiv', expected OEHASHEQUIV"),
        ([b"OEHASHEQUIV"], "unreadable protocol version ''"),
        ([b"OEHASHEQUIV one"], "unreadable protocol version 'one'"),
        ([b"OEHASHEQUIV 1"], "unreadable protocol version '1'"),
        ([b"OEHASHEQUIV 1.1.1"], "unreadable protocol version '1.1.1'"),
        ([b"OEHASHEQUIV 0.9"], "protocol version 0.9 is not 1.0 or 1.1"),
        ([b"OEHASHEQUIV 1.2"], "protocol version 1.2 is not 1.0 or 1.1"),
        ([b"OEHASHEQUIV 1.-1"], "protocol version 1.-1 is not 1.0 or 1.1"),
        ([b"OEHASHEQUIV 2.0"], "protocol version 2.0 is not 1.0 or 1.1"),
        ([b"OEHASHEQUIV " + b"9" * 9000], "unreadable protocol version '" + "9" * 40 + "'"),
        ([b"OEHASHEQUIV 1.1", b"x" * 200], "a header line without a colon: '" + "x" * 40 + "'"),
        ([b'{"auth": {"token": 1}}'], "unknown protocol of a message, expected OEHASHEQUIV"),
        ([b"\xff"], "the handshake is no UTF-8"),
        ([b"OEHASHEQUIV 1.1", b"\xff: x"], "the handshake is no UTF-8"),
        ([b"x" * MAX_HANDSHAKE], "the handshake is longer than 16384 bytes"),
    ],
)
def test_what_is_no_handshake_is_refused(lines: list[bytes], error: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        greet(*lines)
    assert str(refused.value) == error


def test_headers_are_bounded_together() -> None:
    hello = b"OEHASHEQUIV 1.1"
    longest = b"a: ".ljust(MAX_HANDSHAKE - len(hello) - 3, b"x")
    assert greet(hello, longest, b"") is not None
    with pytest.raises(ProtocolError, match="longer than 16384 bytes"):
        greet(hello, longest + b"x", b"")
    with pytest.raises(ProtocolError, match="longer than 16384 bytes"):
        greet(hello, *[b"a:"] * MAX_HANDSHAKE)


@pytest.mark.parametrize(
    ("value", "needed"), [("true", True), ("True", True), ("false", False), ("", False)]
)
def test_whether_the_client_waits_for_headers(value: str, needed: bool) -> None:
    greeting = greet(b"OEHASHEQUIV 1.1", b"Needs-Headers: " + value.encode(), b"")
    assert greeting is not None
    assert greeting.needs_headers is needed


def test_only_clients_of_1_0_have_no_chunks() -> None:
    assert not Greeting((1, 0), {}).has_chunks
    assert Greeting((1, 1), {}).has_chunks


def test_what_a_client_sends() -> None:
    sent = encode_greeting({"needs-headers": "false", "x": "é"})
    assert sent == "OEHASHEQUIV 1.1\nneeds-headers: false\nx: é\n\n".encode()
    assert greet(*sent.removesuffix(b"\n").split(b"\n")) == Greeting(
        (1, 1), {"needs-headers": "false", "x": "é"}
    )
    assert encode_headers({}) == b"\n"
