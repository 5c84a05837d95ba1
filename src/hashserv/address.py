"""Addresses: parsed and printed here and nowhere else (PROTOCOL.md §2)."""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from hashserv.errors import AddressError

UNIX_PREFIX = "unix://"
WEBSOCKET_PREFIXES = ("ws://", "wss://")

_BRACKETED = re.compile(r"\[(?P<host>[^\]]*)\]:(?P<port>[0-9]+)")
_PLAIN = re.compile(r"(?P<host>[^:/\s]*):(?P<port>[0-9]+)")
_LAST_PORT = 65535


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
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class WebSocketAddress(NamedTuple):
    """A WebSocket, kept as the URI it was given as."""

    uri: str

    def __str__(self) -> str:
        return self.uri


Address = UnixAddress | TcpAddress | WebSocketAddress


def parse_address(text: str) -> Address:
    """Read an address as people write it.

    Args:
        text: ``unix://PATH``, ``HOST:PORT``, ``[V6]:PORT``, ``:PORT`` or a ``ws://``/``wss://``
            URI.

    Raises:
        AddressError: The text is none of these; the message shows the forms.
    """
    if text.startswith(UNIX_PREFIX):
        path = text.removeprefix(UNIX_PREFIX)
        if not path or "\0" in path:
            raise AddressError(f"The address '{text}' names no socket file: write unix://PATH")
        return UnixAddress(path)
    if text.startswith(WEBSOCKET_PREFIXES):
        if not _names_host(text):
            raise AddressError(f"The address '{text}' names no host: write ws://HOST:PORT/PATH")
        return WebSocketAddress(text)
    match = _BRACKETED.fullmatch(text) or _PLAIN.fullmatch(text)
    if match is None or int(match["port"]) > _LAST_PORT:
        raise AddressError(
            f"'{text}' is no address: write unix://PATH, HOST:PORT, [IPV6]:PORT or ws://HOST:PORT"
        )
    return TcpAddress(match["host"], int(match["port"]))


def _names_host(uri: str) -> bool:
    try:
        return bool(urlsplit(uri).hostname)
    except ValueError:  # a bracket that is not closed
        return False
