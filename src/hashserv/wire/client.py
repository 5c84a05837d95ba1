"""The client's role in the protocol (PROTOCOL.md §3-6): what came back, and what it means. No I/O.

The client knows what it asked for, so it says what it expects next: a message, or lines of a
stream mode. `INCOMPLETE`, or no line, means: feed more bytes and ask again.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

import msgspec

from hashserv.errors import InvokeError, ProtocolError
from hashserv.wire.framing import (
    DEFAULT_MAX_CHUNK,
    DEFAULT_MAX_MESSAGE,
    MessageBuffer,
    encode_message,
    is_chunk_start,
)
from hashserv.wire.handshake import MAX_HANDSHAKE, NEEDS_HEADERS, encode_greeting

STREAM_END: Final = b"END\n"
"""The line that ends a stream mode."""

STREAM_ENDED: Final = "ok"
"""The line that answers it."""

STREAM_BEGUN: Final = "ok"
"""The message that answers a request for a stream mode."""


class Incomplete(Enum):
    """The type of `INCOMPLETE`."""

    INCOMPLETE = auto()


INCOMPLETE: Final = Incomplete.INCOMPLETE
"""The bytes so far do not hold the whole of what was asked for."""


class ClientWire:
    """One connection's protocol state on the client.

    Args:
        max_chunk: From `max_chunk - 1` characters on, requests are sent in chunks; `None` never.
        max_message: How many bytes a reply may have.
    """

    __slots__ = (
        *("_headers", "_headers_size", "_max_message", "_message", "_received", "_searched"),
        "max_chunk",
    )

    def __init__(
        self,
        *,
        max_chunk: int | None = DEFAULT_MAX_CHUNK,
        max_message: int = DEFAULT_MAX_MESSAGE,
    ) -> None:
        self.max_chunk = max_chunk
        self._max_message = max_message
        self._message = MessageBuffer(max_message)
        self._received = bytearray()
        self._searched = 0  # so many bytes hold no line feed: a long line is searched once
        self._headers: dict[str, str] = {}
        self._headers_size = 0

    def greeting(self, headers: Mapping[str, str]) -> bytes:
        """Return the handshake to send, with header lines of the caller's."""
        return encode_greeting({NEEDS_HEADERS: "false", **headers})

    def request(self, command: str, arguments: object) -> bytes:
        """Return the bytes of a request."""
        return encode_message({command: arguments}, max_chunk=self.max_chunk)

    def feed(self, data: bytes) -> None:
        """Take bytes as they arrived."""
        self._received += data

    def server_headers(self) -> Mapping[str, str] | Incomplete:
        """Take the server's header lines off what was received, or return `INCOMPLETE`.

        For a greeting with `NEEDS_HEADERS` ``true``. Servers before 2024 send no headers then,
        so a request must have been sent, too: JSON tells that there are none, or no more.
        Names are in lower case.

        Raises:
            ProtocolError: What came is no header line, or there are too many.
        """
        while not self._received.startswith((b"{", b'"')):
            if len(self._received) > MAX_HANDSHAKE and b"\n" not in self._received:
                raise ProtocolError(f"a header line is longer than {MAX_HANDSHAKE} bytes")
            line = self._line()
            if line is None:
                return INCOMPLETE
            self._headers_size += len(line) + 1
            if self._headers_size > MAX_HANDSHAKE:
                raise ProtocolError(f"the headers are longer than {MAX_HANDSHAKE} bytes")
            if not line.strip():
                break
            name, colon, value = line.decode(errors="replace").partition(":")
            if not colon:
                raise ProtocolError(f"a header line without a colon: '{name[:80]}'")
            self._headers[name.strip().lower()] = value.strip()
        return self._headers

    def message(self) -> object:
        """Take the next message off what was received, or return `INCOMPLETE`.

        Raises:
            ProtocolError: What came is no JSON, or a line over the limit.
            InvokeError: The server refused the request, and closes the connection; or its reply
                is over the limit, which asking again would not change.
        """
        while (line := self._line()) is not None:
            text: bytes | None = line
            if self._message.collecting:
                text = self._message.add(line)
            elif is_chunk_start(line):
                self._message.start()
                text = None
            if text is not None:
                return check_reply(_decode(text))
        return INCOMPLETE

    def stream_lines(self, most: int) -> list[str]:
        """Take at most `most` replies of a stream mode off what was received.

        Raises:
            InvokeError: The server refused a line, and said so in place of the reply.
            ProtocolError: A reply is no UTF-8, or over the limit.
        """
        if most <= 0:
            return []
        end = self._received.rfind(b"\n", self._searched)
        if end < 0:
            self._wait_for_line()
            return []
        if self._received.count(b"\n") > most:
            end = len(b"\n".join(self._received.split(b"\n", most)[:most]))
        try:
            text = self._received[:end].decode()
        except UnicodeDecodeError:
            raise ProtocolError("the server's reply is no UTF-8") from None
        self._drop(end + 1)
        lines = text.split("\n")
        if "invoke-error" in text:
            for line in lines:
                _check_line(line)
        if " " in text or "\r" in text:  # never in a unihash: stripping is for odd servers
            return list(map(str.rstrip, lines))
        return lines

    def check_refusal(self) -> None:
        """Look for an error in all that was received, when the server closed unexpectedly.

        Raises:
            InvokeError: The server told why it closed.
        """
        while (line := self._line()) is not None:
            if b"invoke-error" in line:
                _check_line(line.decode(errors="replace"))

    def _line(self) -> bytes | None:
        end = self._received.find(b"\n", self._searched)
        if end < 0:
            self._wait_for_line()
            return None
        line = bytes(self._received[:end])
        self._drop(end + 1)
        return line

    def _wait_for_line(self) -> None:
        """Take note that all that was received is the beginning of a line."""
        self._searched = len(self._received)
        if self._searched > self._max_message:
            raise ProtocolError(f"a line is longer than {self._max_message} bytes")

    def _drop(self, count: int) -> None:
        del self._received[:count]
        self._searched = 0


def check_reply(reply: object) -> object:
    """Return a decoded reply as it is, or raise the error that it carries.

    Raises:
        InvokeError: The reply is an error; its text is the server's.
    """
    if isinstance(reply, dict) and "invoke-error" in reply:
        detail = reply["invoke-error"]
        raise InvokeError(detail.get("message", "") if isinstance(detail, dict) else str(detail))
    return reply


def _check_line(line: str) -> None:
    """Raise the error that a line of a stream mode carries, if it does."""
    if "invoke-error" in line:
        check_reply(_decode(line))


def _decode(text: bytes | str) -> object:
    try:
        reply: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the server's reply is no JSON: {error}") from None
    return reply
