"""Listening on what works, where a host has several kinds of addresses."""

import errno
import socket
from typing import Any

import pytest

from hashserv.address import TcpAddress, parse_address
from hashserv.errors import AddressError
from hashserv.transport.listen import Listener, listen


@pytest.fixture(autouse=True)
def both_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every name have an address of each kind, whatever the machine's hosts file says."""

    def found(host: str | None, port: int, **_: object) -> list[tuple[Any, ...]]:
        ipv4, ipv6 = ("127.0.0.1", "::1") if host else ("0.0.0.0", "::")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (ipv6, port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (ipv4, port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", found)


def refuse_bind(monkeypatch: pytest.MonkeyPatch, families: dict[int, int]) -> None:
    """Let the kernel refuse to bind sockets of some families, with an error for each."""
    bind = socket.socket.bind

    def refusing(self: socket.socket, place: Any) -> None:
        if self.family in families:
            number = families[self.family]
            raise OSError(number, errno.errorcode[number])
        bind(self, place)

    monkeypatch.setattr(socket.socket, "bind", refusing)


def serves(listener: Listener) -> bool:
    """Tell whether a listener takes a connection at its IPv4 address."""
    address = listener.address
    assert isinstance(address, TcpAddress)
    (listening,) = listener.sockets
    assert listening.getsockname()[1] == address.port != 0
    with socket.socket(socket.AF_INET) as client:
        client.connect(("127.0.0.1", address.port))
    listening.settimeout(30)
    listening.accept()[0].close()
    return True


@pytest.mark.parametrize("text", ["localhost:0", ":0"])
@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_a_kind_of_address_that_can_not_be_bound_is_left_out(
    monkeypatch: pytest.MonkeyPatch, text: str, number: int
) -> None:
    refuse_bind(monkeypatch, {socket.AF_INET6: number})
    listener = listen(parse_address(text), backlog=5)
    assert [listening.family for listening in listener.sockets] == [socket.AF_INET]
    assert serves(listener)
    listener.close()


@pytest.mark.parametrize("text", ["localhost:0", ":0"])
def test_a_kind_of_address_that_the_kernel_does_not_have_is_left_out(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    class Socket(socket.socket):
        def __init__(self, family: int = -1, *arguments: Any, **more: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *arguments, **more)

    monkeypatch.setattr(socket, "socket", Socket)
    listener = listen(parse_address(text), backlog=5)
    assert serves(listener)
    listener.close()


def test_where_no_kind_can_be_bound_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_bind(
        monkeypatch,
        {socket.AF_INET: errno.EADDRNOTAVAIL, socket.AF_INET6: errno.EADDRNOTAVAIL},
    )
    with pytest.raises(AddressError, match="Can't listen on localhost:0: "):
        listen(parse_address("localhost:0"), backlog=5)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port_that_is_taken_is_no_such_case(
    monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily
) -> None:
    """Half a server beside the one that is there would take half of its clients."""
    refuse_bind(monkeypatch, {family: errno.EADDRINUSE})
    with pytest.raises(AddressError, match="Can't listen on localhost:4000: "):
        listen(parse_address("localhost:4000"), backlog=5)


@pytest.mark.parametrize("text", ["127.0.0.1:0", "tls://127.0.0.1:0", "ws://127.0.0.1:0/a?b"])
def test_the_address_is_of_the_same_kind_with_the_real_port(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    refuse_bind(monkeypatch, {socket.AF_INET6: errno.EADDRNOTAVAIL})
    listener = listen(parse_address(text), backlog=5, reuseport=True)
    port = listener.sockets[0].getsockname()[1]
    assert str(listener.address) == text.replace(":0", f":{port}")
    again = listen(listener.address, backlog=5, reuseport=True)
    assert again.address == listener.address
    again.close()
    listener.close()


def test_an_empty_host_is_all_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_bind(monkeypatch, {socket.AF_INET6: errno.EADDRNOTAVAIL})
    listener = listen(parse_address("wss://:0"), backlog=5)
    port = listener.sockets[0].getsockname()[1]
    assert str(listener.address) == f"wss://0.0.0.0:{port}"
    listener.close()
