"""The handshake: protocol name, version and header lines (PROTOCOL.md §4). No I/O."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from hashserv.errors import ProtocolError

PROTOCOL_NAME: Final = "OEHASHEQUIV"
PROTOCOL_VERSION: Final = "1.1"
NEEDS_HEADERS: Final = "needs-headers"
SERVER_ID: Final = "server-id"
"""The header by which a server recognizes itself as its own upstream."""

EXTENSIONS: Final = "extensions"
"""The header that names what a server can do beyond the protocol, in words with spaces between."""

_FIRST_VERSION: Final = (1, 0)
_LAST_VERSION: Final = (1, 1)

MAX_HANDSHAKE: Final = 16384
"""Bytes in the lines of a handshake, together."""


class Greeting(NamedTuple):
    """What a client said of itself. Header names are in lower case."""

    version: tuple[int, int]
    headers: Mapping[str, str]

    @property
    def needs_headers(self) -> bool:
        """Whether the client waits for the server's own header lines."""
        return self.headers.get(NEEDS_HEADERS, "").lower() == "true"

    @property
    def has_chunks(self) -> bool:
        """Whether the client understands chunked messages (1.0 does not)."""
        return self.version > _FIRST_VERSION


class Handshake:
    """Collect a client's handshake, line by line, on the server's side."""

    __slots__ = ("_headers", "_size", "_version")

    def __init__(self) -> None:
        self._version: tuple[int, int] | None = None
        self._headers: dict[str, str] = {}
        self._size = 0

    def add(self, line: bytes) -> Greeting | None:
        """Take the next line and return the greeting if it was the last.

        Raises:
            ProtocolError: The line does not belong into a handshake, or there are too many.
        """
        self._size += len(line) + 1
        if self._size > MAX_HANDSHAKE:
            raise ProtocolError(f"the handshake is longer than {MAX_HANDSHAKE} bytes")
        try:
            text = line.decode().strip()
        except UnicodeDecodeError:
            raise ProtocolError("the handshake is no UTF-8") from None
        if self._version is None:
            self._version = _parse_hello(text)
            return None
        if not text:
            return Greeting(self._version, self._headers)
        name, colon, value = text.partition(":")
        if not colon:
            raise ProtocolError(f"a header line without a colon: {_shown(text)}")
        self._headers[name.strip().lower()] = value.strip()
        return None


def encode_greeting(headers: Mapping[str, str]) -> bytes:
    """Return a client's handshake, with the given header lines."""
    hello = f"{PROTOCOL_NAME} {PROTOCOL_VERSION}\n"
    return (hello + encode_headers(headers).decode()).encode()


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Return header lines and the empty line that ends them."""
    return "".join(f"{name}: {value}\n" for name, value in headers.items()).encode() + b"\n"


def _parse_hello(text: str) -> tuple[int, int]:
    name, _, version = text.partition(" ")
    if name != PROTOCOL_NAME:
        raise ProtocolError(f"unknown protocol {_shown(name)}, expected {PROTOCOL_NAME}")
    major, _, minor = version.strip().partition(".")
    try:
        parsed = (int(major), int(minor))
    except ValueError:
        raise ProtocolError(f"unreadable protocol version '{version[:40]}'") from None
    if not _FIRST_VERSION <= parsed <= _LAST_VERSION:
        raise ProtocolError(f"protocol version {version.strip()[:40]} is not 1.0 or 1.1")
    return parsed


def _shown(text: str) -> str:
    """Return what a peer sent in the wrong place; not of a message, which may hold a token."""
    return "of a message" if text.startswith("{") else f"'{text[:40]}'"
