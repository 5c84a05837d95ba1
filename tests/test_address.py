"""Addresses: what is understood, and how it is printed."""

import pytest

from hashserv.address import (
    Address,
    TcpAddress,
    TlsAddress,
    UnixAddress,
    WebSocketAddress,
    parse_address,
)
from hashserv.errors import AddressError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:///run/hash.sock", UnixAddress("/run/hash.sock")),
        ("unix://./hashserve.sock", UnixAddress("./hashserve.sock")),
        ("unix://" + "d/" * 200 + "s", UnixAddress("d/" * 200 + "s")),
        ("unix://a:1", UnixAddress("a:1")),
        ("unix://me@host", UnixAddress("me@host")),
        ("localhost:8686", TcpAddress("localhost", 8686)),
        ("127.0.0.1:0", TcpAddress("127.0.0.1", 0)),
        (":8686", TcpAddress("", 8686)),
        ("[::1]:8686", TcpAddress("::1", 8686)),
        ("[fe80::1%eth0]:1", TcpAddress("fe80::1%eth0", 1)),
        ("host.example:65535", TcpAddress("host.example", 65535)),
        ("tls://host:8688", TlsAddress("host", 8688)),
        ("tls://[::1]:1", TlsAddress("::1", 1)),
        ("tls://:0", TlsAddress("", 0)),
        ("ws://host:8687/path", WebSocketAddress(False, "host", 8687, "/path")),
        ("ws://host:8687/a/b?c=d@e:1", WebSocketAddress(False, "host", 8687, "/a/b?c=d@e:1")),
        ("ws://host:8687?c=d", WebSocketAddress(False, "host", 8687, "?c=d")),
        ("ws://host:443", WebSocketAddress(False, "host", 443, "")),
        ("ws://host/", WebSocketAddress(False, "host", 80, "/")),
        ("ws://:8686", WebSocketAddress(False, "", 8686, "")),
        ("ws://:80/", WebSocketAddress(False, "", 80, "/")),
        ("ws://[::1]:1", WebSocketAddress(False, "::1", 1, "")),
        ("wss://host", WebSocketAddress(True, "host", 443, "")),
        ("wss://[::1]/x", WebSocketAddress(True, "::1", 443, "/x")),
        ("wss://host:80", WebSocketAddress(True, "host", 80, "")),
    ],
)
def test_an_address_is_read_and_printed_as_it_was(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert type(parse_address(text)) is type(address)
    assert str(address) == text


def test_the_port_that_a_uri_means_anyway_is_left_out() -> None:
    assert str(parse_address("wss://host:443/x")) == "wss://host/x"
    assert str(parse_address("ws://host:80")) == "ws://host"


@pytest.mark.parametrize(
    "text",
    [
        *("", "host", "host:", "host:port", "host:65536", "host:-1", "host:1/path", "ho st:1"),
        *("::1:8686", "[::1]", "[::1]8686", "[]:1", "unix://", "unix://a\0b", "http://host:1"),
        *("host:1\n", "host:\u0661", "host:99999999999999999999", "host\0:1", "WS://host:1"),
        *("ws://", "wss:///path", "ws://[::1", "ws://host:", "ws://host:65536", "ws://host:1:2"),
        *("ws://host:1/a b", "ws://host:1/\u00e4", "ws://host:1/#part", "ws://ho st:1", "ws://h\n"),
        *("ws://host:99999999999999999999", "ws://?a=b", "ws://[]:1"),
        *("tls://", "tls://host", "tls://host:1/path", "tls://host:", "tls://:", "tls://tls://h:1"),
    ],
)
def test_anything_else_is_refused_in_words_that_show_the_forms(text: str) -> None:
    with pytest.raises(AddressError) as refused:
        parse_address(text)
    assert "write" in str(refused.value)


@pytest.mark.parametrize("prefix", ["", "tls://", "ws://", "wss://", "http://"])
@pytest.mark.parametrize(
    "place",
    [
        "me:secret@host:1",
        "me:secret@host",
        "secret@host:1",
        ":secret@host:1/x",
        "me:#secret@h:1",
        "me:/secret@h",
    ],
)
def test_a_password_is_refused_and_not_repeated(prefix: str, place: str) -> None:
    with pytest.raises(AddressError, match=r"no password: write HOST:PORT .* --login") as refused:
        parse_address(prefix + place)
    assert "secret" not in str(refused.value)
