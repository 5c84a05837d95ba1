"""Addresses: what is understood, and how it is printed."""

import pytest

from hashserv.address import Address, TcpAddress, UnixAddress, WebSocketAddress, parse_address
from hashserv.errors import AddressError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:///run/hash.sock", UnixAddress("/run/hash.sock")),
        ("unix://./hashserve.sock", UnixAddress("./hashserve.sock")),
        ("unix://" + "d/" * 200 + "s", UnixAddress("d/" * 200 + "s")),
        ("unix://a:1", UnixAddress("a:1")),
        ("localhost:8686", TcpAddress("localhost", 8686)),
        ("127.0.0.1:0", TcpAddress("127.0.0.1", 0)),
        (":8686", TcpAddress("", 8686)),
        ("[::1]:8686", TcpAddress("::1", 8686)),
        ("[fe80::1%eth0]:1", TcpAddress("fe80::1%eth0", 1)),
        ("host.example:65535", TcpAddress("host.example", 65535)),
        ("ws://host:8687/path", WebSocketAddress("ws://host:8687/path")),
        ("wss://host", WebSocketAddress("wss://host")),
        ("ws://[::1]:1", WebSocketAddress("ws://[::1]:1")),
    ],
)
def test_an_address_is_read_and_printed_as_it_was(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "host", "host:", "host:port", "host:65536", "host:-1", "host:1/path", "ho st:1"),
        *("::1:8686", "[::1]", "[::1]8686", "unix://", "unix://a\0b", "http://host:1"),
        *("ws://", "wss:///path"),
        *("host:1\n", "host:\u0661", "host:99999999999999999999", "ws://[::1", "ws://:8687"),
    ],
)
def test_anything_else_is_refused_in_words_that_show_the_forms(text: str) -> None:
    with pytest.raises(AddressError) as refused:
        parse_address(text)
    assert "write" in str(refused.value)
