"""Addresses: parsed and printed here and nowhere else (PROTOCOL.md §2).

``tls://HOST:PORT`` is our own: the stream protocol over TLS.
"""

import re
from ipaddress import IPv4Network, IPv6Network
from typing import Final, NamedTuple

from hashserv.errors import AddressError

Network = IPv4Network | IPv6Network

UNIX_PREFIX: Final = "unix://"
TLS_PREFIX: Final = "tls://"
WEBSOCKET_PREFIXES: Final = ("ws://", "wss://")

_PLACE = re.compile(
    r"(?:\[(?P<ipv6>[^\[\]/\s\0]+)\]|(?P<host>[^\[\]:/\s\0]*))(?::(?P<port>[0-9]{1,9}))?"
)
_URI = re.compile(r"(?P<scheme>wss?)://(?P<place>[^/?#]*)(?P<path>[!-~]*)")
_LAST_PORT: Final = 65535


class UnixAddress(NamedTuple):
    """A Unix stream socket; the path may be relative, and longer than 108 bytes."""

    path: str

    def __str__(self) -> str:
        return UNIX_PREFIX + self.path


class TcpAddress(NamedTuple):
    """A TCP end; an empty host means all addresses, port 0 any free port (servers only)."""

    host: str
    port: int

    def __str__(self) -> str:
        return _place(self.host, self.port)


class TlsAddress(NamedTuple):
    """A TCP end that speaks TLS; host and port as for TCP."""

    host: str
    port: int

    def __str__(self) -> str:
        return TLS_PREFIX + _place(self.host, self.port)


class WebSocketAddress(NamedTuple):
    """A WebSocket; host and port as for TCP."""

    secure: bool
    """Whether it speaks TLS (``wss://``)."""

    host: str
    port: int

    path: str = ""
    """Path and query as they were given."""

    def __str__(self) -> str:
        scheme = "wss" if self.secure else "ws"
        if self.host and self.port == _default_port(secure=self.secure):
            place = f"[{self.host}]" if ":" in self.host else self.host
        else:
            place = _place(self.host, self.port)
        return f"{scheme}://{place}{self.path}"


NetworkAddress = TcpAddress | TlsAddress | WebSocketAddress
"""What has a host and a port."""

StreamAddress = UnixAddress | TcpAddress | TlsAddress
"""What carries lines as they are."""

Address = StreamAddress | WebSocketAddress


def parse_address(text: str) -> Address:
    """Read an address as people write it.

    Args:
        text: ``unix://PATH``, ``HOST:PORT``, ``[V6]:PORT``, ``:PORT``, ``tls://HOST:PORT`` or a
            ``ws://``/``wss://`` URI.

    Raises:
        AddressError: The text is none of these; the message shows the forms, and no password.
    """
    if text.startswith(UNIX_PREFIX):
        path = text.removeprefix(UNIX_PREFIX)
        if not path or "\0" in path:
            raise AddressError(f"The address '{text}' names no socket file: write unix://PATH")
        return UnixAddress(path)
    if text.startswith(WEBSOCKET_PREFIXES):
        return _parse_websocket(text)
    found = _parse_place(text.removeprefix(TLS_PREFIX))
    if found is None or found[1] is None:
        _refuse_user(text)
        raise AddressError(
            f"'{text}' is no address: write unix://PATH, HOST:PORT, [IPV6]:PORT, tls://HOST:PORT, "
            "ws://HOST:PORT or wss://HOST:PORT"
        )
    kind = TlsAddress if text.startswith(TLS_PREFIX) else TcpAddress
    return kind(found[0], found[1])


def _parse_websocket(text: str) -> WebSocketAddress:
    match = _URI.fullmatch(text)
    found = _parse_place(match["place"]) if match else None
    if match is None or found is None or "#" in match["path"] or found == ("", None):
        _refuse_user(text)
        raise AddressError(
            f"'{text}' is no address of a WebSocket: write ws://HOST:PORT/PATH or "
            "wss://HOST:PORT/PATH, white space and other special characters as %XX"
        )
    secure = match["scheme"] == "wss"
    host, port = found
    return WebSocketAddress(
        secure, host, _default_port(secure=secure) if port is None else port, match["path"]
    )


def _parse_place(text: str) -> tuple[str, int | None] | None:
    """Read a host and a port that may be missing; `None` if it is something else."""
    match = _PLACE.fullmatch(text)
    if match is None or "@" in text:
        return None
    port = None if match["port"] is None else int(match["port"])
    if port is not None and port > _LAST_PORT:
        return None
    try:
        (match["host"] or "").encode("idna")
    except UnicodeError:  # a label that is empty, or too long
        return None
    return match["ipv6"] or match["host"], port


def _refuse_user(text: str) -> None:
    """Refuse what may hold a password, which must not go into a message.

    Raises:
        AddressError: Such a thing may be there.
    """
    if "@" in text:
        raise AddressError(
            "An address names no user and no password: write HOST:PORT without what stands before "
            "the '@', and log in with --login, or by a line in ~/.netrc"
        )


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _default_port(*, secure: bool) -> int:
    return 443 if secure else 80
